"""Which peers are asked whether they have a block, and which are presumed not to have it."""

from __future__ import annotations

from aiolibp2p.sansio.bitswap.candidate import DONT_HAVES
from aiolibp2p.sansio.bitswap.session import Session
from tests.unit.sansio.bitswap.test_session import ANSWER, BLOCK, HAVE, Fetching
from tests.unit.sansio.bitswap.wire import cid


def many(n: int, **limits: int) -> Fetching:
    return Fetching(*(f"peer {number}" for number in range(n)), no_have="", **limits)


def asked_whether(fetching: Fetching, n: int) -> list[str]:
    return [peer for peer, have in fetching.asked(n).items() if have == HAVE]


def asked_for(fetching: Fetching, n: int) -> list[str]:
    return [peer for peer, have in fetching.asked(n).items() if have == BLOCK]


def test_where_no_peer_is_known_to_be_useful_a_few_are_asked_whether_they_have_it() -> None:
    fetching = many(100, bitswap_broadcast_peers=5)
    fetching.want(1)
    assert len(asked_for(fetching, 1)) == 1
    assert len(asked_whether(fetching, 1)) == 5


def test_those_that_lack_it_are_followed_by_others_until_all_were_asked() -> None:
    fetching = many(20, bitswap_broadcast_peers=3)
    fetching.want(1)
    asked: list[str] = []
    while asked_whether(fetching, 1):
        open_ = [peer for peer in fetching.asked(1) if peer not in asked]
        if not open_:
            break
        assert len([peer for peer in open_ if fetching.asked(1)[peer] == HAVE]) <= 3
        asked.append(open_[-1])
        fetching.say(open_[-1], 1, False)
    assert len(asked) == 20
    assert fetching.session.exhausted() == [cid(1)]


def test_only_useful_peers_are_asked_whether_they_have_it_where_there_are_any() -> None:
    fetching = many(20)
    for number in (3, 7, 8):
        fetching.lists[f"peer {number}"].useful = True
    fetching.want(1)
    assert sorted(fetching.asked(1)) == ["peer 3", "peer 7", "peer 8"]


def test_when_all_useful_peers_lack_it_a_few_others_are_asked() -> None:
    fetching = many(20, bitswap_broadcast_peers=4)
    fetching.lists["peer 3"].useful = fetching.lists["peer 7"].useful = True
    fetching.want(1)
    fetching.say("peer 3", 1, False)
    assert sorted(fetching.asked(1)) == ["peer 3", "peer 7"]
    fetching.say("peer 7", 1, False)
    assert len(asked_whether(fetching, 1)) == 4


def test_a_peer_that_has_delivered_or_said_have_is_useful_to_other_sessions_too() -> None:
    fetching = many(10)
    fetching.want(1)
    fetching.block("peer 0", 1)
    fetching.want(2)
    fetching.say("peer 4", 2, True)
    other: Session[str] = Session(fetching.limits, fetching.session._timeouts)
    for wantlist in fetching.lists.values():
        other.add_peer(wantlist, 0.0)
    other.want([cid(3)], 0.0)
    assert sorted(fetching.asked(3)) == ["peer 0", "peer 4"]


def test_no_more_peers_of_which_nothing_is_known_are_tried_at_a_time_than_the_limit() -> None:
    fetching = many(50, bitswap_broadcast_peers=6)
    fetching.want(*range(200))
    peers = fetching.session._peers
    tried = [peer for peer, record in peers.items() if record.expected]
    assert len(tried) == 6
    assert sum(len(wantlist) > 0 for wantlist in fetching.lists.values()) <= 12
    # One that lacks all it is asked for makes room for another.
    while peers[tried[0]].expected:
        fetching.say(tried[0], next(n for n in range(200) if fetching.session._wants[cid(n)].asked == tried[0]), False)
    assert peers[tried[0]].barren
    assert sum(record.expected > 0 for record in peers.values()) == 6


def test_a_peer_that_lacked_16_in_a_row_and_had_nothing_is_not_asked_while_another_may_have_it() -> None:
    fetching = Fetching("a", "b")
    fetching.prove("a")
    for n in range(DONT_HAVES):
        fetching.want(n)
        fetching.session._peers["b"].received_dont_have(cid(n), None, 0.0)
        fetching.block("a", n)
    fetching.want(*range(100, 300))
    assert len(fetching.lists["b"]) == 0
    fetching.say("a", 100, False)
    assert asked_for(fetching, 100) == ["a", "b"]


def test_one_that_did_not_say_whether_it_has_it_in_its_usual_time_is_asked_after_the_others() -> None:
    fetching = Fetching("a", "quiet", "b")
    fetching.want(1)
    assert fetching.asked(1) == {"a": BLOCK, "quiet": HAVE, "b": HAVE}
    fetching.session._peers["quiet"].received_have(0.01)
    fetching.session._peers["b"].received_have(None)
    fetching.now = ANSWER / 2
    fetching.say("a", 1, False)
    assert fetching.asked(1) == {"a": BLOCK, "quiet": HAVE, "b": BLOCK}


def test_the_usual_time_for_saying_so_is_measured() -> None:
    fetching = Fetching("a", "quick")
    for n in range(4):
        fetching.want(n)
        fetching.now += 0.01
        fetching.say("quick", n, False)
    record = fetching.session._peers["quick"]
    assert not record.overdue(fetching.now, fetching.now + ANSWER / 10 - 0.001)
    assert record.overdue(fetching.now, fetching.now + ANSWER / 10)
    assert not fetching.session._peers["a"].overdue(fetching.now, fetching.now + ANSWER - 0.001)


def test_a_want_that_one_peer_lacks_and_another_is_silent_about_is_unlocated_and_not_exhausted() -> None:
    fetching = Fetching("mute", "b")
    fetching.want(1)
    fetching.say("b", 1, False)
    assert fetching.session.unlocated() == []
    fetching.late()
    assert fetching.session.unlocated() == [cid(1)]
    assert fetching.session.unlocated() == []
    assert fetching.session.exhausted() == []
    assert fetching.session.received.presumed_absent == 1
    fetching.say("mute", 1, False)
    assert fetching.session.exhausted() == [cid(1)]


def test_what_is_exhausted_still_is_said_once_more_when_asked_for() -> None:
    fetching = Fetching("a")
    fetching.want(1, 2)
    fetching.say("a", 1, False)
    assert fetching.session.exhausted() == fetching.session.unlocated() == [cid(1)]
    for n in (1, 2, 3):
        fetching.session.check_exhausted(cid(n))
    assert fetching.session.exhausted() == [cid(1)]
    assert fetching.session.unlocated() == []
