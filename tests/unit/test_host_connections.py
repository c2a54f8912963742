"""Host: its events and its connections."""

from __future__ import annotations

import asyncio

import pytest

from aiolibp2p import Limits, Stream
from aiolibp2p.errors import (
    ConnectionEndedError,
    LimitError,
    LocalProtocolError,
)
from aiolibp2p.net.events import ConnectionClosed, ConnectionOpened, PeerIdentified
from aiolibp2p.sansio.yamux import FIN, GO_AWAY, RST
from aiolibp2p.sim import current_loop
from tests.support.hosts import ECHO, OTHER, raw_peer, sim_host
from tests.support.scripts import initiating


async def echo(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data)


# -- events ------------------------------------------------------------------------------------------------------------


async def test_events_tell_of_connections_from_now_on_and_end_with_the_host() -> None:
    async with raw_peer() as peer:
        async with sim_host("ours") as host:
            events, late = host.events(), host.events()
            connection = await host.connect(peer.address)
            await host.disconnect(peer.peer_id)
            later = host.events()
        seen = [event async for event in events]
        assert [type(event) for event in seen] == [ConnectionOpened, ConnectionClosed]
        assert isinstance(seen[1], ConnectionClosed)
        assert seen[1].connection is connection
        assert isinstance(seen[1].error, ConnectionEndedError)
        assert seen[1].error.by == "local"
        assert [event async for event in late] == seen
        assert [event async for event in later] == []


async def test_a_slow_consumer_loses_the_oldest_and_is_told_how_many() -> None:
    async with raw_peer() as peer:
        async with sim_host("ours", limits=Limits(events=3)) as host:
            events = host.events()
            for _ in range(5):
                await host.connect(peer.address)
                await host.disconnect(peer.peer_id)
        assert events.missed == 7
        kept = [type(event) async for event in events]
        assert kept == [ConnectionClosed, ConnectionOpened, ConnectionClosed]


async def test_a_consumer_that_is_gone_is_not_fed() -> None:
    async with sim_host("ours") as host:
        events = host.events()
        assert len(host._events._streams) == 1
        del events
        assert len(host._events._streams) == 0


async def test_a_consumer_that_waits_is_woken_and_loses_nothing_when_it_is_cancelled() -> None:
    async with sim_host("ours") as host, raw_peer() as peer:
        events = host.events()
        waiting = current_loop().create_task(anext(events))
        await current_loop().settle()
        waiting.cancel()
        await asyncio.wait([waiting])
        waiting = current_loop().create_task(anext(events))
        await host.connect(peer.address)
        assert isinstance(await waiting, ConnectionOpened)


async def test_identified_peers_are_told() -> None:
    async with sim_host("alice") as alice, sim_host("bob") as bob:
        events = alice.events()
        await alice.connect(bob.addresses[0])
        while not isinstance(event := await anext(events), PeerIdentified):
            pass
        assert event.connection.peer_id == bob.peer_id
        assert event.identify is event.connection.identify


# -- connections -------------------------------------------------------------------------------------------------------


async def test_disconnecting_ends_all_connections_of_a_peer_and_of_no_other() -> None:
    async with (
        sim_host("ours") as host,
        raw_peer(initiating()) as peer,
        raw_peer(name="other") as other,
    ):
        links = [await peer.dial(host.addresses[0]) for _ in range(3)]
        kept = await host.connect(other.address)
        await host.disconnect(peer.peer_id)
        assert host.connections == [kept]
        await current_loop().settle()
        assert [link.ended_ns for link in links] == [0] * 3
        await host.disconnect(peer.peer_id)
        with pytest.raises(LocalProtocolError):
            await host.disconnect("/ip4/1.2.3.4/tcp/1")


async def test_the_end_of_a_connection_wakes_all_who_wait_on_it() -> None:
    async with sim_host("ours", limits=Limits(yamux_ack_backlog=12)) as host, raw_peer() as peer:
        connection = await host.connect(peer.address)
        link = await peer.link()
        link.accepts = link.reads = False
        await current_loop().settle()
        stream = await connection.open_stream(ECHO)
        closed = await connection.open_stream(ECHO)
        closed.close()
        loop = current_loop()
        waiting = [
            loop.create_task(stream.read()),
            loop.create_task(stream.write(bytes(1 << 20))),
            loop.create_task(closed.wait_closed()),
            loop.create_task(host.ping(peer.peer_id)),
            loop.create_task(host.identify(peer.peer_id)),
            loop.create_task(connection.open_stream(ECHO, OTHER)),
            *(loop.create_task(opening(connection)) for _ in range(12)),
        ]
        await loop.settle()
        link.transport.abort()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert loop.time_ns() == 0
        assert [type(result) for result in results[:6]] == [ConnectionEndedError] * 6
        assert ConnectionEndedError in {type(result) for result in results[6:]}
        await connection.wait_closed()


async def opening(connection) -> None:  # type: ignore[no-untyped-def]
    await (await connection.open_stream(ECHO)).read()


async def test_an_aborted_connection_says_no_goodbye() -> None:
    async with sim_host("ours") as host, raw_peer() as peer:
        connection = await host.connect(peer.address)
        link = await peer.link()
        await current_loop().settle()
        with pytest.raises(LocalProtocolError):
            await connection.wait_closed()
        connection.abort()
        connection.close()
        await connection.wait_closed()
        await current_loop().settle()
        assert not any(frame.kind == GO_AWAY for frame in link.frames)
        assert not any(frame.flags & (FIN | RST) for frame in link.frames)
        assert host.connections == []


async def test_a_full_host_is_told_by_the_error() -> None:
    async with sim_host("ours", limits=Limits(streams=1)) as host, raw_peer() as peer:
        connection = await host.connect(peer.address)
        with pytest.raises(LimitError) as caught:
            await connection.open_stream(ECHO)
        assert (caught.value.limit, caught.value.stage) == ("streams", "open stream")
