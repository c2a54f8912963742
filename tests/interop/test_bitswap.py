"""Helia and boxo fetch blocks and files from us, and we from them."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aiolibp2p import Host
from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks import Cid, MemoryBlockstore
from aiolibp2p.errors import BlockNotFoundError, Libp2pError
from aiolibp2p.net.events import HandlerFailed
from aiolibp2p.unixfs import add, cat
from tests.interop.peers import Dialer, Listener, Peers, Stack

MIB = 1 << 20
LOCAL = ["/ip4/127.0.0.1/tcp/0"]
SIZES = [0, 1, 1024, 1025, 2 * MIB]
FILE_BYTES = 20_000_000
PIECE_BYTES = MIB


def content(seed: str, size: int) -> bytes:
    """Return the bytes that the peer programs make from a seed: SHAKE128 of "SEED/0", "SEED/1", …, a MiB of each."""
    pieces = []
    for number, at in enumerate(range(0, size, PIECE_BYTES)):
        pieces.append(hashlib.shake_128(f"{seed}/{number}".encode()).digest(min(PIECE_BYTES, size - at)))
    return b"".join(pieces)


def numbered(seed: str, n: int, size: int) -> list[tuple[Cid, bytes]]:
    """Return the blocks that the peer programs number."""
    made = [content(f"{seed}/block/{number}", size) for number in range(n)]
    return [(Cid.from_data(data), data) for data in made]


@asynccontextmanager
async def node(*has: tuple[Cid, bytes]) -> AsyncIterator[tuple[str, Bitswap, MemoryBlockstore]]:
    """Give the address, the Bitswap and the store of a node of ours; nothing may have failed inside it."""
    store = MemoryBlockstore(has)
    async with Host(listen=LOCAL) as host:
        events = host.events()
        async with Bitswap(host, store) as bitswap:
            yield str(host.addresses[0]), bitswap, store
    failed = [event async for event in events if isinstance(event, HandlerFailed)]
    assert [event for event in failed if not isinstance(event.error, Libp2pError)] == []


async def told(listener: Listener, *words: object) -> dict[str, Any]:
    """Let a listener add to its store."""
    listener.send([str(word) for word in words])
    async with asyncio.timeout(50):
        answer = await asyncio.wrap_future(listener.next_line())
    assert "error" not in answer
    return answer


@pytest.fixture
def server(peers: Peers, stack: Stack) -> Listener:
    return peers.listener(stack, "listen", "-bitswap" if stack == "go" else "--bitswap")


# -- they fetch ------------------------------------------------------------------------------------------------------


async def test_they_fetch_single_blocks(dialer: Dialer) -> None:
    blocks = [(Cid.from_data(data), data) for data in (content("ours", size) for size in SIZES)]
    async with node(*blocks) as (address, _, _):
        answer = await dialer.run("fetch", address, *(cid for cid, _ in blocks))
    assert [(one["cid"], one["bytes"], one["sha256"]) for one in answer["fetched"]] == [
        (str(cid), len(data), hashlib.sha256(data).hexdigest()) for cid, data in blocks
    ]


async def test_they_fetch_many_blocks(dialer: Dialer) -> None:
    async with node(*numbered("many of ours", 400, 16384)) as (address, _, _):
        answer = await dialer.run("blocks", address, "many of ours", 400, 16384)
    assert answer["ok"]


async def test_they_fetch_a_file(dialer: Dialer) -> None:
    data = content("our file", FILE_BYTES)
    async with node() as (address, _, store):
        cid = await add(store, io.BytesIO(data))
        answer = await dialer.run("get", address, cid, "-")
    assert (answer["bytes"], answer["sha256"]) == (FILE_BYTES, hashlib.sha256(data).hexdigest())


# -- we fetch --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", ["js", pytest.param("go", marks=pytest.mark.go)])
async def test_we_fetch_single_blocks(server: Listener) -> None:
    await told(server, "block", "theirs", *SIZES)
    async with node() as (_, bitswap, store), bitswap.session([server.addr]) as session:
        for size in SIZES:
            data = content("theirs", size)
            assert await session.get(Cid.from_data(data)) == data
        assert len(store) == len(SIZES)


@pytest.mark.parametrize("stack", ["js", pytest.param("go", marks=pytest.mark.go)])
async def test_we_fetch_many_blocks(server: Listener) -> None:
    await told(server, "blocks", "many", 400, 16384)
    wanted = numbered("many", 400, 16384)
    async with node() as (_, bitswap, _), bitswap.session([server.addr]) as session:
        assert [pair async for pair in session.get_many([cid for cid, _ in wanted])] == wanted


@pytest.mark.parametrize("stack", ["js", pytest.param("go", marks=pytest.mark.go)])
async def test_we_fetch_a_file(server: Listener) -> None:
    answer = await told(server, "generate", "their file", FILE_BYTES)
    async with node() as (_, bitswap, _), bitswap.session([server.addr]) as session:
        digest = hashlib.sha256()
        async for part in cat(session, Cid.parse(answer["cid"])):
            digest.update(part)
    assert digest.hexdigest() == hashlib.sha256(content("their file", FILE_BYTES)).hexdigest()


@pytest.mark.parametrize("stack", ["js", pytest.param("go", marks=pytest.mark.go)])
async def test_what_they_lack_is_not_found(server: Listener) -> None:
    async with node() as (_, bitswap, _):
        with pytest.raises(BlockNotFoundError):
            await bitswap.get(Cid.from_data(b"nobody has this"), [server.addr])


@pytest.mark.go
async def test_we_fetch_from_both_at_once(peers: Peers) -> None:
    wanted = numbered("both", 200, 65536)
    servers = [peers.listener("js", "listen", "--bitswap"), peers.listener("go", "listen", "-bitswap")]
    for server in servers:
        await told(server, "blocks", "both", 200, 65536)
    async with node() as (_, bitswap, _), bitswap.session([server.addr for server in servers]) as session:
        assert [pair async for pair in session.get_many([cid for cid, _ in wanted])] == wanted
