"""Fuzz targets for a while each, some at a time, and keep what was learned: `python -m tests.fuzz.campaign [targets]`.

Every target runs in a process of its own, at the lowest priority, from its seeds and its kept corpus. What it came to
is merged into the results file; the inputs that cover most are kept in `corpus/`; an input that failed is kept in the
work directory, and belongs into `corpus/<target>/` once its cause is mended.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.gauge import WARM_UP, growth, samples_of
from tests.fuzz.run import CORPUS, GAUGE, Target, fuzz_files, name_of, targets_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "fuzz.json"
FIRST = ("yamux", "multistream", "noise", "link", "bitswap")
"""Files whose targets come first: the sessions."""
KEPT_FILES = 48
KEPT_BYTES = 24 << 10
KEPT_INPUT_BYTES = 4 << 10
"""What is kept of one target's corpus, so that all of them stay small."""
MERGE_SECONDS = 300
_STATUS = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")
_RUNS = re.compile(r"Done (\d+) runs in")


@dataclass(slots=True)
class Outcome:
    """What one run of one target came to."""

    target: str
    result: str = "ok"
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    executions: int = 0
    executions_per_second: float = 0.0
    edges: int = 0
    features: int = 0
    corpus_files: int = 0
    kept_files: int = 0
    rss_anon_begin_bytes: int = 0
    rss_anon_end_bytes: int = 0
    blocks_begin: int = 0
    blocks_end: int = 0
    about: dict[str, Any] = field(default_factory=dict)


class Campaign:
    """Some targets, one after the other in each of several lanes."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self._seconds: int = options.seconds
        self._results: Path = options.results
        self._corpus: Path = options.corpus
        self._work = work
        self._lock = threading.Lock()
        self._about = {"commit": _commit(), "python": platform.python_version(), "parallel": options.parallel}

    def run(self, target: Target) -> Outcome:
        """Fuzz one target, and keep what came of it."""
        name = target.name
        folder = self._work / name
        live, gauge = folder / "live", folder / "gauge.json"
        live.mkdir(parents=True)
        target.write_corpus(live)
        print(f"{time.strftime('%H:%M:%S')} {name}: {self._seconds} s", flush=True)
        outcome = Outcome(name, about=dict(self._about) | {"begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
        options = [f"-max_total_time={self._seconds}", "-timeout=30", "-rss_limit_mb=1024", "-max_len=4096"]
        log = self._fuzz(name, folder, [f"{GAUGE}{gauge}", *options, f"-artifact_prefix={folder}/", str(live)], outcome)
        self._read(log, gauge, outcome)
        outcome.kept_files = self._keep(target, folder, live)
        self._write(outcome)
        print(f"{time.strftime('%H:%M:%S')} {name}: {outcome.result}, {outcome.executions} inputs", flush=True)
        return outcome

    def _fuzz(self, name: str, folder: Path, arguments: Sequence[str], outcome: Outcome) -> str:
        """Run libFuzzer to its end; return the end of what it wrote."""
        log = folder / "log"
        started = time.monotonic()
        temporary = folder / "tmp"
        temporary.mkdir(exist_ok=True)
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["nice", "-n", "19", sys.executable, "-m", "tests.fuzz.run", name, *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=os.environ | {"TMPDIR": str(temporary), "PYTHONHASHSEED": "0"},
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        shutil.rmtree(temporary, ignore_errors=True)
        outcome.seconds = round(time.monotonic() - started, 1)
        outcome.cpu_seconds = round(_cpu_seconds(usage), 1)
        text = log.read_text("utf-8", "replace")
        if process.returncode != 0:
            found = sorted(path.name for path in folder.glob("*-*") if path.is_file())
            said = next((line for line in text.splitlines() if re.match(r"[A-Za-z_.]*(Error|Exception)\b", line)), "")
            outcome.result = f"failed: {' '.join(found) or process.returncode}: {said}"[:400]
        return text[-20_000:]

    def _read(self, log: str, gauge: Path, outcome: Outcome) -> None:
        if found := _STATUS.findall(log):
            outcome.edges, outcome.features, outcome.corpus_files = map(int, found[-1])
        samples = samples_of(gauge)
        runs = _RUNS.search(log)
        outcome.executions = int(runs[1]) if runs else samples[-1].executions if samples else 0
        outcome.executions_per_second = round(outcome.executions / max(outcome.seconds, 0.001), 1)
        warm = [one for one in samples if one.seconds >= self._seconds * WARM_UP] or samples
        if warm:
            outcome.rss_anon_begin_bytes, outcome.rss_anon_end_bytes = warm[0].rss_anon_bytes, warm[-1].rss_anon_bytes
            outcome.blocks_begin, outcome.blocks_end = warm[0].blocks, warm[-1].blocks
        if outcome.result == "ok" and (grown := growth(samples, self._seconds)) is not None:
            outcome.result = f"grows: {grown}"

    def _keep(self, target: Target, folder: Path, live: Path) -> int:
        """Add to the kept corpus, as far as there is room, of the inputs that cover as much as all; return its size."""
        kept = self._corpus / target.name
        kept.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in kept.iterdir()}
        smallest = folder / "smallest"
        smallest.mkdir()
        if importlib.util.find_spec("atheris") is not None:
            arguments = ["-set_cover_merge=1", f"-max_total_time={MERGE_SECONDS}", str(smallest), str(live)]
            self._fuzz(target.name, folder, arguments, Outcome(target.name))
        room_bytes = KEPT_BYTES - sum(path.stat().st_size for path in kept.iterdir())
        known = there | {name_of(seed) for seed in target.seeds}
        # Their hashes are their names: what is left out is as good as drawn by lot.
        for path in sorted(smallest.iterdir()):
            length = path.stat().st_size
            if len(there) < KEPT_FILES and length <= min(room_bytes, KEPT_INPUT_BYTES) and path.name not in known:
                shutil.copy(path, kept / path.name)
                there.add(path.name)
                room_bytes -= length
        return len(there)

    def _write(self, outcome: Outcome) -> None:
        """Put an outcome in its place among those that are there."""
        with self._lock:
            found = json.loads(self._results.read_text()) if self._results.is_file() else {}
            found[outcome.target] = {key: value for key, value in asdict(outcome).items() if key != "target"}
            self._results.parent.mkdir(parents=True, exist_ok=True)
            self._results.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")


def _cpu_seconds(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def all_targets() -> list[Target]:
    """Return all targets, those of sessions first."""
    found = [target for path in fuzz_files() for target in targets_of(path)]
    rank = {prefix: number for number, prefix in enumerate(FIRST)}
    return sorted(found, key=lambda target: rank.get(target.name.partition(".")[0], len(rank)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign; return 1 where a target failed or grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help="none means all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--parallel", type=int, default=1, help="targets at a time")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="where the smallest inputs are kept")
    parser.add_argument("--work", type=Path, help="where failing inputs and logs stay (default: a temporary directory)")
    options = parser.parse_args(arguments)
    targets = [target for target in all_targets() if target.name in options.targets or not options.targets]
    if unknown := {*options.targets} - {target.name for target in targets}:
        parser.error(f"no target is called {' or '.join(sorted(unknown))}")
    work = options.work or Path(tempfile.mkdtemp(prefix="fuzz."))
    campaign = Campaign(options, work)
    with ThreadPoolExecutor(options.parallel) as lanes:
        outcomes = list(lanes.map(campaign.run, targets))
    failed = [outcome for outcome in outcomes if outcome.result != "ok"]
    for outcome in failed:
        print(f"{outcome.target}: {outcome.result}; see {work / outcome.target}", file=sys.stderr)
    print(f"{len(outcomes)} targets, {len(failed)} failed, {sum(one.executions for one in outcomes)} inputs")
    if not failed and options.work is None:
        shutil.rmtree(work)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
