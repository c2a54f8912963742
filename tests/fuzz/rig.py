"""A host with Bitswap whose sockets, clock and peer are ours, for targets that speak to the whole of it.

One host lives as long as the process: after every input its connection is ended and its clock put forward beyond every
timeout, and then it must hold what it held before the first.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks.cid import Cid
from aiolibp2p.blocks.store import MemoryBlockstore
from aiolibp2p.errors import Libp2pError
from aiolibp2p.host import Host
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.net.connection import Connection
from aiolibp2p.net.events import HandlerFailed
from aiolibp2p.net.link import MUXERS, Link
from aiolibp2p.net.stream import Stream
from aiolibp2p.net.upgrade import Upgrade
from aiolibp2p.runtime import LoopClock, Runtime
from aiolibp2p.sansio.noise import NoiseChannel, NoiseResult

ECHO = "/echo/1.0.0"
BLOCK = b"a block that peers may ask for"
WANTED = Cid.from_data(b"\x01 a block that nobody has")
LIMITS = Limits(
    connections=4,
    pending_inbound=4,
    streams_per_connection=12,
    streams_per_peer=12,
    streams=20,
    handlers_per_peer=6,
    handlers=8,
    tombstones_per_connection=4,
    tombstones=6,
    forgotten_ids=4,
    connection_send_bytes=64 << 10,
    connection_unread_bytes=64 << 10,
    connection_control_bytes=4 << 10,
    yamux_ack_backlog=6,
    events=16,
    bitswap_wants_per_peer=16,
    bitswap_message_bytes=16 << 10,
)
TIMEOUTS = Timeouts()
FOR_EVER = 10_000.0
"""Longer than any timeout of ours, in seconds."""


class SeededEntropy:
    """The same bytes for the same label, however often they are asked for."""

    def __init__(self, label: str = "fuzz") -> None:
        self._label = label

    def token(self, n: int) -> bytes:
        """Return `n` bytes."""
        return hashlib.shake_256(self._label.encode()).digest(n)

    def fork(self, label: str) -> SeededEntropy:
        """Return another source."""
        return SeededEntropy(f"{self._label}/{label}")


PEER = PrivateKey.generate(SeededEntropy("peer"))


class StillLoop(asyncio.SelectorEventLoop):
    """A loop whose clock goes where it is put, and which runs what is due and returns."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _loop, context: self.failures.append(context))

    def time(self) -> float:
        """Return where the clock was put."""
        return self.now

    def turn(self, turns: int = 1) -> None:
        """Run what is due, and what that makes due."""
        for _ in range(turns):
            self.call_soon(self.stop)
            self.run_forever()

    @property
    def timers(self) -> int:
        """Timers that are armed."""
        return sum(not handle.cancelled() for handle in self._scheduled)  # type: ignore[attr-defined]


class FakeSocket(asyncio.Transport):
    """A socket that keeps nothing of what is written, pauses its writer when told, and closes at once."""

    def __init__(self, loop: StillLoop) -> None:
        super().__init__({"sockname": ("127.0.0.1", 4001), "peername": ("192.0.2.1", 50_000)})
        self._loop = loop
        self.link: Link | None = None
        self.written_bytes = 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Take note of nothing: nothing is buffered."""

    def write(self, data: Any) -> None:
        """Count it."""
        self.written_bytes += len(data)

    def close(self) -> None:
        """Close in the next turn."""
        self._loop.call_soon(self.lose)

    abort = close

    def lose(self) -> None:
        """Tell the link, once."""
        link, self.link = self.link, None
        if link is not None:
            link.connection_lost(None)


class Done(Upgrade):
    """An upgrade that any first byte completes: the channel has keys that the rig knows."""

    def __init__(self, *, initiator: bool) -> None:
        self.initiator = initiator
        self.stage = "noise handshake"
        self.unread = b""
        self._optimistic = False

    def bytes_to_send(self) -> bytes:
        """Send nothing."""
        return b""

    def receive_bytes(self, data: bytes) -> NoiseResult | None:
        """Return the channel; all but the first byte is for it."""
        self.unread = data[1:]
        channel = NoiseChannel(b"1" * 32, b"2" * 32)
        return NoiseResult(PEER.public.peer_id, PEER.public, channel, MUXERS[0], tuple(MUXERS))


async def _echo(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data)


class Rig:
    """The host and what it holds when no connection is there."""

    def __init__(self) -> None:
        self.loop = StillLoop()
        self.wants: list[asyncio.Task[Any]] = []
        self._run(self._start())
        self._pass_all_time()
        self._level = self._held()

    async def _start(self) -> None:
        clock = LoopClock(self.loop, lambda: 1e9)
        runtime = replace(Runtime.system(), clock=clock, entropy=SeededEntropy())
        self.host = Host(runtime=runtime, limits=LIMITS, timeouts=TIMEOUTS, serve_perf=True)
        self.host.handle(ECHO, _echo)
        await self.host.__aenter__()
        self.bitswap = Bitswap(self.host, MemoryBlockstore([(Cid.from_data(BLOCK), BLOCK)]))
        await self.bitswap.__aenter__()
        self.events = self.host.events()

    def _run(self, coroutine: Any) -> None:
        self.loop.run_until_complete(coroutine)

    def open(self, upgrade: Upgrade | None = None, *, initiator: bool = False) -> Link:
        """Attach a socket; without an upgrade to come it is a connection at once."""
        swarm = self.host._swarm
        link = Link(swarm, upgrade or Done(initiator=initiator))
        socket = FakeSocket(self.loop)
        socket.link = link
        link.connection_made(socket)
        if upgrade is None:
            self.feed(link, b"\0")
        return link

    def upgrade(self, *, initiator: bool) -> Upgrade:
        """Return an upgrade as the host would begin it."""
        swarm = self.host._swarm
        return Upgrade(swarm.noise, swarm.entropy, initiator=initiator, muxers=MUXERS)

    @staticmethod
    def feed(link: Link, data: bytes | bytearray) -> None:
        """Receive bytes, as a loop does."""
        while data:
            buffer = link.get_buffer(-1)
            piece = data[: len(buffer)]
            buffer[: len(piece)] = piece
            link.buffer_updated(len(piece))
            data = data[len(piece) :]

    def ask(self, act: Callable[[Connection], Any]) -> None:
        """Start what a user of the host would do with its connection."""
        for connection in self.host.connections:
            self.wants.append(self.loop.create_task(act(connection)))
        self.loop.turn(2)

    def check(self, link: Link) -> None:
        """Check the bounds of what the host holds for its peer."""
        swarm, session = self.host._swarm, link._session
        assert swarm.counts.streams <= LIMITS.streams_per_peer
        assert swarm.counts.tombstones <= LIMITS.tombstones_per_connection
        assert swarm.counts.handlers <= LIMITS.handlers_per_peer
        assert len(link._pending) <= 2 + 65535
        if session is not None:
            assert session.unread_bytes <= LIMITS.connection_unread_bytes
            assert session.control_bytes <= LIMITS.connection_control_bytes + 24
        self._judge()

    def finish(self, link: Link) -> None:
        """End the socket, let all time pass, and compare with the level before."""
        self.loop.turn(3)
        self.check(link)
        transport = link.transport
        assert isinstance(transport, FakeSocket)
        transport.lose()
        self.loop.turn(3)
        wants, self.wants = self.wants, []
        for want in wants:
            want.cancel()
        self.loop.turn(3)
        for want in wants:
            error = None if want.cancelled() else want.exception()
            if error is not None and not isinstance(error, Libp2pError):
                raise error
        self._pass_all_time()
        self._judge()
        assert self._held() == self._level, f"held after an input {self._held()}, before {self._level}"

    def _pass_all_time(self) -> None:
        for _ in range(3):
            self.loop.now += FOR_EVER
            self.loop.turn(2)

    def _held(self) -> dict[str, int]:
        swarm = self.host._swarm
        return {
            "connections": len(self.host.connections),
            "sockets": len(swarm._links),
            "pending": len(swarm._pending_inbound) + len(swarm._pending_of),
            "peers": len(swarm._peers),
            "streams": swarm.counts.streams,
            "tombstones": swarm.counts.tombstones,
            "handlers": swarm.counts.handlers,
            "tasks": len(asyncio.all_tasks(self.loop)),
            "timers": self.loop.timers,
            "pings": len(self.host._pinger._sessions) + len(self.host._ping_responder._open),
            "unfinished": len(self.bitswap._unfinished),
        }

    def _judge(self) -> None:
        """Raise what went wrong inside: anything that is no error of ours."""
        if self.host._crash is not None:
            raise self.host._crash
        for context in self.loop.failures:
            raise context.get("exception") or AssertionError(context["message"])
        events = self.events._events
        while events:
            event = events.popleft()
            if isinstance(event, HandlerFailed) and not isinstance(event.error, Libp2pError):
                raise event.error
