"""How a command finds the daemon of a repo: an address and a token, in a file that only its owner reads."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from aiolibp2p.node.repo import write_private

_FILE = "api"
_FILE_BYTES_MAX = 4 << 10


@dataclass(frozen=True, slots=True)
class Access:
    """What a client of the RPC needs to know."""

    address: str
    """As http://127.0.0.1:40123."""
    token: str
    pid: int
    """Of the daemon: a file that it left behind when it was killed leads nowhere."""

    def write(self, repo: Path) -> None:
        """Leave it in a repo.

        Raises:
            OSError: the disk refuses.
        """
        write_private(repo / _FILE, json.dumps(asdict(self)).encode() + b"\n")

    @classmethod
    def read(cls, repo: Path) -> Self | None:
        """Return that of the process which holds the lock of a repo; None where it serves no RPC."""
        try:
            with (repo / _FILE).open("rb") as file:
                found = json.loads(file.read(_FILE_BYTES_MAX))
            access = cls(str(found["address"]), str(found["token"]), int(found["pid"]))
            holder = int((repo / "lock").read_bytes())
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None  # whoever wrote it was no daemon: brackets nested a thousand deep, a number beyond all
        return access if access.pid == holder else None

    @staticmethod
    def remove(repo: Path) -> None:
        """Take it away."""
        try:
            os.unlink(repo / _FILE)
        except OSError:
            pass  # without the lock it leads nowhere
