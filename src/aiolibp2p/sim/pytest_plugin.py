"""The plugin for pytest that comes with the package: seeds of simulated tests on the command line, and their reports.

    pytest --sim-seed 17        run each simulated test with one seed, as a report of a failure says
    pytest --sim-seeds 5000     run each with 5000 seeds, in as many processes as there are processors
    pytest --sim-jobs 4         … or in four

A test is simulated if it is made by `aiolibp2p.sim.sim_test`; other tests are left alone. When one fails, its report
has a section with the seed, the command that runs it again, the first event that differs from the last seed that
passed, what every task was waiting for, and which tasks nothing could have woken.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

import pytest

from aiolibp2p.sim.testing import OPTIONS


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("sim", "simulated tests (aiolibp2p)")
    group.addoption("--sim-seed", metavar="SEED", help="run simulated tests with this seed only")
    group.addoption("--sim-seeds", metavar="N", type=int, help="run simulated tests with seeds 0 to N-1, in parallel")
    group.addoption("--sim-jobs", metavar="N", type=int, help="processes of --sim-seeds; default: one a processor")


def pytest_configure(config: pytest.Config) -> None:
    """Take over what the command line says."""
    seed = config.getoption("--sim-seed")
    if seed is not None:
        OPTIONS.seed = int(seed) if seed.isdecimal() else seed
    OPTIONS.seeds = config.getoption("--sim-seeds")
    OPTIONS.jobs = config.getoption("--sim-jobs")
    OPTIONS.verdicts = (pytest.skip.Exception, pytest.xfail.Exception, pytest.exit.Exception)
    OPTIONS.sections = True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Know how to run this test again."""
    __tracebackhide__ = True
    path = os.path.relpath(item.path, item.config.invocation_params.dir)
    name = "::".join([path, *item.nodeid.split("::")[1:]])
    OPTIONS.replay = lambda seed: f"python -m pytest {shlex.quote(name)} --sim-seed {shlex.quote(str(seed))}"
    try:
        return (yield)
    finally:
        OPTIONS.replay = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add the section about the simulation to the report of a failure."""
    report = yield
    text = getattr(call.excinfo.value, "simulation", None) if call.excinfo is not None else None
    if isinstance(text, str):
        report.sections.append(("Simulation", text))  # type: ignore[attr-defined]  # a TestReport
    return report
