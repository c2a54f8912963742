"""Where blocks are kept: the interface of a store, and a store in memory.

A block is kept under its multihash: put under one codec or version it is found under any other, and a question is
answered for the CID that was asked. An identity CID holds its block itself: every store has it, and stores nothing.
A store does not check that data and CID belong together; whoever brings a block from outside has to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from aiolibp2p.blocks.cid import IDENTITY, RAW, Cid
from aiolibp2p.errors import BlockNotFoundError


@runtime_checkable
class BlockSource(Protocol):
    """Where a reader of a DAG finds blocks: a store, or a client of the network."""

    async def get(self, cid: Cid) -> bytes:
        """Return the block.

        Raises:
            BlockNotFoundError: it cannot be had.
        Cancellation: nothing is left behind; other readers of the same block go on.
        """
        ...

    def fetch(self, cids: Sequence[Cid]) -> AsyncIterator[bytes]:
        """Yield the blocks in the order of `cids`, reading ahead a bounded number of bytes.

        A list may grow meanwhile: what is appended before the end is reached is yielded too.

        Raises:
            BlockNotFoundError: one cannot be had; those before it were yielded.
        Cancellation: nothing is left behind; other readers of the same blocks go on.
        """
        ...


@runtime_checkable
class Blockstore(BlockSource, Protocol):
    """Where blocks are kept. Any of these may raise StorageError, and DeadlineError after `Timeouts.storage`."""

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        """Return the blocks in the order of `cids`, None for each that is missing; all are in memory at once.

        Cancellation: nothing is left behind.
        """
        ...

    async def sizes(self, cids: Sequence[Cid]) -> list[int | None]:
        """Return the sizes in bytes in the order of `cids`, None for each that is missing (0 is a size).

        Cancellation: nothing is left behind.
        """
        ...

    async def has(self, cid: Cid) -> bool:
        """Return whether the block is here.

        Cancellation: nothing is left behind.
        """
        ...

    async def put(self, cid: Cid, data: bytes) -> None:
        """Keep a block; it is durable when this returns.

        Cancellation: as for `put_many`.
        """
        ...

    async def put_many(self, blocks: Sequence[tuple[Cid, bytes]]) -> None:
        """Keep blocks: all of them are durable when this returns, and after a crash either all are there or none.

        Cancellation: what has begun is completed; what waits is given up.
        """
        ...

    async def delete(self, cid: Cid) -> None:
        """Forget a block, under all its names; one that is missing is no error.

        Cancellation: as for `put_many`.
        """
        ...

    def cids(self) -> AsyncIterator[Cid]:
        """Yield the name of each block, in no particular order, as a CID of version 1 with the codec raw.

        Blocks put or deleted meanwhile may be among them or not.
        """
        ...

    async def close(self) -> None:
        """Let go of everything; what was begun is completed."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class MemoryBlockstore:
    """Blocks in memory, without a limit."""

    def __init__(self, blocks: Iterable[tuple[Cid, bytes]] = ()) -> None:
        """Keep `blocks` from the beginning."""
        self._blocks: dict[bytes, bytes] = {}
        for cid, data in blocks:
            self._keep(cid, data)

    async def get(self, cid: Cid) -> bytes:
        """Return the block; see `Blockstore`.

        Raises:
            BlockNotFoundError: it is not here.
        Cancellation: never waits.
        """
        data = self._find(cid)
        if data is None:
            raise BlockNotFoundError(str(cid))
        return data

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        """Return the blocks, None for each that is missing; see `Blockstore`.

        Cancellation: never waits.
        """
        return [self._find(cid) for cid in cids]

    async def fetch(self, cids: Sequence[Cid]) -> AsyncIterator[bytes]:
        """Yield the blocks in order; see `BlockSource`.

        Raises:
            BlockNotFoundError: one is not here.
        """
        for cid in cids:
            yield await self.get(cid)

    async def sizes(self, cids: Sequence[Cid]) -> list[int | None]:
        """Return the sizes in bytes, None for each block that is missing; see `Blockstore`.

        Cancellation: never waits.
        """
        return [None if data is None else len(data) for data in map(self._find, cids)]

    async def has(self, cid: Cid) -> bool:
        """Return whether the block is here.

        Cancellation: never waits.
        """
        return self._find(cid) is not None

    async def put(self, cid: Cid, data: bytes) -> None:
        """Keep a block.

        Cancellation: never waits.
        """
        self._keep(cid, data)

    async def put_many(self, blocks: Sequence[tuple[Cid, bytes]]) -> None:
        """Keep blocks.

        Cancellation: never waits.
        """
        for cid, data in blocks:
            self._keep(cid, data)

    async def delete(self, cid: Cid) -> None:
        """Forget a block, under all its names.

        Cancellation: never waits.
        """
        self._blocks.pop(cid.multihash, None)

    async def cids(self) -> AsyncIterator[Cid]:
        """Yield the name of each block; see `Blockstore`."""
        for multihash in list(self._blocks):
            yield Cid.from_multihash(multihash, RAW)

    async def close(self) -> None:
        """Do nothing: the blocks stay as long as the store."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __len__(self) -> int:
        return len(self._blocks)

    def _find(self, cid: Cid) -> bytes | None:
        if cid.hash_code == IDENTITY:
            return cid.digest
        return self._blocks.get(cid.multihash)

    def _keep(self, cid: Cid, data: bytes) -> None:
        if cid.hash_code != IDENTITY:
            self._blocks.setdefault(cid.multihash, bytes(data))
