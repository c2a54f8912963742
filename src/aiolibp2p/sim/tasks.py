"""Tasks and futures with a reproducible identity, and the report of what blocked tasks wait for."""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiolibp2p.sim.scheduler import VirtualTimeLoop


_UNORDERED = 0


class SimFuture(asyncio.Future[Any]):
    """A future that hashes by the order in which futures were first hashed.

    Futures of asyncio hash by address, so the order of a set of them differs between processes. The number is drawn
    late: a future that no set ever holds costs nothing.
    """

    _order = _UNORDERED

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


def await_frames(coro: Any) -> list[types.FrameType]:
    """Return the suspended frames of a coroutine, outermost first."""
    frames: list[types.FrameType] = []
    while coro is not None:
        if isinstance(coro, types.CoroutineType):
            frame, awaited = coro.cr_frame, coro.cr_await
        elif isinstance(coro, types.GeneratorType):
            frame, awaited = coro.gi_frame, coro.gi_yieldfrom
        elif isinstance(coro, types.AsyncGeneratorType):
            frame, awaited = coro.ag_frame, coro.ag_await
        else:
            break
        if frame is not None:
            frames.append(frame)
        coro = awaited
    return frames


def describe_task(task: asyncio.Task[Any], now_ns: int) -> str:
    """Return a task's name, age and stack, innermost frame first."""
    age = f" ({(now_ns - task.born_ns) / 1e9:g} s old)" if isinstance(task, SimTask) else ""
    lines = [f"task {task.get_name()!r}{age} waits in"]
    for frame in reversed(await_frames(task.get_coro())):
        name = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
        lines.append(f"    {name}  {frame.f_code.co_filename}:{frame.f_lineno}")
    return "\n".join(lines)


def describe_blocked(loop: VirtualTimeLoop) -> str:
    """Return what every task of the loop waits for, the oldest task first."""
    tasks = sorted(asyncio.all_tasks(loop), key=hash)
    return "\n".join(describe_task(task, loop.time_ns()) for task in tasks) or "no task is left"
