"""Link: one stream socket, upgraded to a secure channel and a Yamux session, all on callbacks.

In: socket → `buffer_updated` → upgrade, then `decrypt` → session → streams. Out: session → `encrypt` → one
`transport.write` per turn of the loop, control frames first, and nothing while the transport is paused. A link makes no
task; it has one timer for the upgrade and the keepalive, and one for a close that does not end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from aiolibp2p.errors import ConnectionEndedError, DeadlineError, Libp2pError
from aiolibp2p.limits import Limits, Refused, Timeouts
from aiolibp2p.net.connection import Connection
from aiolibp2p.net.muxer import MuxedStream
from aiolibp2p.net.upgrade import Upgrade
from aiolibp2p.runtime import Clock, os_error_text
from aiolibp2p.sansio import yamux
from aiolibp2p.sansio.multistream import LazyInitiator, Responder
from aiolibp2p.sansio.noise import NoiseChannel, NoiseResult

MUXER_STAGE = "muxer negotiation"
MUXERS: Sequence[str] = (yamux.PROTOCOL,)
FLUSH_BYTES = 4 * 65_519
"""Plaintext of one `encrypt` and one `transport.write`: four full Noise messages."""
EARLY_STREAMS = 32
"""Streams with something to send before the end of a turn of the loop: so many leave at once, and the peer works on
them while the rest of the turn runs (32 streams at a time: 28,000 a second instead of 16,000)."""
RECEIVE_BYTES = 256 << 10
_LARGE_BLOCK_BYTES = 8 << 20


class ReceiveBuffer:
    """The memory that every socket of one loop receives into: what `buffer_updated` leaves is kept by its link.

    asyncio and uvloop fill a buffer and report it in one go, so that one serves all; idle connections hold none.
    """

    __slots__ = ("view",)

    def __init__(self) -> None:
        # glibc gives memory back to the system, and faults it in again, around every burst of 64 KiB records (under
        # uvloop 0.8 s of system time a gigabyte), until it has seen one large block freed.
        bytearray(_LARGE_BLOCK_BYTES)
        self.view = memoryview(bytearray(RECEIVE_BYTES))


class LinkOwner(Protocol):
    """What a link needs of the swarm."""

    limits: Limits
    timeouts: Timeouts
    clock: Clock
    loop: asyncio.AbstractEventLoop
    receive_buffer: ReceiveBuffer
    refused: Refused

    def link_opened(self, link: Link) -> None:
        """Take note of a socket that was opened."""
        ...

    def link_upgraded(self, link: Link, result: NoiseResult) -> Connection | None:
        """Return the connection of an upgraded link, or None to refuse it."""
        ...

    def link_failed(self, link: Link, error: Libp2pError) -> None:
        """Take note of a link that ended before it was a connection."""
        ...

    def link_gone(self, link: Link) -> None:
        """Take note of a socket that is closed."""
        ...


class Link(asyncio.BufferedProtocol):
    """A socket on its way to a connection, and below one."""

    def __init__(self, owner: LinkOwner, upgrade: Upgrade) -> None:
        self.received_at = owner.clock.now()
        self.bytes_in = 0
        self.bytes_out = 0
        self.initiator = upgrade.initiator
        self.connection: Connection | None = None
        self.transport: asyncio.Transport | None = None
        self._owner = owner
        self._upgrade: Upgrade | None = upgrade
        self._now = owner.clock.now
        self._buffer = owner.receive_buffer.view
        self._pending = b""
        self._start = 0
        self._channel: NoiseChannel | None = None
        self._session: yamux.YamuxSession | None = None
        self._muxer_negotiation: LazyInitiator | Responder | None = None
        self._result: NoiseResult | None = None
        self._prefix = b""
        self._paused = False
        self._flush_scheduled = False
        self._dispatching = False
        self._ended = False
        self._gone = False
        self._timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._room_waiters: list[Callable[[], None]] = []

    @property
    def stage(self) -> str:
        """What the upgrade waits for."""
        if self.transport is None:
            return "connect"
        if self._upgrade is not None:
            return self._upgrade.stage
        return MUXER_STAGE if self._muxer_negotiation is not None else "connection"

    def may_retry(self, error: Libp2pError) -> bool:
        """Whether the link may have failed because its upgrade was optimistic."""
        return self.transport is not None and self._upgrade is not None and self._upgrade.may_retry(error)

    # -- asyncio -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the upgrade."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=self._owner.limits.transport_buffer_bytes)
        timeouts, clock = self._owner.timeouts, self._owner.clock
        self._timer = clock.call_at(clock.now() + timeouts.upgrade, self._on_timer)
        self._owner.link_opened(self)
        if self._upgrade is not None and not self._ended:
            self._send(self._upgrade.bytes_to_send())

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the loop's buffer, behind what the last chunk left."""
        start = self._start = len(self._pending)
        buffer = self._buffer
        if start:
            buffer[:start] = self._pending
            return buffer[start:]
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was received."""
        end = self._start + nbytes
        self.bytes_in += nbytes
        if self._ended:
            self._pending = b""
        elif self._channel is not None:
            self._receive(self._buffer[:end])
        else:
            self._pending = b""
            self._receive_upgrade(bytes(self._buffer[:end]))

    def eof_received(self) -> bool:
        """End: half-closed sockets are of no use to a muxer."""
        if not self._ended:
            if self._session is not None and not self._pending:
                self._session.receive_eof()
                self._after_receive(self._session)
            else:
                truncated = "in the middle of a record" if self._pending else "during the upgrade"
                self._end(ConnectionEndedError(truncated, by="remote", stage=self.stage))
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Take note that the socket is gone."""
        self._gone = True
        if not self._ended:
            text = os_error_text(error) if isinstance(error, OSError) else "the socket was closed"
            self._end(ConnectionEndedError(text, by="remote", stage=self.stage))
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        self._owner.link_gone(self)
        if self.connection is not None:
            self.connection.on_socket_gone()
            # Without these cycles a connection is freed with its last user, not when the collector finds it.
            self.connection = None
            if self._session is not None:
                self._session.streams.clear()

    def pause_writing(self) -> None:
        """Pull nothing from the session: the socket does not take more."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._paused = False
        self.flush()

    # -- upgrade -----------------------------------------------------------------------------------------------------

    def _receive_upgrade(self, data: bytes) -> None:
        upgrade = self._upgrade
        assert upgrade is not None  # without a channel there is one
        try:
            result = upgrade.receive_bytes(data)
        except Libp2pError as error:
            self._send(upgrade.bytes_to_send())
            self._end(error)
            return
        out = upgrade.bytes_to_send()
        if result is None:
            self._send(out)
            return
        self._upgrade = None
        self._result = result
        self._channel = result.channel
        if self.initiator:
            self._prefix = out
            if result.muxer is None:
                self._muxer_negotiation = LazyInitiator(yamux.PROTOCOL)
                self._prefix += self._channel.encrypt((self._muxer_negotiation.bytes_to_send(),))
            self._start_session()
        else:
            self._send(out)
            if result.muxer is None:
                self._muxer_negotiation = Responder(MUXERS)
            else:
                self._start_session()
        if upgrade.unread and not self._ended:
            self._receive(memoryview(upgrade.unread))

    def _start_session(self) -> None:
        owner, result = self._owner, self._result
        assert result is not None  # set with the channel
        self._session = yamux.YamuxSession(
            initiator=self.initiator,
            limits=owner.limits,
            timeouts=owner.timeouts,
            now=owner.clock.now(),
            refused=owner.refused,
        )
        if self._muxer_negotiation is None:
            self._keep_alive()
        self._result = None
        connection = owner.link_upgraded(self, result)
        if connection is None:
            return
        self.connection = connection
        self.flush_soon()

    def _receive_muxer_answer(self, chunks: list[bytes]) -> list[bytes]:
        """Take the muxer's negotiation out of the first chunks; return the rest."""
        while chunks and self._muxer_negotiation is not None:
            negotiation = self._muxer_negotiation
            try:
                chosen = negotiation.receive_bytes(chunks.pop(0))
            except Libp2pError as error:
                error.stage = MUXER_STAGE
                self._end(error)
                return []
            answer = negotiation.bytes_to_send()
            if answer and self._channel is not None:
                self._send(self._channel.encrypt((answer,)))
            if chosen is not None:
                self._muxer_negotiation = None
                if negotiation.unread:
                    chunks.insert(0, negotiation.unread)
                if self._session is None:
                    self._start_session()
                else:
                    self._keep_alive()
        return chunks

    # -- receiving ---------------------------------------------------------------------------------------------------

    def _receive(self, view: memoryview) -> None:
        channel = self._channel
        assert channel is not None  # the caller has looked
        chunks, used = channel.decrypt(view)
        self._pending = bytes(view[used:]) if used != len(view) else b""
        if self._muxer_negotiation is not None:
            chunks = self._receive_muxer_answer(chunks)
        session = self._session
        if session is not None and not self._ended:
            now = self.received_at = self._now()
            for chunk in chunks:
                session.receive_bytes(chunk, now)
            self._after_receive(session)
        if channel.failure is not None:
            channel.failure.stage = self.stage
            self._end(channel.failure)

    def _after_receive(self, session: yamux.YamuxSession) -> None:
        connection = self.connection
        if connection is None:
            return
        connection._woken = False
        if session.changed:
            # What is written meanwhile is flushed below, behind the tasks that were woken.
            scheduled, self._flush_scheduled = self._flush_scheduled, True
            self._dispatching = True
            while session.changed:
                changed, session.changed = session.changed, []
                connection.on_events(changed)
            self._flush_scheduled = scheduled
            self._dispatching = False
        if session.openable:
            session.openable = False
            connection.on_openable()
        if session.terminated is not None:
            self._end(session.terminated)
        elif connection._woken:
            # A task that was woken may write in the next turn: one flush behind it saves a turn of the loop.
            self.flush_soon()
        elif not self._flush_scheduled and (session.control_bytes or session.scheduled):
            self.flush()

    # -- the muxer's interface ---------------------------------------------------------------------------------------

    @property
    def can_open(self) -> bool:
        """Whether the peer lets us open a stream now."""
        return self._session is not None and self._session.can_open

    @property
    def going_away(self) -> bool:
        """Whether the peer has said that it takes no new streams."""
        return self._session is not None and self._session.going_away is not None

    @property
    def room(self) -> int:
        """Bytes that may be queued now, over all streams."""
        # Urgent writes may have taken more than there was.
        return max(0, self._session.room) if self._session is not None else 0

    def open_stream(self) -> MuxedStream:
        """Open a stream; `can_open` must hold."""
        assert self._session is not None  # a connection has a session
        return self._session.open_stream()

    def flush_soon(self) -> None:
        """Send what is queued at the end of this turn of the loop, or now where many streams have queued something."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._owner.loop.call_soon(self.flush)
        elif not self._dispatching and self._session is not None and len(self._session.scheduled) >= EARLY_STREAMS:
            # Who waits for room is told at the end of the turn, not from within somebody's write.
            self._pull(self._session)

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call back once, in turn with others, when there is room or the connection is over."""
        self._room_waiters.append(callback)

    def flush(self) -> None:
        """Send what is queued, as far as the socket takes it."""
        self._flush_scheduled = False
        session = self._session
        if self._ended or session is None:
            return
        if session.control_bytes or session.scheduled or self._prefix:
            self._pull(session)
        if self._room_waiters:
            self._wake_room_waiters(session)
        if session.changed and self.connection is not None:
            changed, session.changed = session.changed, []
            self.connection.on_events(changed)
        if session.openable and self.connection is not None:
            # The end of a tombstone, which is forgotten once its FIN has left, makes room for a stream.
            session.openable = False
            self.connection.on_openable()
        if session.terminated is not None:
            self._end(session.terminated)

    def _pull(self, session: yamux.YamuxSession) -> None:
        channel = self._channel
        assert channel is not None  # a session has one
        if channel.failure is not None:
            return  # the link ends once what came before the failure was taken
        while (session.control_bytes or session.scheduled) and not self._paused and not self._ended:
            self._send(channel.encrypt(session.bytes_to_send(FLUSH_BYTES)))
        if self._prefix:
            self._send(b"")

    def _wake_room_waiters(self, session: yamux.YamuxSession) -> None:
        waiters = self._room_waiters
        for _ in range(len(waiters)):
            if session.room <= 0 or not waiters:
                return
            waiters.pop(0)()

    def close(self, error: Libp2pError) -> None:
        """Send what is queued and GoAway, then close the socket, within `Timeouts.connection_close`."""
        session, channel = self._session, self._channel
        if not self._ended and session is not None and channel is not None:
            while session.has_output:
                self._send(channel.encrypt(session.bytes_to_send(FLUSH_BYTES)))
            session.terminate(error, yamux.GO_AWAY_NORMAL)
        self._end(error)

    def abort(self, error: Libp2pError) -> None:
        """Drop the socket."""
        if self._session is not None:
            self._session.terminate(error, None)
        self._end(error, drop=True)

    # -- ends --------------------------------------------------------------------------------------------------------

    def _send(self, data: bytes | bytearray) -> None:
        if self._prefix:
            data = self._prefix + data
            self._prefix = b""
        if data and self.transport is not None and not self._gone:
            self.bytes_out += len(data)
            self.transport.write(data)

    def _end(self, error: Libp2pError, *, drop: bool = False) -> None:
        """End the link, whatever it is: the goodbye of the session leaves, unless the socket is dropped."""
        if self._ended:
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        session, channel, connection = self._session, self._channel, self.connection
        can_speak = not drop and channel is not None and channel.failure is None
        if session is not None and channel is not None and can_speak and session.has_output:
            self._send(channel.encrypt(session.bytes_to_send(FLUSH_BYTES)))
        if session is not None:
            session.terminate(error, None)
        self._pending = b""
        self._close_socket(drop=drop)
        if connection is not None:
            connection.on_ended(error)
        else:
            self._owner.link_failed(self, error)
        waiters = self._room_waiters
        while waiters:
            waiters.pop(0)()

    def _close_socket(self, *, drop: bool) -> None:
        transport = self.transport
        if transport is None or self._gone:
            return
        if drop:
            transport.abort()
            return
        transport.close()
        clock = self._owner.clock
        self._close_timer = clock.call_at(clock.now() + self._owner.timeouts.connection_close, self._close_too_slow)

    def _close_too_slow(self) -> None:
        self._close_timer = None
        if self.transport is not None and not self._gone:
            self.transport.abort()

    def _on_timer(self) -> None:
        """End an upgrade that is too slow, or see to the keepalive.

        The timer of the upgrade goes on as that of the keepalive, unless that is due earlier.
        """
        self._timer = None
        session, timeouts = self._session, self._owner.timeouts
        if self._ended:
            return
        if session is None or self._muxer_negotiation is not None:
            self._end(DeadlineError("upgrade", timeouts.upgrade, stage=self.stage), drop=True)
            return
        session.handle_timeout(self._owner.clock.now())
        self.flush()
        if not self._ended:
            self._timer = self._owner.clock.call_at(session.next_timeout(), self._on_timer)

    def _keep_alive(self) -> None:
        """Begin with the keepalive: the upgrade is over."""
        session, timeouts = self._session, self._owner.timeouts
        if session is not None and timeouts.keepalive < timeouts.upgrade and not self._ended:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._owner.clock.call_at(session.next_timeout(), self._on_timer)
