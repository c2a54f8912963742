"""Ping: answers repeatedly, one stream a connection, at most two inbound a peer."""

from __future__ import annotations

import asyncio

import pytest

from aiolibp2p import Host, Limits, Timeouts
from aiolibp2p.errors import DeadlineError, NegotiationError, RemoteProtocolError, StreamResetError
from aiolibp2p.protocols.ping import PROTOCOL
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import FIN, RESOURCE_LIMIT, RST, SYN, WINDOW_UPDATE
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.hosts import ECHO, against_raw, other_tasks, raw_peer, sim_host, two_hosts
from tests.support.raw import NS, Frame, RawLink
from tests.support.refusals import reached
from tests.support.scripts import initiating

HEADER = proposal(PROTOCOL)


def answering(link: RawLink) -> None:
    """Let a raw peer serve ping."""
    headed: set[int] = set()

    def answer(frame: Frame) -> None:
        if HEADER in frame.body:
            headed.add(frame.stream_id)
            link.send_data(frame.stream_id, frame.body)
        elif frame.body and frame.stream_id in headed:
            link.send_data(frame.stream_id, frame.body)

    link.on_frame = answer


async def test_a_ping_is_the_round_trip() -> None:
    async with two_hosts() as (alice, bob, _connection):
        current_net().set_link(Link(latency=0.05))
        assert await alice.ping(bob.peer_id) == 0.1
        assert await bob.ping(alice.peer_id) == 0.1


@pytest.mark.conforms("P2")
async def test_many_pings_use_one_stream_and_no_task() -> None:
    async with two_hosts() as (alice, bob, connection):
        await alice.ping(bob.peer_id)
        streams, tasks = connection.streams, other_tasks()
        for _ in range(100):
            await alice.ping(bob.peer_id)
        assert connection.streams == streams
        assert other_tasks() == tasks
        assert bob._ping_responder._open == {alice.peer_id: 1}


async def test_pings_at_once_are_answered_in_order_on_one_stream() -> None:
    current_net().set_link(Link(latency=0.01))
    async with two_hosts() as (alice, bob, connection):
        tasks = [current_loop().create_task(alice.ping(bob.peer_id)) for _ in range(50)]
        assert {round(seconds, 6) for seconds in await asyncio.gather(*tasks)} == {0.02}
        assert len([stream for stream in connection.streams if stream.protocol == PROTOCOL]) == 1


async def test_a_cancelled_ping_takes_its_answer_with_it() -> None:
    async with two_hosts() as (alice, bob, _connection):
        current_net().set_link(Link(latency=0.05))
        first = current_loop().create_task(alice.ping(bob.peer_id))
        second = current_loop().create_task(alice.ping(bob.peer_id))
        await current_loop().pass_time(0.01)
        first.cancel()
        assert await second == 0.1
        assert await alice.ping(bob.peer_id) == 0.1


@pytest.mark.conforms("P3")
async def test_a_responder_that_closed_a_quiet_stream_costs_a_new_one_and_no_error() -> None:
    async with against_raw() as (host, link, connection):
        answering(link)
        await host.ping(connection.peer_id)
        first = await link.stream_for(PROTOCOL)
        link.fin(first)
        await current_loop().settle()
        await host.ping(connection.peer_id)
        assert await link.stream_for(PROTOCOL) != first
        await current_loop().settle()
        assert link.flagged(first, FIN | RST)


async def test_a_responder_that_resets_while_a_question_is_on_its_way_costs_a_new_stream() -> None:
    current_net().set_link(Link(latency=0.05))
    async with against_raw() as (host, link, connection):
        await current_loop().pass_time(1)
        answering(link)
        await host.ping(connection.peer_id)
        link.rst(await link.stream_for(PROTOCOL))
        await host.ping(connection.peer_id)
        assert len({frame.stream_id for frame in link.frames if HEADER in frame.body}) == 2


async def test_a_responder_that_resets_every_stream_is_an_error() -> None:
    def refuse(frame: Frame) -> None:
        if frame.body:
            link.rst(frame.stream_id)

    async with against_raw() as (host, link, connection):
        await current_loop().pass_time(6)
        link.on_frame = refuse
        with pytest.raises(StreamResetError):
            await host.ping(connection.peer_id)


async def test_a_peer_without_ping_refuses() -> None:
    def refuse(frame: Frame) -> None:
        if HEADER in frame.body:
            link.refuse(frame.stream_id)

    async with against_raw() as (host, link, connection):
        link.on_frame = refuse
        with pytest.raises(NegotiationError) as caught:
            await host.ping(connection.peer_id)
        assert caught.value.offered == (PROTOCOL,)


@pytest.mark.parametrize("answer", [bytes(32), b"\x01" * 31 + b"\x02", bytes(64)])
@pytest.mark.conforms("P3")
async def test_another_answer_than_the_question_breaks_the_protocol(answer: bytes) -> None:
    def lie(frame: Frame) -> None:
        if HEADER in frame.body:
            link.send_data(frame.stream_id, HEADER + answer)

    async with against_raw() as (host, link, connection):
        link.on_frame = lie
        with pytest.raises(RemoteProtocolError) as caught:
            await host.ping(connection.peer_id)
        assert caught.value.protocol == "ping"


async def test_an_answer_in_pieces_is_one() -> None:
    def stutter(frame: Frame) -> None:
        for byte in frame.body:
            link.send_data(frame.stream_id, bytes((byte,)))

    async with against_raw() as (host, link, connection):
        await current_loop().pass_time(6)
        link.on_frame = stutter
        assert await host.ping(connection.peer_id) == 0


async def test_a_ping_over_a_busy_connection_is_answered() -> None:
    async def sink(stream) -> None:  # type: ignore[no-untyped-def]
        async for _ in stream:
            pass

    async with two_hosts() as (alice, bob, connection):
        current_net().set_link(Link(latency=0.001, bandwidth=100e6))
        bob.handle(ECHO, sink)
        streams = [await connection.open_stream(ECHO) for _ in range(8)]
        writing = [current_loop().create_task(stream.write(bytes(1 << 20))) for stream in streams]
        for _ in range(5):
            await current_loop().pass_time(0.01)
            assert await alice.ping(bob.peer_id) < 1
        await asyncio.gather(*writing)
        for stream in streams:
            stream.close()


async def test_pings_that_cannot_leave_end_at_ping_like_those_under_way() -> None:
    timeouts, limits = Timeouts(keepalive=1000), Limits(connection_send_bytes=100_000)
    async with against_raw(timeouts=timeouts, limits=limits) as (host, link, connection):
        loop = current_loop()
        first = loop.create_task(host.ping(connection.peer_id))
        await loop.settle()
        current_net().connection_of(link.transport).stop_reading("server")
        for _ in range(16):
            stream = await connection.open_stream(ECHO)
            while stream.try_write(bytes(65536)):
                await loop.settle()
        second = loop.create_task(host.ping(connection.peer_id))
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(result) for result in results] == [DeadlineError] * 2
        assert loop.time_ns() == 10 * NS


# -- answering ---------------------------------------------------------------------------------------------------------


async def inbound(host: Host, peer) -> RawLink:  # type: ignore[no-untyped-def]
    link: RawLink = await peer.dial(host.addresses[0])
    await current_loop().settle()
    return link


@pytest.mark.conforms("P1")
async def test_the_answer_leaves_in_the_instant_of_the_question_and_repeatedly() -> None:
    async with sim_host("ours") as host, raw_peer(initiating()) as peer:
        link = await inbound(host, peer)
        link.send_data(1, HEADER, SYN)
        sent = HEADER
        for number in range(200):
            question = bytes((number,)) * 32
            link.send_data(1, question)
            sent += question
            await current_loop().settle()
        assert link.sent_on(1) == sent
        link.fin(1)
        await current_loop().settle()
        assert link.flagged(1, FIN) == [0]
        assert host._ping_responder._open == {}


@pytest.mark.conforms("P2")
async def test_two_streams_of_a_peer_are_served_over_all_its_connections_and_a_third_is_reset() -> None:
    async with sim_host("ours") as host, raw_peer(initiating()) as peer, raw_peer(initiating(), "b") as other:
        links = [await inbound(host, peer) for _ in range(2)]
        links[0].send_data(1, HEADER, SYN)
        links[1].send_data(1, HEADER, SYN)
        links[1].send_data(3, HEADER, SYN)
        elsewhere = await inbound(host, other)
        elsewhere.send_data(1, HEADER, SYN)
        await current_loop().settle()
        resets = [(f.stream_id, f.length) for f in links[1].frames if f.flags & RST]
        assert resets == [(3, RESOURCE_LIMIT)]
        assert reached(host.refusals) == {"ping_streams": 1}
        assert host._ping_responder._open == {peer.peer_id: 2, other.peer_id: 1}
        links[0].transport.abort()
        await current_loop().settle()
        links[1].send_data(5, HEADER + bytes(32), SYN)
        await current_loop().settle()
        assert links[1].sent_on(5) == HEADER + bytes(32)


async def test_a_peer_that_pings_without_reading_holds_its_credit_and_no_more() -> None:
    async with sim_host("ours") as host, raw_peer(initiating()) as peer:
        link = await inbound(host, peer)
        link.reads = False
        link.send_data(1, HEADER, SYN)
        for _ in range(7):
            link.send_data(1, bytes(32768))
        await current_loop().settle()
        received = len(link.sent_on(1))
        assert received == len(HEADER) + 7 * 32768
        for _ in range(8):
            link.send_data(1, bytes(16384))
        await current_loop().settle()
        assert len(link.sent_on(1)) == 256 << 10
        link.send_frame(WINDOW_UPDATE, 0, 1, 1 << 20)
        await current_loop().settle()
        assert len(link.sent_on(1)) == len(HEADER) + 7 * 32768 + 8 * 16384


async def test_a_silent_ping_stream_is_reset_at_stream_idle() -> None:
    async with sim_host("ours") as host, raw_peer(initiating()) as peer:
        link = await inbound(host, peer)
        link.send_data(1, HEADER, SYN)
        await current_loop().pass_time(121)
        assert link.flagged(1, RST) == [120 * NS]
        assert host._ping_responder._open == {}
