"""libp2p for asyncio, where every operation ends."""

from __future__ import annotations

from aiolibp2p import errors
from aiolibp2p.blocks.cid import Cid
from aiolibp2p.host import Host
from aiolibp2p.identity.keys import KeyType, PrivateKey, PublicKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.net.connection import Connection
from aiolibp2p.net.known import Source
from aiolibp2p.net.peerstore import Peerstore
from aiolibp2p.net.stream import Stream
from aiolibp2p.runtime import Runtime
from aiolibp2p.version import VERSION

__version__ = VERSION

__all__ = [
    "Cid",
    "Connection",
    "Host",
    "KeyType",
    "Limits",
    "Multiaddr",
    "PeerId",
    "Peerstore",
    "PrivateKey",
    "PublicKey",
    "Runtime",
    "Source",
    "Stream",
    "Timeouts",
    "__version__",
    "errors",
]
