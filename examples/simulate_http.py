"""The first program of docs/howto/simulate.md: aiohttp on a simulated network. Run it with `pytest`."""
# ruff: noqa: D103

from __future__ import annotations

import asyncio

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from aiolibp2p.sim import World, sim_test

# The program: it knows nothing of simulations.


async def run_shop(orders: list[str]) -> None:
    async def take(request: web.Request) -> web.Response:
        orders.append(await request.text())
        return web.Response(text="thanks")

    application = web.Application()
    application.router.add_post("/", take)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, port=80).start()


async def order(what: str) -> str:
    async with ClientSession(timeout=ClientTimeout(total=2)) as session:
        for pause in (1, 2, 4, 8):
            try:
                async with session.post("http://shop/", data=what) as response:
                    return await response.text()
            except (ClientError, TimeoutError):
                await asyncio.sleep(pause)
    raise TimeoutError(f"nobody takes the order of {what}")


# Its test.


@sim_test
async def test_an_order_is_repeated_until_the_shop_answers(sim: World) -> None:
    client, shop = sim.host("client"), sim.host("shop")
    sim.link(client, shop, latency=0.05)
    await shop.spawn(run_shop([]))
    sim.partition(client, shop)
    ordering = client.spawn(order("tea"))
    await sim.pass_time(6)
    sim.repair(client, shop)
    assert (await ordering, sim.now_ns) == ("thanks", 7_200_000_000)
