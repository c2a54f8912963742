"""Peers that fall silent at some step, on real sockets: every operation ends at its deadline, and no task is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aiolibp2p import Host, Timeouts
from aiolibp2p.errors import DeadlineError, DialError
from aiolibp2p.net.events import InboundFailed
from tests.interop.peers import Listener
from tests.interop.served import CHUNK, ECHO, STALL, exchange, write_for_ever

SHORT_SECONDS = 0.3


@asynccontextmanager
async def accepting_and_silent() -> AsyncIterator[str]:
    """Give the address of a server that accepts TCP and never speaks."""
    accepted: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: accepted.append(writer), "127.0.0.1", 0)
    try:
        yield f"/ip4/127.0.0.1/tcp/{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in accepted:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in accepted), return_exceptions=True)


async def test_a_dial_of_a_peer_that_never_speaks_ends_at_dial_private_address() -> None:
    async with accepting_and_silent() as address, Host(timeouts=Timeouts(dial_private_address=SHORT_SECONDS)) as host:
        tasks = len(asyncio.all_tasks())
        with pytest.raises(DialError) as caught:
            await host.connect(address)
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, DeadlineError)
        assert failure.deadline == "dial_private_address"
        assert failure.stage
        assert len(asyncio.all_tasks()) == tasks
        assert host.connections == []


async def test_an_inbound_connection_that_never_speaks_is_dropped_at_upgrade() -> None:
    async with Host(listen=["/ip4/127.0.0.1/tcp/0"], timeouts=Timeouts(upgrade=SHORT_SECONDS)) as host:
        events = host.events()
        tasks = len(asyncio.all_tasks())
        port = int(str(host.addresses[0]).split("/")[4])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        event = await anext(events)
        assert isinstance(event, InboundFailed)
        assert isinstance(event.error, DeadlineError)
        assert event.error.deadline == "upgrade"
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await reader.readexactly(1000)
        writer.close()
        assert len(asyncio.all_tasks()) == tasks


async def test_a_read_from_a_peer_that_stops_after_selection_ends_at_the_idle_timeout(listener: Listener) -> None:
    async with Host(timeouts=Timeouts(stream_idle=SHORT_SECONDS)) as host:
        tasks = len(asyncio.all_tasks())
        await host.connect(listener.addr)
        stream = await host.open_stream(listener.addr, STALL)
        await stream.write(b"anybody?")
        with pytest.raises(DeadlineError) as caught:
            await stream.read()
        assert caught.value.deadline == "stream_idle"
        assert stream.handshake == "answered"
        stream.reset()
        assert len(asyncio.all_tasks()) == tasks


async def test_a_write_to_a_peer_that_stops_reading_ends_at_write_stall(listener: Listener) -> None:
    async with Host(timeouts=Timeouts(write_stall=SHORT_SECONDS)) as host:
        tasks = len(asyncio.all_tasks())
        await host.connect(listener.addr)
        stream = await host.open_stream(listener.addr, STALL)
        with pytest.raises(DeadlineError) as caught:
            await write_for_ever(stream)
        assert caught.value.deadline == "write_stall"
        assert await exchange(await host.open_stream(listener.addr, ECHO), CHUNK) == CHUNK
        assert len(asyncio.all_tasks()) == tasks
