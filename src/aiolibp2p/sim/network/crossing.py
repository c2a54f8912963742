"""Crossings: ways between hosts on which something translates addresses or refuses packets."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from typing import TYPE_CHECKING

from aiolibp2p.sim.network.datagram import Datagram, PortUnreachable
from aiolibp2p.sim.network.endpoint import TcpPacket
from aiolibp2p.sim.network.firewall import Firewall, Flow
from aiolibp2p.sim.network.host import Host
from aiolibp2p.sim.network.link import Link
from aiolibp2p.sim.network.nat import Nat
from aiolibp2p.sim.network.packet import Address, Packet

if TYPE_CHECKING:
    from aiolibp2p.sim.network.topology import Topology


class Crossing:
    """The way from a host to an address, beginning or ending behind a NAT or a firewall.

    A packet is translated on its way out when it is sent. It takes the path to the host that its target address stands
    for then, and is let in or refused when it arrives, by what is known then: so two that send to each other at the
    same time both open the way for what is already under way. A port that stands for nothing yet leads as far as the
    first host behind the NAT.
    """

    __slots__ = ("_ip", "_net", "_path", "_sender")

    def __init__(self, net: Topology, sender: Host, ip: str) -> None:
        """Make the one from a host to an address."""
        self._net = net
        self._sender = sender
        self._ip = ip
        self._path = net.path(sender, net.owner(ip, sender))

    @property
    def link(self) -> Link:
        """The link that the last packet met."""
        return self._path.link

    def send(self, packet: Packet) -> None:
        """Take a packet at the beginning."""
        gate = self._net.found(self._ip, self._sender)
        packet.path = self._path = self._net.path(self._sender, _target(gate, packet))
        source = packet.source
        refusal = self._leave(packet)
        if refusal is not None:
            self._net.drop(packet, refusal.reason)
            if refusal.memory.unknown_tcp == "reset" and isinstance(packet, TcpPacket):
                _reset(packet)
            return
        if gate is None:
            packet.source = source  # whoever is told that there is no way is told of what it sent
        elif isinstance(gate, Nat) or _guard(gate, self._ip) is not None:
            packet.__class__ = _GUARDED[type(packet)]
        self._path.send(packet)

    def _leave(self, packet: Packet) -> Nat | Firewall | None:
        """Take a packet out, and return what refuses it, or None."""
        guard = _guard(self._sender, self._ip)
        if guard is not None and not guard.leave(Flow.leaving(packet)):
            return guard
        for nat in _nats(self._sender, self._ip):
            if self._ip in nat.members:
                break
            if self._ip == nat.address and not nat.rules.hairpin:
                return nat
            near = nat.leave(Flow.leaving(packet))
            if near is None:
                return nat
            if isinstance(packet, PortUnreachable):
                packet.about = _readdressed(packet.about, target=near)
                packet.source = (near[0], 0)
            else:
                packet.source = near
            if self._ip == nat.address:
                break
        return None


def _nats(host: Host, ip: str) -> Iterator[Nat]:
    """Yield the NATs between a host and the world, for addresses of the family of `ip`, beginning with its own."""
    nat = host.behind if isinstance(host.behind, Nat) and ":" not in ip else None
    while nat is not None:
        yield nat
        nat = nat.behind


def _guard(host: Host, ip: str) -> Firewall | None:
    """Return the firewall of a host for addresses of the family of `ip`."""
    if isinstance(host.behind, Nat):
        return host.behind.firewall if ":" in ip else None
    return host.behind


def _target(gate: Host | Nat | None, packet: Packet) -> Host | None:
    """Return the host that a packet to an address of a gate is going to reach, if nothing refuses it."""
    flow = Flow.entering(packet)
    while isinstance(gate, Nat):
        near = gate.peek(flow)
        if near is None:
            return next(iter(gate.hosts), None)
        gate, flow = gate.members.get(near[0]), flow._replace(near=near)
    return gate


def _readdressed(about: Datagram, *, source: Address | None = None, target: Address | None = None) -> Datagram:
    other = about.copied()
    assert isinstance(other, Datagram)
    other.source, other.target = source or other.source, target or other.target
    return other


def _reset(packet: TcpPacket) -> None:
    """Let RST arrive at the end that sent a packet, at the turn of the loop that follows."""
    sender = packet.to.peer if packet.to is not None else None
    if sender is not None and packet.flags != "rst":
        packet.path.net.loop.call_soon(sender.fail, context=contextvars.Context())


class _Guarded(Packet):
    """A packet that has to pass NATs or a firewall before it arrives.

    A packet becomes one when it is sent: no other packet pays for the question.
    """

    __slots__ = ()

    def arrive(self) -> None:
        """Arrive if nothing refuses it; whoever has seen it on its way finds it unchanged."""
        net, ip, sender = self.path.net, self.target[0], self.sender
        gate, flow = net.found(ip, sender), Flow.entering(self)
        while isinstance(gate, Nat):
            near = gate.enter(flow)
            if near is None:
                net.drop(self, gate.reason)
                return
            gate, flow = gate.members.get(near[0]), flow._replace(near=near)
        if gate is None or not gate.is_up:
            net.drop(self, "no route" if gate is None else "down")
            return
        guard = _guard(gate, ip)
        if guard is not None and not guard.enter(flow):
            net.drop(self, guard.reason)
            return
        inner = self.copied()
        assert isinstance(inner, _Guarded)  # a copy is of its original's type
        if gate is not self.path.target:  # the port stood for another host when the packet left
            inner.path = net.path(sender, gate)
        if isinstance(inner, PortUnreachable):
            inner.target = (flow.near[0], 0)
            inner.about = _readdressed(inner.about, source=flow.near)
        else:
            inner.target = flow.near
        super(_Guarded, inner).arrive()


class _GuardedDatagram(_Guarded, Datagram):
    __slots__ = ()


class _GuardedPortUnreachable(_Guarded, PortUnreachable):
    __slots__ = ()


class _GuardedTcpPacket(_Guarded, TcpPacket):
    __slots__ = ()


_GUARDED: dict[type[Packet], type[Packet]] = {
    Datagram: _GuardedDatagram,
    PortUnreachable: _GuardedPortUnreachable,
    TcpPacket: _GuardedTcpPacket,
}
