"""What has come, and what came twice and why: of a session, and in all."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Cause(enum.Enum):
    """Why a block came that nobody wanted, or wanted any more."""

    HEDGED = "hedged"
    """Another peer was asked as well when the one that was asked had been silent for longer than it usually is."""
    LATE = "late"
    """Another peer was asked instead: this one had not answered in time, and was presumed not to have it."""
    GIVEN_UP = "given up"
    """It was wanted no longer, and the cancel came too late."""
    UNASKED = "unasked"
    """The peer was not asked to send it; one that was asked only whether it has it may have sent a small block."""


@dataclass(slots=True)
class Received:
    """What has come."""

    blocks: int = 0
    block_bytes: int = 0
    """Wanted blocks."""
    duplicates: int = 0
    duplicate_bytes: int = 0
    """Blocks that nobody wanted, or wanted any more."""
    causes: dict[Cause, int] = field(default_factory=lambda: dict.fromkeys(Cause, 0))
    """The duplicates by cause."""
    haves: int = 0
    dont_haves: int = 0
    hedges: int = 0
    """Wants asked of a second peer because the first was silent for longer than it usually is."""
    presumed_absent: int = 0
    """Wants asked elsewhere because a peer had not answered in time: DONT_HAVEs that were simulated."""

    def block(self, n_bytes: int) -> None:
        """Count a wanted block."""
        self.blocks += 1
        self.block_bytes += n_bytes

    def duplicate(self, cause: Cause, n_bytes: int) -> None:
        """Count a block that nobody wanted, or wanted any more."""
        self.duplicates += 1
        self.duplicate_bytes += n_bytes
        self.causes[cause] += 1
