"""One stream of a Yamux session: what is written until it is sent, what was received until it is read, and credit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiolibp2p.errors import By, LocalProtocolError

if TYPE_CHECKING:
    from aiolibp2p.sansio.yamux import YamuxSession

Buffer = bytes | bytearray | memoryview

INITIAL_WINDOW_BYTES = 256 << 10
"""What each side may send on a new stream; the specification fixes it."""
SYN, ACK, FIN, RST = 1, 2, 4, 8


class YamuxStream:
    """One stream of a session; `owner` is whatever the shell hangs on it."""

    __slots__ = (
        "acknowledged",
        "chunks",
        "credit_due",
        "discarding",
        "events",
        "fin_queued",
        "fin_received",
        "fin_sent",
        "forgotten",
        "id",
        "last_words",
        "owner",
        "queue",
        "queued_bytes",
        "receive_window",
        "reset_by",
        "reset_code",
        "scheduled",
        "send_window",
        "session",
        "start_flag",
        "unread_bytes",
        "want_write",
        "window",
        "window_since",
    )

    def __init__(self, session: YamuxSession, stream_id: int, start_flag: int) -> None:
        self.session = session
        self.id = stream_id
        self.owner: Any = None
        self.events = 0
        self.want_write = False
        """Set by the shell: it wants a WRITABLE event when credit comes."""
        self.credit_due = False
        """Set when reading has queued a window update; the shell clears it when it sees to a flush."""
        self.start_flag = start_flag
        self.acknowledged = start_flag != SYN
        self.send_window = INITIAL_WINDOW_BYTES
        self.queue: list[Buffer] = []
        self.queued_bytes = 0
        self.scheduled = False
        self.fin_queued = self.fin_sent = self.fin_received = False
        self.window = self.receive_window = session.stream_window
        self.window_since = session.now
        self.chunks: list[Buffer] = []
        self.unread_bytes = 0
        self.discarding = self.forgotten = False
        self.reset_by: By | None = None
        self.reset_code = 0
        self.last_words = b""
        """The few bytes that lay unread when the peer reset the stream: a negotiation's answer may be among them."""

    @property
    def readable(self) -> bool:
        """Whether bytes, or the end, are there to be read."""
        return self.unread_bytes > 0 or self.fin_received

    @property
    def at_eof(self) -> bool:
        """Whether the peer has finished writing and all of it was read."""
        return self.fin_received and not self.unread_bytes

    @property
    def finished(self) -> bool:
        """Whether both sides have finished, though our FIN may still be queued, or the stream was reset."""
        return self.reset_by is not None or (self.fin_queued and self.fin_received)

    @property
    def credit(self) -> int:
        """The bytes the peer still takes."""
        return self.send_window

    def write(self, data: Buffer, *, urgent: bool = False) -> int:
        """Queue as many bytes as credit and room in the session allow, and return their number.

        Args:
            data: kept, not copied: it must not change until it was sent.
            urgent: needs no room; for a few bytes of negotiation.

        Raises:
            LocalProtocolError: our side is closed, or the stream is over.
            Libp2pError: why the session is over.
        """
        session = self.session
        if session.terminated is not None:
            raise session.terminated.with_traceback(None)
        if self.fin_queued or self.reset_by is not None:
            raise LocalProtocolError(f"stream {self.id} is closed for writing")
        size = taken = len(data)
        if taken > self.send_window:
            taken = self.send_window
        if taken > session.room and not urgent:
            taken = session.room
        if taken <= 0:
            return 0
        self.queue.append(data if taken == size else memoryview(data)[:taken])
        self.queued_bytes += taken
        self.send_window -= taken
        session.room -= taken
        if not self.scheduled:
            self.scheduled = True
            session.scheduled.append(self)
        return taken

    def read(self, max_bytes: int) -> bytes:
        """Return what was received, at most `max_bytes`; `b""` when nothing is there. This returns credit."""
        chunks = self.chunks
        if not chunks:
            return b""
        first = chunks[0]
        size = len(first)
        if size > max_bytes:
            view = memoryview(first)
            chunks[0] = view[max_bytes:]
            data, size = bytes(view[:max_bytes]), max_bytes
        elif len(chunks) == 1:
            chunks.clear()
            data = first if type(first) is bytes else bytes(first)
        else:
            count, there = 1, len(chunks)
            while count < there and (more := size + len(chunks[count])) <= max_bytes:
                size = more
                count += 1
            data = b"".join(chunks[:count])
            del chunks[:count]
        self.unread_bytes -= size
        self.session.unread_bytes -= size
        if self.fin_received:
            if not self.unread_bytes:
                self.session._finished.pop(self, None)
        elif self.window - self.receive_window - self.unread_bytes >= self.window >> 1:
            self.session._return_credit(self)
        return data

    def close_write(self) -> None:
        """Send FIN after what is queued; a second call does nothing."""
        if self.fin_queued or self.reset_by is not None or self.session.terminated is not None:
            return
        self.fin_queued = True
        if not self.scheduled:
            self.scheduled = True
            self.session.scheduled.append(self)

    def stop_reading(self) -> None:
        """Drop what was and will be received, and return its credit, so that the peer can go on."""
        if not self.discarding:
            self.discarding = True
            if self.unread_bytes:
                self.session._drop_unread(self)
            if not self.fin_received and self.reset_by is None:
                self.session._return_credit(self)

    def reset(self, code: int = 0) -> None:
        """Abandon the stream in both directions; the peer is told `code`."""
        session = self.session
        if session.streams.get(self.id) is self or self in session._finished:
            session._reset(self, code)

    def forget(self) -> None:
        """Stop waiting for the peer: what is queued still leaves, and what comes late is dropped."""
        self.stop_reading()
        self.forgotten = True
        if self.fin_sent:
            self.session._forget(self)
