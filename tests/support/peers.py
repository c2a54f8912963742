"""Peers and addresses by number, and a clock that goes when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any

from aiolibp2p import Multiaddr, PeerId, PrivateKey
from aiolibp2p.identity.envelope import open_peer_record, seal_peer_record
from aiolibp2p.sansio.identify import Identify
from aiolibp2p.sim import SeededEntropy


class ManualClock:
    """A clock without a loop."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.wall_offset = 1.7e9

    def now(self) -> float:
        return self.seconds

    def wall(self) -> float:
        return self.seconds + self.wall_offset

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        raise NotImplementedError


@cache
def key_of(number: int) -> PrivateKey:
    """Return the key of a peer."""
    return PrivateKey.generate(SeededEntropy(f"peer {number}"))


def peer_of(number: int) -> PeerId:
    """Return a peer's ID."""
    return key_of(number).public.peer_id


@cache
def address_of(number: int) -> Multiaddr:
    """Return an address on the public network."""
    return Multiaddr(f"/ip4/8.8.{number >> 8}.{number & 255}/tcp/4001")


def said_by(number: int, *addresses: Multiaddr, seq: int | None = None, **more: Any) -> Identify:
    """Return what a peer says of itself: with a number, in a record that it signed."""
    record = None
    if seq is not None:
        record, _ = open_peer_record(seal_peer_record(key_of(number), seq, addresses))
    return Identify(listen_addresses=addresses, peer_record=record, **more)
