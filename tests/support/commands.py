"""The commands as processes of their own, and what they say when they fail."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiolibp2p.cli import main

RUN = "import sys; from aiolibp2p.cli import main; sys.exit(main())"


class Daemon:
    """A daemon on a repo, ready.

    Args:
        words: more of its command line.
        before: statements that its process runs first.
    """

    def __init__(self, repo: Path, *words: str, before: str = "") -> None:
        command = [sys.executable, "-W", "error", "-c", before + RUN, "daemon", "--repo", str(repo), "--json", *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.said: dict[str, Any] = json.loads(line)
        self.address: str = self.said["addresses"][0]

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Return exit code, the rest of stdout, and stderr."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        out, error = self.process.communicate()
        return self.process.returncode, out, error


def fails(captured: pytest.CaptureFixture[bytes], *words: str) -> str:
    """Return the one line of a command that fails, run in this process, and prints nothing else."""
    assert main(words) == 1
    printed = captured.readouterr()
    assert (printed.out, printed.err.count(b"\n")) == (b"", 1), printed.err
    return printed.err.decode()
