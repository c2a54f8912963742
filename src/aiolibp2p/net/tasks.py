"""The tasks of a host: every one has a name and this owner.

Not an asyncio.TaskGroup: a group that was entered from another task does not surface a crash, and one task that
swallows its cancellation would hold the exit for ever.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


@types.coroutine
def begun() -> Generator[None, None, None]:
    """Wait for the task's first step: what a coroutine for `begin` awaits before anything else."""
    yield


def begin(coroutine: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """Bring a coroutine to its `await begun()`, inside whatever has to be done at its end.

    A task that is cancelled before its first step runs nothing of its coroutine, not even a `finally`, unless the
    coroutine has begun.
    """
    coroutine.send(None)
    return coroutine


class Tasks:
    """A set of tasks that ends with its owner.

    Args:
        crashed: told of an exception that left a task of ours; handlers of users are guarded by who runs them.
    """

    __slots__ = ("_closing", "_crashed", "_loop", "_tasks")

    def __init__(self, loop: asyncio.AbstractEventLoop, crashed: Callable[[BaseException], None]) -> None:
        self._loop = loop
        self._crashed = crashed
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task; its exception, other than a cancellation, is a crash."""
        task = self._loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def start_guarded(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task whose coroutine lets no exception out, and which calls `discard` as its last act."""
        task = self._loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        return task

    def discard(self, task: asyncio.Task[Any] | None) -> None:
        """Forget a guarded task that is about to end."""
        if task is not None:
            self._tasks.discard(task)

    async def close(self, seconds: float) -> list[str]:
        """Cancel all tasks and wait for them; return the names of those that have not ended in `seconds`."""
        current = asyncio.current_task()
        for task in tuple(self._tasks):
            if task.done():
                self._done(task)  # it has ended in this turn, and its callback has not run yet
        tasks = {task for task in self._tasks if task is not current and not task.done()}
        for task in tasks:
            task.cancel()
        if not tasks:
            return []
        _, pending = await asyncio.wait(tasks, timeout=seconds)
        return sorted(task.get_name() for task in pending)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crashed(error)
