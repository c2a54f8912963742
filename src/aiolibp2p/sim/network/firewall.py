"""Firewalls that remember who was spoken to, and the memory that they and NATs have of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeVar

from aiolibp2p.sim.network.datagram import PortUnreachable
from aiolibp2p.sim.network.packet import Address, Packet
from aiolibp2p.sim.scheduler import NS, VirtualTimeLoop

SWEEP_AT = 256
"""How many entries a table has before those that have expired are looked for."""


class _Expires(Protocol):
    @property
    def until_ns(self) -> int: ...


K = TypeVar("K")
E = TypeVar("E", bound=_Expires)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """How long a firewall or a NAT remembers that somebody was spoken to, in seconds."""

    udp_idle: float = 300.0
    """After the last datagram from inside, which alone refreshes (RFC 4787 §4.3, REQ-5 and REQ-6)."""
    tcp_idle: float = 7440.0
    """After the last packet of an established connection (RFC 5382 §5, REQ-5)."""
    tcp_transitory: float = 240.0
    """After the last packet of a connection that is being opened or has ended (RFC 5382 §5, REQ-5)."""
    unknown_tcp: Literal["drop", "reset"] = "drop"
    """What becomes of a packet from inside, of a connection that is not remembered: it vanishes, so that the connection
    is a black hole until TCP gives up, or its sender gets RST at once. Devices do either."""

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if min(self.udp_idle, self.tcp_idle, self.tcp_transitory) <= 0:
            raise ValueError(f"{self!r}: what is remembered for no time lets nothing in")
        if self.unknown_tcp not in ("drop", "reset"):
            raise ValueError(f"unknown_tcp is 'drop' or 'reset', and not {self.unknown_tcp!r}")


class Flow(NamedTuple):
    """What a packet belongs to, as seen from a host that is guarded; for ICMP, what the packet it is about does."""

    protocol: str
    near: Address
    """The end on the side of the guarded host."""
    remote: Address
    flags: str
    is_error: bool
    """Whether it is ICMP about the flow, and not of it."""

    @classmethod
    def leaving(cls, packet: Packet) -> Flow:
        """Return what a packet from inside belongs to."""
        if isinstance(packet, PortUnreachable):
            return cls(packet.about.protocol, packet.about.target, packet.about.source, "", is_error=True)
        return cls(packet.protocol, packet.source, packet.target, packet.flags, is_error=False)

    @classmethod
    def entering(cls, packet: Packet) -> Flow:
        """Return what a packet from outside belongs to."""
        if isinstance(packet, PortUnreachable):
            return cls(packet.about.protocol, packet.about.source, packet.about.target, "", is_error=True)
        return cls(packet.protocol, packet.target, packet.source, packet.flags, is_error=False)


class _Session:
    """What is remembered of a flow."""

    __slots__ = ("_fins", "_state", "until_ns")

    def __init__(self) -> None:
        self.until_ns = 0
        self._state: Literal["opening", "established", "ended"] = "opening"
        self._fins: set[bool] = set()

    def see(self, flow: Flow, now_ns: int, memory: Memory, *, outbound: bool) -> None:
        if flow.protocol != "tcp":
            if outbound:
                self.until_ns = now_ns + round(memory.udp_idle * NS)
            return
        if flow.flags == "syn" and self._state == "ended":
            self._state = "opening"
            self._fins.clear()
        elif flow.flags == "syn ack" and self._state == "opening":
            self._state = "established"
        elif flow.flags == "fin ack":
            self._fins.add(outbound)
        if flow.flags == "rst" or len(self._fins) == len((True, False)):
            self._state = "ended"
        idle = memory.tcp_idle if self._state == "established" else memory.tcp_transitory
        self.until_ns = now_ns + round(idle * NS)


class Sessions:
    """Whom one end inside has spoken with, and until when that is remembered; at that very nanosecond it is not."""

    __slots__ = ("_by_ip", "_count", "_sweep_at", "until_ns")

    def __init__(self) -> None:
        """Remember nobody."""
        self.until_ns = 0
        """Until when any of them is remembered."""
        self._by_ip: dict[str, dict[int, _Session]] = {}
        self._count = 0
        self._sweep_at = SWEEP_AT

    def knows(self, remote: Address, now_ns: int) -> bool:
        """Return whether an address and port is remembered."""
        session = self._by_ip.get(remote[0], {}).get(remote[1])
        return session is not None and session.until_ns > now_ns

    def knows_ip(self, ip: str, now_ns: int) -> bool:
        """Return whether any port of an address is remembered."""
        return any(session.until_ns > now_ns for session in self._by_ip.get(ip, {}).values())

    def see(self, flow: Flow, now_ns: int, memory: Memory, *, outbound: bool) -> None:
        """Remember a packet of a flow."""
        ports = self._by_ip.setdefault(flow.remote[0], {})
        session = ports.get(flow.remote[1])
        if session is None or session.until_ns <= now_ns:
            self._count += session is None
            session = ports[flow.remote[1]] = _Session()
        before_ns = session.until_ns
        session.see(flow, now_ns, memory, outbound=outbound)
        if session.until_ns >= self.until_ns:
            self.until_ns = session.until_ns
        elif before_ns == self.until_ns:  # it ends sooner than it would have, and was the last
            self.until_ns = max(s.until_ns for ports in self._by_ip.values() for s in ports.values())
        if self._count > self._sweep_at:
            self._sweep(now_ns)

    def _sweep(self, now_ns: int) -> None:
        for ip, ports in list(self._by_ip.items()):
            self._by_ip[ip] = {port: session for port, session in ports.items() if session.until_ns > now_ns}
            if not self._by_ip[ip]:
                del self._by_ip[ip]
        self._count = sum(map(len, self._by_ip.values()))
        self._sweep_at = max(2 * self._count, SWEEP_AT)


class Firewall:
    """A firewall that lets in what answers, and what is for an open port; it translates nothing.

    A packet from inside lets its target's address and port, and no other, answer to the socket that it came from:
    address and port-dependent filtering (RFC 4787 §5), as for IPv6 RFC 6092 §3.2.2 and §3.3 have it. Hosts behind the
    same firewall reach each other without passing it.
    """

    reason = "firewall"

    def __init__(self, loop: VirtualTimeLoop, open_ports: Iterable[int], memory: Memory) -> None:
        """Make one that remembers nothing; `SimNet.firewall` is the way to it."""
        self.open_ports = set(open_ports)
        """Ports of TCP and UDP, on every host behind it, to which everybody may send."""
        self.memory = memory
        self._loop = loop
        self._sessions: dict[tuple[str, Address], Sessions] = {}
        self._sweep_at = SWEEP_AT

    def __repr__(self) -> str:
        return f"<Firewall open={sorted(self.open_ports)}>"

    def leave(self, flow: Flow) -> bool:
        """Return whether a packet may go out, and let it be answered."""
        if flow.is_error:
            return True
        now_ns = self._loop.time_ns()
        sessions = self._sessions.get((flow.protocol, flow.near))
        known = sessions is not None and sessions.knows(flow.remote, now_ns)
        if not known and flow.protocol == "tcp" and flow.flags != "syn":
            return flow.near[1] in self.open_ports
        if sessions is None:
            sessions = self._sessions[flow.protocol, flow.near] = Sessions()
            if len(self._sessions) > self._sweep_at:
                self._sessions = swept(self._sessions, now_ns) | {(flow.protocol, flow.near): sessions}
                self._sweep_at = max(2 * len(self._sessions), SWEEP_AT)
        sessions.see(flow, now_ns, self.memory, outbound=True)
        return True

    def enter(self, flow: Flow) -> bool:
        """Return whether a packet may come in."""
        now_ns = self._loop.time_ns()
        sessions = self._sessions.get((flow.protocol, flow.near))
        if sessions is not None and sessions.knows(flow.remote, now_ns):
            if not flow.is_error:
                sessions.see(flow, now_ns, self.memory, outbound=False)
            return True
        return not flow.is_error and flow.near[1] in self.open_ports


def swept(table: dict[K, E], now_ns: int) -> dict[K, E]:
    """Return what of a table is still remembered."""
    return {key: entry for key, entry in table.items() if entry.until_ns > now_ns}
