"""Network address translation: several hosts behind one address, in the terms of RFC 4787 and RFC 5382."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aiolibp2p.sim.network.firewall import SWEEP_AT, Firewall, Flow, Memory, Sessions, swept
from aiolibp2p.sim.network.host import Host
from aiolibp2p.sim.network.packet import Address

if TYPE_CHECKING:
    from aiolibp2p.sim.network.topology import Topology

NatKind = Literal["full-cone", "restricted", "port-restricted", "symmetric"]
Behaviour = Literal["endpoint-independent", "address-dependent", "address and port-dependent"]

KINDS: dict[NatKind, tuple[Behaviour, Behaviour]] = {
    "full-cone": ("endpoint-independent", "endpoint-independent"),
    "restricted": ("endpoint-independent", "address-dependent"),
    "port-restricted": ("endpoint-independent", "address and port-dependent"),
    "symmetric": ("address and port-dependent", "address and port-dependent"),
}
"""The mapping (RFC 4787 §4.1) and the filtering (§5) of each kind; the names are those of RFC 3489 §5."""

_PORTS = range(1024, 65536)


@dataclass(frozen=True, kw_only=True)
class NatRules(Memory):
    """How a NAT behaves."""

    kind: NatKind = "port-restricted"
    """With which mapping and which filtering."""
    hairpin: bool = False
    """Whether hosts behind it reach each other by its public address, too; the one that is reached sees the public
    address of the other (RFC 4787 §6, "external source IP address and port")."""
    preserve_ports: bool = False
    """Whether a socket gets its own port at the public address, if that is free (RFC 4787 §4.2.1, "port preservation");
    else, and otherwise, it gets a random one."""

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        super().__post_init__()
        if self.kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}, and not {self.kind!r}")

    @property
    def mapping(self) -> Behaviour:
        """On what, besides the socket inside, the public port of a packet depends (RFC 4787 §4.1)."""
        return KINDS[self.kind][0]

    @property
    def filtering(self) -> Behaviour:
        """How much of a sender must have been spoken to before what it sends gets in (RFC 4787 §5)."""
        return KINDS[self.kind][1]


class _Mapping:
    """A public port, and the socket inside that it stands for."""

    __slots__ = ("inside", "port", "sessions")

    def __init__(self, inside: Address, port: int) -> None:
        self.inside = inside
        self.port = port
        self.sessions = Sessions()

    @property
    def until_ns(self) -> int:
        return self.sessions.until_ns


class Nat:
    """A NAT of IPv4: what leaves it comes from its address, and what comes to that address enters if it may.

    Hosts behind it reach each other by their own addresses, which may be in use elsewhere as well. The way to it costs
    nothing: links, partitions and access lines are those between hosts, whatever is between. What has no mapping at
    the moment at which it arrives, or is filtered, is dropped with reason "nat", without an answer (RFC 5382 §4.3,
    REQ-4). Mappings expire as `Memory` says; no timer is needed for that.
    """

    reason = "nat"

    def __init__(self, net: Topology, name: str, address: str, rules: NatRules) -> None:
        """Make one with nobody behind it; `SimNet.nat` is the way to one that others reach."""
        self.name = name
        self.address = address
        self.rules = rules
        self.behind: Nat | None = None
        """The NAT that it is itself behind, as customers of a carrier that has too few addresses are."""
        self.firewall: Firewall | None = None
        """What guards the addresses of IPv6 of hosts behind it; None lets everything pass."""
        self.members: dict[str, Host | Nat] = {}
        """Who has which address behind it."""
        self._net = net
        self._by_inside: dict[tuple[str, Address, Address | None], _Mapping] = {}
        self._by_port: dict[tuple[str, int], _Mapping] = {}
        self._sweep_at = SWEEP_AT
        self._random = random.Random(f"{net.loop.seed}/nat/{name}")

    def __repr__(self) -> str:
        return f"<Nat {self.name} {self.address} {self.rules.kind}>"

    @property
    def memory(self) -> Memory:
        """How long it remembers."""
        return self.rules

    @property
    def hosts(self) -> list[Host]:
        """The hosts behind it, those behind other NATs behind it included."""
        found: dict[Host, None] = {}
        for member in self.members.values():
            found.update(dict.fromkeys(member.hosts if isinstance(member, Nat) else [member]))
        return list(found)

    def public(self, address: Address, remote: Address | None = None, protocol: str = "udp") -> Address | None:
        """Return what an address and port behind it is mapped to, or None.

        Args:
            address: the end inside.
            remote: the end that it speaks to, which counts for a symmetric NAT alone.
            protocol: "udp" or "tcp".
        """
        mapping = self._by_inside.get(self._key(protocol, address, remote))
        if mapping is None or mapping.until_ns <= self._net.loop.time_ns():
            return None
        return self.address, mapping.port

    def _key(self, protocol: str, near: Address, remote: Address | None) -> tuple[str, Address, Address | None]:
        return protocol, near, None if self.rules.mapping == "endpoint-independent" else remote

    # Packets

    def leave(self, flow: Flow) -> Address | None:
        """Return the public address and port of a packet that goes out, or None if it may not."""
        now_ns = self._net.loop.time_ns()
        key = self._key(flow.protocol, flow.near, flow.remote)
        mapping = self._by_inside.get(key)
        if mapping is not None and mapping.until_ns <= now_ns:
            del self._by_inside[key], self._by_port[flow.protocol, mapping.port]
            mapping = None
        if flow.is_error:
            return None if mapping is None else (self.address, mapping.port)
        known = mapping is not None and mapping.sessions.knows(flow.remote, now_ns)
        if not known and flow.protocol == "tcp" and flow.flags != "syn":
            return None
        if mapping is None:
            port = self._free_port(flow.protocol, flow.near[1])
            if port is None:
                return None
            mapping = self._by_inside[key] = self._by_port[flow.protocol, port] = _Mapping(flow.near, port)
        mapping.sessions.see(flow, now_ns, self.rules, outbound=True)
        if len(self._by_inside) > self._sweep_at:
            self._sweep(now_ns)
        return self.address, mapping.port

    def enter(self, flow: Flow) -> Address | None:
        """Return the address and port inside of a packet that comes in, or None if it may not."""
        now_ns = self._net.loop.time_ns()
        mapping = self._by_port.get((flow.protocol, flow.near[1]))
        if mapping is None or mapping.until_ns <= now_ns:
            return None
        sessions = mapping.sessions
        known = sessions.knows(flow.remote, now_ns)
        if not known:
            filtering = self.rules.filtering
            if flow.is_error or filtering == "address and port-dependent":
                return None
            if filtering == "address-dependent" and not sessions.knows_ip(flow.remote[0], now_ns):
                return None
        if flow.protocol == "tcp" and not flow.is_error and (known or flow.flags == "syn"):
            sessions.see(flow, now_ns, self.rules, outbound=False)
        return mapping.inside

    def peek(self, flow: Flow) -> Address | None:
        """Return where a packet would get that is filtered by nothing, or None if its port is not mapped."""
        mapping = self._by_port.get((flow.protocol, flow.near[1]))
        return None if mapping is None else mapping.inside

    def _free_port(self, protocol: str, own: int) -> int | None:
        """Return a public port that no living mapping has, or None: ports do not overlap (§4.2.1, REQ-3)."""
        if self.rules.preserve_ports and self._is_free(protocol, own):
            return own
        begin = self._random.randrange(len(_PORTS))
        for i in range(len(_PORTS)):
            port = _PORTS[(begin + i) % len(_PORTS)]
            if self._is_free(protocol, port):
                return port
        return None

    def _is_free(self, protocol: str, port: int) -> bool:
        if (protocol, port) in self._by_port and self._by_port[protocol, port].until_ns <= self._net.loop.time_ns():
            self._sweep(self._net.loop.time_ns())
        return (protocol, port) not in self._by_port

    def _sweep(self, now_ns: int) -> None:
        self._by_inside = swept(self._by_inside, now_ns)
        self._by_port = swept(self._by_port, now_ns)
        self._sweep_at = max(2 * len(self._by_inside), SWEEP_AT)

    # What a test does to it

    def rebind(self, address: str | None = None) -> None:
        """Forget all mappings, as a device that restarts, and have another public address if one is given.

        A UDP socket inside gets a new mapping, and with it another public port unless ports are preserved, with the
        next datagram that it sends; until then, and by the old port for ever, it is not reached. A TCP connection does
        not survive: what its outer end sends is lost, what its inner end sends is lost or answered with RST
        (`unknown_tcp`), and an end that sends and hears nothing fails when its TCP gives up.

        Raises:
            ValueError: the address is taken, or is none of IPv4.
        """
        if address is not None:
            self._net.move(self, address)
        self._by_inside.clear()
        self._by_port.clear()
        self._net.tell(f"rebind {self.name} {self.address}")
