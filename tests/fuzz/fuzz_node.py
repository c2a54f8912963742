"""The files of a repo may hold any bytes: it opens, or says why not in an error of ours."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from aiolibp2p.errors import StorageError
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.node.access import Access
from aiolibp2p.node.repo import FORMAT, Repo
from tests.fuzz.rig import SeededEntropy

KEY = PrivateKey.generate(SeededEntropy())


def repo(data: bytes) -> None:
    """Open a repo whose key, or whose version, is these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        is_key = bool(data) and data[0] & 1
        Path(folder, "key").write_bytes(data[1:] if is_key else bytes(KEY))
        Path(folder, "version").write_bytes(FORMAT.encode() if is_key else data[1:])
        try:
            with Repo.open(folder, create=False) as opened:
                assert is_key or data[1:] == FORMAT.encode()
                assert PrivateKey.from_bytes(bytes(opened.key)) == opened.key
        except StorageError:
            pass


def access(data: bytes) -> None:
    """Read what a daemon has left, or somebody else: the file of its address, and of the lock."""
    size = data[0] * 16 if data else 0
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "lock").write_bytes(data[1 : 1 + size])
        Path(folder, "api").write_bytes(data[1 + size :])
        Access.read(Path(folder))
        os.unlink(Path(folder, "api"))
        assert Access.read(Path(folder)) is None


TARGETS: dict[str, Callable[[bytes], None]] = {"repo": repo, "access": access}

SEEDS: dict[str, list[bytes]] = {
    "repo": [b"\x01" + bytes(KEY), b"\x00" + FORMAT.encode(), b"\x00aiolibp2p repo 2\n"],
    "access": [
        b"\x01" + b"7".ljust(16) + b'{"address": "http://127.0.0.1:1", "token": "ab", "pid": 7}\n',
        b"\x00" + b"[" * 4000,
    ],
}
