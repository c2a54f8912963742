"""Reading: the bytes of a file in order.

A file whose sizes do not add up is refused, for a range of it would be the wrong bytes. Its nodes are read before its
leaves are reached, so that the source always knows which leaves come next, past the end of each node.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from aiolibp2p.blocks.cid import RAW, Cid
from aiolibp2p.blocks.store import BlockSource
from aiolibp2p.errors import InvalidValueError, Libp2pError
from aiolibp2p.unixfs.dag import Blocks, Node, parse_block

FILE_DEPTH_MAX = 32
"""Levels of a file that is read: nodes of two links hold 2**32 chunks so, and a hostile file holds no more of us."""

FILE_END = 1 << 63
"""Beyond the end of every file: sizes are varints of 63 bits."""

_LEAVES_AHEAD = 512
"""Leaves that are known before they are reached; a source wants fewer at a time."""

_LEAVES_A_FETCH = 8192
"""Leaves that one `fetch` of the source is told of: their CIDs stay in memory until its end."""

_HELD_BYTES_AHEAD = 4 << 20
"""Bytes of a file that were found in its nodes, before they are reached."""


def range_of(offset: int = 0, length: int | None = None) -> tuple[int, int]:
    """Return the range's two ends.

    Raises:
        InvalidValueError: the offset or the length is negative.
    """
    if offset < 0 or (length is not None and length < 0):
        raise InvalidValueError(f"no range begins at {offset} and has {length} bytes")
    return offset, FILE_END if length is None else offset + length


@dataclass(frozen=True, slots=True)
class _Part:
    """A child's place in its file."""

    cid: Cid
    start: int
    file_bytes: int


async def file_bytes(source: BlockSource, root: Node, offset: int, end: int) -> AsyncGenerator[bytes, None]:
    """Give the bytes of a file from `offset` to before `end`, a block's worth at a time; skip what lies outside.

    Raises:
        BlockNotFoundError: a block is missing; the bytes before it were given.
        InvalidValueError: a block is not of this file, or is not as large as its parent says.
    """
    async with aclosing(_pieces(source, root, offset, end)) as pieces:
        ahead = _Ahead(source, pieces)
        try:
            while (piece := await ahead.next()) is not None:
                if isinstance(piece, bytes):
                    yield piece
                    continue
                part, data = piece
                if len(data) != part.file_bytes:
                    raise _wrong_size(part, len(data))
                yield data[max(0, offset - part.start) : min(end, part.start + len(data)) - part.start]
        finally:
            await ahead.close()


class _Ahead:
    """The pieces of a file in order, those that are to come known before they are reached."""

    def __init__(self, source: BlockSource, pieces: AsyncGenerator[bytes | list[_Part], None]) -> None:
        self._source = source
        self._pieces = pieces
        self._pending: deque[bytes | _Part] = deque()
        self._held_bytes = 0
        # Doubled with each piece: the first bytes do not wait for nodes that come much later.
        self._wanted = 1
        self._leaves: list[Cid] = []
        self._blocks: Blocks | None = None
        self._ended = False
        self._failure: Libp2pError | None = None

    async def next(self) -> bytes | tuple[_Part, bytes] | None:
        """Return the next piece, with its data where that is a block of its own; None at the end."""
        await self._look_ahead()
        if not self._pending:
            if self._failure is not None:
                raise self._failure
            return None
        self._wanted = min(2 * self._wanted, _LEAVES_AHEAD)
        piece = self._pending.popleft()
        if isinstance(piece, bytes):
            self._held_bytes -= len(piece)
            return piece
        if self._blocks is None:
            self._blocks = Blocks(self._source, self._leaves)
        return piece, await self._blocks.next()

    async def close(self) -> None:
        """End the source's reading ahead."""
        if self._blocks is not None:
            await self._blocks.close()

    async def _look_ahead(self) -> None:
        if not self._pending and len(self._leaves) >= _LEAVES_A_FETCH:
            await self.close()
            self._blocks, self._leaves = None, []
        while (
            not self._ended
            and len(self._pending) < self._wanted
            and len(self._leaves) < _LEAVES_A_FETCH
            and self._held_bytes < _HELD_BYTES_AHEAD
        ):
            try:
                piece = await anext(self._pieces, None)
            except Libp2pError as error:
                # What comes before it is given first.
                self._failure, piece = error, None
            if piece is None:
                self._ended = True
                return
            if isinstance(piece, bytes):
                self._pending.append(piece)
                self._held_bytes += len(piece)
            else:
                self._pending += piece
                # The source sees the list grow.
                self._leaves += [part.cid for part in piece]


async def _pieces(source: BlockSource, root: Node, offset: int, end: int) -> AsyncGenerator[bytes | list[_Part], None]:
    """Give a file's raw leaves in the range as their places, and the bytes that lie in its nodes, in order.

    Leaves of one node come together: all of them are known as soon as it is.
    """
    stack: list[_Children] = []
    node, start = root, 0
    try:
        while True:
            if not node.unixfs.is_file:
                raise InvalidValueError(f"block {node.cid}: a {node.type.name.lower()} inside a file")
            inside = node.data[max(0, offset - start) : max(0, min(end, start + len(node.data)) - start)]
            if inside:
                yield inside
            _check_depth(node.cid, len(stack))
            stack.append(_Children(source, node, start, offset, end))
            while (parts := stack[-1].next_parts()) is None or parts[0].cid.codec == RAW:
                if parts is not None:
                    _check_depth(parts[0].cid, len(stack))
                    yield parts
                    continue
                await stack.pop().close()
                if not stack:
                    return
            node, start = await stack[-1].load(parts[0]), parts[0].start
    finally:
        while stack:
            await stack.pop().close()


class _Children:
    """The children of a node that lie in the range; those that may have children come from the source."""

    __slots__ = ("_blocks", "_parts")

    def __init__(self, source: BlockSource, node: Node, start: int, offset: int, end: int) -> None:
        parts: list[_Part] = []
        start += len(node.data)
        for link, size in zip(node.links, node.unixfs.block_bytes, strict=True):
            if size and start + size > offset and start < end:
                parts.append(_Part(link.cid, start, size))
            start += size
        self._parts = deque(parts)
        self._blocks = Blocks(source, [part.cid for part in parts if part.cid.codec != RAW])

    def next_parts(self) -> list[_Part] | None:
        """Return the leaves that follow, or the next child that is none."""
        if not self._parts:
            return None
        parts = [self._parts.popleft()]
        while parts[0].cid.codec == RAW and self._parts and self._parts[0].cid.codec == RAW:
            if len(parts) == _LEAVES_AHEAD:
                break
            parts.append(self._parts.popleft())
        return parts

    async def load(self, part: _Part) -> Node:
        node = parse_block(part.cid, await self._blocks.next())
        if node.file_bytes != part.file_bytes:
            raise _wrong_size(part, node.file_bytes)
        return node

    async def close(self) -> None:
        await self._blocks.close()


def _check_depth(cid: Cid, above: int) -> None:
    if above >= FILE_DEPTH_MAX:
        raise InvalidValueError(f"block {cid}: the file has more than {FILE_DEPTH_MAX} levels")


def _wrong_size(part: _Part, n_bytes: int) -> InvalidValueError:
    return InvalidValueError(f"block {part.cid}: {n_bytes} bytes of a file, where its parent says {part.file_bytes}")
