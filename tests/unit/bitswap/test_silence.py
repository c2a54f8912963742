"""Peers that do not answer, go away, or are left: who waits is told in time, and others deliver."""

from __future__ import annotations

import asyncio

import pytest

from aiolibp2p import Timeouts
from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks import MemoryBlockstore
from aiolibp2p.errors import BlockNotFoundError, ConnectionEndedError, DeadlineError
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.bitswap import Node, answer, block, blocks, node, scripted, settled, wants
from tests.support.hosts import sim_host

NS = 1_000_000_000


def wanted(client: Node) -> int:
    """Return how many CIDs anybody waits for."""
    return sum(len(session._waiting) for session in client.bitswap.client._sessions.values())


async def test_a_peer_that_never_answers_costs_the_time_of_one_answer() -> None:
    cid, data = block("a block")
    async with scripted("silent") as silent, node("server", [(cid, data)]) as server, node("client") as client:
        await client.host.connect(silent.address)
        await client.host.identify(silent.host.peer_id)
        async with client.bitswap.session([silent.address, server.address]) as session:
            assert await session.get(cid) == data
            assert current_loop().time_ns() in (0, 5 * NS)
        assert [(entry.cid, entry.want_have) for entry in silent.heard.entries if not entry.cancel] == [
            (bytes(cid), False)
        ]


async def test_400_blocks_come_past_a_peer_that_never_answers() -> None:
    many = blocks(400, 4 << 10)
    async with scripted("silent") as silent, node("server", many) as server, node("client") as client:
        async with client.bitswap.session([silent.address, server.address]) as session:
            assert sorted([pair async for pair in session.get_many([cid for cid, _ in many])]) == sorted(many)
        assert current_loop().time_ns() <= 5 * NS


@pytest.mark.parametrize("seconds", [60.0, 7.5])
async def test_when_all_are_silent_the_deadline_is_exact(seconds: float) -> None:
    timeouts = Timeouts(bitswap_fetch=seconds)
    async with scripted("one") as one, scripted("two") as two, node("client", timeouts=timeouts) as client:
        with pytest.raises(DeadlineError) as raised:
            await client.bitswap.get(block("a block")[0], [one.address, two.address])
        assert (raised.value.deadline, raised.value.seconds) == ("bitswap_fetch", seconds)
        assert current_loop().time_ns() == seconds * NS
        assert wanted(client) == 0


async def test_a_slow_block_is_not_taken_for_silence() -> None:
    cid, data = block("a block", 1_400_000)
    message = answer((cid, data))
    async with scripted("slow") as slow, node("client") as client:
        task = current_loop().create_task(client.bitswap.get(cid, [slow.address]))
        await settled()
        for at in range(0, len(message), 15_000):
            slow.say(client.peer_id, message[at : at + 15_000])
            await settled(1)
        assert await task == data
        assert current_loop().time() > Timeouts().bitswap_fetch + 30


async def test_a_cancelled_get_leaves_nothing_wanted() -> None:
    cid, _ = block("a block")
    async with scripted("silent") as silent, node("client") as client:
        task = current_loop().create_task(client.bitswap.get(cid, [silent.address]))
        await settled()
        assert client.bitswap.client.core.wanted(cid.multihash)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not client.bitswap.client.core.wanted(cid.multihash)
        await settled()
        assert [(entry.cid, entry.cancel) for entry in silent.heard.entries] == [
            (bytes(cid), False),
            (bytes(cid), True),
        ]


@pytest.mark.parametrize("one_session", [True, False])
async def test_another_who_wants_the_same_block_goes_on(one_session: bool) -> None:
    """T13: in one session, and in two."""
    cid, data = block("a block")
    async with scripted("slow") as slow, node("client") as client, client.bitswap.session([slow.address]) as session:
        loop = current_loop()
        first = loop.create_task(session.get(cid))
        second = loop.create_task(session.get(cid) if one_session else client.bitswap.get(cid, [slow.address]))
        await settled()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await settled()
        assert client.bitswap.client.core.wanted(cid.multihash)
        assert not any(entry.cancel for entry in slow.heard.entries)
        slow.say(client.peer_id, answer((cid, data)))
        assert await second == data
        assert wanted(client) == 0


async def test_a_session_that_is_closed_tells_who_waits() -> None:
    cid, _ = block("a block")
    async with scripted("silent") as silent, node("client") as client:
        async with client.bitswap.session([silent.address]) as session:
            task = current_loop().create_task(session.get(cid))
            await settled()
            await session.close()
            with pytest.raises(ConnectionEndedError):
                await task
            with pytest.raises(ConnectionEndedError):
                await session.get(cid)
        assert not client.bitswap.client.core.wanted(cid.multihash)


async def test_a_reader_that_stops_wants_nothing_ahead_any_more() -> None:
    many = blocks(300)
    async with (
        node("server", many) as server,
        node("client") as client,
        client.bitswap.session([server.address]) as session,
    ):
        fetched = session.fetch([cid for cid, _ in many])
        assert await anext(fetched) == many[0][1]
        await fetched.aclose()  # type: ignore[attr-defined]
        assert wanted(client) == 0
        assert await session.get(many[-1][0]) == many[-1][1]


async def test_when_the_only_peer_goes_its_blocks_are_not_found() -> None:
    cid, _ = block("a block")
    async with scripted("silent") as silent, node("client") as client:
        task = current_loop().create_task(client.bitswap.get(cid, [silent.address]))
        await settled(1)
        await silent.host.disconnect(client.peer_id)
        with pytest.raises(BlockNotFoundError):
            await task
        assert current_loop().time() == 1


async def test_a_peer_that_goes_before_it_was_asked_is_not_asked() -> None:
    cid, _ = block("a block")
    async with scripted("silent") as silent, node("client") as client:
        async with client.bitswap.session([silent.address]) as session:
            await silent.host.disconnect(client.peer_id)
            await settled()
            with pytest.raises(BlockNotFoundError):
                await session.get(cid)
        assert current_loop().time() == 0


async def test_when_one_of_two_goes_in_the_middle_the_other_delivers() -> None:
    many = blocks(400, 16 << 10)
    current_net().set_link(Link(latency=0.01, bandwidth=50e6))
    async with node("one", many) as one, node("other", many) as other, node("client") as client:
        got = []
        async with client.bitswap.session([one.address, other.address]) as session:
            async for pair in session.get_many([cid for cid, _ in many]):
                got.append(pair)
                if len(got) == 100:
                    connection = client.host.connection_to(one.peer_id)
                    assert connection is not None
                    connection.abort()
        assert sorted(got) == sorted(many)


async def test_a_peer_that_comes_back_is_asked_again() -> None:
    cid, data = block("a block")
    async with node("server", [(cid, data)]) as server, node("client") as client:
        for turn in range(3):
            assert await client.bitswap.get(cid, [server.address]) == data
            await client.store.delete(cid)
            await client.host.disconnect(server.peer_id)
            await settled(turn)
            assert client.bitswap.client.core._wantlists == {}
            assert server.bitswap.server.engine._peers == {}


async def test_what_a_peer_wanted_is_forgotten_with_its_connection_whatever_became_of_its_streams() -> None:
    cid, _ = block("a block")
    async with node("server") as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        for way in ("open", "closed", "reset"):
            stream = peer.say(server.peer_id, wants(cid, dont_have=False))
            await settled()
            assert server.bitswap.server.engine.ledger(peer.host.peer_id) is not None
            if way == "closed":
                stream.close()
            elif way == "reset":
                stream.reset()
            await settled()
            await peer.host.disconnect(server.peer_id)
            await settled()
            assert server.bitswap.server.engine.ledger(peer.host.peer_id) is None, way
            await peer.host.connect(server.address)
            await settled()


async def test_leaving_bitswap_while_blocks_are_fetched_tells_who_waits() -> None:
    cid, _ = block("a block")
    async with scripted("silent") as silent, sim_host("client") as host:
        async with Bitswap(host, MemoryBlockstore()) as bitswap:
            task = current_loop().create_task(bitswap.get(cid, [silent.address]))
            await settled()
        with pytest.raises(ConnectionEndedError):
            await task
        await settled(100)
        assert len(silent.heard.messages) == 1


async def test_after_leaving_bitswap_nothing_is_asked_or_answered() -> None:
    cid, data = block("a block")
    async with scripted("peer") as peer, sim_host("client") as host:
        async with Bitswap(host, MemoryBlockstore([(cid, data)])) as bitswap:
            await host.connect(peer.address)
            await settled()
            stream = peer.say(host.peer_id, wants(block("missing")[0]))
            await settled()
        await settled()
        assert not stream.usable
        with pytest.raises(ConnectionEndedError):
            await bitswap.get(block("other")[0], [peer.address])
        assert current_loop().time() == 0


async def test_a_block_that_comes_late_answers_who_still_waits() -> None:
    cid, data = block("a block")
    async with node("server") as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        peer.say(server.peer_id, wants(cid))
        await settled()
        assert peer.heard.presences == {bytes(cid): False}
        await server.store.put(cid, data)
        server.bitswap.arrived(cid, len(data))
        await settled()
        assert peer.heard.blocks == [data]


async def test_a_block_that_was_fetched_answers_who_waits_for_it() -> None:
    cid, data = block("a block")
    async with node("origin", [(cid, data)]) as origin, node("relay") as relay, scripted("peer") as peer:
        await peer.host.connect(relay.address)
        await settled()
        peer.say(relay.peer_id, wants(cid, dont_have=False))
        await settled()
        assert await relay.bitswap.get(cid, [origin.address]) == data
        await settled()
        assert peer.heard.blocks == [data]


async def test_a_peer_that_sends_a_byte_now_and_then_holds_up_nobody() -> None:
    cid, data = block("a block", 100_000)
    async with scripted("dripping") as dripping, node("server", [(cid, data)]) as server, node("client") as client:
        message = answer(block("large", 100_000))
        async with client.bitswap.session([dripping.address, server.address]) as session:
            task = current_loop().create_task(session.get(cid))
            await settled()
            for at in range(20):
                if task.done():
                    break
                dripping.say(client.peer_id, message[at : at + 1])
                await settled(1)
            assert task.done()
            assert await task == data
            assert current_loop().time() <= 6
