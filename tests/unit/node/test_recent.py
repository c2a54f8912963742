"""Tests of the store for blocks on their way through."""

from __future__ import annotations

import pytest

from aiolibp2p import Cid
from aiolibp2p.blocks.cid import DAG_PB, IDENTITY
from aiolibp2p.errors import BlockNotFoundError
from aiolibp2p.node.recent import RecentBlockstore

BLOCKS = [(Cid.from_data(data), data) for data in (b"one" * 10, b"two" * 10, b"six" * 10)]


async def test_the_oldest_blocks_are_forgotten_first() -> None:
    store = RecentBlockstore(60)
    await store.put_many(BLOCKS)
    assert [await store.has(cid) for cid, _ in BLOCKS] == [False, True, True]
    assert store.held_bytes == 60
    with pytest.raises(BlockNotFoundError):
        await store.get(BLOCKS[0][0])


async def test_a_block_put_twice_counts_once() -> None:
    store = RecentBlockstore(60)
    for _ in range(2):
        await store.put(*BLOCKS[0])
    await store.put(*BLOCKS[1])
    assert store.held_bytes == len(store) * 30 == 60


async def test_a_block_that_alone_is_too_large_is_there_until_the_next() -> None:
    store = RecentBlockstore(10)
    await store.put(*BLOCKS[0])
    assert await store.get(BLOCKS[0][0]) == BLOCKS[0][1]
    await store.put(*BLOCKS[1])
    assert [await store.has(cid) for cid, _ in BLOCKS] == [False, True, False]


async def test_a_block_is_forgotten_under_all_its_names() -> None:
    store = RecentBlockstore(100)
    cid, data = BLOCKS[0]
    await store.put(cid, data)
    await store.delete(Cid.from_multihash(cid.multihash, DAG_PB))
    assert (await store.has(cid), store.held_bytes) == (False, 0)
    await store.delete(cid)
    assert store.held_bytes == 0


async def test_an_identity_cid_is_always_there() -> None:
    store = RecentBlockstore(0)
    cid = Cid.from_data(b"inline", hash_code=IDENTITY)
    assert await store.get(cid) == b"inline"
