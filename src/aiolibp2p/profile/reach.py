"""Tasks that nothing can wake, found among what the program can still reach, as Go's profile of leaked goroutines does.

A node is never idle: timers and sockets keep its loop busy while two tasks wait for each other's lock for good. So the
search starts from what can still run, follows every reference that the garbage collector knows, and takes a waiting
task for alive only when it has come to the future that the task waits on, or to a timer that will cancel the task.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import sys
from collections.abc import Iterable, Iterator
from types import CellType, CodeType, CoroutineType, FrameType, FunctionType, ModuleType
from typing import Any

from aiolibp2p.profile.ages import ages_of

_HANDLES = frozenset({"Handle", "TimerHandle", "SimEvent"})
"""The classes of scheduled callbacks: of asyncio, of uvloop, of the simulated loop."""
_WAIT_FOR = asyncio.wait_for.__code__
_HOPS_TO_TASK = 3
"""From a handle to its callback, from there to the object that it is a method of, and to that object's attributes."""
_NOT_ENTERED: tuple[type, ...] = (
    str,
    bytes,
    CodeType,
    dict,
    type,
    ModuleType,
    contextvars.Context,
    asyncio.AbstractEventLoop,
    asyncio.Future,
)
"""What leads from a callback to everything, or to what the callback does not act on."""


def unwakeable(loop: asyncio.AbstractEventLoop | None = None) -> list[asyncio.Task[Any]]:
    """Return the tasks of a loop that wait on a future which nothing alive can reach, oldest first.

    Only a cancellation ends them. Whatever a module, a running function, a timer, a socket or a thread can reach counts
    as alive, and so does what a timer is going to cancel: a task may be beyond waking without being found, but what is
    found is. The loop stands still meanwhile: some hundred milliseconds, and ten microseconds a task. Called in the
    loop's thread.

    Args:
        loop: None is the running one.

    Raises:
        RuntimeError: no loop is given, and none is running.
    """
    loop = loop or asyncio.get_running_loop()
    search = _Search(asyncio.all_tasks(loop))
    search.run(loop)
    ages = ages_of(loop)
    # Tasks are numbered as they are made, so that of one age the shorter name is the older.
    return sorted(
        search.blocked.values(), key=lambda task: (-(ages.age(task) or 0.0), len(task.get_name()), task.get_name())
    )


class _Search:
    """What was found alive, and what was not yet."""

    def __init__(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        self.blocked: dict[int, asyncio.Task[Any]] = {}
        """Tasks that wait and were not found alive, by identity."""
        self._waiting_on: dict[int, list[asyncio.Task[Any]]] = {}
        """Who waits on a future, by its identity."""
        for task in tasks:
            awaited = getattr(task, "_fut_waiter", None)
            if awaited is not None and not awaited.done():
                self.blocked[id(task)] = task
                self._waiting_on.setdefault(id(awaited), []).append(task)
        # What this search itself holds leads to every task.
        self._seen = {id(self), id(self.__dict__), id(self.blocked), id(self._waiting_on)}

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take out of `blocked` whatever can be woken."""
        # All references of one step in one call: a program has a million objects.
        level = self._reach(list(_roots(loop)))
        while level and self.blocked:
            cancelled: list[Any] = []
            others: list[Any] = []
            plain: list[Any] = []
            for thing in level:
                kind = type(thing)
                if kind is ModuleType:
                    # Not what it keeps in C: `_asyncio` of 3.12 shows the collector its list of freed iterators.
                    others.append(thing.__dict__)
                    continue
                plain.append(thing)
                if kind is CoroutineType:
                    if thing.cr_code is _WAIT_FOR:
                        cancelled += gc.get_referents(thing)  # of 3.11: a task of its own, which it cancels in time
                elif kind.__name__ in _HANDLES:
                    cancelled += _held_by_callback(thing)
            level = self._reach(cancelled, cancels=True) + self._reach(gc.get_referents(*plain) + others)

    def _reach(self, things: list[Any], *, cancels: bool = False) -> list[Any]:
        """Return those that are found alive by this; with them the tasks that they wake."""
        # What the collector does not track leads nowhere: text, numbers, code.
        things = list(filter(gc.is_tracked, things))
        fresh = dict(zip(map(id, things), things, strict=True))
        if not cancels:
            # Whoever knows a task cannot wake it by that; what is going to cancel it can.
            for number in fresh.keys() & self.blocked.keys():
                del fresh[number]
        found: list[Any] = []
        while fresh:
            new = fresh.keys() - self._seen
            self._seen |= new
            found += [fresh[number] for number in new]
            woken: dict[int, Any] = {}
            for number in new & (self._waiting_on.keys() | self.blocked.keys()):
                self.blocked.pop(number, None)
                for task in self._waiting_on.pop(number, ()):
                    if self.blocked.pop(id(task), None) is not None:
                        woken[id(task)] = task  # it can reach whatever it holds
            fresh = woken
        return found


def _held_by_callback(handle: Any) -> Iterator[Any]:
    """Give what a scheduled callback can lay hands on at once: a task among that is probably to be cancelled.

    That is the callback, its arguments and closure, the object that it is a method of and the attributes of that: a
    timeout has its task there.
    """
    level = [handle]
    for _ in range(_HOPS_TO_TASK):
        level = [held for thing in level for held in _parts(thing)]
        yield from level


def _parts(thing: Any) -> list[Any]:
    if isinstance(thing, FunctionType):
        return [cell.cell_contents for cell in thing.__closure__ or () if cell != CellType()]
    if isinstance(thing, _NOT_ENTERED):
        return []
    parts = gc.get_referents(thing)
    attributes = getattr(thing, "__dict__", None)
    return parts + list(attributes.values()) if isinstance(attributes, dict) else parts


def _roots(loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """Give what can run or be asked for without anything else: the loop, modules, running code, signal handlers."""
    yield loop  # what is ready, timers, descriptors, the executor; on a simulated loop the network
    yield from tuple(sys.modules.values())
    # The collector sees nothing of a frame that is executing.
    for frame in sys._current_frames().values():
        yield from _locals(frame)
    yield from map(signal.getsignal, signal.valid_signals())
    yield contextvars.copy_context()
    if type(loop).__module__.startswith("uvloop"):
        # Open transports of uvloop are held by libuv, where the collector does not look.
        yield from [thing for thing in gc.get_objects() if str(type(thing).__module__).startswith("uvloop")]


def _locals(innermost: FrameType | None) -> Iterator[Any]:
    frame = innermost
    while frame is not None:
        if frame.f_globals.get("__name__") != __name__:
            yield from frame.f_locals.values()
        frame = frame.f_back
