"""One scenario, disturbed once at each of its steps: cancelled, or hit by a fault, and nothing may be left.

A step is a callback that the loop runs: a step of a task, a timer, a packet's arrival. A first run counts them and says
what each is; every further run is the same up to one step, just before which something happens.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, Literal, get_args

from aiolibp2p import Host
from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks import Cid, MemoryBlockstore
from aiolibp2p.errors import Libp2pError
from aiolibp2p.limits import Timeouts
from aiolibp2p.sim import Connection, SimLoop, Trace, current_loop, current_net, run
from aiolibp2p.sim import Host as Machine
from aiolibp2p.sim.network.boot import boot_of
from aiolibp2p.sim.network.endpoint import Endpoint
from aiolibp2p.sim.scheduler import NS, SimEvent
from aiolibp2p.sim.tasks import task_of
from tests.support.leaks import host_leaks, pair_leaks, timer_leaks

Family = Literal["cancel", "cancel-twice", "cancel-task", "reset", "cut", "storage"]
FAMILIES: tuple[Family, ...] = get_args(Family)
"""What happens before a step: the scenario's task is cancelled; it is, and again a turn later, while it cleans up; the
task whose step it is is cancelled; RST arrives at the host whose step it is; the connections of that host carry nothing
any more; the call of a store that the step makes fails."""
CANCELS: tuple[Family, ...] = ("cancel", "cancel-twice")
"""Those that are the scenario's own cancellation."""

MAIN, PLAYER = "main", "player"
"""The task that is the scenario, and the one that plays it, which is not disturbed."""
OWN = "own "
"""How the names of a scenario's further tasks begin: where one is cancelled, so is who waits for it."""

TIMEOUTS = Timeouts()
CLOSING_SECONDS = TIMEOUTS.close + 1
"""After this every tombstone is gone."""
DEAD_SECONDS = TIMEOUTS.keepalive + TIMEOUTS.keepalive_answer + CLOSING_SECONDS
"""After this a peer that a fault took away has been noticed, and what was closed then is gone."""
QUIET_SECONDS = TIMEOUTS.stream_idle + 1
"""After this no deadline is left that was set and overtaken."""
LONGEST_SECONDS = TIMEOUTS.keepalive + TIMEOUTS.keepalive_answer + TIMEOUTS.bitswap_fetch
"""No scenario takes longer, whatever happens to it."""

Handle = asyncio.Handle | SimEvent


class FaultyStore(MemoryBlockstore):
    """A store that takes a turn of the loop for each call, so that there are steps within it, and fails when told."""

    calls = 0
    fails = False

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        await self._turn()
        return await super().get_many(cids)

    async def sizes(self, cids: Sequence[Cid]) -> list[int | None]:
        await self._turn()
        return await super().sizes(cids)

    async def put_many(self, blocks: Sequence[tuple[Cid, bytes]]) -> None:
        await self._turn()
        await super().put_many(blocks)

    async def _turn(self) -> None:
        self.calls += 1
        fails, self.fails = self.fails, False
        await asyncio.sleep(0)
        if fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@dataclass(slots=True)
class Stage:
    """Where a scenario plays: what it may use, and what is looked at when it is over."""

    machine: Machine
    """Where the scenario runs."""
    hosts: dict[str, Host] = field(default_factory=dict)
    bitswaps: dict[str, Bitswap] = field(default_factory=dict)
    stores: list[FaultyStore] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is disturbed.

    Args:
        stage: enters the hosts; nothing in it is disturbed.
        main: the operation; what it makes it also ends, whatever happens.
        unwind_seconds: what it takes to end after a cancellation.
    """

    name: str
    stage: Callable[[], AbstractAsyncContextManager[Stage]]
    main: Callable[[Stage], Coroutine[Any, Any, None]]
    unwind_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the undisturbed run, as things are just before it."""

    at_ns: int
    task: str | None
    """Whose step it is, or None for a plain callback."""
    host: str | None
    is_main: bool
    """Whether it is a step of the scenario's own task."""
    is_cancelled: bool
    """Whether the callback was cancelled before its turn."""
    main_runs: bool
    connections: int
    """How many simulated connections there are."""
    store_calls: int
    """How many calls all stores have had."""
    digest: str
    """That of everything before its turn."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where a scenario is disturbed, and how."""

    scenario: Scenario
    family: Family
    at: int
    step: Step

    def __str__(self) -> str:
        what = self.step.task or "a callback"
        where = f" on {self.step.host}" if self.step.host else ""
        return f"{self.scenario.name}, {self.family} before step {self.at}: {what}{where} at {self.step.at_ns} ns"

    @property
    def patience(self) -> float:
        """The seconds after which nothing of the scenario may be left."""
        return DEAD_SECONDS if self.family in ("reset", "cut") else CLOSING_SECONDS


class Watch:
    """Sees every step of a run: counts them all, or does one thing before one of them."""

    def __init__(self, loop: SimLoop, stage: Stage, main: asyncio.Task[None], point: Point | None) -> None:
        self.steps: list[Step] = []
        self.disturbed_ns: int | None = None
        self.digest: str | None = None
        """That of everything before the turn in which something was done."""
        self._count = 0
        self._loop = loop
        self._stage = stage
        self._main = main
        self._point = point
        loop.screen = self._see

    def end(self) -> None:
        """See nothing any more."""
        self._loop.screen = None

    def _see(self, ready: deque[Handle]) -> None:
        if not ready:
            return
        first, self._count = self._count, self._count + len(ready)
        trace = self._loop.trace
        assert trace is not None
        if self._point is None:
            digest, handles = trace.digest(), list(ready)
            ready.clear()
            for handle in handles:
                # Just before the step: another of its turn may change what is so.
                ready += SimEvent(partial(self._record, handle, digest)), handle
        elif self._point.at < self._count:
            index = self._point.at - first
            self.digest = trace.digest()
            ready.insert(index, SimEvent(partial(self._disturb, self._point.family, ready[index])))
            self.end()

    def _record(self, handle: Handle, digest: str) -> None:
        task, boot = task_of(handle), boot_of(handle)
        step = Step(
            at_ns=self._loop.time_ns(),
            task=None if task is None else task.get_name(),
            host=None if boot is None else boot.host.name,
            is_main=task is self._main,
            is_cancelled=handle._cancelled,
            main_runs=not self._main.done(),
            connections=len(current_net().connections),
            store_calls=sum(store.calls for store in self._stage.stores),
            digest=digest,
        )
        self.steps.append(step)

    def _disturb(self, family: Family, handle: Handle) -> None:
        self.disturbed_ns = self._loop.time_ns()
        task, boot = task_of(handle), boot_of(handle)
        if family in CANCELS:
            self._main.cancel()
            if family == "cancel-twice":
                self._loop.call_soon(self._main.cancel)
        elif family == "cancel-task":
            assert task is not None  # it was one in the undisturbed run, which is the same
            task.cancel()
        elif family == "storage":
            for store in self._stage.stores:
                store.fails = True
        else:
            for connection in current_net().connections:
                break_connection(connection, family, None if boot is None else boot.host.name)


def host_of(end: Endpoint) -> str | None:
    """Return the host that has this end of a connection, or None where a server has not been found yet."""
    return None if end.host is None else end.host.name


def break_connection(connection: Connection, family: Family, host: str | None) -> None:
    """Break a connection at the end that is on a host, at both where no host is given."""
    ends = [end for end in (connection.client, connection.server) if host is None or host_of(end) == host]
    if not ends:
        return
    if family == "cut":
        connection.black_hole("client")
        connection.black_hole("server")
        return
    if connection.client in ends and not connection._connected.done():
        connection._fail(errno.ECONNREFUSED)
    for end in ends:
        connection.reset(end.side)


@dataclass(slots=True)
class Outcome:
    """What a run has shown."""

    steps: list[Step] = field(default_factory=list)
    seconds: float = 0.0
    """How long the scenario went on after it was disturbed; its whole length where it was not."""
    leaks: list[str] = field(default_factory=list)


def play(scenario: Scenario, point: Point | None = None) -> Outcome:
    """Run a scenario on a loop of its own, disturbed at one point or not at all, and look for what is left."""
    outcome = Outcome()

    async def main() -> None:
        await _play(scenario, point, outcome)

    try:
        run(main, strict=True, trace=Trace(steps=True))
    except Exception as error:  # noqa: BLE001  whatever it is, it is what is looked for
        outcome.leaks.append(f"{type(error).__name__}: {error}")
    return outcome


async def _play(scenario: Scenario, point: Point | None, outcome: Outcome) -> None:
    loop, net, found = current_loop(), current_net(), outcome.leaks
    player = asyncio.current_task()
    assert player is not None
    player.set_name(PLAYER)
    async with scenario.stage() as stage:
        await loop.settle()
        began_ns = loop.time_ns()
        task = stage.machine.spawn(scenario.main(stage), name=MAIN)
        watch = Watch(loop, stage, task, point)
        _, late = await asyncio.wait([task], timeout=LONGEST_SECONDS)
        since_ns = began_ns if watch.disturbed_ns is None else watch.disturbed_ns
        outcome.seconds = (loop.time_ns() - since_ns) / NS
        if late:
            found.append(f"it goes on after {LONGEST_SECONDS:g} s: {task!r}")
            task.cancel()
            await asyncio.wait([task])
        else:
            found += _wrong_end(scenario, point, task, outcome.seconds)
        await loop.pass_time(CLOSING_SECONDS if point is None else point.patience)
        watch.end()
        outcome.steps = watch.steps
        if point is not None and (watch.disturbed_ns is None or watch.digest != point.step.digest):
            found.append("the run before the step is not the undisturbed one")
        started = {name: host for name, host in stage.hosts.items() if host._swarm_ is not None}
        hosts = list(started.values())
        for name, host in started.items():
            found += host_leaks(name, host, stage.bitswaps.get(name))
        found += pair_leaks(hosts, net)
        await loop.pass_time(QUIET_SECONDS)
        await loop.settle()
        found += timer_leaks(hosts, loop.pending_timers())
    await loop.pass_time(CLOSING_SECONDS)
    found += [f"left open: {transport!r}" for transport in net.transports]
    found += [f"left listening: {listener!r}" for listener in net.listeners]


def _wrong_end(scenario: Scenario, point: Point | None, task: asyncio.Task[None], seconds: float) -> Iterator[str]:
    """Say what is wrong with how the scenario ended: its result, and when."""
    family = None if point is None else point.family
    if task.cancelled():
        own = point is not None and family == "cancel-task" and (point.step.task or "").startswith(OWN)
        if family not in CANCELS and not own:
            yield f"{family} has cancelled it"
        elif seconds > scenario.unwind_seconds:
            yield f"it ended {seconds:g} s after its cancellation"
        return
    error = task.exception()
    if family in CANCELS:
        yield f"its cancellation was swallowed, and it ended with {error!r}"
    elif family is None and error is not None:
        yield f"undisturbed it fails: {error!r}"
    elif error is not None and not isinstance(error, expected(family)):
        yield f"it failed with {error!r}"


def expected(family: Family | None) -> tuple[type[BaseException], ...]:
    """Return what a scenario may fail with."""
    return (Libp2pError, EOFError, OSError) if family == "storage" else (Libp2pError, EOFError)


def points(scenario: Scenario) -> tuple[list[Point], Outcome]:
    """Return all points of a scenario, and its undisturbed run."""
    counted = play(scenario)
    found: list[Point] = []
    for family in FAMILIES:
        for at, (step, following) in enumerate(pairwise(counted.steps)):
            if not step.is_cancelled and _matters(family, step, following):
                found.append(Point(scenario, family, at, step))
    return found, counted


def _matters(family: Family, step: Step, following: Step) -> bool:
    """Return whether something is different where this happens before a step."""
    if family in CANCELS:
        return step.main_runs
    if family == "cancel-task":
        return step.task not in (None, PLAYER) and not step.is_main
    if family == "storage":
        return following.store_calls > step.store_calls
    return step.connections > 0
