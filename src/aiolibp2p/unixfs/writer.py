"""Steps on the disk, many in one call on a thread, in the order they were asked for.

Files, directories and links are created and never opened, so that nothing is written through what was there before.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import BinaryIO, TypeVar

STEP_BYTES = 4 << 20
"""Bytes written by one call: the way to the thread and back costs nothing then. Two calls' worth is in memory."""

STEPS = 256
"""Steps of one call, where files are small."""

T = TypeVar("T")


class Writer:
    """Writes one file at a time; the steps of the next call gather while a call runs.

    Args:
        executor: one thread, which keeps the order of its calls.
        progress: called with the bytes written so far.
    """

    __slots__ = ("_executor", "_file", "_path", "_progress", "_running", "_step_bytes", "_steps", "written_bytes")

    def __init__(self, executor: Executor, progress: Callable[[int], object] | None = None) -> None:
        self._executor = executor
        self._progress = progress
        self._steps: list[Callable[[], object]] = []
        self._step_bytes = 0
        self._running: asyncio.Future[None] | None = None
        self._file: BinaryIO | None = None
        self._path = ""
        self.written_bytes = 0

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Call `function(*args)` on the thread, after the calls before."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(function, *args))

    async def mkdir(self, path: str) -> None:
        """Create a directory."""
        await self._step(partial(os.mkdir, path))

    async def symlink(self, target: bytes, path: str) -> None:
        """Create a symbolic link."""
        await self._step(partial(_symlink, os.fsdecode(target), path))

    async def open(self, path: str, *, is_device: bool = False) -> None:
        """Create a file, or open a device; what is written from now on goes there."""
        await self._step(partial(self._open, path, "r+b" if is_device else "xb"))

    async def write(self, data: bytes) -> None:
        """Write to the file that was opened last."""
        await self._step(partial(self._write, data), len(data))

    async def close(self) -> None:
        """Close that file."""
        await self._step(self._close)

    async def flush(self) -> None:
        """Wait until every step was taken.

        Raises:
            OSError: one failed, and those after it were not taken; `filename` says where.
        """
        await self._begin()
        await self._wait()

    async def abandon(self) -> None:
        """Take no further step, and close what is open."""
        self._steps.clear()
        if self._running is not None and self._running.done() and not self._running.cancelled():
            # Whoever abandons has an error already.
            self._running.exception()
        self._running = None
        await self.run(self._close)

    async def _step(self, step: Callable[[], object], content_bytes: int = 0) -> None:
        self._steps.append(step)
        self._step_bytes += content_bytes
        if self._step_bytes >= STEP_BYTES or len(self._steps) >= STEPS:
            await self._begin()

    async def _begin(self) -> None:
        await self._wait()
        if self._steps:
            steps, self._steps, self._step_bytes = self._steps, [], 0
            self._running = asyncio.get_running_loop().run_in_executor(self._executor, _take, steps)

    async def _wait(self) -> None:
        if self._running is not None:
            running, self._running = self._running, None
            await running
            if self._progress is not None:
                self._progress(self.written_bytes)

    # On the thread

    def _open(self, path: str, mode: str) -> None:
        self._path = path
        self._file = open(path, mode, buffering=0)  # type: ignore[assignment]  # noqa: SIM115  # closed by a later step

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        view = memoryview(data)
        while view:
            try:
                written = self._file.write(view)
            except OSError as error:
                raise OSError(error.errno, error.strerror, self._path) from error
            view = view[written:]
            self.written_bytes += written

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _symlink(target: str, path: str) -> None:
    try:
        os.symlink(target, path)
    except OSError as error:
        # The system's own error names the target first, which is nothing of ours.
        raise OSError(error.errno, error.strerror, path) from error


def _take(steps: list[Callable[[], object]]) -> None:
    for step in steps:
        step()
