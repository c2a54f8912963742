"""UDP: datagrams, the sockets they go between, and the asyncio transport over one."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import ipaddress
import os
import socket
import sys
import zlib
from asyncio.transports import _FlowControlMixin
from typing import TYPE_CHECKING, Any

from aiolibp2p.sim.network.host import Host, address_in_use
from aiolibp2p.sim.network.listener import is_loopback, is_unspecified, socket_name
from aiolibp2p.sim.network.packet import Address, Packet

if TYPE_CHECKING:
    from aiolibp2p.sim.network.topology import Topology

PAYLOAD_BYTES_MAX = 65_507
_NAMES_MAX = 4096
_MAPPED = "::ffff:"
_SENDS_EMPTY = sys.version_info >= (3, 13)


class Datagram(Packet):
    """One UDP packet."""

    __slots__ = ()

    protocol = "udp"
    flags = ""
    header_bytes = 28

    def arrive(self) -> None:
        """Give the payload to the socket that it is for; where there is none, answer with ICMP."""
        host = self.path.target
        assert host is not None  # what leads nowhere never arrives
        port = self.target[1]
        transports = host.datagrams.get(port)
        if transports is not None and port not in host.refused_ports:
            chosen = transports[0] if len(transports) == 1 else _best(transports, self)
            if chosen.match(self):
                chosen.receive(self)
                return
        host.net.drop(self, "port")
        host.net.send(PortUnreachable(host, self))

    def lose(self, reason: str) -> None:
        """Tell a connected socket that there is no way, if the network is one that tells."""
        if reason == "no route" and self.sender.net.unknown_addresses == "unreachable":
            report_error(self.sender, self, errno.EHOSTUNREACH)


class PortUnreachable(Packet):
    """The ICMP packet that answers a datagram for which there is no socket."""

    __slots__ = ("about",)

    protocol = "icmp"
    flags = ""
    header_bytes = 56

    def __init__(self, sender: Host, about: Datagram) -> None:
        """Answer a datagram that has arrived at a host."""
        super().__init__(sender, (about.target[0], 0), (about.source[0], 0))
        self.about = about

    def arrive(self) -> None:
        """Tell the socket that sent the datagram, if it is connected: no other hears of it."""
        host = self.path.target
        assert host is not None  # what leads nowhere never arrives
        report_error(host, self.about, errno.ECONNREFUSED)


def report_error(host: Host, about: Packet, code: int) -> None:
    """Tell the connected socket of a host that sent a packet what became of it."""
    for transport in tuple(host.datagrams.get(about.source[1], ())):
        if transport.remote == about.target:
            transport.fail(OSError(code, os.strerror(code)))


def _best(transports: list[SimDatagramTransport], packet: Packet) -> SimDatagramTransport:
    best = max(transport.match(packet) for transport in transports)
    # Those that share a port get each sender's packets always at the same one.
    equals = [transport for transport in transports if transport.match(packet) == best]
    return equals[zlib.crc32(repr(packet.source).encode()) % len(equals)]


class SimDatagramTransport(_FlowControlMixin, asyncio.DatagramTransport):
    """A UDP socket of a simulated host and the transport over it; one of IPv6 on `::` serves IPv4 as well."""

    def __init__(
        self, net: Topology, host: Host, local: Address, remote: Address | None, *, dual: bool, shared: bool
    ) -> None:
        """Make a socket, in the context of the caller; addresses are IPv4 or IPv6 as they are on packets.

        Args:
            net: where it is.
            host: whose it is.
            local: what it is bound to.
            remote: what it is connected to, if it is.
            dual: it is a socket of IPv6 that serves IPv4 as well, with mapped addresses.
            shared: others that say so too may have the same address (`reuse_port`).
        """
        self.shared = shared
        self.local = local
        self.remote = remote
        self._dual = dual
        names = self._name(local) if not dual else (local[0], local[1], 0, 0), remote and self._name(remote)
        super().__init__({"sockname": names[0], "peername": names[1], "socket": None}, net.loop)
        self._net = net
        self._loop = net.loop
        self._host = host
        self._context = contextvars.copy_context()
        self._protocol: Any = None
        self._closing = False
        self._is_open = True
        self._waiting_bytes = 0
        self._any = is_unspecified(local[0])
        self._names_differ = ":" in local[0]
        # From an address as the program writes it to source and target of a packet.
        self._names: dict[Any, tuple[Address, Address]] = {}

    def __repr__(self) -> str:
        state = "closed" if not self._is_open else "closing" if self._closing else "open"
        return f"<SimDatagramTransport {self._host.name} {self.local} {state}>"

    def begin(self, protocol: asyncio.BaseProtocol, waiter: asyncio.Future[None]) -> None:
        """Attach the protocol; `waiter` is done once it has begun."""
        self._protocol = protocol
        self._loop.call_soon(protocol.connection_made, self, context=self._context)
        self._loop.call_soon(_finish, waiter, context=self._context)

    def _name(self, address: Address) -> tuple[Any, ...]:
        """Return an address as this socket shows it."""
        if self._dual and ":" not in address[0]:
            return (_MAPPED + address[0], address[1], 0, 0)
        return socket_name(address)

    def serves_all_of(self, ipv6: bool) -> bool:
        """Return whether it gets what is sent to any address of a family."""
        return self._any and (self._dual or ipv6 == (":" in self.local[0]))

    # Receiving

    def match(self, packet: Packet) -> int:
        """Return 0 for what is not for this socket, and more the better it fits."""
        ip = packet.target[0]
        if self.remote is not None and packet.source != self.remote:
            return 0
        if self._any:
            if not self.serves_all_of(":" in ip):
                return 0
        elif ip != self.local[0]:
            return 0
        return 1 + (not self._any) + 2 * (self.remote is not None)

    def receive(self, packet: Packet) -> None:
        """Take a datagram that has arrived."""
        if self._closing:
            self._net.drop(packet, "closed")
        elif self._host.parked is None:
            self._context.run(self._deliver, packet)
        elif self._waiting_bytes + packet.size_bytes > self._net.tuning.receive_buffer:
            self._net.drop(packet, "buffer")
        else:
            self._waiting_bytes += packet.size_bytes
            self._host.enter(self._context, self._receive_late, packet)

    def _receive_late(self, packet: Packet) -> None:
        self._waiting_bytes -= packet.size_bytes
        if not self._closing:
            self._deliver(packet)

    def _deliver(self, packet: Packet) -> None:
        source = self._name(packet.source) if self._names_differ else packet.source
        try:
            self._protocol.datagram_received(packet.payload, source)
        except Exception as error:  # noqa: BLE001  # a protocol that fails loses one datagram, as in asyncio
            self._failed(error)

    def fail(self, error: OSError) -> None:
        """Tell the protocol of an error on the way."""
        if not self._closing:
            self._loop.call_soon(self._report, error, context=self._context)

    def _report(self, error: OSError) -> None:
        if not self._closing:
            self._protocol.error_received(error)

    def _failed(self, error: Exception) -> None:
        report = {"message": "a callback of a datagram protocol failed", "exception": error, "transport": self}
        self._loop.call_exception_handler({**report, "protocol": self._protocol})

    # Sending

    def sendto(self, data: bytes | bytearray | memoryview[Any], addr: Any = None) -> None:
        """Send a datagram; it never waits and never fails for want of room, for the network drops what it cannot take.

        Errors of the operating system, for a payload that is too long or a target of a family that the host does not
        have, go to `error_received`.

        Raises:
            TypeError: the data is not bytes.
            ValueError: no address is given and the socket has none, or another than it is connected to.
        """
        if self._closing:
            return
        names = self._names.get(addr)
        if names is None:
            try:
                names = self._name_ends(addr)
            except socket.gaierror:
                raise
            except OSError as error:
                self._protocol.error_received(error)
                return
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if not (data or _SENDS_EMPTY):
            return
        payload = data if type(data) is bytes else bytes(data)
        if len(payload) > PAYLOAD_BYTES_MAX:
            self._protocol.error_received(OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE)))
            return
        self._net.send(Datagram(self._host, names[0], names[1], payload))

    def _name_ends(self, addr: Any) -> tuple[Address, Address]:
        """Return source and target of a packet to an address; it is worked out once for each."""
        target = self.remote
        if addr is not None:
            ip = plain(self._net.resolve(addr[0])[0])
            if target not in (None, (ip, addr[1])):
                raise ValueError(f"Invalid address: must be None or {target}")
            target = (ip, addr[1])
        if target is None:
            raise ValueError("no address to send to")
        if not self._dual and (":" in target[0]) != (":" in self.local[0]):
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        source = self.local
        if self._any:
            source = (self._host.source_for(target[0]), source[1])
        elif is_loopback(source[0]) and self._net.owner(target[0], self._host) is not self._host:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if len(self._names) >= _NAMES_MAX:
            self._names.clear()
        self._names[addr] = (source, target)
        return source, target

    def get_write_buffer_size(self) -> int:
        """Return 0: a datagram is under way or dropped at once."""
        return 0

    # The end

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand what arrives to another protocol."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        """Return whether the transport is closing or closed."""
        return self._closing

    def close(self) -> None:
        """Receive and send nothing any more."""
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._call_connection_lost, context=self._context)

    def abort(self) -> None:
        """Do what `close` does: nothing waits to be sent."""
        self.close()

    def vanish(self) -> None:
        """Be gone, without a word to the protocol."""
        self._closing = True
        self._is_open = False

    def _call_connection_lost(self) -> None:
        try:
            self._protocol.connection_lost(None)
        finally:
            release(self._host, self)
            self._is_open = False
            self._protocol = None


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def plain(ip: str) -> str:
    """Return an address as it is on packets: an IPv4 address in the form of an IPv6 one is IPv4."""
    if not ip.startswith(_MAPPED):
        return ip
    mapped = ipaddress.IPv6Address(ip).ipv4_mapped
    return ip if mapped is None else str(mapped)


def bind(host: Host, transport: SimDatagramTransport) -> None:
    """Put a socket on its port.

    Raises:
        OSError: EADDRINUSE.
    """
    port = transport.local[1]
    others = host.datagrams.setdefault(port, [])
    if any(_meet(transport, other) for other in others):
        raise address_in_use(*transport.local)
    others.append(transport)


def _meet(one: SimDatagramTransport, other: SimDatagramTransport) -> bool:
    if one.shared and other.shared:
        return False
    if one.serves_all_of(":" in other.local[0]) or other.serves_all_of(":" in one.local[0]):
        return True
    return one.local[0] == other.local[0]


def release(host: Host, transport: SimDatagramTransport) -> None:
    """Give a socket's port back."""
    others = host.datagrams.get(transport.local[1], [])
    if transport in others:
        others.remove(transport)
    if not others:
        host.datagrams.pop(transport.local[1], None)
