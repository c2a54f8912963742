"""The file of an LMDB store, and all that is done to it; every method runs on a storage thread.

The directory holds `data.mdb` and `lock.mdb` of LMDB, `version`, which says what the first one is, and `lock`, held
while the store is open. A key is a multihash, its value the block.

A page of the map that is not in memory blocks whoever touches it. LMDB's binding touches the pages of a value without
the interpreter's lock, then copies it once, inside the read transaction: no view of the map ever leaves it. A commit
writes new pages, syncs, then replaces the root: a process that is killed leaves whole commits.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import lmdb

from aiolibp2p.blocks.commits import Change
from aiolibp2p.blocks.lock import DirectoryLock
from aiolibp2p.blocks.lookups import Piece
from aiolibp2p.errors import StorageError
from aiolibp2p.limits import Limits
from aiolibp2p.runtime import os_error_text

KEY_BYTES_MAX: Final = 511
"""The longest key that LMDB takes as it is built."""

FORMAT: Final = "aiolibp2p blocks 1 (lmdb 0.9)\n"
"""What the file `version` says. LMDB 1.0 cannot read what 0.9 wrote, nor 0.9 what 1.0 did."""

_LMDB_0_9: Final = 0
_MAP_BYTES_MIN: Final = 1 << 20
_KEYS_A_PAGE: Final = 1024
_READER_BYTES: Final = 128
_READERS_HEAD_BYTES: Final = 4096
"""More than LMDB's table of readers has of each: LMDB takes a larger one as it is."""


class LmdbMap:
    """One LMDB environment: many read it at a time, one writes, and nobody is inside while the map is moved."""

    def __init__(self, path: Path, limits: Limits, *, form: str = FORMAT) -> None:
        """Name the directory, which `open` makes, and what its file `version` says."""
        self.path = path
        self._form = form
        self._limits = limits
        self._map_bytes = min(limits.storage_map_bytes, sys.maxsize // 2)
        self._lock: DirectoryLock | None = None
        self._env: lmdb.Environment | None = None
        # Guards the two below: readers inside, and whether the map is about to be moved.
        self._changed = threading.Condition()
        self._readers = 0
        self._moving = False

    def open(self) -> None:
        """Take the directory, make it where it is missing, and check that what is there is ours.

        Raises:
            StorageError: it is in use, holds something else, or the disk refuses.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refused(error) from error
        self._lock = DirectoryLock(self.path)
        try:
            self._check_version()
            self._reserve_lock_file()
            self._env = self._open_environment()
            _sync_directory(self.path)
        except OSError as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """Let the directory go; harmless where it was not opened."""
        env, self._env = self._env, None
        lock, self._lock = self._lock, None
        try:
            if env is not None:
                env.close()
        finally:
            if lock is not None:
                lock.release()

    def read_blocks(self, piece: Piece[bytes]) -> None:
        """Find the blocks of a piece.

        Raises:
            StorageError: the disk failed.
        """
        with self._reading("read") as env, env.begin() as transaction:
            for key in piece.keys:
                if piece.unwanted:
                    break
                piece.found.append(self._value(transaction, key))

    def read_sizes(self, piece: Piece[int]) -> None:
        """Find the sizes of a piece's blocks.

        Raises:
            StorageError: the disk failed.
        """
        with self._reading("read") as env, env.begin(buffers=True) as transaction:
            for key in piece.keys:
                if piece.unwanted:
                    break
                piece.found.append(self._size(transaction, key))

    def keys_after(self, last: bytes) -> list[bytes]:
        """Return some keys, in order, after `last` (empty for the first); none are left where the list is empty.

        Raises:
            StorageError: the disk failed.
        """
        keys: list[bytes] = []
        with self._reading("read") as env, env.begin() as transaction, transaction.cursor() as cursor:
            there = cursor.set_range(last) if last else cursor.first()
            while there and len(keys) < _KEYS_A_PAGE:
                if (key := cursor.key()) != last:
                    keys.append(key)
                there = cursor.next()
        return keys

    def items_after(self, last: bytes) -> list[tuple[bytes, bytes]]:
        """Return some keys with their values, as `keys_after`.

        Raises:
            StorageError: the disk failed.
        """
        keys = self.keys_after(last)
        with self._reading("read") as env, env.begin() as transaction:
            return [(key, value) for key in keys if (value := self._value(transaction, key)) is not None]

    def write(self, changes: Sequence[Change]) -> None:
        """Make changes, all or none, and make them durable. Only one thread at a time may write.

        Raises:
            StorageError: the disk is full or failed; nothing was changed.
        """
        while True:
            env = self._environment()
            try:
                with env.begin(write=True) as transaction:
                    self._apply(transaction, changes)
                return
            except lmdb.MapFullError:
                self._grow(sum(len(value or b"") for _, value in changes))
            except lmdb.Error as error:
                failed = self._not_written(error, changes)
                self._recover()
                self._cut_off()
                raise failed from error

    @staticmethod
    def _apply(transaction: lmdb.Transaction[bytes], changes: Sequence[Change]) -> None:
        for key, value in changes:
            if value is None:
                transaction.delete(key)
            else:
                transaction.put(key, value, overwrite=False)

    # The next two are the only code that holds a value of the map.

    @staticmethod
    def _value(transaction: lmdb.Transaction[bytes], key: bytes) -> bytes | None:
        return transaction.get(key)

    @staticmethod
    def _size(transaction: lmdb.Transaction[memoryview], key: bytes) -> int | None:
        view = transaction.get(key)
        return None if view is None else len(view)

    def _environment(self) -> lmdb.Environment:
        if self._env is None:
            raise StorageError(str(self.path), "closed")
        return self._env

    @contextmanager
    def _reading(self, stage: str) -> Iterator[lmdb.Environment]:
        """Keep the map where it is."""
        with self._changed:
            while self._moving:
                self._changed.wait()
            self._readers += 1
        try:
            yield self._environment()
        except lmdb.Error as error:
            raise self._failed(error, stage) from error
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until nobody reads, and let nobody begin: LMDB must not move a map while someone is inside."""
        with self._changed:
            self._moving = True
            while self._readers:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._moving = False
                self._changed.notify_all()

    def _grow(self, wanted_bytes: int) -> None:
        """Make the map twice as large, or larger by twice what is to be written where that is more.

        Raises:
            StorageError: there are no addresses for it; the map stays as it was.
        """
        before = self._map_bytes
        with self._alone():
            self._map_bytes = min(before + max(before, 2 * wanted_bytes), sys.maxsize // 2)
            try:
                self._environment().set_mapsize(self._map_bytes)
            except lmdb.Error as error:
                self._map_bytes = before
                self._reopen()
                raise self._failed(error, "grow") from error

    def _recover(self) -> None:
        """Open the environment again where an error made it unusable, as a root that cannot be written does."""
        try:
            with self._environment().begin():
                return
        except lmdb.Error:
            with self._alone():
                self._reopen()

    def _cut_off(self) -> None:
        """Give back what a commit that failed made the file grow by: on a full disk, nothing else would have room."""
        env = self._environment()
        used_bytes = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
        data = self.path / "data.mdb"
        try:
            if data.stat().st_size > used_bytes:
                os.truncate(data, used_bytes)
        except OSError:
            pass  # Windows lets no mapped file shrink; the next commit uses it

    def _reopen(self) -> None:
        env, self._env = self._env, None
        if env is not None:
            env.close()
        self._env = self._open_environment()

    def _open_environment(self) -> lmdb.Environment:
        """Open LMDB with as large a map as the system gives.

        Raises:
            StorageError: LMDB refuses what is there, or the disk does.
        """
        data = self.path / "data.mdb"
        is_new = not data.exists() or data.stat().st_size == 0
        # Windows commits memory for a map of any size, so there it begins small.
        size_bytes = _MAP_BYTES_MIN if sys.platform == "win32" else self._map_bytes
        while True:
            try:
                env = lmdb.Environment(
                    str(self.path),
                    map_size=size_bytes,
                    mode=0o600,
                    max_readers=self._readers_max,
                    max_spare_txns=self._limits.storage_threads,
                    lib_version=_LMDB_0_9,
                )
            except lmdb.Error as error:
                if is_new:
                    # One that was begun and has no root, as on a full disk, LMDB could never open again.
                    data.unlink(missing_ok=True)
                if error.code != errno.ENOMEM or size_bytes <= _MAP_BYTES_MIN:
                    raise self._failed(error, "open") from error
                size_bytes //= 2
            else:
                self._map_bytes = env.info()["map_size"]
                return env

    @property
    def _readers_max(self) -> int:
        return self._limits.storage_threads_max + 1

    def _reserve_lock_file(self) -> None:
        """Give LMDB's table of readers its place on the disk.

        It is a map that is written to: a page for which a full disk has no room would end the process.

        Raises:
            OSError: there is none.
        """
        path = self.path / "lock.mdb"
        wanted_bytes = _READERS_HEAD_BYTES + self._readers_max * _READER_BYTES
        missing_bytes = wanted_bytes - (path.stat().st_size if path.exists() else 0)
        if missing_bytes > 0:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
                file.write(bytes(missing_bytes))

    def _check_version(self) -> None:
        """Check what the directory holds, and say it in a new one before there is anything else.

        Raises:
            StorageError: it holds something else.
            OSError: the disk refuses.
        """
        path = self.path / "version"
        try:
            found = path.read_text("utf-8", "replace")
        except FileNotFoundError:
            found = ""
        if found == self._form:
            return
        if found:
            text = f"holds {found.strip()[:80]!r}, and this version reads {self._form.strip()!r}"
            raise StorageError(str(self.path), text, stage="open")
        if (self.path / "data.mdb").exists():
            text = f"holds a data.mdb, and no file `version` that says it is {self._form.strip()!r}"
            raise StorageError(str(self.path), text, stage="open")
        fresh = self.path / "version.new"
        with fresh.open("w", encoding="utf-8", newline="") as file:
            file.write(self._form)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    def _not_written(self, error: lmdb.Error, changes: Sequence[Change]) -> StorageError:
        """Return our error for a commit that failed, and tell a full disk from a broken one."""
        failed = self._failed(error, "write")
        # A write that the disk had room for a part of comes out of LMDB as EIO.
        wanted_bytes = sum(len(value or b"") for _, value in changes)
        if failed.errno == errno.EIO and shutil.disk_usage(self.path).free < wanted_bytes:
            return StorageError(failed.path, os.strerror(errno.ENOSPC).lower(), errno=errno.ENOSPC, stage=failed.stage)
        return failed

    def _failed(self, error: lmdb.Error, stage: str) -> StorageError:
        """Return our error for one of LMDB, whose codes above zero are the system's."""
        code = getattr(error, "code", 0)
        if code > 0:
            return StorageError(str(self.path), os.strerror(code).lower(), errno=code, stage=stage)
        return StorageError(str(self.path), f"LMDB: {error}", stage=stage)

    def _refused(self, error: OSError) -> StorageError:
        return StorageError(str(error.filename or self.path), os_error_text(error), errno=error.errno, stage="open")


def _sync_directory(path: Path) -> None:
    """Make new names in a directory durable; Windows does so by itself, and has no way to ask."""
    if sys.platform == "win32":
        return
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
