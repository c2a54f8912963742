"""A peer as one session sees it: what is expected of it, since when, and how it has done so far."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.bitswap.wantlist import Wantlist

P = TypeVar("P", bound=Hashable)

OVERTAKEN = 16
"""Younger wants answered before the oldest one: from then on their bytes excuse it no longer."""
DONT_HAVES = 16
"""DONT_HAVEs in a row after which a peer is no longer preferred for what it had before."""
UNPROVEN = 8
"""Blocks asked at a time of a peer that has had nothing yet."""
SMOOTHING = 8
"""Samples over which sizes and delays are averaged."""
PATIENCE = 4
"""How many times its usual delay an answer may take."""
REFILL = 0.75
"""Which part of its window a peer has left to send when it is asked for more."""
QUICKEST = 10
"""Which part of `Timeouts.bitswap_answer` an answer may take however quick the peer was."""


class Candidate(Generic[P]):
    """A peer that may have the blocks of a session.

    Args:
        wantlist: what is wanted of it, over all sessions.
        limits: `yamux_window_max` is what is asked of it at a time, in bytes; `bitswap_bytes_per_second`.
        timeouts: `bitswap_answer`.
    """

    def __init__(self, wantlist: Wantlist[P], limits: Limits, timeouts: Timeouts) -> None:
        self.wantlist = wantlist
        self.silent = False
        """Whether it has let everything asked of it go unanswered for too long."""
        self.heard_at = -math.inf
        self.interval = 0.0
        """Usual seconds for one block: the delay over the number of wants there."""
        self._slowest = limits.bitswap_bytes_per_second
        self._answer_within = timeouts.bitswap_answer
        self._window_bytes = limits.yamux_window_max
        self._expected: dict[bytes, tuple[float, int]] = {}
        self._head_at = 0.0
        self._filled = False
        self._overtaken = 0
        self._had = False
        self._absent_in_row = 0
        self._delay: float | None = None
        self._mean_bytes = float(limits.bitswap_batch_bytes)

    @property
    def expected(self) -> int:
        """How many blocks it is expected to send."""
        return len(self._expected)

    @property
    def trusted(self) -> bool:
        """Whether it has had something of this session, and not lately only lacked things."""
        return self._had and self._absent_in_row < DONT_HAVES

    @property
    def free(self) -> bool:
        """Whether one more block may be asked for."""
        n = len(self._expected)
        if self.wantlist.room <= 0:
            return False
        return n < 2 or not self._filled if self._had else n < UNPROVEN

    def expect(self, cid: bytes, now: float) -> None:
        """Expect a block, behind those already expected."""
        if not self._expected:
            self._head_at = now
            self._overtaken = 0
        self._expected[cid] = now, len(self._expected) + 1
        if len(self._expected) * self._mean_bytes >= self._window_bytes:
            self._filled = True

    def excuse(self, cid: bytes, now: float) -> None:
        """Expect a block no longer, if it was."""
        if self._expected and next(iter(self._expected)) == cid:
            self._head_at = now
            self._overtaken = 0
        self._expected.pop(cid, None)
        self._look_how_full()

    def answered(self, cid: bytes, now: float) -> None:
        """Take note of an answer to what was expected, with or without the block."""
        if self._expected and cid in self._expected and next(iter(self._expected)) != cid:
            self._overtaken += 1
        self.excuse(cid, now)

    def received_block(self, cid: bytes, n_bytes: int, now: float) -> None:
        """Take note of a block."""
        self._had = True
        self._absent_in_row = 0
        self._mean_bytes += (n_bytes - self._mean_bytes) / SMOOTHING
        expected = self._expected.get(cid)
        if expected is not None:
            delay = now - expected[0]
            interval = delay / expected[1]
            if self._delay is None:
                self._delay, self.interval = delay, interval
            else:
                self._delay += (delay - self._delay) / SMOOTHING
                self.interval += (interval - self.interval) / SMOOTHING
            self.answered(cid, now)

    def received_bytes(self, n_bytes: int, now: float) -> None:
        """Take note of part of a message: it excuses the peer for as long as the slowest one needs for it."""
        self.heard_at = min(now, max(self.heard_at, self._head_at) + n_bytes / self._slowest)

    def received_have(self) -> None:
        """Take note of a HAVE."""
        self._had = True
        self._absent_in_row = 0

    def received_dont_have(self, cid: bytes, now: float) -> None:
        """Take note of a DONT_HAVE."""
        self._absent_in_row += 1
        self.answered(cid, now)

    def deadline(self) -> float:
        """Return when it is late; `math.inf` where nothing is expected."""
        if not self._expected:
            return math.inf
        since = self._head_at if self._overtaken >= OVERTAKEN else max(self._head_at, self.heard_at)
        if self._delay is None:
            return since + self._answer_within
        return since + min(max(self._delay * PATIENCE, self._answer_within / QUICKEST), self._answer_within)

    def late(self, now: float) -> list[bytes]:
        """Return what is late, and expect it no longer: the oldest, or, of a silent peer, everything."""
        if self.deadline() > now:
            return []
        if self._overtaken >= OVERTAKEN:
            late = [next(iter(self._expected))]
            del self._expected[late[0]]
        else:
            late = list(self._expected)
            self._expected.clear()
            self.silent = True
        self._head_at = now
        self._overtaken = 0
        self._look_how_full()
        return late

    def _look_how_full(self) -> None:
        # Wants go in groups: one message for each block that comes would cost both sides a packet and a wake-up.
        if len(self._expected) * self._mean_bytes < self._window_bytes * REFILL:
            self._filled = False
