"""Whose turn it is: byte-deficit round robin over the peers that can be served now.

A turn adds `quantum_bytes` to what a peer may have, and lasts until that is used up; what a peer got too much (a block
larger than a quantum is not cut) it waits off in later rounds. A peer that cannot take anything is in no structure that
is looked at.

A peer that begins to wait is served after at most one turn of each other peer. In its turn a peer gets less than
`quantum_bytes` and one batch more, so with `n` others, and batches of at most `b`, no peer without debt waits for
`n * (quantum_bytes + b)` bytes, whatever the others want and however often they come and go.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


class Scheduler(Generic[P]):
    """The peers that can be served, in turn.

    Args:
        quantum_bytes: what a turn is worth.
    """

    def __init__(self, quantum_bytes: int) -> None:
        assert quantum_bytes > 0  # a turn that is worth nothing would never end a debt
        self._quantum = quantum_bytes
        self._ring: OrderedDict[P, int] = OrderedDict()
        """Each peer's balance; the one whose turn it is stands first."""
        self._debts: dict[P, int] = {}
        self._begun = False

    def __len__(self) -> int:
        return len(self._ring)

    def __contains__(self, peer: object) -> bool:
        return peer in self._ring

    def add(self, peer: P) -> None:
        """Let `peer` take part, behind all others; nothing happens where it already does."""
        if peer not in self._ring:
            self._ring[peer] = self._debts.pop(peer, 0)

    def remove(self, peer: P) -> None:
        """Let `peer` take no part: it wants nothing, or can take nothing. A debt is kept, a balance is not."""
        if peer in self._ring:
            if self._begun and peer == self._first():
                self._begun = False
            balance = self._ring.pop(peer)
            if balance < 0:
                self._debts[peer] = balance

    def forget(self, peer: P) -> None:
        """Drop everything about `peer`."""
        self.remove(peer)
        self._debts.pop(peer, None)

    def next(self) -> P | None:
        """Return whose turn it is, or None where nobody takes part."""
        ring = self._ring
        while ring:
            peer = self._first()
            if not self._begun:
                self._begun = True
                ring[peer] += self._quantum
            if ring[peer] > 0:
                return peer
            self._begun = False
            ring.move_to_end(peer)
        return None

    def charge(self, peer: P, n_bytes: int) -> None:
        """Take note that `peer` was given `n_bytes`."""
        if peer in self._ring:
            self._ring[peer] -= n_bytes
        else:
            self._debts[peer] = self._debts.get(peer, 0) - n_bytes

    def _first(self) -> P:
        return next(iter(self._ring))
