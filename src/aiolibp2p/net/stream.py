"""Stream: what users read and write, over any muxer.

Protocol negotiation (lazy and eager), half-close, `close()`, tombstones and deadlines are implemented here, once. The
connection calls `on_…_event` when something happened; everything up to the waking of a reader happens in that call.

A stream that was closed while its peer still owes something is a tombstone: it holds no task, only a deadline of its
connection. What is owed is the answer to a lazy negotiation (until it comes, our FIN is held: js-libp2p handlers hang
when header, payload and FIN arrive in one flight) and the peer's FIN. When `Timeouts.close` is over, a held FIN is sent
and the stream is forgotten; a peer that is merely slow still reads every byte, which a reset would have dropped.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

from aiolibp2p.errors import (
    DeadlineError,
    Libp2pError,
    LocalProtocolError,
    NegotiationError,
    RemoteProtocolError,
    StreamBusyError,
    StreamResetError,
)
from aiolibp2p.net.muxer import Buffer, MuxedStream
from aiolibp2p.sansio.multistream import MESSAGE_BYTES

if TYPE_CHECKING:
    from aiolibp2p.identity.peer_id import PeerId
    from aiolibp2p.net.connection import Connection

NEGOTIATION_FAILED = 0x1001
"""go-libp2p's stream code for a negotiation that came to nothing."""

READ, WRITE, STATE = range(3)
"""The deadlines of a stream: a read that waits, a write that waits, and what its state waits for."""


class Negotiation(Protocol):
    """What a stream needs of a multistream-select machine."""

    unread: bytes

    def receive_bytes(self, data: bytes) -> str | None:
        """Take bytes; return the protocol when it is settled."""
        ...

    def bytes_to_send(self) -> bytes:
        """Return what to send now."""
        ...


class Stream:
    """A stream of bytes to a peer that speaks one protocol, in both directions.

    One task may read and one may write at a time. Streams come from `Host.open_stream` and to handlers.
    """

    __slots__ = (
        "_answered",
        "_bury_at",
        "_close_waiters",
        "_closed",
        "_error",
        "_fin_held",
        "_head",
        "_idle_timeout",
        "_muxed",
        "_muxer",
        "_negotiation",
        "_outcome",
        "_queued_for_room",
        "_over",
        "_read_deadline",
        "_read_since",
        "_read_waiter",
        "_readable",
        "_state_deadline",
        "_task",
        "_writable",
        "_write_closed",
        "_write_deadline",
        "_write_waiter",
        "connection",
        "handshake",
        "id",
        "inbound",
        "lazy",
        "opened_at",
        "protocol",
    )

    def __init__(
        self, connection: Connection, muxed: MuxedStream, negotiation: Negotiation, *, protocol: str, inbound: bool
    ) -> None:
        self.connection = connection
        self.id = muxed.id
        """The muxer's number of this stream."""
        self.protocol = protocol
        """The protocol spoken; empty until it is settled."""
        self.handshake: Literal["pending", "answered", "refused"] = "pending"
        """What the peer said of the protocol."""
        self.inbound = inbound
        """Whether the peer opened it."""
        self.lazy = not inbound and bool(protocol)
        """Whether it is used before its protocol is answered."""
        self.opened_at = connection._clock.now()
        """When it was opened, on the host's monotonic clock."""
        self._muxed = muxed
        self._muxer = connection._muxer
        self._negotiation: Negotiation | None = negotiation
        self._head = b""
        self._error: Libp2pError | None = None
        self._outcome: Libp2pError | None = None
        self._over = self._closed = self._write_closed = self._fin_held = self._queued_for_room = False
        self._idle_timeout = connection._timeouts.stream_idle
        self._read_deadline: float | None = None
        self._write_deadline: float | None = None
        self._state_deadline: float | None = None
        self._bury_at = 0.0
        self._read_since = 0.0
        self._read_waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self._readable: Callable[[], None] | None = None
        self._writable: Callable[[], None] | None = None
        self._answered: asyncio.Future[None] | None = None
        self._close_waiters: list[asyncio.Future[None]] | None = None
        self._task: asyncio.Task[None] | None = None
        muxed.owner = self

    # -- what users read ---------------------------------------------------------------------------------------------

    @property
    def peer_id(self) -> PeerId:
        """The peer at the other end."""
        return self.connection.peer_id

    @property
    def credit(self) -> int:
        """The bytes that the peer takes now."""
        return self._muxed.credit

    @property
    def reset_code(self) -> int | None:
        """The code with which the peer has reset this stream; None where it has not."""
        error = self._error
        return error.code if isinstance(error, StreamResetError) and error.by == "remote" else None

    @property
    def usable(self) -> bool:
        """Whether it can still be written to."""
        return self._error is None and not self._write_closed and not self._over

    @property
    def idle_timeout(self) -> float:
        """Seconds a read may wait for a byte (`math.inf`: for ever); setting it reaches a read that already waits."""
        return self._idle_timeout

    @idle_timeout.setter
    def idle_timeout(self, seconds: float) -> None:
        self._idle_timeout = seconds
        if self._read_waiter is not None or self._readable is not None:
            self._set_read_deadline(self._read_since + seconds)

    async def read(self, max_bytes: int = 65536) -> bytes:
        """Return the next bytes, at most `max_bytes`, or `b""` at the end of the stream.

        Raises:
            NegotiationError: the peer does not speak the protocol.
            StreamResetError: the stream was reset.
            ConnectionEndedError: the connection is over.
            DeadlineError: nothing came within `idle_timeout`.
            StreamBusyError: another task is reading.
            LocalProtocolError: the stream was closed here.
        Cancellation: no byte is lost.
        """
        while True:
            data = self.try_read(max_bytes)
            if data is not None:
                return data
            if self._read_waiter is not None:
                raise StreamBusyError("another task is reading this stream")
            connection = self.connection
            waiter = self._read_waiter = connection._loop.create_future()
            now = self._read_since = connection._clock.now()
            if self._idle_timeout != math.inf:
                self._read_deadline = now + self._idle_timeout
                connection._deadlines.add(self._read_deadline, self, READ)
            try:
                await waiter
            finally:
                self._read_waiter = None
                if self._read_deadline is not None:
                    self._read_deadline = None
                    connection._deadlines.overtaken()

    def try_read(self, max_bytes: int = 65536) -> bytes | None:
        """Return the next bytes, `b""` at the end of the stream, or None when nothing is there yet.

        Raises: as `read`, without DeadlineError and StreamBusyError.
        """
        if self._head:
            data = self._head[:max_bytes]
            self._head = self._head[max_bytes:]
            return data
        if self._negotiation is None and not self._closed:
            muxed = self._muxed
            if muxed.unread_bytes:
                data = muxed.read(max_bytes)
                if muxed.credit_due:
                    muxed.credit_due = False
                    self._muxer.flush_soon()
                return data
            if muxed.reset_by is not None:
                if self._error is None:  # finished, then dropped because it lay unread
                    self._error = StreamResetError(by=muxed.reset_by, code=muxed.reset_code)
            elif muxed.fin_received:
                return b""
        if self._error is not None:
            raise self._error.with_traceback(None)
        if self._closed:
            raise LocalProtocolError("the stream was closed here")
        return None

    async def read_exactly(self, n: int) -> bytes:
        """Return exactly `n` bytes.

        Raises:
            asyncio.IncompleteReadError: the stream ended first; it carries what came.
            Others: as `read`.
        Cancellation: what was already taken is lost; read no more from the stream.
        """
        data = await self.read(n) if n else b""
        if len(data) == n:
            return data
        pieces = [data]
        missing = n - len(data)
        while missing:
            if not data:
                raise asyncio.IncompleteReadError(b"".join(pieces), n)
            data = await self.read(missing)
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)

    def on_readable(self, callback: Callable[[], None] | None) -> None:
        """Call back each time when `try_read` would not return None; for servers without a task a stream.

        A stream served like this that receives nothing within `idle_timeout` is reset.
        """
        self._readable = callback
        if callback is not None:
            self._read_since = self.connection._clock.now()
            self._set_read_deadline(self._read_since + self._idle_timeout)
        else:
            self._clear_read_deadline()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        data = self.try_read()
        if data is None:
            data = await self.read()
        if not data:
            raise StopAsyncIteration
        return data

    # -- what users write --------------------------------------------------------------------------------------------

    async def write(self, data: Buffer) -> None:
        """Write all of `data`, waiting for the peer's credit and for room in the connection's queue.

        Args:
            data: bytes are kept until sent, not copied; other buffers are copied as they are accepted.

        Raises:
            DeadlineError: no progress within `Timeouts.write_stall`; the stream was reset.
            StreamBusyError: another task is writing.
            Others: as `read`.
        Cancellation: some of the data may have been accepted; the stream and the connection stay usable.
        """
        if self._write_waiter is not None:
            raise StreamBusyError("another task is writing on this stream")
        if type(data) is not bytes:
            data = memoryview(data).cast("B")
        taken = self.try_write(data)
        if taken != len(data):
            await self._write_rest(memoryview(data), taken)

    async def _write_rest(self, data: memoryview, offset: int) -> None:
        connection = self.connection
        stall = connection._timeouts.write_stall
        deadline = connection._clock.now() + stall
        size = len(data)
        while offset < size:
            waiter = self._write_waiter = connection._loop.create_future()
            if deadline != math.inf:
                self._write_deadline = deadline
                connection._deadlines.add(deadline, self, WRITE)
            self._await_room()
            try:
                await waiter
            finally:
                self._write_waiter = None
                if self._write_deadline is not None:
                    self._write_deadline = None
                    connection._deadlines.overtaken()
            taken = self.try_write(data[offset:])
            if taken:
                offset += taken
                deadline = connection._clock.now() + stall

    def try_write(self, data: Buffer) -> int:
        """Accept what can be accepted now and return its length; never waits.

        Args:
            data: as for `write`.

        Raises: as `write`, without DeadlineError and StreamBusyError.
        """
        if self._error is not None or self._write_closed:
            self._raise_for_write()
        muxed = self._muxed
        if type(data) is not bytes:
            data = _owned(data, min(muxed.credit, self._muxer.room))
        if not data:
            return 0
        taken = muxed.write(data)
        if taken:
            self._muxer.flush_soon()
        return taken

    def write_at_once(self, data: bytes) -> int:
        """Accept what can be accepted now, and send it before returning what else is queued and the socket takes.

        Raises: as `try_write`.
        """
        if self._error is not None or self._write_closed:
            self._raise_for_write()
        taken = self._muxed.write(data)
        self._muxer.flush()
        return taken

    def on_writable(self, callback: Callable[[], None]) -> None:
        """Call back once when `try_write` can go on, or when the stream has ended (`try_write` then raises)."""
        self._writable = callback
        if self._error is not None or self._write_closed or (self._muxed.credit and self._muxer.room):
            self.connection._loop.call_soon(self._wake_writer)
        else:
            self._await_room()

    def close_write(self) -> None:
        """Finish writing; the peer reads what was written and then the end. Never waits, never fails.

        While the peer has not answered a lazy negotiation the end is held, at most `Timeouts.close`.
        """
        if self._write_closed:
            return
        self._write_closed = True
        if self._error is not None or self._over:
            return
        if self._negotiation is not None and not self.inbound:
            self._fin_held = True
            self._set_state_deadline(self.connection._clock.now() + self.connection._timeouts.close)
        else:
            self._send_fin()
        if self._write_waiter is not None or self._writable is not None:
            self._wake_writer()

    def close(self) -> None:
        """Finish politely, without waiting for the peer. Never waits, never fails.

        What was written is delivered, what still comes is dropped. `wait_closed` tells how it ended.
        """
        if self._closed:
            return
        self._closed = True
        self._head = b""
        if self._negotiation is None:
            muxed = self._muxed
            muxed.stop_reading()
            if muxed.credit_due:
                muxed.credit_due = False
                self._muxer.flush_soon()
        if not self._over:
            if self._negotiation is not None and self.inbound:
                self._fail(StreamResetError(by="local"), code=NEGOTIATION_FAILED)
            self.close_write()
            if not self._over:
                self._bury_at = self.connection._clock.now() + self.connection._timeouts.close
                # A FIN that `close_write` holds already leaves when that has said, not later.
                if self._state_deadline is None:
                    self._set_state_deadline(self._bury_at)
                self.connection._entomb(self)
        if self._read_waiter is not None or self._write_waiter is not None or self._writable is not None:
            self._wake()

    def reset(self, code: int = 0) -> None:
        """Abandon the stream in both directions; the peer is told `code`. Never waits, never fails."""
        self._closed = True
        self._head = b""
        if self._over:
            self._muxed.stop_reading()
        else:
            self._fail(StreamResetError(by="local", code=code), code=code)

    async def wait_closed(self) -> None:
        """Wait until the peer owes nothing any more: it has answered and finished, or the stream was reset here.

        Raises:
            NegotiationError: the peer does not speak the protocol: nothing that was written has been used.
            StreamResetError: the peer reset the stream.
            DeadlineError: the peer did not answer or finish within `Timeouts.close`.
            ConnectionEndedError: the connection ended first.
            LocalProtocolError: neither `close` nor `reset` was called.
        Cancellation: the stream goes on closing.
        """
        if not self._over:
            if not self._closed:
                raise LocalProtocolError("the stream is not being closed")
            waiter = self.connection._loop.create_future()
            self._close_waiters = [*(self._close_waiters or ()), waiter]
            await waiter
        if self._outcome is not None:
            raise self._outcome.with_traceback(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.reset()

    def __repr__(self) -> str:
        state = "over" if self._over else "tombstone" if self._closed else self.handshake
        return f"<Stream {self.id} {self.protocol or '?'} {state}>"

    # -- what the connection calls -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Queue the proposal of an outbound stream."""
        assert self._negotiation is not None  # a stream is made with one
        self._muxed.write(self._negotiation.bytes_to_send(), urgent=True)
        self._muxer.flush_soon()

    async def answered(self) -> None:
        """Wait for the answer of an eager negotiation; bounded by `Timeouts.negotiate`."""
        if self._negotiation is not None and self._error is None:
            self._answered = self.connection._loop.create_future()
            self._set_state_deadline(self.connection._clock.now() + self.connection._timeouts.negotiate)
            try:
                await self._answered
            except asyncio.CancelledError:
                self.reset(NEGOTIATION_FAILED)
                raise
            finally:
                self._answered = None
        if self._error is not None:
            raise self._error.with_traceback(None)

    def on_readable_event(self) -> None:
        """Take note that bytes or the end have come."""
        if self._negotiation is not None and not self._negotiate():
            return
        waiter = self._read_waiter
        if waiter is not None:
            if not waiter.done():
                waiter.set_result(None)
                self.connection._woken = True
        elif self._readable is not None:
            self._read_since = self._muxer.received_at
            try:
                self._readable()
            except Exception as error:  # noqa: BLE001  the boundary of a user's callback
                self.connection._handler_failed(self, error)
        muxed = self._muxed
        if muxed.fin_received and muxed.finished:
            self._finish(None)

    def on_writable_event(self) -> None:
        """Take note that credit or room has come."""
        self._wake_writer()

    def on_reset_event(self) -> None:
        """Take note that the peer, or the muxer, has reset the stream."""
        muxed = self._muxed
        if self._over:
            return
        if self._negotiation is not None and not self.inbound and muxed.last_words:
            try:
                self._negotiation.receive_bytes(muxed.last_words)
            except NegotiationError as refusal:  # `na`, and then what was written behind the proposal broke the stream
                self._refused(refusal)
                return
            except Libp2pError:
                pass  # the reset says enough
        if self.handshake == "pending" and self.lazy and muxed.reset_code == NEGOTIATION_FAILED:
            # The reset has overtaken `na`: what was written behind the proposal made no sense to the peer.
            self._refused(NegotiationError((self.protocol,)))
            return
        error = StreamResetError(by=muxed.reset_by or "remote", code=muxed.reset_code)
        self._end(error, error)

    def on_connection_ended(self, error: Libp2pError) -> None:
        """Take note that the connection is over; what was received can still be read."""
        self._end(error, error)

    def deadline_of(self, kind: int) -> float | None:
        """Return the deadline that counts."""
        if kind == READ:
            return self._read_deadline
        return self._write_deadline if kind == WRITE else self._state_deadline

    def on_deadline(self, kind: int) -> None:
        """Act on a deadline."""
        timeouts = self.connection._timeouts
        if kind == READ:
            self._read_deadline = None
            self._idle_too_long()
            return
        if kind == WRITE:
            self._write_deadline = None
            self._fail(DeadlineError("write_stall", timeouts.write_stall, stage="write"))
            return
        self._state_deadline = None
        if self._closed and self._bury_at > self.connection._clock.now():
            self._send_fin()
            if not self._over:
                self._set_state_deadline(self._bury_at)
        elif self._closed:
            self.bury()
        elif self._fin_held:
            self._send_fin()
        elif self._negotiation is not None:
            error = DeadlineError("negotiate", timeouts.negotiate, stage="protocol negotiation")
            self._fail(error, code=NEGOTIATION_FAILED)

    def _idle_too_long(self) -> None:
        waiter = self._read_waiter
        if waiter is None and self._readable is not None:
            since = self._read_since + self._idle_timeout
            if since > self.connection._clock.now():
                self._set_read_deadline(since)
            else:
                self._fail(DeadlineError("stream_idle", self._idle_timeout, stage="read"))
        elif waiter is not None and not waiter.done():
            waiter.set_exception(DeadlineError("stream_idle", self._idle_timeout, stage="read"))

    def bury(self) -> None:
        """End a tombstone: send a held FIN, and forget the stream."""
        if self._over:
            return
        if self._fin_held:
            self._send_fin()
        self._muxed.forget()
        self._muxer.flush_soon()  # what is forgotten may make room for a stream that waits to be opened
        self._finish(DeadlineError("close", self.connection._timeouts.close, stage="close"))

    # -- negotiation -------------------------------------------------------------------------------------------------

    def _negotiate(self) -> bool:
        """Take what has come; return whether that settled the protocol and left something to read."""
        negotiation, muxed = self._negotiation, self._muxed
        while negotiation is not None and (data := muxed.read(MESSAGE_BYTES * 2)):
            try:
                protocol = negotiation.receive_bytes(data)
            except Libp2pError as error:
                self._refused(error)
                return False
            answer = negotiation.bytes_to_send()
            if answer:
                try:
                    muxed.write(answer, urgent=True)
                except Libp2pError:
                    return False  # the session ended in the chunk that brought this: the connection's end follows
                self._muxer.flush_soon()
            if protocol is not None:
                self._settle(protocol, negotiation.unread)
                return bool(self._head) or muxed.unread_bytes > 0 or muxed.fin_received
        if muxed.fin_received and not muxed.unread_bytes and self._error is None:
            self._refused(RemoteProtocolError("the stream ended before it was settled", protocol="multistream-select"))
        return False

    def _settle(self, protocol: str, unread: bytes) -> None:
        self._negotiation = None
        self.protocol = protocol
        self.handshake = "answered"
        self._head = unread
        if self.inbound:
            if self._state_deadline is not None:
                self._clear_state_deadline()
            self.connection._accept(self)
            return
        if self._closed:
            self._head = b""
            self._muxed.stop_reading()
        elif self._state_deadline is not None:
            self._clear_state_deadline()
        if self._fin_held:
            self._send_fin()
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)
            self.connection._woken = True

    def _refused(self, error: Libp2pError) -> None:
        error.stage = error.stage or "protocol negotiation"
        if isinstance(error, NegotiationError):
            self.handshake = "refused"
            self.connection._protocols_refused(error.offered)
        self._fail(error, code=NEGOTIATION_FAILED)

    # -- ends --------------------------------------------------------------------------------------------------------

    def _send_fin(self) -> None:
        self._fin_held = False
        self._muxed.close_write()
        self._muxer.flush_soon()
        if self._muxed.finished:
            self._finish(None)

    def _fail(self, error: Libp2pError, code: int = 0) -> None:
        """Reset the stream because of `error`, which readers and writers are told."""
        self._muxed.reset(code)
        self._muxer.flush_soon()
        local = isinstance(error, StreamResetError)
        self._end(error, None if local else error)

    def _end(self, error: Libp2pError, outcome: Libp2pError | None) -> None:
        if self._error is None:
            self._error = error
        self._finish(outcome)
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)
        self._wake()

    def _finish(self, outcome: Libp2pError | None) -> None:
        if self._over:
            return
        self._over = True
        self._outcome = outcome
        if self._state_deadline is not None:
            self._clear_state_deadline()
        if self._read_waiter is None and self._read_deadline is not None:
            self._clear_read_deadline()
        self.connection._remove(self)
        # The muxer has nothing more to tell; without this cycle a stream is freed at once, not by the collector.
        self._muxed.owner = None
        if self._close_waiters is not None:
            for waiter in self._close_waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._close_waiters = None

    def _raise_for_write(self) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)
        raise LocalProtocolError("the stream was closed for writing here")

    # -- waking ------------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        waiter = self._read_waiter
        if waiter is not None:
            if not waiter.done():
                waiter.set_result(None)
                self.connection._woken = True
        elif self._readable is not None and not self._closed:
            self._call(self._readable)
        if self._write_waiter is not None or self._writable is not None:
            self._wake_writer()

    def _wake_writer(self) -> None:
        waiter = self._write_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
            self.connection._woken = True
        callback = self._writable
        if callback is not None:
            self._writable = None
            self._call(callback)

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:  # noqa: BLE001  the boundary of a user's callback
            self.connection._handler_failed(self, error)

    def _await_room(self) -> None:
        if not self._muxed.credit:
            self._muxed.want_write = True
        elif not self._queued_for_room:
            self._queued_for_room = True
            self._muxer.when_room(self._on_room)

    def _on_room(self) -> None:
        self._queued_for_room = False
        self._wake_writer()

    def _set_read_deadline(self, when: float) -> None:
        deadlines = self.connection._deadlines
        if self._read_deadline is not None:
            deadlines.overtaken()
        if when == math.inf:
            self._read_deadline = None
            return
        self._read_deadline = when
        deadlines.add(when, self, READ)

    def _set_state_deadline(self, when: float) -> None:
        connection = self.connection
        if self._state_deadline is not None:
            connection._deadlines.overtaken()
        self._state_deadline = when
        connection._deadlines.add(when, self, STATE)

    def _clear_read_deadline(self) -> None:
        if self._read_deadline is not None:
            self._read_deadline = None
            self.connection._deadlines.overtaken()

    def _clear_state_deadline(self) -> None:
        if self._state_deadline is not None:
            self._state_deadline = None
            self.connection._deadlines.overtaken()


def _owned(data: Buffer, wanted: int) -> Buffer:
    """Return at most `wanted` bytes that cannot change: a view of bytes as it is, a copy of anything else."""
    view = memoryview(data).cast("B")[:wanted]
    return view if type(view.obj) is bytes else bytes(view)
