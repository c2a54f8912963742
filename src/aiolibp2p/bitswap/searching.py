"""Searching for peers that have what all peers of a session lack, in ways that the session does not know.

A search ends when the searcher has said all it knows, or `Limits.bitswap_providers` peers, or `Timeouts.bitswap_search`
is over, and those that were found were tried. Whatever it does, the session goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from aiolibp2p.bitswap.context import Context
from aiolibp2p.blocks.cid import Cid
from aiolibp2p.errors import Libp2pError
from aiolibp2p.host import Target
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.log import logger_of
from aiolibp2p.net.tasks import Tasks

_log = logger_of("bitswap")

FindProviders = Callable[[Cid], AsyncIterator[Target]]
"""Gives peers that may have a block: their addresses, or IDs of peers whose addresses the host knows."""


class SearchUser(Protocol):
    """The session that searches."""

    def lacks(self, cid: bytes) -> bool:
        """Return whether a block is wanted that no peer of the session may have."""
        ...

    def found(self, peer_id: PeerId) -> None:
        """Take a peer that was found, and is connected."""
        ...

    def searched(self, cid: bytes) -> None:
        """Take note that a search is over."""
        ...


class Search:
    """The searches of one session, a few at a time.

    Args:
        find_providers: asked for one CID at a time.
        reach: connects to a peer; returns who it is, or why it cannot be asked.
        user: told of what is found.
        crashed: told of an exception that is our own mistake.
    """

    def __init__(
        self,
        find_providers: FindProviders,
        reach: Callable[[Target], Awaitable[PeerId | Libp2pError]],
        user: SearchUser,
        context: Context,
        crashed: Callable[[BaseException], None],
    ) -> None:
        self._find_providers = find_providers
        self._reach = reach
        self._user = user
        self._clock = context.clock
        self._limits = context.limits
        self._timeouts = context.timeouts
        self._tasks = Tasks(asyncio.get_running_loop(), crashed)
        self._queue: dict[bytes, None] = {}
        self._running: set[bytes] = set()
        self._searched_at: dict[bytes, float] = {}
        self._closed = False

    def pending(self, cid: bytes) -> bool:
        """Return whether peers are searched for, or will be."""
        return cid in self._queue or cid in self._running

    def begin(self, cid: bytes) -> None:
        """Search for peers that have this block, unless that was done lately."""
        now = self._clock.now()
        again_at = self._searched_at.get(cid, now - self._timeouts.bitswap_search_again)
        if self._closed or self.pending(cid) or again_at + self._timeouts.bitswap_search_again > now:
            return
        self._queue[cid] = None
        self._go_on()

    async def close(self) -> None:
        """Search no more; a searcher that does not end when it is cancelled is named in the log, and left.

        Cancellation: as if it was over.
        """
        self._closed = True
        self._queue.clear()
        for name in await self._tasks.close(self._timeouts.bitswap_search):
            _log.warning("a search for peers does not end, and is abandoned", extra={"task": name})

    def _go_on(self) -> None:
        while self._queue and len(self._running) < self._limits.bitswap_searches:
            cid = next(iter(self._queue))
            del self._queue[cid]
            if not self._user.lacks(cid):
                continue
            self._running.add(cid)
            self._searched_at.pop(cid, None)
            if len(self._searched_at) >= self._limits.bitswap_window_wants:
                del self._searched_at[next(iter(self._searched_at))]
            self._searched_at[cid] = self._clock.now()
            _ = self._tasks.start(self._search(cid), "bitswap search")

    async def _search(self, cid: bytes) -> None:
        reaching: set[asyncio.Task[None]] = set()
        asking = self._tasks.start(self._ask(Cid(cid), reaching), "bitswap find_providers")
        try:
            await asyncio.wait([asking], timeout=self._timeouts.bitswap_search)
            if not asking.done():
                _log.info("a search for peers takes too long, and is given up", extra={"cid": str(Cid(cid))})
                asking.cancel()
            if reaching:
                await asyncio.wait(reaching)
        finally:
            self._running.discard(cid)
            if not self._closed:
                self._user.searched(cid)
                self._go_on()

    async def _ask(self, cid: Cid, reaching: set[asyncio.Task[None]]) -> None:
        providers: AsyncIterator[Target] | None = None
        targets: set[Target] = set()
        try:
            providers = self._find_providers(cid)
            async for target in providers:
                if target not in targets:
                    targets.add(target)
                    reaching.add(self._tasks.start(self._try(target), "bitswap reach"))
                if len(targets) >= self._limits.bitswap_providers:
                    break
        except Exception as error:  # noqa: BLE001  whatever a searcher raises, it has found nothing more
            _log.warning("a search for peers failed", extra={"cid": str(cid), "error": repr(error)})
        finally:
            close = getattr(providers, "aclose", None)
            if close is not None:
                with suppress(Exception):
                    await close()

    async def _try(self, target: Target) -> None:
        try:
            reached = await self._reach(target)
        except Exception as error:  # noqa: BLE001  what a searcher gives need not be a peer
            reached = error if isinstance(error, Libp2pError) else Libp2pError(str(error))
        if isinstance(reached, PeerId):
            self._user.found(reached)
        else:
            extra = {"target": str(target), "error": str(reached)}
            _log.debug("a peer that was found cannot be asked", extra=extra)
