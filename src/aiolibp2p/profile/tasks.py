"""The task profile: tasks that wait at the same place are one entry, the oldest first, as in Go's goroutine profile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiolibp2p.profile.ages import Ages, ages_of
from aiolibp2p.profile.stack import Place, Step, await_steps, name_wait, running_steps, short_path

_TASKS_A_TURN = 250
"""Tasks whose stacks are read before the loop goes on: some two milliseconds."""
_NAMES_SHOWN = 10
"""Names of an entry's tasks that JSON gives."""
_MINUTES_FROM = 120.0
"""Seconds from which durations are given in minutes."""

RUNNING, RUNNABLE, DONE = "running", "runnable", "done"


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """One task."""

    name: str
    function: str
    """The qualified name of its coroutine."""
    wait: str
    """What it waits for: "stream read", "lock acquire", "future"; or "running", "runnable" or "done"."""
    detail: str
    """More of this one wait, such as the name of the task that is awaited; often empty."""
    waiting: float | None
    """Seconds it has waited; None where nobody knows."""
    age: float | None
    """Seconds since it was made; None where nobody knows."""
    stack: tuple[Place, ...]
    """Where, innermost first."""

    @property
    def state(self) -> str:
        """What is said of it in brackets: `stream read, 180 minutes; age 180 minutes`."""
        wait = f"{self.wait} {self.detail}" if self.detail else self.wait
        if self.waiting is not None:
            wait += f", {duration_text(self.waiting)}"
        return wait if self.age is None else f"{wait}; age {duration_text(self.age)}"


@dataclass(frozen=True, slots=True)
class TaskProfile:
    """Tasks of one loop at one moment."""

    tasks: tuple[TaskInfo, ...]
    """Oldest first."""

    def groups(self) -> list[tuple[TaskInfo, ...]]:
        """Return the tasks that wait for the same at the same place, each group and all of them oldest first."""
        found: dict[tuple[str, tuple[Place, ...], str], list[TaskInfo]] = {}
        for task in self.tasks:
            found.setdefault((task.wait, task.stack, task.function), []).append(task)
        return [tuple(group) for group in found.values()]

    def __str__(self) -> str:
        lines: list[str] = []
        for group in self.groups():
            oldest = group[0]
            who = f"task {oldest.name!r}" if len(group) == 1 else f"{len(group)} tasks, oldest {oldest.name!r}"
            lines.append(f"{who} [{oldest.state}]: {oldest.function}")
            lines += [f"    {place}" for place in oldest.stack]
        return "\n".join(lines) or "no task is left"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it; durations in seconds."""
        return {"tasks": len(self.tasks), "groups": [_group_json(group) for group in self.groups()]}


def _group_json(group: tuple[TaskInfo, ...]) -> dict[str, Any]:
    oldest = group[0]
    return {
        "count": len(group),
        "names": [task.name for task in group[:_NAMES_SHOWN]],
        "function": oldest.function,
        "wait": oldest.wait,
        "detail": oldest.detail,
        "waiting": oldest.waiting,
        "age": oldest.age,
        "stack": [
            {"function": place.function, "file": short_path(place.file), "line": place.line} for place in oldest.stack
        ],
    }


def profile_tasks(
    loop: asyncio.AbstractEventLoop | None = None, tasks: Iterable[asyncio.Task[Any]] | None = None
) -> TaskProfile:
    """Return what tasks wait for; called in the thread of their loop.

    Args:
        loop: None is the running one.
        tasks: None is all that have not ended.

    Raises:
        RuntimeError: no loop is given, and none is running.
    """
    loop = loop or asyncio.get_running_loop()
    walk = _Walk(loop)
    for task in asyncio.all_tasks(loop) if tasks is None else tuple(tasks):
        walk.add(task)
    return walk.profile()


async def profile_in_turns() -> TaskProfile:
    """Return what all tasks of the running loop wait for; other tasks go on meanwhile.

    Cancellation: nothing happens.
    """
    loop = asyncio.get_running_loop()
    walk = _Walk(loop)
    for number, task in enumerate(list(asyncio.all_tasks(loop)), start=1):
        if not task.done():
            walk.add(task)
        if number % _TASKS_A_TURN == 0:
            await asyncio.sleep(0)
    return walk.profile()


def describe_task(task: asyncio.Task[Any]) -> TaskInfo:
    """Return what one task waits for."""
    walk = _Walk(task.get_loop())
    walk.add(task)
    return walk.profile().tasks[0]


class _Walk:
    """Reads one task after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ages: Ages = ages_of(loop)
        self._current = asyncio.current_task(loop)
        self._places: dict[Step, Place] = {}
        self._found: list[TaskInfo] = []

    def add(self, task: asyncio.Task[Any]) -> None:
        coroutine = task.get_coro()
        awaited = getattr(task, "_fut_waiter", None)
        detail = ""
        waiting = None
        steps, inner = await_steps(coroutine)
        if task is self._current:
            wait = RUNNING
            steps = running_steps(coroutine) or steps
        elif task.done():
            wait = DONE
        elif awaited is None or awaited.done():
            wait = RUNNABLE
        else:
            wait, detail = name_wait(steps, awaited if inner is None else inner)
            waiting = self._ages.waiting(task, awaited)
        function = getattr(coroutine, "__qualname__", None) or type(coroutine).__qualname__
        stack = tuple(self._place(step) for step in steps)
        self._found.append(TaskInfo(task.get_name(), function, wait, detail, waiting, self._ages.age(task), stack))

    def _place(self, step: Step) -> Place:
        place = self._places.get(step)
        if place is None:
            code, line = step
            place = self._places[step] = Place(code.co_qualname, code.co_filename, line)
        return place

    def profile(self) -> TaskProfile:
        self._found.sort(key=_oldest_first)
        return TaskProfile(tuple(self._found))


def _oldest_first(task: TaskInfo) -> tuple[bool, float, int, str]:
    """Order tasks by age; of one age, Task-9 comes before Task-10."""
    return (task.age is None, -(task.age or 0.0), len(task.name), task.name)


def duration_text(seconds: float) -> str:
    """Return a duration as the profile gives it: `3.5 s`, `180 minutes`."""
    return f"{seconds / 60:.0f} minutes" if seconds >= _MINUTES_FROM else f"{seconds:.3g} s"
