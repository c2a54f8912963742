"""`get`: what a CID names, at the destination, whole, and nowhere else."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from aiolibp2p import unixfs
from aiolibp2p.blocks import Cid, MemoryBlockstore
from aiolibp2p.errors import BlockNotFoundError, InvalidValueError
from aiolibp2p.unixfs import Adder, Layout
from tests.unit.unixfs.dags import Dags, WholeStore

DATA = bytes(range(256)) * 4
LAYOUT = Layout(chunk_bytes=10, max_links=3)

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="Windows lets not everyone make symbolic links")
needs_devices = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no devices in directories")


class Stuck(MemoryBlockstore):
    """A source that answers for the first blocks only."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self.answers = answers
        self.reached = asyncio.Event()

    async def fetch(self, cids: Sequence[Cid]) -> AsyncIterator[bytes]:
        for cid in cids:
            self.answers -= 1
            if self.answers < 0:
                self.reached.set()
                await asyncio.Event().wait()
            yield await self.get(cid)


def tree(path: Path) -> dict[str, object]:
    """Return what lies below a path: bytes of files, targets of links, None for directories."""
    found: dict[str, object] = {}
    for below in sorted(path.rglob("*")):
        name = below.relative_to(path).as_posix()
        if below.is_symlink():
            found[name] = os.readlink(below)
        else:
            found[name] = None if below.is_dir() else below.read_bytes()
    return found


async def test_a_file_is_written_to_the_destination(tmp_path: Path) -> None:
    store = WholeStore()
    cid = (await Adder(store, layout=LAYOUT).add(io.BytesIO(DATA))).cid
    assert await unixfs.get(store, cid, tmp_path / "out") == len(DATA)
    assert tree(tmp_path) == {"out": DATA}


async def test_a_file_replaces_a_file(tmp_path: Path) -> None:
    store = Dags()
    (tmp_path / "out").write_bytes(b"something longer")
    assert await unixfs.get(store, store.raw(b"new"), str(tmp_path / "out")) == 3
    assert tree(tmp_path) == {"out": b"new"}


@needs_links
@pytest.mark.slow
async def test_a_directory_comes_back_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub" / "deep").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "file").write_bytes(DATA)
    (source / "none").write_bytes(b"")
    (source / "sub" / "deep" / "é").write_bytes(b"e")
    (source / "link").symlink_to("../nowhere")
    for number in range(600):
        (source / "sub" / str(number)).write_bytes(b"%d" % number)
    store = WholeStore()
    added = await Adder(store, layout=LAYOUT).add(source)
    seen: list[int] = []
    assert await unixfs.get(store, added.cid, tmp_path / "out", progress=seen.append) == added.content_bytes
    assert tree(tmp_path / "out") == tree(source)
    assert seen[-1] == added.content_bytes
    assert sorted(os.listdir(tmp_path)) == ["out", "source"]


async def test_a_path_below_the_cid_is_written_alone(tmp_path: Path) -> None:
    store = Dags()
    cid = store.directory(("a", store.directory(("b", store.raw(b"b")))), ("c", store.raw(b"c")))
    await unixfs.get(store, cid, tmp_path / "out", "a")
    assert tree(tmp_path) == {"out": None, "out/b": b"b"}


async def test_a_directory_replaces_an_empty_one_and_no_other(tmp_path: Path) -> None:
    store = Dags()
    cid = store.directory(("b", store.raw(b"b")))
    (tmp_path / "out").mkdir()
    await unixfs.get(store, cid, tmp_path / "out")
    assert tree(tmp_path) == {"out": None, "out/b": b"b"}
    with pytest.raises(FileExistsError) as exists:
        await unixfs.get(store, cid, tmp_path / "out")
    assert exists.value.filename == str(tmp_path / "out")
    with pytest.raises(FileExistsError):
        await unixfs.get(store, cid, tmp_path / "out" / "b")


async def test_a_file_does_not_replace_a_directory(tmp_path: Path) -> None:
    store = Dags()
    with pytest.raises(IsADirectoryError):
        await unixfs.get(store, store.raw(b""), tmp_path)
    assert tree(tmp_path) == {}


async def test_a_destination_in_no_directory_is_named(tmp_path: Path) -> None:
    store = Dags()
    with pytest.raises(FileNotFoundError) as missing:
        await unixfs.get(store, store.raw(b""), tmp_path / "no" / "out")
    assert missing.value.filename == str(tmp_path / "no" / "out")


@pytest.mark.parametrize("name", ["..", ".", "", "../out", "/etc/passwd", "a/b", "a\0b"])
async def test_a_name_that_is_no_plain_name_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    store = Dags()
    inner = store.directory(("good", store.raw(b"")), (name, store.raw(b"evil")))
    cid = store.directory(("a", store.raw(b"a")), ("sub", inner))
    with pytest.raises(InvalidValueError, match="'/sub'") as refused:
        await unixfs.get(store, cid, tmp_path / "out")
    assert repr(name) in str(refused.value)
    assert tree(tmp_path) == {}


@needs_links
async def test_a_link_does_not_lead_later_entries_elsewhere(tmp_path: Path) -> None:
    store = Dags()
    (tmp_path / "elsewhere").mkdir()
    link = store.symlink(str(tmp_path / "elsewhere"))
    for evil in (store.directory(("file", store.raw(b"evil"))), store.raw(b"evil")):
        for entries in ((("x", link), ("x", evil)), (("x", evil), ("x", link))):
            with pytest.raises(FileExistsError) as exists:
                await unixfs.get(store, store.directory(*entries), tmp_path / "out")
            assert exists.value.filename == str(tmp_path / "out" / "x")
    assert tree(tmp_path) == {"elsewhere": None}


@needs_links
async def test_a_link_at_the_destination_is_replaced_and_not_followed(tmp_path: Path) -> None:
    store = Dags()
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "out").symlink_to("precious")
    await unixfs.get(store, store.raw(b"new"), tmp_path / "out")
    assert tree(tmp_path) == {"out": b"new", "precious": b"precious"}


@needs_links
async def test_a_symbolic_link_is_written_as_one(tmp_path: Path) -> None:
    store = Dags()
    assert await unixfs.get(store, store.symlink("/nowhere"), tmp_path / "out") == 0
    assert tree(tmp_path) == {"out": "/nowhere"}


@needs_links
async def test_a_link_with_a_nul_in_its_target_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    store = Dags()
    link = store.symlink("a\0b")
    for cid in (link, store.directory(("file", store.raw(b"good")), ("link", link))):
        with pytest.raises(InvalidValueError, match="NUL"):
            await unixfs.get(store, cid, tmp_path / "out")
    assert tree(tmp_path) == {}


@needs_devices
async def test_a_device_is_written_into_and_stays(tmp_path: Path) -> None:
    store = Dags()
    assert await unixfs.get(store, store.raw(b"hello"), os.devnull) == 5
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    with pytest.raises(FileExistsError):
        await unixfs.get(store, store.directory(), os.devnull)


async def test_a_missing_block_is_named_and_what_was_there_stays(tmp_path: Path) -> None:
    store = WholeStore()
    cid = (await Adder(store, layout=LAYOUT).add(io.BytesIO(DATA))).cid
    await store.delete(Cid.from_data(DATA[500:510]))
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(BlockNotFoundError):
        await unixfs.get(store, cid, tmp_path / "out")
    assert tree(tmp_path) == {"out": b"old"}


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is of Linux")
async def test_a_full_disk_names_the_file() -> None:
    store = Dags()
    with pytest.raises(OSError, match="No space left") as full:
        await unixfs.get(store, store.raw(b"hello"), "/dev/full")
    assert full.value.filename == "/dev/full"


async def test_an_error_of_the_disk_names_the_file_as_the_user_knows_it(tmp_path: Path) -> None:
    store = Dags()
    name = "n" * 300
    cid = store.directory(("sub", store.directory((name, store.raw(b"")))))
    with pytest.raises(OSError, match=name) as failed:
        await unixfs.get(store, cid, tmp_path / "out")
    assert failed.value.filename == str(tmp_path / "out" / "sub" / name)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("answers", [0, 1, 30])
async def test_a_cancelled_get_leaves_nothing_behind(tmp_path: Path, answers: int) -> None:
    store = Stuck(answers)
    cid = (await Adder(store, layout=LAYOUT).add(io.BytesIO(DATA))).cid
    task = asyncio.get_running_loop().create_task(unixfs.get(store, cid, tmp_path / "out"), name="get")
    await store.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tree(tmp_path) == {}


@pytest.mark.sockets
async def test_a_real_thread_writes_while_more_is_fetched_and_is_cancelled_with_it(tmp_path: Path) -> None:
    data = DATA * 5000
    store = WholeStore()
    cid = await unixfs.add(store, io.BytesIO(data))
    seen: list[int] = []
    assert await unixfs.get(store, cid, tmp_path / "out", progress=seen.append) == len(data)
    assert (tmp_path / "out").read_bytes() == data
    assert len(seen) > 1
    stuck = Stuck(18)
    await unixfs.add(stuck, io.BytesIO(data))
    task = asyncio.get_running_loop().create_task(unixfs.get(stuck, cid, tmp_path / "other"), name="get")
    await stuck.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert os.listdir(tmp_path) == ["out"]
