"""Files and directories of this machine as blocks: plain blocking code that a thread runs, a batch at a time.

Names are read as they are on disk, so that one which is no UTF-8 keeps its bytes. Special files are refused: opening a
pipe would wait for its writer.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.unixfs.hamt import directory_blocks
from aiolibp2p.unixfs.layout import Block, Layout, Subtree, file_blocks, symlink_of


class Readable(Protocol):
    """A binary file that is open for reading."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most `size` bytes, `b""` at the end."""
        ...


@dataclass(slots=True)
class _Directory:
    """A directory that is being read: names still to come, and the entries so far."""

    path: str
    name: str
    names: Iterator[str]
    entries: dict[str, Subtree] = field(default_factory=dict)


class Walk:
    """The blocks of one file or directory; `content_bytes` counts the files' bytes read so far."""

    __slots__ = ("_hidden", "_layout", "content_bytes")

    def __init__(self, layout: Layout, *, hidden: bool = False) -> None:
        self._layout = layout
        self._hidden = hidden
        self.content_bytes = 0

    def path(self, path: str) -> Generator[Block, None, Subtree]:
        """Give the blocks of what is at `path`, of a directory with all below it; return its root.

        Raises:
            OSError: something cannot be read, or is neither file, directory nor symbolic link; `filename` says which.
            InvalidValueError: names of one large directory have the same hash.
        """
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            return (yield from self._entry(path, status))
        # Not by recursion: a tree may be deeper than the interpreter's stack.
        open_directories = [self._open(path, "")]
        while True:
            directory = open_directories[-1]
            name = next(directory.names, None)
            if name is None:
                open_directories.pop()
                subtree = yield from self._close(directory)
                if not open_directories:
                    return subtree
                open_directories[-1].entries[directory.name] = subtree
                continue
            below = os.path.join(directory.path, name)
            status = os.lstat(below)
            if stat.S_ISDIR(status.st_mode):
                open_directories.append(self._open(below, name))
            else:
                directory.entries[name] = yield from self._entry(below, status)

    def file(self, file: Readable, path: str | None = None) -> Generator[Block, None, Subtree]:
        """Give the blocks of an open file up to its end; return its root. It is not closed.

        Raises:
            OSError: it cannot be read.
        """
        return (yield from file_blocks(self._chunks(file, path), self._layout))

    def _open(self, path: str, name: str) -> _Directory:
        names = sorted(name for name in os.listdir(path) if self._hidden or not name.startswith("."))
        return _Directory(path, name, iter(names))

    def _close(self, directory: _Directory) -> Generator[Block, None, Subtree]:
        try:
            return (yield from directory_blocks(directory.entries))
        except InvalidValueError as error:
            raise InvalidValueError(f"{directory.path}: {error}") from error

    def _entry(self, path: str, status: os.stat_result) -> Generator[Block, None, Subtree]:
        if stat.S_ISLNK(status.st_mode):
            block, subtree = symlink_of(os.fsencode(os.readlink(path)))
            yield block
            return subtree
        if not stat.S_ISREG(status.st_mode):
            raise OSError(None, "neither a file, a directory nor a symbolic link", path)
        with open(path, "rb", buffering=0) as file:
            return (yield from self.file(file, path))

    def _chunks(self, file: Readable, path: str | None) -> Iterator[bytes]:
        while True:
            try:
                chunk = read_chunk(file, self._layout.chunk_bytes)
            except OSError as error:
                if error.filename is None and path is not None:
                    raise OSError(error.errno, error.strerror, path) from error
                raise
            if chunk:
                self.content_bytes += len(chunk)
                yield chunk
            if len(chunk) < self._layout.chunk_bytes:
                return


def read_chunk(file: Readable, size: int) -> bytes:
    """Return `size` bytes, fewer only at the end of the file: a pipe gives what it has.

    Raises:
        OSError: it cannot be read.
    """
    chunk = _read(file, size)
    if len(chunk) in (0, size):
        return chunk
    parts = [chunk]
    missing = size - len(chunk)
    while missing and (part := _read(file, missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _read(file: Readable, size: int) -> bytes:
    data = file.read(size)
    if data is None:
        raise io.UnsupportedOperation("a file that does not block cannot be added")
    return data
