"""A peer played by hand: multistream-select, Noise and Yamux step by step, so that it can misbehave at every one.

It works on callbacks: a link that has been upgraded holds no task, records every frame with the time of its arrival,
and answers nothing that its test has not asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from struct import Struct
from types import TracebackType
from typing import Self, cast

from aiolibp2p import PrivateKey
from aiolibp2p.entropy import Entropy
from aiolibp2p.sansio.multistream import HEADER, MessageReader, encode_message, proposal
from aiolibp2p.sansio.noise import NoiseChannel, NoiseHandshake, NoiseIdentity, NoiseResult
from aiolibp2p.sansio.yamux import ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, WINDOW_UPDATE
from aiolibp2p.sansio.yamux import PROTOCOL as YAMUX
from aiolibp2p.sim import Host as Machine
from aiolibp2p.sim import SeededEntropy

MUXERS = (YAMUX,)
NS = 1_000_000_000
PORT = 4001
_frame = Struct(">BBHII")

Script = Callable[["RawLink"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Frame:
    """One Yamux frame that came, and when."""

    at_ns: int
    kind: int
    flags: int
    stream_id: int
    length: int
    body: bytes = b""


class RawLink(asyncio.Protocol):
    """One socket of a raw peer."""

    transport: asyncio.Transport
    channel: NoiseChannel
    handshake: NoiseHandshake
    result: NoiseResult

    def __init__(self, peer: RawPeer, *, initiator: bool) -> None:
        self.peer = peer
        self.initiator = initiator
        self.frames: list[Frame] = []
        self.accepts = True
        """Whether SYN is answered with ACK."""
        self.reads = True
        """Whether the credit of Data frames is returned at once."""
        self.answers_pings = True
        self.on_frame: Callable[[Frame], None] | None = None
        self.ended_ns: int | None = None
        """When the other side closed or reset the socket."""
        self.error: Exception | None = None
        self.lost = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._encrypted = b""
        self._framed = False
        self._waiter: asyncio.Future[None] | None = None
        self._frame_waiters: list[tuple[Callable[[Frame], bool], asyncio.Future[Frame]]] = []

    # -- asyncio -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # By what it does: the transports of uvloop are not of the class.
        self.transport = cast(asyncio.Transport, transport)
        self.peer.links.append(self)
        self.task = self._loop.create_task(self._run(), name=f"raw peer, link {len(self.peer.links)}")
        self.peer.changed()

    async def _run(self) -> None:
        try:
            await self.peer.script(self)
        except EOFError:
            pass  # the other side gave up first
        finally:
            if not self.ready.done():
                self.ready.set_result(None)

    def data_received(self, data: bytes) -> None:
        if hasattr(self, "channel"):
            chunks, used = self.channel.decrypt(self._encrypted + data)
            self._encrypted = (self._encrypted + data)[used:]
            data = b"".join(chunks)
        self._received += data
        if self._framed:
            self._take_frames()
        self._wake()

    def eof_received(self) -> bool:
        self._over()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.lost = True
        self._over()
        self.peer.changed()

    def _over(self) -> None:
        if self.ended_ns is None:
            self.ended_ns = self.now_ns()
        self._wake()
        for _, waiter in self._frame_waiters:
            if not waiter.done():
                waiter.set_exception(EOFError("the socket was closed"))
        self._frame_waiters.clear()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def now_ns(self) -> int:
        return round(self._loop.time() * NS)

    # -- bytes -------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.transport.write(data)

    def send(self, data: bytes) -> None:
        """Write bytes in a Noise record."""
        self.transport.write(self.channel.encrypt((data,)))

    async def read(self, n: int) -> bytes:
        """Return exactly `n` bytes, decrypted if there is a channel."""
        while len(self._received) < n:
            if self.ended_ns is not None:
                raise EOFError(f"the socket was closed after {bytes(self._received)!r}")
            await self.more()
        data = bytes(self._received[:n])
        del self._received[:n]
        return data

    async def more(self) -> None:
        """Wait for bytes or the end."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def closed(self) -> int:
        """Wait for the end of the socket and return when it came, in nanoseconds."""
        while self.ended_ns is None:
            await self.more()
        return self.ended_ns

    async def read_message(self) -> str:
        """Return one message of multistream-select."""
        reader = MessageReader()
        while True:
            reader.feed(await self.read(1))
            if (text := reader.next_message()) is not None:
                return text

    # -- noise -------------------------------------------------------------------------------------------------------

    def begin_noise(self, muxers: Sequence[str] = MUXERS) -> bytes:
        """Start a handshake; return the initiator's first message, or nothing."""
        role = self.peer.entropy.fork("handshake")
        self.handshake = NoiseHandshake(
            "initiator" if self.initiator else "responder", self.peer.identity, role, muxers=muxers
        )
        return self.handshake.bytes_to_send()

    async def read_noise(self) -> bytes:
        """Take one handshake message; return what answers it."""
        length = await self.read(2)
        result = self.handshake.receive_bytes(length + await self.read(int.from_bytes(length, "big")))
        out = self.handshake.bytes_to_send()
        if result is not None:
            self.result = result
            # What arrived with the last message, and our own answer, precede the channel.
            self._encrypted, self._received = bytes(self._received), bytearray()
            if out:
                self.write(out)
            self.channel = result.channel
            self.data_received(b"")
            return b""
        return out

    # -- yamux -------------------------------------------------------------------------------------------------------

    def start_frames(self) -> None:
        """Take what comes from now on as Yamux frames."""
        self._framed = True
        self._take_frames()
        if not self.ready.done():
            self.ready.set_result(None)

    def _take_frames(self) -> None:
        received = self._received
        while len(received) >= 12:
            _, kind, flags, stream_id, length = _frame.unpack_from(received)
            size = length if kind == DATA else 0
            if len(received) < 12 + size:
                return
            body = bytes(received[12 : 12 + size])
            del received[: 12 + size]
            self._take(Frame(self.now_ns(), kind, flags, stream_id, length, body))

    def _take(self, frame: Frame) -> None:
        self.frames.append(frame)
        if frame.kind == PING and frame.flags & SYN and self.answers_pings:
            self.send_frame(PING, ACK, 0, frame.length)
        if frame.kind in (DATA, WINDOW_UPDATE) and frame.flags & SYN and self.accepts:
            self.send_frame(WINDOW_UPDATE, ACK, frame.stream_id)
        if frame.kind == DATA and frame.length and self.reads:
            self.send_frame(WINDOW_UPDATE, 0, frame.stream_id, frame.length)
        if self.on_frame is not None:
            self.on_frame(frame)
        for entry in tuple(self._frame_waiters):
            if entry[0](frame):
                self._frame_waiters.remove(entry)
                if not entry[1].done():
                    entry[1].set_result(frame)

    def send_frame(self, kind: int, flags: int, stream_id: int, length: int | None = None, body: bytes = b"") -> None:
        """Send one frame."""
        self.send(_frame.pack(0, kind, flags, stream_id, len(body) if length is None else length) + body)

    def send_data(self, stream_id: int, body: bytes, flags: int = 0) -> None:
        """Send a Data frame."""
        self.send_frame(DATA, flags, stream_id, None, body)

    def answer(self, stream_id: int, protocol: str) -> None:
        """Accept a protocol on a stream."""
        self.send_data(stream_id, proposal(protocol))

    def refuse(self, stream_id: int) -> None:
        """Answer `na`."""
        self.send_data(stream_id, HEADER + encode_message("na"))

    def fin(self, stream_id: int) -> None:
        """Finish writing."""
        self.send_frame(WINDOW_UPDATE, FIN, stream_id)

    def rst(self, stream_id: int, code: int = 0) -> None:
        """Reset a stream."""
        self.send_frame(WINDOW_UPDATE, RST, stream_id, code)

    def go_away(self, code: int = 0) -> None:
        """Say that no new streams are taken."""
        self.send_frame(GO_AWAY, 0, 0, code)

    async def frame(self, match: Callable[[Frame], bool]) -> Frame:
        """Return the first frame that matches, of those that came and those that come."""
        for frame in self.frames:
            if match(frame):
                return frame
        if self.ended_ns is not None:
            raise EOFError("the socket was closed")
        waiter: asyncio.Future[Frame] = self._loop.create_future()
        self._frame_waiters.append((match, waiter))
        return await waiter

    async def stream_for(self, protocol: str) -> int:
        """Return the id of the newest stream that proposes a protocol."""
        wanted = encode_message(protocol)
        frame = await self.frame(lambda frame: wanted in frame.body)
        return max(frame.stream_id, *(other.stream_id for other in self.frames if wanted in other.body))

    def sent_on(self, stream_id: int) -> bytes:
        """Return all bytes that came on a stream."""
        return b"".join(frame.body for frame in self.frames if frame.stream_id == stream_id and frame.kind == DATA)

    def flagged(self, stream_id: int, flag: int) -> list[int]:
        """Return the times, in nanoseconds, at which a flag came on a stream."""
        return [
            frame.at_ns
            for frame in self.frames
            if frame.kind in (DATA, WINDOW_UPDATE) and frame.stream_id == stream_id and frame.flags & flag
        ]


class RawPeer:
    """A server, or a dialler, whose every socket runs `script`."""

    def __init__(self, script: Script, *, machine: Machine | None = None, entropy: Entropy | None = None) -> None:
        self.script = script
        self.entropy: Entropy = entropy or SeededEntropy("raw peer")
        self.key = PrivateKey.generate(self.entropy)
        self.identity = NoiseIdentity(self.key, self.entropy)
        self.peer_id = self.key.public.peer_id
        self.links: list[RawLink] = []
        self.port = 0
        self._machine = machine
        self._server: asyncio.Server | None = None
        self._waiters: list[asyncio.Future[None]] = []

    def changed(self) -> None:
        """Wake who waits for a link to come or to go."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    @property
    def ip(self) -> str:
        return "127.0.0.1" if self._machine is None else self._machine.addresses[0]

    @property
    def address(self) -> str:
        """Where it listens, with its peer ID."""
        return f"/ip4/{self.ip}/tcp/{self.port}/p2p/{self.peer_id}"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        with nullcontext() if self._machine is None else self._machine.here():
            self._server = await loop.create_server(lambda: RawLink(self, initiator=False), self.ip, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def dial(self, address: object) -> RawLink:
        """Connect to a host of ours, at any of its addresses; return the link once its script has upgraded it."""
        parts = str(address).split("/")
        with nullcontext() if self._machine is None else self._machine.here():
            loop = asyncio.get_running_loop()
            _, link = await loop.create_connection(lambda: RawLink(self, initiator=True), parts[2], int(parts[4]))
        await asyncio.shield(link.ready)
        return link

    async def link(self, number: int = 0) -> RawLink:
        """Return a link by its number, once its script has upgraded it or ended."""
        await self._until(lambda: len(self.links) > number)
        await asyncio.shield(self.links[number].ready)
        return self.links[number]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        tasks = [link.task for link in self.links if link.task is not None]
        for link in self.links:
            if hasattr(link, "transport"):
                link.transport.abort()
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await self._until(lambda: all(link.lost for link in self.links))
        if error is None:
            for result in results:
                if isinstance(result, Exception):
                    raise result
