"""The aiolibp2p side of the comparison: a listener, and a dialler that takes commands, as the js and go programs are.

    python -m benchmarks.versus.node [--loop uvloop|asyncio] listen    serve, print one JSON line, end when stdin ends
    python -m benchmarks.versus.node [--loop uvloop|asyncio] session   run commands from stdin, one JSON array a line

A command is `[name, address, count, concurrency]`; each gets a host of its own and is answered by one JSON line. Only
the public interface of aiolibp2p is used, and handlers are ordinary coroutines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from aiolibp2p import Host, PeerId, Stream

ECHO = "/echo/1.0.0"
SINK = "/sink/1.0.0"
CHUNK = bytes(64 << 10)
SINK_BYTES = 256 << 10
"""Most that the sink takes with one read, as that of the go program."""
SMALL = bytes(32)

Answer = dict[str, Any]
Command = Callable[[Host, str, int, int], Awaitable[Answer]]


async def echo(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data)


async def sink(stream: Stream) -> None:
    counted = 0
    while data := await stream.read(SINK_BYTES):
        counted += len(data)
    await stream.write(counted.to_bytes(8, "big"))


async def listen() -> None:
    async with Host(listen=["/ip4/127.0.0.1/tcp/0"]) as host:
        host.handle(ECHO, echo)
        host.handle(SINK, sink)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(0, lambda: None if os.read(0, 4096) else ended.set())
        say({"addr": str(host.addresses[0]), "peerId": str(host.peer_id), "pid": os.getpid()})
        await ended.wait()


async def connected(host: Host, address: str) -> PeerId:
    """Connect, and wait for the peer's identify, as `Connect` of go-libp2p does."""
    connection = await host.connect(address)
    await host.identify(address)
    return connection.peer_id


async def upload(host: Host, address: str, count: int, _concurrency: int) -> Answer:
    """Write so many bytes on one stream, counted by the peer."""
    peer = await connected(host, address)
    start = time.perf_counter()
    stream = await host.open_stream(peer, SINK)
    left = count
    while left > 0:
        await stream.write(CHUNK if left >= len(CHUNK) else CHUNK[:left])
        left -= len(CHUNK)
    stream.close_write()
    counted = int.from_bytes(await stream.read_exactly(8), "big")
    stream.close()
    seconds = time.perf_counter() - start
    return {"ok": counted == count, "seconds": seconds, "MBps": count / seconds / 1e6}


async def streams(host: Host, address: str, count: int, concurrency: int) -> Answer:
    """Open so many streams, echo 32 bytes on each, and close it."""
    peer = await connected(host, address)
    numbers = iter(range(count))
    failures: list[str] = []
    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(echo_each(host, peer, numbers, failures), name="echo")
    return timed(start, count) | {"failed": len(failures), "lastError": failures[-1] if failures else None}


async def echo_each(host: Host, peer: PeerId, numbers: Iterator[int], failures: list[str]) -> None:
    for _ in numbers:
        try:
            stream = await host.open_stream(peer, ECHO)
            await stream.write(SMALL)
            if await stream.read_exactly(len(SMALL)) != SMALL:
                failures.append("what came back differs")
            stream.close()
        except Exception as error:  # noqa: BLE001  counted, and the last one is reported
            failures.append(repr(error))


async def ping(host: Host, address: str, count: int, _concurrency: int) -> Answer:
    """Ping so many times on one stream."""
    peer = await connected(host, address)
    await host.ping(peer)
    start = time.perf_counter()
    for _ in range(count):
        await host.ping(peer)
    return timed(start, count)


async def redial(host: Host, address: str, count: int, _concurrency: int) -> Answer:
    """Connect, wait for the peer's identify, and disconnect, so many times."""
    start = time.perf_counter()
    for _ in range(count):
        await host.identify(address)
        await host.disconnect(address)
    return timed(start, count)


def timed(start: float, count: int) -> Answer:
    seconds = time.perf_counter() - start
    return {"n": count, "seconds": seconds, "perSecond": count / seconds}


COMMANDS: dict[str, Command] = {"upload": upload, "streams": streams, "ping": ping, "redial": redial}


async def run(words: list[Any]) -> Answer:
    name, address, count, concurrency = words
    try:
        async with Host() as host:
            return await COMMANDS[name](host, address, int(count), int(concurrency))
    except Exception as error:  # noqa: BLE001  the one who asked reports it
        return {"error": repr(error)}


def say(answer: Answer) -> None:
    print(json.dumps(answer), flush=True)


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


def in_loop(name: str, work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=loop_factory(name)) as runner:
        return runner.run(work)


def main() -> None:
    parser = argparse.ArgumentParser(description="The aiolibp2p side of the comparison.")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("mode", choices=("listen", "session"))
    options = parser.parse_args()
    if options.mode == "listen":
        in_loop(options.loop, listen())
        return
    for line in sys.stdin:
        say(in_loop(options.loop, run(json.loads(line))))


if __name__ == "__main__":
    main()
