"""How far serving one peer is, and the pools in which its loaded bytes are counted."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

from aiolibp2p.sansio.bitswap.ledger import Ledger
from aiolibp2p.sansio.bitswap.stat import Cost, PeerState, copied
from aiolibp2p.sansio.bitswap.wants import Batch

P = TypeVar("P", bound=Hashable)


class Peer(Generic[P]):
    """How far one peer is."""

    __slots__ = (
        "batches",
        "begun",
        "blocked",
        "blocked_at",
        "cost",
        "credit_bytes",
        "eligible",
        "eligible_at",
        "filling",
        "for_room",
        "id",
        "ledger",
        "let_go",
        "moves",
        "moving_bytes",
        "needed_seconds",
        "patience",
        "resume_at",
        "sent_bytes",
        "stall_at",
        "stalls",
    )

    def __init__(self, peer: P, ledger: Ledger) -> None:
        self.id = peer
        self.ledger = ledger
        self.batches: dict[Batch, None] = {}
        self.begun: Batch | None = None
        """While it is blocked: the batch of which a stream has accepted some."""
        self.blocked = False
        self.blocked_at = 0.0
        self.for_room = False
        """While it is blocked: whether the connection has no room, and not the peer no credit."""
        self.cost = Cost()
        """What was taken and written for it that it has not shown to have read."""
        self.credit_bytes = 0
        """Credit returned since it last came to `Limits.bitswap_credit_bytes`."""
        self.eligible = False
        """Whether it takes part in the scheduler."""
        self.eligible_at = 0.0
        """Since when it waits for its turn."""
        self.filling = True
        """Whether it is given batches up to the most it may have."""
        self.moving_bytes = 0
        """Accepted since the stream could last take bytes again."""
        self.needed_seconds = 0.0
        """While it is blocked: the part of its time that is for reading those bytes."""
        self.stall_at = math.inf
        """When it is given up if it is still blocked then."""
        self.patience = math.inf
        """How long it may still be blocked; infinite once all its batches were accepted."""
        self.resume_at = -math.inf
        """When it is served again."""
        self.moves = False
        """Whether its stream has accepted a whole batch: before that, only one is loaded."""
        self.sent_bytes = self.stalls = self.let_go = 0

    @property
    def held_bytes(self) -> int:
        """Bytes loaded, being loaded or being written for it."""
        return sum(batch.n_bytes for batch in self.batches)

    def stage(self, now: float) -> tuple[str, float]:
        """Return the stage of its answers, a field of `Stages` or `idle`, and since when they are in it."""
        if self.blocked:
            return "writing" if self.for_room else "awaiting_credit", self.blocked_at
        if self.ledger.ready:
            if self.resume_at > now:
                return "backing_off", now
            return "queued", self.eligible_at if self.eligible else now
        if self.batches:
            return "loading", now
        if self.ledger.unconfirmed:
            return "unconfirmed", self.ledger.unconfirmed_since
        return "idle", now

    def state(self, now: float) -> PeerState:
        """Return how far it is."""
        stage, since = self.stage(now)
        return PeerState(
            state=stage,
            seconds=now - since,
            wants=len(self.ledger),
            ready=self.ledger.ready,
            held_bytes=self.held_bytes,
            sent=copied(self.ledger.sent),
            sent_bytes=self.sent_bytes,
            stalls=self.stalls,
            let_go=self.let_go,
            backoff_seconds=max(0.0, self.resume_at - now),
            dropped=dict(self.ledger.dropped),
        )


class Pools(Generic[P]):
    """Loaded bytes: those of peers that make progress, and apart from them those of peers that take none."""

    def __init__(self) -> None:
        self.loaded_bytes = 0
        self.stalled_bytes = 0
        self.stalled: dict[P, int] = {}
        """Bytes held for each blocked peer, longest blocked first."""

    def block(self, peer: Peer[P]) -> None:
        """Count what is held for a peer among what stalls."""
        held = peer.held_bytes
        self.loaded_bytes -= held
        self.stalled_bytes += held
        self.stalled[peer.id] = held

    def unblock(self, peer: Peer[P]) -> None:
        """Count it among what moves again."""
        held = self.stalled.pop(peer.id)
        self.stalled_bytes -= held
        self.loaded_bytes += held

    def hold(self, peer: Peer[P], n_bytes: int) -> None:
        """Change what is held for a peer, in the pool that it belongs to."""
        if peer.blocked:
            self.stalled[peer.id] += n_bytes
            self.stalled_bytes += n_bytes
        else:
            self.loaded_bytes += n_bytes
