"""js-libp2p, go-libp2p and py-libp2p dial a host of ours over TCP, Noise and Yamux."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aiolibp2p import Host
from aiolibp2p.errors import Libp2pError
from aiolibp2p.net.events import HandlerFailed
from aiolibp2p.version import AGENT
from tests.interop.peers import Dialer, Stack
from tests.interop.served import ECHO, PUSHED, Served, share, told

MIB = 1 << 20
LOCAL = ["/ip4/127.0.0.1/tcp/0"]
SIZES = [0, 1, 65_535, 65_536, 65_537, 16 * MIB]


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[str, Served]]:
    """Give a serving host's address; no handler may have failed, unless by the peer's doing."""
    host = Host(listen=LOCAL)
    served = Served(host)  # before it starts: afterwards a push would go out
    async with host:
        events = host.events()
        yield str(host.addresses[0]), served
    failed = [event async for event in events if isinstance(event, HandlerFailed)]
    assert [event for event in failed if not isinstance(event.error, Libp2pError)] == []


async def test_identify_tells_who_we_are(dialer: Dialer) -> None:
    async with serving() as (address, _):
        answer = await dialer.run("info", address)
        assert answer["agent"] == AGENT
        assert answer["protocolVersion"] == "ipfs/0.1.0"
        assert {ECHO, "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"} <= set(answer["protocols"])
        assert address.partition("/p2p/")[0] in answer["listenAddrs"]
        assert answer["observedAddr"].startswith("/ip4/127.0.0.1/tcp/")
        assert answer["signedPeerRecord"] is True
        assert (answer["encryption"].strip("/"), answer["muxer"]) == ("noise", "/yamux/1.0.0")


@pytest.mark.conforms("P1")
async def test_a_hundred_pings_are_answered(dialer: Dialer) -> None:
    async with serving() as (address, _):
        assert (await dialer.run("ping", address, 100))["n"] == 100


@pytest.mark.parametrize("stack", ["js", pytest.param("py", marks=pytest.mark.py)])
async def test_pings_whose_stream_is_ended_with_the_request_are_answered(dialer: Dialer) -> None:
    async with serving() as (address, _):
        answer = await dialer.run("ping-service", address, 5)
        assert (len(answer["roundTripMs"]), answer["openStreams"]) == (5, {})


@pytest.mark.parametrize("size", SIZES)
async def test_echo_returns_every_byte(dialer: Dialer, size: int) -> None:
    async with serving() as (address, _):
        answer = await dialer.run("echo", address, size)
        assert answer["ok"]
        assert answer["bytes"] == size
        assert not answer["openStreams"]


@pytest.mark.parametrize("stack", [pytest.param("go", marks=pytest.mark.go)])
@pytest.mark.parametrize("size", [0, 1, 65_537])
@pytest.mark.conforms("M3")
async def test_a_stream_opened_lazily_works_from_its_first_byte(dialer: Dialer, size: int) -> None:
    async with serving() as (address, _):
        answer = await dialer.run("echo", address, size, "lazy")
        assert answer["lazy"]
        assert answer["ok"]


async def test_upload_of_256_mib_is_counted_here(dialer: Dialer, stack: Stack) -> None:
    size = share(stack, 256 * MIB)
    async with serving() as (address, _):
        assert (await dialer.run("upload", address, size))["counted"] == size


async def test_download_of_64_mib_by_perf(dialer: Dialer, stack: Stack) -> None:
    size = share(stack, 64 * MIB)
    async with serving() as (address, _):
        assert (await dialer.run("download", address, size))["counted"] == size


@pytest.mark.parametrize(("streams", "concurrency"), [(1000, 1), (640, 64)])
async def test_streams_leave_none_open_on_either_side(
    dialer: Dialer, stack: Stack, streams: int, concurrency: int
) -> None:
    async with serving() as (address, _):
        answer = await dialer.run("streams", address, share(stack, streams), concurrency=concurrency, report=True)
        assert answer["failed"] == 0, answer
        assert answer["openStreams"] == {}
        assert answer["report"] == {"open": []}


async def test_either_side_may_end_first(dialer: Dialer) -> None:
    async with serving() as (address, served):
        answer = await dialer.run("half-close", address, 100_000)
        assert answer["ok"]
        assert answer["first"] == "done"
        assert answer["openStreams"] == {}
        assert served.half_closed == [(100_000, answer["sha256"])]


async def test_the_peers_reset_reaches_our_handler(dialer: Dialer, stack: Stack) -> None:
    async with serving() as (address, served):
        await dialer.run("reset", address, 4242)
        assert served.resets == [4242 if stack == "go" else 0]


async def test_our_handlers_reset_reaches_the_peer(dialer: Dialer, stack: Stack) -> None:
    async with serving() as (address, _):
        answer = await dialer.run("reset-by", address, 4243)
        assert answer["reset"]
        assert answer["openStreams"] == {}
        if stack == "go":
            assert (answer["code"], answer["remote"]) == (4243, True)


async def test_a_protocol_that_we_do_not_speak_is_refused_and_the_connection_stays(dialer: Dialer) -> None:
    async with serving() as (address, _):
        answer = await dialer.run("na", address)
        assert answer["eager"]
        assert answer["after"] == "still here"
        if dialer.stack == "go":
            assert answer["wasLazy"]
            assert answer["lazy"]


async def test_a_protocol_that_the_dialler_takes_up_arrives_by_push(dialer: Dialer) -> None:
    host = Host(listen=LOCAL)
    Served(host)
    async with host:
        events = host.events()
        async with asyncio.TaskGroup() as group:
            pushing = group.create_task(dialer.run("push", host.addresses[0]), name="push")
            connection = await told(events, PUSHED)
            await host.disconnect(connection.peer_id)
        assert pushing.result()["disconnected"]
