"""A seeded tenth of the cancellation sweep, and proof that it sees what it looks for; `make sweep` is all of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from aiolibp2p.sim import current_loop
from aiolibp2p.sim.testing import OPTIONS
from tests.sim import cancellation_sweep
from tests.sim.cancellation_sweep import SCENARIOS, counted, report, wrong_at
from tests.support.hosts import ECHO
from tests.support.sweep import FAMILIES, Family, Scenario, Stage, play, points

SEED: int | str = 0
"""Which tenth it is; `pytest --sim-seed 17` takes another."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_left_whatever_step_a_scenario_is_disturbed_at(name: str) -> None:
    seed = SEED if OPTIONS.seed is None else OPTIONS.seed
    found = counted(SCENARIOS[name])
    chosen = random.Random(f"{seed}/{name}").sample(found, -(-len(found) // 10))
    wrong = [report(point, " | ".join(lines)) for point in chosen if (lines := wrong_at(point))]
    assert not wrong, "\n".join([f"with seed {seed}, at {len(wrong)} of {len(chosen)} points:", *wrong])


def test_every_family_has_points() -> None:
    found = counted(SCENARIOS["fetch"])
    for family in FAMILIES:
        assert sum(point.family == family for point in found) > 10


# -- what a sweep sees -------------------------------------------------------------------------------------------------


async def careless(stage: Stage) -> None:
    """Open a stream that is not ended where this is cancelled."""
    stream = await stage.hosts["alice"].open_stream(stage.hosts["bob"].peer_id, ECHO)
    await stream.write(b"x")
    await stream.read()
    stream.close()


async def forgetful(stage: Stage) -> None:
    """Leave a task behind where this is cancelled."""
    sleeping = current_loop().create_task(asyncio.Event().wait(), name="own sleeper")
    await stage.hosts["alice"].ping(stage.hosts["bob"].peer_id)
    sleeping.cancel()
    await asyncio.wait([sleeping])


async def stubborn(stage: Stage) -> None:
    """Swallow a cancellation."""
    try:
        await stage.hosts["alice"].ping(stage.hosts["bob"].peer_id)
    except asyncio.CancelledError:
        pass


async def slow(stage: Stage) -> None:
    """Take a second to end."""
    try:
        await stage.hosts["alice"].ping(stage.hosts["bob"].peer_id)
    finally:
        await current_loop().pass_time(1)


async def timing(stage: Stage) -> None:
    """Leave a timer behind where this is cancelled."""
    timer = current_loop().call_later(1e6, print)
    await stage.hosts["alice"].ping(stage.hosts["bob"].peer_id)
    timer.cancel()


async def spending(stage: Stage) -> None:
    """Lose a handler's count where this is cancelled."""
    counts = stage.hosts["alice"]._swarm.counts
    counts.handlers += 1
    await stage.hosts["alice"].ping(stage.hosts["bob"].peer_id)
    counts.handlers -= 1


async def waiting(stage: Stage) -> None:
    """Wait without a deadline for a peer that may be gone."""
    stream = await stage.hosts["alice"].open_stream(stage.hosts["bob"].peer_id, ECHO)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.Event().wait()
    stream.reset()


def scenario(main: Callable[[Stage], Coroutine[Any, Any, None]]) -> Scenario:
    return Scenario(main.__name__, cancellation_sweep.two_hosts, main)


@pytest.mark.parametrize(
    ("main", "family", "sign"),
    [
        (careless, "cancel", "streams is"),
        (forgetful, "cancel", "LeftoverError"),
        (stubborn, "cancel", "swallowed"),
        (slow, "cancel", "1 s after"),
        (timing, "cancel", "timer"),
        (spending, "cancel", "handlers counted is 1"),
        (spending, "reset", "handlers counted is 1"),
        (spending, "cut", "handlers counted is 1"),
    ],
)
def test_what_is_left_or_wrong_is_seen(
    main: Callable[[Stage], Coroutine[Any, Any, None]], family: Family, sign: str
) -> None:
    found, undisturbed = points(scenario(main))
    assert undisturbed.leaks == []
    first = [point for point in found if point.family == family][1]
    assert sign in " | ".join(wrong_at(first))


def test_what_goes_on_for_ever_is_seen() -> None:
    assert any("goes on after" in line for line in play(scenario(waiting)).leaks)


def test_a_run_is_the_undisturbed_one_up_to_its_step_and_is_not_taken_for_it_otherwise() -> None:
    point = counted(SCENARIOS["lazy"])[7]
    assert play(point.scenario, point).leaks == []
    assert play(SCENARIOS["eager"], point).leaks[0] == "the run before the step is not the undisturbed one"


def test_a_point_is_replayed_by_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    point = counted(SCENARIOS["lazy"])[7]
    arguments = cancellation_sweep.replay(point).removeprefix(cancellation_sweep.COMMAND).split()
    assert cancellation_sweep.main(arguments) == 0
    assert capsys.readouterr().out == f"{point}: nothing is left\n"
