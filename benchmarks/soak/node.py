"""A node of ours: the one that is looked at, and those that come and go around it: `python -m benchmarks.soak.node`.

It prints one JSON line when it listens, then takes commands from stdin, `[number, name, argument…]` a line, does them
at the same time, and answers each with a line that has its number; the end of stdin ends it. With `--repo` its blocks
are in LMDB, else in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from aiolibp2p import Cid, Host, Limits, Stream, unixfs
from aiolibp2p.bitswap import Bitswap, Session
from aiolibp2p.blocks import Blockstore, MemoryBlockstore
from aiolibp2p.errors import Libp2pError, StreamResetError
from aiolibp2p.node.repo import Repo
from benchmarks.loopback.processes import anonymous_bytes
from tests.vectors.unixfs.cases import content

ECHO = "/echo/1.0.0"
RESET = "/reset/1.0.0"
LISTEN = "/ip4/127.0.0.1/tcp/0"
PACKAGE = "aiolibp2p"
STRANGERS_AT_ONCE = 4
PEERS_REMEMBERED = 96
"""Fewer than by default, so that the peerstore is full, of peers that were dialled, after ten minutes and not hours."""

Answer = dict[str, Any]


async def echo(stream: Stream) -> None:
    """Send back what comes."""
    async for data in stream:
        await stream.write(data)


class Noting:
    """Blocks of a session, whose names are kept, so that they can be forgotten again."""

    def __init__(self, session: Session) -> None:
        self.cids: set[Cid] = set()
        self._session = session

    async def get(self, cid: Cid) -> bytes:
        """Return a block."""
        self.cids.add(cid)
        return await self._session.get(cid)

    async def fetch(self, cids: Sequence[Cid]) -> AsyncIterator[bytes]:
        """Yield blocks."""
        async for data in self._session.fetch(cids):
            yield data
        self.cids.update(cids)


class SoakNode:
    """The host, its store, and what it can be told to do."""

    def __init__(self, host: Host, store: Blockstore, bitswap: Bitswap) -> None:
        self._host = host
        self._store = store
        self._bitswap = bitswap
        self._stalled: list[Stream] = []
        self.commands: dict[str, Callable[..., Awaitable[Answer]]] = {
            "add": self.add,
            "echo": self.echo,
            "ping": self.ping,
            "reset": self.reset,
            "fetch": self.fetch,
            "probe": self.probe,
            "stall": self.stall,
            "redial": self.redial,
            "strangers": self.strangers,
            "disconnect": self.disconnect,
        }

    async def add(self, seed: str, size: str) -> Answer:
        """Make a file of generated content and keep its blocks."""

        async def pieces() -> AsyncIterator[bytes]:
            for piece in content(seed, int(size)):
                yield piece

        digest = hashlib.sha256()
        for piece in content(seed, int(size)):
            digest.update(piece)
        return {"cid": str(await unixfs.add(self._store, pieces())), "sha256": digest.hexdigest(), "bytes": int(size)}

    async def echo(self, address: str, count: str, size: str) -> Answer:
        """Have bytes sent back on so many streams at once; each must get its own."""
        connection = await self._host.connect(address)

        async def one(number: int) -> None:
            data = hashlib.shake_128(f"{address}/{number}".encode()).digest(int(size))
            stream = await connection.open_stream(ECHO)
            async with stream:
                writing = asyncio.create_task(self._send(stream, data), name="echo: write")
                try:
                    back = b"".join([piece async for piece in stream])
                finally:
                    await asyncio.gather(writing, return_exceptions=True)
                if back != data:
                    raise ValueError(f"{len(back)} bytes came back, or others, of {len(data)}")

        await asyncio.gather(*(one(number) for number in range(int(count))))
        return {"n": int(count)}

    @staticmethod
    async def _send(stream: Stream, data: bytes) -> None:
        await stream.write(data)
        stream.close_write()

    async def ping(self, address: str, count: str) -> Answer:
        """Ping, one after the other."""
        for _ in range(int(count)):
            await self._host.ping(address)
        return {"n": int(count)}

    async def reset(self, address: str, code: str) -> Answer:
        """Ask the peer for a reset; it must come, as a reset of the peer's."""
        stream = await self._host.open_stream(address, RESET)
        async with stream:
            await stream.write(int(code).to_bytes(4, "big"))
            try:
                await stream.read()
            except StreamResetError as error:
                if error.by != "remote":
                    raise
                return {"code": error.code}
        raise ValueError("the stream has ended without a reset")

    async def fetch(self, address: str, cid: str) -> Answer:
        """Fetch a file from a peer, verified, and forget its blocks again."""
        digest, n_bytes = hashlib.sha256(), 0
        async with self._bitswap.session([address]) as session:
            noting = Noting(session)
            try:
                async for piece in unixfs.cat(noting, Cid.parse(cid)):
                    digest.update(piece)
                    n_bytes += len(piece)
            finally:
                for block in noting.cids:
                    await self._store.delete(block)
        return {"bytes": n_bytes, "sha256": digest.hexdigest()}

    async def probe(self, address: str, cid: str) -> Answer:
        """Measure what an honest peer waits for a ping, an echo of 1 KiB, and a file of one block."""
        started = time.perf_counter()
        await self._host.ping(address)
        pinged = time.perf_counter()
        await self.echo(address, "1", "1024")
        echoed = time.perf_counter()
        await self.fetch(address, cid)
        return {"ping": pinged - started, "echo": echoed - pinged, "fetch": time.perf_counter() - echoed}

    async def stall(self, address: str, count: str, size: str) -> Answer:
        """Open streams, write to be sent back, and read nothing."""
        connection = await self._host.connect(address)
        for _ in range(int(count)):
            stream = await connection.open_stream(ECHO)
            stream.try_write(bytes(int(size)))
            self._stalled.append(stream)
        return {"n": int(count)}

    async def redial(self, address: str, count: str) -> Answer:
        """Connect, identify and disconnect, so many times."""
        for _ in range(int(count)):
            await self._host.identify(address)
            await self._host.disconnect(address)
        return {"n": int(count)}

    async def strangers(self, address: str, count: str) -> Answer:
        """Let so many hosts that nobody has met, each with a key and a signed record of its own, come once."""
        left = iter(range(int(count)))

        async def come() -> None:
            for _ in left:
                async with Host(listen=[LISTEN]) as host:
                    await host.identify(address)

        await asyncio.gather(*(come() for _ in range(STRANGERS_AT_ONCE)))
        return {"n": int(count)}

    async def disconnect(self, address: str) -> Answer:
        """Disconnect from a peer, where there is a connection."""
        await self._host.disconnect(address)
        return {}

    def figures(self, *, objects: bool) -> Answer:
        """Return what this process holds; with `objects` after a full collection, and those of ours counted by type."""
        answer: Answer = {}
        if objects:
            gc.collect()
            kinds = Counter(
                f"{type(one).__module__.removeprefix(PACKAGE + '.')}.{type(one).__qualname__}"
                for one in gc.get_objects()
                if type(one).__module__.partition(".")[0] == PACKAGE
            )
            answer["objects"] = dict(kinds.most_common())
        connections = self._host.connections
        descriptors = [_target(name) for name in os.listdir("/proc/self/fd")]
        return answer | {
            "rss_anon_bytes": anonymous_bytes(os.getpid()),
            "blocks": sys.getallocatedblocks(),
            "cpu_seconds": time.process_time(),
            "tasks": len(asyncio.all_tasks()),
            "descriptors": len(descriptors) - descriptors.count(""),
            "sockets": sum(target.startswith("socket:") for target in descriptors),
            "timers": _armed(asyncio.get_running_loop()),
            "connections": len(connections),
            "streams": sum(len(connection.streams) for connection in connections),
            "tombstones": sum(len(connection.tombstones) for connection in connections),
        }


def _target(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""  # that of the listing itself


def _armed(loop: asyncio.AbstractEventLoop) -> int:
    handles: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]
    return sum(not handle.cancelled() for handle in handles)


def say(answer: Answer) -> None:
    print(json.dumps(answer), flush=True)


async def serve(node: SoakNode) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    running: set[asyncio.Task[None]] = set()

    async def run(number: int, name: str, arguments: list[str]) -> None:
        try:
            answer = await node.commands[name](*arguments)
        except (Libp2pError, OSError, ValueError) as error:
            answer = {"error": repr(error)}
        say({"id": number} | answer)

    async for line in reader:
        number, name, *arguments = json.loads(line)
        if name == "figures":
            say({"id": number} | node.figures(objects=bool(arguments)))
            continue
        task = loop.create_task(run(number, name, arguments), name=name)
        running.add(task)
        task.add_done_callback(running.discard)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def main(repo: Path | None) -> None:
    limits = Limits(peers_remembered=PEERS_REMEMBERED)
    async with AsyncExitStack() as stack:
        store: Blockstore = MemoryBlockstore()
        if repo is not None:
            opened = stack.enter_context(Repo.open(repo, create=True))
            store = await stack.enter_async_context(opened.store(limits=limits))
        host = await stack.enter_async_context(Host(listen=[LISTEN], limits=limits))
        host.handle(ECHO, echo)
        bitswap = await stack.enter_async_context(Bitswap(host, store))
        say({"id": 0, "addr": str(host.addresses[0]), "pid": os.getpid()})
        await serve(SoakNode(host, store, bitswap))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A node of ours in a soak.")
    parser.add_argument("--repo", type=Path)
    asyncio.run(main(parser.parse_args().repo))
