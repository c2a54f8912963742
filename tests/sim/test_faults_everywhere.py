"""A connection that dies, and a program that is cancelled, at every step: all who wait wake, and nothing is left.

The strict runner fails a test that leaves a task, a timer, or an exception nobody handles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from aiolibp2p import Host, Stream
from aiolibp2p.errors import Libp2pError
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.hosts import ECHO, sim_host, use_everything

MILLISECOND = 1_000_000
TURNS = 40


async def echo(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data)


def at_turn(turns: int, action: Callable[[], object]) -> None:
    """Do something so many turns of the loop from now, or as soon as time passes."""
    loop = current_loop()

    def later(left: int) -> None:
        if left:
            loop.call_soon(later, left - 1)
        else:
            action()

    later(turns)


def kill_all(kind: str) -> None:
    for connection in current_net().connections:
        if kind == "reset":
            connection.reset()
            continue
        for transport in (connection.client_transport, connection.server_transport):
            if transport is not None:
                transport.abort()


async def settled(alice: Host, bob: Host) -> None:
    await current_loop().pass_time(30)
    for host in (alice, bob):
        assert host.connections == []
        assert host._swarm._links == host._swarm._peers == {}
        counts = host._swarm.counts
        assert (counts.streams, counts.tombstones, counts.handlers) == (0, 0, 0)
        assert len(host._tasks) == 0


@pytest.mark.parametrize("kind", ["reset", "abort"])
@pytest.mark.parametrize("at_ms", range(0, 60, 10))
async def test_sockets_may_die_at_every_step(kind: str, at_ms: int) -> None:
    """T6: a connection that dies."""
    for turns in range(0, TURNS, 8):
        net = current_net()
        net.set_link(Link(latency=0.005))
        names = [f"{turns} alice", f"{turns} bob"]
        async with sim_host(names[0]) as alice, sim_host(names[1]) as bob:
            bob.handle(ECHO, echo)
            using = current_loop().create_task(use_everything(alice, bob, bob.addresses[0]))
            when = current_loop().time_ns() + at_ms * MILLISECOND
            current_loop().call_at_ns(when, lambda turns=turns: at_turn(turns, lambda: kill_all(kind)))  # type: ignore[misc]
            results = await asyncio.gather(using, return_exceptions=True)
            assert all(result is None or isinstance(result, Libp2pError | EOFError) for result in results), results
            await settled(alice, bob)


@pytest.mark.parametrize("at_ms", range(0, 60, 10))
async def test_a_program_may_be_cancelled_at_every_step(at_ms: int) -> None:
    """T6: who waits is cancelled."""
    for turns in range(1, TURNS, 6):
        current_net().set_link(Link(latency=0.005))
        async with sim_host(f"{turns} alice") as alice, sim_host(f"{turns} bob") as bob:
            bob.handle(ECHO, echo)
            using = current_loop().create_task(use_everything(alice, bob, bob.addresses[0]))
            when = current_loop().time_ns() + at_ms * MILLISECOND
            current_loop().call_at_ns(when, lambda turns=turns, using=using: at_turn(turns, using.cancel))  # type: ignore[misc]
            await asyncio.wait([using])
            assert using.cancelled() or using.exception() is None
            for connection in alice.connections:
                for stream in connection.streams:
                    stream.reset()
            await alice.disconnect(bob.peer_id)
            await settled(alice, bob)


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.parametrize("at_ms", range(0, 60, 10))
async def test_a_host_may_be_left_at_every_step(who: str, at_ms: int) -> None:
    """T6: a host ends."""
    for turns in range(0, TURNS, 8):
        current_net().set_link(Link(latency=0.005))
        alice, bob = sim_host(f"{turns} alice"), sim_host(f"{turns} bob")
        async with alice, bob:
            bob.handle(ECHO, echo)
            using = current_loop().create_task(use_everything(alice, bob, bob.addresses[0]))
            await current_loop().pass_time(at_ms / 1000)
            for _ in range(turns):
                await asyncio.sleep(0)
            await (alice if who == "alice" else bob)._shut_down()
            results = await asyncio.gather(using, return_exceptions=True)
            assert all(result is None or isinstance(result, Libp2pError | EOFError) for result in results), results
            await settled(alice, bob)
