"""The record on which "the same seed gives the same run" is checked."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable

_CONTENT = re.compile(r" [0-9a-f]{8}$")
"""The checksum of what a packet carries, at the end of its line."""


class Trace:
    """An append-only record of what happened; its digest stands for the whole run.

    A line begins with the virtual time in nanoseconds; the line of a packet ends with eight hexadecimal digits, the
    checksum of what it carries.
    """

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


def first_divergence(ours: Iterable[str], theirs: Iterable[str]) -> tuple[int, str | None, str | None] | None:
    """Return the number of the first line, from 1, at which two runs part, and both lines; None if they never do.

    What packets carry is not compared, only when they went, from where, to where, and how large they were: with another
    seed all keys and random numbers differ from the first packet on. A run that ended before has None for its line.
    """
    for number, (our, their) in enumerate(itertools.zip_longest(ours, theirs), 1):
        if our is None or their is None or _CONTENT.sub("", our) != _CONTENT.sub("", their):
            return number, our, their
    return None
