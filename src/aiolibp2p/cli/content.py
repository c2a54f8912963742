"""What a CID names, read: `get`, `cat`, `ls` and `refs`."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer

from aiolibp2p import unixfs
from aiolibp2p.blocks.cid import LIBP2P_KEY, RAW, Cid
from aiolibp2p.blocks.dag import links_of
from aiolibp2p.blocks.store import BlockSource
from aiolibp2p.cli.explaining import ExplainOption, Explanation
from aiolibp2p.cli.options import JsonOption, Settings, with_globals
from aiolibp2p.cli.output import cumulative, print_json, progress_bar, rate_text, shown_name, size_text, write_bytes
from aiolibp2p.cli.running import run
from aiolibp2p.cli.sources import CidArgument, FromOption, Origin, RepoOption, origin_of, parse_content
from aiolibp2p.runtime import Runtime

_WITHOUT_LINKS = (RAW, LIBP2P_KEY)


@with_globals
def get(
    settings: Settings,
    content: CidArgument,
    peers: FromOption = None,
    repo: RepoOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to; without it, the last of its names.")
    ] = None,
    as_json: JsonOption = False,
    explain: ExplainOption = False,
) -> None:
    """Write a file or a directory to disk, every block verified."""
    cid, path = parse_content(content)
    explanation = Explanation(settings, explain, as_json)
    origin = origin_of(settings, peers, repo, explanation)
    destination = output or Path(path.rstrip("/").rpartition("/")[2] or str(cid))
    with explanation.shown():
        size_bytes, seconds = run(lambda: _get(origin, cid, path, destination), for_throughput=True)
    if as_json:
        print_json({"cid": str(cid), "bytes": size_bytes, "seconds": seconds, **explanation.to_json()})
    else:
        print(f"{destination}: {size_text(size_bytes)} in {seconds:.3f} s, {rate_text(size_bytes, seconds)}")


async def _get(origin: Origin, cid: Cid, path: str, destination: Path) -> tuple[int, float]:
    now = Runtime.system().clock.now
    started = now()
    async with origin.open() as source:
        with progress_bar(await _total_bytes(source, cid, path)) as advance:
            size_bytes = await unixfs.get(source, cid, destination, path, progress=cumulative(advance))
        return size_bytes, now() - started


async def _total_bytes(source: BlockSource, cid: Cid, path: str) -> int | None:
    """Return how much there is to come, where that is known before."""
    found = await unixfs.stat(source, cid, path)
    return found.file_bytes if found.kind == "file" else None


@with_globals
def cat(
    settings: Settings,
    content: CidArgument,
    peers: FromOption = None,
    repo: RepoOption = None,
    offset: Annotated[int, typer.Option("--offset", min=0, metavar="BYTES", help="Bytes to leave out.")] = 0,
    length: Annotated[int | None, typer.Option("--length", min=0, metavar="BYTES", help="Bytes at most.")] = None,
) -> None:
    """Write the bytes of a file to stdout, every block verified."""
    cid, path = parse_content(content)
    origin = origin_of(settings, peers, repo)
    run(lambda: _cat(origin, cid, path, offset, length), for_throughput=True)


async def _cat(origin: Origin, cid: Cid, path: str, offset: int, length: int | None) -> None:
    async with (
        origin.open() as source,
        aclosing(unixfs.cat(source, cid, path, offset, length)) as pieces,
    ):
        async for piece in pieces:
            # On a thread: a reader that takes its time must not hold up the connection.
            await asyncio.to_thread(write_bytes, piece)


@with_globals
def ls(
    settings: Settings,
    content: CidArgument,
    peers: FromOption = None,
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a directory: each entry's CID, the bytes of all its blocks, and its name."""
    cid, path = parse_content(content)
    origin = origin_of(settings, peers, repo)
    entries = run(lambda: _ls(origin, cid, path))
    if as_json:
        listed = [{"name": entry.name, "cid": str(entry.cid), "dag_bytes": entry.dag_bytes} for entry in entries]
        print_json({"cid": str(cid), "entries": listed})
        return
    width = max((len(str(entry.dag_bytes)) for entry in entries), default=0)
    for entry in entries:
        print(f"{entry.cid}  {entry.dag_bytes:>{width}}  {shown_name(entry.name)}")


async def _ls(origin: Origin, cid: Cid, path: str) -> list[unixfs.Entry]:
    async with origin.open() as source, aclosing(unixfs.ls(source, cid, path)) as entries:
        return [entry async for entry in entries]


@with_globals
def refs(
    settings: Settings,
    content: CidArgument,
    peers: FromOption = None,
    repo: RepoOption = None,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Of all blocks below, too.")] = False,
    unique: Annotated[bool, typer.Option("-u", "--unique", help="Each of them once.")] = False,
    _as_json: JsonOption = False,
) -> None:
    """Print the CIDs that a block links to, one a line (with --json too), parents before their children."""
    cid, path = parse_content(content)
    origin = origin_of(settings, peers, repo)
    run(lambda: _refs(origin, cid, path, recursive=recursive, unique=unique))


async def _refs(origin: Origin, cid: Cid, path: str, *, recursive: bool, unique: bool) -> None:
    async with origin.open() as source:
        root = (await unixfs.stat(source, cid, path)).cid if path else cid
        seen: set[Cid] = set()
        # Not by recursion: a DAG may be deeper than the interpreter's stack.
        open_blocks = [iter(links_of(root, await source.get(root)))]
        while open_blocks:
            link = next(open_blocks[-1], None)
            if link is None:
                open_blocks.pop()
                continue
            if unique and link in seen:
                continue
            if unique:
                seen.add(link)
            print(link)
            if recursive and link.codec not in _WITHOUT_LINKS:
                open_blocks.append(iter(links_of(link, await source.get(link))))
