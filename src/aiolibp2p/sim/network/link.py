"""Links and lines: what a packet meets between two hosts."""

from __future__ import annotations

from dataclasses import dataclass

from aiolibp2p.sim.scheduler import NS

_FRACTIONS = ("loss", "duplicate", "reorder", "corrupt")


@dataclass(frozen=True, kw_only=True)
class Link:
    """How one host reaches another, in one direction.

    What is random is drawn from a seeded stream of the direction's own, so that a packet more on one link changes
    nothing on another.
    """

    latency: float = 0.0
    """Seconds from one end to the other."""
    jitter: float = 0.0
    """Up to this many seconds more, drawn evenly for each packet. Packets keep their order: one that was sent later
    waits for those before it."""
    loss: float = 0.0
    """The fraction of packets that vanish, each by itself; TCP sends them again."""
    burst_loss: tuple[float, float] | None = None
    """The fractions of packets at which a burst begins, and at which one ends (Gilbert-Elliott): in a burst every
    packet vanishes, 1 / end of them on average."""
    duplicate: float = 0.0
    """The fraction of packets that arrive twice; the second copy has a jitter of its own."""
    reorder: float = 0.0
    """The fraction of packets that overtake: such a packet takes half the latency and waits for none before it."""
    corrupt: float = 0.0
    """The fraction of packets in which one bit is flipped. A datagram arrives with a wrong payload; a TCP segment, and
    a packet without payload, does not pass its checksum and is lost."""
    bandwidth: float | None = None
    """Bits per second, headers included; None is unlimited. Packets leave one after the other."""
    queue_bytes: int | None = None
    """Bytes that may wait for the bandwidth, the rest of the packet that is leaving included: a packet that finds no
    room is dropped, except when nothing waits. None is unlimited."""
    mtu: int | None = None
    """Bytes of the largest packet, headers included: a larger datagram is dropped, and TCP cuts its segments to fit.
    None is unlimited."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ValueError: one has no meaning.
        """
        for name in _FRACTIONS:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is not a fraction between 0 and 1")
        if self.burst_loss is not None and not all(0 <= share <= 1 for share in self.burst_loss):
            raise ValueError(f"burst_loss {self.burst_loss} are not fractions between 0 and 1")
        if self.latency < 0 or self.jitter < 0:
            raise ValueError("latency and jitter cannot be negative")
        if self.bandwidth is not None and self.bandwidth <= 0:
            raise ValueError(f"bandwidth {self.bandwidth} is not positive; None is unlimited")
        if self.mtu is not None and self.mtu < MTU_MIN:
            raise ValueError(f"mtu {self.mtu} is less than the {MTU_MIN} that every link of the internet carries")

    @property
    def is_plain(self) -> bool:
        """Whether all it does is to take time."""
        return (
            self.bandwidth is None
            and self.mtu is None
            and self.burst_loss is None
            and not (self.jitter or self.loss or self.duplicate or self.reorder or self.corrupt)
        )


MTU_MIN = 576


class Line:
    """A bandwidth with a queue in front of it, computed without an event for each byte."""

    __slots__ = ("_busy_until_ns", "bandwidth", "queue_bytes")

    def __init__(self, bandwidth: float | None = None, queue_bytes: int | None = None) -> None:
        """Make an idle line; `bandwidth` is in bits per second, and None is unlimited."""
        self.bandwidth = bandwidth
        self.queue_bytes = queue_bytes
        self._busy_until_ns = 0

    def admit(self, now_ns: int, size_bytes: int, *, patient: bool = False) -> int | None:
        """Return when the last bit of a packet leaves, or None if it finds no room and cannot wait."""
        if self.bandwidth is None:
            return now_ns
        waits_ns = self._busy_until_ns - now_ns
        if waits_ns > 0 and self.queue_bytes is not None and not patient:
            waiting_bytes = waits_ns * self.bandwidth / (8 * NS)
            if waiting_bytes + size_bytes > self.queue_bytes:
                return None
        self._busy_until_ns = max(now_ns, self._busy_until_ns) + round(size_bytes * 8 * NS / self.bandwidth)
        return self._busy_until_ns
