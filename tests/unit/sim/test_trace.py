"""The record of a run."""

from __future__ import annotations

from aiolibp2p.sim import Trace, first_divergence


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


def test_two_runs_part_at_the_first_line_that_differs_in_more_than_content() -> None:
    one = ["0 tcp 1 client data 32 0123abcd", "5 step task-1", "9 step task-2"]
    assert first_divergence(one, one) is None
    assert first_divergence(one, ["0 tcp 1 client data 32 99999999", *one[1:]]) is None
    assert first_divergence(one, ["0 tcp 1 client data 33 0123abcd", *one[1:]]) == (
        1,
        one[0],
        "0 tcp 1 client data 33 0123abcd",
    )
    assert first_divergence(one, [*one[:2], "9 step task-3"]) == (3, "9 step task-2", "9 step task-3")
    assert first_divergence(one, one[:2]) == (3, one[2], None)
    assert first_divergence([], one) == (1, None, one[0])
