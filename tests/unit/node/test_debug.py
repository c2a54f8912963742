"""The profile of a daemon, through its RPC."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aiolibp2p import Timeouts
from aiolibp2p.errors import StorageError
from aiolibp2p.node.access import Access
from aiolibp2p.node.debug import ask_daemon
from aiolibp2p.profile import TaskAges
from tests.support.loops import start, turns
from tests.support.nodes import TIMEOUTS, serving

pytestmark = pytest.mark.sockets


async def ask(path: Path, access: Access, *, unwakeable: bool = False) -> tuple[str, Any]:
    """Return text and JSON."""
    text = await ask_daemon(path, access, TIMEOUTS, unwakeable=unwakeable, as_json=False)
    return text, json.loads(await ask_daemon(path, access, TIMEOUTS, unwakeable=unwakeable, as_json=True))


async def consume(queue: asyncio.Queue[int]) -> None:
    await queue.get()


async def test_a_daemon_says_what_all_its_tasks_wait_for(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, access):
        with TaskAges(asyncio.get_running_loop(), now=lambda: 5.0):
            tasks = [start(f"task {number}", consume(asyncio.Queue())) for number in range(3)]
            await turns()
            text, said = await ask(tmp_path, access)
        assert text.startswith(f"host {node.host.peer_id}: ")
        assert "3 tasks, oldest 'task 0' [queue get; age 0 s]: consume\n    Queue.get  asyncio/queues.py:" in text
        (group,) = [group for group in said["groups"] if "task 0" in group["names"]]
        assert (group["count"], group["wait"], said["connections"]) == (3, "queue get", [])
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest.mark.slow
async def test_a_daemon_says_which_tasks_nothing_can_wake(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, access):
        assert await ask(tmp_path, access, unwakeable=True) == (
            "there is no task that nothing can wake",
            {"tasks": 0, "groups": []},
        )
        task = start("orphan", consume(asyncio.Queue()))
        await turns()
        text, said = await ask(tmp_path, access, unwakeable=True)
        assert text.startswith("task 'orphan' [queue get]: consume\n")
        assert said["groups"][0]["names"] == ["orphan"]
        task.cancel()
        await asyncio.wait([task])


async def test_only_who_has_the_token_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, access):
        with pytest.raises(StorageError) as caught:
            await ask(tmp_path, replace(access, token="wrong"))
    assert (caught.value.stage, caught.value.path) == ("daemon", str(tmp_path))
    assert "401" in str(caught.value)


async def test_a_daemon_that_is_gone_or_stuck_is_named(tmp_path: Path) -> None:
    held: list[asyncio.StreamWriter] = []

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for address, timeouts in (("http://127.0.0.1:1", TIMEOUTS), (f"http://127.0.0.1:{port}", Timeouts(storage=0.02))):
        access = Access(address, "", 77)
        with pytest.raises(StorageError) as caught:
            await ask_daemon(tmp_path, access, timeouts, unwakeable=False, as_json=False)
        assert "process 77" in str(caught.value)
    for writer in held:
        writer.close()
        await writer.wait_closed()
    server.close()
