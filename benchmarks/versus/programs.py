"""The programs that are compared, each a listener and a dialler in processes of their own.

A program speaks JSON, one object a line, on stdin and stdout. Its processor time is read from the kernel, the same way
for every stack; the clock of a measurement is that of the dialler, and runs from connected to done.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.interop.peers import HERE, PeerProgramError, Stack, dialer_command, listener_command, node_program

Answer = dict[str, Any]
ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 60.0
COMMAND_SECONDS = 300.0
END_SECONDS = 5.0
READ_BYTES = 1 << 16
STDERR_BYTES = 2000

UVLOOP, ASYNCIO, GO, JS = "aiolibp2p (uvloop)", "aiolibp2p (asyncio)", "go-libp2p", "js-libp2p"
OWN_LOOPS = {UVLOOP: "uvloop", ASYNCIO: "asyncio"}
OTHERS: dict[str, Stack] = {GO: "go", JS: "js"}


def machine_cpu_seconds() -> float:
    """Processor time used by the whole machine so far, over all cores."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _iowait, *rest = map(int, fields)
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


class Program:
    """A running program and the lines it prints."""

    def __init__(self, name: str, command: list[str], folder: Path) -> None:
        self.name = name
        self._unread = b""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the program
        try:
            self._process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr
            )
        except OSError as error:
            self._stderr.close()
            raise PeerProgramError(f"{name} cannot be run ({error}): run `make peers`") from error

    @property
    def cpu_seconds(self) -> float:
        """Processor time used so far, by all threads, in user space and kernel."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ask(self, words: list[Any]) -> Answer:
        """Give the program one line and return its answer.

        Raises:
            PeerProgramError: it failed, ended or did not answer in time.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(words).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._failure("takes no command") from error
        answer = self.next_line(COMMAND_SECONDS)
        if "error" in answer:
            raise self._failure(f"answers {words}: {answer['error']}")
        return answer

    def next_line(self, seconds: float) -> Answer:
        """Return the next line.

        Raises:
            PeerProgramError: there is none.
        """
        assert self._process.stdout is not None
        end = time.monotonic() + seconds
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._process.stdout.fileno(), READ_BYTES) if ready else b""
            if not data:
                raise self._failure("has ended" if ready else f"said nothing in {seconds} s")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        answer: Answer = json.loads(line)
        return answer

    def close(self) -> None:
        """End the program by the end of its stdin; kill it if that is not enough."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
        except OSError:
            pass  # it has ended before it read everything
        try:
            process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._stderr.close()

    def _failure(self, what: str) -> PeerProgramError:
        size = os.fstat(self._stderr.fileno()).st_size
        stderr = os.pread(self._stderr.fileno(), STDERR_BYTES, max(0, size - STDERR_BYTES)).decode(errors="replace")
        return PeerProgramError(f"{self.name} {what}\n{stderr}".rstrip())


class Programs:
    """Programs of one repetition, each started when first asked for."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], Program] = {}
        self._ready: dict[str, Answer] = {}

    def listener(self, stack: str) -> tuple[Program, Answer]:
        """Return a stack's listener and what it said when it was ready: `addr`, `pid`."""
        program = self._program("listener", stack, listener_words)
        if stack not in self._ready:
            self._ready[stack] = program.next_line(START_SECONDS)
        return program, self._ready[stack]

    def dialler(self, stack: str, command: str) -> Program:
        """Return the program of a stack that takes `command`."""
        if stack == JS and command == "redial":
            return self._program("redialler", stack, lambda _: [str(node_program()), "redial.mjs"])
        return self._program("dialler", stack, dialler_words)

    def close(self) -> None:
        """End all of them."""
        for program in self._running.values():
            program.close()
        self._running.clear()

    def _program(self, role: str, stack: str, words: Callable[[str], list[str]]) -> Program:
        if (role, stack) not in self._running:
            folder = Path(__file__).parent if role == "redialler" else HERE / OTHERS[stack] if stack in OTHERS else ROOT
            self._running[role, stack] = Program(f"the {role} of {stack}", words(stack), folder)
        return self._running[role, stack]


def own_words(stack: str, mode: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.versus.node", "--loop", OWN_LOOPS[stack], mode]


def listener_words(stack: str) -> list[str]:
    return listener_command(OTHERS[stack], "listen", ()) if stack in OTHERS else own_words(stack, "listen")


def dialler_words(stack: str) -> list[str]:
    return dialer_command(OTHERS[stack]) if stack in OTHERS else own_words(stack, "session")


def command_words(stack: str, command: str, address: str, count: int, concurrency: int) -> list[Any]:
    """Return a command as the dialler of a stack takes it."""
    seconds = int(COMMAND_SECONDS)
    if stack == GO:
        return [f"-concurrency={concurrency}", f"-timeout={seconds}s", command, address, str(count)]
    if stack == JS and command == "redial":
        return [address, count]
    if stack == JS:
        return [f"--concurrency={concurrency}", f"--timeout={seconds}", command, address, str(count)]
    return [command, address, count, concurrency]
