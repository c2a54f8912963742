"""A host of ours dials js-libp2p, go-libp2p and py-libp2p over TCP, Noise and Yamux."""

from __future__ import annotations

import asyncio
import os

import pytest

from aiolibp2p import Host
from aiolibp2p.errors import NegotiationError, StreamResetError
from aiolibp2p.version import AGENT
from tests.interop.peers import Listener, Peers, Stack
from tests.interop.served import (
    AFTER_EOF,
    AWAIT_RESET,
    CHUNK,
    ECHO,
    ECHO_UNNAMED,
    HALF_CLOSE,
    NEVER,
    PERF,
    PUSH,
    PUSHED,
    RESET,
    SINK,
    STOCK_ECHO,
    ask_report,
    echo,
    exchange,
    left_open,
    read_all,
    sha256,
    share,
    told,
)

MIB = 1 << 20
SIZES = [0, 1, 65_535, 65_536, 65_537, 16 * MIB]
LOCAL = ["/ip4/127.0.0.1/tcp/0"]
AGENTS = {"js": "js-libp2p/3.3.11", "go": "aiolibp2p.test/peer", "py": "py-libp2p/0.8.1"}


async def test_identify_tells_both_sides_who_the_other_is(listener: Listener, stack: Stack) -> None:
    async with Host(listen=LOCAL) as host:
        connection = await host.connect(listener.addr)
        assert str(connection.peer_id) == listener.peer_id
        said = await host.identify(listener.addr)
        assert (said.agent_version or "").startswith(AGENTS[stack])
        assert {ECHO, SINK, "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"} <= set(said.protocols)
        assert listener.addr.rpartition("/p2p/")[0] in map(str, said.listen_addresses)
        assert str(said.observed_address) == str(connection.local_address)
        report = await ask_report(host, listener.addr)
        assert report["agent"] == AGENT
        assert report["signedPeerRecord"] is True
        assert "/ipfs/ping/1.0.0" in report["protocols"]
        known = {address.partition("/p2p/")[0] for address in report["addrs"]}
        assert {str(address).partition("/p2p/")[0] for address in host.addresses} <= known


@pytest.mark.conforms("P1")
async def test_a_hundred_pings(listener: Listener) -> None:
    async with Host() as host:
        await host.connect(listener.addr)
        assert all([0 < await host.ping(listener.addr) < 10 for _ in range(100)])


@pytest.mark.parametrize("size", SIZES)
async def test_echo_returns_every_byte(listener: Listener, size: int) -> None:
    data = os.urandom(size)
    async with Host() as host:
        await host.connect(listener.addr)
        back = await exchange(await host.open_stream(listener.addr, ECHO), data)
        assert sha256(back) == sha256(data)
        assert back == data


async def test_upload_of_256_mib_is_counted_by_the_peer(listener: Listener, stack: Stack) -> None:
    size = share(stack, 256 * MIB)
    async with Host() as host:
        connection = await host.connect(listener.addr)
        async with await host.open_stream(listener.addr, SINK) as stream:
            for _ in range(size // len(CHUNK)):
                await stream.write(CHUNK)
            stream.close_write()
            assert int.from_bytes(await read_all(stream), "big") == size
        assert connection.bytes_out > size


async def test_download_of_64_mib_by_perf(listener: Listener, stack: Stack) -> None:
    size = share(stack, 64 * MIB)
    async with Host() as host:
        await host.connect(listener.addr)
        async with await host.open_stream(listener.addr, PERF) as stream:
            await stream.write(size.to_bytes(8, "big"))
            stream.close_write()
            counted = 0
            async for data in stream:
                counted += len(data)
            assert counted == size


async def test_a_thousand_streams_one_after_the_other_leave_none_open(listener: Listener, stack: Stack) -> None:
    async with Host() as host:
        await host.connect(listener.addr)
        for number in range(share(stack, 1000)):
            data = number.to_bytes(32, "big")
            assert await exchange(await host.open_stream(listener.addr, ECHO), data) == data
        assert await left_open(host, listener.addr) == ({}, [])


async def test_sixty_four_streams_at_once_leave_none_open(listener: Listener) -> None:
    async with Host() as host:
        await host.connect(listener.addr)
        await host.identify(listener.addr)
        streams = [await host.open_stream(listener.addr, ECHO) for _ in range(64)]
        data = [os.urandom(10_000 + number) for number in range(64)]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(exchange(stream, sent), name="echo")
                for stream, sent in zip(streams, data, strict=True)
            ]
        assert [task.result() for task in tasks] == data
        assert await left_open(host, listener.addr) == ({}, [])


async def test_the_peer_answers_after_our_end_of_stream(listener: Listener) -> None:
    data = os.urandom(100_000)
    async with Host() as host:
        await host.connect(listener.addr)
        async with await host.open_stream(listener.addr, AFTER_EOF) as stream:
            await stream.write(data)
            stream.close_write()
            assert await read_all(stream) == data


async def test_we_write_on_after_the_peers_end_of_stream(listener: Listener) -> None:
    data = os.urandom(100_000)
    async with Host() as host:
        await host.connect(listener.addr)
        async with await host.open_stream(listener.addr, HALF_CLOSE) as stream:
            await stream.write(data[:1])
            assert await read_all(stream) == b"done"
            await stream.write(data[1:])
        report = await ask_report(host, listener.addr)
        assert report["seen"]["halfCloseSha256"] == sha256(data)
        assert await left_open(host, listener.addr) == ({}, [])


async def test_all_that_was_written_arrives_when_close_follows_at_once(listener: Listener) -> None:
    data = os.urandom(100_000)
    async with Host() as host:
        await host.connect(listener.addr)
        stream = await host.open_stream(listener.addr, HALF_CLOSE)
        await stream.write(data)
        assert stream.handshake == "pending"
        stream.close()
        await stream.wait_closed()
        report = await ask_report(host, listener.addr)
        assert report["seen"]["halfCloseSha256"] == sha256(data)


async def test_our_reset_reaches_the_peer(listener: Listener, stack: Stack) -> None:
    async with Host() as host:
        await host.connect(listener.addr)
        stream = await host.open_stream(listener.addr, AWAIT_RESET)
        await stream.write(b"r")
        assert await stream.read_exactly(1) == b"r"
        stream.reset(4242)
        seen = (await ask_report(host, listener.addr))["seen"]
        if stack == "go":
            assert seen["resetCode"] == 4242
        else:
            assert seen["reset"] == {"js": "StreamResetError", "py": "StreamReset"}[stack]


async def test_the_peers_reset_reaches_us(listener: Listener, stack: Stack) -> None:
    async with Host() as host:
        await host.connect(listener.addr)
        stream = await host.open_stream(listener.addr, RESET)
        await stream.write((4243).to_bytes(4, "big"))
        with pytest.raises(StreamResetError) as caught:
            await read_all(stream)
        assert caught.value.by == "remote"
        assert caught.value.code == (4243 if stack == "go" else 0)
        stream.close()
        assert await left_open(host, listener.addr) == ({}, [])


async def test_one_protocol_is_opened_lazily(listener: Listener) -> None:
    async with Host() as host:
        await host.connect(listener.addr)
        stream = await host.open_stream(listener.addr, ECHO)
        assert (stream.protocol, stream.handshake) == (ECHO, "pending")
        await stream.write(b"early")
        assert await stream.read_exactly(5) == b"early"
        assert stream.handshake == "answered"
        stream.reset()


async def test_of_several_protocols_the_one_that_identify_named_is_opened_lazily(listener: Listener) -> None:
    async with Host() as host:
        await host.identify(listener.addr)
        stream = await host.open_stream(listener.addr, NEVER, ECHO)
        assert (stream.protocol, stream.handshake) == (ECHO, "pending")
        assert await exchange(stream, b"known") == b"known"


async def test_of_several_protocols_that_identify_did_not_name_the_peer_is_asked(peers: Peers, stack: Stack) -> None:
    # Go's listener names /echo/1.0.0 and speaks 1.1.0; those of js and py name nothing.
    listener = peers.listener("go") if stack == "go" else peers.listener(stack, "listen", "--no-identify")
    spoken = ECHO_UNNAMED if stack == "go" else ECHO
    async with Host() as host:
        await host.connect(listener.addr)
        stream = await host.open_stream(listener.addr, NEVER, spoken)
        assert (stream.protocol, stream.handshake) == (spoken, "answered")
        assert await exchange(stream, b"asked") == b"asked"


@pytest.mark.parametrize("stack", ["js"])
@pytest.mark.parametrize("size", [0, 1, 100_000])
async def test_a_handler_as_the_js_documentation_writes_it_sees_the_end_of_a_lazy_stream(
    listener: Listener, size: int
) -> None:
    data = os.urandom(size)
    async with Host() as host:
        await host.connect(listener.addr)
        assert await exchange(await host.open_stream(listener.addr, STOCK_ECHO), data) == data


@pytest.mark.conforms("M4")
async def test_a_refusal_of_a_lazy_stream_is_raised_by_the_first_read(listener: Listener) -> None:
    async with Host() as host:
        await host.connect(listener.addr)
        stream = await host.open_stream(listener.addr, NEVER)
        await stream.write(b"in vain")
        with pytest.raises(NegotiationError) as caught:
            await stream.read()
        assert caught.value.offered == (NEVER,)
        assert stream.handshake == "refused"
        assert await exchange(await host.open_stream(listener.addr, ECHO), b"alive") == b"alive"


async def test_a_refusal_after_close_is_raised_by_wait_closed(listener: Listener) -> None:
    async with Host() as host:
        await host.connect(listener.addr)
        await host.identify(listener.addr)
        stream = await host.open_stream(listener.addr, NEVER)
        await stream.write(b"in vain")
        stream.close()
        with pytest.raises(NegotiationError):
            await stream.wait_closed()
        assert await left_open(host, listener.addr) == ({}, [])
        assert await exchange(await host.open_stream(listener.addr, ECHO), b"alive") == b"alive"


async def test_a_refusal_of_every_protocol_is_raised_by_open_stream(listener: Listener) -> None:
    async with Host() as host:
        await host.connect(listener.addr)
        with pytest.raises(NegotiationError) as caught:
            await host.open_stream(listener.addr, NEVER, "/never/2.0.0")
        assert caught.value.offered == (NEVER, "/never/2.0.0")
        assert await exchange(await host.open_stream(listener.addr, ECHO), b"alive") == b"alive"


@pytest.mark.conforms("M10")
async def test_the_peers_changed_protocols_arrive_by_push(peers: Peers, stack: Stack) -> None:
    listener = peers.listener(stack, "listen", *({"go": ["-chunk=1"]}.get(stack, ["--port=0"])))  # one of its own
    async with Host() as host:
        events = host.events()
        assert PUSHED not in (await host.identify(listener.addr)).protocols
        assert await exchange(await host.open_stream(listener.addr, PUSH), b"") == b""
        assert await told(events, PUSHED) is host.connections[0]


async def test_our_changed_protocols_go_out_by_push(listener: Listener) -> None:
    async with Host() as host:
        await host.connect(listener.addr)
        assert PUSHED not in (await ask_report(host, listener.addr))["protocols"]
        host.handle(PUSHED, echo)
        async with asyncio.timeout(10):
            while PUSHED not in (await ask_report(host, listener.addr))["protocols"]:
                pass
