"""Programs that make real sockets themselves: what stands for a simulated socket, and what is refused."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from aiolibp2p.sim import EscapeError, current_loop, current_net, run
from aiolibp2p.sim.sockets import bound_address, destination

pytestmark = pytest.mark.sockets


async def echo_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read(100))
    writer.close()


def test_a_socket_is_connected_and_then_handed_over() -> None:
    async def main() -> bytes:
        loop = current_loop()
        server = await asyncio.start_server(echo_once, "127.0.0.1", 80)
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", 80))
        await loop.pass_time(5)
        reader, writer = await asyncio.open_connection(sock=sock)
        assert sock.fileno() < 0
        writer.write(b"hello")
        answer = await reader.read()
        writer.close()
        server.close()
        return answer

    assert run(main, strict=True) == b"hello"


def test_what_arrived_before_the_hand_over_is_not_lost() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello")
        writer.close()

    async def main() -> bytes:
        server = await asyncio.start_server(greet, "127.0.0.1", 25)
        sock = socket.socket()
        await current_loop().sock_connect(sock, ("127.0.0.1", 25))
        await current_loop().pass_time(1)
        reader, writer = await asyncio.open_connection(sock=sock)
        text = await reader.read()
        writer.close()
        server.close()
        return text

    assert run(main, strict=True) == b"220 hello"


def test_a_connection_that_ended_before_the_hand_over_says_so() -> None:
    async def main() -> None:
        server = await current_loop().create_server(asyncio.Protocol, "127.0.0.1", 80)
        sock = socket.socket()
        await current_loop().sock_connect(sock, ("127.0.0.1", 80))
        current_net().connections[0].transport("client").abort()
        await current_loop().settle()
        with pytest.raises(ConnectionResetError):
            await asyncio.open_connection(sock=sock)
        server.close()

    run(main)


def test_the_connection_of_a_socket_that_was_closed_instead_ends() -> None:
    async def main() -> None:
        loop = current_loop()
        server = await current_loop().create_server(asyncio.Protocol, "127.0.0.1", 80)
        for _ in range(3):
            sock = socket.socket()
            await loop.sock_connect(sock, ("127.0.0.1", 80))
            sock.close()
        await loop.settle()
        assert len([t for t in current_net().transports if t.endpoint.side == "client"]) == 1
        server.close()

    run(main)


def test_sockets_of_the_real_world_are_refused() -> None:
    async def main() -> None:
        loop: Any = current_loop()
        tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        with tcp, udp:
            with pytest.raises(EscapeError, match="sock_connect"):
                await loop.create_connection(asyncio.Protocol, sock=tcp)
            with pytest.raises(EscapeError, match="create_server"):
                await loop.create_server(asyncio.Protocol, sock=tcp)
            with pytest.raises(EscapeError, match="not TCP"):
                await loop.sock_connect(udp, ("127.0.0.1", 80))
            with pytest.raises(EscapeError, match="no address"):
                await loop.sock_connect(tcp, "/run/socket")
            with pytest.raises(EscapeError, match="only an unconnected UDP"):
                bound_address(tcp)
            udp.connect(("127.0.0.1", 9))
            with pytest.raises(EscapeError, match="outside the simulation"):
                bound_address(udp)

    run(main)


def test_a_port_that_the_system_chose_is_forgotten_and_one_that_was_asked_for_is_kept() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as chosen:
        chosen.bind(("127.0.0.1", 0))
        assert bound_address(chosen) == ("127.0.0.1", 0)
        assert chosen.fileno() < 0
    with socket.socket(type=socket.SOCK_DGRAM) as unbound:
        assert bound_address(unbound) == ("0.0.0.0", 0)


def test_an_ipv4_address_in_the_form_of_an_ipv6_one_is_ipv4() -> None:
    assert destination(("::ffff:1.2.3.4", 5, 0, 0)) == ("1.2.3.4", 5)
    assert destination(("2001:db8::1", 5, 0, 0)) == ("2001:db8::1", 5)
    assert destination(("example.net", 5)) == ("example.net", 5)
