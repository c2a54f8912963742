"""DAGs made by hand, and a store that looks at what is put into it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Sequence

from aiolibp2p.blocks import Cid, MemoryBlockstore
from aiolibp2p.blocks.cid import DAG_PB
from aiolibp2p.blocks.dag import PbLink, encode_node, links_of
from aiolibp2p.unixfs.layout import Block, Subtree
from aiolibp2p.unixfs.node import NodeType, UnixFsNode, encode_unixfs


def drain(blocks: Generator[Block, None, Subtree]) -> tuple[list[Block], Subtree]:
    """Return all blocks and the root of what a generator gives."""
    found: list[Block] = []
    while True:
        try:
            found.append(next(blocks))
        except StopIteration as end:
            root: Subtree = end.value
            return found, root


class Dags(MemoryBlockstore):
    """A store with ways to put nodes together that no writer would."""

    def raw(self, data: bytes) -> Cid:
        """Keep a raw block."""
        return self._put(Cid.from_data(data), data)

    def node(self, links: Sequence[PbLink], node: UnixFsNode) -> Cid:
        """Keep a dag-pb block with UnixFS data."""
        return self.encoded(encode_node(links, encode_unixfs(node)))

    def encoded(self, data: bytes) -> Cid:
        """Keep any bytes as a dag-pb block."""
        return self._put(Cid.from_data(data, DAG_PB), data)

    def directory(self, *entries: tuple[str, Cid]) -> Cid:
        """Keep a directory with these entries, whatever they are called."""
        links = [PbLink(cid, name, 1) for name, cid in entries]
        return self.node(links, UnixFsNode(type=NodeType.DIRECTORY))

    def symlink(self, target: str) -> Cid:
        """Keep a symbolic link."""
        return self.node((), UnixFsNode(type=NodeType.SYMLINK, data=target.encode()))

    def file(self, *children: tuple[Cid, int], data: bytes | None = None, file_bytes: int | None = None) -> Cid:
        """Keep a node of a file above children with so many bytes each."""
        sizes = tuple(size for _, size in children)
        total = sum(sizes) + len(data or b"") if file_bytes is None else file_bytes
        node = UnixFsNode(type=NodeType.FILE, data=data, file_bytes=total, block_bytes=sizes)
        return self.node([PbLink(cid, "", size) for cid, size in children], node)

    def _put(self, cid: Cid, data: bytes) -> Cid:
        self._keep(cid, data)
        return cid


class WholeStore(MemoryBlockstore):
    """A store that takes a block only after everything that it links to, as a crash between two puts needs it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Cid] = []
        self.put_sizes: list[int] = []

    async def put_many(self, blocks: Sequence[Block]) -> None:
        self.put_sizes.append(sum(len(data) for _, data in blocks))
        await super().put_many(blocks)
        for cid, data in blocks:
            assert cid.verify(data)
            for below in links_of(cid, data):
                assert await self.has(below)

    async def get(self, cid: Cid) -> bytes:
        self.asked.append(cid)
        return await super().get(cid)


async def joined(pieces: AsyncIterator[bytes]) -> bytes:
    """Return all that an asynchronous iterator gives."""
    return b"".join([piece async for piece in pieces])
