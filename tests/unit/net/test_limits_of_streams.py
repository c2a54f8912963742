"""What is held for streams, each at the edge of its limit: one more is refused, ended or dropped, and counted."""

from __future__ import annotations

import pytest

from aiolibp2p import Limits, Stream, Timeouts
from aiolibp2p.errors import LimitError, StreamResetError
from aiolibp2p.net.events import LimitReached
from aiolibp2p.net.link import FLUSH_BYTES
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import INITIAL_WINDOW_BYTES, RST, SYN
from aiolibp2p.sim import current_loop, current_net
from tests.support.hosts import ECHO, OTHER, accepted, against_raw, raw_peer, sim_host
from tests.support.raw import RawLink
from tests.support.refusals import reached
from tests.support.scripts import initiating, responding

WINDOW = INITIAL_WINDOW_BYTES


async def waiting(stream: Stream) -> None:
    await stream.read()


async def unread(stream: Stream) -> None:
    await current_loop().create_future()


@pytest.mark.parametrize("limit", ["streams", "streams_per_peer"])
async def test_the_last_stream_is_opened_and_one_more_is_refused_and_counted(limit: str) -> None:
    async with against_raw(limits=Limits(**{limit: 3})) as (host, _link, connection):
        await current_loop().pass_time(6)  # identify has given up
        streams = [await connection.open_stream(ECHO) for _ in range(3)]
        assert reached(host.refusals) == {}
        for opening in (connection.open_stream(ECHO), host.open_stream(connection.peer_id, ECHO, OTHER)):
            with pytest.raises(LimitError) as caught:
                await opening
            assert (caught.value.limit, caught.value.stage) == (limit, "open stream")
        assert reached(host.refusals) == {limit: 2}
        streams[0].reset()
        await connection.open_stream(ECHO)
        assert reached(host.refusals) == {limit: 2}


@pytest.mark.parametrize("limit", ["streams_per_connection", "yamux_ack_backlog"])
async def test_where_open_now_cannot_wait_it_names_what_it_would_wait_for(limit: str) -> None:
    async def not_accepting(link: RawLink) -> None:
        link.accepts = link.reads = False
        await responding()(link)

    async with against_raw(not_accepting, limits=Limits(**{limit: 2})) as (host, _link, connection):
        connection.open_now(ECHO)  # beside the question of identify
        assert reached(host.refusals) == {}
        with pytest.raises(LimitError) as caught:
            connection.open_now(ECHO)
        assert caught.value.limit == limit
        assert reached(host.refusals) == {limit: 1}


@pytest.mark.parametrize("limit", ["tombstones_per_connection", "tombstones"])
async def test_a_tombstone_more_than_there_may_be_is_counted(limit: str) -> None:
    async with against_raw(limits=Limits(**{limit: 3})) as (host, _link, connection):
        streams = [await connection.open_stream(ECHO) for _ in range(5)]
        for stream in streams[:3]:
            stream.close()
        assert connection.tombstones == streams[:3]
        assert reached(host.refusals) == {}
        for stream in streams[3:]:
            stream.close()
        assert connection.tombstones == streams[2:]
        assert reached(host.refusals) == {limit: 2}
        assert host._swarm.counts.tombstones == 3


async def test_unread_bytes_are_counted_for_a_connection_and_the_loser_is_told_whose_limit_it_was() -> None:
    async with accepted(limits=Limits(connection_unread_bytes=100_000)) as (host, link, stream):
        link.send_data(stream.id, bytes(50_000))
        link.send_data(stream.id, bytes(50_000))
        await current_loop().settle()
        assert reached(host.refusals) == {}
        link.send_data(stream.id, b"1")
        await current_loop().settle()
        assert reached(host.refusals) == {"connection_unread_bytes": 1}
        with pytest.raises(StreamResetError) as caught:
            await stream.read()
        assert caught.value.by == "local"
        assert len(link.flagged(stream.id, RST)) == 1


async def test_of_a_peer_that_fills_all_its_windows_no_more_is_held_than_may_lie_unread() -> None:
    """Fifty streams of 256 KiB are 12.5 MiB of credit; half a megabyte may lie unread."""
    limits = Limits(connection_unread_bytes=512 << 10)
    async with sim_host("ours", limits=limits) as host, raw_peer(initiating()) as peer:
        host.handle(ECHO, unread)
        link = await peer.dial(host.addresses[0])
        most = 0
        for number in range(1, 101, 2):
            link.send_data(number, proposal(ECHO), SYN)
            for _ in range(4):
                link.send_data(number, bytes(WINDOW // 4 - 100))
                await current_loop().settle()
                session = host.connections[0]._muxer._session  # type: ignore[attr-defined]
                most = max(most, session.unread_bytes)
                held = sum(len(chunk) for stream in session.streams.values() for chunk in stream.chunks)
                assert held == session.unread_bytes
        assert most <= limits.connection_unread_bytes
        assert host.refusals["connection_unread_bytes"] >= 48
        assert host.connections[0].ended is None
        left = [stream for stream in host.connections[0].streams if stream.inbound]
        assert len(left) == 50 - host.refusals["connection_unread_bytes"]


async def test_in_front_of_a_socket_that_takes_nothing_no_more_is_encrypted_than_the_buffer_holds() -> None:
    limits = Limits(transport_buffer_bytes=20_000, connection_send_bytes=1 << 20)
    async with accepted(limits=limits, timeouts=Timeouts(keepalive=1000)) as (_, link, stream):
        current_net().connection_of(link.transport).stop_reading("server")
        transport = stream.connection._muxer.transport  # type: ignore[attr-defined]
        link.send_frame(1, 0, stream.id, 8 << 20)
        await current_loop().settle()
        most = 0
        for _ in range(200):
            stream.try_write(bytes(20_000))
            await current_loop().settle()
            most = max(most, transport.get_write_buffer_size())
        assert transport.get_write_buffer_size() > 20_000
        # What was encrypted in the turn in which the buffer was not full yet is there too.
        assert most <= 20_000 + FLUSH_BYTES + 1000
        assert stream.connection._muxer.room == 0, "and then the connection's own queue is full"


async def test_a_flood_of_refused_streams_is_one_event_and_pushes_out_no_other() -> None:
    async with sim_host("ours", limits=Limits(handlers=2, events=4)) as host, raw_peer(initiating()) as peer:
        host.handle(ECHO, waiting)
        link = await peer.dial(host.addresses[0])
        await current_loop().settle()
        events = host.events()
        for number in range(1, 2001, 2):
            link.send_data(number, proposal(ECHO), SYN)
            if number % 100 == 1:
                await current_loop().settle()
        await current_loop().settle()
        assert reached(host.refusals) == {"handlers": 998}
        assert (len(events._events), events.missed) == (1, 0)
        assert await anext(events) == LimitReached("handlers", 998)
