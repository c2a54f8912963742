"""Streams: what one of them meets, the others on its connection do not."""

from __future__ import annotations

import asyncio
import hashlib
import math

import pytest

from aiolibp2p import Limits, Stream, Timeouts
from aiolibp2p.errors import DeadlineError, NegotiationError, RemoteProtocolError, StreamResetError
from aiolibp2p.net.events import HandlerFailed, PeerIdentified
from aiolibp2p.sansio.multistream import HEADER, encode_message, proposal
from aiolibp2p.sansio.yamux import FIN, GO_AWAY, GO_AWAY_PROTOCOL_ERROR, RESOURCE_LIMIT, RST, SYN, WINDOW_UPDATE
from tests.support.hosts import ECHO, OTHER, other_tasks
from tests.support.raw import NS, RawLink
from tests.support.scripts import initiating
from tests.support.worlds import World, against_raw, echoed, pair, session_of, start

PING = "/ipfs/ping/1.0.0"
ASK = "/ask/1.0.0"
WINDOW = 256 << 10
CLOSED = 1000
TOKENS = {
    "not UTF-8": b"\x04\xff\xfe\xfd\n",
    "not terminated": b"\x06/echo!",
    "empty": b"\x00",
    "too long": b"\x81\x08" + b"x" * 1025,
    "of a length that never ends": b"\xff\xff\xff\xff",
}


def content(size: int, label: str = "content") -> bytes:
    return hashlib.shake_256(label.encode()).digest(size)


def never_reading(stream: Stream) -> None:
    stream.idle_timeout = math.inf


# -- handlers and negotiations that fail -------------------------------------------------------------------------------


async def test_a_handler_that_raises_costs_its_stream_and_nothing_else(world: World) -> None:
    """Case 1: again and again, beside a stream that goes on."""

    async def failing(stream: Stream) -> None:
        await stream.read(1)
        raise RuntimeError("a handler of the user")

    async with pair(world) as (_, bob, connection):
        bob.handle(OTHER, failing)
        events = bob.events()
        standing = await connection.open_stream(ECHO)
        for number in range(20):
            stream = await connection.open_stream(OTHER)
            await stream.write(b"x" * (1 + number))
            with pytest.raises(StreamResetError) as caught:
                await world.in_time(stream.read())
            assert caught.value.by == "remote"
            await standing.write(b"still here")
            assert await world.in_time(standing.read_exactly(10)) == b"still here"
            event = await world.in_time(anext(events))
            while isinstance(event, PeerIdentified):  # which is on its way when the first handler fails
                event = await world.in_time(anext(events))
            assert isinstance(event, HandlerFailed)
            assert isinstance(event.error, RuntimeError)
        assert connection.streams == [standing]
        assert bob._swarm.counts.handlers == 1
        assert connection.ended is None
        standing.close()
        await world.in_time(standing.wait_closed())


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS.keys())
async def test_a_token_that_is_none_costs_the_stream_that_it_came_on(world: World, token: bytes) -> None:
    """Case 2: as a peer's proposal."""
    async with world.host("ours") as host, world.raw(initiating()) as peer:
        link = await world.in_time(peer.dial(host.addresses[0]))
        link.send_data(1, proposal(PING) + bytes(32), SYN)
        link.send_data(3, HEADER + token, SYN)
        link.send_data(5, token, SYN)
        link.send_data(7, proposal(PING) + bytes(32), SYN)
        for number in (1, 7):
            await world.until(lambda number=number: link.sent_on(number) == proposal(PING) + bytes(32))  # type: ignore[misc]
        if token == TOKENS["not terminated"]:
            link.send_data(3, b"?")  # what would have ended it is something else
            link.send_data(5, b"?")
        for number in (3, 5):
            await world.until(lambda number=number: bool(link.flagged(number, RST)))  # type: ignore[misc]
        link.send_data(1, bytes(32))
        await world.until(lambda: link.sent_on(1) == proposal(PING) + bytes(64))
        assert link.ended_ns is None


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS.keys())
async def test_an_answer_that_is_none_costs_the_stream_that_it_came_on(world: World, token: bytes) -> None:
    """Case 2: as a peer's answer."""
    async with against_raw(world) as (_, link, connection):
        good, bad = await connection.open_stream(ECHO), await connection.open_stream(ECHO)
        await world.until(lambda: all(link.sent_on(stream.id) for stream in (good, bad)))
        link.send_data(bad.id, HEADER + token + b"?")
        with pytest.raises(RemoteProtocolError) as caught:
            await world.in_time(bad.read())
        assert caught.value.stage == "protocol negotiation"
        link.send_data(good.id, HEADER + encode_message(ECHO) + b"good")
        assert await world.in_time(good.read()) == b"good"
        assert connection.ended is None
        await world.until(lambda: bool(link.flagged(bad.id, RST)))
        good.reset()


# -- writes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", range(0, 24, 3))
async def test_a_write_that_is_cancelled_leaves_no_half_frame(world: World, turns: int) -> None:
    """Case 6: the peer reads a prefix and what was written afterwards; other streams are whole, all the time."""
    received: dict[bytes, bytes] = {}

    async def slow(stream: Stream) -> None:
        name = await stream.read_exactly(1)
        parts = []
        while data := await stream.read(20_000):
            parts.append(data)
            await asyncio.sleep(0)
        received[name] = b"".join(parts)

    data, other = content(2 * WINDOW), content(100_000, "other")
    limits = Limits(connection_send_bytes=100_000, transport_buffer_bytes=20_000)
    async with pair(world, limits=limits) as (_, bob, connection):
        bob.handle(OTHER, slow)
        echoing = start(echoed(await connection.open_stream(ECHO), other))
        streams = [await connection.open_stream(OTHER) for _ in range(4)]
        for number, stream in enumerate(streams):
            await stream.write(bytes((number,)))
            writing = start(stream.write(data))
            for _ in range(turns + number):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait([writing])
            await world.in_time(stream.write(b"the end"))
            stream.close()
        for stream in streams:
            await world.in_time(stream.wait_closed())
        assert await world.in_time(echoing) == other
        assert await world.in_time(echoed(await connection.open_stream(ECHO), other)) == other
        await world.until(lambda: len(received) == len(streams))
        for number in range(len(streams)):
            whole = received[bytes((number,))]
            assert whole.endswith(b"the end")
            assert data.startswith(whole[: -len(b"the end")])
        assert connection.ended is None


@pytest.mark.parametrize("protocols", [(ECHO,), ("/unknown/1.0.0", ECHO)], ids=["lazy", "eager"])
async def test_a_fin_that_races_the_last_data_loses_no_byte(world: World, protocols: tuple[str, ...]) -> None:
    """Case 8: T25: of any size, many at once, in both directions; closing takes no time."""
    sizes = [0, 1, 65_535, 65_536, WINDOW, WINDOW + 1, 700_000]
    sink = [OTHER if name == ECHO else name for name in protocols]
    source = [ASK if name == ECHO else name for name in protocols]
    received: list[bytes] = []

    async def collect(stream: Stream) -> None:
        received.append(b"".join([part async for part in stream]))

    async def send_all(stream: Stream) -> None:
        size = int.from_bytes(await stream.read_exactly(4), "big")
        await stream.write(content(size))  # returning closes the stream

    async with pair(world) as (_, bob, connection):
        bob.handle(OTHER, collect)
        bob.handle(ASK, send_all)

        async def upload(size: int) -> None:
            stream = await connection.open_stream(*sink)
            await stream.write(content(size))
            before_ns = world.now_ns()
            stream.close()
            assert not world.virtual or world.now_ns() == before_ns
            await world.in_time(stream.wait_closed())

        async def download(size: int) -> bytes:
            async with await connection.open_stream(*source) as stream:
                await stream.write(size.to_bytes(4, "big"))
                stream.close_write()
                return b"".join([part async for part in stream])

        async def there_and_back(size: int) -> bytes:
            return await echoed(await connection.open_stream(*protocols), content(size))

        await world.in_time(asyncio.gather(*(upload(size) for size in sizes)))
        assert sorted(received, key=len) == [content(size) for size in sizes]
        for way in (download, there_and_back):
            came = await world.in_time(asyncio.gather(*(way(size) for size in sizes)))
            assert came == [content(size) for size in sizes]
        await world.until(lambda: not connection.streams and not connection.tombstones)


@pytest.mark.parametrize("size", [0, 1, 100_000])
async def test_a_refusal_after_close_is_told_and_nothing_waits_for_it(world: World, size: int) -> None:
    """T25: `na` after close: told by `wait_closed` and to the next who asks; streams beside it are whole."""
    async with pair(world) as (_, _bob, connection):
        standing = await connection.open_stream(ECHO)
        await standing.write(b"before")
        refused = [await connection.open_stream("/never/1.0.0") for _ in range(4)]
        before_ns = world.now_ns()
        for stream in refused:
            await stream.write(content(size))
            stream.close()
        assert not world.virtual or world.now_ns() == before_ns
        for stream in refused:
            with pytest.raises(NegotiationError):
                await world.in_time(stream.wait_closed())
        assert connection.refused == {"/never/1.0.0"}
        assert await world.in_time(standing.read_exactly(6)) == b"before"
        assert await world.in_time(echoed(standing, content(size))) == content(size)
        await world.until(lambda: not connection.streams and not connection.tombstones)


async def test_the_last_data_before_the_end_of_a_connection_arrives(world: World) -> None:
    """Case 8: what was written leaves before the goodbye; the reader has it all, and then no clean end."""
    data = content(200_000)
    came: list[bytes] = []
    errors: list[Exception] = []

    async def collect(stream: Stream) -> None:
        try:
            async for part in stream:
                came.append(part)
        except Exception as error:
            errors.append(error)
            raise

    async with pair(world) as (alice, bob, connection):
        bob.handle(OTHER, collect)
        stream = await connection.open_stream(OTHER)
        await stream.write(data)
        await world.in_time(alice.disconnect(bob.peer_id))
        await world.until(lambda: bool(errors))
        assert b"".join(came) == data


# -- windows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beyond", [1, WINDOW, 8 << 20])
async def test_a_peer_that_ignores_the_receive_window_is_cut_off(world: World, beyond: int) -> None:
    """Case 9: at the header of the frame that is too long; no more than the window was ever held."""
    async with world.host("ours") as host, world.raw(initiating()) as peer:
        host.serve(ECHO, never_reading)
        link = await world.in_time(peer.dial(host.addresses[0]))
        link.send_data(1, proposal(ECHO), SYN)
        await world.until(lambda: link.sent_on(1) == proposal(ECHO))
        (connection,) = host.connections
        session = session_of(connection)
        (stream,) = [stream for stream in connection.streams if stream.protocol == ECHO]
        for _ in range(WINDOW // 4096 - 1):
            link.send_data(1, bytes(4096))
        await world.until(lambda: session.unread_bytes == WINDOW - 4096)
        link.send_data(1, bytes(4096 + beyond))
        assert await world.in_time(link.closed())
        assert [frame.length for frame in link.frames if frame.kind == GO_AWAY] == [GO_AWAY_PROTOCOL_ERROR]
        assert session.unread_bytes <= WINDOW
        assert isinstance(connection.ended, RemoteProtocolError)
        assert connection.ended.protocol == "yamux"
        assert await stream.read_exactly(WINDOW - 4096) == bytes(WINDOW - 4096)
        with pytest.raises(RemoteProtocolError):
            await stream.read()
        assert host.connections == []


async def test_windows_of_many_streams_together_are_bounded(world: World) -> None:
    """Case 9: a peer that fills the windows of many streams: the longest unread is reset, the connection goes on."""
    limits = Limits(connection_unread_bytes=4 * WINDOW)
    async with world.host("ours", limits=limits) as host, world.raw(initiating()) as peer:
        host.serve(ECHO, never_reading)
        link = await world.in_time(peer.dial(host.addresses[0]))
        await world.until(lambda: bool(host.connections))
        session = session_of(host.connections[0])
        most = 0
        for number in range(1, 41, 2):
            link.send_data(number, proposal(ECHO), SYN)
            await world.until(lambda number=number: link.sent_on(number) == proposal(ECHO))  # type: ignore[misc]
            for _ in range(WINDOW // 32768):
                link.send_data(number, bytes(32768 - len(proposal(ECHO))))
            await world.pass_time(world.seconds(1, 0.002))
            most = max(most, session.unread_bytes)
        reset = [number for number in range(1, 41, 2) if link.flagged(number, RST)]
        await world.until(lambda: len([n for n in range(1, 41, 2) if link.flagged(n, RST)]) >= 16)
        codes = {f.length for f in link.frames if f.kind == WINDOW_UPDATE and f.flags & RST and f.stream_id in reset}
        assert codes == {RESOURCE_LIMIT}
        assert most <= limits.connection_unread_bytes
        link.send_data(101, proposal(PING) + bytes(32), SYN)
        await world.until(lambda: link.sent_on(101) == proposal(PING) + bytes(32))


@pytest.mark.slow
@pytest.mark.parametrize(("pause", "write_stall"), [(60, Timeouts().write_stall), (3600, math.inf)])
async def test_a_reader_that_pauses_costs_no_byte_and_no_stream(world: World, pause: float, write_stall: float) -> None:
    """Case 10: a minute with all defaults; an hour where the writer's policy allows it; keepalives end nothing."""
    data = content(3 * WINDOW)
    go = asyncio.Event()

    async def pausing(stream: Stream) -> None:
        head = await stream.read_exactly(1000)
        await go.wait()
        rest = b"".join([part async for part in stream])
        await stream.write(hashlib.sha256(head + rest).digest())

    timeouts = Timeouts(write_stall=write_stall, keepalive=world.seconds(30, 0.1))
    async with pair(world, timeouts=timeouts) as (_, bob, connection):
        bob.handle(OTHER, pausing)
        stream = await connection.open_stream(OTHER)
        writing = start(stream.write(data))
        await world.pass_time(world.seconds(pause, 0.7))
        assert not writing.done()
        go.set()
        await world.in_time(writing)
        stream.close_write()
        assert await world.in_time(stream.read_exactly(32)) == hashlib.sha256(data).digest()
        assert await world.in_time(stream.read()) == b""
        assert connection.ended is None


async def test_where_the_writers_policy_does_not_allow_a_pause_its_field_says_so(world: World) -> None:
    """Case 10: and the reader learns of a reset."""
    stall = world.seconds(50, 0.2)
    ended: list[StreamResetError] = []
    go = asyncio.Event()

    async def pausing(stream: Stream) -> None:
        await go.wait()
        try:
            async for _ in stream:
                pass
        except StreamResetError as error:
            ended.append(error)

    async with pair(world, timeouts=Timeouts(write_stall=stall)) as (_, bob, connection):
        bob.handle(OTHER, pausing)
        stream = await connection.open_stream(OTHER)
        start_ns = world.now_ns()
        with pytest.raises(DeadlineError) as caught:
            await world.in_time(stream.write(bytes(3 * WINDOW)))
        assert caught.value.deadline == "write_stall"
        assert not world.virtual or world.now_ns() - start_ns == round(stall * NS)
        go.set()
        await world.until(lambda: [error.by for error in ended] == ["remote"])
        assert connection.ended is None


# -- peers that never finish -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("answers", [True, False], ids=["answered", "never answered"])
async def test_streams_whose_peer_never_finishes_are_freed(world: World, answers: bool) -> None:
    """Case 11: T4: a thousand, opened, written to and closed: counted, bounded, and all gone after `Timeouts.close`."""
    close_seconds = world.seconds(10, 0.5)
    limits = Limits(tombstones_per_connection=400)
    timeouts = Timeouts(close=close_seconds, identify=world.seconds(5, 0.01))

    def answer(link: RawLink) -> None:
        link.on_frame = lambda frame: link.answer(frame.stream_id, ECHO) if frame.flags & SYN and answers else None

    async with against_raw(world, timeouts=timeouts, limits=limits) as (host, link, connection):
        await world.until(lambda: not connection.streams and not connection.tombstones)
        answer(link)
        tasks = other_tasks()
        most = 0
        closed: list[int] = []
        for _ in range(CLOSED):
            stream = await world.in_time(connection.open_stream(ECHO))
            closed.append(stream.id)
            await stream.write(b"a word")
            stream.close()
            most = max(most, len(connection.tombstones))
            await world.pass_time(0) if world.virtual else await asyncio.sleep(0)
        assert most <= limits.tombstones_per_connection
        assert connection.streams == []
        assert other_tasks() == tasks
        await world.until(lambda: not connection.tombstones)
        session = session_of(connection)
        assert session.streams == {}
        assert len(session._forgotten) <= host.limits.forgotten_ids
        counts = host._swarm.counts
        assert (counts.streams, counts.tombstones) == (0, 0)
        assert not connection._deadlines._heap
        await world.until(lambda: all(link.flagged(number, FIN) for number in closed))
        assert {link.sent_on(number) for number in closed} == {proposal(ECHO) + b"a word"}
        assert not any(link.flagged(number, RST) for number in closed)
        assert connection.ended is None
