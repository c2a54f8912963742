"""The task profile: what is said of tasks, on every kind of loop."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest

from aiolibp2p.profile import (
    TaskInfo,
    TaskProfile,
    describe_task,
    duration_text,
    name_waits,
    profile_in_turns,
    profile_tasks,
)
from aiolibp2p.sim import current_loop
from tests.support.loops import on_every_loop, on_real_loops, run_on, start, turns

sleep_an_hour = partial(asyncio.sleep, 3600)


async def acquire_twice() -> None:
    lock = asyncio.Lock()
    async with lock, lock:
        pass


async def condition() -> None:
    changed = asyncio.Condition()
    async with changed:
        await changed.wait_for(lambda: False)


async def put_too_much() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(1)
    await queue.put(1)
    await queue.put(2)


async def join() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    queue.put_nowait(1)
    await queue.join()


async def read_stream() -> None:
    await asyncio.StreamReader().readline()


async def group() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sleep_an_hour(), name="child")


async def bare_future() -> None:
    await asyncio.get_running_loop().create_future()


async def bounded() -> None:
    async with asyncio.timeout(3600):
        await asyncio.Event().wait()


WAITS: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
    "sleep": sleep_an_hour,
    "lock acquire": acquire_twice,
    "event wait": bounded,
    "condition wait": condition,
    "semaphore acquire": lambda: asyncio.Semaphore(0).acquire(),
    "queue get": lambda: asyncio.Queue[int]().get(),
    "queue put": put_too_much,
    "queue join": join,
    "barrier": lambda: asyncio.Barrier(2).wait(),
    "stream read": read_stream,
    "task group": group,
    "future": bare_future,
}


@on_every_loop
@pytest.mark.parametrize("wait", WAITS)
def test_a_wait_is_named_by_what_is_awaited(kind: str, wait: str) -> None:
    async def main() -> None:
        task = start("it", WAITS[wait]())
        await turns()
        info = describe_task(task)
        assert (info.name, info.wait, info.detail) == ("it", wait, "")

    run_on(kind, main)


@on_every_loop
def test_a_task_that_awaits_others_says_which(kind: str) -> None:
    async def awaits(what: Any) -> None:
        await what

    async def main() -> None:
        one = start("one", sleep_an_hour())
        other = start("other", awaits(one))
        gathered = start("gathered", awaits(asyncio.gather(one, other, start("at once", turns(0)))))
        shielded = start("shielded", awaits(asyncio.shield(one)))
        waited = start("waited", asyncio.wait([one]))
        await turns()
        said = {task: describe_task(task) for task in (other, gathered, shielded, waited)}
        assert (said[other].wait, said[other].detail) == ("task", "'one'")
        assert (said[gathered].wait, said[gathered].detail) == ("gather", "2 of 3 pending")
        assert said[shielded].wait == "shield"
        assert said[waited].wait == "wait for tasks"
        assert said[other].state.startswith("task 'one'")

    run_on(kind, main)


@on_real_loops
def test_a_job_of_another_thread_is_named_as_one(kind: str) -> None:
    async def run_job(release: threading.Event) -> None:
        await asyncio.get_running_loop().run_in_executor(None, release.wait)

    async def main() -> None:
        release = threading.Event()
        tasks = [start("thread", asyncio.to_thread(release.wait)), start("executor", run_job(release))]
        await turns()
        waits = [describe_task(task).wait for task in tasks]
        release.set()
        assert waits == ["thread", "thread"]
        await asyncio.gather(*tasks)

    run_on(kind, main)


@pytest.mark.sockets
@on_real_loops
def test_calls_of_the_loop_on_sockets_are_named(kind: str) -> None:
    import socket

    async def call(method: Callable[..., Any], *arguments: Any) -> None:
        await method(*arguments)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            server.setblocking(False)
            client.setblocking(False)
            peer, _ = await loop.sock_accept(server)
            with peer:
                tasks = [
                    start("reads", call(loop.sock_recv, client, 10)),
                    start("accepts", call(loop.sock_accept, server)),
                    start("writes", call(loop.sock_sendall, peer, bytes(64 << 20))),
                    start("looks up", call(loop.getaddrinfo, "127.0.0.1", 1)),
                ]
                await asyncio.sleep(0)
                waits = [describe_task(task).wait for task in tasks]
                assert waits == ["socket read", "socket accept", "socket write", "name lookup"]
                await tasks[3]
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    run_on(kind, main)


# -- stacks ------------------------------------------------------------------------------------------------------------


class Awaitable:
    """What is awaited through a plain generator."""

    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future

    def __await__(self) -> Any:
        yield from self._future.__await__()


@asynccontextmanager
async def entered() -> AsyncIterator[None]:
    await Awaitable(asyncio.get_running_loop().create_future())
    yield


async def generate() -> AsyncIterator[int]:
    yield 1
    async with entered():
        yield 2


async def consume() -> None:
    async for _ in generate():
        pass


@on_every_loop
def test_a_stack_goes_through_generators_and_iterators_of_c_to_the_innermost_await(kind: str) -> None:
    async def main() -> None:
        task = start("it", consume())
        await turns()
        stack = describe_task(task).stack
        assert [place.function for place in stack if place.file == __file__] == [
            "Awaitable.__await__",
            "entered",
            "generate",
            "consume",
        ]
        assert all(place.line > 0 for place in stack)

    run_on(kind, main)


@on_every_loop
def test_the_running_task_shows_where_it_is_and_a_runnable_one_that_it_is(kind: str) -> None:
    async def nested() -> TaskProfile:
        return profile_tasks()

    async def main() -> None:
        ready = start("ready", turns(0))
        by_name = {task.name: task for task in (await nested()).tasks}
        running = next(task for task in by_name.values() if task.wait == "running")
        assert [place.function.rpartition(".")[2] for place in running.stack[:2]] == ["nested", "main"]
        assert by_name[ready.get_name()].wait == "runnable"
        done = start("done", turns(0))
        await done
        assert describe_task(done).wait == "done"
        assert not [task for task in profile_tasks().tasks if task.name == "done"]

    run_on(kind, main)


@on_every_loop
def test_the_profile_in_turns_is_that_at_once_and_lets_others_run(kind: str) -> None:
    async def main() -> None:
        tasks = [start(f"t{number}", asyncio.Event().wait()) for number in range(1201)]
        await turns()
        ran: list[int] = []

        async def note() -> None:
            ran.append(len(ran))

        other = start("other", note())
        taken = await profile_in_turns()
        assert ran == [0]
        assert other.done()
        assert {task.name for task in taken.tasks} >= {task.get_name() for task in tasks}
        assert max(map(len, taken.groups())) == 1201

    run_on(kind, main)


@contextmanager
def names_kept() -> Any:
    from aiolibp2p.profile import stack

    kept = dict(stack._names)
    yield
    stack._names.clear()
    stack._names.update(kept)


async def test_other_layers_name_waits_of_their_own() -> None:
    with names_kept():
        name_waits({bare_future: "answer of the oracle"})
        task = start("it", bare_future())
        await turns()
        assert describe_task(task).wait == "answer of the oracle"
        task.cancel()
        await asyncio.wait([task])


# -- text and JSON -----------------------------------------------------------------------------------------------------


async def client(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await reader.readline()
    finally:
        writer.close()


async def test_tasks_at_one_place_are_one_entry_and_the_oldest_is_named_with_exact_ages() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    over = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 4001)
    tasks = [start("alice/t6", client(4001))]
    await current_loop().pass_time(60)
    tasks += [start(f"alice/t{number}", client(4001)) for number in (7, 8)]
    await current_loop().pass_time(10740)
    profile = profile_tasks(tasks=tasks)
    lines = str(profile).splitlines()
    assert lines[0] == "3 tasks, oldest 'alice/t6' [stream read, 180 minutes; age 180 minutes]: client"
    assert lines[1].startswith("    StreamReader._wait_for_data  asyncio/streams.py:")
    assert lines[-1].startswith(f"    client  {__file__}:")
    assert [task.age for task in profile.tasks] == [10800.0, 10740.0, 10740.0]
    assert [task.waiting for task in profile.tasks] == [10800.0, 10740.0, 10740.0]
    over.set()
    server.close()
    await asyncio.wait(tasks)


async def test_entries_are_ordered_by_age() -> None:
    tasks = []
    for name in ("first", "second", "third"):
        tasks.append(start(name, sleep_an_hour() if name != "second" else bare_future()))
        await current_loop().pass_time(1)
    assert [task.name for task in profile_tasks(tasks=reversed(tasks)).tasks] == ["first", "second", "third"]
    groups = profile_tasks(tasks=tasks).groups()
    assert [[task.name for task in group] for group in groups] == [["first", "third"], ["second"]]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def test_json_has_what_the_text_has() -> None:
    tasks = tuple(TaskInfo(f"t{n}", "work", "task", "'x'", None, 3.0 - n, ()) for n in range(2))
    said = TaskProfile(tasks).to_json()
    entry = {"count": 2, "names": ["t0", "t1"], "function": "work", "wait": "task", "detail": "'x'", "waiting": None}
    assert said == {"tasks": 2, "groups": [{**entry, "age": 3.0, "stack": []}]}
    assert json.loads(json.dumps(said)) == said
    assert str(TaskProfile(tasks)) == "2 tasks, oldest 't0' [task 'x'; age 3 s]: work"
    assert str(TaskProfile(())) == "no task is left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (0.0123, "0.0123 s"), (119.6, "120 s"), (120.0, "2 minutes"), (1.2e6, "20000 minutes")],
)
def test_durations_are_seconds_and_then_minutes(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
