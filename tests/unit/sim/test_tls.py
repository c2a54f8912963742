"""TLS of the standard library over simulated transports, with exact durations."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from aiolibp2p.sim import Link, current_loop, current_net
from tests.unit.sim.certificates import tls_contexts

MS = 1_000_000


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def test_tls_takes_one_round_trip_more_than_tcp(tmp_path: Path) -> None:
    client, server = tls_contexts("localhost", tmp_path)
    current_net().set_link(Link(latency=0.05))
    listening = await asyncio.start_server(shout, "127.0.0.1", 443, ssl=server)
    reader, writer = await asyncio.open_connection("localhost", 443, ssl=client)
    assert current_loop().time_ns() == 200 * MS
    assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
    writer.write(b"hello\n")
    assert await reader.readline() == b"HELLO\n"
    assert current_loop().time_ns() == 300 * MS
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    await current_loop().pass_time(1)
    listening.close()


async def test_a_connection_turns_to_tls_half_way(tmp_path: Path) -> None:
    client, server = tls_contexts("mail", tmp_path)
    current_net().set_link(Link(latency=0.05))

    async def mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"ok\n")
        await writer.start_tls(server)
        await shout(reader, writer)

    listening = await asyncio.start_server(mail, "127.0.0.1", 25)
    reader, writer = await asyncio.open_connection("127.0.0.1", 25)
    writer.write(b"STARTTLS\n")
    assert await reader.readline() == b"ok\n"
    await writer.start_tls(client, server_hostname="mail")
    assert current_loop().time_ns() == 300 * MS
    writer.write(b"hello\n")
    assert await reader.read() == b"HELLO\n"
    writer.close()
    await writer.wait_closed()
    await current_loop().pass_time(1)
    listening.close()


async def test_a_certificate_of_another_name_is_refused(tmp_path: Path) -> None:
    client, server = tls_contexts("bob", tmp_path)
    listening = await asyncio.start_server(shout, "127.0.0.1", 443, ssl=server)
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("localhost", 443, ssl=client)
    await current_loop().settle()
    assert current_net().transports == []
    listening.close()


async def test_a_server_that_never_answers_ends_the_handshake_at_its_timeout(tmp_path: Path) -> None:
    client, _ = tls_contexts("localhost", tmp_path)
    mute = await current_net().listen_mute("127.0.0.1", 443)
    with pytest.raises(ConnectionAbortedError):
        await asyncio.open_connection("localhost", 443, ssl=client, ssl_handshake_timeout=7)
    assert current_loop().time_ns() == 7_000 * MS
    mute.close()


async def test_tls_needs_a_name() -> None:
    with pytest.raises(ValueError, match="server_hostname"):
        await current_loop().create_connection(asyncio.Protocol, None, 443, ssl=True)
