"""Tasks of a host that somebody else cancels, before their first step or within: who waits is told, nothing is left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aiolibp2p import Stream
from aiolibp2p.errors import ConnectionEndedError, StorageError, StreamResetError
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.bitswap import block, node, settled
from tests.support.hosts import ECHO, other_tasks, sim_host, two_hosts
from tests.support.sweep import FaultyStore

CID, DATA = block("one")


async def cancel_when_there(prefix: str, steps: int) -> None:
    """Cancel the task of this name once it is there and has done so many steps."""
    for _ in range(1000):
        await asyncio.sleep(0)
        found = [task for task in other_tasks() if task.get_name().startswith(prefix)]
        if found:
            break
    else:
        pytest.fail(f"no task {prefix}")
    for _ in range(steps):
        await asyncio.sleep(0)
    assert not found[0].done()
    found[0].cancel()


def start(coroutine: Any) -> asyncio.Task[Any]:
    """Start what the test waits for."""
    return current_loop().create_task(coroutine, name="asking")


async def test_a_handler_that_is_cancelled_before_its_first_step_resets_its_stream_and_is_not_counted() -> None:
    ran: list[Stream] = []

    async def handler(stream: Stream) -> None:
        ran.append(stream)

    async with two_hosts() as (alice, bob, _):
        bob.handle(ECHO, handler)
        stream = await alice.open_stream(bob.peer_id, ECHO)
        await cancel_when_there(ECHO, 0)
        with pytest.raises(StreamResetError):
            await stream.read()
        await current_loop().settle()
        counts = bob._swarm.counts
        assert (ran, len(bob._tasks), counts.handlers, counts.streams) == ([], 0, 0, 0)


@pytest.mark.parametrize("steps", [0, 1])
async def test_who_waits_for_a_dial_that_is_cancelled_is_told(steps: int) -> None:
    current_net().set_link(Link(latency=0.01))
    async with sim_host("alice") as alice, sim_host("bob") as bob:
        asking = start(alice.connect(bob.addresses[0]))
        await cancel_when_there("dial", steps)
        with pytest.raises(ConnectionEndedError, match="given up"):
            await asking
        assert alice._swarm._dials == {}
        assert await alice.connect(bob.addresses[0]) in alice.connections


@pytest.mark.parametrize("steps", [0, 1])
async def test_a_look_up_that_is_cancelled_is_made_when_the_peer_asks_again(steps: int) -> None:
    async with node("server", store=FaultyStore([(CID, DATA)])) as server, node("client") as client:
        asking = start(client.bitswap.get(CID, [server.address]))
        await cancel_when_there("bitswap look-up", steps)
        assert await asking == DATA
        assert current_loop().time() == client.host.timeouts.bitswap_repair
        assert server.bitswap.server._looking == set()


@pytest.mark.parametrize("steps", [0, 1])
async def test_a_load_that_is_cancelled_gives_back_its_bytes_and_its_block_is_sent_later(steps: int) -> None:
    async with node("server", store=FaultyStore([(CID, DATA)])) as server, node("client") as client:
        asking = start(client.bitswap.get(CID, [server.address]))
        await cancel_when_there("bitswap load", steps)
        await settled()
        assert server.bitswap.server.engine.loaded_bytes == 0
        assert await asking == DATA
        assert current_loop().time() == client.host.timeouts.bitswap_repair


@pytest.mark.parametrize("steps", [0, 1])
async def test_who_waits_for_a_block_whose_write_is_cancelled_is_told(steps: int) -> None:
    async with node("server", [(CID, DATA)]) as server, node("client", store=FaultyStore()) as client:
        asking = start(client.bitswap.get(CID, [server.address]))
        await cancel_when_there("bitswap keep", steps)
        with pytest.raises(StorageError, match="cancelled"):
            await asking
        assert current_loop().time_ns() == 0
        assert await client.bitswap.get(CID, [server.address]) == DATA


async def test_a_peer_that_is_reached_no_longer_is_one_that_cannot_be_asked() -> None:
    async with node("server", [(CID, DATA)]) as server, node("client") as client:
        asking = start(client.bitswap.get(CID, [server.address]))
        await cancel_when_there("bitswap reach", 0)
        with pytest.raises(ConnectionEndedError, match="given up"):
            await asking
        assert await client.bitswap.get(CID, [server.address]) == DATA


async def test_a_host_that_is_cancelled_while_it_starts_to_listen_listens_no_more() -> None:
    host = sim_host("ours")
    entering = start(host.__aenter__())
    await asyncio.sleep(0)
    assert len(current_net().listeners) == 1
    entering.cancel()
    await asyncio.wait([entering])
    assert entering.cancelled()
    assert current_net().listeners == []
