"""Reading: the bytes of a file and of a range of it, paths, directories, and DAGs that are not what they claim."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest

from aiolibp2p import unixfs
from aiolibp2p.blocks import Cid, MemoryBlockstore
from aiolibp2p.blocks.cid import DAG_CBOR, IDENTITY, RAW
from aiolibp2p.blocks.dag import PbLink
from aiolibp2p.errors import BlockNotFoundError, InvalidValueError
from aiolibp2p.unixfs import Adder, Layout
from aiolibp2p.unixfs.file import FILE_DEPTH_MAX
from aiolibp2p.unixfs.hamt import directory_blocks
from aiolibp2p.unixfs.layout import Subtree
from aiolibp2p.unixfs.node import NodeType, UnixFsNode
from tests.unit.unixfs.dags import Dags, WholeStore, drain, joined

DATA = bytes(range(256)) * 4
LAYOUT = Layout(chunk_bytes=10, max_links=3)


class Closing(Dags):
    """A store that counts the readers that have not ended."""

    def __init__(self) -> None:
        super().__init__()
        self.open = 0

    async def fetch(self, cids: Sequence[Cid]) -> AsyncIterator[bytes]:
        self.open += 1
        try:
            for cid in cids:
                yield await self.get(cid)
        finally:
            self.open -= 1


async def add(store: MemoryBlockstore, data: bytes = DATA, layout: Layout = LAYOUT) -> Cid:
    return (await Adder(store, layout=layout).add(io.BytesIO(data))).cid


def shards(store: Dags, *names: str, cid: Cid) -> Cid:
    """Keep a directory of these entries that is large enough to be sharded."""
    padding = {f"{number:01000}": Subtree(cid, 1) for number in range(300)}
    blocks, root = drain(directory_blocks(padding | {name: Subtree(cid, 1) for name in names}))
    for shard, data in blocks:
        store._keep(shard, data)
    return root.cid


async def test_a_file_comes_back_as_it_was() -> None:
    store = WholeStore()
    for size in (0, 1, 10, 11, 30, 31, len(DATA)):
        assert await joined(unixfs.cat(store, await add(store, DATA[:size]))) == DATA[:size]


async def test_leaves_that_are_not_raw_are_read() -> None:
    store = WholeStore()
    cid = await add(store, layout=Layout(chunk_bytes=10, max_links=3, raw_leaves=False))
    assert await joined(unixfs.cat(store, cid, "", 15, 100)) == DATA[15:115]


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 0), (0, 1), (9, 2), (10, 10), (30, 60), (0, None), (1000, 24), (1000, 999), (1024, None), (5000, 1)],
)
async def test_a_range_is_that_of_the_bytes(offset: int, length: int | None) -> None:
    store = WholeStore()
    cid = await add(store)
    end = None if length is None else offset + length
    assert await joined(unixfs.cat(store, cid, offset=offset, length=length)) == DATA[offset:end]


async def test_blocks_outside_the_range_are_not_asked_for() -> None:
    store = WholeStore()
    cid = await add(store)
    store.asked.clear()
    await joined(unixfs.cat(store, cid, offset=500, length=10))
    # A node of each of the five levels on the way, and one leaf.
    assert len(store.asked) == 6


async def test_a_negative_range_is_refused() -> None:
    store = WholeStore()
    cid = await add(store)
    for offset, length in ((-1, None), (0, -1)):
        with pytest.raises(InvalidValueError):
            await joined(unixfs.cat(store, cid, "", offset, length))


async def test_bytes_of_a_node_come_before_those_below_it() -> None:
    store = Dags()
    below = store.file((store.raw(b"cd"), 2), data=b"b")
    cid = store.file((below, 3), (store.raw(b""), 0), (store.raw(b"e"), 1), data=b"a")
    assert await joined(unixfs.cat(store, cid)) == b"abcde"
    assert await joined(unixfs.cat(store, cid, offset=1, length=3)) == b"bcd"


async def test_a_block_that_occurs_many_times_is_read_each_time() -> None:
    store = WholeStore()
    assert await joined(unixfs.cat(store, await add(store, bytes(1000)))) == bytes(1000)


async def test_a_block_inside_its_cid_is_read() -> None:
    store = Dags()
    inline = Cid.from_data(b"inline", hash_code=IDENTITY)
    assert await joined(unixfs.cat(store, store.file((inline, 6)))) == b"inline"


async def test_a_missing_block_is_named_after_the_bytes_before_it() -> None:
    store = WholeStore()
    cid = await add(store)
    missing = Cid.from_data(DATA[500:510])
    await store.delete(missing)
    got = bytearray()

    async def read() -> None:
        async for piece in unixfs.cat(store, cid):
            got.extend(piece)

    with pytest.raises(BlockNotFoundError) as error:
        await read()
    assert error.value.cid == str(missing)
    assert got == DATA[:500]


async def test_bytes_before_a_node_that_is_missing_are_given_first() -> None:
    store = Dags()
    first = store.file((store.raw(b"one"), 3), (store.raw(b"two"), 3))
    gone = store.file((store.raw(b"three"), 5))
    cid = store.file((first, 6), (gone, 5))
    await store.delete(gone)
    pieces = unixfs.cat(store, cid)
    assert [await anext(pieces), await anext(pieces)] == [b"one", b"two"]
    with pytest.raises(BlockNotFoundError) as missing:
        await anext(pieces)
    assert missing.value.cid == str(gone)


async def test_leaves_of_the_next_node_are_known_before_it_is_reached() -> None:
    class Told(MemoryBlockstore):
        known: Sequence[Cid] = ()

        async def fetch(self, cids: Sequence[Cid]) -> AsyncIterator[bytes]:
            for cid in cids:
                if cid.codec == RAW:
                    self.known = cids
                yield await self.get(cid)

    store = Told()
    cid = await add(store)
    async with aclosing(unixfs.cat(store, cid)) as pieces:
        told = []
        async for _ in pieces:
            told.append(len(store.known))
    # With each piece twice as many, so that the first waits for no node but its own, and all three of a node at once.
    assert told[:5] == [3, 3, 6, 12, 21]
    assert told[-1] == 103


async def test_a_long_file_is_asked_for_in_several_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiolibp2p.unixfs.file._LEAVES_A_FETCH", 5)
    store = Closing()
    assert await joined(unixfs.cat(store, await add(store))) == DATA
    assert store.open == 0


async def test_a_reader_that_is_given_up_ends_its_reading_ahead() -> None:
    store = Closing()
    cid = await add(store)
    async with aclosing(unixfs.cat(store, cid)) as pieces:
        assert await anext(pieces) == DATA[:10]
        assert store.open
    assert not store.open
    assert await joined(unixfs.cat(store, cid)) == DATA
    assert not store.open


async def test_a_path_leads_through_directories_to_a_file() -> None:
    store = Dags()
    file = store.raw(b"hello")
    cid = store.directory(("a", store.directory(("b c", file))))
    for path in ("a/b c", "/a/b c", "a//b c/"):
        assert await joined(unixfs.cat(store, cid, path)) == b"hello"
    assert await unixfs.stat(store, cid, "a/b c") == unixfs.Stat(file, "file", 5)


async def test_a_path_leads_through_shards() -> None:
    store = Dags()
    file = store.raw(b"hello")
    cid = store.directory(("d", shards(store, "file", "é", "..", cid=file)))
    assert await joined(unixfs.cat(store, cid, "d/file")) == b"hello"
    assert await joined(unixfs.cat(store, cid, "d/é")) == b"hello"
    assert (await unixfs.stat(store, cid, "d")).kind == "directory"
    with pytest.raises(FileNotFoundError) as missing:
        await joined(unixfs.cat(store, cid, "d/missing"))
    assert missing.value.filename == f"{cid}/d/missing"


async def test_a_path_that_leads_nowhere_says_where_it_ends() -> None:
    store = Dags()
    cid = store.directory(("file", store.raw(b"")), ("link", store.symlink("file")))
    with pytest.raises(FileNotFoundError) as missing:
        await unixfs.stat(store, cid, "nothing/below")
    assert missing.value.filename == f"{cid}/nothing"
    for name in ("file", "link"):
        with pytest.raises(NotADirectoryError) as no_directory:
            await unixfs.stat(store, cid, f"{name}/below")
        assert no_directory.value.filename == f"{cid}/{name}"


async def test_a_directory_has_no_bytes_and_a_file_no_entries() -> None:
    store = Dags()
    file = store.raw(b"")
    cid = store.directory(("file", file), ("dir", shards(store, cid=file)))
    for path in ("", "dir"):
        with pytest.raises(IsADirectoryError):
            await joined(unixfs.cat(store, cid, path))
    with pytest.raises(NotADirectoryError) as no_directory:
        [_ async for _ in unixfs.ls(store, cid, "file")]
    assert no_directory.value.filename == f"{cid}/file"


async def test_entries_of_a_directory_are_given_as_they_stand() -> None:
    store = Dags()
    file = store.raw(b"")
    cid = store.directory(("b", file), ("a/b", file), ("..", file))
    assert [entry async for entry in unixfs.ls(store, cid)] == [
        unixfs.Entry("..", file, 1),
        unixfs.Entry("a/b", file, 1),
        unixfs.Entry("b", file, 1),
    ]


async def test_entries_of_all_shards_are_given_once() -> None:
    store = Closing()
    cid = shards(store, "one", cid=store.raw(b""))
    names = [entry.name async for entry in unixfs.ls(store, cid)]
    assert len(names) == len(set(names)) == 301
    assert "one" in names
    async with aclosing(unixfs.ls(store, cid)) as entries:
        await anext(entries)
    assert not store.open


async def test_a_missing_shard_is_named() -> None:
    store = Dags()
    cid = shards(store, cid=store.raw(b""))
    root = await unixfs.dag.load(store, cid)
    below = next(link.cid for link in root.links if len(link.name or "") == 2)
    await store.delete(below)
    with pytest.raises(BlockNotFoundError) as missing:
        [_ async for _ in unixfs.ls(store, cid)]
    assert missing.value.cid == str(below)


async def test_a_symbolic_link_is_not_followed() -> None:
    store = Dags()
    link = store.symlink("../file")
    cid = store.directory(("file", store.raw(b"")), ("link", link))
    assert await unixfs.stat(store, cid, "link") == unixfs.Stat(link, "symlink", 0, "../file")
    with pytest.raises(InvalidValueError, match="symbolic link"):
        await joined(unixfs.cat(store, cid, "link"))


async def test_a_block_of_another_codec_is_refused_by_name() -> None:
    store = Dags()
    cid = Cid.from_data(b"\xa0", DAG_CBOR)
    await store.put(cid, b"\xa0")
    with pytest.raises(InvalidValueError, match=str(cid)):
        await unixfs.stat(store, cid)


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(b"\xff", id="no dag-pb"),
        pytest.param(b"", id="no data"),
        pytest.param(b"\x0a\x01\xff", id="no UnixFS"),
        pytest.param(b"\x0a\x02\x08\x03", id="metadata"),
        pytest.param(b"\x0a\x04\x08\x02\x18\x05", id="a size without bytes"),
        pytest.param(b"\x0a\x04\x08\x02\x20\x05", id="a part without a link"),
        pytest.param(b"\x0a\x02\x08\x05", id="a shard without a fanout"),
    ],
)
async def test_a_malformed_block_is_refused_by_name(encoded: bytes) -> None:
    store = Dags()
    cid = store.encoded(encoded)
    with pytest.raises(InvalidValueError, match=str(cid)):
        await unixfs.stat(store, cid)


async def test_a_file_whose_parts_are_not_as_large_as_it_says_is_refused() -> None:
    store = Dags()
    leaf = store.raw(b"12345")
    for claimed in (4, 6):
        with pytest.raises(InvalidValueError, match=str(leaf)):
            await joined(unixfs.cat(store, store.file((leaf, claimed))))
    # Sizes that wrap around, or do not add up.
    cid = store.file((leaf, 5), file_bytes=6)
    with pytest.raises(InvalidValueError, match=str(cid)):
        await joined(unixfs.cat(store, cid))


async def test_a_directory_inside_a_file_is_refused() -> None:
    store = Dags()
    directory = store.directory()
    with pytest.raises(InvalidValueError, match=str(directory)):
        await joined(unixfs.cat(store, store.file((directory, 5))))


async def test_a_file_without_end_is_refused() -> None:
    store = Dags()
    cid = store.raw(b"x")
    for _ in range(FILE_DEPTH_MAX - 1):
        cid = store.file((cid, 1))
    assert await joined(unixfs.cat(store, cid)) == b"x"
    with pytest.raises(InvalidValueError, match="levels"):
        await joined(unixfs.cat(store, store.file((cid, 1))))


async def test_shards_deeper_than_a_hash_are_refused() -> None:
    store = Dags()

    def above(cid: Cid) -> Cid:
        node = UnixFsNode(type=NodeType.HAMT_SHARD, data=b"\x01", hash_type=0x22, fanout=256)
        return store.node([PbLink(cid, "00", 1)], node)

    cid = above(store.raw(b""))
    for _ in range(9):
        cid = above(cid)
    with pytest.raises(InvalidValueError, match="deeper"):
        [_ async for _ in unixfs.ls(store, cid)]


async def test_what_is_no_shard_where_one_belongs_is_refused() -> None:
    store = Dags()
    directory = store.directory()
    node = UnixFsNode(type=NodeType.HAMT_SHARD, data=((1 << 256) - 1).to_bytes(32, "big"), hash_type=0x22, fanout=256)
    cid = store.node([PbLink(directory, f"{slot:02X}", 1) for slot in range(256)], node)
    with pytest.raises(InvalidValueError, match=str(directory)):
        [_ async for _ in unixfs.ls(store, cid)]
    with pytest.raises(InvalidValueError, match=str(directory)):
        await unixfs.stat(store, cid, "name")
