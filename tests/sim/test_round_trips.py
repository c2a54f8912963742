"""How many round trips things take, at 50 ms each way and unlimited bandwidth, exactly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from aiolibp2p import Host, Stream
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.hosts import ECHO, OTHER, sim_host

ROUND_TRIP_NS = 100_000_000
UNKNOWN = "/unknown/1.0.0"


async def echo(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data)


@asynccontextmanager
async def apart() -> AsyncIterator[tuple[Host, Host]]:
    """Give two hosts 50 ms apart that do not know each other; the second one echoes."""
    current_net().set_link(Link(latency=0.05))
    async with sim_host("alice") as alice, sim_host("bob") as bob:
        bob.handle(ECHO, echo)
        yield alice, bob


async def took_ns(doing: Awaitable[object]) -> int:
    """Return the virtual time that something takes."""
    start_ns = current_loop().time_ns()
    await doing
    return current_loop().time_ns() - start_ns


async def answer(stream: Stream) -> None:
    """Ask on a stream and read the first byte of the answer."""
    await stream.write(b"?")
    assert await stream.read_exactly(1) == b"?"
    stream.close()


async def test_a_connection_takes_two_round_trips_and_identify_is_not_waited_for() -> None:
    async with apart() as (alice, bob):
        assert await took_ns(alice.connect(bob.addresses[0])) == 200_000_000
        (connection,) = alice.connections
        assert connection.identify is None
        assert await took_ns(alice.identify(bob.peer_id)) == ROUND_TRIP_NS


async def test_from_the_dial_to_the_first_answered_byte_takes_three_round_trips() -> None:
    """One of TCP; one of Noise, proposed together with its first message; one of message 3 with all that follows it."""
    async with apart() as (alice, bob):
        tap = current_net().tap()

        async def ask() -> None:
            await answer(await alice.open_stream(bob.addresses[0], ECHO))

        assert await took_ns(ask()) == 300_000_000
        # Message 3, identify and the question leave at one instant.
        assert [sent.at_ns for sent in tap.segments if sent.by == "client" and sent.kind == "data"] == [
            100_000_000,
            200_000_000,
            200_000_000,
        ]


async def test_without_an_early_muxer_it_takes_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiolibp2p.net.swarm.MUXERS", ())  # bob names no muxer in his handshake, as rust-libp2p does
    async with apart() as (alice, bob):

        async def ask() -> None:
            await answer(await alice.open_stream(bob.addresses[0], ECHO))

        assert await took_ns(ask()) == 300_000_000


async def test_a_further_stream_takes_one_round_trip() -> None:
    async with apart() as (alice, bob):
        connection = await alice.connect(bob.addresses[0])
        await answer(await connection.open_stream(ECHO))

        async def ask() -> None:
            await answer(await connection.open_stream(ECHO))

        for _ in range(3):
            assert await took_ns(ask()) == 100_000_000


async def test_the_one_who_was_dialled_needs_no_more() -> None:
    async with apart() as (alice, bob):
        alice.handle(ECHO, echo)
        await alice.connect(bob.addresses[0])
        await current_loop().pass_time(1)
        (connection,) = bob.connections

        async def ask() -> None:
            await answer(await connection.open_stream(ECHO))

        assert await took_ns(ask()) == 100_000_000


async def test_of_several_protocols_what_identify_named_is_opened_without_asking() -> None:
    async with apart() as (alice, bob):
        connection = await alice.connect(bob.addresses[0])
        await alice.identify(bob.peer_id)
        assert await took_ns(connection.open_stream(UNKNOWN, ECHO)) == 0
        assert await took_ns(alice.open_stream(bob.peer_id, ECHO)) == 0


async def test_of_several_protocols_of_an_unknown_peer_each_refusal_costs_one_round_trip() -> None:
    async with apart() as (alice, bob):
        connection = await alice.connect(bob.addresses[0])
        assert await took_ns(connection.open_stream(UNKNOWN, OTHER, ECHO)) == 300_000_000


async def test_a_ping_takes_one_round_trip_the_first_time_too() -> None:
    async with apart() as (alice, bob):
        connection = await alice.connect(bob.addresses[0])
        for _ in range(3):
            assert await took_ns(alice.ping(bob.peer_id)) == 100_000_000
        await alice.disconnect(bob.peer_id)
        assert await took_ns(alice.ping(bob.peer_id)) == 300_000_000
        assert connection.ended is not None


async def test_closing_takes_no_time_and_its_end_is_known_after_one_round_trip() -> None:
    async with apart() as (alice, bob):
        connection = await alice.connect(bob.addresses[0])
        stream = await connection.open_stream(ECHO)
        await answer(stream)
        assert await took_ns(stream.wait_closed()) == 100_000_000
        assert await took_ns(alice.disconnect(bob.peer_id)) == 0
