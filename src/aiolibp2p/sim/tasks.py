"""Tasks and futures with a reproducible identity, which know when they were made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiolibp2p.profile import profile_tasks

if TYPE_CHECKING:
    from aiolibp2p.sim.scheduler import VirtualTimeLoop


_UNORDERED = 0


class SimFuture(asyncio.Future[Any]):
    """A future that hashes by the order in which futures were first hashed.

    Futures of asyncio hash by address, so the order of a set of them differs between processes. The number is drawn
    late: a future that no set ever holds costs nothing.
    """

    __slots__ = ("_order", "born_ns")

    def __init__(self, *, loop: VirtualTimeLoop) -> None:
        self._order = _UNORDERED
        self.born_ns = loop.time_ns()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        if self._order == _UNORDERED:
            loop: Any = self.get_loop()
            self._order = loop.next_order()
        return self._order


class SimTask(asyncio.Task[Any]):
    """A task that hashes by the order in which tasks were made, and knows when it was."""

    def __init__(self, coro: Any, *, order: int, loop: VirtualTimeLoop, **options: Any) -> None:
        self._order = order  # before super(), which puts the task into a set
        self.born_ns = loop.time_ns()
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self._order


def task_of(handle: object) -> asyncio.Task[Any] | None:
    """Return the task that a callback is a step of, or None for a plain callback."""
    owner = getattr(getattr(handle, "_callback", None), "__self__", None)
    return owner if isinstance(owner, asyncio.Task) else None


def describe_task(task: asyncio.Task[Any]) -> str:
    """Return a task's name, what it waits for and its stack, innermost frame first."""
    return str(profile_tasks(task.get_loop(), [task]))


def describe_blocked(loop: VirtualTimeLoop) -> str:
    """Return what every task of the loop waits for, the oldest task first."""
    return f"what each task waits in, oldest first:\n{profile_tasks(loop)}"
