"""What a CID names, read: `get` and `cat`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer

from aiolibp2p import unixfs
from aiolibp2p.blocks.cid import Cid
from aiolibp2p.blocks.store import BlockSource
from aiolibp2p.cli.errors import CommandError
from aiolibp2p.cli.options import DebugOption, JsonOption, KeyOption, Settings, note_globals, parse_address
from aiolibp2p.cli.output import cumulative, print_json, progress_bar, rate_text, size_text
from aiolibp2p.cli.running import run
from aiolibp2p.cli.sources import CidArgument, FromOption, from_peers, parse_content
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.runtime import Runtime


def get(
    context: typer.Context,
    content: CidArgument,
    peers: FromOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to; without it, the last of its names.")
    ] = None,
    as_json: JsonOption = False,
    key: KeyOption = None,
    debug: DebugOption = False,
) -> None:
    """Write a file or a directory to disk, every block verified."""
    settings = note_globals(context, key, debug=debug)
    cid, path = parse_content(content)
    targets = _targets(peers)
    destination = output or Path(path.rstrip("/").rpartition("/")[2] or str(cid))
    size_bytes, seconds = run(lambda: _get(settings, cid, path, targets, destination), for_throughput=True)
    if as_json:
        print_json({"cid": str(cid), "bytes": size_bytes, "seconds": seconds})
    else:
        print(f"{destination}: {size_text(size_bytes)} in {seconds:.3f} s, {rate_text(size_bytes, seconds)}")


async def _get(settings: Settings, cid: Cid, path: str, peers: list[Multiaddr], destination: Path) -> tuple[int, float]:
    now = Runtime.system().clock.now
    started = now()
    async with from_peers(settings, peers) as source:
        with progress_bar(await _total_bytes(source, cid, path)) as advance:
            size_bytes = await unixfs.get(source, cid, destination, path, progress=cumulative(advance))
        return size_bytes, now() - started


async def _total_bytes(source: BlockSource, cid: Cid, path: str) -> int | None:
    """Return how much there is to come, where that is known before."""
    found = await unixfs.stat(source, cid, path)
    return found.file_bytes if found.kind == "file" else None


def cat(
    context: typer.Context,
    content: CidArgument,
    peers: FromOption = None,
    offset: Annotated[int, typer.Option("--offset", min=0, metavar="BYTES", help="Bytes to leave out.")] = 0,
    length: Annotated[int | None, typer.Option("--length", min=0, metavar="BYTES", help="Bytes at most.")] = None,
    key: KeyOption = None,
    debug: DebugOption = False,
) -> None:
    """Write the bytes of a file to stdout, every block verified."""
    settings = note_globals(context, key, debug=debug)
    cid, path = parse_content(content)
    targets = _targets(peers)
    run(lambda: _cat(settings, cid, path, targets, (offset, length)), for_throughput=True)


async def _cat(settings: Settings, cid: Cid, path: str, peers: list[Multiaddr], part: tuple[int, int | None]) -> None:
    async with (
        from_peers(settings, peers) as source,
        aclosing(unixfs.cat(source, cid, path, *part)) as pieces,
    ):
        async for piece in pieces:
            # On a thread: a reader that takes its time must not hold up the connection.
            await asyncio.to_thread(_write, piece)


def _write(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _targets(peers: list[str] | None) -> list[Multiaddr]:
    if not peers:
        raise CommandError("usage", "no peer is named", "--from ADDR, the address of a peer that has it", is_usage=True)
    return [parse_address(peer) for peer in peers]
