"""NATs for tests, and how those behind them learn who they are outside."""

from __future__ import annotations

from typing import Any, get_args

from aiolibp2p.sim import Link, current_loop, current_net
from aiolibp2p.sim.network import Nat, NatKind, SimNet
from tests.support.datagrams import Mailbox

KINDS: tuple[NatKind, ...] = get_args(NatKind)
STUN = "198.51.100.1"
"""Where somebody is who tells."""
Address = tuple[str, int]


def slow_net() -> SimNet:
    """Return the network, in which everything takes 50 ms."""
    net = current_net()
    net.set_link(Link(latency=0.050))
    return net


def behind(kind: NatKind, name: str = "home", address: str = "203.0.113.1", **options: Any) -> Nat:
    """Return a new NAT."""
    return current_net().nat(name, address, kind=kind, **options)


async def observed(box: Mailbox, server: Mailbox, to: Address) -> Address:
    """Send from a mailbox and return where the server, at `to`, saw it come from."""
    box.transport.sendto(b"who am I", to)
    await current_loop().pass_time(0.2)
    ip, port = server.received[-1][2]
    return ip, port
