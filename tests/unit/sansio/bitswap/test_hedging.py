"""Asking a second peer when the first is silent for longer than it usually is, and what comes twice then."""

from __future__ import annotations

import math

import pytest

from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.bitswap.candidate import HEDGE_QUICKEST, SILENCES_MIN
from aiolibp2p.sansio.bitswap.client import Client
from aiolibp2p.sansio.bitswap.received import Cause
from aiolibp2p.sansio.bitswap.session import HEDGED_OF, HEDGES, Session
from tests.unit.sansio.bitswap.wire import cid, multihash

ANSWER = Timeouts().bitswap_answer
SHORTEST = ANSWER / HEDGE_QUICKEST
USUAL = 0.1
"""Seconds for each answer of a peer."""
SIZE = 64 << 10


class Hedging:
    """A session whose first peer has answered each of many wants in the same time; the others have said HAVE once."""

    def __init__(self, *others: str, seconds: float = USUAL, answers: int = SILENCES_MIN) -> None:
        self.client: Client[str] = Client(Limits(), Timeouts())
        self.now = 0.0
        for peer in ("a", *others):
            self.client.connected(peer)
        self.session: Session[str] = self.client.session(["a"], 0.0)
        for number in range(answers):
            self.want(1000 + number)
            self.now += seconds
            self.block("a", 1000 + number)
        for other in others:
            self.client.add_peer(self.session, other, self.now)
        if others:
            self.want(999)
            for other in others:
                self.say(other, 999, True)
            self.now += seconds
            self.block("a", 999)

    def want(self, *numbers: int) -> None:
        self.session.want([cid(n) for n in numbers], self.now)

    def block(self, peer: str, n: int) -> bool:
        self.client.received_bytes(peer, 1 << 20, self.now)
        return bool(self.client.received_block(peer, multihash(n), SIZE, self.now))

    def say(self, peer: str, n: int, have: bool) -> None:
        self.session.received_presence(peer, cid(n), have, self.now)

    def wait(self) -> float:
        """Let the next timer ring; return after how many seconds."""
        seconds = self.session.next_timeout() - self.now
        self.now += seconds
        self.session.handle_timeout(self.now)
        return seconds

    def asked(self, peer: str) -> list[int]:
        desired = self.client._wantlists[peer]._desired
        return [n for n in range(999) if cid(n) in desired]

    def asked_of_a(self, *numbers: int) -> None:
        """Want these of "a" alone, which has shown to be quick."""
        for peer, record in self.session._peers.items():
            if peer != "a":
                record._pace = math.inf, 1.0
        self.want(*numbers)


def test_after_a_silence_longer_than_95_of_100_the_oldest_want_is_asked_of_another_too() -> None:
    hedging = Hedging("b")
    hedging.asked_of_a(1, 2, 3)
    assert hedging.asked("b") == []
    assert hedging.wait() == pytest.approx(USUAL)
    assert hedging.asked("b") == [1]
    assert hedging.asked("a") == [1, 2, 3]
    assert hedging.session.received.hedges == hedging.client.received.hedges == 1


def test_what_is_hedged_is_told_before_all_that_the_peer_was_told_of() -> None:
    hedging = Hedging("b")
    hedging.session._peers["b"].wantlist.want("another session", cid(501))
    message = hedging.client.message_to_send("b", hedging.now)
    assert message is not None
    hedging.client.message_sent("b", hedging.now)
    hedging.asked_of_a(1)
    hedging.wait()
    hedge = hedging.client.message_to_send("b", hedging.now)
    assert hedge is not None
    assert [entry.cid for entry in hedge.entries] == [cid(1)]
    assert hedge.entries[0].priority > max(entry.priority for entry in message.entries)


def test_as_a_silence_lasts_four_times_as_many_are_hedged_each_time_it_doubles() -> None:
    hedging = Hedging("b")
    hedging.asked_of_a(*range(30))
    began = hedging.now
    found = []
    for _ in range(3):
        hedging.wait()
        found.append((round((hedging.now - began) / USUAL, 6), len(hedging.asked("b"))))
    assert found == [(1, 1), (2, 5), (4, 21)]


def test_bytes_end_a_silence() -> None:
    hedging = Hedging("b")
    hedging.asked_of_a(1, 2)
    for _ in range(20):
        hedging.now += USUAL * 0.9
        hedging.client.received_bytes("a", 1 << 20, hedging.now)
        hedging.session.handle_timeout(hedging.now)
    assert hedging.asked("b") == []
    hedging.wait()
    assert hedging.asked("b") == [1]


def test_a_silence_of_a_hundredth_of_bitswap_answer_is_never_unusual() -> None:
    hedging = Hedging("b", seconds=0.0001)
    hedging.asked_of_a(1)
    assert hedging.wait() == pytest.approx(SHORTEST)


def test_before_it_is_known_how_a_peer_answers_nothing_is_hedged() -> None:
    hedging = Hedging("b", answers=SILENCES_MIN - 3)
    hedging.asked_of_a(1)
    assert hedging.wait() == pytest.approx(ANSWER / 10)
    assert hedging.session.received.hedges == 0
    assert hedging.session.received.presumed_absent == 1


def test_a_session_with_one_peer_has_nobody_to_hedge_with() -> None:
    hedging = Hedging()
    hedging.want(1)
    assert hedging.wait() == pytest.approx(max(4 * USUAL, ANSWER / 10))
    assert hedging.session.received.hedges == 0


def test_a_want_is_hedged_with_one_peer_and_no_more_where_that_lacks_it() -> None:
    hedging = Hedging("b", "c")
    hedging.asked_of_a(1)
    hedging.wait()
    first, second = ("b", "c") if hedging.asked("b") else ("c", "b")
    assert hedging.asked(second) == []
    hedging.say(first, 1, False)
    assert hedging.session._wants[cid(1)].hedge is None
    hedging.block("a", 1)
    assert hedging.session.received.duplicates == 0


def test_a_hedge_that_answers_first_ends_the_want_and_the_other_block_is_a_duplicate_by_hedging() -> None:
    hedging = Hedging("b")
    hedging.asked_of_a(1, 2)
    hedging.wait()
    assert hedging.block("b", 1)
    assert hedging.asked("b") == []
    assert not hedging.block("a", 1)
    for received in (hedging.session.received, hedging.client.received):
        assert received.duplicates == 1
        assert received.duplicate_bytes == SIZE
        assert received.causes == {**dict.fromkeys(Cause, 0), Cause.HEDGED: 1}


def test_a_hedge_that_answers_last_is_the_duplicate() -> None:
    hedging = Hedging("b")
    hedging.asked_of_a(1)
    hedging.wait()
    assert hedging.block("a", 1)
    assert not hedging.block("b", 1)
    assert hedging.session.received.causes[Cause.HEDGED] == 1


def test_when_the_first_is_late_what_was_hedged_stays_with_the_second_alone() -> None:
    hedging = Hedging("b")
    hedging.asked_of_a(1)
    while not hedging.session._peers["a"].silent:
        hedging.wait()
    want = hedging.session._wants[cid(1)]
    assert (want.asked, want.hedge) == ("b", None)
    assert hedging.block("b", 1)
    assert not hedging.block("a", 1)
    assert hedging.session.received.causes[Cause.LATE] == 1


def test_a_first_that_goes_leaves_its_hedge() -> None:
    hedging = Hedging("b")
    hedging.asked_of_a(1)
    hedging.wait()
    hedging.client.disconnected("a", hedging.now)
    want = hedging.session._wants[cid(1)]
    assert (want.asked, want.hedge) == ("b", None)
    assert hedging.session.queued == 0


def test_a_block_that_was_given_up_and_one_that_was_never_asked_for_are_counted_as_such() -> None:
    hedging = Hedging()
    hedging.want(1)
    hedging.session.unwant([cid(1)], hedging.now)
    assert not hedging.block("a", 1)
    assert not hedging.block("a", 1)
    assert not hedging.block("stranger", 2)
    assert hedging.session.received.causes == {**dict.fromkeys(Cause, 0), Cause.GIVEN_UP: 1}
    assert hedging.client.received.causes == {**dict.fromkeys(Cause, 0), Cause.GIVEN_UP: 1, Cause.UNASKED: 2}
    assert hedging.client.received.duplicates == 3


def test_a_twentieth_of_the_blocks_and_a_few_may_be_hedged() -> None:
    hedging = Hedging("b", seconds=0.01)
    blocks = hedging.session.received.blocks
    hedging.asked_of_a(*range(60))
    while hedging.session.next_timeout() < hedging.session._peers["a"].deadline():
        hedging.wait()
    assert hedging.session.received.hedges == min(60, HEDGES + blocks // HEDGED_OF)


def test_one_silence_counts_once_however_many_of_its_wants_another_peer_answers() -> None:
    hedging = Hedging("b")
    hedging.asked_of_a(*range(21))
    for _ in range(3):
        hedging.wait()
    for n in range(20):
        assert hedging.block("b", n)
    hedging.block("a", 20)
    hedging.asked_of_a(30)
    assert hedging.wait() == pytest.approx(USUAL)


def test_what_peers_owe_is_bounded() -> None:
    hedging = Hedging()
    most = Limits().bitswap_window_wants
    for n in range(2 * most):
        hedging.want(2000 + n)
        hedging.session.unwant([cid(2000 + n)], hedging.now)
    assert len(hedging.client._wantlists["a"]._owed) == most
