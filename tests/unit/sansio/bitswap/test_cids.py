"""What Bitswap looks at in a binary CID."""

from __future__ import annotations

from hashlib import sha256

import pytest

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.limits import Limits
from aiolibp2p.sansio.bitswap.cids import V0_PREFIX, multihash_of, prefix_of, split_cid, wanted_multihash

DIGEST = sha256(b"x").digest()
V0 = b"\x12\x20" + DIGEST
V1_RAW = b"\x01\x55\x12\x20" + DIGEST
MAX_BYTES = Limits().bitswap_cid_bytes


def v1(code: bytes, digest: bytes, codec: bytes = b"\x55", announced: int | None = None) -> bytes:
    size = len(digest) if announced is None else announced
    return b"\x01" + codec + code + (bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7))) + digest


def test_a_cid_of_version_1_is_its_prefix_and_its_multihash() -> None:
    assert split_cid(V1_RAW) == (b"\x01\x55\x12\x20", V0)
    assert prefix_of(V1_RAW) + DIGEST == V1_RAW


def test_a_cid_of_version_0_is_a_multihash_and_its_prefix_says_dag_pb() -> None:
    assert split_cid(V0) == (V0_PREFIX, V0)


def test_cids_of_one_block_share_its_multihash() -> None:
    assert multihash_of(V0) == multihash_of(V1_RAW) == multihash_of(v1(b"\x12", DIGEST, codec=b"\x70"))


def test_codes_of_several_bytes_are_part_of_the_prefix() -> None:
    blake = v1(b"\xa0\xe4\x02", DIGEST, codec=b"\x81\x02")
    assert prefix_of(blake) == b"\x01\x81\x02\xa0\xe4\x02\x20"
    assert multihash_of(blake) == b"\xa0\xe4\x02\x20" + DIGEST


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\x01",
        b"\x01\x55",
        b"\x01\x55\x12",
        V1_RAW[:-1],
        V1_RAW + b"\x00",
        V0[:-1],
        V0 + b"\x00",
        b"\x00" + V1_RAW[1:],
        b"\x02" + V1_RAW[1:],
        b"\x81\x00" + V1_RAW[1:],
        b"\x80" * 40,
    ],
)
def test_what_is_not_exactly_one_cid_is_refused(broken: bytes) -> None:
    with pytest.raises(InvalidValueError):
        split_cid(broken)
    with pytest.raises(InvalidValueError):
        wanted_multihash(broken, MAX_BYTES)


@pytest.mark.parametrize("size", [20, 32, 64, 128])
@pytest.mark.conforms("B4")
def test_digests_of_20_to_128_bytes_may_be_wanted(size: int) -> None:
    wanted = v1(b"\x13", bytes(size))
    assert wanted_multihash(wanted, MAX_BYTES) == wanted[2:]


@pytest.mark.parametrize("size", [0, 19, 129])
@pytest.mark.conforms("B4")
def test_shorter_and_longer_digests_may_not(size: int) -> None:
    with pytest.raises(InvalidValueError):
        wanted_multihash(v1(b"\x13", bytes(size)), MAX_BYTES)


def test_identity_cids_may_not_be_wanted() -> None:
    with pytest.raises(InvalidValueError):
        wanted_multihash(v1(b"\x00", bytes(32)), MAX_BYTES)


@pytest.mark.conforms("B4")
def test_a_cid_may_be_168_bytes_long_and_no_longer() -> None:
    padded = v1(b"\x13", bytes(128), codec=b"\x80" * 7 + b"\x01")
    assert wanted_multihash(padded, len(padded))
    with pytest.raises(InvalidValueError):
        wanted_multihash(padded, len(padded) - 1)
