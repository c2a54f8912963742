"""What silent peers of each kind cost a block server and its honest peers, counted in virtual time.

    python -m benchmarks.virtual.serve_under_silence [--kind KIND ...] [--silent M ...] [--seconds S] [--out FILE]

Twenty honest peers fetch four blocks each, again and again, over lines of 100 Mbit/s, 25 ms away, while M silent ones
want four blocks of 256 KiB and do not take them. A cell is one kind and one M; what honest peers get is compared with
a run of the same length in which nobody is silent. Processors take no time here, so what is told is how long honest
peers wait for others, and what was spent on peers that take nothing: bytes, blocks read from the store, and choices of
the scheduler. What a silent peer costs does not depend on how much the honest ones fetch, while its share does; so the
rate is told above which everything spent on silent peers is a hundredth of what is served.

The more a kind does (it wants every second, or connects every nine), the shorter its cells with many peers are. The
command ends with 1 when honest peers wait more than 1.05 times as long, a task is older than its budget, more is held
for a silent peer than one block and 64 KiB, or, in cells of half an hour and more, when that rate is more than a client
of Kubo 0.43 is served.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aiolibp2p import Timeouts
from aiolibp2p.sim import Link, current_net, run
from benchmarks.loopback import record
from tests.support.silence import KINDS, Outcome, Scene

HONEST = 20
MANY = (8, 16, 100, 1000)
LATENCY = 0.025
BANDWIDTH = 100e6
HOUR = 3600.0
FEWEST_SECONDS = 100.0
WORK = 20_000
"""About how many things silent peers do in one cell, if it is longer than the fewest seconds."""
CONNECTING = 20
"""Making a connection costs as much as so many wants; being there as much as one in 15 s."""
BAIT_BYTES = 256 << 10
HELD_BYTES = (64 << 10) + BAIT_BYTES
"""What may be held for one silent peer."""
MOVING_BYTES = 32 << 20
"""What may be held for those that take it."""
SHARE = 0.01
RATE_BYTES = 235e6
"""Kubo 0.43 serves so many bytes a second of 256 KiB blocks to one client."""
LONG_SECONDS = HOUR / 2
"""In shorter cells most back-offs are still short."""
TASK_SECONDS = Timeouts().storage


def cell_seconds(kind: str, silent: int, most: float) -> float:
    """Return how long a cell lasts."""
    way = KINDS[kind]
    done = 1 / way.wants_every + CONNECTING / way.reconnects_every + 1 / 15
    return min(most, max(FEWEST_SECONDS, WORK / (silent * done)))


def scene(kind: str, silent: int, seconds: float) -> Scene:
    """Return one cell; peers that read want little, as they get it."""
    bait = 4 << 10 if KINDS[kind].gives_credit else BAIT_BYTES
    return Scene(kind=kind, silent=silent, honest=HONEST, seconds=seconds, fetch_every=max(5.0, seconds / 60),
                 honest_bytes=16 << 10, silent_bytes=bait)  # fmt: skip


def play(one: Scene) -> Outcome:
    async def main() -> Outcome:
        current_net().set_link(Link(latency=LATENCY, bandwidth=BANDWIDTH))
        return await one.play()

    return run(main, seed="serve under silence", limit_seconds=10 * HOUR)


def row(kind: str, silent: int, one: Scene, outcome: Outcome, baseline: Outcome, cpu_seconds: float) -> dict[str, Any]:
    """Return everything about one cell."""
    blocked = outcome.blocked
    cost = {name: getattr(blocked, name) for name in ("picks", "read_blocks", "read_bytes", "written_bytes")}
    rate = blocked.read_bytes / one.seconds * (1 - SHARE) / SHARE
    held = max(0, outcome.held_bytes - baseline.held_bytes) / silent
    failures = []
    ratio = outcome.p99_seconds / baseline.p99_seconds
    if ratio > 1.05:
        failures.append("p99")
    if outcome.oldest_task_seconds > TASK_SECONDS:
        failures.append("an old task")
    if held > HELD_BYTES + MOVING_BYTES / silent:
        failures.append("memory")
    if rate > RATE_BYTES and one.seconds >= LONG_SECONDS:
        failures.append("share")
    return {
        "kind": kind,
        "silent": silent,
        "seconds": one.seconds,
        "fetches": len(outcome.seconds),
        "p99_seconds": outcome.p99_seconds,
        "p99_ratio": ratio,
        "honest_bytes": outcome.fetched_bytes,
        "blocked": cost,
        "blocked_bytes_per_peer": blocked.read_bytes / silent,
        "share": outcome.shares(),
        "rate_bytes_for_one_percent": rate,
        "held_bytes_per_peer": held,
        "stalls": outcome.stalls,
        "tasks": outcome.tasks,
        "oldest_task_seconds": outcome.oldest_task_seconds,
        "connections": outcome.links,
        "cpu_seconds": round(cpu_seconds, 2),
        "failed": failures,
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """Return what is printed."""
    shown = Table(title="honest peers beside M silent ones, in virtual time")
    for name in (
        "kind",
        "M",
        "hours",
        "p99",
        "ratio",
        "reads/peer",
        "KiB/peer",
        "1 % above",
        "held/peer",
        "oldest task",
    ):
        shown.add_column(name, justify="left" if name == "kind" else "right")
    for one in rows:
        shown.add_row(
            one["kind"],
            f"{one['silent']:,}",
            f"{one['seconds'] / HOUR:.2f}",
            f"{one['p99_seconds'] * 1000:.1f} ms",
            f"{one['p99_ratio']:.3f}",
            f"{one['blocked']['read_blocks'] / one['silent']:.1f}",
            f"{one['blocked_bytes_per_peer'] / 1024:,.0f}",
            f"{one['rate_bytes_for_one_percent'] / 1e6:.1f} MB/s",
            f"{one['held_bytes_per_peer'] / 1024:.0f} KiB",
            f"{one['oldest_task_seconds']:.0f} s",
        )
    return shown


def measure(kinds: list[str], many: list[int], most: float) -> list[dict[str, Any]]:
    """Return a row for every cell, the baselines run once for each length."""
    baselines: dict[float, Outcome] = {}
    rows = []
    for kind in kinds:
        for silent in many:
            began = time.process_time()
            one = scene(kind, silent, cell_seconds(kind, silent, most))
            if one.seconds not in baselines:
                baselines[one.seconds] = play(scene(kind, 0, one.seconds))
            outcome = play(one)
            rows.append(row(kind, silent, one, outcome, baselines[one.seconds], time.process_time() - began))
            print(f"{kind}, {silent}: {rows[-1]['cpu_seconds']} s of CPU {rows[-1]['failed'] or ''}", file=sys.stderr)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--silent", nargs="+", type=int, default=list(MANY), metavar="M")
    parser.add_argument("--seconds", type=float, default=HOUR, help="the longest cell")
    parser.add_argument("--out", type=Path, default=record.RESULTS / "serve_under_silence_virtual.json")
    options = parser.parse_args()
    result = record.metadata("serve_under_silence", sys.argv[1:], "virtual")
    rows = measure(options.kind, options.silent, options.seconds)
    Console(width=max(120, Console().width)).print(table(rows))
    failed = [f"{one['kind']}, {one['silent']}: {', '.join(one['failed'])}" for one in rows if one["failed"]]
    cpu_seconds = math.fsum(one["cpu_seconds"] for one in rows)
    print("\n".join(failed) or "nothing failed", f"{cpu_seconds:.0f} s of CPU", sep="\n")
    record.keep(options.out, result | {"rows": rows})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
