"""Tasks that nothing can wake are found while the loop is busy, and others are not taken for them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from aiolibp2p.profile import unwakeable
from aiolibp2p.sim import current_loop
from tests.support.loops import on_every_loop, on_real_loops, run_on, start, turns

pytestmark = pytest.mark.slow  # a search walks the heap, and that of pytest is large

sleep_an_hour = partial(asyncio.sleep, 3600)


async def take_both(first: asyncio.Lock, second: asyncio.Lock, both_hold_one: asyncio.Barrier) -> None:
    async with first:
        await both_hold_one.wait()
        async with second:
            pass


def deadlock() -> list[asyncio.Task[None]]:
    """Start two tasks that take two locks in different orders."""
    one, other, both = asyncio.Lock(), asyncio.Lock(), asyncio.Barrier(2)
    return [start("dial/one", take_both(one, other, both)), start("dial/two", take_both(other, one, both))]


async def consume(queue: asyncio.Queue[int]) -> None:
    while True:
        await queue.get()


def orphan() -> asyncio.Task[None]:
    """Start the consumer of a queue that nobody fills."""
    return start("consumer", consume(asyncio.Queue()))


async def keep_alive() -> None:
    loop = asyncio.get_running_loop()
    while True:
        turned = asyncio.Event()
        loop.call_soon(turned.set)
        await turned.wait()


def found() -> list[str]:
    return sorted(task.get_name() for task in unwakeable())


@on_every_loop
def test_a_lock_order_deadlock_and_an_orphaned_consumer_are_named_while_keepalives_run(kind: str) -> None:
    async def main() -> None:
        tasks = [*deadlock(), orphan(), start("keepalive", keep_alive()), start("sleeps", sleep_an_hour())]
        await turns(10)
        assert found() == ["consumer", "dial/one", "dial/two"]
        for task in tasks:
            task.cancel()
        await turns()
        assert found() == []

    run_on(kind, main)


@on_every_loop
def test_who_awaits_a_task_that_nothing_can_wake_cannot_be_woken_either(kind: str) -> None:
    async def parent() -> None:
        await asyncio.gather(start("child", sleep_an_hour()), orphan())

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(consume(asyncio.Queue()), name="of the group")

    async def main() -> None:
        tasks = [start("parent", parent()), start("group", group())]
        await turns(5)
        assert found() == ["consumer", "group", "of the group"]  # a failure of the child would wake the parent
        assert all(not task.done() for task in tasks)

    run_on(kind, main)


HELD: list[asyncio.Queue[int]] = []


async def bounded(wait: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    async with asyncio.timeout(3600):
        await wait()


async def held_by_a_task_that_runs(queue: asyncio.Queue[int]) -> None:
    await sleep_an_hour()
    queue.put_nowait(1)


@on_every_loop
def test_what_a_timer_a_module_or_a_task_can_wake_is_not_named(kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[int] = asyncio.Queue()
        HELD[:] = [asyncio.Queue()]
        event, cancelled = asyncio.Event(), start("cancelled later", asyncio.Event().wait())
        loop.call_later(3600, event.set)
        loop.call_later(3600, partial(cancelled.cancel))
        tasks = [
            start("module", consume(HELD[0])),
            start("timer", event.wait()),
            start("timeout", bounded(asyncio.Event().wait)),
            start("wait for", asyncio.wait_for(asyncio.Event().wait(), 3600)),
            start("queue", consume(queue)),
            start("producer", held_by_a_task_that_runs(queue)),
            start("sleep", sleep_an_hour()),
            start("waits for another", asyncio.wait([start("sleeps", sleep_an_hour())])),
        ]
        del queue, event, cancelled
        await turns()
        assert found() == []
        assert all(not task.done() for task in tasks)

    run_on(kind, main)


@on_real_loops
def test_what_a_thread_or_a_signal_can_wake_is_not_named(kind: str) -> None:
    async def main() -> None:
        loop, release = asyncio.get_running_loop(), threading.Event()
        asked, shown = asyncio.Event(), asyncio.Event()
        jobs = [start(f"thread {number}", asyncio.to_thread(release.wait)) for number in range(40)]
        loop.add_signal_handler(signal.SIGUSR2, asked.set)
        before = signal.signal(signal.SIGUSR1, partial(_set, shown))
        tasks = [*jobs, start("signal of the loop", asked.wait()), start("signal", shown.wait())]
        await turns()
        asked = shown = asyncio.Event()
        try:
            assert found() == []
        finally:
            release.set()
            signal.signal(signal.SIGUSR1, before)
            loop.remove_signal_handler(signal.SIGUSR2)
        await asyncio.wait(jobs)
        assert found() == ["signal", "signal of the loop"]
        assert len(tasks) == 42

    run_on(kind, main)


def _set(event: asyncio.Event, _number: int, _frame: Any) -> None:
    event.set()


@pytest.mark.sockets
@on_every_loop
def test_what_a_socket_can_wake_is_not_named(kind: str) -> None:
    async def main() -> None:
        serving, served = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving.set()
            await reader.read()
            writer.close()
            await writer.wait_closed()
            served.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        tasks = [orphan(), start("reads", reader.readline())]
        del reader
        await serving.wait()
        await turns()
        try:
            assert found() == ["consumer"]
        finally:
            writer.close()
            await writer.wait_closed()
            await served.wait()
            server.close()
        assert len(tasks) == 2

    run_on(kind, main)


async def test_the_oldest_comes_first() -> None:
    tasks = [orphan()]
    await current_loop().pass_time(1)
    tasks += deadlock()
    await current_loop().pass_time(1)
    assert unwakeable() == tasks
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@on_every_loop
def test_a_loop_without_blocked_tasks_has_none_that_nothing_can_wake(kind: str) -> None:
    async def main() -> None:
        assert unwakeable() == []

    run_on(kind, main)
    with pytest.raises(RuntimeError):
        unwakeable()
