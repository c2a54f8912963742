"""Who is where: hosts, their addresses, the paths between them, and the door that every packet passes."""

from __future__ import annotations

import ipaddress
import socket
import zlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from aiolibp2p.sim.network.crossing import Crossing
from aiolibp2p.sim.network.firewall import Firewall, Memory
from aiolibp2p.sim.network.host import Host
from aiolibp2p.sim.network.link import Line, Link
from aiolibp2p.sim.network.listener import is_loopback, is_unspecified
from aiolibp2p.sim.network.names import NameTable, meaning
from aiolibp2p.sim.network.nat import Nat, NatRules
from aiolibp2p.sim.network.packet import Packet
from aiolibp2p.sim.network.path import Path
from aiolibp2p.sim.network.pipe import Tuning
from aiolibp2p.sim.network.rules import Rule
from aiolibp2p.sim.network.tap import Drop, Seen, Tap
from aiolibp2p.sim.scheduler import VirtualTimeLoop


class InFlight(NamedTuple):
    """A packet that was sent and has not arrived."""

    packet: Packet
    arrives_ns: int | None
    """When it arrives, or reaches the target's access line; None while it is held."""


class Topology:
    """Hosts and the paths between them."""

    def __init__(self, loop: VirtualTimeLoop, link: Link, tuning: Tuning) -> None:
        """Make a network without hosts; `link` is that of all paths, within a host too, until `set_link`."""
        self.loop = loop
        self.tuning = tuning
        self.unknown_addresses: Literal["silent", "unreachable"] = "silent"
        """What becomes of packets to an address that nobody has: they vanish, or their sender is told at once."""
        self.taps: list[Tap] = []
        self.rules: list[Rule] = []
        self.names = NameTable(loop)
        """Names besides those of hosts."""
        self._hosts: dict[str, Host] = {}
        self._owners: dict[str, Host | Nat] = {}
        self._nats: dict[str, Nat] = {}
        self._link = link
        self._links: dict[tuple[str, str], Link] = {}
        self._paths: dict[tuple[str, str], Path] = {}

    # Hosts and links

    def host(
        self,
        name: str,
        *addresses: str,
        up: float | None = None,
        down: float | None = None,
        queue_bytes: int | None = None,
        behind: Nat | Firewall | None = None,
    ) -> Host:
        """Add a host; without addresses it gets one of IPv4, a public one unless it is behind a NAT.

        Args:
            addresses: any number of either family; the first of a family is what the host sends from.
            up: bits per second that leave it, all paths together; None is unlimited. Within the host nothing counts.
            down: the same for what reaches it.
            queue_bytes: bytes that may wait for either; a packet that finds no room is dropped, but never one of the
                host's own TCP connections on its way out.
            behind: what guards it. Behind a NAT its addresses of IPv4 are private: others behind other NATs may have
                the same, and only those behind the same one reach it by them. Its addresses of IPv6 are public always.

        Raises:
            ValueError: the name or an address is taken, or is no address.
        """
        nat = behind if isinstance(behind, Nat) else None
        number = len(self._hosts) + 1 if nat is None else len(nat.members) + 2
        own = addresses or (f"{1 if nat is None else 10}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",)
        own = tuple(str(ipaddress.ip_address(address)) for address in own)
        host = Host(self, name, own)
        places = [(ip, self._owners if nat is None or ":" in ip else nat.members) for ip in own]
        if name in self._hosts or any(ip in place for ip, place in places):
            raise ValueError(f"{host!r}: name or address taken")
        host.up_line = Line(up, queue_bytes) if up is not None else None
        host.down_line = Line(down, queue_bytes) if down is not None else None
        self._hosts[name] = host
        host.behind = behind
        for ip, place in places:
            place[ip] = host
        return host

    def nat(
        self,
        name: str,
        address: str,
        rules: NatRules | None = None,
        *,
        behind: Nat | None = None,
        firewall: Firewall | None = None,
        **options: Any,
    ) -> Nat:
        """Add a NAT of IPv4, for hosts to be behind.

        Args:
            name: of no other NAT.
            address: what it is reached by, and what whoever is behind it seems to send from.
            rules: how it behaves.
            behind: another NAT that it is behind, and among whose addresses its own is.
            firewall: what guards the addresses of IPv6 of hosts behind it; None lets everything pass.
            options: fields of `NatRules` that are not as in `rules`: `kind="symmetric"`, `hairpin=True` …

        Raises:
            TypeError: `NatRules` has no such field.
            ValueError: the name or the address is taken, or is no address of IPv4, or a value has no meaning.
        """
        if name in self._nats:
            raise ValueError(f"there is a NAT {name!r} already")
        nat = Nat(self, name, "", replace(rules or NatRules(), **options))
        nat.behind, nat.firewall = behind, firewall
        self.move(nat, address)
        self._nats[name] = nat
        return nat

    def firewall(self, *, open_ports: Iterable[int] = (), **options: Any) -> Firewall:
        """Return a firewall, for hosts with public addresses to be behind.

        Args:
            open_ports: ports of TCP and UDP to which everybody may send.
            options: the fields of `Memory`: `udp_idle=30.0` …

        Raises:
            TypeError: `Memory` has no such field.
            ValueError: a value has no meaning.
        """
        return Firewall(self.loop, open_ports, Memory(**options))

    def move(self, nat: Nat, address: str) -> None:
        """Give a NAT an address, instead of the one that it has.

        Raises:
            ValueError: the address is taken, or is none of IPv4.
        """
        ip = str(ipaddress.IPv4Address(address))
        place = self._owners if nat.behind is None else nat.behind.members
        if place.get(ip, nat) is not nat:
            raise ValueError(f"{ip} is taken")
        place.pop(nat.address, None)
        place[ip] = nat
        nat.address = ip

    @property
    def hosts(self) -> list[Host]:
        """All hosts, in the order in which they were added."""
        return list(self._hosts.values())

    def set_link(self, link: Link, source: Host | None = None, target: Host | None = None) -> None:
        """Change one direction between two hosts, or, without hosts, whatever has no link of its own."""
        if source is None or target is None:
            self._link = link
        else:
            self._links[source.name, target.name] = link
        for names, path in self._paths.items():
            path.set_link(self._links.get(names, self._link))

    def path(self, source: Host, target: Host | None) -> Path:
        """Return one direction between two hosts; its `valve` holds or cuts all that crosses it. None is nowhere."""
        names = (source.name, target.name if target else "")
        path = self._paths.get(names)
        if path is None:
            path = self._paths[names] = Path(self, source, target, self._links.get(names, self._link))
        return path

    @property
    def paths(self) -> list[Path]:
        """The directions that something has crossed, or tried to, or that were asked for."""
        return list(self._paths.values())

    # Names

    def name(self, name: str, *addresses: str, txt: Iterable[str] = (), seconds: float = 0.0) -> None:
        """Let a name stand for addresses and TXT records, instead of what it stands for.

        Args:
            addresses: of either family; without any the name does not resolve.
            txt: its TXT records.
            seconds: how long the answer takes, and the one that it does not resolve; infinite where nobody answers.

        Raises:
            ValueError: an address is none, or the time is negative.
        """
        self.names[name] = meaning(addresses, tuple(txt), seconds)

    def resolve(self, name: Any) -> list[str]:
        """Return the addresses of a name, of a host's name, of `localhost`, or the address given; at once.

        Raises:
            socket.gaierror: nobody has that name.
        """
        text = name.decode("ascii") if isinstance(name, bytes) else name
        if text is None or text == "localhost":
            return ["127.0.0.1"]
        known = self.names.get(text)
        if known is not None and known.addresses:
            return list(known.addresses)
        if text in self._hosts:
            return list(self._hosts[text].addresses)
        try:
            return [str(ipaddress.ip_address(text))]
        except ValueError:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None

    def owner(self, ip: str, here: Host) -> Host | None:
        """Return the host that has an address, or the first behind it, seen from a host: its own are loopback ones."""
        owner = self.found(ip, here)
        if owner is None and (is_loopback(ip) or is_unspecified(ip)):
            return here
        return next(iter(owner.hosts), None) if isinstance(owner, Nat) else owner

    def found(self, ip: str, here: Host) -> Host | Nat | None:
        """Return who has an address, seen from a host: whoever is behind the same NAT comes first."""
        nat = here.behind if isinstance(here.behind, Nat) else None
        while nat is not None and ":" not in ip:
            if ip in nat.members:
                return nat.members[ip]
            if ip == nat.address:
                return nat
            nat = nat.behind
        return self._owners.get(ip)

    # Packets

    def send(self, packet: Packet) -> None:
        """Send a packet.

        Every packet of every host passes here with the addresses it has then, once for each time it is sent, and here
        its target address becomes a path, or a crossing of NATs and firewalls.
        """
        ip = packet.target[0]
        path = packet.sender.routes.get(ip) or self.path_for(packet.sender, ip)
        path.send(packet)

    def path_for(self, sender: Host, ip: str) -> Path | Crossing:
        """Return the path from a host to an address, or the crossing if one of them is behind something."""
        way: Path | Crossing | None = sender.routes.get(ip)
        if way is not None:
            return way
        found, owner = self.found(ip, sender), self.owner(ip, sender)
        beside = isinstance(found, Host) and found.behind is sender.behind
        if beside or (found is None and (owner is sender or sender.behind is None)):
            way = self.path(sender, owner)
        else:
            way = Crossing(self, sender, ip)
        if found is not None or owner is not None:  # for somebody may get the address later
            sender.routes[ip] = way
        return way

    @property
    def is_observed(self) -> bool:
        """Whether anybody wants to know of every packet."""
        return bool(self.taps) or self.loop.trace is not None

    def tap(self) -> Tap:
        """Record what is sent, and what is lost and why, from now on."""
        tap = Tap()
        self.taps.append(tap)
        return tap

    def observe(self, packet: Packet) -> None:
        """Record a packet that enters its path; TCP connections record their segments themselves."""
        for tap in self.taps:
            tap.packets.append(Seen(self.loop.time_ns(), packet))
        if packet.protocol != "tcp":
            self.note("send", packet)

    def note(self, what: str, packet: Packet) -> None:
        """Add one line about a packet to the trace, if there is one."""
        trace = self.loop.trace
        if trace is not None:
            ends = f"{packet.sender.name} {packet.source[0]}:{packet.source[1]}>{packet.target[0]}:{packet.target[1]}"
            content = f"{len(packet.payload)} {zlib.crc32(packet.payload):08x}"
            kind = f"{packet.protocol} {packet.flags}".rstrip()
            trace.add(f"{self.loop.time_ns()} {what} {ends} {packet.number} {kind} {content}")

    def tell(self, what: str) -> None:
        """Add a line about the network itself to the trace, if there is one."""
        trace = self.loop.trace
        if trace is not None:
            trace.add(f"{self.loop.time_ns()} {what}")

    def drop(self, packet: Packet, reason: str) -> None:
        """Lose a packet, and record why.

        Reasons are "no route" (nobody has the address), "cut" (a partition, a black hole, an isolated host), "rule",
        "mtu", "queue" (no room before a line), "loss", "burst", "corrupt", "down" (the host has crashed), "port" (no
        socket is there), "buffer" (the socket's is full), "closed" (the socket is closing), "stranger" (a TCP segment
        of no connection that its receiver has), "nat" (it has no mapping, or filters, or forgot the connection) and
        "firewall" (likewise).
        """
        if self.is_observed:
            for tap in self.taps:
                tap.drops.append(Drop(self.loop.time_ns(), packet, reason))
            self.note(f"drop {reason}", packet)
        packet.lose(reason)

    def in_flight(self) -> list[InFlight]:
        """Return the packets that were sent and have not arrived: in the order they will, and then those held back."""
        flying = [InFlight(e, at_ns) for at_ns, e in self.loop.scheduled() if isinstance(e, Packet)]
        held = [packet for path in self._paths.values() for packet in path.valve.held]
        return flying + [InFlight(packet, None) for packet in (*held, *self._held_elsewhere())]

    def _held_elsewhere(self) -> list[Packet]:
        return []
