"""The aiolibp2p side of the comparison: a listener, and a dialler that takes commands, as the js and go programs are.

    python -m benchmarks.versus.node [--loop uvloop|asyncio] listen    serve, print one JSON line, end when stdin ends
    python -m benchmarks.versus.node [--loop uvloop|asyncio] session   run commands from stdin, one JSON array a line

A command is `[name, address, count, concurrency, chunk_bytes]`; each gets a host of its own and is answered by one JSON
line. `listen --repo DIR` serves the blocks of a new repo too, and `["add", PATH]` from stdin adds to it in the same
process. Only the public interface of aiolibp2p is used, and handlers are ordinary coroutines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from aiolibp2p import Host, PeerId, Stream, unixfs
from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks import Blockstore
from aiolibp2p.node.repo import Repo

ECHO = "/echo/1.0.0"
SINK = "/sink/1.0.0"
SINK_BYTES = 256 << 10
"""Most that the sink takes with one read, as that of the go program."""
SMALL = bytes(32)
PING_EVERY_SECONDS = 0.001

Answer = dict[str, Any]
Command = Callable[[Host, str, int, int, int], Awaitable[Answer]]


async def echo(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data)


async def sink(stream: Stream) -> None:
    counted = 0
    while data := await stream.read(SINK_BYTES):
        counted += len(data)
    await stream.write(counted.to_bytes(8, "big"))


async def listen(repo: Path | None) -> None:
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(Host(listen=["/ip4/127.0.0.1/tcp/0"]))
        host.handle(ECHO, echo)
        host.handle(SINK, sink)
        store: Blockstore | None = None
        if repo is not None:
            store = await stack.enter_async_context(stack.enter_context(Repo.open(repo, create=True)).store())
            await stack.enter_async_context(Bitswap(host, store))
        lines: asyncio.Queue[bytes] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(0, lambda: lines.put_nowait(os.read(0, 4096)))
        say({"addr": str(host.addresses[0]), "peerId": str(host.peer_id), "pid": os.getpid()})
        while line := await lines.get():
            say(await add(store, json.loads(line)))


async def add(store: Blockstore | None, words: list[Any]) -> Answer:
    try:
        if store is None or words[0] != "add":
            raise ValueError(f"no such command without a repo: {words}")
        start = time.perf_counter()
        added = await unixfs.Adder(store).add(str(words[1]))
        return {"bytes": added.content_bytes, "cid": str(added.cid), "seconds": time.perf_counter() - start}
    except Exception as error:  # noqa: BLE001  the one who asked reports it
        return {"error": repr(error)}


async def connected(host: Host, address: str) -> PeerId:
    """Connect, and wait for the peer's identify, as `Connect` of go-libp2p does."""
    connection = await host.connect(address)
    await host.identify(address)
    return connection.peer_id


async def upload(host: Host, address: str, count: int, concurrency: int, chunk_bytes: int) -> Answer:
    """Write so many bytes on so many streams at once, counted by the peer."""
    peer = await connected(host, address)
    sizes = [count // concurrency] * concurrency
    sizes[0] += count % concurrency
    start = time.perf_counter()
    counted = await asyncio.gather(*(upload_one(host, peer, size, bytes(chunk_bytes)) for size in sizes))
    seconds = time.perf_counter() - start
    return {"ok": counted == sizes, "seconds": seconds, "MBps": count / seconds / 1e6}


async def upload_one(host: Host, peer: PeerId, n_bytes: int, chunk: bytes) -> int:
    stream = await host.open_stream(peer, SINK)
    left = n_bytes
    while left > 0:
        await stream.write(chunk if left >= len(chunk) else chunk[:left])
        left -= len(chunk)
    stream.close_write()
    counted = int.from_bytes(await stream.read_exactly(8), "big")
    stream.close()
    return counted


async def streams(host: Host, address: str, count: int, concurrency: int, _chunk_bytes: int) -> Answer:
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


async def ping(host: Host, address: str, count: int, _concurrency: int, _chunk_bytes: int) -> Answer:
    """Ping so many times on one stream."""
    peer = await connected(host, address)
    await host.ping(peer)
    start = time.perf_counter()
    for _ in range(count):
        await host.ping(peer)
    return timed(start, count)


async def redial(host: Host, address: str, count: int, _concurrency: int, _chunk_bytes: int) -> Answer:
    """Connect, wait for the peer's identify, and disconnect, so many times."""
    start = time.perf_counter()
    for _ in range(count):
        await host.identify(address)
        await host.disconnect(address)
    return timed(start, count)


async def latency(host: Host, address: str, count: int, _concurrency: int, _chunk_bytes: int) -> Answer:
    """Ping every millisecond, whether the earlier ones were answered or not; each counts from when it was due.

    The times are of the machine's monotonic clock, which all processes share.
    """
    peer = await connected(host, address)
    await host.ping(peer)
    due_at: list[float] = []
    seconds: list[float] = []

    async def ping_due(due: float) -> None:
        await host.ping(peer)
        due_at.append(due)
        seconds.append(time.monotonic() - due)

    start = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for k in range(count):
            due = start + k * PING_EVERY_SECONDS
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            group.create_task(ping_due(due), name="ping")
    return {"n": count, "dueAt": due_at, "roundTrips": seconds}


def timed(start: float, count: int) -> Answer:
    seconds = time.perf_counter() - start
    return {"n": count, "seconds": seconds, "perSecond": count / seconds}


COMMANDS: dict[str, Command] = {
    "upload": upload,
    "streams": streams,
    "ping": ping,
    "redial": redial,
    "latency": latency,
}


async def run(words: list[Any]) -> Answer:
    name, address, count, concurrency, chunk_bytes = words
    try:
        async with Host() as host:
            return await COMMANDS[name](host, address, int(count), int(concurrency), int(chunk_bytes))
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
    parser.add_argument("--repo", type=Path, help="listen: a new repo, whose blocks are served")
    parser.add_argument("mode", choices=("listen", "session"))
    options = parser.parse_args()
    if options.mode == "listen":
        in_loop(options.loop, listen(options.repo))
        return
    for line in sys.stdin:
        say(in_loop(options.loop, run(json.loads(line))))


if __name__ == "__main__":
    main()
