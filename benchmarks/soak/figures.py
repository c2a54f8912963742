"""What a soak has measured, and what is said about it: levels, windows, percentiles."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

WARM_UP_SECONDS = 600.0
WINDOW_SECONDS = 300.0
FLAT_PART = 0.05
"""How far a window's median may be from that of all windows."""
LEVELS = ("tasks", "sockets", "descriptors", "timers", "connections", "streams", "tombstones")
"""What is back at its level whenever nothing goes on."""
PROBES = ("ping", "echo", "fetch")

Row = dict[str, Any]


def windows(series: Sequence[Row], key: str, *, warm_up: float, window: float) -> list[tuple[float, float]]:
    """Return when each whole window after the warm-up begins, in seconds, and the median of `key` in it."""
    found: list[tuple[float, float]] = []
    if not series:
        return found
    last = series[-1]["seconds"]
    begin = warm_up
    # The last sample of a run that was cut into windows may lie a moment before its end.
    while begin + window <= last + window / 20:
        values = [row[key] for row in series if begin <= row["seconds"] < begin + window]
        if values:
            found.append((begin, float(median(values))))
        begin += window
    return found


def flatness(series: Sequence[Row], key: str, *, warm_up: float, window: float) -> Row:
    """Return how flat `key` is: the median of each window, that of all, and the largest part by which one differs."""
    found = windows(series, key, warm_up=warm_up, window=window)
    if not found:
        return {"windows": [], "flat": None}
    middle = median(value for _, value in found)
    largest = max(abs(value / middle - 1) for _, value in found) if middle else 0.0
    return {
        "windows": [{"seconds": begin, "median": value} for begin, value in found],
        "median": middle,
        "largest_difference": round(largest, 4),
        "flat": largest <= FLAT_PART,
    }


def astray(level: Row, quiet: Sequence[Row]) -> list[str]:
    """Return a line for each quiet moment at which something was not back at its level."""
    return [
        f"after {row['seconds']:.0f} s: {key} is {row[key]}, its level {level[key]}"
        for row in quiet
        for key in LEVELS
        if row[key] != level[key]
    ]


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that `part` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(part * 1000) * len(ordered) // 1000) - 1))]


def per_minute(probes: Sequence[tuple[float, Row]], minute_seconds: float = 60.0) -> list[Row]:
    """Return for each minute the median and the 99th percentile of every probe, in seconds."""
    minutes: dict[int, list[Row]] = {}
    for seconds, answer in probes:
        minutes.setdefault(int(seconds // minute_seconds), []).append(answer)
    rows = []
    for minute, answers in sorted(minutes.items()):
        row: Row = {"seconds": minute * minute_seconds, "n": len(answers)}
        for name in PROBES:
            values = [answer[name] for answer in answers]
            row[f"{name}_p50"], row[f"{name}_p99"] = round(median(values), 6), round(percentile(values, 0.99), 6)
        rows.append(row)
    return rows
