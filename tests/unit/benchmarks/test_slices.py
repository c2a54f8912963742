"""Slices of time with and without silence, and what is made of them."""

from __future__ import annotations

from statistics import median

import pytest

from benchmarks.loopback import slices
from benchmarks.loopback.slices import Pair


def test_the_order_within_a_pair_alternates() -> None:
    assert [slices.order(number) for number in range(3)] == [(True, False), (False, True), (True, False)]


def test_a_pair_knows_which_of_its_slices_was_with_silence() -> None:
    assert slices.pair(0, [1.0, 2.0]) == slices.pair(1, [2.0, 1.0]) == Pair(with_silence=1.0, without=2.0)
    assert Pair(with_silence=1.0, without=2.0).ratio == 0.5


def test_a_slice_in_which_nothing_came_makes_no_ratio_above_the_goal() -> None:
    assert Pair(with_silence=1.0, without=0.0).ratio == 0.0


def test_the_interval_holds_the_median_and_is_the_same_each_time() -> None:
    ratios = [0.9 + number / 100 for number in range(61)]
    low, high = slices.interval(ratios)
    assert low < median(ratios) < high
    assert slices.interval(ratios) == (low, high)


@pytest.mark.parametrize(("with_silence", "missed"), [(0.9, True), (1.0, False)])
def test_the_goal_is_missed_where_the_interval_lies_wholly_below(with_silence: float, missed: bool) -> None:
    pairs = [Pair(with_silence=with_silence + number / 10_000, without=1.0) for number in range(61)]
    assert slices.is_missed(pairs) is missed
    assert ("NOT reached" in slices.conclusion(pairs)) is missed


def test_every_single_rate_is_kept() -> None:
    kept = slices.as_json([Pair(with_silence=1.0, without=2.0), Pair(with_silence=3.0, without=2.0)])
    assert kept["bytes_a_second"] == [{"with_silence": 1.0, "without": 2.0}, {"with_silence": 3.0, "without": 2.0}]
    assert kept["median_ratio"] == 1.0
