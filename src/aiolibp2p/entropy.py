"""Where random bytes come from: the interface only."""

from __future__ import annotations

from typing import Protocol


class Entropy(Protocol):
    """A source of random bytes that can be split by purpose."""

    def token(self, n: int) -> bytes:
        """Return `n` random bytes."""
        ...

    def fork(self, label: str) -> Entropy:
        """Return a source for one purpose; draws on it do not move those of others."""
        ...
