"""One direction of a TCP connection: send buffer, segments, receive buffer, acknowledgements."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from aiolibp2p.sim.network.tap import Kind
from aiolibp2p.sim.network.wire import Packet, Wire
from aiolibp2p.sim.scheduler import NS, VirtualTimeLoop

RETRY_MIN_NS = NS // 5
RETRY_MAX_NS = 120 * NS
USER_TIMEOUT_NS = 924_600_000_000
"""What Linux gives an unacknowledged segment (tcp_retries2 = 15) before the socket fails with ETIMEDOUT."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The sizes of sockets, in bytes."""

    send_buffer: int = 256 << 10
    """Bytes a socket takes from its program before its peer's has acknowledged them."""
    receive_buffer: int = 256 << 10
    """Bytes a socket holds that its program has not read."""
    segment: int = 64 << 10
    """The largest segment, as on loopback; 1460 on Ethernet."""
    read: int = 256 << 10
    """The most one `data_received` gets."""
    ragged: bool = False
    """Cut segments and reads at seeded places, from one byte up to the sizes above."""


class Pipe:
    """A bounded stream of bytes from one socket to the other.

    The simulation knows which segment was lost, so a pipe needs no timer while none is: a lost segment and all behind
    it are sent again after the time a real stack would have waited, and given up when a real stack would give up.
    """

    def __init__(
        self, loop: VirtualTimeLoop, wires: tuple[Wire, Wire], tuning: Tuning, rng: random.Random | None
    ) -> None:
        """Make a pipe; `wires` carry its segments forward and its acknowledgements back, `rng` cuts both if given."""
        self._loop = loop
        self._forward, self._back = wires
        self._tuning = tuning
        self._rng = rng
        self.on_room: Callable[[], None] = _nothing
        self.on_readable: Callable[[], None] = _nothing
        self.on_timeout: Callable[[], None] = _nothing
        self.on_unwanted: Callable[[], None] = _nothing
        self.record: Callable[[Kind, bytes], None] | None = None
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
        self.unread_bytes = 0
        self.eof = False
        self.closed = False
        self._arrived = 0
        self._consumed = 0
        self._told = (0, 0)
        self._telling = False
        # What was lost, and when it is sent again.
        self._lost: deque[tuple[bytes, bool]] = deque()
        self._lost_acknowledgement = False
        self._retry_armed = False
        self._retries = 0
        self._failing_since_ns = 0

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

    @property
    def drained(self) -> bool:
        """Whether nothing waits to be sent or acknowledged any more."""
        return self._stopped or (self._ended and not self._lost and self._sent == self._acknowledged)

    def _pump(self) -> None:
        limit = self._tuning.segment
        while self._queued and not self._lost:
            size = limit if self._rng is None else self._rng.randint(1, limit)
            room = self._window_end - self._sent
            if room < min(size, self._queued) and self._sent > self._acknowledged:
                return  # no silly small segments: the window opens with the next acknowledgement
            size = min(size, self._queued, room)
            if size <= 0:
                return
            self._ship(self._take(size), fin=False)
        if self._ending and not self._ended and not self._queued and not self._lost and not self._stopped:
            self._ended = True
            self._ship(b"", fin=True)

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
        self._sent += len(data)
        if self.record is not None:
            self.record("fin" if fin else "data", data)
        self._send(data, fin)

    def _send(self, data: bytes, fin: bool) -> None:
        self._forward.send(Packet(len(data), partial(self._arrive, data, fin), partial(self._lose, data, fin)))

    def _acknowledge(self, arrived: int, consumed: int) -> None:
        self._retries = 0
        if self._stopped:
            return
        freed = arrived > self._acknowledged
        self._acknowledged = arrived
        self._window_end = consumed + self._tuning.receive_buffer
        self._pump()
        if freed:
            self.on_room()

    # The reader's end

    def _arrive(self, data: bytes, fin: bool) -> None:
        if self.closed:
            if data:
                self.on_unwanted()
            return
        if data:
            self._unread.append(data)
            self.unread_bytes += len(data)
            self._arrived += len(data)
            self._tell()
        self.eof = self.eof or fin
        self.on_readable()

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
        self.unread_bytes = 0

    def _tell(self) -> None:
        # One acknowledgement answers what arrives and is read in one turn of the loop.
        if not self._telling:
            self._telling = True
            self._loop.call_soon(self._send_acknowledgement)

    def _send_acknowledgement(self) -> None:
        self._telling = False
        news = (self._arrived, self._consumed)
        if news != self._told:
            self._told = news
            self._back.send(Packet(0, partial(self._acknowledge, *news), self._lose_acknowledgement))

    # Loss

    def _lose(self, data: bytes, fin: bool) -> None:
        if not self._stopped:
            self._lost.append((data, fin))
            self._arm_retry()

    def _lose_acknowledgement(self) -> None:
        self._lost_acknowledgement = True
        self._arm_retry()

    def _arm_retry(self) -> None:
        if self._retry_armed:
            return
        self._retry_armed = True
        now_ns = self._loop.time_ns()
        if not self._retries:
            self._failing_since_ns = now_ns
        delay_ns = min(RETRY_MIN_NS << min(self._retries, 16), RETRY_MAX_NS)
        self._retries += 1
        deadline_ns = self._failing_since_ns + USER_TIMEOUT_NS
        if now_ns + delay_ns < deadline_ns:
            self._loop.call_at_ns(now_ns + delay_ns, self._retry)
        else:
            self._loop.call_at_ns(deadline_ns, self._time_out)

    def _retry(self) -> None:
        self._retry_armed = False
        if self._stopped:
            return
        if self._lost_acknowledgement:
            self._lost_acknowledgement = False
            self._told = (-1, -1)
            self._tell()
        lost, self._lost = self._lost, deque()
        for data, fin in lost:
            self._send(data, fin)
        if lost:
            self._pump()

    def _time_out(self) -> None:
        self._retry_armed = False
        if self._lost or self._sent > self._acknowledged:
            self.on_timeout()


def _nothing() -> None:
    pass
