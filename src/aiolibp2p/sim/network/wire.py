"""What bytes cross: valves that let through, hold back or swallow, and paths with latency and bandwidth."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from aiolibp2p.sim.scheduler import NS, VirtualTimeLoop

HEADER_BYTES = 40
"""The IP and TCP header of a segment; it costs bandwidth."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """How one host reaches another, in one direction."""

    latency: float = 0.0
    """Seconds from one end to the other."""
    bandwidth: float | None = None
    """Bits per second; None is unlimited."""


@dataclass(slots=True, eq=False)
class Packet:
    """One segment under way: what it costs, and what happens when it arrives or is lost."""

    size_bytes: int
    arrive: Callable[[], object]
    lose: Callable[[], object]


class Valve:
    """Lets through what is sent, holds it back, or swallows it."""

    __slots__ = ("_held", "state")

    def __init__(self) -> None:
        self.state: Literal["open", "held", "cut"] = "open"
        self._held: deque[tuple[Callable[[Packet], object], Packet]] = deque()

    def hold(self) -> None:
        """Keep what is sent from now on until `open`."""
        self.state = "held"

    def cut(self) -> None:
        """Swallow what is held and what is sent from now on; TCP sends it again after `open`."""
        self.state = "cut"
        held, self._held = self._held, deque()
        for _, packet in held:
            packet.lose()

    def open(self) -> None:
        """Let through what is held, in order, and everything from now on."""
        self.state = "open"
        held, self._held = self._held, deque()
        for onward, packet in held:
            onward(packet)

    def admit(self, packet: Packet, onward: Callable[[Packet], object]) -> None:
        """Do with one packet what the state says."""
        if self.state == "open":
            onward(packet)
        elif self.state == "held":
            self._held.append((onward, packet))
        else:
            packet.lose()


class Path:
    """One direction between two hosts; all their connections share it."""

    __slots__ = ("_busy_until_ns", "_last_arrival_ns", "_latency_ns", "link", "loop", "valve")

    def __init__(self, loop: VirtualTimeLoop, link: Link) -> None:
        self.loop = loop
        self.valve = Valve()
        self._busy_until_ns = 0
        self._last_arrival_ns = 0
        self.set_link(link)

    def set_link(self, link: Link) -> None:
        """Change latency and bandwidth for what is sent from now on."""
        self.link = link
        self._latency_ns = round(link.latency * NS)

    def carry(self, packet: Packet) -> None:
        """Let the packet arrive when its last bit does; what was sent first arrives first."""
        leaves_ns = self.loop.time_ns()
        if self.link.bandwidth is not None:
            bits = (packet.size_bytes + HEADER_BYTES) * 8
            leaves_ns = max(leaves_ns, self._busy_until_ns) + round(bits * NS / self.link.bandwidth)
            self._busy_until_ns = leaves_ns
        arrives_ns = max(leaves_ns + self._latency_ns, self._last_arrival_ns)
        self._last_arrival_ns = arrives_ns
        self.loop.call_at_ns(arrives_ns, packet.arrive)


class Wire:
    """One direction of one connection: a valve of its own, then the path it shares."""

    __slots__ = ("path", "valve")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.valve = Valve()

    def send(self, packet: Packet) -> None:
        """Send one packet."""
        self.valve.admit(packet, self._enter_path)

    def _enter_path(self, packet: Packet) -> None:
        self.path.valve.admit(packet, self.path.carry)
