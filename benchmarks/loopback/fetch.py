"""Fetching a file, and blocks, over 127.0.0.1: aiolibp2p, Helia and boxo, alternating in one run.

    python -m benchmarks.loopback.fetch [--reps 5] [--only ROW ...] [--size-bytes 200000000] [--folder DIR] [--out FILE]

Every contestant is two processes. Ours are `aiolibp2p daemon` on a repo and a client that keeps what it fetches in a
repo of its own, new each time, and writes the file. Work that failed, or brought other bytes, is printed, kept, and
makes the command end with 1; goals are only printed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.loopback import record
from benchmarks.loopback.contestants import Client, Material, Sample, Server, Stage
from benchmarks.loopback.processes import end_on_sigterm
from benchmarks.versus.report import aligned
from tests.interop.peers import GO_PEER, PeerProgramError

REPETITIONS = 5
SIZE_BYTES = 200_000_000
ANONYMOUS_BYTES_MAX = 200_000_000
LARGE, SMALL = 256 << 10, 16 << 10


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Who fetches from whom."""

    name: str
    server: Server
    client: Client


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a median is to reach: a rate, or a multiple of another's."""

    ours: str
    least: float
    of: str | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of work."""

    name: str
    work: str
    block_bytes: int
    contestants: tuple[Contestant, ...]
    goals: tuple[Goal, ...]


OURS = Contestant(name="aiolibp2p from aiolibp2p", server="aiolibp2p", client="aiolibp2p")
COMMAND = Contestant(name="aiolibp2p get from aiolibp2p", server="aiolibp2p", client="command")
HELIA = Contestant(name="Helia from Helia", server="Helia", client="Helia")
FROM_BOXO = Contestant(name="aiolibp2p from boxo", server="boxo", client="aiolibp2p")
BOXO_FROM_US = Contestant(name="boxo from aiolibp2p", server="aiolibp2p", client="boxo")
BOXO = Contestant(name="boxo from boxo", server="boxo", client="boxo")
DISK = Contestant(name="the disk alone", server="aiolibp2p", client="disk")

AS_FAST_AS_BOXO = (Goal(ours=BOXO_FROM_US.name, least=1.0, of=BOXO.name),)
ROWS = (
    Row(
        name="file",
        work="a file in blocks of 256 KiB",
        block_bytes=LARGE,
        contestants=(OURS, COMMAND, HELIA, FROM_BOXO, DISK),
        goals=(Goal(ours=OURS.name, least=200.0), Goal(ours=OURS.name, least=1.2, of=HELIA.name)),
    ),
    Row(
        name="file-16k",
        work="the same file in blocks of 16 KiB",
        block_bytes=SMALL,
        contestants=(OURS, COMMAND, HELIA, FROM_BOXO),
        goals=(Goal(ours=OURS.name, least=55.0),),
    ),
    Row(
        name="blocks",
        work="as many single blocks of 256 KiB, by boxo's client",
        block_bytes=LARGE,
        contestants=(BOXO_FROM_US, BOXO),
        goals=AS_FAST_AS_BOXO,
    ),
    Row(
        name="blocks-16k",
        work="as many single blocks of 16 KiB, by boxo's client",
        block_bytes=SMALL,
        contestants=(BOXO_FROM_US, BOXO),
        goals=AS_FAST_AS_BOXO,
    ),
)

Results = dict[str, dict[str, list[Sample]]]
"""Samples by row and contestant."""


def repeat(rows: Sequence[Row], material: Material, results: Results, failures: list[str], repetition: int) -> None:
    """Let fresh programs do all the work once, another contestant beginning each row in every repetition."""
    stage = Stage(material)
    try:
        for row in rows:
            by = repetition % len(row.contestants)
            for contestant in (*row.contestants[by:], *row.contestants[:by]):
                if "boxo" in (contestant.server, contestant.client) and not os.access(GO_PEER, os.X_OK):
                    continue
                try:
                    sample = stage.measure(contestant.server, contestant.client, row.block_bytes, repetition)
                except PeerProgramError as error:
                    failures.append(f"{row.name}, {contestant.name}, repetition {repetition + 1}: {error}")
                    print(failures[-1], flush=True)
                    stage.close()
                    continue
                results[row.name][contestant.name].append(sample)
                others = f"others: {sample.others_cores:.2f} cores"
                named = f"{repetition + 1}  {row.name:11} {contestant.name:29}"
                print(f"{named} {sample.value:7.1f} MB/s  {others}", flush=True)
    finally:
        stage.close()


def middle(samples: Sequence[Sample]) -> float:
    return median(sample.value for sample in samples)


def table(rows: Sequence[Row], results: Results) -> list[str]:
    """Return the lines about rates, processor time and memory."""
    lines = [["row", "who", "MB/s", "least", "most", "CPU s client", "server", "RssAnon client", "server", "others"]]
    for row in rows:
        for name, samples in results[row.name].items():
            if not samples:
                continue
            values = [sample.value for sample in samples]
            cells = [f"{value:.1f}" for value in (median(values), min(values), max(values))]
            for cpu in ([s.client_cpu_seconds for s in samples], [s.server_cpu_seconds for s in samples]):
                cells.append(f"{median(cpu):.2f}")
            for peak in ([s.client_anonymous_bytes for s in samples], [s.server_anonymous_bytes for s in samples]):
                cells.append(f"{max(peak) / 1e6:.0f} MB")
            lines.append([row.name, name, *cells, f"{median(s.others_cores for s in samples):.2f}"])
    return aligned(lines)


def goals(rows: Sequence[Row], results: Results) -> list[dict[str, Any]]:
    """Return what was aimed at and what was reached, of all that was measured."""
    found: list[dict[str, Any]] = []
    for row in rows:
        samples = results[row.name]
        for goal in row.goals:
            if not samples[goal.ours] or (goal.of is not None and not samples[goal.of]):
                continue
            value = middle(samples[goal.ours]) / (1.0 if goal.of is None else middle(samples[goal.of]))
            text = f"{row.name}: {goal.ours}, " + ("MB/s" if goal.of is None else f"by {goal.of}")
            found.append({"what": text, "value": value, "least": goal.least, "reached": value >= goal.least})
    peaks = own_peaks(rows, results)
    if peaks:
        reached = max(peaks) < ANONYMOUS_BYTES_MAX
        text = "RssAnon of any process of ours, MB"
        found.append({"what": text, "value": max(peaks) / 1e6, "below": ANONYMOUS_BYTES_MAX / 1e6, "reached": reached})
    return found


def own_peaks(rows: Sequence[Row], results: Results) -> list[int]:
    peaks: list[int] = []
    for row in rows:
        for contestant in row.contestants:
            for sample in results[row.name][contestant.name]:
                if contestant.server == "aiolibp2p" and contestant.client != "disk":
                    peaks.append(sample.server_anonymous_bytes)
                if contestant.client in ("aiolibp2p", "command"):
                    peaks.append(sample.client_anonymous_bytes)
    return peaks


def rows_as_json(rows: Sequence[Row], results: Results) -> dict[str, Any]:
    return {
        row.name: {
            "work": row.work,
            "unit": "MB/s",
            "block_bytes": row.block_bytes,
            "medians": {name: middle(samples) for name, samples in results[row.name].items() if samples},
            "samples": {name: [asdict(sample) for sample in samples] for name, samples in results[row.name].items()},
        }
        for row in rows
    }


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reps", type=int, default=REPETITIONS, help="repetitions of every row (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS], metavar="ROW", help="only these rows")
    parser.add_argument("--size-bytes", type=int, default=SIZE_BYTES, help="of the file (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the repos are made, on the disk that is to be measured")
    parser.add_argument("--out", type=Path, default=record.RESULTS / "fetch.json")
    return parser.parse_args()


def main() -> int:
    options = parsed()
    rows = [row for row in ROWS if not options.only or row.name in options.only]
    if not os.access(GO_PEER, os.X_OK):
        print("boxo is left out: its program was not built (`make peers` says why)")
    results: Results = {row.name: {contestant.name: [] for contestant in row.contestants} for row in rows}
    failures: list[str] = []
    result = record.metadata("fetch", sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=options.folder) as folder:
        material = Material(Path(folder), options.size_bytes)
        for block_bytes in {row.block_bytes for row in rows}:
            # Before a daemon has the repo.
            material.content(block_bytes, warm=False)
            material.content(block_bytes, warm=True)
        for repetition in range(options.reps):
            repeat(rows, material, results, failures, repetition)
    print("\n" + "\n".join([*(f"{row.name}: {row.work}" for row in rows), "", *table(rows, results), ""]))
    reached = goals(rows, results)
    print("\n".join([record.goal_line(goal) for goal in reached]) + "\n")
    method = {"repetitions": options.reps, "size_bytes": options.size_bytes}
    kept = {"method": method, "failures": failures, "goals": reached, "rows": rows_as_json(rows, results)}
    record.keep(options.out, result | kept)
    return 1 if failures else 0


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
