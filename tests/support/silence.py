"""Peers that want blocks and do not take them, each in its own way, and what a server spends on them meanwhile.

Honest peers fetch through `Bitswap` itself. Silent ones are played by hand: each connects, wants a few large blocks,
and from then on does what its kind does. All of it is in virtual time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aiolibp2p import Limits, Timeouts
from aiolibp2p.blocks import Cid, MemoryBlockstore
from aiolibp2p.sansio.bitswap.message import PROTOCOL
from aiolibp2p.sansio.bitswap.stat import Cost
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import DATA, RST, SYN, WINDOW_UPDATE
from aiolibp2p.sim import current_loop
from tests.support.bitswap import Block, Node, blocks, node, wants
from tests.support.hosts import raw_peer
from tests.support.raw import NS, Frame, RawLink, RawPeer
from tests.support.scripts import initiating

OWN_STREAM = 3
"""The stream on which a silent peer wants."""
RECONNECT_SECONDS = 9.0
LOOK_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A way of being silent; without any field it accepts streams, negotiates, reads its socket and gives no credit."""

    negotiates: bool = True
    """Whether proposals of protocols are answered."""
    gives_credit: bool = False
    reads_socket: bool = True
    drips_every: float = math.inf
    """Seconds between two bytes of credit."""
    wants_every: float = math.inf
    """Seconds after which the same is wanted again."""
    on_new_streams: bool = False
    """Whether each want has a stream of its own, that is never closed."""
    reconnects_every: float = math.inf
    holds_dead_connection: bool = False
    """Whether there is a second connection, that wants the same and whose socket is not read."""


KINDS = {
    "never negotiate": Kind(negotiates=False),
    "read and never negotiate": Kind(negotiates=False, gives_credit=True),
    "never read": Kind(reads_socket=False),
    "drip": Kind(drips_every=9.0),
    "never close": Kind(gives_credit=True, wants_every=10.0, on_new_streams=True),
    "give no credit": Kind(),
    "want every second": Kind(wants_every=1.0),
    "reconnect every 9 s": Kind(reconnects_every=RECONNECT_SECONDS),
    "second dead connection": Kind(holds_dead_connection=True),
}


class SilentPeer:
    """One such peer: `live` connects, and connects again when the connection has ended."""

    def __init__(self, name: str, kind: Kind, wanted: Sequence[Cid]) -> None:
        self.resets_ns: list[int] = []
        """When streams of the server were reset."""
        self.received_bytes = 0
        """Bytes that came on the server's Bitswap streams."""
        self.links = 0
        self._kind = kind
        self._wanted = wanted
        self._peer: RawPeer = raw_peer(initiating(), name=name)
        self._answers: dict[RawLink, dict[int, None]] = {}

    @property
    def peer_id(self) -> object:
        return self._peer.peer_id

    async def live(self, address: str) -> None:
        """Be silent for ever."""
        try:
            while True:
                links = [await self._connect(address)]
                if self._kind.holds_dead_connection:
                    links.append(await self._connect(address))
                    links[-1].transport.pause_reading()
                await self._stay(links[0])
                for link in links:
                    link.transport.abort()
                    del self._answers[link]
                self._peer.links.clear()
        finally:
            for link in self._peer.links:
                link.transport.abort()

    async def _connect(self, address: str) -> RawLink:
        link = await self._peer.dial(address)
        self.links += 1
        self._answers[link] = {}
        link.reads = self._kind.gives_credit
        link.on_frame = lambda frame: self._on_frame(link, frame)
        link.send_data(OWN_STREAM, proposal(PROTOCOL) + wants(*self._wanted), SYN)
        if not self._kind.reads_socket:
            link.transport.pause_reading()
        return link

    def _on_frame(self, link: RawLink, frame: Frame) -> None:
        link.frames.clear()  # what a peer is sent in hours is much
        answers = self._answers.get(link)
        if answers is None:
            return
        if frame.kind == DATA:
            if frame.body.startswith(proposal(PROTOCOL)) and frame.stream_id % 2 == 0:
                answers[frame.stream_id] = None
                if self._kind.negotiates:
                    link.answer(frame.stream_id, PROTOCOL)
            if frame.stream_id in answers:
                self.received_bytes += len(frame.body)
        if frame.flags & RST and answers.pop(frame.stream_id, frame) is None:
            self.resets_ns.append(frame.at_ns)

    async def _stay(self, link: RawLink) -> None:
        """Do what the kind does until the connection has ended or is to be replaced."""
        kind, loop = self._kind, current_loop()
        since, stream_id = loop.time(), OWN_STREAM
        drip_at, want_at, leave_at = (
            since + seconds for seconds in (kind.drips_every, kind.wants_every, kind.reconnects_every)
        )
        while link.ended_ns is None and loop.time() < leave_at:
            await current_loop().pass_time(max(0.0, min(drip_at, want_at, leave_at, loop.time() + 60) - loop.time()))
            if link.ended_ns is not None:
                return
            if loop.time() >= drip_at:
                drip_at += kind.drips_every
                for answers in self._answers[link]:
                    link.send_frame(WINDOW_UPDATE, 0, answers, 1)
            if loop.time() >= want_at:
                want_at += kind.wants_every
                if kind.on_new_streams:
                    stream_id += 2
                    link.send_data(stream_id, proposal(PROTOCOL) + wants(*self._wanted), SYN)
                else:
                    link.send_data(stream_id, wants(*self._wanted))


class ForgetfulStore(MemoryBlockstore):
    """Keeps nothing, so that the same blocks are fetched again and again."""

    async def put_many(self, blocks: Sequence[Block]) -> None:
        """Drop them."""


@dataclass
class Outcome:
    """What honest peers got, and what silent ones cost."""

    seconds: list[float] = field(default_factory=list)
    """How long each fetch of an honest peer took."""
    fetched_bytes: int = 0
    spent: Cost = field(default_factory=Cost)
    blocked: Cost = field(default_factory=Cost)
    """The part of `spent` that went to blocked peers."""
    stalls: int = 0
    resets_seen: int = 0
    """Resets of answers that silent peers have seen."""
    held_bytes: int = 0
    """The most that was held at a time: loaded, stalled, and queued in connections to silent peers."""
    tasks: int = 0
    """The most tasks of the server's Bitswap and host that were there at a time."""
    oldest_task_seconds: float = 0.0
    links: int = 0

    @property
    def p99_seconds(self) -> float:
        """What 99 of 100 fetches took at most."""
        return sorted(self.seconds)[math.ceil(len(self.seconds) * 0.99) - 1]

    def shares(self) -> dict[str, float]:
        """Return which part of what was spent went to blocked peers."""
        pairs = {
            name: (getattr(self.blocked, name), getattr(self.spent, name))
            for name in ("picks", "read_blocks", "read_bytes", "written_bytes")
        }
        return {name: part / whole if whole else 0.0 for name, (part, whole) in pairs.items()}


class Watch:
    """Looks at a server every second."""

    def __init__(self, server: Node, outcome: Outcome) -> None:
        self._server = server
        self._outcome = outcome
        self._since: dict[asyncio.Task[None], float] = {}

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await current_loop().pass_time(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Note what is held now, and how old each task is."""
        server, outcome, now = self._server, self._outcome, current_loop().time()
        tasks = [*server.bitswap._tasks._tasks, *server.host._tasks._tasks]
        self._since = {task: self._since.get(task, now) for task in tasks}
        outcome.tasks = max(outcome.tasks, len(tasks))
        ages = [now - since for since in self._since.values()]
        outcome.oldest_task_seconds = max([outcome.oldest_task_seconds, *ages])
        engine = server.bitswap.server.engine
        outcome.held_bytes = max(outcome.held_bytes, engine.loaded_bytes + engine.stalled_bytes + queued_bytes(server))


def queued_bytes(server: Node) -> int:
    """Return what waits in the connections of a server, for credit or for their sockets."""
    queued = 0
    for connection in server.host.connections:
        session = connection._muxer._session  # type: ignore[attr-defined]
        if session is not None:
            queued += session.limits.connection_send_bytes - session.room + session.control_bytes
    return queued


@asynccontextmanager
async def honest_peers(n: int, timeouts: Timeouts) -> AsyncIterator[list[Node]]:
    """Give peers that fetch and serve nothing."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                node(f"honest {number}", store=ForgetfulStore(), serve=False, timeouts=timeouts)
            )
            for number in range(n)
        ]


async def fetch_for_ever(peer: Node, address: str, wanted: Sequence[Block], every: float, outcome: Outcome) -> None:
    """Fetch the same blocks again and again."""
    cids = [cid for cid, _ in wanted]
    n_bytes = sum(len(data) for _, data in wanted)
    loop = current_loop()
    due = loop.time()
    async with peer.bitswap.session([address]) as session:
        while True:
            started_ns = loop.time_ns()
            assert sorted([pair async for pair in session.get_many(cids)]) == sorted(wanted)
            outcome.seconds.append((loop.time_ns() - started_ns) / NS)
            outcome.fetched_bytes += n_bytes
            due = max(due + every, loop.time())
            await current_loop().pass_time(due - loop.time())


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A server, honest peers and silent ones.

    Args:
        kind: of the silent; a name of `KINDS`.
        connect_seconds: within this time the silent connect, before the honest begin.
    """

    kind: str
    silent: int
    honest: int = 20
    seconds: float = 600.0
    connect_seconds: float = 5.0
    fetch_every: float = 5.0
    honest_blocks: int = 4
    honest_bytes: int = 256 << 10
    silent_blocks: int = 4
    silent_bytes: int = 256 << 10
    keepalive: float = Timeouts().keepalive
    """Of all hosts: the fewer questions whether a connection lives, the less there is to simulate."""

    async def play(self, limits: Limits | None = None) -> Outcome:
        """Let it happen, in a loop of its own or in a test."""
        outcome, loop = Outcome(), current_loop()
        wanted = blocks(self.honest_blocks, self.honest_bytes, "honest")
        bait = blocks(self.silent_blocks, self.silent_bytes, "silent")
        room = 2 * (self.silent + self.honest) + 64
        limits = limits or Limits(connections=room, connections_high=room, connections_low=room)
        timeouts = Timeouts(keepalive=self.keepalive)
        async with (
            node("server", [*wanted, *bait], limits=limits, timeouts=timeouts) as server,
            honest_peers(self.honest, timeouts) as peers,
        ):
            silent = [
                SilentPeer(f"silent {number}", KINDS[self.kind], [cid for cid, _ in bait])
                for number in range(self.silent)
            ]
            lives = [self._come(peer, number, server.address) for number, peer in enumerate(silent)]
            watch = Watch(server, outcome)
            tasks = [loop.create_task(life) for life in (*lives, watch.run())]
            await loop.pass_time(self.connect_seconds)
            fetching = [fetch_for_ever(peer, server.address, wanted, self.fetch_every, outcome) for peer in peers]
            tasks += [loop.create_task(fetch) for fetch in fetching]
            await loop.pass_time(self.seconds)
            self._count(server, silent, outcome)
            await _end(tasks)
        return outcome

    async def _come(self, peer: SilentPeer, number: int, address: str) -> None:
        await current_loop().pass_time(self.connect_seconds * number / self.silent)
        await peer.live(address)

    def _count(self, server: Node, silent: Iterable[SilentPeer], outcome: Outcome) -> None:
        spent = server.bitswap.server.engine.spent
        outcome.spent = Cost(spent.picks, spent.read_blocks, spent.read_bytes, spent.written_bytes)
        blocked = spent.blocked
        outcome.blocked = Cost(blocked.picks, blocked.read_blocks, blocked.read_bytes, blocked.written_bytes)
        outcome.stalls = spent.stalls
        for peer in silent:
            outcome.resets_seen += len(peer.resets_ns)
            outcome.links += peer.links


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()  # a life that has ended has failed
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
