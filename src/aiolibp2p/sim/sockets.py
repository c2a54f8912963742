"""Real sockets that a program made and never connected: in a simulation they stand for simulated ones.

Some libraries make a socket themselves and give it to the loop: aiohttp connects it by `sock_connect` and hands it to
`create_connection`, aioquic binds it and hands it to `create_datagram_endpoint`. The loop takes from such a socket its
family and its address, closes it, and does the rest on the simulated network.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from aiolibp2p.sim.scheduler import EscapeError

ProtocolFactory = Callable[[], asyncio.BaseProtocol]

_SYSTEM_PORTS = range(32768, 65536)
"""Where operating systems take free ports from: one of these was not asked for, and differs from run to run."""


class Placeholder(asyncio.Protocol):
    """Holds a simulated connection until its real protocol comes."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Leave what arrives in the socket."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember why."""
        self.lost = exc or ConnectionResetError("the connection ended before a protocol was attached")

    def hand_over(self, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Attach the real protocol.

        Raises:
            OSError: the connection has ended.
        """
        if self.lost is not None:
            raise self.lost
        transport = self.transport
        assert transport is not None  # connected before anybody knew of it
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.resume_reading()
        return transport


class Placeholders:
    """The connections behind sockets that `sock_connect` was called with."""

    def __init__(self) -> None:
        self._connected: dict[socket.socket, Placeholder] = {}

    def add(self, sock: socket.socket, placeholder: Placeholder) -> None:
        """Remember what stands behind a socket; the connections of sockets that were closed meanwhile are aborted."""
        for other in [other for other in self._connected if other.fileno() < 0]:
            forgotten = self._connected.pop(other).transport
            if forgotten is not None:
                forgotten.abort()
        self._connected[sock] = placeholder

    def take(self, sock: socket.socket) -> Placeholder:
        """Return what stands behind a socket, and close the socket.

        Raises:
            EscapeError: it was not connected by `sock_connect`.
        """
        placeholder = self._connected.pop(sock, None)
        if placeholder is None:
            raise EscapeError("sock= is a real socket that was not connected by the simulated loop's sock_connect()")
        sock.close()
        return placeholder


def bound_address(sock: socket.socket) -> tuple[str, int]:
    """Return the address that a datagram socket was bound to, with port 0 for one that the system chose; close it.

    Raises:
        EscapeError: it is no datagram socket of the internet, or is connected to a real address.
    """
    if sock.type != socket.SOCK_DGRAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise EscapeError(f"sock= is {sock!r}: only an unconnected UDP socket can stand for a simulated one")
    try:
        peer = sock.getpeername()
    except OSError:
        ip, port = sock.getsockname()[:2]
        sock.close()
        return ip, 0 if port in _SYSTEM_PORTS else port
    raise EscapeError(f"sock= is connected to {peer!r}, outside the simulation")


def is_ipv6_only(sock: socket.socket) -> bool:
    """Return whether a socket of IPv6 does not serve IPv4 as well."""
    return sock.family == socket.AF_INET6 and bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))


def destination(address: Any) -> tuple[str, int]:
    """Return host and port of a socket address; an IPv4 address in the clothes of an IPv6 one is IPv4.

    Raises:
        EscapeError: it is an address of another family, a path of a Unix socket say.
    """
    if not isinstance(address, tuple) or len(address) < 2:
        raise EscapeError(f"{address!r} is no address of the simulated network")
    host, port = address[:2]
    try:
        mapped = ipaddress.IPv6Address(host).ipv4_mapped
    except ValueError:
        mapped = None
    return (str(mapped) if mapped is not None else host), port
