"""One connection: opening in turn, what the peer says of the end, and what a callback may do at any time."""

from __future__ import annotations

import asyncio

import pytest

from aiolibp2p import Limits, Stream, Timeouts
from aiolibp2p.errors import ConnectionEndedError, LimitError, LocalProtocolError
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import FIN, GO_AWAY, RST, SYN
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.hosts import ECHO, OTHER, accepted, against_raw, raw_peer, sim_host, two_hosts
from tests.support.raw import NS
from tests.support.scripts import initiating


async def test_room_that_a_cancelled_open_was_woken_for_goes_to_the_next() -> None:
    async with against_raw(limits=Limits(streams_per_connection=3)) as (_, _link, connection):
        loop = current_loop()
        streams = [await connection.open_stream(ECHO) for _ in range(2)]
        first = loop.create_task(connection.open_stream(ECHO))
        second = loop.create_task(connection.open_stream(ECHO))
        await loop.settle()
        streams[0].reset()
        first.cancel()
        await loop.settle()
        assert first.cancelled()
        assert second.done()
        await second


async def test_those_who_wait_to_open_go_in_the_order_in_which_they_came() -> None:
    async with against_raw(limits=Limits(streams_per_connection=2)) as (_, _link, connection):
        loop = current_loop()
        await loop.pass_time(6)
        streams = [await connection.open_stream(ECHO) for _ in range(2)]
        opened: list[int] = []

        async def open_one(number: int) -> None:
            streams.append(await connection.open_stream(ECHO))
            opened.append(number)

        waiting = [loop.create_task(open_one(number)) for number in range(5)]
        await loop.settle()
        for count in range(1, 6):
            streams.pop(0).reset()
            await loop.settle()
            assert opened == list(range(count))
        await asyncio.gather(*waiting)


async def test_a_goaway_refuses_new_streams_and_lets_the_open_ones_go_on() -> None:
    async with accepted() as (host, link, stream):
        connection = stream.connection
        link.go_away()
        await current_loop().settle()
        for opening in (connection.open_stream(ECHO), connection.open_stream(ECHO, OTHER)):
            with pytest.raises(ConnectionEndedError) as caught:
                await opening
            assert (caught.value.by, caught.value.stage) == ("remote", "open stream")
        link.send_data(stream.id, b"still here")
        assert await stream.read() == b"still here"
        await stream.write(b"and here")
        assert connection.ended is None
        assert host.connections == [connection]


async def test_a_goaway_wakes_those_who_wait_to_open() -> None:
    async with against_raw(limits=Limits(streams_per_connection=1)) as (_, link, connection):
        opening = current_loop().create_task(connection.open_stream(ECHO))
        await current_loop().settle()
        link.go_away()
        await current_loop().settle()
        link.rst(1)
        with pytest.raises(ConnectionEndedError):
            await opening
        assert current_loop().time_ns() == 0


@pytest.mark.parametrize("code", [1, 2, 77])
async def test_a_goaway_with_an_error_code_ends_the_connection_with_it(code: int) -> None:
    async with accepted() as (_, link, stream):
        link.go_away(code)
        with pytest.raises(ConnectionEndedError) as caught:
            await stream.read()
        assert (caught.value.by, caught.value.code) == ("remote", code)
        assert stream.connection.ended is caught.value


async def test_a_peer_that_closes_its_socket_ended_the_connection() -> None:
    async with accepted() as (host, link, stream):
        link.transport.close()
        with pytest.raises(ConnectionEndedError) as caught:
            await stream.read()
        assert caught.value.by == "remote"
        await stream.connection.wait_closed()
        assert host.connections == []


async def test_a_reset_of_the_socket_ended_the_connection() -> None:
    async with accepted() as (_, link, stream):
        current_net().connection_of(link.transport).reset()
        with pytest.raises(ConnectionEndedError) as caught:
            await stream.read()
        assert caught.value.by == "remote"
        assert "reset" in str(caught.value)


async def test_close_lets_what_is_queued_leave_first_and_then_says_goodbye() -> None:
    current_net().set_link(Link(latency=0.01, bandwidth=100e6))
    async with sim_host("ours") as host, raw_peer() as peer:
        connection = await host.connect(peer.address)
        link = await peer.link()
        stream = await connection.open_stream(ECHO)
        await stream.write(bytes(200_000))
        connection.close()
        with pytest.raises(ConnectionEndedError) as caught:
            await stream.write(b"x")
        assert caught.value.by == "local"
        await connection.wait_closed()
        await link.closed()
        assert link.sent_on(stream.id) == proposal(ECHO) + bytes(200_000)
        assert (link.frames[-1].kind, link.frames[-1].length) == (GO_AWAY, 0)


async def test_what_happened_is_counted_in_bytes() -> None:
    async with accepted() as (_, link, stream):
        connection = stream.connection
        before = connection.bytes_in, connection.bytes_out
        link.send_data(stream.id, bytes(1000))
        await stream.write(bytes(2000))
        await current_loop().settle()
        assert 1000 < connection.bytes_in - before[0] < 1100
        assert 2000 < connection.bytes_out - before[1] < 2100
        assert connection.opened_at > 0


async def test_what_fits_into_a_turn_leaves_as_one_segment() -> None:
    async with accepted() as (_, _link, stream):
        tap = current_net().tap()
        for _ in range(10):
            await stream.write(b"piece")
        stream.close_write()
        await current_loop().settle()
        assert len(tap.sent_by("client")) == 1


async def test_the_stream_with_the_most_unread_bytes_is_reset_when_a_connection_holds_too_many() -> None:
    async with accepted(limits=Limits(connection_unread_bytes=300_000)) as (_, link, greedy):
        modest = await greedy.connection.open_stream(OTHER)
        await current_loop().settle()
        link.answer(modest.id, OTHER)
        link.send_data(modest.id, bytes(100_000))
        for _ in range(5):
            link.send_data(greedy.id, bytes(50_000))
        await current_loop().settle()
        assert link.flagged(greedy.id, RST)
        assert not link.flagged(modest.id, RST)
        assert len(await modest.read_exactly(100_000)) == 100_000
        assert greedy.connection.ended is None
        modest.reset()


async def test_a_peer_that_asks_without_reading_the_answers_is_cut_off() -> None:
    limits = Limits(connection_control_bytes=24_000, transport_buffer_bytes=10_000)
    async with against_raw(limits=limits, timeouts=Timeouts(keepalive=1000)) as (host, link, connection):
        link.answers_pings = False
        current_net().connection_of(link.transport).stop_reading("server")
        for _ in range(200):
            for _ in range(500):
                link.send_frame(2, SYN, 0, 7)
            await current_loop().settle()
            if connection.ended is not None:
                break
        assert connection.ended is not None
        assert host.connections == []


async def test_a_callback_may_end_anything_at_any_time() -> None:
    async with against_raw() as (_, link, connection):
        loop = current_loop()
        streams = [await connection.open_stream(ECHO) for _ in range(6)]
        for stream in streams:
            link.answer(stream.id, ECHO)
        await loop.settle()
        actions = [
            lambda: streams[1].reset(),
            lambda: streams[1].close(),
            lambda: streams[5].close(),
            lambda: streams[3].on_readable(None),
            connection.close,
            connection.abort,
        ]
        for stream, action in zip(streams, actions, strict=True):
            stream.on_readable(action)
        for stream in streams:
            link.send_data(stream.id, b"x")
        await loop.settle()
        assert connection.ended is not None
        assert connection.streams == connection.tombstones == []


async def test_open_now_refuses_where_open_stream_would_wait() -> None:
    async with against_raw(limits=Limits(streams_per_connection=1)) as (_, _link, connection):
        with pytest.raises(LimitError):
            connection.open_now(ECHO)
        await connection.open_stream(ECHO)
        assert current_loop().time_ns() == 5 * NS  # identify has given up
        connection.close()
        with pytest.raises(ConnectionEndedError):
            connection.open_now(ECHO)
        with pytest.raises(LocalProtocolError):
            await connection.open_stream()


async def test_streams_opened_in_both_directions_at_once_do_not_meet() -> None:
    async def answer(stream: Stream) -> None:
        await stream.write(await stream.read())

    async with two_hosts() as (alice, bob, connection):
        for host in (alice, bob):
            host.handle(ECHO, answer)

        async def ask(host, number: int) -> None:  # type: ignore[no-untyped-def]
            stream = await host.connections[0].open_stream(ECHO)
            await stream.write(str(number).encode())
            assert await stream.read() == str(number).encode()
            stream.close()

        await asyncio.gather(*(ask(host, number) for number in range(200) for host in (alice, bob)))
        await current_loop().settle()
        assert connection.streams == []
        assert len(bob.connections[0].streams) == 0


async def test_a_handler_that_returns_at_once_does_not_cut_its_answer() -> None:
    async def short(stream: Stream) -> None:
        await stream.write(b"answer")

    async with sim_host("ours") as host, raw_peer(initiating()) as peer:
        host.handle(ECHO, short)
        link = await peer.dial(host.addresses[0])
        link.send_data(1, proposal(ECHO) + b"what is never read", SYN)
        await current_loop().settle()
        assert link.sent_on(1) == proposal(ECHO) + b"answer"
        assert link.flagged(1, FIN) == [0]
        link.send_data(1, bytes(100_000))  # may still come, and costs nothing
        await current_loop().pass_time(9)
        link.fin(1)
        await current_loop().settle()
        assert not link.flagged(1, RST)
        assert host.connections[0].tombstones == []
        assert current_loop().time_ns() == 9 * NS
