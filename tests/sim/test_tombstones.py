"""Closed streams whose peer still owes something: counted, bounded, and no trouble to anybody."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from aiolibp2p import Limits, Stream, Timeouts
from aiolibp2p.errors import ConnectionEndedError, DeadlineError
from aiolibp2p.sansio.yamux import FIN, RST
from aiolibp2p.sim import current_loop
from tests.support.hosts import ECHO, against_raw, other_tasks, sim_host, two_hosts
from tests.support.raw import NS, RawLink
from tests.support.scripts import responding


async def test_the_oldest_tombstone_of_a_connection_makes_room_and_ends_as_at_its_timer() -> None:
    """T4: bounded for each connection."""
    async with against_raw(limits=Limits(tombstones_per_connection=3)) as (_, link, connection):
        loop = current_loop()
        streams = [await connection.open_stream(ECHO) for _ in range(5)]
        for stream in streams:
            await stream.write(b"all of it")
            await loop.pass_time(1)
            stream.close()
        await loop.settle()
        assert connection.tombstones == streams[2:]
        assert [link.flagged(stream.id, FIN) for stream in streams] == [[4 * NS], [5 * NS], [], [], []]
        for stream in streams[:2]:
            assert link.sent_on(stream.id).endswith(b"all of it")
            assert not link.flagged(stream.id, RST)
            with pytest.raises(DeadlineError) as caught:
                await stream.wait_closed()
            assert caught.value.deadline == "close"
            link.answer(stream.id, ECHO)  # late, and dropped
        await loop.pass_time(20)
        assert not any(link.flagged(stream.id, RST) for stream in streams)
        assert connection.tombstones == []


async def test_tombstones_are_limited_over_all_connections() -> None:
    """T4: bounded in all."""
    async with against_raw(limits=Limits(tombstones=4)) as (_, link, connection):
        streams = [await connection.open_stream(ECHO) for _ in range(6)]
        for stream in streams:
            stream.close()
        await current_loop().settle()
        assert connection.tombstones == streams[2:]
        assert [bool(link.flagged(stream.id, FIN)) for stream in streams] == [True, True, False, False, False, False]


async def test_a_tombstone_makes_room_for_a_stream() -> None:
    async with against_raw(limits=Limits(streams_per_connection=2, streams_per_peer=2)) as (_, _link, connection):
        await current_loop().pass_time(6)  # identify has given up
        first = await connection.open_stream(ECHO)
        await connection.open_stream(ECHO)
        first.close()
        await connection.open_stream(ECHO)
        assert current_loop().time_ns() == 6 * NS


async def test_a_peer_that_echoes_into_a_tombstone_gets_its_credit_back_and_reads_on() -> None:
    received = 0

    async def echo(stream: Stream) -> None:
        nonlocal received
        async for data in stream:
            received += len(data)
            await stream.write(data)

    async with two_hosts() as (_alice, bob, connection):
        bob.handle(ECHO, echo)
        stream = await connection.open_stream(ECHO)
        await stream.write(bytes(500_000))
        await current_loop().settle()
        assert received < 500_000  # its echo fills our window
        stream.close()
        await stream.wait_closed()
        assert received == 500_000
        assert connection._muxer._session.unread_bytes == 0  # type: ignore[attr-defined]
        assert current_loop().time_ns() == 0


async def test_a_tombstone_whose_answer_comes_with_data_drops_the_data() -> None:
    async with against_raw() as (_, link, connection):
        stream = await connection.open_stream(ECHO)
        stream.close()
        await current_loop().pass_time(1)
        link.answer(stream.id, ECHO)
        for _ in range(64):
            link.send_data(stream.id, bytes(4096))
        await current_loop().settle()
        assert connection._muxer._session.unread_bytes == 0  # type: ignore[attr-defined]
        assert connection.tombstones == [stream]
        assert link.flagged(stream.id, FIN) == [1 * NS]


async def test_peers_that_never_finish_leave_nothing_behind() -> None:
    """T4: two thousand streams at one instant, answered and never finished."""
    async with against_raw() as (host, link, connection):
        loop = current_loop()
        await loop.pass_time(6)
        tasks = other_tasks()
        for _ in range(2000):
            stream = await connection.open_stream(ECHO)
            link.answer(stream.id, ECHO)
            await loop.settle()
            stream.close()
        assert len(connection.tombstones) == 1024
        assert host._swarm.counts.tombstones == 1024
        await loop.pass_time(10)
        await loop.settle()
        assert connection.tombstones == connection.streams == []
        assert host._swarm.counts.tombstones == host._swarm.counts.streams == 0
        assert connection._muxer._session.streams == {}  # type: ignore[attr-defined]
        assert len(connection._deadlines._heap) < 600
        assert other_tasks() == tasks


async def test_handlers_that_never_finish_cost_whoever_closes_a_bounded_number_of_tombstones() -> None:
    """T4: ten hosts, a minute of streams to each; as many tombstones as streams are closed in ten seconds."""

    async def never_finishing(stream: Stream) -> None:
        async for _ in stream:
            pass
        await current_loop().create_future()

    async with sim_host("alice") as alice, AsyncExitStack() as stack:
        loop = current_loop()
        others = [await stack.enter_async_context(sim_host(f"never finishing {number}")) for number in range(10)]
        for other in others:
            other.handle(ECHO, never_finishing)
            await alice.connect(other.addresses[0])
        await loop.settle()
        tasks = len(alice._tasks)
        for second in range(1, 61):
            for other in others:
                stream = await alice.open_stream(other.peer_id, ECHO)
                await stream.write(b"goodbye")
                stream.close()
            await loop.pass_time(1)
            counts = alice._swarm.counts
            assert (counts.streams, counts.tombstones) == (0, 10 * min(second, 10) - 10 * (second >= 10))
        await loop.pass_time(10)
        assert alice._swarm.counts.tombstones == 0
        assert [connection._muxer._session.streams for connection in alice.connections] == [{}] * 10  # type: ignore[attr-defined]
        assert len(alice._tasks) == tasks


async def test_the_end_of_the_connection_ends_its_tombstones() -> None:
    async with against_raw() as (host, link, connection):
        stream = await connection.open_stream(ECHO)
        stream.close()
        waiting = current_loop().create_task(stream.wait_closed())
        await current_loop().settle()
        link.transport.abort()
        with pytest.raises(ConnectionEndedError):
            await waiting
        assert connection.tombstones == []
        assert host._swarm.counts.tombstones == 0
        assert current_loop().time_ns() == 0


async def test_a_slow_honest_peer_reads_every_byte_of_a_stream_that_was_closed() -> None:
    received: list[bytes] = []

    async with two_hosts() as (_alice, bob, connection):
        started = asyncio.Event()

        async def slow(stream: Stream) -> None:
            started.set()
            while data := await stream.read(1000):
                received.append(data)
                await current_loop().pass_time(1)

        bob.handle(ECHO, slow)
        stream = await connection.open_stream(ECHO)
        await stream.write(bytes(100_000))
        stream.close()
        await started.wait()
        await current_loop().pass_time(200)
        assert b"".join(received) == bytes(100_000)


async def test_an_answer_a_nanosecond_before_the_timer_counts() -> None:

    async def script(link: RawLink) -> None:
        await responding()(link)
        link.accepts = False

    async with against_raw(script, timeouts=Timeouts(close=2)) as (_, link, connection):
        stream = await connection.open_stream(ECHO)
        await stream.write(bytes(1000))
        stream.close()
        await current_loop().pass_time(1.999999999)
        link.answer(stream.id, ECHO)
        link.fin(stream.id)
        await stream.wait_closed()
        await current_loop().settle()
        assert link.flagged(stream.id, FIN) == [1_999_999_999]
