"""MurmurHash3 x64: vectors that are in every implementation's tests."""

from __future__ import annotations

import pytest

from aiolibp2p.unixfs.murmur3 import murmur3_x64_64

VECTORS = {
    b"": 0x0000000000000000,
    b"hello": 0xCBD8A7B341BD9B02,
    b"hello, world": 0x342FAC623A5EBC8E,
    b"19 Jan 2038 at 3:14:07 AM": 0xB89E5988B737AFFC,
    b"The quick brown fox jumps over the lazy dog.": 0xCD99481F9EE902C9,
}


@pytest.mark.parametrize("data", VECTORS)
def test_hash_of_a_known_text(data: bytes) -> None:
    assert murmur3_x64_64(data) == VECTORS[data]


def test_every_length_of_a_tail_has_a_hash_of_its_own() -> None:
    assert len({murmur3_x64_64(bytes(size)) for size in range(64)}) == 64
