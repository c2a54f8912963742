"""The simulated network of one loop: hosts, paths between them, and asyncio's calls on it."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import itertools
import os
import socket
from collections.abc import Callable
from typing import Any, Literal

from aiolibp2p.sim.network.connection import Connection
from aiolibp2p.sim.network.host import Host, Listener, ProtocolFactory, host_here, is_loopback
from aiolibp2p.sim.network.pipe import Tuning
from aiolibp2p.sim.network.tap import Tap
from aiolibp2p.sim.network.transport import SimTransport
from aiolibp2p.sim.network.wire import Link, Path
from aiolibp2p.sim.scheduler import VirtualTimeLoop


class SimNet:
    """TCP between simulated hosts.

    A program that never says on which host it runs is on `home`. Loopback addresses, names of hosts and their addresses
    are reachable; a SYN to any other address vanishes, or fails at once if `unknown_addresses` says "unreachable".
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
        self.loop = loop
        self.tuning = tuning or Tuning()
        self.unknown_addresses: Literal["silent", "unreachable"] = "silent"
        self.taps: list[Tap] = []
        self.next_connection: Callable[[], int] = itertools.count(1).__next__
        """Return the number of the next connection."""
        self._hosts: dict[str, Host] = {}
        self._connections: dict[int, Connection] = {}
        self._link = Link(latency=latency, bandwidth=bandwidth)
        self._links: dict[tuple[str, str], Link] = {}
        self._paths: dict[tuple[str, str], Path] = {}
        self.home = self.host("home")

    # Topology

    def host(self, name: str, *addresses: str) -> Host:
        """Add a host; without addresses it gets a public one.

        Raises:
            ValueError: the name or an address is taken.
        """
        number = len(self._hosts) + 1
        host = Host(name, addresses or (f"1.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",))
        taken = {address for other in self._hosts.values() for address in other.addresses}
        if name in self._hosts or taken.intersection(host.addresses):
            raise ValueError(f"{host!r}: name or address taken")
        self._hosts[name] = host
        return host

    def set_link(self, link: Link, source: Host | None = None, target: Host | None = None) -> None:
        """Change one direction between two hosts, or, without hosts, whatever has no link of its own."""
        if source is None or target is None:
            self._link = link
        else:
            self._links[source.name, target.name] = link
        for names, path in self._paths.items():
            path.set_link(self._links.get(names, self._link))

    def path(self, source: Host | None, target: Host | None) -> Path:
        """Return one direction between two hosts; its `valve` holds or cuts all their connections. None is nowhere."""
        names = (source.name if source else "", target.name if target else "")
        path = self._paths.get(names)
        if path is None:
            path = self._paths[names] = Path(self.loop, self._links.get(names, self._link))
            if not all(names):
                path.valve.cut()
        return path

    # What there is

    @property
    def connections(self) -> list[Connection]:
        """The connections of which at least one end is not closed, oldest first."""
        return list(self._connections.values())

    @property
    def listeners(self) -> list[Listener]:
        """Every listening socket of every host."""
        return [listener for host in self._hosts.values() for listener in host.listeners()]

    @property
    def transports(self) -> list[SimTransport]:
        """The transports that are not closed yet."""
        transports = [t for c in self.connections for t in (c.client_transport, c.server_transport) if t is not None]
        return [transport for transport in transports if not transport.endpoint.closed]

    def connection_of(self, transport: asyncio.BaseTransport) -> Connection:
        """Return the connection that a transport is an end of.

        Raises:
            LookupError: it is none of this network's, or closed at both ends.
        """
        for connection in self._connections.values():
            if transport in (connection.client_transport, connection.server_transport):
                return connection
        raise LookupError(f"{transport!r} has no connection here")

    def tap(self) -> Tap:
        """Record what leaves the ends of all connections from now on."""
        tap = Tap()
        self.taps.append(tap)
        return tap

    def forget(self, connection: Connection) -> None:
        """Drop a connection that is closed at both ends."""
        self._connections.pop(connection.id, None)

    # Names

    def resolve(self, name: Any) -> list[str]:
        """Return the addresses of a host's name, of `localhost`, or the address given.

        Raises:
            socket.gaierror: nobody has that name.
        """
        text = name.decode("ascii") if isinstance(name, bytes) else name
        if text is None or text == "localhost":
            return ["127.0.0.1"]
        if text in self._hosts:
            return list(self._hosts[text].addresses)
        try:
            return [str(ipaddress.ip_address(text))]
        except ValueError:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None

    def getaddrinfo(self, host: Any, port: Any) -> list[tuple[int, int, int, str, tuple[Any, ...]]]:
        """Return the TCP addresses of a name.

        Raises:
            socket.gaierror: nobody has that name.
        """
        found: list[tuple[int, int, int, str, tuple[Any, ...]]] = []
        for ip in self.resolve(host):
            family = socket.AF_INET6 if ":" in ip else socket.AF_INET
            name = (ip, int(port or 0), 0, 0) if ":" in ip else (ip, int(port or 0))
            found.append((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", name))
        return found

    def _owner(self, ip: str, here: Host) -> Host | None:
        if is_loopback(ip) or ipaddress.ip_address(ip).is_unspecified:
            return here
        return next((host for host in self._hosts.values() if ip in host.addresses), None)

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
        owner = self._owner(ip, here)
        if owner is None and self.unknown_addresses == "unreachable":
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        local = (source[0], source[1] or here.free_port())
        connection = Connection(self, (here, owner), (local, (ip, port)))
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
