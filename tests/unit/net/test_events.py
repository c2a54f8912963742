"""Events: bounded for every consumer, and what limits refuse is told without a flood."""

from __future__ import annotations

import pytest

from aiolibp2p.errors import ConnectionEndedError
from aiolibp2p.net.events import Events, InboundFailed, LimitReached
from aiolibp2p.sim import current_loop
from tests.support.refusals import reached


def failed(number: int) -> InboundFailed:
    return InboundFailed(ConnectionEndedError(str(number), by="remote"))


@pytest.mark.parametrize(("count", "missed"), [(2, 0), (3, 0), (4, 1)])
async def test_what_a_consumer_misses_is_the_oldest_and_is_counted(count: int, missed: int) -> None:
    events = Events(current_loop(), 3)
    slow = events.subscribe()
    happened = [failed(number) for number in range(count)]
    for event in happened:
        events.put(event)
    events.end()
    assert [event async for event in slow] == happened[missed:]
    assert slow.missed == missed
    assert reached(events.refusals) == ({"events": missed} if missed else {})


async def test_one_event_tells_of_all_refusals_of_a_limit_until_it_is_taken() -> None:
    events = Events(current_loop(), 10)
    seen = events.subscribe()
    before = failed(0)
    events.put(before)
    for _ in range(1000):
        events.refused("streams")
    events.refused("tombstones", 5)
    events.refused("streams", 7)
    assert await anext(seen) == before
    assert await anext(seen) == LimitReached("streams", 1007)
    events.refused("streams")
    assert await anext(seen) == LimitReached("tombstones", 5)
    assert await anext(seen) == LimitReached("streams", 1008)
    assert seen.missed == 0
    assert reached(events.refusals) == {"streams": 1008, "tombstones": 5}


async def test_a_limit_whose_event_was_missed_is_told_again() -> None:
    events = Events(current_loop(), 2)
    slow = events.subscribe()
    events.refused("streams")
    for number in range(2):
        events.put(failed(number))
    assert slow.missed == 1
    events.refused("streams")
    events.end()
    assert [event async for event in slow][1:] == [LimitReached("streams", 2)]
    assert events.refusals["events"] == 2


async def test_a_consumer_may_keep_no_event_at_all() -> None:
    events = Events(current_loop(), 0)
    none = events.subscribe()
    events.refused("streams")
    events.put(failed(0))
    events.end()
    assert [event async for event in none] == []
    assert none.missed == 2


def test_no_limit_is_counted_that_is_not_there() -> None:
    events = Events(None, 1)  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        events.refused("no such limit")
    with pytest.raises(TypeError):
        events.refusals["streams"] = 1  # type: ignore[index]
