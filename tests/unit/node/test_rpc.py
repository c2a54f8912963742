"""Tests of the RPC of a daemon, and of the store over it."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, FormData

from aiolibp2p import Cid
from aiolibp2p.blocks import Blockstore
from aiolibp2p.blocks.cid import DAG_PB, IDENTITY, SHA2_512
from aiolibp2p.errors import BlockNotFoundError, DeadlineError, InvalidValueError, StorageError
from aiolibp2p.node.access import Access
from aiolibp2p.node.daemon import Node, running_node
from aiolibp2p.node.remote import RemoteBlockstore
from aiolibp2p.node.repo import Repo
from aiolibp2p.node.rpc import BLOCK_BYTES_MAX, Rpc
from tests.support.nodes import TIMEOUTS, serving

BLOCKS = [(Cid.from_data(data), data) for data in (b"", b"a", bytes(300_000))]
MISSING = Cid.from_data(b"nobody has this")

pytestmark = pytest.mark.sockets


async def ask(access: Access, path: str, method: str = "POST", **arguments: Any) -> tuple[int, Any]:
    """Return status and answer of one request, with the token unless headers are given."""
    arguments.setdefault("headers", {"Authorization": f"Bearer {access.token}"})
    async with ClientSession() as session, session.request(method, f"{access.address}{path}", **arguments) as answer:
        is_json = answer.content_type == "application/json"
        return answer.status, await (answer.json() if is_json else answer.read())


# -- who may ask -------------------------------------------------------------------------------------------------------


async def test_only_who_reads_the_repo_finds_the_rpc_and_only_while_it_runs(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, access):
        assert access.pid == os.getpid()
        assert access.address.startswith("http://127.0.0.1:")
        assert len(access.token) == 64
        if os.name == "posix":
            assert stat.S_IMODE((tmp_path / "api").stat().st_mode) == 0o600
    assert not (tmp_path / "api").exists()
    assert Access.read(tmp_path) is None


async def test_an_access_that_a_killed_daemon_left_behind_leads_nowhere(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, access):
        replace(access, pid=access.pid + 1).write(tmp_path)
        assert Access.read(tmp_path) is None
        (tmp_path / "api").write_bytes(b'{"address": 1}')
        assert Access.read(tmp_path) is None


@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer wrong", "Basic {token}", "Bearer {token}x"])
async def test_without_the_token_nothing_is_answered(tmp_path: Path, given: str) -> None:
    async with serving(tmp_path) as (_, access):
        headers = {"Authorization": given.format(token=access.token)}
        status, said = await ask(access, "/api/v0/id", headers=headers)
    assert (status, said["Type"]) == (401, "error")


@pytest.mark.parametrize(
    "foreign",
    [{"Origin": "https://page.example"}, {"Origin": "null"}, {"Host": "page.example:80"}, {"Host": "127.0.0.1"}],
)
async def test_a_web_page_is_refused_even_with_the_token(tmp_path: Path, foreign: dict[str, str]) -> None:
    async with serving(tmp_path) as (_, access):
        headers = {"Authorization": f"Bearer {access.token}", **foreign}
        status, _ = await ask(access, "/api/v0/id", headers=headers)
    assert status == 403


async def test_requests_are_posts_to_paths_that_are_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, access):
        status, said = await ask(access, "/api/v0/id")
        assert (status, said["ID"], said["Addresses"]) == (200, str(node.host.peer_id), [])
        assert (await ask(access, "/api/v0/id", "GET"))[0] == 405
        assert (await ask(access, "/api/v0/nothing"))[0] == 404


# -- blocks ------------------------------------------------------------------------------------------------------------


async def test_blocks_go_in_and_out_and_away(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, access), RemoteBlockstore(tmp_path, access, TIMEOUTS) as store:
        assert isinstance(store, Blockstore)
        await store.put_many(BLOCKS)
        cids = [cid for cid, _ in BLOCKS]
        assert await node.store.get_many(cids) == [data for _, data in BLOCKS]
        assert await store.get_many([*cids, MISSING]) == [*(data for _, data in BLOCKS), None]
        assert await store.sizes([*cids, MISSING]) == [0, 1, 300_000, None]
        assert [data async for data in store.fetch(cids)] == [data for _, data in BLOCKS]
        assert sorted([cid async for cid in store.cids()]) == sorted(cids)
        await store.delete(cids[1])
        assert [await store.has(cid) for cid in cids] == [True, False, True]
        with pytest.raises(BlockNotFoundError) as caught:
            await store.get(cids[1])
        assert caught.value.cid == str(cids[1])


async def test_the_codec_of_a_block_is_kept_by_who_asks(tmp_path: Path) -> None:
    data = b"\x0a\x02\x08\x01"
    async with serving(tmp_path) as (_, access), RemoteBlockstore(tmp_path, access, TIMEOUTS) as store:
        await store.put(Cid.from_data(data, DAG_PB), data)
        assert await store.get(Cid.from_data(data, DAG_PB, version=0)) == data
        form = FormData()
        form.add_field("data", io.BytesIO(data), filename="block")
        _, said = await ask(access, "/api/v0/block/put?cid-codec=dag-pb", data=form)
        assert said == {"Key": str(Cid.from_data(data, DAG_PB)), "Size": 4}


async def test_an_identity_cid_is_never_asked_for(tmp_path: Path) -> None:
    cid = Cid.from_data(b"inline", hash_code=IDENTITY)
    async with RemoteBlockstore(tmp_path, Access("http://127.0.0.1:1", "", 0), TIMEOUTS) as store:
        await store.put(cid, b"inline")
        await store.delete(cid)
        assert (await store.get(cid), await store.sizes([cid])) == (b"inline", [6])


async def test_what_cannot_be_kept_is_refused_and_nothing_of_it_kept(tmp_path: Path) -> None:
    large = bytes(BLOCK_BYTES_MAX + 1)
    async with serving(tmp_path) as (node, access), RemoteBlockstore(tmp_path, access, TIMEOUTS) as store:
        for blocks in (
            [BLOCKS[1], (Cid.from_data(large), large)],
            [BLOCKS[1], (Cid.from_data(b"x", hash_code=SHA2_512), b"x")],
        ):
            with pytest.raises(InvalidValueError):
                await store.put_many(blocks)
        with pytest.raises(InvalidValueError):
            await store.put(MISSING, b"something else")
        assert not await node.store.has(BLOCKS[1][0])
        for path in ("block/put?cid-codec=x", "block/put?mhtype=sha3-512", "block/put", "block/get?arg=x", "block/get"):
            status, said = await ask(access, f"/api/v0/{path}")
            assert (status, said["Code"], said["Type"]) == (400, 0, "error")


async def test_a_daemon_that_is_gone_is_named(tmp_path: Path) -> None:
    async with RemoteBlockstore(tmp_path, Access("http://127.0.0.1:1", "", 77), TIMEOUTS) as store:
        with pytest.raises(StorageError) as caught:
            await store.get(MISSING)
    assert caught.value.path == str(tmp_path)
    assert "process 77" in str(caught.value)


class FailingStore:
    """A store whose calls raise what they are told."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def get(self, _cid: Cid) -> bytes:
        raise self._error


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (DeadlineError("storage", 10.0), DeadlineError),
        (StorageError("x", "no space left on device"), StorageError),
        (InvalidValueError("bad"), InvalidValueError),
    ],
)
async def test_errors_of_the_store_come_through(tmp_path: Path, raised: Exception, seen: type[Exception]) -> None:
    with Repo.open(tmp_path, create=True) as repo:
        async with running_node(repo, []) as node:
            failing = Node(node.host, FailingStore(raised), node.bitswap)  # type: ignore[arg-type]
            async with Rpc(repo, failing, TIMEOUTS):
                access = Access.read(tmp_path)
                assert access is not None
                async with RemoteBlockstore(tmp_path, access, TIMEOUTS) as store:
                    with pytest.raises(seen):
                        await store.get(MISSING)
