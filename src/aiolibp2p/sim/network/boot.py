"""Boots: which run of which host the running code belongs to, and what stops when that run does."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import gc
import weakref
from collections import deque
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from aiolibp2p.sim.scheduler import SimEvent, VirtualTimeLoop

if TYPE_CHECKING:
    from aiolibp2p.sim.network.host import Host


class Boot:
    """One run of a host, from power on to power off: tasks, timers and sockets belong to one."""

    __slots__ = ("alive", "generators", "host")

    def __init__(self, host: Host) -> None:
        """Begin a run."""
        self.host = host
        self.alive = True
        self.generators: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()
        """The asynchronous generators begun in it, which the loop would close at its end."""


here: contextvars.ContextVar[Boot | None] = contextvars.ContextVar("aiolibp2p_sim_boot", default=None)

_abandoned: list[object] = []
"""What crashes left suspended. Python throws no coroutine away without running its finally blocks, and a power cut runs
none: these stay until the process ends."""


def host_here() -> Host | None:
    """Return the host that the running code belongs to."""
    boot = here.get()
    return None if boot is None else boot.host


def note_generator(generator: AsyncGenerator[Any, Any]) -> None:
    """Remember which host an asynchronous generator was begun on."""
    boot = here.get()
    if boot is not None:
        boot.generators.add(generator)


def boot_of(handle: object) -> Boot | None:
    """Return the boot that a callback, or a timer, belongs to."""
    context: contextvars.Context | None = getattr(handle, "_context", None)
    return None if context is None else context.get(here)


def screen(ready: deque[asyncio.Handle | SimEvent]) -> None:
    """Take out of what is about to run what belongs to a boot that has ended, and set aside what a paused host has."""
    for _ in range(len(ready)):
        handle = ready.popleft()
        boot = boot_of(handle)
        if boot is None or (boot.alive and boot.host.parked is None):
            ready.append(handle)
        elif boot.alive and boot.host.parked is not None:
            boot.host.parked.append(handle)


def abandon(boot: Boot, loop: VirtualTimeLoop) -> None:
    """Let nothing of a boot run any more: no callback, no timer, no task, and no finally block of one."""
    boot.alive = False
    for _, handle in loop.scheduled():
        if isinstance(handle, asyncio.Handle) and boot_of(handle) is boot:
            handle.cancel()
    tasks = [task for task in asyncio.all_tasks(loop) if _boot_of_task(task) is boot]
    for task in tasks:
        _forget(task)
    loop.forget_generators(boot.generators)
    if not _abandoned:
        # Else the end of the process would empty this list and run the blocks after all.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_abandoned))
    _abandoned.extend((tasks, list(boot.generators)))


def _forget(task: asyncio.Task[Any]) -> None:
    unregister: Any = asyncio.tasks._unregister_task
    unregister(task)
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def _boot_of_task(task: asyncio.Task[Any]) -> Boot | None:
    if hasattr(task, "get_context"):
        context: contextvars.Context | None = task.get_context()
    else:
        # Python 3.11 tells nobody but the collector.
        context = next((r for r in gc.get_referents(task) if isinstance(r, contextvars.Context)), None)
    return None if context is None else context.get(here)
