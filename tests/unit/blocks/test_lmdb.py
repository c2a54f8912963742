"""The LMDB store: what lasts, what is refused, and what a full or hanging disk does."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest

from aiolibp2p.blocks import Cid, LmdbBlockstore
from aiolibp2p.blocks.commits import Change
from aiolibp2p.blocks.lmdb_map import FORMAT, KEY_BYTES_MAX, LmdbMap
from aiolibp2p.errors import DeadlineError, InvalidValueError, LocalProtocolError, StorageError
from aiolibp2p.limits import Limits, Timeouts

pytestmark = pytest.mark.sockets  # real threads, on a real loop

SMALL_MAP = Limits(storage_map_bytes=1 << 20)
SHORT = 0.05


def blocks_of(count: int, size_bytes: int, salt: int = 0) -> list[tuple[Cid, bytes]]:
    data = [(b"%d.%d." % (salt, n)).ljust(size_bytes, b".") for n in range(count)]
    return [(Cid.from_data(one), one) for one in data]


@contextmanager
def deadline(timeouts: Timeouts, seconds: float) -> Iterator[None]:
    """Shorten what is frozen, so that all but what is meant to be late has its ten seconds."""
    before = timeouts.storage
    object.__setattr__(timeouts, "storage", seconds)
    try:
        yield
    finally:
        object.__setattr__(timeouts, "storage", before)


class Hanging:
    """Reads and writes of one key that do not return until `let_go`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, key: bytes) -> None:
        self.calls = 0
        self._key = key
        self._gate = threading.Event()
        monkeypatch.setattr(LmdbMap, "_value", staticmethod(self._value))
        self._apply_changes = LmdbMap._apply
        monkeypatch.setattr(LmdbMap, "_apply", staticmethod(self._apply))

    def let_go(self) -> None:
        self._gate.set()

    def _value(self, transaction: lmdb.Transaction[bytes], key: bytes) -> bytes | None:
        if key == self._key:
            self.calls += 1
            self._gate.wait()
        return transaction.get(key)

    def _apply(self, transaction: lmdb.Transaction[bytes], changes: Sequence[Change]) -> None:
        if self._key in dict(changes):
            self.calls += 1
            self._gate.wait()
        self._apply_changes(transaction, changes)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until storage threads have come so far; the test's own time limit ends it."""
    while not condition():  # noqa: ASYNC110 - what changes on a thread sets no event
        await asyncio.sleep(0)


async def returned(store: LmdbBlockstore) -> None:
    """Wait until no call hangs."""
    threads = store._threads
    assert threads is not None
    await until(lambda: not (threads.hanging or store._blocks._refused or store._commits._refused))


async def test_blocks_last_after_the_store_was_closed(tmp_path: Path) -> None:
    blocks = blocks_of(20, 5000)
    async with LmdbBlockstore(tmp_path / "a" / "b") as store:
        await store.put_many(blocks)
    assert (tmp_path / "a" / "b" / "version").read_text() == FORMAT
    async with LmdbBlockstore(str(tmp_path / "a" / "b")) as store:
        assert await store.get_many([cid for cid, _ in blocks]) == [data for _, data in blocks]


async def test_the_map_grows_and_what_was_read_stays_as_it_was(tmp_path: Path) -> None:
    blocks = blocks_of(64, 100_000)
    async with LmdbBlockstore(tmp_path, limits=SMALL_MAP) as store:
        await store.put(*blocks[0])
        read = await store.get(blocks[0][0])
        assert type(read) is bytes
        for start in range(0, 64, 8):
            await store.put_many(blocks[start : start + 8])
        assert store._map._map_bytes > 6_400_000
        assert await store.get_many([cid for cid, _ in blocks]) == [data for _, data in blocks]
        await asyncio.gather(*(store.delete(cid) for cid, _ in blocks))
        await store.put_many(blocks_of(64, 100_000, salt=1))
    assert read == blocks[0][1]


async def test_what_is_appended_while_it_is_read_is_read_too(tmp_path: Path) -> None:
    blocks = blocks_of(40, 100)
    async with LmdbBlockstore(tmp_path / "blocks") as store:
        await store.put_many(blocks)
        cids = [blocks[0][0]]
        read = []
        async for data in store.fetch(cids):
            read.append(data)
            cids += [cid for cid, _ in blocks[len(cids) : len(cids) + 2]]
    assert read == [data for _, data in blocks]


async def test_the_map_grows_while_others_read(tmp_path: Path) -> None:
    blocks = blocks_of(96, 100_000)
    async with LmdbBlockstore(tmp_path, limits=SMALL_MAP) as store:
        await store.put_many(blocks[:8])
        cids = [cid for cid, _ in blocks[:8]]

        async def read() -> None:
            for _ in range(40):
                assert await store.get_many(cids) == [data for _, data in blocks[:8]]

        async with asyncio.TaskGroup() as group:
            for n in range(4):
                group.create_task(read(), name=f"reader {n}")
            for start in range(8, 96, 8):
                group.create_task(store.put_many(blocks[start : start + 8]), name=f"writer {start}")
        assert await store.sizes([cid for cid, _ in blocks]) == [100_000] * 96


async def test_a_map_that_found_no_room_opens_with_what_there_is(tmp_path: Path) -> None:
    limits = Limits(storage_map_bytes=sys.maxsize)
    async with LmdbBlockstore(tmp_path, limits=limits) as store:
        await store.put(*blocks_of(1, 10)[0])
        assert store._map._map_bytes < sys.maxsize // 2


async def test_no_view_is_left_of_a_read_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views: list[object] = []

    def size(transaction: lmdb.Transaction[memoryview], key: bytes) -> int | None:
        view = transaction.get(key)
        views.append(type(view))
        return None if view is None else len(view)

    monkeypatch.setattr(LmdbMap, "_size", staticmethod(size))
    blocks = blocks_of(3, 10_000)
    async with LmdbBlockstore(tmp_path) as store:
        await store.put_many(blocks)
        assert await store.sizes([cid for cid, _ in blocks]) == [10_000] * 3
        data = await store.get_many([cid for cid, _ in blocks])
        assert [type(one) for one in data] == [bytes] * 3
        assert store._map._readers == 0
        assert store._map._env is not None
        # Every reader's slot is free or holds no snapshot: pages that are given up can be used again.
        for _ in range(10):
            await store.put_many(blocks_of(8, 50_000, salt=1))
            await asyncio.gather(*(store.delete(cid) for cid, _ in blocks_of(8, 50_000, salt=1)))
        assert (tmp_path / "data.mdb").stat().st_size < 2_000_000
    assert views == [memoryview] * 3


# ------------------------------------------------------------------------------------------------- what is refused


async def test_a_second_open_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    cid, data = blocks_of(1, 100)[0]
    async with LmdbBlockstore(tmp_path) as store:
        await store.put(cid, data)
        with pytest.raises(StorageError, match=f"in use by process {os.getpid()}") as caught:
            async with LmdbBlockstore(tmp_path):
                pass
        assert caught.value.errno == errno.EWOULDBLOCK
        assert caught.value.path == str(tmp_path)
        assert await store.get(cid) == data
        with pytest.raises(LocalProtocolError):
            await store.open()
    async with LmdbBlockstore(tmp_path) as store:
        assert await store.get(cid) == data


@pytest.mark.slow
async def test_a_store_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    hold = (
        "import sys, pathlib; from aiolibp2p.blocks.lock import DirectoryLock\n"
        "lock = DirectoryLock(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", hold, str(tmp_path), stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"held\n"
        with pytest.raises(StorageError, match=f"in use by process {process.pid}"):
            await LmdbBlockstore(tmp_path).open()
    finally:
        process.kill()
        await process.wait()
    async with LmdbBlockstore(tmp_path) as store:
        assert await store.get_many([blocks_of(1, 1)[0][0]]) == [None]


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("version", "aiolibp2p blocks 2 (lmdb 1.0)\n", "blocks 2"),
        ("version", "\x00\xff", "holds"),
        ("data.mdb", "anything", "no file `version`"),
    ],
)
async def test_a_directory_that_holds_something_else_is_refused(
    tmp_path: Path, name: str, text: str, what: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(StorageError, match=what) as caught:
        await LmdbBlockstore(tmp_path).open()
    assert caught.value.path == str(tmp_path)
    assert (tmp_path / name).read_text() == text


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "version").write_text(FORMAT)
    (tmp_path / "data.mdb").write_bytes(b"damaged" * 5000)
    for _ in range(2):
        with pytest.raises(StorageError, match="LMDB"):
            await LmdbBlockstore(tmp_path).open()


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file") as caught:
        await LmdbBlockstore(tmp_path / "file" / "store").open()
    assert caught.value.errno == errno.ENOTDIR


async def test_a_multihash_longer_than_a_key_is_not_kept_and_not_found(tmp_path: Path) -> None:
    fits = Cid.from_digest(bytes(KEY_BYTES_MAX - 4), hash_code=0x300000 >> 14)
    too_long = Cid.from_digest(bytes(KEY_BYTES_MAX), hash_code=0x1E)
    async with LmdbBlockstore(tmp_path) as store:
        with pytest.raises(InvalidValueError, match="too long"):
            await store.put_many([(fits, b"x"), (too_long, b"y")])
        assert await store.get_many([fits, too_long]) == [None, None]
        await store.put(fits, b"x")
        await store.delete(too_long)
        assert await store.get_many([fits, too_long]) == [b"x", None]
        assert [cid async for cid in store.cids()] == [fits]


async def test_a_store_that_is_not_open_says_so(tmp_path: Path) -> None:
    cid, data = blocks_of(1, 10)[0]
    store = LmdbBlockstore(tmp_path)
    await store.close()
    for _ in range(2):
        with pytest.raises(LocalProtocolError):
            await store.get(cid)
        with pytest.raises(LocalProtocolError):
            await store.put(cid, data)
        with pytest.raises(LocalProtocolError):
            await store.sizes([cid])
        with pytest.raises(LocalProtocolError):
            await anext(store.cids())
        async with store:
            await store.put(cid, data)
            assert await store.get(cid) == data


# ---------------------------------------------------------------------------------------------- a disk that refuses


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is of POSIX")
@pytest.mark.parametrize(("free_bytes", "number"), [(1000, errno.ENOSPC), (1 << 40, errno.EIO)])
async def test_a_disk_that_takes_no_more_is_an_error_that_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, number: int
) -> None:
    import resource

    kept, too_much, later = blocks_of(20, 50_000), blocks_of(200, 50_000, salt=1), blocks_of(20, 50_000, salt=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with LmdbBlockstore(tmp_path) as store:
        await store.put_many(kept)
        # A file that may not grow takes a part of a write, as a disk does that is nearly full.
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free_bytes))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, hard))
        try:
            with pytest.raises(StorageError) as caught:
                await store.put_many(too_much)
            assert caught.value.errno == number
            assert caught.value.stage == "write"
            assert caught.value.path == str(tmp_path)
            assert await store.sizes([cid for cid, _ in too_much]) == [None] * len(too_much)
            assert await store.get_many([cid for cid, _ in kept]) == [data for _, data in kept]
            # Of several at once, those that fit are kept, and the others told.
            results = await asyncio.gather(
                store.put_many(too_much), store.put_many(later), store.put_many(too_much), return_exceptions=True
            )
            assert [type(result) for result in results] == [StorageError, type(None), StorageError]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await store.put_many(too_much)
    async with LmdbBlockstore(tmp_path) as store:
        for cid, data in (*kept, *later, *too_much):
            assert await store.get(cid) == data


async def test_an_error_that_makes_lmdb_unusable_ends_one_call(tmp_path: Path) -> None:
    first, second = blocks_of(2, 1000)
    async with LmdbBlockstore(tmp_path) as store:
        await store.put(*first)
        assert store._map._env is not None
        store._map._env.close()
        with pytest.raises(StorageError, match="LMDB"):
            await store.get(first[0])
        with pytest.raises(StorageError, match="LMDB"):
            await store.put(*second)
        await store.put(*second)
        assert await store.get_many([first[0], second[0]]) == [first[1], second[1]]


# ----------------------------------------------------------------------------------------------- a disk that hangs


async def test_a_key_whose_read_hangs_is_refused_until_it_returns_and_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts = Timeouts()
    blocks = blocks_of(10, 1000)
    hung, others = blocks[0], blocks[1:]
    async with LmdbBlockstore(tmp_path, timeouts=timeouts) as store:
        await store.put_many(blocks)
        hanging = Hanging(monkeypatch, hung[0].multihash)
        with deadline(timeouts, SHORT), pytest.raises(DeadlineError) as caught:
            await store.get(hung[0])
        assert caught.value.deadline == "storage"
        for _ in range(100):
            with pytest.raises(DeadlineError):
                await store.get(hung[0])
            with pytest.raises(DeadlineError):
                await store.get_many([cid for cid, _ in blocks])
        assert hanging.calls == 1
        assert store._threads is not None
        assert store._threads.hanging == 1
        assert await store.get_many([cid for cid, _ in others]) == [data for _, data in others]
        await store.put_many(blocks_of(3, 1000, salt=1))
        hanging.let_go()
        await returned(store)
        assert await store.get(hung[0]) == hung[1]


async def test_what_is_asked_behind_a_key_that_hangs_is_read_by_another_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts = Timeouts()
    blocks = blocks_of(5, 1000)
    async with LmdbBlockstore(tmp_path, timeouts=timeouts) as store:
        await store.put_many(blocks)
        hanging = Hanging(monkeypatch, blocks[2][0].multihash)
        with deadline(timeouts, SHORT):
            asking = asyncio.gather(store.get_many([cid for cid, _ in blocks]), return_exceptions=True)
            await asyncio.sleep(0)
        # These join the call that hangs, and have their own ten seconds.
        joined = await asyncio.gather(*(store.get(cid) for cid, _ in blocks), return_exceptions=True)
        assert [type(one) for one in await asking] == [DeadlineError]
        assert [one if isinstance(one, bytes) else type(one) for one in joined] == [
            DeadlineError if n == 2 else data for n, (_, data) in enumerate(blocks)
        ]
        assert hanging.calls == 1
        hanging.let_go()
        await returned(store)


async def test_keys_that_hang_cost_a_thread_each_up_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts = Timeouts()
    blocks = blocks_of(8, 100)
    limits = Limits(storage_threads=2, storage_threads_max=4)
    async with LmdbBlockstore(tmp_path, timeouts=timeouts, limits=limits) as store:
        await store.put_many(blocks)
        gate = threading.Event()

        def value(transaction: lmdb.Transaction[bytes], key: bytes) -> bytes | None:
            if key != blocks[7][0].multihash:
                gate.wait()
            return transaction.get(key)

        monkeypatch.setattr(LmdbMap, "_value", staticmethod(value))
        threads = store._threads
        assert threads is not None
        with deadline(timeouts, SHORT):
            for n, (cid, _) in enumerate(blocks[:3]):
                with pytest.raises(DeadlineError):
                    await store.get(cid)
                assert threads.hanging == n + 1
        # One of four is left, and it works.
        assert await store.get(blocks[7][0]) == blocks[7][1]
        with deadline(timeouts, SHORT):
            with pytest.raises(DeadlineError):
                await store.get(blocks[3][0])
            # All four hang: what never began is not refused, only late.
            with pytest.raises(DeadlineError):
                await store.get(blocks[7][0])
            assert threads.hanging == threads.alive == 4
        gate.set()
        await returned(store)
        assert await store.get_many([cid for cid, _ in blocks]) == [data for _, data in blocks]
        assert threads.alive <= 4


async def test_a_put_that_hangs_is_refused_until_it_returns_and_reads_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts = Timeouts()
    hung, waiting, kept = blocks_of(3, 1000)
    async with LmdbBlockstore(tmp_path, timeouts=timeouts) as store:
        await store.put(*kept)
        hanging = Hanging(monkeypatch, hung[0].multihash)
        with deadline(timeouts, SHORT):
            results = await asyncio.gather(store.put(*hung), store.put(*waiting), return_exceptions=True)
        assert [type(result) for result in results] == [DeadlineError, DeadlineError]
        for _ in range(100):
            with pytest.raises(DeadlineError):
                await store.put(*hung)
            with pytest.raises(DeadlineError):
                await store.delete(hung[0])
        assert hanging.calls == 1
        assert await store.get(kept[0]) == kept[1]
        behind = asyncio.gather(store.put(*waiting))
        hanging.let_go()
        await behind
        await returned(store)
        assert await store.get_many([hung[0], waiting[0]]) == [hung[1], waiting[1]]


async def test_of_two_readers_of_a_block_one_that_leaves_does_not_stop_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cid, data = blocks_of(1, 1000)[0]
    async with LmdbBlockstore(tmp_path) as store:
        await store.put(cid, data)
        hanging = Hanging(monkeypatch, cid.multihash)
        loop = asyncio.get_running_loop()
        first = loop.create_task(store.get(cid), name="first reader")
        second = loop.create_task(store.get(cid), name="second reader")
        await until(lambda: hanging.calls > 0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        hanging.let_go()
        assert await second == data
        assert hanging.calls == 1


async def test_close_gives_up_what_waits_and_completes_what_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, waiting = blocks_of(2, 1000)
    store = LmdbBlockstore(tmp_path)
    await store.open()
    hanging = Hanging(monkeypatch, begun[0].multihash)
    puts = asyncio.gather(store.put(*begun), store.put(*waiting), return_exceptions=True)
    await until(lambda: hanging.calls > 0)
    closing = asyncio.get_running_loop().create_task(store.close(), name="close")
    await asyncio.sleep(0)
    hanging.let_go()
    await closing
    assert [type(result) for result in await puts] == [type(None), LocalProtocolError]
    async with LmdbBlockstore(tmp_path) as store:
        assert await store.get_many([begun[0], waiting[0]]) == [begun[1], None]


async def test_close_does_not_wait_for_a_call_that_hangs_and_lets_go_when_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts = Timeouts()
    cid, data = blocks_of(1, 1000)[0]
    store = LmdbBlockstore(tmp_path, timeouts=timeouts)
    await store.open()
    await store.put(cid, data)
    hanging = Hanging(monkeypatch, cid.multihash)
    with deadline(timeouts, SHORT):
        with pytest.raises(DeadlineError):
            await store.get(cid)
        with pytest.raises(DeadlineError) as caught:
            await store.close()
    assert caught.value.stage == "close"
    with pytest.raises(StorageError, match="in use"):
        await LmdbBlockstore(tmp_path).open()
    hanging.let_go()
    await until(lambda: store._map._lock is None)
    async with LmdbBlockstore(tmp_path) as store:
        assert await store.get(cid) == data


# ------------------------------------------------------------------------------------------------------- how much


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon in /proc/self/status")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="anonymous memory is told apart in /proc of Linux")
async def test_200_megabytes_are_read_in_little_memory(tmp_path: Path) -> None:
    size_bytes = 256 << 10
    cids: list[Cid] = []
    async with LmdbBlockstore(tmp_path) as store:
        for batch in range(50):
            blocks = blocks_of(16, size_bytes, salt=batch)
            cids += [cid for cid, _ in blocks]
            await store.put_many(blocks)
        del blocks
        before = anonymous_bytes()
        most = total = 0
        async for data in store.fetch(cids):
            total += len(data)
            if total % (8 << 20) == 0:
                most = max(most, anonymous_bytes())
        assert total == 800 * size_bytes
        # Two windows of what is read ahead, and what the allocator keeps of earlier ones.
        assert most - before < 8 * Limits().storage_ahead_bytes
