"""Programs that know nothing of the simulator run on it as they are, and take exactly the time that their bytes take.

They make sockets of their own, which the simulated loop takes for its own: hence the mark.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import websockets
from aiohttp import ClientConnectionError, ClientSession, ClientTimeout, web
from websockets.asyncio.client import connect as connect_websocket
from websockets.asyncio.server import ServerConnection, serve

from aiolibp2p.sim import Host, Link, current_loop, current_net, run
from tests.unit.sim.certificates import tls_contexts

pytestmark = pytest.mark.sockets

MS = 1_000_000


def over_fifty_ms(program: Callable[[Host, Host], Awaitable[None]]) -> None:
    """Run a program of two hosts that are 50 ms apart."""

    async def main() -> None:
        net = current_net()
        net.set_link(Link(latency=0.05))
        await program(net.host("client"), net.host("server"))

    run(main, seed=3)


class Passed:
    """Gives the virtual milliseconds since it was last asked."""

    def __init__(self) -> None:
        self._loop = current_loop()
        self._since_ns = self._loop.time_ns()

    def __call__(self) -> float:
        since_ns, self._since_ns = self._since_ns, self._loop.time_ns()
        return (self._since_ns - since_ns) / MS


async def serve_http(host: Host, application: web.Application, port: int, **options: object) -> None:
    runner = web.AppRunner(application)
    with host.here():
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", port, **options).start()  # type: ignore[arg-type]


async def add_one(request: web.Request) -> web.Response:
    await current_loop().pass_time(float(request.query.get("sleep", "0")))
    return web.json_response(int(request.query["n"]) + 1)


def adder() -> web.Application:
    application = web.Application()
    application.router.add_get("/", add_one)
    return application


def test_streams_take_a_round_trip_to_connect_and_one_to_answer() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    async def program(client: Host, server: Host) -> None:
        with server.here():
            listening = await asyncio.start_server(echo, "0.0.0.0", 7)
        with client.here():
            passed = Passed()
            reader, writer = await asyncio.open_connection("server", 7)
            assert passed() == 100
            writer.write(b"x")
            assert await reader.read(1) == b"x"
            assert passed() == 100
            writer.write_eof()
            assert await reader.read() == b""
            assert passed() == 100
            writer.close()
            await writer.wait_closed()
        listening.close()

    over_fifty_ms(program)


def test_aiohttp_client_and_server() -> None:
    async def program(client: Host, server: Host) -> None:
        await serve_http(server, adder(), 80)
        with client.here():
            passed = Passed()
            async with ClientSession() as session:
                async with session.get("http://server/?n=41&sleep=2") as response:
                    assert await response.json() == 42
                assert passed() == 2200  # a round trip to connect, one for the answer
                async with session.get("http://server/?n=1") as response:
                    assert await response.json() == 2
                assert passed() == 100  # the connection was kept
                with pytest.raises(TimeoutError):
                    await session.get("http://server/?n=1&sleep=9", timeout=ClientTimeout(total=1.5))
                assert passed() == 1500
                with pytest.raises(ClientConnectionError):
                    await session.get("http://server:81/")
                assert passed() == 100  # refused

    over_fifty_ms(program)


def test_aiohttp_over_tls(tmp_path: Path) -> None:
    client_context, server_context = tls_contexts("server", tmp_path)

    async def program(client: Host, server: Host) -> None:
        await serve_http(server, adder(), 443, ssl_context=server_context)
        with client.here():
            passed = Passed()
            async with (
                ClientSession() as session,
                session.get("https://server/?n=1", ssl=client_context) as response,
            ):
                assert await response.json() == 2
            assert passed() == 300  # a round trip each for TCP, TLS 1.3 and HTTP

    over_fifty_ms(program)


def test_websockets_notices_a_peer_that_has_fallen_silent() -> None:
    async def reverse(socket: ServerConnection) -> None:
        async for message in socket:
            assert isinstance(message, str)
            await socket.send(message[::-1])

    async def program(client: Host, server: Host) -> None:
        with server.here():
            listening = await serve(reverse, "0.0.0.0", 81)
        with client.here():
            passed = Passed()
            async with connect_websocket("ws://server:81/", proxy=None) as socket:
                assert passed() == 200
                await socket.send("abc")
                assert await socket.recv() == "cba"
                assert passed() == 100
                for connection in current_net().connections:
                    connection.black_hole("server")
                with pytest.raises(websockets.ConnectionClosedError, match="keepalive ping timeout"):
                    await socket.recv()
                # It pings after 20 s, waits for 20 s, asks to close for 10 s, and has been open for 100 ms.
                assert passed() == 49_900
        listening.close(close_connections=False)

    over_fifty_ms(program)
