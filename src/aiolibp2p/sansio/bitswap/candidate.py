"""A peer as one session sees it: what is expected of it, since when, and how it has done so far."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.bitswap.quantile import RecentQuantile
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
PACED = 32
"""Blocks over which the time for one is averaged: several come at once."""
PATIENCE = 4
"""How many times its usual delay an answer may take."""
REFILL = 0.75
"""Which part of its window a peer has left to send when it is asked for more."""
QUICKEST = 10
"""Which part of `Timeouts.bitswap_answer` an answer may take however quick the peer was."""
USUAL = 0.95
"""The share of a peer's silences that are usual ones: in a longer one another peer is asked too."""
SILENCES = 64
"""Silences of a peer that are remembered."""
SILENCES_MIN = 20
"""How many are known before one of them can be unusual: so one of these can."""
HEDGE_QUICKEST = 100
"""Which part of `Timeouts.bitswap_answer` a silence is usual however quick the peer was."""
HEDGE_GROWTH = 4
"""How many times as many wants are asked of others too when a silence lasts twice as long."""


class Candidate(Generic[P]):
    """A peer that may have the blocks of a session.

    Its silences are measured: the longest time without a byte before each answer, counted from when that want has
    become the oldest one there, since a server answers one after the other.

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
        self._answered_at = -math.inf
        self._alone: float | None = None
        self._pace: tuple[float, float] = 0.0, 0.0
        """Seconds between answers while more was expected, and how many answers, old ones counting less and less."""
        self._told_after: float | None = None
        self._mean_bytes = float(limits.bitswap_batch_bytes)
        self._silences = RecentQuantile(USUAL, size=SILENCES, least=SILENCES_MIN)
        self._longest = 0.0
        self._counted = False
        """Whether the present silence is among those remembered."""
        self._hedged: set[bytes] = set()
        self._hedges = 0

    @property
    def expected(self) -> int:
        """How many blocks it is expected to send."""
        return len(self._expected)

    @property
    def interval(self) -> float | None:
        """Usual seconds for one block; None before the first.

        Of blocks that were asked for while others were expected, where there are any: the way there and back counts
        only for the first.
        """
        seconds, n = self._pace
        return seconds / n if n else self._alone

    @property
    def trusted(self) -> bool:
        """Whether it has had something of this session, and not lately only lacked things."""
        return self._had and self._absent_in_row < DONT_HAVES

    @property
    def unknown(self) -> bool:
        """Whether it has had nothing yet."""
        return not self._had

    @property
    def barren(self) -> bool:
        """Whether it lacks so much that others are asked first; if it had something, one block at a time is even so."""
        return self._absent_in_row >= DONT_HAVES and (not self._had or bool(self._expected))

    @property
    def free(self) -> bool:
        """Whether one more block may be asked for."""
        n = len(self._expected)
        if (n >= 2 and self._filled) if self._had else n >= UNPROVEN:
            return False
        return self.wantlist.room > 0

    def expect(self, cid: bytes, now: float) -> None:
        """Expect a block, behind those already expected."""
        if not self._expected:
            self._head_at = now
            self._longest = 0.0
            self._overtaken = self._hedges = 0
        self._expected[cid] = now, len(self._expected) + 1
        # By wants too: where blocks are small, the window of wants is full before that of bytes.
        if len(self._expected) * self._mean_bytes >= self._window_bytes or self.wantlist.room <= 1:
            self._filled = True

    def excuse(self, cid: bytes, now: float) -> None:
        """Expect a block no longer, if it was: somebody else has sent it, or nobody wants it."""
        at_head = bool(self._expected) and next(iter(self._expected)) == cid
        if at_head and cid in self._hedged:
            self._count_silence(now)
        self._expected.pop(cid, None)
        self._hedged.discard(cid)
        if at_head:
            self._overtaken = 0
            if self._expected:
                # The peer has said nothing: the next one is not waited for from now on.
                self._head_at = max(self._head_at, next(iter(self._expected.values()))[0])
        self._look_how_full()

    def answered(self, cid: bytes, now: float) -> None:
        """Take note of an answer to what was expected, with or without the block."""
        if cid not in self._expected:
            return
        if next(iter(self._expected)) == cid:
            self._count_silence(now)
            self._head_at = now
            self._longest = 0.0
            self._overtaken = 0
        else:
            self._overtaken += 1
        del self._expected[cid]
        self._hedged.discard(cid)
        self._look_how_full()

    def heard(self, now: float) -> None:
        """Take note that the peer has answered something."""
        self._end_silence(now)
        self.heard_at = now
        self._hedges = 0
        self._counted = False

    def received_block(self, cid: bytes, n_bytes: int, now: float) -> None:
        """Take note of a block."""
        self._had = self.wantlist.useful = True
        self._absent_in_row = 0
        self._mean_bytes += (n_bytes - self._mean_bytes) / SMOOTHING
        expected = self._expected.get(cid)
        if expected is not None:
            asked_at, position = expected
            self._delay = _smoothed(self._delay, now - asked_at)
            if position == 1:
                self._alone = _smoothed(self._alone, now - asked_at)
            else:
                seconds, n = self._pace
                seconds += now - max(asked_at, self._answered_at)
                self._pace = seconds * (1 - 1 / PACED), n * (1 - 1 / PACED) + 1 - 1 / PACED
            self._answered_at = now
            self.answered(cid, now)

    def received_bytes(self, n_bytes: int, now: float) -> None:
        """Take note of part of a message: it excuses the peer for as long as the slowest one needs for it."""
        self._end_silence(now)
        self.heard_at = min(now, max(self.heard_at, self._head_at) + n_bytes / self._slowest)
        if self.heard_at == now:
            self._hedges = 0
            self._counted = False

    def received_have(self, after: float | None) -> None:
        """Take note of a HAVE, so many seconds after the peer was asked; None: it was not."""
        self._had = self.wantlist.useful = True
        self._absent_in_row = 0
        self._take_told(after)

    def received_dont_have(self, cid: bytes, after: float | None, now: float) -> None:
        """Take note of a DONT_HAVE, so many seconds after the peer was asked; None: it was not."""
        self._absent_in_row += 1
        self._take_told(after)
        self.answered(cid, now)

    # -- how long it may take ----------------------------------------------------------------------------------------

    def overdue(self, told_at: float, now: float) -> bool:
        """Return whether the answer to "have you got it?", asked then, takes longer than this peer's usually do."""
        return told_at + self._patience(self._delay if self._told_after is None else self._told_after) <= now

    def deadline(self) -> float:
        """Return when it is late; `math.inf` where nothing is expected."""
        return self._since() + self._patience(self._delay) if self._expected else math.inf

    def hedge_at(self) -> float:
        """Return when its silence is an unusual one, or so much longer that more wants are; `math.inf` for never."""
        usual = self._silences.value
        if usual is None or len(self._hedged) >= len(self._expected) or (self._overtaken >= OVERTAKEN and self._hedges):
            return math.inf
        return self._since() + max(usual, self._answer_within / HEDGE_QUICKEST) * float(1 << self._hedges)

    def hedges(self, now: float) -> list[bytes]:
        """Return, once each, what is to be asked of others too: the oldest, and, as the silence lasts, ever more."""
        if self.hedge_at() > now:
            return []
        n = HEDGE_GROWTH**self._hedges
        self._hedges += 1
        found = []
        for cid in self._expected:
            if cid not in self._hedged:
                found.append(cid)
                if len(found) == n:
                    break
        self._hedged.update(found)
        return found

    def late(self, now: float) -> list[bytes]:
        """Return what is late, and expect it no longer: the oldest, or, of a silent peer, everything."""
        if self.deadline() > now:
            return []
        self._count_silence(now)
        if self._overtaken >= OVERTAKEN:
            late = [next(iter(self._expected))]
            del self._expected[late[0]]
        else:
            late = list(self._expected)
            self._expected.clear()
            self.silent = True
        self._hedged.difference_update(late)
        self._head_at = now
        self._longest = 0.0
        self._overtaken = 0
        self._look_how_full()
        return late

    # -- inside ------------------------------------------------------------------------------------------------------

    def _since(self) -> float:
        return self._head_at if self._overtaken >= OVERTAKEN else max(self._head_at, self.heard_at)

    def _patience(self, usual: float | None) -> float:
        if usual is None:
            return self._answer_within
        return min(max(usual * PATIENCE, self._answer_within / QUICKEST), self._answer_within)

    def _take_told(self, after: float | None) -> None:
        if after is not None:
            self._told_after = _smoothed(self._told_after, after)

    def _count_silence(self, now: float) -> None:
        if not self._counted:
            self._silences.add(max(self._longest, now - self._since()))
            # One that others' answers end for several wants is one silence all the same.
            self._counted = True

    def _end_silence(self, now: float) -> None:
        if self._expected and not self._counted:
            self._longest = max(self._longest, now - self._since())

    def _look_how_full(self) -> None:
        # Wants go in groups: one message for each block that comes would cost both sides a packet and a wake-up.
        n = len(self._expected)
        if n * self._mean_bytes < self._window_bytes * REFILL and n < self.wantlist.most * REFILL:
            self._filled = False


def _smoothed(mean: float | None, sample: float) -> float:
    return sample if mean is None else mean + (sample - mean) / SMOOTHING
