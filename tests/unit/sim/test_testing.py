"""`sim_test` without a test runner: what it makes of a coroutine, and what a failure says."""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import re
import traceback
import unittest
from collections.abc import Callable
from typing import Any

import pytest

from aiolibp2p.sim import (
    DeadlockError,
    LeftoverError,
    LivelockError,
    SimLoop,
    TimeLimitError,
    World,
    current_loop,
    sim_test,
    testing,
)
from aiolibp2p.sim.testing import NotRepeatedError, Options


@pytest.fixture(autouse=True)
def options(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Options:
    """Give the options of a run without a runner; what nothing can wake takes long to find, and is so where marked."""
    fresh = Options()
    monkeypatch.setattr(testing, "OPTIONS", fresh)
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(World, "unwakeable", lambda _: [])
    return fresh


def notes_of(test: Callable[..., None], kind: type[BaseException] = AssertionError) -> str:
    with pytest.raises(kind) as caught:
        test()
    return "\n".join(getattr(caught.value, "__notes__", ()))


@sim_test(seeds=200, schedule="random")
async def overtaken(sim: World) -> None:
    """A planted race: the answer is read one turn after it was asked for, which is too late in some orders."""
    answers: list[str] = []

    async def ask(name: str) -> None:
        await asyncio.sleep(0)
        answers.append(name)

    loop = current_loop()
    tasks = [loop.create_task(ask(name), name=name) for name in "abcde"]
    await asyncio.gather(*tasks)
    assert answers != sorted(answers, reverse=True)
    assert answers[0] != "e" or answers[1] != "d"


def test_a_planted_race_is_found_by_a_sweep_of_200_seeds_and_replayed_by_its_seed(options: Options) -> None:
    text = notes_of(overtaken)
    seed = int(text.split()[1])
    assert 0 < seed < 200
    assert f"the first that differs from seed {seed - 1}, which passed" in text
    options.seed = seed
    assert notes_of(overtaken).startswith(f"seed {seed}\n")
    options.seed = seed - 1
    overtaken()


def test_a_sweep_in_parallel_finds_the_same_race_and_counts_the_seeds_that_fail(options: Options) -> None:
    alone = notes_of(overtaken)
    options.seeds, options.jobs = 200, 2
    text = notes_of(overtaken)
    assert text.splitlines()[0] == alone.splitlines()[0]
    assert " of 200 seeds failed: " in text.splitlines()[1]
    assert text.splitlines()[2] == alone.splitlines()[1]


def test_the_test_is_an_ordinary_function_of_what_follows_the_world() -> None:
    @sim_test
    async def one(sim: World, tmp_path: str, n: int = 1) -> None:
        """Say so."""

    class Several:
        @sim_test(seeds=2)
        async def one(self, world: World, *, fixture: int) -> None:
            seen.append((self, world.loop.seed, fixture))

    seen: list[Any] = []
    assert not inspect.iscoroutinefunction(one)
    assert list(inspect.signature(one).parameters) == ["tmp_path", "n"]
    assert (one.__name__, one.__doc__) == ("one", "Say so.")
    assert list(inspect.signature(Several.one).parameters) == ["self", "fixture"]
    several = Several()
    several.one(fixture=5)
    assert seen == [(several, 0, 5), (several, 1, 5)]


def test_seeds_may_be_chosen() -> None:
    seen: list[object] = []

    @sim_test(seeds=(7, 9))
    async def notes(sim: World) -> None:
        seen.append(sim.loop.seed)

    notes()
    assert seen == [7, 9]


def test_only_a_coroutine_function_with_a_world_will_do() -> None:
    wrong: Any = lambda sim: None  # noqa: E731

    async def worldless() -> None: ...

    with pytest.raises(TypeError, match="async def"):
        sim_test(wrong)
    with pytest.raises(TypeError, match="no argument for the world"):
        sim_test(worldless)


@pytest.mark.slow
def test_a_deadlock_fails_and_names_what_nothing_can_wake() -> None:
    @sim_test
    async def waits(sim: World) -> None:
        await asyncio.Event().wait()

    text = notes_of(waits, DeadlockError)
    assert text.startswith("seed 0\n")
    assert "nothing can wake: main" in text


def test_the_report_profiles_the_tasks_as_they_were() -> None:
    @sim_test
    async def fails(sim: World) -> None:
        lock = asyncio.Lock()
        await lock.acquire()
        waiting = current_loop().create_task(lock.acquire(), name="patient")
        await sim.pass_time(180)
        assert waiting.done()

    text = notes_of(fails)
    assert "'patient' [lock acquire, " in text
    assert "failed at 180000000000 ns" in text


def test_a_run_has_a_limit_of_virtual_time() -> None:
    @sim_test(max_virtual=60)
    async def beats(sim: World) -> None:
        while True:
            await sim.pass_time(1)

    notes_of(beats, TimeLimitError)


def test_a_strict_test_leaves_nothing_behind() -> None:
    async def leaves_a_task(sim: World) -> None:
        kept.append(current_loop().create_task(asyncio.Event().wait(), name="straggler"))

    kept: list[object] = []

    sim_test(leaves_a_task)()
    with pytest.raises(LeftoverError, match="straggler"):
        sim_test(strict=True)(leaves_a_task)()


def test_an_exception_that_nobody_handles_fails_every_test() -> None:
    @sim_test
    async def lets_one_escape(sim: World) -> None:
        sim.loop.call_soon(lambda: 1 // 0)

    with pytest.raises(LeftoverError, match="ZeroDivisionError"):
        lets_one_escape()


def test_what_is_random_for_the_program_depends_on_the_seed_and_is_put_back() -> None:
    drawn: list[float] = []

    @sim_test(seeds=(1, 2, 1))
    async def draws(sim: World) -> None:
        drawn.append(random.random())

    random.seed(5)
    expected = random.random()
    random.seed(5)
    draws()
    assert random.random() == expected
    assert drawn[0] == drawn[2] != drawn[1]


def test_a_seed_that_does_not_fail_again_is_named_so() -> None:
    runs: list[int] = []

    @sim_test
    async def fails_once(sim: World) -> None:
        runs.append(1)
        assert len(runs) > 1

    assert "something beside the seed decides" in notes_of(fails_once)


def test_a_seed_that_fails_only_in_a_process_of_its_own_is_named_so(
    options: Options,
) -> None:
    here = os.getpid()

    @sim_test
    async def fails_elsewhere(sim: World) -> None:
        assert os.getpid() == here or sim.loop.seed == 0

    options.seeds, options.jobs = 4, 2
    with pytest.raises(NotRepeatedError, match=r"seed 1 failed in a process of its own .* and passed here") as caught:
        fails_elsewhere()
    assert "3 of 4 seeds failed: 1, 2, 3" in str(caught.value)


def test_a_verdict_of_the_runner_is_no_failure(options: Options) -> None:
    class SkippedError(BaseException):
        pass

    @sim_test(seeds=3)
    async def skips(sim: World) -> None:
        raise SkippedError

    options.verdicts = (SkippedError,)
    assert notes_of(skips, SkippedError) == ""
    options.seeds = 3
    assert notes_of(skips, SkippedError) == ""


def test_runs_for_a_trace_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    @sim_test(seeds=2)
    async def speaks(sim: World) -> None:
        print(f"seed {sim.loop.seed} speaks")
        assert sim.loop.seed == 0

    text = notes_of(speaks)
    assert capsys.readouterr().out == "seed 0 speaks\nseed 1 speaks\n"
    assert "its 3 events are those of seed 0, which passed" in text or "the first that differs" in text


def shown(error: BaseException) -> list[str]:
    """Return the functions of a traceback, without those of this module's `with` and of the runner of seeds."""
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    return [name for name in names if name not in ("run_seeds", "run_all", "_run_one")]


def test_a_traceback_begins_in_the_test() -> None:
    def check() -> None:
        raise AssertionError

    @sim_test
    async def fails(sim: World) -> None:
        check()

    with pytest.raises(AssertionError) as caught:
        fails()
    assert shown(caught.value)[1:] == ["fails", "check"]


def test_what_the_loop_finds_out_has_no_traceback_of_the_simulator() -> None:
    @sim_test
    async def waits(sim: World) -> None:
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError) as caught:
        waits()
    assert shown(caught.value)[1:] == []


def test_what_happens_outside_the_test_keeps_its_traceback() -> None:
    def rule(_packet: object) -> None:
        raise KeyError

    @sim_test
    async def asks_again(sim: World) -> None:
        a, b = sim.host("a"), sim.host("b")
        sim.partition(a, b)
        with a.here():
            connecting = current_loop().create_task(asyncio.open_connection("b", 80), name="connecting")
        await sim.settle()
        sim.rule(rule)  # which the simulated system calls, when it sends again
        await connecting

    with pytest.raises(KeyError) as caught:
        asks_again()
    assert "run_world" in shown(caught.value)
    assert shown(caught.value)[-1] == "rule"


def test_unittest_runs_it_as_a_method_and_shows_the_seed() -> None:
    class Case(unittest.TestCase):
        @sim_test(seeds=3)
        async def test_seeds(self, sim: World) -> None:
            assert sim.loop.seed != 2

    result = unittest.TestResult()
    Case("test_seeds").run(result)
    ((_, text),) = result.failures
    assert re.search(r"^AssertionError.*\n(.*\n)*?seed 2\n", text, re.MULTILINE)
    assert text.count('File "') == 1


def test_a_livelock_is_not_run_again_for_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimLoop, "livelock_callbacks", 1000)
    runs: list[int] = []

    @sim_test
    async def spins(sim: World) -> None:
        def again() -> None:
            sim.loop.call_soon(again)

        runs.append(1)
        again()
        await asyncio.Event().wait()

    assert notes_of(spins, LivelockError).startswith("seed 0\nfailed at 0 ns")
    assert len(runs) == 1


def test_a_replay_command_is_shown_when_the_runner_knows_one(options: Options) -> None:
    @sim_test
    async def fails(sim: World) -> None:
        assert sim.now_ns

    options.replay = lambda seed: f"run it with {seed}"
    assert "seed 0; again with\n  run it with 0" in notes_of(fails)
