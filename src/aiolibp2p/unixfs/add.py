"""Adding files and directories: a thread reads, hashes and lays out while the store makes the batch before it durable.

CIDs are those of Kubo's `add --cid-version=1`: raw leaves of 256 KiB, 174 links to a node, large directories sharded,
names that begin with a dot left out, symbolic links kept as such. Memory is bounded: two batches, whatever the size of
a file; of a directory, its names and CIDs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from aiolibp2p.blocks.cid import Cid
from aiolibp2p.blocks.store import Blockstore
from aiolibp2p.unixfs.layout import CHUNK_BYTES, MAX_LINKS, BalancedTree, Block, Layout, Subtree, leaf_of
from aiolibp2p.unixfs.walk import Readable, Walk

BATCH_BYTES = 16 << 20
"""Bytes made durable at once: an LMDB store synced every 16 MiB takes 291 MB/s, and two batches are in memory."""

BATCH_BLOCKS = 4096
"""Blocks made durable at once, where they are small."""

Source = str | os.PathLike[str] | Readable | AsyncIterable[bytes]
Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Added:
    """What an `add` stored: its root, the bytes of its files, and its blocks, each counted as often as it occurs."""

    cid: Cid
    content_bytes: int
    blocks: int


async def add(
    store: Blockstore,
    source: Source,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    max_links: int = MAX_LINKS,
    raw_leaves: bool = True,
    hidden: bool = False,
    progress: Progress | None = None,
) -> Cid:
    """Add a file or a directory to a store and return its CID; it is durable then. `Adder` says more of what it did.

    Args:
        source: a path; or an open binary file, or an asynchronous iterable of bytes, which become one file.
        chunk_bytes: bytes of a leaf.
        max_links: links of a node of a file.
        raw_leaves: whether leaves are raw blocks, or wrapped as files of their own.
        hidden: whether names below `source` that begin with a dot are added too.
        progress: called with the files' bytes stored so far.

    Raises:
        OSError: something cannot be read, or is neither file, directory nor symbolic link; `filename` says which.
        InvalidValueError: a size is out of range, or names of one large directory have the same hash.
        StorageError, DeadlineError: the store cannot take a block.
    Cancellation: blocks stored so far stay.
    """
    layout = Layout(chunk_bytes=chunk_bytes, max_links=max_links, raw_leaves=raw_leaves)
    return (await Adder(store, layout=layout, hidden=hidden, progress=progress).add(source)).cid


class Adder:
    """Adds to one store, with one set of choices.

    Args:
        layout: None means Kubo's.
        hidden: whether names below a source that begin with a dot are added too.
        progress: called with the files' bytes of the current source stored so far.
        batch_bytes: bytes made durable at once; two batches are in memory.
        batch_blocks: blocks made durable at once, where they are small.
    """

    __slots__ = ("_batch_blocks", "_batch_bytes", "_hidden", "_layout", "_progress", "_store")

    def __init__(
        self,
        store: Blockstore,
        *,
        layout: Layout | None = None,
        hidden: bool = False,
        progress: Progress | None = None,
        batch_bytes: int = BATCH_BYTES,
        batch_blocks: int = BATCH_BLOCKS,
    ) -> None:
        self._store = store
        self._layout = layout or Layout()
        self._hidden = hidden
        self._progress = progress
        self._batch_bytes = batch_bytes
        self._batch_blocks = batch_blocks

    async def add(self, source: Source) -> Added:
        """Add a file or a directory; it is durable when this returns.

        Raises:
            OSError: something cannot be read, or is neither file, directory nor symbolic link; `filename` says which.
            InvalidValueError: names of one large directory have the same hash.
            StorageError, DeadlineError: the store cannot take a block.
        Cancellation: blocks stored so far stay.
        """
        walk = Walk(self._layout, hidden=self._hidden)
        blocks: Generator[Block, None, Subtree]
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="aiolibp2p-add")
        try:
            if isinstance(source, AsyncIterable):
                return await self._add_pieces(source, executor)
            if isinstance(source, str | os.PathLike):
                blocks = walk.path(os.fspath(source))
            else:
                blocks = walk.file(source)
            return await self._add_walk(_Pull(walk, blocks, self._batch_bytes, self._batch_blocks), executor)
        finally:
            executor.shutdown(wait=False)

    async def _add_walk(self, pull: _Pull, executor: Executor) -> Added:
        loop = asyncio.get_running_loop()
        blocks = 0
        coming = loop.run_in_executor(executor, pull.batch)
        try:
            while True:
                batch = await coming
                if batch.root is None:
                    coming = loop.run_in_executor(executor, pull.batch)
                await self._keep(batch.blocks, batch.content_bytes)
                blocks += len(batch.blocks)
                if batch.root is not None:
                    return Added(batch.root, batch.content_bytes, blocks)
        finally:
            pull.abandoned = True
            if not coming.done():
                coming.cancel()
            elif not coming.cancelled():
                # What it met is of no interest after an error of the store.
                coming.exception()
                pull.close()

    async def _add_pieces(self, pieces: AsyncIterable[bytes], executor: Executor) -> Added:
        loop = asyncio.get_running_loop()
        tree = BalancedTree(self._layout.max_links)
        content_bytes = blocks = 0
        chunks_at_once = max(min(self._batch_bytes // self._layout.chunk_bytes, self._batch_blocks), 1)
        async for chunks in _batches(pieces, self._layout.chunk_bytes, chunks_at_once):
            leaves = await loop.run_in_executor(executor, _leaves, chunks, self._layout)
            batch: list[Block] = []
            for block, leaf in leaves:
                batch.append(block)
                batch.extend(tree.push(leaf))
            content_bytes += sum(map(len, chunks))
            blocks += len(batch)
            await self._keep(batch, content_bytes)
        batch = []
        root = _drain(tree.finish(), batch)
        await self._keep(batch, content_bytes)
        return Added(root.cid, content_bytes, blocks + len(batch))

    async def _keep(self, blocks: Sequence[Block], content_bytes: int) -> None:
        if blocks:
            await self._store.put_many(blocks)
        if self._progress is not None:
            self._progress(content_bytes)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Blocks to store, the files' bytes read up to here, and the root where the walk has ended."""

    blocks: list[Block]
    content_bytes: int
    root: Cid | None


class _Pull:
    """Takes batches from a walk, on a thread, one after the other."""

    __slots__ = ("_batch_blocks", "_batch_bytes", "_blocks", "_walk", "abandoned")

    def __init__(
        self, walk: Walk, blocks: Generator[Block, None, Subtree], batch_bytes: int, batch_blocks: int
    ) -> None:
        self._walk = walk
        self._blocks = blocks
        self._batch_bytes = batch_bytes
        self._batch_blocks = batch_blocks
        self.abandoned = False

    def batch(self) -> _Batch:
        """Return the next blocks; fewer than fill a batch where nobody waits for them any more."""
        blocks: list[Block] = []
        size = 0
        while size < self._batch_bytes and len(blocks) < self._batch_blocks and not self.abandoned:
            try:
                block = next(self._blocks)
            except StopIteration as end:
                root: Subtree = end.value
                return _Batch(blocks, self._walk.content_bytes, root.cid)
            blocks.append(block)
            size += len(block[1])
        return _Batch(blocks, self._walk.content_bytes, None)

    def close(self) -> None:
        """End the walk. Not while a thread is in `batch`: that thread then holds the last reference, which ends it."""
        self._blocks.close()


def _leaves(chunks: Sequence[bytes], layout: Layout) -> list[tuple[Block, Subtree]]:
    return [leaf_of(chunk, layout) for chunk in chunks]


def _drain(blocks: Generator[Block, None, Subtree], into: list[Block]) -> Subtree:
    """Append all blocks of a generator; return its root."""
    while True:
        try:
            into.append(next(blocks))
        except StopIteration as end:
            root: Subtree = end.value
            return root


async def _batches(pieces: AsyncIterable[bytes], chunk_bytes: int, chunks: int) -> AsyncIterator[list[bytes]]:
    """Cut pieces of any size into so many chunks at a time; there is at least one chunk, which may be empty."""
    batch_bytes = chunks * chunk_bytes
    held = bytearray()
    is_first = True
    async for piece in pieces:
        held += piece
        while len(held) >= batch_bytes:
            is_first = False
            yield _cut(held, batch_bytes, chunk_bytes)
            del held[:batch_bytes]
    if held or is_first:
        yield _cut(held, max(len(held), 1), chunk_bytes)


def _cut(held: bytearray, size: int, chunk_bytes: int) -> list[bytes]:
    return [bytes(held[start : min(start + chunk_bytes, size)]) for start in range(0, size, chunk_bytes)]
