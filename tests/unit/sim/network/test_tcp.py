"""Connections over the simulated network, through asyncio's own calls."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aiolibp2p.sim import Link, Tuning, current_loop, current_net
from aiolibp2p.sim.network import Connection, SimTransport

MS = 1_000_000


class Recorder(asyncio.Protocol):
    """Keeps everything that happens to it, with its time."""

    def __init__(self, *, keep_open: bool = False) -> None:
        self.events: list[tuple[int, str]] = []
        self.chunks: list[bytes] = []
        self.error: BaseException | None = None
        self.lost = asyncio.Event()
        self.transport: SimTransport
        self._keep_open = keep_open

    def note(self, what: str) -> None:
        self.events.append((current_loop().time_ns(), what))

    @property
    def names(self) -> list[str]:
        return [what for _, what in self.events]

    @property
    def received(self) -> bytes:
        return b"".join(self.chunks)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SimTransport)
        self.transport = transport
        self.note("made")

    def data_received(self, data: bytes) -> None:
        self.chunks.append(data)
        self.note("data")

    def eof_received(self) -> bool:
        self.note("eof")
        return self._keep_open

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.error = exc
        self.note("lost")
        self.lost.set()


async def listen(server_protocol: asyncio.BaseProtocol) -> asyncio.Server:
    return await current_loop().create_server(lambda: server_protocol, "127.0.0.1", 4001)


@asynccontextmanager
async def connected(client: Recorder, server: asyncio.BaseProtocol) -> AsyncIterator[Connection]:
    listening = await listen(server)
    await current_loop().create_connection(lambda: client, "127.0.0.1", 4001)
    await current_loop().settle()
    try:
        yield current_net().connection_of(client.transport)
    finally:
        listening.close()


async def test_a_connection_takes_one_round_trip_and_is_accepted_half_a_one_later() -> None:
    current_net().set_link(Link(latency=0.050))
    client, server = Recorder(), Recorder()
    async with connected(client, server):
        await current_loop().pass_time(1)
        assert client.events == [(100 * MS, "made")]
        assert server.events == [(150 * MS, "made")]


async def test_an_echo_takes_one_round_trip() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        writer.close()

    current_net().set_link(Link(latency=0.050))
    server = await asyncio.start_server(echo, "127.0.0.1", 4001)
    reader, writer = await asyncio.open_connection("localhost", 4001)
    start = current_loop().time_ns()
    writer.write(b"ping")
    assert await reader.readexactly(4) == b"ping"
    assert current_loop().time_ns() - start == 100 * MS
    writer.close()
    await writer.wait_closed()
    server.close()
    await current_loop().settle()


async def test_bandwidth_is_shared_and_counts_headers() -> None:
    current_net().set_link(Link(latency=0.010, bandwidth=8_000_000))
    client, server = Recorder(), Recorder()
    async with connected(client, server):
        await current_loop().pass_time(1)
        start = current_loop().time_ns()
        client.transport.write(bytes(960))
        client.transport.write(bytes(1960))
        await current_loop().pass_time(1)
        assert [at - start for at, what in server.events if what == "data"] == [11 * MS, 13 * MS]


async def test_directions_between_hosts_have_links_of_their_own() -> None:
    here, there = current_net().host("alice", "10.0.0.1"), current_net().host("bob", "10.0.0.2")
    current_net().set_link(Link(latency=0.030), here, there)
    current_net().set_link(Link(latency=0.020), there, here)
    client, server = Recorder(), Recorder()
    with there.here():
        listening = await current_loop().create_server(lambda: server, "0.0.0.0", 4001)
    with here.here():
        await current_loop().create_connection(lambda: client, "bob", 4001)
    assert client.events == [(50 * MS, "made")]
    await current_loop().pass_time(0.030)
    assert server.events == [(80 * MS, "made")]
    assert server.transport.get_extra_info("peername") == ("10.0.0.1", 49152)
    assert client.transport.get_extra_info("peername") == ("10.0.0.2", 4001)
    listening.close()


async def test_packets_carry_the_numbers_that_tcp_gives_them() -> None:
    tap = current_net().tap()
    client, server = Recorder(), Recorder(keep_open=True)
    async with connected(client, server):
        client.transport.write(b"hello")
        await current_loop().settle()
        client.transport.write_eof()
        await current_loop().settle()
        server.transport.write(b"yes")
        server.transport.close()
        await current_loop().settle()
    packets: list[Any] = [seen.packet for seen in tap.packets]
    assert [(p.flags, len(p.payload), p.sequence, p.acknowledges) for p in packets] == [
        ("syn", 0, 0, 0),
        ("syn ack", 0, 0, 1),
        ("ack", 0, 1, 1),
        ("ack", 5, 1, 1),
        ("ack", 0, 1, 6),  # arrived
        ("ack", 0, 1, 6),  # read, so that the window is open again
        ("fin ack", 0, 6, 1),
        ("ack", 3, 1, 7),
        ("fin ack", 0, 4, 7),
        ("ack", 0, 7, 4),
        ("ack", 0, 7, 5),
    ]


async def test_bytes_arrive_in_order_whatever_the_chunks() -> None:
    current_net().tuning = Tuning(segment=700, read=900, ragged=True)
    client, server = Recorder(), Recorder()
    data = bytes(i * 7 % 251 for i in range(100_000))
    async with connected(client, server):
        for start in range(0, len(data), 9973):
            client.transport.write(data[start : start + 9973])
        client.transport.writelines([b"the", bytearray(b" "), memoryview(b"end")])
        await current_loop().settle()
    assert server.received == data + b"the end"
    assert len({len(chunk) for chunk in server.chunks}) > 50
    assert max(map(len, server.chunks)) <= 900


async def test_reads_of_one_byte_can_be_asked_for() -> None:
    current_net().tuning = Tuning(read=1)
    client, server = Recorder(), Recorder()
    async with connected(client, server):
        client.transport.write(b"hello")
        await current_loop().settle()
    assert server.chunks == [b"h", b"e", b"l", b"l", b"o"]


async def test_a_peer_that_does_not_read_pauses_the_writer_at_the_exact_byte() -> None:
    current_net().tuning = Tuning(send_buffer=1000, receive_buffer=500)
    client, server = Recorder(), Recorder()
    async with connected(client, server) as connection:
        connection.stop_reading("server")
        client.transport.set_write_buffer_limits(high=100, low=20)
        for _ in range(4):
            client.transport.write(bytes(400))
            await current_loop().settle()
        assert client.transport.get_write_buffer_size() == 100
        assert "pause" not in client.names
        client.transport.write(b"x")
        assert client.names[-1] == "pause"
        await current_loop().pass_time(3600)
        assert client.names[-1] == "pause"
        assert server.received == b""
        connection.start_reading("server")
        await current_loop().settle()
        assert client.names[-1] == "resume"
        assert len(server.received) == 1601


async def test_half_a_close_leaves_the_other_half() -> None:
    client, server = Recorder(), Recorder(keep_open=True)
    async with connected(client, server):
        assert client.transport.can_write_eof()
        client.transport.write(b"question")
        client.transport.write_eof()
        with pytest.raises(RuntimeError):
            client.transport.write(b"more")
        await current_loop().settle()
        assert server.names == ["made", "data", "eof"]
        server.transport.write(b"answer")
        server.transport.close()
        await current_loop().settle()
    assert client.received == b"answer"
    assert client.names == ["made", "data", "eof", "lost"]
    assert client.error is server.error is None
    assert current_net().connections == []


async def test_close_flushes_what_was_written_and_takes_no_time() -> None:
    current_net().tuning = Tuning(send_buffer=1000, receive_buffer=1000)
    client, server = Recorder(), Recorder()
    async with connected(client, server) as connection:
        connection.stop_reading("server")
        client.transport.write(bytes(5000))
        client.transport.close()
        assert client.transport.is_closing()
        await current_loop().settle()
        assert "lost" not in client.names
        connection.start_reading("server")
        await current_loop().settle()
        assert client.names[-1] == "lost"
        assert len(server.received) == 5000
        assert server.names[-2:] == ["eof", "lost"]
        assert current_loop().time_ns() == 0


async def test_abort_drops_what_the_socket_has_not_taken() -> None:
    current_net().tuning = Tuning(send_buffer=1000, receive_buffer=1000)
    client, server = Recorder(), Recorder()
    async with connected(client, server) as connection:
        connection.stop_reading("server")
        client.transport.write(bytes(5000))
        await current_loop().settle()
        client.transport.abort()
        await current_loop().settle()
        assert client.names[-1] == "lost"
        assert client.error is None
        connection.start_reading("server")
        await current_loop().settle()
    assert len(server.received) == 2000
    assert server.names[-1] == "lost"


async def test_closing_with_unread_bytes_resets_the_peer() -> None:
    client, server = Recorder(), Recorder()
    async with connected(client, server) as connection:
        connection.stop_reading("server")
        client.transport.write(b"unread")
        await current_loop().settle()
        server.transport.close()
        await current_loop().settle()
    assert isinstance(client.error, ConnectionResetError)


async def test_writing_to_a_closed_socket_is_answered_by_a_reset() -> None:
    client, server = Recorder(keep_open=True), Recorder()
    async with connected(client, server):
        server.transport.close()
        await current_loop().settle()
        assert client.names == ["made", "eof"]
        client.transport.write(b"anyone?")
        await current_loop().settle()
    assert client.names[-1] == "lost"
    assert isinstance(client.error, ConnectionResetError)


async def test_writes_after_the_end_go_nowhere() -> None:
    client, server = Recorder(), Recorder()
    async with connected(client, server):
        client.transport.abort()
        client.transport.write(b"late")
        client.transport.close()
        client.transport.write_eof()
        await current_loop().settle()
    assert server.received == b""


async def test_a_buffer_that_is_used_again_too_early_corrupts_the_stream() -> None:
    current_net().tuning = Tuning(send_buffer=4, receive_buffer=4)
    client, server = Recorder(), Recorder()
    async with connected(client, server) as connection:
        connection.stop_reading("server")
        buffer = bytearray(b"abcdefghijkl")
        client.transport.write(buffer)
        buffer[:] = b"XXXXXXXXXXXX"
        connection.start_reading("server")
        await current_loop().settle()
    assert server.received == b"abcdXXXXXXXX"


class Buffered(asyncio.BufferedProtocol):
    """Receives into a small buffer of its own."""

    def __init__(self) -> None:
        self.buffer = bytearray(7)
        self.chunks: list[bytes] = []

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.chunks.append(bytes(self.buffer[:nbytes]))


async def test_a_buffered_protocol_gets_its_bytes_in_its_own_buffer() -> None:
    client, server = Recorder(), Buffered()
    async with connected(client, server):
        client.transport.write(b"0123456789abcdef")
        await current_loop().settle()
        assert server.chunks == [b"0123456", b"789abcd", b"ef"]
        client.transport.close()


async def test_a_protocol_can_be_exchanged() -> None:
    client, first, second = Recorder(), Recorder(), Buffered()
    async with connected(client, first):
        first.transport.set_protocol(second)
        assert first.transport.get_protocol() is second
        client.transport.write(b"hello")
        await current_loop().settle()
        first.transport.close()
        client.transport.close()
        await current_loop().settle()
    assert (first.chunks, second.chunks) == ([], [b"hello"])


async def test_a_paused_transport_reads_nothing_until_it_is_resumed() -> None:
    client, server = Recorder(), Recorder()
    async with connected(client, server):
        server.transport.pause_reading()
        server.transport.pause_reading()
        assert not server.transport.is_reading()
        client.transport.write(b"x")
        client.transport.close()
        await current_loop().pass_time(60)
        assert server.names == ["made"]
        server.transport.resume_reading()
        server.transport.resume_reading()
        await current_loop().settle()
    assert server.names == ["made", "data", "eof", "lost"]


async def test_an_exception_in_a_protocol_ends_its_connection() -> None:
    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            raise ZeroDivisionError

    client, server = Recorder(), Failing()
    async with connected(client, server):
        client.transport.write(b"x")
        await current_loop().settle()
    assert isinstance(server.error, ZeroDivisionError)
    assert client.names == ["made", "eof", "lost"]
    reports = current_loop().unhandled
    assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]
    reports.clear()


async def test_what_is_not_bytes_cannot_be_written() -> None:
    client, server = Recorder(), Recorder()
    async with connected(client, server):
        bad: Any = "text"
        with pytest.raises(TypeError):
            client.transport.write(bad)
        client.transport.close()


async def test_nobody_listening_refuses_the_connection_after_a_round_trip() -> None:
    current_net().set_link(Link(latency=0.050))
    with pytest.raises(ConnectionRefusedError) as caught:
        await asyncio.open_connection("127.0.0.1", 9)
    assert caught.value.errno == errno.ECONNREFUSED
    assert current_loop().time_ns() == 100 * MS


async def test_a_port_in_use_cannot_be_taken_again_until_it_is_given_back() -> None:
    loop = current_loop()
    first = await loop.create_server(Recorder, "127.0.0.1", 4001)
    for address in ("127.0.0.1", "0.0.0.0", None):
        with pytest.raises(OSError, match="address already in use") as caught:
            await loop.create_server(Recorder, address, 4001)
        assert caught.value.errno == errno.EADDRINUSE
    other = await loop.create_server(Recorder, "::1", 4001)
    first.close()
    again = await loop.create_server(Recorder, "0.0.0.0", 4001)
    again.close()
    other.close()
    assert current_net().listeners == []


async def test_an_address_of_nobody_here_cannot_be_listened_on() -> None:
    with pytest.raises(OSError, match="not ours") as caught:
        await current_loop().create_server(Recorder, "203.0.113.9", 4001)
    assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_port_zero_takes_a_free_port_and_tells_which() -> None:
    one = await current_loop().create_server(Recorder, "127.0.0.1", 0)
    other = await current_loop().create_server(Recorder, "::1", 0)
    assert one.sockets[0].getsockname() == ("127.0.0.1", 49152)
    assert other.sockets[0].getsockname() == ("::1", 49153, 0, 0)
    assert other.sockets[0].family == socket.AF_INET6
    one.close()
    other.close()


async def test_a_name_that_nobody_has_does_not_resolve() -> None:
    with pytest.raises(socket.gaierror):
        await asyncio.open_connection("nowhere.example", 1)
    assert await current_loop().getaddrinfo("localhost", 5, type=socket.SOCK_STREAM) == [
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 5))
    ]


async def test_connections_are_accepted_in_the_order_they_arrive() -> None:
    accepted: list[Recorder] = []

    def factory() -> Recorder:
        accepted.append(Recorder())
        return accepted[-1]

    server = await current_loop().create_server(factory, "127.0.0.1", 4001)
    dials = [current_loop().create_connection(Recorder, "127.0.0.1", 4001) for _ in range(20)]
    clients = await asyncio.gather(*dials)
    await current_loop().settle()
    peers = [protocol.transport.get_extra_info("peername") for protocol in accepted]
    assert peers == [transport.get_extra_info("sockname") for transport, _ in clients]
    server.close()


async def test_the_extra_information_has_names_and_no_socket() -> None:
    client, server = Recorder(), Recorder()
    async with connected(client, server):
        assert client.transport.get_extra_info("sockname") == ("127.0.0.1", 49152)
        assert server.transport.get_extra_info("peername") == ("127.0.0.1", 49152)
        assert client.transport.get_extra_info("socket") is None
        assert "open" in repr(client.transport)
        assert current_net().transports == [client.transport, server.transport]
        client.transport.close()


async def test_giving_up_a_connect_leaves_nothing() -> None:
    current_net().set_link(Link(latency=1.0))
    accepted = Recorder()
    server = await listen(accepted)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await asyncio.open_connection("127.0.0.1", 4001)
    await current_loop().pass_time(10)
    assert accepted.events == []
    assert current_net().connections == []
    server.close()


async def test_a_connect_cancelled_as_it_succeeds_ends_the_connection() -> None:
    loop = current_loop()
    current_net().set_link(Link(latency=0.050))
    accepted = Recorder()
    server = await listen(accepted)
    connecting = loop.create_task(asyncio.open_connection("127.0.0.1", 4001))
    await loop.pass_time(0.06)
    loop.call_at(0.1, connecting.cancel)  # in the same instant as the SYN-ACK, and after it
    with pytest.raises(asyncio.CancelledError):
        await connecting
    await loop.pass_time(1)
    assert accepted.names == ["made", "eof", "lost"]
    assert current_net().connections == []
    server.close()


async def test_a_server_waits_for_its_connections_as_this_python_does() -> None:
    client, server = Recorder(), Recorder()
    listening = await listen(server)
    await current_loop().create_connection(lambda: client, "127.0.0.1", 4001)
    await current_loop().settle()
    listening.close()
    waiting = current_loop().create_task(listening.wait_closed())
    await current_loop().settle()
    assert waiting.done() is (sys.version_info < (3, 12))
    client.transport.close()
    await waiting
    await current_loop().settle()
    assert server.names[-1] == "lost"
