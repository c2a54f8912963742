"""Storage threads: how many there are, how they end, and what becomes of errors."""

from __future__ import annotations

import asyncio
import threading

import pytest

from aiolibp2p.blocks.threads import StorageThreads
from aiolibp2p.errors import DeadlineError, LocalProtocolError
from aiolibp2p.limits import Limits, Timeouts

pytestmark = pytest.mark.sockets  # real threads, on a real loop


def threads_of(storage_threads: int = 2, storage: float = 10.0) -> StorageThreads:
    limits = Limits(storage_threads=storage_threads, storage_threads_max=storage_threads + 1)
    return StorageThreads("test threads", limits=limits, timeouts=Timeouts(storage=storage))


async def test_calls_run_side_by_side_on_daemon_threads_up_to_the_limit() -> None:
    threads = threads_of(storage_threads=3)
    together = threading.Barrier(3)

    def meet() -> bool:
        together.wait()
        return threading.current_thread().daemon

    assert await asyncio.gather(*(threads.run(meet) for _ in range(9))) == [True] * 9
    assert threads.alive == 3
    await threads.close(lambda: None)
    assert threads.alive == 0


async def test_a_result_is_returned_and_an_error_raised() -> None:
    threads = threads_of()
    assert await threads.run(lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    assert await threads.run(lambda: 43) == 43
    await threads.close(lambda: None)


async def test_closing_runs_the_end_on_the_last_thread_and_reports_its_error() -> None:
    threads = threads_of()
    names: list[str] = []
    await threads.close(lambda: names.append(threading.current_thread().name))
    assert names == ["test threads-1"]
    with pytest.raises(LocalProtocolError):
        await threads.run(lambda: None)
    failing = threads_of()
    with pytest.raises(ZeroDivisionError):
        await failing.close(lambda: 1 // 0)  # type: ignore[arg-type]


async def test_a_call_that_was_cancelled_before_it_began_never_runs() -> None:
    threads = threads_of(storage_threads=1)
    gate = threading.Event()
    ran: list[str] = []

    def run() -> bool:
        ran.append("second")
        return True

    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(threads.run(gate.wait), name="first")]
    tasks += [loop.create_task(threads.run(run), name="second")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.wait(tasks[1:])
    gate.set()
    assert await tasks[0]
    assert not ran
    await threads.close(lambda: None)


async def test_a_thread_that_hangs_is_replaced_and_ends_when_there_are_enough() -> None:
    threads = threads_of(storage_threads=1, storage=0.05)
    gate = threading.Event()
    with pytest.raises(DeadlineError):
        await threads.run(gate.wait)
    assert (threads.hanging, threads.alive) == (1, 1)
    threads._timeouts = Timeouts()
    assert await threads.run(lambda: 42) == 42
    assert (threads.hanging, threads.alive) == (1, 2)
    gate.set()
    while threads.alive != 1:  # noqa: ASYNC110 - a thread that ends sets no event
        await asyncio.sleep(0)
    assert threads.hanging == 0
    await threads.close(lambda: None)
