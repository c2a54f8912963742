"""The plugin for pytest, in processes of its own: options, replays, reports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aiolibp2p.sim import pytest_plugin
from aiolibp2p.sim.testing import Options

TESTS = """
import asyncio
import pytest
from aiolibp2p.sim import World, sim_test

@pytest.fixture
def answer():
    return 42

@pytest.mark.parametrize("n", [1, 2])
@sim_test(seeds=3)
async def test_fixtures_and_parameters(sim: World, answer: int, n: int) -> None:
    assert (answer, n) in ((42, 1), (42, 2))
    print(f"ran with seed {sim.loop.seed};", end="")

@sim_test(seeds=5)
async def test_skips(sim):
    pytest.skip("not here")

class TestRaces:
    @sim_test(seeds=200, schedule="random")
    async def test_order(self, sim):
        order = []
        async def note(name):
            await asyncio.sleep(1)
            order.append(name)
        orphan = asyncio.create_task(asyncio.Event().wait(), name="orphan")
        await asyncio.gather(*[asyncio.create_task(note(name), name=name) for name in "abcd"])
        del orphan
        assert order != ["d", "c", "b", "a"]

def test_of_no_simulation():
    assert True
"""


def run_pytest(folder: Path, *options: str) -> str:
    (folder / "test_races.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\n")
    # Plugins that are installed here for other tests take a second each time.
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "aiolibp2p.sim.pytest_plugin", "-W", "error", *options]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    ).stdout


@pytest.mark.slow
def test_a_failure_shows_how_to_run_it_again_and_so_it_does(tmp_path: Path) -> None:
    text = run_pytest(tmp_path)
    assert "1 failed, 3 passed, 1 skipped" in text
    report = text[text.index(" Simulation ") :].splitlines()
    seed = int(report[1].removeprefix("seed ").removesuffix("; again with"))
    assert report[2] == f"  python -m pytest test_races.py::TestRaces::test_order --sim-seed {seed}"
    assert report[3].endswith(f" is the first that differs from seed {seed - 1}, which passed:")
    assert report[4].startswith(f"  seed {seed}: ")
    assert "nothing can wake: orphan" in report
    assert "task 'orphan' [event wait, 1 s; age 1 s]" in text
    again = run_pytest(tmp_path, *report[2].split()[3:])
    assert "1 failed" in again
    assert "['d', 'c', 'b', 'a'] != ['d', 'c', 'b', 'a']" in again
    assert "no seed passed before it" in again


@pytest.mark.slow
def test_a_sweep_runs_all_tests_with_as_many_seeds_as_asked_for(tmp_path: Path) -> None:
    text = run_pytest(tmp_path, "--sim-seeds", "100", "--sim-jobs", "2", "-s")
    assert " of 100 seeds failed: " in text
    assert "1 failed, 3 passed, 1 skipped" in text
    for seed in range(100):
        assert text.count(f"ran with seed {seed};") == 2


@pytest.mark.parametrize(("given", "seed"), [("17", 17), ("word", "word"), (None, None)])
def test_a_seed_may_be_a_number_or_a_word(given: str | None, seed: object, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options()
    monkeypatch.setattr(pytest_plugin, "OPTIONS", options)
    config: Any = SimpleNamespace(getoption={"--sim-seed": given, "--sim-seeds": 5, "--sim-jobs": 2}.get)
    pytest_plugin.pytest_configure(config)
    assert (options.seed, options.seeds, options.jobs) == (seed, 5, 2)
