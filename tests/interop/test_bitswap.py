"""Helia and boxo fetch blocks from us, and we from them."""

from __future__ import annotations

import hashlib

import pytest

from aiolibp2p import Timeouts
from aiolibp2p.blocks import Cid
from aiolibp2p.errors import BlockNotFoundError
from aiolibp2p.sansio.bitswap.message import Payload, Presence
from tests.interop.peers import Dialer, Listener, Peers, Stack
from tests.support.cells import answered_on_the_wire, local_node, numbered, server_of, single, told

MIB = 1 << 20
SIZES = [0, 1, 1024, 1025, 2 * MIB]
"""Bytes of single blocks; boxo answers a want-have by the block itself up to 1,024, and no block is over 2 MiB."""

EMPTY = Cid.from_data(b"")


@pytest.fixture
def server(peers: Peers, stack: Stack) -> Listener:
    return server_of(peers, stack)


# -- they fetch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
async def test_they_fetch_a_single_block(dialer: Dialer, size: int) -> None:
    cid, data = single("ours", size)
    async with local_node((cid, data)) as node:
        answer = await dialer.run("fetch", node.address, cid)
    assert answer["fetched"] == [{"cid": str(cid), "bytes": size, "sha256": hashlib.sha256(data).hexdigest()}]


async def test_they_fetch_blocks_of_all_sizes_in_one_session(dialer: Dialer) -> None:
    blocks = [single("ours", size) for size in SIZES]
    async with local_node(*blocks) as node:
        answer = await dialer.run("fetch", node.address, *(cid for cid, _ in blocks))
    assert [(one["cid"], one["bytes"], one["sha256"]) for one in answer["fetched"]] == [
        (str(cid), len(data), hashlib.sha256(data).hexdigest()) for cid, data in blocks
    ]


@pytest.mark.conforms("B2")
async def test_they_fetch_many_blocks(dialer: Dialer) -> None:
    async with local_node(*numbered("many of ours", 400, 16384)) as node:
        answer = await dialer.run("blocks", node.address, "many of ours", 400, 16384)
    assert answer["ok"]


# -- we fetch --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
async def test_we_fetch_a_single_block(server: Listener, size: int) -> None:
    # That of 0 bytes our client knows without asking: see the tests of the empty block.
    cid, data = single("theirs", size)
    answer = await told(server, "block", "theirs", size)
    assert answer["cids"] == {str(size): str(cid)}
    async with local_node() as node:
        assert await node.bitswap.get(cid, [server.addr]) == data
        assert await node.store.get(cid) == data


async def test_we_fetch_blocks_of_all_sizes_in_one_session(server: Listener) -> None:
    wanted = [single("theirs", size) for size in SIZES]
    await told(server, "block", "theirs", *SIZES)
    async with local_node() as node, node.bitswap.session([server.addr]) as session:
        assert sorted([pair async for pair in session.get_many([cid for cid, _ in wanted])]) == sorted(wanted)
        assert await node.store.get_many([cid for cid, _ in wanted]) == [data for _, data in wanted]


@pytest.mark.conforms("B2")
async def test_we_fetch_many_blocks(server: Listener) -> None:
    await told(server, "blocks", "many", 400, 16384)
    wanted = numbered("many", 400, 16384)
    async with local_node() as node, node.bitswap.session([server.addr]) as session:
        assert sorted([pair async for pair in session.get_many([cid for cid, _ in wanted])]) == sorted(wanted)


async def test_we_fetch_a_block_again_that_we_have_forgotten(server: Listener) -> None:
    # Helia answers no second want for what it has sent, for as long as the connection lives, unless it was cancelled.
    cid, data = single("forgotten", 20_000)
    await told(server, "block", "forgotten", 20_000)
    async with local_node(timeouts=Timeouts(bitswap_repair=2.0, bitswap_fetch=10.0)) as node:
        for _ in range(3):
            assert await node.bitswap.get(cid, [server.addr]) == data
            await node.store.delete(cid)


async def test_what_they_lack_is_not_found(server: Listener) -> None:
    async with local_node() as node:
        with pytest.raises(BlockNotFoundError):
            await node.bitswap.get(Cid.from_data(b"nobody has this"), [server.addr])


@pytest.mark.go
async def test_we_fetch_from_both_at_once(peers: Peers) -> None:
    wanted = numbered("both", 200, 65536)
    servers = [server_of(peers, "js"), server_of(peers, "go")]
    for server in servers:
        await told(server, "blocks", "both", 200, 65536)
    async with local_node() as node, node.bitswap.session([server.addr for server in servers]) as session:
        assert sorted([pair async for pair in session.get_many([cid for cid, _ in wanted])]) == sorted(wanted)


# -- the empty block -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", ["js"])
async def test_helia_sends_the_empty_block(server: Listener) -> None:
    await told(server, "block", "empty", 0)
    assert (await answered_on_the_wire(server.addr, EMPTY)).payloads == [Payload(EMPTY.prefix, b"")]


@pytest.mark.parametrize("stack", [pytest.param("go", marks=pytest.mark.go)])
async def test_boxo_denies_the_empty_block_that_it_has_and_our_client_has_it_all_the_same(server: Listener) -> None:
    # boxo v0.43.0 takes a size of 0 for a block that is missing. The empty block is known from its CID alone.
    await told(server, "block", "empty", 0)
    denied = await answered_on_the_wire(server.addr, EMPTY)
    assert (denied.payloads, denied.presences) == ([], [Presence(bytes(EMPTY), have=False)])
    async with local_node() as node:
        assert await node.bitswap.get(EMPTY, [server.addr]) == b""
