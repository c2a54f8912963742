"""Every wait on a stream or a connection ends at its field of Timeouts, exactly."""

from __future__ import annotations

import asyncio
import math

import pytest

from aiolibp2p import Limits, Stream, Timeouts
from aiolibp2p.errors import DeadlineError, LimitError, StreamResetError
from aiolibp2p.net.events import HandlerFailed
from aiolibp2p.sansio.multistream import HEADER, proposal
from aiolibp2p.sansio.yamux import ACK, DATA, PING, RST, SYN, WINDOW_UPDATE
from aiolibp2p.sim import current_loop, current_net
from tests.support.hosts import ECHO, OTHER, against_raw, raw_peer, sim_host
from tests.support.raw import NS, RawLink
from tests.support.scripts import MUXED, initiating, responding

WINDOW = 256 << 10


async def not_accepting(link: RawLink) -> None:
    link.accepts = link.reads = False
    await responding()(link)


async def accepted_stream(link: RawLink, stream: Stream) -> Stream:
    """Let the peer accept a stream's protocol."""
    await current_loop().settle()
    link.answer(stream.id, stream.protocol)
    await current_loop().settle()
    return stream


@pytest.mark.conforms("M9")
async def test_eager_opening_that_is_never_answered_ends_at_negotiate_with_a_reset() -> None:
    async with against_raw() as (_, link, connection):
        with pytest.raises(DeadlineError) as caught:
            await connection.open_stream(ECHO, OTHER)
        assert current_loop().time_ns() == 10 * NS
        assert (caught.value.deadline, caught.value.stage) == ("negotiate", "protocol negotiation")
        await current_loop().settle()
        number = await link.stream_for(ECHO)
        assert link.flagged(number, RST) == [10 * NS]
        assert connection.streams == []


async def test_an_answer_that_trickles_does_not_prolong_negotiate() -> None:
    async with against_raw() as (_, link, connection):
        opening = current_loop().create_task(connection.open_stream(ECHO, OTHER))
        await current_loop().settle()
        number = await link.stream_for(ECHO)
        for byte in HEADER:
            await current_loop().pass_time(1)
            if not link.flagged(number, RST):
                link.send_data(number, bytes((byte,)))
        with pytest.raises(DeadlineError):
            await opening
        assert link.flagged(number, RST) == [10 * NS]


async def test_a_cancelled_eager_opening_resets_its_stream() -> None:
    async with against_raw() as (_, link, connection):
        opening = current_loop().create_task(connection.open_stream(ECHO, OTHER))
        await current_loop().pass_time(1)
        opening.cancel()
        await current_loop().settle()
        assert link.flagged(await link.stream_for(ECHO), RST) == [1 * NS]
        assert len(connection.streams) == 1  # identify


@pytest.mark.conforms("M9")
async def test_an_inbound_stream_that_never_negotiates_is_reset_at_negotiate() -> None:
    async with sim_host("ours") as host, raw_peer(initiating(MUXED)) as peer:
        link = await peer.dial(host.addresses[0])
        link.send_frame(WINDOW_UPDATE, SYN, 101)
        link.send_data(103, HEADER[:5], SYN)
        link.send_data(105, proposal("/nobody/speaks/it"), SYN)
        await current_loop().pass_time(9)
        link.send_data(103, HEADER[5:])
        await current_loop().pass_time(20)
        assert [link.flagged(number, RST) for number in (101, 103, 105)] == [[10 * NS]] * 3
        assert host.connections[0].streams == []


async def test_opening_beyond_the_ack_backlog_ends_at_open_stream() -> None:
    async with against_raw(not_accepting) as (_, _link, connection):
        await current_loop().pass_time(6)
        for _ in range(256):
            await connection.open_stream(ECHO)
        assert current_loop().time_ns() == 6 * NS
        with pytest.raises(DeadlineError) as caught:
            await connection.open_stream(ECHO)
        assert current_loop().time_ns() == 21 * NS
        assert (caught.value.deadline, caught.value.stage) == ("open_stream", "open stream")
        assert not connection._open_waiters


async def test_an_acknowledgement_lets_one_waiting_open_through() -> None:
    async with against_raw(not_accepting, limits=Limits(yamux_ack_backlog=4)) as (_, link, connection):
        loop = current_loop()
        streams = [await connection.open_stream(ECHO) for _ in range(3)]
        waiting = [loop.create_task(connection.open_stream(ECHO)) for _ in range(2)]
        await loop.pass_time(1)
        link.send_frame(WINDOW_UPDATE, ACK, streams[0].id)
        await loop.settle()
        assert [task.done() for task in waiting] == [True, False]
        link.send_frame(WINDOW_UPDATE, ACK, streams[1].id)
        await waiting[1]
        assert loop.time_ns() == 1 * NS


@pytest.mark.conforms("Y18")
async def test_before_the_peer_has_spoken_ten_streams_may_be_opened() -> None:
    async def mute(link: RawLink) -> None:
        link.answers_pings = False
        await not_accepting(link)

    async with against_raw(mute) as (_, link, connection):
        for _ in range(9):
            await connection.open_stream(ECHO)  # identify is the tenth
        opening = current_loop().create_task(connection.open_stream(ECHO))
        await current_loop().pass_time(10)
        assert not opening.done()
        link.send_frame(PING, ACK, 0, 99)
        await opening
        assert current_loop().time_ns() == 10 * NS


async def test_a_full_connection_makes_open_stream_wait() -> None:
    async with against_raw(limits=Limits(streams_per_connection=3)) as (_, _link, connection):
        await current_loop().pass_time(6)
        for _ in range(3):
            await connection.open_stream(ECHO)
        with pytest.raises(DeadlineError) as caught:
            await connection.open_stream(ECHO)
        assert caught.value.deadline == "open_stream"
        assert current_loop().time_ns() == 21 * NS


@pytest.mark.parametrize("limit", ["streams", "streams_per_peer"])
async def test_a_full_host_or_peer_refuses_a_stream_at_once(limit: str) -> None:
    async with against_raw(limits=Limits(**{limit: 2})) as (_, _link, connection):
        await connection.open_stream(ECHO)
        with pytest.raises(LimitError) as caught:
            await connection.open_stream(ECHO)
        assert caught.value.limit == limit
        assert current_loop().time_ns() == 0


async def test_a_read_without_a_byte_ends_at_stream_idle_and_the_stream_stays_usable() -> None:
    async with against_raw() as (_, link, connection):
        loop = current_loop()
        stream = await accepted_stream(link, await connection.open_stream(ECHO))
        with pytest.raises(DeadlineError) as caught:
            await stream.read()
        assert loop.time_ns() == 120 * NS
        assert (caught.value.deadline, caught.value.seconds, caught.value.stage) == ("stream_idle", 120.0, "read")
        link.send_data(stream.id, b"late")
        assert await stream.read() == b"late"
        stream.reset()


async def test_every_byte_starts_the_idle_time_again() -> None:
    async with against_raw() as (_, link, connection):
        loop = current_loop()
        stream = await accepted_stream(link, await connection.open_stream(ECHO))
        for _ in range(3):
            reading = loop.create_task(stream.read())
            await loop.pass_time(119)
            link.send_data(stream.id, b".")
            assert await reading == b"."
        with pytest.raises(DeadlineError):
            await stream.read()
        assert loop.time_ns() == (3 * 119 + 120) * NS
        stream.reset()


async def test_a_change_of_the_idle_timeout_reaches_a_read_that_waits() -> None:
    async with against_raw() as (_, link, connection):
        loop = current_loop()
        stream = await accepted_stream(link, await connection.open_stream(ECHO))
        reading = loop.create_task(stream.read())
        await loop.pass_time(10)
        stream.idle_timeout = 25
        with pytest.raises(DeadlineError) as caught:
            await reading
        assert loop.time_ns() == 25 * NS
        assert caught.value.seconds == 25
        reading = loop.create_task(stream.read())
        await loop.pass_time(10)
        stream.idle_timeout = 5  # it has waited longer already
        with pytest.raises(DeadlineError):
            await reading
        assert loop.time_ns() == 35 * NS
        stream.reset()


async def test_an_infinite_idle_timeout_reaches_a_read_that_waits() -> None:
    async with against_raw() as (_, link, connection):
        loop = current_loop()
        stream = await accepted_stream(link, await connection.open_stream(ECHO))
        reading = loop.create_task(stream.read())
        await loop.pass_time(10)
        stream.idle_timeout = math.inf
        await loop.pass_time(24 * 3600)
        assert not reading.done()
        stream.idle_timeout = 24 * 3600 + 20
        with pytest.raises(DeadlineError):
            await reading
        assert loop.time_ns() == (24 * 3600 + 20) * NS
        stream.reset()


async def test_a_stream_served_by_callbacks_is_reset_at_stream_idle() -> None:
    async with against_raw() as (_, link, connection):
        loop = current_loop()
        stream = await accepted_stream(link, await connection.open_stream(ECHO))
        called: list[int] = []

        def take() -> None:
            called.append(loop.time_ns())
            while stream.try_read():
                pass

        stream.on_readable(take)
        await loop.pass_time(100)
        link.send_data(stream.id, b"x")
        await loop.pass_time(119)
        assert called == [100 * NS]
        await loop.pass_time(1)
        with pytest.raises(DeadlineError) as caught:
            stream.try_read()
        assert caught.value.deadline == "stream_idle"
        await loop.settle()
        assert link.flagged(stream.id, RST) == [220 * NS]


async def test_a_write_without_credit_ends_at_write_stall_with_a_reset() -> None:
    async with against_raw() as (_, link, connection):
        loop = current_loop()
        stream = await accepted_stream(link, await connection.open_stream(ECHO))
        link.reads = False
        with pytest.raises(DeadlineError) as caught:
            await stream.write(bytes(WINDOW + 1))
        assert loop.time_ns() == 120 * NS
        assert (caught.value.deadline, caught.value.seconds, caught.value.stage) == ("write_stall", 120.0, "write")
        await loop.settle()
        assert link.flagged(stream.id, RST) == [120 * NS]
        with pytest.raises(DeadlineError):
            await stream.read()


async def test_progress_starts_the_write_stall_again() -> None:
    async with against_raw() as (_, link, connection):
        loop = current_loop()
        stream = await accepted_stream(link, await connection.open_stream(ECHO))
        link.reads = False
        writing = loop.create_task(stream.write(bytes(WINDOW + 100)))
        for _ in range(3):
            await loop.pass_time(119)
            link.send_frame(WINDOW_UPDATE, 0, stream.id, 1)
        with pytest.raises(DeadlineError):
            await writing
        assert loop.time_ns() == (3 * 119 + 120) * NS


async def test_writes_to_a_peer_that_does_not_read_its_socket_end_at_write_stall() -> None:
    limits = Limits(connection_send_bytes=100_000, transport_buffer_bytes=10_000)
    async with against_raw(limits=limits, timeouts=Timeouts(keepalive=1000)) as (_, link, connection):
        loop = current_loop()
        streams = [await accepted_stream(link, await connection.open_stream(ECHO)) for _ in range(8)]
        current_net().connection_of(link.transport).stop_reading("server")
        writing = [loop.create_task(stream.write(bytes(WINDOW))) for stream in streams]
        results = await asyncio.gather(*writing, return_exceptions=True)
        assert loop.time_ns() == 120 * NS
        stalled = [result for result in results if result is not None]
        assert stalled
        assert {(type(error), getattr(error, "deadline", "")) for error in stalled} == {(DeadlineError, "write_stall")}
        assert connection.ended is None


async def test_a_handler_that_reads_from_a_silent_peer_ends_at_stream_idle() -> None:
    async def handler(stream: Stream) -> None:
        await stream.read()

    async with sim_host("ours") as host, raw_peer(initiating(MUXED)) as peer:
        host.handle(ECHO, handler)
        events = host.events()
        link = await peer.dial(host.addresses[0])
        link.send_data(1, proposal(ECHO), SYN)
        await current_loop().pass_time(121)
        assert link.flagged(1, RST) == [120 * NS]
        while not isinstance(event := await anext(events), HandlerFailed):
            pass
        assert isinstance(event.error, DeadlineError)


async def test_a_write_to_a_stream_that_the_peer_reset_says_so() -> None:
    async with against_raw() as (_, link, connection):
        stream = await accepted_stream(link, await connection.open_stream(ECHO))
        link.rst(stream.id, 0x2A)
        await current_loop().settle()
        with pytest.raises(StreamResetError) as caught:
            await stream.write(b"x")
        assert (caught.value.by, caught.value.code) == ("remote", 0x2A)
        assert not any(frame.kind == DATA and frame.body == b"x" for frame in link.frames)
