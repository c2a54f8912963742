"""The three kinds of event loop that code of the standard library alone has to run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any

import pytest

from aiolibp2p.sim import SimLoop, SimNet

Main = Callable[[], Coroutine[Any, Any, None]]


def _simulated() -> SimLoop:
    loop = SimLoop()
    loop.net = SimNet(loop)
    return loop


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "simulated": _simulated,
}
if find_spec("uvloop") is not None:  # where it can be installed, the tests' requirements have it
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop
on_every_loop = pytest.mark.parametrize("kind", LOOPS)
on_real_loops = pytest.mark.parametrize("kind", [kind for kind in LOOPS if kind != "simulated"])


def run_on(kind: str, main: Main) -> None:
    """Run a coroutine on a fresh loop, and cancel the tasks that it leaves behind."""
    with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
        runner.run(main())


def start(name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start a task on the running loop."""
    return asyncio.get_running_loop().create_task(coroutine, name=name)


async def turns(count: int = 3) -> None:
    """Let what is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)
