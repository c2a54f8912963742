"""What became of a dial: every address that was tried or left out, when, for how long, and why it lost.

Plain values: errors carry them, connections carry them, and the command line prints them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["connected", "failed", "lost", "left out", "under way"]
"""`lost`: another address was faster; `left out`: it was never dialled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressReport:
    """What became of one address of a dial. Times are seconds since the dial began."""

    address: str
    name: str | None = None
    """The address with a name that led to it, where it came from one."""
    outcome: Outcome
    began: float | None = None
    """When its dial began, or the look-up of its name; None where it was left out."""
    seconds: float | None = None
    """How long that took, until its end; None where it was left out."""
    stages: tuple[tuple[str, float], ...] = ()
    """Its stages, in order, and the seconds that each took: `resolve`, `connect`, `security negotiation`,
    `noise handshake`. The last one is where it ended. The muxer is none of them: it is agreed on in the handshake, or
    without waiting for the answer. Of two sockets, they are those of the second."""
    sockets: int = 0
    """How many it took: a second one where the peer broke off when everything was sent at once."""
    reason: str | None = None
    """Why it did not lead to the connection."""
    error: BaseException | None = None
    """The error behind that, where there is one."""

    def to_json(self) -> dict[str, Any]:
        """Return it as what JSON can say."""
        return {
            "address": self.address,
            "name": self.name,
            "outcome": self.outcome,
            "began": self.began,
            "seconds": self.seconds,
            "stages": dict(self.stages),
            "sockets": self.sockets,
            "reason": self.reason,
            "error": None if self.error is None else type(self.error).__name__,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DialReport:
    """What became of a dial."""

    peer_id: str | None
    """Who was dialled; None where whoever answers would do."""
    seconds: float
    """How long it took."""
    addresses: tuple[AddressReport, ...]
    """In the order in which they became known; those that failed, or were left out, as well as the one that won."""
    more: int = 0
    """How many further ones there were: beyond `Limits.dial_addresses` nothing is looked at."""

    @property
    def winner(self) -> AddressReport | None:
        """The address that led to the connection, or None."""
        return next((address for address in self.addresses if address.outcome == "connected"), None)

    def to_json(self) -> dict[str, Any]:
        """Return it as what JSON can say."""
        return {
            "peer_id": self.peer_id,
            "seconds": self.seconds,
            "addresses": [address.to_json() for address in self.addresses],
            "more": self.more,
        }
