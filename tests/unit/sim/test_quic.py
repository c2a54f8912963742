"""Unmodified aioquic on the simulated network: real QUIC over simulated UDP, with exact durations.

It makes a socket of its own, which the simulated loop takes for its own: hence the mark.
"""

from __future__ import annotations

import asyncio

import pytest
from aioquic.asyncio.client import connect
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration

from aiolibp2p.sim import Host, Link, current_loop, current_net, run
from tests.unit.sim.certificates import KEY, certificate, pem_of

pytestmark = pytest.mark.sockets

MS = 1_000_000
PORT = 4433


def configurations() -> tuple[QuicConfiguration, QuicConfiguration]:
    """Return what a client and a server use."""
    cert = certificate("server")
    server = QuicConfiguration(is_client=False, alpn_protocols=["echo"])
    server.certificate, server.private_key = cert, KEY
    client = QuicConfiguration(is_client=True, alpn_protocols=["echo"], server_name="server")
    client.load_verify_locations(cadata=pem_of(cert))
    return client, server


async def transfer(client: Host, server: Host, size: int) -> tuple[int, int, bytes]:
    """Send `size` bytes to an echo server and return when the handshake and the answer were over."""
    client_configuration, server_configuration = configurations()
    loop = current_loop()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.write_eof()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        echoes.append(loop.create_task(echo(reader, writer), name="echo"))

    echoes: list[asyncio.Task[None]] = []
    with server.here():
        serving = await serve("0.0.0.0", PORT, configuration=server_configuration, stream_handler=accept)
    with client.here():
        async with connect("server", PORT, configuration=client_configuration) as protocol:
            handshake_ns = loop.time_ns()
            reader, writer = await protocol.create_stream()
            writer.write(bytes(size))
            writer.write_eof()
            answer = await reader.read()
            answered_ns = loop.time_ns()
    serving.close()
    return handshake_ns, answered_ns, answer


def test_a_quic_handshake_takes_one_round_trip_and_an_echo_another() -> None:
    async def main() -> tuple[int, int, bytes]:
        net = current_net()
        net.set_link(Link(latency=0.05))
        return await transfer(net.host("client"), net.host("server"), 100)

    assert run(main) == (100 * MS, 200 * MS, bytes(100))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_quic_delivers_every_byte_over_a_bad_link(seed: int) -> None:
    async def main() -> tuple[int, int, bytes]:
        net = current_net()
        net.set_link(Link(latency=0.03, jitter=0.01, loss=0.05, reorder=0.02, bandwidth=20e6, mtu=1400))
        return await transfer(net.host("client"), net.host("server"), 50_000)

    handshake_ns, answered_ns, answer = run(main, seed=seed)
    assert answer == bytes(50_000)
    assert answered_ns > handshake_ns > 30 * MS
