"""How tests run: coroutines on virtual time, no sockets unless marked, nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent
PEERS = {
    "go": (HERE / "interop" / "go" / "build" / "peer", "REQUIRE_GO"),
    "py": (HERE / "interop" / "py" / ".venv" / ".installed", "REQUIRE_PY"),
}
"""What tests with a mark need to be there, and the variable of the environment that makes it an error if it is not."""
INTERNET_FAMILIES = (2, 10, 23, 30)  # AF_INET, and AF_INET6 of Linux, Windows and macOS
SOCKET_EVENTS = frozenset({"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname"})

# A shared machine may stall a single example for longer than any limit, which says nothing about the code.
settings.register_profile("project", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


class SocketsNotAllowedError(RuntimeError):
    """A test without the mark `sockets` reached for the network."""


class SocketGuard:
    """Refuses sockets, and remembers that it did, while no test with a mark runs."""

    def __init__(self) -> None:
        self.allowed = True
        self.refused: list[str] = []

    def audit(self, event: str, args: tuple[object, ...]) -> None:
        """Look at one event of the interpreter; the loop's own socket pair is not of the internet."""
        if self.allowed or not event.startswith("socket."):
            return
        if event in SOCKET_EVENTS or (event == "socket.__new__" and args[1] in INTERNET_FAMILIES):
            self.refused.append(event)
            raise SocketsNotAllowedError(f"{event} in a test that is not marked `sockets`")


GUARD = SocketGuard()
sys.addaudithook(GUARD.audit)


def on_real_loop(item: pytest.Item) -> bool:
    """Return whether the test has the real world: an ordinary event loop and sockets."""
    return any(item.get_closest_marker(name) for name in ("sockets", "interop"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for folder in ("interop", "fuzz"):
            if item.path.is_relative_to(HERE / folder):
                item.add_marker(folder)
    for mark, (needed, required) in PEERS.items():
        left_out = [] if needed.exists() else [item for item in items if item.get_closest_marker(mark)]
        if left_out and os.environ.get(required):
            raise pytest.UsageError(f"{required} is set, but {needed.relative_to(HERE)} is not there: run `make peers`")
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if not item.get_closest_marker(mark)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    GUARD.allowed = on_real_loop(item)
    GUARD.refused.clear()
    try:
        return (yield)
    finally:
        GUARD.allowed = True


@pytest.fixture(autouse=True)
def _no_refused_socket() -> Iterator[None]:
    yield
    assert not GUARD.refused, f"the test swallowed a refusal of {GUARD.refused}"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def main() -> None:
        await test(**arguments)

    if on_real_loop(pyfuncitem):
        run_real(main)
    else:
        # Imported here, so that tests of plain values run while the simulator is broken.
        from aiolibp2p.sim.loop import run as run_simulated

        run_simulated(main, strict=True)
    return True


def run_real(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test on an ordinary loop; fail when it leaves a task, or lets an exception escape from a callback.

    A transport or socket it leaves open is a ResourceWarning when it is collected, and warnings are errors.
    """
    escaped: list[str] = []
    left: list[str] = []

    async def checked() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: escaped.append(describe(context)))
        await main()
        left.extend(repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task())
        # Transports closed at the very end tell their protocols in the next turns.
        for _ in range(3):
            await asyncio.sleep(0)

    with asyncio.Runner() as runner:
        runner.run(checked())
    gc.collect()
    assert not left, f"the test left tasks: {left}"
    assert not escaped, f"exceptions escaped from callbacks: {escaped}"


def describe(context: dict[str, Any]) -> str:
    """Return one line about what an event loop's exception handler was told."""
    return f"{context.get('message')}: {context.get('exception')!r}"


@pytest.fixture
def virtual_now() -> Callable[[], int]:
    """Give a function that returns the virtual time in nanoseconds, inside a coroutine test."""

    def now() -> int:
        from aiolibp2p.sim.loop import current_loop

        return current_loop().time_ns()

    return now
