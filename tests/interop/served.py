"""The protocols that every peer program serves, served by a host of ours, and what they saw."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiolibp2p import Connection, Host, Stream
from aiolibp2p.errors import StreamResetError
from aiolibp2p.net.events import EventStream, PeerIdentified
from tests.interop.peers import Stack

ECHO = "/echo/1.0.0"
ECHO_UNNAMED = "/echo/1.1.0"
STOCK_ECHO = "/stock-echo/1.0.0"
SINK = "/sink/1.0.0"
PERF = "/perf/1.0.0"
AFTER_EOF = "/after-eof/1.0.0"
HALF_CLOSE = "/half-close/1.0.0"
RESET = "/reset/1.0.0"
AWAIT_RESET = "/await-reset/1.0.0"
STALL = "/stall/1.0.0"
PUSH = "/push/1.0.0"
PUSHED = "/pushed/1.0.0"
REPORT = "/report/1.0.0"
NEVER = "/never/1.0.0"
PING = "/ipfs/ping/1.0.0"

REPORT_SECONDS = 5.0
EVENT_SECONDS = 10.0
CHUNK = bytes(65536)

Handler = Callable[[Stream], Awaitable[None]]


def share(stack: Stack, amount: int) -> int:
    """Return how much of an amount is asked of a stack: of py-libp2p, for its rates, a quarter."""
    return amount // 4 if stack == "py" else amount


class Served:
    """Handlers of one host; `half_closed` and `resets` say what the peers' streams came to."""

    def __init__(self, host: Host) -> None:
        self.half_closed: list[tuple[int, str]] = []
        self.resets: list[int] = []
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        for protocol, handler in (
            (ECHO, echo),
            (SINK, sink),
            (PERF, perf),
            (AFTER_EOF, after_eof),
            (HALF_CLOSE, self._half_close),
            (RESET, reset),
            (AWAIT_RESET, self._await_reset),
        ):
            host.handle(protocol, self._counted(handler))
        host.handle(REPORT, self._report)

    def _counted(self, handler: Handler) -> Handler:
        async def counted(stream: Stream) -> None:
            self._running += 1
            self._idle.clear()
            try:
                await handler(stream)
            finally:
                self._running -= 1
                if not self._running:
                    self._idle.set()

        return counted

    async def _half_close(self, stream: Stream) -> None:
        await stream.write(b"done")
        stream.close_write()
        data = await read_all(stream)
        self.half_closed.append((len(data), sha256(data)))
        stream.close()

    async def _await_reset(self, stream: Stream) -> None:
        await stream.write(await stream.read_exactly(1))
        try:
            await stream.read()
        except StreamResetError as error:
            if error.by == "remote":
                self.resets.append(error.code)

    async def _report(self, stream: Stream) -> None:
        await read_all(stream)
        async with asyncio.timeout(REPORT_SECONDS):
            await self._idle.wait()
        report = {"open": open_streams(stream.connection, but=stream)}
        await stream.write(json.dumps(report).encode())
        stream.close()


async def echo(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data)
    stream.close()


async def sink(stream: Stream) -> None:
    counted = 0
    async for data in stream:
        counted += len(data)
    await stream.write(counted.to_bytes(8, "big"))
    stream.close()


async def perf(stream: Stream) -> None:
    left = int.from_bytes(await stream.read_exactly(8), "big")
    async for _ in stream:
        pass
    while left:
        piece = CHUNK[:left]
        await stream.write(piece)
        left -= len(piece)
    stream.close()


async def after_eof(stream: Stream) -> None:
    data = await read_all(stream)
    await stream.write(data)
    stream.close()


async def reset(stream: Stream) -> None:
    stream.reset(int.from_bytes(await stream.read_exactly(4), "big"))


async def read_all(stream: Stream) -> bytes:
    """Read to the end of the stream."""
    return b"".join([data async for data in stream])


async def write_for_ever(stream: Stream) -> None:
    while True:
        await stream.write(CHUNK)


async def exchange(stream: Stream, data: bytes) -> bytes:
    """Write all of `data` and finish while reading to the end; close the stream."""

    async def write() -> None:
        await stream.write(data)
        stream.close_write()

    async with asyncio.TaskGroup() as group:
        group.create_task(write(), name="write")
        reading = group.create_task(read_all(stream), name="read")
    stream.close()
    return reading.result()


async def left_open(host: Host, address: str) -> tuple[dict[str, int], list[str]]:
    """Return the streams of a connection that the peer sees open, and those that we do."""
    await host.identify(address)
    # Asked second: the peer waits with its answer until its own identify, whose stream is ours too, is over.
    open_there = (await ask_report(host, address))["open"]
    return open_there, open_streams(await host.connect(address))


async def ask_report(host: Host, peer: str) -> dict[str, Any]:
    """Return what the peer knows of us: see REPORT of the peer programs."""
    stream = await host.open_stream(peer, REPORT)
    report: dict[str, Any] = json.loads(await exchange(stream, b""))
    return report


def open_streams(connection: Connection, *, but: Stream | None = None) -> list[str]:
    """Return the protocols of streams and tombstones of a connection; a ping stream is kept, and does not count."""
    streams = [*connection.streams, *connection.tombstones]
    return [stream.protocol for stream in streams if stream is not but and stream.protocol != PING]


async def told(events: EventStream, protocol: str) -> Connection:
    """Wait until a peer says that it speaks `protocol`, and return the connection that it said so on."""
    async with asyncio.timeout(EVENT_SECONDS):
        async for event in events:
            if isinstance(event, PeerIdentified) and protocol in event.identify.protocols:
                return event.connection
    raise AssertionError("the host has ended")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
