"""Packets: what crosses the network, as rules, taps and traces see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from aiolibp2p.sim.scheduler import SimEvent

if TYPE_CHECKING:
    from aiolibp2p.sim.network.host import Host
    from aiolibp2p.sim.network.path import Path

Address = tuple[str, int]
Protocol = Literal["tcp", "udp", "icmp"]

_IPV6_BYTES = 20
"""What the header of IPv6 is longer than that of IPv4."""


class Packet(SimEvent):
    """One packet under way, which is also the event of its arrival.

    Who sees one may read everything and change nothing.
    """

    __slots__ = ("_landed", "number", "path", "payload", "sender", "source", "target")

    protocol: Protocol
    """What it is."""
    flags: str
    """For TCP "syn", "syn ack", "ack", "fin ack" or "rst"; else empty."""
    header_bytes: int
    """The headers of IPv4 and of the protocol."""

    def __init__(self, sender: Host, source: Address, target: Address, payload: bytes = b"") -> None:
        """Make a packet of a host; addresses are those on the packet."""
        self._cancelled = False
        self._landed = False
        self.sender = sender
        self.source = source
        self.target = target
        self.payload = payload
        self.number = 0
        """Which packet on its path it is, from 1 on."""
        self.path: Path
        """Where it crosses; its `target` is the host that gets it."""

    def __repr__(self) -> str:
        what = f"{self.protocol} {self.flags}".rstrip()
        return f"<Packet {self.number} {what} {self.source}->{self.target} {self.size_bytes} bytes>"

    @property
    def size_bytes(self) -> int:
        """The whole packet with its headers, which is what bandwidth, queues and MTU count."""
        return len(self.payload) + self.header_bytes + (_IPV6_BYTES if ":" in self.target[0] else 0)

    def copied(self) -> Packet:
        """Return another packet with the same facts, for an event of its own."""
        other: Packet = object.__new__(type(self))
        for kind in type(self).__mro__:
            for name in getattr(kind, "__slots__", ()):
                if name != "_run":  # which is a method here
                    setattr(other, name, getattr(self, name))
        return other

    def _run(self) -> None:
        # The last bit reaches the target's access line; what that line delays happens once more, behind it.
        receiver = self.path.target
        if receiver is None or not receiver.is_up:
            self.path.net.drop(self, "down")
        elif receiver.down_line is None or self._landed or receiver is self.sender:
            self.arrive()
        else:
            self._landed = True
            self.path.land(self, receiver.down_line)

    def arrive(self) -> None:
        """Do what its arrival does at the host that gets it."""
        raise NotImplementedError

    def lose(self, reason: str) -> None:
        """Do what its loss does, which the simulation knows and its sender would have to find out."""
