"""Hosts: machines with addresses and ports, which can lose power, stand still and start again."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import os
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from aiolibp2p.sim.network import boot as boots
from aiolibp2p.sim.network.boot import Boot
from aiolibp2p.sim.network.link import Line
from aiolibp2p.sim.network.listener import Listener, is_loopback, is_unspecified
from aiolibp2p.sim.network.packet import Address
from aiolibp2p.sim.scheduler import NS, SimEvent

if TYPE_CHECKING:
    from aiolibp2p.sim.network.crossing import Crossing
    from aiolibp2p.sim.network.datagram import SimDatagramTransport
    from aiolibp2p.sim.network.endpoint import Endpoint
    from aiolibp2p.sim.network.firewall import Firewall
    from aiolibp2p.sim.network.nat import Nat
    from aiolibp2p.sim.network.path import Path
    from aiolibp2p.sim.network.topology import Topology

T = TypeVar("T")

EPHEMERAL_PORTS = range(49152, 65536)


class Host:
    """A machine with addresses of its own; loopback addresses are always its own."""

    def __init__(self, net: Topology, name: str, addresses: tuple[str, ...]) -> None:
        """Make a host that runs; `SimNet.host` is the way to one that others reach."""
        self.net = net
        self.name = name
        self.addresses = addresses
        self.up_line: Line | None = None
        self.down_line: Line | None = None
        self.is_up = True
        """Whether it has power."""
        self.refused_ports: set[int] = set()
        """Ports that answer as if nothing were there: TCP with RST, UDP with ICMP."""
        self.behind: Nat | Firewall | None = None
        """What guards it; it is given to `SimNet.host`."""
        self.routes: dict[str, Path | Crossing] = {}
        """The path to each address that it has sent to; what changes whose an address is clears it."""
        self.datagrams: dict[int, list[SimDatagramTransport]] = {}
        """The UDP sockets on each port."""
        self.endpoints: dict[Endpoint, None] = {}
        """The ends of connections that are not closed."""
        self.parked: deque[asyncio.Handle | SimEvent] | None = None
        """What waits while it is paused, and None when it is not."""
        self._resumes_ns = 0
        self._boot = Boot(self)
        self._listeners: dict[int, list[Listener]] = {}
        self._next_port = 0

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.addresses}>"

    # Whose code it is

    @contextlib.contextmanager
    def here(self) -> Iterator[Host]:
        """Let what the block does, and the tasks and sockets made in it, be of this host.

        Raises:
            OSError: ENETDOWN, it has crashed.
        """
        self._check_up()
        token = boots.here.set(self._boot)
        try:
            yield self
        finally:
            boots.here.reset(token)

    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
        """Return a task of this host: it, and the tasks, timers and sockets it makes, end with the host.

        Raises:
            OSError: ENETDOWN, it has crashed.
        """
        try:
            self._check_up()
        except OSError:
            coro.close()
            raise
        context = contextvars.copy_context()
        context.run(boots.here.set, self._boot)
        return self.net.loop.create_task(
            coro, name=f"{self.name}/{name or getattr(coro, '__name__', 'task')}", context=context
        )

    def _check_up(self) -> None:
        if not self.is_up:
            raise OSError(errno.ENETDOWN, f"{os.strerror(errno.ENETDOWN)}: {self.name} has crashed")

    # Power

    def crash(self) -> None:
        """Cut the power.

        Its tasks stop where they are, and neither they nor its timers and callbacks run again, not even finally blocks.
        Its sockets vanish without a packet, so that peers do not notice until they send. Packets that have left it go
        on; those that reach it are lost. Code that runs on `home` without having said so, as a test does, survives a
        crash of `home`. What it abandons stays in memory until the process ends.
        """
        if not self.is_up:
            return
        loop = self.net.loop
        loop.screen = boots.screen
        self.is_up = False
        self._resumes_ns = 0
        self.parked = None
        boots.abandon(self._boot, loop)
        self._listeners.clear()
        for transports in self.datagrams.values():
            for transport in transports:
                transport.vanish()
        self.datagrams.clear()
        for endpoint in tuple(self.endpoints):
            endpoint.vanish()
        self.net.tell(f"crash {self.name}")

    def restart(self) -> None:
        """Start it again, after a crash or instead of one.

        Nothing runs and nothing listens on it until something is spawned. What still arrives for connections of before
        is answered with RST, and what arrives for UDP sockets of before with ICMP.
        """
        self.crash()
        self._boot = Boot(self)
        self.is_up = True
        self.net.tell(f"restart {self.name}")

    def pause(self, seconds: float) -> None:
        """Let its tasks, timers and callbacks wait, from the next turn of the loop on, as a collector's pause does.

        What arrives waits with them: TCP acknowledges as long as there is room in the socket, connections are made and
        accepted later, and datagrams wait until the socket's buffer is full.
        """
        if not self.is_up:
            return
        loop = self.net.loop
        loop.screen = boots.screen
        if self.parked is None:
            self.parked = deque()
        self._resumes_ns = max(self._resumes_ns, loop.time_ns() + round(seconds * NS))
        loop.call_at_ns(self._resumes_ns, self._resume)
        self.net.tell(f"pause {self.name}")

    def _resume(self) -> None:
        loop = self.net.loop
        if self.parked is not None and loop.time_ns() >= self._resumes_ns:
            parked, self.parked = self.parked, None
            loop.make_ready(parked)
            self.net.tell(f"resume {self.name}")

    def enter(self, context: contextvars.Context, callback: Callable[..., object], *args: Any) -> None:
        """Run a callback of the program on this host, or let it wait while the host is paused."""
        if self.parked is None:
            context.run(callback, *args)
        else:
            self.parked.append(asyncio.Handle(callback, args, self.net.loop, context))

    # Addresses and ports

    def bind(self, ip: str, port: int) -> Listener:
        """Take a TCP port; 0 takes a free one.

        Raises:
            OSError: EADDRINUSE or EADDRNOTAVAIL.
        """
        self.check_own(ip, port)
        if port == 0:
            port = self.free_port()
        listeners = self._listeners.setdefault(port, [])
        if any(listener.overlaps(ip) for listener in listeners):
            raise address_in_use(ip, port)
        listener = Listener(self, (ip, port))
        listeners.append(listener)
        return listener

    def check_own(self, ip: str, port: int) -> None:
        """Check that an address is one of this host's, or stands for all of them.

        Raises:
            OSError: EADDRNOTAVAIL.
        """
        if not (ip in self.addresses or is_loopback(ip) or is_unspecified(ip)):
            raise OSError(errno.EADDRNOTAVAIL, f"error while attempting to bind on address {(ip, port)!r}: not ours")

    def release(self, listener: Listener) -> None:
        """Give a listener's port back."""
        listeners = self._listeners.get(listener.address[1], [])
        if listener in listeners:
            listeners.remove(listener)

    def free_port(self) -> int:
        """Return the next port of the ephemeral range on which there is nothing.

        Raises:
            OSError: there is none.
        """
        for _ in EPHEMERAL_PORTS:
            port = EPHEMERAL_PORTS[self._next_port % len(EPHEMERAL_PORTS)]
            self._next_port += 1
            if not self._listeners.get(port) and port not in self.datagrams:
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


def address_in_use(ip: str, port: int) -> OSError:
    """Return the error of binding to an address that is taken."""
    reason = os.strerror(errno.EADDRINUSE).lower()
    return OSError(errno.EADDRINUSE, f"error while attempting to bind on address {(ip, port)!r}: {reason}")
