"""A wanted CID as its session sees it: who is asked for it, who has it, and whom to ask next."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from aiolibp2p.sansio.bitswap.candidate import Candidate
from aiolibp2p.sansio.bitswap.received import Cause

P = TypeVar("P", bound=Hashable)

Rank = tuple[bool, bool, bool, bool, float, int]


class Want(Generic[P]):
    """One wanted CID."""

    __slots__ = ("absent", "asked", "have", "hedge", "multihash", "presumed", "told", "wanted_of")

    def __init__(self, multihash: bytes) -> None:
        self.multihash = multihash
        self.asked: P | None = None
        """Who is expected to send the block."""
        self.hedge: P | None = None
        """Who else is, since the one that was asked is silent."""
        self.told: dict[P, float] = {}
        """Everybody whose wantlist has it, and since when."""
        self.wanted_of: set[P] = set()
        """Those of them that are asked to send it, not only whether they have it."""
        self.have: set[P] = set()
        """Who has said HAVE."""
        self.absent: set[P] = set()
        """Who has said DONT_HAVE."""
        self.presumed: set[P] = set()
        """Who did not answer in time, and so is presumed not to have it."""

    def expect_no_more(self, peer: P) -> None:
        """Take note that a peer will not send it."""
        if self.hedge == peer:
            self.hedge = None
        elif self.asked == peer:
            self.asked, self.hedge = self.hedge, None

    def lacked_by(self, peer: P) -> bool:
        """Return whether a peer has said, or is presumed, not to have it."""
        return peer in self.absent or peer in self.presumed


def rank_of(record: Candidate[P], want: Want[P], quickest: float, now: float) -> Rank:
    """Return what is less for a peer that is to be asked before another."""
    peer = record.wantlist.peer
    told_at = want.told.get(peer)
    overdue = told_at is not None and peer not in want.have and record.overdue(told_at, now)
    n = record.expected
    interval = quickest if record.interval is None else record.interval
    return overdue, peer not in want.have, not record.trusted, not record.wantlist.useful, (n + 1) * interval, n


def cause_of(want: Want[P], peer: P, sent_by: P | None) -> Cause:
    """Return why a block would come from `peer` too, where `sent_by` has sent it, or None, and nobody wants it."""
    if sent_by is None:
        return Cause.GIVEN_UP
    return Cause.HEDGED if want.hedge is not None and peer in (want.asked, want.hedge) else Cause.LATE
