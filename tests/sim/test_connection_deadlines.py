"""A connection whose peer is silent, or gone, ends at its field of Timeouts, and so do ping, identify and leaving."""

from __future__ import annotations

import asyncio

import pytest

from aiolibp2p import Stream
from aiolibp2p.errors import ConnectionEndedError, DeadlineError
from aiolibp2p.sansio.yamux import RST
from aiolibp2p.sim import current_loop, current_net
from tests.support.hosts import ECHO, OTHER, against_raw, other_tasks, raw_peer, sim_host
from tests.support.raw import NS, RawLink

WINDOW = 256 << 10


async def accepted_stream(link: RawLink, stream: Stream) -> Stream:
    """Let the peer accept a stream's protocol."""
    await current_loop().settle()
    link.answer(stream.id, stream.protocol)
    await current_loop().settle()
    return stream


async def test_a_connection_to_a_peer_that_does_not_read_its_socket_ends_at_the_keepalive() -> None:
    """T6: TCP whose other end takes nothing."""
    async with against_raw() as (_, link, connection):
        stream = await accepted_stream(link, await connection.open_stream(ECHO))
        current_net().connection_of(link.transport).stop_reading("server")
        with pytest.raises(DeadlineError) as caught:
            await stream.write(bytes(WINDOW + 1))
        assert (caught.value.deadline, current_loop().time_ns()) == ("keepalive_answer", 40 * NS)
        await connection.wait_closed()
        assert current_loop().time_ns() <= 41 * NS


@pytest.mark.conforms("Y17")
async def test_a_half_open_connection_ends_at_the_keepalive_and_wakes_all_who_wait() -> None:
    """T6: no byte gets through any more."""
    async with against_raw() as (host, link, connection):
        loop = current_loop()
        stream = await accepted_stream(link, await connection.open_stream(ECHO))
        cut = current_net().connection_of(link.transport)
        cut.black_hole("server")
        cut.black_hole("client")
        waiting = [loop.create_task(stream.read()), loop.create_task(stream.write(bytes(2 * WINDOW)))]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [getattr(result, "deadline", None) for result in results] == ["keepalive_answer"] * 2
        assert loop.time_ns() == 40 * NS
        assert host.connections == []


async def test_a_peer_that_answers_keepalives_stays_connected_for_a_day() -> None:
    async with against_raw() as (_, link, connection):
        await current_loop().pass_time(24 * 3600)
        assert connection.ended is None
        assert 2000 < len(link.frames) < 10_000


async def test_ping_ends_at_ping() -> None:
    async with against_raw() as (host, link, connection):
        tasks = other_tasks()
        with pytest.raises(DeadlineError) as caught:
            await host.ping(connection.peer_id)
        assert current_loop().time_ns() == 10 * NS
        assert (caught.value.deadline, caught.value.seconds) == ("ping", 10.0)
        assert other_tasks() == tasks
        await current_loop().settle()
        assert link.flagged(await link.stream_for("/ipfs/ping/1.0.0"), RST) == [10 * NS]


async def test_identify_ends_at_identify_and_the_connection_stays() -> None:
    async with against_raw() as (host, link, connection):
        with pytest.raises(DeadlineError) as caught:
            await host.identify(connection.peer_id)
        assert current_loop().time_ns() == 5 * NS
        assert (caught.value.deadline, caught.value.seconds) == ("identify", 5.0)
        await current_loop().settle()
        assert link.flagged(await link.stream_for("/ipfs/id/1.0.0"), RST) == [5 * NS]
        assert host.connections == [connection]
        with pytest.raises(DeadlineError):  # it is asked again
            await host.identify(connection.peer_id)
        assert current_loop().time_ns() == 10 * NS


async def test_disconnecting_a_peer_that_reads_nothing_takes_connection_close() -> None:
    async with against_raw() as (host, link, connection):
        stream = await accepted_stream(link, await connection.open_stream(ECHO))
        current_net().connection_of(link.transport).stop_reading("server")
        for _ in range(4):
            other = await connection.open_stream(OTHER)
            await other.write(bytes(WINDOW - 100))
        await host.disconnect(connection.peer_id)
        assert current_loop().time_ns() == 1 * NS
        assert host.connections == []
        with pytest.raises(ConnectionEndedError):
            await stream.read()


async def test_leaving_a_host_whose_peers_read_nothing_takes_connection_close() -> None:
    async with raw_peer() as peer, raw_peer(name="another") as another:
        async with sim_host("ours") as host:
            for target in (peer, another):
                connection = await host.connect(target.address)
                link = await target.link()
                await current_loop().settle()
                current_net().connection_of(link.transport).stop_reading("server")
                for _ in range(4):
                    stream = await connection.open_stream(ECHO)
                    await stream.write(bytes(WINDOW - 100))
                    stream.close()
        assert current_loop().time_ns() == 1 * NS


async def test_leaving_a_host_with_idle_connections_takes_no_time() -> None:
    async with raw_peer() as peer:
        async with sim_host("ours") as host:
            connection = await host.connect(peer.address)
            stream = await connection.open_stream(ECHO)
            await stream.write(b"the last word")
            stream.close()
        assert current_loop().time_ns() == 0
        await current_loop().settle()
        assert peer.links[0].sent_on(stream.id).endswith(b"the last word")
