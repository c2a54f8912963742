"""What `make run-streams` shows: two processes on this machine, and one gigabyte each way between them.

This process starts a second one, which listens; it connects, asks what the peer is, pings it, uploads (the listener
counts what arrives) and downloads, and prints how fast that went. The two share the machine's cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Coroutine

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from aiolibp2p import Host, PeerId, Stream
from aiolibp2p.errors import Libp2pError

COUNT = "/streams/count/1.0.0"
SEND = "/streams/send/1.0.0"
PINGS = 100
STREAM_BYTES = 1_000_000_000
CHUNK = bytes(256 << 10)
SHOWN_BYTES = 8_000_000

console = Console()


async def count(stream: Stream) -> None:
    """Read to the end, and say how many bytes that were."""
    counted = 0
    async for chunk in stream:
        counted += len(chunk)
    await stream.write(counted.to_bytes(8, "big"))


async def send(stream: Stream) -> None:
    """Write as many bytes as were asked for."""
    left = int.from_bytes(await stream.read_exactly(8), "big")
    while left > 0:
        await stream.write(CHUNK[:left])
        left -= len(CHUNK)


async def listener() -> None:
    """Be the second process: serve until stdin ends, which it does with the first process."""
    async with Host(listen=["/ip4/127.0.0.1/tcp/0"]) as host:
        host.handle(COUNT, count)
        host.handle(SEND, send)
        print(host.addresses[0], flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def upload(host: Host, peer: PeerId, bar: Progress) -> float:
    """Return the seconds until the peer has counted all that was sent."""
    started = time.perf_counter()
    task = bar.add_task("upload", total=STREAM_BYTES)
    async with await host.open_stream(peer, COUNT) as stream:
        for sent in range(0, STREAM_BYTES, len(CHUNK)):
            await stream.write(CHUNK[: STREAM_BYTES - sent])
            if sent % SHOWN_BYTES < len(CHUNK):
                bar.update(task, completed=sent)
        stream.close_write()
        counted = int.from_bytes(await stream.read_exactly(8), "big")
    bar.update(task, completed=STREAM_BYTES)
    if counted != STREAM_BYTES:
        raise ValueError(f"upload: {STREAM_BYTES} bytes were sent, and the peer counted {counted}")
    return time.perf_counter() - started


async def download(host: Host, peer: PeerId, bar: Progress) -> float:
    """Return the seconds until all that was asked for is here."""
    started = time.perf_counter()
    task = bar.add_task("download", total=STREAM_BYTES)
    received = shown = 0
    async with await host.open_stream(peer, SEND) as stream:
        await stream.write(STREAM_BYTES.to_bytes(8, "big"))
        async for chunk in stream:
            received += len(chunk)
            if received - shown >= SHOWN_BYTES:
                bar.update(task, completed=received)
                shown = received
    bar.update(task, completed=STREAM_BYTES)
    if received != STREAM_BYTES:
        raise ValueError(f"download: {STREAM_BYTES} bytes were asked for, and {received} came")
    return time.perf_counter() - started


async def dialler(address: str) -> None:
    """Be the first process: connect, measure, and print a table."""
    table = Table("step", "result", "rate", title="aiolibp2p: TCP, Noise, Yamux between two processes")
    async with Host() as host:
        started = time.perf_counter()
        connection = await host.connect(address)
        peer = connection.peer_id
        said = await host.identify(peer)
        milliseconds = (time.perf_counter() - started) * 1000
        facts = f"{connection.security}, {connection.muxer}; {said.agent_version}"
        table.add_row("connect, identify", facts, f"{milliseconds:.1f} ms")

        times = []
        for _ in range(PINGS):
            started = time.perf_counter()
            await host.ping(peer)
            times.append(time.perf_counter() - started)
        middle = statistics.median(times)
        table.add_row(f"ping × {PINGS}", f"median {middle * 1000:.3f} ms", f"{PINGS / sum(times):,.0f} pings/s")

        columns = (TextColumn("{task.description:<8}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            for name, transfer in (("upload", upload), ("download", download)):
                seconds = await transfer(host, peer, bar)
                rate = f"{STREAM_BYTES / seconds / 1e6:,.0f} MB/s"
                table.add_row(name, f"{STREAM_BYTES / 1e9:.2f} GB in {seconds:.2f} s", rate)
        table.caption = f"peer {peer}"
    console.print(table)


def main() -> int:
    """Run both processes and return the exit code."""
    if "--listener" in sys.argv:
        with contextlib.suppress(KeyboardInterrupt):
            run(listener())
        return 0
    command = [sys.executable, __file__, "--listener"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None  # it is a pipe
        address = other.stdout.readline().strip()
        try:
            if not address:
                raise ValueError("start: the second process has ended before it listened")
            run(dialler(address))
        except (Libp2pError, OSError, ValueError) as error:
            print(f"streams: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    return 0


def run(coroutine: Coroutine[object, object, None]) -> None:
    """Run on uvloop where it is installed, else on asyncio's loop."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(coroutine)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(coroutine)


if __name__ == "__main__":
    sys.exit(main())
