"""What one peer that stops reading its socket costs three others: half-second slices with and without its silence.

    python -m benchmarks.loopback.isolation [--pairs 61] [--loop uvloop|asyncio] [--out FILE]

One process holds a host that streams to three peers all the time; another process holds the peers, each a host of its
own, and so does the fourth. Connections stand from the beginning. In a slice without silence the fourth peer reads and
is sent nothing; in a slice with silence it has stopped reading its socket, and sixteen streams to it are written to
until nothing more is taken, and then wait. The order within a pair alternates. A pair gives one ratio: bytes to the
three with silence, divided by those without. The command ends with 1 when the 95 % interval of the median ratio
(bootstrap) lies wholly below 0.95.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

from aiolibp2p import Connection, Host, Stream
from aiolibp2p.errors import Libp2pError
from benchmarks.loopback import record, slices
from benchmarks.loopback.slices import PAIRS, PAUSE_SECONDS, SLICE_SECONDS, Pair
from benchmarks.versus.programs import ROOT

SINK = "/sink/1.0.0"
CHUNK = bytes(64 << 10)
HONEST = 3
STALLED_STREAMS = 16


# -- the peers ---------------------------------------------------------------------------------------------------------


async def sink(stream: Stream) -> None:
    while await stream.read(256 << 10):
        pass


async def receive() -> None:
    """Be the four peers; a line `stop` or `go` on stdin makes the last stop or go on reading its socket."""
    async with AsyncExitStack() as stack:
        hosts = []
        for _ in range(HONEST + 1):
            host = await stack.enter_async_context(Host(listen=["/ip4/127.0.0.1/tcp/0"]))
            host.handle(SINK, sink)
            hosts.append(host)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        print(json.dumps([str(host.addresses[0]) for host in hosts]), flush=True)
        while line := (await reader.readline()).strip():
            transport: Any = hosts[-1].connections[0]._muxer.transport  # type: ignore[attr-defined]
            transport.pause_reading() if line == b"stop" else transport.resume_reading()
            print("done", flush=True)


class Peers:
    """The process of the peers."""

    def __init__(self, process: asyncio.subprocess.Process, addresses: Sequence[str]) -> None:
        self.addresses = addresses
        self._process = process

    async def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n".encode())
        await self._process.stdout.readline()


@asynccontextmanager
async def peers(loop_name: str) -> AsyncIterator[Peers]:
    command = [sys.executable, "-m", "benchmarks.loopback.isolation", "--loop", loop_name, "--receive"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Peers(process, json.loads(await process.stdout.readline()))
    finally:
        process.stdin.close()
        await process.wait()


# -- the slices --------------------------------------------------------------------------------------------------------


async def write_on(stream: Stream) -> None:
    try:
        while True:
            await stream.write(CHUNK)
    except Libp2pError:
        pass  # the stream was reset at the end of its slice, or the run is over


class Run:
    """Standing connections, and what is measured on them."""

    def __init__(self, peers: Peers, connections: Sequence[Connection]) -> None:
        self._peers = peers
        self._honest = connections[:HONEST]
        self._silent = connections[HONEST]
        self.silent_bytes: list[int] = []
        """Bytes that left for the fourth peer within each slice of its silence."""

    async def slice(self, *, silent: bool) -> int:
        """Return how many bytes left for the three within one slice."""
        streams: list[Stream] = []
        writing: list[asyncio.Task[None]] = []
        if silent:
            await self._peers.tell("stop")
            streams = [await self._silent.open_stream(SINK) for _ in range(STALLED_STREAMS)]
            writing = [start(write_on(stream), "stalled") for stream in streams]
        await asyncio.sleep(PAUSE_SECONDS)
        before, silent_before = self._sent(), self._silent.bytes_out
        start_at = time.perf_counter()
        await asyncio.sleep(SLICE_SECONDS)
        rate = (self._sent() - before) / (time.perf_counter() - start_at)
        if silent:
            self.silent_bytes.append(self._silent.bytes_out - silent_before)
            for stream in streams:
                stream.reset()
            await asyncio.gather(*writing)
            await self._peers.tell("go")
            await asyncio.sleep(PAUSE_SECONDS)
        return int(rate)

    def _sent(self) -> int:
        return sum(connection.bytes_out for connection in self._honest)


def start(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(coroutine, name=name)


async def measure(pairs: int, loop_name: str) -> tuple[list[Pair], list[int]]:
    """Return every pair of slices, and what left for the fourth peer meanwhile."""
    async with peers(loop_name) as others, Host() as host:
        connections = [await host.connect(address) for address in others.addresses]
        for address in others.addresses:
            await host.identify(address)
        streaming = [
            start(write_on(await connection.open_stream(SINK)), "streaming") for connection in connections[:HONEST]
        ]
        run = Run(others, connections)
        for silent in (True, False):
            await run.slice(silent=silent)  # not counted: caches, buffers and windows are warm afterwards
        run.silent_bytes.clear()
        measured = []
        for number in range(pairs):
            rates = [await run.slice(silent=silent) for silent in slices.order(number)]
            measured.append(slices.pair(number, rates))
        for task in streaming:
            task.cancel()
        await asyncio.gather(*streaming, return_exceptions=True)
        return measured, run.silent_bytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--out", type=Path, default=record.RESULTS / "isolation.json")
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    factory: Any = None
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        if options.receive:
            runner.run(receive())
            return 0
        result = record.metadata("isolation", sys.argv[1:])
        pairs, silent_bytes = runner.run(measure(options.pairs, options.loop))
    for number, each in enumerate(pairs, 1):
        print(slices.line(number, each))
    print(slices.conclusion(pairs))
    print(f"left for the silent peer in a slice: median {median(silent_bytes):.0f} bytes, most {max(silent_bytes)}")
    record.keep(options.out, result | slices.as_json(pairs) | {"silent_peer_bytes_in_a_slice": silent_bytes})
    return 1 if slices.is_missed(pairs) else 0


if __name__ == "__main__":
    sys.exit(main())
