"""Tests of `add` that is killed: what it has printed is whole."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aiolibp2p.cli import main

RUN = "import sys; from aiolibp2p.cli import main; sys.exit(main())"
FILES = 8
FILE_BYTES = 3_000_000


def content(index: int) -> bytes:
    return hashlib.shake_256(b"%d" % index).digest(FILE_BYTES)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Give files that have no block in common."""
    made = [tmp_path / f"file {index}" for index in range(FILES)]
    for index, path in enumerate(made):
        path.write_bytes(content(index))
    return made


@pytest.mark.sockets
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("lines_before", [0, 1, 5])
def test_every_add_that_was_printed_is_whole_after_a_kill(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, paths: list[Path], lines_before: int
) -> None:
    repo = tmp_path / "repo"
    command = [sys.executable, "-c", RUN, "add", "--json", "--repo", str(repo), *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(lines_before)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    assert lines_before <= len(lines) <= FILES
    for index, line in enumerate(lines):
        cid = json.loads(line)["cid"]
        assert main(["cat", cid, "--repo", str(repo)]) == 0
        printed = capfdbinary.readouterr()
        assert (printed.out == content(index), printed.err) == (True, b"")
    # What was cut off is added as ever.
    assert main(["add", "--repo", str(repo), str(paths[-1])]) == 0
