"""A lock on a directory that dies with the process that holds it."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from aiolibp2p.errors import StorageError
from aiolibp2p.runtime import os_error_text


class DirectoryLock:
    """The right to use a directory alone, held until `release` or the end of the process, however that comes."""

    def __init__(self, directory: Path, name: str = "lock") -> None:
        """Take the lock of `directory`, which is a file of this name in it.

        Raises:
            StorageError: another process, or this one, holds it (`errno` is EWOULDBLOCK), or the file cannot be had.
        """
        path = directory / name
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except OSError as error:
            raise StorageError(str(path), os_error_text(error), errno=error.errno, stage="open") from error
        try:
            _lock(self._file)
        except OSError as error:
            holder = os.read(self._file, 20).decode("ascii", "replace").strip()
            os.close(self._file)
            who = f"process {holder}" if holder else "another process"
            text = f"in use by {who}: end it, or use another directory"
            raise StorageError(str(directory), text, errno=errno.EWOULDBLOCK, stage="open") from error
        _sign(self._file)

    def release(self) -> None:
        """Give the lock up; the file stays, since another may already wait for it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _sign(file: int) -> None:
    """Say who holds the lock, for people; where the disk is full, what is there is overwritten, or stays empty."""
    text = b"%d\n" % os.getpid()
    try:
        os.lseek(file, 0, os.SEEK_SET)
        os.ftruncate(file, os.write(file, text))
    except OSError:
        pass


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        # Bytes that are locked cannot be read by others, so the lock lies behind the text.
        os.lseek(file, 1 << 20, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
