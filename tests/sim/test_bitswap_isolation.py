"""Peers that want blocks and do not take them: an honest peer is served as if they were not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache

import pytest

from aiolibp2p import Limits, Timeouts
from aiolibp2p.sansio.bitswap.message import PROTOCOL
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import DATA, SYN
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.bitswap import Block, Node, blocks, node, scripted, settled, wants
from tests.support.hosts import raw_peer
from tests.support.raw import Frame, RawLink
from tests.support.scripts import initiating

HUNGRY = 16
EACH = 4
HUNGRY_BYTES = 256 << 10
NS = 1_000_000_000


@lru_cache(maxsize=1)
def food() -> tuple[list[Block], list[Block]]:
    """Return what the hungry want and what the honest one wants."""
    return blocks(HUNGRY * EACH, HUNGRY_BYTES, "hungry"), blocks(400, 32 << 10, "honest")


def negotiate_only(link: RawLink) -> None:
    """Answer every Bitswap stream's proposal, and read nothing behind it."""

    def on_frame(frame: Frame) -> None:
        if frame.kind == DATA and frame.body.startswith(proposal(PROTOCOL)):
            link.answer(frame.stream_id, PROTOCOL)

    link.on_frame = on_frame


@asynccontextmanager
async def hungry_links(server: Node, kind: str) -> AsyncIterator[list[RawLink]]:
    """Connect peers that each want four large blocks and take nothing."""
    async with AsyncExitStack() as stack:
        links = []
        for number in range(HUNGRY if kind else 0):
            peer = await stack.enter_async_context(raw_peer(initiating(), name=f"hungry {number}, {kind}"))
            link = await peer.dial(server.address)
            link.reads = False
            if kind == "never read":
                negotiate_only(link)
            cids = [cid for cid, _ in food()[0][number * EACH : number * EACH + EACH]]
            link.send_data(3, proposal(PROTOCOL) + wants(*cids), SYN)
            links.append(link)
        yield links


async def honest_seconds(kind: str) -> float:
    """Return how long an honest peer's fetch takes beside hungry ones of this kind."""
    many, wanted = food()
    async with node(f"server, {kind}", [*many, *wanted]) as server, hungry_links(server, kind) as links:
        await settled(1)
        engine = server.bitswap.server.engine
        began_bytes = engine.spent.read_bytes
        async with node(f"honest, {kind}") as honest, honest.bitswap.session([server.address]) as session:
            start = current_loop().time_ns()
            assert sorted([pair async for pair in session.get_many([cid for cid, _ in wanted])]) == sorted(wanted)
            took = current_loop().time_ns() - start
        if kind:
            assert len(links) == HUNGRY
            # What was read for the hungry, at the start and again after back-offs, is bounded.
            fair = sum(len(data) for _, data in wanted)
            assert engine.spent.read_bytes - began_bytes <= fair * 1.1 + HUNGRY * HUNGRY_BYTES * 2
            assert engine.loaded_bytes == 0
            assert engine.stalled_bytes <= HUNGRY * 2 * (HUNGRY_BYTES + 100)
    return took / NS


async def test_an_honest_peer_is_served_as_fast_beside_16_that_take_nothing() -> None:
    """T2: four large blocks are wanted by each."""
    current_net().set_link(Link(latency=0.01, bandwidth=20e6))
    seconds = [await honest_seconds(kind) for kind in ("", "never answer", "never read")]
    assert seconds[0] > 5
    assert seconds[1] == pytest.approx(seconds[0], rel=0.001)
    assert seconds[2] == pytest.approx(seconds[0], rel=0.001)


@pytest.mark.parametrize("kind", ["never answer", "never read"])
async def test_a_stalled_peer_is_reset_tried_again_once_after_its_back_off_and_then_given_up(kind: str) -> None:
    """T2: its stream ends with a reset, and its connection stays."""
    many, _ = food()
    async with node("server", many) as server, hungry_links(server, kind) as links:
        await settled()
        spent = server.bitswap.server.engine.spent
        await settled(40 * Timeouts().bitswap_stall)
        # Each first try, and the one that gives back what was not taken; not a third for the same answers.
        assert HUNGRY <= spent.stalls <= 2 * HUNGRY * EACH
        assert spent.read_bytes <= HUNGRY * 2 * EACH * (HUNGRY_BYTES + 100)
        assert server.bitswap.server.engine.stalled_bytes <= Limits().bitswap_stalled_bytes
        assert all(link.ended_ns is None for link in links)


async def test_what_is_held_for_stalled_peers_is_bounded_and_the_oldest_is_given_up() -> None:
    """T2: whatever the number of peers."""
    limits = Limits(bitswap_stalled_bytes=8 * (HUNGRY_BYTES + 100))
    many, _ = food()
    async with node("server", many, limits=limits) as server, hungry_links(server, "never answer"):
        await settled(1)
        engine = server.bitswap.server.engine
        assert engine.stalled_bytes <= limits.bitswap_stalled_bytes
        assert server.host.refusals["bitswap_stalled_bytes"] >= HUNGRY // 2 - 1


async def test_a_peer_that_reads_slowly_gets_everything() -> None:
    """T3: 200 kbit/s, 200 ms away."""
    many = blocks(20, 64 << 10)
    async with node("server", many) as server:
        current_net().set_link(Link(latency=0.2, bandwidth=200e3))
        async with node("slow") as slow, slow.bitswap.session([server.address]) as session:
            assert sorted([pair async for pair in session.get_many([cid for cid, _ in many])]) == sorted(many)
        assert server.bitswap.server.engine.spent.stalls == 0


async def test_a_peer_that_resets_every_answer_gets_each_at_most_twice() -> None:
    many = blocks(10, 4 << 10)
    async with node("server", many) as server, scripted("peer") as peer:
        peer.host.unhandle(PROTOCOL)
        opened = []

        def refuse(stream: object) -> None:
            opened.append(stream)
            stream.reset()  # type: ignore[attr-defined]

        peer.host.serve(PROTOCOL, refuse)
        await peer.host.connect(server.address)
        await settled()
        peer.say(server.peer_id, wants(*(cid for cid, _ in many)))
        await settled(100)
        assert len(opened) <= 4
        assert server.bitswap.server.engine.spent.read_bytes <= 2 * 10 * ((4 << 10) + 100)


async def test_two_honest_peers_fetch_at_the_same_time() -> None:
    many = blocks(100, 32 << 10)
    current_net().set_link(Link(latency=0.01, bandwidth=20e6))
    async with node("server", many) as server, node("one") as one, node("other") as other:

        async def fetch(client: Node) -> list[Block]:
            async with client.bitswap.session([server.address]) as session:
                return [pair async for pair in session.get_many([cid for cid, _ in many])]

        for got in await asyncio.gather(fetch(one), fetch(other)):
            assert sorted(got) == sorted(many)
