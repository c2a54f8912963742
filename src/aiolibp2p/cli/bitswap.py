"""What a running daemon exchanges with peers: `bitswap stat`, `ledger` and `wantlist`; and what it denies them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiolibp2p.bitswap import Denylist
from aiolibp2p.cli import running
from aiolibp2p.cli.errors import CommandError
from aiolibp2p.cli.options import JsonOption, Settings, with_globals
from aiolibp2p.cli.output import print_fields, print_json, rate_text, size_text
from aiolibp2p.cli.sources import RepoOption
from aiolibp2p.errors import InvalidValueError, StorageError
from aiolibp2p.log import logger_of
from aiolibp2p.node.access import Access
from aiolibp2p.node.repo import default_path
from aiolibp2p.runtime import os_error_text

if TYPE_CHECKING:
    from rich.table import Table

_WATCH_SECONDS = 1.0
_DENYLIST_STAGE = "denylist"
_PEER_EXAMPLE = "a peer ID like 12D3KooW…, as `id` prints it"

_log = logger_of("cli")

WatchOption = Annotated[bool, typer.Option("--watch", help="Go on, once a second, until Ctrl-C.")]
PeerOption = Annotated[
    str | None, typer.Option("--peer", metavar="PEER", help="What this peer wants; else what the daemon fetches.")
]
PeerArgument = Annotated[str, typer.Argument(metavar="PEER", help="The ID of a connected peer.")]
DenylistOption = Annotated[
    Path | None,
    typer.Option("--denylist", metavar="FILE", help="Blocks that no peer gets, in the compact denylist format."),
]

Fields = Iterable[tuple[str, str | Iterable[str]]]


@with_globals
def stat(_settings: Settings, repo: RepoOption = None, watch: WatchOption = False, as_json: JsonOption = False) -> None:
    """Show what the daemon has sent and received, where answers are and how long, and what blocked peers cost."""
    running.run(lambda: _stat(repo, watch=watch, as_json=as_json))


@with_globals
def ledger(_settings: Settings, peer: PeerArgument, repo: RepoOption = None, as_json: JsonOption = False) -> None:
    """Show what was exchanged with a connected peer, and how far serving it is."""
    said = running.run(lambda: _ask(repo, "ledger", {"arg": peer}))
    if as_json:
        print_json(said)
    else:
        print_fields(_ledger_fields(said["Ledger"]))


@with_globals
def wantlist(
    _settings: Settings, peer: PeerOption = None, repo: RepoOption = None, as_json: JsonOption = False
) -> None:
    """Show the CIDs that the daemon fetches, or those that a peer wants of it."""
    said = running.run(lambda: _ask(repo, "wantlist", {} if peer is None else {"peer": peer}))
    if as_json:
        print_json(said)
        return
    for key in said["Keys"]:
        print(key["/"])


def read_denylist(path: Path) -> Denylist:
    """Return what a file denies.

    Raises:
        CommandError: it cannot be read, or a line of it is no rule.
    """
    try:
        found = Denylist.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(_DENYLIST_STAGE, f"cannot read {path}: {os_error_text(error)}") from error
    except UnicodeDecodeError as error:
        raise CommandError(_DENYLIST_STAGE, f"{path} is no UTF-8 text") from error
    except InvalidValueError as error:
        hint = "rules like /ipfs/CID, one a line"
        raise CommandError(_DENYLIST_STAGE, f"{path}: {error.message}", hint) from error
    _log.info("a denylist is in force", extra={"path": path, "blocks": len(found), "skipped": found.skipped})
    return found


async def _stat(repo: Path | None, *, watch: bool, as_json: bool) -> None:
    said = await _ask(repo, "stat", {})
    if not watch:
        print_json(said) if as_json else print_fields(_stat_fields(said["Stat"]))
        return
    if as_json or not sys.stdout.isatty():
        while True:
            print_json(said)
            await asyncio.sleep(_WATCH_SECONDS)
            said = await _ask(repo, "stat", {})
    from rich.live import Live

    with Live(_table(said["Stat"], None), auto_refresh=False) as live:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            before, said = said, await _ask(repo, "stat", {})
            live.update(_table(said["Stat"], before["Stat"]), refresh=True)


def _table(now: dict[str, Any], before: dict[str, Any] | None) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    rows: list[tuple[str, str | Iterable[str]]] = list(_stat_fields(now))
    if before is not None:
        sent = now["serving"]["sent"]["block_bytes"] - before["serving"]["sent"]["block_bytes"]
        received = now["received"]["block_bytes"] - before["received"]["block_bytes"]
        rows.insert(0, ("now", f"sends {rate_text(sent, _WATCH_SECONDS)}, gets {rate_text(received, _WATCH_SECONDS)}"))
    for name, value in rows:
        table.add_row(name, value if isinstance(value, str) else "\n".join(value))
    return table


def _stat_fields(stat: dict[str, Any]) -> Fields:
    serving, received = stat["serving"], stat["received"]
    sent, spent, blocked = serving["sent"], serving["spent"], serving["blocked"]
    stages = [
        f"{name.replace('_', ' ')}: {stage['answers']}, the oldest for {stage['oldest_seconds']:.1f} s"
        for name, stage in serving["stages"].items()
        if stage["answers"]
    ]
    dropped = [f"{reason}: {wants}" for reason, wants in serving["dropped"].items()]
    loaded, stalled = size_text(serving["loaded_bytes"]), size_text(serving["stalled_bytes"])
    return [
        ("peers", str(len(stat["peers"]))),
        ("sent", _sent_text(sent)),
        (
            "received",
            f"{received['blocks']} blocks, {size_text(received['block_bytes'])}; {stat['duplicate_blocks']} unwanted, "
            f"{stat['bad_blocks']} unreadable",
        ),
        ("fetching", f"{len(stat['wants'])} blocks"),
        ("answers", stages or "none under way"),
        ("dropped wants", dropped or "none"),
        (
            "held",
            f"{loaded}; for peers that take none {stalled}",
        ),
        (
            "spent",
            _cost_text(spent),
        ),
        (
            "on blocked peers",
            f"{_cost_text(blocked)}: at most {serving['blocked_share']:.2%}",
        ),
        ("given up", f"{serving['stalls']} peers, {serving['let_go']} batches, {serving['resets']} streams reset"),
        ("refused", f"{serving['refused_wants']} wants; {serving['storage_failures']} storage failures"),
    ]


def _ledger_fields(ledger: dict[str, Any]) -> Fields:
    received = ledger["received"]
    state = ledger["state"].replace("_", " ")
    dropped = [f"{reason}: {wants}" for reason, wants in ledger["dropped"].items()]
    return [
        ("peer ID", ledger["peer_id"]),
        ("state", f"{state}, for {ledger['seconds']:.1f} s" if ledger["seconds"] else state),
        ("wants", f"{ledger['wants']}; {ledger['ready']} can be answered now"),
        ("sent", _sent_text(ledger["sent"])),
        ("received", f"{received['blocks']} blocks, {size_text(received['block_bytes'])}"),
        ("held", size_text(ledger["held_bytes"])),
        ("stalls", f"{ledger['stalls']}; left alone for {ledger['backoff_seconds']:.0f} s"),
        ("dropped wants", dropped or "none"),
    ]


def _sent_text(sent: dict[str, Any]) -> str:
    blocks = f"{sent['blocks']} blocks, {size_text(sent['block_bytes'])}"
    return f"{blocks}; {sent['haves']} HAVE, {sent['dont_haves']} DONT_HAVE; {sent['confirmed']} confirmed"


def _cost_text(cost: dict[str, Any]) -> str:
    return f"{cost['picks']} batches, {cost['read_blocks']} blocks read, {size_text(cost['written_bytes'])} written"


async def _ask(repo: Path | None, call: str, query: dict[str, str]) -> dict[str, Any]:
    from aiolibp2p.node.bitswap import ask_bitswap  # slow to import, and for nobody else

    path = repo or default_path(os.environ, sys.platform)
    hint = f"aiolibp2p daemon --repo {path}"
    access = Access.read(path)
    if access is None:
        raise CommandError("daemon", f"no daemon serves {path}", hint)
    try:
        return await ask_bitswap(path, access, running.TIMEOUTS, call, query)
    except InvalidValueError as error:
        raise CommandError("peer ID", error.message, _PEER_EXAMPLE, is_usage=True) from error
    except StorageError as error:
        raise CommandError("daemon", error.describe(), hint) from error
