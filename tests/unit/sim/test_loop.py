"""The event loop on virtual time."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from aiolibp2p.sim import (
    DeadlockError,
    EscapeError,
    LeftoverError,
    LivelockError,
    SimLoop,
    TimeLimitError,
    Trace,
    current_loop,
    run,
)
from aiolibp2p.sim.scheduler import SimEvent

NS = 1_000_000_000


async def test_timers_due_at_one_instant_run_in_the_order_they_were_set() -> None:
    loop = current_loop()
    ran: list[int] = []
    for i in range(50):
        loop.call_at(7.0, ran.append, i)
    await loop.pass_time(7.0)
    assert ran == list(range(50))


async def test_a_timeout_ends_at_its_exact_nanosecond() -> None:
    loop = current_loop()
    await loop.pass_time(0.1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await asyncio.Event().wait()
    assert loop.time_ns() == 10_100_000_000
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.3)
    assert loop.time_ns() == 10_400_000_000


async def test_a_deadline_less_than_a_nanosecond_ahead_moves_the_clock() -> None:
    loop = current_loop()
    deadline = loop.time() + 3.3e-9
    while loop.time() < deadline:
        await loop.pass_time(deadline - loop.time())
    assert loop.time_ns() == 4


async def test_timers_that_are_set_again_while_due_let_the_clock_creep() -> None:
    loop = current_loop()
    done = asyncio.Event()

    def again() -> None:
        if loop.time_ns() > 0:
            done.set()
        else:
            loop.call_at(0.0, again)

    again()
    await done.wait()
    assert loop.time_ns() == 1


async def test_the_wall_clock_starts_in_2000_and_runs_with_virtual_time() -> None:
    loop = current_loop()
    await loop.pass_time(60)
    assert loop.wall() == 946_684_800 + 60


async def test_settle_returns_when_everything_else_waits_and_no_time_has_passed() -> None:
    loop = current_loop()
    steps: list[int] = []

    async def work() -> None:
        for i in range(10):
            steps.append(i)
            await asyncio.sleep(0)
        await loop.pass_time(1)
        steps.append(99)

    task = loop.create_task(work())
    await loop.settle()
    assert steps == list(range(10))
    assert loop.time_ns() == 0
    await task


async def test_checks_run_before_the_clock_moves_and_before_settle_returns() -> None:
    loop = current_loop()
    seen: list[tuple[int, int]] = []
    steps = 0

    async def work() -> None:
        nonlocal steps
        for _ in range(3):
            for _ in range(5):
                await asyncio.sleep(0)
            steps += 1
            await loop.pass_time(1)

    task = loop.create_task(work())
    end = loop.at_each_instant(lambda: seen.append((loop.time_ns() // NS, steps)))
    await loop.settle()
    assert seen == [(0, 1)]
    await task
    end()
    end()
    await loop.pass_time(1)
    assert list(dict.fromkeys(seen)) == [(0, 1), (1, 2), (2, 3)]


def test_what_a_check_raises_ends_the_run() -> None:
    async def main() -> None:
        loop = current_loop()

        def check() -> None:
            assert loop.time_ns() < 5 * NS

        loop.at_each_instant(check)
        while True:
            await loop.pass_time(1)

    with pytest.raises(AssertionError):
        run(main)


async def test_a_check_may_make_work_for_the_same_instant() -> None:
    loop = current_loop()
    event = asyncio.Event()
    end = loop.at_each_instant(event.set)
    await event.wait()
    assert loop.time_ns() == 0
    end()


async def test_pending_timers_are_listed_soonest_first_and_without_the_cancelled() -> None:
    loop = current_loop()
    never = loop.call_at(math.inf, print)
    late, soon, cancelled = loop.call_later(2, print), loop.call_later(1, print), loop.call_later(3, print)
    cancelled.cancel()
    assert loop.pending_timers() == [soon, late, never]
    for timer in (never, late, soon):
        timer.cancel()
    assert loop.pending_timers() == []


async def test_all_that_is_to_happen_is_listed_in_its_order() -> None:
    loop = current_loop()
    ran: list[str] = []
    late, event = loop.call_later(2, ran.append, "late"), loop.call_at_ns(NS, lambda: ran.append("event"))
    soon = loop.call_soon(ran.append, "soon")
    loop.call_soon(ran.append, "never").cancel()
    assert loop.scheduled() == [(0, soon), (NS, event), (2 * NS, late)]
    again = SimEvent(lambda: ran.append("again"))
    loop.schedule(NS, again)
    loop.schedule(0, SimEvent(lambda: ran.append("now")))
    await loop.pass_time(3)
    assert ran == ["soon", "now", "event", "again", "late"]


def test_a_screen_sets_callbacks_aside_and_they_can_be_made_ready_again() -> None:
    async def main() -> None:
        loop = current_loop()

        def screen(ready: deque[asyncio.Handle | SimEvent]) -> None:
            aside.extend(handle for handle in ready if "append" in repr(handle))
            kept = [handle for handle in ready if "append" not in repr(handle)]
            ready.clear()
            ready.extend(kept)

        aside: list[asyncio.Handle | SimEvent] = []
        loop.screen = screen
        loop.call_soon(ran.append, 1)
        loop.call_later(1, ran.append, 2)
        await loop.pass_time(5)
        assert ran == []
        loop.screen = None
        loop.make_ready(aside)
        await loop.settle()

    ran: list[int] = []
    run(main)
    assert ran == [1, 2]


def test_a_forgotten_generator_is_not_closed_by_the_loop() -> None:
    ended: list[str] = []

    async def generate(name: str) -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            ended.append(name)

    async def main() -> None:
        for generator in generators:
            await anext(generator)
        current_loop().forget_generators(generators[:1])

    generators = [generate("forgotten"), generate("closed")]
    run(main)
    assert ended == ["closed"]


async def test_cancelled_timers_are_forgotten_in_bulk() -> None:
    loop = current_loop()
    for _ in range(5000):
        loop.call_later(1000, print).cancel()
    assert len(loop._heap) < 2500


async def test_the_time_of_a_timer_must_be_a_number() -> None:
    with pytest.raises(ValueError, match="not a number"):
        current_loop().call_at(math.nan, print)


def test_a_deadlock_names_each_blocked_task_and_where_it_waits() -> None:
    async def waits_for_an_event() -> None:
        await asyncio.Event().wait()

    async def waits_for_a_lock(lock: asyncio.Lock) -> None:
        await lock.acquire()

    async def main() -> None:
        lock = asyncio.Lock()
        await lock.acquire()
        await current_loop().pass_time(5)
        one = current_loop().create_task(waits_for_an_event(), name="eve")
        other = current_loop().create_task(waits_for_a_lock(lock), name="lou")
        await asyncio.gather(one, other)

    with pytest.raises(DeadlockError) as caught:
        run(main)
    report = str(caught.value)
    assert "deadlock at 5.000000000 s" in report
    for expected in ("'eve'", "waits_for_an_event", "Event.wait", "'lou'", "Lock.acquire", __file__):
        assert expected in report


def test_an_infinite_timer_does_not_hide_a_deadlock() -> None:
    async def main() -> None:
        current_loop().call_later(math.inf, print)
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError):
        run(main)


def test_a_livelock_names_what_keeps_running() -> None:
    async def spins() -> None:
        for _ in range(1_000_000):
            await asyncio.sleep(0)

    loop = SimLoop()
    loop.livelock_callbacks = 1000
    with pytest.raises(LivelockError, match="spins") as caught:
        loop.run_until_complete(spins())
    assert "waits in" in str(caught.value)  # and the profile of all tasks
    loop.end()
    loop.close()


def test_a_run_ends_at_its_limit_of_virtual_time() -> None:
    async def beats_for_ever() -> None:
        while True:
            await current_loop().pass_time(30)

    with pytest.raises(TimeLimitError, match="beats_for_ever"):
        run(beats_for_ever, limit_seconds=3600)


def test_run_returns_the_result_and_takes_a_coroutine_too() -> None:
    async def answer() -> int:
        return 42

    assert run(answer) == run(answer()) == 42


def test_run_passes_on_what_main_raises() -> None:
    async def main() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run(main, strict=True)


def test_run_cancels_what_is_left() -> None:
    ended: list[str] = []
    tasks: list[asyncio.Task[None]] = []

    async def left() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned up")

    async def main() -> None:
        tasks.append(current_loop().create_task(left()))
        await asyncio.sleep(0)

    run(main)
    assert ended == ["cleaned up"]


def test_a_strict_run_names_the_tasks_timers_and_errors_left_behind() -> None:
    async def main() -> None:
        loop = current_loop()
        kept.append(loop.create_task(asyncio.Event().wait(), name="straggler"))
        loop.call_later(9, straggling_callback)
        loop.call_soon(lambda: 1 // 0)
        kept.append(loop.create_task(fails(), name="failed"))

    kept: list[asyncio.Task[Any]] = []

    def straggling_callback() -> None:
        raise AssertionError

    async def fails() -> None:
        raise KeyError("lost")

    with pytest.raises(LeftoverError) as caught:
        run(main, strict=True)
    for expected in ("straggler", "straggling_callback", "ZeroDivisionError", "KeyError('lost')", "'failed'"):
        assert expected in str(caught.value)


def test_a_strict_run_lets_the_last_instant_end() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        tasks.append(current_loop().create_task(asyncio.sleep(0)))

    run(main, strict=True)


async def test_executors_run_in_this_thread() -> None:
    assert await asyncio.to_thread(threading.get_ident) == threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(lambda: 1 // 0)
    assert current_loop().time_ns() == 0


async def test_a_job_of_an_executor_takes_the_virtual_time_it_is_said_to() -> None:
    loop = current_loop()
    loop.executor_seconds = 0.25
    ended = await asyncio.gather(asyncio.to_thread(loop.time_ns), asyncio.to_thread(loop.time_ns))
    assert list(ended) == [NS // 4] * 2
    task = loop.create_task(asyncio.to_thread(print, "never"))
    await loop.pass_time(0.1)
    task.cancel()
    await loop.pass_time(1)


async def test_a_real_thread_cannot_wake_the_simulation() -> None:
    loop = current_loop()
    raised: list[Exception] = []

    def other() -> None:
        try:
            loop.call_soon_threadsafe(print)
        except EscapeError as error:
            raised.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert len(raised) == 1


async def test_what_would_touch_a_descriptor_is_refused() -> None:
    loop: Any = current_loop()
    for name in ("add_reader", "sock_recv", "subprocess_exec", "create_unix_server"):
        with pytest.raises(EscapeError, match=name):
            getattr(loop, name)(0)


def test_without_a_network_connections_are_refused() -> None:
    async def main() -> None:
        await asyncio.open_connection("127.0.0.1", 1)

    with pytest.raises(EscapeError):
        run(main, net=False)


def test_current_loop_knows_a_real_loop() -> None:
    with pytest.raises(RuntimeError):
        current_loop()


async def test_the_loop_keeps_tasks_alive_and_lets_finished_ones_go() -> None:
    loop = current_loop()
    for _ in range(5000):
        await loop.create_task(asyncio.sleep(0))
    assert len(loop._tasks) < 2000


async def test_tasks_and_futures_keep_their_order_in_sets() -> None:
    loop = current_loop()
    futures = [loop.create_future() for _ in range(5)]
    assert [hash(future) for future in futures] == sorted(hash(future) for future in futures)
    tasks = [loop.create_task(asyncio.sleep(0)) for _ in range(5)]
    assert [hash(task) for task in tasks] == sorted(hash(task) for task in tasks)
    await asyncio.wait(tasks)


def test_there_are_two_schedules() -> None:
    wrong: Any = "shuffled"
    with pytest.raises(ValueError, match="'fifo' and 'random'"):
        SimLoop(schedule=wrong)


def steps_of(seed: int) -> list[str]:
    order: list[str] = []

    async def worker(name: str) -> None:
        for _ in range(3):
            order.append(name)
            await asyncio.sleep(0)

    async def main() -> None:
        loop = current_loop()
        tasks = [loop.create_task(worker(name)) for name in "abcd"]
        for i in range(5):
            loop.call_soon(order.append, str(i))
        await asyncio.gather(*tasks)

    run(main, seed=seed, schedule="random")
    return order


def test_shuffled_tasks_depend_on_the_seed_only() -> None:
    assert steps_of(1) == steps_of(1)
    assert len({"".join(steps_of(seed)) for seed in range(10)}) > 5


def test_shuffling_keeps_plain_callbacks_in_order() -> None:
    for seed in range(10):
        assert [name for name in steps_of(seed) if name.isdigit()] == list("01234")


def test_a_trace_of_steps_names_the_tasks() -> None:
    async def main() -> None:
        await asyncio.sleep(0)

    trace = Trace(keep=True, steps=True)
    run(main, trace=trace)
    assert trace.lines is not None
    assert trace.lines[:2] == ["0 step task-1", "0 step task-1"]


def test_a_trace_of_steps_does_not_depend_on_the_tasks_that_the_process_has_made_before() -> None:
    async def main() -> None:
        await asyncio.Task(asyncio.sleep(0), loop=current_loop())  # as aiohttp makes its own

    traces = [Trace(keep=True, steps=True) for _ in range(2)]
    for trace in traces:
        run(main, trace=trace)
    assert traces[0].lines == traces[1].lines


def test_the_loop_serves_asyncio_runner_too() -> None:
    async def main() -> int:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.Event().wait()
        return current_loop().time_ns()

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        assert runner.run(main()) == NS
