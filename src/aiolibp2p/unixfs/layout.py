"""How a file becomes a DAG: leaves of equal size under nodes of so many links, as Kubo's balanced layout has them.

Spec: UnixFS, "File" and "Layout: balanced". One leaf alone is the file. Everything here is pure: blocks come out,
children before their parents, so that a root that is stored has its whole DAG stored.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

from aiolibp2p.blocks.cid import DAG_PB, RAW, Cid
from aiolibp2p.blocks.dag import PbLink, encode_node
from aiolibp2p.errors import InvalidValueError
from aiolibp2p.unixfs.node import NodeType, UnixFsNode, encode_unixfs

CHUNK_BYTES = 262_144
"""Kubo's `size-262144`."""

MAX_LINKS = 174
"""Kubo's `--max-file-links` for `--cid-version=1`."""

CHUNK_BYTES_MAX = (2 << 20) - 256
"""A block is at most 2 MiB, or peers refuse it; a leaf that is not raw wraps its bytes."""

LINKS_MAX = 32_768
"""So many links of at most 62 bytes stay below 2 MiB."""

Block = tuple[Cid, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The choices that a file's CID depends on.

    Raises:
        InvalidValueError: a number is out of range.
    """

    chunk_bytes: int = CHUNK_BYTES
    max_links: int = MAX_LINKS
    raw_leaves: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.chunk_bytes <= CHUNK_BYTES_MAX:
            raise InvalidValueError(f"chunks have 1 to {CHUNK_BYTES_MAX} bytes, not {self.chunk_bytes}")
        if not 2 <= self.max_links <= LINKS_MAX:
            raise InvalidValueError(f"nodes have 2 to {LINKS_MAX} links, not {self.max_links}")


@dataclass(frozen=True, slots=True)
class Subtree:
    """What a parent must know of a child: its root, the bytes of all its blocks, and the file's bytes in it."""

    cid: Cid
    dag_bytes: int
    file_bytes: int = 0

    def link(self, name: str = "") -> PbLink:
        """Return a link to it."""
        return PbLink(self.cid, name, self.dag_bytes)


def block_of(links: Sequence[PbLink], node: UnixFsNode) -> tuple[Block, Subtree]:
    """Return a dag-pb block of such a node, and what its parent must know of it."""
    data = encode_node(links, encode_unixfs(node))
    cid = Cid.from_data(data, DAG_PB)
    return (cid, data), Subtree(cid, len(data) + sum(link.size or 0 for link in links), node.file_bytes or 0)


def leaf_of(chunk: bytes, layout: Layout) -> tuple[Block, Subtree]:
    """Return the block of one chunk; hashing it releases the interpreter's lock."""
    if layout.raw_leaves:
        cid = Cid.from_data(chunk, RAW)
        return (cid, chunk), Subtree(cid, len(chunk), len(chunk))
    return block_of((), UnixFsNode(type=NodeType.FILE, data=chunk or None, file_bytes=len(chunk)))


def symlink_of(target: bytes) -> tuple[Block, Subtree]:
    """Return the block of a symbolic link."""
    return block_of((), UnixFsNode(type=NodeType.SYMLINK, data=target))


class BalancedTree:
    """The nodes above the leaves of one file.

    A level is closed only when its next child comes, for whether a full level is the root is known at the end alone. It
    holds at most `max_links` children for each level.
    """

    __slots__ = ("_levels", "_max_links")

    def __init__(self, max_links: int) -> None:
        self._max_links = max_links
        self._levels: list[list[Subtree]] = [[]]

    def push(self, leaf: Subtree) -> Generator[Block, None, None]:
        """Append a leaf; give the nodes that are full."""
        yield from self._push(0, leaf)

    def finish(self) -> Generator[Block, None, Subtree]:
        """Give the nodes that are left; return the root. At least one leaf was pushed."""
        height = 0
        while height + 1 < len(self._levels) or len(self._levels[height]) > 1:
            yield from self._close(height)
            height += 1
        return self._levels[height][0]

    def _push(self, height: int, child: Subtree) -> Generator[Block, None, None]:
        if height == len(self._levels):
            self._levels.append([])
        if len(self._levels[height]) == self._max_links:
            yield from self._close(height)
        self._levels[height].append(child)

    def _close(self, height: int) -> Generator[Block, None, None]:
        block, parent = _file_node(self._levels[height])
        self._levels[height] = []
        yield block
        yield from self._push(height + 1, parent)


def _file_node(children: Sequence[Subtree]) -> tuple[Block, Subtree]:
    block_bytes = tuple(child.file_bytes for child in children)
    node = UnixFsNode(type=NodeType.FILE, file_bytes=sum(block_bytes), block_bytes=block_bytes)
    return block_of([child.link() for child in children], node)


def file_blocks(chunks: Iterable[bytes], layout: Layout) -> Generator[Block, None, Subtree]:
    """Give the blocks of a file of these chunks, each of `layout.chunk_bytes` but the last; return its root."""
    tree = BalancedTree(layout.max_links)
    is_empty = True
    for chunk in chunks:
        block, leaf = leaf_of(chunk, layout)
        yield block
        yield from tree.push(leaf)
        is_empty = False
    if is_empty:
        block, leaf = leaf_of(b"", layout)
        yield block
        yield from tree.push(leaf)
    return (yield from tree.finish())
