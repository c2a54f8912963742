"""The fetching half of Bitswap: sessions over several peers, every block verified.

Which peer is asked for what is decided in `sansio.bitswap`. A block is kept in the store before it is handed out.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Self

from aiolibp2p.bitswap.wire import MessageWriter
from aiolibp2p.blocks.cid import Cid
from aiolibp2p.blocks.store import Blockstore
from aiolibp2p.errors import BlockNotFoundError, ConnectionEndedError, DeadlineError, InvalidValueError, Libp2pError
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.net.stream import Stream
from aiolibp2p.runtime import Clock
from aiolibp2p.sansio.bitswap.cids import wanted_multihash
from aiolibp2p.sansio.bitswap.client import Client as ClientCore
from aiolibp2p.sansio.bitswap.message import Message, encode
from aiolibp2p.sansio.bitswap.session import Session as SessionCore

Reaching = asyncio.Task[PeerId | Libp2pError]
"""A peer that is being reached: who it is, or why it cannot be asked."""
_UNSEEN_AHEAD = 32
"""Blocks wanted ahead before the first has shown how large they are."""


@lru_cache(maxsize=64)
def _empty_block(prefix: bytes) -> Cid:
    """Return the CID of the empty block: it needs no peer, and some, written in go, deny having it.

    Raises:
        InvalidValueError: the hash is not known here: no block under such a CID could be verified.
    """
    return Cid.from_prefix(prefix, b"")


class Client:
    """What all sessions of a node share.

    Args:
        opened: opens a stream to a peer, or raises a Libp2pError.
        protocol: returns the Bitswap that messages to a peer are written in.
        kept: told of fetched blocks that are in the store now.
    """

    def __init__(
        self,
        store: Blockstore,
        clock: Clock,
        *,
        limits: Limits,
        timeouts: Timeouts,
        opened: Callable[[PeerId], Stream],
        protocol: Callable[[PeerId], str],
        kept: Callable[[Sequence[tuple[Cid, bytes]]], None],
    ) -> None:
        self.core: ClientCore[PeerId] = ClientCore(limits, timeouts)
        self.bad_blocks = 0
        """Received blocks whose CID uses a hash that is not known here."""
        self.store = store
        self.limits = limits
        self.timeouts = timeouts
        self.clock = clock
        self.kept = kept
        self._opened = opened
        self._protocol = protocol
        self._sessions: dict[SessionCore[PeerId], Session] = {}
        self._writers: dict[PeerId, MessageWriter[None]] = {}
        self._not_before: dict[PeerId, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._closed = False

    # -- inputs ------------------------------------------------------------------------------------------------------

    def receive(self, peer_id: PeerId, message: Message) -> None:
        """Take blocks and presences of a peer; what nobody wants is dropped."""
        now = self.clock.now()
        for prefix, data in message.payloads:
            try:
                cid = Cid.from_prefix(prefix, data)
            except InvalidValueError:
                self.bad_blocks += 1
                continue
            for core, wanted in self.core.received_block(peer_id, cid.multihash, len(data), now):
                session = self._sessions.get(core)
                if session is not None:
                    session.deliver(wanted, data)
        if message.presences:
            self.core.received_presences(peer_id, message.presences, now)
        self.settle()

    def progress(self, peer_id: PeerId, n_bytes: int) -> None:
        """Take note that part of a message has come."""
        self.core.received_bytes(peer_id, n_bytes, self.clock.now())

    def connected(self, peer_id: PeerId, *, supports_have: bool) -> None:
        """Let sessions ask a peer."""
        self.core.connected(peer_id, supports_have=supports_have)

    def disconnected(self, peer_id: PeerId) -> None:
        """Ask a peer no more: no connection to it is left."""
        writer = self._writers.pop(peer_id, None)
        if writer is not None:
            writer.reset()
        self._not_before.pop(peer_id, None)
        self.core.disconnected(peer_id, self.clock.now())
        self.settle()

    def stream_ended(self, peer_id: PeerId, stream: Stream) -> None:
        """Take note of the end of a stream that may be the one for our wants."""
        writer = self._writers.get(peer_id)
        if writer is not None:
            writer.stream_ended(stream)

    def close(self) -> None:
        """Fetch nothing any more: who still waits is told."""
        self._closed = True
        for session in list(self._sessions.values()):
            session.fail(ConnectionEndedError("Bitswap is leaving", by="local", stage="bitswap"))
        for writer in self._writers.values():
            writer.reset()
        self._writers.clear()
        if self._timer is not None:
            self._timer.cancel()

    # -- sessions ----------------------------------------------------------------------------------------------------

    def open(self, session: Session, peers: Iterable[PeerId]) -> SessionCore[PeerId]:
        """Return the core of a new session.

        Raises:
            ConnectionEndedError: Bitswap has left.
        """
        if self._closed:
            raise ConnectionEndedError("Bitswap has left", by="local", stage="bitswap")
        core = self.core.session(peers, self.clock.now())
        self._sessions[core] = session
        return core

    def close_session(self, core: SessionCore[PeerId]) -> None:
        """End a session."""
        self.core.close(core, self.clock.now())
        self._sessions.pop(core, None)
        self.settle()

    def settle(self) -> None:
        """Write what peers are to be told, and look who waits in vain."""
        if self._closed:
            return
        now = self.clock.now()
        for peer_id in self.core.peers_to_write():
            writer = self._writers.get(peer_id)
            if writer is None:
                writer = self._writers[peer_id] = MessageWriter(peer_id, self, self._opened)
            if writer.busy or self._not_before.get(peer_id, -math.inf) > now:
                continue
            message = self.core.message_to_send(peer_id, now)
            if message is not None:
                protocol = self._protocol(peer_id)
                writer.send(None, encode(message, self.limits.bitswap_message_bytes, protocol))
        for session in list(self._sessions.values()):
            session.look_at_exhausted()
        self._arm()

    # -- what writers tell -------------------------------------------------------------------------------------------

    def accepted(self, peer_id: PeerId, n_bytes: int) -> None:
        """Nothing to do: wants are few bytes."""

    def blocked(self, peer_id: PeerId) -> None:
        """Nothing to do: the session asks elsewhere when no answer comes."""

    def writable(self, peer_id: PeerId, *, credited: bool) -> None:
        """Nothing to do."""

    def written(self, peer_id: PeerId, token: None, position: int) -> None:
        """Take note that a peer has been told."""
        self.core.message_sent(peer_id, self.clock.now())
        self._soon()

    def ended(self, peer_id: PeerId) -> None:
        """Take note that the stream to a peer is gone: a new one tells everything again, after a pause."""
        self._not_before[peer_id] = self.clock.now() + self.timeouts.bitswap_reopen
        self.core.stream_ended(peer_id)
        self._arm()

    # -- time --------------------------------------------------------------------------------------------------------

    def _soon(self) -> None:
        self._set_timer(self.clock.now())

    def _arm(self) -> None:
        now = self.clock.now()
        waiting = [self._not_before.get(peer_id, now) for peer_id in self.core.peers_to_write()]
        self._set_timer(min([self.core.next_timeout(), *(when for when in waiting if when > now)]))

    def _set_timer(self, when: float) -> None:
        if not self._closed and when < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = self.clock.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self.core.handle_timeout(self.clock.now())
        self.settle()


class Session:
    """Fetches blocks that belong together from several peers; a context manager, and a BlockSource.

    Every block is verified, and kept in the store, before it is returned. Blocks that the store has are not asked for.
    """

    def __init__(self, client: Client, peers: Iterable[PeerId]) -> None:
        self._client = client
        self._waiting: dict[bytes, list[asyncio.Future[bytes]]] = {}
        self._error: Libp2pError | None = None
        self._reaching: set[Reaching] = set()
        self._core = client.open(self, peers)

    async def get(self, cid: Cid) -> bytes:
        """Return a block.

        Raises:
            InvalidValueError: its hash is not known here, or it is none that can be fetched.
            BlockNotFoundError: every peer of the session has said that it has not got it, or there is none.
            DeadlineError: no peer has sent anything for `Timeouts.bitswap_fetch`.
            Others: what the store raises.
        Cancellation: nobody else wanting it, it is wanted no longer.
        """
        async for data in self.fetch([cid]):
            return data
        raise BlockNotFoundError(str(cid))

    async def get_many(self, cids: Iterable[Cid]) -> AsyncIterator[tuple[Cid, bytes]]:
        """Yield CIDs with their blocks in the order of `cids`; see `fetch`."""
        wanted = list(cids)
        index = 0
        async for data in self.fetch(wanted):
            yield wanted[index], data
            index += 1

    async def fetch(self, cids: Sequence[Cid]) -> AsyncIterator[bytes]:
        """Yield the blocks in the order of `cids`, wanting at most `Limits.bitswap_ahead_blocks` ahead.

        Raises: as `get`; the blocks before it were yielded.
        Cancellation: what was wanted ahead is wanted no longer.
        """
        limits = self._client.limits
        ahead = min(_UNSEEN_AHEAD, limits.bitswap_ahead_blocks)
        items: dict[int, asyncio.Future[bytes] | bytes] = {}
        asked = 0
        try:
            for index, cid in enumerate(cids):
                if asked < len(cids) and asked - index <= ahead // 2:
                    upto = min(len(cids), index + ahead)
                    items.update(enumerate(await self._ask(cids[asked:upto]), asked))
                    asked = upto
                item = items[index]
                if isinstance(item, bytes):
                    data = item
                else:
                    data = await self._wait(cid, item)
                    await self._keep(cids, items, index, asked)
                del items[index]
                # By the size of this block, so that what lies ahead stays within its bytes.
                ahead = max(2, min(limits.bitswap_ahead_blocks, limits.bitswap_ahead_bytes // max(1, len(data))))
                yield data
        finally:
            self._give_up((cids[index], item) for index, item in items.items() if not isinstance(item, bytes))

    async def _keep(
        self, cids: Sequence[Cid], items: dict[int, asyncio.Future[bytes] | bytes], first: int, end: int
    ) -> None:
        """Put the block at `first`, and all that have come behind it, into the store at once."""
        ready = []
        for index in range(first, end):
            item = items[index]
            if isinstance(item, bytes) or not item.done() or item.cancelled() or item.exception() is not None:
                break
            items[index] = item.result()
            ready.append((cids[index], item.result()))
        await self._client.store.put_many(ready)
        self._client.kept(ready)

    async def close(self) -> None:
        """Want nothing more; who waits is told."""
        self.fail(ConnectionEndedError("the session was closed", by="local", stage="bitswap"))

    def fail(self, error: Libp2pError) -> None:
        """End the session with an error for those who wait."""
        if self._error is None:
            self._error = error
            self._client.close_session(self._core)
            for cid in list(self._waiting):
                self._resolve(cid, error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def expect_peers(self, reaching: Iterable[Reaching]) -> None:
        """Ask these peers too, once they are reached; until then no block counts as not found."""
        for task in reaching:
            self._reaching.add(task)
            task.add_done_callback(self._reached)

    def _reached(self, task: Reaching) -> None:
        self._reaching.discard(task)
        if self._error is None:
            client = self._client
            if not task.cancelled() and isinstance(peer_id := task.result(), PeerId):
                client.core.add_peer(self._core, peer_id, client.clock.now())
            client.settle()

    # -- what the client calls ---------------------------------------------------------------------------------------

    def deliver(self, cid: bytes, data: bytes) -> None:
        """Hand a verified block to those who wait for it."""
        self._resolve(cid, data)

    def look_at_exhausted(self) -> None:
        """Tell those who wait for a block that no peer of the session has."""
        if self._reaching:
            return
        for cid in self._core.exhausted():
            self._core.unwant([cid], self._client.clock.now())
            self._resolve(cid, BlockNotFoundError(str(Cid(cid))))

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _ask(self, cids: Sequence[Cid]) -> list[asyncio.Future[bytes] | bytes]:
        """Return each block that the store has, and a future for each that is now wanted."""
        if self._error is not None:
            raise self._error.with_traceback(None)
        client = self._client
        found = await client.store.get_many(cids)
        empty = []
        for index, cid in enumerate(cids):
            if found[index] is None:
                # What could not be wanted, or verified when it came, is refused before anything is.
                wanted_multihash(bytes(cid), client.limits.bitswap_cid_bytes)
                if cid == _empty_block(cid.prefix):
                    found[index] = b""
                    empty.append((cid, b""))
        if empty:
            await client.store.put_many(empty)
            client.kept(empty)
        if self._error is not None:  # it was closed meanwhile
            raise self._error.with_traceback(None)
        loop = asyncio.get_running_loop()
        items: list[asyncio.Future[bytes] | bytes] = []
        missing = []
        for cid, data in zip(cids, found, strict=True):
            if data is not None:
                items.append(data)
                continue
            future: asyncio.Future[bytes] = loop.create_future()
            self._waiting.setdefault(bytes(cid), []).append(future)
            items.append(future)
            missing.append(bytes(cid))
        if missing:
            self._core.want(missing, self._client.clock.now())
            self._client.settle()
        return items

    async def _wait(self, cid: Cid, future: asyncio.Future[bytes]) -> bytes:
        seconds = self._client.timeouts.bitswap_fetch
        started = self._client.clock.now()
        while not future.done():
            quiet_since = max(started, self._core.progress_at)
            left = quiet_since + seconds - self._client.clock.now()
            if left <= 0:
                raise DeadlineError("bitswap_fetch", seconds, f"no peer has sent {cid} or anything else", stage="fetch")
            await asyncio.wait([future], timeout=left)
        return future.result()

    def _resolve(self, cid: bytes, result: bytes | Libp2pError) -> None:
        for future in self._waiting.pop(cid, ()):
            if future.done():
                continue
            if isinstance(result, bytes):
                future.set_result(result)
            else:
                future.set_exception(result)
                future.exception()  # who wanted it ahead may never come to it

    def _give_up(self, wanted: Iterable[tuple[Cid, asyncio.Future[bytes]]]) -> None:
        gone = []
        for cid, future in wanted:
            future.cancel()
            futures = self._waiting.get(bytes(cid), [])
            if future in futures:
                futures.remove(future)
                if not futures:
                    del self._waiting[bytes(cid)]
                    gone.append(bytes(cid))
        if gone and self._error is None:
            self._core.unwant(gone, self._client.clock.now())
            self._client.settle()
