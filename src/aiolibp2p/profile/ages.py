"""How old tasks are and how long they have waited: exact in a simulation, sampled on a real loop."""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from types import TracebackType
from typing import Any, Protocol, Self

SAMPLE_SECONDS = 10.0
"""How often it is looked which future each task waits on: so exact is what is known of waits."""
_TASKS_A_TURN = 2000
"""Tasks that are looked at before the loop goes on: a millisecond."""
_NS = 1e9


class Ages(Protocol):
    """What is known of the ages of tasks."""

    def age(self, task: asyncio.Task[Any]) -> float | None:
        """Return the seconds since a task was made, or None."""
        ...

    def waiting(self, task: asyncio.Task[Any], awaited: Any) -> float | None:
        """Return the seconds that a task has waited on a future, or None."""
        ...


class UnknownAges:
    """Nobody has looked."""

    def age(self, _task: asyncio.Task[Any]) -> float | None:
        """Return None."""
        return None

    def waiting(self, _task: asyncio.Task[Any], _awaited: Any) -> float | None:
        """Return None."""
        return None


class VirtualAges:
    """Ages on a simulated loop, whose tasks and futures know when they were made."""

    def __init__(self, loop: Any) -> None:
        self._now_ns: int = loop.time_ns()

    def age(self, task: asyncio.Task[Any]) -> float | None:
        """Return the virtual seconds since a task was made."""
        born_ns = getattr(task, "born_ns", None)
        return None if born_ns is None else (self._now_ns - born_ns) / _NS

    def waiting(self, task: asyncio.Task[Any], awaited: Any) -> float | None:
        """Return the virtual seconds since a future was made, for that is when somebody began to wait on it."""
        born_ns = getattr(awaited, "born_ns", None)
        # A task that awaits an older future has not waited for longer than it exists.
        return None if born_ns is None else (self._now_ns - max(born_ns, getattr(task, "born_ns", born_ns))) / _NS


_Seen = weakref.WeakKeyDictionary[asyncio.Task[Any], tuple[weakref.ReferenceType[Any] | None, float, float]]
"""The future that a task was last seen to wait on, since when, and when the task was first seen."""


class _SampledAges:
    """Ages on a real loop, as far as they were looked at."""

    def __init__(self, now: float, seen: _Seen) -> None:
        self._now = now
        self._seen = seen

    def age(self, task: asyncio.Task[Any]) -> float | None:
        """Return the seconds since a task was made, or since it was first seen; None if it was not."""
        born_at = getattr(task, "born_at", None)
        if born_at is None:
            seen = self._seen.get(task)
            born_at = None if seen is None else seen[2]
        return None if born_at is None else max(0.0, self._now - born_at)

    def waiting(self, task: asyncio.Task[Any], awaited: Any) -> float | None:
        """Return the seconds that a task has waited on a future at least; None if it was not seen to."""
        seen = self._seen.get(task)
        if seen is None or seen[0] is None or seen[0]() is not awaited:
            return None
        return max(0.0, self._now - seen[1])


class _DatedTask(asyncio.Task[Any]):
    """A task that knows when it was made; the slot is cheaper than an attribute, and either than an `__init__`."""

    __slots__ = ("born_at",)
    born_at: float


class TaskAges:
    """Knows how old the tasks of a real loop are, and how long each has waited, while it is started.

    New tasks are stamped by a task factory. What tasks wait on is sampled: a task that waits on the same future as at
    the last look has not moved since, so a wait is at least as long as is said, and at most `period` longer. A task
    that is older than this object is as old as the first look at it. A simulated loop knows all this by itself: nothing
    is started there.

    Args:
        now: gives seconds; None is the clock of the loop.
        period: seconds between two looks.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        now: Callable[[], float] | None = None,
        period: float = SAMPLE_SECONDS,
    ) -> None:
        self._loop = loop
        self._now = now or loop.time
        self._period = period
        self._seen: _Seen = weakref.WeakKeyDictionary()
        self._left: Iterator[asyncio.Task[Any]] = iter(())
        self._next: asyncio.Handle | None = None
        self._factory: Any = None
        self._factory_before: Any = None

    def start(self) -> None:
        """Stamp tasks and look at waits from now on, in the loop's thread."""
        if self._next is not None or hasattr(self._loop, "time_ns"):
            return
        self._factory_before = self._loop.get_task_factory()
        self._factory = self._stamping(self._factory_before)
        self._factory.__dict__["ages"] = self
        self._loop.set_task_factory(self._factory)
        self.sample()

    def stop(self) -> None:
        """Look no more. A task factory that was set on top of this one stays."""
        if self._next is None:
            return
        self._next.cancel()
        self._next = None
        self._seen.clear()
        if self._loop.get_task_factory() is self._factory:
            self._loop.set_task_factory(self._factory_before)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def known(self) -> Ages:
        """Return what is known at this moment."""
        return _SampledAges(self._now(), self._seen)

    def sample(self) -> None:
        """Look at all tasks, some in each turn of the loop, and again after the period."""
        if self._next is not None:
            self._next.cancel()
        self._left = iter(list(asyncio.all_tasks(self._loop)))
        self._sample_some()

    def _sample_some(self) -> None:
        now, seen = self._now(), self._seen
        looked_at = 0
        for task in itertools.islice(self._left, _TASKS_A_TURN):
            looked_at += 1
            awaited = getattr(task, "_fut_waiter", None)
            before = seen.get(task)
            if before is not None and (before[0] is None if awaited is None else before[0] and before[0]() is awaited):
                continue
            seen[task] = (_weak(awaited), now, now if before is None else before[2])
        if looked_at == _TASKS_A_TURN:
            self._next = self._loop.call_soon(self._sample_some)
        else:
            self._next = self._loop.call_later(self._period, self.sample)

    def _stamping(self, inner: Any) -> Any:
        now = self._now
        if inner is None:

            def stamp(
                loop: asyncio.AbstractEventLoop,
                coroutine: Coroutine[Any, Any, Any],
                context: Context | None = None,
                **options: Any,
            ) -> asyncio.Task[Any]:
                # Spelt out, for a dictionary of options costs as much as the stamp.
                if options:
                    task = _DatedTask(coroutine, loop=loop, context=context, **options)
                else:
                    task = _DatedTask(coroutine, loop=loop, context=context)
                task.born_at = now()
                return task

            return stamp

        def stamp_other(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> Any:
            task = inner(loop, coroutine, **options)
            try:
                task.born_at = now()
            except AttributeError:
                pass  # a task that takes no attributes is as old as the first look at it
            return task

        return stamp_other


def _weak(awaited: Any) -> weakref.ReferenceType[Any] | None:
    try:
        return None if awaited is None else weakref.ref(awaited)
    except TypeError:
        return None  # a future of somebody's own that cannot be referred to


def ages_of(loop: asyncio.AbstractEventLoop) -> Ages:
    """Return what is known of the ages of a loop's tasks."""
    if hasattr(loop, "time_ns"):
        return VirtualAges(loop)
    ages = getattr(loop.get_task_factory(), "ages", None)
    return ages.known() if isinstance(ages, TaskAges) else UnknownAges()
