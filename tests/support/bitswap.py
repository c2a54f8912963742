"""Hosts that speak Bitswap on the simulated network, and a peer whose every answer is written by hand."""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiolibp2p import Host, Limits, Stream
from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks import Blockstore, Cid, MemoryBlockstore
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.net.connection import Connection
from aiolibp2p.sansio.bitswap.decoder import Decoder
from aiolibp2p.sansio.bitswap.message import PROTOCOL, Entry, Message, Payload, Presence, encode
from aiolibp2p.sim import current_loop
from tests.support.hosts import sim_host

Block = tuple[Cid, bytes]
MESSAGE_BYTES = Limits().bitswap_message_bytes


def block(label: object, size: int = 1000) -> Block:
    """Return a block of its own for each label."""
    data = hashlib.shake_128(str(label).encode()).digest(size)
    return Cid.from_data(data), data


def blocks(n: int, size: int = 1000, label: str = "block") -> list[Block]:
    """Return so many different blocks."""
    return [block(f"{label} {number}", size) for number in range(n)]


class Node:
    """A host, its store and its Bitswap."""

    def __init__(self, host: Host, store: Blockstore, bitswap: Bitswap) -> None:
        self.host = host
        self.store = store
        self.bitswap = bitswap

    @property
    def address(self) -> str:
        """Where it listens, with its peer ID."""
        return str(self.host.addresses[0])

    @property
    def peer_id(self) -> PeerId:
        return self.host.peer_id


@asynccontextmanager
async def node(
    name: str,
    has: Iterable[Block] = (),
    *,
    store: Blockstore | None = None,
    serving: Mapping[str, Any] | None = None,
    serve: bool = True,
    **options: Any,
) -> AsyncIterator[Node]:
    """Give a node that has these blocks.

    Args:
        serving: more options of Bitswap; all others are those of the host.
    """
    store = MemoryBlockstore(has) if store is None else store
    async with sim_host(name, **options) as host, Bitswap(host, store, serve=serve, **(serving or {})) as bitswap:
        yield Node(host, store, bitswap)


def answer(*has: Block, lacks: Iterable[Cid] = (), haves: Iterable[Cid] = (), protocol: str = PROTOCOL) -> bytes:
    """Return one message with blocks and presences, as it goes onto a stream."""
    message = Message(payloads=[Payload(cid.prefix, data) for cid, data in has])
    message.presences = [Presence(bytes(cid), False) for cid in lacks]
    message.presences += [Presence(bytes(cid), True) for cid in haves]
    return b"".join(encode(message, MESSAGE_BYTES, protocol))


def wants(*cids: Cid, full: bool = False, have: bool = False, dont_have: bool = True, cancel: bool = False) -> bytes:
    """Return one message with a wantlist, the first CID wanted most, as it goes onto a stream."""
    entries = [
        Entry(bytes(cid), 1000 - number, cancel, have and not cancel, dont_have and not cancel)
        for number, cid in enumerate(cids)
    ]
    return b"".join(encode(Message(entries, full=full), MESSAGE_BYTES))


class Heard:
    """What came on the streams of one kind, decoded."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.streams: list[Stream] = []

    @property
    def entries(self) -> list[Entry]:
        return [entry for message in self.messages for entry in message.entries]

    @property
    def blocks(self) -> list[bytes]:
        return [payload.data for message in self.messages for payload in message.payloads]

    @property
    def presences(self) -> dict[bytes, bool]:
        return {presence.cid: presence.have for message in self.messages for presence in message.presences}


class Scripted:
    """A peer without a Bitswap of its own: it hears all messages and says what its test lets it say.

    Args:
        on_message: told of each message and its stream, to answer at once.
    """

    def __init__(self, host: Host, on_message: Callable[[Scripted, Stream, Message], None] | None) -> None:
        self.host = host
        self.heard = Heard()
        self._on_message = on_message
        self._streams: dict[PeerId, Stream] = {}

    @property
    def address(self) -> str:
        return str(self.host.addresses[0])

    def accept(self, stream: Stream) -> None:
        """Hear one stream."""
        self.heard.streams.append(stream)
        decoder = Decoder(self.host.limits)
        stream.idle_timeout = math.inf

        def hear() -> None:
            try:
                while data := stream.try_read():
                    for message in decoder.receive_bytes(data):
                        self.heard.messages.append(message)
                        if self._on_message is not None:
                            self._on_message(self, stream, message)
            except Exception:  # noqa: BLE001  the other side reset it
                stream.on_readable(None)

        stream.on_readable(hear)
        hear()

    def say(self, target: PeerId, data: bytes, protocol: str = PROTOCOL) -> Stream:
        """Write on the stream of this peer to another, opened now if need be."""
        stream = self._streams.get(target)
        if stream is None or not stream.usable:
            connection = self.connection(target)
            stream = self._streams[target] = connection.open_now(protocol)
            self.accept(stream)
        assert stream.try_write(data) == len(data)
        return stream

    def connection(self, target: PeerId) -> Connection:
        connection = self.host.connection_to(target)
        assert connection is not None
        return connection


@asynccontextmanager
async def scripted(
    name: str,
    on_message: Callable[[Scripted, Stream, Message], None] | None = None,
    *,
    protocols: Iterable[str] = (PROTOCOL,),
    **options: Any,
) -> AsyncIterator[Scripted]:
    """Give a scripted peer that serves these protocols."""
    async with sim_host(name, **options) as host:
        peer = Scripted(host, on_message)
        for protocol in protocols:
            host.serve(protocol, peer.accept)
        yield peer


async def settled(seconds: float = 0.0) -> None:
    """Let everything happen that happens within this time."""
    if seconds:
        await current_loop().pass_time(seconds)
    await current_loop().settle()
