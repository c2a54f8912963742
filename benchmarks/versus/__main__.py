"""Run the comparison: `python -m benchmarks.versus`, or `make bench`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.versus.measuring import WARM_UP, Files, Measuring
from benchmarks.versus.programs import OTHERS, ROOT, Programs, left_out
from benchmarks.versus.report import Results, facts, goals, number, rows_as_json, tables
from benchmarks.versus.rows import ROWS, Contestant, Row
from tests.interop.peers import PeerProgramError

REPETITIONS = 5


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versus", description=__doc__)
    parser.add_argument("--reps", type=int, default=REPETITIONS, help="repetitions of every row (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS], metavar="ROW", help="only these rows")
    parser.add_argument("--scale", type=float, default=1.0, help="this part of the work, for a quick look")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "versus.json")
    return parser.parse_args()


def turned(contestants: Sequence[Contestant], by: int) -> list[Contestant]:
    """Return the contestants in an order that another one begins in every repetition."""
    by %= len(contestants)
    return [*contestants[by:], *contestants[:by]]


def repeat(rows: Sequence[Row], results: Results, failures: list[str], measuring: Measuring) -> None:
    """Measure every row once, but those that are measured once in all."""
    repetition = measuring.repetition
    for row in rows:
        if row.once and repetition:
            continue
        for contestant in turned(row.contestants, repetition):
            if left_out(contestant.dialler) or left_out(contestant.listener):
                continue
            try:
                sample = measuring.measure(row, contestant)
            except PeerProgramError as error:
                failures.append(f"{row.name}, {contestant.name}, repetition {repetition + 1}: {error}")
                print(failures[-1], flush=True)
                measuring.programs.close()
                continue
            results[row.name][contestant.name].append(sample)
            value = f"{number(sample.value)} {row.unit}"
            others = f"others: {sample.others_cores:.2f} cores"
            print(f"{repetition + 1}  {row.name:15} {contestant.name:20} {value:18} {others}", flush=True)


def measured(rows: Sequence[Row], repetitions: int, scale: float, failures: list[str]) -> Results:
    """Measure all rows so often, each time with fresh programs."""
    results: Results = {row.name: {contestant.name: [] for contestant in row.contestants} for row in rows}
    files = Files()
    try:
        for repetition in range(repetitions):
            programs = Programs()
            measuring = Measuring(programs=programs, files=files, repetition=repetition, scale=scale)
            try:
                repeat(rows, results, failures, measuring)
            finally:
                programs.close()
    finally:
        files.close()
    return results


def main() -> int:
    chosen = options()
    rows = [row for row in ROWS if not chosen.only or row.name in chosen.only]
    for why in filter(None, map(left_out, OTHERS)):
        print(why)
    failures: list[str] = []
    report: dict[str, Any] = facts()
    load = [os.getloadavg()[0]]
    results = measured(rows, chosen.reps, chosen.scale, failures)
    load.append(os.getloadavg()[0])
    print("\n" + tables(rows, results))
    report |= {
        "method": {"repetitions": chosen.reps, "scale": chosen.scale, "warm_up_part": WARM_UP, "load_average": load},
        "failures": failures,
        "goals": goals(rows, results),
        "rows": rows_as_json(rows, results),
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\nload average {load[0]:.2f} before, {load[1]:.2f} after; kept in {chosen.out}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
