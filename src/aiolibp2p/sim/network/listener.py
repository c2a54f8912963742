"""Addresses, and sockets that listen on them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiolibp2p.sim.network.packet import Address

if TYPE_CHECKING:
    from aiolibp2p.sim.network.host import Host

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


@functools.lru_cache(4096)
def is_loopback(ip: str) -> bool:
    """Return whether an address always means the host itself."""
    return ipaddress.ip_address(ip).is_loopback


@functools.lru_cache(4096)
def is_unspecified(ip: str) -> bool:
    """Return whether an address stands for all of a host's."""
    return ipaddress.ip_address(ip).is_unspecified


def socket_name(address: Address) -> tuple[Any, ...]:
    """Return an address as sockets give it: four values for IPv6."""
    return (*address, 0, 0) if ":" in address[0] else address


class Listener:
    """A listening socket, as far as asyncio.Server and its users look at one."""

    type = socket.SOCK_STREAM
    proto = socket.IPPROTO_TCP

    def __init__(self, host: Host, address: Address) -> None:
        """Take the address on a host; connections are refused until `start`."""
        self.host = host
        self.address = address
        self.family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.factory: ProtocolFactory | None = None
        self.server: asyncio.Server | None = None
        self.context = contextvars.copy_context()

    def start(self, factory: ProtocolFactory, server: asyncio.Server) -> None:
        """Accept connections; each gets a protocol from `factory`."""
        self.factory = factory
        self.server = server

    def listen(self, backlog: int) -> None:
        """Do nothing: whoever connects is accepted at once, in the order of arrival."""

    def close(self) -> None:
        """Give the port back."""
        self.factory = self.server = None
        self.host.release(self)

    def getsockname(self) -> tuple[Any, ...]:
        """Return the address."""
        return socket_name(self.address)

    def fileno(self) -> int:
        """Return -1: there is no descriptor."""
        return -1

    def overlaps(self, ip: str) -> bool:
        """Return whether the two addresses, of which either may stand for all, meet."""
        same_family = (":" in ip) == (self.family == socket.AF_INET6)
        return same_family and (ip == self.address[0] or is_unspecified(ip) or is_unspecified(self.address[0]))
