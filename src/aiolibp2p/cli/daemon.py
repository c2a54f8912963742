"""`daemon`: a node that serves the blocks of its repo."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated

import typer

from aiolibp2p.bitswap import Denylist
from aiolibp2p.cli import running
from aiolibp2p.cli.bitswap import DenylistOption, read_denylist
from aiolibp2p.cli.options import JsonOption, Settings, log_to_stderr, parse_address, with_globals
from aiolibp2p.cli.sources import RepoOption, open_repo
from aiolibp2p.cli.watching import LISTEN_ADDRESS, announce_until_signal
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.log import logger_of
from aiolibp2p.node.daemon import running_node
from aiolibp2p.node.repo import Repo

_log = logger_of("cli")


@with_globals
def daemon(
    settings: Settings,
    listen: Annotated[
        list[str] | None, typer.Option("--listen", metavar="ADDR", help=f"Where to; {LISTEN_ADDRESS} without any.")
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="ADDR", help="More addresses, as --listen.")] = None,
    repo: RepoOption = None,
    denylist: DenylistOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve the blocks of the repo to peers until Ctrl-C or SIGTERM; log to stderr."""
    log_to_stderr(settings, default=logging.INFO)
    addresses = [parse_address(address) for address in [*(listen or ()), *(more or ())] or [LISTEN_ADDRESS]]
    key = None if settings.key is None else running.read_key(settings.key)
    denied = None if denylist is None else read_denylist(denylist)
    with open_repo(repo, create=True) as opened:
        running.run(lambda: _serve(opened, addresses, key, denied, as_json=as_json), for_throughput=True)
    _log.info("the repo is free again", extra={"path": opened.path})


async def _serve(
    repo: Repo, listen: Sequence[Multiaddr], key: PrivateKey | None, denied: Denylist | None, *, as_json: bool
) -> None:
    from aiolibp2p.node.rpc import Rpc  # slow to import, and for nobody else

    async with (
        running_node(repo, listen, key=key, timeouts=running.TIMEOUTS, denied=denied) as node,
        Rpc(repo, node, running.TIMEOUTS),
    ):
        _log.info("serving the blocks of the repo", extra={"path": repo.path})
        await announce_until_signal(node.host, as_json=as_json)
        _log.info("leaving")
