"""How one row is measured once."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.versus.programs import Command, Program, Programs, command_words, machine_cpu_seconds
from benchmarks.versus.rows import Contestant, Row
from tests.interop.peers import PeerProgramError

WARM_UP = 5
"""The warm-up before a measurement is this part of the same work, on a connection of its own."""
PERCENTILE = 0.99
REST_SECONDS = 12.0
"""Until what identify and closed streams leave behind is gone."""
ADDING_PINGS = 3_000
PINGS_MIN = 100
"""Fewer that fall within one `add` say nothing of a 99th percentile."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measurement; the processor time includes making the host and connecting."""

    repetition: int
    value: float
    dialler_cpu_seconds: float
    listener_cpu_seconds: float
    others_cores: float
    """How many cores everything else on the machine kept busy meanwhile; near 0, or the sample says little."""
    moved_bytes: int = 0
    """How much was carried, where that was the work."""

    @property
    def cpu_seconds_per_gb(self) -> float | None:
        """Processor time of both sides for a gigabyte."""
        if not self.moved_bytes:
            return None
        return (self.dialler_cpu_seconds + self.listener_cpu_seconds) / self.moved_bytes * 1e9


class Files:
    """The files that listeners add, made when first asked for."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="versus-")

    def of_size(self, n_bytes: int) -> Path:
        """Return a file of random bytes."""
        path = Path(self._folder.name) / str(n_bytes)
        if not path.exists():
            with path.open("xb") as file:
                left = n_bytes
                while left > 0:
                    left -= file.write(os.urandom(min(left, 16 << 20)))
        return path

    def close(self) -> None:
        """Remove them."""
        self._folder.cleanup()


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What one repetition measures with."""

    programs: Programs
    files: Files
    repetition: int
    scale: float

    def measure(self, row: Row, contestant: Contestant) -> Sample:
        """Warm up, then measure once.

        Raises:
            PeerProgramError: a program failed, or some of the work was not done.
        """
        work = Work(self, row, contestant)
        # Where memory is measured, what warms up stays open beside what is counted: the command sees to it.
        count = max(1, round(row.count * self.scale * row.parts.get(contestant.dialler, 1.0)))
        if row.kind != "memory":
            work.do(max(1, count // WARM_UP))
        before = work.dialler.cpu_seconds, work.listener.cpu_seconds, machine_cpu_seconds()
        start = time.perf_counter()
        value = work.do(count)
        seconds = time.perf_counter() - start
        used = work.dialler.cpu_seconds - before[0], work.listener.cpu_seconds - before[1]
        return Sample(
            repetition=self.repetition,
            value=value,
            dialler_cpu_seconds=used[0],
            listener_cpu_seconds=used[1],
            others_cores=max(0.0, (machine_cpu_seconds() - before[2] - sum(used)) / seconds),
            moved_bytes=count if row.moves_bytes else 0,
        )


class Work:
    """A row's work between two programs."""

    def __init__(self, measuring: Measuring, row: Row, contestant: Contestant) -> None:
        self._files = measuring.files
        self._rest_seconds = REST_SECONDS * min(1.0, measuring.scale)
        self._row = row
        self._contestant = contestant
        self.listener: Program
        fresh_for = row.name if row.kind == "memory" else ""
        self.listener, self._ready = measuring.programs.listener(
            contestant.listener, adds=row.adds, fresh_for=fresh_for
        )
        self.dialler: Program = measuring.programs.dialler(contestant.dialler, row.command)

    def do(self, count: int) -> float:
        """Do so much of it and return what is measured."""
        row = self._row
        if row.adds:
            return self._ping_while_adding(self._files.of_size(count), ADDING_PINGS * count // row.count)
        answer = self.dialler.ask(self._words(count))
        if answer.get("failed") or answer.get("ok") is False:
            raise PeerProgramError(f"{row.name}, {self._contestant.name}: not all was done: {answer}")
        if row.kind == "latency":
            return percentile_ms(answer["roundTrips"])
        return float(answer[row.result])

    def _ping_while_adding(self, path: Path, count: int) -> float:
        words = ["add", str(path)]
        pings = self._words(max(1, count))
        self.dialler.tell(pings)
        time.sleep(0.2)
        start = time.monotonic()
        self.listener.tell(words)
        answer = self.dialler.answer_to(pings)
        added = self.listener.answer_to(words)
        end = start + float(added["seconds"])
        times = zip(answer["dueAt"], answer["roundTrips"], strict=True)
        within = [seconds for due, seconds in times if start <= due <= end]
        if len(within) < PINGS_MIN and path.stat().st_size == self._row.count:
            raise PeerProgramError(f"only {len(within)} pings were due while {self._contestant.name} added {path}")
        return percentile_ms(within or answer["roundTrips"])

    def _words(self, count: int) -> list[Any]:
        row = self._row
        command = Command(
            name=row.command,
            address=str(self._ready["addr"]),
            count=count,
            concurrency=row.concurrency,
            chunk_bytes=row.chunk_bytes,
            pid=int(self._ready["pid"]),
            rest_seconds=self._rest_seconds,
        )
        return command_words(self._contestant.dialler, command)


def percentile_ms(seconds: Sequence[float]) -> float:
    """Return the 99th percentile in milliseconds."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * PERCENTILE) - 1)] * 1e3
