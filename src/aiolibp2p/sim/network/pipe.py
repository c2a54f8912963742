"""One direction of a TCP connection: send buffer, segments, receive buffer, acknowledgements, what is sent again."""

from __future__ import annotations

import contextvars
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from aiolibp2p.sim.network.tap import Kind
from aiolibp2p.sim.scheduler import NS, VirtualTimeLoop

RETRY_MIN_NS = NS // 5
RETRY_MAX_NS = 120 * NS
USER_TIMEOUT_NS = 924_600_000_000
"""What Linux gives an unacknowledged segment (tcp_retries2 = 15) before the socket fails with ETIMEDOUT."""

_system = contextvars.Context()
"""Where what the operating system does runs: it is no program's, and does not stop with one."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The sizes of sockets, in bytes."""

    send_buffer: int = 256 << 10
    """Bytes a socket takes from its program before its peer's has acknowledged them."""
    receive_buffer: int = 256 << 10
    """Bytes a socket holds that its program has not read."""
    segment: int = 64 << 10
    """The largest segment, as on loopback; 1460 on Ethernet. A link with a smaller MTU makes them smaller."""
    read: int = 256 << 10
    """The most one `data_received` gets."""
    ragged: bool = False
    """Cut segments and reads at seeded places, from one byte up to the sizes above."""


class _Segment:
    """A piece of the stream; `order` counts transmissions, so that a repeated one gets a new number."""

    __slots__ = ("data", "fin", "order", "sent_ns", "start")

    def __init__(self, start: int, data: bytes, *, fin: bool) -> None:
        self.start = start
        self.data = data
        self.fin = fin
        self.order = 0
        self.sent_ns = 0


class Pipe:
    """A bounded stream of bytes from one socket to the other.

    The simulation knows which segment was lost, so a pipe needs no timer while none is, and nothing is ever sent twice
    for nothing. A lost segment is sent again when the acknowledgement of a later one tells a real stack of it (fast
    retransmission), or else after its retransmission timeout: a round trip as measured in the handshake and 200 ms,
    doubling up to 120 s. After 924.6 s without any acknowledgement the connection fails.

    Congestion control begins with a loss: until then the peer's window alone bounds what is under way, so that nothing
    but the link decides how long bytes take. A loss halves what may be under way, a timeout leaves one segment of it,
    and acknowledgements raise it again (slow start, then a segment each round trip).
    """

    def __init__(self, loop: VirtualTimeLoop, tuning: Tuning, rng: random.Random | None) -> None:
        """Make a pipe; `rng` cuts segments and reads if given."""
        self._loop = loop
        self._tuning = tuning
        self._rng = rng
        self.forward: Callable[..., None] = _nothing
        """Send a packet from the writer to the reader; its arguments are those of `Endpoint.send_packet`."""
        self.back: Callable[..., None] = _nothing
        """Send a packet from the reader to the writer."""
        self.segment_limit: Callable[[], int | None] = lambda: None
        self.on_room: Callable[[], None] = _nothing
        self.on_readable: Callable[[], None] = _nothing
        self.on_timeout: Callable[[], None] = _nothing
        self.on_unwanted: Callable[[], None] = _nothing
        self.record: Callable[[Kind, bytes], None] | None = None
        self.round_trip_ns = 0
        # The writer's end.
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._sent = 0
        self._acknowledged = 0
        self._window_end = tuning.receive_buffer
        self._ending = False
        self._ended = False
        self._stopped = False
        # The reader's end.
        self._unread: deque[bytes] = deque()
        self._early: dict[int, _Segment] = {}
        self._newest = 0
        self.unread_bytes = 0
        self.eof = False
        self.closed = False
        self.refused = False
        """Whether what arrives is answered with RST."""
        self._vanished = False
        self._arrived = 0
        self._consumed = 0
        self._told = (0, 0, 0)
        self._telling = False
        # What was lost, what of it is to be sent again, and when a real stack would notice without being told.
        self._order = 0
        self._lost: dict[int, _Segment] = {}
        self._again: deque[_Segment] = deque()
        self._missing_bytes = 0
        self._lost_acknowledgement = False
        self._retry_armed = False
        self._retries = 0
        self._failing_since_ns: int | None = None
        # Congestion; None is no limit.
        self._congestion: int | None = None
        self._slow_start_until = 0
        self._recovers_at = 0

    # The writer's end

    def write(self, data: bytes | memoryview) -> int:
        """Take what the send buffer has room for and return how many bytes that was."""
        taken = min(len(data), self._tuning.send_buffer - self._queued - (self._sent - self._acknowledged))
        if taken <= 0 or self._stopped:
            return 0
        self._queue.append(bytes(data[:taken]))
        self._queued += taken
        self._pump()
        return taken

    def end(self) -> None:
        """Send FIN behind everything taken so far."""
        self._ending = True
        self._pump()

    def stop(self) -> None:
        """Drop what is queued and send nothing any more."""
        self._stopped = True
        self._queue.clear()
        self._queued = 0
        self._lost.clear()
        self._again.clear()

    @property
    def next_sequence(self) -> int:
        """The number of the next byte that is sent, as on packets: SYN is 0, and FIN counts as one byte."""
        return self._sent + 1 + self._ended

    @property
    def expected_sequence(self) -> int:
        """The number of the next byte that has not arrived."""
        return self._arrived + 1 + self.eof

    def _segment_bytes(self) -> int:
        limit = self.segment_limit()
        return self._tuning.segment if limit is None else min(limit, self._tuning.segment)

    def _room(self) -> int:
        """Return how many more bytes congestion lets be under way."""
        if self._congestion is None:
            return self._tuning.receive_buffer
        return self._congestion - (self._sent - self._acknowledged - self._missing_bytes)

    def _pump(self, again: int = 0) -> None:
        """Send what may be sent; `again` lost segments go whatever congestion says."""
        while self._again and (again > 0 or len(self._again[0].data) <= self._room()):
            again -= 1
            segment = self._again.popleft()
            self._missing_bytes -= len(segment.data)
            self._send(segment)
        if self._queued and not self._again:
            self._pump_new(self._segment_bytes())
        if self._ending and not self._ended and not self._queued and not self._stopped:
            self._ship(b"", fin=True)

    def _pump_new(self, limit: int) -> None:
        while self._queued:
            size = limit if self._rng is None else self._rng.randint(1, limit)
            room = min(self._window_end - self._sent, self._room())
            if room < min(size, self._queued) and self._sent > self._acknowledged:
                break  # no silly small segments: the window opens with the next acknowledgement
            size = min(size, self._queued, room)
            if size <= 0:
                break
            self._ship(self._take(size), fin=False)
        if self._queued and self._vanished and not self._lost:
            self._lose_acknowledgement()  # nobody will open the window: it has to be probed

    def _take(self, size: int) -> bytes:
        parts = []
        self._queued -= size
        while size:
            part = self._queue.popleft()
            if len(part) > size:
                self._queue.appendleft(part[size:])
                part = part[:size]
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _ship(self, data: bytes, *, fin: bool) -> None:
        segment = _Segment(self._sent, data, fin=fin)
        self._sent += len(data)
        self._ended = fin
        if self.record is not None:
            self.record("fin" if fin else "data", data)
        self._send(segment)

    def _send(self, segment: _Segment) -> None:
        order = segment.order = self._order = self._order + 1
        segment.sent_ns = self._loop.time_ns()
        self.forward(
            "fin ack" if segment.fin else "ack",
            self._arrive,
            self._lose,
            (segment, order),
            segment.data,
            segment.start + 1,
        )

    def _acknowledge(self, arrived: int, consumed: int, newest: int) -> None:
        self._retries = 0
        self._failing_since_ns = None
        if self._stopped:
            return
        freed = arrived - self._acknowledged
        if freed > 0:
            self._acknowledged = arrived
            self._grow(freed)
        self._window_end = max(self._window_end, consumed + self._tuning.receive_buffer)
        if self._lost:
            self._learn_of_losses(newest)
        self._pump(again=1)
        if freed > 0:
            self.on_room()

    # The reader's end

    def _arrive(self, segment: _Segment, order: int) -> None:
        self._newest = max(self._newest, order)
        if segment.start < self._arrived:
            self._tell_again()  # a repetition
            return
        if self.closed:
            if segment.data:
                self.on_unwanted()
            return
        self._early[segment.start] = segment
        if segment.start > self._arrived:
            self._tell()
            return
        while (following := self._early.pop(self._arrived, None)) is not None:
            self._accept(following)
            if following.fin:
                break
        self.on_readable()

    def _accept(self, segment: _Segment) -> None:
        if segment.data:
            self._unread.append(segment.data)
            self.unread_bytes += len(segment.data)
            self._arrived += len(segment.data)
            self._tell()
        if segment.fin:
            self.eof = True
            self._retries = 0  # nobody acknowledges a FIN here
            self._failing_since_ns = None

    def read(self, limit: int) -> bytes:
        """Return up to `limit` bytes of what has arrived."""
        limit = min(limit, self._tuning.read)
        if self._rng is not None:
            limit = self._rng.randint(1, limit)
        parts: list[bytes] = []
        size = 0
        while self._unread and size < limit:
            part = self._unread.popleft()
            if size + len(part) > limit:
                self._unread.appendleft(part[limit - size :])
                part = part[: limit - size]
            parts.append(part)
            size += len(part)
        self.unread_bytes -= size
        self._consumed += size
        self._tell()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Read nothing any more; what arrives from now on is unwanted."""
        self.closed = True
        self._unread.clear()
        self._early.clear()
        self.unread_bytes = 0

    def vanish(self) -> None:
        """Be forgotten by the reader's host: nothing is acknowledged any more."""
        self.close()
        self._vanished = True
        if self._queued or self._sent > self._acknowledged:
            self._lose_acknowledgement()

    def _tell(self) -> None:
        # One acknowledgement answers what arrives and is read in one turn of the loop.
        if not self._telling:
            self._telling = True
            self._loop.call_soon(self._send_acknowledgement, context=_system)

    def _answer(self) -> None:
        if self.refused:
            self.on_unwanted()
        else:
            self._tell_again()

    def _tell_again(self) -> None:
        self._told = (-1, -1, -1)
        self._tell()

    def _send_acknowledgement(self) -> None:
        self._telling = False
        news = (self._arrived, self._consumed, self._newest if self._early else 0)
        if news != self._told and not self._vanished:
            self._told = news
            known = (self._arrived, self._consumed, self._newest)
            self.back("ack", self._acknowledge, self._lose_acknowledgement, known)

    # Loss

    def _lose(self, segment: _Segment, order: int) -> None:
        if self._stopped or order != segment.order or segment.start in self._lost:
            return
        self._lost[segment.start] = segment
        self._missing_bytes += len(segment.data)
        self._arm_retry(segment.sent_ns)

    def _lose_acknowledgement(self, *_known: int) -> None:
        self._lost_acknowledgement = True
        self._arm_retry(self._loop.time_ns())

    def lose_answer(self) -> None:
        """Lose the RST that answered something of the writer's, who waits for an acknowledgement all the same."""
        if self._queued or self._sent > self._acknowledged or (self._ended and not self.eof):
            self._lose_acknowledgement()

    def _learn_of_losses(self, newest: int) -> None:
        """Send again what was lost before a segment that has arrived was sent."""
        known = [segment for segment in self._lost.values() if segment.order < newest]
        if not known:
            return
        self._repeat(known)
        if max(map(_position, known)) >= self._recovers_at:
            self._shrink(timed_out=False)

    def _repeat(self, segments: list[_Segment]) -> None:
        for segment in segments:
            del self._lost[segment.start]
        self._again = deque(sorted((*self._again, *segments), key=_position))

    def _arm_retry(self, sent_ns: int) -> None:
        if self._retry_armed:
            return
        self._retry_armed = True
        now_ns = self._loop.time_ns()
        if self._failing_since_ns is None:
            self._failing_since_ns = now_ns
        timeout_ns = (self.round_trip_ns + RETRY_MIN_NS) << min(self._retries, 16)
        retries_ns = max(sent_ns + min(timeout_ns, RETRY_MAX_NS), now_ns)
        self._loop.call_at_ns(min(retries_ns, self._failing_since_ns + USER_TIMEOUT_NS), self._retry)

    def _retry(self) -> None:
        self._retry_armed = False
        if self._stopped or not (self._lost or self._lost_acknowledgement):
            return
        since_ns = self._failing_since_ns
        if since_ns is not None and self._loop.time_ns() >= since_ns + USER_TIMEOUT_NS:
            if self._queued or self._lost or self._sent > self._acknowledged:
                self.on_timeout()
            return
        self._retries += 1
        if self._lost_acknowledgement:
            # The writer, who has heard nothing, sends something again.
            self._lost_acknowledgement = False
            self.forward("ack", self._answer, self._lose_acknowledgement)
        if self._lost:
            self._shrink(timed_out=True)
            self._repeat(list(self._lost.values()))
            self._pump(again=1)

    # Congestion

    def _shrink(self, *, timed_out: bool) -> None:
        segment = self._segment_bytes()
        self._slow_start_until = max((self._sent - self._acknowledged) // 2, 2 * segment)
        self._congestion = segment if timed_out else self._slow_start_until
        self._recovers_at = self._sent

    def _grow(self, acknowledged: int) -> None:
        if self._congestion is None:
            return
        if self._congestion < self._slow_start_until:
            self._congestion += acknowledged
        else:
            self._congestion += max(1, self._segment_bytes() * acknowledged // self._congestion)
        if self._congestion >= self._tuning.receive_buffer:
            self._congestion = None


def _position(segment: _Segment) -> int:
    return segment.start


def _nothing(*_arguments: object) -> None:
    pass
