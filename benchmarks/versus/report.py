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

from benchmarks.versus.programs import ASYNCIO, GO, JS, ROOT, UVLOOP
from benchmarks.versus.rows import Row, Sample
from tests.interop.peers import GO_PEER, HERE, node_program

Results = dict[str, dict[str, list[Sample]]]
"""Samples by row and contestant."""


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
            "goals": row.goals,
            "ratios": {
                f"{ours} / {other}": ratio(results[row.name], ours, other)
                for ours in (UVLOOP, ASYNCIO)
                for other in (GO, JS)
                if results[row.name].get(ours) and results[row.name].get(other)
            },
            "medians": {name: middle(samples) for name, samples in results[row.name].items() if samples},
            "samples": {name: [asdict(sample) for sample in samples] for name, samples in results[row.name].items()},
        }
        for row in rows
    }


def middle(samples: Sequence[Sample]) -> float:
    return median(sample.value for sample in samples)


def ratio(samples: Mapping[str, Sequence[Sample]], ours: str, other: str) -> dict[str, float]:
    """Return the ratio of the medians, and the least and largest of the ratios of one repetition each."""
    theirs = {sample.repetition: sample.value for sample in samples[other]}
    each = [sample.value / theirs[sample.repetition] for sample in samples[ours] if sample.repetition in theirs]
    medians = middle(samples[ours]) / middle(samples[other])
    return {"medians": medians, "least": min(each, default=medians), "largest": max(each, default=medians)}


def tables(rows: Sequence[Row], results: Results) -> str:
    """Return what is printed at the end: rates, ratios with their goals, processor time."""
    rates = [["row", "unit", "stack", "median", "least", "largest", "CPU s dialler", "CPU s listener", "others"]]
    ratios = [["row", "ratio", "medians", "least", "largest", "goal", ""]]
    for row in rows:
        for name, samples in results[row.name].items():
            if samples:
                rates.append([row.name, row.unit, name, *rate_cells(samples)])
        for ours in (UVLOOP, ASYNCIO):
            for other in (GO, JS):
                if results[row.name].get(ours) and results[row.name].get(other):
                    ratios.append(ratio_cells(row, results[row.name], ours, other))
    work = [f"{row.name}: {row.work}" for row in rows]
    return "\n".join([*work, "", *aligned(rates), "", *aligned(ratios)])


def rate_cells(samples: Sequence[Sample]) -> list[str]:
    values = [sample.value for sample in samples]
    return [
        *(number(value) for value in (middle(samples), min(values), max(values))),
        f"{median(sample.dialler_cpu_seconds for sample in samples):.2f}",
        f"{median(sample.listener_cpu_seconds for sample in samples):.2f}",
        f"{median(sample.others_cores for sample in samples):.2f}",
    ]


def ratio_cells(row: Row, samples: Mapping[str, Sequence[Sample]], ours: str, other: str) -> list[str]:
    found = ratio(samples, ours, other)
    cells = [row.name, f"{ours} / {other}", *(f"{found[key]:.2f}" for key in ("medians", "least", "largest"))]
    goal = row.goals.get(other)
    if goal is None:
        return [*cells, "", ""]
    reached = found["medians"] >= goal if row.higher_is_better else found["medians"] <= goal
    sign = "≥" if row.higher_is_better else "≤"
    return [*cells, f"{sign} {goal:g}", "reached" if reached else "NOT reached"]


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


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
