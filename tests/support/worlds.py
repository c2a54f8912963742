"""The two worlds that a scenario runs in: whole hosts in virtual time, and the same hosts on sockets of 127.0.0.1.

In virtual time a scenario says to the nanosecond when something ends. On sockets it says by which deadline, each of
them short, and that nothing is left; only generous bounds are timed there.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiolibp2p import Connection, Host, Stream
from aiolibp2p.errors import DeadlineError, Libp2pError
from aiolibp2p.net.link import Link
from aiolibp2p.runtime import SystemEntropy
from aiolibp2p.sansio.yamux import YamuxSession
from aiolibp2p.sim import Tuning, current_loop, current_net
from tests.support.hosts import ECHO, raw_peer, sim_host
from tests.support.raw import NS, RawLink, RawPeer, Script
from tests.support.scripts import responding

LISTEN = ["/ip4/127.0.0.1/tcp/0"]
LONG_SECONDS = 20.0
"""No scenario on sockets waits for this: it is what a machine that stalls may add."""
VIRTUAL_SECONDS = 60.0
"""Nor does one in virtual time wait for more than this to come to hold."""
LOOK_SECONDS = 0.002

T = TypeVar("T")


class World:
    """Where a scenario runs."""

    def __init__(self, *, virtual: bool) -> None:
        self.virtual = virtual

    def host(self, name: str, **options: Any) -> Host:
        """Return a host that listens, on a machine of its own where there is more than one."""
        if self.virtual:
            return sim_host(name, **options)
        options.setdefault("listen", LISTEN)
        return Host(**options)

    def raw(self, script: Script | None = None, name: str = "raw") -> RawPeer:
        """Return a peer played by hand."""
        if self.virtual:
            return raw_peer(script, name)
        return RawPeer(script or responding(), entropy=SystemEntropy())

    def seconds(self, virtual: float, loopback: float) -> float:
        """Return a duration of this world."""
        return virtual if self.virtual else loopback

    def now_ns(self) -> int:
        """Return the time of the loop, in nanoseconds."""
        return current_loop().time_ns() if self.virtual else round(asyncio.get_running_loop().time() * NS)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, which on sockets really does."""
        if self.virtual:
            await current_loop().pass_time(seconds)
            return
        loop = asyncio.get_running_loop()
        passed = loop.create_future()
        loop.call_later(seconds, passed.set_result, None)
        await passed

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds; fail when it does not come to hold."""
        ends_ns = self.now_ns() + round(self.seconds(VIRTUAL_SECONDS, LONG_SECONDS) * NS)
        while not holds():
            assert self.now_ns() < ends_ns, "it never came to hold"
            await self.pass_time(LOOK_SECONDS)

    async def in_time(self, awaitable: Awaitable[T]) -> T:
        """Await what must end by itself; on sockets, long before this does."""
        async with asyncio.timeout(None if self.virtual else LONG_SECONDS):
            return await awaitable

    def small_buffers(self, n_bytes: int) -> None:
        """Let the sockets of the simulated network have small buffers; on the real one `shrink` follows."""
        if self.virtual:
            current_net().tuning = Tuning(send_buffer=n_bytes, receive_buffer=n_bytes)

    def shrink(self, connection: Connection, n_bytes: int) -> None:
        """Give the real socket below a connection small buffers; the system has a least size of its own."""
        if self.virtual:
            return
        transport = link_of(connection).transport
        assert transport is not None
        below = transport.get_extra_info("socket")
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            below.setsockopt(socket.SOL_SOCKET, option, n_bytes)


@asynccontextmanager
async def pair(world: World, **options: Any) -> AsyncIterator[tuple[Host, Host, Connection]]:
    """Give two hosts that have identified each other, of which the second echoes, and the first one's connection."""
    async with world.host("alice", **options) as alice, world.host("bob", **options) as bob:
        bob.handle(ECHO, echo)
        connection = await world.in_time(alice.connect(bob.addresses[0]))
        await world.in_time(alice.identify(bob.peer_id))
        await world.until(lambda: all(other.identify is not None for other in bob.connections))
        await world.until(lambda: not connection.streams and not connection.tombstones)
        yield alice, bob, connection


@asynccontextmanager
async def against_raw(
    world: World, script: Script | None = None, **options: Any
) -> AsyncIterator[tuple[Host, RawLink, Connection]]:
    """Give a host connected to a peer that does nothing by itself."""
    async with world.raw(script) as peer, world.host("ours", **options) as host:
        connection = await world.in_time(host.connect(peer.address))
        yield host, await world.in_time(peer.link()), connection


async def echo(stream: Stream) -> None:
    """Send back what comes, until it ends."""
    async for data in stream:
        await stream.write(data)


async def echoed(stream: Stream, data: bytes) -> bytes:
    """Write and finish while reading to the end; close the stream, and return what came back."""

    async def write() -> None:
        await stream.write(data)
        stream.close_write()

    async with asyncio.TaskGroup() as group:
        group.create_task(write(), name="writing")
        received = b"".join([part async for part in stream])
    stream.close()
    return received


def start(coroutine: Any, name: str = "part of the scenario") -> asyncio.Task[Any]:
    """Start a task on the running loop."""
    return asyncio.get_running_loop().create_task(coroutine, name=name)


async def ended(waiting: Awaitable[object]) -> str:
    """Return by which deadline something ended, or how else."""
    try:
        await waiting
    except DeadlineError as error:
        return error.deadline
    except Libp2pError as error:
        return type(error).__name__
    return "done"


def link_of(connection: Connection) -> Link:
    """Return the socket, secure channel and muxer of a connection."""
    link = connection._muxer
    assert isinstance(link, Link)
    return link


def session_of(connection: Connection) -> YamuxSession:
    """Return the muxer's session of a connection."""
    session = link_of(connection)._session
    assert session is not None
    return session
