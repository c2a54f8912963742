"""What a test may do to the simulated network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from aiolibp2p.sim import Link, SimLoop, SimNet, Tap, current_loop, current_net
from aiolibp2p.sim.network import Connection

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
NS = 1_000_000_000


class Pair:
    """A client and a server that are connected; `connect` makes one."""

    client: Streams
    server: Streams
    connection: Connection

    async def connect(self) -> Pair:
        accepted: asyncio.Future[Streams] = current_loop().create_future()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.set_result((reader, writer))

        self.listening = await asyncio.start_server(accept, "127.0.0.1", 4001)
        self.client = await asyncio.open_connection("127.0.0.1", 4001)
        self.server = await accepted
        self.connection = current_net().connection_of(self.client[1].transport)
        return self

    def close(self) -> None:
        self.listening.close()
        self.client[1].transport.abort()
        self.server[1].transport.abort()


async def test_held_bytes_arrive_in_order_once_they_are_let_through() -> None:
    pair = await Pair().connect()
    pair.connection.hold("client")
    pair.client[1].write(b"one ")
    await current_loop().pass_time(3600)
    pair.client[1].write(b"two")
    pair.client[1].write_eof()
    reading = current_loop().create_task(pair.server[0].read())
    await current_loop().settle()
    assert not reading.done()
    pair.connection.open()
    assert await reading == b"one two"
    assert current_loop().time_ns() == 3600 * NS
    pair.close()


async def test_the_other_direction_of_a_held_connection_goes_on() -> None:
    pair = await Pair().connect()
    pair.connection.hold("client")
    pair.server[1].write(b"still here")
    assert await pair.client[0].readexactly(10) == b"still here"
    pair.close()


async def test_what_a_black_hole_swallowed_is_sent_again_after_it_opens() -> None:
    pair = await Pair().connect()
    pair.connection.black_hole("client")
    pair.client[1].write(b"lost ")
    await current_loop().pass_time(60)
    pair.client[1].write(b"and found")
    pair.connection.open()
    assert await pair.server[0].readexactly(14) == b"lost and found"
    assert 60 * NS < current_loop().time_ns() < 180 * NS
    pair.close()


async def test_a_writer_into_a_black_hole_is_told_after_924_seconds() -> None:
    pair = await Pair().connect()
    pair.connection.black_hole("client")
    pair.connection.black_hole("server")
    pair.client[1].write(b"anyone?")
    with pytest.raises(TimeoutError):
        await pair.client[0].read()
    assert current_loop().time_ns() == 924_600_000_000
    assert not pair.server[0].at_eof()
    pair.close()
    pair.connection.open()


async def test_a_silent_peer_that_acknowledges_nothing_times_the_writer_out() -> None:
    pair = await Pair().connect()
    pair.connection.black_hole("server")
    pair.client[1].write(b"anyone?")
    assert await pair.server[0].readexactly(7) == b"anyone?"
    with pytest.raises(TimeoutError):
        await pair.client[0].read()
    assert current_loop().time_ns() == 924_600_000_000
    pair.connection.open()
    pair.close()


async def test_a_path_holds_all_connections_between_two_hosts() -> None:
    pair = await Pair().connect()
    path = current_net().path(current_net().home, current_net().home)
    path.valve.hold()
    pair.client[1].write(b"x")
    opening = current_loop().create_task(asyncio.open_connection("127.0.0.1", 4001))
    await current_loop().pass_time(1)
    assert not opening.done()
    path.valve.open()
    pair.listening.close()
    with pytest.raises(ConnectionRefusedError):
        await opening
    assert await pair.server[0].readexactly(1) == b"x"
    pair.close()


async def test_a_cut_path_delays_a_connect_until_a_syn_gets_through() -> None:
    path = current_net().path(current_net().home, current_net().home)
    path.valve.cut()
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 4001)
    opening = current_loop().create_task(asyncio.open_connection("127.0.0.1", 4001))
    await current_loop().pass_time(5)
    path.valve.open()
    _, writer = await opening
    assert current_loop().time_ns() == 7 * NS
    writer.close()
    server.close()
    await current_loop().settle()


async def test_a_connect_to_an_address_that_nobody_has_times_out_after_127_seconds() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.open_connection("203.0.113.1", 4001)
    assert current_loop().time_ns() == 127 * NS
    assert current_net().connections == []


async def test_an_address_that_nobody_has_can_be_unreachable_at_once() -> None:
    current_net().unknown_addresses = "unreachable"
    with pytest.raises(OSError, match="No route to host"):
        await asyncio.open_connection("203.0.113.1", 4001)
    assert current_loop().time_ns() == 0


async def test_a_slow_reader_gets_everything_once_it_reads_again() -> None:
    pair = await Pair().connect()
    pair.connection.stop_reading("server")
    pair.client[1].write(bytes(2 << 20))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await pair.client[1].drain()
    pair.connection.start_reading("server")
    assert len(await pair.server[0].readexactly(2 << 20)) == 2 << 20
    pair.close()


@pytest.mark.parametrize("side", ["client", "server", None])
async def test_a_reset_reaches_the_ends_it_is_for(side: str | None) -> None:
    pair = await Pair().connect()
    pair.connection.reset(None if side is None else "client" if side == "client" else "server")
    for name, (reader, _) in (("client", pair.client), ("server", pair.server)):
        if side in (None, name):
            with pytest.raises(ConnectionResetError):
                await reader.read()
    pair.close()


async def test_a_port_can_refuse_although_something_listens() -> None:
    pair = await Pair().connect()
    current_net().home.refused_ports.add(4001)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", 4001)
    pair.close()


@pytest.mark.parametrize("reading", [True, False])
async def test_a_mute_listener_accepts_and_never_speaks(reading: bool) -> None:
    server = await current_net().listen_mute("127.0.0.1", 4001, reading=reading)
    reader, writer = await asyncio.open_connection("127.0.0.1", 4001)
    for _ in range(2):
        writer.write(bytes(1 << 20))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await reader.read(1)
    assert (writer.transport.get_write_buffer_size() == 0) is reading
    writer.transport.abort()
    server.close()
    for transport in current_net().transports:
        transport.abort()


async def test_a_tap_tells_when_each_segment_left() -> None:
    current_net().set_link(Link(latency=0.050))
    tap = current_net().tap()
    pair = await Pair().connect()
    await current_loop().pass_time(9.85)
    pair.client[1].write(b"tick")
    pair.server[1].write(b"tock")
    pair.client[1].write_eof()
    await pair.client[0].readexactly(4)
    assert tap.sent_by("client") == [(10_000_000_000, b"tick")]
    assert tap.bytes_by("server", pair.connection.id) == b"tock"
    assert [segment.kind for segment in tap.segments] == ["data", "data", "fin"]
    pair.close()


def test_a_tap_tells_connections_apart() -> None:
    assert Tap().bytes_by("client", 1) == b""


async def test_a_server_whose_factory_fails_resets_the_connection() -> None:
    fails: Callable[[], asyncio.Protocol] = lambda: 1 // 0  # type: ignore[assignment, return-value]  # noqa: E731
    server = await current_loop().create_server(fails, "127.0.0.1", 4001)
    reader, writer = await asyncio.open_connection("127.0.0.1", 4001)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    assert len(current_loop().unhandled) == 1
    current_loop().unhandled.clear()
    writer.close()
    server.close()


async def test_a_listener_that_closes_in_the_middle_of_a_handshake_resets_it() -> None:
    current_net().set_link(Link(latency=0.050))
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 4001)
    reader, writer = await asyncio.open_connection("127.0.0.1", 4001)
    server.close()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    assert current_loop().time_ns() == 200_000_000
    writer.close()
    await current_loop().settle()
    assert current_net().connections == []


def test_names_and_addresses_of_hosts_are_their_own() -> None:
    loop = SimLoop()
    simulated = SimNet(loop)
    simulated.host("alice", "10.0.0.1")
    for name, address in (("alice", "10.0.0.2"), ("bob", "10.0.0.1")):
        with pytest.raises(ValueError, match="taken"):
            simulated.host(name, address)
    loop.close()


async def test_a_lost_ack_of_the_handshake_is_sent_again() -> None:
    current_net().set_link(Link(latency=0.050))
    path = current_net().path(current_net().home, current_net().home)
    accepted: list[Streams] = []
    server = await asyncio.start_server(lambda *streams: accepted.append(streams), "127.0.0.1", 4001)
    opening = current_loop().create_task(asyncio.open_connection("127.0.0.1", 4001))
    await current_loop().pass_time(0.075)
    path.valve.cut()
    _, writer = await opening
    writer.write(b"early")
    writer.close()
    await current_loop().pass_time(0.5)
    assert accepted == []
    path.valve.open()
    await current_loop().pass_time(5)
    assert await accepted[0][0].read() == b"early"
    accepted[0][1].close()
    server.close()


async def test_a_refused_connection_leaves_no_segment() -> None:
    tap = current_net().tap()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", 4001)
    assert tap.segments == []
