"""The simulated network of one loop, behind asyncio's own calls."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
from collections.abc import Callable
from typing import Any

from aiolibp2p.sim.network import datagram
from aiolibp2p.sim.network.boot import host_here
from aiolibp2p.sim.network.connection import Connection
from aiolibp2p.sim.network.datagram import SimDatagramTransport
from aiolibp2p.sim.network.faults import Faults
from aiolibp2p.sim.network.link import Link
from aiolibp2p.sim.network.listener import Listener, ProtocolFactory, is_unspecified
from aiolibp2p.sim.network.packet import Address, Packet
from aiolibp2p.sim.network.pipe import Tuning
from aiolibp2p.sim.network.transport import SimTransport
from aiolibp2p.sim.scheduler import VirtualTimeLoop


class SimNet(Faults):
    """TCP and UDP between simulated hosts.

    A program that never says on which host it runs is on `home`. Loopback addresses, names of hosts and their addresses
    are reachable; a packet to any other address vanishes, or fails at once if `unknown_addresses` says "unreachable".
    """

    def __init__(
        self,
        loop: VirtualTimeLoop,
        *,
        latency: float = 0.0,
        bandwidth: float | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        """Make a network with one host.

        Args:
            latency: seconds in each direction of every path, within a host too, until `set_link`.
            bandwidth: bits per second in each direction; None is unlimited.
            tuning: the sizes of sockets made from now on.
        """
        super().__init__(loop, Link(latency=latency, bandwidth=bandwidth), tuning or Tuning())
        self.next_connection: Callable[[], int] = itertools.count(1).__next__
        """Return the number of the next connection."""
        self._connections: dict[int, Connection] = {}
        self.home = self.host("home")

    # What there is

    @property
    def connections(self) -> list[Connection]:
        """The connections of which at least one end is not closed, oldest first."""
        return list(self._connections.values())

    @property
    def listeners(self) -> list[Listener]:
        """Every listening socket of every host."""
        return [listener for host in self.hosts for listener in host.listeners()]

    @property
    def transports(self) -> list[SimTransport]:
        """The transports that are not closed yet."""
        transports = [t for c in self.connections for t in (c.client_transport, c.server_transport) if t is not None]
        return [transport for transport in transports if not transport.endpoint.closed]

    def interface_addresses(self) -> list[str]:
        """Return the addresses of the host of the running code, loopback ones too."""
        return ["127.0.0.1", "::1", *(host_here() or self.home).addresses]

    def connection_of(self, transport: asyncio.BaseTransport) -> Connection:
        """Return the connection that a transport is an end of.

        Raises:
            LookupError: it is none of this network's, or closed at both ends.
        """
        for connection in self._connections.values():
            if transport in (connection.client_transport, connection.server_transport):
                return connection
        raise LookupError(f"{transport!r} has no connection here")

    def forget(self, connection: Connection) -> None:
        """Drop a connection that is closed at both ends."""
        self._connections.pop(connection.id, None)

    @property
    def datagram_transports(self) -> list[SimDatagramTransport]:
        """The UDP sockets of all hosts."""
        return [transport for host in self.hosts for sharing in host.datagrams.values() for transport in sharing]

    def _held_elsewhere(self) -> list[Packet]:
        return [packet for connection in self.connections for packet in connection.held]

    # asyncio's calls

    async def create_connection(
        self,
        factory: ProtocolFactory,
        host: Any,
        port: int,
        *,
        local_addr: tuple[str, int] | None = None,
        **options: Any,
    ) -> tuple[SimTransport, asyncio.BaseProtocol]:
        """Connect from the host of the running code; the addresses of a name are tried one after the other.

        Raises:
            OSError: refused, timed out, or a name that does not resolve.
            NotImplementedError: `ssl` or `sock` is asked for.
        Cancellation: the connection is given up.
        """
        _refuse_options(options)
        failures: list[OSError] = []
        if isinstance(host, str) and self.names.get(host) is not None:
            await self.names.wait(host)
        for ip in self.resolve(host):
            try:
                connection = await self._connect(ip, port, local_addr)
            except OSError as error:
                failures.append(error)
                continue
            return await self._attach(connection, factory)
        if len({str(error) for error in failures}) == 1:
            raise failures[0]
        raise OSError("Multiple exceptions: " + ", ".join(str(error) for error in failures))

    async def _connect(self, ip: str, port: int, local_addr: tuple[str, int] | None) -> Connection:
        here = host_here() or self.home
        source = local_addr or (here.source_for(ip), 0)
        if local_addr is not None:
            here.bind(*local_addr).close()  # to learn whether it is free and ours
        if self.unknown_addresses == "unreachable" and self.owner(ip, here) is None:
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        local = (source[0], source[1] or here.free_port())
        connection = Connection(self, here, (local, (ip, port)))
        self._connections[connection.id] = connection
        await connection.connect()
        return connection

    async def _attach(
        self, connection: Connection, factory: ProtocolFactory
    ) -> tuple[SimTransport, asyncio.BaseProtocol]:
        try:
            protocol = factory()
        except BaseException:
            connection.client.close()
            raise
        waiter = self.loop.create_future()
        transport = connection.attach_client(protocol, waiter)
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    async def create_server(
        self,
        factory: ProtocolFactory,
        host: Any,
        port: int,
        *,
        backlog: int = 100,
        start_serving: bool = True,
        **options: Any,
    ) -> asyncio.Server:
        """Listen on the host of the running code; no `host` listens on all its addresses of both families.

        Raises:
            OSError: EADDRINUSE or EADDRNOTAVAIL.
            NotImplementedError: `ssl` or `sock` is asked for.
        """
        _refuse_options(options)
        here = host_here() or self.home
        names = [host] if isinstance(host, str) or host is None else list(host)
        ips = [ip for name in names for ip in (("0.0.0.0", "::") if not name else self.resolve(name))]
        listeners: list[Listener] = []
        try:
            for ip in ips:
                listeners.append(here.bind(ip, port or 0))
        except OSError:
            for listener in listeners:
                listener.close()
            raise
        sockets: Any = listeners
        server = asyncio.Server(self.loop, sockets, factory, None, backlog, None, None)
        if start_serving:
            await server.start_serving()
        return server

    async def create_datagram_endpoint(
        self,
        factory: ProtocolFactory,
        local_addr: tuple[str, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
        *,
        family: int = 0,
        reuse_port: bool | None = None,
        v6only: bool = False,
        **_options: Any,
    ) -> tuple[SimDatagramTransport, asyncio.BaseProtocol]:
        """Make a UDP socket on the host of the running code.

        A socket of IPv6 that is bound to no single address serves IPv4 too, as on Linux, unless `v6only` forbids it.

        Raises:
            OSError: EADDRINUSE, EADDRNOTAVAIL, or ENETUNREACH for a remote address that the host has no way to.
            ValueError: neither an address nor a family is given.
        Cancellation: the socket is closed.
        """
        here = host_here() or self.home
        remote = self._numbered(remote_addr, family) if remote_addr is not None else None
        if local_addr is not None:
            local = self._numbered(local_addr, family)
        elif remote is not None:
            local = (here.source_for(remote[0]), 0)
        elif family in (socket.AF_INET, socket.AF_INET6):
            local = ("::" if family == socket.AF_INET6 else "0.0.0.0", 0)
        else:
            raise ValueError("unexpected address family")
        here.check_own(*local)
        dual = ":" in local[0] and is_unspecified(local[0]) and not v6only
        local = (local[0], local[1] or here.free_port())
        transport = SimDatagramTransport(self, here, local, remote, dual=dual, shared=bool(reuse_port))
        datagram.bind(here, transport)
        try:
            protocol = factory()
            waiter = self.loop.create_future()
            transport.begin(protocol, waiter)
        except BaseException:
            datagram.release(here, transport)
            raise
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    def _numbered(self, address: tuple[str, int], family: int) -> Address:
        for ip in self.resolve(address[0]):
            if family in (0, socket.AF_INET6 if ":" in ip else socket.AF_INET):
                return datagram.plain(ip), address[1]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def listen_mute(self, host: str | None, port: int, *, reading: bool = True) -> asyncio.Server:
        """Listen with a server that accepts and never says a word; without `reading` it does not even read."""
        return await self.create_server(lambda: _MuteProtocol(reading=reading), host, port)


class _MuteProtocol(asyncio.Protocol):
    def __init__(self, *, reading: bool) -> None:
        self._reading = reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SimTransport)
        if not self._reading:
            transport.pause_reading()

    def eof_received(self) -> bool:
        return True  # does not answer FIN either


def _refuse_options(options: dict[str, Any]) -> None:
    for name in ("ssl", "sock"):
        if options.get(name):
            raise NotImplementedError(f"the simulated network has no {name}= yet")
