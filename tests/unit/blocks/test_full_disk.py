"""A store on a disk without room: what could not be made is made later, and nobody else's room is kept."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aiolibp2p.blocks import Cid, LmdbBlockstore
from aiolibp2p.errors import StorageError

pytestmark = [
    pytest.mark.sockets,
    pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is of POSIX"),
]


@contextmanager
def files_of_at_most(limit_bytes: int) -> Iterator[None]:
    """Let no file grow beyond this: a part of a write is taken, as by a disk that is nearly full."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def blocks_of(n: int, label: str) -> list[tuple[Cid, bytes]]:
    data = [hashlib.shake_128(f"{label} {number}".encode()).digest(50_000) for number in range(n)]
    return [(Cid.from_data(one), one) for one in data]


@pytest.mark.parametrize("has_lock_file", [False, True], ids=["no lock file", "no data file"])
@pytest.mark.parametrize("limit_bytes", [100, 5000])
async def test_a_store_for_which_there_was_no_room_is_made_when_there_is(
    tmp_path: Path, limit_bytes: int, has_lock_file: bool
) -> None:
    if has_lock_file:
        async with LmdbBlockstore(tmp_path):
            pass
        (tmp_path / "data.mdb").unlink()
    with files_of_at_most(limit_bytes):
        with pytest.raises(StorageError) as caught:
            await LmdbBlockstore(tmp_path).open()
        assert caught.value.path.startswith(str(tmp_path))
        assert caught.value.stage == "open"
    (block,) = blocks_of(1, "a block")
    async with LmdbBlockstore(tmp_path) as store:
        await store.put(*block)
        assert await store.get(block[0]) == block[1]


async def test_the_map_that_is_written_to_has_all_its_bytes_before_it_is_one(tmp_path: Path) -> None:
    async with LmdbBlockstore(tmp_path):
        status = os.stat(tmp_path / "lock.mdb")
        assert status.st_blocks * 512 >= status.st_size > 0


async def test_a_commit_that_fails_keeps_no_room(tmp_path: Path) -> None:
    kept, too_much, later = blocks_of(20, "kept"), blocks_of(200, "too much"), blocks_of(20, "later")
    data = tmp_path / "data.mdb"
    async with LmdbBlockstore(tmp_path) as store:
        await store.put_many(kept)
        before = data.stat().st_size
        with files_of_at_most(4_000_000):
            for _ in range(2):
                with pytest.raises(StorageError):
                    await store.put_many(too_much)
                assert data.stat().st_size <= before
        assert await store.get_many([cid for cid, _ in kept]) == [block for _, block in kept]
        await store.put_many(later)
        await store.put_many(too_much)
    async with LmdbBlockstore(tmp_path) as store:
        for cid, block in (*kept, *too_much, *later):
            assert await store.get(cid) == block
