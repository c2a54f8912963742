"""Rules: what a test decides about single packets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from aiolibp2p.sim.network.packet import Packet

Verdict = Literal["drop", "duplicate"] | float | None
"""Lose the packet, let it arrive twice, let it arrive so many seconds later, or have no opinion."""
Rule = Callable[[Packet], Verdict]


def judge(rules: Iterable[Rule], packet: Packet) -> Verdict:
    """Return the first opinion that one of the rules has.

    Raises:
        ValueError: a rule returned what is no verdict.
    """
    for rule in rules:
        verdict = rule(packet)
        if verdict is None:
            continue
        if verdict not in ("drop", "duplicate") and not (isinstance(verdict, int | float) and verdict >= 0):
            raise ValueError(f"a rule returned {verdict!r}: it is None, 'drop', 'duplicate' or seconds")
        return verdict
    return None
