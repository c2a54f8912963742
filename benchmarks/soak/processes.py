"""The programs around the node: each a process with JSON lines on stdin and stdout, which may be killed at any time.

A program is ended by its own process id and by nothing wider.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import deque
from pathlib import Path
from typing import Any

from tests.interop.peers import HERE, Stack, dialer_command, listener_command

Answer = dict[str, Any]
ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 60.0
END_SECONDS = 10.0
LINE_BYTES = 16 << 20
STDERR_BYTES = 2000


class ProgramFailedError(Exception):
    """A program has ended, or its answer was an error."""


class Program:
    """A running program. Those of ours number their answers and do several things at once, others one after another."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, *, numbered: bool) -> None:
        self.name = name
        self.doomed = False
        """Whether it was or will be killed: what fails from then on was meant to."""
        self.address = ""
        self._process = process
        self._numbered = numbered
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._order: deque[int] = deque()
        self._stderr = b""
        self._tasks = [
            asyncio.create_task(self._read(), name=f"{name}: stdout"),
            asyncio.create_task(self._read_stderr(), name=f"{name}: stderr"),
        ]

    @classmethod
    async def start(cls, name: str, command: list[str], folder: Path, *, numbered: bool = False) -> Program:
        """Start a program; it says something first if it is asked for by `ready`."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe, limit=LINE_BYTES
        )
        return cls(name, process, numbered=numbered)

    @classmethod
    async def listener(cls, stack: Stack) -> Program:
        """Start a listener of another stack that serves blocks."""
        flag = "-bitswap" if stack == "go" else "--bitswap"
        program = await cls.start(f"{stack} listener", listener_command(stack, "listen", (flag,)), HERE / stack)
        program.address = str((await program.ready())["addr"])
        return program

    @classmethod
    async def dialer(cls, stack: Stack) -> Program:
        """Start a program of another stack that dials when it is told to."""
        return await cls.start(f"{stack} dialer", dialer_command(stack), HERE / stack)

    @classmethod
    async def own(cls, name: str, *options: str) -> Program:
        """Start a node of ours."""
        command = [sys.executable, "-m", "benchmarks.soak.node", *options]
        program = await cls.start(name, command, ROOT, numbered=True)
        program.address = str((await program.ready())["addr"])
        return program

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ready(self) -> Answer:
        """Return the line that it prints at its start."""
        return await self._answer(0, START_SECONDS)

    async def ask(self, *words: object, seconds: float = START_SECONDS) -> Answer:
        """Let it do something and return its answer.

        Raises:
            ProgramFailedError: it has ended, or failed.
            TimeoutError: it has not answered in time.
        """
        self._number += 1
        line: list[object] = [str(word) for word in words]
        if self._numbered:
            line.insert(0, self._number)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise ProgramFailedError(f"{self.name} takes no command") from error
        return await self._answer(self._number, seconds)

    async def _answer(self, number: int, seconds: float) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self._tasks[0].done():
            raise ProgramFailedError(f"{self.name} has ended")
        self._waiting[number] = future
        if not self._numbered:
            self._order.append(number)
        async with asyncio.timeout(seconds):
            answer = await future
        if "error" in answer:
            raise ProgramFailedError(f"{self.name}: {answer['error']}")
        return answer

    async def kill(self) -> None:
        """Kill it, as a crash or the system would."""
        self.doomed = True
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await asyncio.gather(*self._tasks)

    def freeze(self) -> None:
        """Stop it: its sockets stay open, and nothing reads or writes them."""
        self.doomed = True
        self._process.send_signal(signal.SIGSTOP)

    async def close(self) -> None:
        """End it by the end of its stdin; kill it if that is not enough."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            pass
        await self.kill()

    @property
    def last_words(self) -> str:
        """What it wrote to stderr last."""
        return self._stderr.decode(errors="replace")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            answer: Answer = json.loads(line)
            number = answer.pop("id", None)
            if number is None and self._order:
                number = self._order.popleft()
            future = self._waiting.pop(number, None)
            if future is not None and not future.done():
                future.set_result(answer)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ProgramFailedError(f"{self.name} has ended"))
        self._waiting.clear()

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(1 << 16):
            self._stderr = (self._stderr + data)[-STDERR_BYTES:]
