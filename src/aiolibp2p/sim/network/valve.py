"""Valves: what lets packets through, holds them back or swallows them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from aiolibp2p.sim.network.packet import Packet

Drop = Callable[[Packet, str], object]


class Valve:
    """Lets through what is sent, holds it back, or swallows it."""

    __slots__ = ("_drop", "_held", "_reason", "state")

    def __init__(self, drop: Drop) -> None:
        """Make an open one; `drop` is called with what it swallows, and why."""
        self.state: Literal["open", "held", "cut"] = "open"
        self._drop = drop
        self._reason = "cut"
        self._held: deque[tuple[Callable[[Packet], object], Packet]] = deque()

    @property
    def held(self) -> list[Packet]:
        """What is held back, first come first."""
        return [packet for _, packet in self._held]

    def hold(self) -> None:
        """Keep what is sent from now on until `open`."""
        self.state = "held"

    def cut(self, reason: str = "cut") -> None:
        """Swallow what is held and what is sent from now on; TCP sends it again after `open`."""
        self.state = "cut"
        self._reason = reason
        held, self._held = self._held, deque()
        for _, packet in held:
            self._drop(packet, reason)

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
            self._drop(packet, self._reason)
