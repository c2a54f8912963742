"""Closing streams to peers of go, js and ourselves, opened lazily and eagerly: no byte is lost, and no close waits.

Proof T25 that every operation ends. What a close costs with a peer that never answers is in `test_mute_peer.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from aiolibp2p import Connection, Host, Stream, Timeouts
from aiolibp2p.errors import DeadlineError, NegotiationError
from tests.interop.peers import Dialer, Peers, Stack
from tests.interop.served import (
    AFTER_EOF,
    ECHO,
    HALF_CLOSE,
    NEVER,
    REPORT,
    SINK,
    Served,
    ask_report,
    exchange,
    open_streams,
    read_all,
    sha256,
)

LOCAL = ["/ip4/127.0.0.1/tcp/0"]
WINDOW = 256 << 10
SIZES = [0, 1, 65_536, WINDOW - 1, WINDOW + 1, 1_000_000]
OWN = "own"
WHO = [OWN, "js", pytest.param("go", marks=pytest.mark.go)]
HOW = ["lazy", "eager"]
SECONDS = 20.0
"""Longer than every deadline that may pass here; nothing waits for it."""


def content(size: int) -> bytes:
    return hashlib.shake_256(size.to_bytes(8, "big")).digest(size)


@dataclass
class Peer:
    """Who is dialled, our connection, and how its streams are opened."""

    host: Host
    connection: Connection
    address: str
    how: str
    served: Served | None

    async def open(self, protocol: str) -> Stream:
        """Open a stream: lazily, or eagerly, after a protocol that nobody speaks was refused."""
        self.connection.identify = None  # with what it says, the one that it speaks would be taken, lazily
        names = (protocol,) if self.how == "lazy" else (NEVER, protocol)
        stream = await self.connection.open_stream(*names)
        assert stream.handshake == ("pending" if self.how == "lazy" else "answered")
        return stream

    async def half_closed_with(self, number: int) -> str:
        """Return the digest of what the peer has read on its `number`th stream that was closed there first."""
        if self.served is not None:
            await ask_report(self.host, self.address)  # its answer waits for the handlers
            return self.served.half_closed[number][1]
        digest: str = (await ask_report(self.host, self.address))["seen"]["halfCloseSha256"]
        return digest

    async def left_open(self) -> list[str]:
        """Return what either side sees open once the peer's handlers are over; a push of identify is not ours."""
        there = (await ask_report(self.host, self.address))["open"]
        return [name for name in (*there, *open_streams(self.connection)) if not name.startswith("/ipfs/id/")]


@asynccontextmanager
async def dialled(peers: Peers, who: str, how: str) -> AsyncIterator[Peer]:
    """Give a peer that we have dialled, after both have said who they are."""
    async with Host() as host:
        if who == OWN:
            other = Host(listen=LOCAL)
            served = Served(other)
            async with other:
                address = str(other.addresses[0])
                await host.identify(address)
                yield Peer(host, await host.connect(address), address, how, served)
            return
        address = peers.listener("go" if who == "go" else "js").addr
        await host.identify(address)
        yield Peer(host, await host.connect(address), address, how, None)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("who", WHO)
async def test_what_was_written_before_close_arrives_whole(peers: Peers, who: str, how: str) -> None:
    """T25: write-then-close, while the peer has ended its own side already or is about to."""
    async with dialled(peers, who, how) as peer:
        for number, size in enumerate(SIZES):
            stream = await peer.open(HALF_CLOSE)
            await stream.write(content(size))
            stream.close()
            assert stream not in peer.connection.streams
            async with asyncio.timeout(SECONDS):
                await stream.wait_closed()
            assert await peer.half_closed_with(number) == sha256(content(size))
        assert await peer.left_open() == []


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("who", WHO)
async def test_what_comes_after_a_half_close_is_whole(peers: Peers, who: str, how: str) -> None:
    """T25: our end first, and the peer's end first, of all sizes at once."""
    async with dialled(peers, who, how) as peer:

        async def ours_first(size: int) -> bytes:
            return await exchange(await peer.open(AFTER_EOF), content(size))

        async with asyncio.timeout(SECONDS):
            assert await asyncio.gather(*map(ours_first, SIZES)) == [content(size) for size in SIZES]
        for number, size in enumerate(SIZES):
            stream = await peer.open(HALF_CLOSE)
            await stream.write(b"")
            if peer.how == "eager":
                assert await read_all(stream) == b"done"  # a lazy one reads it below, when all is written
            await stream.write(content(size))
            stream.close_write()
            assert await read_all(stream) == (b"" if peer.how == "eager" else b"done")
            stream.close()
            assert await peer.half_closed_with(number) == sha256(content(size))
        assert await peer.left_open() == []


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("who", WHO)
async def test_a_peer_that_answers_into_a_closed_stream_is_read_to_its_end(peers: Peers, who: str, how: str) -> None:
    """T25: its handler finishes, as it gets back the credit of what nobody reads; a stream beside it is whole."""
    async with dialled(peers, who, how) as peer:
        closed = [await peer.open(ECHO) for _ in range(8)]
        async with asyncio.timeout(SECONDS):
            beside = exchange(await peer.open(ECHO), content(WINDOW))
            _, came = await asyncio.gather(asyncio.gather(*map(write_and_close, closed)), beside)
            assert came == content(WINDOW)
            assert await peer.left_open() == []


async def write_and_close(stream: Stream) -> None:
    """Write more than an echo may send back while nothing is read, and close."""
    await stream.write(content(WINDOW + 100_000))
    stream.close()
    await stream.wait_closed()


@pytest.mark.parametrize("size", [0, 1, 100_000, WINDOW - 100])
@pytest.mark.parametrize("who", WHO)
async def test_a_refusal_after_close_is_told_and_costs_nothing_else(peers: Peers, who: str, size: int) -> None:
    """T25: `na` after close, whatever was written behind the proposal; streams beside it are whole."""
    async with dialled(peers, who, "lazy") as peer:
        standing = await peer.open(ECHO)
        await standing.write(b"before")
        refused = [await peer.open(NEVER) for _ in range(4)]
        for stream in refused:
            await stream.write(content(size))
            stream.close()
        for stream in refused:
            with pytest.raises(NegotiationError) as caught:
                await stream.wait_closed()
            assert caught.value.offered == (NEVER,)
            assert stream.handshake == "refused"
        assert await standing.read_exactly(6) == b"before"
        assert await exchange(standing, b"after") == b"after"
        assert peer.connection.ended is None
        assert await peer.left_open() == []


@pytest.mark.parametrize("who", WHO)
async def test_a_close_that_was_never_written_to_ends_both_sides(peers: Peers, who: str) -> None:
    """T25: the peer's handler sees a stream that is empty."""
    async with dialled(peers, who, "lazy") as peer:
        streams = [await peer.open(protocol) for protocol in (ECHO, SINK, AFTER_EOF, REPORT)]
        for stream in streams:
            stream.close()
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*(stream.wait_closed() for stream in streams))
        assert await peer.left_open() == []


async def test_close_waits_for_no_peer_that_stopped_reading(peers: Peers, stack: Stack) -> None:
    """T25: what it owes ends at `Timeouts.close`, and the connection carries on."""
    listener = peers.listener(stack, "stall")
    async with Host(timeouts=Timeouts(close=0.3)) as host:
        connection = await host.connect(listener.addr)
        streams = [await host.open_stream(listener.addr, ECHO) for _ in range(4)]
        for stream in streams:
            assert stream.try_write(content(WINDOW - 100)) == WINDOW - 100
            stream.close()
        assert connection.tombstones == streams
        for stream in streams:
            with pytest.raises(DeadlineError) as caught:
                await stream.wait_closed()
            assert caught.value.deadline == "close"
        assert connection.tombstones == []
        assert (await host.identify(listener.addr)).protocols
        assert connection.ended is None


@pytest.mark.parametrize("size", [1, WINDOW + 1, 1_000_000])
async def test_what_they_write_before_they_close_arrives_whole(dialer: Dialer, size: int) -> None:
    """T25: both orders of ending, with a peer that opens its streams eagerly; nothing is left on either side."""
    host = Host(listen=LOCAL)
    served = Served(host)
    async with host:
        answer = await dialer.run("half-close", host.addresses[0], size)
        assert (answer["ok"], answer["first"], answer["openStreams"]) == (True, "done", {})
        assert served.half_closed == [(size, answer["sha256"])]
        assert answer["report"]["open"] == []


@pytest.mark.go
@pytest.mark.parametrize("size", [WINDOW - 1, WINDOW + 1, 1_000_000])
async def test_what_they_write_on_a_lazy_stream_comes_back_whole(peers: Peers, size: int) -> None:
    """T25: only go opens streams lazily."""
    host = Host(listen=LOCAL)
    Served(host)
    async with host:
        answer = await peers.dialer("go").run("echo", host.addresses[0], size, "lazy")
        assert (answer["lazy"], answer["ok"]) == (True, True)
        assert not answer["openStreams"]
