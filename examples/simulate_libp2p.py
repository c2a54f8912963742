"""The second program of docs/howto/simulate.md: a protocol over libp2p on a simulated network. Run it with `pytest`."""
# ruff: noqa: D103

from __future__ import annotations

import pytest

from aiolibp2p import Host, Multiaddr, Stream
from aiolibp2p.errors import DeadlineError
from aiolibp2p.sim import World, sim_test

PRICES = "/example/prices/1.0.0"


def serve_prices(host: Host, prices: dict[str, str]) -> None:
    @host.handle(PRICES)
    async def answer(stream: Stream) -> None:
        async for name in stream:
            await stream.write(prices[name.decode()].encode())


async def price(host: Host, shop: Multiaddr, name: str) -> str:
    async with await host.open_stream(shop, PRICES) as stream:
        stream.idle_timeout = 5
        await stream.write(name.encode())
        return (await stream.read()).decode()


@sim_test
async def test_a_question_ends_after_five_seconds_whatever_the_network_does(sim: World) -> None:
    a, b = sim.host("client"), sim.host("shop")
    sim.link(a, b, latency=0.05)
    client, shop = await sim.libp2p(a), await sim.libp2p(b)
    serve_prices(shop, {"tea": "3.50"})
    with sim.elapsed() as t:
        assert await price(client, shop.addresses[0], "tea") == "3.50"
    assert t.ns == 300_000_000  # a round trip each for TCP, for Noise with the muxer, and for the question
    sim.partition(a, b)
    with sim.elapsed() as t, pytest.raises(DeadlineError):
        await price(client, shop.addresses[0], "tea")
    assert t.ns == 5_000_000_000
    sim.repair(a, b)
    assert await price(client, shop.addresses[0], "tea") == "3.50"
