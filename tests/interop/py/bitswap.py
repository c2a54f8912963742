"""Bitswap by py-libp2p.

What a listener does when a line of its stdin says so:
    add PATH                 a file, by its MerkleDag; --chunk-bytes 262144
    generate SEED SIZE       a file of generated content; the same flag
    block SEED SIZE...       single raw blocks of these sizes
    blocks SEED COUNT SIZE   raw blocks, numbered
    remove CID               forget one block
What a dialler can be asked to fetch:
    get CID -                a file, which is not written
    fetch CID...             single blocks
    blocks SEED COUNT SIZE   numbered blocks
"""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.bitswap import BitswapClient, MemoryBlockStore
from libp2p.bitswap.cid import CODEC_RAW, cid_to_text, compute_cid_v1, parse_cid
from libp2p.bitswap.dag import MerkleDag

from tests.interop.py.commands import Command, Context, timed
from tests.interop.py.common import describe, digest
from tests.vectors.unixfs.cases import block as numbered
from tests.vectors.unixfs.cases import content

BLOCK_SECONDS = 20.0
LAYOUT_LINKS = 174
"""Links of a node of a file: py-libp2p has no other."""

Answer = dict[str, Any]


class Store:
    """The blocks that a listener serves."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._dag = MerkleDag(client)

    async def run(self, words: list[Any]) -> Answer:
        """Run one command and return its answer, which has `error` when it failed."""
        flags = dict(word[2:].split("=", 1) for word in map(str, words) if word.startswith("--"))
        cmd, *args = [str(word) for word in words if not str(word).startswith("--")]
        commands = {
            "add": self._add,
            "generate": self._generate,
            "block": self._block,
            "blocks": self._blocks,
            "remove": self._remove,
        }
        try:
            if int(flags.get("links", LAYOUT_LINKS)) != LAYOUT_LINKS:
                raise ValueError(f"py-libp2p puts {LAYOUT_LINKS} links into a node, never {flags['links']}")
            return await commands[cmd](args, int(flags.get("chunk-bytes", 262_144))) | {"cmd": cmd}
        except Exception as error:  # noqa: BLE001  the one who asked reports it
            return {"cmd": cmd, "error": describe(error)}

    async def _add(self, args: list[str], chunk_bytes: int) -> Answer:
        cid = await self._dag.add_file(args[0], chunk_size=chunk_bytes)
        return {"cid": cid_to_text(cid), "files": 1}

    async def _generate(self, args: list[str], chunk_bytes: int) -> Answer:
        data = b"".join(content(args[0], int(args[1])))
        cid = await self._dag.add_stream(io.BytesIO(data), chunk_size=chunk_bytes)
        return {"cid": cid_to_text(cid), "files": 1, "bytes": len(data)}

    async def _block(self, args: list[str], _chunk_bytes: int) -> Answer:
        seed, *sizes = args
        cids = {size: await self._put(b"".join(content(seed, int(size)))) for size in sizes}
        return {"cids": cids}

    async def _blocks(self, args: list[str], _chunk_bytes: int) -> Answer:
        seed, count, size = args[0], int(args[1]), int(args[2])
        for number in range(count):
            await self._put(numbered(seed, number, size))
        return {"n": count, "bytes": count * size}

    async def _remove(self, args: list[str], _chunk_bytes: int) -> Answer:
        await self._client.block_store.delete_block(parse_cid(args[0]))
        return {"cid": args[0]}

    async def _put(self, data: bytes) -> str:
        cid = compute_cid_v1(data, codec=CODEC_RAW)
        await self._client.add_block(cid, data)
        return str(cid_to_text(cid))


@asynccontextmanager
async def bitswap(host: Any) -> AsyncIterator[Any]:
    """Give a Bitswap client and server on a host."""
    client = BitswapClient(host, MemoryBlockStore())
    async with trio.open_nursery() as nursery:
        client.set_nursery(nursery)
        await client.start()
        yield client
        await client.stop()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def serving(host: Any) -> AsyncIterator[Store]:
    """Give the store of a listener."""
    async with bitswap(host) as client:
        yield Store(client)


async def get(context: Context) -> Answer:
    """Fetch a file."""
    await context.dial()
    async with bitswap(context.host) as client:
        start = time.perf_counter()
        data, _name = await MerkleDag(client).fetch_file(context.args[0], context.peer_id, BLOCK_SECONDS)
    seconds = time.perf_counter() - start
    facts = {"type": "file", "bytes": len(data), "sha256": digest(data)}
    return facts | {"seconds": seconds, "MBps": len(data) / seconds / 1e6}


async def fetch(context: Context) -> Answer:
    """Fetch single blocks, one after the other."""
    await context.dial()
    fetched = []
    async with bitswap(context.host) as client:
        session = client.new_session()
        for cid in context.args:
            data = await session.get_block(cid, context.peer_id, BLOCK_SECONDS)
            fetched.append({"cid": cid, "bytes": len(data), "sha256": digest(data)})
    return {"fetched": fetched}


async def blocks(context: Context) -> Answer:
    """Fetch numbered blocks."""
    seed, count, size = context.args[0], context.number(1, 1), context.number(2, 1024)
    made = [numbered(seed, number, size) for number in range(count)]
    cids = [compute_cid_v1(data, codec=CODEC_RAW) for data in made]
    await context.dial()
    async with bitswap(context.host) as client:
        start = time.perf_counter()
        found = await client.new_session().get_blocks_batch(cids, context.peer_id, BLOCK_SECONDS)
    answer = timed(start, len(found))
    return answer | {"ok": sorted(found.values()) == sorted(made), "MBps": count * size / answer["seconds"] / 1e6}


COMMANDS: dict[str, Command] = {"get": get, "fetch": fetch, "blocks": blocks}
