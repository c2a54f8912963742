"""Paths: one direction between two hosts, which all that goes from one to the other shares."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from aiolibp2p.sim.network.link import Line, Link
from aiolibp2p.sim.network.packet import Packet
from aiolibp2p.sim.network.rules import judge
from aiolibp2p.sim.network.valve import Valve
from aiolibp2p.sim.scheduler import NS

if TYPE_CHECKING:
    from aiolibp2p.sim.network.host import Host
    from aiolibp2p.sim.network.topology import Topology


class Path:
    """One direction between two hosts.

    A packet passes the rules, the valve, the sender's access line, the link's bandwidth, and then what the link does to
    it at random; when its time has come it is an event at the target. Where nothing is in its way that is one event,
    and no object but the packet.
    """

    __slots__ = (
        *("_bursting", "_last_arrival_ns", "_latency_ns", "_line", "_loop", "_plain", "_random", "_up_line"),
        *("link", "name", "net", "sent", "source", "target", "valve"),
    )

    def __init__(self, net: Topology, source: Host, target: Host | None, link: Link) -> None:
        """Make one; without a target it leads nowhere."""
        self.net = net
        self.source = source
        self.target = target
        self.name = f"{source.name}>{target.name if target is not None else '?'}"
        self.valve = Valve(net.drop)
        self.sent = 0
        """How many packets were sent."""
        self._loop = net.loop
        self._up_line = source.up_line if source is not target else None
        self._line = Line()
        self._last_arrival_ns = 0
        self._bursting = False
        self._random: random.Random | None = None
        if target is None:
            self.valve.cut("no route")
        self.set_link(link)

    def __repr__(self) -> str:
        return f"<Path {self.name} {self.valve.state}>"

    def set_link(self, link: Link) -> None:
        """Change the link for what is sent from now on."""
        self.link = link
        self._latency_ns = round(link.latency * NS)
        self._line.bandwidth, self._line.queue_bytes = link.bandwidth, link.queue_bytes
        self._plain = link.is_plain and self._up_line is None

    @property
    def random(self) -> random.Random:
        """The seeded stream that this direction alone draws from."""
        if self._random is None:
            self._random = random.Random(f"{self._loop.seed}/path/{self.name}")
        return self._random

    def send(self, packet: Packet) -> None:
        """Take a packet at the beginning."""
        packet.path = self
        packet.number = self.sent = self.sent + 1
        net, loop = self.net, self._loop
        if net.rules or net.taps or loop.trace is not None:
            self._send_observed(packet)
        elif self.valve.state != "open":
            self.valve.admit(packet, self._carry)
        elif self._plain:
            self._arrive_in_turn(packet, loop.time_ns() + self._latency_ns, 0)
        else:
            self._carry(packet)

    def _send_observed(self, packet: Packet) -> None:
        self.net.observe(packet)
        verdict = judge(self.net.rules, packet)
        if verdict is None:
            self.valve.admit(packet, self._carry)
        elif verdict == "drop":
            self.net.drop(packet, "rule")
        elif verdict == "duplicate":
            self.valve.admit(packet, self._carry)
            self.valve.admit(packet.copied(), self._carry)
        else:
            self.valve.admit(packet, partial(self._carry, later_ns=round(verdict * NS)))

    def _carry(self, packet: Packet, later_ns: int = 0) -> None:
        if self._plain:
            self._arrive_in_turn(packet, self._loop.time_ns() + self._latency_ns, later_ns)
            return
        link = self.link
        if link.mtu is not None and packet.protocol != "tcp" and packet.size_bytes > link.mtu:
            self.net.drop(packet, "mtu")
            return
        leaves_ns = self._leave(packet)
        if leaves_ns is None:
            self.net.drop(packet, "queue")
            return
        reason = self._fate()
        if reason is not None:
            self.net.drop(packet, reason)
            return
        if link.corrupt and self.random.random() < link.corrupt:
            if packet.protocol != "udp" or not packet.payload:
                self.net.drop(packet, "corrupt")
                return
            packet = self._corrupted(packet)
        self._cross(packet, leaves_ns, later_ns)
        if link.duplicate and self.random.random() < link.duplicate:
            self._cross(packet.copied(), leaves_ns, later_ns)

    def _leave(self, packet: Packet) -> int | None:
        """Return when the last bit leaves the sender's line and the link's bandwidth."""
        leaves_ns: int | None = self._loop.time_ns()
        size_bytes = packet.size_bytes
        if self._up_line is not None and leaves_ns is not None:
            # A host does not drop its own segments: what its line cannot take waits in the socket.
            leaves_ns = self._up_line.admit(leaves_ns, size_bytes, patient=packet.protocol == "tcp")
        if leaves_ns is not None:
            leaves_ns = self._line.admit(leaves_ns, size_bytes)
        return leaves_ns

    def _fate(self) -> str | None:
        """Draw whether a packet vanishes, and return why."""
        link = self.link
        if link.burst_loss is not None:
            begins, ends = link.burst_loss
            draw = self.random.random()
            self._bursting = draw >= ends if self._bursting else draw < begins
            if self._bursting:
                return "burst"
        return "loss" if link.loss and self.random.random() < link.loss else None

    def _corrupted(self, packet: Packet) -> Packet:
        damaged = packet.copied()
        payload = bytearray(packet.payload)
        bit = self.random.randrange(8 * len(payload))
        payload[bit // 8] ^= 1 << bit % 8
        damaged.payload = bytes(payload)
        self.net.note("corrupt", damaged)
        return damaged

    def _cross(self, packet: Packet, leaves_ns: int, later_ns: int) -> None:
        link = self.link
        jitter_ns = int(self.random.random() * link.jitter * NS) if link.jitter else 0
        if link.reorder and self.random.random() < link.reorder:
            self._loop.schedule(leaves_ns + self._latency_ns // 2 + jitter_ns + later_ns, packet)
        else:
            self._arrive_in_turn(packet, leaves_ns + self._latency_ns + jitter_ns, later_ns)

    def _arrive_in_turn(self, packet: Packet, arrives_ns: int, later_ns: int) -> None:
        """Let a packet arrive after those before it; one that a rule delays keeps none behind it waiting."""
        if arrives_ns < self._last_arrival_ns:
            arrives_ns = self._last_arrival_ns
        else:
            self._last_arrival_ns = arrives_ns
        self._loop.schedule(arrives_ns + later_ns, packet)

    def land(self, packet: Packet, line: Line) -> None:
        """Take a packet through the access line of its target."""
        lands_ns = line.admit(self._loop.time_ns(), packet.size_bytes)
        if lands_ns is None:
            self.net.drop(packet, "queue")
        else:
            self._loop.schedule(lands_ns, packet)
