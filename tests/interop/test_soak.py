"""A soak of two minutes: what comes, goes and is killed around a node of ours leaves nothing behind in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads what processes use from /proc")

ROOT = Path(__file__).parent.parent.parent
SECONDS = 110
TEST_SECONDS = 400
ROUND_SECONDS = 22
STRANGERS = 50
BLOCKS_ALLOWED = 6000
"""Blocks of memory between the second quiet moment and the last: a few for each peer that is remembered."""


@pytest.mark.slow
@pytest.mark.go
@pytest.mark.timeout(TEST_SECONDS)
def test_two_minutes_of_peers_that_are_killed_leave_a_node_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    words = ["--seconds", str(SECONDS), "--round", str(ROUND_SECONDS), "--every", "1", "--strangers", str(STRANGERS)]
    command = [sys.executable, "-m", "benchmarks.soak", *words, "--out", str(out)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TEST_SECONDS - 10, check=False)
    assert out.exists(), ended.stdout + ended.stderr
    soak = json.loads(out.read_text(encoding="utf-8"))
    # Said first: without it a failure says little.
    assert (soak["failed"], soak["not_at_its_level"]) == ([], []), ended.stdout
    assert (ended.returncode, ended.stderr) == (0, "")
    assert {"js listener", "go listener", "js dialer", "go dialer", "own peer"} & set(soak["killed"])
    for kind in ("probe", "we fetch from js", "we fetch from go", "js fetches", "go fetches", "own peer fetches"):
        assert soak["done"][kind] > 0, kind
    quiet = soak["quiet"]
    assert quiet[-1]["blocks"] - quiet[1]["blocks"] < BLOCKS_ALLOWED
    assert out.with_suffix(".svg").read_text(encoding="utf-8").startswith("<svg")
