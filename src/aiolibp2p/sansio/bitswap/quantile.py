"""A quantile of what was measured lately, in bounded memory."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque


class RecentQuantile:
    """The smallest value that at least `share` of the last `size` values do not exceed.

    Args:
        share: above 0, up to 1; 0.95 is the 95th percentile.
        size: how many values are kept.
        least: with fewer there is no quantile.
    """

    __slots__ = ("_least", "_recent", "_share", "_size", "_sorted")

    def __init__(self, share: float, *, size: int, least: int) -> None:
        self._share = share
        self._size = size
        self._least = least
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    @property
    def value(self) -> float | None:
        """The quantile; None while too few values are known."""
        n = len(self._sorted)
        return self._sorted[max(math.ceil(self._share * n) - 1, 0)] if n >= self._least else None

    def add(self, value: float) -> None:
        """Take a value; the oldest goes where there are too many."""
        if len(self._recent) == self._size:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
        self._recent.append(value)
        insort(self._sorted, value)
