"""Hosts: addresses, ports and what listens on them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

ProtocolFactory = Callable[[], asyncio.BaseProtocol]
Address = tuple[str, int]

EPHEMERAL_PORTS = range(49152, 65536)
_here: contextvars.ContextVar[Host | None] = contextvars.ContextVar("aiolibp2p_sim_host", default=None)


def is_loopback(ip: str) -> bool:
    """Return whether an address always means the host itself."""
    return ipaddress.ip_address(ip).is_loopback


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
        return same_family and (
            ip == self.address[0] or any(ipaddress.ip_address(a).is_unspecified for a in (ip, self.address[0]))
        )


class Host:
    """A machine with addresses of its own; loopback addresses are always its own."""

    def __init__(self, name: str, addresses: tuple[str, ...]) -> None:
        """Make a host; `SimNet.host` is the way to one that others reach."""
        self.name = name
        self.addresses = addresses
        self.refused_ports: set[int] = set()
        """Ports that answer with RST although something listens."""
        self._listeners: dict[int, list[Listener]] = {}
        self._next_port = 0

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.addresses}>"

    @contextlib.contextmanager
    def here(self) -> Iterator[Host]:
        """Let what the block does, and the tasks and sockets made in it, be of this host."""
        token = _here.set(self)
        try:
            yield self
        finally:
            _here.reset(token)

    def bind(self, ip: str, port: int) -> Listener:
        """Take a port; 0 takes a free one.

        Raises:
            OSError: EADDRINUSE or EADDRNOTAVAIL.
        """
        if not (is_loopback(ip) or ipaddress.ip_address(ip).is_unspecified or ip in self.addresses):
            raise OSError(errno.EADDRNOTAVAIL, f"error while attempting to bind on address {(ip, port)!r}: not ours")
        if port == 0:
            port = self.free_port()
        listeners = self._listeners.setdefault(port, [])
        if any(listener.overlaps(ip) for listener in listeners):
            reason = os.strerror(errno.EADDRINUSE).lower()
            raise OSError(errno.EADDRINUSE, f"error while attempting to bind on address {(ip, port)!r}: {reason}")
        listener = Listener(self, (ip, port))
        listeners.append(listener)
        return listener

    def release(self, listener: Listener) -> None:
        """Give a listener's port back."""
        listeners = self._listeners.get(listener.address[1], [])
        if listener in listeners:
            listeners.remove(listener)

    def free_port(self) -> int:
        """Return the next port of the ephemeral range on which nothing listens.

        Raises:
            OSError: there is none.
        """
        for _ in EPHEMERAL_PORTS:
            port = EPHEMERAL_PORTS[self._next_port % len(EPHEMERAL_PORTS)]
            self._next_port += 1
            if not self._listeners.get(port):
                return port
        raise OSError(errno.EADDRNOTAVAIL, "no free port")

    def listener_at(self, address: Address) -> Listener | None:
        """Return what accepts connections to an address, or None."""
        ip, port = address
        for listener in self._listeners.get(port, ()):
            if listener.factory is not None and listener.overlaps(ip) and port not in self.refused_ports:
                return listener
        return None

    def listeners(self) -> list[Listener]:
        """Return every listening socket."""
        return [listener for listeners in self._listeners.values() for listener in listeners]

    def source_for(self, ip: str) -> str:
        """Return the address from which this host reaches another.

        Raises:
            OSError: ENETUNREACH, it has none of that family.
        """
        if is_loopback(ip):
            return "::1" if ":" in ip else "127.0.0.1"
        if ip in self.addresses:
            return ip
        for own in self.addresses:
            if (":" in own) == (":" in ip):
                return own
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))


def host_here() -> Host | None:
    """Return the host that the running code belongs to."""
    return _here.get()
