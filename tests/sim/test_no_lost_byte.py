"""Whatever the sizes, the latency and the way a stream was opened: no byte is lost, and no close waits."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from aiolibp2p import Stream, Timeouts
from aiolibp2p.errors import NegotiationError
from aiolibp2p.sim import Link, Tuning, current_loop, current_net
from tests.support.hosts import ECHO, OTHER, sim_host, two_hosts
from tests.support.raw import NS

SIZES = [0, 1, 65_535, 65_536, 65_537, 300_000]
UNKNOWN = "/unknown/1.0.0"


def content(size: int) -> bytes:
    return hashlib.shake_256(b"content").digest(size)


@pytest.fixture(params=["loopback", "ragged", "slow"])
def network(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def set_network(name: str) -> None:
    net = current_net()
    if name == "ragged":
        net.tuning = Tuning(ragged=True, segment=1460, send_buffer=20_000, receive_buffer=20_000, read=5000)
    if name == "slow":
        net.set_link(Link(latency=0.04, bandwidth=20e6))


async def echo(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data)


@pytest.mark.parametrize("protocols", [(ECHO,), (UNKNOWN, ECHO)], ids=["lazy", "eager"])
async def test_an_echo_after_half_close_comes_back_whole(protocols: tuple[str, ...], network: str) -> None:
    set_network(network)
    async with sim_host("alice") as alice, sim_host("bob") as bob:
        bob.handle(ECHO, echo)
        connection = await alice.connect(bob.addresses[0])

        async def ask(size: int) -> bytes:
            stream = await connection.open_stream(*protocols)
            writing = current_loop().create_task(write_all(stream, content(size)))
            received = b"".join([data async for data in stream])
            await writing
            stream.close()
            await stream.wait_closed()
            return received

        assert await asyncio.gather(*(ask(size) for size in SIZES)) == [content(size) for size in SIZES]
        assert connection.streams == connection.tombstones == []


async def write_all(stream: Stream, data: bytes) -> None:
    await stream.write(data)
    stream.close_write()


@pytest.mark.parametrize("protocols", [(ECHO,), (UNKNOWN, ECHO)], ids=["lazy", "eager"])
async def test_what_was_written_before_close_arrives_whole(protocols: tuple[str, ...], network: str) -> None:
    received: dict[int, bytes] = {}

    async def collect(stream: Stream) -> None:
        data = b"".join([data async for data in stream])
        received[len(data)] = data

    set_network(network)
    async with sim_host("alice") as alice, sim_host("bob") as bob:
        bob.handle(ECHO, collect)
        connection = await alice.connect(bob.addresses[0])

        async def send(size: int) -> None:
            stream = await connection.open_stream(*protocols)
            await stream.write(content(size))
            before = current_loop().time_ns()
            stream.close()
            assert current_loop().time_ns() == before
            await stream.wait_closed()

        await asyncio.gather(*(send(size) for size in SIZES))
        await current_loop().settle()
        assert received == {size: content(size) for size in SIZES}
        assert connection.streams == connection.tombstones == []


async def test_a_refusal_after_close_is_told_to_the_next_who_asks(network: str) -> None:
    set_network(network)
    async with two_hosts() as (_alice, bob, connection):
        bob.handle(OTHER, echo)
        await current_loop().pass_time(1)
        bob._handlers.pop(OTHER)  # it has said OTHER, and now refuses it
        lazy = await connection.open_stream(UNKNOWN, OTHER)
        assert lazy.lazy
        await lazy.write(b"never used")
        lazy.close()
        with pytest.raises(NegotiationError):
            await lazy.wait_closed()
        assert connection.refused == {OTHER}
        with pytest.raises(NegotiationError):  # this time it is asked
            await connection.open_stream(UNKNOWN, OTHER)


@pytest.mark.parametrize("how", ["close", "close_write", "reset", "leave"])
async def test_nothing_that_ends_a_stream_takes_time(how: str) -> None:
    current_net().set_link(Link(latency=0.5))
    async with two_hosts(timeouts=Timeouts(stream_idle=1000)) as (_alice, bob, connection):
        bob.handle(ECHO, echo)
        stream = await connection.open_stream(ECHO)
        await stream.write(bytes(1000))
        started_ns = current_loop().time_ns()
        if how == "leave":
            async with stream:
                pass
        else:
            getattr(stream, how)()
        assert current_loop().time_ns() == started_ns
        await current_loop().pass_time(3)
        if how == "close_write":
            stream.close()
            await current_loop().pass_time(3)
        assert connection.streams == connection.tombstones == []
        assert current_loop().time_ns() < started_ns + 7 * NS
