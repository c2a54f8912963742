"""Blocks of UnixFS may be any bytes: readers end in documented errors, and give no more than the block claims."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from aiolibp2p.blocks.cid import DAG_PB, RAW, Cid
from aiolibp2p.blocks.dag import PbLink, encode_node
from aiolibp2p.errors import BlockNotFoundError, InvalidValueError
from aiolibp2p.unixfs.dag import Node, directory_entries, find_entry, parse_block
from aiolibp2p.unixfs.file import FILE_END, file_bytes
from aiolibp2p.unixfs.node import NodeType, UnixFsNode, decode_unixfs, encode_unixfs

LEAF = b"leaf"
LEAF_CID = Cid.from_data(LEAF, RAW)


class OneBlock:
    """A source with one leaf."""

    async def get(self, cid: Cid) -> bytes:
        if cid != LEAF_CID:
            raise BlockNotFoundError(str(cid))
        return LEAF

    async def fetch(self, cids: Sequence[Cid]) -> AsyncIterator[bytes]:
        for cid in cids:
            yield await self.get(cid)


def message(data: bytes) -> None:
    """Take the UnixFS data of a node; what was understood means the same when it is written again."""
    try:
        node = decode_unixfs(data)
    except InvalidValueError:
        return
    assert decode_unixfs(encode_unixfs(node)) == node


def block(data: bytes) -> None:
    """Take a block as whatever it claims to be, and read all of it."""
    cid = Cid.from_data(data, DAG_PB)
    try:
        asyncio.run(_read(parse_block(cid, data)))
    except (InvalidValueError, BlockNotFoundError):
        pass


async def _read(node: Node) -> None:
    source = OneBlock()
    if node.unixfs.is_file:
        size = 0
        async for piece in file_bytes(source, node, 0, FILE_END):
            size += len(piece)
        assert size == node.file_bytes
    elif node.unixfs.is_directory:
        async for link in directory_entries(source, node):
            await find_entry(source, node, link.name or "")


TARGETS: dict[str, Callable[[bytes], None]] = {"message": message, "block": block}

_FILE = UnixFsNode(type=NodeType.FILE, data=b"head", file_bytes=12, block_bytes=(4, 4))
_SHARD = UnixFsNode(type=NodeType.HAMT_SHARD, data=b"\x82", hash_type=0x22, fanout=256)

SEEDS: dict[str, list[bytes]] = {
    "message": [
        encode_unixfs(_FILE),
        encode_unixfs(_SHARD),
        encode_unixfs(UnixFsNode(type=NodeType.SYMLINK, data=b"target")),
        bytes.fromhex("0802 18818010 2204808010 01 38a403 42020801"),
    ],
    "block": [
        encode_node([PbLink(LEAF_CID, "", 4), PbLink(LEAF_CID, "", 4)], encode_unixfs(_FILE)),
        encode_node([PbLink(LEAF_CID, "01name", 4), PbLink(LEAF_CID, "07", 4)], encode_unixfs(_SHARD)),
        encode_node([PbLink(LEAF_CID, "..", 4)], encode_unixfs(UnixFsNode(type=NodeType.DIRECTORY))),
    ],
}
