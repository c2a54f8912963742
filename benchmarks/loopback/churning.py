"""The programs of the measurement `churn`: a server, what attacks it, and an honest one that dials meanwhile.

    python -m benchmarks.loopback.churning [--loop uvloop|asyncio] [--upgrade SECONDS] [--remember N] serve
    python -m benchmarks.loopback.churning [--loop uvloop|asyncio] session

Each takes commands from stdin, one JSON array a line, answers each with one JSON line, and ends when stdin ends. The
server knows `facts`. A session knows `silent`, `rounds`, `strangers` and `dials`; see there.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import time
from collections.abc import Awaitable, Callable

from aiolibp2p import Host, Limits, PrivateKey, Timeouts
from aiolibp2p.errors import Libp2pError
from aiolibp2p.runtime import SystemEntropy
from benchmarks.versus.node import ECHO, Answer, echo, in_loop, say

LISTEN = ["/ip4/127.0.0.1/tcp/0"]
READ_BYTES = 1 << 16
HOSTS = 8
"""Hosts of a session that connect and disconnect, each with a key of its own, at the same time."""
OPEN_AT_ONCE = 200
"""Silent sockets whose connect is under way at a time."""
DIAL_EVERY_SECONDS = 0.02
KEYS = [PrivateKey.generate(SystemEntropy()) for _ in range(HOSTS)]
"""Those of the peers that come again: the server would remember every other one."""

Command = Callable[..., Awaitable[Answer]]


# -- the server --------------------------------------------------------------------------------------------------------


class Server:
    """A host that listens, and what it holds."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def facts(self) -> Answer:
        """Return what the process holds, after the collector has run; `/proc` is read by who asks."""
        gc.collect()
        swarm, loop = self._host._swarm, asyncio.get_running_loop()
        counts = swarm.counts
        return {
            "tasks": len(asyncio.all_tasks()),
            "descriptors": len(os.listdir("/proc/self/fd")) - 1,  # the one that lists them
            "sockets": len(swarm._links),
            "pending": len(swarm._pending_inbound),
            "connections": len(self._host.connections),
            "streams": [counts.streams, counts.tombstones, counts.handlers],
            "refusals": {name: count for name, count in self._host.refusals.items() if count},
            "peersRemembered": len(self._host.peerstore.peers()),
            "timers": len(getattr(loop, "_scheduled", ())),
        }


async def serve(upgrade: float, remember: int) -> None:
    limits = Limits(peers_remembered=remember)
    async with Host(listen=LISTEN, timeouts=Timeouts(upgrade=upgrade), limits=limits) as host:
        host.handle(ECHO, echo)
        server = Server(host)
        say({"addr": str(host.addresses[0]), "pid": os.getpid()})
        await answer_lines({"facts": server.facts})


# -- what attacks it ---------------------------------------------------------------------------------------------------


class Silent(asyncio.Protocol):
    """A socket that never speaks, until the server drops it."""

    def __init__(self, open_now: set[Silent], none_left: asyncio.Event) -> None:
        self._open_now = open_now
        self._none_left = none_left

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._open_now.add(self)
        self._none_left.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_now.discard(self)
        if not self._open_now:
            self._none_left.set()


async def silent(address: str, count: int, per_second: float) -> Answer:
    """Open so many sockets that never speak, at a rate, and wait until the server has dropped every one."""
    _, _, ip, _, port, *_ = address.split("/")
    loop, open_now, none_left = asyncio.get_running_loop(), set[Silent](), asyncio.Event()
    room = asyncio.Semaphore(OPEN_AT_ONCE)
    failed: list[str] = []

    async def open_one() -> None:
        try:
            await loop.create_connection(lambda: Silent(open_now, none_left), ip, int(port))
        except OSError as error:
            failed.append(str(error))
        finally:
            room.release()

    start = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await room.acquire()
            group.create_task(open_one(), name="opening")
            if (wait := start + number / per_second - time.monotonic()) > 0:
                await asyncio.sleep(wait)
    opened, held = time.monotonic(), len(open_now)
    if open_now:
        await none_left.wait()
    return {
        "opened": count - len(failed),
        "failed": len(failed),
        "why": failed[:3],
        "openSeconds": round(opened - start, 3),
        "openAtTheEnd": held,
        "droppedAfterSeconds": round(time.monotonic() - opened, 3),
    }


async def rounds(address: str, count: int) -> Answer:
    """Connect, identify, ping and disconnect so often, by a few hosts that keep their keys."""
    left, failed = count, list[str]()

    async def come_and_go(number: int) -> None:
        nonlocal left
        async with Host(key=KEYS[number]) as host:
            while left > 0:
                left -= 1
                try:
                    connection = await host.connect(address)
                    await host.identify(connection.peer_id)
                    await host.ping(connection.peer_id)
                    await host.disconnect(connection.peer_id)
                except Libp2pError as error:
                    failed.append(str(error))

    return await at_once(come_and_go, count, failed)


async def strangers(address: str, count: int) -> Answer:
    """The same, each time by a host with a key that nobody has seen, which listens and serves a protocol."""
    left, failed = count, list[str]()

    async def come_and_go(_number: int) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            try:
                async with Host(listen=LISTEN) as host:
                    connection = await host.connect(address)
                    await host.identify(connection.peer_id)
                    await host.ping(connection.peer_id)
            except Libp2pError as error:
                failed.append(str(error))

    return await at_once(come_and_go, count, failed)


async def at_once(work: Callable[[int], Awaitable[None]], count: int, failed: list[str]) -> Answer:
    start = time.perf_counter()
    await asyncio.gather(*map(work, range(HOSTS)))
    seconds = time.perf_counter() - start
    return {"rounds": count, "failed": len(failed), "why": failed[:3], "seconds": round(seconds, 3)}


# -- and who is honest -------------------------------------------------------------------------------------------------


async def dials(address: str, seconds: float) -> Answer:
    """Dial again and again, from nothing to the answer of a ping; return how long each took, in milliseconds.

    Each by a host that starts, all of them with one key.
    """
    took, failed = list[float](), list[str]()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        async with Host(key=KEYS[0]) as host:
            start = time.perf_counter()
            try:
                await host.ping((await host.connect(address)).peer_id)
                took.append(round(1000 * (time.perf_counter() - start), 2))
            except Libp2pError as error:
                failed.append(str(error))
        await asyncio.sleep(DIAL_EVERY_SECONDS)
    return {"milliseconds": took, "failed": len(failed), "why": failed[:3]}


# -- lines -------------------------------------------------------------------------------------------------------------


async def answer_lines(commands: dict[str, Command]) -> None:
    """Answer commands from stdin until it ends."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    unread = bytearray()

    def read() -> None:
        data = os.read(0, READ_BYTES)
        unread.extend(data)
        while (end := unread.find(b"\n")) >= 0:
            lines.put_nowait(bytes(unread[:end]))
            del unread[: end + 1]
        if not data:
            loop.remove_reader(0)
            lines.put_nowait(b"")

    loop.add_reader(0, read)
    while line := await lines.get():
        name, *arguments = json.loads(line)
        try:
            say(await commands[name](*arguments))
        except Exception as error:  # noqa: BLE001  the one who asked reports it
            say({"error": repr(error)})


def raise_descriptors() -> int:
    """Let this process have as many descriptors as the system lets it, and return how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--upgrade", type=float, default=Timeouts().upgrade, help="Timeouts.upgrade of the server")
    remembered = Limits().peers_remembered
    parser.add_argument("--remember", type=int, default=remembered, help="Limits.peers_remembered of the server")
    parser.add_argument("mode", choices=("serve", "session"))
    options = parser.parse_args()
    raise_descriptors()
    session: dict[str, Command] = {"silent": silent, "rounds": rounds, "strangers": strangers, "dials": dials}
    serving = options.mode == "serve"
    in_loop(options.loop, serve(options.upgrade, options.remember) if serving else answer_lines(session))


if __name__ == "__main__":
    main()
