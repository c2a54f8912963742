"""What both halves of Bitswap work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from aiolibp2p.bitswap.denylist import Denylist
from aiolibp2p.blocks.cid import Cid
from aiolibp2p.blocks.store import Blockstore
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.limits import Limits, Refused, Timeouts
from aiolibp2p.net.stream import Stream
from aiolibp2p.net.tasks import Tasks
from aiolibp2p.runtime import Clock


@dataclass(frozen=True, kw_only=True)
class Context:
    """The surroundings of a client and a server."""

    store: Blockstore
    tasks: Tasks
    """Owner of the tasks that wait for the store."""
    clock: Clock
    limits: Limits
    timeouts: Timeouts
    refused: Refused
    opened: Callable[[PeerId], Stream]
    """Open a stream to a peer, or raise a Libp2pError."""
    protocol: Callable[[PeerId], str]
    """Return the Bitswap that messages to a peer are written in."""
    denied: Denylist = field(default_factory=Denylist)
    """What is served to nobody."""
    may_serve: Callable[[PeerId, Cid], bool] | None = None
    """Whether a peer may have a block; None lets all."""
