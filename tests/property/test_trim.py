"""Whatever connections there are, nothing is closed that must stay, and nothing that is of more use than what stays."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from aiolibp2p.net.trim import LOOKS, Candidate, choose

TIMES = st.integers(0, 30).map(float)
CANDIDATES = st.lists(
    st.builds(
        lambda number, **facts: Candidate(connection=number, **facts),
        st.uuids(),
        peer=st.integers(0, 8),
        made_at=TIMES,
        used_at=TIMES,
        inbound=st.booleans(),
        opened_streams=st.integers(0, 2),
        accepted_streams=st.integers(0, 2),
        protected=st.booleans(),
    ),
    max_size=20,
)


@given(CANDIDATES, st.integers(0, 20), st.integers(0, 20), TIMES)
def test_what_is_closed_may_be_closed_and_is_of_least_use(candidates, low, high, grace) -> None:  # type: ignore[no-untyped-def]
    now = 30.0
    trim = choose(candidates, low=low, high=high, grace=grace, now=now)
    by_name = {candidate.connection: candidate for candidate in candidates}
    closed = [by_name[name] for name in trim.close]
    left = [candidate for candidate in candidates if candidate not in closed]
    assert len(set(trim.close)) == len(trim.close)
    closable = [each for each in candidates if not each.protected and now - each.made_at >= grace]
    assert all(candidate in closable for candidate in closed)
    if len(candidates) <= high:
        assert not closed
        assert trim.again_at == math.inf
        return
    # As many as are needed, or all that may be; of those in use only as many as have to.
    idle = sum(not candidate.in_use for candidate in closed)
    assert idle == min(sum(not each.in_use for each in closable), len(candidates) - min(low, high))
    young = sum(not each.protected and now - each.made_at < grace for each in candidates)
    over = len(candidates) - idle - high
    assert len(closed) - idle == max(0, min(over - young, len(closable) - idle if over > 0 else 0))
    spared = [candidate for candidate in left if candidate in closable]
    for gone in closed:
        for kept in spared:
            assert (gone.opened_streams > 0) <= (kept.opened_streams > 0)
            if (gone.opened_streams > 0) == (kept.opened_streams > 0):
                assert (gone.accepted_streams > 0) <= (kept.accepted_streams > 0)


@given(CANDIDATES, st.integers(0, 20), TIMES)
def test_looking_again_when_told_to_comes_to_the_high_mark_where_that_can_be(candidates, high, grace) -> None:  # type: ignore[no-untyped-def]
    now, looks = 30.0, 0
    left = {candidate.connection: candidate for candidate in candidates}
    while True:
        trim = choose(left.values(), low=high, high=high, grace=grace, now=now)
        for name in trim.close:
            del left[name]
        if trim.again_at == math.inf:
            break
        assert trim.again_at > now, "looking again at once would never end"
        now, looks = trim.again_at, looks + 1
    assert looks <= LOOKS + 1
    protected = sum(candidate.protected for candidate in candidates)
    assert len(left) <= max(high, protected)
