"""The directory of a node: its key, its blocks, and what says that it is one.

`version` says that the directory is a repo and of which layout, and is written last: a directory without it is empty or
was being made. `key` is the private key, `blocks` the store, `peers` what is known of other nodes, `lock` is held while
a process uses any of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from types import TracebackType
from typing import Final, Self

from aiolibp2p.blocks.lmdb import LmdbBlockstore
from aiolibp2p.blocks.lock import DirectoryLock
from aiolibp2p.errors import InvalidValueError, StorageError
from aiolibp2p.identity.keys import KeyType, PrivateKey
from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.node.peerstore import LmdbPeerstore
from aiolibp2p.runtime import os_error_text

FORMAT: Final = "aiolibp2p repo 1\n"
"""What the file `version` says."""

_STAGE = "repo"
_VERSION, _KEY, _BLOCKS, _PEERS, _LOCK = "version", "key", "blocks", "peers", "lock"
_UNFINISHED = frozenset({_KEY, _LOCK, f"{_KEY}.new", f"{_VERSION}.new"})
_FILE_BYTES_MAX = 16 << 10


def default_path(environment: Mapping[str, str], platform: str) -> Path:
    """Return where a repo is when nobody says: AIOLIBP2P_PATH, or `aiolibp2p` where the system keeps data of programs.

    Args:
        environment: as `os.environ`.
        platform: as `sys.platform`.
    """
    if named := environment.get("AIOLIBP2P_PATH"):
        return Path(named)
    home = Path.home()
    if platform == "win32":
        parent = Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif platform == "darwin":
        parent = home / "Library" / "Application Support"
    else:
        named = environment.get("XDG_DATA_HOME", "")
        # Spec: XDG Base Directory, "Environment variables": a relative path is ignored.
        parent = Path(named) if PurePath(named).is_absolute() else home / ".local" / "share"
    return parent / "aiolibp2p"


class Repo:
    """A repo that this process alone uses, until `close`; a context manager."""

    def __init__(self, path: Path, key: PrivateKey, lock: DirectoryLock) -> None:
        """Take what `open` has found."""
        self.path = path
        self.key = key
        self._lock = lock

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool, key_type: KeyType = KeyType.ED25519) -> Self:
        """Open the repo at `path`. It blocks for as long as the disk does.

        Args:
            create: whether to make one where the directory is missing, which then only its owner may enter, or empty.
            key_type: of the key of a repo that is made; one that is there keeps its own.

        Raises:
            StorageError: another process uses it (`errno` is EWOULDBLOCK), there is none (ENOENT), the directory holds
                something else (ENOTEMPTY), it is of another version, its key is no key, or the disk refuses.
        """
        place = Path(path)
        try:
            names = _names(place, create=create)
            if _VERSION not in names:
                if names - _UNFINISHED:
                    raise StorageError(
                        str(place), "not a repo: other files are in it", errno=errno.ENOTEMPTY, stage=_STAGE
                    )
                if not create:
                    raise _missing(place)
            lock = DirectoryLock(place, _LOCK)
        except OSError as error:
            raise _refused(place, error) from error
        try:
            return cls(place, _load(place, key_type), lock)
        except OSError as error:
            lock.release()
            raise _refused(place, error) from error
        except BaseException:
            lock.release()
            raise

    def store(self, *, limits: Limits | None = None, timeouts: Timeouts | None = None) -> LmdbBlockstore:
        """Return the store of the repo's blocks, not yet open; it must be closed before the repo."""
        return LmdbBlockstore(self.path / _BLOCKS, limits=limits, timeouts=timeouts)

    def peerstore(self, *, limits: Limits | None = None, timeouts: Timeouts | None = None) -> LmdbPeerstore:
        """Return what keeps the node's peerstore, not yet open; it must be closed before the repo."""
        return LmdbPeerstore(self.path / _PEERS, limits=limits, timeouts=timeouts)

    def close(self) -> None:
        """Let others use it."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _names(path: Path, *, create: bool) -> set[str]:
    """Return what is in the directory, which is made if it is to be."""
    try:
        return set(os.listdir(path))
    except FileNotFoundError:
        if not create:
            raise _missing(path) from None
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return set()


def _load(path: Path, key_type: KeyType) -> PrivateKey:
    """Return the key, and complete a repo that is new. The lock is held."""
    version, key = path / _VERSION, path / _KEY
    if not version.exists():
        write_private(key, bytes(PrivateKey.generate(type=key_type)))
        write_private(version, FORMAT.encode())
    found = _read(version)
    if found != FORMAT.encode():
        said = found.decode("utf-8", "replace").strip()[:40]
        text = f"its version is {said!r}, and this program knows {FORMAT.strip()!r}"
        raise StorageError(str(path), text, stage=_STAGE)
    try:
        return PrivateKey.from_bytes(_read(key))
    except InvalidValueError as error:
        raise StorageError(str(key), f"no private key: {error.describe()}", stage=_STAGE) from error


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_FILE_BYTES_MAX)


def write_private(path: Path, data: bytes) -> None:
    """Make a file that only its owner reads: after a crash it is there whole, or not at all.

    Raises:
        OSError: the disk refuses; `filename` says where.
    """
    unfinished = path.with_name(f"{path.name}.new")
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    if os.name == "posix":
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _missing(path: Path) -> StorageError:
    return StorageError(str(path), "there is no repo here", errno=errno.ENOENT, stage=_STAGE)


def _refused(path: Path, error: OSError) -> StorageError:
    place = error.filename if isinstance(error.filename, str) else str(path)
    return StorageError(place, os_error_text(error), errno=error.errno, stage=_STAGE)
