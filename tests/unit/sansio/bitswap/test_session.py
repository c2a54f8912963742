"""Whom a session asks: one for the block, others whether they have it, elsewhere when no answer comes."""

from __future__ import annotations

import math

import pytest

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.bitswap.candidate import OVERTAKEN, UNPROVEN
from aiolibp2p.sansio.bitswap.session import Session
from aiolibp2p.sansio.bitswap.wantlist import Wantlist
from tests.unit.sansio.bitswap.wire import cid, cid_v0

ANSWER = Timeouts().bitswap_answer
BLOCK, HAVE = False, True


class Fetching:
    """A session and the wantlists of its peers."""

    def __init__(self, *peers: str, no_have: str = "", **limits: int) -> None:
        self.limits = Limits(**limits)
        self.session: Session[str] = Session(self.limits, Timeouts())
        self.now = 0.0
        self.lists: dict[str, Wantlist[str]] = {}
        for peer in peers:
            self.add(peer, supports_have=peer not in no_have)

    def add(self, peer: str, *, supports_have: bool = True) -> None:
        self.lists[peer] = Wantlist(peer, self.limits, Timeouts(), supports_have=supports_have, to_write={})
        self.session.add_peer(self.lists[peer], self.now)

    def want(self, *numbers: int) -> None:
        self.session.want([cid(n) for n in numbers], self.now)

    def asked(self, n: int) -> dict[str, bool]:
        """Return whose wantlists have CID `n`, and whether as a want-have."""
        return {
            peer: wantlist._want_have(cid(n)) for peer, wantlist in self.lists.items() if cid(n) in wantlist._desired
        }

    def block(self, peer: str, n: int, n_bytes: int = 1000) -> bool:
        return self.session.received_block(peer, cid(n), n_bytes, self.now)

    def say(self, peer: str, n: int, have: bool) -> None:
        self.session.received_presence(peer, cid(n), have, self.now)

    def late(self) -> None:
        self.now = self.session.next_timeout()
        self.session.handle_timeout(self.now)

    def prove(self, *peers: str) -> None:
        """Let each peer have had something."""
        for number, peer in enumerate(peers):
            self.want(9000 + number)
            self.block(peer, 9000 + number)


def test_the_block_is_asked_of_one_peer_and_the_others_whether_they_have_it() -> None:
    fetching = Fetching("a", "b", "c")
    fetching.want(1)
    assert fetching.asked(1) == {"a": BLOCK, "b": HAVE, "c": HAVE}


def test_peers_that_cannot_say_have_are_not_asked_whether_they_have() -> None:
    fetching = Fetching("a", "b", "c", no_have="b")
    fetching.want(1)
    assert fetching.asked(1) == {"a": BLOCK, "c": HAVE}


def test_a_block_ends_its_want_everywhere() -> None:
    fetching = Fetching("a", "b")
    fetching.want(1)
    assert fetching.block("a", 1)
    assert fetching.asked(1) == {}
    assert len(fetching.session) == 0
    assert fetching.session.next_timeout() == math.inf
    assert not fetching.block("b", 1)


def test_a_block_from_a_peer_that_was_not_asked_counts_too() -> None:
    fetching = Fetching("a")
    fetching.want(1)
    assert fetching.block("stranger", 1)
    assert fetching.asked(1) == {}


def test_once_a_peer_has_had_something_the_others_are_not_bothered() -> None:
    fetching = Fetching("a", "b")
    fetching.prove("a")
    fetching.want(1)
    assert fetching.asked(1) == {"a": BLOCK}


def test_a_dont_have_sends_the_want_to_the_next_peer() -> None:
    fetching = Fetching("a", "b", "c")
    fetching.want(1)
    fetching.say("c", 1, True)
    fetching.say("a", 1, False)
    assert fetching.asked(1)["c"] == BLOCK
    assert fetching.asked(1)["b"] == HAVE
    assert fetching.session.exhausted() == []


def test_when_every_peer_says_dont_have_the_want_is_exhausted_and_said_so_once() -> None:
    fetching = Fetching("a", "b")
    fetching.want(1)
    fetching.say("a", 1, False)
    assert fetching.session.exhausted() == []
    fetching.say("b", 1, False)
    assert fetching.session.exhausted() == [cid(1)]
    assert fetching.session.exhausted() == []
    assert cid(1) in fetching.session


def test_an_exhausted_want_is_served_by_a_peer_that_gets_the_block_or_is_added() -> None:
    fetching = Fetching("a")
    fetching.want(1, 2)
    fetching.say("a", 1, False)
    fetching.say("a", 2, False)
    fetching.say("a", 1, True)
    assert fetching.session.exhausted() == [cid(2)]
    assert fetching.asked(1) == {"a": BLOCK}
    fetching.add("b")
    assert fetching.asked(2)["b"] == BLOCK
    assert fetching.session.exhausted() == []


def test_without_any_peer_a_want_is_exhausted_at_once() -> None:
    fetching = Fetching()
    fetching.want(1)
    assert fetching.session.exhausted() == [cid(1)]
    fetching.add("a")
    assert fetching.asked(1) == {"a": BLOCK}


def test_a_peer_that_had_nothing_yet_is_asked_for_few_blocks_and_then_for_many() -> None:
    fetching = Fetching("a")
    fetching.want(*range(200))
    assert len(fetching.lists["a"]) == UNPROVEN
    assert fetching.session.queued == 200 - UNPROVEN
    fetching.block("a", 0, 16 << 10)
    assert len(fetching.lists["a"]) > 64


def test_no_more_bytes_are_asked_of_a_peer_than_a_stream_holds() -> None:
    fetching = Fetching("a")
    fetching.want(*range(600))
    for n in range(100):
        fetching.block("a", n, 1 << 20)
    assert 12 <= len(fetching.lists["a"]) <= 18
    for n in range(100, 200):
        fetching.block("a", n, 4 << 20)
    assert 3 <= len(fetching.lists["a"]) <= 5


def test_no_more_wants_are_asked_of_a_peer_than_its_window_has() -> None:
    fetching = Fetching("a", bitswap_window_wants=20)
    fetching.want(*range(600))
    for n in range(100):
        fetching.block("a", n, 10)
        assert 15 <= len(fetching.lists["a"]) <= 20


def test_blocks_are_asked_for_in_order() -> None:
    fetching = Fetching("a", bitswap_window_wants=4)
    fetching.want(*range(10))
    assert list(fetching.lists["a"]._desired) == [cid(n) for n in range(4)]
    fetching.block("a", 2)
    fetching.block("a", 1)
    assert list(fetching.lists["a"]._desired) == [cid(n) for n in (0, 3, 4, 5)]


def test_peers_are_given_work_in_proportion_to_their_rates() -> None:
    fetching = Fetching("fast", "slow")
    fetching.prove("fast", "slow")
    fetching.want(*range(2000))
    served = {"fast": 0, "slow": 0}
    for step in range(1, 1200):
        fetching.now = step * 0.001
        for peer, every in (("fast", 1), ("slow", 10)):
            queue = [c for c in fetching.lists[peer]._desired if fetching.session._wants[c].asked == peer]
            if step % every == 0 and queue:
                fetching.session.received_block(peer, queue[0], 100_000, fetching.now)
                served[peer] += 1
    assert served["fast"] > 5 * served["slow"] > 0


def test_what_a_silent_peer_does_not_answer_is_asked_elsewhere_and_stays_asked_there() -> None:
    fetching = Fetching("mute", "b")
    fetching.want(1)
    assert fetching.asked(1) == {"mute": BLOCK, "b": HAVE}
    assert fetching.session.next_timeout() == ANSWER
    fetching.late()
    assert fetching.asked(1) == {"mute": BLOCK, "b": BLOCK}
    assert fetching.block("mute", 1)
    assert fetching.asked(1) == {}


def test_a_silent_peer_gets_no_new_wants_while_another_answers() -> None:
    fetching = Fetching("mute", "b")
    fetching.want(1)
    fetching.late()
    fetching.block("b", 1)
    fetching.want(*range(10, 14))
    assert all(fetching.asked(n) == {"b": BLOCK} for n in range(10, 14))


def test_everything_asked_of_a_silent_peer_is_late_at_once() -> None:
    fetching = Fetching("mute")
    fetching.want(*range(5))
    fetching.add("b")
    fetching.late()
    assert all(fetching.asked(n)["b"] == BLOCK for n in range(5))


def test_an_only_peer_that_is_silent_keeps_its_wants_and_they_count_when_it_speaks() -> None:
    fetching = Fetching("mute")
    fetching.want(1, 2)
    fetching.late()
    assert fetching.asked(1) == {"mute": BLOCK}
    assert fetching.session.exhausted() == []
    assert fetching.session.next_timeout() == math.inf
    fetching.block("mute", 1)
    assert fetching.session.next_timeout() < math.inf


def test_bytes_of_an_unfinished_message_excuse_a_slow_peer() -> None:
    fetching = Fetching("slow", "b")
    fetching.want(1)
    for _ in range(20):
        fetching.now += ANSWER * 0.9
        fetching.session.received_bytes("slow", 1 << 20, fetching.now)
        fetching.session.handle_timeout(fetching.now)
    assert fetching.asked(1)["b"] == HAVE
    fetching.late()
    assert fetching.asked(1)["b"] == BLOCK


def test_a_want_that_many_younger_ones_overtake_is_asked_elsewhere_alone() -> None:
    fetching = Fetching("a")
    fetching.prove("a")
    fetching.want(*range(60))
    fetching.add("b")
    for n in range(1, OVERTAKEN + 1):
        fetching.now += 0.01
        fetching.block("a", n)
    others = [n for n in range(OVERTAKEN + 1, 60) if fetching.asked(n) == {"a": BLOCK}]
    fetching.now = fetching.session.next_timeout() - 0.001
    fetching.session.received_bytes("a", 1 << 20, fetching.now)
    fetching.late()
    assert fetching.asked(0) == {"a": BLOCK, "b": BLOCK}
    assert others
    assert all(fetching.asked(n) == {"a": BLOCK} for n in others)


def test_a_quick_peer_is_waited_for_less_and_never_longer_than_the_limit() -> None:
    fetching = Fetching("a")
    fetching.want(1)
    fetching.now = 0.01
    fetching.block("a", 1)
    fetching.want(2)
    assert fetching.session.next_timeout() - fetching.now == pytest.approx(ANSWER / 10)
    fetching.now += 100.0
    fetching.block("a", 2)
    fetching.want(3)
    assert fetching.session.next_timeout() - fetching.now == ANSWER


def test_a_peer_that_is_gone_is_replaced() -> None:
    fetching = Fetching("a", "b")
    fetching.prove("a")
    fetching.want(*range(5))
    fetching.session.remove_peer("a", fetching.now)
    assert len(fetching.lists["a"]) == 0
    assert all(fetching.asked(n) == {"b": BLOCK} for n in range(5))
    fetching.session.remove_peer("b", fetching.now)
    fetching.session.remove_peer("b", fetching.now)
    assert len(fetching.session.exhausted()) == 5
    assert fetching.session.peers == []


def test_dont_haves_that_pile_up_are_not_left_with_the_peer() -> None:
    fetching = Fetching("a", bitswap_window_wants=8)
    for n in range(100):
        fetching.want(n)
        fetching.say("a", n, False)
    assert len(fetching.lists["a"]) <= 4
    assert len(fetching.session.exhausted()) == 100


def test_what_is_wanted_no_longer_is_cancelled() -> None:
    fetching = Fetching("a", "b")
    fetching.want(1, 2)
    fetching.session.unwant([cid(1), cid(7)], 0.0)
    assert fetching.asked(1) == {}
    assert fetching.asked(2)
    fetching.session.close(0.0)
    assert fetching.asked(2) == {}
    assert len(fetching.session) == fetching.session.queued == 0
    assert not fetching.session._interest


def test_a_bad_cid_is_refused_and_nothing_is_wanted() -> None:
    fetching = Fetching("a")
    with pytest.raises(InvalidValueError):
        fetching.session.want([cid(1), b"no cid"], 0.0)
    assert len(fetching.session) == 0
    fetching.session.want([cid(1), cid(1), cid_v0(1)], 0.0)
    assert len(fetching.session) == 2


def test_presences_that_nobody_asked_for_change_nothing() -> None:
    fetching = Fetching("a")
    fetching.want(1)
    fetching.say("stranger", 1, False)
    fetching.say("a", 2, False)
    assert fetching.asked(1) == {"a": BLOCK}
    assert fetching.session.progress_at == -math.inf
