"""Where more connect than a host keeps, whoever is served or asked goes on, and the host stays at its marks."""

from __future__ import annotations

from contextlib import AsyncExitStack

from aiolibp2p import Limits, Timeouts
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.bitswap import blocks, node
from tests.support.hosts import raw_peer
from tests.support.scripts import initiating

MARKS = Limits(connections_high=6, connections_low=3, connections=12)
CROWD = 40


async def test_a_fetch_goes_on_at_both_ends_while_a_crowd_comes_and_is_sent_away() -> None:
    current_net().set_link(Link(latency=0.05, bandwidth=400_000))
    many = blocks(240, 60_000)
    async with (
        AsyncExitStack() as crowd,
        node("server", many, limits=MARKS) as server,
        node("client", limits=MARKS) as client,
    ):
        await client.host.connect(server.address)
        await current_loop().pass_time(Timeouts().connection_grace)
        loop = current_loop()

        async def fetch() -> int:
            async with client.bitswap.session([server.address]) as session:
                return sum([1 async for _ in session.get_many([cid for cid, _ in many])])

        fetching = loop.create_task(fetch())
        most = 0
        for number in range(CROWD):
            peer = await crowd.enter_async_context(raw_peer(initiating(), f"passer-by {number}"))
            for host in (server.host, client.host):
                await peer.dial(host.addresses[0])
                most = max(most, len(host.connections))
            await loop.pass_time(3)
        assert not fetching.done(), "it was in use all the time"
        assert await fetching == len(many)
        for host, other in ((server.host, client.host), (client.host, server.host)):
            assert host.connection_to(other.peer_id) is not None
            assert host.refusals["connections_high"] > CROWD // 2
            assert host.refusals["connections"] == 0
            assert len(host.connections) <= MARKS.connections_high
        assert MARKS.connections_high <= most < MARKS.connections
