"""Many that want much, one that is slow, one that has just come: what each of them gets, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from aiolibp2p import Limits
from aiolibp2p.blocks import Cid, MemoryBlockstore
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.bitswap import Block, Node, block, blocks, node, scripted, settled, wants

CROWD = 50
EACH_WANTS = 1000
BYTES_PER_SECOND = 1_000_000


class DiskStore(MemoryBlockstore):
    """Reads one block after the other, at a rate that all who are served share."""

    def __init__(self, has: Sequence[Block]) -> None:
        super().__init__(has)
        self.busy_until = 0.0

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        found = await super().get_many(cids)
        loop = current_loop()
        seconds = sum(len(data or b"") for data in found) / BYTES_PER_SECOND
        self.busy_until = max(self.busy_until, loop.time()) + seconds
        await loop.pass_time(self.busy_until - loop.time())
        return found


@pytest.mark.slow
async def test_a_newcomer_with_one_want_is_answered_within_one_round_of_fifty_with_a_thousand_each() -> None:
    """T15: the disk is what they share, and far behind; a round is one batch of each."""
    batch_bytes = 16 << 10
    limits = Limits(bitswap_batch_bytes=batch_bytes, bitswap_loaded_bytes=4 * batch_bytes)
    many = blocks(EACH_WANTS, 1000)
    cid, data = block("what the newcomer wants")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(node("server", store=DiskStore([*many, (cid, data)]), limits=limits))
        crowd = [await stack.enter_async_context(scripted(f"peer {number}")) for number in range(CROWD)]
        newcomer = await stack.enter_async_context(scripted("newcomer"))
        for peer in (*crowd, newcomer):
            await peer.host.connect(server.address)
        await settled(1)
        for peer in crowd:
            peer.say(server.peer_id, wants(*(wanted for wanted, _ in many)))
        round_seconds = CROWD * batch_bytes / BYTES_PER_SECOND
        ahead_seconds = (limits.bitswap_loaded_bytes + batch_bytes) / BYTES_PER_SECOND
        await settled(5 * round_seconds)
        assert min(len(peer.heard.blocks) for peer in crowd) > 0
        assert max(len(peer.heard.blocks) for peer in crowd) < EACH_WANTS
        before = sum(len(peer.heard.blocks) for peer in crowd)
        newcomer.say(server.peer_id, wants(cid))
        started = current_loop().time()
        # What is being loaded when it comes is loaded before its turn.
        while not newcomer.heard.blocks:
            await settled(0.01)
        assert newcomer.heard.blocks == [data]
        assert current_loop().time() - started <= round_seconds + ahead_seconds + 0.01
        assert sum(len(peer.heard.blocks) for peer in crowd) - before <= (CROWD + 5) * batch_bytes // 1000


async def seconds_to_fetch(clients: Sequence[Node], address: str, wanted: Sequence[Block]) -> float:
    """Return how long it takes until all have everything."""

    async def fetch(client: Node) -> None:
        async with client.bitswap.session([address]) as session:
            assert dict([pair async for pair in session.get_many([cid for cid, _ in wanted])]) == dict(wanted)

    started = current_loop().time()
    await asyncio.gather(*(fetch(client) for client in clients))
    return current_loop().time() - started


@pytest.mark.slow
@pytest.mark.parametrize("size", [1 << 20, 2 << 20])
async def test_one_slow_peer_with_large_blocks_leaves_the_others_all_they_had(size: int) -> None:
    """T16: a line of 256 kbit/s, and blocks of 1 and 2 MiB, each of which is longer than its turn."""
    wanted, large = blocks(60, 128 << 10, "wanted"), blocks(12, size, "large")
    net = current_net()
    net.set_link(Link(latency=0.01, bandwidth=20e6))
    took = {}
    for slow in (False, True):
        async with AsyncExitStack() as stack:
            named = f"{slow}"
            server = await stack.enter_async_context(node(f"server {named}", [*wanted, *large]))
            clients = [await stack.enter_async_context(node(f"client {n} {named}")) for n in range(3)]
            capped = await stack.enter_async_context(node(f"slow {named}"))
            machines = {machine.name: machine for machine in net.hosts}
            net.set_link(Link(latency=0.01, bandwidth=256e3), machines[f"server {named}"], machines[f"slow {named}"])
            if slow:
                slowly = current_loop().create_task(seconds_to_fetch([capped], server.address, large))
                await settled(10)
            took[slow] = await seconds_to_fetch(clients, server.address, wanted)
            if slow:
                assert not slowly.done()
                assert server.bitswap.server.engine.spent.stalls == 0
                # It goes on being served, at what its line carries.
                assert await slowly == pytest.approx(len(large) * size * 8 / 256e3, rel=0.1)
    assert took[False] >= took[True] * 0.99


async def test_a_receiver_limited_to_eight_streams_gets_everything_and_resets_none() -> None:
    """T17: answers go over one stream, however many messages they are."""
    many = blocks(200, 16 << 10)
    limits = Limits(streams_per_connection=8, streams_per_peer=8)
    async with node("server", many) as server, node("client", limits=limits) as client:
        async with client.bitswap.session([server.address]) as session:
            assert dict([pair async for pair in session.get_many([cid for cid, _ in many])]) == dict(many)
        assert not any(client.host.refusals.values())
        assert server.bitswap.server.engine.spent.resets == 0


async def test_a_peer_that_asks_on_many_streams_is_answered_on_one() -> None:
    """T17: the other side's limit is not ours to break."""
    many = blocks(40, 16 << 10)
    async with node("server", many) as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        connection = peer.connection(server.peer_id)
        for cid, _ in many:
            stream = connection.open_now("/ipfs/bitswap/1.2.0")
            stream.try_write(wants(cid))
            stream.close_write()
        await settled(1)
        assert sorted(peer.heard.blocks) == sorted(data for _, data in many)
        assert len([stream for stream in peer.heard.streams if stream.inbound]) == 1
