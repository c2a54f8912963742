"""Blocks of UnixFS may be any bytes: readers end in documented errors, and give no more than the block claims."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from aiolibp2p.blocks.cid import DAG_PB, RAW, Cid
from aiolibp2p.blocks.dag import PbLink, encode_node
from aiolibp2p.blocks.store import BlockSource
from aiolibp2p.errors import BlockNotFoundError, InvalidValueError
from aiolibp2p.unixfs.dag import Node, directory_entries, find_entry, parse_block, resolve
from aiolibp2p.unixfs.file import FILE_END, file_bytes
from aiolibp2p.unixfs.get import get
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
        asyncio.run(_read(parse_block(cid, data), OneBlock()))
    except (InvalidValueError, BlockNotFoundError):
        pass


async def _read(node: Node, source: BlockSource) -> None:
    if node.unixfs.is_file:
        size = 0
        async for piece in file_bytes(source, node, 0, FILE_END):
            size += len(piece)
        assert size == node.file_bytes
    elif node.unixfs.is_directory:
        async for link in directory_entries(source, node):
            await find_entry(source, node, link.name or "")


def hamt(data: bytes) -> None:
    """Take a shard of any links, and look for a name in it and below."""
    size = data[0] if data else 0
    name = data[1 : 1 + size].decode("utf-8", "surrogateescape")
    links, at = [], 1 + size
    while at + 2 < len(data):
        which, length = data[at], data[at + 1]
        text = f"{which:02X}" + data[at + 2 : at + 2 + length % 16].decode("utf-8", "surrogateescape")
        links.append(PbLink(LEAF_CID, text, length))
        at += 2 + length % 16
    field = sum({1 << int((link.name or "00")[:2], 16) for link in links}) & (1 << 256) - 1
    bit_field = field.to_bytes(32, "big").lstrip(b"\0")
    shard = UnixFsNode(type=NodeType.HAMT_SHARD, data=bit_field, hash_type=0x22, fanout=256)
    try:
        root = encode_node(links, encode_unixfs(shard))
        node = parse_block(Cid.from_data(root, DAG_PB), root)
        asyncio.run(_find(Tree([root]), node, name))
    except (InvalidValueError, BlockNotFoundError):
        pass


async def _find(source: BlockSource, node: Node, name: str) -> None:
    found = await find_entry(source, node, name)
    assert found is None or found.name == name


class Tree:
    """A source of the blocks that an input made."""

    def __init__(self, blocks: Sequence[bytes]) -> None:
        self._blocks = {Cid.from_data(LEAF, RAW): LEAF} | {Cid.from_data(data, DAG_PB): data for data in blocks}

    async def get(self, cid: Cid) -> bytes:
        if cid not in self._blocks:
            raise BlockNotFoundError(str(cid))
        return self._blocks[cid]

    async def fetch(self, cids: Sequence[Cid]) -> AsyncIterator[bytes]:
        for cid in cids:
            yield await self.get(cid)


def _tree_of(data: bytes) -> list[bytes]:
    """Return blocks, each with links to those before it: the kind, the size it claims, and its links, byte by byte."""
    blocks: list[bytes] = []
    at = 0
    while at + 3 < len(data) and len(blocks) < 8:
        kind, claimed, count = data[at], data[at + 1], data[at + 2] % 4
        at += 3
        links, sizes = [], []
        for _ in range(count):
            which, size, length = (*data[at : at + 3], 0, 0, 0)[:3]
            cid = Cid.from_data(blocks[which % len(blocks)], DAG_PB) if blocks and which & 1 else LEAF_CID
            name = data[at + 3 : at + 3 + length % 8].decode("utf-8", "surrogateescape")
            links.append(PbLink(cid, name, size))
            sizes.append(size % 16)
            at += 3 + length % 8
        head = data[at : at + kind // 8 % 8]
        at += len(head)
        node = UnixFsNode(
            type=tuple(NodeType)[kind % len(NodeType)],
            data=head,
            file_bytes=claimed if claimed & 1 else None,
            block_bytes=tuple(sizes) if kind & 64 else (),
            hash_type=0x22 if kind & 128 else None,
            fanout=1 << claimed % 12 if kind & 128 else None,
        )
        blocks.append(encode_node(links, encode_unixfs(node)))
    return blocks


def tree(data: bytes) -> None:
    """Walk a DAG of several blocks by any path, and write it to disk: nothing but its place changes."""
    size = data[0] % 16 if data else 0
    path = data[1 : 1 + size].decode("utf-8", "surrogateescape")
    try:
        blocks = _tree_of(data[1 + size :])
    except InvalidValueError:
        return
    if blocks:
        source, root = Tree(blocks), Cid.from_data(blocks[-1], DAG_PB)
        asyncio.run(_walk(source, root, path))
        _write(source, root, path)


async def _walk(source: BlockSource, root: Cid, path: str) -> None:
    try:
        await _read(await resolve(source, root, path), source)
    except (InvalidValueError, BlockNotFoundError, FileNotFoundError, NotADirectoryError):
        pass


def _write(source: BlockSource, root: Cid, path: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "into", "place")
        place.parent.mkdir()
        try:
            asyncio.run(get(source, root, place, path))
        except (InvalidValueError, BlockNotFoundError, OSError):
            assert not os.path.lexists(place)
        assert os.listdir(folder) == ["into"]
        assert os.listdir(place.parent) in ([], ["place"])


TARGETS: dict[str, Callable[[bytes], None]] = {
    "message": message,
    "block": block,
    "hamt": hamt,
    "tree": tree,
}

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
    "hamt": [b"\x01a\x10\x01b\x20\x00\x33\x02cd", b"\x04name" + b"\x00\x04name\x01\x04name"],
    "tree": [
        b"\x01a" + b"\x42\x04\x01" + b"\x00\x04\x00" + b"\x01\x00\x02" + b"\x01\x04\x01a" + b"\x00\x04\x01b",
        b"\x00" + b"\x01\x00\x01" + b"\x00\x04\x02..",
        b"\x00" + b"\x14\x00\x00" + b"/e" + b"\x01\x00\x02" + b"\x01\x04\x01a" + b"\x01\x04\x01a",
    ],
}
