"""Many seeds at once: each process takes its share of them and says of every one whether it passed."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

CAN_FORK = hasattr(os, "fork")
"""Whether seeds can be run side by side here."""

Check = Callable[[int], str | None]
"""Runs one seed, and returns what went wrong in one line, or None."""


@dataclass(slots=True)
class SweepResult:
    """What a sweep found."""

    passed: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    """What went wrong, by seed."""


def processors() -> int:
    """Return how many processes can run at once."""
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def sweep(check: Check, seeds: Sequence[int], jobs: int) -> SweepResult:
    """Run all seeds in up to `jobs` processes, each a copy of this one, or one by one where that cannot be."""
    result = SweepResult()
    jobs = min(jobs, len(seeds))
    if jobs < 2 or not CAN_FORK:
        for seed in seeds:
            _take(result, seed, check(seed))
    else:
        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(_worker(check, seeds[first::jobs])) for first in range(jobs)]
            _collect(result, workers)
    result.passed.sort()
    return result


def _take(result: SweepResult, seed: int, wrong: str | None) -> None:
    if wrong is None:
        result.passed.append(seed)
    else:
        result.failed[seed] = wrong


@contextlib.contextmanager
def _worker(check: Check, seeds: Sequence[int]) -> Iterator[IO[bytes]]:
    """Give what a process of its own says of its seeds; the process is ended with the block."""
    reading, writing = os.pipe()
    _flush()  # else what is in buffers would be written twice
    with warnings.catch_warnings():
        # Python warns of threads that a copy does not have: whoever holds a lock in one hangs a test either way.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if not process:
        os.close(reading)
        _work(check, seeds, writing)
    os.close(writing)
    try:
        with open(reading, "rb", buffering=0) as said:
            yield said
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _work(check: Check, seeds: Sequence[int], writing: int) -> None:
    code = 1
    try:
        for seed in seeds:
            os.write(writing, b"%d begun\n" % seed)
            wrong = check(seed)
            text = "passed" if wrong is None else f"failed {wrong}"
            os.write(writing, f"{seed} {' '.join(text.split())}\n".encode(errors="replace"))
        code = 0
    finally:
        _flush()
        os._exit(code)  # nothing of the process that this is a copy of must end twice


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _collect(result: SweepResult, workers: Sequence[IO[bytes]]) -> None:
    buffers: dict[IO[bytes], bytes] = {}
    begun: dict[IO[bytes], int] = {}
    with selectors.DefaultSelector() as selector:
        for said in workers:
            selector.register(said, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                said = key.fileobj  # type: ignore[assignment]  # what was registered above
                data = os.read(said.fileno(), 1 << 16)
                if not data:
                    selector.unregister(said)
                    if said in begun:
                        result.failed[begun[said]] = "its process died"
                    continue
                *lines, buffers[said] = (buffers.get(said, b"") + data).split(b"\n")
                for line in lines:
                    seed, verdict, *wrong = line.decode().split(" ", 2)
                    if verdict == "begun":
                        begun[said] = int(seed)
                    else:
                        del begun[said]
                        _take(result, int(seed), None if verdict == "passed" else "".join(wrong))
