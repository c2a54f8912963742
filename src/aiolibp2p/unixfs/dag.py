"""Reading: blocks as nodes of UnixFS, the entries of a directory, the end of a path.

Blocks come from a BlockSource, which reads ahead in the order that is asked for. What a block claims of itself is
checked.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass

from aiolibp2p.blocks.cid import DAG_PB, RAW, Cid
from aiolibp2p.blocks.dag import PbLink, decode_node
from aiolibp2p.blocks.store import BlockSource
from aiolibp2p.errors import InvalidValueError
from aiolibp2p.unixfs.hamt import Shard
from aiolibp2p.unixfs.node import NodeType, UnixFsNode, decode_unixfs

_HASH_BITS = 64


@dataclass(frozen=True, slots=True)
class Node:
    """A block as UnixFS sees it."""

    cid: Cid
    links: tuple[PbLink, ...]
    unixfs: UnixFsNode

    @property
    def type(self) -> NodeType:
        """What it is; a raw block is a file of type RAW."""
        return self.unixfs.type

    @property
    def data(self) -> bytes:
        """Bytes of the file in this block, or a symlink's target."""
        return self.unixfs.data or b""

    @property
    def file_bytes(self) -> int:
        """Bytes of the file in this block and below, as the node claims."""
        return len(self.data) + sum(self.unixfs.block_bytes)


def parse_block(cid: Cid, data: bytes) -> Node:
    """Read a block.

    Raises:
        InvalidValueError: it is not of UnixFS; the text names it.
    """
    if cid.codec == RAW:
        return Node(cid, (), UnixFsNode(type=NodeType.RAW, data=data, file_bytes=len(data)))
    if cid.codec != DAG_PB:
        raise InvalidValueError(f"block {cid}: UnixFS has raw and dag-pb blocks, not codec 0x{cid.codec:x}")
    try:
        encoded = decode_node(data)
        if encoded.data is None:
            raise InvalidValueError("a dag-pb node without data is not of UnixFS")
        node = Node(cid, encoded.links, decode_unixfs(encoded.data))
        _check(node)
    except InvalidValueError as error:
        raise InvalidValueError(f"block {cid}: {error}") from error
    return node


def _check(node: Node) -> None:
    """Compare what a node says of itself; a shard is checked by Shard."""
    if node.unixfs.is_file:
        if len(node.unixfs.block_bytes) != len(node.links):
            raise InvalidValueError(f"{len(node.links)} links with {len(node.unixfs.block_bytes)} sizes")
        if node.unixfs.file_bytes not in (None, node.file_bytes):
            raise InvalidValueError(f"a size of {node.unixfs.file_bytes} bytes, where the parts have {node.file_bytes}")
    elif node.type == NodeType.HAMT_SHARD:
        Shard.of(node.unixfs, node.links)
    elif node.type == NodeType.METADATA:
        raise InvalidValueError("metadata nodes are not supported")


async def load(source: BlockSource, cid: Cid) -> Node:
    """Fetch and read one block.

    Raises:
        BlockNotFoundError: the source does not have it.
        InvalidValueError: it is not of UnixFS.
    """
    return parse_block(cid, await source.get(cid))


class Blocks:
    """Blocks from a source, one at a time in the order of their CIDs."""

    __slots__ = ("_blocks",)

    def __init__(self, source: BlockSource, cids: Sequence[Cid]) -> None:
        self._blocks = source.fetch(cids) if cids else None

    async def next(self) -> bytes:
        """Return the next block; there is one for each CID."""
        assert self._blocks is not None
        return await anext(self._blocks)

    async def close(self) -> None:
        """End the source's reading ahead."""
        close = getattr(self._blocks, "aclose", None)
        if close is not None:
            await close()


async def directory_entries(source: BlockSource, root: Node) -> AsyncGenerator[PbLink, None]:
    """Give the entries of a directory under their own names, in the order of its blocks; shards are followed.

    Raises:
        BlockNotFoundError: a shard is missing; the entries before it were given.
        InvalidValueError: a shard is not one, or lies deeper than a hash has bits.
    """
    if root.type == NodeType.DIRECTORY:
        for link in root.links:
            yield link
        return
    stack = [_Shards(source, root, 0)]
    try:
        while stack:
            shards = stack[-1]
            for name, link in shards.entries:
                if name:
                    yield PbLink(link.cid, name, link.size)
                    continue
                stack.append(await shards.descend(link.cid))
                break
            else:
                await stack.pop().close()
    finally:
        while stack:
            await stack.pop().close()


class _Shards:
    """A shard and the shards right below it, as they come from the source."""

    __slots__ = ("_blocks", "_consumed_bits", "_source", "entries")

    def __init__(self, source: BlockSource, node: Node, consumed_bits: int) -> None:
        shard = Shard.of(node.unixfs, node.links)
        self._source = source
        self._consumed_bits = consumed_bits + shard.bits
        if self._consumed_bits > _HASH_BITS:
            raise InvalidValueError(f"block {node.cid}: the shard lies deeper than a hash has bits")
        self.entries: Iterator[tuple[str, PbLink]] = shard.entries()
        self._blocks = Blocks(source, [link.cid for name, link in shard.entries() if not name])

    async def descend(self, cid: Cid) -> _Shards:
        node = parse_block(cid, await self._blocks.next())
        if node.type != NodeType.HAMT_SHARD:
            raise InvalidValueError(f"block {cid}: a {node.type.name.lower()} where a shard belongs")
        return _Shards(self._source, node, self._consumed_bits)

    async def close(self) -> None:
        await self._blocks.close()


async def find_entry(source: BlockSource, directory: Node, name: str) -> PbLink | None:
    """Return the entry of a directory with this name, or None; of a sharded one only the shards on the way are fetched.

    Raises:
        BlockNotFoundError: a shard on the way is missing.
        InvalidValueError: a shard on the way is not one.
    """
    if directory.type == NodeType.DIRECTORY:
        return next((link for link in directory.links if link.name == name), None)
    consumed_bits = 0
    while True:
        shard = Shard.of(directory.unixfs, directory.links)
        found = shard.find(name, consumed_bits)
        if found is None:
            return None
        entry, link = found
        if entry:
            return PbLink(link.cid, entry, link.size)
        consumed_bits += shard.bits
        directory = await load(source, link.cid)
        if directory.type != NodeType.HAMT_SHARD:
            raise InvalidValueError(f"block {link.cid}: a {directory.type.name.lower()} where a shard belongs")


async def resolve(source: BlockSource, cid: Cid, path: str = "") -> Node:
    """Return the node at the end of a path of names separated by `/`; symbolic links are not followed.

    Raises:
        BlockNotFoundError: a block on the way is missing.
        FileNotFoundError, NotADirectoryError: a name is not there, or lies below a file; `filename` says which.
        InvalidValueError: a block on the way is not of UnixFS.
    """
    node = await load(source, cid)
    walked = str(cid)
    for name in filter(None, path.split("/")):
        require_directory(node, walked)
        walked += f"/{name}"
        link = await find_entry(source, node, name)
        if link is None:
            raise os_error(errno.ENOENT, walked)
        node = await load(source, link.cid)
    return node


def require_directory(node: Node, path: str) -> None:
    """Raise NotADirectoryError unless the node is a directory."""
    if not node.unixfs.is_directory:
        raise os_error(errno.ENOTDIR, path)


def require_file(node: Node, path: str) -> None:
    """Raise IsADirectoryError, or InvalidValueError for a symbolic link, unless the node is a file."""
    if node.unixfs.is_directory:
        raise os_error(errno.EISDIR, path)
    if not node.unixfs.is_file:
        raise InvalidValueError(f"{path} is a symbolic link")


def os_error(number: int, path: str) -> OSError:
    """Return the system's error of this number, of the class that belongs to it, which names the path."""
    return OSError(number, os.strerror(number), path)
