"""Host: the object that users hold; it owns connections, handlers and the protocols every host speaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Self, overload

from aiolibp2p.errors import DeadlineError, Libp2pError, LimitError, LocalProtocolError
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.limits import Limits, Timeouts, unheard
from aiolibp2p.log import logger_of
from aiolibp2p.net.connection import Connection
from aiolibp2p.net.events import (
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRefused,
    Events,
    EventStream,
    HandlerFailed,
    InboundFailed,
    PeerIdentified,
)
from aiolibp2p.net.peerstore import Peerstore
from aiolibp2p.net.profile import HostProfile, profile_connection
from aiolibp2p.net.stream import Stream
from aiolibp2p.net.swarm import Swarm
from aiolibp2p.net.tasks import Tasks, begin, begun
from aiolibp2p.profile import profile_tasks
from aiolibp2p.protocols import identify, perf, ping
from aiolibp2p.runtime import Clock, Runtime
from aiolibp2p.sansio.identify import Identify
from aiolibp2p.sansio.multistream import encode_message
from aiolibp2p.sansio.yamux import RESOURCE_LIMIT
from aiolibp2p.version import AGENT

Handler = Callable[[Stream], Awaitable[None]]
Target = Multiaddr | str | PeerId

_log = logger_of("host")
_SERVED_BY_ALL = (ping.PROTOCOL, identify.PROTOCOL, identify.PUSH_PROTOCOL)
"""What every host answers by itself."""


class Host:
    """A libp2p node: `async with Host(listen=[...]) as host`.

    Leaving the block ends every connection, stream, handler and timer within `Timeouts.shutdown`.

    Args:
        listen: addresses to listen on; none makes a host that only dials.
        key: the identity; None makes a fresh one.
        transports: what is dialled and listened on: "tcp".
        security: what secures connections: "noise".
        runtime: clock, randomness and sockets; None is the running loop and the system.
        timeouts: how long things may take.
        limits: how much may be held.
        agent: what identify says of this program.
        serve_perf: whether peers may measure throughput here.
        peerstore: what is known of peers; it stays the caller's. None begins with nothing, and forgets with the host.
    """

    def __init__(  # noqa: PLR0913  every option of a host is one of these, by keyword
        self,
        *,
        listen: Sequence[Multiaddr | str] = (),
        key: PrivateKey | None = None,
        transports: Sequence[str] = ("tcp",),
        security: Sequence[str] = ("noise",),
        runtime: Runtime | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        agent: str = AGENT,
        serve_perf: bool = False,
        peerstore: Peerstore | None = None,
    ) -> None:
        if tuple(transports) != ("tcp",) or tuple(security) != ("noise",):
            raise LocalProtocolError("this version has the transport tcp and the security noise, and nothing else")
        self._listen = tuple(Multiaddr(address) for address in listen)
        self._key = key
        self._runtime = runtime
        self._agent = agent
        self.timeouts = timeouts if timeouts is not None else Timeouts()
        self.limits = limits if limits is not None else Limits()
        self._handlers: dict[str, Handler | Callable[[Stream], None]] = {}
        self._callbacks: set[str] = set()
        self._watchers: list[Callable[[PeerId], None]] = []
        self._peerstore = peerstore
        self._entered: asyncio.Task[object] | None = None
        self._crash: BaseException | None = None
        self._cancelled = False
        """Whether a crash has cancelled who entered the host."""
        self._swarm_: Swarm | None = None
        if serve_perf:
            self.handle(perf.PROTOCOL, perf.respond)

    # -- life --------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start listening.

        Raises:
            ListenError: an address cannot be listened on.
            LocalProtocolError: the host was entered before.
        """
        if self._swarm_ is not None:
            raise LocalProtocolError("a host can be entered once")
        loop = asyncio.get_running_loop()
        runtime = self._runtime = self._runtime or Runtime.system()
        key = self._key = self._key or PrivateKey.generate(runtime.entropy.fork("key"))
        self._entered = asyncio.current_task()
        self._tasks = Tasks(loop, self.crashed)
        self._events = Events(loop, self.limits.events)
        self._clock = runtime.clock
        if self._peerstore is None:
            self._peerstore = Peerstore(runtime.clock, limits=self.limits, timeouts=self.timeouts)
        self._peerstore.refused = self.refused
        swarm = self._swarm_ = Swarm(
            key=key,
            runtime=runtime,
            limits=self.limits,
            timeouts=self.timeouts,
            user=self,
            tasks=self._tasks,
            peerstore=self._peerstore,
        )
        self._ping_responder = ping.PingResponder(self.limits, self.refused)
        self._pinger = ping.PingInitiator(runtime.clock, runtime.entropy.fork("ping"), self.timeouts)
        self._identifier = identify.Identifier(
            key=key,
            agent=self._agent,
            clock=runtime.clock,
            limits=self.limits,
            timeouts=self.timeouts,
            user=self,
        )
        self.serve(ping.PROTOCOL, self._ping_responder.accept)
        self._handlers[identify.PROTOCOL] = self._identifier.answer
        self._handlers[identify.PUSH_PROTOCOL] = self._identifier.take_push
        try:
            for address in self._listen:
                await swarm.listen(address)
        except BaseException:
            await self._shut_down()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entered, self._entered = self._entered, None
        refused: list[str] = []
        try:
            if self._crash is not None and error is None:
                await asyncio.sleep(0)  # the crash has cancelled this task, which has not waited since
            refused = await self._shut_down()
        except asyncio.CancelledError:
            if self._crash is None:
                raise
            refused = await self._shut_down()
        if self._crash is not None:
            if self._cancelled and entered is not None:
                entered.uncancel()
            raise self._crash
        if refused and error is None:
            names = ", ".join(refused)
            message = f"abandoned, as they did not end: {names},"
            raise DeadlineError("shutdown", self.timeouts.shutdown, message, stage="shutdown")

    async def _shut_down(self) -> list[str]:
        deadline = self._clock.now() + self.timeouts.shutdown
        self._identifier.close()
        try:
            await self._swarm.close()
        finally:
            self._swarm.peerstore.refused = unheard
            refused = await self._tasks.close(max(0.0, deadline - self._clock.now()))
            self._events.end()
        return refused

    def crashed(self, error: BaseException) -> None:
        """End the host loudly: a task of ours has failed. For services that own tasks on this host."""
        if self._crash is None:
            self._crash = error
            _log.critical("a task of the host has crashed", exc_info=error)
            if self._entered is not None and not self._entered.done():
                self._cancelled = self._entered.cancel("a task of the host has crashed")

    @property
    def _swarm(self) -> Swarm:
        if self._swarm_ is None:
            raise LocalProtocolError("the host has not started: use it inside `async with`")
        return self._swarm_

    # -- who and where -----------------------------------------------------------------------------------------------

    @property
    def peer_id(self) -> PeerId:
        """This host's peer ID."""
        return self._swarm.peer_id

    @property
    def key(self) -> PrivateKey:
        """This host's private key."""
        if self._key is None:
            raise LocalProtocolError("the host has not started: use it inside `async with`")
        return self._key

    @property
    def clock(self) -> Clock:
        """The clock that this host lives by."""
        self._swarm  # noqa: B018  raises before the start
        return self._clock

    @property
    def peerstore(self) -> Peerstore:
        """What this host knows of peers, and where the user gives it addresses of some."""
        return self._swarm.peerstore

    @property
    def addresses(self) -> list[Multiaddr]:
        """Where this host listens, each address ending in its peer ID."""
        return [address.with_peer_id(self.peer_id) for address in self._swarm.listen_addresses]

    @property
    def connections(self) -> list[Connection]:
        """All connections."""
        return self._swarm.connections

    def connection_to(self, target: PeerId) -> Connection | None:
        """Return the oldest connection to a peer on which streams can be opened, or None."""
        return self._swarm.connection_to(target)

    def events(self) -> EventStream:
        """Return what happens from now on, for `async for`; what a slow consumer loses is counted in `missed`."""
        self._swarm  # noqa: B018  raises before the start
        return self._events.subscribe()

    @property
    def refusals(self) -> Mapping[str, int]:
        """How often each limit, a field of `Limits`, has refused, ended or dropped something; a live view.

        A limit at which one merely waits, or that bounds a size, stays at 0.
        """
        self._swarm  # noqa: B018  raises before the start
        return self._events.refusals

    def profile(self) -> HostProfile:
        """Return what this host does and waits for: its tasks, and the streams and tombstones of its connections.

        How old a task is and how long it has waited is known in a simulation, and on a real loop while a
        `profile.TaskAges` is started on it.
        """
        connections = tuple(profile_connection(connection) for connection in self._swarm.connections)
        return HostProfile(str(self.peer_id), profile_tasks(self._swarm.loop, self._tasks._tasks), connections)

    # -- serving -----------------------------------------------------------------------------------------------------

    @overload
    def handle(self, protocol: str, handler: Handler) -> Handler: ...

    @overload
    def handle(self, protocol: str, handler: None = None) -> Callable[[Handler], Handler]: ...

    def handle(self, protocol: str, handler: Handler | None = None) -> Handler | Callable[[Handler], Handler]:
        """Serve a protocol: `handler(stream)` runs in a task of its own for every stream that a peer opens for it.

        The stream is closed when the handler returns and reset when it raises; neither disturbs anything else. Usable
        as a decorator.

        Raises:
            InvalidValueError: `protocol` is no protocol id.
            LocalProtocolError: it is served already.
        """
        if handler is None:
            return lambda function: self.handle(protocol, function)
        encode_message(protocol)
        # Before the start the host's own are not among the handlers yet; afterwards `unhandle` may have taken them out.
        if protocol in self._handlers or (self._swarm_ is None and protocol in _SERVED_BY_ALL):
            raise LocalProtocolError(f"{protocol} is served already")
        self._handlers[protocol] = handler
        self._protocols_changed()
        return handler

    def unhandle(self, protocol: str) -> None:
        """Serve a protocol no more; streams that are open go on.

        Raises:
            LocalProtocolError: it is not served.
        """
        if self._handlers.pop(protocol, None) is None:
            raise LocalProtocolError(f"{protocol} is not served")
        self._callbacks.discard(protocol)
        self._protocols_changed()

    def serve(self, protocol: str, accept: Callable[[Stream], None]) -> None:
        """Serve a protocol on callbacks: `accept(stream)` is called with each stream, and must not wait.

        For servers that need no task a stream: they live on `Stream.on_readable`, `try_read`, `try_write` and
        `on_writable`.

        Raises: as `handle`.
        """
        encode_message(protocol)
        if protocol in self._handlers:
            raise LocalProtocolError(f"{protocol} is served already")
        self._handlers[protocol] = accept
        self._callbacks.add(protocol)
        self._protocols_changed()

    def _protocols_changed(self) -> None:
        if self._swarm_ is not None:
            self._identifier.push_soon(lambda: self._swarm.connections)

    # -- reaching others ---------------------------------------------------------------------------------------------

    async def connect(self, target: Target) -> Connection:
        """Return a connection to a peer, made now if there is none; does not wait for identify.

        Args:
            target: an address, with or without /p2p/…, or the ID of a peer whose address is known.

        Raises:
            InvalidValueError: the text is neither address nor peer ID.
            DialError: no address led to the peer; `failures` says what happened on each.
            LimitError: a limit of connections is reached.
        Cancellation: a dial that others wait for goes on.
        """
        swarm = self._swarm
        peer_id, address = _parse_target(target)
        if peer_id is not None:
            connection = swarm.connection_to(peer_id)
            if connection is not None:
                return connection
            if peer_id == swarm.peer_id:
                raise LocalProtocolError("a host does not dial itself", stage="dial")
            known = swarm.peerstore.addresses(peer_id)
            return await swarm.connect(peer_id, () if address is None else (address,), known)
        assert address is not None  # a target is one or the other
        return await swarm.connect(None, (address,))

    async def disconnect(self, target: Target) -> None:
        """Close all connections to a peer and wait until their sockets are gone, within `Timeouts.connection_close`.

        Raises:
            InvalidValueError: the target names no peer.
        Cancellation: the connections go on closing.
        """
        peer_id, address = _parse_target(target)
        if peer_id is None:
            raise LocalProtocolError(f"{address} names no peer")
        for connection in self._swarm.disconnect(peer_id):
            await connection.wait_closed()

    async def open_stream(self, target: Target, *protocols: str) -> Stream:
        """Open a stream to a peer, connecting first if need be.

        One protocol is always opened lazily: no answer is waited for, and the first read learns of a refusal. Of
        several, the first that identify named is opened lazily; without its word they are proposed one by one.

        Raises: as `connect` and `Connection.open_stream`.
        Cancellation: the stream is reset.
        """
        connection = self._swarm.connection_to(target) if type(target) is PeerId else None
        if connection is None:
            connection = await self.connect(target)
        return await connection.open_stream(*protocols)

    async def ping(self, target: Target) -> float:
        """Return the seconds that a round trip to a peer takes.

        Raises: as `connect`, and DeadlineError, NegotiationError, RemoteProtocolError.
        Cancellation: the answer is dropped when it comes.
        """
        connection = self._swarm.connection_to(target) if type(target) is PeerId else None
        return await self._pinger.ping(connection or await self.connect(target))

    async def identify(self, target: Target) -> Identify:
        """Return what a peer says of itself, waiting for its word if need be.

        Raises: as `connect`, and DeadlineError, NegotiationError, RemoteProtocolError.
        Cancellation: the question stays asked.
        """
        return await self._identifier.identified(await self.connect(target))

    async def perf(
        self,
        target: Target,
        *,
        upload_bytes: int = 0,
        download_bytes: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> perf.PerfResult:
        """Measure throughput with a peer that serves perf.

        Raises: as `connect`, and as `Stream.read` and `Stream.write`.
        Cancellation: the stream is reset.
        """
        connection = await self.connect(target)
        return await perf.measure(
            connection, self._clock, upload_bytes=upload_bytes, download_bytes=download_bytes, progress=progress
        )

    def protect(self, peer_id: PeerId, tag: str) -> None:
        """Close no connection to a peer to make room for others, until all `tag`s given here are taken back.

        A protected peer is refused like any other where a hard limit is reached.
        """
        self._swarm.protect(peer_id, tag)

    def unprotect(self, peer_id: PeerId, tag: str) -> bool:
        """Take back a protection; return whether another tag still protects the peer."""
        return self._swarm.unprotect(peer_id, tag)

    # -- what the swarm calls ----------------------------------------------------------------------------------------

    def refused(self, limit: str, count: int = 1, /) -> None:
        """Count what a limit has refused, ended or dropped. For services on this host, too."""
        self._events.refused(limit, count)

    def speaks(self, protocol: str) -> bool:
        """Whether inbound streams may ask for `protocol`."""
        return protocol in self._handlers

    def protocols(self) -> Sequence[str]:
        """Return the protocols served."""
        return tuple(self._handlers)

    def on_stream(self, stream: Stream) -> None:
        """Start the handler of an inbound stream, unless a limit forbids it."""
        handler = self._handlers[stream.protocol]
        if stream.protocol in self._callbacks:
            try:
                handler(stream)
            except Exception as error:  # noqa: BLE001  the boundary of a user's callback
                stream.reset()
                self.on_handler_failed(stream, error)
            return
        counts, peer = self._swarm.counts, stream.connection._counts
        if counts.handlers >= self.limits.handlers or peer.handlers >= self.limits.handlers_per_peer:
            own = peer.handlers >= self.limits.handlers_per_peer
            self.refused("handlers_per_peer" if own else "handlers")
            stream.reset(RESOURCE_LIMIT)
            return
        counts.handlers += 1
        peer.handlers += 1
        # A name without formatting: forty thousand streams a second leave 25 microseconds each.
        stream._task = self._tasks.start_guarded(begin(self._run(stream, handler)), stream.protocol)

    async def _run(self, stream: Stream, handler: Handler | Callable[[Stream], None]) -> None:
        try:
            await begun()
            result = handler(stream)
            if result is not None:
                await result
            stream.close()
        except asyncio.CancelledError:
            stream.reset()
            raise
        except Exception as error:  # noqa: BLE001  the boundary of a user's handler
            stream.reset()
            self.on_handler_failed(stream, error)
            if error is stream.connection.ended:
                error.__traceback__ = None  # it is the connection's, and its frames would lead back there
        finally:
            self._swarm.counts.handlers -= 1
            stream.connection._counts.handlers -= 1
            self._tasks.discard(stream._task)
            stream._task = None

    def on_handler_failed(self, stream: Stream, error: Exception) -> None:
        """Report a handler that raised; an error of the peer's making is no news to the log."""
        level = logging.DEBUG if isinstance(error, Libp2pError) else logging.WARNING
        if _log.isEnabledFor(level):
            facts = {"protocol": stream.protocol, "peer_id": stream.peer_id}
            _log.log(level, "the handler of a stream failed", exc_info=error, extra=facts)
        self._events.put(HandlerFailed(stream, error))

    def on_connection(self, connection: Connection) -> None:
        """Ask the peer of a new connection what it is."""
        peerstore = self._swarm.peerstore
        peerstore.connected(connection.peer_id)
        if connection.direction == "outbound":
            peerstore.dial_succeeded(connection.peer_id, connection.remote_address)
        self._identifier.ask(connection)
        self._events.put(ConnectionOpened(connection))

    def on_connection_ended(self, connection: Connection, error: Libp2pError) -> None:
        """Forget a connection."""
        peer_id, peerstore = connection.peer_id, self._swarm.peerstore
        if connection.refused:
            # A refusal outweighs what the peer said it accepts.
            believed = peerstore.protocols(peer_id)
            peerstore.set_protocols(peer_id, [name for name in believed if name not in connection.refused])
        peerstore.disconnected(peer_id)
        self._identifier.forget(connection)
        self._pinger.forget(connection)
        if not self._swarm.connections_to(connection.peer_id):
            for gone in tuple(self._watchers):
                gone(connection.peer_id)
        self._events.put(ConnectionClosed(connection, error))

    def watch(self, gone: Callable[[PeerId], None]) -> Callable[[], None]:
        """Call back with each peer whose last connection has ended; return what stops that.

        For services that keep something for each peer. The callback must not wait or raise.
        """
        self._watchers.append(gone)
        return lambda: self._watchers.remove(gone)

    def on_refused(self, error: LimitError, address: Multiaddr) -> None:
        """Report a connection that a limit refused."""
        self._events.put(ConnectionRefused(address, error))

    def on_inbound_failed(self, error: Libp2pError) -> None:
        """Report an inbound socket that did not become a connection."""
        self._events.put(InboundFailed(error))

    def listen_addresses(self) -> Sequence[Multiaddr]:
        """Return where this host listens, without its peer ID."""
        return self._swarm.listen_addresses

    def on_identified(self, connection: Connection, said: Identify) -> None:
        """Remember what a peer said."""
        self._swarm.peerstore.identified(connection.peer_id, said, connection.remote_address)
        self._events.put(PeerIdentified(connection, said))


def _parse_target(target: Target) -> tuple[PeerId | None, Multiaddr | None]:
    if isinstance(target, PeerId):
        return target, None
    if isinstance(target, Multiaddr):
        return target.peer_id, target
    return _parse_text(target)


@lru_cache(maxsize=256)
def _parse_text(text: str) -> tuple[PeerId | None, Multiaddr | None]:
    if text.startswith("/"):
        address = Multiaddr(text)
        return address.peer_id, address
    return PeerId.parse(text), None
