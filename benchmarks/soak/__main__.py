"""Soak a node: `python -m benchmarks.soak [--seconds 3600]`; see benchmarks/README.md.

Work and quiet alternate. In a quiet moment every peer but the probe has left, and what the node holds must be back at
its level from before the work. The command ends with 1 where it was not, where something failed that was not meant to,
or where memory was not flat after the first ten minutes (which a shorter soak cannot say).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.loopback.processes import children_cpu_seconds, end_on_sigterm
from benchmarks.loopback.record import RESULTS, keep, metadata
from benchmarks.soak.figures import (
    FLAT_PART,
    LEVELS,
    WARM_UP_SECONDS,
    WINDOW_SECONDS,
    Row,
    astray,
    flatness,
    per_minute,
)
from benchmarks.soak.lanes import FILE_BYTES, Lane, Probe, Silent, Tally, Used, Users
from benchmarks.soak.plot import svg
from benchmarks.soak.processes import Program
from tests.interop.peers import GO_PEER, Stack

SETTLE_SECONDS = 15.0
"""After the peers have left: `Timeouts.close` of what they still owe, and the machine's share."""
STEP_SECONDS = 0.25
STRANGERS_SECONDS = 600.0


class Soak:
    """One soak, and what it has measured."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self.tally = Tally()
        self.series: list[Row] = []
        self.quiet: list[Row] = []
        self.level: Row = {}
        self.cpu_seconds = 0.0
        self._lanes: list[Lane] = []
        self._probe: Probe
        self._node: Program

    async def run(self) -> None:
        """Do all of it."""
        self._node = await Program.own("the node", "--repo", str(self._folder / "repo"))
        try:
            await self._prepare()
            while self.tally.seconds < self._options.seconds:
                await self._round(min(self._options.round, self._options.seconds - self.tally.seconds))
                await self._be_quiet()
        finally:
            for lane in self._lanes:
                await lane.close()
            await self._node.close()
        if self._node.last_words:
            error = {"seconds": self.tally.seconds, "what": "the node says on stderr", "error": self._node.last_words}
            self.tally.unmeant.append(error)

    async def _prepare(self) -> None:
        """Start what there is all the time, and find the level to which everything returns."""
        node, tally, load = self._node, self.tally, self._options.load
        files = [await node.ask("add", f"served/{size}", size) for size in FILE_BYTES]
        small = await node.ask("add", "small", 20_000)
        probe = await Program.own("the probe")
        seed = self._options.seed
        self._probe = Probe(node, tally, peer=probe, cid=small["cid"], seed=seed, load=load)
        self._lanes = [self._probe, Silent(node, tally, seed=seed, load=load)]
        for stack in self._options.stacks:
            self._lanes.append(Used(stack, node, tally, seed=seed, load=load))
            start = _starter(stack)
            self._lanes.append(Users(stack, start, node, tally, files=files, seed=seed, load=load))
        own = _starter(None)
        self._lanes.append(Users(None, own, node, tally, files=files, seed=seed, load=load))
        if self._options.strangers:
            # What is remembered of peers, their signatures and their records is full before anything is measured.
            await probe.ask("strangers", node.address, self._options.strangers, seconds=STRANGERS_SECONDS)
        for _ in range(2):
            await self._probe.step()
        await asyncio.sleep(SETTLE_SECONDS)
        self.level = await node.ask("figures", "objects")
        tally.begin()

    async def _round(self, seconds: float) -> None:
        """Let everything go on for a while."""
        sampling = asyncio.create_task(self._sample())
        try:
            async with asyncio.TaskGroup() as group:
                for lane in self._lanes:
                    group.create_task(lane.run(), name=lane.name)
                await asyncio.sleep(seconds)
                for lane in self._lanes:
                    lane.stop()
        finally:
            sampling.cancel()

    async def _sample(self) -> None:
        while True:
            await self._take(self.series)
            await asyncio.sleep(self._options.every)

    async def _take(self, into: list[Row], *words: str) -> Row:
        row = await self._node.ask("figures", *words)
        row["seconds"] = round(self.tally.seconds, 2)
        self.cpu_seconds = row["cpu_seconds"]
        into.append(row)
        return row

    async def _be_quiet(self) -> None:
        """Let the peers leave, and wait until the level is reached, or for as long as that may take."""
        for lane in self._lanes:
            await lane.quiet()
        end = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < end:
            row = await self._node.ask("figures")
            if all(row[key] == self.level[key] for key in LEVELS):
                break
            await asyncio.sleep(STEP_SECONDS)
        await self._take(self.quiet, "objects")
        done, meant = sum(self.tally.done.values()), sum(self.tally.meant.values())
        row = self.quiet[-1]
        print(
            f"{row['seconds']:6.0f} s  {row['rss_anon_bytes'] / (1 << 20):6.1f} MiB  {row['blocks']} blocks  "
            f"{row['tasks']} tasks  {row['sockets']} sockets  {row['timers']} timers  "
            f"{done} done, {meant} failed as meant, {len(self.tally.unmeant)} failed",
            flush=True,
        )

    def result(self) -> dict[str, Any]:
        """Return what was measured, and what it comes to."""
        tally = self.tally
        flat = flatness(self.series, "rss_anon_bytes", warm_up=WARM_UP_SECONDS, window=WINDOW_SECONDS)
        found = astray(self.level, self.quiet)
        objects = {
            name: [row["objects"].get(name, 0) for row in self.quiet]
            for name in sorted({name for row in self.quiet for name in row["objects"]})
        }
        return {
            "seconds": round(tally.seconds, 1),
            "cpu_seconds": {"node": round(self.cpu_seconds, 1), "all": round(children_cpu_seconds(), 1)},
            "seed": self._options.seed,
            "load": self._options.load,
            "strangers": self._options.strangers,
            "stacks": list(self._options.stacks),
            "done": dict(sorted(tally.done.items())),
            "killed": dict(sorted(tally.killed.items())),
            "failed_as_meant": dict(sorted(tally.meant.items())),
            "longest_seconds_until_they_failed": dict(sorted(tally.meant_seconds.items())),
            "failed": tally.unmeant,
            "rss_anon": flat,
            "not_at_its_level": found,
            "level": {key: self.level[key] for key in LEVELS},
            "passed": not tally.unmeant and not found and flat["flat"] is not False,
            "probes": per_minute(tally.probes),
            "quiet": [{key: value for key, value in row.items() if key != "objects"} for row in self.quiet],
            "objects": {name: counts for name, counts in objects.items() if max(counts) > 1},
            "series": self.series,
        }


def _starter(stack: Stack | None) -> Any:
    async def start() -> Program:
        return await (Program.own("own peer") if stack is None else Program.dialer(stack))

    return start


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0, help="of work and quiet")
    parser.add_argument("--round", type=float, default=60.0, help="seconds of work between two quiet moments")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between samples")
    parser.add_argument("--load", type=float, default=1.0, help="how often things are done: 1 is about half a core")
    parser.add_argument("--strangers", type=int, default=1200, help="hosts that come once, before anything is measured")
    parser.add_argument("--seed", default="soak")
    parser.add_argument("--stacks", nargs="*", choices=("js", "go"), default=["js", "go"])
    parser.add_argument("--out", type=Path, default=RESULTS / "soak.json", help="beside it goes the plot, as .svg")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Soak; return 0 where it passed."""
    end_on_sigterm()
    options = parsed(arguments)
    if "go" in options.stacks and not os.access(GO_PEER, os.X_OK):
        print("go-libp2p is left out: `make peers` with Go builds its program", file=sys.stderr)
        options.stacks = [stack for stack in options.stacks if stack != "go"]
    about = metadata("soak", arguments) | {"command": " ".join(["python", "-m", "benchmarks.soak", *arguments])}
    with tempfile.TemporaryDirectory(prefix="soak.") as folder:
        soak = Soak(options, Path(folder))
        asyncio.run(soak.run())
    result = soak.result()
    keep(options.out, about | result)
    options.out.with_suffix(".svg").write_text(svg(result), encoding="utf-8")
    for line in result["not_at_its_level"]:
        print(line)
    for failure in result["failed"]:
        print(json.dumps(failure))
    if result["rss_anon"]["flat"] is not None:
        largest = result["rss_anon"]["largest_difference"]
        print(f"RssAnon: no window differs by more than {largest:.1%}; {FLAT_PART:.0%} are allowed")
    print("passed" if result["passed"] else "FAILED")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
