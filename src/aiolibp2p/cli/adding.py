"""Content that comes in: `add`, and single blocks: `block put`, `block get` and `block stat`."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from aiolibp2p import unixfs
from aiolibp2p.blocks.cid import DAG_CBOR, DAG_PB, RAW, Cid
from aiolibp2p.blocks.dag import links_of
from aiolibp2p.cli import running
from aiolibp2p.cli.errors import CommandError
from aiolibp2p.cli.options import JsonOption, Settings, with_globals
from aiolibp2p.cli.output import cumulative, print_fields, print_json, progress_bar, shown_name, write_bytes
from aiolibp2p.cli.sources import FromOption, Origin, RepoOption, content_errors, open_store, origin_of, parse_content
from aiolibp2p.errors import InvalidValueError
from aiolibp2p.unixfs.layout import CHUNK_BYTES, MAX_LINKS

_STDIN = "-"
_CHUNKER = re.compile(r"size-(\d{1,12})")
_CODECS = {"raw": RAW, "dag-pb": DAG_PB, "dag-cbor": DAG_CBOR}
_BLOCK_BYTES_MAX = 2 << 20
"""What other stacks take: a larger block reaches nobody."""

_BlockArgument = Annotated[str, typer.Argument(metavar="CID", help="The block.")]


@with_globals
def add(
    settings: Settings,
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Files and directories; - is stdin.")],
    repo: RepoOption = None,
    chunker: Annotated[
        str, typer.Option("--chunker", metavar="size-N", help="Bytes of a leaf.")
    ] = f"size-{CHUNK_BYTES}",
    max_links: Annotated[
        int, typer.Option("--max-file-links", metavar="N", help="Links of a node of a file.")
    ] = MAX_LINKS,
    hidden: Annotated[bool, typer.Option("--hidden", help="Names that begin with a dot, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add files and directories to the repo; a printed CID is one whose blocks are all on disk."""
    layout = _layout(chunker, max_links)
    settings.waits_for_stdin = _STDIN in paths
    running.run(lambda: _add(repo, paths, layout, hidden=hidden, as_json=as_json), for_throughput=True)
    settings.waits_for_stdin = False


def _layout(chunker: str, max_links: int) -> unixfs.Layout:
    found = _CHUNKER.fullmatch(chunker)
    if found is None:
        raise CommandError("usage", f"{chunker!r} is no chunker", f"--chunker size-{CHUNK_BYTES}", is_usage=True)
    try:
        return unixfs.Layout(chunk_bytes=int(found[1]), max_links=max_links)
    except InvalidValueError as error:
        raise CommandError("usage", error.describe(), is_usage=True) from error


async def _add(repo: Path | None, paths: Sequence[str], layout: unixfs.Layout, *, hidden: bool, as_json: bool) -> None:
    async with open_store(repo, create=True) as store:
        for path in paths:
            total_bytes = None if path == _STDIN else await asyncio.to_thread(_file_bytes, path)
            with progress_bar(total_bytes) as advance, content_errors():
                adder = unixfs.Adder(store, layout=layout, hidden=hidden, progress=cumulative(advance))
                added = await adder.add(sys.stdin.buffer if path == _STDIN else path)
            if as_json:
                print_json({"cid": str(added.cid), "bytes": added.content_bytes, "blocks": added.blocks})
            else:
                print(f"{added.cid}  {shown_name(path)}", flush=True)


def _file_bytes(path: str) -> int | None:
    """Return the size of a file; None for what has none, or is not there."""
    return os.path.getsize(path) if os.path.isfile(path) else None


@with_globals
def block_put(
    _settings: Settings,
    path: Annotated[str, typer.Argument(metavar="[FILE]", help="The block's bytes; without it, stdin.")] = _STDIN,
    repo: RepoOption = None,
    codec: Annotated[str, typer.Option("--cid-codec", help=f"What they are: {', '.join(_CODECS)}.")] = "raw",
    as_json: JsonOption = False,
) -> None:
    """Put one block into the repo and print its CID."""
    if codec not in _CODECS:
        raise CommandError("usage", f"{codec!r} is no codec", f"--cid-codec {' or '.join(_CODECS)}", is_usage=True)
    data = _read_block(path)
    cid = Cid.from_data(data, _CODECS[codec])
    with content_errors():
        links_of(cid, data)
    running.run(lambda: _put(repo, cid, data))
    if as_json:
        print_json({"cid": str(cid), "bytes": len(data)})
    else:
        print(cid)


def _read_block(path: str) -> bytes:
    if path == _STDIN:
        data = sys.stdin.buffer.read(_BLOCK_BYTES_MAX + 1)
    else:
        try:
            with open(path, "rb") as file:
                data = file.read(_BLOCK_BYTES_MAX + 1)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
    if len(data) > _BLOCK_BYTES_MAX:
        raise CommandError("content", f"more than {_BLOCK_BYTES_MAX} bytes, which peers refuse", "aiolibp2p add")
    return data


async def _put(repo: Path | None, cid: Cid, data: bytes) -> None:
    async with open_store(repo, create=True) as store:
        await store.put(cid, data)


@with_globals
def block_get(
    settings: Settings,
    name: _BlockArgument,
    peers: FromOption = None,
    repo: RepoOption = None,
) -> None:
    """Write the bytes of one block to stdout."""
    origin = origin_of(settings, peers, repo)
    cid = _block_of(name)
    write_bytes(running.run(lambda: _block(origin, cid)))


async def _block(origin: Origin, cid: Cid) -> bytes:
    async with origin.open() as source:
        return await source.get(cid)


@with_globals
def block_stat(
    settings: Settings,
    name: _BlockArgument,
    peers: FromOption = None,
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the size of one block."""
    origin = origin_of(settings, peers, repo)
    cid = _block_of(name)
    size_bytes = len(running.run(lambda: _block(origin, cid)))
    if as_json:
        print_json({"cid": str(cid), "bytes": size_bytes})
    else:
        print_fields([("CID", str(cid)), ("bytes", str(size_bytes))])


def _block_of(name: str) -> Cid:
    cid, path = parse_content(name)
    if path:
        raise CommandError("usage", "a block has no path behind its CID", f"aiolibp2p block get {cid}", is_usage=True)
    return cid
