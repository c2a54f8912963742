"""Which want goes to which peer: related wants, several peers, and what each has shown itself to be.

A block is asked of one peer at a time, the one expected to deliver first; others are asked whether they have it while
nobody is known to. A peer gets as many wants as fit in its window. Its answers are timed from when a want has become
the oldest one there, since a server answers one after the other. When the oldest gets no answer in time, all that was
asked of a silent peer is asked elsewhere too, and of a peer that answers younger wants the oldest. What was asked stays
asked, so that a late block still counts.

A want is queued (to be asked of somebody), asked (of one peer that is expected to answer), standing (only with peers
that did not answer in time) or exhausted (every peer of the session has said DONT_HAVE).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from itertools import islice
from typing import Generic, TypeVar

from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.bitswap.candidate import Candidate
from aiolibp2p.sansio.bitswap.cids import wanted_multihash
from aiolibp2p.sansio.bitswap.wantlist import Wantlist

P = TypeVar("P", bound=Hashable)

LOOKED_AT = 1024
"""Queued wants looked at to find one for a peer that is free."""


class _Want(Generic[P]):
    """One wanted CID."""

    __slots__ = ("absent", "asked", "have", "late", "multihash", "told")

    def __init__(self, multihash: bytes) -> None:
        self.multihash = multihash
        self.asked: P | None = None
        """Who is expected to send the block."""
        self.told: dict[P, None] = {}
        """Everybody whose wantlist has it."""
        self.late: set[P] = set()
        """Who did not send it in time."""
        self.have: set[P] = set()
        self.absent: set[P] = set()


class Session(Generic[P]):
    """Wants that belong together, and the peers that may have their blocks.

    Args:
        limits: `bitswap_cid_bytes`, `bitswap_batch_bytes`, and `yamux_window_max`, the bytes asked of a peer at a time.
        timeouts: `bitswap_answer` bounds the wait for one peer.
        interest: where the session enters what it wants, by multihash; shared by all sessions.
    """

    def __init__(
        self,
        limits: Limits,
        timeouts: Timeouts,
        interest: dict[bytes, dict[tuple[Session[P], bytes], None]] | None = None,
    ) -> None:
        self.progress_at = -math.inf
        """When a peer last sent something that was waited for."""
        self._limits = limits
        self._timeouts = timeouts
        self._interest = {} if interest is None else interest
        self._wants: dict[bytes, _Want[P]] = {}
        self._queue: OrderedDict[bytes, None] = OrderedDict()
        self._peers: dict[P, Candidate[P]] = {}
        self._exhausted: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._wants)

    def __contains__(self, cid: object) -> bool:
        return cid in self._wants

    @property
    def peers(self) -> list[P]:
        """The peers that are asked."""
        return list(self._peers)

    @property
    def queued(self) -> int:
        """How many wants are asked of nobody yet."""
        return len(self._queue)

    # -- wants and peers ---------------------------------------------------------------------------------------------

    def want(self, cids: Iterable[bytes], now: float) -> None:
        """Want these blocks, the first most.

        Raises:
            InvalidValueError: one of them is no CID, or none that Bitswap can fetch; nothing is wanted then.
        """
        fresh = {cid: wanted_multihash(cid, self._limits.bitswap_cid_bytes) for cid in cids if cid not in self._wants}
        for cid, multihash in fresh.items():
            self._wants[cid] = _Want(multihash)
            self._interest.setdefault(multihash, {})[self, cid] = None
            self._queue[cid] = None
            self._check_exhausted(cid, self._wants[cid])
        self._ask(now)

    def unwant(self, cids: Iterable[bytes], now: float) -> None:
        """Want these no longer; peers that were asked are told."""
        for cid in cids:
            want = self._wants.get(cid)
            if want is not None:
                self._remove(cid, want, now)
        self._ask(now)

    def close(self, now: float) -> None:
        """Want nothing more and ask nobody."""
        self.unwant(list(self._wants), now)
        self._peers.clear()

    def add_peer(self, wantlist: Wantlist[P], now: float) -> None:
        """Ask the peer of this wantlist too."""
        if wantlist.peer in self._peers:
            return
        self._peers[wantlist.peer] = Candidate(wantlist, self._limits, self._timeouts)
        self._requeue([cid for cid, want in self._wants.items() if want.asked is None])
        self._exhausted.clear()
        self._ask(now)

    def remove_peer(self, peer: P, now: float) -> None:
        """Ask this peer no more: it is gone. What it was asked for is asked elsewhere."""
        record = self._peers.pop(peer, None)
        if record is None:
            return
        for cid, want in self._wants.items():
            want.have.discard(peer)
            want.absent.discard(peer)
            want.late.discard(peer)
            if want.told.pop(peer, 0) is None:
                record.wantlist.unwant(self, cid)
            if want.asked == peer:
                want.asked = None
            if want.asked is None:
                self._check_exhausted(cid, want)
        self._requeue([cid for cid, want in self._wants.items() if want.asked is None])
        self._ask(now)

    def exhausted(self) -> list[bytes]:
        """Return, once each, the wanted CIDs that every peer has said not to have, or for which there is no peer.

        They stay wanted: a peer that gets the block later, or is added, still serves them.
        """
        found = [cid for cid in self._exhausted if cid in self._wants]
        self._exhausted.clear()
        return found

    # -- what peers say ----------------------------------------------------------------------------------------------

    def received_bytes(self, peer: P, n_bytes: int, now: float) -> None:
        """Take note that part of a message has come from a peer: it is slow, not silent."""
        record = self._peers.get(peer)
        if record is not None:
            record.received_bytes(n_bytes, now)
            self.progress_at = max(self.progress_at, record.heard_at)

    def received_block(self, peer: P, cid: bytes, n_bytes: int, now: float) -> bool:
        """Take note of a verified block; return whether it was wanted. It is no longer, and others are told."""
        want = self._wants.get(cid)
        if want is None:
            return False
        self.progress_at = now
        record = self._peers.get(peer)
        if record is not None:
            record.received_block(cid, n_bytes, now)
            self._heard(record, now)
        self._remove(cid, want, now)
        self._ask(now)
        return True

    def received_presence(self, peer: P, cid: bytes, have: bool, now: float) -> None:
        """Take note of HAVE or DONT_HAVE."""
        want = self._wants.get(cid)
        record = self._peers.get(peer)
        if want is None or record is None:
            return
        self.progress_at = now
        if have:
            record.received_have()
            want.absent.discard(peer)
            want.have.add(peer)
            if want.asked != peer and peer not in want.late:
                self._untell(record, cid, want)
        else:
            record.received_dont_have(cid, now)
            want.absent.add(peer)
            want.have.discard(peer)
            want.late.discard(peer)
            if want.asked == peer:
                want.asked = None
            # The peer remembers the want, and tells when it gets the block; but not at the cost of new wants.
            if record.wantlist.room < len(record.wantlist):
                self._untell(record, cid, want)
        self._heard(record, now)
        if want.asked is None:
            self._requeue([cid])
            self._check_exhausted(cid, want)
        self._ask(now)

    # -- time --------------------------------------------------------------------------------------------------------

    def next_timeout(self) -> float:
        """Return when `handle_timeout` has something to do; `math.inf` for never."""
        return min((record.deadline() for record in self._peers.values()), default=math.inf)

    def handle_timeout(self, now: float) -> None:
        """Ask elsewhere for what was not answered in time."""
        for peer, record in self._peers.items():
            late = record.late(now)
            for cid in late:
                self._wants[cid].asked = None
                self._wants[cid].late.add(peer)
            self._requeue(late)
        self._ask(now)

    # -- whom to ask -------------------------------------------------------------------------------------------------

    def _requeue(self, cids: Sequence[bytes]) -> None:
        """Ask for these first: they are wanted longer than what is queued."""
        for cid in reversed(cids):
            self._queue[cid] = None
            self._queue.move_to_end(cid, last=False)

    def _ask(self, now: float) -> None:
        """Give queued wants to peers that are free, in order."""
        free = sum(record.free for record in self._peers.values())
        if not free or not self._queue:
            return
        settled = []
        for cid in islice(self._queue, LOOKED_AT):
            want = self._wants[cid]
            record, possible = self._choose(want)
            if record is not None:
                self._ask_of(record, cid, want, now)
                settled.append(cid)
                if not record.free:
                    free = sum(record.free for record in self._peers.values())
                    if not free:
                        break
            elif not possible:
                settled.append(cid)
        for cid in settled:
            del self._queue[cid]

    def _choose(self, want: _Want[P]) -> tuple[Candidate[P] | None, bool]:
        """Return who is to be asked now, and whether somebody may be asked later."""
        best: Candidate[P] | None = None
        best_rank: tuple[bool, bool, bool, float, int] | None = None
        possible = answering = False
        for peer, record in self._peers.items():
            if peer in want.absent or peer in want.late:
                continue
            possible = True
            answering = answering or not record.silent
            if record.free:
                n = record.expected
                rank = record.silent, peer not in want.have, not record.trusted, (n + 1) * record.interval, n
                if best_rank is None or rank < best_rank:
                    best, best_rank = record, rank
        if best is not None and best.silent and answering:
            return None, True  # better wait for one that answers
        return best, possible

    def _ask_of(self, record: Candidate[P], cid: bytes, want: _Want[P], now: float) -> None:
        peer = record.wantlist.peer
        record.expect(cid, now)
        want.asked = peer
        want.told[peer] = None
        record.wantlist.want(self, cid)
        if record.trusted or peer in want.have:
            return
        for other, its in self._peers.items():
            usable = its.wantlist.supports_have and its.wantlist.room > 0 and not its.silent
            if usable and other not in want.told and other not in want.absent:
                want.told[other] = None
                its.wantlist.want(self, cid, have=True)

    def _heard(self, record: Candidate[P], now: float) -> None:
        """Take note that a peer answers; what it had not answered in time is expected of it again."""
        record.heard_at = now
        if not record.silent:
            return
        record.silent = False
        peer = record.wantlist.peer
        for cid, want in self._wants.items():
            if peer in want.late:
                want.late.discard(peer)
                if want.asked is None:
                    self._queue.pop(cid, None)
                    record.expect(cid, now)
                    want.asked = peer

    def _untell(self, record: Candidate[P], cid: bytes, want: _Want[P]) -> None:
        if want.told.pop(record.wantlist.peer, 0) is None:
            record.wantlist.unwant(self, cid)

    def _remove(self, cid: bytes, want: _Want[P], now: float) -> None:
        for peer in want.told:
            record = self._peers[peer]
            record.excuse(cid, now)
            record.wantlist.unwant(self, cid)
        del self._wants[cid]
        self._queue.pop(cid, None)
        self._exhausted.pop(cid, None)
        interested = self._interest[want.multihash]
        del interested[self, cid]
        if not interested:
            del self._interest[want.multihash]

    def _check_exhausted(self, cid: bytes, want: _Want[P]) -> None:
        if want.asked is None and all(peer in want.absent for peer in self._peers):
            self._exhausted[cid] = None
        else:
            self._exhausted.pop(cid, None)
