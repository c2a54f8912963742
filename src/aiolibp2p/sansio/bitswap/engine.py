"""Serving: the ledgers of all peers, whose turn it is, and what the answers may hold of memory meanwhile.

The shell looks sizes up, loads blocks, writes messages with `try_write`, and says what happened. A peer that takes no
more bytes leaves the scheduler until its stream is writable again, and the bytes loaded for it leave the pool that the
others share for one of their own. After `Timeouts.bitswap_hold` without progress, or when that pool is full, what was
loaded and not begun to be written is let go, and its answers are due again; a pool that is full all the same gives up
its oldest owner. So a peer that makes no progress holds one message, and nothing that another needs.

A peer that stalls is given up when its time is over: `Timeouts.bitswap_stall`, and the bytes accepted since its last
credit at `Limits.bitswap_bytes_per_second`. Credit lengthens that time only by what it brings at this rate, so reading
a byte now and then gains nothing. Then its stream is to be reset, its answers are due once more, and it is not served
for `Timeouts.backoff`, doubling to `Timeouts.backoff_max` until something is delivered. A peer that ends its stream or
its connection while it takes nothing has, on the next one, what was left of its time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from aiolibp2p.limits import Limits, Refused, Timeouts, unheard
from aiolibp2p.sansio.bitswap.ledger import Ledger
from aiolibp2p.sansio.bitswap.message import Message
from aiolibp2p.sansio.bitswap.peer import Peer, Pools
from aiolibp2p.sansio.bitswap.scheduler import Scheduler
from aiolibp2p.sansio.bitswap.stat import PeerState, Sent, Spent, Stage, Stages, add_counts, copied
from aiolibp2p.sansio.bitswap.timers import Alarms
from aiolibp2p.sansio.bitswap.wants import Batch, Waiting

P = TypeVar("P", bound=Hashable)
V = TypeVar("V")

BATCHES_AHEAD = 8
"""Batches of one peer that are loaded or written at a time; when half have left, as many are loaded in one go."""


class Engine(Generic[P]):
    """Decides which peer gets what next; a peer is whatever the shell calls it.

    Args:
        limits: the `bitswap_…` fields, and `connections`, which bounds the back-offs remembered.
        timeouts: `bitswap_stall`, `bitswap_hold`, `backoff` and `backoff_max`.
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
        self._peers: dict[P, Peer[P]] = {}
        self._owners: dict[Ledger, Peer[P]] = {}
        self._waiting: Waiting = {}
        self._alarms: Alarms[P] = Alarms()
        self._pools: Pools[P] = Pools()
        self._holders: dict[P, Peer[P]] = {}
        """Blocked peers for which more is held than was begun, longest blocked first."""
        self._let_go: list[P] = []
        self._impatience: dict[P, float] = {}
        """How long peers that left while they took nothing may still be blocked; kept while they are away."""
        self._sent_before = Sent()
        self._dropped_before: dict[str, int] = {}
        """What peers were sent, and what of theirs was dropped, that are gone."""
        self._backoffs: dict[P, tuple[float, float]] = {}
        """When a peer is served again and how long it waited; kept while it is away."""

    # -- peers -------------------------------------------------------------------------------------------------------

    @property
    def loaded_bytes(self) -> int:
        """Bytes held, or being loaded, for peers that make progress."""
        return self._pools.loaded_bytes

    @property
    def stalled_bytes(self) -> int:
        """Bytes held for peers that take none."""
        return self._pools.stalled_bytes

    @property
    def eligible(self) -> int:
        """How many peers could be given a batch now."""
        return len(self._scheduler)

    def ledger(self, peer: P) -> Ledger | None:
        """Return what `peer` wants, or None where it has said nothing."""
        record = self._peers.get(peer)
        return None if record is None else record.ledger

    def disconnected(self, peer: P, now: float) -> None:
        """Drop what `peer` wants and what is held for it: its last connection is gone."""
        record = self._peers.pop(peer, None)
        if record is not None:
            left = self._interrupted(record, now)
            if left <= 0:
                self._back_off(peer, now)
            elif left < self._timeouts.bitswap_stall:
                self._remember(self._impatience, peer, left)
            self._release(record)
            del self._owners[record.ledger]
            record.ledger.clear()
            self._sent_before.add(record.ledger.sent)
            add_counts(self._dropped_before, record.ledger.dropped)
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
            record = self._peers[peer] = Peer(peer, ledger)
            self._owners[record.ledger] = record
            record.resume_at = self._backoffs.get(peer, (-math.inf, 0.0))[0]
            record.patience = self._impatience.pop(peer, math.inf)
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

    def arrived(self, multihash: bytes, size: int, now: float, allowed: Callable[[P], bool] | None = None) -> None:
        """Take note of a new block: those who wait for it are answered.

        Args:
            allowed: whether a peer may have it; None lets all.
        """
        for want in tuple(self._waiting.get(multihash, ())):
            record = self._owners[want.ledger]
            if allowed is None or allowed(record.id):
                want.ledger.found(want, size)
                self._settle(record, now)

    # -- batches -----------------------------------------------------------------------------------------------------

    def next_batch(self, now: float) -> tuple[P, Batch] | None:
        """Return the answers to load next and for whom; None where no peer is eligible, or too much is held."""
        if self._pools.loaded_bytes >= self._limits.bitswap_loaded_bytes:
            return None
        peer = self._scheduler.next()
        if peer is None:
            return None
        record = self._peers[peer]
        batch = record.ledger.take(self._probe_bytes if peer in self._backoffs else self._limits.bitswap_batch_bytes)
        assert batch is not None  # only peers with answers are in the scheduler
        self._scheduler.charge(peer, batch.n_bytes)
        record.eligible_at = now
        if record.patience == math.inf and not record.batches and not record.ledger.unconfirmed:
            record.cost.clear()
        record.batches[batch] = None
        self._pools.loaded_bytes += batch.n_bytes
        for cost in (self.spent, record.cost):
            cost.picks += 1
            cost.read_blocks += len(batch.blocks)
            cost.read_bytes += batch.n_bytes
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
            record.sent_bytes += n_bytes
            record.cost.written_bytes += n_bytes

    def written(self, batch: Batch, now: float, position: int = 0) -> None:
        """Take note that the stream has accepted all of a batch, `position` bytes in all; what was held is released."""
        record = self._owners.get(batch.ledger)
        if record is None or batch not in record.batches:
            return
        del record.batches[batch]
        self._pools.hold(record, -batch.n_bytes)
        record.ledger.written(batch, now, position)
        record.moves = True
        if not record.batches:
            record.patience = math.inf
        self._settle(record, now)

    def credited(self, peer: P, n_bytes: int, now: float, position: int = 0) -> None:
        """Take note that the peer has returned credit for `n_bytes`.

        When that has come to `Limits.bitswap_credit_bytes`, what was taken for it was not wasted, and its next back-off
        is a first one.

        Args:
            position: how far it has read its response stream, where that is known.
        """
        record = self._peers.get(peer)
        if record is not None:
            record.ledger.credited(position)
            record.credit_bytes += n_bytes
            if record.credit_bytes >= self._limits.bitswap_credit_bytes:
                record.credit_bytes = 0
                record.cost.clear()
                self._backoffs.pop(peer, None)
            self._settle(record, now)

    # -- progress ----------------------------------------------------------------------------------------------------

    def blocked(self, peer: P, now: float, begun: Batch | None = None, *, for_room: bool = False) -> list[P]:
        """Take note that the stream accepts nothing now; return the peers whose response streams are to be reset.

        Those are given up already, because more is held for stalled peers than `Limits.bitswap_stalled_bytes`. See
        `take_let_go` afterwards.

        Args:
            begun: the batch of which the stream has accepted some.
            for_room: whether it is the connection that has no room.
        """
        record = self._peers.get(peer)
        if record is None or record.blocked:
            return []
        record.needed_seconds = record.moving_bytes / self._limits.bitswap_bytes_per_second
        record.stall_at = now + min(record.patience, self._timeouts.bitswap_stall) + record.needed_seconds
        record.blocked, record.blocked_at, record.for_room = True, now, for_room
        record.begun = begun
        record.moving_bytes = 0
        self._pools.block(record)
        if len(record.batches) > (begun in record.batches):
            self._holders[peer] = record
        self._settle(record, now)
        given_up = []
        while self._pools.stalled_bytes > self._limits.bitswap_stalled_bytes:
            if self._holders:
                self._let_go_of(next(iter(self._holders.values())), now)
                continue
            oldest = next(peer for peer, held in self._pools.stalled.items() if held)
            self._refused("bitswap_stalled_bytes")
            self._give_up(self._peers[oldest], now)
            given_up.append(oldest)
        return given_up

    def take_let_go(self) -> list[P]:
        """Return peers whose batches were let go: what waits to be written to them, and was not begun, is dropped.

        See it after `blocked` and `handle_timeout`.
        """
        found, self._let_go = self._let_go, []
        return found

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
            left = self._interrupted(record, now)
            self._restart(record, now)
            record.patience = left
            if left <= 0:
                record.patience = math.inf
                record.resume_at = self._back_off(peer, now)
            self._settle(record, now)

    def next_timeout(self) -> float:
        """Return when `handle_timeout` has something to do; `math.inf` for never."""
        when = self._alarms.next()
        for record in self._holders.values():
            return min(when, record.blocked_at + self._timeouts.bitswap_hold)
        return when

    def handle_timeout(self, now: float) -> list[P]:
        """Confirm what is old enough, and return the peers whose response streams are to be reset: they stalled.

        Their answers are due again on a new stream, after their back-off. See `take_let_go` afterwards.
        """
        while self._holders:
            record = next(iter(self._holders.values()))
            if record.blocked_at + self._timeouts.bitswap_hold > now:
                break
            self._let_go_of(record, now)
        given_up = []
        for peer in self._alarms.due(now):
            record = self._peers[peer]
            record.ledger.handle_timeout(now)
            if record.blocked and record.stall_at <= now:
                self._give_up(record, now)
                given_up.append(peer)
            self._settle(record, now)
        return given_up

    # -- what is said of it ------------------------------------------------------------------------------------------

    def state(self, peer: P, now: float) -> PeerState | None:
        """Return how far serving `peer` is, or None where it has wanted nothing."""
        record = self._peers.get(peer)
        return None if record is None else record.state(now)

    def blocked_seconds(self, peer: P, now: float) -> float:
        """Return how long the stream to `peer` has accepted nothing; 0 where it does."""
        record = self._peers.get(peer)
        return now - record.blocked_at if record is not None and record.blocked else 0.0

    def stages(self, now: float) -> Stages:
        """Return where answers are; what is being looked up, loaded and opened only the shell knows."""
        found: dict[str, Stage] = {}
        for record in self._peers.values():
            stage, since = record.stage(now)
            ledger = record.ledger
            answers = ledger.ready
            if record.blocked:
                answers += sum(len(batch.answers) for batch in record.batches)
            elif stage == "backing_off":
                since = record.resume_at - self._backoffs.get(record.id, (0.0, 0.0))[1]
            if answers:
                found[stage] = found.get(stage, Stage()).and_of(answers, now - since)
            if ledger.unconfirmed:
                done = found.get("unconfirmed", Stage())
                found["unconfirmed"] = done.and_of(ledger.unconfirmed, now - ledger.unconfirmed_since)
        return Stages(**found)

    def sent(self) -> Sent:
        """Return what streams have accepted, in all."""
        sent = copied(self._sent_before)
        for record in self._peers.values():
            sent.add(record.ledger.sent)
        return sent

    def dropped(self) -> dict[str, int]:
        """Return how many wants were dropped unanswered, by reason."""
        dropped = dict(self._dropped_before)
        for record in self._peers.values():
            add_counts(dropped, record.ledger.dropped)
        return dropped

    # -- inside ------------------------------------------------------------------------------------------------------

    def _settle(self, record: Peer[P], now: float) -> None:
        """Let a peer take part exactly if it can be given a batch, and set its alarm."""
        backs_off = record.resume_at > now
        ahead = BATCHES_AHEAD if record.moves and record.id not in self._backoffs else 1
        if len(record.batches) <= ahead // 2:
            record.filling = True
        elif len(record.batches) >= ahead:
            record.filling = False
        if record.ledger.ready and not record.blocked and not backs_off and record.filling:
            if not record.eligible:
                record.eligible, record.eligible_at = True, now
                self._scheduler.add(record.id)
        elif record.eligible:
            record.eligible = False
            self._scheduler.remove(record.id)
        when = record.ledger.next_timeout()
        if record.blocked:
            when = min(when, record.stall_at)
        if backs_off and record.ledger.ready:
            when = min(when, record.resume_at)
        self._alarms.set(record.id, when)

    def _give_up(self, record: Peer[P], now: float) -> None:
        self.spent.blocked.move(record.cost)
        self._restart(record, now)
        record.stalls += 1
        record.resume_at = self._back_off(record.id, now)
        self._settle(record, now)

    def _back_off(self, peer: P, now: float) -> float:
        """Serve a peer that stalled not before the time that is returned."""
        self.spent.stalls += 1
        waited = self._backoffs.pop(peer, (0.0, 0.0))[1]
        seconds = min(max(waited * 2, self._timeouts.backoff), self._timeouts.backoff_max)
        self._remember(self._backoffs, peer, (now + seconds, seconds))
        return now + seconds

    def _remember(self, memory: dict[P, V], peer: P, value: V) -> None:
        memory[peer] = value
        if len(memory) > self._limits.connections:
            del memory[next(iter(memory))]

    def _interrupted(self, record: Peer[P], now: float) -> float:
        """Return how long a peer may still be blocked whose stream has ended: the bytes in it need no time any more."""
        if not record.blocked:
            return record.patience
        if now - record.blocked_at >= self._timeouts.bitswap_hold:
            self.spent.blocked.move(record.cost)
        return record.stall_at - record.needed_seconds - now

    def _let_go_of(self, record: Peer[P], now: float) -> None:
        """Hold for a blocked peer no more than what was begun to be written."""
        del self._holders[record.id]
        lost = [batch for batch in record.batches if batch is not record.begun]
        for batch in lost:
            del record.batches[batch]
            self._pools.hold(record, -batch.n_bytes)
            record.ledger.let_go(batch)
            record.cost.give(self.spent.blocked, len(batch.blocks), batch.n_bytes)
        record.let_go += len(lost)
        self.spent.let_go += len(lost)
        self._let_go.append(record.id)
        self._settle(record, now)

    def _restart(self, record: Peer[P], now: float) -> None:
        """Give back what was on the way: there is no stream any more."""
        self._release(record)
        record.patience = math.inf
        record.moving_bytes = record.credit_bytes = 0
        record.moves = False
        record.ledger.reset(now)

    def _release(self, record: Peer[P]) -> None:
        self._pools.hold(record, -record.held_bytes)
        record.batches.clear()
        self._unblock(record)

    def _unblock(self, record: Peer[P]) -> None:
        if record.blocked:
            record.blocked = False
            record.begun = None
            self._holders.pop(record.id, None)
            self._pools.unblock(record)
