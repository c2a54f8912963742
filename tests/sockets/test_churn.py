"""Peers that come and go by the thousand, against a host in a process of its own: what `/proc` says is left of them.

The measurement `benchmarks/loopback/churn.py` is the same, ten times as long.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.loopback.churn import ROWS, Programs

pytestmark = [pytest.mark.sockets, pytest.mark.slow]

COUNTS = {"silent": (300, 700), "rounds": (100, 250), "strangers": (100, 200)}
"""Of the warm-up and of all. More silent sockets than `Limits.pending_inbound` warm up, so that as many are held as
later; whole connections take a processor longer than silent sockets do."""
SILENT_PER_SECOND = 600.0
"""A busy machine keeps up with that: what it does not accept in time waits in a queue of the system, in its order."""
RSS_ANON_MOST = 1.1
"""A short warm-up leaves more of what is allocated once for afterwards."""


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with Programs("asyncio", upgrade=1.5, remember=50) as running:
        yield running


@pytest.mark.parametrize("row", ROWS)
def test_who_comes_and_goes_leaves_nothing_and_an_honest_dial_gets_in_meanwhile(row: str, programs: Programs) -> None:
    """Case 3: T20: silent sockets, peers that come again, and peers that nobody has seen before."""
    found = programs.measure(row, *COUNTS[row], SILENT_PER_SECOND)
    before, warm, after = found["levels"].values()
    for what in ("tasks", "descriptors", "sockets", "pending", "connections", "streams"):
        assert before[what] == warm[what] == after[what], what
    assert after["rss_anon_bytes"] <= RSS_ANON_MOST * warm["rss_anon_bytes"]
    assert after["sockets"] == after["pending"] == after["connections"] == 0
    assert after["streams"] == [0, 0, 0]
    assert found["honest"]["failures"] == []
    assert len(found["honest"]["milliseconds"]) > 0
    if row == "silent":
        assert after["refusals"]["pending_inbound"] > 0
