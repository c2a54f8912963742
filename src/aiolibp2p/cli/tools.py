"""Tools: `listen`, a bare host, and `perf`, which measures throughput."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from aiolibp2p.cli.errors import CommandError
from aiolibp2p.cli.options import (
    AddressArgument,
    DebugOption,
    JsonOption,
    KeyOption,
    Settings,
    note_globals,
    parse_address,
    parse_size,
)
from aiolibp2p.cli.output import print_fields, print_json, progress_bar, rate_text, size_text
from aiolibp2p.cli.running import make_host, run
from aiolibp2p.cli.watching import LISTEN_ADDRESS, announce_until_signal
from aiolibp2p.errors import NegotiationError, StreamResetError
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.net.connection import Connection
from aiolibp2p.net.stream import NEGOTIATION_FAILED
from aiolibp2p.protocols.perf import PROTOCOL, PerfResult

_PERF_BYTES = 256 << 20


def listen(
    context: typer.Context,
    addresses: Annotated[
        list[str] | None, typer.Argument(metavar="ADDR", help=f"Where to listen; {LISTEN_ADDRESS} without any.")
    ] = None,
    perf: Annotated[bool, typer.Option("--perf", help="Let peers measure throughput.")] = False,
    as_json: JsonOption = False,
    key: KeyOption = None,
    debug: DebugOption = False,
) -> None:
    """Run a bare host until Ctrl-C or SIGTERM."""
    settings = note_globals(context, key, debug=debug)
    parsed = [parse_address(address) for address in addresses or (LISTEN_ADDRESS,)]
    run(lambda: _listen(settings, parsed, serve_perf=perf, as_json=as_json), for_throughput=True)


async def _listen(settings: Settings, addresses: list[Multiaddr], *, serve_perf: bool, as_json: bool) -> None:
    async with make_host(settings, addresses, serve_perf=serve_perf) as host:
        await announce_until_signal(host, as_json=as_json)


def perf(
    context: typer.Context,
    address: AddressArgument,
    upload: Annotated[str | None, typer.Option("--upload", metavar="BYTES", help="As 1GB or 256MiB.")] = None,
    download: Annotated[str | None, typer.Option("--download", metavar="BYTES", help="As 1GB or 256MiB.")] = None,
    as_json: JsonOption = False,
    key: KeyOption = None,
    debug: DebugOption = False,
) -> None:
    """Measure throughput with a peer that serves perf; without sizes, 256 MiB in each direction."""
    settings = note_globals(context, key, debug=debug)
    target = parse_address(address)
    sizes = [0 if text is None else parse_size(text) for text in (upload, download)]
    if upload is None and download is None:
        sizes = [_PERF_BYTES, _PERF_BYTES]
    if not any(sizes):
        raise CommandError("usage", "there is nothing to move", "--upload 1GB --download 1GB", is_usage=True)
    connection, result = run(lambda: _perf(settings, target, *sizes), for_throughput=True)
    if as_json:
        peer = {"peer_id": str(connection.peer_id), "address": str(connection.remote_address)}
        print_json(peer | asdict(result))
        return
    rows = [
        ("upload", result.upload_bytes, result.upload_seconds),
        ("download", result.download_bytes, result.download_seconds),
    ]
    print_fields(
        (name, f"{size_text(size_bytes)} in {seconds:.3f} s, {rate_text(size_bytes, seconds)}")
        for name, size_bytes, seconds in rows
        if size_bytes
    )


async def _perf(
    settings: Settings, target: Multiaddr, upload_bytes: int, download_bytes: int
) -> tuple[Connection, PerfResult]:
    async with make_host(settings) as host:
        connection = await host.connect(target)
        try:
            with progress_bar(upload_bytes + download_bytes) as progress:
                result = await host.perf(
                    connection.peer_id, upload_bytes=upload_bytes, download_bytes=download_bytes, progress=progress
                )
        except StreamResetError as error:
            # A peer without perf may reset what we upload before we read that it refused.
            said = connection.identify
            if error.code == NEGOTIATION_FAILED or (said is not None and PROTOCOL not in said.protocols):
                raise NegotiationError((PROTOCOL,)) from error
            raise
        return connection, result
