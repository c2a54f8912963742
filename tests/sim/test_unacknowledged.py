"""A peer that acknowledges none of our streams: it is blocked, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aiolibp2p import Connection, Host, Limits, Stream, Timeouts
from aiolibp2p.errors import ConnectionEndedError, DeadlineError, LimitError
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import ACK, FIN, SYN, WINDOW_UPDATE
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.hosts import ECHO, other_tasks, raw_peer, sim_host
from tests.support.raw import NS, RawLink
from tests.support.scripts import responding

BACKLOG = Limits().yamux_ack_backlog
ROUND_TRIP_NS = 40_000_000
BESIDES = 100


async def mute(link: RawLink) -> None:
    """Take the connection, and acknowledge nothing: neither streams nor, what would count as much, bytes on them."""
    link.accepts = link.reads = False
    await responding()(link)


async def echo(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data)


@asynccontextmanager
async def beside_a_mute_peer() -> AsyncIterator[tuple[Host, Connection, RawLink]]:
    """Give a host and its connection to a peer that acknowledges nothing, whose identify has been given up."""
    current_net().set_link(Link(latency=0.02))
    async with sim_host("ours") as host, raw_peer(mute) as peer:
        host.handle(ECHO, echo)
        connection = await host.connect(peer.address)
        link = await peer.link()
        await current_loop().pass_time(Timeouts().identify + 1)
        assert connection.streams == []
        yield host, connection, link


async def exchange(asker: Host, asked: Host) -> int:
    """Open a stream, ask and be answered; return how long that took, in nanoseconds."""
    start_ns = current_loop().time_ns()
    async with await asker.open_stream(asked.addresses[0], ECHO) as stream:
        await stream.write(b"hello")
        assert await stream.read() == b"hello"
        return current_loop().time_ns() - start_ns


@pytest.mark.conforms("Y9")
async def test_with_256_unacknowledged_streams_only_that_peer_is_blocked() -> None:
    """T5: whoever opens the 257th waits for `Timeouts.open_stream`; others are served, dialled and dial as ever."""
    async with beside_a_mute_peer() as (host, connection, link), sim_host("bob") as bob, sim_host("carol") as carol:
        loop = current_loop()
        for honest in (bob, carol):
            honest.handle(ECHO, echo)
        await host.connect(bob.addresses[0])
        await loop.pass_time(1)
        tasks, start_ns = other_tasks(), loop.time_ns()
        opened = [await connection.open_stream(ECHO) for _ in range(BACKLOG)]
        waiting = [loop.create_task(connection.open_stream(ECHO)) for _ in range(BESIDES)]
        await loop.settle()
        assert loop.time_ns() == start_ns
        assert not any(task.done() for task in waiting)
        with pytest.raises(LimitError) as refused:
            connection.open_now(ECHO)
        assert refused.value.limit == "yamux_ack_backlog"

        assert [await exchange(host, bob) for _ in range(10)] == [ROUND_TRIP_NS] * 10
        assert [await exchange(bob, host) for _ in range(10)] == [ROUND_TRIP_NS] * 10
        assert await exchange(carol, host) == 3 * ROUND_TRIP_NS
        assert round(await host.ping(bob.peer_id) * NS) == ROUND_TRIP_NS
        link.send_data(2, proposal(ECHO) + b"its own streams go on", SYN)  # the mute peer may ask
        await loop.pass_time(1)
        assert link.sent_on(2).endswith(b"its own streams go on")

        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert loop.time_ns() == start_ns + 15 * NS
        assert {getattr(result, "deadline", None) for result in results} == {"open_stream"}
        assert not connection._open_waiters
        for stream in opened:
            stream.reset()
        link.rst(2)
        await loop.pass_time(1)
        assert other_tasks() == tasks


async def test_a_ping_to_a_peer_that_acknowledges_nothing_ends_in_time() -> None:
    """T5: what needs a stream of that peer ends at its own deadline, or at that of opening one."""
    async with beside_a_mute_peer() as (host, connection, _):
        start_ns = current_loop().time_ns()
        for _ in range(BACKLOG):
            await connection.open_stream(ECHO)
        with pytest.raises(DeadlineError) as caught:
            await host.ping(connection.peer_id)
        assert (caught.value.deadline, current_loop().time_ns() - start_ns) == ("open_stream", 15 * NS)


async def test_closing_unacknowledged_streams_makes_room_when_their_tombstones_go() -> None:
    """T5: `close()` takes no time on them either; after `Timeouts.close` 256 others may be opened."""
    async with beside_a_mute_peer() as (_, connection, link):
        loop = current_loop()
        start_ns = loop.time_ns()
        for stream in [await connection.open_stream(ECHO) for _ in range(BACKLOG)]:
            stream.close()
        assert loop.time_ns() == start_ns
        again = [await connection.open_stream(ECHO) for _ in range(BACKLOG)]
        assert loop.time_ns() == start_ns + 10 * NS
        await loop.pass_time(1)
        ends = [
            at_ns - ROUND_TRIP_NS // 2 for n in range(BACKLOG) for at_ns in link.flagged(again[0].id - 2 * n - 2, FIN)
        ]
        assert ends == [start_ns + 10 * NS] * BACKLOG


async def test_half_closed_unacknowledged_streams_make_room_when_their_tombstones_go() -> None:
    """T5: here nothing is left to be sent when the tombstones go, and who waits is woken all the same."""
    async with beside_a_mute_peer() as (_, connection, _link):
        loop = current_loop()
        start_ns = loop.time_ns()
        streams = [await connection.open_stream(ECHO) for _ in range(BACKLOG)]
        for stream in streams:
            stream.close_write()
        await loop.pass_time(12)  # the FINs, held back for want of an answer, have left
        for stream in streams:
            stream.close()
        await connection.open_stream(ECHO)
        assert loop.time_ns() == start_ns + 22 * NS


async def test_every_acknowledgement_lets_one_who_waits_through() -> None:
    """T5: in the order in which they came."""
    async with beside_a_mute_peer() as (_, connection, link):
        loop = current_loop()
        opened = [await connection.open_stream(ECHO) for _ in range(BACKLOG)]
        waiting = [loop.create_task(connection.open_stream(ECHO)) for _ in range(3)]
        for number in range(3):
            await loop.pass_time(1)
            assert [task.done() for task in waiting] == [n < number for n in range(3)]
            link.send_frame(WINDOW_UPDATE, ACK, opened[number].id)
        await asyncio.gather(*waiting)


async def test_those_who_wait_are_told_of_the_end_of_the_connection() -> None:
    """T5: at once."""
    async with beside_a_mute_peer() as (host, connection, link):
        loop = current_loop()
        for _ in range(BACKLOG):
            await connection.open_stream(ECHO)
        waiting = [loop.create_task(connection.open_stream(ECHO)) for _ in range(BESIDES)]
        await loop.pass_time(1)
        start_ns = loop.time_ns()
        link.transport.abort()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {ConnectionEndedError}
        assert loop.time_ns() == start_ns + ROUND_TRIP_NS // 2
        assert host._swarm.counts.streams == 0
