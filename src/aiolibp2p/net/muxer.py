"""The small interface that a connection needs of its muxer: Yamux over a socket offers it, QUIC and WebRTC will."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from aiolibp2p.errors import By, Libp2pError

Buffer = bytes | bytearray | memoryview


class MuxedStream(Protocol):
    """One stream of a muxer, before protocols are negotiated on it. Nothing here waits."""

    id: int
    owner: Any
    want_write: bool
    """Set to be told, once, when credit comes."""
    credit_due: bool
    """Set when reading has made credit that should leave; cleared by who sees to a flush."""
    events: int
    """What happened since the shell last looked: bits of `sansio.yamux`."""
    reset_by: By | None
    reset_code: int
    last_words: bytes
    """The few bytes that lay unread when the peer reset the stream."""
    unread_bytes: int
    """The bytes that are there to be read."""
    fin_received: bool
    """Whether the peer has finished writing: once nothing is unread, that is the end."""

    @property
    def finished(self) -> bool:
        """Whether neither side owes anything but what is queued."""
        ...

    @property
    def credit(self) -> int:
        """The bytes that the peer still takes."""
        ...

    def write(self, data: Buffer, *, urgent: bool = False) -> int:
        """Queue what credit and room allow and return its length; `data` is kept. Urgent bytes need no room."""
        ...

    def read(self, max_bytes: int) -> bytes:
        """Return what was received, or `b""`."""
        ...

    def close_write(self) -> None:
        """Send FIN after what is queued."""
        ...

    def stop_reading(self) -> None:
        """Drop what the peer still sends, and let it go on sending."""
        ...

    def reset(self, code: int = 0) -> None:
        """Abandon both directions."""
        ...

    def forget(self) -> None:
        """Wait no longer for the peer; what comes late is dropped."""
        ...


class Muxer(Protocol):
    """The muxer of one connection and the socket below it."""

    received_at: float
    """When something was last received."""
    bytes_in: int
    bytes_out: int

    @property
    def can_open(self) -> bool:
        """Whether the peer lets us open a stream now."""
        ...

    @property
    def going_away(self) -> bool:
        """Whether the peer has said that it takes no new streams."""
        ...

    @property
    def room(self) -> int:
        """Bytes that may be queued now, over all streams."""
        ...

    def open_stream(self) -> MuxedStream:
        """Open a stream; `can_open` must hold."""
        ...

    def flush_soon(self) -> None:
        """Send what is queued at the end of this turn of the loop."""
        ...

    def flush(self) -> None:
        """Send what is queued now, as far as the socket takes it."""
        ...

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call back once, in turn with others, when there is room or the connection is over."""
        ...

    def close(self, error: Libp2pError) -> None:
        """Send what is queued and GoAway, then close the socket, within `Timeouts.connection_close`."""
        ...

    def abort(self, error: Libp2pError) -> None:
        """Drop the socket."""
        ...
