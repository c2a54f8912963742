"""How old tasks are and how long they have waited, on a real loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, cast

from aiolibp2p.profile import TaskAges, describe_task
from aiolibp2p.profile.ages import _TASKS_A_TURN
from tests.support.loops import on_every_loop, on_real_loops, run_on, start, turns

NEVER = 1e6


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


async def wait_twice(first: asyncio.Event, second: asyncio.Event) -> None:
    await first.wait()
    await second.wait()


@on_real_loops
def test_a_task_is_as_old_as_its_stamp_or_the_first_look_at_it(kind: str) -> None:
    async def main() -> None:
        loop, clock = asyncio.get_running_loop(), Clock()
        before = start("before", asyncio.Event().wait())
        await turns()
        assert describe_task(before).age is None
        with TaskAges(loop, now=clock, period=NEVER):
            clock.seconds = 103
            stamped = start("stamped", asyncio.Event().wait())
            clock.seconds = 110
            assert (describe_task(before).age, describe_task(stamped).age) == (10.0, 7.0)
            assert stamped.get_name() == "stamped"
        assert describe_task(before).age is None

    run_on(kind, main)


@on_real_loops
def test_a_wait_is_as_long_as_the_same_future_was_seen_to_be_awaited(kind: str) -> None:
    async def main() -> None:
        clock, first = Clock(), asyncio.Event()
        with TaskAges(asyncio.get_running_loop(), now=clock, period=NEVER) as ages:
            task = start("it", wait_twice(first, asyncio.Event()))
            await turns()
            assert describe_task(task).waiting is None
            for clock.seconds in (105, 115):
                ages.sample()
            clock.seconds = 120
            assert describe_task(task).waiting == 15.0
            first.set()
            await turns()
            assert describe_task(task).waiting is None  # it has moved since, and nobody has looked
            ages.sample()
            clock.seconds = 121
            info = describe_task(task)
            assert (info.waiting, info.age) == (1.0, 21.0)

    run_on(kind, main)


@on_real_loops
def test_it_looks_again_after_its_period_and_keeps_no_task_alive(kind: str) -> None:
    async def main() -> None:
        loop, clock = asyncio.get_running_loop(), Clock()
        with TaskAges(loop, now=clock, period=0.0) as ages:
            task = start("it", asyncio.Event().wait())
            for _ in range(10_000):
                if describe_task(task).waiting is not None:
                    break
                await asyncio.sleep(0)
            assert describe_task(task).waiting == 0.0
            task.cancel()
            await asyncio.wait([task])
            known = len(ages._seen)
            del task
            gc.collect()
            assert len(ages._seen) < known

    run_on(kind, main)


@on_real_loops
def test_many_tasks_are_looked_at_over_several_turns(kind: str) -> None:
    async def main() -> None:
        clock = Clock()
        tasks = [start(f"t{number}", asyncio.Event().wait()) for number in range(_TASKS_A_TURN + 1)]
        await turns()
        with TaskAges(asyncio.get_running_loop(), now=clock, period=NEVER) as ages:
            assert len(ages._seen) == _TASKS_A_TURN
            await turns()
            assert len(ages._seen) == len(asyncio.all_tasks())
            clock.seconds += 5
            assert {describe_task(task).waiting for task in tasks[:10]} == {5.0}

    run_on(kind, main)


@on_real_loops
def test_a_task_factory_that_was_there_goes_on_making_tasks(kind: str) -> None:
    made: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> Any:
        task = asyncio.Task(coroutine, loop=loop, **options)
        made.append(type(task).__name__)
        return task

    async def main() -> None:
        loop, clock = asyncio.get_running_loop(), Clock()
        loop.set_task_factory(cast(Any, factory))
        with TaskAges(loop, now=clock, period=NEVER):
            task = start("it", asyncio.Event().wait())
            clock.seconds += 2
            assert describe_task(task).age == 2.0
        assert made == ["Task"]
        assert loop.get_task_factory() is factory

    run_on(kind, main)


@on_every_loop
def test_starting_and_stopping_twice_is_as_once_and_leaves_the_loop_as_it_was(kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ages = TaskAges(loop)
        for act in (ages.stop, ages.start, ages.start, ages.stop, ages.stop):
            act()
        assert loop.get_task_factory() is None

    run_on(kind, main)


async def test_a_simulated_loop_knows_ages_by_itself() -> None:
    loop = asyncio.get_running_loop()
    with TaskAges(loop):
        assert loop.get_task_factory() is None
