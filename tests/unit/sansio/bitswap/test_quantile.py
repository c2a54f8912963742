"""A quantile of the last values."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from aiolibp2p.sansio.bitswap.quantile import RecentQuantile


def test_there_is_none_before_enough_values_are_known() -> None:
    quantile = RecentQuantile(0.95, size=64, least=3)
    quantile.add(1.0)
    quantile.add(2.0)
    assert quantile.value is None
    quantile.add(3.0)
    assert quantile.value == 3.0


def test_of_100_values_the_95th_percentile_is_the_95th() -> None:
    quantile = RecentQuantile(0.95, size=100, least=1)
    for value in range(100, 0, -1):
        quantile.add(value)
    assert quantile.value == 95


def test_old_values_are_forgotten() -> None:
    quantile = RecentQuantile(0.5, size=4, least=1)
    for value in (9, 9, 9, 9, 1, 1, 1, 2):
        quantile.add(value)
    assert quantile.value == 1
    assert len(quantile._recent) == len(quantile._sorted) == 4


@given(st.lists(st.floats(0, 10)), st.floats(0.01, 1.0), st.integers(1, 20))
def test_it_is_the_smallest_value_that_the_share_does_not_exceed(values: list[float], share: float, size: int) -> None:
    quantile = RecentQuantile(share, size=size, least=1)
    for value in values:
        quantile.add(value)
    kept = sorted(values[-size:])
    assert quantile.value == (kept[max(math.ceil(share * len(kept)) - 1, 0)] if kept else None)
