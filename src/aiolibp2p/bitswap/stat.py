"""What Bitswap says of itself when it is asked: totals, stages, and the ledger of one peer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from aiolibp2p.sansio.bitswap.stat import Cost, Sent, Stages


@dataclass(slots=True)
class Traffic:
    """What has come from one peer, or from all."""

    messages: int = 0
    """With wants, blocks or presences."""
    blocks: int = 0
    block_bytes: int = 0
    """Wanted or not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """What the serving half has done, and what it holds now."""

    stages: Stages
    """Where answers are, and how old the oldest is there."""
    sent: Sent
    dropped: dict[str, int]
    """Wants that were dropped unanswered, by reason."""
    spent: Cost
    """What answers took of this node, in all."""
    blocked: Cost
    """The part that went to peers which took nothing: see `sansio.bitswap.stat.Spent.blocked`."""
    stalls: int
    """Peers given up because they took nothing."""
    resets: int
    """Response streams that were reset by peers or with their connections."""
    let_go: int
    """Batches loaded and let go because their peer took nothing."""
    loaded_bytes: int
    """Bytes held, or being loaded, for peers that make progress."""
    stalled_bytes: int
    """Bytes held for peers that take none."""
    refused_wants: int
    """Wants answered as if the block were missing, because the peer may not have it."""
    storage_failures: int
    """Look-ups and loads that storage did not answer."""

    @property
    def blocked_share(self) -> float:
        """The largest share of picks, storage reads and bytes that went to blocked peers."""
        pairs = (
            (self.blocked.picks, self.spent.picks),
            (self.blocked.read_blocks, self.spent.read_blocks),
            (self.blocked.read_bytes, self.spent.read_bytes),
            (self.blocked.written_bytes, self.spent.written_bytes),
        )
        return max(part / whole if whole else 0.0 for part, whole in pairs)


@dataclass(frozen=True, kw_only=True, slots=True)
class BitswapStat:
    """Both halves of Bitswap, in all and now."""

    peers: tuple[str, ...]
    """Connected peers that have said something over Bitswap."""
    wants: tuple[str, ...]
    """CIDs that are being fetched."""
    received: Traffic
    duplicate_blocks: int
    """Received blocks that nobody wanted, or wanted any more."""
    duplicate_bytes: int
    bad_blocks: int
    """Received blocks that are named by a hash which is not known here."""
    serving: Serving

    def to_json(self) -> dict[str, Any]:
        """Return it as values that JSON has."""
        found = asdict(self)
        found["peers"], found["wants"] = list(self.peers), list(self.wants)
        found["serving"]["blocked_share"] = self.serving.blocked_share
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerLedger:
    """What was exchanged with one peer since it connected, and how far serving it is."""

    peer_id: str
    state: str
    """The stage of its answers: a field of `Stages`, or `idle`."""
    seconds: float
    """How long it has been so; 0 where nobody waits."""
    wants: int
    """What it wants, blocks that are missing included."""
    ready: int
    """What can be said now."""
    held_bytes: int
    """Bytes loaded, being loaded or being written for it."""
    sent: Sent
    sent_bytes: int
    """Bytes that its response streams have accepted."""
    received: Traffic
    stalls: int
    """How often it was given up."""
    let_go: int
    """Batches loaded and let go because it took nothing."""
    backoff_seconds: float
    """How long it is not served."""
    dropped: dict[str, int]
    """Its wants that were dropped unanswered, by reason."""

    @property
    def debt_ratio(self) -> float:
        """Block bytes sent for each one received."""
        return self.sent.block_bytes / (self.received.block_bytes + 1)

    def to_json(self) -> dict[str, Any]:
        """Return it as values that JSON has."""
        return {**asdict(self), "debt_ratio": self.debt_ratio}
