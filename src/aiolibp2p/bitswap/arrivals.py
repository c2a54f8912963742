"""Blocks in the order in which they come, in bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from aiolibp2p.blocks.cid import Cid

Wanted = tuple[Cid, asyncio.Future[bytes]]


class Arrivals:
    """What is wanted of many blocks, in the order in which they come.

    Args:
        most_bytes: where more has come that nobody has read, what has not is wanted no longer for the time being.
        give_up: told of that.
    """

    __slots__ = ("_again", "_give_up", "_held_bytes", "_most_bytes", "_next", "ready", "waiting")

    def __init__(self, most_bytes: int, give_up: Callable[[Iterable[Wanted]], None]) -> None:
        self.ready: deque[tuple[Cid, asyncio.Future[bytes] | bytes]] = deque()
        self.waiting: dict[asyncio.Future[bytes], Cid] = {}
        self._most_bytes = most_bytes
        self._give_up = give_up
        self._held_bytes = 0
        self._again: deque[Cid] = deque()
        self._next: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self.ready) + len(self.waiting)

    def expect(self, cids: Sequence[Cid], items: Sequence[asyncio.Future[bytes] | bytes]) -> None:
        """Take what was wanted: each block, or what will be done when it has come."""
        for cid, item in zip(cids, items, strict=True):
            if isinstance(item, bytes):
                self._held_bytes += len(item)
                self.ready.append((cid, item))
            else:
                self.waiting[item] = cid
                item.add_done_callback(self._arrived)

    def next(self) -> asyncio.Future[None]:
        """Return what is done when something has come."""
        self._next = asyncio.get_running_loop().create_future()
        return self._next

    def pop(self) -> tuple[Cid, bytes]:
        """Return what came first, or raise why it did not."""
        cid, item = self.ready.popleft()
        if not isinstance(item, bytes):
            item = item.result()
        self._held_bytes -= len(item)
        return cid, item

    def take_again(self, most: int) -> list[Cid]:
        """Return some of what was given up for the time being."""
        return [self._again.popleft() for _ in range(min(most, len(self._again)))]

    def close(self) -> list[Wanted]:
        """Return what is still wanted, and expect it no more."""
        wanted = [(cid, future) for future, cid in self.waiting.items()]
        self.waiting.clear()
        return wanted

    def _arrived(self, future: asyncio.Future[bytes]) -> None:
        cid = self.waiting.pop(future, None)
        if cid is None:
            return
        if not future.cancelled() and future.exception() is None:
            self._held_bytes += len(future.result())
        self.ready.append((cid, future))
        if self._held_bytes > self._most_bytes and self.waiting:
            wanted = self.close()
            self._again.extendleft(cid for cid, _ in reversed(wanted))
            self._give_up(wanted)
        if self._next is not None and not self._next.done():
            self._next.set_result(None)
