"""The record of a run."""

from __future__ import annotations

from aiolibp2p.sim import Trace


def test_a_digest_stands_for_the_lines_and_their_order() -> None:
    def digest(*lines: str) -> str:
        trace = Trace()
        for line in lines:
            trace.add(line)
        assert trace.lines is None
        assert trace.count == len(lines)
        return trace.digest()

    assert digest("a", "b") == digest("a", "b")
    assert len({digest("a", "b"), digest("b", "a"), digest("ab"), digest("a"), digest()}) == 5


def test_lines_are_kept_on_request() -> None:
    trace = Trace(keep=True)
    trace.add("a")
    assert trace.lines == ["a"]
