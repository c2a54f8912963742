"""What a fuzz target keeps: live memory sampled while inputs go through it, and the verdict on whether it grows.

libFuzzer keeps its own corpus in the same process, so that resident memory alone says little: blocks of Python's
allocator, which libFuzzer has none of, are counted after a full collection, and RssAnon is judged with room for it.
"""

from __future__ import annotations

import functools
import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

PACKAGE = "aiolibp2p"
EVERY_SECONDS = 5.0
RUNS_BETWEEN_CLOCKS = 64
WARM_UP = 0.1
"""The part of a run whose end is the level that the rest must keep."""
BLOCKS_ALLOWED = 2000
"""Blocks of Python's allocator more than at the end of the warm-up: caches that fill, of some hundred thousand."""
RSS_ALLOWED_BYTES = 24 << 20
"""RssAnon beyond a twentieth: libFuzzer's corpus, its features and its tables of recent comparisons."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process held at one moment."""

    seconds: float
    executions: int
    blocks: int
    rss_anon_bytes: int


def rss_anon_bytes(pid: int | str = "self") -> int:
    """Return the resident memory of a process that no file backs; 0 where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon")), 0)


def sample(seconds: float, executions: int) -> Sample:
    """Return what this process holds after a full collection."""
    gc.collect()
    return Sample(seconds, executions, sys.getallocatedblocks(), rss_anon_bytes())


class Gauge:
    """A target that writes samples of its process to a file, the first after one input, as it is called."""

    def __init__(self, run: Callable[[bytes], None], path: Path) -> None:
        self._run = run
        self._path = path
        self._started = self._due = time.monotonic()
        self._executions = 0
        self._samples: list[Sample] = []
        # Caches of functions have bounds of their own: they are emptied before each look.
        self._caches = [
            one
            for one in gc.get_objects()
            if isinstance(one, functools._lru_cache_wrapper) and one.__module__.startswith(PACKAGE)
        ]
        # What was imported stays: collections need not look at it again.
        gc.collect()
        gc.freeze()

    def __call__(self, data: bytes) -> None:
        self._run(data)
        self._executions += 1
        if self._executions % RUNS_BETWEEN_CLOCKS == 1 and (now := time.monotonic()) >= self._due:
            self._due = now + EVERY_SECONDS
            for cache in self._caches:
                cache.cache_clear()
            self._samples.append(sample(now - self._started, self._executions))
            unfinished = self._path.with_suffix(".new")
            unfinished.write_text(json.dumps([asdict(one) for one in self._samples]))
            unfinished.replace(self._path)


def samples_of(path: Path) -> list[Sample]:
    """Return what a gauge has written; nothing where it has not got so far."""
    return [Sample(**one) for one in json.loads(path.read_text())] if path.is_file() else []


def growth(samples: list[Sample], seconds: float) -> str | None:
    """Return what has grown since the warm-up of a run of `seconds`, or None."""
    after = [one for one in samples if one.seconds >= seconds * WARM_UP]
    if len(after) < 2:
        return None
    begin, end = after[0], after[-1]
    if end.blocks > begin.blocks + BLOCKS_ALLOWED:
        return f"{end.blocks - begin.blocks} blocks of memory more after {end.executions - begin.executions} inputs"
    grown = end.rss_anon_bytes - begin.rss_anon_bytes
    if grown > begin.rss_anon_bytes // 20 + RSS_ALLOWED_BYTES:
        return f"{grown >> 20} MiB of RssAnon more after {end.executions - begin.executions} inputs"
    return None
