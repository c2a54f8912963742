"""What a fetch gets of its links in virtual time: far peers, several peers, small blocks, peers that stall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest

from aiolibp2p import Limits
from aiolibp2p.blocks import Cid, MemoryBlockstore
from aiolibp2p.blocks.dag import PbLink, encode_node
from aiolibp2p.sansio.bitswap import session as session_core
from aiolibp2p.sansio.bitswap.received import Cause, Received
from aiolibp2p.sim import Link, Tuning, current_loop, current_net
from aiolibp2p.unixfs import cat
from aiolibp2p.unixfs.node import NodeType, UnixFsNode, encode_unixfs
from tests.support.bitswap import Block, Node, blocks, node, settled

LINK_BITS = 100_000_000
LARGE, SMALL = 256 << 10, 16 << 10
FAR = 0.05
NEAR = 0.005


@lru_cache(maxsize=1)
def file_of(n: int) -> tuple[Cid, list[Block]]:
    """Return a file of so many large leaves: its root, and all its blocks."""
    leaves = blocks(n, LARGE, "leaf")
    unixfs = UnixFsNode(type=NodeType.FILE, file_bytes=n * LARGE, block_bytes=(LARGE,) * n)
    data = encode_node([PbLink(cid, "", LARGE) for cid, _ in leaves], encode_unixfs(unixfs))
    root = Cid.from_data(data, 0x70)
    return root, [(root, data), *leaves]


@dataclass
class Fetched:
    """One fetch: how long, how fast, what came, from whom, and in how many messages it was asked for."""

    seconds: float
    rate: float
    """In links."""
    received: Received
    from_each: list[int]
    messages: int


class Stalling(MemoryBlockstore):
    """A store that takes so long for every so many reads."""

    def __init__(self, has: Sequence[Block], every: int, seconds: float) -> None:
        super().__init__(has)
        self._every = every
        self._seconds = seconds
        self._reads = 0

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        self._reads += 1
        if self._reads % self._every == 0:
            await current_loop().pass_time(self._seconds)
        return await super().get_many(cids)


async def fetched(
    wanted: Cid | Sequence[Cid],
    has: Sequence[Block],
    peers: int = 1,
    *,
    latency: float,
    stores: Sequence[MemoryBlockstore] = (),
    **limits: Any,
) -> Fetched:
    """Fetch a file, or blocks, from so many peers, each behind a link of its own."""
    all_bytes = sum(len(data) for cid, data in has if cid != wanted)
    current_net().set_link(Link(latency=latency, bandwidth=LINK_BITS))
    current_net().tuning = Tuning(send_buffer=4 << 20, receive_buffer=4 << 20)
    async with AsyncExitStack() as stack:
        servers: list[Node] = []
        for number in range(peers):
            store = stores[number] if number < len(stores) else MemoryBlockstore(has)
            servers.append(
                await stack.enter_async_context(node(f"server {number} of {current_loop().time()}", store=store))
            )
        client = await stack.enter_async_context(node(f"client of {current_loop().time()}", limits=Limits(**limits)))
        messages = 0
        for server in servers:
            heard = server.bitswap.server.receive

            def hear(*arguments: Any, heard: Any = heard) -> None:
                nonlocal messages
                messages += 1
                heard(*arguments)

            server.bitswap.server.receive = hear  # type: ignore[method-assign, assignment]
        async with client.bitswap.session([server.address for server in servers]) as session:
            await settled(1)
            began = current_loop().time()
            n_bytes = 0
            chunks = cat(session, wanted) if isinstance(wanted, Cid) else session.fetch(wanted)
            async for chunk in chunks:
                n_bytes += len(chunk)
            seconds = current_loop().time() - began
            assert n_bytes == all_bytes
            return Fetched(
                seconds,
                all_bytes * 8 / LINK_BITS / seconds,
                session.received,
                [server.bitswap.server.engine.spent.written_bytes for server in servers],
                messages,
            )


async def test_a_file_at_100_ms_and_100_mbit_per_second_gets_nine_tenths_of_the_link() -> None:
    root, has = file_of(256)
    far = await fetched(root, has, latency=FAR)
    assert far.rate >= 0.9
    assert far.received.duplicates == 0


# From far away most of what is lacking goes into the first round trips, while windows grow on four connections.
@pytest.mark.parametrize(("latency", "rate"), [(NEAR, 3.5), (FAR, 2.8)])
async def test_a_file_from_four_peers_at_once_keeps_all_busy_and_hardly_anything_comes_twice(
    latency: float, rate: float
) -> None:
    root, has = file_of(256)
    four = await fetched(root, has, 4, latency=latency)
    assert four.rate >= rate
    assert min(four.from_each) >= 0.2 * sum(four.from_each)
    assert four.received.duplicates <= 0.02 * len(has)


@pytest.mark.parametrize("ahead_blocks", [1024, 4096])
async def test_wanting_far_ahead_costs_no_more_messages(ahead_blocks: int) -> None:
    """A window of wants is filled in groups, like one of bytes: the server's answers stay full."""
    many = blocks(3000, SMALL)
    cids = [cid for cid, _ in many]
    usual = await fetched(cids, many, latency=NEAR)
    ahead = await fetched(cids, many, latency=NEAR, bitswap_ahead_blocks=ahead_blocks)
    assert ahead.seconds <= usual.seconds * 1.01
    assert ahead.messages <= usual.messages
    assert ahead.received.duplicates == usual.received.duplicates == 0


async def test_a_peer_that_stalls_now_and_then_holds_up_a_file_less_where_wants_are_hedged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, has = file_of(256)

    async def once() -> Fetched:
        stores = [Stalling(has, every=20, seconds=4.0)]
        return await fetched(root, has, 2, latency=NEAR, stores=stores, bitswap_ahead_bytes=8 << 20)

    hedged = await once()
    monkeypatch.setattr(session_core, "HEDGES", 0)
    monkeypatch.setattr(session_core, "HEDGED_OF", math.inf)
    waited = await once()
    assert hedged.received.hedges > 0
    assert waited.received.hedges == 0
    assert hedged.seconds <= 0.75 * waited.seconds
    for one in (hedged, waited):
        assert one.received.duplicates <= 0.05 * len(has)
        assert one.received.causes[Cause.UNASKED] == 0
