"""A deterministic TCP network behind asyncio's own calls; it knows nothing of libp2p."""

from __future__ import annotations

from aiolibp2p.sim.network.connection import Connection
from aiolibp2p.sim.network.host import Host, Listener, host_here
from aiolibp2p.sim.network.net import SimNet
from aiolibp2p.sim.network.pipe import Tuning
from aiolibp2p.sim.network.tap import Sent, Side, Tap
from aiolibp2p.sim.network.transport import SimTransport
from aiolibp2p.sim.network.wire import Link, Path, Valve

__all__ = [
    "Connection",
    "Host",
    "Link",
    "Listener",
    "Path",
    "Sent",
    "Side",
    "SimNet",
    "SimTransport",
    "Tap",
    "Tuning",
    "Valve",
    "host_here",
]
