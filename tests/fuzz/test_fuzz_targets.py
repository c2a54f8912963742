"""Every fuzz target, briefly: with its seeds, with seeds that were changed, and with any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.run import Target, fuzz_files, mutations, targets_of

EXAMPLES = 50

TARGETS = [target for path in fuzz_files() for target in targets_of(path)]
each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@each_target
def test_a_target_survives_its_seeds(target: Target) -> None:
    for seed in target.seeds:
        target.run(seed)


@each_target
def test_a_target_survives_any_bytes(target: Target) -> None:
    settings(max_examples=EXAMPLES)(given(st.binary(max_size=200))(target.run))()


@pytest.mark.parametrize("target", [target for target in TARGETS if target.seeds], ids=lambda target: target.name)
def test_a_target_survives_changed_seeds(target: Target) -> None:
    settings(max_examples=EXAMPLES)(given(mutations(target.seeds))(target.run))()


def test_every_fuzz_file_defines_targets() -> None:
    assert fuzz_files()
    for path in fuzz_files():
        assert targets_of(path), path.name
