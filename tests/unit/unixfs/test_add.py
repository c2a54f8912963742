"""`add`: sources of every kind, in batches, children before parents, with whatever goes wrong."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from aiolibp2p import unixfs
from aiolibp2p.blocks import Blockstore, Cid
from aiolibp2p.blocks.lmdb import LmdbBlockstore
from aiolibp2p.errors import InvalidValueError, StorageError
from aiolibp2p.unixfs.add import Adder
from aiolibp2p.unixfs.layout import Block, Layout
from tests.unit.unixfs.dags import WholeStore, joined

DATA = bytes(range(256)) * 5
SMALL = Layout(chunk_bytes=100, max_links=3)


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


class FullStore(WholeStore):
    """A store whose disk is full at the second batch."""

    async def put_many(self, blocks: Sequence[Block]) -> None:
        if self.put_sizes:
            raise StorageError("store", "no space left on device")
        await super().put_many(blocks)


class StuckStore(WholeStore):
    """A store that never comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()

    async def put_many(self, blocks: Sequence[Block]) -> None:
        self.reached.set()
        await asyncio.Event().wait()


def small(store: Blockstore, progress: Callable[[int], object] | None = None) -> Adder:
    """Return an adder with chunks and batches so small that little data makes many."""
    return Adder(store, layout=SMALL, progress=progress, batch_bytes=300, batch_blocks=7)


async def test_add_returns_the_cid_of_a_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    store = WholeStore()
    cid = await unixfs.add(store, tmp_path / "file")
    assert cid == await unixfs.add(store, str(tmp_path / "file")) == Cid.from_data(b"hello")
    assert await store.get(cid) == b"hello"


async def test_every_kind_of_source_gives_the_same_cid(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    adder = small(WholeStore())
    added = await adder.add(tmp_path / "file")
    assert added.content_bytes == len(DATA)
    assert added == await adder.add(io.BytesIO(DATA))
    for size in (1, 99, 100, 101, 640, 5000):
        assert added == await adder.add(pieces(DATA, size))


async def test_a_source_without_bytes_is_an_empty_file() -> None:
    store = WholeStore()
    assert await unixfs.add(store, pieces(b"", 1)) == await unixfs.add(store, io.BytesIO()) == Cid.from_data(b"")
    assert len(store) == 1


async def test_choices_are_those_of_the_layout() -> None:
    store = WholeStore()
    by_function = await unixfs.add(store, io.BytesIO(DATA), chunk_bytes=100, max_links=3, raw_leaves=False)
    layout = Layout(chunk_bytes=100, max_links=3, raw_leaves=False)
    assert by_function == (await Adder(store, layout=layout).add(io.BytesIO(DATA))).cid
    assert by_function != (await small(store).add(io.BytesIO(DATA))).cid
    with pytest.raises(InvalidValueError):
        await unixfs.add(store, io.BytesIO(DATA), chunk_bytes=0)


async def test_a_parent_is_stored_after_all_that_it_links_to(tmp_path: Path) -> None:
    for name in "abcdefgh":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(DATA + name.encode())
    # The store asserts it at every batch.
    store = WholeStore()
    added = await small(store).add(tmp_path)
    assert added.content_bytes == 8 * (len(DATA) + 1)
    assert len(store.put_sizes) > 8


async def test_a_batch_is_bounded_by_bytes_and_by_blocks(tmp_path: Path) -> None:
    store = WholeStore()
    await small(store).add(io.BytesIO(DATA))
    assert max(store.put_sizes) < 300 + 2 * 100
    store = WholeStore()
    for number in range(30):
        (tmp_path / str(number)).write_bytes(b"%d" % number)
    await small(store).add(tmp_path)
    assert len(store.put_sizes) == 5


async def test_progress_counts_the_bytes_of_files_that_are_stored() -> None:
    for source in (io.BytesIO(DATA), pieces(DATA, 64)):
        seen: list[int] = []
        added = await small(WholeStore(), seen.append).add(source)
        assert len(seen) > 3
        assert seen == sorted(seen)
        assert seen[-1] == added.content_bytes == len(DATA)


async def test_blocks_are_counted_as_often_as_they_occur() -> None:
    store = WholeStore()
    added = await small(store).add(io.BytesIO(bytes(300)))
    assert added.blocks == 4
    assert len(store) == 2


async def test_hidden_names_are_added_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_bytes(b"")
    assert await unixfs.add(WholeStore(), tmp_path) != await unixfs.add(WholeStore(), tmp_path, hidden=True)


async def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        await unixfs.add(WholeStore(), tmp_path / "missing")
    assert missing.value.filename == str(tmp_path / "missing")


async def test_an_error_of_the_store_ends_the_add(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    for source in (tmp_path / "file", io.BytesIO(DATA), pieces(DATA, 64)):
        with pytest.raises(StorageError):
            await small(FullStore()).add(source)


async def test_an_error_of_the_source_ends_the_add_and_keeps_what_was_stored(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield DATA
        raise ConnectionResetError

    store = WholeStore()
    with pytest.raises(ConnectionResetError):
        await small(store).add(broken())
    assert len(store)


async def test_a_cancelled_add_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    store = StuckStore()
    task = asyncio.get_running_loop().create_task(small(store).add(tmp_path / "file"), name="add")
    await store.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.sockets
async def test_a_real_thread_reads_ahead_of_the_store_and_is_cancelled_with_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA * 10)
    cid = await small(WholeStore()).add(tmp_path / "file")
    assert cid == await small(WholeStore()).add(io.BytesIO(DATA * 10))
    store = StuckStore()
    task = asyncio.get_running_loop().create_task(small(store).add(tmp_path / "file"), name="add")
    await store.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.sockets
async def test_what_was_added_to_lmdb_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    async with LmdbBlockstore(tmp_path / "store") as store:
        added = await small(store).add(pieces(DATA, 64))
    async with LmdbBlockstore(tmp_path / "store") as store:
        assert await joined(unixfs.cat(store, added.cid)) == DATA
        assert await unixfs.get(store, added.cid, tmp_path / "out") == len(DATA)
