"""What the task profile costs: `python benchmarks/micro/profile.py`.

First what stamping adds to a task that is made, run and awaited; then what a look at many blocked tasks takes, three
coroutines deep. Each row is the best of several rounds, in time of the processor, so that a busy machine disturbs it
least; pauses are in time on the wall.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from aiolibp2p.profile import TaskAges, profile_in_turns, profile_tasks, unwakeable

TASKS = 20_000
BATCH = 1000
ROUNDS = 15
NEVER = 1e9


async def nothing() -> None:
    """Return."""


async def make_tasks() -> float:
    """Return the seconds that it takes to make, run and await one task."""
    make = asyncio.get_running_loop().create_task
    begin = time.process_time()
    for _ in range(TASKS // BATCH):
        await asyncio.gather(*[make(nothing(), name="task") for _ in range(BATCH)])
    return (time.process_time() - begin) / TASKS


async def make_stamped_tasks() -> float:
    """Return the same while ages are known."""
    with TaskAges(asyncio.get_running_loop(), now=time.monotonic, period=NEVER):
        return await make_tasks()


def run(factory: Callable[[], asyncio.AbstractEventLoop], main: Callable[[], Coroutine[Any, Any, float]]) -> float:
    """Run once on a fresh loop, without the collector."""
    with asyncio.Runner(loop_factory=factory) as runner:
        gc.collect()
        gc.disable()
        try:
            return runner.run(main())
        finally:
            gc.enable()


def stamping(name: str, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Print what a stamp costs on one kind of loop."""
    bare = stamped = NEVER
    for _ in range(ROUNDS):
        bare = min(bare, run(factory, make_tasks))
        stamped = min(stamped, run(factory, make_stamped_tasks))
    print(f"{name:8} a task {bare * 1e6:5.2f} µs, stamped {stamped * 1e6:5.2f} µs: {(stamped - bare) * 1e6:+.2f} µs")


async def leaf(event: asyncio.Event) -> None:
    """Wait."""
    await event.wait()


async def middle(event: asyncio.Event) -> None:
    """Wait."""
    await leaf(event)


async def top(event: asyncio.Event) -> None:
    """Wait."""
    await middle(event)


def best(work: Callable[[], object], rounds: int = 3) -> float:
    """Return the seconds of the best round."""
    result = NEVER
    for _ in range(rounds):
        begin = time.process_time()
        work()
        result = min(result, time.process_time() - begin)
    return result


async def look(count: int) -> float:
    """Print what looks at `count` blocked tasks take."""
    loop = asyncio.get_running_loop()
    with TaskAges(loop, now=time.monotonic, period=NEVER) as ages:
        events = [asyncio.Event() for _ in range(count)]
        tasks = [loop.create_task(top(event), name=f"task {number}") for number, event in enumerate(events)]
        await asyncio.sleep(0)
        sampling = best(partial(_sample_all, ages))
        profile = profile_tasks()
        text = best(lambda: str(profile))
        whole = best(profile_tasks)
        search = best(unwakeable, rounds=1)
        pause = await longest_pause()
        for event in events:
            event.set()
        await asyncio.wait(tasks)
    parts = {"profile": whole, "text": text, "look at waits": sampling, "what nothing can wake": search}
    shown = "   ".join(f"{name} {seconds * 1e3:7.2f} ms" for name, seconds in parts.items())
    print(f"{count:7,} tasks   {shown}   longest pause of a profile in turns {pause * 1e3:.2f} ms")
    return whole / count


def _sample_all(ages: TaskAges) -> None:
    ages.sample()
    while ages._next is not None and not hasattr(ages._next, "when"):
        ages._sample_some()


async def longest_pause() -> float:
    """Return the longest time that other tasks had to wait while a profile was taken in turns."""
    loop = asyncio.get_running_loop()
    taking = loop.create_task(profile_in_turns(), name="profile")
    longest, before = 0.0, time.perf_counter()
    while not taking.done():
        await asyncio.sleep(0)
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
    return longest


def main() -> None:
    """Print the tables."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores")
    stamping("asyncio", asyncio.SelectorEventLoop)
    try:
        import uvloop
    except ImportError:
        pass
    else:
        stamping("uvloop", uvloop.new_event_loop)
    for count in (1000, 10_000, 100_000):
        run(asyncio.SelectorEventLoop, partial(look, count))


if __name__ == "__main__":
    main()
