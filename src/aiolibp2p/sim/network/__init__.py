"""A deterministic network of TCP and UDP behind asyncio's own calls; it knows nothing of libp2p."""

from __future__ import annotations

from aiolibp2p.sim.network.boot import host_here
from aiolibp2p.sim.network.connection import Connection
from aiolibp2p.sim.network.datagram import SimDatagramTransport
from aiolibp2p.sim.network.firewall import Firewall, Memory
from aiolibp2p.sim.network.host import Host
from aiolibp2p.sim.network.link import Link
from aiolibp2p.sim.network.listener import Listener
from aiolibp2p.sim.network.nat import Nat, NatKind, NatRules
from aiolibp2p.sim.network.net import SimNet
from aiolibp2p.sim.network.packet import Packet
from aiolibp2p.sim.network.path import Path
from aiolibp2p.sim.network.pipe import Tuning
from aiolibp2p.sim.network.rules import Rule, Verdict
from aiolibp2p.sim.network.tap import Drop, Seen, Sent, Side, Tap
from aiolibp2p.sim.network.topology import InFlight
from aiolibp2p.sim.network.transport import SimTransport
from aiolibp2p.sim.network.valve import Valve

__all__ = [
    "Connection",
    "Drop",
    "Firewall",
    "Host",
    "InFlight",
    "Link",
    "Listener",
    "Memory",
    "Nat",
    "NatKind",
    "NatRules",
    "Packet",
    "Path",
    "Rule",
    "Seen",
    "Sent",
    "Side",
    "SimDatagramTransport",
    "SimNet",
    "SimTransport",
    "Tap",
    "Tuning",
    "Valve",
    "Verdict",
    "host_here",
]
