"""Writing what a CID names to disk, and never anywhere but at the destination.

Everything is built in a directory of our own beside the destination and moved there when it is whole. A link that a DAG
brings cannot lead its later entries elsewhere, for nothing is written through a name that exists; and a name that is no
plain name is refused before anything is done with it.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

from aiolibp2p.blocks.cid import Cid
from aiolibp2p.blocks.dag import PbLink
from aiolibp2p.blocks.store import BlockSource
from aiolibp2p.errors import InvalidValueError
from aiolibp2p.unixfs.dag import (
    Blocks,
    Node,
    directory_entries,
    load,
    os_error,
    parse_block,
    resolve,
)
from aiolibp2p.unixfs.file import file_bytes, range_of
from aiolibp2p.unixfs.node import NodeType
from aiolibp2p.unixfs.writer import Writer

ENTRIES_AHEAD = 256
"""Entries of a directory that are asked for together."""

_CONTENT = "content"
_NAME_CHARS = 32


async def get(
    source: BlockSource,
    cid: Cid,
    destination: str | os.PathLike[str],
    path: str = "",
    *,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Write a file, a directory with all below it, or a symbolic link to `destination`; return the bytes of its files.

    A file replaces a file that is there, and is written into a device; a directory replaces an empty one. Until all is
    written `destination` is as it was; a hidden directory beside it holds what there is so far, and is removed again.
    Permissions and times are those of new files.

    Args:
        path: names below `cid`, separated by `/`.
        progress: called with the files' bytes written so far.

    Raises:
        BlockNotFoundError: a block is missing.
        InvalidValueError: a block is not of UnixFS; or a directory has an entry that is called `..`, contains `/`, or
            is otherwise no name of a file here; or a symbolic link's target can be none.
        FileExistsError, IsADirectoryError: something else is at `destination`; or a directory has a name twice.
        FileNotFoundError, NotADirectoryError: the path leads nowhere, or the directory of `destination` is not there.
        OSError: the disk is full or cannot be written; `filename` says where.
    Cancellation: `destination` is as it was.
    """
    node = await resolve(source, cid, path)
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="aiolibp2p-get")
    writer = Writer(executor, progress)
    try:
        target = await writer.run(os.path.abspath, os.fspath(destination))
        if await writer.run(_is_device, target, node):
            await _write_device(source, node, target, writer)
        else:
            await _replace(source, node, target, writer)
        return writer.written_bytes
    finally:
        executor.shutdown(wait=False)


def require_plain_name(name: str, path: str) -> None:
    """Raise InvalidValueError unless `name`, in the directory that the DAG has at `path`, can be a file right there."""
    # `basename` knows the separators and drives of this system; the specification's separator is `/` everywhere.
    if name in ("", ".", "..") or "/" in name or "\0" in name or os.path.basename(name) != name:
        raise InvalidValueError(f"the entry {name!r} of directory {path!r} is no name of a file")


def _is_device(target: str, node: Node) -> bool:
    """Check that the node may go to `target`; return whether that is a device or a pipe, which is written into."""
    if not os.path.lexists(target):
        return False
    is_empty = os.path.isdir(target) and not os.path.islink(target) and not os.listdir(target)
    if node.unixfs.is_directory:
        if not is_empty:
            raise os_error(errno.EEXIST, target)
        return False
    if os.path.isdir(target):
        raise os_error(errno.EISDIR, target)
    return os.path.exists(target) and not stat.S_ISREG(os.stat(target).st_mode) and node.unixfs.is_file


async def _write_device(source: BlockSource, node: Node, target: str, writer: Writer) -> None:
    try:
        await writer.open(target, is_device=True)
        await _write_file(source, node, writer)
        await writer.flush()
    except BaseException:
        await writer.abandon()
        raise


async def _replace(source: BlockSource, node: Node, target: str, writer: Writer) -> None:
    beside = await writer.run(_make_beside, target)
    built = os.path.join(beside, _CONTENT)
    try:
        await _build(source, node, built, writer)
        await writer.run(_move, built, target)
    except OSError as error:
        filename = error.filename
        if not isinstance(filename, str) or not filename.startswith(built):
            raise
        # The user knows nothing of the directory beside.
        raise OSError(error.errno, error.strerror, target + filename[len(built) :]) from error
    finally:
        await writer.abandon()
        await writer.run(_remove, beside)


def _make_beside(target: str) -> str:
    parent, name = os.path.split(target)
    try:
        # Only we may enter it.
        return tempfile.mkdtemp(prefix=f".{name[:_NAME_CHARS]}.", dir=parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from error


def _move(built: str, target: str) -> None:
    if os.name == "nt" and os.path.isdir(target):
        Path(target).rmdir()
    os.replace(built, target)


def _remove(beside: str) -> None:
    shutil.rmtree(beside, ignore_errors=True)


class _Build:
    """One `get`: directories wait in a list, so that one at a time is read however deep they lie."""

    __slots__ = ("_built", "_source", "_waiting", "_writer")

    def __init__(self, source: BlockSource, built: str, writer: Writer) -> None:
        self._source = source
        self._built = built
        self._writer = writer
        self._waiting: list[tuple[Node | Cid, str]] = []

    async def run(self, root: Node) -> None:
        if root.unixfs.is_directory:
            await self._writer.mkdir(self._built)
            self._waiting.append((root, ""))
        else:
            await self._node(root, "")
        while self._waiting:
            directory, path = self._waiting.pop()
            if isinstance(directory, Cid):
                # Kept meanwhile, the nodes of many large directories would have no bound.
                directory = await load(self._source, directory)
            async with aclosing(directory_entries(self._source, directory)) as entries:
                async for links in _grouped(entries):
                    await self._entries(links, path)
        await self._writer.flush()

    async def _entries(self, links: Sequence[PbLink], path: str) -> None:
        for link in links:
            require_plain_name(link.name or "", path)
        blocks = Blocks(self._source, [link.cid for link in links])
        try:
            for link in links:
                node = parse_block(link.cid, await blocks.next())
                await self._node(node, f"{path}/{link.name}")
        finally:
            await blocks.close()

    async def _node(self, node: Node, path: str) -> None:
        where = self._built + path.replace("/", os.sep)
        if node.unixfs.is_directory:
            await self._writer.mkdir(where)
            self._waiting.append((node.cid, path))
        elif node.type == NodeType.SYMLINK:
            if b"\0" in node.data:
                raise InvalidValueError(f"block {node.cid}: a symbolic link's target cannot hold a NUL")
            await self._writer.symlink(node.data, where)
        else:
            await self._writer.open(where)
            await _write_file(self._source, node, self._writer)


async def _build(source: BlockSource, root: Node, built: str, writer: Writer) -> None:
    await _Build(source, built, writer).run(root)


async def _write_file(source: BlockSource, node: Node, writer: Writer) -> None:
    start, end = range_of()
    async with aclosing(file_bytes(source, node, start, end)) as pieces:
        async for piece in pieces:
            await writer.write(piece)
    await writer.close()


async def _grouped(entries: AsyncIterator[PbLink]) -> AsyncGenerator[list[PbLink], None]:
    group: list[PbLink] = []
    async for link in entries:
        group.append(link)
        if len(group) == ENTRIES_AHEAD:
            yield group
            group = []
    if group:
        yield group
