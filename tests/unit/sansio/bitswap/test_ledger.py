"""What a peer wants: what messages make of it, and what is answered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random

import pytest

from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.bitswap.ledger import Ledger
from aiolibp2p.sansio.bitswap.message import Entry, Message, Presence
from aiolibp2p.sansio.bitswap.wants import Batch
from tests.support.refusals import Refusals
from tests.unit.sansio.bitswap.wire import blocks, cid, cid_v0, multihash, wants

MANY = 1 << 30
STALL = Timeouts().bitswap_stall


class Serving:
    """A ledger and a store of blocks whose data says their number."""

    def __init__(self, *present: int, data: Mapping[int, bytes] | None = None, **limits: int) -> None:
        self.data = {multihash(n): b"data of %d" % n for n in present}
        self.data.update({multihash(n): content for n, content in (data or {}).items()})
        self.refusals = Refusals()
        self.ledger = Ledger(Limits(**limits), Timeouts(), refused=self.refusals)

    def sizes(self, asked: list[bytes]) -> dict[bytes, int | None]:
        return {mh: len(self.data[mh]) if mh in self.data else None for mh in asked}

    def receive(self, message: Message) -> None:
        self.ledger.looked_up(self.sizes(self.ledger.receive(message)))

    def take(self, max_bytes: int = MANY) -> tuple[Batch, Message] | None:
        batch = self.ledger.take(max_bytes)
        if batch is None:
            return None
        return batch, self.ledger.answer(batch, {mh: self.data.get(mh) for mh in batch.blocks})

    def answers(self, max_bytes: int = MANY, now: float = 0.0) -> Message:
        """Take one batch, write it, and return its message."""
        taken = self.take(max_bytes)
        if taken is None:
            return Message()
        self.ledger.written(taken[0], now)
        return taken[1]


def big(n: int = 1) -> dict[int, bytes]:
    """Return block `n`, too big to answer a want-have."""
    return {n: bytes(2000)}


def test_a_want_is_answered_with_its_block_and_forgotten() -> None:
    serving = Serving(1)
    assert serving.ledger.receive(wants(1)) == [multihash(1)]
    assert serving.ledger.take(MANY) is None
    serving.ledger.looked_up({multihash(1): 9})
    message = serving.answers()
    assert [(p.prefix, p.data) for p in message.payloads] == [(cid(1)[:4], b"data of 1")]
    assert not message.presences
    assert len(serving.ledger) == 0


def test_an_empty_block_is_a_block() -> None:
    serving = Serving(data={1: b""})
    serving.receive(wants(1, Entry(cid_v0(1), want_have=True)))
    message = serving.answers()
    assert blocks(message) == [b"", b""]
    assert not message.presences


def test_a_missing_block_is_said_to_be_missing_only_where_that_was_asked_for() -> None:
    serving = Serving()
    serving.receive(wants(1, Entry(cid(2)), Entry(cid(3), want_have=True, send_dont_have=True)))
    assert serving.answers().presences == [Presence(cid(1), False), Presence(cid(3), False)]
    assert {cid(1), cid(2), cid(3)} == {want.cid for want in serving.ledger.wants}


@pytest.mark.parametrize(("size", "whole"), [(1024, True), (1025, False)])
@pytest.mark.conforms("B4")
def test_a_want_have_of_a_small_block_is_answered_with_the_block(size: int, whole: bool) -> None:
    serving = Serving(data={1: bytes(size)})
    serving.receive(wants(Entry(cid(1), want_have=True)))
    message = serving.answers()
    assert blocks(message) == [bytes(size)] * whole
    assert message.presences == [Presence(cid(1), True)] * (not whole)
    assert len(serving.ledger) == 0


def test_answers_name_the_cid_that_was_asked_for() -> None:
    serving = Serving(data=big())
    serving.receive(wants(Entry(cid_v0(1), want_have=True), Entry(cid(2), send_dont_have=True)))
    assert serving.answers().presences == [Presence(cid_v0(1), True), Presence(cid(2), False)]


@pytest.mark.conforms("B3")
def test_higher_priorities_are_answered_first_and_equal_ones_in_order() -> None:
    serving = Serving(*range(5))
    serving.receive(wants(*(Entry(cid(n), priority) for n, priority in enumerate([1, 3, 2, 3, 1]))))
    assert blocks(serving.answers()) == [b"data of %d" % n for n in (1, 3, 2, 0, 4)]


def test_a_changed_priority_moves_a_want() -> None:
    serving = Serving(1, 2)
    serving.receive(wants(Entry(cid(1), 5), Entry(cid(2), 4)))
    serving.receive(wants(Entry(cid(1), 3)))
    assert blocks(serving.answers()) == [b"data of 2", b"data of 1"]


def test_a_batch_stays_within_its_bytes_but_has_one_answer_at_least() -> None:
    serving = Serving(data={n: bytes(100) for n in range(5)})
    serving.receive(wants(*range(5)))
    assert len(serving.answers(250).payloads) == 2
    assert len(serving.answers(10).payloads) == 1
    batch = serving.ledger.take(MANY)
    assert batch is not None
    assert len(batch.answers) == 2
    assert batch.n_bytes >= sum(len(data) for data in serving.data.values()) * 2 // 5


def test_blocks_of_one_hash_are_loaded_once_for_two_cids() -> None:
    serving = Serving(1)
    serving.receive(wants(1, Entry(cid_v0(1))))
    taken = serving.take()
    assert taken is not None
    assert taken[0].blocks == [multihash(1)]
    assert len(taken[1].payloads) == 2


def test_within_a_message_a_want_block_outweighs_a_want_have_and_a_cancel_everything() -> None:
    serving = Serving(data={**big(1), **big(2)})
    have, block, cancel = (Entry(cid(1), want_have=True), Entry(cid(1)), Entry(cid(2), cancel=True))
    serving.receive(wants(have, block, have, cancel, Entry(cid(2))))
    message = serving.answers()
    assert len(message.payloads) == 1
    assert not message.presences


def test_a_later_want_have_does_not_take_back_a_want_block() -> None:
    serving = Serving(data=big())
    serving.receive(wants(1))
    serving.receive(wants(Entry(cid(1), want_have=True)))
    assert len(serving.answers().payloads) == 1


@pytest.mark.conforms("B3")
def test_a_cancel_removes_a_want_in_every_state() -> None:
    serving = Serving(1, 2)
    serving.ledger.receive(wants(5))
    serving.receive(wants(1, 2, Entry(cid(3))))
    serving.receive(wants(*(Entry(cid(n), cancel=True) for n in (1, 3, 5, 9))))
    assert [want.cid for want in serving.ledger.wants] == [cid(2)]
    taken = serving.ledger.take(MANY)
    assert taken is not None
    serving.receive(wants(Entry(cid(2), cancel=True)))
    assert not serving.ledger.answer(taken, {multihash(2): b"x"})
    assert not serving.ledger._waiting


def test_full_replaces_exactly_what_was_wanted_and_its_queued_work_is_gone() -> None:
    serving = Serving(*range(6))
    serving.receive(wants(0, 1, 2, 9))
    serving.receive(wants(1, 4, full=True))
    assert [want.cid for want in serving.ledger.wants] == [cid(1), cid(4)]
    assert blocks(serving.answers()) == [b"data of 1", b"data of 4"]
    assert serving.answers() == Message()
    serving.receive(wants(2, 9))
    serving.receive(wants(full=True))
    assert len(serving.ledger) == serving.ledger.ready == 0
    assert not serving.ledger._waiting


def test_a_block_that_arrives_later_is_sent_to_who_waits_for_it() -> None:
    serving = Serving()
    serving.receive(wants(1))
    assert serving.answers().presences == [Presence(cid(1), False)]
    (want,) = serving.ledger.wants
    serving.data[multihash(1)] = b"new"
    serving.ledger.found(want, 3)
    assert blocks(serving.answers()) == [b"new"]


def test_a_block_that_arrives_while_its_absence_is_being_told_is_sent_after_it() -> None:
    serving = Serving()
    serving.receive(wants(1))
    taken = serving.take()
    assert taken is not None
    (want,) = serving.ledger.wants
    serving.data[multihash(1)] = b"new"
    serving.ledger.found(want, 3)
    assert taken[1].presences == [Presence(cid(1), False)]
    serving.ledger.written(taken[0], 0.0)
    assert blocks(serving.answers()) == [b"new"]


def test_a_look_up_that_is_overtaken_by_the_block_changes_nothing() -> None:
    serving = Serving()
    serving.ledger.receive(wants(1))
    (want,) = serving.ledger.wants
    serving.ledger.found(want, 3)
    serving.ledger.looked_up({multihash(1): None})
    serving.data[multihash(1)] = b"new"
    assert blocks(serving.answers()) == [b"new"]


def test_a_store_that_fails_is_no_statement_about_the_block() -> None:
    serving = Serving()
    asked = serving.ledger.receive(wants(1))
    serving.ledger.look_up_failed(asked)
    assert serving.answers() == Message()
    serving.ledger.looked_up({multihash(1): None})
    assert serving.answers() == Message()
    assert serving.ledger.receive(wants(1)) == [multihash(1)]


def test_a_load_that_fails_says_nothing_and_a_block_gone_meanwhile_is_missing() -> None:
    serving = Serving(1, 2, 3)
    serving.receive(wants(1, 2, Entry(cid(3))))
    batch = serving.ledger.take(MANY)
    assert batch is not None
    message = serving.ledger.answer(batch, {multihash(2): None, multihash(3): None})
    assert message.presences == [Presence(cid(2), False)]
    assert not message.payloads
    serving.ledger.written(batch, 0.0)
    assert len(serving.ledger) == 3
    serving.ledger.reset(0.0)
    assert serving.answers().presences == [Presence(cid(2), False)]


def test_a_want_repeated_although_its_block_was_missing_is_answered_again() -> None:
    serving = Serving()
    serving.receive(wants(1))
    serving.answers()
    serving.receive(wants(1))
    assert serving.answers().presences == [Presence(cid(1), False)]


def test_a_want_repeated_while_its_answer_is_on_the_way_is_not_answered_twice() -> None:
    serving = Serving(1)
    serving.receive(wants(1))
    batch = serving.ledger.take(MANY)
    assert batch is not None
    serving.receive(wants(1, full=True))
    assert serving.ledger.take(MANY) is None
    assert blocks(serving.ledger.answer(batch, serving.data)) == [b"data of 1"]


def test_a_want_repeated_after_its_answer_was_written_is_answered_again() -> None:
    serving = Serving(1)
    serving.receive(wants(1))
    serving.answers()
    serving.receive(wants(1))
    assert blocks(serving.answers()) == [b"data of 1"]
    serving.ledger.reset(1.0)
    assert blocks(serving.answers()) == [b"data of 1"]
    assert serving.answers() == Message()


def test_a_want_block_follows_a_have_that_is_on_the_way() -> None:
    serving = Serving(data=big())
    serving.receive(wants(Entry(cid(1), want_have=True)))
    have = serving.take()
    assert have is not None
    serving.receive(wants(1))
    assert have[1].presences == [Presence(cid(1), True)]
    block = serving.take()
    assert block is not None
    assert len(block[1].payloads) == 1
    serving.ledger.written(have[0], 0.0)
    serving.ledger.written(block[0], 0.0)
    assert len(serving.ledger) == 0


def test_a_want_that_no_longer_asks_for_dont_have_gets_none() -> None:
    serving = Serving()
    serving.receive(wants(1))
    serving.receive(wants(Entry(cid(1))))
    assert serving.answers() == Message()


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\x01",
        b"\x01\x55\x00\x20" + bytes(32),
        b"\x01\x55\x13\x13" + bytes(19),
        b"\x01\x55\x13\xa8\x01" + bytes(168),
    ],
)
def test_what_cannot_be_wanted_is_ignored_and_counted(bad: bytes) -> None:
    serving = Serving(1)
    serving.receive(wants(Entry(bad, send_dont_have=True), 1))
    assert serving.ledger.ignored == 1
    assert len(serving.answers().payloads) == 1


def test_a_block_that_fits_in_no_message_counts_as_missing() -> None:
    most = Limits().bitswap_message_bytes - 18
    serving = Serving()
    serving.ledger.receive(wants(1, 2))
    serving.ledger.looked_up({multihash(1): most + 1, multihash(2): most})
    batch = serving.ledger.take(1)
    assert batch is not None
    assert serving.ledger.answer(batch, {}).presences == [Presence(cid(1), False)]
    serving.ledger.written(batch, 0.0)
    batch = serving.ledger.take(1)
    assert batch is not None
    assert batch.blocks == [multihash(2)]


# -- too many ----------------------------------------------------------------------------------------------------------


def kept(serving: Serving) -> list[bytes]:
    return sorted(want.cid for want in serving.ledger.wants)


@pytest.mark.conforms("B4")
def test_wants_up_to_the_limit_are_all_kept() -> None:
    serving = Serving(*range(9), bitswap_wants_per_peer=8)
    serving.receive(wants(*range(8)))
    assert len(serving.ledger) == 8
    assert serving.refusals["bitswap_wants_per_peer"] == 0
    serving.receive(wants(8))
    assert len(serving.ledger) == 8
    assert serving.refusals["bitswap_wants_per_peer"] == 1
    assert cid(8) not in serving.ledger


def test_wants_for_blocks_that_we_lack_give_way_first() -> None:
    serving = Serving(0, 1, 4, bitswap_wants_per_peer=4)
    serving.receive(wants(Entry(cid(0), 1), Entry(cid(1), 1), Entry(cid(2), 9), Entry(cid(3), 8)))
    serving.receive(wants(Entry(cid(4), 0)))
    assert kept(serving) == sorted([cid(0), cid(1), cid(2), cid(4)])


def test_then_lower_priorities_give_way_to_higher_ones_only() -> None:
    serving = Serving(*range(10), bitswap_wants_per_peer=4)
    serving.receive(wants(*(Entry(cid(n), n) for n in (3, 4, 5, 6))))
    serving.receive(wants(Entry(cid(2), 2), Entry(cid(1), 4), Entry(cid(9), 9)))
    assert kept(serving) == sorted(cid(n) for n in (4, 5, 6, 9))
    assert serving.refusals["bitswap_wants_per_peer"] == 3
    assert [want.cid for want in serving.ledger.wants if want.state == "ready"]
    assert blocks(serving.answers())[0] == b"data of 9"


def survivors(serving: Serving, fresh: list[Entry], limit: int) -> set[bytes]:
    """Return whose wants are to be kept, by the definition: sorted, not ranked as they change."""
    wanted = serving.ledger.wants
    over = len(wanted) + len(fresh) - limit
    ranked = sorted(
        (want for want in wanted if want.state != "taken"), key=lambda w: (not w.lacking, w.priority, -w.order)
    )
    fresh = sorted(fresh, key=lambda entry: -entry.priority)
    kept_cids = {want.cid for want in wanted}
    room = min(len(fresh), len(fresh) - over)
    for entry, victim in zip(fresh[max(0, room) :], ranked, strict=False):
        if not victim.lacking and victim.priority >= entry.priority:
            break
        kept_cids.discard(victim.cid)
        room += 1
    return kept_cids | {entry.cid for entry in fresh[: max(0, room)]}


@pytest.mark.parametrize("seed", range(20))
def test_who_makes_room_is_who_would_if_all_were_sorted_each_time(seed: int) -> None:
    random, limit = Random(seed), 8
    serving = Serving(*range(0, 1000, 2), bitswap_wants_per_peer=limit)
    batches: list[Batch] = []
    fresh_number = 0
    for _ in range(150):
        what = random.random()
        if what < 0.5:
            entries = []
            for _ in range(random.randint(1, 3)):
                fresh_number += 1
                entries.append(Entry(cid(fresh_number), random.randint(0, 3), False, False, random.random() < 0.5))
            expected = survivors(serving, entries, limit)
            asked = serving.ledger.receive(wants(*entries))
            assert {want.cid for want in serving.ledger.wants} == expected
            if random.random() < 0.8:
                serving.ledger.looked_up(serving.sizes(asked))
        elif what < 0.6 and serving.ledger.wants:
            want = random.choice(serving.ledger.wants)
            entry = Entry(want.cid, random.randint(0, 3), False, False, random.random() < 0.5)
            serving.ledger.looked_up(serving.sizes(serving.ledger.receive(wants(entry))))
        elif what < 0.7 and serving.ledger.wants:
            want = random.choice(serving.ledger.wants)
            if want.size is None:
                serving.ledger.found(want, 5)
        elif what < 0.9:
            taken = serving.take(60)
            batches += [taken[0]] if taken else []
        elif batches:
            batch = batches.pop()
            if random.random() < 0.5:
                serving.ledger.let_go(batch)
            else:
                serving.ledger.written(batch, 0.0)


def test_a_block_that_arrives_before_its_absence_is_told_can_still_make_room() -> None:
    serving = Serving(bitswap_wants_per_peer=2)
    serving.receive(wants(1, 2))
    serving.receive(wants(4))
    for want in serving.ledger.wants:
        assert want.state == "ready"
        serving.ledger.found(want, 9)
    serving.receive(wants(Entry(cid(5), 9), Entry(cid(6), 9)))
    assert kept(serving) == [cid(5), cid(6)]


def test_full_makes_room_before_it_is_taken() -> None:
    serving = Serving(*range(8), bitswap_wants_per_peer=4)
    serving.receive(wants(0, 1, 2, 3))
    serving.receive(wants(3, 4, 5, 6, full=True))
    assert kept(serving) == sorted(cid(n) for n in (3, 4, 5, 6))
    assert serving.refusals["bitswap_wants_per_peer"] == 0


def test_an_answer_on_its_way_is_not_evicted() -> None:
    serving = Serving(*range(4), bitswap_wants_per_peer=2)
    serving.receive(wants(Entry(cid(0), 1), Entry(cid(1), 1)))
    batch = serving.ledger.take(MANY)
    assert batch is not None
    serving.receive(wants(Entry(cid(2), 5)))
    assert len(serving.ledger.answer(batch, serving.data).payloads) == 2


def test_changing_priorities_for_ever_holds_no_more_than_twice_the_wants() -> None:
    serving = Serving(*range(4), bitswap_wants_per_peer=4)
    for n in range(100):
        serving.receive(wants(*(Entry(cid(k), n % 2) for k in range(4))))
        assert len(serving.ledger._heap) <= 2 * 4 + 1
    assert len(serving.answers().payloads) == 4


# -- when an answer is done --------------------------------------------------------------------------------------------


def test_a_reset_gives_back_what_was_taken_and_what_nothing_confirmed_once() -> None:
    serving = Serving(1, 2)
    serving.receive(wants(1, 2, 3))
    serving.answers(1, now=0.0)
    assert serving.ledger.take(1) is not None
    serving.ledger.reset(1.0)
    assert len(serving.ledger) == serving.ledger.ready == 3
    assert sorted(blocks(serving.answers(now=2.0))) == [b"data of 1", b"data of 2"]
    serving.ledger.reset(3.0)
    assert serving.ledger.lost == 2
    assert serving.answers(now=4.0).presences == [Presence(cid(3), False)]
    serving.ledger.reset(5.0)
    assert serving.ledger.lost == 3
    assert serving.ledger.ready == 0
    assert [want.cid for want in serving.ledger.wants] == [cid(3)]


def test_credit_confirms_what_it_covers() -> None:
    serving = Serving(1, 2)
    serving.receive(wants(1, 2))
    for position in (100, 200):
        taken = serving.take(1)
        assert taken is not None
        serving.ledger.written(taken[0], 0.0, position)
    serving.ledger.credited(199)
    serving.ledger.reset(1.0)
    assert blocks(serving.answers()) == [b"data of 2"]


def test_ten_seconds_without_a_reset_confirm_an_answer() -> None:
    serving = Serving(1)
    assert serving.ledger.next_timeout() == math.inf
    serving.receive(wants(1))
    serving.answers(now=5.0)
    assert serving.ledger.next_timeout() == 5.0 + STALL
    serving.ledger.handle_timeout(5.0 + STALL)
    assert serving.ledger.next_timeout() == math.inf
    serving.ledger.reset(5.0 + STALL)
    assert len(serving.ledger) == 0


def test_a_reset_after_ten_seconds_gives_nothing_back_even_if_no_timer_ran() -> None:
    serving = Serving(1)
    serving.receive(wants(1))
    serving.answers(now=5.0)
    serving.ledger.reset(5.0 + STALL)
    assert len(serving.ledger) == 0


def test_what_was_cancelled_after_it_was_written_is_not_given_back() -> None:
    serving = Serving(1, 2, 3)
    serving.receive(wants(1, 2, 3))
    serving.answers()
    serving.receive(wants(Entry(cid(1), cancel=True)))
    serving.receive(wants(2, full=True))
    serving.ledger.reset(1.0)
    assert blocks(serving.answers()) == [b"data of 2"]


def test_a_batch_that_was_given_back_cannot_be_written_any_more() -> None:
    serving = Serving(1)
    serving.receive(wants(1))
    taken = serving.take()
    assert taken is not None
    serving.ledger.reset(0.0)
    serving.ledger.written(taken[0], 0.0)
    assert serving.ledger.ready == 1


def test_answers_that_wait_for_confirmation_are_bounded() -> None:
    serving = Serving(*range(40), bitswap_wants_per_peer=4)
    for n in range(40):
        serving.receive(wants(n))
        serving.answers()
    assert len(serving.ledger._unconfirmed) <= 4
    assert len(serving.ledger._written) <= 5
    serving.ledger.reset(0.0)
    assert serving.ledger.ready <= 4


def test_a_batch_that_is_let_go_was_never_taken() -> None:
    serving = Serving(*range(4))
    serving.receive(wants(*range(5)))
    for _ in range(3):
        batch = serving.ledger.take(MANY)
        assert batch is not None
        serving.ledger.let_go(batch)
        serving.ledger.let_go(batch)
        assert serving.ledger.ready == 5
    message = serving.answers()
    assert blocks(message) == [b"data of %d" % n for n in range(4)]
    assert message.presences == [Presence(cid(4), False)]
    assert serving.ledger.lost == 0


def test_an_answer_that_says_nothing_is_not_due_when_it_is_let_go() -> None:
    serving = Serving(1)
    serving.receive(wants(1))
    batch = serving.ledger.take(MANY)
    assert batch is not None
    assert not serving.ledger.answer(batch, {})
    serving.ledger.let_go(batch)
    assert serving.ledger.ready == 0
    serving.receive(wants(1))
    assert blocks(serving.answers()) == [b"data of 1"]


@pytest.mark.parametrize("how", ["reset", "let go"])
def test_a_block_that_arrives_while_nothing_is_said_of_it_is_sent(how: str) -> None:
    serving = Serving(1)
    serving.receive(wants(1))
    batch = serving.ledger.take(MANY)
    assert batch is not None
    assert not serving.ledger.answer(batch, {})
    (want,) = serving.ledger.wants
    serving.ledger.found(want, 9)
    if how == "reset":
        serving.ledger.reset(0.0)
    else:
        serving.ledger.let_go(batch)
    assert blocks(serving.answers()) == [b"data of 1"]


def test_what_is_dropped_is_counted_by_reason() -> None:
    serving = Serving(1, 2, 3, 4, bitswap_wants_per_peer=3)
    serving.receive(wants(1, 2, 3, 4))
    serving.receive(wants(Entry(cid(1), cancel=True), Entry(b"no cid")))
    serving.receive(wants(2, full=True))
    serving.receive(wants(*(Entry(cid(n), 5) for n in (5, 6, 7))))
    serving.ledger.clear()
    assert serving.ledger.dropped == {
        "refused": 1,
        "cancelled": 1,
        "ignored": 1,
        "replaced": 1,
        "evicted": 1,
        "gone": 3,
    }


def test_clear_leaves_nothing() -> None:
    serving = Serving(1, 2)
    serving.receive(wants(1, 2, 3))
    serving.answers(1)
    serving.ledger.take(1)
    serving.ledger.clear()
    assert len(serving.ledger) == serving.ledger.ready == 0
    assert serving.ledger.take(MANY) is None
    assert not serving.ledger._waiting
    assert serving.ledger.next_timeout() == math.inf
