"""One alarm for each peer."""

from __future__ import annotations

import math

from aiolibp2p.sansio.bitswap.timers import Alarms


def test_peers_are_due_in_order_and_once() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.set("late", 5.0)
    alarms.set("early", 2.0)
    assert alarms.next() == 2.0
    assert alarms.due(1.9) == []
    assert alarms.due(5.0) == ["early", "late"]
    assert alarms.due(9.0) == []
    assert alarms.next() == math.inf


def test_an_earlier_time_replaces_a_later_one_and_not_the_other_way() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.set("a", 5.0)
    alarms.set("a", 3.0)
    alarms.set("a", 4.0)
    alarms.set("a", math.inf)
    assert alarms.due(3.0) == ["a"]
    assert alarms.due(9.0) == []


def test_a_peer_that_is_dropped_is_not_due() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.set("a", 1.0)
    alarms.set("b", 2.0)
    alarms.drop("a")
    alarms.drop("c")
    assert alarms.next() == 2.0
    assert alarms.due(5.0) == ["b"]
