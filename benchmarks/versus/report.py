"""What the comparison prints and keeps."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.versus.measuring import Sample
from benchmarks.versus.programs import ASYNCIO, GO, JS, PY, ROOT, UVLOOP
from benchmarks.versus.rows import Row
from tests.interop.peers import GO_PEER, HERE, PY_PEER, node_program

Results = dict[str, dict[str, list[Sample]]]
"""Samples by row and contestant."""
OURS, THEIRS = (UVLOOP, ASYNCIO), (GO, JS, PY)


def facts() -> dict[str, Any]:
    """Return what the numbers depend on: machine, versions, commit."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    changed = output(["git", "status", "--porcelain", "--untracked-files=no", "--", "src", "tests/interop"])
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": output(["git", "rev-parse", "HEAD"]) + ("+" if changed else ""),
        "machine": {
            "cpu": cpu[1] if cpu is not None else platform.processor(),
            "cores": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "kernel": platform.release(),
            "system": platform.platform(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("aiolibp2p", "cryptography", "protobuf", "uvloop")},
            "node": output([str(node_program()), "--version"]),
            "js": json.loads((HERE / "js" / "package.json").read_text())["dependencies"],
            "go": go_versions(),
            "py": output([str(PY_PEER), "-c", "import importlib.metadata as found; print(found.version('libp2p'))"]),
        },
    }


def output(command: list[str]) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def go_versions() -> dict[str, str]:
    text = (GO_PEER.parent.parent / "go.mod").read_text(encoding="utf-8")
    wanted = re.findall(r"^\s*(?:require\s+)?(github\.com/libp2p/\S+)\s+(v\S+)", text, re.MULTILINE)
    language = re.search(r"^go\s+(\S+)$", text, re.MULTILINE)
    return {"go.mod": language[1] if language is not None else "", **dict(wanted)}


def rows_as_json(rows: Sequence[Row], results: Results) -> dict[str, Any]:
    """Return rows with all single values, medians and ratios."""
    return {
        row.name: {
            "work": row.work,
            "unit": row.unit,
            "count": row.count,
            "concurrency": row.concurrency,
            "chunk_bytes": row.chunk_bytes,
            "goals": row.goals,
            "ratios": {
                f"{ours} / {other}": ratio(results[row.name], ours, other) for ours, other in pairs(results[row.name])
            },
            "medians": {name: middle(samples) for name, samples in results[row.name].items() if samples},
            "cpu_seconds_per_gb": {
                name: median(used)
                for name, samples in results[row.name].items()
                if (used := [each for sample in samples if (each := sample.cpu_seconds_per_gb) is not None])
            },
            "samples": {name: [asdict(sample) for sample in samples] for name, samples in results[row.name].items()},
        }
        for row in rows
    }


def pairs(samples: Mapping[str, Sequence[Sample]]) -> list[tuple[str, str]]:
    """Return what is compared: each of ours with each of the others that were measured."""
    measured = [other for other in THEIRS if samples.get(other) and middle(samples[other])]
    return [(ours, other) for ours in OURS for other in measured if samples.get(ours)]


def middle(samples: Sequence[Sample]) -> float:
    return median(sample.value for sample in samples)


def ratio(samples: Mapping[str, Sequence[Sample]], ours: str, other: str) -> dict[str, float]:
    """Return the ratio of the medians, and the least and largest of the ratios of one repetition each."""
    theirs = {sample.repetition: sample.value for sample in samples[other]}
    each = [sample.value / found for sample in samples[ours] if (found := theirs.get(sample.repetition))]
    medians = middle(samples[ours]) / middle(samples[other])
    return {"medians": medians, "least": min(each, default=medians), "largest": max(each, default=medians)}


def tables(rows: Sequence[Row], results: Results) -> str:
    """Return what is printed at the end: values, ratios, processor time, and what was aimed at."""
    heads = [
        "row",
        "unit",
        "stack",
        "median",
        "least",
        "largest",
        "CPU s dialler",
        "CPU s listener",
        "CPU s/GB",
        "others",
    ]
    values = [heads]
    ratios = [["row", "ratio", "medians", "least", "largest"]]
    for row in rows:
        found = results[row.name]
        for name, samples in found.items():
            if samples:
                values.append([row.name, row.unit, name, *value_cells(samples)])
        for ours, other in pairs(found):
            numbers = ratio(found, ours, other)
            cells = [f"{numbers[key]:.2f}" for key in ("medians", "least", "largest")]
            ratios.append([row.name, f"{ours} / {other}", *cells])
    work = [f"{row.name}: {row.work}" for row in rows]
    aims = [["goal", "", "", ""], *map(goal_cells, goals(rows, results))]
    return "\n".join([*work, "", *aligned(values), "", *aligned(ratios), "", *aligned(aims)])


def value_cells(samples: Sequence[Sample]) -> list[str]:
    values = [sample.value for sample in samples]
    per_gb = [used for sample in samples if (used := sample.cpu_seconds_per_gb) is not None]
    return [
        *(number(value) for value in (middle(samples), min(values), max(values))),
        f"{median(sample.dialler_cpu_seconds for sample in samples):.2f}",
        f"{median(sample.listener_cpu_seconds for sample in samples):.2f}",
        f"{median(per_gb):.2f}" if per_gb else "",
        f"{median(sample.others_cores for sample in samples):.2f}",
    ]


def goals(rows: Sequence[Row], results: Results) -> list[dict[str, Any]]:
    """Return what was aimed at with aiolibp2p on uvloop, and whether it was reached."""
    found: list[dict[str, Any]] = []
    for row in rows:
        samples = results[row.name]
        limit = "least" if row.higher_is_better else "most"
        wanted = [(f"{row.name} / {other}", goal, other) for other, goal in row.goals.items() if samples.get(other)]
        if row.goal is not None:
            wanted.append((f"{row.name}, {row.unit}", row.goal, ""))
        for what, goal, other in wanted if samples.get(UVLOOP) else ():
            value = ratio(samples, UVLOOP, other)["medians"] if other else middle(samples[UVLOOP])
            reached = value >= goal if row.higher_is_better else value <= goal
            found.append({"what": what, "value": value, limit: goal, "reached": reached})
    return found


def goal_cells(goal: Mapping[str, Any]) -> list[str]:
    sign, wanted = ("≥", goal["least"]) if "least" in goal else ("≤", goal["most"])
    return [goal["what"], f"{goal['value']:.2f}", f"{sign} {wanted:g}", "reached" if goal["reached"] else "NOT reached"]


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 10 else f"{value:,.2f}"


def aligned(table: list[list[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if re.match(r"[\d≥≤]", cell) else cell.ljust(width)
            for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in table
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]
