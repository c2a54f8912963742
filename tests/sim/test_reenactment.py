"""One of the fourteen days, re-enacted: what each way of closing serves, to the block and the nanosecond."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

import pytest

from examples import why_close_never_waits as story
from examples.why_close_never_waits import live_through

DAY_BLOCKS = 2 * 100 * 144
"""What two honest peers fetch in a day: a file of 100 blocks each, every ten minutes."""


@lru_cache(maxsize=3)
def day(policy: int) -> story.Outcome:
    """Return one day under a policy."""
    return live_through(story.Outcome(policy, 1))


@pytest.mark.slow
def test_where_close_waits_for_the_answer_nothing_is_served_after_the_eighth_silence() -> None:
    outcome = day(1)
    assert outcome.per(story.HOUR) == [1200, 400] + [0] * 22
    assert max(outcome.arrivals) < story.silence_ns(8)
    assert outcome.since(8) == 0
    # While it serves nothing it answers pings within a round trip.
    assert round(outcome.ping_seconds * 1000) == 50


@pytest.mark.slow
def test_where_close_waits_for_ten_seconds_a_few_blocks_a_minute_are_served() -> None:
    outcome = day(2)
    # The workers' 160 s for the silent, shared by eight, and their 0.2 s for the honest: two blocks every 20.025 s.
    assert outcome.period_ns == 4 * 20_025_000_000
    late = outcome.per(story.HOUR)[4:]
    assert set(late) <= {358, 360}
    assert outcome.minutely() == pytest.approx(2 * 60 / 20.025, rel=0.01)
    assert max(outcome.fetches) > 30 * 60 * story.NS


@pytest.mark.slow
def test_where_close_waits_for_nobody_every_block_is_served_as_fast_as_before_the_first_silence() -> None:
    """T1: a day of sixteen that never answer; `make sweep` lives through all fourteen."""
    outcome = day(3)
    assert outcome.served == outcome.asked == DAY_BLOCKS
    assert set(outcome.per(story.HOUR)) == {1200}
    # One round trip, every time.
    assert outcome.fetches == [50_000_000] * 288
    # Sixteen silent peers that ask for four blocks an hour cost no more than each answer twice.
    assert outcome.read_for_silent <= 16 * 4 * 2 * 25


@pytest.mark.slow
def test_all_three_are_printed_and_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(story, "live_through", lambda outcome, **_options: day(outcome.policy))
    drawing = tmp_path / "blocks.svg"
    assert story.main(["--days", "1", "--svg", str(drawing)]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    assert "│ of those wanted   │" in out
    assert "28,800 of 28,800 blocks, every file within 50 ms" in " ".join(out.split())
    assert "of real time in all" in out
    lines = [element for element in ElementTree.parse(drawing).getroot() if element.tag.endswith("polyline")]
    assert len(lines) == 3


def test_what_repeats_is_counted_to_the_last_day_and_no_further() -> None:
    outcome = story.Outcome(2, 1, arrivals=[1, 5 * story.NS, 11 * story.NS, 14 * story.NS], period_ns=10 * story.NS)
    story.repeat(outcome, 13 * story.NS)
    # What came at 14 s came after the end; the ten seconds before it hold what came at 5 s and 11 s.
    assert outcome.arrivals[:5] == [1, *(seconds * story.NS for seconds in (5, 11, 15, 21))]
    assert outcome.arrivals[-1] == (story.DAY - 5) * story.NS
    assert outcome.served == 1 + 8640 + 8639
