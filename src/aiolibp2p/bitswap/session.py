"""Fetching blocks that belong together, in order, from several peers and into the store.

A block is in the store, durable, before it is handed out. While some are made durable others arrive, and the next lot
is what has arrived meanwhile: a store pays for a commit, not for a block.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import lru_cache
from itertools import islice
from types import TracebackType
from typing import Self, TypeVar

from aiolibp2p.bitswap.arrivals import Arrivals
from aiolibp2p.bitswap.client import Client
from aiolibp2p.bitswap.searching import Search
from aiolibp2p.blocks.cid import Cid
from aiolibp2p.errors import (
    BlockNotFoundError,
    ConnectionEndedError,
    DeadlineError,
    InvalidValueError,
    Libp2pError,
    StorageError,
)
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.net.tasks import begin, begun
from aiolibp2p.sansio.bitswap.cids import wanted_multihash
from aiolibp2p.sansio.bitswap.received import Received

Reaching = asyncio.Task[PeerId | Libp2pError]
"""A peer that is being reached: who it is, or why it cannot be asked."""
T = TypeVar("T")
_UNSEEN_AHEAD = 32
"""Blocks wanted ahead before the first has shown how large they are."""


@lru_cache(maxsize=64)
def _empty_block(prefix: bytes) -> Cid:
    """Return the CID of the empty block: it needs no peer, and some, written in go, deny having it.

    Raises:
        InvalidValueError: the hash is not known here: no block under such a CID could be verified.
    """
    return Cid.from_prefix(prefix, b"")


class Session:
    """Fetches blocks that belong together from several peers; a context manager, and a BlockSource.

    Every block is verified, and kept in the store, before it is returned. Blocks that the store has are not asked for.
    """

    def __init__(self, client: Client, peers: Iterable[PeerId]) -> None:
        self.search: Search | None = None
        """How it finds more peers."""
        self._client = client
        self._clock = client.context.clock
        self._waiting: dict[bytes, list[asyncio.Future[bytes]]] = {}
        self._arrived: dict[bytes, bytes] = {}
        """Blocks that are not yet in the store, those that are being written included."""
        self._unwritten: list[bytes] = []
        self._keeping = False
        self._error: Libp2pError | None = None
        self._reaching: set[Reaching] = set()
        self._unwanted_before = client.unwanted_blocks
        self._core = client.open(self, peers)

    @property
    def received(self) -> Received:
        """What has come of what this session wanted, and what came twice and why."""
        return self._core.received

    @property
    def peers(self) -> list[PeerId]:
        """The peers that are asked."""
        return self._core.peers

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
        """Yield CIDs with their blocks as they arrive; `fetch` gives them in order.

        While nobody reads no more is wanted than `Limits.bitswap_ahead_blocks`, nor than fits, by the largest block so
        far, into `Limits.bitswap_ahead_bytes`. Where twice those bytes have come, since later blocks were larger,
        what has not is wanted no longer for the time being.

        Raises: as `get`, when a block of which that is known comes to its turn.
        Cancellation: what was wanted ahead is wanted no longer.
        """
        limits = self._client.context.limits
        coming = iter(cids)
        came = Arrivals(2 * limits.bitswap_ahead_bytes, self._give_up)
        ahead, largest = min(_UNSEEN_AHEAD, limits.bitswap_ahead_blocks), 1
        try:
            while True:
                if len(came) <= ahead * 3 // 4:
                    batch = came.take_again(ahead - len(came))
                    batch += islice(coming, ahead - len(came) - len(batch))
                    if batch:
                        came.expect(batch, await self._ask(batch))
                if not came.ready:
                    if not came.waiting:
                        return
                    await self._wait(next(iter(came.waiting.values())), came.next())
                    continue
                cid, data = came.pop()
                largest = max(largest, len(data))
                ahead = max(2, min(limits.bitswap_ahead_blocks, limits.bitswap_ahead_bytes // largest))
                yield cid, data
        finally:
            self._give_up(came.close())

    async def fetch(self, cids: Sequence[Cid]) -> AsyncIterator[bytes]:
        """Yield the blocks in the order of `cids`, wanting at most `Limits.bitswap_ahead_blocks` ahead.

        Raises: as `get`; the blocks before it were yielded.
        Cancellation: what was wanted ahead is wanted no longer.
        """
        limits = self._client.context.limits
        ahead = min(_UNSEEN_AHEAD, limits.bitswap_ahead_blocks)
        items: dict[int, asyncio.Future[bytes] | bytes] = {}
        asked = 0
        try:
            for index, cid in enumerate(cids):
                if asked < len(cids) and asked - index <= ahead * 3 // 4:
                    upto = min(len(cids), index + ahead)
                    items.update(enumerate(await self._ask(cids[asked:upto]), asked))
                    asked = upto
                item = items[index]
                data = item if isinstance(item, bytes) else await self._wait(cid, item)
                del items[index]
                # By the size of this block, so that what lies ahead stays within its bytes.
                ahead = max(2, min(limits.bitswap_ahead_blocks, limits.bitswap_ahead_bytes // max(1, len(data))))
                yield data
        finally:
            self._give_up((cids[index], item) for index, item in items.items() if not isinstance(item, bytes))

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

    # -- what a search calls -----------------------------------------------------------------------------------------

    def lacks(self, cid: bytes) -> bool:
        """Return whether a block is wanted that no peer of the session may have."""
        return self._core.lacks(cid)

    def found(self, peer_id: PeerId) -> None:
        """Ask a peer that was found, too."""
        if self._error is None:
            self._client.core.add_peer(self._core, peer_id, self._clock.now())
            self._client.settle()

    def searched(self, cid: bytes) -> None:
        """Let a block count as not found that all peers lack still."""
        if self._error is None:
            self._core.check_exhausted(cid)
            self._client.settle()

    def _reached(self, task: Reaching) -> None:
        self._reaching.discard(task)
        if self._error is None:
            client = self._client
            if not task.cancelled() and isinstance(peer_id := task.result(), PeerId):
                client.core.add_peer(self._core, peer_id, self._clock.now())
            client.settle()

    # -- what the client calls ---------------------------------------------------------------------------------------

    def deliver(self, cid: bytes, data: bytes) -> None:
        """Put a verified block into the store, then hand it to those who wait for it."""
        if cid not in self._arrived:
            self._arrived[cid] = data
            self._unwritten.append(cid)
            if not self._keeping:
                self._keeping = True
                _ = self._client.context.tasks.start(begin(self._keep()), "bitswap keep")

    def look_at_exhausted(self) -> None:
        """Tell those who wait for a block that no peer of the session has."""
        search = self.search
        if search is not None:
            for cid in self._core.unlocated():
                search.begin(cid)
        if self._reaching:
            return
        for cid in self._core.exhausted():
            if search is not None and search.pending(cid):
                continue
            self._core.unwant([cid], self._clock.now())
            self._resolve(cid, BlockNotFoundError(str(Cid(cid))))

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Write what has arrived, and what arrives meanwhile."""
        try:
            await begun()
            while self._unwritten:
                cids, self._unwritten = self._unwritten, []
                blocks = [(Cid(cid), self._arrived[cid]) for cid in cids]
                error: Exception | None = None
                try:
                    await self._client.context.store.put_many(blocks)
                except Exception as failed:  # noqa: BLE001  whoever waits for one of these blocks raises it
                    error = failed
                else:
                    self._client.kept(blocks)
                for cid in cids:
                    self._resolve(cid, error or self._arrived[cid])
                    del self._arrived[cid]
        finally:
            self._keeping = False
            self._unwritten.clear()
            for cid in list(self._arrived):  # some are left where it was cancelled
                del self._arrived[cid]
                self._resolve(cid, StorageError(str(Cid(cid)), "the write was cancelled", stage="write"))

    async def _ask(self, cids: Sequence[Cid]) -> list[asyncio.Future[bytes] | bytes]:
        """Return each block that the store has, and a future for each that is now wanted."""
        if self._error is not None:
            raise self._error.with_traceback(None)
        context = self._client.context
        found = await context.store.get_many(cids)
        empty = []
        for index, cid in enumerate(cids):
            if found[index] is None:
                # What could not be wanted, or verified when it came, is refused before anything is.
                try:
                    wanted_multihash(bytes(cid), context.limits.bitswap_cid_bytes)
                    is_empty = cid == _empty_block(cid.prefix)
                except InvalidValueError as error:
                    raise InvalidValueError(f"block {cid}: {error.describe()}") from error
                if is_empty:
                    found[index] = b""
                    empty.append((cid, b""))
        if empty:
            await context.store.put_many(empty)
            self._client.kept(empty)
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
            if bytes(cid) not in self._arrived:
                missing.append(bytes(cid))
        if missing:
            self._core.want(missing, self._clock.now())
            self._client.settle()
        return items

    async def _wait(self, cid: Cid, future: asyncio.Future[T]) -> T:
        seconds = self._client.context.timeouts.bitswap_fetch
        started = self._clock.now()
        while not future.done():
            left = None
            if bytes(cid) not in self._arrived:  # else the store has a deadline of its own
                left = max(started, self._core.progress_at) + seconds - self._clock.now()
                if left <= 0:
                    text = f"no peer has sent {cid} or anything else"
                    if unwanted := self._client.unwanted_blocks - self._unwanted_before:
                        text += f" that was asked for, but {unwanted} other block{'s' * (unwanted > 1)},"
                    raise DeadlineError("bitswap_fetch", seconds, text, stage="fetch")
            await asyncio.wait([future], timeout=left)
        return future.result()

    def _resolve(self, cid: bytes, result: bytes | Exception) -> None:
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
            self._core.unwant(gone, self._clock.now())
            self._client.settle()
