"""Tests of what commands print."""

from __future__ import annotations

import json

import pytest

from aiolibp2p.cli.output import (
    cumulative,
    milliseconds_text,
    print_fields,
    print_json,
    progress_bar,
    rate_text,
    size_text,
)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (268435456, "268 MB"), (1.5e9, "1.5 GB"), (2e18, "2e+03 PB")],
)
def test_a_size_has_a_decimal_unit_and_three_digits(size_bytes: float, text: str) -> None:
    assert size_text(size_bytes) == text


def test_a_rate_is_a_size_each_second() -> None:
    assert rate_text(10**9, 2.0) == "500 MB/s"
    assert rate_text(10**9, 0.0) == "-"


def test_a_round_trip_is_shown_to_the_microsecond() -> None:
    assert milliseconds_text(0.0001425) == "0.142 ms"


def test_a_json_result_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1, None], "b": "…"})
    assert json.loads(capsys.readouterr().out) == {"a": [1, None], "b": "…"}


def test_fields_stand_in_two_columns_and_are_never_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields([("name", "x" * 300), ("listens on", iter(["one", "two"])), ("nothing", [])])
    assert capsys.readouterr().out == f"name        {'x' * 300}\nlistens on  one\n            two\n"


def test_nobody_sees_a_progress_bar_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(1000) as advance:
        assert advance is None
    assert capsys.readouterr().err == ""


def test_a_name_that_is_no_utf_8_is_escaped_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "\udcff…"})
    assert json.loads(capsys.readouterr().out) == {"name": "\udcff…"}


def test_a_bar_is_told_of_steps_where_a_reader_counts_all() -> None:
    steps: list[int] = []
    progress = cumulative(steps.append)
    assert progress is not None
    for size_bytes in (0, 5, 5, 12):
        progress(size_bytes)
    assert steps == [0, 5, 0, 7]
    assert cumulative(None) is None
