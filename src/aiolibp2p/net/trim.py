"""Which connections are closed when there are more than `Limits.connections_high`: those that are of least use.

As in go-libp2p's connection manager, there is a high and a low mark, and neither a young connection nor one to a
protected peer is touched. What go learns from tags, this takes from what the connections carry. Closed first are those

1. on which this host has opened no stream that is in use (it wants nothing of the peer),
2. and the peer none either (it wants nothing of this host),
3. beside an older connection to the same peer (streams are opened on that one),
4. that were dialled by the peer (whoever wants to fill the table can only dial),
5. and that were of use the longest time ago.

The first line that differs decides. Those without a stream in use go until `Limits.connections_low` are left, others
only until `Limits.connections_high` are, and not while young ones are there that may still go instead: no transfer ends
because many connect and do nothing. Nothing here reads a clock or closes anything.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

LOOKS = 8
"""How often it is worth looking again within the time in which a connection is young."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(Generic[T]):
    """What counts of one connection; times are of one monotonic clock."""

    connection: T
    peer: Hashable
    made_at: float
    used_at: float
    inbound: bool
    """Whether the peer has dialled."""
    opened_streams: int
    """Streams in use that this host has opened."""
    accepted_streams: int
    """Streams in use that the peer has opened."""
    protected: bool

    @property
    def in_use(self) -> bool:
        """Whether there is any stream in use."""
        return self.opened_streams > 0 or self.accepted_streams > 0


@dataclass(frozen=True, slots=True)
class Trim(Generic[T]):
    """What is to be closed, least useful first, and when to look again."""

    close: Sequence[T]
    again_at: float
    """When enough of the young ones are old; infinite where that changes nothing."""


def choose(candidates: Iterable[Candidate[T]], *, low: int, high: int, grace: float, now: float) -> Trim[T]:
    """Return which connections to close where there are more than `high`.

    Args:
        candidates: all connections that there are.
        low: how many are to be left of what is not in use, and what is; no more than `high`.
        high: up to so many nothing is closed, and what is in use stays.
        grace: seconds; what is younger stays.
        now: a reading of the clock that `made_at` and `used_at` are of.
    """
    everything = list(candidates)
    if len(everything) <= high:
        return Trim((), math.inf)
    oldest: dict[Hashable, float] = {}
    for candidate in everything:
        oldest[candidate.peer] = min(candidate.made_at, oldest.get(candidate.peer, math.inf))

    def use(candidate: Candidate[T]) -> tuple[bool, bool, bool, bool, float, float]:
        return (
            candidate.opened_streams > 0,
            candidate.accepted_streams > 0,
            candidate.made_at <= oldest[candidate.peer],
            not candidate.inbound,
            candidate.used_at,
            candidate.made_at,
        )

    unprotected = [candidate for candidate in everything if not candidate.protected]
    old = [candidate for candidate in unprotected if candidate.made_at + grace <= now]
    ripe = sorted(candidate.made_at + grace for candidate in unprotected if candidate.made_at + grace > now)
    chosen = sorted((candidate for candidate in old if not candidate.in_use), key=use)
    del chosen[len(everything) - min(low, high) :]
    over = len(everything) - len(chosen) - high
    if over > len(ripe):
        chosen += sorted((candidate for candidate in old if candidate.in_use), key=use)[: over - len(ripe)]
    again_at = math.inf
    if over > 0 and ripe:
        again_at = max(ripe[min(over, len(ripe)) - 1], now + grace / LOOKS)
    return Trim([candidate.connection for candidate in chosen], again_at)
