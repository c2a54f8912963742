"""A store for blocks on their way through: it forgets the oldest."""

from __future__ import annotations

from collections.abc import Sequence

from aiolibp2p.blocks.cid import Cid
from aiolibp2p.blocks.store import MemoryBlockstore


class RecentBlockstore(MemoryBlockstore):
    """The latest blocks in memory, so many bytes of them: what a fetch without a repo runs over.

    Unlike other stores it does not keep what was put: who comes back to a block finds it, or fetches it again.
    """

    def __init__(self, held_bytes_max: int) -> None:
        super().__init__()
        self.held_bytes = 0
        """Bytes of the blocks that are here."""
        self._held_bytes_max = held_bytes_max
        self._sizes: dict[bytes, tuple[Cid, int]] = {}

    async def put(self, cid: Cid, data: bytes) -> None:
        """Take a block, which is the last to be forgotten.

        Cancellation: never waits.
        """
        await self.put_many([(cid, data)])

    async def put_many(self, blocks: Sequence[tuple[Cid, bytes]]) -> None:
        """Take blocks, the first of which is forgotten first.

        Cancellation: never waits.
        """
        await super().put_many(blocks)
        for cid, data in blocks:
            if cid.multihash not in self._sizes:
                self._sizes[cid.multihash] = (cid, len(data))
                self.held_bytes += len(data)
        while self.held_bytes > self._held_bytes_max and len(self._sizes) > 1:
            oldest, _ = next(iter(self._sizes.values()))
            await self.delete(oldest)

    async def delete(self, cid: Cid) -> None:
        """Forget a block, under all its names.

        Cancellation: never waits.
        """
        await super().delete(cid)
        _, size_bytes = self._sizes.pop(cid.multihash, (cid, 0))
        self.held_bytes -= size_bytes
