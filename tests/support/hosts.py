"""Whole hosts on the simulated network, each on a machine of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiolibp2p import Connection, Host, Multiaddr, Stream
from aiolibp2p.sim import SeededEntropy, current_loop, current_net, sim_runtime
from tests.support.raw import RawLink, RawPeer, Script
from tests.support.scripts import responding

ECHO = "/echo/1.0.0"
OTHER = "/other/1.0.0"
UNKNOWN = "/unknown/1.0.0"


def sim_host(name: str, **options: Any) -> Host:
    """Return a host on a new machine, which listens on its address."""
    machine = current_net().host(name)
    runtime = sim_runtime(current_loop(), name, machine)
    options.setdefault("listen", [f"/ip4/{machine.addresses[0]}/tcp/4001"])
    return Host(runtime=runtime, **options)


def raw_peer(script: Script | None = None, name: str = "raw") -> RawPeer:
    """Return a peer played by hand, on a new machine."""
    return RawPeer(script or responding(), machine=current_net().host(name), entropy=SeededEntropy(name))


@asynccontextmanager
async def two_hosts(**options: Any) -> AsyncIterator[tuple[Host, Host, Connection]]:
    """Give two hosts, and the first one's connection to the second, after both have identified each other."""
    async with sim_host("alice", **options) as alice, sim_host("bob", **options) as bob:
        connection = await alice.connect(bob.addresses[0])
        await alice.identify(bob.peer_id)
        await current_loop().settle()
        yield alice, bob, connection


@asynccontextmanager
async def against_raw(script: Script | None = None, **options: Any) -> AsyncIterator[tuple[Host, RawLink, Connection]]:
    """Give a host connected to a peer that does nothing by itself, with the identify streams out of the way.

    It starts at virtual time 0, and no time has passed since.
    """
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(sim_host("ours", **options))
        peer = await stack.enter_async_context(raw_peer(script))
        connection = await host.connect(peer.address)
        link = await peer.link()
        await current_loop().settle()
        yield host, link, connection


@asynccontextmanager
async def accepted(**options: Any) -> AsyncIterator[tuple[Host, RawLink, Stream]]:
    """Give a stream whose protocol a raw peer has accepted."""
    async with against_raw(**options) as (host, link, connection):
        stream = await connection.open_stream(ECHO)
        link.answer(await link.stream_for(ECHO), ECHO)
        await current_loop().settle()
        yield host, link, stream
        stream.reset()


def other_tasks() -> set[asyncio.Task[Any]]:
    """Return all tasks but the running one."""
    return asyncio.all_tasks() - {asyncio.current_task()}


async def use_everything(alice: Host, bob: Host, address: Multiaddr | str) -> None:
    """Use all that a host offers, one after the other and at once."""
    connection = await alice.connect(address)
    start = asyncio.get_running_loop().create_task
    eager = start(connection.open_stream(UNKNOWN, ECHO))
    tasks: list[asyncio.Task[Any]] = [eager, start(alice.ping(bob.peer_id)), start(alice.identify(bob.peer_id))]
    try:
        stream = await connection.open_stream(ECHO)
        tasks.append(start(stream.write(bytes(600_000))))
        await stream.read_exactly(500_000)
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    stream.close_write()
    async for _ in stream:
        pass
    stream.close()
    (await eager).close()
    await stream.wait_closed()
    await alice.disconnect(bob.peer_id)
