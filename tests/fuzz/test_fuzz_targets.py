"""Every fuzz target, briefly: with its seeds and what is kept of its corpus, both changed, and with any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.gauge import Sample, growth, sample
from tests.fuzz.run import CORPUS, Target, fuzz_files, mutations, name_of, targets_of

EXAMPLES = 50
ROUNDS = 3
BLOCKS_ALLOWED = 200
"""Blocks of memory more after a round of the corpus than before: what counts and samples of this test take."""
CORPUS_BYTES_MAX = 2 << 20

TARGETS = [target for path in fuzz_files() for target in targets_of(path)]
each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@each_target
def test_a_target_survives_its_seeds(target: Target) -> None:
    for seed in target.seeds:
        target.run(seed)


@each_target
def test_a_target_survives_its_kept_corpus_and_keeps_nothing_of_it(target: Target) -> None:
    inputs = target.kept()
    levels = []
    for _ in range(ROUNDS):
        for data in inputs:
            target.run(data)
        levels.append(sample(0.0, 0).blocks)
    # The first round fills caches, and makes what is made once.
    assert levels[-1] - levels[-2] <= BLOCKS_ALLOWED, levels


@each_target
def test_a_target_survives_any_bytes(target: Target) -> None:
    settings(max_examples=EXAMPLES)(given(st.binary(max_size=200))(target.run))()


@pytest.mark.parametrize("target", [target for target in TARGETS if target.seeds], ids=lambda target: target.name)
def test_a_target_survives_changed_inputs(target: Target) -> None:
    settings(max_examples=EXAMPLES)(given(mutations((*target.seeds, *target.kept())))(target.run))()


def test_every_fuzz_file_defines_targets() -> None:
    assert fuzz_files()
    for path in fuzz_files():
        assert targets_of(path), path.name


def test_the_kept_corpus_is_small_and_of_targets_that_exist_each_input_under_its_hash() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} <= {target.name for target in TARGETS}
    assert [path.name for path in files if path.name != name_of(path.read_bytes())] == []
    assert sum(path.stat().st_size for path in files) < CORPUS_BYTES_MAX


@pytest.mark.parametrize(
    ("blocks", "rss_mib", "grown"),
    [
        ([100_000, 150_000, 150_100], [50, 60, 70], None),
        ([100_000, 150_000, 153_000], [50, 60, 60], "3000 blocks of memory more after 500 inputs"),
        ([100_000, 150_000, 150_000], [50, 60, 100], "40 MiB of RssAnon more after 500 inputs"),
    ],
    ids=["what is warm stays", "small objects", "large ones"],
)
def test_growth_is_what_a_run_keeps_beyond_its_warm_up(
    blocks: list[int], rss_mib: list[int], grown: str | None
) -> None:
    seconds = (0.0, 100.0, 1000.0)
    samples = [
        Sample(at, number * 500, kept, mib << 20)
        for number, (at, kept, mib) in enumerate(zip(seconds, blocks, rss_mib, strict=True))
    ]
    assert growth(samples, 1000.0) == grown
