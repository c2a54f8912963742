"""Bitswap on a host: reads every stream of the protocol, and hands wants to the server and blocks to the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from types import TracebackType
from typing import Self

from aiolibp2p.bitswap.client import Client
from aiolibp2p.bitswap.context import Context
from aiolibp2p.bitswap.denylist import Denylist
from aiolibp2p.bitswap.searching import FindProviders, Search
from aiolibp2p.bitswap.server import Server
from aiolibp2p.bitswap.session import Reaching, Session
from aiolibp2p.bitswap.stat import BitswapStat, PeerLedger, Traffic
from aiolibp2p.bitswap.wire import GARBAGE_COLLECTED, MessageReader, no_way_to, protocol_of, protocols_of
from aiolibp2p.blocks.cid import Cid
from aiolibp2p.blocks.store import Blockstore
from aiolibp2p.errors import ConnectionEndedError, Libp2pError, LocalProtocolError, NegotiationError
from aiolibp2p.host import Host, Target
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.net.connection import Connection
from aiolibp2p.net.stream import Stream
from aiolibp2p.net.tasks import Tasks
from aiolibp2p.sansio.bitswap.message import PROTOCOLS, Message, supports_have


class Bitswap:
    """Serves the blocks of a store to peers, and fetches blocks from peers: `async with Bitswap(host, store)`.

    Args:
        host: one that was entered; it must be left after this.
        store: where blocks come from, and where fetched ones are kept.
        serve: whether wants of peers are answered.
        may_serve: whether a peer may have a block, asked with the raw CID of its multihash, by whatever codec it is
            wanted; it returns at once and does not raise. None lets all.
        denied: what nobody may have, blocks by CID or multihash; a Denylist can be changed later. A block that is not
            to be had is answered like one that is missing, and the store is not asked for it.
    """

    def __init__(
        self,
        host: Host,
        store: Blockstore,
        *,
        serve: bool = True,
        may_serve: Callable[[PeerId, Cid], bool] | None = None,
        denied: Denylist | Iterable[Cid | bytes] = (),
    ) -> None:
        self._host = host
        self._store = store
        self._serve = serve
        self._may_serve = may_serve
        self._denied = denied if isinstance(denied, Denylist) else Denylist(denied)
        self._ways: dict[PeerId, Connection] = {}
        """The connection that carries the answers to each peer: it has wanted something there."""
        self._unfinished: dict[PeerId, int] = {}
        self._received = Traffic()
        self._traffic: dict[PeerId, Traffic] = {}
        self._client_: Client | None = None
        self._server_: Server | None = None

    async def __aenter__(self) -> Self:
        """Begin.

        Raises:
            LocalProtocolError: it was entered before, or the host serves Bitswap already.
        """
        if self._client_ is not None:
            raise LocalProtocolError("it can be entered once")
        host = self._host
        self._tasks = Tasks(asyncio.get_running_loop(), host.crashed)
        context = Context(
            store=self._store,
            tasks=self._tasks,
            clock=host.clock,
            limits=host.limits,
            timeouts=host.timeouts,
            refused=host.refused,
            opened=self._open,
            protocol=self._protocol,
            denied=self._denied,
            may_serve=self._may_serve,
        )
        self._client_ = Client(context, kept=self._kept)
        self._server_ = Server(context)
        for protocol in PROTOCOLS:
            host.serve(protocol, self._read)
        self._unwatch = host.watch(self._gone)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for protocol in PROTOCOLS:
            self._host.unhandle(protocol)
        self._unwatch()
        self.client.close()
        self.server.close()
        # Whoever wrote on these streams is told that nobody reads them any more.
        for connection in self._host.connections:
            for stream in connection.streams:
                if stream.protocol in PROTOCOLS:
                    stream.on_readable(None)
                    stream.reset(GARBAGE_COLLECTED)
        await self._tasks.close(self._host.timeouts.storage)

    @property
    def client(self) -> Client:
        """The fetching half."""
        if self._client_ is None:
            raise LocalProtocolError("use it inside `async with`")
        return self._client_

    @property
    def server(self) -> Server:
        """The serving half."""
        if self._server_ is None:
            raise LocalProtocolError("use it inside `async with`")
        return self._server_

    # -- fetching ----------------------------------------------------------------------------------------------------

    async def get(self, cid: Cid, peers: Sequence[Target] = ()) -> bytes:
        """Return a block, from the store or from peers, verified.

        Args:
            peers: whom to ask; none means all that are connected.

        Raises: as `session` and `Session.get`.
        Cancellation: it is wanted no longer.
        """
        async with self.session(peers) as session:
            return await session.get(cid)

    async def fetch(self, cids: Sequence[Cid]) -> AsyncIterator[bytes]:
        """Yield blocks in the order of `cids`, from the store or from all peers that are connected.

        Raises: as `Session.fetch`.
        Cancellation: what was wanted ahead is wanted no longer.
        """
        async with self.session() as session:
            async for data in session.fetch(cids):
                yield data

    @asynccontextmanager
    async def session(
        self, peers: Sequence[Target] = (), *, find_providers: FindProviders | None = None
    ) -> AsyncIterator[Session]:
        """Open a session with these peers, connecting first if need be; with none, with all that are connected.

        Args:
            find_providers: asked for more peers when all of the session lack a block, or do not answer: an async
                generator of addresses or peer IDs. Those it gives are connected and asked; no block counts as not
                found while it searches, for at most `Timeouts.bitswap_search`. What it raises is logged.

        Raises:
            DialError: none of the peers could be reached, and there is no `find_providers`.
        Cancellation: the session is closed.
        """
        loop = asyncio.get_running_loop()
        if peers:
            reaching = [loop.create_task(self._reach_one(target), name="bitswap reach") for target in peers]
        else:
            meetings = [self._meet(connection, named=False) for connection in self._host.connections]
            reaching = [loop.create_task(meeting, name="bitswap reach") for meeting in meetings]
        try:
            asked, failure, pending = await _first_reached(reaching)
            if peers and not asked and failure is not None and find_providers is None:
                raise failure
            async with Session(self.client, asked) as session:
                session.expect_peers(pending)
                if find_providers is None:
                    yield session
                    return
                context = self.client.context
                session.search = Search(find_providers, self._reach_one, session, context, self._host.crashed)
                try:
                    yield session
                finally:
                    await session.search.close()
        finally:
            for task in reaching:
                task.cancel()
            await asyncio.gather(*reaching, return_exceptions=True)

    def arrived(self, cid: Cid, n_bytes: int) -> None:
        """Say that a block was put into the store: peers that wait for it are answered."""
        self.server.arrived(cid.multihash, n_bytes)

    async def _reach_one(self, target: Target) -> PeerId | Libp2pError:
        try:
            connection = await self._host.connect(target)
        except Libp2pError as error:
            return error
        return await self._meet(connection, named=True)

    async def _meet(self, connection: Connection, *, named: bool) -> PeerId | Libp2pError:
        """Return the peer if it can be asked; what it speaks, if it says that, decides how."""
        try:
            said = await self._host.identify(connection.peer_id)
            # One that was named may serve Bitswap without saying so.
            spoken = named or any(protocol in said.protocols for protocol in PROTOCOLS)
        except Libp2pError as error:
            if connection.ended is not None:
                return error
            spoken = True
        if not spoken or not protocols_of(connection):
            return NegotiationError(PROTOCOLS, stage="bitswap")
        self.client.connected(connection.peer_id, supports_have=supports_have(protocol_of(connection)))
        return connection.peer_id

    def _kept(self, blocks: Sequence[tuple[Cid, bytes]]) -> None:
        for cid, data in blocks:
            self.arrived(cid, len(data))

    # -- what is said of it ------------------------------------------------------------------------------------------

    def stat(self) -> BitswapStat:
        """Return what was exchanged with all peers, and where answers are now and how long.

        Raises:
            LocalProtocolError: it was not entered.
        """
        received = self.client.core.received
        return BitswapStat(
            peers=tuple(map(str, self._traffic)),
            wants=tuple(map(str, self.wantlist())),
            received=replace(self._received),
            duplicate_blocks=received.duplicates,
            duplicate_bytes=received.duplicate_bytes,
            bad_blocks=self.client.bad_blocks,
            serving=self.server.stat(),
        )

    def ledger(self, peer_id: PeerId) -> PeerLedger:
        """Return what was exchanged with a peer since it connected; nothing where it is not connected.

        Raises:
            LocalProtocolError: it was not entered.
        """
        state = self.server.state(peer_id)
        return PeerLedger(
            peer_id=str(peer_id),
            received=replace(self._traffic.get(peer_id, Traffic())),
            **{one.name: getattr(state, one.name) for one in fields(state)},
        )

    def wantlist(self, peer_id: PeerId | None = None) -> list[Cid]:
        """Return what a connected peer wants of this node, in the order in which it asked; of None, what we fetch.

        Raises:
            LocalProtocolError: it was not entered.
        """
        if peer_id is None:
            return [Cid(cid) for cid in self.client.core.wants()]
        ledger = self.server.engine.ledger(peer_id)
        return [] if ledger is None else [Cid(want.cid) for want in ledger.wants]

    # -- streams -----------------------------------------------------------------------------------------------------

    def _way_to(self, peer_id: PeerId) -> Connection | None:
        """Return the newest connection that carried a want; the oldest that takes streams where that is over."""
        connection = self._ways.get(peer_id)
        if connection is None or connection.ended is not None:
            connection = self._host.connection_to(peer_id)
        return connection

    def _protocol(self, peer_id: PeerId) -> str:
        connection = self._way_to(peer_id)
        return PROTOCOLS[0] if connection is None else protocol_of(connection)

    def _open(self, peer_id: PeerId) -> Stream:
        connection = self._way_to(peer_id)
        if connection is None:
            raise no_way_to(peer_id)
        try:
            stream = connection.open_now(protocol_of(connection))
        except Libp2pError:
            other = self._host.connection_to(peer_id)
            if other is None or other is connection:
                raise
            stream = other.open_now(protocol_of(other))
        # Peers may answer on the stream on which they were asked.
        self._read(stream)
        return stream

    def _read(self, stream: Stream) -> None:
        MessageReader(
            stream,
            self._host.limits,
            received=self._receive,
            progress=self.client.progress,
            ended=lambda: self._stream_ended(stream),
            unfinished=self._unfinished,
            refused=self._host.refused,
        )

    def _receive(self, stream: Stream, message: Message) -> None:
        peer_id = stream.peer_id
        self._count(peer_id, message)
        if self._serve and (message.entries or message.full):
            if self._ways.get(peer_id) is not stream.connection:
                self._turn(peer_id, stream.connection)
            self.server.receive(peer_id, message)
        if message.payloads or message.presences:
            self.client.receive(peer_id, message)

    def _count(self, peer_id: PeerId, message: Message) -> None:
        traffic = self._traffic.get(peer_id)
        if traffic is None:
            traffic = self._traffic[peer_id] = Traffic()
        blocks = len(message.payloads)
        block_bytes = sum(len(data) for _, data in message.payloads) if blocks else 0
        for counted in (traffic, self._received):
            counted.messages += 1
            counted.blocks += blocks
            counted.block_bytes += block_bytes

    def _turn(self, peer_id: PeerId, spoken_on: Connection) -> None:
        """Answer over another connection if it is newer than the one that carries answers, or that one is stuck.

        A peer that speaks on both, while both work, is answered on one: what is under way is not lost.
        """
        way = self._ways.get(peer_id)
        if way is None or way.ended is not None or way.made_at <= spoken_on.made_at or self.server.stuck(peer_id):
            self._ways[peer_id] = spoken_on
            self.server.move(peer_id, spoken_on)

    def _gone(self, peer_id: PeerId) -> None:
        self._ways.pop(peer_id, None)
        self._traffic.pop(peer_id, None)
        self.server.disconnected(peer_id)
        self.client.disconnected(peer_id)

    def _stream_ended(self, stream: Stream) -> None:
        peer_id = stream.peer_id
        self.server.stream_ended(peer_id, stream)
        connection = self._host.connection_to(peer_id)
        if connection is not None and not protocols_of(connection):
            self.client.disconnected(peer_id)  # it has refused every version
        else:
            self.client.stream_ended(peer_id, stream)


async def _first_reached(reaching: Sequence[Reaching]) -> tuple[list[PeerId], Libp2pError | None, set[Reaching]]:
    """Wait until some peer can be asked, or none can; return those, why another cannot, and what is still under way."""
    asked: dict[PeerId, None] = {}
    failure: Libp2pError | None = None
    pending = set(reaching)
    while pending and not asked:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in reaching:
            if task in done:
                if task.cancelled():
                    failure = ConnectionEndedError("reaching it was given up", by="local", stage="bitswap")
                elif isinstance(reached := task.result(), PeerId):
                    asked[reached] = None
                else:
                    failure = reached
    return list(asked), failure, pending
