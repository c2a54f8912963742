"""A peer that makes no progress holds nothing that another peer needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from aiolibp2p import Connection, Host, Stream, Timeouts
from aiolibp2p.errors import ConnectionEndedError, DeadlineError
from aiolibp2p.sansio.yamux import FIN
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.hosts import ECHO, raw_peer, sim_host
from tests.support.raw import NS, RawPeer

SIZE = 4 << 20
HONEST = 3


@asynccontextmanager
async def receivers(name: str) -> AsyncIterator[list[RawPeer]]:
    """Give peers that read what they get; one more than the honest ones."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(raw_peer(name=f"{name} {number}")) for number in range(HONEST + 1)]


async def upload(connection: Connection) -> int:
    """Write to a peer and return when its socket had taken it all."""
    stream = await connection.open_stream(ECHO)
    await stream.write(bytes(SIZE))
    stream.reset()
    return current_loop().time_ns()


async def run(host: Host, peers: list[RawPeer], *, blocked: bool) -> tuple[list[int], Connection]:
    connections = [await host.connect(peer.address) for peer in peers]
    for peer in peers:
        await peer.link()
    start_ns = current_loop().time_ns()
    if blocked:
        current_net().connection_of(peers[-1].links[0].transport).stop_reading("server")
    tasks = [current_loop().create_task(upload(connection)) for connection in connections]
    took = [ended_ns - start_ns for ended_ns in await asyncio.gather(*tasks[:HONEST])]
    assert not (blocked and tasks[HONEST].done())
    tasks[HONEST].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return took, connections[-1]


@pytest.mark.parametrize("latency", [0.0, 0.02])
async def test_three_who_read_take_as_long_with_one_who_does_not_as_without(latency: float) -> None:
    current_net().set_link(Link(latency=latency, bandwidth=100e6))
    took: list[list[int]] = []
    for name, blocked in (("all read", False), ("one does not", True)):
        async with sim_host(name) as host, receivers(f"peer where {name},") as peers:
            times, connection = await run(host, peers, blocked=blocked)
            took.append(times)
            if blocked:  # the transport's buffer and those of both sockets
                assert connection.bytes_out <= (256 << 10) * 3 + 70_000
    assert took[0] == took[1]


async def test_many_writers_on_a_blocked_connection_hold_no_more_than_its_queue() -> None:
    async with sim_host("ours", timeouts=Timeouts(keepalive=1000)) as host, raw_peer() as peer:
        connection = await host.connect(peer.address)
        link = await peer.link()
        await current_loop().settle()
        current_net().connection_of(link.transport).stop_reading("server")
        loop = current_loop()
        streams = [await connection.open_stream(ECHO) for _ in range(200)]
        writing = [loop.create_task(stream.write(bytes(200_000))) for stream in streams]
        await loop.settle()
        session = connection._muxer._session  # type: ignore[attr-defined]
        queued = sum(muxed.queued_bytes for muxed in session.streams.values())
        assert queued <= host.limits.connection_send_bytes + 200 * 100  # negotiations need no room
        results = await asyncio.gather(*writing, return_exceptions=True)
        assert loop.time_ns() == 120 * NS
        assert {type(result) for result in results} <= {DeadlineError, type(None)}
        assert [task for task in asyncio.all_tasks() if task in writing] == []


async def test_room_goes_round_among_writers_of_one_connection() -> None:
    current_net().set_link(Link(bandwidth=10e6))
    async with sim_host("ours") as host, raw_peer() as peer:
        connection = await host.connect(peer.address)
        link = await peer.link()
        streams = [await connection.open_stream(ECHO) for _ in range(20)]
        writing = [current_loop().create_task(write_on(stream)) for stream in streams]
        await current_loop().pass_time(60)
        shares = [len(link.sent_on(stream.id)) for stream in streams]
        assert min(shares) > 0.85 * max(shares) > 0
        connection.abort()
        results = await asyncio.gather(*writing, return_exceptions=True)
        assert {type(result) for result in results} == {ConnectionEndedError}
        assert not any(link.flagged(stream.id, FIN) for stream in streams)


async def write_on(stream: Stream) -> None:
    while True:
        await stream.write(bytes(100_000))
