"""Deadlines of a connection: exact times, one timer, and entries that no longer count."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiolibp2p.net.deadlines import Deadlines


class Timer:
    """What `call_at` returns."""

    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.time = 0.0
        self.timers: list[Timer] = []
        self.set = 0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        self.set += 1
        self.timers.append(Timer(when, lambda: callback(*args)))
        return cast(asyncio.TimerHandle, self.timers[-1])

    @property
    def pending(self) -> list[float]:
        """When the timers that were not cancelled are due."""
        self.timers = [timer for timer in self.timers if not timer.cancelled]
        return sorted(timer.when for timer in self.timers)

    def advance(self, until: float) -> None:
        """Run every timer at its time."""
        while self.pending and self.pending[0] <= until:
            timer = min(self.timers, key=lambda timer: timer.when)
            self.timers.remove(timer)
            self.time = max(self.time, timer.when)
            timer.callback()
        self.time = until


class Waiter:
    """Something with deadlines of several kinds; it notes when it was called."""

    def __init__(self, clock: ManualClock, deadlines: Deadlines) -> None:
        self.clock = clock
        self.deadlines = deadlines
        self.due: dict[int, float | None] = {}
        self.called: list[tuple[float, int]] = []
        self.then: Callable[[int], None] | None = None

    def wait(self, when: float, kind: int = 0) -> None:
        """Set the deadline, as a stream does."""
        if self.due.get(kind) is not None:
            self.deadlines.overtaken()
        self.due[kind] = when
        self.deadlines.add(when, self, kind)

    def clear(self, kind: int = 0) -> None:
        if self.due.get(kind) is not None:
            self.due[kind] = None
            self.deadlines.overtaken()

    def deadline_of(self, kind: int) -> float | None:
        return self.due.get(kind)

    def on_deadline(self, kind: int) -> None:
        self.due[kind] = None
        self.called.append((self.clock.time, kind))
        if self.then is not None:
            self.then(kind)


def start() -> tuple[ManualClock, Deadlines, Waiter]:
    clock = ManualClock()
    deadlines = Deadlines(clock)
    return clock, deadlines, Waiter(clock, deadlines)


def test_deadline_is_acted_on_at_its_time() -> None:
    clock, _, waiter = start()
    waiter.wait(10.0)
    clock.advance(9.999)
    assert waiter.called == []
    clock.advance(10.0)
    assert waiter.called == [(10.0, 0)]
    clock.advance(100.0)
    assert waiter.called == [(10.0, 0)]
    assert clock.pending == []


def test_many_deadlines_use_one_timer_at_the_earliest() -> None:
    clock, _, waiter = start()
    for kind, when in enumerate((5.0, 9.0, 3.0, 7.0, 3.0)):
        waiter.wait(when, kind)
        assert len(clock.pending) == 1
    assert clock.pending == [3.0]
    assert clock.set == 2, "a later deadline sets no timer"
    clock.advance(20.0)
    assert waiter.called == [(3.0, 2), (3.0, 4), (5.0, 0), (7.0, 3), (9.0, 1)]


def test_deadlines_of_one_time_are_acted_on_in_their_order() -> None:
    clock, deadlines, _ = start()
    order: list[int] = []
    for number in range(5):
        waiter = Waiter(clock, deadlines)
        waiter.then = lambda _kind, number=number: order.append(number)
        waiter.wait(1.0)
    clock.advance(1.0)
    assert order == [0, 1, 2, 3, 4]


def test_deadline_that_was_moved_counts_once_at_its_new_time() -> None:
    clock, _, waiter = start()
    waiter.wait(5.0)
    waiter.wait(8.0)
    clock.advance(6.0)
    assert waiter.called == []
    assert clock.pending == [8.0]
    waiter.wait(7.0)
    clock.advance(20.0)
    assert waiter.called == [(7.0, 0)]
    assert clock.pending == []


def test_deadline_that_was_moved_away_and_back_counts_once() -> None:
    clock, _, waiter = start()
    for when in (5.0, 9.0, 5.0):
        waiter.wait(when)
    clock.advance(20.0)
    assert waiter.called == [(5.0, 0)]


def test_deadline_that_was_cleared_is_not_acted_on() -> None:
    clock, _, waiter = start()
    waiter.wait(5.0)
    waiter.clear()
    clock.advance(20.0)
    assert waiter.called == []
    assert clock.pending == []


def test_never_needs_no_entry() -> None:
    clock, deadlines, waiter = start()
    waiter.wait(math.inf)
    assert clock.pending == []
    assert not deadlines._heap


def test_deadline_in_the_past_is_acted_on_in_the_next_turn() -> None:
    clock, _, waiter = start()
    clock.advance(10.0)
    waiter.wait(4.0)
    assert waiter.called == [], "not inside add"
    clock.advance(10.0)
    assert waiter.called == [(10.0, 0)]


def test_deadline_may_set_another() -> None:
    clock, _, waiter = start()
    waiter.then = lambda kind: waiter.wait(clock.time + 5.0) if len(waiter.called) < 4 else None
    waiter.wait(5.0)
    clock.advance(100.0)
    assert [when for when, _ in waiter.called] == [5.0, 10.0, 15.0, 20.0]
    assert clock.pending == []


def test_deadline_set_for_now_by_another_is_acted_on_in_the_same_turn() -> None:
    clock, _, waiter = start()
    waiter.then = lambda kind: waiter.wait(5.0, 1) if kind == 0 else None
    waiter.wait(5.0)
    waiter.wait(9.0, 2)
    clock.advance(5.0)
    assert waiter.called == [(5.0, 0), (5.0, 1)]
    assert clock.pending == [9.0]


def test_deadline_may_clear_another_of_the_same_time() -> None:
    clock, _, waiter = start()
    waiter.then = lambda kind: waiter.clear(1)
    waiter.wait(5.0)
    waiter.wait(5.0, 1)
    clock.advance(9.0)
    assert waiter.called == [(5.0, 0)]
    assert clock.pending == []


def test_failing_deadline_does_not_stop_the_others() -> None:
    clock, deadlines, waiter = start()
    other = Waiter(clock, deadlines)
    later = Waiter(clock, deadlines)

    def fail(_kind: int) -> None:
        raise ZeroDivisionError

    waiter.then = fail
    waiter.wait(5.0)
    other.wait(5.0)
    later.wait(8.0)
    with pytest.raises(ZeroDivisionError):
        clock.advance(20.0)
    clock.advance(20.0)
    assert other.called == [(5.0, 0)]
    assert later.called == [(8.0, 0)]


def test_timer_that_comes_a_little_early_is_set_again() -> None:
    """A loop's timers may come one tick of its clock before their time."""
    clock, _, waiter = start()
    waiter.wait(5.0)
    timer = clock.timers.pop()
    clock.time = 5.0 - 1e-9
    timer.callback()
    assert waiter.called == []
    assert clock.pending == [5.0]
    clock.advance(5.0)
    assert waiter.called == [(5.0, 0)]


def test_close_forgets_everything_and_refuses_more() -> None:
    clock, deadlines, waiter = start()
    waiter.wait(5.0)
    waiter.wait(6.0, 1)
    deadlines.close()
    assert clock.pending == []
    waiter.wait(7.0, 2)
    deadlines.close()
    assert clock.pending == []
    clock.advance(20.0)
    assert waiter.called == []


def test_deadline_may_close_them_all() -> None:
    clock, deadlines, waiter = start()
    waiter.then = lambda kind: deadlines.close()
    waiter.wait(5.0)
    waiter.wait(5.0, 1)
    waiter.wait(6.0, 2)
    clock.advance(20.0)
    assert waiter.called == [(5.0, 0)]
    assert clock.pending == []


def test_overtaken_entries_are_swept_when_they_are_most() -> None:
    clock, deadlines, waiter = start()
    keeping = Waiter(clock, deadlines)
    for kind in range(100):
        keeping.wait(50.0 + kind, kind)
    for n in range(10_000):
        waiter.wait(200.0 + n)
        assert len(deadlines._heap) <= 2 * (256 + 101) + 1
    clock.advance(1e6)
    assert [when for when, _ in keeping.called] == [50.0 + kind for kind in range(100)]
    assert waiter.called == [(200.0 + 9999, 0)]
    assert not deadlines._heap


def test_stale_entries_at_the_front_wake_nobody() -> None:
    clock, _, waiter = start()
    for kind in range(20):
        waiter.wait(1.0 + kind, kind)
    for kind in range(1, 20):
        waiter.clear(kind)
    clock.advance(1.0)
    assert waiter.called == [(1.0, 0)]
    assert clock.pending == []


steps = st.lists(
    st.tuples(
        st.sampled_from(["wait", "wait", "wait", "clear", "advance"]),
        st.integers(0, 3),
        st.integers(0, 3),
        st.floats(0, 9),
    ),
    max_size=60,
)


@given(steps)
def test_every_deadline_that_counts_is_acted_on_once_and_at_its_time(
    todo: list[tuple[str, int, int, float]],
) -> None:
    clock, deadlines, _ = start()
    waiters = [Waiter(clock, deadlines) for _ in range(4)]
    for what, who, kind, seconds in todo:
        waiter = waiters[who]
        if what == "wait":
            waiter.wait(clock.time + seconds, kind)
        elif what == "clear":
            waiter.clear(kind)
        else:
            due = [
                sorted(
                    (when, kind)
                    for kind, when in waiter.due.items()
                    if when is not None and when <= clock.time + seconds
                )
                for waiter in waiters
            ]
            called = [len(waiter.called) for waiter in waiters]
            clock.advance(clock.time + seconds)
            assert [sorted(waiter.called[n:]) for waiter, n in zip(waiters, called, strict=True)] == due
        counting = [when for waiter in waiters for when in waiter.due.values() if when is not None]
        assert len(clock.pending) <= 1
        assert not counting or clock.pending[0] <= min(counting)
