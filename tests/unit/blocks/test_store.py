"""What every store does, in memory and in LMDB."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from aiolibp2p.blocks import BlockSource, Blockstore, LmdbBlockstore, MemoryBlockstore
from aiolibp2p.blocks.cid import DAG_PB, IDENTITY, RAW, Cid
from aiolibp2p.errors import BlockNotFoundError

pytestmark = pytest.mark.sockets  # LMDB's threads are of the real world

Store = MemoryBlockstore | LmdbBlockstore
MakeStore = Callable[[], AbstractAsyncContextManager[Store]]

DATA = [b"", b"x", b"two" * 500, bytes(300_000)]
BLOCKS = [(Cid.from_data(data), data) for data in DATA]
CIDS = [cid for cid, _ in BLOCKS]
MISSING = Cid.from_data(b"missing")


@pytest.fixture(params=["memory", "lmdb"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    if request.param == "memory":
        return MemoryBlockstore
    return lambda: LmdbBlockstore(tmp_path / "blocks")


async def collected(blocks: AsyncIterator[bytes]) -> list[bytes]:
    return [data async for data in blocks]


async def test_what_was_put_is_found(make_store: MakeStore) -> None:
    async with make_store() as store:
        assert isinstance(store, Blockstore)
        assert isinstance(store, BlockSource)
        await store.put_many(BLOCKS)
        for cid, data in BLOCKS:
            assert await store.get(cid) == data
            assert await store.has(cid)
        assert await store.get_many([*CIDS, MISSING]) == [*DATA, None]
        assert await store.sizes([MISSING, *CIDS]) == [None, *(len(data) for data in DATA)]
        assert await store.get_many([]) == []
        assert await store.sizes([]) == []


async def test_a_missing_block_is_named(make_store: MakeStore) -> None:
    async with make_store() as store:
        with pytest.raises(BlockNotFoundError) as caught:
            await store.get(MISSING)
        assert caught.value.cid == str(MISSING)
        assert not await store.has(MISSING)


async def test_a_block_is_found_under_any_codec_and_version(make_store: MakeStore) -> None:
    async with make_store() as store:
        data = b"\x0a\x00"
        await store.put(Cid.from_data(data, DAG_PB, version=0), data)
        for cid in (Cid.from_data(data, RAW), Cid.from_data(data, DAG_PB), Cid.from_data(data, DAG_PB, version=0)):
            assert await store.get(cid) == data
        assert [cid async for cid in store.cids()] == [Cid.from_data(data, RAW)]


async def test_a_cid_asked_for_twice_is_answered_twice(make_store: MakeStore) -> None:
    async with make_store() as store:
        await store.put_many(BLOCKS)
        assert await store.get_many([CIDS[1], CIDS[2], CIDS[1]]) == [DATA[1], DATA[2], DATA[1]]


async def test_an_identity_block_is_in_every_store_and_in_none(make_store: MakeStore) -> None:
    async with make_store() as store:
        for data in (b"", b"inline", b"inline" * 200):
            cid = Cid.from_data(data, hash_code=IDENTITY)
            assert await store.get(cid) == data
            assert await store.sizes([cid]) == [len(data)]
            assert await store.has(cid)
            await store.put(cid, data)
            await store.delete(cid)
            assert await store.get_many([cid, MISSING]) == [data, None]
            assert await collected(store.fetch([cid, cid])) == [data, data]
        assert [cid async for cid in store.cids()] == []


async def test_a_deleted_block_is_gone_and_deleting_it_again_is_no_error(make_store: MakeStore) -> None:
    async with make_store() as store:
        await store.put_many(BLOCKS)
        await store.delete(CIDS[3])
        await store.delete(CIDS[3])
        assert await store.get_many(CIDS) == [*DATA[:3], None]
        await store.put(*BLOCKS[3])
        assert await store.get(CIDS[3]) == DATA[3]


async def test_every_block_is_listed_once(make_store: MakeStore) -> None:
    blocks = [(Cid.from_data(data), data) for n in range(2500) if (data := b"%d" % n)]
    async with make_store() as store:
        await store.put_many(blocks)
        await store.put_many(blocks[:10])
        listed = [cid async for cid in store.cids()]
        assert len(listed) == len(blocks)
        assert set(listed) == {cid for cid, _ in blocks}


async def test_blocks_are_fetched_in_the_order_that_was_asked(make_store: MakeStore) -> None:
    blocks = [(Cid.from_data(data), data) for n in range(200) if (data := bytes((n,)) * (1 + n * 97))]
    async with make_store() as store:
        await store.put_many(blocks)
        assert await collected(store.fetch([cid for cid, _ in blocks])) == [data for _, data in blocks]
        backwards = blocks[::-1] + blocks[:3]
        assert await collected(store.fetch([cid for cid, _ in backwards])) == [data for _, data in backwards]
        assert await collected(store.fetch([])) == []


async def test_a_fetch_yields_what_is_before_a_missing_block_and_names_it(make_store: MakeStore) -> None:
    async with make_store() as store:
        await store.put_many(BLOCKS)
        fetching = store.fetch([*CIDS[:3], MISSING, CIDS[3]])
        assert [await anext(fetching) for _ in range(3)] == DATA[:3]
        with pytest.raises(BlockNotFoundError) as caught:
            await anext(fetching)
        assert caught.value.cid == str(MISSING)


async def test_a_fetch_that_is_not_read_to_its_end_leaves_nothing(make_store: MakeStore) -> None:
    async with make_store() as store:
        await store.put_many(BLOCKS)
        fetching = store.fetch(CIDS * 50)
        assert await anext(fetching) == DATA[0]
        await fetching.aclose()  # type: ignore[attr-defined]
        assert await store.get(CIDS[1]) == DATA[1]


async def test_a_store_in_memory_has_its_blocks_from_the_beginning() -> None:
    store = MemoryBlockstore(BLOCKS)
    assert len(store) == len(BLOCKS)
    await store.put(CIDS[1], b"other bytes under a name that is taken")
    assert await store.get(CIDS[1]) == DATA[1]
