"""The queue of changes: what goes into one commit, and who hears of one that fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from aiolibp2p.blocks.commits import Change, Commits
from aiolibp2p.blocks.threads import StorageThreads
from aiolibp2p.errors import DeadlineError, LocalProtocolError
from aiolibp2p.limits import Limits, Timeouts

pytestmark = pytest.mark.sockets  # real threads, on a real loop

LIMITS = Limits(storage_commit_bytes=100)


class Disk:
    """Remembers what was written, waits before the first commit, and refuses a key called `bad`."""

    def __init__(self) -> None:
        self.commits: list[list[bytes]] = []
        self.gate = threading.Event()

    def write(self, changes: Sequence[Change]) -> None:
        self.gate.wait()
        keys = [key for key, _ in changes]
        self.commits.append(keys)
        if b"bad" in keys:
            raise OSError("bad")


@asynccontextmanager
async def commits_to(disk: Disk, timeouts: Timeouts | None = None) -> AsyncIterator[Commits]:
    timeouts = timeouts if timeouts is not None else Timeouts()
    threads = StorageThreads("test", limits=LIMITS, timeouts=timeouts)
    commits = Commits(threads, disk.write, limits=LIMITS, timeouts=timeouts)
    try:
        yield commits
    finally:
        disk.gate.set()
        commits.close()
        await threads.close(lambda: None)


async def begun(commits: Commits, *batches: Sequence[Change]) -> list[asyncio.Task[None]]:
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(commits.make(changes), name=f"batch {n}") for n, changes in enumerate(batches)]
    await asyncio.sleep(0)
    return tasks


async def test_what_waits_is_committed_together_up_to_a_number_of_bytes() -> None:
    disk = Disk()
    async with commits_to(disk) as commits:
        tasks = await begun(commits, *([(b"%d" % n, bytes(49))] for n in range(6)))
        disk.gate.set()
        await asyncio.gather(*tasks)
    assert disk.commits == [[b"0"], [b"1", b"2"], [b"3", b"4"], [b"5"]]


async def test_one_callers_changes_are_never_divided_and_keep_their_order() -> None:
    disk = Disk()
    async with commits_to(disk) as commits:
        large = [(b"%d" % n, bytes(80)) for n in range(5)]
        tasks = await begun(commits, [(b"first", None)], large, [(b"a", None)], [(b"b", b""), (b"a", b"")])
        disk.gate.set()
        await asyncio.gather(*tasks)
    assert disk.commits == [[b"first"], [b"0", b"1", b"2", b"3", b"4"], [b"a", b"b", b"a"]]


async def test_where_a_commit_of_several_fails_each_is_tried_alone() -> None:
    disk = Disk()
    async with commits_to(disk) as commits:
        tasks = await begun(commits, *([(key, None)] for key in (b"first", b"a", b"bad", b"b")))
        disk.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), type(None), OSError, type(None)]
    assert disk.commits == [[b"first"], [b"a", b"bad", b"b"], [b"a"], [b"bad"], [b"b"]]


async def test_a_caller_that_leaves_takes_what_waits_with_it() -> None:
    disk = Disk()
    async with commits_to(disk) as commits:
        tasks = await begun(commits, *([(key, None)] for key in (b"first", b"a", b"b")))
        tasks[0].cancel()
        tasks[1].cancel()
        await asyncio.wait(tasks[:2])
        disk.gate.set()
        await tasks[2]
    assert disk.commits == [[b"first"], [b"b"]]


async def test_what_waits_when_the_queue_is_closed_is_given_up() -> None:
    disk = Disk()
    async with commits_to(disk) as commits:
        tasks = await begun(commits, *([(key, None)] for key in (b"first", b"a")))
        commits.close()
        with pytest.raises(LocalProtocolError):
            await tasks[1]
        with pytest.raises(LocalProtocolError):
            await commits.make([(b"b", None)])
        disk.gate.set()
        await tasks[0]
    assert disk.commits == [[b"first"]]


async def test_keys_of_a_late_commit_are_refused_even_when_their_caller_has_left() -> None:
    disk = Disk()
    async with commits_to(disk, Timeouts(storage=0.05)) as commits:
        tasks = await begun(commits, [(b"first", None)])
        tasks[0].cancel()
        await asyncio.wait(tasks)
        with pytest.raises(DeadlineError):
            await commits.make([(b"a", None)])
        while not commits._refused:  # noqa: ASYNC110 - the deadline of a call sets no event
            await asyncio.sleep(0)
        with pytest.raises(DeadlineError):
            await commits.make([(b"first", None)])
        assert not commits._waiting
    assert disk.commits == [[b"first"]]
