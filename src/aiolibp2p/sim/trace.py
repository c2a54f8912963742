"""The record on which "the same seed gives the same run" is checked."""

from __future__ import annotations

import hashlib


class Trace:
    """An append-only record of what happened; its digest stands for the whole run."""

    __slots__ = ("_hash", "count", "lines", "steps")

    def __init__(self, *, keep: bool = False, steps: bool = False) -> None:
        """Start an empty record; `keep` also keeps the lines, `steps` also records every step of every task."""
        self.lines: list[str] | None = [] if keep else None
        self.steps = steps
        self.count = 0
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, line: str) -> None:
        """Record one line."""
        self.count += 1
        self._hash.update(line.encode())
        self._hash.update(b"\n")
        if self.lines is not None:
            self.lines.append(line)

    def digest(self) -> str:
        """Return the digest of all lines so far, in hexadecimal."""
        return self._hash.hexdigest()
