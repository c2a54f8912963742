"""Streams as users see them: ends, resets, two readers, cancelled writes, callbacks."""

from __future__ import annotations

import asyncio

import pytest

from aiolibp2p import Limits, Stream, Timeouts
from aiolibp2p.errors import (
    ConnectionEndedError,
    InvalidValueError,
    LocalProtocolError,
    NegotiationError,
    StreamBusyError,
    StreamResetError,
)
from aiolibp2p.net.events import HandlerFailed
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import FIN, RST, WINDOW_UPDATE
from aiolibp2p.sim import current_loop, current_net
from tests.support.hosts import ECHO, OTHER, accepted, against_raw, two_hosts
from tests.support.raw import RawLink

WINDOW = 256 << 10


# -- reading ----------------------------------------------------------------------------------------------------------


async def test_the_end_is_an_empty_read_and_stays_one() -> None:
    async with accepted() as (_, link, stream):
        link.send_data(stream.id, b"the last")
        link.fin(stream.id)
        assert [await stream.read() for _ in range(3)] == [b"the last", b"", b""]
        await stream.write(b"our side is open")
        await current_loop().settle()
        assert link.sent_on(stream.id).endswith(b"our side is open")


async def test_a_reset_after_the_end_is_no_clean_end() -> None:
    async with accepted() as (_, link, stream):
        link.send_data(stream.id, b"half")
        link.fin(stream.id)
        await current_loop().settle()
        link.rst(stream.id, 9)
        await current_loop().settle()
        with pytest.raises(StreamResetError) as caught:
            await stream.read()
        assert (caught.value.by, caught.value.code) == ("remote", 9)


async def test_a_reset_after_both_have_finished_changes_nothing() -> None:
    async with accepted() as (_, link, stream):
        stream.close_write()
        link.send_data(stream.id, b"whole")
        link.fin(stream.id)
        await current_loop().settle()
        link.rst(stream.id)
        await current_loop().settle()
        assert await stream.read() == b"whole"
        assert await stream.read() == b""


async def test_what_was_received_can_be_read_after_the_connection_has_ended() -> None:
    async with accepted() as (host, link, stream):
        link.send_data(stream.id, b"first ")
        link.send_data(stream.id, b"second")
        link.transport.close()
        await current_loop().settle()
        assert host.connections == []
        assert await stream.read(3) == b"fir"
        assert await stream.read_exactly(9) == b"st second"
        with pytest.raises(ConnectionEndedError) as caught:
            await stream.read()
        assert caught.value.by == "remote"
        with pytest.raises(ConnectionEndedError):
            await stream.write(b"x")


async def test_the_end_that_came_before_the_connections_is_a_clean_one() -> None:
    async with accepted() as (_, link, stream):
        link.send_data(stream.id, b"all")
        link.fin(stream.id)
        link.transport.close()
        await current_loop().settle()
        assert await stream.read() == b"all"
        assert await stream.read() == b""


async def test_read_returns_no_more_than_was_asked_for() -> None:
    async with accepted() as (_, link, stream):
        link.send_data(stream.id, bytes(range(100)))
        link.send_data(stream.id, bytes(range(100, 200)))
        await current_loop().settle()
        assert await stream.read(1) == b"\x00"
        assert await stream.read(98) == bytes(range(1, 99))
        assert await stream.read_exactly(101) == bytes(range(99, 200))


async def test_read_exactly_gathers_and_says_what_came_when_the_stream_ends_first() -> None:
    async with accepted() as (_, link, stream):
        assert await stream.read_exactly(0) == b""
        reading = current_loop().create_task(stream.read_exactly(10))
        for piece in (b"abc", b"defg", b"hij", b"kl"):
            link.send_data(stream.id, piece)
            await current_loop().settle()
        assert await reading == b"abcdefghij"
        link.fin(stream.id)
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await stream.read_exactly(10)
        assert (caught.value.partial, caught.value.expected) == (b"kl", 10)


async def test_iterating_ends_with_the_stream() -> None:
    async with accepted() as (_, link, stream):
        link.send_data(stream.id, b"a")
        link.fin(stream.id)
        assert [data async for data in stream] == [b"a"]


async def test_a_second_reader_is_refused_and_the_first_goes_on() -> None:
    async with accepted() as (_, link, stream):
        first = current_loop().create_task(stream.read())
        await current_loop().settle()
        with pytest.raises(StreamBusyError):
            await stream.read()
        link.send_data(stream.id, b"for the first")
        assert await first == b"for the first"


async def test_a_cancelled_read_loses_no_byte() -> None:
    async with accepted() as (_, link, stream):
        reading = current_loop().create_task(stream.read())
        await current_loop().settle()
        link.send_data(stream.id, b"kept")
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        assert await stream.read() == b"kept" if reading.cancelled() else reading.result() == b"kept"


async def test_try_read_says_none_while_nothing_is_there() -> None:
    async with accepted() as (_, link, stream):
        assert stream.try_read() is None
        link.send_data(stream.id, b"x")
        link.fin(stream.id)
        await current_loop().settle()
        assert [stream.try_read(), stream.try_read()] == [b"x", b""]


# -- writing ----------------------------------------------------------------------------------------------------------


async def test_a_writer_blocks_at_the_window_and_resumes_with_credit() -> None:
    async with accepted() as (_, link, stream):
        link.reads = False
        writing = current_loop().create_task(stream.write(bytes(WINDOW + 10)))
        await current_loop().settle()
        assert not writing.done()
        assert len(link.sent_on(stream.id)) == WINDOW + len(proposal(ECHO))  # for which there was credit
        link.send_frame(WINDOW_UPDATE, 0, stream.id, WINDOW)
        await writing
        await current_loop().settle()
        assert len(link.sent_on(stream.id)) == WINDOW + 10 + len(proposal(ECHO))


async def test_a_second_writer_is_refused_and_the_first_goes_on() -> None:
    async with accepted() as (_, link, stream):
        link.reads = False
        first = current_loop().create_task(stream.write(bytes(WINDOW + 1)))
        await current_loop().settle()
        with pytest.raises(StreamBusyError):
            await stream.write(b"x")
        link.send_frame(WINDOW_UPDATE, 0, stream.id, WINDOW)
        await first
        await stream.write(b"x")


async def test_a_cancelled_write_leaves_stream_and_connection_usable() -> None:
    async with accepted() as (_, link, stream):
        link.reads = False
        writing = current_loop().create_task(stream.write(bytes(WINDOW + 1000)))
        await current_loop().settle()
        writing.cancel()
        await asyncio.wait([writing])
        other = await stream.connection.open_stream(OTHER)
        await other.write(b"goes")
        link.send_frame(WINDOW_UPDATE, 0, stream.id, 5000)
        await stream.write(b"goes too")
        await current_loop().settle()
        assert link.sent_on(other.id).endswith(b"goes")
        assert link.sent_on(stream.id).endswith(b"\x00goes too")


async def test_a_buffer_may_be_changed_after_it_was_written() -> None:
    async with accepted() as (_, link, stream):
        buffer = bytearray(b"before")
        await stream.write(buffer)
        buffer[:] = b"after!"
        await stream.write(memoryview(b"__view__")[2:6])
        await current_loop().settle()
        assert link.sent_on(stream.id).endswith(b"beforeview")


async def test_try_write_takes_what_there_is_credit_for_and_on_writable_calls_once_when_more_comes() -> None:
    async with accepted() as (_, link, stream):
        link.reads = False
        taken = stream.try_write(bytes(2 * WINDOW))
        assert taken == WINDOW
        assert stream.try_write(b"x") == 0
        called: list[int] = []
        stream.on_writable(lambda: called.append(stream.try_write(b"more")))
        await current_loop().settle()
        assert called == []
        link.send_frame(WINDOW_UPDATE, 0, stream.id, 100)
        link.send_frame(WINDOW_UPDATE, 0, stream.id, 100)
        await current_loop().settle()
        assert called == [4]


async def test_on_writable_calls_soon_where_there_is_credit_already() -> None:
    async with accepted() as (_, _link, stream):
        called: list[bool] = []
        stream.on_writable(lambda: called.append(True))
        assert called == []
        await current_loop().settle()
        assert called == [True]


async def test_what_is_written_at_once_is_with_the_socket_when_the_call_returns() -> None:
    async with accepted() as (_, _, stream):
        connection = stream.connection
        sent = connection.bytes_out
        assert stream.try_write(b"later") == 5
        assert connection.bytes_out == sent
        assert stream.write_at_once(bytes(2 * WINDOW)) == WINDOW - 5
        assert connection.bytes_out > sent + WINDOW
        assert (stream.credit, stream.write_at_once(b"x")) == (0, 0)
        stream.reset()
        with pytest.raises(StreamResetError):
            stream.write_at_once(b"x")


@pytest.mark.parametrize("how", ["reset", "reset by the peer", "the connection's end"])
async def test_on_writable_calls_when_the_stream_has_ended_and_try_write_raises(how: str) -> None:
    async with accepted() as (_, link, stream):
        link.reads = False
        stream.try_write(bytes(WINDOW))
        errors: list[Exception] = []

        def go_on() -> None:
            try:
                stream.try_write(b"x")
            except (StreamResetError, ConnectionEndedError) as error:
                errors.append(error)

        stream.on_writable(go_on)
        if how == "reset":
            stream.reset()
        elif how == "reset by the peer":
            link.rst(stream.id)
        else:
            link.transport.abort()
        await current_loop().settle()
        assert len(errors) == 1
        stream.on_writable(go_on)
        await current_loop().settle()
        assert len(errors) == 2


async def test_on_writable_does_not_spin_while_the_queue_is_over_full() -> None:
    async with against_raw(limits=Limits(connection_send_bytes=100_000)) as (_, link, connection):
        await fill(link, connection)
        stream = await connection.open_stream(ECHO)  # its header needs no room
        calls = 0

        def go_on() -> None:
            nonlocal calls
            calls += 1
            if calls < 1000 and not stream.try_write(b"x"):
                stream.on_writable(go_on)

        stream.on_writable(go_on)
        await current_loop().settle()
        assert calls < 10
        stream.reset()


async def fill(link: RawLink, connection) -> None:  # type: ignore[no-untyped-def]
    """Let the peer read no more, and write until nothing is taken."""
    current_net().connection_of(link.transport).stop_reading("server")
    for _ in range(16):
        stream = await connection.open_stream(ECHO)
        while stream.try_write(bytes(65536)):
            await current_loop().settle()


async def test_cancelled_writes_leave_nothing_in_the_connections_queue() -> None:
    timeouts, limits = Timeouts(keepalive=1000), Limits(connection_send_bytes=100_000)
    async with against_raw(timeouts=timeouts, limits=limits) as (_, link, connection):
        await fill(link, connection)
        stream = await connection.open_stream(ECHO)
        for _ in range(100):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stream.write(b"x"), 0.01)
        assert len(connection._muxer._room_waiters) < 10  # type: ignore[attr-defined]


# -- callbacks --------------------------------------------------------------------------------------------------------


async def test_on_readable_calls_for_bytes_and_for_the_end() -> None:
    async with accepted() as (_, link, stream):
        seen: list[bytes | None] = []
        stream.on_readable(lambda: seen.append(stream.try_read()))
        link.send_data(stream.id, b"one")
        await current_loop().settle()
        link.send_data(stream.id, b"two")
        await current_loop().settle()
        link.fin(stream.id)
        await current_loop().settle()
        assert seen == [b"one", b"two", b""]
        stream.on_readable(None)
        link.rst(stream.id)
        await current_loop().settle()
        assert len(seen) == 3


async def test_a_callback_that_raises_resets_its_stream_only() -> None:
    def broken() -> None:
        raise ZeroDivisionError

    async with accepted() as (host, link, stream):
        events = host.events()
        stream.on_readable(broken)
        link.send_data(stream.id, b"x")
        event = await anext(events)
        assert isinstance(event, HandlerFailed)
        assert isinstance(event.error, ZeroDivisionError)
        await current_loop().settle()
        assert len(link.flagged(stream.id, RST)) == 1
        assert stream.connection.ended is None


# -- negotiation and ends ---------------------------------------------------------------------------------------------


@pytest.mark.conforms("M4")
async def test_a_lazy_stream_learns_of_a_refusal_in_its_first_read() -> None:
    async with two_hosts() as (alice, bob, connection):
        stream = await alice.open_stream(bob.peer_id, OTHER)
        assert (stream.protocol, stream.handshake, stream.lazy) == (OTHER, "pending", True)
        await stream.write(b"never used")
        with pytest.raises(NegotiationError) as caught:
            await stream.read()
        assert caught.value.offered == (OTHER,)
        assert stream.handshake == "refused"
        assert connection.refused == {OTHER}


@pytest.mark.parametrize("code", [0, 0x1001])
async def test_a_refusal_that_comes_together_with_a_reset_is_a_refusal(code: int) -> None:
    """A responder takes what was written behind the proposal for another proposal, and resets when it is none."""
    async with against_raw() as (_, link, connection):
        stream = await connection.open_stream(ECHO)
        await stream.write(bytes(8))
        await current_loop().settle()
        connection_of = current_net().connection_of(link.transport)
        connection_of.hold("server")
        link.refuse(stream.id)
        link.rst(stream.id, code)
        await current_loop().settle()
        connection_of.open()
        with pytest.raises(NegotiationError):
            await stream.read()
        assert connection.refused == {ECHO}


async def test_a_block_closes_on_success_and_resets_on_an_exception() -> None:
    async with against_raw() as (_, link, connection):
        async with await connection.open_stream(ECHO) as polite:
            pass
        rude = await connection.open_stream(OTHER)
        await current_loop().settle()
        with pytest.raises(ZeroDivisionError):
            await fail_inside(rude)
        await current_loop().settle()
        assert connection.tombstones == [polite]
        assert len(link.flagged(rude.id, RST)) == 1
        assert not link.flagged(rude.id, FIN)


async def fail_inside(stream: Stream) -> None:
    async with stream:
        raise ZeroDivisionError


@pytest.mark.parametrize("protocol", ["", "two\nlines", "x" * 1024])
async def test_what_is_no_protocol_id_is_refused_and_no_stream_is_opened(protocol: str) -> None:
    async with against_raw() as (_, _link, connection):
        streams = connection.streams
        with pytest.raises(InvalidValueError):
            await connection.open_stream(protocol)
        with pytest.raises(LocalProtocolError):
            await connection.open_stream()
        assert connection.streams == streams
