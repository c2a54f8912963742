"""What is read by one call, and how much a reader of many blocks has read ahead of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiolibp2p.blocks import Cid, LmdbBlockstore
from aiolibp2p.blocks.lmdb import _FIRST_BLOCKS_AHEAD
from aiolibp2p.limits import Limits

pytestmark = pytest.mark.sockets  # real threads, on a real loop

SIZE = 1000


async def store_of(path: Path, count: int, limits: Limits) -> tuple[LmdbBlockstore, list[Cid]]:
    """Return a store, to be entered, in which so many blocks of SIZE bytes are."""
    blocks = [(b"%d." % number).ljust(SIZE, b".") for number in range(count)]
    cids = [Cid.from_data(data) for data in blocks]
    async with LmdbBlockstore(path, limits=limits) as store:
        await store.put_many(list(zip(cids, blocks, strict=True)))
    return LmdbBlockstore(path, limits=limits), cids


@pytest.mark.parametrize(("count", "calls"), [(2, 1), (3, 1), (4, 2), (7, 3)])
async def test_one_call_reads_so_many_blocks_and_several_read_more(tmp_path: Path, count: int, calls: int) -> None:
    unopened, cids = await store_of(tmp_path, count, Limits(storage_read_blocks=3))
    async with unopened as store:
        begun: list[object] = []
        start = store._blocks._threads.start

        def counting(call: object) -> None:
            begun.append(call)
            start(call)  # type: ignore[arg-type]

        store._blocks._threads.start = counting  # type: ignore[method-assign]
        assert None not in await store.get_many(cids)
        assert len(begun) == calls


@pytest.mark.parametrize(("ahead_bytes", "blocks"), [(3 * SIZE - 1, 2), (3 * SIZE, 3), (3 * SIZE + 1, 3), (1, 1)])
async def test_a_reader_of_many_blocks_has_so_many_bytes_read_ahead(
    tmp_path: Path, ahead_bytes: int, blocks: int
) -> None:
    """One block at least, and the first few before their size is known."""
    unopened, cids = await store_of(tmp_path, 20, Limits(storage_ahead_bytes=ahead_bytes))
    async with unopened as store:
        windows: list[int] = []
        ask = store._blocks.ask

        def counting(keys: list[bytes]) -> object:
            windows.append(len(keys))
            return ask(keys)

        store._blocks.ask = counting  # type: ignore[method-assign, assignment]
        assert len([data async for data in store.fetch(cids)]) == 20
        assert windows[0] == _FIRST_BLOCKS_AHEAD
        assert set(windows[1:-1]) == {blocks}
