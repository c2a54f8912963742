"""Serving: the ledgers of all peers, whose turn it is, and what the answers may hold of memory meanwhile.

The shell looks sizes up, loads blocks, writes messages with `try_write`, and says what happened. A peer that takes no
more bytes leaves the scheduler until its stream is writable again, and the bytes loaded for it leave the pool that the
others share for one of their own, whose oldest owner is given up first. So a peer that makes no progress holds nothing
that another needs.

A peer that stalls is given up when its time is over: `Timeouts.bitswap_stall`, and the bytes accepted since its last
credit at `Limits.bitswap_bytes_per_second`. Credit lengthens that time only by what it brings at this rate, so reading
a byte now and then gains nothing. Then its stream is to be reset, its answers are due once more, and it is not served
for `Timeouts.backoff`, doubling to `Timeouts.backoff_max` until something is delivered.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from aiolibp2p.limits import Limits, Refused, Timeouts, unheard
from aiolibp2p.sansio.bitswap.ledger import Ledger
from aiolibp2p.sansio.bitswap.message import Message
from aiolibp2p.sansio.bitswap.scheduler import Scheduler
from aiolibp2p.sansio.bitswap.timers import Alarms
from aiolibp2p.sansio.bitswap.wants import Batch, Waiting

P = TypeVar("P", bound=Hashable)

BATCHES_AHEAD = 8
"""Batches of one peer that are loaded or written at a time; when half have left, as many are loaded in one go."""


class _Peer(Generic[P]):
    """How far one peer is."""

    __slots__ = (
        "batches",
        "blocked",
        "filling",
        "id",
        "ledger",
        "moves",
        "moving_bytes",
        "patience",
        "resume_at",
        "stall_at",
    )

    def __init__(self, peer: P, ledger: Ledger) -> None:
        self.id = peer
        self.ledger = ledger
        self.batches: dict[Batch, None] = {}
        self.blocked = False
        self.filling = True
        """Whether it is given batches up to the most it may have."""
        self.moving_bytes = 0
        """Accepted since the stream could last take bytes again."""
        self.stall_at = math.inf
        """When it is given up if it is still blocked then."""
        self.patience = math.inf
        """How long it may still be blocked; infinite once all its batches were accepted."""
        self.resume_at = -math.inf
        """When it is served again."""
        self.moves = False
        """Whether its stream has accepted a whole batch: before that, only one is loaded."""


@dataclass(slots=True)
class Spent:
    """What serving has cost and brought, in all."""

    picks: int = 0
    """Batches taken."""
    read_bytes: int = 0
    """Bytes of messages that were taken for loading."""
    written_bytes: int = 0
    """Bytes that streams have accepted."""
    stalls: int = 0
    """Peers given up because their time was over."""
    resets: int = 0
    """Response streams that were reset by peers or with their connections."""


class Engine(Generic[P]):
    """Decides which peer gets what next; a peer is whatever the shell calls it.

    Args:
        limits: the `bitswap_…` fields, and `connections`, which bounds the back-offs remembered.
        timeouts: `bitswap_stall`, `backoff` and `backoff_max`.
        refused: hears of wants for which there is no room, and of peers given up because others need theirs.
    """

    def __init__(self, limits: Limits, timeouts: Timeouts, refused: Refused = unheard) -> None:
        self.spent = Spent()
        self._refused = refused
        self._limits = limits
        self._timeouts = timeouts
        # A peer that stalled is read less for, until it gives credit: go gives it at half a window.
        self._probe_bytes = limits.yamux_window * 5 // 8
        self._scheduler: Scheduler[P] = Scheduler(limits.bitswap_batch_bytes)
        self._peers: dict[P, _Peer[P]] = {}
        self._owners: dict[Ledger, _Peer[P]] = {}
        self._waiting: Waiting = {}
        self._alarms: Alarms[P] = Alarms()
        self._loaded_bytes = 0
        self._stalled_bytes = 0
        self._stalled: dict[P, int] = {}
        """Bytes held for each blocked peer, longest blocked first."""
        self._backoffs: dict[P, tuple[float, float]] = {}
        """When a peer is served again and how long it waited; kept while it is away."""

    # -- peers -------------------------------------------------------------------------------------------------------

    @property
    def loaded_bytes(self) -> int:
        """Bytes held, or being loaded, for peers that make progress."""
        return self._loaded_bytes

    @property
    def stalled_bytes(self) -> int:
        """Bytes held for peers that take none."""
        return self._stalled_bytes

    @property
    def eligible(self) -> int:
        """How many peers could be given a batch now."""
        return len(self._scheduler)

    def ledger(self, peer: P) -> Ledger | None:
        """Return what `peer` wants, or None where it has said nothing."""
        record = self._peers.get(peer)
        return None if record is None else record.ledger

    def disconnected(self, peer: P) -> None:
        """Drop what `peer` wants and what is held for it: its last connection is gone."""
        record = self._peers.pop(peer, None)
        if record is not None:
            self._release(record)
            del self._owners[record.ledger]
            record.ledger.clear()
        self._scheduler.forget(peer)
        self._alarms.drop(peer)

    # -- wants and blocks --------------------------------------------------------------------------------------------

    def receive(self, peer: P, message: Message, now: float) -> list[bytes]:
        """Take the wantlist of a message; return the multihashes whose sizes are to be looked up."""
        record = self._peers.get(peer)
        if record is None:
            if not message.entries:
                return []
            ledger = Ledger(self._limits, self._timeouts, self._waiting, self._refused)
            record = self._peers[peer] = _Peer(peer, ledger)
            self._owners[record.ledger] = record
            record.resume_at = self._backoffs.get(peer, (-math.inf, 0.0))[0]
        found = record.ledger.receive(message)
        self._settle(record, now)
        return found

    def unknown(self, peer: P) -> list[bytes]:
        """Return what is still to be looked up for `peer`; unlike a list of what `receive` returned, it is bounded."""
        record = self._peers.get(peer)
        return [] if record is None else record.ledger.unknown()

    def looked_up(self, peer: P, sizes: Mapping[bytes, int | None], now: float) -> None:
        """Take the sizes that `receive` asked for; None for a block that is missing, or denied to this peer."""
        record = self._peers.get(peer)
        if record is not None:
            record.ledger.looked_up(sizes)
            self._settle(record, now)

    def look_up_failed(self, peer: P, multihashes: Iterable[bytes]) -> None:
        """Take note that the store did not answer; the peer is told nothing, and asks again."""
        record = self._peers.get(peer)
        if record is not None:
            record.ledger.look_up_failed(multihashes)

    def arrived(self, multihash: bytes, size: int, now: float) -> None:
        """Take note of a new block: those who wait for it are answered."""
        for want in tuple(self._waiting.get(multihash, ())):
            want.ledger.found(want, size)
            self._settle(self._owners[want.ledger], now)

    # -- batches -----------------------------------------------------------------------------------------------------

    def next_batch(self, now: float) -> tuple[P, Batch] | None:
        """Return the answers to load next and for whom; None where no peer is eligible, or too much is held."""
        if self._loaded_bytes >= self._limits.bitswap_loaded_bytes:
            return None
        peer = self._scheduler.next()
        if peer is None:
            return None
        record = self._peers[peer]
        batch = record.ledger.take(self._probe_bytes if peer in self._backoffs else self._limits.bitswap_batch_bytes)
        assert batch is not None  # only peers with answers are in the scheduler
        self._scheduler.charge(peer, batch.n_bytes)
        record.batches[batch] = None
        self._loaded_bytes += batch.n_bytes
        self.spent.picks += 1
        self.spent.read_bytes += batch.n_bytes
        self._settle(record, now)
        return peer, batch

    def answer(self, batch: Batch, blocks: Mapping[bytes, bytes | None]) -> Message:
        """Return the message of a batch; where it is empty there is nothing to write, and `written` follows at once.

        Args:
            blocks: as for `Ledger.answer`.
        """
        if not self.current(batch):
            return Message()
        return batch.ledger.answer(batch, blocks)

    def current(self, batch: Batch) -> bool:
        """Return whether the batch is still to be written: its peer and its stream are there."""
        record = self._owners.get(batch.ledger)
        return record is not None and batch in record.batches

    def accepted(self, peer: P, n_bytes: int) -> None:
        """Take note that the stream has accepted `n_bytes` more."""
        self.spent.written_bytes += n_bytes
        record = self._peers.get(peer)
        if record is not None:
            record.moving_bytes += n_bytes

    def written(self, batch: Batch, now: float, position: int = 0) -> None:
        """Take note that the stream has accepted all of a batch, `position` bytes in all; what was held is released."""
        record = self._owners.get(batch.ledger)
        if record is None or batch not in record.batches:
            return
        del record.batches[batch]
        self._hold(record, -batch.n_bytes)
        record.ledger.written(batch, now, position)
        record.moves = True
        if not record.batches:
            record.patience = math.inf
        self._settle(record, now)

    def credited(self, peer: P, position: int, now: float) -> None:
        """Take note that the peer has read its response stream up to `position`; its next back-off is a first one."""
        record = self._peers.get(peer)
        if record is not None:
            record.ledger.credited(position)
            self._backoffs.pop(peer, None)
            self._settle(record, now)

    # -- progress ----------------------------------------------------------------------------------------------------

    def blocked(self, peer: P, now: float) -> list[P]:
        """Take note that the stream accepts nothing now; return the peers whose response streams are to be reset.

        Those are given up already, because more is held for stalled peers than `Limits.bitswap_stalled_bytes`.
        """
        record = self._peers.get(peer)
        if record is None or record.blocked:
            return []
        needed = record.moving_bytes / self._limits.bitswap_bytes_per_second
        patience = min(record.patience, self._timeouts.bitswap_stall) + needed
        record.stall_at = now + patience
        record.blocked = True
        record.moving_bytes = 0
        held = sum(batch.n_bytes for batch in record.batches)
        self._loaded_bytes -= held
        self._stalled_bytes += held
        self._stalled[peer] = held
        self._settle(record, now)
        given_up = []
        while self._stalled_bytes > self._limits.bitswap_stalled_bytes:
            oldest = next(iter(self._stalled))
            self._refused("bitswap_stalled_bytes")
            self._give_up(self._peers[oldest], now)
            given_up.append(oldest)
        return given_up

    def writable(self, peer: P, now: float) -> None:
        """Take note that the stream accepts bytes again."""
        record = self._peers.get(peer)
        if record is not None and record.blocked:
            record.patience = record.stall_at - now
            self._unblock(record)
            self._settle(record, now)

    def stream_reset(self, peer: P, now: float) -> None:
        """Take note that the response stream is gone: what nothing confirmed is due again, once, on a new stream."""
        record = self._peers.get(peer)
        if record is not None:
            self.spent.resets += 1
            self._restart(record, now)
            self._settle(record, now)

    def next_timeout(self) -> float:
        """Return when `handle_timeout` has something to do; `math.inf` for never."""
        return self._alarms.next()

    def handle_timeout(self, now: float) -> list[P]:
        """Confirm what is old enough, and return the peers whose response streams are to be reset: they stalled.

        Their answers are due again on a new stream, after their back-off.
        """
        given_up = []
        for peer in self._alarms.due(now):
            record = self._peers[peer]
            record.ledger.handle_timeout(now)
            if record.blocked and record.stall_at <= now:
                self.spent.stalls += 1
                self._give_up(record, now)
                given_up.append(peer)
            self._settle(record, now)
        return given_up

    # -- inside ------------------------------------------------------------------------------------------------------

    def _settle(self, record: _Peer[P], now: float) -> None:
        """Let a peer take part exactly if it can be given a batch, and set its alarm."""
        backs_off = record.resume_at > now
        ahead = BATCHES_AHEAD if record.moves and record.id not in self._backoffs else 1
        if len(record.batches) <= ahead // 2:
            record.filling = True
        elif len(record.batches) >= ahead:
            record.filling = False
        if record.ledger.ready and not record.blocked and not backs_off and record.filling:
            self._scheduler.add(record.id)
        else:
            self._scheduler.remove(record.id)
        when = record.ledger.next_timeout()
        if record.blocked:
            when = min(when, record.stall_at)
        if backs_off and record.ledger.ready:
            when = min(when, record.resume_at)
        self._alarms.set(record.id, when)

    def _give_up(self, record: _Peer[P], now: float) -> None:
        self._restart(record, now)
        waited = self._backoffs.pop(record.id, (0.0, 0.0))[1]
        seconds = min(max(waited * 2, self._timeouts.backoff), self._timeouts.backoff_max)
        record.resume_at = now + seconds
        self._backoffs[record.id] = record.resume_at, seconds
        if len(self._backoffs) > self._limits.connections:
            del self._backoffs[next(iter(self._backoffs))]
        self._settle(record, now)

    def _restart(self, record: _Peer[P], now: float) -> None:
        """Give back what was on the way: there is no stream any more."""
        self._release(record)
        record.patience = math.inf
        record.moving_bytes = 0
        record.moves = False
        record.ledger.reset(now)

    def _release(self, record: _Peer[P]) -> None:
        self._hold(record, -sum(batch.n_bytes for batch in record.batches))
        record.batches.clear()
        self._unblock(record)

    def _unblock(self, record: _Peer[P]) -> None:
        if record.blocked:
            record.blocked = False
            held = self._stalled.pop(record.id)
            self._stalled_bytes -= held
            self._loaded_bytes += held

    def _hold(self, record: _Peer[P], n_bytes: int) -> None:
        """Change what is held for a peer, in the pool that it belongs to."""
        if record.blocked:
            self._stalled[record.id] += n_bytes
            self._stalled_bytes += n_bytes
        else:
            self._loaded_bytes += n_bytes
