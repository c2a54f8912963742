"""The deadlines of one connection, on one timer of the loop.

A stream that waits for a byte, a tombstone or a held FIN costs a heap entry here instead of a timer of the loop (four
microseconds with `asyncio.timeout`). An entry that was overtaken stays in the heap until its time or the next sweep;
its owner knows, because it remembers the time that counts.
"""

from __future__ import annotations

import asyncio
import math
from heapq import heapify, heappop, heappush
from typing import Protocol

from aiolibp2p.runtime import Clock


class Waiting(Protocol):
    """Something with deadlines, told apart by a small number."""

    def deadline_of(self, kind: int) -> float | None:
        """Return the time that counts now, or None."""
        ...

    def on_deadline(self, kind: int) -> None:
        """Act: the time has come."""
        ...


class Deadlines:
    """A heap of deadlines behind one `call_at`."""

    __slots__ = ("_clock", "_closed", "_heap", "_sequence", "_stale", "_timer")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Waiting, int]] = []
        self._sequence = 0
        self._stale = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def add(self, when: float, waiting: Waiting, kind: int) -> None:
        """Call `waiting.on_deadline(kind)` at `when`, if that is still its deadline then; `math.inf` is never."""
        if when == math.inf or self._closed:
            return
        self._sequence += 1
        entry = (when, self._sequence, waiting, kind)
        heap = self._heap
        heappush(heap, entry)
        if heap[0] is entry:
            self._arm()

    def overtaken(self) -> None:
        """Say that one entry no longer counts; when most do not, they are swept out."""
        self._stale += 1
        if self._stale > 256 and self._stale * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].deadline_of(entry[3]) == entry[0]]
            heapify(self._heap)
            self._stale = 0

    def close(self) -> None:
        """Forget all deadlines and refuse further ones."""
        self._closed = True
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(self._heap[0][0], self._fire)

    def _fire(self) -> None:
        self._timer = None
        try:
            self._act(self._clock.now())
        finally:
            # Whatever one of them raised, the others have deadlines too.
            self._drop_stale()
            if self._heap and self._timer is None:
                self._arm()

    def _act(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            when, _, waiting, kind = heappop(self._heap)
            if waiting.deadline_of(kind) == when:
                waiting.on_deadline(kind)
            elif self._stale:
                self._stale -= 1

    def _drop_stale(self) -> None:
        while self._heap and self._heap[0][2].deadline_of(self._heap[0][3]) != self._heap[0][0]:
            heappop(self._heap)
            self._stale = max(0, self._stale - 1)
