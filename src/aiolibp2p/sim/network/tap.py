"""What was sent, when and by whom, and what was lost and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from aiolibp2p.sim.network.packet import Packet

Side = Literal["client", "server"]
Kind = Literal["data", "fin", "rst"]


class Sent(NamedTuple):
    """One segment that left an end of a connection; one that TCP had to repeat is recorded once."""

    at_ns: int
    connection: int
    by: Side
    kind: Kind
    data: bytes


class Seen(NamedTuple):
    """One packet of any protocol at the beginning of its path; what TCP repeats and acknowledges is here too."""

    at_ns: int
    packet: Packet


class Drop(NamedTuple):
    """One packet that was lost; `SimNet.drop` tells the reasons there are."""

    at_ns: int
    packet: Packet
    reason: str


@dataclass(slots=True)
class Tap:
    """A record of what crosses a network; `SimNet.tap` makes one."""

    segments: list[Sent] = field(default_factory=list)
    packets: list[Seen] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)

    def sent_by(self, side: Side, connection: int | None = None) -> list[tuple[int, bytes]]:
        """Return the time in nanoseconds and the bytes of every data segment of one side."""
        return [
            (segment.at_ns, segment.data)
            for segment in self.segments
            if segment.by == side and segment.kind == "data" and connection in (None, segment.connection)
        ]

    def bytes_by(self, side: Side, connection: int | None = None) -> bytes:
        """Return all bytes that one side sent."""
        return b"".join(data for _, data in self.sent_by(side, connection))
