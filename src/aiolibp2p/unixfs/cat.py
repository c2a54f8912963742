"""What a user reads of UnixFS: the bytes of a file, the entries of a directory, what a path leads to."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from aiolibp2p.blocks.cid import Cid
from aiolibp2p.blocks.store import BlockSource
from aiolibp2p.unixfs.dag import Node, directory_entries, require_directory, require_file, resolve
from aiolibp2p.unixfs.file import file_bytes, range_of

Kind = Literal["file", "directory", "symlink"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a directory."""

    name: str
    cid: Cid
    dag_bytes: int
    """Bytes of all blocks below, as the directory claims; a file's own bytes are fewer (see `stat`)."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What a path leads to."""

    cid: Cid
    kind: Kind
    file_bytes: int
    """Of a file; 0 for anything else."""
    target: str | None = None
    """Of a symbolic link."""


async def cat(
    source: BlockSource, cid: Cid, path: str = "", offset: int = 0, length: int | None = None
) -> AsyncGenerator[bytes, None]:
    """Give the bytes of a file, a block's worth at a time.

    Args:
        path: names below `cid`, separated by `/`.
        offset: bytes to leave out; beyond the end there are none.
        length: bytes to give at most; None means all that follow.

    Raises:
        BlockNotFoundError: a block is missing; the bytes before it were given.
        FileNotFoundError, NotADirectoryError, IsADirectoryError: the path leads nowhere, or to a directory.
        InvalidValueError: a block is not of UnixFS or not of this file, the path leads to a symbolic link, or the range
            is negative.
    Cancellation: nothing is left behind.
    """
    start, end = range_of(offset, length)
    node = await resolve(source, cid, path)
    require_file(node, _shown(cid, path))
    async with aclosing(file_bytes(source, node, start, end)) as pieces:
        async for piece in pieces:
            yield piece


async def ls(source: BlockSource, cid: Cid, path: str = "") -> AsyncGenerator[Entry, None]:
    """Give the entries of a directory in the order of its blocks: sorted by name, unless it is sharded.

    Names are as they stand, and may be `..` or contain `/`.

    Raises:
        BlockNotFoundError: a block is missing; the entries before it were given.
        FileNotFoundError, NotADirectoryError: the path leads nowhere, or to a file.
        InvalidValueError: a block is not of UnixFS.
    Cancellation: nothing is left behind.
    """
    node = await resolve(source, cid, path)
    require_directory(node, _shown(cid, path))
    async with aclosing(directory_entries(source, node)) as links:
        async for link in links:
            yield Entry(link.name or "", link.cid, link.size or 0)


async def stat(source: BlockSource, cid: Cid, path: str = "") -> Stat:
    """Return what a path leads to.

    Raises:
        BlockNotFoundError: a block is missing.
        FileNotFoundError, NotADirectoryError: the path leads nowhere.
        InvalidValueError: a block is not of UnixFS.
    Cancellation: nothing is left behind.
    """
    return stat_of(await resolve(source, cid, path))


def stat_of(node: Node) -> Stat:
    """Return what a node is."""
    if node.unixfs.is_directory:
        return Stat(node.cid, "directory", 0)
    if node.unixfs.is_file:
        return Stat(node.cid, "file", node.file_bytes)
    return Stat(node.cid, "symlink", 0, node.data.decode("utf-8", "surrogateescape"))


def _shown(cid: Cid, path: str) -> str:
    return "/".join([str(cid), *filter(None, path.split("/"))])
