"""Swarm: the listeners, the connections and the dials of one host, within its limits."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiolibp2p.errors import ConnectionEndedError, DialError, Libp2pError, LimitError, ListenError
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.limits import Limits, Refused, Timeouts
from aiolibp2p.log import logger_of
from aiolibp2p.net import tcp
from aiolibp2p.net.connection import Connection, ConnectionFacts, StreamCounts
from aiolibp2p.net.dial import Dialer, OutboundLink
from aiolibp2p.net.link import MUXERS, Link, ReceiveBuffer
from aiolibp2p.net.listening import ListenAddresses
from aiolibp2p.net.peerstore import Peerstore
from aiolibp2p.net.stream import Stream
from aiolibp2p.net.tasks import Tasks
from aiolibp2p.net.trim import Candidate, choose
from aiolibp2p.net.upgrade import Upgrade
from aiolibp2p.runtime import Runtime, os_error_text
from aiolibp2p.sansio import yamux
from aiolibp2p.sansio.noise import PROTOCOL as NOISE
from aiolibp2p.sansio.noise import NoiseIdentity, NoiseResult

_log = logger_of("net")


class SwarmUser(Protocol):
    """What the swarm tells the host; none of it may wait."""

    def refused(self, limit: str, count: int = 1, /) -> None:
        """Count what a limit has refused, ended or dropped."""
        ...

    def speaks(self, protocol: str) -> bool:
        """Whether inbound streams may ask for `protocol`."""
        ...

    def protocols(self) -> Sequence[str]:
        """Return what `speaks` accepts."""
        ...

    def on_stream(self, stream: Stream) -> None:
        """Take an inbound stream whose protocol is settled."""
        ...

    def on_connection(self, connection: Connection) -> None:
        """Take note of a new connection."""
        ...

    def on_connection_ended(self, connection: Connection, error: Libp2pError) -> None:
        """Take note of the end of one."""
        ...

    def on_refused(self, error: LimitError, address: Multiaddr) -> None:
        """Take note of a connection that a limit refused."""
        ...

    def on_inbound_failed(self, error: Libp2pError) -> None:
        """Take note of an inbound socket that did not become a connection."""
        ...

    def on_handler_failed(self, stream: Stream, error: Exception) -> None:
        """Take note that a handler or callback of `stream` has raised."""
        ...


@dataclass(slots=True)
class _Peer:
    """What is held for one peer while it has connections."""

    connections: list[Connection]
    counts: StreamCounts


class Swarm:
    """All sockets of a host."""

    def __init__(
        self,
        *,
        key: PrivateKey,
        runtime: Runtime,
        limits: Limits,
        timeouts: Timeouts,
        user: SwarmUser,
        tasks: Tasks,
        peerstore: Peerstore,
    ) -> None:
        self.peer_id = key.public.peer_id
        self.runtime = runtime
        self.limits = limits
        self.timeouts = timeouts
        self.peerstore = peerstore
        self.clock = runtime.clock
        self.loop = asyncio.get_running_loop()
        self.receive_buffer = ReceiveBuffer()
        self.counts = StreamCounts()
        self.refused: Refused = user.refused
        self.entropy = runtime.entropy.fork("noise")
        self.noise = NoiseIdentity(key, self.entropy)
        self.speaks: Callable[[str], bool] = user.speaks
        self.protocols: Callable[[], Sequence[str]] = user.protocols
        self._user = user
        self._dialer = Dialer(self, tasks)
        self._dials = self._dialer.dials
        self._links: dict[Link, None] = {}
        """Every open socket."""
        self._pending_inbound: dict[Link, str] = {}
        """Inbound sockets that are being upgraded, and the network that each came from."""
        self._pending_of: dict[str, dict[Link, None]] = {}
        """The same by network, oldest first."""
        self._peers: dict[PeerId, _Peer] = {}
        self._connection_count = 0
        self._protected: dict[PeerId, set[str]] = {}
        """Why connections to these peers are not closed to make room."""
        self._trim_timer: asyncio.TimerHandle | None = None
        self._servers: list[asyncio.Server] = []
        self._listening = ListenAddresses(runtime.net, runtime.clock, timeouts.interfaces)
        self._closing = False

    # -- listening ---------------------------------------------------------------------------------------------------

    @property
    def listen_addresses(self) -> list[Multiaddr]:
        """The addresses listened on, with their real ports; unspecified ones as those of this machine's interfaces."""
        return self._listening.reachable()

    def listens_on(self, endpoint: tuple[str, int]) -> bool:
        """Whether an IP address and port are this host's own."""
        return self._listening.includes(endpoint)

    async def listen(self, address: Multiaddr) -> None:
        """Listen on a TCP address; port 0 lets the system choose.

        Raises:
            ListenError: the address is not TCP, in use, or not this machine's.
        """
        host, port = tcp.listen_endpoint(address)
        try:
            server = await self.runtime.net.listen_tcp(self._inbound_link, host, port)
        except OSError as error:
            raise ListenError(str(address), os_error_text(error)) from error
        self._servers.append(server)
        for socket in server.sockets:
            bound = tcp.address_of(socket.getsockname())
            self._listening.add(bound)
            _log.debug("listening", extra={"address": bound})

    def _inbound_link(self) -> Link:
        return Link(self, Upgrade(self.noise, self.entropy, initiator=False, muxers=MUXERS))

    # -- connections -------------------------------------------------------------------------------------------------

    @property
    def connections(self) -> list[Connection]:
        """All connections."""
        return [connection for peer in self._peers.values() for connection in peer.connections]

    def connection_to(self, peer_id: PeerId) -> Connection | None:
        """Return the oldest connection to a peer that takes streams, or None."""
        peer = self._peers.get(peer_id)
        if peer is None:
            return None
        for connection in peer.connections:
            if connection._error is None and not connection._muxer.going_away:
                return connection
        return None

    def connections_to(self, peer_id: PeerId) -> list[Connection]:
        """Return all connections to a peer."""
        peer = self._peers.get(peer_id)
        return [] if peer is None else list(peer.connections)

    async def connect(
        self, peer_id: PeerId | None, given: Sequence[Multiaddr], known: Sequence[Multiaddr] = ()
    ) -> Connection:
        """Return a connection to the peer, made now if there is none.

        Callers that come meanwhile share the dial, and their addresses take part in it.

        Args:
            peer_id: who must answer; None takes whoever does.
            given: addresses that the user names: dialled first, and whether they are backing off or not.
            known: further ones of this peer.

        Raises:
            DialError: no address led to the peer.
            LimitError: this host, or the peer, has its full number of connections, or too many dials wait.
            ConnectionEndedError: the host is leaving.
        Cancellation: the dial goes on while others wait for it, else it is given up.
        """
        if peer_id is not None and (connection := self.connection_to(peer_id)) is not None:
            return connection
        if self._closing:
            raise ConnectionEndedError("the host is leaving", by="local", stage="dial")
        if not given and not known:
            raise DialError(None if peer_id is None else str(peer_id), {})
        return await self._dialer.connect(peer_id, given, known)

    def check_room(self) -> None:
        """Check that there may be one connection more.

        Raises:
            LimitError: this host has its full number of them.
        """
        if self._connection_count >= self.limits.connections:
            self.refused("connections")
            raise LimitError("connections", stage="dial")

    def disconnect(self, peer_id: PeerId) -> list[Connection]:
        """Close all connections to a peer and return them."""
        connections = self.connections_to(peer_id)
        for connection in connections:
            connection.close()
        return connections

    def protect(self, peer_id: PeerId, tag: str) -> None:
        """Close no connection to a peer to make room."""
        self._protected.setdefault(peer_id, set()).add(tag)

    def unprotect(self, peer_id: PeerId, tag: str) -> bool:
        """Take back a protection; return whether another one is left."""
        tags = self._protected.get(peer_id, set())
        tags.discard(tag)
        if tags:
            return True
        if self._protected.pop(peer_id, None) is not None and self._connection_count > self.limits.connections_high:
            self._trim_at(self.clock.now())
        return False

    def _trim_at(self, when: float) -> None:
        """Look at the connections then: in the next turn of the loop, as many may come in one."""
        if self._closing or when == math.inf:
            return
        if self._trim_timer is not None:
            if self._trim_timer.when() <= when:
                return
            self._trim_timer.cancel()
        self._trim_timer = self.clock.call_at(when, self._trim)

    def _trim(self) -> None:
        """Close the connections that are of least use, where there are too many."""
        self._trim_timer = None
        limits, now = self.limits, self.clock.now()
        trim = choose(
            (
                Candidate(
                    connection=connection,
                    peer=connection.peer_id,
                    made_at=connection.made_at,
                    used_at=connection.used_at,
                    inbound=connection.direction == "inbound",
                    opened_streams=connection.opened_streams,
                    accepted_streams=connection.accepted_streams,
                    protected=connection.peer_id in self._protected,
                )
                for connection in self.connections
            ),
            low=limits.connections_low,
            high=limits.connections_high,
            grace=self.timeouts.connection_grace,
            now=now,
        )
        for connection in trim.close:
            self.refused("connections_high")
            connection._muxer.close(LimitError("connections_high", "closed to make room", stage="connection"))
        if trim.close:
            closed = {"closed": len(trim.close), "connections": self._connection_count}
            _log.info("connections were closed to make room", extra=closed)
        self._trim_at(trim.again_at)

    async def close(self) -> None:
        """Stop listening and end everything; bounded by `Timeouts.connection_close`.

        Cancellation: the sockets are dropped.
        """
        self._closing = True
        if self._trim_timer is not None:
            self._trim_timer.cancel()
        gone = ConnectionEndedError("the host is leaving", by="local")
        self._dialer.close()
        for link in list(self._links):
            if link.connection is None:
                link.abort(gone)
            else:
                link.close(gone)
        try:
            async with asyncio.timeout(self.timeouts.connection_close * 2):
                await self.runtime.net.stop_listening(self._servers)
                while self._links:
                    self._all_gone = self.loop.create_future()
                    await self._all_gone
        except TimeoutError:
            pass  # aborted below
        finally:
            for link in list(self._links):
                link.abort(gone)

    _all_gone: asyncio.Future[None] | None = None

    # -- what links call ---------------------------------------------------------------------------------------------

    def link_opened(self, link: Link) -> None:
        """Take note of a socket; an inbound one may push out another that is still upgrading."""
        self._links[link] = None
        if self._closing:
            link.abort(ConnectionEndedError("the host is leaving", by="local"))
            return
        if link.initiator:
            return
        assert link.transport is not None  # it has just been opened
        network = self._pending_inbound[link] = tcp.network_of(link.transport)
        self._pending_of.setdefault(network, {})[link] = None
        if len(self._pending_inbound) > self.limits.pending_inbound:
            self._make_room()

    def _make_room(self) -> None:
        """Drop a socket of the network that has most: the oldest that has never spoken, or the oldest.

        An honest dial speaks at once and stays for a round trip: were age all that counts, a flood of sockets within
        that time would push it out. Silence counts in the older half only: what is new may not have been read yet.
        """
        most = max(map(len, self._pending_of.values()))
        candidates = [link for links in self._pending_of.values() if len(links) == most for link in links]
        older = candidates[: len(candidates) // 2]
        dropped = next((link for link in older if not link.bytes_in), candidates[0])
        self.refused("pending_inbound")
        dropped.abort(LimitError("pending_inbound", stage=dropped.stage))

    def _not_pending(self, link: Link) -> None:
        network = self._pending_inbound.pop(link, None)
        if network is not None:
            links = self._pending_of[network]
            del links[link]
            if not links:
                del self._pending_of[network]

    def link_upgraded(self, link: Link, result: NoiseResult) -> Connection | None:
        """Make the connection of a link, unless a limit or the host's end forbids it."""
        self._not_pending(link)
        assert link.transport is not None  # it was upgraded over one
        local, remote = tcp.addresses_of(link.transport)
        limits = self.limits
        peer = self._peers.get(result.peer_id)
        limit = None
        if self._connection_count >= limits.connections:
            limit = LimitError("connections", stage="upgrade")
        elif peer is not None and len(peer.connections) >= limits.connections_per_peer:
            limit = LimitError("connections_per_peer", stage="upgrade")
        if limit is not None:
            self.refused(limit.limit)
            if _log.isEnabledFor(logging.DEBUG):
                refused = {"peer_id": result.peer_id, "address": remote, "limit": limit.limit}
                _log.debug("a connection was refused", extra=refused)
            link.abort(limit)
            self._user.on_refused(limit, remote)
            return None
        if peer is None:
            peer = self._peers[result.peer_id] = _Peer([], StreamCounts())
        facts = ConnectionFacts(
            peer_id=result.peer_id,
            local_address=local,
            remote_address=remote,
            direction="outbound" if link.initiator else "inbound",
            transport=tcp.NAME,
            security=NOISE,
            muxer=yamux.PROTOCOL,
            opened_at=self.clock.wall(),
        )
        connection = Connection(self, link, facts)
        peer.connections.append(connection)
        self._connection_count += 1
        if self._connection_count > limits.connections_high and self._trim_timer is None:
            self._trim_at(self.clock.now())
        link.connection = connection
        if _log.isEnabledFor(logging.DEBUG):
            made = {"peer_id": result.peer_id, "address": remote, "direction": facts.direction}
            _log.debug("connected", extra=made)
        self._user.on_connection(connection)
        if isinstance(link, OutboundLink):
            link.upgraded(connection)
        return connection

    def link_failed(self, link: Link, error: Libp2pError) -> None:
        """Tell who waits for the link, or the host."""
        self._not_pending(link)
        if isinstance(link, OutboundLink):
            link.failed(error)
        elif not self._closing:
            if _log.isEnabledFor(logging.DEBUG):
                _log.debug("an inbound socket became no connection", extra={"stage": error.stage, "error": error})
            self._user.on_inbound_failed(error)

    def link_gone(self, link: Link) -> None:
        """Forget a socket."""
        self._links.pop(link, None)
        if self._all_gone is not None and not self._all_gone.done():
            self._all_gone.set_result(None)

    # -- what connections call ---------------------------------------------------------------------------------------

    def peer_counts(self, peer_id: PeerId) -> StreamCounts:
        """Return the counts of one peer, over its connections."""
        return self._peers[peer_id].counts

    def accept(self, stream: Stream) -> None:
        """Take an inbound stream whose protocol is settled."""
        self._user.on_stream(stream)

    def handler_failed(self, stream: Stream, error: Exception) -> None:
        """Take note that a handler or callback of `stream` has raised."""
        self._user.on_handler_failed(stream, error)

    def connection_ended(self, connection: Connection, error: Libp2pError) -> None:
        """Forget a connection."""
        peer = self._peers.get(connection.peer_id)
        if peer is not None and connection in peer.connections:
            peer.connections.remove(connection)
            self._connection_count -= 1
            if not peer.connections:
                del self._peers[connection.peer_id]
            if _log.isEnabledFor(logging.DEBUG):
                ended = {"peer_id": connection.peer_id, "address": connection.remote_address, "error": error}
                _log.debug("a connection ended", extra=ended)
            self._user.on_connection_ended(connection, error)
