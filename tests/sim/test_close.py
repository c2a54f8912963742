"""Closing a stream waits for nobody: what the peer still owes is held by a tombstone, to the nanosecond."""

from __future__ import annotations

import pytest

from aiolibp2p import Stream, Timeouts
from aiolibp2p.errors import (
    DeadlineError,
    LocalProtocolError,
    NegotiationError,
    RemoteProtocolError,
    StreamResetError,
)
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import FIN, RST
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.hosts import ECHO, against_raw, other_tasks, two_hosts
from tests.support.raw import NS


async def test_close_on_a_peer_that_never_answers_takes_no_time_and_its_fin_leaves_after_ten_seconds() -> None:
    """T0: no time, no task, every byte, and the FIN at exactly 10,000,000,000 ns."""
    async with against_raw() as (_, link, connection):
        loop = current_loop()
        await loop.pass_time(7)  # the peer has not identified itself: that stream is gone
        stream = await connection.open_stream(ECHO)
        await stream.write(b"every byte")
        tasks, started_ns = other_tasks(), loop.time_ns()
        stream.close()
        assert loop.time_ns() == started_ns
        assert connection.streams == []
        assert connection.tombstones == [stream]
        for _ in range(99):
            await loop.pass_time(0.1)
            assert other_tasks() == tasks
        number = await link.stream_for(ECHO)
        assert link.sent_on(number) == proposal(ECHO) + b"every byte"
        assert not link.flagged(number, FIN)
        assert connection.tombstones == [stream]
        await loop.pass_time(0.1)
        assert loop.time_ns() - started_ns == 10_000_000_000
        await loop.settle()
        assert link.flagged(number, FIN) == [started_ns + 10_000_000_000]
        assert connection.tombstones == []
        assert other_tasks() == tasks
        await loop.pass_time(3600)
        assert not link.flagged(number, RST)
        assert stream.handshake == "pending"
        with pytest.raises(DeadlineError) as caught:
            await stream.wait_closed()
        assert caught.value.deadline == "close"


async def test_a_host_that_hears_every_byte_and_whose_answer_never_arrives_gets_the_fin_after_ten_seconds() -> None:
    """T0: with two hosts, of which one cannot be heard: what it is told is all there, and its end comes in time."""
    current_net().set_link(Link(latency=0.05))
    came: list[tuple[int, bytes]] = []

    async def listen(stream: Stream) -> None:
        async for data in stream:
            came.append((current_loop().time_ns(), data))
        came.append((current_loop().time_ns(), b""))

    async with two_hosts() as (_, bob, connection):
        loop = current_loop()
        bob.handle(ECHO, listen)
        await loop.pass_time(1)
        current_net().connections[0].black_hole("server")
        stream = await connection.open_stream(ECHO)
        await stream.write(b"every byte")
        started_ns = loop.time_ns()
        stream.close()
        assert loop.time_ns() == started_ns
        await loop.pass_time(11)
        assert came == [(started_ns + 50_000_000, b"every byte"), (started_ns + 10_050_000_000, b"")]
        assert connection.tombstones == []


async def test_wait_closed_ends_at_the_timer() -> None:
    async with against_raw() as (_, _link, connection):
        stream = await connection.open_stream(ECHO)
        stream.close()
        with pytest.raises(DeadlineError):
            await stream.wait_closed()
        assert current_loop().time_ns() == 10 * NS


async def test_the_time_of_a_tombstone_is_a_field_of_timeouts() -> None:
    async with against_raw(timeouts=Timeouts(close=0.25)) as (_, link, connection):
        stream = await connection.open_stream(ECHO)
        stream.close()
        await current_loop().pass_time(1)
        assert link.flagged(stream.id, FIN) == [NS // 4]


async def test_a_late_answer_for_a_forgotten_stream_is_dropped_and_only_more_than_1024_bytes_reset_it() -> None:
    async with against_raw() as (_, link, connection):
        loop = current_loop()
        stream = await connection.open_stream(ECHO)
        stream.close()
        await loop.pass_time(11)
        link.answer(stream.id, ECHO)
        late = len(proposal(ECHO))
        link.send_data(stream.id, bytes(1024 - late))
        await loop.settle()
        assert not link.flagged(stream.id, RST)
        link.send_data(stream.id, b"!")
        await loop.settle()
        assert len(link.flagged(stream.id, RST)) == 1
        assert connection.ended is None


async def test_the_fin_of_a_late_peer_for_a_forgotten_stream_is_dropped() -> None:
    async with against_raw() as (_, link, connection):
        stream = await connection.open_stream(ECHO)
        stream.close()
        await current_loop().pass_time(11)
        link.fin(stream.id)
        link.rst(stream.id)
        await current_loop().settle()
        assert not link.flagged(stream.id, RST)
        assert connection.ended is None


async def test_an_answer_before_the_timer_lets_the_fin_go_at_once() -> None:
    async with against_raw() as (_, link, connection):
        loop = current_loop()
        stream = await connection.open_stream(ECHO)
        await stream.write(b"x")
        stream.close()
        await loop.pass_time(3)
        link.answer(stream.id, ECHO)
        await loop.settle()
        assert link.flagged(stream.id, FIN) == [3 * NS]
        assert stream.handshake == "answered"
        assert connection.tombstones == [stream]  # the peer has not finished
        link.fin(stream.id)
        await stream.wait_closed()
        assert loop.time_ns() == 3 * NS
        assert connection.tombstones == []


async def test_where_only_the_peers_fin_is_owed_nothing_is_sent_at_the_timer() -> None:
    async with against_raw() as (_, link, connection):
        loop = current_loop()
        stream = await connection.open_stream(ECHO)
        link.answer(await link.stream_for(ECHO), ECHO)
        await loop.settle()
        stream.close()
        await loop.settle()
        assert link.flagged(stream.id, FIN) == [0]
        frames = len([frame for frame in link.frames if frame.stream_id == stream.id])
        await loop.pass_time(9.999999999)
        assert connection.tombstones == [stream]
        await loop.pass_time(0.000000001)
        await loop.settle()
        assert connection.tombstones == []
        link.send_data(stream.id, b"late")
        await loop.pass_time(100)
        assert len([frame for frame in link.frames if frame.stream_id == stream.id]) == frames


async def test_close_on_a_lazy_stream_that_was_never_written_to_still_sends_the_header() -> None:
    async with against_raw() as (_, link, connection):
        stream = await connection.open_stream(ECHO)
        stream.close()
        await current_loop().settle()
        assert link.sent_on(stream.id) == proposal(ECHO)
        assert not link.flagged(stream.id, FIN)


async def test_a_refusal_after_close_is_raised_by_wait_closed_and_voids_what_was_believed() -> None:
    async with against_raw() as (_, link, connection):
        loop = current_loop()
        stream = await connection.open_stream(ECHO)
        await stream.write(b"never used")
        stream.close()
        await loop.pass_time(2)
        link.refuse(stream.id)
        with pytest.raises(NegotiationError) as caught:
            await stream.wait_closed()
        assert caught.value.offered == (ECHO,)
        assert loop.time_ns() == 2 * NS
        assert connection.refused == {ECHO}
        assert stream.handshake == "refused"
        assert connection.tombstones == []
        await loop.pass_time(20)
        assert not link.flagged(stream.id, FIN)  # a reset needs none
        assert len(link.flagged(stream.id, RST)) == 1


async def test_a_reset_by_the_peer_ends_a_tombstone() -> None:
    async with against_raw() as (_, link, connection):
        stream = await connection.open_stream(ECHO)
        stream.close()
        await current_loop().pass_time(1)
        link.rst(stream.id, 7)
        with pytest.raises(StreamResetError) as caught:
            await stream.wait_closed()
        assert (caught.value.by, caught.value.code) == ("remote", 7)
        assert connection.tombstones == []
        await current_loop().pass_time(20)
        assert not link.flagged(stream.id, FIN)


async def test_a_peer_that_finishes_without_an_answer_ends_a_tombstone() -> None:
    async with against_raw() as (_, link, connection):
        stream = await connection.open_stream(ECHO)
        stream.close()
        await current_loop().pass_time(1)
        link.fin(stream.id)
        with pytest.raises(RemoteProtocolError) as caught:
            await stream.wait_closed()
        assert caught.value.stage == "protocol negotiation"
        assert connection.tombstones == []


async def test_garbage_instead_of_an_answer_ends_a_tombstone() -> None:
    async with against_raw() as (_, link, connection):
        stream = await connection.open_stream(ECHO)
        stream.close()
        await current_loop().settle()
        link.send_data(stream.id, b"\x00garbage")
        with pytest.raises(RemoteProtocolError):
            await stream.wait_closed()
        assert connection.ended is None


async def test_close_write_holds_its_fin_at_most_for_the_time_of_a_close() -> None:
    async with against_raw() as (_, link, connection):
        loop = current_loop()
        stream = await connection.open_stream(ECHO)
        await stream.write(b"question")
        stream.close_write()
        await loop.pass_time(60)
        assert link.flagged(stream.id, FIN) == [10 * NS]
        assert connection.streams == [stream]  # it can still be read
        link.answer(stream.id, ECHO)
        link.send_data(stream.id, b"answer")
        link.fin(stream.id)
        assert await stream.read() == b"answer"
        assert await stream.read() == b""
        assert connection.streams == []


async def test_close_write_after_the_answer_sends_its_fin_at_once() -> None:
    async with against_raw() as (_, link, connection):
        stream = await connection.open_stream(ECHO)
        await current_loop().pass_time(1)
        link.answer(stream.id, ECHO)
        await current_loop().settle()
        stream.close_write()
        stream.close_write()
        await current_loop().settle()
        assert link.flagged(stream.id, FIN) == [1 * NS]
        with pytest.raises(LocalProtocolError):
            await stream.write(b"more")
        stream.reset()


async def test_wait_closed_is_refused_while_the_stream_is_open_and_says_nothing_after_a_reset_of_ours() -> None:
    async with against_raw() as (_, link, connection):
        stream = await connection.open_stream(ECHO)
        with pytest.raises(LocalProtocolError):
            await stream.wait_closed()
        stream.reset(5)
        await stream.wait_closed()
        stream.close()
        stream.reset()
        await current_loop().settle()
        assert stream not in connection.streams + connection.tombstones
        assert not link.flagged(stream.id, RST)  # the peer had not heard of it


async def test_a_cancelled_wait_closed_leaves_the_tombstone_to_its_timer() -> None:
    async with against_raw() as (_, link, connection):
        loop = current_loop()
        stream = await connection.open_stream(ECHO)
        stream.close()
        waiting = loop.create_task(stream.wait_closed())
        also = loop.create_task(stream.wait_closed())
        await loop.pass_time(1)
        waiting.cancel()
        with pytest.raises(DeadlineError):
            await also
        await loop.settle()
        assert link.flagged(stream.id, FIN) == [10 * NS]


async def test_reading_and_writing_a_closed_stream_is_a_local_error() -> None:
    async with against_raw() as (_, _link, connection):
        stream = await connection.open_stream(ECHO)
        stream.close()
        with pytest.raises(LocalProtocolError):
            await stream.read()
        with pytest.raises(LocalProtocolError):
            await stream.write(b"x")
        with pytest.raises(LocalProtocolError):
            stream.try_write(b"x")
