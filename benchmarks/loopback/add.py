"""`aiolibp2p add` of a large file into a fresh repo, and beside it what the disk does with the same bytes.

    python -m benchmarks.loopback.add [--reps 3] [--size-bytes 1000000000] [--folder DIR] [--out FILE]

The clock of `add` runs from the start of the command to its end, so that the interpreter's start is in it; that of the
disk around a plain copy in pieces of 16 MiB, each followed by fdatasync. Which of them begins alternates. The first
repetition reads the file back and compares. A failure is printed, kept, and makes the command end with 1; goals are
only printed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.loopback import record
from benchmarks.loopback.content import sha256_of
from benchmarks.loopback.processes import Finished, cli, end_on_sigterm, finish
from benchmarks.versus.programs import machine_cpu_seconds
from benchmarks.versus.report import aligned
from tests.interop.peers import PeerProgramError

REPETITIONS = 3
SIZE_BYTES = 1_000_000_000
PIECE_BYTES = 16 << 20
GOAL = 200.0
ANONYMOUS_BYTES_MAX = 200_000_000
ADD, DISK = "aiolibp2p add", "the disk alone"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measurement."""

    repetition: int
    value: float
    """MB/s."""
    seconds: float
    cpu_seconds: float
    anonymous_bytes: int
    """The most RssAnon at any time."""
    others_cores: float


class Run:
    """One file, added and copied."""

    def __init__(self, folder: Path, n_bytes: int) -> None:
        self._folder = folder
        self._n_bytes = n_bytes
        self._source = folder / "source"
        self._sha256 = write_random(self._source, n_bytes)
        self.cids: set[str] = set()

    def measure(self, who: str, repetition: int) -> Sample:
        """Measure once, in a folder that is removed again.

        Raises:
            PeerProgramError: it failed, or what is there then is something else.
        """
        place = self._folder / "place"
        place.mkdir()
        before, start = machine_cpu_seconds(), time.perf_counter()
        try:
            finished, seconds = self._add(place) if who == ADD else self._copy(place)
            whole_seconds = time.perf_counter() - start
            others = (machine_cpu_seconds() - before - finished.cpu_seconds) / whole_seconds
            if who == ADD and repetition == 0:
                self._read_back(place)
        finally:
            shutil.rmtree(place)
        return Sample(
            repetition=repetition,
            value=self._n_bytes / seconds / 1e6,
            seconds=seconds,
            cpu_seconds=finished.cpu_seconds,
            anonymous_bytes=finished.anonymous_bytes,
            others_cores=max(0.0, others),
        )

    def _add(self, place: Path) -> tuple[Finished, float]:
        finished = finish(cli("add", "--repo", place / "repo", "--json", self._source))
        self.cids.add(str(finished.answer["cid"]))
        if finished.answer["bytes"] != self._n_bytes or len(self.cids) != 1:
            raise PeerProgramError(f"{finished.answer} is not what was added before, or not all of it")
        return finished, finished.seconds

    def _copy(self, place: Path) -> tuple[Finished, float]:
        command = [sys.executable, "-m", "benchmarks.loopback.disk", str(self._source), str(place / "copy")]
        finished = finish(command)
        return finished, float(finished.answer["seconds"])

    def _read_back(self, place: Path) -> None:
        (cid,) = self.cids
        finish(cli("get", cid, "--repo", place / "repo", "-o", place / "back", "--json"))
        if sha256_of(place / "back") != self._sha256:
            raise PeerProgramError(f"what {cid} names is not what was added")


def write_random(path: Path, n_bytes: int) -> str:
    """Write a file that nothing can make smaller, durably, and return its SHA-256."""
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for at in range(0, n_bytes, PIECE_BYTES):
            piece = os.urandom(min(PIECE_BYTES, n_bytes - at))
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def table(results: dict[str, list[Sample]]) -> list[str]:
    lines = [["who", "MB/s", "least", "most", "CPU s", "RssAnon", "others"]]
    for who, samples in results.items():
        if samples:
            values = [sample.value for sample in samples]
            cells = [f"{value:.1f}" for value in (median(values), min(values), max(values))]
            cpu = f"{median(sample.cpu_seconds for sample in samples):.2f}"
            peak = f"{max(sample.anonymous_bytes for sample in samples) / 1e6:.0f} MB"
            lines.append([who, *cells, cpu, peak, f"{median(sample.others_cores for sample in samples):.2f}"])
    return aligned(lines)


def goals(results: dict[str, list[Sample]]) -> list[dict[str, Any]]:
    """Return what was aimed at and what was reached."""
    samples = results[ADD]
    if not samples:
        return []
    rate = median(sample.value for sample in samples)
    peak = max(sample.anonymous_bytes for sample in samples)
    return [
        {"what": f"{ADD}, MB/s", "value": rate, "least": GOAL, "reached": rate >= GOAL},
        {
            "what": f"RssAnon of {ADD}, MB",
            "value": peak / 1e6,
            "below": ANONYMOUS_BYTES_MAX / 1e6,
            "reached": peak < ANONYMOUS_BYTES_MAX,
        },
    ]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reps", type=int, default=REPETITIONS, help="repetitions (default: %(default)s)")
    parser.add_argument("--size-bytes", type=int, default=SIZE_BYTES, help="of the file (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the repo is made, on the disk that is to be measured")
    parser.add_argument("--out", type=Path, default=record.RESULTS / "add.json")
    return parser.parse_args()


def main() -> int:
    options = parsed()
    results: dict[str, list[Sample]] = {ADD: [], DISK: []}
    failures: list[str] = []
    result = record.metadata("add", sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="add-", dir=options.folder) as folder:
        run = Run(Path(folder), options.size_bytes)
        for repetition in range(options.reps):
            for who in (ADD, DISK) if repetition % 2 else (DISK, ADD):
                try:
                    sample = run.measure(who, repetition)
                except PeerProgramError as error:
                    failures.append(f"{who}, repetition {repetition + 1}: {error}")
                    print(failures[-1], flush=True)
                    continue
                results[who].append(sample)
                others = f"others: {sample.others_cores:.2f} cores"
                print(f"{repetition + 1}  {who:15} {sample.value:7.1f} MB/s  {others}", flush=True)
    print("\n" + "\n".join([*table(results), ""]))
    reached = goals(results)
    for goal in reached:
        print(record.goal_line(goal))
    kept = {who: [asdict(sample) for sample in samples] for who, samples in results.items()}
    method = {"repetitions": options.reps, "size_bytes": options.size_bytes}
    record.keep(options.out, result | {"method": method, "failures": failures, "goals": reached, "samples": kept})
    return 1 if failures else 0


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
