"""Serving many peers: turns, peers that take nothing, and what is held for whom."""

from __future__ import annotations

import math

import pytest

from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.bitswap.engine import BATCHES_AHEAD, Engine
from aiolibp2p.sansio.bitswap.message import Entry, Message, Presence
from aiolibp2p.sansio.bitswap.stat import Stage
from aiolibp2p.sansio.bitswap.wants import Batch
from tests.support.refusals import Refusals, reached
from tests.unit.sansio.bitswap.wire import cid, multihash, wants

TIMEOUTS = Timeouts()
KIB = 1 << 10
SIZE = 256 * KIB
RATE = Limits().bitswap_bytes_per_second


class Serving:
    """An engine over a store in which every block is there and has `size` bytes."""

    def __init__(self, size: int = SIZE, **limits: int) -> None:
        self.size = size
        self.now = 0.0
        self.refusals = Refusals()
        self.engine: Engine[str] = Engine(Limits(**limits), TIMEOUTS, self.refusals)

    def receive(self, peer: str, message: Message) -> None:
        asked = self.engine.receive(peer, message, self.now)
        self.engine.looked_up(peer, dict.fromkeys(asked, self.size), self.now)

    def next(self) -> tuple[str, Batch] | None:
        return self.engine.next_batch(self.now)

    def batch(self, peer: str) -> Batch:
        """Return the next batch, which is for `peer`."""
        found = self.next()
        assert found is not None
        assert found[0] == peer
        return found[1]

    def write(self, peer: str, batch: Batch) -> Message:
        message = self.engine.answer(batch, {mh: bytes(self.size) for mh in batch.blocks})
        self.engine.accepted(peer, batch.n_bytes)
        self.engine.written(batch, self.now)
        return message

    def serve(self, most: int = 1000) -> list[str]:
        """Write batches until nobody is eligible; return for whom."""
        order: list[str] = []
        while len(order) < most and (found := self.next()):
            self.write(*found)
            order.append(found[0])
        return order

    def block(self, peer: str, accepted: int = 0) -> list[str]:
        if accepted:
            self.engine.accepted(peer, accepted)
        record = self.engine._peers.get(peer)
        begun = None if record is None else next(iter(record.batches), None)
        return self.engine.blocked(peer, self.now, begun)


def test_peers_get_their_batches_in_turn() -> None:
    serving = Serving(size=200 * KIB)
    serving.receive("a", wants(*range(4)))
    serving.receive("b", wants(*range(2)))
    assert serving.serve() == ["a", "b", "a", "a", "b", "a"]
    assert serving.engine.loaded_bytes == 0


@pytest.mark.slow
def test_a_newcomer_with_one_want_is_answered_within_one_round_of_fifty_peers_with_a_thousand() -> None:
    serving = Serving(size=16 * KIB)
    for n in range(50):
        serving.receive(f"peer {n}", wants(*range(1000)))
    serving.serve(500)
    serving.receive("newcomer", wants(1))
    order = serving.serve(51 * 2)
    assert order.index("newcomer") <= 50 * 2
    served_before = {peer: order[: order.index("newcomer")].count(peer) for peer in order}
    assert max(served_before.values()) <= 2


def test_a_peer_that_wants_nothing_is_not_known() -> None:
    serving = Serving()
    serving.receive("a", Message(full=True))
    assert serving.engine.ledger("a") is None
    serving.receive("a", wants(1))
    assert serving.engine.ledger("a") is not None


def test_before_a_stream_has_accepted_a_batch_one_is_loaded_and_then_several() -> None:
    serving = Serving()
    serving.receive("a", wants(*range(9)))
    first = serving.batch("a")
    assert serving.next() is None
    serving.write("a", first)
    for _ in range(BATCHES_AHEAD):
        serving.batch("a")
    assert serving.next() is None


def test_when_half_of_the_batches_have_left_as_many_are_loaded_together() -> None:
    serving = Serving()
    serving.receive("a", wants(*range(20)))
    serving.write("a", serving.batch("a"))
    ahead = [serving.batch("a") for _ in range(BATCHES_AHEAD)]
    for batch in ahead[: BATCHES_AHEAD // 2 - 1]:
        serving.write("a", batch)
        assert serving.next() is None
    serving.write("a", ahead[BATCHES_AHEAD // 2 - 1])
    for _ in range(BATCHES_AHEAD // 2):
        serving.batch("a")
    assert serving.next() is None


def test_a_blocked_peer_is_in_no_structure_until_it_is_writable() -> None:
    serving = Serving()
    serving.receive("a", wants(*range(9)))
    serving.write("a", serving.batch("a"))
    batch = serving.batch("a")
    assert serving.block("a") == []
    assert serving.engine.eligible == 0
    serving.receive("a", wants(*range(20, 30)))
    assert serving.next() is None
    assert serving.block("a") == []
    serving.engine.writable("a", 1.0)
    serving.engine.writable("a", 1.0)
    serving.write("a", batch)
    assert serving.next() is not None


def test_bytes_of_a_blocked_peer_leave_the_pool_that_the_others_share() -> None:
    serving = Serving(bitswap_loaded_bytes=SIZE)
    serving.receive("mute", wants(1))
    serving.receive("honest", wants(2))
    mute = serving.batch("mute")
    assert serving.next() is None
    serving.block("mute")
    assert (serving.engine.loaded_bytes, serving.engine.stalled_bytes) == (0, mute.n_bytes)
    honest = serving.batch("honest")
    serving.engine.writable("mute", 0.0)
    assert (serving.engine.loaded_bytes, serving.engine.stalled_bytes) == (mute.n_bytes + honest.n_bytes, 0)
    serving.write("mute", mute)
    serving.write("honest", honest)
    assert serving.engine.loaded_bytes == 0


@pytest.mark.parametrize(("room", "goes_on"), [(-1, False), (0, False), (1, True)])
def test_nothing_is_loaded_while_as_much_is_held_as_may_be(room: int, goes_on: bool) -> None:
    one = Serving()
    one.receive("a", wants(1))
    serving = Serving(bitswap_loaded_bytes=one.batch("a").n_bytes + room)
    for peer in "ab":
        serving.receive(peer, wants(1))
    batch = serving.batch("a")
    assert (serving.next() is not None) is goes_on
    serving.write("a", batch)
    assert goes_on or serving.next() is not None


@pytest.mark.parametrize(("room", "blocks"), [(-1, 1), (0, 2), (1, 2)])
def test_a_batch_holds_what_fits_into_its_bytes(room: int, blocks: int) -> None:
    both = Serving(1000)
    both.receive("a", wants(1, 2))
    serving = Serving(1000, bitswap_batch_bytes=both.batch("a").n_bytes + room)
    serving.receive("a", wants(1, 2))
    assert len(serving.batch("a").blocks) == blocks


@pytest.mark.parametrize(("room", "given_up"), [(-1, ["a"]), (0, []), (1, [])])
def test_as_much_as_may_be_is_held_for_stalled_peers(room: int, given_up: list[str]) -> None:
    one = Serving()
    one.receive("a", wants(1))
    serving = Serving(bitswap_stalled_bytes=2 * one.batch("a").n_bytes + room)
    for peer in "ab":
        serving.receive(peer, wants(1))
        serving.batch(peer)
    assert serving.block("a") == []
    assert serving.block("b") == given_up
    assert reached(serving.refusals) == ({"bitswap_stalled_bytes": 1} if given_up else {})


def test_too_many_stalled_bytes_give_up_the_peer_that_stalled_longest() -> None:
    serving = Serving(bitswap_stalled_bytes=2 * SIZE + 100)
    for peer in "abc":
        serving.receive(peer, wants(1))
        serving.batch(peer)
    assert serving.block("b") == []
    assert serving.block("a") == []
    assert serving.block("c") == ["b"]
    assert reached(serving.refusals) == {"bitswap_stalled_bytes": 1}
    ledger = serving.engine.ledger("b")
    assert ledger is not None
    assert ledger.ready == 1
    assert serving.next() is None
    serving.now = TIMEOUTS.backoff
    assert serving.engine.handle_timeout(serving.now) == ["a", "c"]
    serving.batch("b")


def test_a_peer_that_takes_nothing_is_given_up_after_ten_seconds_and_the_time_its_bytes_need() -> None:
    serving = Serving()
    serving.receive("mute", wants(1))
    serving.batch("mute")
    serving.block("mute", accepted=250 * KIB)
    due = TIMEOUTS.bitswap_stall + 250 * KIB / RATE
    assert serving.engine.next_timeout() == due
    assert serving.engine.handle_timeout(due - 0.001) == []
    assert serving.engine.handle_timeout(due) == ["mute"]
    assert serving.engine.spent.stalls == 1
    assert serving.engine.stalled_bytes == 0


def test_reading_a_byte_now_and_then_gains_no_time() -> None:
    serving = Serving()
    serving.receive("slow", wants(1))
    serving.batch("slow")
    serving.block("slow", accepted=250 * KIB)
    given_up = None
    for _ in range(20):
        serving.now += 9.0
        if serving.engine.handle_timeout(serving.now):
            given_up = serving.now
            break
        serving.engine.writable("slow", serving.now)
        serving.block("slow", accepted=1)
    assert given_up is not None
    assert given_up <= TIMEOUTS.bitswap_stall + 250 * KIB / RATE + 9.0


def test_a_peer_of_128_kbit_per_second_is_served_for_ever() -> None:
    serving = Serving()
    serving.receive("slow", wants(*range(1000)))
    serving.batch("slow")
    serving.block("slow", accepted=256 * KIB)
    for _ in range(1000):
        serving.now += 128 * KIB / 16_000
        assert serving.engine.handle_timeout(serving.now) == []
        serving.engine.writable("slow", serving.now)
        serving.block("slow", accepted=128 * KIB)


def test_time_in_which_a_peer_was_not_blocked_is_not_its_fault() -> None:
    serving = Serving()
    serving.receive("a", wants(1))
    serving.batch("a")
    serving.block("a", accepted=1000)
    serving.now = 1.0
    serving.engine.writable("a", serving.now)
    serving.now = 1000.0
    assert serving.engine.handle_timeout(serving.now) == []
    serving.block("a")
    assert serving.engine.handle_timeout(serving.now + 1) == []


def moving(serving: Serving, peer: str = "a") -> list[Batch]:
    """Let a peer take one batch; return the many that it is given then."""
    serving.receive(peer, wants(*range(30)))
    serving.write(peer, serving.batch(peer))
    return [serving.batch(peer) for _ in range(BATCHES_AHEAD)]


def test_what_was_loaded_for_a_peer_that_takes_nothing_is_let_go_but_for_what_was_begun() -> None:
    serving = Serving()
    engine = serving.engine
    begun, *others = moving(serving)
    serving.block("a", accepted=5)
    due = TIMEOUTS.bitswap_hold
    assert engine.next_timeout() == due
    assert engine.handle_timeout(due - 0.01) == engine.take_let_go() == []
    assert engine.stalled_bytes == BATCHES_AHEAD * begun.n_bytes
    assert engine.handle_timeout(due) == []
    assert engine.take_let_go() == ["a"]
    assert engine.take_let_go() == []
    assert engine.stalled_bytes == begun.n_bytes
    assert engine.current(begun)
    assert not any(engine.current(batch) for batch in others)
    serving.now = 1.0
    engine.writable("a", serving.now)
    serving.write("a", begun)
    again = [serving.batch("a") for _ in others]
    assert [batch.blocks for batch in again] == [batch.blocks for batch in others]
    assert (engine.spent.let_go, engine.spent.stalls) == (len(others), 0)


def test_a_message_that_was_not_begun_is_let_go_too() -> None:
    serving = Serving()
    moving(serving)
    serving.engine.blocked("a", serving.now)
    serving.engine.handle_timeout(TIMEOUTS.bitswap_hold)
    assert serving.engine.stalled_bytes == 0
    assert serving.engine.handle_timeout(60.0) == ["a"]


def test_a_peer_that_takes_bytes_in_time_keeps_what_is_loaded() -> None:
    serving = Serving()
    batches = moving(serving)
    for _ in range(100):
        serving.block("a", accepted=10_000)
        serving.now += TIMEOUTS.bitswap_hold / 2
        serving.engine.handle_timeout(serving.now)
        serving.engine.writable("a", serving.now)
    assert all(serving.engine.current(batch) for batch in batches)
    assert serving.engine.next_timeout() > serving.now + 1


def test_before_a_peer_is_given_up_for_its_bytes_all_let_go_what_was_not_begun() -> None:
    serving = Serving(bitswap_stalled_bytes=(BATCHES_AHEAD + 2) * SIZE)
    for peer in "ab":
        moving(serving, peer)
    assert serving.block("a") == []
    assert serving.block("b") == []
    assert serving.engine.take_let_go() == ["a"]
    assert reached(serving.refusals) == {}


def spent_on_blocked(serving: Serving) -> tuple[int, int, int]:
    blocked = serving.engine.spent.blocked
    return blocked.picks, blocked.read_blocks, blocked.written_bytes


def test_what_was_taken_for_a_peer_that_is_given_up_was_spent_on_a_blocked_peer() -> None:
    serving = Serving()
    moving(serving)
    serving.block("a", accepted=5)
    serving.engine.handle_timeout(TIMEOUTS.bitswap_hold)
    assert spent_on_blocked(serving) == (BATCHES_AHEAD - 1, BATCHES_AHEAD - 1, 0)
    serving.now = 60.0
    assert serving.engine.handle_timeout(serving.now) == ["a"]
    spent = serving.engine.spent
    assert spent_on_blocked(serving) == (BATCHES_AHEAD + 1, BATCHES_AHEAD + 1, spent.written_bytes)
    assert (spent.picks, spent.read_blocks, spent.read_bytes) == (
        spent.blocked.picks,
        spent.blocked.read_blocks,
        spent.blocked.read_bytes,
    )


def test_what_a_peer_has_read_before_it_stalls_was_not_spent_on_a_blocked_peer() -> None:
    serving = Serving()
    begun = moving(serving)[0]
    serving.block("a")
    serving.engine.credited("a", Limits().bitswap_credit_bytes, serving.now)
    serving.engine.writable("a", serving.now)
    serving.write("a", begun)
    serving.engine.blocked("a", serving.now)
    serving.now = 60.0
    serving.engine.handle_timeout(serving.now)
    assert serving.engine.spent.blocked.written_bytes == begun.n_bytes


def test_a_byte_of_credit_now_and_then_ends_no_back_off() -> None:
    serving = Serving()
    serving.receive("drip", wants(1))
    serving.batch("drip")
    serving.block("drip", accepted=100)
    serving.now = serving.engine.next_timeout()
    serving.engine.handle_timeout(serving.now)
    for _ in range(100):
        serving.engine.credited("drip", 1, serving.now)
    assert "drip" in serving.engine._backoffs
    serving.engine.credited("drip", Limits().bitswap_credit_bytes, serving.now)
    assert "drip" not in serving.engine._backoffs


@pytest.mark.parametrize("how", ["reset", "connection"])
def test_a_peer_that_ends_what_it_does_not_read_has_no_more_time_on_the_next(how: str) -> None:
    serving = Serving()
    for at in range(0, 90, 9):
        serving.now = float(at)
        if not serving.engine.handle_timeout(serving.now):
            serving.receive("mute", wants(at))
            if serving.next() is None:
                break
            serving.block("mute", accepted=250 * KIB)
        serving.now += 8.9
        if how == "reset":
            serving.engine.stream_reset("mute", serving.now)
        else:
            serving.engine.disconnected("mute", serving.now)
    assert serving.now == 9 + 8.9 + 0.1
    assert serving.engine.spent.stalls == 1
    assert serving.engine.spent.blocked.picks == 2


def test_a_peer_that_loses_its_connection_once_is_served_at_once() -> None:
    serving = Serving()
    serving.receive("a", wants(1))
    serving.batch("a")
    serving.block("a", accepted=250 * KIB)
    serving.now = 9.0
    serving.engine.disconnected("a", serving.now)
    serving.receive("a", wants(1))
    serving.batch("a")


def test_where_answers_are_is_said_with_the_age_of_the_oldest() -> None:
    serving = Serving()
    for peer in ("queued", "blocked"):
        serving.receive(peer, wants(*range(3)))
    assert serving.engine.stages(2.0).queued == Stage(6, 2.0)
    serving.batch("queued")
    serving.batch("blocked")
    serving.engine.written(next(iter(serving.engine._peers["queued"].batches)), 1.0)
    serving.now = 3.0
    serving.block("blocked")
    stages = serving.engine.stages(5.0)
    assert stages.queued == Stage(2, 4.0)
    assert stages.awaiting_credit == Stage(3, 2.0)
    assert stages.unconfirmed == Stage(1, 4.0)
    assert stages.writing == stages.backing_off == Stage()
    serving.now = serving.engine._peers["blocked"].stall_at
    assert serving.engine.handle_timeout(serving.now)
    assert serving.engine.stages(serving.now + 2).backing_off == Stage(3, 2.0)
    state = serving.engine.state("blocked", serving.now + 2)
    assert state is not None
    assert (state.state, state.backoff_seconds, state.stalls, state.wants) == ("backing_off", 8.0, 1, 3)
    assert serving.engine.state("nobody", 0.0) is None


def test_what_was_sent_and_dropped_is_counted_beyond_the_connection() -> None:
    serving = Serving(size=2 * KIB)
    serving.receive("a", wants(*range(3)))
    serving.receive("a", wants(Entry(cid(9), want_have=True), Entry(cid(0), cancel=True), Entry(b"no cid")))
    serving.serve()
    serving.receive("a", wants(*range(20, 25)))
    serving.engine.handle_timeout(TIMEOUTS.bitswap_stall)
    serving.engine.disconnected("a", TIMEOUTS.bitswap_stall)
    sent = serving.engine.sent()
    assert (sent.blocks, sent.block_bytes, sent.haves, sent.confirmed) == (2, 4 * KIB, 1, 3)
    assert serving.engine.dropped() == {"cancelled": 1, "ignored": 1, "gone": 5}


def test_back_offs_double_to_their_maximum_and_end_with_a_delivery() -> None:
    serving = Serving()
    waits = []
    for _ in range(7):
        serving.receive("mute", wants(1))
        while (found := serving.next()) is None:
            serving.now = serving.engine.next_timeout()
            serving.engine.handle_timeout(serving.now)
        assert found[0] == "mute"
        serving.block("mute")
        serving.now = serving.engine.next_timeout()
        assert serving.engine.handle_timeout(serving.now) == ["mute"]
        serving.receive("mute", wants(1))
        waits.append(serving.engine.next_timeout() - serving.now)
    assert waits == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    serving.now += 300.0
    serving.engine.handle_timeout(serving.now)
    serving.receive("mute", wants(5))
    serving.write("mute", serving.batch("mute"))
    serving.engine.credited("mute", 64 * KIB, serving.now)
    serving.receive("mute", wants(6, full=True))
    serving.batch("mute")
    serving.block("mute")
    while not serving.engine.handle_timeout(serving.now):
        serving.now = serving.engine.next_timeout()
    serving.receive("mute", wants(6))
    assert serving.engine.next_timeout() - serving.now == TIMEOUTS.backoff


def test_a_back_off_outlives_the_connection() -> None:
    serving = Serving()
    serving.receive("mute", wants(1))
    serving.batch("mute")
    serving.block("mute")
    serving.now = serving.engine.next_timeout()
    serving.engine.handle_timeout(serving.now)
    serving.engine.disconnected("mute", serving.now)
    serving.receive("mute", wants(1))
    assert serving.next() is None
    assert serving.engine.next_timeout() == serving.now + TIMEOUTS.backoff


def test_no_more_back_offs_are_remembered_than_there_may_be_connections() -> None:
    serving = Serving(connections=3, bitswap_stalled_bytes=0)
    for n in range(10):
        serving.receive(f"mute {n}", wants(1))
        serving.batch(f"mute {n}")
        assert serving.block(f"mute {n}") == [f"mute {n}"]
        serving.engine.disconnected(f"mute {n}", 0.0)
    assert len(serving.engine._backoffs) == 3


def test_after_a_stall_less_is_read_until_credit_returns() -> None:
    serving = Serving(size=50 * KIB)
    serving.receive("mute", wants(*range(20)))
    serving.batch("mute")
    serving.block("mute")
    serving.now = serving.engine.next_timeout()
    serving.engine.handle_timeout(serving.now)
    serving.now += TIMEOUTS.backoff
    serving.engine.handle_timeout(serving.now)
    assert serving.batch("mute").n_bytes <= 160 * KIB
    assert serving.next() is None


def test_a_reset_stream_gives_answers_back_once_on_a_new_one_at_once() -> None:
    serving = Serving()
    serving.receive("a", wants(1))
    old = serving.batch("a")
    serving.engine.stream_reset("a", serving.now)
    assert not serving.engine.current(old)
    assert not serving.engine.answer(old, {})
    serving.engine.written(old, serving.now)
    new = serving.batch("a")
    assert serving.engine.loaded_bytes == new.n_bytes
    serving.write("a", new)
    serving.engine.stream_reset("a", serving.now)
    assert serving.next() is None
    assert serving.engine.spent.resets == 2


def test_a_disconnected_peer_leaves_nothing_behind() -> None:
    serving = Serving()
    for peer in "ab":
        serving.receive(peer, wants(*range(9)))
    a, b = serving.batch("a"), serving.batch("b")
    serving.block("a")
    asked = serving.engine.receive("a", wants(50), 0.0)
    for peer in "ab":
        serving.engine.disconnected(peer, 0.0)
    serving.engine.looked_up("a", dict.fromkeys(asked, 1), 0.0)
    serving.engine.look_up_failed("a", asked)
    for batch in (a, b):
        assert not serving.engine.answer(batch, {})
        serving.engine.written(batch, 0.0)
    serving.engine.accepted("a", 1)
    serving.engine.writable("a", 0.0)
    serving.engine.credited("a", 5, 0.0, 5)
    serving.engine.stream_reset("a", 0.0)
    assert serving.block("a") == []
    engine = serving.engine
    assert engine.loaded_bytes == engine.stalled_bytes == engine.eligible == 0
    assert engine.next_timeout() == math.inf
    assert not engine._peers
    assert not engine._owners
    assert not engine._waiting
    assert not engine._pools.stalled


def test_a_new_block_is_sent_to_every_peer_that_waits_for_it() -> None:
    engine: Engine[str] = Engine(Limits(), TIMEOUTS)
    for peer in "abc":
        asked = engine.receive(peer, wants(1 if peer != "c" else 2), 0.0)
        engine.looked_up(peer, dict.fromkeys(asked), 0.0)
        found = engine.next_batch(0.0)
        assert found is not None
        assert engine.answer(found[1], {}).presences == [Presence(cid(2 if peer == "c" else 1), False)]
        engine.written(found[1], 0.0)
    engine.arrived(multihash(1), 5, 1.0)
    served = set()
    while found := engine.next_batch(1.0):
        served.add(found[0])
        engine.answer(found[1], {multihash(1): b"block"})
        engine.written(found[1], 1.0)
    assert served == {"a", "b"}
    engine.arrived(multihash(9), 5, 1.0)


def test_a_message_that_became_empty_is_written_as_it_is() -> None:
    serving = Serving()
    serving.receive("a", wants(1))
    batch = serving.batch("a")
    serving.receive("a", wants(Entry(cid(1), cancel=True)))
    assert not serving.engine.answer(batch, {multihash(1): b"x"})
    serving.engine.written(batch, 0.0)
    assert serving.engine.loaded_bytes == 0


def test_answers_confirmed_by_time_end_no_back_off() -> None:
    serving = Serving()
    serving.receive("a", wants(1))
    serving.batch("a")
    serving.block("a")
    serving.now = serving.engine.next_timeout()
    serving.engine.handle_timeout(serving.now)
    serving.now += TIMEOUTS.backoff
    serving.engine.handle_timeout(serving.now)
    serving.write("a", serving.batch("a"))
    serving.now += TIMEOUTS.bitswap_stall
    assert serving.engine.next_timeout() == serving.now
    serving.engine.handle_timeout(serving.now)
    assert "a" in serving.engine._backoffs
    assert serving.engine.next_timeout() == math.inf


def test_what_is_still_to_be_looked_up_is_what_is_wanted_now() -> None:
    engine: Engine[str] = Engine(Limits(bitswap_wants_per_peer=4), TIMEOUTS)
    assert engine.unknown("a") == []
    for n in range(100):
        engine.receive("a", wants(n, n + 1, full=True), 0.0)
    assert engine.unknown("a") == [multihash(99), multihash(100)]
    engine.looked_up("a", {multihash(99): None}, 0.0)
    engine.look_up_failed("a", [multihash(100)])
    assert engine.unknown("a") == []
