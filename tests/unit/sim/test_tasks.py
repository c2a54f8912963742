"""Tasks and futures of the simulated loop: their ages, and the report of a deadlock."""

from __future__ import annotations

import asyncio

import pytest

from aiolibp2p.profile import describe_task
from aiolibp2p.sim import DeadlockError, current_loop, run


async def wait_twice(first: asyncio.Event, second: asyncio.Event) -> None:
    await first.wait()
    await second.wait()


async def test_ages_and_waits_are_exact() -> None:
    loop, first, second = current_loop(), asyncio.Event(), asyncio.Event()
    await loop.pass_time(0.000000001)
    task = loop.create_task(wait_twice(first, second), name="it")
    await loop.pass_time(86400)
    first.set()
    await loop.pass_time(0.5)
    info = describe_task(task)
    assert (info.age, info.waiting) == (86400.5, 0.5)
    second.set()
    await task


async def test_a_task_has_not_waited_for_longer_than_it_exists() -> None:
    loop = current_loop()
    future = loop.create_future()
    await loop.pass_time(10)

    async def wait() -> None:
        await future

    task = loop.create_task(wait(), name="it")
    await loop.pass_time(1)
    assert describe_task(task).waiting == 1.0
    future.set_result(None)
    await task


def test_a_deadlock_is_reported_as_a_profile() -> None:
    async def main() -> None:
        loop = current_loop()
        tasks = [loop.create_task(asyncio.Event().wait(), name=f"bob/t{number}") for number in range(3)]
        await loop.pass_time(10800)
        await asyncio.wait(tasks)

    with pytest.raises(DeadlockError) as caught:
        run(main)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("deadlock at 10800.000000000 s: ")
    assert [line for line in lines[1:] if not line.startswith("    ")] == [
        "what each task waits in, oldest first:",
        "3 tasks, oldest 'bob/t0' [event wait, 180 minutes; age 180 minutes]: Event.wait",
        "task 'task-1' [wait for tasks, 0 s; age 180 minutes]: test_a_deadlock_is_reported_as_a_profile.<locals>.main",
    ]
