"""What runs for as long as a node does: a host, and Bitswap over the blocks of a repo."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiolibp2p.bitswap import Bitswap, Denylist
from aiolibp2p.blocks.store import Blockstore
from aiolibp2p.host import Host
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.node.repo import Repo


@dataclass(frozen=True, slots=True)
class Node:
    """The parts of a running node."""

    host: Host
    store: Blockstore
    bitswap: Bitswap


@asynccontextmanager
async def running_node(
    repo: Repo,
    listen: Sequence[Multiaddr],
    *,
    key: PrivateKey | None = None,
    limits: Limits | None = None,
    timeouts: Timeouts | None = None,
    denied: Denylist | None = None,
) -> AsyncIterator[Node]:
    """Serve the blocks of a repo to peers, and take blocks from them, while the context is entered.

    Peers that the repo knows are reached by their ID, and what is learnt of others is kept in it.

    Args:
        repo: stays the caller's, and stays open.
        key: None means that of the repo.
        denied: blocks that no peer gets.

    Raises:
        ListenError: an address cannot be listened on.
        StorageError, DeadlineError: the store or the peerstore does not open.
    Cancellation: host and stores are closed.
    """
    async with (
        repo.store(limits=limits, timeouts=timeouts) as store,
        repo.peerstore(limits=limits, timeouts=timeouts) as peerstore,
        Host(listen=listen, key=key or repo.key, limits=limits, timeouts=timeouts, peerstore=peerstore) as host,
        Bitswap(host, store, denied=() if denied is None else denied) as bitswap,
    ):
        yield Node(host, store, bitswap)
