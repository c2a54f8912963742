"""One alarm for each of many peers, in a heap."""

from __future__ import annotations

import math
from collections.abc import Hashable
from heapq import heappop, heappush
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


class Alarms(Generic[P]):
    """When each peer is to be looked at again; one that is set later than it need be is set anew when it is due."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, P]] = []
        self._at: dict[P, float] = {}
        self._count = 0

    def set(self, peer: P, when: float) -> None:
        """Look at `peer` at `when` at the latest; `math.inf` changes nothing."""
        if when < self._at.get(peer, math.inf):
            self._at[peer] = when
            self._count += 1
            heappush(self._heap, (when, self._count, peer))

    def drop(self, peer: P) -> None:
        """Look at `peer` no more."""
        self._at.pop(peer, None)

    def next(self) -> float:
        """Return when the next is due; `math.inf` for never."""
        heap = self._heap
        while heap and self._at.get(heap[0][2]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else math.inf

    def due(self, now: float) -> list[P]:
        """Take out and return the peers that are due, in order."""
        found = []
        while self.next() <= now:
            peer = heappop(self._heap)[2]
            del self._at[peer]
            found.append(peer)
        return found
