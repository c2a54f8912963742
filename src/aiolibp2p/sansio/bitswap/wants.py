"""One want of a peer, the states it goes through, and the batch that its answer travels in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiolibp2p.sansio.bitswap.message import Entry

if TYPE_CHECKING:
    from aiolibp2p.sansio.bitswap.ledger import Ledger

ASKED: Final = "asked"
"""The store has not said yet whether the block is there."""
ABSENT: Final = "absent"
"""The block is not there, and there is nothing to say about it now."""
READY: Final = "ready"
"""There is something to say: the block, HAVE or DONT_HAVE."""
TAKEN: Final = "taken"
"""The answer is in a batch."""
WRITTEN: Final = "written"
"""The answer is in a stream; the want is no longer remembered, unless the stream is reset."""
GONE: Final = "gone"
"""Confirmed, cancelled, replaced or evicted."""

BLOCK: Final = "block"
HAVE: Final = "have"
DONT_HAVE: Final = "dont-have"
NOTHING: Final = "nothing"
"""What an answer says; NOTHING where the store failed: silence is no statement about the block."""


class Want:
    """One CID that a peer wants."""

    __slots__ = (
        "again",
        "cid",
        "ledger",
        "multihash",
        "order",
        "priority",
        "send_dont_have",
        "size",
        "state",
        "want_have",
    )

    def __init__(self, ledger: Ledger, entry: Entry, multihash: bytes, order: int) -> None:
        self.ledger = ledger
        self.cid = entry.cid
        self.multihash = multihash
        self.priority = entry.priority
        self.want_have = entry.want_have
        self.send_dont_have = entry.send_dont_have
        self.order = order
        self.size: int | None = None
        """Bytes of the block; None where it is missing, or not known yet. An empty block has 0."""
        self.state: str = GONE
        self.again = False
        """Whether its answer was given back already."""

    @property
    def lacking(self) -> bool:
        """Whether the store has said that the block is not there."""
        return self.size is None and self.state != ASKED


Waiting = dict[bytes, set[Want]]
"""The wants, of all peers, whose block is not known to be there, by multihash."""


class Batch:
    """Answers that were taken together and go into one message."""

    __slots__ = ("answers", "blocks", "ledger", "n_bytes", "position", "written_at")

    def __init__(self, ledger: Ledger, answers: dict[Want, str], n_bytes: int) -> None:
        self.ledger = ledger
        self.answers = answers
        """What is said about each want."""
        self.blocks = list(dict.fromkeys(want.multihash for want, says in answers.items() if says == BLOCK))
        """The multihashes of the blocks to load, each once."""
        self.n_bytes = n_bytes
        """How long the message gets, at most."""
        self.position = 0
        self.written_at = 0.0
