"""The measurements that need other stacks, with next to nothing to do; their numbers say nothing here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.loopback.fetch import ROWS
from benchmarks.versus.rows import ROWS as VERSUS_ROWS

ROOT = Path(__file__).parent.parent.parent
SECONDS = 50
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they read what processes use from /proc")


def measured(tmp_path: Path, module: str, *words: str) -> dict[str, Any]:
    """Run a measurement and return what it kept; it left nothing else behind."""
    work, out = tmp_path / "work", tmp_path / "result.json"
    work.mkdir()
    kept = run(out, f"benchmarks.loopback.{module}", *words, "--folder", str(work))
    assert list(work.iterdir()) == []
    return kept


def run(out: Path, module: str, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", module, *words, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert out.exists(), done.stdout + done.stderr
    kept: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    assert kept["failures"] == []
    return kept


@pytest.mark.slow
@pytest.mark.go
def test_every_contestant_of_every_row_fetches(tmp_path: Path) -> None:
    kept = measured(tmp_path, "fetch", "--reps", "1", "--size-bytes", "600000")
    for row in ROWS:
        samples = kept["rows"][row.name]["samples"]
        assert {who for who, found in samples.items() if len(found) == 1} == {who.name for who in row.contestants}
    assert len(kept["goals"]) == sum(len(row.goals) for row in ROWS) + 1


@pytest.mark.slow
@pytest.mark.go
@pytest.mark.parametrize("words", [(), ("--every", "0.05")], ids=["silent", "saying it anew"])
def test_all_silent_peers_are_served_in_each_slice_of_silence(tmp_path: Path, words: tuple[str, ...]) -> None:
    kept = measured(tmp_path, "silence", "--pairs", "1", "--peers", "3", "--blocks", "20", *words)
    assert set(kept["modes"]) == {"mute", "unread"}
    for mode in kept["modes"].values():
        assert len(mode["bytes_a_second"]) == 1
        assert min(mode["streams_to_silent_peers_in_a_slice"]) >= 3


@pytest.mark.slow
@pytest.mark.go
@pytest.mark.py
@pytest.mark.parametrize("kind", ["rate", "memory", "latency"])
def test_every_contestant_of_every_row_of_the_comparison_is_measured(tmp_path: Path, kind: str) -> None:
    rows = [row for row in VERSUS_ROWS if row.kind == kind]
    names = [row.name for row in rows]
    kept = run(tmp_path / "result.json", "benchmarks.versus", "--reps", "1", "--scale", "0.001", "--only", *names)
    for row in rows:
        samples = kept["rows"][row.name]["samples"]
        assert {who for who, found in samples.items() if len(found) == 1} == {who.name for who in row.contestants}
    assert len(kept["goals"]) == sum(len(row.goals) + (row.goal is not None) for row in rows)
