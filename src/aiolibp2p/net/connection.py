"""Connection: one secured, muxed connection to a peer, and the table of its streams."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from aiolibp2p.errors import ConnectionEndedError, DeadlineError, Libp2pError, LimitError, LocalProtocolError
from aiolibp2p.limits import Limits, Refused, Timeouts
from aiolibp2p.net.deadlines import Deadlines
from aiolibp2p.net.muxer import MuxedStream, Muxer
from aiolibp2p.net.stream import Stream
from aiolibp2p.runtime import Clock
from aiolibp2p.sansio.multistream import EagerInitiator, LazyInitiator, Responder
from aiolibp2p.sansio.yamux import OPENED, READABLE, RESET, RESOURCE_LIMIT, WRITABLE

if TYPE_CHECKING:
    from aiolibp2p.identity.multiaddr import Multiaddr
    from aiolibp2p.identity.peer_id import PeerId
    from aiolibp2p.net.race import DialRecord
    from aiolibp2p.report import DialReport
    from aiolibp2p.sansio.identify import Identify

Direction = Literal["inbound", "outbound"]


@dataclass(slots=True)
class StreamCounts:
    """How many streams and tombstones there are, of one peer or in all."""

    streams: int = 0
    tombstones: int = 0
    handlers: int = 0


class ConnectionOwner(Protocol):
    """What a connection needs of the swarm that holds it."""

    limits: Limits
    timeouts: Timeouts
    clock: Clock
    loop: asyncio.AbstractEventLoop
    counts: StreamCounts
    refused: Refused

    def speaks(self, protocol: str) -> bool:
        """Whether inbound streams may ask for `protocol`."""
        ...

    def protocols(self) -> Sequence[str]:
        """Return what `speaks` accepts."""
        ...

    def peer_counts(self, peer_id: PeerId) -> StreamCounts:
        """Return the counts of one peer, over its connections."""
        ...

    def accept(self, stream: Stream) -> None:
        """Take an inbound stream whose protocol is settled."""
        ...

    def handler_failed(self, stream: Stream, error: Exception) -> None:
        """Take note that a handler or callback of `stream` has raised."""
        ...

    def connection_ended(self, connection: Connection, error: Libp2pError) -> None:
        """Take note that the connection is over; called once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFacts:
    """What was settled when the connection was made."""

    peer_id: PeerId
    local_address: Multiaddr
    remote_address: Multiaddr
    direction: Direction
    transport: str
    security: str
    muxer: str
    opened_at: float


class Connection:
    """A connection to a peer; streams are opened on it, by either side."""

    def __init__(self, owner: ConnectionOwner, muxer: Muxer, facts: ConnectionFacts) -> None:
        self.peer_id = facts.peer_id
        """The peer, as it has proved."""
        self.local_address = facts.local_address
        self.remote_address = facts.remote_address
        self.direction: Direction = facts.direction
        self.transport = facts.transport
        self.security = facts.security
        self.muxer = facts.muxer
        """The muxer's protocol id."""
        self.opened_at = facts.opened_at
        """Seconds since 1970."""
        self.identify: Identify | None = None
        """What the peer said of itself, or None yet."""
        self.dial_record: DialRecord | None = None
        """What `dial_report` is made of."""
        self.refused: set[str] = set()
        """Protocols that the peer has refused on this connection although it, or we, believed otherwise."""
        self._owner = owner
        self._muxer = muxer
        self._limits = owner.limits
        self._timeouts = owner.timeouts
        self._clock = owner.clock
        self._loop = owner.loop
        self._counts = owner.peer_counts(facts.peer_id)
        self._deadlines = Deadlines(owner.clock)
        self._streams: dict[int, Stream] = {}
        self._tombstones: dict[int, Stream] = {}
        self._inbound = self._outbound = 0
        self._made_at = self._used_at = owner.clock.now()
        self._open_waiters: list[asyncio.Future[None]] = []
        self._error: Libp2pError | None = None
        self._closed = owner.loop.create_future()
        self._woken = False
        """Whether a task was woken since the muxer last looked: it will write in this turn, so a flush can wait."""

    # -- what users read ---------------------------------------------------------------------------------------------

    @property
    def streams(self) -> list[Stream]:
        """The streams in use; closed ones whose peer still owes something are in `tombstones`."""
        return list(self._streams.values())

    @property
    def tombstones(self) -> list[Stream]:
        """Streams that were closed here and whose peer still owes its answer or its end."""
        return list(self._tombstones.values())

    @property
    def bytes_in(self) -> int:
        """Bytes received from the socket."""
        return self._muxer.bytes_in

    @property
    def bytes_out(self) -> int:
        """Bytes given to the socket."""
        return self._muxer.bytes_out

    @property
    def ended(self) -> Libp2pError | None:
        """Why the connection is over, or None while it is not."""
        return self._error

    @property
    def made_at(self) -> float:
        """When the connection was made, on the host's monotonic clock."""
        return self._made_at

    @property
    def used_at(self) -> float:
        """When it was last of use, on the same clock: when its last stream ended; with streams, when something came."""
        return self._muxer.received_at if self._streams else self._used_at

    @property
    def opened_streams(self) -> int:
        """How many of its streams in use were opened by this host."""
        return self._outbound

    @property
    def accepted_streams(self) -> int:
        """How many of its streams in use were opened by the peer."""
        return self._inbound

    @property
    def dial_report(self) -> DialReport | None:
        """What became of every address of the dial that made this connection; None for an inbound one."""
        return None if self.dial_record is None else self.dial_record.report()

    async def open_stream(self, *protocols: str) -> Stream:
        """Open a stream for the first of `protocols` that the peer speaks.

        One protocol, or one that identify named, is opened lazily: nothing is waited for, and the first read learns of
        a refusal. Several are otherwise proposed one by one.

        Raises:
            NegotiationError: the peer speaks none of them (only when it was asked).
            DeadlineError: no room for a stream within `Timeouts.open_stream`, or no answer within `Timeouts.negotiate`.
            LimitError: this host, or its streams with this peer, are at their limit.
            ConnectionEndedError: the connection is over.
            LocalProtocolError: no protocol was named.
        Cancellation: the stream is reset.
        """
        if not protocols:
            raise LocalProtocolError("name at least one protocol")
        known = protocols[0] if len(protocols) == 1 else self._known(protocols)
        negotiation = EagerInitiator(protocols) if known is None else LazyInitiator(known)
        if not self._may_open():
            await self._wait_to_open()
        stream = self._open(negotiation, known or "")
        if known is None:
            await stream.answered()
        return stream

    def open_now(self, protocol: str) -> Stream:
        """Open a stream lazily, without waiting for room.

        Raises:
            LimitError: there is no room for a stream now.
            ConnectionEndedError: the connection is over.
        """
        if not self._may_open():
            full = self._outbound >= self._limits.streams_per_connection
            raise self._refusal("streams_per_connection" if full else "yamux_ack_backlog")
        return self._open(LazyInitiator(protocol), protocol)

    def close(self) -> None:
        """End the connection politely: what is queued leaves first, within `Timeouts.connection_close`. Never waits."""
        if self._error is None:
            self._muxer.close(ConnectionEndedError(by="local"))

    def abort(self) -> None:
        """End the connection at once, without a goodbye. Never waits."""
        if self._error is None:
            self._muxer.abort(ConnectionEndedError(by="local"))

    async def wait_closed(self) -> None:
        """Wait until the socket is gone.

        Raises:
            LocalProtocolError: the connection is not over.
        Cancellation: the connection goes on closing.
        """
        if self._error is None:
            raise LocalProtocolError("the connection is not being closed")
        await asyncio.shield(self._closed)

    def __repr__(self) -> str:
        state = "open" if self._error is None else "ended"
        return f"<Connection {self.direction} {self.remote_address} {self.peer_id} {state}>"

    # -- opening -----------------------------------------------------------------------------------------------------

    def _open(self, negotiation: EagerInitiator | LazyInitiator, protocol: str) -> Stream:
        stream = Stream(self, self._muxer.open_stream(), negotiation, protocol=protocol, inbound=False)
        self._add(stream)
        stream.start()
        return stream

    def _known(self, protocols: Sequence[str]) -> str | None:
        if self.identify is None:
            return None
        offered = self.identify.protocols
        return next((name for name in protocols if name in offered and name not in self.refused), None)

    def _may_open(self) -> bool:
        if self._error is not None:
            raise self._error.with_traceback(None)
        limits = self._limits
        if self._owner.counts.streams >= limits.streams:
            raise self._refusal("streams")
        if self._counts.streams >= limits.streams_per_peer:
            raise self._refusal("streams_per_peer")
        if self._muxer.going_away:
            raise ConnectionEndedError("it takes no new streams", by="remote", stage="open stream")
        return self._muxer.can_open and self._outbound < limits.streams_per_connection

    def _refusal(self, limit: str) -> LimitError:
        self._owner.refused(limit)
        return LimitError(limit, stage="open stream")

    async def _wait_to_open(self) -> None:
        seconds = self._timeouts.open_stream
        try:
            async with asyncio.timeout(seconds):
                while not self._may_open():
                    waiter = self._loop.create_future()
                    self._open_waiters.append(waiter)
                    try:
                        await waiter
                    except asyncio.CancelledError:
                        if not waiter.cancelled():
                            self._wake_openers()  # the room this one was woken for goes to the next
                        raise
                    finally:
                        if waiter in self._open_waiters:
                            self._open_waiters.remove(waiter)
        except TimeoutError as error:
            if isinstance(error, Libp2pError):
                raise
            raise DeadlineError("open_stream", seconds, stage="open stream") from None

    def _wake_openers(self) -> None:
        # Each in turn, and each looks again: room for one must not wake a thousand.
        waiters = self._open_waiters
        # A peer that takes no new streams is an error for all who wait, and that needs no room.
        free = len(waiters) if self._muxer.going_away else self._limits.streams_per_connection - self._outbound
        while waiters and free > 0 and (self._muxer.can_open or self._muxer.going_away or self._error is not None):
            waiter = waiters.pop(0)
            if not waiter.done():
                waiter.set_result(None)
                free -= 1

    # -- what the muxer calls ----------------------------------------------------------------------------------------

    def on_events(self, changed: Sequence[MuxedStream]) -> None:
        """Take note of what happened on streams."""
        for muxed in changed:
            bits, muxed.events = muxed.events, 0
            stream: Stream | None = muxed.owner
            if stream is None:
                if not bits & OPENED or bits & RESET or (stream := self._admit(muxed)) is None:
                    continue
                stream.on_readable_event()
                if stream.handshake == "pending" and not stream._over:
                    stream._set_state_deadline(self._clock.now() + self._timeouts.negotiate)
                continue
            if bits & RESET:
                stream.on_reset_event()
                continue
            if bits & READABLE:
                stream.on_readable_event()
            if bits & WRITABLE:
                stream.on_writable_event()

    def on_openable(self) -> None:
        """Take note that the peer may let us open streams."""
        if self._open_waiters:
            self._wake_openers()

    def on_ended(self, error: Libp2pError) -> None:
        """Take note that the connection is over; streams, waiters and deadlines end."""
        if self._error is not None:
            return
        self._error = error
        for stream in (*self._streams.values(), *self._tombstones.values()):
            stream.on_connection_ended(error)
        while self._open_waiters:
            waiter = self._open_waiters.pop(0)
            if not waiter.done():
                waiter.set_result(None)
        self._deadlines.close()
        self._owner.connection_ended(self, error)
        # Who was told may have raised it: its traceback would hold their frames, and these the connection.
        error.__traceback__ = None

    def on_socket_gone(self) -> None:
        """Take note that the socket is closed."""
        if not self._closed.done():
            self._closed.set_result(None)

    def _admit(self, muxed: MuxedStream) -> Stream | None:
        limits, owner = self._limits, self._owner
        limit = None
        if self._inbound >= limits.streams_per_connection:
            limit = "streams_per_connection"
        elif self._counts.streams >= limits.streams_per_peer:
            limit = "streams_per_peer"
        elif owner.counts.streams >= limits.streams:
            limit = "streams"
        if limit is not None:
            owner.refused(limit)
            muxed.reset(RESOURCE_LIMIT)
            return None
        stream = Stream(self, muxed, Responder(owner.speaks, owner.protocols), protocol="", inbound=True)
        self._add(stream)
        return stream

    # -- what streams call -------------------------------------------------------------------------------------------

    def _accept(self, stream: Stream) -> None:
        self._woken = True
        self._owner.accept(stream)

    def _handler_failed(self, stream: Stream, error: Exception) -> None:
        stream.reset()
        self._owner.handler_failed(stream, error)

    def _protocols_refused(self, protocols: Sequence[str]) -> None:
        self.refused.update(protocols)
        while len(self.refused) > self._limits.identify_protocols:
            self.refused.pop()
            self._owner.refused("identify_protocols")

    def _add(self, stream: Stream) -> None:
        self._streams[stream.id] = stream
        if stream.inbound:
            self._inbound += 1
        else:
            self._outbound += 1
        self._counts.streams += 1
        self._owner.counts.streams += 1

    def _leave(self, stream: Stream) -> bool:
        if self._streams.pop(stream.id, None) is None:
            return False
        if stream.inbound:
            self._inbound -= 1
        else:
            self._outbound -= 1
        self._counts.streams -= 1
        self._owner.counts.streams -= 1
        if not self._streams:
            self._used_at = self._muxer.received_at
        if self._open_waiters:
            self._wake_openers()
        return True

    def _entomb(self, stream: Stream) -> None:
        """Make a closed stream a tombstone; the oldest of this connection makes room."""
        if not self._leave(stream):
            return
        limits, counts = self._limits, self._owner.counts
        self._tombstones[stream.id] = stream
        counts.tombstones += 1
        while len(self._tombstones) > limits.tombstones_per_connection or counts.tombstones > limits.tombstones:
            if not self._tombstones:
                break
            here = len(self._tombstones) > limits.tombstones_per_connection
            self._owner.refused("tombstones_per_connection" if here else "tombstones")
            self._tombstones[next(iter(self._tombstones))].bury()

    def _remove(self, stream: Stream) -> None:
        if not self._leave(stream) and self._tombstones.pop(stream.id, None) is not None:
            self._owner.counts.tombstones -= 1
