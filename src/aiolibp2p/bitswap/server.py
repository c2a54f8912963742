"""The serving half of Bitswap: answers what peers want, and is held up by none of them.

What is decided is decided in `sansio.bitswap.engine`. Every step here is a plain function, or a short task that waits
for storage and never for a peer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from aiolibp2p.bitswap.context import Context
from aiolibp2p.bitswap.stat import Serving
from aiolibp2p.bitswap.wire import MessageWriter
from aiolibp2p.blocks.cid import Cid
from aiolibp2p.errors import Libp2pError, LimitError
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.log import logger_of
from aiolibp2p.net.connection import Connection
from aiolibp2p.net.stream import Stream
from aiolibp2p.net.tasks import begin, begun
from aiolibp2p.sansio.bitswap.engine import Engine
from aiolibp2p.sansio.bitswap.ledger import Ledger
from aiolibp2p.sansio.bitswap.message import Message, encode
from aiolibp2p.sansio.bitswap.peer import Peer
from aiolibp2p.sansio.bitswap.stat import Cost, PeerState, Stage, Stages
from aiolibp2p.sansio.bitswap.wants import Batch

T = TypeVar("T")

_log = logger_of("bitswap")


class Server:
    """Answers wants from a store."""

    def __init__(self, context: Context) -> None:
        self.engine: Engine[PeerId] = Engine(context.limits, context.timeouts, context.refused)
        self.refused_wants = 0
        """Wants answered as if the block were missing, because the peer may not have it."""
        self.storage_failures = 0
        """Look-ups and loads that storage did not answer."""
        self._context = context
        self._limits, self._timeouts = context.limits, context.timeouts
        self._store = context.store
        self._tasks = context.tasks
        self._clock = context.clock
        self._writers: dict[PeerId, MessageWriter[Batch]] = {}
        self._looking: set[PeerId] = set()
        self._looked_at: dict[PeerId, tuple[float, int]] = {}
        """Since when the store is asked for the sizes of how many blocks."""
        self._loads: dict[object, tuple[float, int]] = {}
        """Since when the store is asked for the blocks of how many answers."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._pumping = False
        self._closed = False

    # -- inputs ------------------------------------------------------------------------------------------------------

    def receive(self, peer_id: PeerId, message: Message) -> None:
        """Take what a peer wants."""
        if self._closed:
            return
        multihashes = self.engine.receive(peer_id, message, self._clock.now())
        if multihashes and peer_id not in self._looking:
            self._looking.add(peer_id)
            _ = self._tasks.start(begin(self._look_up(peer_id)), "bitswap look-up")
        self._pump()

    def stuck(self, peer_id: PeerId) -> bool:
        """Return whether a peer has taken nothing for `Timeouts.bitswap_hold`."""
        return self.engine.blocked_seconds(peer_id, self._clock.now()) >= self._context.timeouts.bitswap_hold

    def move(self, peer_id: PeerId, connection: Connection) -> None:
        """Answer a peer over this connection from now on."""
        writer = self._writers.get(peer_id)
        if writer is not None:
            writer.move(connection)

    def arrived(self, multihash: bytes, size: int) -> None:
        """Answer those who wait for a block that is there now, and may have it."""
        filtered = self._context.may_serve is not None or len(self._context.denied)
        allowed = (lambda peer_id: not self._refuses(peer_id, multihash)) if filtered else None
        self.engine.arrived(multihash, size, self._clock.now(), allowed)
        self._pump()

    def disconnected(self, peer_id: PeerId) -> None:
        """Drop everything about a peer to which no connection is left."""
        writer = self._writers.pop(peer_id, None)
        if writer is not None:
            writer.reset()
        self.engine.disconnected(peer_id, self._clock.now())
        self._pump()

    def stream_ended(self, peer_id: PeerId, stream: Stream) -> None:
        """Take note of the end of a stream that may be the one for answers."""
        writer = self._writers.get(peer_id)
        if writer is not None:
            writer.stream_ended(stream)

    def close(self) -> None:
        """Serve nothing any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for writer in self._writers.values():
            writer.reset()
        self._writers.clear()

    # -- storage -----------------------------------------------------------------------------------------------------

    async def _look_up(self, peer_id: PeerId) -> None:
        try:
            await begun()
            while wanted := self.engine.unknown(peer_id):
                wanted = self._refuse(peer_id, wanted)
                self._looked_at[peer_id] = self._clock.now(), len(wanted)
                found = await self._each(wanted, self._store.sizes) if wanted else {}
                self.engine.looked_up(peer_id, found, self._clock.now())
                self.engine.look_up_failed(peer_id, [multihash for multihash in wanted if multihash not in found])
                self._pump()
        finally:
            self._looking.discard(peer_id)
            self._looked_at.pop(peer_id, None)
            self.engine.look_up_failed(peer_id, self.engine.unknown(peer_id))  # some are left where it was cancelled

    def _refuse(self, peer_id: PeerId, multihashes: list[bytes]) -> list[bytes]:
        """Let those that a peer may not have be missing; return the others."""
        if self._context.may_serve is None and not len(self._context.denied):
            return multihashes
        refused = [multihash for multihash in multihashes if self._refuses(peer_id, multihash)]
        if not refused:
            return multihashes
        self.refused_wants += len(refused)
        self.engine.looked_up(peer_id, dict.fromkeys(refused), self._clock.now())
        _log.debug("wants for blocks that are not to be had", extra={"peer_id": peer_id, "wants": len(refused)})
        self._pump()
        known = set(refused)
        return [multihash for multihash in multihashes if multihash not in known]

    def _refuses(self, peer_id: PeerId, multihash: bytes) -> bool:
        may_serve = self._context.may_serve
        return multihash in self._context.denied or (
            may_serve is not None and not may_serve(peer_id, Cid.from_multihash(multihash))
        )

    async def _each(self, multihashes: list[bytes], call: Callable[[list[Cid]], Awaitable[list[T]]]) -> dict[bytes, T]:
        """Ask the store about all at once, or, where that fails, about each; return what it answered."""
        try:
            return dict(zip(multihashes, await call([Cid.from_multihash(one) for one in multihashes]), strict=True))
        except (Libp2pError, OSError):
            if len(multihashes) == 1:
                self.storage_failures += 1
                return {}
        found: dict[bytes, T] = {}
        for multihash in multihashes:
            found.update(await self._each([multihash], call))
        return found

    async def _load(self, peer_id: PeerId, batches: list[Batch]) -> None:
        found: dict[bytes, bytes | None] = {}
        self._loads[batches[0]] = self._clock.now(), sum(len(batch.answers) for batch in batches)
        try:
            await begun()
            current = [batch for batch in batches if self.engine.current(batch)]
            wanted = dict.fromkeys(multihash for batch in current for multihash in batch.blocks)
            # Whether it may be had is looked at again: a list may have changed since.
            allowed = self._refuse(peer_id, list(wanted))
            found = await self._each(allowed, self._store.get_many) if allowed else {}
            if len(allowed) < len(wanted):
                found.update(dict.fromkeys(wanted.keys() - set(allowed)))
        finally:
            del self._loads[batches[0]]
            for batch in batches:
                self._answer(peer_id, batch, found)  # where it was cancelled, of nothing, which gives back its bytes
            self._pump()

    # -- answers -----------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Load for whoever is next, while there is room."""
        if self._pumping or self._closed:
            return
        self._pumping = True
        loads: dict[PeerId, list[Batch]] = {}
        try:
            while (following := self.engine.next_batch(self._clock.now())) is not None:
                peer_id, batch = following
                if batch.blocks:
                    loads.setdefault(peer_id, []).append(batch)
                else:
                    self._answer(peer_id, batch, {})
        finally:
            self._pumping = False
        for peer_id, batches in loads.items():
            _ = self._tasks.start(begin(self._load(peer_id, batches)), "bitswap load")
        self._arm()

    def _answer(self, peer_id: PeerId, batch: Batch, blocks: dict[bytes, bytes | None]) -> None:
        if self._closed or not self.engine.current(batch):
            return
        message = self.engine.answer(batch, blocks)
        writer = self._writers.get(peer_id)
        if writer is None:
            writer = self._writers[peer_id] = MessageWriter(peer_id, self, self._context.opened)
        buffers: list[bytes] = []
        if message:
            try:
                buffers = encode(message, self._context.limits.bitswap_message_bytes, self._context.protocol(peer_id))
            except LimitError as error:
                self._context.refused(error.limit)
                self.storage_failures += 1  # the store gave more bytes than it had said
        if buffers:
            writer.send(batch, buffers)
        else:
            self.engine.written(batch, self._clock.now(), writer.position)

    # -- what is said of it ------------------------------------------------------------------------------------------

    def stat(self) -> Serving:
        """Return what was done and what is held."""
        engine, now = self.engine, self._clock.now()
        spent = engine.spent
        return Serving(
            stages=self._stages(now),
            sent=engine.sent(),
            dropped=engine.dropped(),
            spent=Cost(spent.picks, spent.read_blocks, spent.read_bytes, spent.written_bytes),
            blocked=replace(spent.blocked),
            stalls=spent.stalls,
            resets=spent.resets,
            let_go=spent.let_go,
            loaded_bytes=engine.loaded_bytes,
            stalled_bytes=engine.stalled_bytes,
            refused_wants=self.refused_wants,
            storage_failures=self.storage_failures,
        )

    def state(self, peer_id: PeerId) -> PeerState:
        """Return how far serving a peer is; one that has wanted nothing is idle."""
        now = self._clock.now()
        found = self.engine.state(peer_id, now) or Peer(peer_id, Ledger(self._limits, self._timeouts)).state(now)
        if found.state in ("idle", "unconfirmed") and peer_id in self._looked_at:
            return replace(found, state="looking_up", seconds=now - self._looked_at[peer_id][0])
        return found

    def _stages(self, now: float) -> Stages:
        looking, loading, opening = Stage(), Stage(), Stage()
        for since, wants in self._looked_at.values():
            looking = looking.and_of(wants, now - since)
        for since, answers in self._loads.values():
            loading = loading.and_of(answers, now - since)
        for peer_id, writer in self._writers.items():
            opened_at, ledger = writer.opening_since, self.engine.ledger(peer_id)
            if opened_at is not None and ledger is not None:
                opening = opening.and_of(ledger.unconfirmed, now - opened_at)
        return replace(self.engine.stages(now), looking_up=looking, loading=loading, opening=opening)

    # -- what writers tell -------------------------------------------------------------------------------------------

    def accepted(self, peer_id: PeerId, n_bytes: int) -> None:
        """Count bytes that a peer's stream has accepted."""
        self.engine.accepted(peer_id, n_bytes)

    def blocked(self, peer_id: PeerId) -> None:
        """Leave a peer aside whose stream accepts nothing now."""
        writer = self._writers[peer_id]
        now = self._clock.now()
        self._give_up(self.engine.blocked(peer_id, now, writer.begun, for_room=writer.credit > 0))
        self._pump()

    def writable(self, peer_id: PeerId, *, credited: bool) -> None:
        """Serve a peer again."""
        if credited:
            self.engine.credited(peer_id, self._writers[peer_id].credit, self._clock.now())
        self.engine.writable(peer_id, self._clock.now())

    def written(self, peer_id: PeerId, token: Batch, position: int) -> None:
        """Go on with what is next for a peer."""
        self.engine.written(token, self._clock.now(), position)
        self._pump()

    def ended(self, peer_id: PeerId, *, unread: bool) -> None:
        """Take note that a response stream is gone: what nothing confirmed is due again, unless nobody reads there."""
        if unread:
            self.engine.disconnected(peer_id, self._clock.now())
        else:
            self.engine.stream_reset(peer_id, self._clock.now())
        self._pump()

    # -- time --------------------------------------------------------------------------------------------------------

    def _give_up(self, stalled: list[PeerId]) -> None:
        for peer_id in self.engine.take_let_go():
            if peer_id in self._writers:
                self._writers[peer_id].drop_unbegun()
        for peer_id in stalled:
            _log.info("a peer takes no answers, and is left alone for a while", extra={"peer_id": peer_id})
            writer = self._writers.get(peer_id)
            if writer is not None:
                writer.reset()

    def _arm(self) -> None:
        when = self.engine.next_timeout()
        if when < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = self._clock.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._give_up(self.engine.handle_timeout(self._clock.now()))
        self._pump()
