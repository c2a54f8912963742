"""Messages on streams: read from any stream of a peer, written to one of our own; no task, and nothing waits."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from aiolibp2p.errors import ConnectionEndedError, Libp2pError, LimitError
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.limits import Limits, Refused
from aiolibp2p.log import logger_of
from aiolibp2p.net.connection import Connection
from aiolibp2p.net.stream import Stream
from aiolibp2p.sansio.bitswap.decoder import Decoder
from aiolibp2p.sansio.bitswap.message import PROTOCOL, PROTOCOLS, Message

PROTOCOL_VIOLATION = 0x1004
GARBAGE_COLLECTED = 0x1006
"""go-libp2p's stream codes: the peer broke the protocol; nobody used the stream."""

_log = logger_of("bitswap")

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


def protocols_of(connection: Connection) -> list[str]:
    """Return the versions of Bitswap that the peer may speak, best first.

    What it has refused is none of them. All others are where it has not said that it speaks any.
    """
    said = () if connection.identify is None else connection.identify.protocols
    spoken = [protocol for protocol in PROTOCOLS if protocol in said] or PROTOCOLS
    return [protocol for protocol in spoken if protocol not in connection.refused]


def protocol_of(connection: Connection) -> str:
    """Return the Bitswap to speak with a peer."""
    return next(iter(protocols_of(connection)), PROTOCOL)


class MessageReader:
    """Reads the messages of one stream until its end.

    Args:
        received: told of each message and of the peer that sent it.
        progress: told that part of a message has come; wants alone are no sign that an answer is on its way.
        ended: told, once, that nothing more will come.
        unfinished: bytes of unfinished messages on the streams that a peer has opened, for all readers together.
        refused: hears of what is too long or too much.
    """

    def __init__(
        self,
        stream: Stream,
        limits: Limits,
        *,
        received: Callable[[Stream, Message], None],
        progress: Callable[[PeerId, int], None],
        ended: Callable[[], None],
        unfinished: dict[PeerId, int],
        refused: Refused,
    ) -> None:
        self._stream = stream
        self._decoder = Decoder(limits)
        self._received = received
        self._progress = progress
        self._ended = ended
        self._unfinished = unfinished
        self._refused = refused
        self._unfinished_max = limits.connection_unread_bytes
        self._held = 0
        # Peers keep one stream for all their wants: it may be quiet for as long as its connection lives.
        stream.idle_timeout = math.inf
        stream.on_readable(self._go_on)
        self._go_on()

    def _go_on(self) -> None:
        stream = self._stream
        try:
            while (data := stream.try_read()) is not None:
                if not data:
                    self._decoder.receive_eof()
                    self._end()
                    if stream.inbound:
                        stream.close()
                    return
                for message in self._decoder.receive_bytes(data):
                    if message.dropped or message.skipped:
                        self._note_dropped(message)
                    self._received(stream, message)
                if self._decoder.buffered_bytes:
                    self._progress(stream.peer_id, min(len(data), self._decoder.buffered_bytes))
                if self._decoder.failure is not None:
                    if isinstance(self._decoder.failure, LimitError):
                        self._refused(self._decoder.failure.limit)
                    raise self._decoder.failure
                if stream.inbound and self._decoder.buffered_bytes != self._held:
                    self._hold(self._decoder.buffered_bytes)
        except Libp2pError as error:
            if error is self._decoder.failure or isinstance(error, LimitError):
                _log.debug(
                    "a message was dropped, and its stream reset", extra={"peer_id": stream.peer_id, "error": error}
                )
            # One of ours too: a new one takes its place, and is read.
            stream.on_readable(None)
            stream.reset(PROTOCOL_VIOLATION)
            self._end()

    def _note_dropped(self, message: Message) -> None:
        if message.dropped:
            self._refused("bitswap_wants_per_peer", message.dropped)
        if message.long_cids:
            self._refused("bitswap_cid_bytes", message.long_cids)
        facts = {"peer_id": self._stream.peer_id, "dropped": message.dropped, "not_understood": message.skipped}
        _log.debug("parts of a message were dropped", extra=facts)

    def _hold(self, n_bytes: int) -> None:
        """Count what is held of an unfinished message.

        Raises:
            LimitError: it is too much for one peer.
        """
        peer_id = self._stream.peer_id
        held = self._unfinished.pop(peer_id, 0) + n_bytes - self._held
        self._held = n_bytes
        if held:
            self._unfinished[peer_id] = held
        if held > self._unfinished_max:
            self._refused("connection_unread_bytes")
            raise LimitError("connection_unread_bytes", f"{held} bytes of unfinished messages", stage="bitswap")

    def _end(self) -> None:
        held, self._held = self._held, 0
        if held:
            left = self._unfinished.pop(self._stream.peer_id) - held
            if left:
                self._unfinished[self._stream.peer_id] = left
        self._stream.on_readable(None)
        self._ended()


class WriterUser(Protocol[T_contra]):
    """What a writer tells; none of it may wait."""

    def accepted(self, peer_id: PeerId, n_bytes: int) -> None:
        """Take note that the stream has accepted so many bytes more."""
        ...

    def blocked(self, peer_id: PeerId) -> None:
        """Take note that the stream accepts nothing now."""
        ...

    def writable(self, peer_id: PeerId, *, credited: bool) -> None:
        """Take note that it does again; `credited` where the peer has read something."""
        ...

    def written(self, peer_id: PeerId, token: T_contra, position: int) -> None:
        """Take note that all bytes of a message were accepted, `position` in all on this stream."""
        ...

    def ended(self, peer_id: PeerId, *, unread: bool) -> None:
        """Take note that the stream, or the way to open one, is gone, and with it what was not written.

        Args:
            unread: whether the peer has said that nobody there reads it any more.
        """
        ...


class MessageWriter(Generic[T]):
    """Writes messages to one peer, on one stream that is opened when it is needed."""

    def __init__(self, peer_id: PeerId, user: WriterUser[T], opened: Callable[[PeerId], Stream]) -> None:
        self.position = 0
        """Bytes that the present stream has accepted."""
        self._peer_id = peer_id
        self._user = user
        self._opened = opened
        self._stream: Stream | None = None
        self._queue: deque[tuple[T, deque[bytes | memoryview]]] = deque()
        self._blocked = False
        self._writing = False
        self._begun = False
        """Whether the stream has accepted some of the first message of the queue."""

    @property
    def begun(self) -> T | None:
        """The token of the message that is written in part."""
        return self._queue[0][0] if self._begun and self._queue else None

    @property
    def credit(self) -> int:
        """Bytes that the peer takes now, on the present stream."""
        return 0 if self._stream is None else self._stream.credit

    @property
    def opening_since(self) -> float | None:
        """Since when the peer owes its answer whether it speaks the protocol of the present stream; None: it has."""
        stream = self._stream
        return None if stream is None or stream.handshake != "pending" else stream.opened_at

    @property
    def busy(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._queue)

    def send(self, token: T, buffers: Sequence[bytes]) -> None:
        """Write a message, its buffers kept until then; `written` or `ended` follows, perhaps at once."""
        self._queue.append((token, deque(buffers)))
        if not self._blocked and not self._writing:
            self._write()

    def drop_unbegun(self) -> None:
        """Drop all messages of which nothing was written; neither `written` nor `ended` follows for them."""
        while len(self._queue) > self._begun:
            self._queue.pop()

    def stream_ended(self, stream: Stream) -> None:
        """Take note of the end of a stream that this writer may have opened."""
        if stream is self._stream and not stream.usable:
            self._lose()

    def move(self, connection: Connection) -> None:
        """Write what follows on another connection; what waits on this one is lost, and `ended` is called for it."""
        stream = self._stream
        if stream is None or stream.connection is connection:
            return
        if self._queue:
            self._lose()
        else:
            self._stream = None
            stream.on_readable(None)
            stream.close()

    def reset(self) -> None:
        """Abandon the stream and what was not written; `ended` is not called."""
        stream, self._stream = self._stream, None
        self._forget()
        if stream is not None:
            stream.on_readable(None)
            stream.reset(GARBAGE_COLLECTED)

    def _write(self) -> None:
        self._writing = True
        try:
            while self._queue and not self._blocked:
                try:
                    self._write_first()
                except Libp2pError:
                    self._lose()
        finally:
            self._writing = False

    def _write_first(self) -> None:
        if self._stream is None:
            self._stream = self._opened(self._peer_id)
            self.position = 0
        token, buffers = self._queue[0]
        if self._write_message(self._stream, buffers):
            self._queue.popleft()
            self._begun = False
            self._user.written(self._peer_id, token, self.position)

    def _write_message(self, stream: Stream, buffers: deque[bytes | memoryview]) -> bool:
        accepted = 0
        while buffers:
            data = buffers[0]
            taken = stream.try_write(data)
            accepted += taken
            if taken != len(data):
                buffers[0] = memoryview(data)[taken:]
                break
            buffers.popleft()
        self.position += accepted
        self._begun = self._begun or accepted > 0
        self._user.accepted(self._peer_id, accepted)
        if not buffers:
            return True
        credited = stream.credit == 0
        self._blocked = True
        stream.on_writable(lambda: self._go_on(stream, credited=credited))
        self._user.blocked(self._peer_id)
        return False

    def _go_on(self, stream: Stream, *, credited: bool) -> None:
        if stream is not self._stream or not self._blocked:
            return
        self._blocked = False
        if stream.usable:
            self._user.writable(self._peer_id, credited=credited)
            self._write()
        else:
            self._lose()

    def _lose(self) -> None:
        stream, self._stream = self._stream, None
        self._forget()
        unread = stream is not None and stream.reset_code == GARBAGE_COLLECTED
        if stream is not None:
            stream.on_readable(None)
            stream.reset()
        self._user.ended(self._peer_id, unread=unread)

    def _forget(self) -> None:
        self._queue.clear()
        self._blocked = self._begun = False


def no_way_to(peer_id: PeerId) -> ConnectionEndedError:
    """Return the error of a peer to which there is no connection."""
    return ConnectionEndedError(f"no connection to {peer_id}", by="remote", stage="bitswap")
