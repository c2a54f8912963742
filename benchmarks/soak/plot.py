"""Charts of a soak as one SVG: a line for each figure over time, from zero, with its last value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 460, 150
LEFT, TOP, BOTTOM = 70, 26, 22
COLUMNS = 2
MIB = 1 << 20
COLOURS = ("#1f77b4", "#d62728", "#2ca02c")
STYLE = "text{font:11px sans-serif;fill:#333}.t{font-weight:bold}.a{stroke:#bbb}path{fill:none;stroke-width:1.2}"

Points = Sequence[tuple[float, float]]


def charts(soak: dict[str, Any]) -> list[tuple[str, dict[str, Points], Callable[[float], str]]]:
    """Return what is drawn: a title, its lines, and how a value is written."""
    series, quiet, probes = soak["series"], soak["quiet"], soak["probes"]

    def line(rows: Sequence[dict[str, Any]], key: str, scale: float = 1.0) -> Points:
        return [(row["seconds"] / 60, row[key] * scale) for row in rows]

    def whole(value: float) -> str:
        return f"{value:.0f}"

    def milliseconds(value: float) -> str:
        return f"{value:.3g} ms"

    return [
        (
            "RssAnon, MiB",
            {
                "all": line(series, "rss_anon_bytes", 1 / MIB),
                "quiet": line(quiet, "rss_anon_bytes", 1 / MIB),
            },
            lambda value: f"{value:.1f}",
        ),
        ("Blocks of Python's allocator", {"all": line(series, "blocks"), "quiet": line(quiet, "blocks")}, whole),
        ("Tasks", {"all": line(series, "tasks"), "quiet": line(quiet, "tasks")}, whole),
        ("Sockets", {"all": line(series, "sockets"), "quiet": line(quiet, "sockets")}, whole),
        ("Timers", {"all": line(series, "timers"), "quiet": line(quiet, "timers")}, whole),
        (
            "Streams and tombstones",
            {"streams": line(series, "streams"), "tombstones": line(series, "tombstones")},
            whole,
        ),
        (
            "Ping and echo, p99 of each minute",
            {name: line(probes, f"{name}_p99", 1000.0) for name in ("ping", "echo")},
            milliseconds,
        ),
        (
            "A file of one block, each minute",
            {"p50": line(probes, "fetch_p50", 1000.0), "p99": line(probes, "fetch_p99", 1000.0)},
            milliseconds,
        ),
    ]


def svg(soak: dict[str, Any]) -> str:
    """Return the charts of a soak."""
    drawn = charts(soak)
    rows = -(-len(drawn) // COLUMNS)
    minutes = max(soak["seconds"] / 60, 0.01)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{COLUMNS * WIDTH}" height="{rows * HEIGHT}" '
        f'viewBox="0 0 {COLUMNS * WIDTH} {rows * HEIGHT}"><style>{STYLE}</style>'
        '<rect width="100%" height="100%" fill="#fff"/>'
    ]
    for number, (title, lines, text) in enumerate(drawn):
        x, y = number % COLUMNS * WIDTH, number // COLUMNS * HEIGHT
        parts.append(f'<g transform="translate({x},{y})">{_chart(title, lines, text, minutes)}</g>')
    return "\n".join([*parts, "</svg>", ""])


def _chart(title: str, lines: dict[str, Points], text: Callable[[float], str], minutes: float) -> str:
    width, height = WIDTH - LEFT - 16, HEIGHT - TOP - BOTTOM
    largest = max((value for points in lines.values() for _, value in points), default=0.0) or 1.0
    bottom = TOP + height
    parts = [
        f'<text class="t" x="{LEFT}" y="16">{escape(title)}</text>',
        f'<path class="a" d="M{LEFT},{TOP}V{bottom}H{LEFT + width}"/>',
        f'<text x="{LEFT - 4}" y="{TOP + 8}" text-anchor="end">{escape(text(largest))}</text>',
        f'<text x="{LEFT - 4}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{LEFT + width}" y="{bottom + 14}" text-anchor="end">{minutes:.3g} min</text>',
    ]
    at = LEFT + width
    for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
        if not points:
            continue
        path = " ".join(
            f"{LEFT + width * minute / minutes:.1f},{bottom - height * value / largest:.1f}" for minute, value in points
        )
        parts.append(f'<path stroke="{colour}" d="M{path}"/>')
        label = f"{name} {text(points[-1][1])}"
        parts.append(f'<text x="{at}" y="16" text-anchor="end" style="fill:{colour}">{escape(label)}</text>')
        at -= 8 * len(label) + 8
    return "".join(parts)
