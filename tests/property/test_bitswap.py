"""Bitswap: messages however they are cut, a ledger against a model, waits that are bounded, exchanges that end."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.bitswap.client import Client
from aiolibp2p.sansio.bitswap.decoder import Decoder
from aiolibp2p.sansio.bitswap.engine import Engine
from aiolibp2p.sansio.bitswap.ledger import Ledger
from aiolibp2p.sansio.bitswap.message import Entry, Message, Payload, Presence, encode
from aiolibp2p.sansio.bitswap.scheduler import Scheduler
from aiolibp2p.sansio.bitswap.wants import ABSENT, ASKED, READY, TAKEN, Batch

LIMITS = Limits()
TIMEOUTS = Timeouts()


def multihash(n: int) -> bytes:
    return b"\x12\x20" + sha256(b"%d" % n).digest()


def cid(n: int) -> bytes:
    return b"\x01\x55" + multihash(n)


NUMBERS = {multihash(n): n for n in range(64)}

# -- messages ----------------------------------------------------------------------------------------------------------

cids = st.integers(0, 20).map(cid) | st.binary(min_size=1, max_size=168)
entries = st.builds(Entry, cids, st.integers(-(2**31), 2**31 - 1), st.just(False), st.booleans(), st.booleans())
cancels = st.builds(Entry, cids, st.integers(0, 5), st.just(True), st.just(False), st.just(False))
data = st.builds(lambda piece, times: piece * times, st.binary(max_size=20), st.sampled_from([1, 10, 500]))
messages = st.builds(
    Message,
    st.lists(entries | cancels, max_size=8),
    st.booleans(),
    st.lists(st.builds(Payload, st.binary(min_size=4, max_size=36), data), max_size=4),
    st.lists(st.builds(Presence, cids, st.booleans()), max_size=6),
    st.integers(0, 2**31 - 1),
)
cuts = st.lists(st.integers(1, 3000), max_size=30)


def cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    chunks = []
    for size in sizes:
        chunks.append(stream[:size])
        stream = stream[size:]
    return [*chunks, stream]


def read(chunks: list[bytes]) -> tuple[list[Message], str | None]:
    decoder = Decoder(LIMITS)
    read_messages = [message for chunk in chunks for message in decoder.receive_bytes(chunk)]
    decoder.receive_eof()
    return read_messages, None if decoder.failure is None else decoder.failure.message


@pytest.mark.slow
@settings(max_examples=60)
@given(sent=st.lists(messages, max_size=3), sizes=cuts)
def test_what_is_written_is_read_however_it_is_cut(sent: list[Message], sizes: list[int]) -> None:
    stream = b"".join(b"".join(encode(message, LIMITS.bitswap_message_bytes)) for message in sent)
    assert read(cut(stream, sizes)) == (sent, None)


@given(stream=st.binary(max_size=100), sizes=st.lists(st.integers(1, 10), max_size=20))
def test_any_bytes_are_read_alike_however_they_are_cut(stream: bytes, sizes: list[int]) -> None:
    assert read(cut(stream, sizes)) == read([stream])


# -- the scheduler -----------------------------------------------------------------------------------------------------

QUANTUM = 100
BATCH_MAX = 250


@settings(max_examples=60)
@given(
    others=st.integers(1, 6),
    steps=st.lists(st.tuples(st.sampled_from(["serve", "serve", "serve", "leave", "come"]), st.integers(1, BATCH_MAX)),
                   max_size=60),
    choice=st.randoms(use_true_random=False),
)  # fmt: skip
def test_nobody_waits_longer_than_a_turn_of_each_other(
    others: int, steps: list[tuple[str, int]], choice: Random
) -> None:
    """T15: whatever the others do meanwhile."""
    scheduler: Scheduler[int] = Scheduler(QUANTUM)
    present = set(range(others))
    for peer in present:
        scheduler.add(peer)
    waits = 0
    me = 99
    scheduler.add(me)
    for what, size in steps:
        peer = choice.randrange(others)
        if what == "leave":
            scheduler.remove(peer)
        elif what == "come":
            scheduler.add(peer)
        else:
            served = scheduler.next()
            assert served is not None
            if served == me:
                # Leave and come back: the next wait begins, without debt, behind all others.
                scheduler.charge(me, QUANTUM)
                scheduler.forget(me)
                scheduler.add(me)
                waits = 0
            else:
                scheduler.charge(served, size)
                waits += size
                assert waits <= others * (QUANTUM + BATCH_MAX)


# -- the ledger --------------------------------------------------------------------------------------------------------

numbers = st.integers(0, 11)
said = st.builds(
    lambda n, priority, have, dont_have: (n, Entry(cid(n), priority, False, have, dont_have)),
    numbers,
    st.integers(0, 3),
    st.booleans(),
    st.booleans(),
)


class LedgerMachine(RuleBasedStateMachine):
    """A ledger of eight wants, beside what must be true of it."""

    limits = Limits(bitswap_wants_per_peer=8, bitswap_inline_bytes=3)

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(self.limits, TIMEOUTS)
        self.now = 0.0
        self.store: dict[bytes, bytes] = {multihash(n): bytes(n) for n in range(0, 12, 2)}
        self.batches: list[Batch] = []
        self.unsaid: set[int] = set()

    def look_up(self, message: Message) -> None:
        asked = self.ledger.receive(message)
        self.ledger.looked_up({mh: len(self.store[mh]) if mh in self.store else None for mh in asked})

    @rule(wanted=st.lists(said, max_size=12))
    def want(self, wanted: list[tuple[int, Entry]]) -> None:
        before = {want.cid for want in self.ledger.wants}
        self.look_up(Message([entry for _, entry in wanted]))
        after = {want.cid for want in self.ledger.wants}
        assert after <= before | {entry.cid for _, entry in wanted}
        if len(before | {entry.cid for _, entry in wanted}) <= 8:
            assert after == before | {entry.cid for _, entry in wanted}

    @rule(wanted=st.lists(said, max_size=8, unique_by=lambda item: item[0]))
    def replace(self, wanted: list[tuple[int, Entry]]) -> None:
        self.look_up(Message([entry for _, entry in wanted], full=True))
        assert {want.cid for want in self.ledger.wants} == {entry.cid for _, entry in wanted}

    @rule(gone=st.lists(numbers, max_size=4))
    def cancel(self, gone: list[int]) -> None:
        self.look_up(Message([Entry(cid(n), cancel=True) for n in gone]))
        assert not {want.cid for want in self.ledger.wants} & {cid(n) for n in gone}

    @rule(n=numbers)
    def block_arrives(self, n: int) -> None:
        self.store[multihash(n)] = bytes(n)
        for want in tuple(self.ledger._waiting.get(multihash(n), ())):
            self.ledger.found(want, n)

    @rule(n=numbers)
    def block_vanishes(self, n: int) -> None:
        self.store.pop(multihash(n), None)

    @rule(most=st.sampled_from([1, 60, 1000]))
    def take(self, most: int) -> None:
        ready = self.ledger.ready
        batch = self.ledger.take(most)
        assert (batch is None) == (ready == 0)
        if batch is not None:
            self.batches.append(batch)

    @precondition(lambda self: self.batches)
    @rule(fails=st.booleans())
    def write(self, fails: bool) -> None:
        batch = self.batches.pop(0)
        taken = {want.cid: want for want in batch.answers if want.state == TAKEN}
        loaded = {} if fails else {mh: self.store.get(mh) for mh in batch.blocks}
        message = self.ledger.answer(batch, loaded)
        for payload, n in [(payload, len(payload.data)) for payload in message.payloads]:
            want = taken[cid(n)]
            assert payload.data == self.store[want.multihash]
            assert not want.want_have or n <= 3
        for presence in message.presences:
            want = taken[presence.cid]
            if presence.have:
                assert want.want_have
            else:
                assert want.send_dont_have
        self.ledger.written(batch, self.now)
        remembered = {want.cid for want in self.ledger.wants if want in taken.values()}
        done = {cid(len(payload.data)) for payload in message.payloads} | {p.cid for p in message.presences if p.have}
        assert not remembered & done

    @rule()
    def reset(self) -> None:
        self.batches.clear()
        self.ledger.reset(self.now)

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.ledger.handle_timeout(self.now)
        assert self.ledger.next_timeout() > self.now

    @invariant()
    def is_consistent(self) -> None:
        wants = self.ledger.wants
        assert len(wants) <= 8
        assert self.ledger.ready == sum(want.state == READY for want in wants)
        assert {want.state for want in wants} <= {ASKED, ABSENT, READY, TAKEN}
        waiting = {want for group in self.ledger._waiting.values() for want in group}
        assert waiting == {want for want in wants if want.size is None}
        assert len(self.ledger._unconfirmed) <= 16
        assert len(self.ledger._heap) <= 2 * 8 + 1

    def teardown(self) -> None:
        self.batches.clear()
        self.ledger.reset(self.now)
        while (batch := self.ledger.take(100)) is not None:
            self.ledger.answer(batch, {mh: self.store.get(mh) for mh in batch.blocks})
            self.ledger.written(batch, self.now)
        assert self.ledger.ready == 0
        self.ledger.clear()
        assert not self.ledger._waiting


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestLedger = pytest.mark.slow(LedgerMachine.TestCase)


# -- exchanges ---------------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """A peer with blocks and an engine, and what is on the way to and from it."""

    blocks: set[int]
    engine: Engine[str] = field(default_factory=lambda: Engine(LIMITS, TIMEOUTS))
    up: list[Message] = field(default_factory=list)
    down: list[Message] = field(default_factory=list)
    connected: bool = True


class Exchange:
    """One client and some servers; streams lose what is on the way when they are reset."""

    def __init__(self, servers: dict[str, set[int]], wanted: range) -> None:
        self.now = 0.0
        self.servers = {name: Server(blocks) for name, blocks in servers.items()}
        self.client: Client[str] = Client(LIMITS, TIMEOUTS)
        for name in servers:
            self.client.connected(name)
        self.session = self.client.session(servers, self.now)
        self.session.want([cid(n) for n in wanted], self.now)
        self.received: set[int] = set()
        self.exhausted: set[bytes] = set()

    def tell(self, name: str) -> None:
        message = self.client.message_to_send(name, self.now)
        if message is not None:
            self.servers[name].up.append(message)
            self.client.message_sent(name, self.now)

    def serve(self, name: str) -> None:
        server = self.servers[name]
        while server.up:
            asked = server.engine.receive("client", server.up.pop(0), self.now)
            sizes = {mh: NUMBERS[mh] if NUMBERS[mh] in server.blocks else None for mh in asked}
            server.engine.looked_up("client", sizes, self.now)
        while (found := server.engine.next_batch(self.now)) is not None:
            message = server.engine.answer(found[1], {mh: bytes(NUMBERS[mh]) for mh in found[1].blocks})
            server.engine.written(found[1], self.now)
            if message:
                server.down.append(message)

    def deliver(self, name: str) -> None:
        server = self.servers[name]
        while server.down:
            message = server.down.pop(0)
            for payload in message.payloads:
                n = len(payload.data)
                if self.client.received_block(name, multihash(n), n, self.now):
                    self.received.add(n)
            self.client.received_presences(name, message.presences, self.now)

    def reset_wants(self, name: str) -> None:
        self.servers[name].up.clear()
        self.client.stream_ended(name)

    def reset_answers(self, name: str) -> None:
        self.servers[name].down.clear()
        self.servers[name].engine.stream_reset("client", self.now)

    def bounce(self, name: str) -> None:
        server = self.servers[name]
        server.up.clear()
        server.down.clear()
        server.engine.disconnected("client", self.now)
        self.client.disconnected(name, self.now)
        server.connected = not server.connected
        if server.connected:
            self.client.connected(name)
            self.client.add_peer(self.session, name, self.now)

    def do(self, what: str, name: str) -> None:
        if what == "wait":
            self.now = max(self.now, min(self.client.next_timeout(), self.now + 20.0))
            self.client.handle_timeout(self.now)
            for server in self.servers.values():
                server.engine.handle_timeout(self.now)
        elif self.servers[name].connected or what == "bounce":
            getattr(self, what)(name)
        self.exhausted.update(self.session.exhausted())

    def settle(self) -> None:
        """Let everything arrive, for three repairs."""
        until = self.now + 3 * TIMEOUTS.bitswap_repair
        while self.now < until and len(self.session):
            for name in self.servers:
                for what in ("tell", "serve", "deliver"):
                    self.do(what, name)
            if not self.client.peers_to_write():
                self.do("wait", "")
                self.now += 0.01
        # Answers that were given back after the last block had come are due once more, and nobody waits for them.
        for name in self.servers:
            for what in ("tell", "serve", "deliver"):
                self.do(what, name)


@pytest.mark.slow
@settings(max_examples=60)
@example(holdings=[set(), set(range(16))], steps=[(what, 1) for what in ("tell", "serve", "deliver", "reset_answers")])
@given(
    holdings=st.lists(st.sets(st.integers(0, 15)), min_size=1, max_size=3),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["tell", "serve", "deliver", "tell", "serve", "deliver", "reset_wants", "reset_answers",
                             "bounce", "wait"]),
            st.integers(0, 2),
        ),
        max_size=40,
    ),
)  # fmt: skip
def test_every_block_that_a_connected_peer_has_arrives_whatever_was_lost(
    holdings: list[set[int]], steps: list[tuple[str, int]]
) -> None:
    """T7: whatever is lost, reset, cut off and made again, in any order, within three repairs."""
    names = [f"peer {n}" for n in range(len(holdings))]
    exchange = Exchange(dict(zip(names, holdings, strict=True)), range(16))
    for what, n in steps:
        exchange.do(what, names[n % len(names)])
    exchange.settle()
    there = set().union(*(server.blocks for server in exchange.servers.values() if server.connected))
    assert there <= exchange.received
    assert len(exchange.session) == 16 - len(exchange.received)
    for n in set(range(16)) - exchange.received:
        assert cid(n) in exchange.exhausted
    for server in exchange.servers.values():
        if server.connected and (ledger := server.engine.ledger("client")) is not None:
            assert ledger.ready == 0
