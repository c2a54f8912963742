"""Bitswap in the RPC of a daemon: Kubo's fields, and ours beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiolibp2p import Cid, Host, PrivateKey
from aiolibp2p.bitswap import Bitswap, Denylist
from aiolibp2p.blocks import MemoryBlockstore
from aiolibp2p.errors import BlockNotFoundError, InvalidValueError, StorageError
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.node.access import Access
from aiolibp2p.node.bitswap import ask_bitswap
from aiolibp2p.node.daemon import running_node
from aiolibp2p.node.repo import Repo
from aiolibp2p.node.rpc import Rpc
from tests.support.nodes import TIMEOUTS, serving

DATA = bytes(5000)
BLOCK = Cid.from_data(DATA)
LISTEN = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
NOBODY = PrivateKey.generate().public.peer_id

pytestmark = pytest.mark.sockets


async def ask(path: Path, access: Access, call: str, **query: object) -> dict[str, Any]:
    return await ask_bitswap(path, access, TIMEOUTS, call, {name: str(value) for name, value in query.items()})


async def test_stat_ledger_and_wantlist_have_the_fields_of_kubo_and_ours(tmp_path: Path) -> None:
    with Repo.open(tmp_path, create=True) as repo:
        async with (
            running_node(repo, LISTEN) as node,
            Rpc(repo, node, TIMEOUTS),
            Host() as peer,
            Bitswap(peer, MemoryBlockstore()) as bitswap,
        ):
            access = Access.read(tmp_path)
            assert access is not None
            await node.store.put(BLOCK, DATA)
            assert await bitswap.get(BLOCK, [node.host.addresses[0]]) == DATA
            stat = await ask(tmp_path, access, "stat")
            assert stat["Stat"]["serving"]["sent"]["blocks"] == 1
            assert (stat["BlocksSent"], stat["DataSent"], stat["BlocksReceived"]) == (1, len(DATA), 0)
            assert (stat["Peers"], stat["Wantlist"]) == ([str(peer.peer_id)], [])
            assert stat["MessagesReceived"] >= 1
            ledger = await ask(tmp_path, access, "ledger", arg=peer.peer_id)
            assert (ledger["Peer"], ledger["Sent"], ledger["Recv"]) == (str(peer.peer_id), len(DATA), 0)
            assert (ledger["Value"], ledger["Ledger"]["sent"]["blocks"]) == (len(DATA), 1)
            assert ledger["Exchanged"] >= 2
            assert await ask(tmp_path, access, "wantlist") == {"Keys": []}
            assert await ask(tmp_path, access, "wantlist", peer=peer.peer_id) == {"Keys": []}


async def test_a_peer_id_that_is_none_is_said_and_one_that_is_not_connected_has_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, access):
        for call, query in (("ledger", {"arg": "x"}), ("ledger", {}), ("wantlist", {"peer": "x"})):
            with pytest.raises(InvalidValueError):
                await ask(tmp_path, access, call, **query)
        assert (await ask(tmp_path, access, "ledger", arg=NOBODY))["Exchanged"] == 0
        assert await ask(tmp_path, access, "wantlist", peer=NOBODY) == {"Keys": []}


async def test_a_daemon_that_is_gone_or_knows_no_such_call_is_an_error_of_storage(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, access):
        with pytest.raises(StorageError):
            await ask(tmp_path, access, "nothing")
    with pytest.raises(StorageError) as caught:
        await ask(tmp_path, access, "stat")
    assert caught.value.stage == "daemon"


async def test_a_node_denies_what_it_is_told_to_deny(tmp_path: Path) -> None:
    with Repo.open(tmp_path, create=True) as repo:
        async with (
            running_node(repo, LISTEN, denied=Denylist([BLOCK])) as node,
            Host() as peer,
            Bitswap(peer, MemoryBlockstore()) as bitswap,
        ):
            await node.store.put(BLOCK, DATA)
            with pytest.raises(BlockNotFoundError):
                await bitswap.get(BLOCK, [node.host.addresses[0]])
