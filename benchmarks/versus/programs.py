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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.interop.peers import (
    GO_PEER,
    PY_PEER,
    PeerProgramError,
    Stack,
    dialer_command,
    folder_of,
    listener_command,
    node_program,
)

Answer = dict[str, Any]
ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 60.0
COMMAND_SECONDS = 300.0
END_SECONDS = 5.0
READ_BYTES = 1 << 16
STDERR_BYTES = 2000

UVLOOP, ASYNCIO, GO, JS = "aiolibp2p (uvloop)", "aiolibp2p (asyncio)", "go-libp2p", "js-libp2p"
PY = "py-libp2p"
OWN_LOOPS = {UVLOOP: "uvloop", ASYNCIO: "asyncio"}
OTHERS: dict[str, Stack] = {GO: "go", JS: "js", PY: "py"}
BLOCKS_FLAGS = {GO: "-bitswap", JS: "--bitswap"}
"""What makes their listeners hold blocks and take commands."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a dialler is asked to do."""

    name: str
    address: str
    count: int
    concurrency: int
    chunk_bytes: int
    pid: int
    """The listener's process, whose memory is read."""
    rest_seconds: float
    """How long both sides rest before it is."""


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
        self.tell(words)
        return self.answer_to(words)

    def tell(self, words: list[Any]) -> None:
        """Give the program one line.

        Raises:
            PeerProgramError: it has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(words).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._failure("takes no command") from error

    def answer_to(self, words: list[Any]) -> Answer:
        """Return the next line, which answers `words`.

        Raises:
            PeerProgramError: it failed, ended or did not answer in time.
        """
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
        self._ready: dict[tuple[str, str], Answer] = {}
        self._repos = tempfile.TemporaryDirectory(prefix="versus-")

    def listener(self, stack: str, *, adds: bool = False, fresh_for: str = "") -> tuple[Program, Answer]:
        """Return a stack's listener and what it said when it was ready: `addr`, `pid`.

        Args:
            adds: one with blocks, that takes `["add", PATH]`.
            fresh_for: a row whose listener does nothing else: what others have freed would serve it.
        """
        role = "adding listener" if adds else f"listener {fresh_for}".rstrip()
        program = self._program(role, stack, self._adding_words if adds else listener_words)
        if (role, stack) not in self._ready:
            self._ready[role, stack] = program.next_line(START_SECONDS)
        return program, self._ready[role, stack]

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
        self._ready.clear()
        self._repos.cleanup()
        self._repos = tempfile.TemporaryDirectory(prefix="versus-")

    def _adding_words(self, stack: str) -> list[str]:
        if stack in OTHERS:
            return listener_command(OTHERS[stack], "listen", (BLOCKS_FLAGS[stack],))
        return [*own_words(stack, "listen"), "--repo", str(Path(self._repos.name) / OWN_LOOPS[stack])]

    def _program(self, role: str, stack: str, words: Callable[[str], list[str]]) -> Program:
        if (role, stack) not in self._running:
            folder = folder_of(OTHERS[stack]) if stack in OTHERS else ROOT
            if role == "redialler":
                folder = Path(__file__).parent
            self._running[role, stack] = Program(f"the {role} of {stack}", words(stack), folder)
        return self._running[role, stack]


def left_out(stack: str) -> str | None:
    """Return why a stack's programs cannot be run, or None."""
    if stack == GO and not os.access(GO_PEER, os.X_OK):
        return "go-libp2p is left out: its program was not built (`make peers` says why)"
    if stack == PY and not PY_PEER.exists():
        return "py-libp2p is left out: it is not installed (`make peers` says why)"
    return None


def own_words(stack: str, mode: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.versus.node", "--loop", OWN_LOOPS[stack], mode]


def listener_words(stack: str) -> list[str]:
    return listener_command(OTHERS[stack], "listen", ()) if stack in OTHERS else own_words(stack, "listen")


def dialler_words(stack: str) -> list[str]:
    return dialer_command(OTHERS[stack]) if stack in OTHERS else own_words(stack, "session")


def command_words(stack: str, command: Command) -> list[Any]:
    """Return a command as the dialler of a stack takes it."""
    if stack == JS and command.name == "redial":
        return [command.address, command.count]
    if stack not in OTHERS:
        return [command.name, command.address, command.count, command.concurrency, command.chunk_bytes]
    seconds = int(COMMAND_SECONDS)
    flags = [f"-concurrency={command.concurrency}", f"-chunk={command.chunk_bytes}"]
    flags.append(f"-timeout={seconds}s" if stack == GO else f"-timeout={seconds}")
    if stack == GO:
        flags += [f"-pid={command.pid}", f"-rest={command.rest_seconds}s"]
    else:
        flags = [f"-{flag}" for flag in flags]
    return [*flags, command.name, command.address, str(command.count)]
