"""Blocks in LMDB: the store of a node, crash-safe, in one file that grows with what is put.

Here is what happens on the loop's thread: which call waits for what (`threads.py`, `lookups.py`, `commits.py`). What
happens on a storage thread is in `lmdb_map.py`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from aiolibp2p.blocks.cid import IDENTITY, RAW, Cid
from aiolibp2p.blocks.commits import Change, Commits
from aiolibp2p.blocks.lmdb_map import KEY_BYTES_MAX, LmdbMap
from aiolibp2p.blocks.lookups import Asking, Lookups, Refused
from aiolibp2p.blocks.threads import StorageThreads
from aiolibp2p.errors import BlockNotFoundError, InvalidValueError, LocalProtocolError
from aiolibp2p.limits import Limits, Timeouts

_FIRST_BLOCKS_AHEAD: Final = 4
"""Blocks that a reader of many asks for before it knows how large they are."""


class LmdbBlockstore:
    """Blocks in a directory, for one process at a time; use it with `async with`."""

    def __init__(
        self, path: str | os.PathLike[str], *, limits: Limits | None = None, timeouts: Timeouts | None = None
    ) -> None:
        """Name the directory, which is made when the store is opened; the disk is not touched before."""
        self.path = Path(path)
        self._limits = limits if limits is not None else Limits()
        self._timeouts = timeouts if timeouts is not None else Timeouts()
        self._map = LmdbMap(self.path, self._limits)
        self._threads: StorageThreads | None = None
        self._blocks: Lookups[bytes]
        self._sizes: Lookups[int]
        self._commits: Commits

    async def open(self) -> None:
        """Open the store, and make it where the directory is missing or empty.

        Raises:
            StorageError: another process has it open (`errno` is EWOULDBLOCK), the directory holds something else, or
                the disk refuses.
            DeadlineError: that has taken longer than `Timeouts.storage`; the store is closed again when it returns.
            LocalProtocolError: it is open.
        Cancellation: the store is closed.
        """
        if self._threads is not None:
            raise LocalProtocolError(f"the store {self.path} is open")
        limits, timeouts = self._limits, self._timeouts
        threads = StorageThreads(f"blocks {self.path.name}", limits=limits, timeouts=timeouts)
        refused = Refused()
        self._blocks = Lookups(threads, self._map.read_blocks, refused, limits=limits, timeouts=timeouts)
        self._sizes = Lookups(threads, self._map.read_sizes, refused, limits=limits, timeouts=timeouts)
        self._commits = Commits(threads, self._map.write, limits=limits, timeouts=timeouts)
        self._threads = threads
        try:
            await threads.run(self._map.open)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Give up what waits, complete what was begun, and let the directory go.

        Raises:
            DeadlineError: a call has not returned within `Timeouts.storage`; the directory is let go when it does.
        Cancellation: it is closed all the same.
        """
        threads, self._threads = self._threads, None
        if threads is None:
            return
        self._commits.close()
        await threads.close(self._map.close)

    async def get(self, cid: Cid) -> bytes:
        """Return the block.

        Raises:
            BlockNotFoundError: it is not here.
            DeadlineError: that has taken longer than `Timeouts.storage`, now or in an earlier call for this block that
                has not returned.
            StorageError: the disk failed.
            LocalProtocolError: the store is not open.
        Cancellation: others who read the same block go on.
        """
        data = (await self.get_many((cid,)))[0]
        if data is None:
            raise BlockNotFoundError(str(cid))
        return data

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        """Return the blocks in the order of `cids`, None for each that is missing; all are in memory at once.

        Raises:
            DeadlineError, StorageError, LocalProtocolError: as for `get`, of any of the blocks.
        Cancellation: others who read the same blocks go on.
        """
        self._opened()
        found = await self._blocks.find(_keys(cids))
        return [cid.digest if cid.hash_code == IDENTITY else found.get(cid.multihash) for cid in cids]

    async def fetch(self, cids: Sequence[Cid]) -> AsyncIterator[bytes]:
        """Yield the blocks in the order of `cids`, while the next `Limits.storage_ahead_bytes` are read.

        Raises:
            BlockNotFoundError, DeadlineError, StorageError, LocalProtocolError: as for `get`; the blocks before the one
                that is missing were yielded.
        Cancellation: others who read the same blocks go on.
        """
        self._opened()
        position, window = 0, cids[:_FIRST_BLOCKS_AHEAD]
        ahead: Asking[bytes] | None = self._blocks.ask(_keys(window))
        try:
            while window:
                asked, ahead = ahead or self._blocks.ask(_keys(window)), None
                try:
                    found = await asked.answers()
                finally:
                    asked.leave()
                position += len(window)
                largest_bytes = max((len(data) for data in found.values() if data), default=1)
                count = min(max(self._limits.storage_ahead_bytes // largest_bytes, 1), self._limits.storage_read_blocks)
                following = cids[position : position + count]
                if following:
                    ahead = self._blocks.ask(_keys(following))
                for cid in window:
                    data = cid.digest if cid.hash_code == IDENTITY else found.get(cid.multihash)
                    if data is None:
                        raise BlockNotFoundError(str(cid))
                    yield data
                window = following or cids[position : position + count]
        finally:
            if ahead is not None:
                ahead.leave()

    async def sizes(self, cids: Sequence[Cid]) -> list[int | None]:
        """Return the sizes in bytes in the order of `cids`, None for each block that is missing (0 is a size).

        Raises:
            DeadlineError, StorageError, LocalProtocolError: as for `get`, of any of the blocks.
        Cancellation: others who ask for the same blocks go on.
        """
        self._opened()
        found = await self._sizes.find(_keys(cids))
        return [len(cid.digest) if cid.hash_code == IDENTITY else found.get(cid.multihash) for cid in cids]

    async def has(self, cid: Cid) -> bool:
        """Return whether the block is here.

        Raises:
            DeadlineError, StorageError, LocalProtocolError: as for `get`.
        Cancellation: others who ask for the same block go on.
        """
        return (await self.sizes((cid,)))[0] is not None

    async def put(self, cid: Cid, data: bytes) -> None:
        """Keep a block; see `put_many`.

        Raises:
            As for `put_many`.
        Cancellation: as for `put_many`.
        """
        await self.put_many(((cid, data),))

    async def put_many(self, blocks: Sequence[tuple[Cid, bytes]]) -> None:
        """Keep blocks: all of them are durable when this returns, and after a crash either all are there or none.

        A commit costs two syncs of the disk: megabytes at a time are many times faster than blocks one by one. Blocks
        that are here already are not written again.

        Raises:
            StorageError: the disk is full (`errno` is ENOSPC), or failed otherwise; none of the blocks was kept.
            DeadlineError: that has taken longer than `Timeouts.storage`, its turn included; the blocks may be kept yet,
                and until that is known no one can put or delete them.
            InvalidValueError: a CID is longer than a key can be; none of the blocks was kept.
            LocalProtocolError: the store is not open.
        Cancellation: what has begun is completed; what waits is given up.
        """
        self._opened()
        changes: list[Change] = []
        for cid, data in blocks:
            if cid.hash_code == IDENTITY:
                continue
            key = cid.multihash
            if len(key) > KEY_BYTES_MAX:
                raise InvalidValueError(f"block {cid}: its multihash of {len(key)} bytes is too long to keep")
            changes.append((key, data))
        if changes:
            await self._commits.make(changes)

    async def delete(self, cid: Cid) -> None:
        """Forget a block, under all its names; one that is missing is no error.

        Raises:
            StorageError, DeadlineError, LocalProtocolError: as for `put_many`.
        Cancellation: as for `put_many`.
        """
        self._opened()
        if keys := _keys((cid,)):
            await self._commits.make([(keys[0], None)])

    async def cids(self) -> AsyncIterator[Cid]:
        """Yield the name of each block, as a CID of version 1 with the codec raw, in the order of the keys.

        Blocks put or deleted meanwhile may be among them or not.

        Raises:
            DeadlineError, StorageError, LocalProtocolError: as for `get`.
        Cancellation: nothing is left behind.
        """
        last = b""
        while keys := await self._opened().run(partial(self._map.keys_after, last)):
            for key in keys:
                yield Cid.from_multihash(key, RAW)
            last = keys[-1]

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # ------------------------------------------------------------------------------------------ on the loop's thread

    def _opened(self) -> StorageThreads:
        if self._threads is None:
            raise LocalProtocolError(f"the store {self.path} is not open")
        return self._threads


def _keys(cids: Sequence[Cid]) -> list[bytes]:
    """Return the keys of the blocks that can be in the store."""
    return [key for cid in cids if cid.hash_code != IDENTITY and len(key := cid.multihash) <= KEY_BYTES_MAX]
