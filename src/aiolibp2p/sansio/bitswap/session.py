"""Which want goes to which peer: related wants, several peers, and what each has shown itself to be.

A block is asked of one peer, the one expected to deliver first. While nobody is known to have it others are asked
whether they do: those that were useful before or, where there is none, a few. A peer gets as many wants as fit in its
window. Its answers are timed from when a want has become the oldest one there, since a server answers one after the
other. Twice somebody else is asked:

- When the peer is silent for longer than it is before 95 of 100 answers, for the oldest want, and as the silence lasts
  for ever more, one other peer is asked as well: a hedge. Of all blocks a twentieth may be hedged, and a few more.
- When it does not answer in time, it is presumed not to have what it was asked for, as if it had said DONT_HAVE: all of
  it, or, where it answers younger wants, the oldest. What was asked stays asked, so that a late block still counts, and
  a peer that speaks again is expected to deliver again.

A want is queued (to be asked of somebody), asked (of a peer that is expected to answer), standing (with peers that did
not answer in time, and nobody else) or exhausted (every peer of the session has said DONT_HAVE).
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
from aiolibp2p.sansio.bitswap.received import Received
from aiolibp2p.sansio.bitswap.wanted import Rank, Want, cause_of, rank_of
from aiolibp2p.sansio.bitswap.wantlist import Wantlist

P = TypeVar("P", bound=Hashable)

LOOKED_AT = 1024
"""Queued wants looked at to find one for a peer that is free."""
PAIRS_LOOKED_AT = 16 * LOOKED_AT
"""The same, times the peers that each could be asked of."""
HEDGES = 32
"""Wants of a session that may be hedged before any block has come."""
HEDGED_OF = 20
"""Of so many blocks that come, one more may be hedged."""


class Session(Generic[P]):
    """Wants that belong together, and the peers that may have their blocks.

    Args:
        limits: `bitswap_cid_bytes`, `bitswap_batch_bytes`, `bitswap_broadcast_peers`, and `yamux_window_max`, the bytes
            asked of a peer at a time.
        timeouts: `bitswap_answer` bounds the wait for one peer.
        interest: where the session enters what it wants, by multihash; shared by all sessions.
        in_all: what all sessions have received; the session counts its hedges and what it presumes there too.
    """

    def __init__(
        self,
        limits: Limits,
        timeouts: Timeouts,
        interest: dict[bytes, dict[tuple[Session[P], bytes], None]] | None = None,
        in_all: Received | None = None,
    ) -> None:
        self.received = Received()
        """What has come of what this session wanted."""
        self.progress_at = -math.inf
        """When a peer last sent something that was waited for."""
        self._limits = limits
        self._timeouts = timeouts
        self._interest = {} if interest is None else interest
        self._wants: dict[bytes, Want[P]] = {}
        self._queue: OrderedDict[bytes, None] = OrderedDict()
        self._peers: dict[P, Candidate[P]] = {}
        self._exhausted: dict[bytes, None] = {}
        self._unlocated: dict[bytes, None] = {}
        self._in_all = Received() if in_all is None else in_all

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
            self._wants[cid] = Want(multihash)
            self._interest.setdefault(multihash, {})[self, cid] = None
            self._queue[cid] = None
            if not self._peers:
                self._exhausted[cid] = self._unlocated[cid] = None
        self._ask(now)

    def unwant(self, cids: Iterable[bytes], now: float) -> None:
        """Want these no longer; peers that were asked are told."""
        for cid in cids:
            want = self._wants.get(cid)
            if want is not None:
                self._remove(cid, want, now)
        self._ask(now)

    def ask_queued(self, now: float) -> None:
        """Ask for what is queued, where a peer has room for more."""
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
        self._unlocated.clear()
        self._ask(now)

    def remove_peer(self, peer: P, now: float) -> None:
        """Ask this peer no more: it is gone. What it was asked for is asked elsewhere."""
        record = self._peers.pop(peer, None)
        if record is None:
            return
        for cid, want in self._wants.items():
            want.have.discard(peer)
            want.absent.discard(peer)
            want.presumed.discard(peer)
            self._untell(record, cid, want)
            want.expect_no_more(peer)
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

    def unlocated(self) -> list[bytes]:
        """Return, once each, what every peer has said, or is presumed, not to have: what is exhausted is among it."""
        found = [cid for cid in self._unlocated if cid in self._wants]
        self._unlocated.clear()
        return found

    def lacks(self, cid: bytes) -> bool:
        """Return whether a CID is wanted and no peer may have it: each has said, or is presumed, not to."""
        want = self._wants.get(cid)
        return want is not None and want.asked is None and all(want.lacked_by(peer) for peer in self._peers)

    def check_exhausted(self, cid: bytes) -> None:
        """Let `exhausted` return a CID once more, if it is so still: what it was said for came to nothing."""
        want = self._wants.get(cid)
        if want is not None:
            self._check_exhausted(cid, want)
            self._unlocated.pop(cid, None)

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
        self.received.block(n_bytes)
        record = self._peers.get(peer)
        if record is not None:
            record.received_block(cid, n_bytes, now)
            self._heard(record, now)
        self._remove(cid, want, now, sent_by=peer)
        self._ask(now)
        return True

    def received_presence(self, peer: P, cid: bytes, have: bool, now: float) -> None:
        """Take note of HAVE or DONT_HAVE."""
        want = self._wants.get(cid)
        record = self._peers.get(peer)
        if want is None or record is None:
            return
        self.progress_at = now
        told_at = want.told.get(peer)
        after = None if told_at is None or peer in want.have or peer in want.absent else now - told_at
        if have:
            self.received.haves += 1
            record.received_have(after)
            want.absent.discard(peer)
            want.have.add(peer)
            if peer not in want.wanted_of:
                want.presumed.discard(peer)
                self._untell(record, cid, want)
        else:
            self.received.dont_haves += 1
            record.received_dont_have(cid, after, now)
            want.absent.add(peer)
            want.have.discard(peer)
            want.presumed.discard(peer)
            want.expect_no_more(peer)
            # The peer remembers the want, and tells when it gets the block; but not at the cost of new wants.
            if record.wantlist.room < len(record.wantlist):
                self._untell(record, cid, want)
            if want.asked is not None and not want.have:
                self._ask_whether(cid, want, now)
        self._heard(record, now)
        if want.asked is None:
            self._requeue([cid])
            self._check_exhausted(cid, want)
        self._ask(now)

    # -- time --------------------------------------------------------------------------------------------------------

    def next_timeout(self) -> float:
        """Return when `handle_timeout` has something to do; `math.inf` for never."""
        when = min((record.deadline() for record in self._peers.values()), default=math.inf)
        if len(self._peers) > 1:  # else there is nobody to hedge with
            when = min(when, *(record.hedge_at() for record in self._peers.values()))
        return when

    def handle_timeout(self, now: float) -> None:
        """Ask elsewhere for what was not answered in time."""
        for peer, record in self._peers.items():
            late = record.late(now)
            self.received.presumed_absent += len(late)
            self._in_all.presumed_absent += len(late)
            unasked = []
            for cid in late:
                want = self._wants[cid]
                want.presumed.add(peer)
                want.expect_no_more(peer)
                if want.asked is None:
                    unasked.append(cid)
            self._requeue(unasked)
            for cid in unasked:
                self._check_exhausted(cid, self._wants[cid])
        if len(self._peers) > 1:
            for peer, record in self._peers.items():
                for cid in record.hedges(now):
                    self._hedge(peer, cid, now)
        self._ask(now)

    # -- whom to ask -------------------------------------------------------------------------------------------------

    def _requeue(self, cids: Sequence[bytes]) -> None:
        """Ask for these first: they are wanted longer than what is queued."""
        for cid in reversed(cids):
            self._queue[cid] = None
            self._queue.move_to_end(cid, last=False)

    def _ask(self, now: float) -> None:
        """Give queued wants to peers that are free, in order."""
        peers = self._peers.values()
        if not self._queue or not any(record.free for record in peers):
            return
        settled = []
        quickest = self._quickest()
        tried = self._tried()
        for cid in islice(self._queue, min(LOOKED_AT, 1 + PAIRS_LOOKED_AT // len(self._peers))):
            want = self._wants[cid]
            record, possible = self._choose(want, now, quickest, tried)
            if record is not None:
                self._ask_of(record, cid, want, now)
                settled.append(cid)
                if record.unknown:
                    tried = self._tried()
                if not record.free and not any(record.free for record in peers):
                    break
            elif not possible:
                settled.append(cid)
        for cid in settled:
            del self._queue[cid]

    def _choose(self, want: Want[P], now: float, quickest: float, tried: int) -> tuple[Candidate[P] | None, bool]:
        """Return who is to be asked now, and whether somebody may be asked later."""
        best: Candidate[P] | None = None
        best_rank: tuple[bool, Rank] | None = None
        possible = answering = False
        for peer, record in self._peers.items():
            if want.lacked_by(peer):
                continue
            possible = True
            poor = record.silent or (record.barren and peer not in want.have)
            answering = answering or not poor
            # Where enough are being tried, one of those answers soon, or is late.
            if record.free and (tried < self._limits.bitswap_broadcast_peers or record.expected or not record.unknown):
                rank = poor, rank_of(record, want, quickest, now)
                if best_rank is None or rank < best_rank:
                    best, best_rank = record, rank
        if best_rank is not None and best_rank[0] and answering:
            return None, True  # better wait for one that answers
        return best, possible

    def _tried(self) -> int:
        """Return how many peers are asked for blocks of which nothing is known yet."""
        return sum(record.unknown and record.expected > 0 for record in self._peers.values())

    def _quickest(self) -> float:
        """Return what the best peer needs for a block: so much is expected of one that has sent none yet."""
        return min((its.interval for its in self._peers.values() if its.interval is not None), default=0.0)

    def _ask_of(self, record: Candidate[P], cid: bytes, want: Want[P], now: float) -> None:
        peer = record.wantlist.peer
        record.expect(cid, now)
        record.wantlist.want(self, cid, urgent=bool(want.wanted_of))
        want.asked = peer
        want.told.setdefault(peer, now)
        want.wanted_of.add(peer)
        if not record.trusted and peer not in want.have:
            self._ask_whether(cid, want, now)

    def _ask_whether(self, cid: bytes, want: Want[P], now: float) -> None:
        """Ask more peers whether they have it: useful ones, or, where none of those may have it, a few others."""
        useful: list[Candidate[P]] = []
        others: list[Candidate[P]] = []
        room = self._limits.bitswap_broadcast_peers
        useful_asked = False
        for peer, record in self._peers.items():
            if want.lacked_by(peer) or peer in want.have:
                continue
            if peer in want.told:
                room -= peer not in want.wanted_of
                useful_asked = useful_asked or record.wantlist.useful
            elif record.wantlist.supports_have and record.wantlist.room > 0 and not record.silent:
                (useful if record.wantlist.useful else others).append(record)
        if not useful and not useful_asked:
            useful = others
        for record in useful[: max(room, 0)]:
            want.told[record.wantlist.peer] = now
            record.wantlist.want(self, cid, have=True)

    def _hedge(self, peer: P, cid: bytes, now: float) -> None:
        """Ask a second peer for what `peer` is silent about, if one may have it."""
        want = self._wants[cid]
        if want.asked != peer or want.hedge is not None:
            return
        if self.received.hedges >= HEDGES + self.received.blocks // HEDGED_OF:
            return
        best: Candidate[P] | None = None
        best_rank: Rank | None = None
        quickest = self._quickest()
        for other, record in self._peers.items():
            usable = record.wantlist.room > 0 and not record.silent and (other in want.have or record.trusted)
            if usable and other != peer and other not in want.wanted_of and not want.lacked_by(other):
                rank = rank_of(record, want, quickest, now)
                if best_rank is None or rank < best_rank:
                    best, best_rank = record, rank
        if best is not None:
            self.received.hedges += 1
            self._in_all.hedges += 1
            best.expect(cid, now)
            best.wantlist.want(self, cid, urgent=True)
            want.hedge = best.wantlist.peer
            want.told.setdefault(want.hedge, now)
            want.wanted_of.add(want.hedge)

    def _heard(self, record: Candidate[P], now: float) -> None:
        """Take note that a peer answers; what it had not answered in time is expected of it again."""
        record.heard(now)
        if not record.silent:
            return
        record.silent = False
        peer = record.wantlist.peer
        for cid, want in self._wants.items():
            if peer in want.presumed:
                want.presumed.discard(peer)
                if want.asked is None:
                    self._queue.pop(cid, None)
                    record.expect(cid, now)
                    want.asked = peer

    def _untell(self, record: Candidate[P], cid: bytes, want: Want[P]) -> None:
        peer = record.wantlist.peer
        if want.told.pop(peer, None) is not None:
            want.wanted_of.discard(peer)
            record.wantlist.unwant(self, cid)

    def _remove(self, cid: bytes, want: Want[P], now: float, sent_by: P | None = None) -> None:
        for peer in want.told:
            record = self._peers[peer]
            record.excuse(cid, now)
            record.wantlist.unwant(self, cid)
            if peer in want.wanted_of and peer != sent_by and peer not in want.absent:
                record.wantlist.owe(want.multihash, cause_of(want, peer, sent_by), self.received)
        del self._wants[cid]
        self._queue.pop(cid, None)
        self._exhausted.pop(cid, None)
        self._unlocated.pop(cid, None)
        interested = self._interest[want.multihash]
        del interested[self, cid]
        if not interested:
            del self._interest[want.multihash]

    def _check_exhausted(self, cid: bytes, want: Want[P]) -> None:
        unasked = want.asked is None
        _enter(self._exhausted, cid, unasked and all(peer in want.absent for peer in self._peers))
        _enter(self._unlocated, cid, unasked and all(want.lacked_by(peer) for peer in self._peers))


def _enter(entries: dict[bytes, None], cid: bytes, present: bool) -> None:
    if present:
        entries[cid] = None
    else:
        entries.pop(cid, None)
