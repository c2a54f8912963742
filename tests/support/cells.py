"""A node of ours on 127.0.0.1 that speaks Bitswap with a peer program, and what the two of them exchange."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from aiolibp2p import Host, Stream, Timeouts
from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks import Cid, MemoryBlockstore
from aiolibp2p.errors import Libp2pError
from aiolibp2p.net.events import HandlerFailed
from aiolibp2p.sansio.bitswap.message import PROTOCOL, Message
from tests.interop.peers import COMMAND_SECONDS, Listener, Peers, Stack
from tests.support.bitswap import Block, Node, Scripted, wants
from tests.vectors.unixfs.cases import FileCase, block, content

LOCAL = ["/ip4/127.0.0.1/tcp/0"]


def single(seed: str, size: int) -> Block:
    """Return the block that the peer programs make of a seed and a size."""
    data = b"".join(content(seed, size))
    return Cid.from_data(data), data


def numbered(seed: str, n: int, size: int) -> list[Block]:
    """Return the blocks that the peer programs number."""
    made = [block(seed, number, size) for number in range(n)]
    return [(Cid.from_data(data), data) for data in made]


async def pieces(case: FileCase) -> AsyncIterator[bytes]:
    """Yield what is in a file, of which no more than a piece is in memory."""
    for piece in case.content():
        yield piece


@cache
def digest_of(case: FileCase) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    for piece in case.content():
        digest.update(piece)
    return digest.hexdigest()


def tree_at(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder by its path, and `directory` for every directory."""
    return {
        str(path.relative_to(folder)): "directory" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
    }


@asynccontextmanager
async def local_node(*has: Block, timeouts: Timeouts | None = None) -> AsyncIterator[Node]:
    """Give a node that has these blocks; nothing may have failed inside it."""
    store = MemoryBlockstore(has)
    async with Host(listen=LOCAL, timeouts=timeouts) as host:
        events = host.events()
        async with Bitswap(host, store) as bitswap:
            yield Node(host, store, bitswap)
    failed = [event async for event in events if isinstance(event, HandlerFailed)]
    assert [event for event in failed if not isinstance(event.error, Libp2pError)] == []


def server_of(peers: Peers, stack: Stack) -> Listener:
    """Return the listener of a stack that serves Bitswap."""
    return peers.listener(stack, "listen", "-bitswap" if stack == "go" else "--bitswap")


async def told(listener: Listener, *words: object, **flags: object) -> dict[str, Any]:
    """Let a listener add to its store; flags are those of the programs, `_` in their names for `-`."""
    dash = "-" if listener.stack == "go" else "--"
    named = [f"{dash}{name.replace('_', '-')}={value}" for name, value in flags.items()]
    listener.send([*named, *map(str, words)])
    async with asyncio.timeout(COMMAND_SECONDS):
        answer = await asyncio.wrap_future(listener.next_line())
    assert "error" not in answer, answer
    return answer


async def answered_on_the_wire(address: str, cid: Cid) -> Message:
    """Return the first message with a block or a presence with which a server answers a want for one block."""
    answered: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def heard(_peer: Scripted, _stream: Stream, message: Message) -> None:
        if (message.payloads or message.presences) and not answered.done():
            answered.set_result(message)

    async with Host(listen=LOCAL) as host:
        peer = Scripted(host, heard)
        host.serve(PROTOCOL, peer.accept)
        connection = await host.connect(address)
        peer.say(connection.peer_id, wants(cid))
        async with asyncio.timeout(COMMAND_SECONDS):
            return await answered
