"""A node with its RPC, as a daemon has it, on a real loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiolibp2p import Timeouts
from aiolibp2p.node.access import Access
from aiolibp2p.node.daemon import Node, running_node
from aiolibp2p.node.repo import Repo
from aiolibp2p.node.rpc import Rpc

TIMEOUTS = Timeouts()


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[tuple[Node, Access]]:
    """Run a node with its RPC."""
    with Repo.open(path, create=True) as repo:
        async with running_node(repo, []) as node, Rpc(repo, node, TIMEOUTS):
            access = Access.read(path)
            assert access is not None
            yield node, access
