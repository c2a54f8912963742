"""UnixFS: what was added comes back, whatever the sizes; codecs undo each other; shards hold every name in its slot."""

from __future__ import annotations

import io
from collections.abc import Coroutine
from typing import Any, TypeVar
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from aiolibp2p import unixfs
from aiolibp2p.blocks import Cid, MemoryBlockstore
from aiolibp2p.blocks.dag import links_of
from aiolibp2p.sim.loop import run as run_simulated
from aiolibp2p.unixfs import Adder, Layout, hamt
from aiolibp2p.unixfs.hamt import directory_blocks, slot_of
from aiolibp2p.unixfs.layout import Subtree, file_blocks
from aiolibp2p.unixfs.murmur3 import murmur3_x64_64
from aiolibp2p.unixfs.node import NodeType, UnixFsNode, decode_unixfs, encode_unixfs
from tests.unit.unixfs.dags import drain, joined

T = TypeVar("T")

sizes = st.integers(0, (1 << 63) - 1)
nodes = st.builds(
    UnixFsNode,
    type=st.sampled_from(NodeType),
    data=st.none() | st.binary(max_size=20),
    file_bytes=st.none() | sizes,
    block_bytes=st.lists(sizes, max_size=5).map(tuple),
    hash_type=st.none() | sizes,
    fanout=st.none() | sizes,
)
layouts = st.builds(Layout, chunk_bytes=st.integers(1, 40), max_links=st.integers(2, 6), raw_leaves=st.booleans())
contents = st.binary(max_size=400) | st.integers(0, 400).map(bytes)
names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=300)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on virtual time."""
    found: list[T] = []

    async def kept() -> None:
        found.append(await main)

    run_simulated(kept, strict=True)
    return found[0]


@given(node=nodes)
def test_a_message_that_is_read_is_the_one_that_was_written(node: UnixFsNode) -> None:
    assert decode_unixfs(encode_unixfs(node)) == node


@given(data=contents, layout=layouts, offset=st.integers(0, 450), length=st.none() | st.integers(0, 450))
def test_every_range_of_a_file_is_that_of_its_bytes(
    data: bytes, layout: Layout, offset: int, length: int | None
) -> None:
    async def main() -> tuple[unixfs.Stat, bytes]:
        store = MemoryBlockstore()
        cid = (await Adder(store, layout=layout).add(io.BytesIO(data))).cid
        return await unixfs.stat(store, cid), await joined(unixfs.cat(store, cid, "", offset, length))

    stat, got = run(main())
    assert stat.file_bytes == len(data)
    assert got == data[offset : None if length is None else offset + length]


@given(data=contents, layout=layouts)
def test_nodes_are_full_from_the_left_and_leaves_at_one_depth(data: bytes, layout: Layout) -> None:
    chunks = [data[start : start + layout.chunk_bytes] for start in range(0, len(data), layout.chunk_bytes)]
    blocks, root = drain(file_blocks(chunks, layout))
    held = dict(blocks)
    level, leaves = [root.cid], max(len(chunks), 1)
    depth = 0
    while any(links_of(cid, held[cid]) for cid in level):
        below = [links_of(cid, held[cid]) for cid in level]
        assert all(len(links) == layout.max_links for links in below[:-1])
        assert 1 <= len(below[-1]) <= layout.max_links
        level = [cid for links in below for cid in links]
        depth += 1
    assert len(level) == leaves
    # No deeper than need be.
    assert depth == 0 or layout.max_links ** (depth - 1) < leaves <= layout.max_links**depth
    assert root.file_bytes == len(data)


@given(wanted=st.sets(names, min_size=1, max_size=30), absent=names)
def test_every_name_of_a_sharded_directory_is_found_and_no_other(wanted: set[str], absent: str) -> None:
    async def main() -> tuple[list[str], list[Cid], bool]:
        store = MemoryBlockstore()
        entries: dict[str, Subtree] = {}
        for name in wanted:
            data = name.encode()
            entries[name] = Subtree(Cid.from_data(data), len(data))
            await store.put(Cid.from_data(data), data)
        # However small it is, the directory shards.
        with patch.object(hamt, "SHARD_OVER_BYTES", 0):
            blocks, root = drain(directory_blocks(entries))
        await store.put_many(blocks)
        listed = [entry.name async for entry in unixfs.ls(store, root.cid)]
        found = [(await unixfs.stat(store, root.cid, name)).cid for name in wanted]
        try:
            there = (await unixfs.stat(store, root.cid, absent)).cid in found
        except FileNotFoundError:
            there = False
        return listed, found, there

    listed, found, there = run(main())
    assert sorted(listed) == sorted(wanted)
    assert found == [Cid.from_data(name.encode()) for name in wanted]
    assert there == (absent in wanted)


@given(data=st.binary(max_size=50), fanout=st.sampled_from([8, 16, 256, 1024]))
def test_slots_use_up_a_hash_from_its_first_bit_to_its_last(data: bytes, fanout: int) -> None:
    name_hash = murmur3_x64_64(data)
    bits = fanout.bit_length() - 1
    whole = 0
    consumed_bits = 0
    while (slot := slot_of(name_hash, consumed_bits, fanout)) is not None:
        whole = whole << bits | slot
        consumed_bits += bits
    assert 64 - bits < consumed_bits <= 64
    assert whole == name_hash >> 64 - consumed_bits
