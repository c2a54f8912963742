"""What a peerstore knows of one peer: in the form that is shown and kept, and in the form that it works with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aiolibp2p.identity.keys import PublicKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.peer_id import PeerId


class Source(StrEnum):
    """How an address is known, the best first."""

    GIVEN = "given"
    """The user has said so."""
    DIALLED = "dialled"
    """A dial has reached the peer there."""
    SIGNED = "signed"
    """The peer has signed it."""
    IDENTIFIED = "identified"
    """The peer has said so, unsigned, on a connection of its own."""
    FOUND = "found"
    """Others say so."""


RANK: Final = {source: rank for rank, source in enumerate(Source)}
"""Their order as numbers: the best is 0."""

# What the objects of a peer take in memory, beside the bytes and letters in them.
_PEER_BYTES: Final = 700
_ADDRESS_BYTES: Final = 450
_PROTOCOL_BYTES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAddress:
    """An address of a peer."""

    address: Multiaddr
    """Without the peer's ID."""
    source: Source
    seconds_left: float
    """Until it is forgotten, which is never at `math.inf`; where it is `held`, from the end of the last connection."""
    held: bool
    """Whether it stays for as long as the peer is connected."""
    claimed: Source | None
    """Whether the peer's last word named it: SIGNED or IDENTIFIED."""
    backing_off: float = 0.0
    """Seconds for which it is left alone, as dials have failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPeer:
    """What is known of a peer."""

    peer_id: PeerId
    addresses: tuple[KnownAddress, ...] = ()
    """The best first."""
    protocols: tuple[str, ...] = ()
    agent: str | None = None
    public_key: PublicKey | None = None
    record_seq: int | None = None
    """The sequence number of its signed record."""
    connected: bool = False
    last_seen: float | None = None
    """Seconds since 1970 when a connection was last made or ended; None: never connected."""


class AddressEntry:
    """An address, and how it is known."""

    __slots__ = ("claimed", "confirmed_at", "expires_at", "held", "source")

    def __init__(self, source: Source, now: float, expires_at: float) -> None:
        self.source = source
        self.confirmed_at = now
        self.expires_at = expires_at
        self.held = False
        self.claimed: Source | None = None


class PeerEntry:
    """A peer, and how many connections it has."""

    __slots__ = (
        "addresses",
        "agent",
        "connections",
        "last_seen",
        "protocols",
        "public_key",
        "reached",
        "record_seq",
        "size_bytes",
    )

    def __init__(self) -> None:
        self.addresses: dict[Multiaddr, AddressEntry] = {}
        self.protocols: tuple[str, ...] = ()
        self.agent: str | None = None
        self.public_key: PublicKey | None = None
        self.record_seq: int | None = None
        self.connections = 0
        self.last_seen: float | None = None
        self.reached = False
        self.size_bytes = 0
        """What it counts for in the store's bound; 0 while it is connected."""

    def is_live(self, known: AddressEntry, now: float) -> bool:
        """Whether an address has not expired."""
        return known.expires_at > now or (known.held and self.connections > 0)

    @property
    def is_given(self) -> bool:
        """Whether the user has given an address that does not expire."""
        return any(known.source is Source.GIVEN and known.expires_at == math.inf for known in self.addresses.values())

    def measure(self) -> int:
        """Return about what it takes in memory."""
        size = _PEER_BYTES + len(self.agent or "")
        size += sum(_ADDRESS_BYTES + len(bytes(address)) for address in self.addresses)
        return size + sum(_PROTOCOL_BYTES + len(protocol) for protocol in self.protocols)

    def make_room(self, source: Source, now: float) -> bool:
        """Forget the address that is worth least; return whether one was worth no more than a new one of `source`."""

        def worth(item: tuple[Multiaddr, AddressEntry]) -> tuple[bool, int, float]:
            return self.is_live(item[1], now), -RANK[item[1].source], item[1].confirmed_at

        address, known = min(self.addresses.items(), key=worth)
        if self.is_live(known, now):
            worse = RANK[known.source] - RANK[source]
            # Of one list, what comes first stays.
            if worse < 0 or (worse == 0 and known.confirmed_at >= now):
                return False
        del self.addresses[address]
        return True

    @property
    def has_signed(self) -> bool:
        """Whether it has an address from a signed record."""
        return any(known.claimed is Source.SIGNED for known in self.addresses.values())

    def ranked(self, now: float) -> list[tuple[Multiaddr, AddressEntry]]:
        """Return the addresses that have not expired, the best first, and of one source the one with newest news."""
        live = [(address, known) for address, known in self.addresses.items() if self.is_live(known, now)]
        live.sort(key=lambda item: (RANK[item[1].source], -item[1].confirmed_at))
        return live

    def expire(self, now: float) -> None:
        """Forget what has expired of a peer without a connection."""
        for address in [address for address, known in self.addresses.items() if known.expires_at <= now]:
            del self.addresses[address]

    def withdraw(self, said: Iterable[Multiaddr], source: Source) -> None:
        """Forget what the peer said before and says no more; an unsigned word does not outweigh a signed one."""
        said_now = set(said)
        for address, known in list(self.addresses.items()):
            if known.claimed is None or address in said_now:
                continue
            if source is Source.IDENTIFIED and known.claimed is Source.SIGNED:
                continue
            if known.source is Source.GIVEN:
                known.claimed = None
            else:
                del self.addresses[address]
