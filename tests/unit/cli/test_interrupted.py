"""Tests of `add -` that is interrupted, or fails, while whoever writes to it has not ended."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from aiolibp2p.cli import main
from aiolibp2p.unixfs.add import BATCH_BYTES

# A shell that starts the tests in the background has Ctrl-C ignored, which a process inherits.
RUN = """
import signal, sys
from aiolibp2p.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""
CONTENT = b"added before stdin is read"
SHOW_CURSOR, HIDE_CURSOR = b"\x1b[?25h", b"\x1b[?25l"

pytestmark = [
    pytest.mark.sockets,
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="Ctrl-C of Windows is no signal to one process"),
]


class Adding:
    """An `add` of a file and of stdin, which has added the file."""

    def __init__(self, directory: Path, stderr: int = subprocess.PIPE, program: str = RUN) -> None:
        file = directory / "file"
        file.write_bytes(CONTENT)
        self.repo = directory / "repo"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "add", "--json", "--repo", str(self.repo), str(file), "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        self.cid: str = json.loads(opened(self.process.stdout).readline())["cid"]

    def ended(self) -> tuple[int, bytes, bytes]:
        """Return exit code, the rest of stdout, and stderr, while stdin is open."""
        code = self.process.wait()
        stderr = b"" if self.process.stderr is None else self.process.stderr.read()
        rest = opened(self.process.stdout).read()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return code, rest, stderr


def opened(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def check_repo(capfdbinary: pytest.CaptureFixture[bytes], adding: Adding, tmp_path: Path) -> None:
    """What was added is there, and more can be added."""
    assert main(["cat", adding.cid, "--repo", str(adding.repo)]) == 0
    assert capfdbinary.readouterr() == (CONTENT, b"")
    (tmp_path / "more").write_bytes(b"more")
    assert main(["add", str(tmp_path / "more"), "--repo", str(adding.repo)]) == 0


@pytest.mark.parametrize("size_bytes", [0, 40_000_000], ids=["nothing came", "two batches came"])
def test_ctrl_c_while_stdin_is_awaited_ends_with_130_and_leaves_the_repo_as_it_was(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, size_bytes: int
) -> None:
    adding = Adding(tmp_path)
    stdin = opened(adding.process.stdin)
    # All but what a pipe holds has been read when this returns.
    stdin.write(random.Random(1).randbytes(size_bytes))
    stdin.flush()
    adding.process.send_signal(signal.SIGINT)
    assert adding.ended() == (130, b"", b"")
    check_repo(capfdbinary, adding, tmp_path)


def test_ctrl_c_gives_a_terminal_its_cursor_back(tmp_path: Path) -> None:
    terminal, ours = os.openpty()
    adding = Adding(tmp_path, stderr=ours)
    os.close(ours)
    shown = b""
    # That of the file comes first.
    while shown.count(HIDE_CURSOR) < 2:
        shown += os.read(terminal, 1 << 12)
    adding.process.send_signal(signal.SIGINT)
    try:
        while piece := os.read(terminal, 1 << 12):
            shown += piece
    except OSError:
        pass  # what Linux says when nobody has the other end any more
    os.close(terminal)
    assert adding.ended() == (130, b"", b"")
    assert shown.count(SHOW_CURSOR) == shown.count(HIDE_CURSOR) == 2
    assert b"Traceback" not in shown


def test_an_add_that_fails_ends_though_stdin_does_not(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))" + RUN
    adding = Adding(tmp_path, program=limited)
    stdin = opened(adding.process.stdin)
    # One batch: what comes after it is awaited while it cannot be written.
    stdin.write(random.Random(1).randbytes(BATCH_BYTES))
    stdin.flush()
    code, rest, stderr = adding.ended()
    assert (code, rest, stderr.count(b"\n")) == (1, b"", 1)
    assert stderr.startswith(b"aiolibp2p add: write: %s: " % bytes(adding.repo / "blocks"))
    check_repo(capfdbinary, adding, tmp_path)
