"""Peers that fall silent, on real sockets: the deadline that comes is the right one, and no task is left.

Times are given by small values of Timeouts; only generous upper bounds are timed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from aiolibp2p import Connection, Host, Limits, Stream, Timeouts
from aiolibp2p.errors import ConnectionEndedError, DeadlineError, DialError
from aiolibp2p.net.events import InboundFailed
from aiolibp2p.runtime import SystemEntropy
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import FIN, RST, SYN
from tests.support.raw import RawLink, RawPeer, Script
from tests.support.scripts import (
    ACCEPTED,
    HEADED,
    MESSAGE_1,
    MESSAGE_2,
    MESSAGE_3,
    SELECTED,
    initiating,
    responding,
)

pytestmark = pytest.mark.sockets

ECHO = "/echo/1.0.0"
OTHER = "/other/1.0.0"
SHORT = 0.1
LONG = 20.0
"""No test waits for this: it is what a machine that stalls may add."""
LISTEN = ["/ip4/127.0.0.1/tcp/0"]
WINDOW = 256 << 10

T = TypeVar("T")


def raw(script: Script) -> RawPeer:
    return RawPeer(script, entropy=SystemEntropy())


def others() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def in_time(awaitable: Awaitable[T]) -> T:
    """Await what must end by itself, long before this does."""
    return await asyncio.wait_for(awaitable, LONG)


@asynccontextmanager
async def connected(
    script: Script | None = None, *, limits: Limits | None = None, **timeouts: float
) -> AsyncIterator[tuple[Host, RawLink, Connection]]:
    """Give a host connected to a raw peer; no task is more or less at its end."""
    async with raw(script or responding()) as peer:
        before = others()
        async with Host(timeouts=Timeouts(**timeouts), limits=limits) as host:
            connection = await in_time(host.connect(peer.address))
            link = await in_time(peer.link())
            yield host, link, connection
        left = others() - before - {link.task for link in peer.links if link.task is not None}
        assert left == set()


@asynccontextmanager
async def accepted(**options: float) -> AsyncIterator[tuple[RawLink, Stream]]:
    """Give a stream whose protocol a raw peer has accepted."""
    async with connected(None, limits=None, **options) as (_, link, connection):
        stream = await connection.open_stream(ECHO)
        number = await in_time(link.stream_for(ECHO))
        link.answer(number, ECHO)
        link.send_data(number, b"!")
        assert await in_time(stream.read()) == b"!"
        yield link, stream


@pytest.mark.parametrize(
    ("until", "stage"),
    [
        (ACCEPTED, "security negotiation"),
        (HEADED, "security negotiation"),
        (SELECTED, "noise handshake"),
        (MESSAGE_1, "noise handshake"),
    ],
)
async def test_a_dial_of_a_peer_that_falls_silent(until: str, stage: str) -> None:
    async with raw(responding(until)) as peer, Host(timeouts=Timeouts(dial_private_address=SHORT)) as host:
        before = others()
        with pytest.raises(DialError) as caught:
            await in_time(host.connect(peer.address))
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, DeadlineError)
        assert (failure.deadline, failure.stage) == ("dial_private_address", stage)
        assert others() - {link.task for link in peer.links if link.task is not None} == before
        assert len(peer.links) == 1
        await in_time(peer.links[0].closed())


async def test_a_dial_that_upgrade_ends_first() -> None:
    async with raw(responding(SELECTED)) as peer, Host(timeouts=Timeouts(upgrade=SHORT)) as host:
        with pytest.raises(DialError) as caught:
            await in_time(host.connect(peer.address))
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, DeadlineError)
        assert (failure.deadline, failure.stage) == ("upgrade", "noise handshake")


@pytest.mark.parametrize(
    ("until", "muxers", "stage"),
    [
        (ACCEPTED, (), "security negotiation"),
        (HEADED, (), "security negotiation"),
        (SELECTED, (), "noise handshake"),
        (MESSAGE_1, (), "noise handshake"),
        (MESSAGE_3, (), "muxer negotiation"),
    ],
)
async def test_an_inbound_connection_that_falls_silent(until: str, muxers: tuple[str, ...], stage: str) -> None:
    async with (
        Host(listen=LISTEN, timeouts=Timeouts(upgrade=SHORT)) as host,
        raw(initiating(until, muxers=muxers)) as peer,
    ):
        events, before = host.events(), others()
        link = await in_time(peer.dial(host.addresses[0]))
        event = await in_time(anext(events))
        assert isinstance(event, InboundFailed)
        assert isinstance(event.error, DeadlineError)
        assert (event.error.deadline, event.error.stage) == ("upgrade", stage)
        await in_time(link.closed())
        assert others() - {link.task for link in peer.links if link.task is not None} == before


async def test_a_dialled_peer_that_never_negotiates_a_muxer() -> None:
    async with connected(responding(MESSAGE_3, muxers=()), upgrade=SHORT) as (host, link, connection):
        stream = await connection.open_stream(ECHO)
        with pytest.raises(DeadlineError) as caught:
            await in_time(stream.read())
        assert (caught.value.deadline, caught.value.stage) == ("upgrade", "muxer negotiation")
        await in_time(link.closed())
        assert host.connections == []


async def test_a_peer_that_says_nothing_after_the_handshake() -> None:
    async with connected(responding(MESSAGE_2), keepalive=SHORT, keepalive_answer=SHORT) as (_, _link, connection):
        stream = await connection.open_stream(ECHO)
        with pytest.raises(DeadlineError) as caught:
            await in_time(stream.read())
        assert caught.value.deadline == "keepalive_answer"


async def test_eager_opening_that_is_never_answered() -> None:
    async with connected(negotiate=SHORT) as (_, link, connection):
        with pytest.raises(DeadlineError) as caught:
            await in_time(connection.open_stream(ECHO, OTHER))
        assert caught.value.deadline == "negotiate"
        number = await in_time(link.stream_for(ECHO))
        await in_time(link.frame(lambda frame: frame.stream_id == number and bool(frame.flags & RST)))


async def test_an_inbound_stream_that_never_negotiates() -> None:
    async with Host(listen=LISTEN, timeouts=Timeouts(negotiate=SHORT)) as host, raw(initiating()) as peer:
        link = await in_time(peer.dial(host.addresses[0]))
        link.send_data(1, b"\x13", SYN)
        await in_time(link.frame(lambda frame: frame.stream_id == 1 and bool(frame.flags & RST)))


async def test_a_full_ack_backlog() -> None:
    async def script(link: RawLink) -> None:
        link.accepts = link.reads = False
        await responding()(link)

    async with connected(script, limits=Limits(yamux_ack_backlog=3), open_stream=SHORT) as (_, _link, connection):
        for _ in range(2):
            await connection.open_stream(ECHO)  # identify is the third
        with pytest.raises(DeadlineError) as caught:
            await in_time(connection.open_stream(ECHO))
        assert caught.value.deadline == "open_stream"


async def test_a_read_without_a_byte_and_a_change_of_its_time() -> None:
    async with accepted(stream_idle=SHORT) as (_, stream):
        with pytest.raises(DeadlineError) as caught:
            await in_time(stream.read())
        assert (caught.value.deadline, caught.value.seconds) == ("stream_idle", SHORT)
    async with accepted() as (_, stream):
        reading = asyncio.get_running_loop().create_task(stream.read(), name="reading")
        await asyncio.sleep(0)
        stream.idle_timeout = SHORT
        with pytest.raises(DeadlineError):
            await in_time(reading)


async def test_a_write_without_credit() -> None:
    async with accepted(write_stall=SHORT) as (link, stream):
        link.reads = False
        with pytest.raises(DeadlineError) as caught:
            await in_time(stream.write(bytes(2 * WINDOW)))
        assert caught.value.deadline == "write_stall"
        await in_time(link.frame(lambda frame: frame.stream_id == stream.id and bool(frame.flags & RST)))


async def test_writes_to_a_peer_that_does_not_read_its_socket() -> None:
    async with accepted(write_stall=SHORT) as (link, stream):
        link.transport.pause_reading()
        streams = [await stream.connection.open_stream(OTHER) for _ in range(100)]
        loop = asyncio.get_running_loop()
        writing = [loop.create_task(other.write(bytes(WINDOW - 100)), name="writing") for other in streams]
        results = await in_time(asyncio.gather(*writing, return_exceptions=True))
        stalled = [result for result in results if result is not None]
        assert stalled
        assert {getattr(error, "deadline", error) for error in stalled} == {"write_stall"}
        assert stream.connection.ended is None


async def test_a_ping_that_is_not_answered() -> None:
    async with connected(ping=SHORT) as (host, _link, connection):
        with pytest.raises(DeadlineError) as caught:
            await in_time(host.ping(connection.peer_id))
        assert caught.value.deadline == "ping"


async def test_identify_that_is_not_answered() -> None:
    async with connected(identify=SHORT) as (host, _link, connection):
        with pytest.raises(DeadlineError) as caught:
            await in_time(host.identify(connection.peer_id))
        assert caught.value.deadline == "identify"
        assert connection.ended is None


async def test_a_closed_stream_that_is_never_answered() -> None:
    async with connected(close=SHORT) as (_, link, connection):
        stream = await connection.open_stream(ECHO)
        await stream.write(b"every byte")
        before = others()
        stream.close()
        assert others() == before
        with pytest.raises(DeadlineError) as caught:
            await in_time(stream.wait_closed())
        assert caught.value.deadline == "close"
        number = await in_time(link.stream_for(ECHO))
        await in_time(link.frame(lambda frame: frame.stream_id == number and bool(frame.flags & FIN)))
        assert link.sent_on(number) == proposal(ECHO) + b"every byte"
        assert connection.tombstones == []


async def test_disconnecting_and_leaving_where_the_peer_reads_nothing() -> None:
    async with raw(responding()) as peer:
        async with Host(timeouts=Timeouts(connection_close=SHORT)) as host:
            for leave in (False, True):
                connection = await in_time(host.connect(peer.address))
                link = await in_time(peer.link(int(leave)))
                link.transport.pause_reading()
                streams = [await connection.open_stream(OTHER) for _ in range(50)]
                for stream in streams:
                    stream.try_write(bytes(WINDOW - 100))
                if not leave:
                    await in_time(host.disconnect(peer.peer_id))
                    assert host.connections == []
        with pytest.raises(ConnectionEndedError):
            await streams[0].read()
