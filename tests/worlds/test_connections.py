"""Connections: their making, their ends, and peers that stand still."""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from aiolibp2p import Connection, Host, Limits, Stream, Timeouts
from aiolibp2p.errors import ConnectionEndedError, Libp2pError, RemoteProtocolError, StreamResetError
from aiolibp2p.net.link import Link
from aiolibp2p.sansio.noise import NoiseChannel
from aiolibp2p.sansio.yamux import ACK, PING, YamuxSession, YamuxStream
from aiolibp2p.sim import Link as SimLink
from aiolibp2p.sim import current_net
from tests.support.hosts import ECHO, OTHER, other_tasks
from tests.support.leaks import host_leaks
from tests.support.raw import NS, RawLink
from tests.support.scripts import responding
from tests.support.worlds import World, against_raw, echo, echoed, ended, link_of, pair, session_of, start

WINDOW = 256 << 10
AT_ONCE = 100
ROUNDS = 40
UNKNOWN = ("/unknown/1.0.0", "/another/1.0.0")


def content(size: int, label: str = "content") -> bytes:
    return hashlib.shake_256(label.encode()).digest(size)


# -- coming and going --------------------------------------------------------------------------------------------------


@pytest.fixture
def _uncollected() -> Iterator[None]:
    """Let the collector rest: a closed socket of the simulation is a cycle, and half of the time goes into them."""
    gc.disable()
    yield
    gc.enable()


class Passing(asyncio.Protocol):
    """A socket that goes as soon as it has come, in one of four ways."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self.number & 1:
            transport.write(b"\x13/multistream/1.0.0\n"[: self.number % 23])
        if self.number & 2:
            transport.close()
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set_result(None)


@pytest.mark.slow
@pytest.mark.usefixtures("_uncollected")
async def test_ten_thousand_sockets_that_connect_and_close_leave_nothing(world: World) -> None:
    """Case 3: the host accepts afterwards as before, and no task, socket or slot is left.

    On sockets, ten thousand of each are a measurement: `benchmarks/loopback/churn.py`.
    """
    sockets = 10_000 if world.virtual else 2000
    async with world.host("ours") as host, world.host("other") as other:
        parts = str(host.addresses[0]).split("/")
        loop, tasks = asyncio.get_running_loop(), other_tasks()

        async def pass_by(first: int) -> None:
            for number in range(first, sockets, AT_ONCE):
                _, passing = await loop.create_connection(partial(Passing, number), parts[2], int(parts[4]))
                await passing.gone

        await asyncio.gather(*(pass_by(first) for first in range(AT_ONCE)))
        await world.until(lambda: not host._swarm._links)
        for _ in range(ROUNDS):
            connection = await world.in_time(other.connect(host.addresses[0]))
            await world.in_time(other.ping(host.peer_id))
            await world.in_time(other.disconnect(host.peer_id))
            assert connection.ended is not None
        await world.until(lambda: not host._swarm._links and other_tasks() == tasks)
        assert [*host_leaks("host", host), *host_leaks("other", other)] == []


# -- a peer that does not read its socket ------------------------------------------------------------------------------


@asynccontextmanager
async def unread(world: World, **timeouts: float) -> AsyncIterator[tuple[Host, RawLink, Connection]]:
    """Give a host and its connection to a peer that has stopped reading its socket, with that socket full."""
    limits = Limits(yamux_ack_backlog=64, connection_send_bytes=1 << 20)
    async with against_raw(world, timeouts=Timeouts(**timeouts), limits=limits) as (host, link, connection):
        accepted = await connection.open_stream(ECHO)
        await world.until(lambda: bool(link.sent_on(accepted.id)))
        link.answer(accepted.id, ECHO)
        await world.until(lambda: accepted.handshake == "answered")
        link.transport.pause_reading()
        while not (link_of(connection)._paused and session_of(connection).room < WINDOW):
            stream = await connection.open_stream(OTHER)
            if not stream.try_write(bytes(WINDOW - 100)):
                break
            await asyncio.sleep(0)
        yield host, link, connection


async def test_with_a_peer_that_does_not_read_its_socket_everything_ends_at_its_own_deadline(world: World) -> None:
    """Case 4: write, open_stream, lazy and eager, ping and wait_closed; close and reset take no time."""
    short = world.seconds(1, 0.02)
    timeouts = {"write_stall": 9 * short, "open_stream": 7 * short, "negotiate": 5 * short, "ping": 3 * short}
    timeouts["connection_close"] = short
    async with unread(world, **timeouts, close=4 * short, identify=2 * short, keepalive=1000) as (host, _, connection):
        start_ns = world.now_ns()
        writer, closed, dropped = connection.streams[-3:]
        closed.close()
        dropped.reset()
        assert not world.virtual or world.now_ns() == start_ns
        waits: dict[str, Awaitable[object]] = {
            "write": writer.write(bytes(2 * WINDOW)),
            "wait_closed": closed.wait_closed(),
            "ping": host.ping(connection.peer_id),
            "eager open": connection.open_stream(*UNKNOWN),
        }
        tasks = {name: start(ended(wait), name) for name, wait in waits.items()}
        await asyncio.sleep(0)
        while session_of(connection).can_open:
            await connection.open_stream(ECHO)
        tasks["open"] = start(ended(connection.open_stream(ECHO)))
        came = {name: await world.in_time(task) for name, task in tasks.items()}
        assert came == {
            "write": "write_stall",
            "wait_closed": "close",
            "ping": "ping",
            "eager open": "negotiate",
            "open": came["open"],
        }
        assert came["open"] in ("open_stream", "done")  # "done" where a stream that ended made room
        assert connection.ended is None
        assert not world.virtual or world.now_ns() - start_ns == 9 * NS


@pytest.mark.parametrize("doing", ["disconnect", "leave"])
async def test_leaving_a_peer_that_does_not_read_its_socket_takes_connection_close(world: World, doing: str) -> None:
    """Case 4: disconnect, and the end of `async with Host`."""
    seconds = world.seconds(1, 0.1)
    waiting: list[asyncio.Task[str]] = []
    async with unread(world, connection_close=seconds) as (host, _, connection):
        start_ns = world.now_ns()
        waiting += [start(ended(stream.read())) for stream in connection.streams]
        await asyncio.sleep(0)
        if doing == "disconnect":
            await world.in_time(host.disconnect(connection.peer_id))
            assert host.connections == []
            assert host_leaks("ours", host) is not None
            assert not world.virtual or world.now_ns() - start_ns == NS
    assert not world.virtual or world.now_ns() - start_ns == NS
    assert {await task for task in waiting} == {"ConnectionEndedError"}


# -- saturation --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_two_hosts_that_saturate_each_other_over_small_buffers_do_not_block_each_other(world: World) -> None:
    """Case 7: both ways at once, echoes and uploads, with keepalives and pings all the time."""
    buffers = 16 << 10  # less than a loopback segment makes TCP itself wait, 200 ms for each
    world.small_buffers(buffers)
    if world.virtual:
        current_net().set_link(SimLink(latency=0.001))
    limits = Limits(connection_send_bytes=64 << 10, transport_buffer_bytes=8 << 10)
    timeouts = Timeouts(keepalive=0.02)
    size = 400_000
    counted: list[int] = []

    async def sink(stream: Stream) -> None:
        counted.append(sum([len(part) async for part in stream]))

    async with pair(world, limits=limits, timeouts=timeouts) as (alice, bob, connection):
        alice.handle(ECHO, bob._handlers[ECHO])  # type: ignore[arg-type]
        for host in (alice, bob):
            host.handle(OTHER, sink)
        (back,) = bob.connections
        for end in (connection, back):
            world.shrink(end, buffers)
        saturated = asyncio.Event()

        async def upload(end: Connection) -> None:
            async with await end.open_stream(OTHER) as stream:
                for _ in range(5):
                    await stream.write(bytes(size // 5))

        async def there_and_back(end: Connection, number: int) -> bool:
            data = content(size, str(number))
            return await echoed(await end.open_stream(ECHO), data) == data

        async def ping(host: Host, peer: Host) -> int:
            pings = 0
            while not saturated.is_set():
                await host.ping(peer.peer_id)
                pings += 1
            return pings

        pinging = [start(ping(alice, bob)), start(ping(bob, alice))]
        work: list[Awaitable[object]] = [upload(end) for end in (connection, back) for _ in range(4)]
        echoes = [there_and_back(end, number) for end in (connection, back) for number in range(4)]
        whole = await world.in_time(asyncio.gather(*echoes, *work))
        saturated.set()
        assert whole == [True] * 8 + [None] * 8
        assert min(await world.in_time(asyncio.gather(*pinging))) > 0
        await world.until(lambda: counted == [size] * 8)
        assert connection.ended is None
        assert connection.bytes_in > 10 * size
        assert connection.bytes_out > 10 * size


# -- silence beside others ---------------------------------------------------------------------------------------------


async def test_one_silent_peer_slows_neither_a_ping_nor_a_stream_to_another(world: World) -> None:
    """Case 12: blocked writes, opens, pings, identify and closes to one wait on while another is served."""
    if world.virtual:
        current_net().set_link(SimLink(latency=0.01))

    async def ask(alice: Host, bob: Host, connection: Connection) -> int:
        start_ns = world.now_ns()
        for _ in range(20):
            await world.in_time(alice.ping(bob.peer_id))
            data = content(10_000)
            assert await world.in_time(echoed(await connection.open_stream(ECHO), data)) == data
        return world.now_ns() - start_ns

    async def silent(link: RawLink) -> None:
        link.accepts = link.reads = link.answers_pings = False
        await responding()(link)

    async with pair(world) as (alice, bob, connection), world.raw(silent) as peer:
        for _ in range(2):  # the first opens the stream of the pings
            undisturbed_ns = await ask(alice, bob, connection)
        blocked = await world.in_time(alice.connect(peer.address))
        link = await world.in_time(peer.link())
        link.send_frame(PING, ACK, 0, 0)  # until it is heard, ten streams are all
        await world.until(lambda: session_of(blocked).can_open)
        link.transport.pause_reading()
        streams = [await blocked.open_stream(OTHER) for _ in range(8)]
        waiting = [start(stream.write(bytes(2 * WINDOW))) for stream in streams[:5]]
        waiting += [start(stream.read()) for stream in streams[5:]]
        waiting += [start(alice.ping(peer.peer_id)), start(blocked.open_stream(*UNKNOWN))]
        closed = [await blocked.open_stream(OTHER) for _ in range(8)]
        for stream in closed:
            stream.close()
        await asyncio.sleep(0)
        took_ns = await ask(alice, bob, connection)
        assert not any(task.done() for task in waiting)
        assert not world.virtual or took_ns == undisturbed_ns
        blocked.abort()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {ConnectionEndedError}


# -- ends --------------------------------------------------------------------------------------------------------------


async def drop(link: RawLink, number: int) -> None:
    link.transport.abort()


async def finish_the_socket(link: RawLink, number: int) -> None:
    link.transport.write_eof()


async def finish_within_a_record(link: RawLink, number: int) -> None:
    link.transport.write(link.channel.encrypt((bytes(100),))[:50])
    link.transport.write_eof()


async def finish_within_a_frame(link: RawLink, number: int) -> None:
    link.send(b"\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x64some")
    link.transport.write_eof()


async def say_goodbye(link: RawLink, number: int) -> None:
    link.go_away()
    link.transport.write_eof()


async def say_goodbye_with_an_error(link: RawLink, number: int) -> None:
    link.go_away(2)


async def garble(link: RawLink, number: int) -> None:
    link.send_frame(9, 0, 0, 0)


async def reset(link: RawLink, number: int) -> None:
    link.rst(number, 7)


ENDS: list[Callable[[RawLink, int], Awaitable[None]]] = [
    drop,
    finish_the_socket,
    finish_within_a_record,
    finish_within_a_frame,
    say_goodbye,
    say_goodbye_with_an_error,
    garble,
    reset,
]


async def outcome(read: Callable[[], Awaitable[bytes]]) -> bytes | Exception:
    """Return what a read gives, or why it does not."""
    try:
        return await read()
    except (Libp2pError, EOFError) as error:
        return error


@pytest.mark.parametrize("end", ENDS)
async def test_an_abnormal_end_never_looks_like_a_clean_one(
    world: World, end: Callable[[RawLink, int], Awaitable[None]]
) -> None:
    """Case 17: what came can be read, and then there is an error, for every way to read and again; never `b""`."""
    async with against_raw(world) as (_, link, connection):
        streams = [await connection.open_stream(ECHO) for _ in range(4)]
        for stream in streams:
            await world.until(lambda stream=stream: bool(link.sent_on(stream.id)))  # type: ignore[misc]
            link.answer(stream.id, ECHO)
            link.send_data(stream.id, b"what came")
        called: list[int] = []
        by_callback, muxed = streams[3], session_of(connection).streams
        await world.until(lambda: all(stream._head or muxed[stream.id].unread_bytes for stream in streams))
        by_callback.on_readable(lambda: called.append(1))
        for stream in streams:
            await end(link, stream.id)
            if end is not reset:
                break
        await world.until(lambda: all(stream._error is not None for stream in streams))
        errors = (ConnectionEndedError, StreamResetError, RemoteProtocolError)
        reads: list[Callable[[], Awaitable[bytes]]] = [
            streams[0].read,
            partial(streams[1].read_exactly, 10),
            aiter(streams[2]).__anext__,
        ]
        for read in reads:
            came = [await outcome(read) for _ in range(2)]
            assert b"" not in came
            assert isinstance(came[-1], errors)
        while True:
            try:
                came_too = by_callback.try_read()
            except errors:
                break
            assert came_too == b"what came"
        assert called
        if end is not reset:
            assert connection.ended is not None
            assert getattr(connection.ended, "by", "remote") == "remote"


async def test_a_clean_end_is_no_byte_in_every_way_to_read(world: World) -> None:
    """Case 17: and stays one when the connection ends abnormally afterwards."""
    async with against_raw(world) as (_, link, connection):
        stream = await connection.open_stream(ECHO)
        await world.until(lambda: bool(link.sent_on(stream.id)))
        link.answer(stream.id, ECHO)
        link.send_data(stream.id, b"all")
        link.fin(stream.id)
        assert await world.in_time(stream.read()) == b"all"
        assert await world.in_time(stream.read()) == b""
        assert stream.try_read() == b""
        assert [part async for part in stream] == []
        with pytest.raises(EOFError):
            await stream.read_exactly(1)
        link.transport.abort()
        await world.until(lambda: connection.ended is not None)
        assert await stream.read() == b""


async def test_our_own_abnormal_ends_are_told_as_such(world: World) -> None:
    """Case 17: a reset, an aborted connection and a host that is left are errors to the peer, with who did it."""
    seen: list[Libp2pError] = []

    async def read_all(stream: Stream) -> None:
        try:
            async for _ in stream:
                pass
        except Libp2pError as error:
            seen.append(error)
            raise

    async with pair(world) as (alice, bob, connection):
        bob.handle(OTHER, read_all)
        for number in range(3):
            connection = await world.in_time(alice.connect(bob.addresses[0]))
            stream = await connection.open_stream(OTHER)
            await stream.write(bytes(100_000))
            await world.until(lambda stream=stream: stream.handshake == "answered")  # type: ignore[misc]
            if number == 0:
                stream.reset(5)
            elif number == 1:
                connection.abort()
            else:
                await world.in_time(alice.disconnect(bob.peer_id))
            await world.until(lambda number=number: len(seen) == number + 1)  # type: ignore[misc]
        assert [type(error) for error in seen] == [StreamResetError, ConnectionEndedError, ConnectionEndedError]
        assert {error.by for error in seen} == {"remote"}  # type: ignore[attr-defined]


# -- memory ------------------------------------------------------------------------------------------------------------


def alive() -> Counter[str]:
    """Return how many of what a connection is made of there are."""
    parts = (Connection, Link, YamuxSession, Stream, YamuxStream, NoiseChannel)
    return Counter(type(found).__name__ for found in gc.get_objects() if isinstance(found, parts))


@pytest.mark.usefixtures("_uncollected")
@pytest.mark.parametrize("how", ["the dialler leaves", "the listener leaves", "abort"])
async def test_a_connection_that_is_over_is_freed_without_the_collector(world: World, how: str) -> None:
    """Else thousands of them would wait for it, and the memory of a host depend on how long ago it ran."""
    gc.collect()
    async with world.host("alice") as alice, world.host("bob") as bob:
        bob.handle(ECHO, echo)
        before = alive()
        connection = await world.in_time(alice.connect(bob.addresses[0]))
        await world.in_time(alice.identify(bob.peer_id))
        await world.in_time(alice.ping(bob.peer_id))
        assert await world.in_time(echoed(await connection.open_stream(ECHO), b"all of it")) == b"all of it"
        kept = await connection.open_stream(ECHO)
        await kept.write(b"kept")
        assert await world.in_time(kept.read()) == b"kept"
        await world.until(lambda: all(other.identify is not None for other in bob.connections))
        assert alive()["Connection"] == before["Connection"] + 2
        if how == "abort":
            connection.abort()
        else:
            leaving, left = (alice, bob) if how == "the dialler leaves" else (bob, alice)
            await world.in_time(leaving.disconnect(left.peer_id))
        await world.until(lambda: not alice._swarm._links and not bob._swarm._links)
        del connection, kept
        await world.until(lambda: not len(bob._tasks))
        await world.pass_time(0.01)
        assert alive() == before
