"""Nodes that fetch from each other over a network that delays, loses and cuts: every get ends, and ends rightly.

The clients and engines are the real ones; the network, storage and time are a model. `BITSWAP_EXAMPLES` is how many
runs there are: 10,000 for a night, whose result `benchmarks/virtual/exchanges.py` keeps.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import permutations
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.bitswap.client import Client
from aiolibp2p.sansio.bitswap.engine import Engine
from aiolibp2p.sansio.bitswap.message import Message
from aiolibp2p.sansio.bitswap.session import Session
from aiolibp2p.sansio.bitswap.wants import Batch

EXAMPLES = int(os.environ.get("BITSWAP_EXAMPLES", "300"))
STEPS = 40
NAMES = ("ann", "bob", "cyd")
NUMBERS = range(10)
WINDOW = 400
TIMEOUTS = Timeouts()
LIMITS = Limits(
    bitswap_wants_per_peer=12,
    bitswap_window_wants=6,
    bitswap_broadcast_peers=1,
    bitswap_inline_bytes=16,
    bitswap_batch_bytes=300,
    bitswap_loaded_bytes=900,
    bitswap_stalled_bytes=700,
    bitswap_credit_bytes=100,
    bitswap_bytes_per_second=100,
    yamux_window=WINDOW,
)
ROUNDS_MAX = 200
"""Within so many times that everything has gone one step further, nothing is under way any more."""
CONVERGENCE_SECONDS = 2 * TIMEOUTS.bitswap_repair
"""Within this time after the network has become calm every get has ended, unless somebody backs off."""


def size(n: int) -> int:
    """Return the bytes of a block: none, a few that come at once, or some that come when they are asked for."""
    return n * 15


def multihash(n: int) -> bytes:
    return b"\x12\x20" + sha256(b"%d" % n).digest()


def cid(n: int, codec: int = 0x55) -> bytes:
    return bytes((1, codec)) + multihash(n)


NUMBER_OF = {multihash(n): n for n in NUMBERS}


@dataclass(eq=False)
class Get:
    """Somebody who waits for a block."""

    cid: bytes
    began_at: float
    result: str = ""
    """`block`, `not found`, `deadline`, `cancelled`, or nothing yet."""
    denied_by: set[str] = field(default_factory=set)
    """Who has said DONT_HAVE since it began."""


@dataclass(eq=False)
class Fetching:
    """A session and those who wait in it."""

    core: Session[str]
    waiting: dict[bytes, list[Get]] = field(default_factory=dict)


@dataclass
class Way:
    """Both kinds of messages from one node to another, on a stream each."""

    wants: deque[Message] = field(default_factory=deque)
    """Wantlists on the way."""
    unsent: bool = False
    """Whether a wantlist was given to the stream, and the stream has not accepted it yet."""
    sending: Message | None = None
    queue: deque[tuple[Batch, Message, int]] = field(default_factory=deque)
    """Answers that the stream has not accepted, and how many bytes of each are left."""
    answers: deque[Message] = field(default_factory=deque)
    """Accepted ones that the other has not read."""
    unread_bytes: int = 0
    position: int = 0
    blocked: bool = False


class Node:
    """A client, an engine, and a store that answers when it is told to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.client: Client[str] = Client(LIMITS, TIMEOUTS)
        self.engine: Engine[str] = Engine(LIMITS, TIMEOUTS)
        self.has: set[int] = set()
        self.sessions: list[Fetching] = []
        self.looking: dict[str, None] = {}
        self.loading: deque[tuple[str, Batch]] = deque()

    def open_gets(self) -> Iterator[tuple[Fetching, Get]]:
        for session in self.sessions:
            for gets in session.waiting.values():
                for get in gets:
                    yield session, get


class World:
    """Nodes, what is on the way between them, and the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.nodes = {name: Node(name) for name in NAMES}
        self.ways: dict[tuple[str, str], Way] = {}
        """Ways of those that are connected."""

    def connected_to(self, name: str) -> list[str]:
        return [other for other in NAMES if (name, other) in self.ways]

    # -- connections and streams -------------------------------------------------------------------------------------

    def connect(self, one: str, other: str) -> None:
        for name, peer in ((one, other), (other, one)):
            self.ways[name, peer] = Way()
            node = self.nodes[name]
            node.client.connected(peer)
            for session in node.sessions:
                node.client.add_peer(session.core, peer, self.now)

    def disconnect(self, one: str, other: str) -> None:
        for name, peer in ((one, other), (other, one)):
            del self.ways[name, peer]
            node = self.nodes[name]
            node.looking.pop(peer, None)
            node.loading = deque(pair for pair in node.loading if pair[0] != peer)
            node.engine.disconnected(peer, self.now)
            node.client.disconnected(peer, self.now)
            self.pump(node)

    def reset_wants(self, name: str, peer: str) -> None:
        way = self.ways[name, peer]
        way.wants.clear()
        way.sending = None
        self.nodes[name].client.stream_ended(peer)

    def reset_answers(self, name: str, peer: str) -> None:
        self.ways[name, peer] = self.without_answers(self.ways[name, peer])
        node = self.nodes[name]
        node.engine.stream_reset(peer, self.now)
        self.pump(node)

    @staticmethod
    def without_answers(way: Way) -> Way:
        return Way(wants=way.wants, sending=way.sending)

    # -- wantlists ---------------------------------------------------------------------------------------------------

    def tell(self, name: str, peer: str) -> None:
        """Give a wantlist to a stream."""
        way, client = self.ways[name, peer], self.nodes[name].client
        if way.sending is None:
            way.sending = client.message_to_send(peer, self.now)

    def accept(self, name: str, peer: str) -> None:
        """Let the stream accept it."""
        way = self.ways[name, peer]
        if way.sending is not None:
            way.wants.append(way.sending)
            way.sending = None
            self.nodes[name].client.message_sent(peer, self.now)

    def hear_wants(self, name: str, peer: str) -> None:
        """Let `peer` hear one wantlist of `name`."""
        way, node = self.ways[name, peer], self.nodes[peer]
        if way.wants and node.engine.receive(name, way.wants.popleft(), self.now):
            node.looking[name] = None
        self.pump(node)

    # -- answers -----------------------------------------------------------------------------------------------------

    def pump(self, node: Node) -> None:
        while (following := node.engine.next_batch(self.now)) is not None:
            node.loading.append(following)

    def serve(self, name: str, peer: str) -> None:
        """Let the store of `name` answer what it was asked for `peer`."""
        node = self.nodes[name]
        if peer in node.looking:
            del node.looking[peer]
            asked = node.engine.unknown(peer)
            node.engine.looked_up(peer, {mh: self.size_at(node, mh) for mh in asked}, self.now)
            self.pump(node)
        mine = [batch for asker, batch in node.loading if asker == peer]
        node.loading = deque(pair for pair in node.loading if pair[0] != peer)
        for batch in mine:
            if not node.engine.current(batch):
                continue
            blocks = {mh: bytes(size(NUMBER_OF[mh])) for mh in batch.blocks}
            message = node.engine.answer(batch, blocks)
            if message:
                self.ways[name, peer].queue.append((batch, message, batch.n_bytes))
                self.write(name, peer)
            else:
                node.engine.written(batch, self.now, self.ways[name, peer].position)
        self.pump(node)

    @staticmethod
    def size_at(node: Node, mh: bytes) -> int | None:
        return size(NUMBER_OF[mh]) if NUMBER_OF[mh] in node.has else None

    def write(self, name: str, peer: str) -> None:
        """Let the stream accept answers as far as its window goes."""
        engine = self.nodes[name].engine
        while (way := self.ways[name, peer]).queue and not way.blocked:
            batch, message, left = way.queue[0]
            taken = min(left, WINDOW - way.unread_bytes)
            way.unread_bytes += taken
            way.position += taken
            engine.accepted(peer, taken)
            if taken == left:
                way.queue.popleft()
                way.answers.append(message)
                engine.written(batch, self.now, way.position)
                continue
            way.queue[0] = batch, message, left - taken
            way.blocked = True
            self.give_up(name, engine.blocked(peer, self.now, batch if left - taken < batch.n_bytes else None))

    def give_up(self, name: str, stalled: list[str]) -> None:
        for peer in self.nodes[name].engine.take_let_go():
            if (name, peer) in self.ways:
                queue = self.ways[name, peer].queue
                while queue and queue[-1][2] == queue[-1][0].n_bytes:
                    queue.pop()
        for peer in stalled:
            self.ways[name, peer] = self.without_answers(self.ways[name, peer])

    def hear_answers(self, name: str, peer: str) -> None:
        """Let `peer` read everything that has come from `name`."""
        way = self.ways[name, peer]
        heard = list(way.answers)
        way.answers.clear()
        way.unread_bytes = 0
        if way.blocked:
            way.blocked = False
            engine = self.nodes[name].engine
            engine.credited(peer, WINDOW, self.now)
            engine.writable(peer, self.now)
            self.write(name, peer)
            self.pump(self.nodes[name])
        for message in heard:
            self.hear(self.nodes[peer], name, message)

    def hear(self, node: Node, sender: str, message: Message) -> None:
        for payload in message.payloads:
            mh = next(mh for mh, n in NUMBER_OF.items() if size(n) == len(payload.data))
            for core, wanted in node.client.received_block(sender, mh, len(payload.data), self.now):
                (session,) = (one for one in node.sessions if one.core is core)
                for get in session.waiting.pop(wanted, ()):
                    get.result = "block"
                self.put(node, NUMBER_OF[mh])
        for presence in message.presences:
            if not presence.have:
                for _, get in node.open_gets():
                    if get.cid == presence.cid:
                        get.denied_by.add(sender)
        node.client.received_presences(sender, message.presences, self.now)

    def put(self, node: Node, n: int) -> None:
        """Let a block be there now."""
        node.has.add(n)
        node.engine.arrived(multihash(n), size(n), self.now)
        self.pump(node)

    # -- gets and time -----------------------------------------------------------------------------------------------

    def end(self, session: Fetching, get: Get, result: str) -> None:
        get.result = result
        gets = session.waiting[get.cid]
        gets.remove(get)
        if not gets:
            del session.waiting[get.cid]
            session.core.unwant([get.cid], self.now)

    def look_at_gets(self) -> None:
        """Tell who waits in vain, as `bitswap.Session` does."""
        for node in self.nodes.values():
            node.client.ask_queued(self.now)
            for session in node.sessions:
                for lacking in session.core.exhausted():
                    for get in tuple(session.waiting.get(lacking, ())):
                        # Nothing counts as not found that somebody in the session has not denied.
                        assert get.denied_by >= set(session.core.peers)
                        self.end(session, get, "not found")
            for session, get in list(node.open_gets()):
                if self.now >= max(get.began_at, session.core.progress_at) + TIMEOUTS.bitswap_fetch:
                    self.end(session, get, "deadline")

    def next_timeout(self) -> float:
        """Return when a client or an engine, or somebody who waits, has something to do."""
        times = [
            time for node in self.nodes.values() for time in (node.client.next_timeout(), node.engine.next_timeout())
        ]
        return min(times)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and every timer ring when it is due."""
        until = self.now + seconds
        while (when := self.next_timeout()) <= until:
            self.now = max(self.now, when)
            for name, node in self.nodes.items():
                node.client.handle_timeout(self.now)
                self.give_up(name, node.engine.handle_timeout(self.now))
                self.pump(node)
                assert node.engine.next_timeout() > self.now
                assert node.client.next_timeout() > self.now
        self.now = until

    def flow(self) -> None:
        """Let everything go one step further everywhere."""
        for name, peer in list(self.ways):
            for step in (self.tell, self.accept, self.hear_wants, self.serve, self.hear_answers):
                step(name, peer)

    def busy(self) -> bool:
        """Return whether anything is under way."""
        return any(
            way.wants or way.sending or way.queue or way.answers or peer in self.nodes[name].client.peers_to_write()
            for (name, peer), way in self.ways.items()
        ) or any(node.loading or node.looking for node in self.nodes.values())


ways = st.sampled_from(list(permutations(NAMES, 2)))
names = st.sampled_from(NAMES)
numbers = st.sampled_from(NUMBERS)


class ExchangeMachine(RuleBasedStateMachine):
    """T12: anything that nodes, their users, storage and the network may do, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.gets: list[Get] = []

    @initialize(held=st.tuples(*[st.sets(numbers)] * len(NAMES)), cut=st.sets(ways, max_size=2))
    def begin(self, held: tuple[set[int], ...], cut: set[tuple[str, str]]) -> None:
        for node, blocks in zip(self.world.nodes.values(), held, strict=True):
            node.has |= blocks
        for one, other in permutations(NAMES, 2):
            if one < other and (one, other) not in cut:
                self.world.connect(one, other)

    # What users do

    @rule(name=names, fresh=st.booleans(), wanted=st.lists(numbers, min_size=1, max_size=8, unique=True),
          codec=st.sampled_from([0x55, 0x70]))  # fmt: skip
    def get(self, name: str, fresh: bool, wanted: list[int], codec: int) -> None:
        world, node = self.world, self.world.nodes[name]
        if fresh or not node.sessions:
            node.sessions.append(Fetching(node.client.session(world.connected_to(name), world.now)))
        session = node.sessions[-1]
        missing = [cid(n, codec) for n in wanted if n not in node.has]
        for each in missing:
            gets = session.waiting.setdefault(each, [])
            # Whoever joins somebody who waits knows what that one was told.
            get = Get(each, world.now, denied_by=set(gets[0].denied_by) if gets else set())
            self.gets.append(get)
            gets.append(get)
        session.core.want(missing, world.now)
        world.look_at_gets()

    @precondition(lambda self: any(not get.result for get in self.gets))
    @rule(choice=st.randoms(use_true_random=False))
    def cancel(self, choice: Random) -> None:
        found = [pair for node in self.world.nodes.values() for pair in node.open_gets()]
        self.world.end(*choice.choice(found), "cancelled")

    @rule(name=names)
    def close(self, name: str) -> None:
        node = self.world.nodes[name]
        if node.sessions:
            session = node.sessions.pop(0)
            for gets in session.waiting.values():
                for get in gets:
                    get.result = "closed"
            node.client.close(session.core, self.world.now)

    @rule(name=names, n=numbers)
    def put(self, name: str, n: int) -> None:
        node = self.world.nodes[name]
        if n not in node.has:
            self.world.put(node, n)

    # What the network and storage do

    @rule(way=ways, what=st.sampled_from(["tell", "accept", "hear_wants", "serve", "hear_answers"]))
    def step(self, way: tuple[str, str], what: str) -> None:
        if way in self.world.ways:
            getattr(self.world, what)(*way)
            self.world.look_at_gets()

    @rule(times=st.integers(1, 4))
    def flow(self, times: int) -> None:
        for _ in range(times):
            self.world.flow()
            self.world.look_at_gets()

    @rule(way=ways, what=st.sampled_from(["reset_wants", "reset_answers"]))
    def reset(self, way: tuple[str, str], what: str) -> None:
        if way in self.world.ways:
            getattr(self.world, what)(*way)

    @rule(way=ways)
    def bounce(self, way: tuple[str, str]) -> None:
        (self.world.disconnect if way in self.world.ways else self.world.connect)(*way)
        self.world.look_at_gets()

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 16.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.world.pass_time(seconds)
        self.world.look_at_gets()

    # What holds at any time

    @invariant()
    def what_is_wanted_is_what_somebody_waits_for(self) -> None:
        for node in self.world.nodes.values():
            waited = {mh for session in node.sessions for mh in (wanted[2:] for wanted in session.waiting)}
            assert set(node.client._interest) == waited

    @invariant()
    def everything_is_bounded(self) -> None:
        for node in self.world.nodes.values():
            for wantlist in node.client._wantlists.values():
                assert max(len(wantlist._desired), len(wantlist._told)) <= LIMITS.bitswap_window_wants
            assert node.engine.stalled_bytes <= LIMITS.bitswap_stalled_bytes
            assert 0 <= node.engine.loaded_bytes <= LIMITS.bitswap_loaded_bytes + LIMITS.bitswap_batch_bytes
            for record in node.engine._peers.values():
                assert len(record.ledger) <= LIMITS.bitswap_wants_per_peer

    @invariant()
    def nobody_waits_past_a_deadline(self) -> None:
        for node in self.world.nodes.values():
            for session, get in node.open_gets():
                assert self.world.now < max(get.began_at, session.core.progress_at) + TIMEOUTS.bitswap_fetch

    # What comes of it once the network is calm

    def calm(self, seconds: float) -> None:
        """Let everything arrive at once, for so long or until nothing is waited for."""
        world = self.world
        until = world.now + seconds
        rounds = 0
        while any(not get.result for get in self.gets) or world.busy():
            rounds = rounds + 1 if world.busy() else 0
            assert rounds < ROUNDS_MAX  # nodes that go on telling each other things would never come to rest
            world.flow()
            for node in world.nodes.values():
                node.client.ask_queued(world.now)
                for session in node.sessions:
                    for lacking in session.core.exhausted():
                        for get in tuple(session.waiting.get(lacking, ())):
                            world.end(session, get, "not found")
            if not world.busy():
                when = min(world.next_timeout(), until)
                world.pass_time(max(0.0, when - world.now))
                if world.now >= until:
                    return

    def teardown(self) -> None:
        world = self.world
        waiting = [(node, session, get) for node in world.nodes.values() for session, get in node.open_gets()]
        backing_off = any(
            record.resume_at > world.now or record.blocked
            for node in world.nodes.values()
            for record in node.engine._peers.values()
        )
        reachable = {
            id(get): any(n in world.nodes[peer].has for peer in session.core.peers)
            for node, session, get in waiting
            for n in (NUMBER_OF[get.cid[2:]],)
        }
        self.calm(CONVERGENCE_SECONDS + (TIMEOUTS.backoff_max if backing_off else 0.0))
        for _, _, get in waiting:
            assert get.result in ("block", "not found"), get
            if reachable[id(get)] and not get.denied_by:
                assert get.result == "block", get
        for name in NAMES:
            while world.nodes[name].sessions:
                self.close(name)
        self.calm(CONVERGENCE_SECONDS)
        for node in world.nodes.values():
            assert not node.client._interest
            assert not [cid for wantlist in node.client._wantlists.values() for cid in wantlist._desired]
            assert (node.engine.loaded_bytes, node.engine.stalled_bytes) == (0, 0)
            for record in node.engine._peers.values():
                assert (len(record.ledger), record.batches) == (0, {}), record.ledger.wants
            assert not node.engine._waiting


ExchangeMachine.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS)
TestExchange = pytest.mark.timeout(60 + EXAMPLES)(pytest.mark.slow(ExchangeMachine.TestCase))
