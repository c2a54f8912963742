"""The stack of a suspended coroutine, and a name for what it waits for."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
from collections.abc import Callable, Mapping
from types import CodeType, FrameType
from typing import Any, NamedTuple

_DEPTH_MAX = 2000
"""Links after which a chain of awaits is cut short; it may be a circle."""
_INSTALLED = re.compile(r".*[/\\](site|dist)-packages[/\\]")
_STANDARD_LIBRARY = asyncio.__file__.removesuffix("__init__.py")[:-1].removesuffix("asyncio")


class Place(NamedTuple):
    """A line of code where a coroutine is suspended."""

    function: str
    """Its qualified name."""
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.function}  {short_path(self.file)}:{self.line}"


Step = tuple[CodeType, int]
"""The code of one frame, and its line."""


def await_steps(coroutine: Any) -> tuple[list[Step], Any]:
    """Return the suspended frames of a coroutine, innermost first, and what the innermost awaits."""
    steps: list[Step] = []
    awaited = coroutine
    for _ in range(_DEPTH_MAX):
        kind = type(awaited)
        links = _links.get(kind) or _links_of(kind)
        if links is not None:
            frame, awaited = getattr(awaited, links[0]), getattr(awaited, links[1])
            if frame is not None:
                steps.append((frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno))
            continue
        if asyncio.isfuture(awaited):
            break
        inner = _wrapped(awaited)
        if inner is None:
            break
        awaited = inner
    steps.reverse()
    return steps, awaited


_links: dict[type, tuple[str, str]] = {}
"""The attributes of a kind of coroutine that lead to its frame and to what it awaits."""


def _links_of(kind: type) -> tuple[str, str] | None:
    # Coroutines, generators and asynchronous generators, those that Cython has compiled among them.
    pairs = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))
    for pair in pairs:
        if hasattr(kind, pair[1]):
            _links[kind] = pair
            return pair
    return None


def _wrapped(iterator: Any) -> Any:
    """Return what an opaque iterator of C, such as `async_generator_asend`, runs: it shows it to the collector only."""
    for held in gc.get_referents(iterator):
        if asyncio.isfuture(held) or _links_of(type(held)) is not None:
            return held
    return None


def running_steps(coroutine: Any) -> list[Step]:
    """Return the frames of the coroutine that is running in this thread, innermost first; nothing if it is not."""
    outermost = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
    steps: list[Step] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and len(steps) < _DEPTH_MAX:
        # The profile itself is running too, and is no news.
        if steps or not frame.f_globals.get("__name__", "").startswith("aiolibp2p.profile"):
            steps.append((frame.f_code, frame.f_lineno))
        if frame is outermost:
            return steps
        frame = frame.f_back
    return []


def short_path(path: str) -> str:
    """Return the path of an installed module from where modules are installed; any other as it is."""
    installed = _INSTALLED.match(path)
    return path[installed.end() :] if installed else path.removeprefix(_STANDARD_LIBRARY)


# -- names -------------------------------------------------------------------------------------------------------------

_names: dict[CodeType, str] = {}
_wider: dict[CodeType, str] = {}
"""Waits that are made of others: the name of these is the better one."""


def name_waits(names: Mapping[Callable[..., Any], str], *, wider: bool = False) -> None:
    """Name what a task waits for when the innermost of these functions in its stack is this one.

    Args:
        names: as "stream read" for the function that waits for bytes.
        wider: whether the functions wait by calling others that have names of their own.
    """
    for function, name in names.items():
        code = getattr(function, "__code__", None)
        if code is not None:
            (_wider if wider else _names)[code] = name


def _named(names: Mapping[str, str], *, wider: bool = False) -> None:
    """Name functions of asyncio, by where they are; what this version of Python has not got is left out."""
    found: dict[Callable[..., Any], str] = {}
    for path, name in names.items():
        thing: Any = asyncio
        for part in path.split("."):
            thing = getattr(thing, part, None)
        if thing is not None:
            found[thing] = name
    name_waits(found, wider=wider)


_named(
    {
        "sleep": "sleep",
        "locks.Lock.acquire": "lock acquire",
        "locks.Event.wait": "event wait",
        "locks.Condition.wait": "condition wait",
        "locks.Semaphore.acquire": "semaphore acquire",
        "queues.Queue.get": "queue get",
        "queues.Queue.put": "queue put",
        "streams.StreamReader._wait_for_data": "stream read",
        "streams.FlowControlMixin._drain_helper": "stream write",
        "streams.StreamWriter.wait_closed": "stream close",
        "threads.to_thread": "thread",
        "tasks._wait": "wait for tasks",
        "tasks.wait_for": "wait for",
        "taskgroups.TaskGroup.__aexit__": "task group",
        "taskgroups.TaskGroup._aexit": "task group",
        "base_subprocess.BaseSubprocessTransport._wait": "process exit",
        "base_events.Server.serve_forever": "server",
        "base_events.Server.wait_closed": "server close",
    }
)
_named(
    {
        "queues.Queue.join": "queue join",
        "locks.Condition.wait_for": "condition wait",
        "locks.Barrier._block": "barrier",
        "locks.Barrier._wait": "barrier",
        "locks.Barrier.wait": "barrier",
    },
    wider=True,
)
_TRANSPARENT = {asyncio.wait_for.__code__}
"""Functions that may await the coroutine of their caller: they name a wait only where they are innermost."""
_LOOP_CALLS = {
    "sock_recv": "socket read",
    "sock_recv_into": "socket read",
    "sock_recvfrom": "socket read",
    "sock_recvfrom_into": "socket read",
    "sock_sendall": "socket write",
    "sock_sendto": "socket write",
    "sock_sendfile": "socket write",
    "sendfile": "socket write",
    "sock_accept": "socket accept",
    "sock_connect": "socket connect",
    "create_connection": "socket connect",
    "start_tls": "TLS handshake",
    "getaddrinfo": "name lookup",
    "getnameinfo": "name lookup",
}
"""Methods of event loops, each of which has its own code for them."""


def name_wait(steps: list[Step], awaited: Any) -> tuple[str, str]:
    """Return what a suspended task waits for, and what there is to say of that one wait: `("task", "'fetch'")`."""
    for depth, (code, _) in enumerate(steps):
        if depth and code in _TRANSPARENT:
            continue
        name = _names.get(code) or _wider.get(code) or _loop_call(code)
        if name is not None:
            for outer, _ in steps[depth + 1 :]:
                if outer not in _wider:
                    break
                name = _wider[outer]
            return name, ""
    return _name_future(awaited)


def _loop_call(code: CodeType) -> str | None:
    name = _LOOP_CALLS.get(code.co_name)
    if name is None:
        return None
    owner = code.co_qualname.rpartition(".")[0]
    return name if owner.endswith("Loop") or code.co_filename.endswith(".pyx") else None


def _name_future(awaited: Any) -> tuple[str, str]:
    if isinstance(awaited, asyncio.Task):
        return "task", repr(awaited.get_name())
    children = getattr(awaited, "_children", None)
    if isinstance(children, list):
        return "gather", f"{sum(not child.done() for child in children)} of {len(children)} pending"
    for callback, _ in getattr(awaited, "_callbacks", None) or ():
        made_by = getattr(callback, "__qualname__", "").partition(".")[0]
        if made_by == "_chain_future":
            return "thread", ""  # an executor's job, whose end another thread tells
        if made_by == "shield":
            return "shield", ""
    return "future", ""
