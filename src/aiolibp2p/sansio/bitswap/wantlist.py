"""What we want of one peer, over all sessions: the wants desired against those the peer has been told of.

A message is the difference between the two. A new stream tells everything again with `full`; a want without an answer
is cancelled and told again when the peer has been silent for `Timeouts.bitswap_repair`. So nothing depends on every
message having arrived, or on what the peer believes to have answered: Helia's ledger keeps what it has sent, and a
second want for that changes nothing there until it was cancelled.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.bitswap.message import PRIORITY_MAX, Entry, Message
from aiolibp2p.sansio.bitswap.received import Cause, Received

P = TypeVar("P", bound=Hashable)


class Wantlist(Generic[P]):
    """What we want of `peer`.

    Args:
        peer: whatever the shell calls it.
        limits: `bitswap_window_wants` is how many are wanted of the peer at a time.
        timeouts: `bitswap_repair`.
        supports_have: whether the peer speaks Bitswap 1.2.0; to others no want-have is sent.
        to_write: where the wantlist puts its peer when there is a message to send; shared by all wantlists.
    """

    def __init__(
        self, peer: P, limits: Limits, timeouts: Timeouts, *, supports_have: bool, to_write: dict[P, None]
    ) -> None:
        self.peer = peer
        self.supports_have = supports_have
        self.useful = False
        """Whether the peer has sent a block that was wanted, or said HAVE, since it was connected."""
        self.heard_at = -math.inf
        """When the peer last sent part of an answer: until it falls silent, what is missing may be on its way."""
        self._most = limits.bitswap_window_wants
        self._repair_after = timeouts.bitswap_repair
        self._to_write = to_write
        self._desired: dict[bytes, dict[object, bool]] = {}
        """For each CID, who wants it and whether HAVE would do."""
        self._told: dict[bytes, tuple[bool, float]] = {}
        """Whether it was told as a want-have, and when, oldest first."""
        self._lacking: set[bytes] = set()
        """What the peer has said DONT_HAVE to: it answers again only when it is told again."""
        self._changed: dict[bytes, None] = {}
        self._repairing: set[bytes] = set()
        """Wants that are to be cancelled before they are told again."""
        self._urgent: set[bytes] = set()
        self._owed: dict[bytes, tuple[Cause, Received]] = {}
        self._sending: Message | None = None
        self._full = True
        self._priority = PRIORITY_MAX

    def __len__(self) -> int:
        return len(self._desired)

    def __contains__(self, cid: object) -> bool:
        return cid in self._desired

    @property
    def room(self) -> int:
        """How many more CIDs may be wanted of the peer, so that it drops none silently."""
        desired, told = len(self._desired), len(self._told)
        return self._most - (desired if desired > told else told)

    @property
    def most(self) -> int:
        """How many CIDs may be wanted of the peer at a time."""
        return self._most

    def want(self, owner: object, cid: bytes, *, have: bool = False, urgent: bool = False) -> None:
        """Want a CID for `owner`: its block, or, with `have`, to know whether the peer has it.

        Args:
            urgent: whether it goes before all that the peer was told of so far.
        """
        owners = self._desired.get(cid)
        if owners is None:
            owners = self._desired[cid] = {}
        owners[owner] = have
        if cid in self._lacking:
            self._lacking.discard(cid)
            self._repairing.add(cid)
        if urgent:
            self._urgent.add(cid)
        self._change(cid)

    def unwant(self, owner: object, cid: bytes) -> None:
        """Want a CID no longer for `owner`; the peer is told when nobody else wants it."""
        owners = self._desired.get(cid)
        if owners is not None and owners.pop(owner, None) is not None and not owners:
            del self._desired[cid]
            self._urgent.discard(cid)
            self._repairing.discard(cid)
            if cid in self._told:
                self._change(cid)
            else:
                self._changed.pop(cid, None)  # what is being written is looked at when it was

    def owe(self, multihash: bytes, cause: Cause, received: Received) -> None:
        """Remember that the peer may still send this block, though nobody wants it any more, and who counts it then."""
        if len(self._owed) >= self._most:
            del self._owed[next(iter(self._owed))]
        self._owed[multihash] = cause, received

    def take_owed(self, multihash: bytes) -> tuple[Cause, Received | None]:
        """Return, and forget, why this block came that nobody wants, and who had wanted it."""
        return self._owed.pop(multihash, (Cause.UNASKED, None))

    def received_block(self, cid: bytes) -> None:
        """Take note that the peer has sent the block, and so forgotten the want."""
        self.useful = True
        self._forget(cid)

    def received_have(self, cid: bytes) -> None:
        """Take note that the peer has said HAVE, and so forgotten a want-have."""
        self.useful = True
        self._lacking.discard(cid)
        told = self._told.get(cid)
        if told is not None and told[0]:
            del self._told[cid]
            if cid in self._desired:
                self._change(cid)

    def received_dont_have(self, cid: bytes) -> None:
        """Take note that the peer has said DONT_HAVE: whoever wants it from now on has it told again."""
        if cid in self._told:
            self._lacking.add(cid)

    def message_to_send(self) -> Message | None:
        """Return what to tell the peer now; None where that is nothing, or where a message is still being written.

        `message_sent` follows when the stream has accepted it, or `stream_ended`.
        """
        if self._sending is not None:
            return None
        self._to_write.pop(self.peer, None)
        if self._full:
            if not self._desired and not self._told:
                self._changed.clear()
                return None
            self._priority = PRIORITY_MAX
            message = Message([self._entry(cid) for cid in self._desired], full=True)
        else:
            message = self._difference()
            if not message.entries:
                self._changed.clear()
                return None
        self._sending = message
        self._changed.clear()
        return message

    def message_sent(self, now: float) -> None:
        """Take note that a stream has accepted the message."""
        message = self._sending
        assert message is not None  # the shell says so once for each message
        self._sending = None
        if message.full:
            self._told.clear()
            self._lacking.clear()
            self._repairing.clear()
            self._full = False
        for entry in message.entries:
            self._forget(entry.cid)
            if not entry.cancel:
                self._told[entry.cid] = entry.want_have, now
            if entry.cancel == (entry.cid in self._desired):
                self._change(entry.cid)
        if self._changed:
            self._to_write[self.peer] = None

    def stream_ended(self) -> None:
        """Take note that our stream is gone: what it carried may not have arrived, so a new one tells everything."""
        if self._sending is not None:
            # Whether the peer has it is not known: it may hold wants to be taken back.
            for entry in self._sending.entries:
                self._told.setdefault(entry.cid, (entry.want_have, 0.0))
            self._sending = None
        self._full = True
        if self._desired or self._told:
            self._to_write[self.peer] = None

    def repair(self, now: float) -> None:
        """Tell again what has had no answer for too long."""
        for cid, (_, told_at) in list(self._told.items()):
            if max(told_at, self.heard_at) + self._repair_after > now:
                break
            if cid in self._desired:
                self._repairing.add(cid)
                self._change(cid)

    def _forget(self, cid: bytes) -> None:
        self._told.pop(cid, None)
        self._lacking.discard(cid)

    def _change(self, cid: bytes) -> None:
        self._changed[cid] = None
        self._to_write[self.peer] = None

    def _difference(self) -> Message:
        """Return cancels first, so that the peer never holds more than both together allow, then wants."""
        message = Message()
        wants = []
        for cid in self._changed:
            told = self._told.get(cid)
            if cid not in self._desired or cid in self._repairing:
                self._repairing.discard(cid)
                if told is not None:
                    # Where it is wanted, that follows in the next message: boxo makes one entry of all for a CID.
                    message.entries.append(Entry(cid, 0, True))
                    continue
            if cid in self._desired and (told is None or (told[0] and not self._want_have(cid))):
                wants.append(self._entry(cid))
        message.entries += wants
        return message

    def _entry(self, cid: bytes) -> Entry:
        # Highest first: a server that orders by priority answers in the order in which we asked.
        self._priority -= 1
        priority = PRIORITY_MAX if cid in self._urgent else self._priority
        return Entry(cid, priority, False, self._want_have(cid), True)

    def _want_have(self, cid: bytes) -> bool:
        return all(self._desired[cid].values())
