"""What serving counts, and what it says of itself: integers where blocks pass, everything else when somebody asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

CANCELLED: Final = "cancelled"
"""The peer took the want back."""
REPLACED: Final = "replaced"
"""A full wantlist came without it, or a want-block in place of a want-have."""
EVICTED: Final = "evicted"
"""It made room for another: `Limits.bitswap_wants_per_peer`."""
REFUSED: Final = "refused"
"""There was no room for it."""
IGNORED: Final = "ignored"
"""It named nothing that can be wanted: no CID, too long, a digest too short, identity."""
LOST: Final = "lost"
"""Its answer was lost with a stream for the second time."""
GONE: Final = "gone"
"""The peer's last connection ended before it was answered."""


@dataclass(slots=True)
class Cost:
    """What answers take of a node."""

    picks: int = 0
    """Batches taken: how often the scheduler chose."""
    read_blocks: int = 0
    """Blocks that the store was asked for."""
    read_bytes: int = 0
    """Bytes of messages that were taken for loading."""
    written_bytes: int = 0
    """Bytes that streams have accepted."""

    def move(self, other: Cost) -> None:
        """Add everything of `other`, which has nothing then."""
        self.picks += other.picks
        self.read_blocks += other.read_blocks
        self.read_bytes += other.read_bytes
        self.written_bytes += other.written_bytes
        other.clear()

    def give(self, other: Cost, read_blocks: int, read_bytes: int) -> None:
        """Move one pick, and what it read, to `other`."""
        other.picks += 1
        other.read_blocks += read_blocks
        other.read_bytes += read_bytes
        # What was forgotten because the peer read on is not missing here.
        self.picks = max(0, self.picks - 1)
        self.read_blocks = max(0, self.read_blocks - read_blocks)
        self.read_bytes = max(0, self.read_bytes - read_bytes)

    def clear(self) -> None:
        """Have nothing."""
        self.picks = self.read_blocks = self.read_bytes = self.written_bytes = 0


@dataclass(slots=True)
class Spent(Cost):
    """What serving has cost, in all."""

    blocked: Cost = field(default_factory=Cost)
    """The part of it that went to peers which took nothing.

    What is taken and written for a peer is its own, until the peer has returned credit for
    `Limits.bitswap_credit_bytes`, or all of it is confirmed; then it is forgotten. It is moved here when the peer is
    given up, or ends its stream or its connection after it took nothing for `Timeouts.bitswap_hold`. A batch that is
    let go is counted here at once.
    """
    stalls: int = 0
    """Peers given up: their time was over, or too much was held for peers that take nothing."""
    resets: int = 0
    """Response streams that were reset by peers or with their connections."""
    let_go: int = 0
    """Batches that were let go because their peer took nothing; the same answers are loaded again when it does."""


@dataclass(slots=True)
class Sent:
    """What streams have accepted for one peer, or for all."""

    messages: int = 0
    blocks: int = 0
    block_bytes: int = 0
    haves: int = 0
    dont_haves: int = 0
    confirmed: int = 0
    """Answers that returned credit, or time without a reset, covers."""

    def add(self, other: Sent) -> None:
        """Add everything of `other`."""
        self.messages += other.messages
        self.blocks += other.blocks
        self.block_bytes += other.block_bytes
        self.haves += other.haves
        self.dont_haves += other.dont_haves
        self.confirmed += other.confirmed


@dataclass(frozen=True, slots=True)
class Stage:
    """What is in one stage of serving now."""

    answers: int = 0
    oldest_seconds: float = 0.0
    """How long the one that is longest in it has been there; 0 where there is none."""

    def and_of(self, answers: int, seconds: float) -> Stage:
        """Return it with more in it."""
        return Stage(self.answers + answers, max(self.oldest_seconds, seconds))


@dataclass(frozen=True, kw_only=True, slots=True)
class Stages:
    """Where answers are now, in the order in which they go through."""

    looking_up: Stage = Stage()
    """The store is asked whether the blocks are there."""
    queued: Stage = Stage()
    """There is something to say; the age is that of the peer which has waited longest for its turn."""
    backing_off: Stage = Stage()
    """The same, for peers that stalled and are not served for a while."""
    loading: Stage = Stage()
    """The store is asked for the blocks."""
    opening: Stage = Stage()
    """Written to streams whose peer has not said yet that it speaks the protocol."""
    writing: Stage = Stage()
    """All answers of peers whose connection has no room for more now."""
    awaiting_credit: Stage = Stage()
    """All answers of peers that have to read first."""
    unconfirmed: Stage = Stage()
    """Accepted by streams, and to be said again if those are reset."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerState:
    """How far serving one peer is."""

    state: str
    """The stage that its answers are in: a field of `Stages`; `idle` where there is none."""
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
    stalls: int
    """How often it was given up; counted while it is connected."""
    let_go: int
    backoff_seconds: float
    """How long it is not served."""
    dropped: dict[str, int]
    """Wants that were dropped unanswered, by reason."""


def copied(sent: Sent) -> Sent:
    """Return what is counted so far."""
    return replace(sent)


def add_counts(counts: dict[str, int], more: Mapping[str, int]) -> None:
    """Add to counts by name."""
    for name, count in more.items():
        counts[name] = counts.get(name, 0) + count
