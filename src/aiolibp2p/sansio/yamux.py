"""Yamux 0: one session over a byte stream, with its streams and their flow control, as a state machine.

Implements the Yamux section of the libp2p specs, with the window auto-tuning of go and js and go's reset codes (a code
in the Length of a WindowUpdate|RST). What a peer did is never raised: `changed` lists the streams on which something
happened, `terminated` says why the session ended. Bytes received stay in the stream until they are read; bytes written
stay until `bytes_to_send` pulls them: control frames first, then one frame of each stream in turn.

    open_stream ──SYN──▶ open ──close_write──▶ half closed ──peer's FIN──▶ gone
                           └──reset, peer's RST, session's end──▶ gone
"""

from __future__ import annotations

import struct

from aiolibp2p.errors import (
    By,
    ConnectionEndedError,
    DeadlineError,
    Libp2pError,
    LimitError,
    LocalProtocolError,
    RemoteProtocolError,
)
from aiolibp2p.limits import Limits, Refused, Timeouts, unheard
from aiolibp2p.sansio.yamux_stream import ACK, FIN, INITIAL_WINDOW_BYTES, RST, SYN, Buffer, YamuxStream

__all__ = [
    "ACK",
    "DATA",
    "FIN",
    "FRAME_BYTES",
    "GO_AWAY",
    "GO_AWAY_INTERNAL_ERROR",
    "GO_AWAY_NORMAL",
    "GO_AWAY_PROTOCOL_ERROR",
    "HEADER_BYTES",
    "INITIAL_WINDOW_BYTES",
    "OPENED",
    "PING",
    "PROTOCOL",
    "READABLE",
    "RESET",
    "RESOURCE_LIMIT",
    "RST",
    "SYN",
    "WINDOW_UPDATE",
    "WRITABLE",
    "Buffer",
    "YamuxSession",
    "YamuxStream",
]

PROTOCOL = "/yamux/1.0.0"
HEADER_BYTES = 12
FRAME_BYTES = 65_519 - HEADER_BYTES
"""Payload of our largest Data frame: with its header it fills one Noise message."""
DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
GO_AWAY_NORMAL, GO_AWAY_PROTOCOL_ERROR, GO_AWAY_INTERNAL_ERROR = range(3)
RESOURCE_LIMIT = 0x1002
"""go-libp2p's stream code for "a limit was reached"."""

OPENED, READABLE, WRITABLE, RESET = 1, 2, 4, 8
"""Bits of `YamuxStream.events`."""

_pack = struct.Struct(">BBHII").pack
_unpack = struct.Struct(">III").unpack_from
"""A header as three words: the first is 0 for a Data frame without flags, which most frames are."""
_MAX_U32 = 0xFFFF_FFFF
_KEEP_VIEW_BYTES = 16 << 10
"""From this size a chunk that is half of the record it came in stays a view of it. Others are copied: what lies unread
pins at most twice its size."""
_TINY_BYTES = 1 << 10
"""Unread chunks below this size are joined, or a peer's one-byte frames would cost forty bytes each."""

_CLOCK_STEP = 0.001
"""Some clocks go in steps of this: a round trip of nothing means less than this."""

_DEAD_MAX = 64
"""Reset streams that may wait in the send queue before they are swept out."""


class YamuxSession:
    """One session over a reliable byte stream; `initiator` opens odd ids, `refused` hears of limits reached."""

    __slots__ = (
        "_body_fin",
        "_body_left",
        "_body_stream",
        "_control",
        "_dead",
        "_finished",
        "_forgotten",
        "_heard",
        "_keepalive_ping",
        "_last_ping",
        "_last_received",
        "_next_id",
        "_partial",
        "_peer_parity",
        "_ping_id",
        "_ping_sent",
        "_refused",
        "_said_go_away",
        "_unacknowledged",
        "_windows",
        "changed",
        "control_bytes",
        "going_away",
        "limits",
        "now",
        "openable",
        "room",
        "round_trip",
        "scheduled",
        "stream_window",
        "streams",
        "terminated",
        "timeouts",
        "unread_bytes",
    )

    def __init__(
        self, *, initiator: bool, limits: Limits, timeouts: Timeouts, now: float, refused: Refused = unheard
    ) -> None:
        self.limits = limits
        self.timeouts = timeouts
        self.now = now
        """The latest clock reading given."""
        self.streams: dict[int, YamuxStream] = {}
        self.changed: list[YamuxStream] = []
        """Streams with `events`, each once; the shell empties it."""
        self.room = limits.connection_send_bytes
        """Bytes that may still be queued over all streams."""
        self.unread_bytes = 0
        self.terminated: Libp2pError | None = None
        self.going_away: int | None = None
        """The code of the peer's GoAway: no new streams."""
        self.openable = False
        """Set when an open that had to wait may be tried again; the shell clears it."""
        self.round_trip: float | None = None
        self.stream_window = max(limits.yamux_window, INITIAL_WINDOW_BYTES)
        """What the peer may send on a new stream."""
        self._refused = refused
        self._next_id = 1 if initiator else 2
        self._peer_parity = 0 if initiator else 1
        self._unacknowledged = 0
        self._heard = not initiator
        """Whether the peer has sent anything: until then only `Limits.early_streams` may be opened."""
        self._control: list[bytes] = []
        self.control_bytes = 0
        """Bytes of control frames to send."""
        self.scheduled: list[YamuxStream] = []
        """Streams with something to send, in turn; with `control_bytes`, all that `bytes_to_send` looks at."""
        self._partial = b""
        self._body_left = 0
        self._body_stream: YamuxStream | None = None
        self._body_fin = False
        self._forgotten: dict[int, int] = {}
        self._finished: dict[YamuxStream, None] = {}
        """Streams that both sides have finished and that still hold unread bytes."""
        self._windows = 0
        """The sum of the windows of `streams`."""
        self._dead = 0
        """Streams in `scheduled` that were reset."""
        self._last_received = now
        self._ping_id = 0
        self._ping_sent: float | None = None
        self._last_ping = now
        self._keepalive_ping = False
        self._said_go_away = False
        self._ping()

    # -- commands ----------------------------------------------------------------------------------------------------

    @property
    def can_open(self) -> bool:
        """Whether a stream can be opened now: the peer has acknowledged enough of the earlier ones."""
        return (
            self._unacknowledged < self.limits.yamux_ack_backlog
            and (self._heard or self._next_id >> 1 < self.limits.early_streams)
            and self.going_away is None
            and not self._said_go_away
            and self.terminated is None
        )

    def open_stream(self) -> YamuxStream:
        """Open a stream; SYN leaves with its first bytes.

        Raises:
            LocalProtocolError: `can_open` is false, or the ids are used up.
        """
        if not self.can_open or self._next_id > _MAX_U32:
            raise LocalProtocolError("no stream can be opened on this session now")
        stream = YamuxStream(self, self._next_id, SYN)
        self._next_id += 2
        self._unacknowledged += 1
        self.streams[stream.id] = stream
        self._windows += stream.window
        stream.scheduled = True
        self.scheduled.append(stream)
        return stream

    def go_away(self, code: int = GO_AWAY_NORMAL) -> None:
        """Tell the peer that no new streams are taken; a second call does nothing."""
        if not self._said_go_away:
            self._said_go_away = True
            self._queue_control(GO_AWAY, 0, 0, code)

    # -- inputs ------------------------------------------------------------------------------------------------------

    def receive_bytes(self, data: bytes, now: float) -> None:
        """Take bytes from the peer, cut anywhere; what they changed is in `changed` and `terminated`.

        Args:
            data: kept where it is large: it must not change.
        """
        self.now = self._last_received = now
        if self.terminated is not None:
            return
        if self._partial:
            data = self._partial + data
            self._partial = b""
        position, end = 0, len(data)
        if not self._heard:
            self._heard = self.openable = True
        if self._body_left:
            position = self._receive_body(data, 0, end)
        while end - position >= HEADER_BYTES and self.terminated is None:
            head, stream_id, length = _unpack(data, position)
            position += HEADER_BYTES
            if head == 0 and 0 < length <= end - position:
                stream = self.streams.get(stream_id)
                if (
                    stream is not None
                    and stream.acknowledged
                    and length <= stream.receive_window
                    and not (stream.fin_received or stream.discarding)
                ):
                    # The whole of an ordinary frame, as below in one go.
                    stream.receive_window -= length
                    after = position + length
                    self._store(stream, data, position, after)
                    position = after
                    continue
            flags = head & 0xFFFF
            if head == flags:
                if not self._receive_data_header(flags, stream_id, length):
                    return
                position = self._receive_body(data, position, end)
            elif not self._receive_control(head >> 24, head >> 16 & 0xFF, flags, stream_id, length):
                return
        if position < end and self.terminated is None:
            self._partial = data[position:]

    def receive_eof(self) -> None:
        """Take the end of the byte stream: the session is over."""
        if self.terminated is None:
            where = "in the middle of a frame" if self._partial or self._body_left else ""
            self._end(ConnectionEndedError(where, by="remote", code=self.going_away))

    def terminate(self, error: Libp2pError, code: int | None = GO_AWAY_PROTOCOL_ERROR) -> None:
        """End the session: every stream is over, and GoAway with `code` (unless None) is the last thing sent."""
        if self.terminated is not None:
            return
        if code is not None:
            self._said_go_away = self._said_go_away and code == GO_AWAY_NORMAL
            self.go_away(code)
        self._end(error)

    def next_timeout(self) -> float:
        """Return when `handle_timeout` wants to be called."""
        if self._keepalive_ping:
            assert self._ping_sent is not None  # set together with _keepalive_ping
            return self._ping_sent + self.timeouts.keepalive_answer
        return min(self._last_received, self._last_ping) + self.timeouts.keepalive

    def handle_timeout(self, now: float) -> None:
        """Ask a quiet peer whether it lives, and end the session when it does not say so in time.

        A busy one is asked as often, for the round trip: its windows would never grow to a way that has become longer.
        """
        self.now = max(self.now, now)
        if self.terminated is not None or now < self.next_timeout():
            return
        if self._keepalive_ping:
            if self._ping_sent is not None and self._last_received > self._ping_sent:
                self._keepalive_ping = False
                return
            seconds = self.timeouts.keepalive_answer
            self.terminate(DeadlineError("keepalive_answer", seconds, stage="connection"), GO_AWAY_INTERNAL_ERROR)
            return
        self._keepalive_ping = now >= self._last_received + self.timeouts.keepalive
        self._ping()

    # -- outputs -----------------------------------------------------------------------------------------------------

    @property
    def has_output(self) -> bool:
        """Whether `bytes_to_send` would return something."""
        return bool(self.control_bytes or self.scheduled)

    def bytes_to_send(self, max_bytes: int) -> list[Buffer]:
        """Return what to send next, in pieces: all control frames, then streams in turn up to about `max_bytes`.

        A Data frame ends where a Noise message ends, so that the peer finds whole frames in a message.
        """
        parts: list[Buffer] = []
        total = self.control_bytes
        if total:
            parts += self._control
            self._control.clear()
            self.control_bytes = 0
        scheduled = self.scheduled
        while scheduled and total < max_bytes:
            stream = scheduled.pop(0)
            stream.scheduled = False
            size = stream.queued_bytes
            if 0 < size <= _TINY_BYTES and not (stream.start_flag or stream.fin_queued):
                # A message on a stream that goes on, as `_pull` would send it.
                parts.append(_pack(0, DATA, 0, stream.id, size))
                parts += stream.queue
                stream.queue.clear()
                stream.queued_bytes = 0
                self.room += size
                total += HEADER_BYTES + size
            elif stream.reset_by is None:
                total += self._pull(stream, parts, total)
            else:
                self._dead -= 1
        return parts

    def _pull(self, stream: YamuxStream, parts: list[Buffer], total: int) -> int:
        """Append one frame of the stream, and its FIN when that is all it has left; return their bytes."""
        size = stream.queued_bytes
        flags, stream.start_flag = stream.start_flag, 0
        sent = 0
        if size:
            if size > _TINY_BYTES:
                room = FRAME_BYTES - total % (FRAME_BYTES + HEADER_BYTES)
                size = min(size, room if room >= _TINY_BYTES else FRAME_BYTES)
            parts.append(_pack(0, DATA, flags, stream.id, size))
            if size == stream.queued_bytes:
                parts += stream.queue
                stream.queue.clear()
            else:
                self._take(stream, parts, size)
            stream.queued_bytes -= size
            self.room += size
            sent = HEADER_BYTES + size
        elif flags:
            parts.append(_pack(0, WINDOW_UPDATE, flags, stream.id, 0))
            sent = HEADER_BYTES
        if flags and self.limits.yamux_window > INITIAL_WINDOW_BYTES:
            parts.append(_pack(0, WINDOW_UPDATE, 0, stream.id, self.limits.yamux_window - INITIAL_WINDOW_BYTES))
            sent += HEADER_BYTES
        if stream.queued_bytes:
            stream.scheduled = True
            self.scheduled.append(stream)
        elif stream.fin_queued and not stream.fin_sent:
            # FIN has a frame of its own: js-libp2p 3 drops the payload of a Data frame that carries it.
            parts.append(_pack(0, WINDOW_UPDATE, FIN, stream.id, 0))
            stream.fin_sent = True
            sent += HEADER_BYTES
            if stream.forgotten:
                self._forget(stream)
            elif stream.fin_received:
                self._remove(stream)
        return sent

    def _take(self, stream: YamuxStream, parts: list[Buffer], size: int) -> None:
        """Move the first `size` bytes, fewer than all, from the stream's queue."""
        queue = stream.queue
        used, left = 0, size
        for piece in queue:
            length = len(piece)
            if length > left:
                if left:
                    view = memoryview(piece)
                    parts.append(view[:left])
                    queue[used] = view[left:]
                break
            parts.append(piece)
            left -= length
            used += 1
        del queue[:used]

    # -- receiving ---------------------------------------------------------------------------------------------------

    def _receive_data_header(self, flags: int, stream_id: int, length: int) -> bool:
        """Account a Data frame and set where its body goes; False when the session is over."""
        stream = self.streams.get(stream_id)
        if flags & SYN:
            stream = self._receive_syn(stream, stream_id)
            if stream is None:
                return False
        self._body_left = length
        self._body_stream = None
        self._body_fin = False
        if stream is None:
            if length:
                self._count_late(stream_id, length)
            return True
        if not stream.acknowledged:
            self._acknowledge(stream)
        if flags & RST:
            self._receive_reset(stream, 0)
            return True
        if stream.fin_received:
            if length:
                self._reset(stream, 0)
            return True
        if length > stream.receive_window:
            return self._protocol_error(
                f"{length} bytes for stream {stream_id}, which had {stream.receive_window} left"
            )
        stream.receive_window -= length
        self._body_stream = stream
        self._body_fin = flags & FIN != 0
        return True

    def _receive_body(self, data: bytes, position: int, end: int) -> int:
        """Give what is here of a Data frame's body, and its FIN, to its stream; return the position after it."""
        size = self._body_left
        after = position + size
        if after > end:
            after = end
            size = end - position
        self._body_left -= size
        stream = self._body_stream
        if stream is None or stream.reset_by is not None:
            return after
        if size:
            if stream.discarding:
                self._return_credit(stream)
            else:
                self._store(stream, data, position, after)
        if self._body_fin and not self._body_left and stream.reset_by is None:
            self._receive_fin(stream)
        return after

    def _store(self, stream: YamuxStream, data: bytes, position: int, after: int) -> None:
        size = after - position
        chunks = stream.chunks
        if size >= _KEEP_VIEW_BYTES and size * 2 >= len(data):
            chunks.append(memoryview(data)[position:after])
        elif chunks and size < _TINY_BYTES and len(chunks[-1]) < _KEEP_VIEW_BYTES:
            tail = chunks[-1]
            if type(tail) is not bytearray:
                tail = chunks[-1] = bytearray(tail)
            tail += data[position:after]
        else:
            chunks.append(data[position:after])
        stream.unread_bytes += size
        self.unread_bytes += size
        if not stream.events:
            self.changed.append(stream)
        stream.events |= READABLE
        if self.unread_bytes > self.limits.connection_unread_bytes:
            self._reset_longest()

    def _receive_control(self, version: int, kind: int, flags: int, stream_id: int, length: int) -> bool:
        """Take any frame but Data; False when the session is over."""
        if version != 0 or kind > GO_AWAY:
            return self._protocol_error(f"frame of version {version} and type {kind}")
        if kind == WINDOW_UPDATE:
            return self._receive_window_update(flags, stream_id, length)
        if kind == PING:
            if flags & SYN:
                self._queue_control(PING, ACK, 0, length)
            elif flags & ACK and self._ping_sent is not None and length == self._ping_id:
                self.round_trip = self.now - self._ping_sent
                self._ping_sent = None
                self._keepalive_ping = False
            return True
        self.going_away = length
        if length != GO_AWAY_NORMAL:
            self._end(ConnectionEndedError("GoAway", by="remote", code=length))
            return False
        self.openable = True
        return True

    def _receive_window_update(self, flags: int, stream_id: int, length: int) -> bool:
        stream = self.streams.get(stream_id)
        if flags & SYN:
            stream = self._receive_syn(stream, stream_id)
            if stream is None:
                return False
        if stream is None:
            return True
        if not stream.acknowledged:
            self._acknowledge(stream)
        if flags & RST:
            self._receive_reset(stream, length)
            return True
        if length:
            if stream.send_window + length > _MAX_U32:
                return self._protocol_error(f"window of stream {stream_id} over 4 GiB")
            stream.send_window += length
            if stream.want_write:
                stream.want_write = False
                self._note(stream, WRITABLE)
        if flags & FIN:
            self._receive_fin(stream)
        return True

    def _receive_syn(self, stream: YamuxStream | None, stream_id: int) -> YamuxStream | None:
        # Ids need not come in order: go-yamux takes one first and sends its SYN later, from several goroutines.
        if stream is not None or stream_id & 1 != self._peer_parity or stream_id == 0:
            self._protocol_error(f"SYN for stream {stream_id}")
            return None
        self._forgotten.pop(stream_id, None)
        stream = self.streams[stream_id] = YamuxStream(self, stream_id, ACK)
        self._windows += stream.window
        stream.scheduled = True
        self.scheduled.append(stream)
        if self._said_go_away:
            self._reset(stream, 0)
        else:
            self._note(stream, OPENED)
        return stream

    def _receive_fin(self, stream: YamuxStream) -> None:
        if stream.fin_received:
            return
        stream.fin_received = True
        if stream.fin_sent:
            self._remove(stream)
        self._note(stream, READABLE)

    def _receive_reset(self, stream: YamuxStream, code: int) -> None:
        if 0 < stream.unread_bytes <= _TINY_BYTES:
            stream.last_words = b"".join(stream.chunks)
        self._abandon(stream, "remote", code)
        self._note(stream, RESET)

    def _count_late(self, stream_id: int, length: int) -> None:
        late = self._forgotten.get(stream_id)
        if late is None:
            return
        if late + length > self.limits.forgotten_bytes:
            del self._forgotten[stream_id]
            self._refused("forgotten_bytes")
            self._queue_control(WINDOW_UPDATE, RST, stream_id, 0)
        else:
            self._forgotten[stream_id] = late + length

    # -- ends --------------------------------------------------------------------------------------------------------

    def _reset(self, stream: YamuxStream, code: int) -> None:
        if stream.start_flag != SYN and stream not in self._finished:  # otherwise the peer does not know it
            self._queue_control(WINDOW_UPDATE, RST, stream.id, code)
        self._abandon(stream, "local", code)
        self._note(stream, RESET)

    def _abandon(self, stream: YamuxStream, by: By, code: int) -> None:
        stream.reset_by = by
        stream.reset_code = code
        self.room += stream.queued_bytes
        stream.queued_bytes = 0
        stream.queue.clear()
        self._drop_unread(stream)
        self._remove(stream)
        if stream.scheduled:
            # A peer that opens and resets without reading must not fill the queue with dead streams.
            self._dead += 1
            if self._dead > _DEAD_MAX and self._dead * 2 > len(self.scheduled):
                self.scheduled = [other for other in self.scheduled if other.reset_by is None]
                self._dead = 0

    def _reset_longest(self) -> None:
        held = (*self.streams.values(), *self._finished)
        longest = max(held, key=lambda stream: stream.unread_bytes, default=None)
        if longest is not None and longest.unread_bytes:
            self._refused("connection_unread_bytes")
            self._reset(longest, RESOURCE_LIMIT)

    def _remove(self, stream: YamuxStream) -> None:
        if self.streams.get(stream.id) is not stream:
            return
        del self.streams[stream.id]
        self._windows -= stream.window
        if not stream.acknowledged:
            self._acknowledge(stream)
        if stream.unread_bytes:
            self._finished[stream] = None

    def _forget(self, stream: YamuxStream) -> None:
        if self.streams.get(stream.id) is not stream:
            return
        self._remove(stream)
        forgotten = self._forgotten
        if len(forgotten) >= self.limits.forgotten_ids:
            del forgotten[next(iter(forgotten))]
            self._refused("forgotten_ids")
        forgotten[stream.id] = 0

    def _drop_unread(self, stream: YamuxStream) -> None:
        self.unread_bytes -= stream.unread_bytes
        stream.unread_bytes = 0
        stream.chunks.clear()
        self._finished.pop(stream, None)

    def _protocol_error(self, message: str) -> bool:
        self.terminate(RemoteProtocolError(message, protocol="yamux", stage="connection"))
        return False

    def _end(self, error: Libp2pError) -> None:
        self.terminated = error
        self._partial = b""
        self._body_left = 0
        self._body_stream = None
        self.scheduled.clear()

    # -- small things ------------------------------------------------------------------------------------------------

    def _note(self, stream: YamuxStream, event: int) -> None:
        if not stream.events:
            self.changed.append(stream)
        stream.events |= event

    def _acknowledge(self, stream: YamuxStream) -> None:
        stream.acknowledged = True
        self._unacknowledged -= 1
        self.openable = True

    def _queue_control(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        if self.terminated is not None:
            return
        self._control.append(_pack(0, kind, flags, stream_id, length))
        self.control_bytes += HEADER_BYTES
        if self.control_bytes > self.limits.connection_control_bytes:
            self._refused("connection_control_bytes")
            message = "the peer asks without reading the answers"
            self._end(LimitError("connection_control_bytes", message, stage="connection"))

    def _ping(self) -> None:
        self._ping_id = (self._ping_id + 1) & _MAX_U32
        self._ping_sent = self._last_ping = self.now
        self._queue_control(PING, SYN, 0, self._ping_id)

    def _return_credit(self, stream: YamuxStream) -> None:
        """Send a window update once half of the window was used up and read."""
        held = stream.receive_window + stream.unread_bytes
        if stream is self._body_stream:
            held += self._body_left  # counted when its header came, still to be delivered
        if stream.window - held < stream.window >> 1:
            return
        if (
            self.round_trip is not None
            and not stream.discarding
            and self.now - stream.window_since < 4 * max(self.round_trip, _CLOCK_STEP)
        ):
            # No more is promised than may lie unread: a paused reader would cost an honest peer its stream.
            spare = max(self.limits.connection_unread_bytes - self._windows, 0)
            growth = min(stream.window, spare, max(self.limits.yamux_window_max - stream.window, 0))
            stream.window += growth
            self._windows += growth
        stream.window_since = self.now
        delta = stream.window - held
        stream.receive_window += delta
        stream.credit_due = True
        self._queue_control(WINDOW_UPDATE, 0, stream.id, delta)
