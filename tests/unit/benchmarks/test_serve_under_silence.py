"""The count of what silent peers cost, with few of them for a minute."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.virtual import serve_under_silence

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads what the machine is from /proc")


@pytest.mark.slow
def test_two_silent_peers_of_a_kind_are_counted_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    words = ["x", "--kind", "give no credit", "--silent", "2", "--seconds", "60", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    assert serve_under_silence.main() == 0
    (row,) = json.loads(out.read_text(encoding="utf-8"))["rows"]
    # One answer each that was not taken, after 31 s; after 10 s more, the next one is under way.
    assert (row["blocked"]["read_blocks"], row["stalls"], row["p99_ratio"], row["failed"]) == (2, 2, 1.0, [])
    assert "nothing failed" in capsys.readouterr().out


def test_cells_in_which_much_is_done_are_shorter() -> None:
    seconds = serve_under_silence.cell_seconds
    assert seconds("give no credit", 8, 3600.0) == 3600
    assert seconds("want every second", 1000, 3600.0) == serve_under_silence.FEWEST_SECONDS
    assert seconds("reconnect every 9 s", 100, 3600.0) < seconds("want every second", 100, 3600.0) < 3600
