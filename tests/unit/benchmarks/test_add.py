"""The measurement of `add`, with next to nothing to add; its numbers say nothing here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.loopback import add
from benchmarks.loopback.processes import anonymous_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads what processes use from /proc")


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[int, dict[str, Any]]:
    """Return how the command ended, and what it kept."""
    work, out = tmp_path / "work", tmp_path / "add.json"
    work.mkdir()
    words = ["add", "--reps", "1", "--size-bytes", "300000", "--folder", str(work), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    code = add.main()
    assert list(work.iterdir()) == []
    kept: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return code, kept


@pytest.mark.slow
def test_it_adds_reads_back_and_copies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, kept = run(monkeypatch, tmp_path)
    assert (code, kept["failures"]) == (0, [])
    for who in (add.ADD, add.DISK):
        (sample,) = kept["samples"][who]
        assert sample["value"] > 0
        assert sample["anonymous_bytes"] > 0
    assert {"date", "commit", "machine", "load_before", "load_after"} <= set(kept)


@pytest.mark.slow
def test_a_failure_is_kept_and_ends_it_with_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(add, "cli", lambda *_: [sys.executable, "-c", "raise SystemExit('the disk is gone')"])
    code, kept = run(monkeypatch, tmp_path)
    assert code == 1
    (failure,) = kept["failures"]
    assert failure.startswith(f"{add.ADD}, repetition 1:")
    assert "the disk is gone" in failure
    assert failure in capsys.readouterr().out
    assert len(kept["samples"][add.DISK]) == 1


def test_a_process_that_has_ended_has_no_memory() -> None:
    assert anonymous_bytes(2**22 + 1) == 0  # above the largest process ID of Linux
