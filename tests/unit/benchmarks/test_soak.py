"""What is said of a soak's figures."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.soak.figures import LEVELS, Row, astray, flatness, per_minute, percentile, windows
from benchmarks.soak.plot import svg


def series(*values: float, every: float = 60.0) -> list[Row]:
    return [{"seconds": number * every, "rss_anon_bytes": value} for number, value in enumerate(values)]


def test_windows_are_whole_and_begin_after_the_warm_up() -> None:
    found = windows(series(9, 9, 1, 2, 3, 4, 5), "rss_anon_bytes", warm_up=120.0, window=120.0)
    assert found == [(120.0, 1.5), (240.0, 3.5)]


def test_what_is_shorter_than_the_warm_up_and_a_window_is_not_called_flat() -> None:
    assert flatness(series(1, 1, 1), "rss_anon_bytes", warm_up=120.0, window=120.0)["flat"] is None
    assert flatness([], "rss_anon_bytes", warm_up=120.0, window=120.0)["flat"] is None


@pytest.mark.parametrize(("last", "flat"), [(104, True), (106, False)])
def test_memory_is_flat_where_no_window_differs_by_a_twentieth_from_the_median_of_all(last: float, flat: bool) -> None:
    found = flatness(
        series(50, 50, 100, 100, 100, 100, last, last, last), "rss_anon_bytes", warm_up=120.0, window=120.0
    )
    assert found["median"] == 100
    assert found["flat"] is flat


def test_a_quiet_moment_that_is_not_at_its_level_is_named() -> None:
    level: Row = dict.fromkeys(LEVELS, 1)
    moments: list[Row] = [level | {"seconds": 60.0}, level | {"seconds": 120.0, "timers": 3}]
    assert astray(level, moments) == ["after 120 s: timers is 3, its level 1"]


@pytest.mark.parametrize(("n", "expected"), [(1, 1), (100, 99), (101, 100), (1000, 990)])
def test_the_99th_percentile_is_the_smallest_that_so_many_do_not_exceed(n: int, expected: int) -> None:
    assert percentile([float(value) for value in range(n, 0, -1)], 0.99) == expected


def test_probes_are_summed_up_by_the_minute() -> None:
    probes = [
        (seconds, {"ping": value, "echo": 1.0, "fetch": 2.0}) for seconds, value in ((1, 0.1), (2, 0.3), (61, 9.0))
    ]
    first, second = per_minute(probes)
    assert (first["n"], first["ping_p50"], first["ping_p99"], first["fetch_p99"]) == (2, 0.2, 0.3, 2.0)
    assert (second["seconds"], second["n"], second["ping_p50"]) == (60.0, 1, 9.0)


def test_the_plot_is_a_picture_of_every_figure() -> None:
    moment: Row = dict.fromkeys((*LEVELS, "rss_anon_bytes", "blocks"), 7)
    soak = {
        "seconds": 120.0,
        "series": [moment | {"seconds": 1.0}, moment | {"seconds": 60.0}],
        "quiet": [moment | {"seconds": 119.0}],
        "probes": per_minute([(1.0, {"ping": 0.001, "echo": 0.002, "fetch": 0.003})]),
    }
    titles = [element.text for element in ElementTree.fromstring(svg(soak)).iter() if element.get("class") == "t"]
    assert titles[:5] == ["RssAnon, MiB", "Blocks of Python's allocator", "Tasks", "Sockets", "Timers"]
    assert len(titles) == 8
