"""Counts what limits refuse, for machines that are tested without a host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


class Refusals(Counter[str]):
    """How often each limit has refused something."""

    def __call__(self, limit: str, count: int = 1, /) -> None:
        self[limit] += count


def reached(refusals: Mapping[str, int]) -> dict[str, int]:
    """Return the limits that have refused something, and how often."""
    return {limit: count for limit, count in refusals.items() if count}
