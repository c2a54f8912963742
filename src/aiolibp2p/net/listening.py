"""Where a host listens, as others reach it: an unspecified address stands for those of this machine's interfaces."""

from __future__ import annotations

import math

from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.runtime import Clock, Net, is_link_local

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""By the unspecified address of each family, what can be reached even on a machine that lists no interface."""


class ListenAddresses:
    """The addresses that a host listens on.

    Args:
        net: knows the addresses of this machine.
        clock: what `seconds` count in.
        seconds: how long its list is used before it is asked again.
    """

    def __init__(self, net: Net, clock: Clock, seconds: float) -> None:
        self._net = net
        self._clock = clock
        self._seconds = seconds
        self._bound: list[Multiaddr] = []
        self._endpoints: set[tuple[str, int]] = set()
        self._everywhere: dict[int, set[str]] = {}
        """By the port, the unspecified addresses that are listened on."""
        self._interfaces: list[str] = []
        self._asked_at = -math.inf

    def add(self, address: Multiaddr) -> None:
        """Take note of an address as a listening socket has it."""
        if address not in self._bound:
            self._bound.append(address)
        endpoint = address.tcp_endpoint
        if endpoint is None:
            return
        host, port = endpoint
        if host in _LOOPBACK:
            self._everywhere.setdefault(port, set()).add(host)
        else:
            self._endpoints.add(endpoint)

    def reachable(self) -> list[Multiaddr]:
        """Return all of them, each once; an unspecified one as those of its family that this machine has."""
        if not self._everywhere:
            return list(self._bound)
        found: dict[Multiaddr, None] = {}
        for address in self._bound:
            endpoint = address.tcp_endpoint
            if endpoint is None or endpoint[0] not in _LOOPBACK:
                found[address] = None
                continue
            host, port = endpoint
            for ip in self._of_family(host):
                found[Multiaddr.from_tcp(ip, port)] = None
        return list(found)

    def includes(self, endpoint: tuple[str, int]) -> bool:
        """Whether an IP address and port are among them."""
        if endpoint in self._endpoints:
            return True
        host, port = endpoint
        everywhere = self._everywhere.get(port)
        return everywhere is not None and any(host in self._of_family(unspecified) for unspecified in everywhere)

    def _of_family(self, unspecified: str) -> list[str]:
        """Return the addresses of this machine's interfaces, of one family; without any, that of loopback."""
        now = self._clock.now()
        if now - self._asked_at >= self._seconds:
            self._asked_at = now
            self._interfaces = [ip for ip in self._net.interface_addresses() if not is_link_local(ip)]
        is_ip6 = ":" in unspecified
        return [ip for ip in self._interfaces if (":" in ip) == is_ip6] or [_LOOPBACK[unspecified]]
