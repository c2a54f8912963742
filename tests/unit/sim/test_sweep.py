"""Many seeds in several processes."""

from __future__ import annotations

import os
import signal

import pytest

from aiolibp2p.sim import sweep as module
from aiolibp2p.sim.sweep import processors, sweep


def odd_ones_fail(seed: int) -> str | None:
    return f"odd {seed}\nin process {os.getpid()}" if seed % 2 else None


@pytest.mark.parametrize("jobs", [1, 2, 5, 100])
def test_every_seed_is_run_once_whatever_the_number_of_processes(jobs: int) -> None:
    found = sweep(odd_ones_fail, range(20), jobs)
    assert found.passed == list(range(0, 20, 2))
    assert sorted(found.failed) == list(range(1, 20, 2))
    assert found.failed[3].startswith("odd 3")


def test_seeds_are_spread_over_processes_of_their_own() -> None:
    found = sweep(odd_ones_fail, range(20), 2)
    processes = {text.rpartition(" ")[2] for text in found.failed.values()}
    assert len(processes) == 1  # the odd ones are one process's share
    assert str(os.getpid()) not in processes


def test_without_fork_seeds_run_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAN_FORK", False)
    found = sweep(odd_ones_fail, range(4), 2)
    assert found.failed[1].endswith(str(os.getpid()))


def test_a_process_that_dies_fails_its_seed_only() -> None:
    def dies_at_four(seed: int) -> str | None:
        if seed == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return None

    found = sweep(dies_at_four, range(6), 2)
    assert found.failed == {4: "its process died"}
    assert found.passed == [0, 1, 2, 3, 5]


def test_a_sweep_that_is_interrupted_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(_: int) -> str | None:
        signal.pause()
        return None

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    processes: list[int] = []
    fork = os.fork

    def noted() -> int:
        process = fork()
        processes.append(process)
        return process

    monkeypatch.setattr(os, "fork", noted)
    monkeypatch.setattr(module, "_collect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(waits, range(2), 2)
    assert len(processes) == 2
    for process in processes:
        with pytest.raises(ChildProcessError):
            os.waitpid(process, os.WNOHANG)


def test_a_sweep_has_a_process_for_each_processor() -> None:
    assert processors() >= 1
