"""Processes of ours, and what they hold of memory while they work. Each is ended by its own process id."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.versus.programs import ROOT, START_SECONDS, Program
from tests.interop.peers import PeerProgramError

SAMPLE_SECONDS = 0.05
COMMAND_SECONDS = 600.0
STDERR_CHARS = 2000
LISTEN = "/ip4/127.0.0.1/tcp/0"


def end_on_sigterm() -> None:
    """Let SIGTERM unwind, so that processes and folders are cleaned up as after Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def cli(*words: object) -> list[str]:
    """Return the command line of aiolibp2p."""
    return [sys.executable, "-m", "aiolibp2p", *map(str, words)]


class OwnProgram(Program):
    """A program of ours."""

    @property
    def pid(self) -> int:
        return self._process.pid


class Daemon(OwnProgram):
    """`aiolibp2p daemon`, serving the blocks of a repo; made when it is ready."""

    def __init__(self, repo: Path) -> None:
        super().__init__("the daemon", cli("daemon", "--repo", repo, "--listen", LISTEN, "--json"), ROOT)
        try:
            self.address = str(self.next_line(START_SECONDS)["addresses"][0])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the daemon by SIGTERM; kill it if that is not enough."""
        self._process.terminate()
        super().close()


class AnonymousMemory:
    """Samples RssAnon of processes while it is entered; `peak_bytes` is the largest of each, 0 where none was read."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.peak_bytes = dict.fromkeys(pids, 0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            for pid, peak in self.peak_bytes.items():
                self.peak_bytes[pid] = max(peak, anonymous_bytes(pid))
            if self._ended.wait(SAMPLE_SECONDS):
                return


def anonymous_bytes(pid: int) -> int:
    """Return RssAnon of a process; 0 if it has ended."""
    try:
        found = re.search(r"^RssAnon:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) << 10 if found is not None else 0


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a command came to."""

    answer: dict[str, Any]
    """The last line that it printed."""
    seconds: float
    """From its start to its end, the interpreter's start included."""
    cpu_seconds: float
    anonymous_bytes: int
    """The most at any time."""


def finish(command: Sequence[str]) -> Finished:
    """Run a command that prints one line of JSON, to its end.

    Raises:
        PeerProgramError: it failed, or has not ended in time.
    """
    before = children_cpu_seconds()
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        with AnonymousMemory([process.pid]) as memory:
            stdout, stderr = process.communicate(timeout=COMMAND_SECONDS)
            seconds = time.perf_counter() - start
    except subprocess.TimeoutExpired as error:
        raise PeerProgramError(f"{' '.join(command)} has not ended in {COMMAND_SECONDS} s") from error
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    if process.returncode:
        said = stderr[-STDERR_CHARS:].rstrip()
        raise PeerProgramError(f"{' '.join(command)} ended with {process.returncode}\n{said}")
    return Finished(
        answer=json.loads(stdout.splitlines()[-1]),
        seconds=seconds,
        cpu_seconds=children_cpu_seconds() - before,
        anonymous_bytes=memory.peak_bytes[process.pid],
    )


def children_cpu_seconds() -> float:
    """Return the processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
