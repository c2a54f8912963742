"""What the fixtures of UnixFS are made of: bytes from a seed, and trees of such files.

Content of a seed is SHAKE128 of "SEED/0", "SEED/1", …, a MiB of each, cut at the size: Node, Go and Python make it at
hundreds of MB a second. A file of a tree has the seed "SEED/PATH".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PIECE_BYTES = 1 << 20
HERE = Path(__file__).parent
CID_BYTES = 36
"""Of a CIDv1 with SHA-256."""


def content(seed: str, size: int) -> Iterator[bytes]:
    """Yield the bytes of a seed, at most a MiB at a time."""
    for piece, start in enumerate(range(0, size, PIECE_BYTES)):
        yield hashlib.shake_128(f"{seed}/{piece}".encode()).digest(min(PIECE_BYTES, size - start))


def block(seed: str, number: int, size: int) -> bytes:
    """Return one of the numbered blocks that the commands `blocks` of the peer programs name."""
    return b"".join(content(f"{seed}/block/{number}", size))


@dataclass(frozen=True)
class FileCase:
    """A file, how it is cut, and its CID; `made_by` names the stacks that gave it."""

    name: str
    seed: str
    size_bytes: int
    chunk_bytes: int
    links: int
    cid: str = ""
    made_by: tuple[str, ...] = ()

    def content(self) -> Iterator[bytes]:
        """Yield what is in the file."""
        return content(self.seed, self.size_bytes)


@dataclass(frozen=True)
class Group:
    """Files of `size_bytes + NUMBER * step_bytes`, named by their number, for which `path` has a format."""

    path: str
    count: int
    size_bytes: int
    step_bytes: int = 0

    def files(self) -> Iterator[tuple[str, int]]:
        """Yield paths and sizes."""
        for number in range(self.count):
            yield self.path.format(number), self.size_bytes + number * self.step_bytes


@dataclass(frozen=True)
class TreeCase:
    """A directory and its CID when files are cut in `chunk_bytes`, with `links` to a node."""

    name: str
    seed: str
    groups: tuple[Group, ...]
    directories: tuple[str, ...] = ()
    """Empty ones."""
    symlinks: tuple[tuple[str, str], ...] = ()
    """Their paths and targets."""
    chunk_bytes: int = 262_144
    links: int = 174
    cid: str = ""
    made_by: tuple[str, ...] = ()
    others: dict[str, str] = field(default_factory=dict)
    """Stacks that give another CID, and that CID."""

    def files(self) -> Iterator[tuple[str, int, Iterator[bytes]]]:
        """Yield path, size and content of every file."""
        for group in self.groups:
            for path, size in group.files():
                yield path, size, content(f"{self.seed}/{path}", size)

    @property
    def entry_bytes(self) -> int:
        """What the root's names and CIDs come to: more than 262,144 bytes shard it."""
        paths = [path for path, _, _ in self.files()]
        names = {path.partition("/")[0] for path in (*paths, *self.directories, *(path for path, _ in self.symlinks))}
        return sum(len(name.encode()) + CID_BYTES for name in names)

    def write(self, folder: Path) -> None:
        """Make the tree in `folder`, which is made."""
        folder.mkdir()
        for path, _, parts in self.files():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"".join(parts))
        for path in self.directories:
            (folder / path).mkdir(parents=True)
        for path, aim in self.symlinks:
            (folder / path).symlink_to(aim)


def file_cases() -> list[FileCase]:
    """Return the files of files.json."""
    return [FileCase(**{**case, "made_by": tuple(case["made_by"])}) for case in load("files.json")]


def tree_cases() -> list[TreeCase]:
    """Return the directories of directories.json."""
    cases = []
    for case in load("directories.json"):
        case["groups"] = tuple(Group(**group) for group in case["groups"])
        for name in ("directories", "made_by"):
            case[name] = tuple(case.get(name, ()))
        case["symlinks"] = tuple((path, aim) for path, aim in case.get("symlinks", ()))
        case.pop("entry_bytes", None)
        cases.append(TreeCase(**case))
    return cases


def load(name: str) -> list[dict[str, Any]]:
    """Return the cases of one file of fixtures."""
    cases: list[dict[str, Any]] = json.loads((HERE / name).read_text(encoding="utf-8"))["cases"]
    return cases
