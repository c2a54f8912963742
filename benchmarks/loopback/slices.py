"""Alternating slices of time with and without something: how they follow each other, and what is made of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

PAIRS = 61
SLICE_SECONDS = 0.5
PAUSE_SECONDS = 0.1
"""Before a slice, for what was begun or ended just now to pile up, or to drain."""
GOAL = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True)
class Pair:
    """Bytes a second in two slices that follow each other."""

    with_silence: float
    without: float

    @property
    def ratio(self) -> float:
        return self.with_silence / self.without if self.without else 0.0


def order(number: int) -> tuple[bool, bool]:
    """Return which slices of a pair are with silence: the order alternates from pair to pair."""
    first = number % 2 == 0
    return first, not first


def pair(number: int, rates: Sequence[float]) -> Pair:
    """Return a pair from the rates of its slices as they came."""
    one, other = rates
    return Pair(one, other) if order(number)[0] else Pair(other, one)


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the median."""
    rng = random.Random(0)
    medians = sorted(median(rng.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return medians[RESAMPLES * 25 // 1000], medians[RESAMPLES * 975 // 1000 - 1]


def is_missed(pairs: Sequence[Pair]) -> bool:
    """Return whether the interval lies wholly below the goal."""
    return interval([each.ratio for each in pairs])[1] < GOAL


def line(number: int, each: Pair) -> str:
    """Return what is printed of one pair."""
    rates = f"with {each.with_silence / 1e6:7.1f} MB/s  without {each.without / 1e6:7.1f} MB/s"
    return f"{number:3}  {rates}  {each.ratio:.3f}"


def conclusion(pairs: Sequence[Pair]) -> str:
    """Return what is printed of all pairs."""
    ratios = [each.ratio for each in pairs]
    low, high = interval(ratios)
    reached = "reached" if median(ratios) >= GOAL else "NOT reached"
    return f"median ratio {median(ratios):.3f}, 95 % interval {low:.3f} to {high:.3f}, goal {GOAL}: {reached}"


def as_json(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return what is kept of all pairs."""
    ratios = [each.ratio for each in pairs]
    return {
        "slice_seconds": SLICE_SECONDS,
        "median_ratio": median(ratios),
        "interval_95": list(interval(ratios)),
        "goal": GOAL,
        "bytes_a_second": [{"with_silence": each.with_silence, "without": each.without} for each in pairs],
    }
