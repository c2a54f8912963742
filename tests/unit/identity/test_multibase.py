"""The text encodings of peer IDs and certificate hashes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.multibase import (
    RADIX_CHARS_MAX,
    decode_base32,
    decode_base58,
    decode_base64url,
    decode_multibase,
    encode_base32,
    encode_base58,
    encode_base64url,
)

# The texts of multibase's own test vector for these bytes, "yes mani !".
YES_MANI = {
    "f": "796573206d616e692021",
    "b": "pfsxgidnmfxgsibb",
    "k": "2lcpzo5yikidynfl",
    "z": "7paNL19xttacUY",
    "u": "eWVzIG1hbmkgIQ",
}


@pytest.mark.parametrize("prefix", YES_MANI)
def test_each_encoding_is_named_by_its_prefix(prefix: str) -> None:
    assert decode_multibase(prefix + YES_MANI[prefix]) == b"yes mani !"


def test_encoders_write_what_multibase_specifies() -> None:
    assert encode_base58(b"yes mani !") == YES_MANI["z"]
    assert encode_base32(b"yes mani !") == YES_MANI["b"]
    assert encode_base64url(b"yes mani !") == YES_MANI["u"]


def test_leading_zero_bytes_are_leading_first_letters_in_base58_and_base36() -> None:
    assert encode_base58(b"\0\0yes mani !") == "117paNL19xttacUY"
    assert decode_base58("117paNL19xttacUY") == b"\0\0yes mani !"
    assert decode_multibase("k002lcpzo5yikidynfl") == b"\0\0yes mani !"
    assert decode_base58("11") == b"\0\0"


@pytest.mark.parametrize("text", ["", "m", "MTIz", "1", "\0", "é"])
def test_an_encoding_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        decode_multibase(text)


@pytest.mark.parametrize(
    ("decode", "text"),
    [
        (decode_base58, "0OIl"),
        (decode_base58, "7paNL19xtta UY"),
        (decode_base32, "PFSXGIDN"),
        (decode_base32, "pfsxgidnmfxgsib"),
        (decode_base32, "pfsxgidnmfxgsibc="),
        (decode_base32, "pfs1"),
        (decode_base32, "ß"),
        (decode_base64url, "eWVzIG1hbmkgI"),
        (decode_base64url, "eWVzIG1hbmkgIR"),
        (decode_base64url, "eWVzIG1hbmkgIQ=="),
        (decode_base64url, "+/+/"),
        (decode_base64url, "é"),
        (decode_multibase, "fAB"),
        (decode_multibase, "fabc"),
        (decode_multibase, "f ab"),
        (decode_multibase, "kABC"),
    ],
)
def test_only_the_one_canonical_text_is_accepted(decode: Callable[[str], bytes], text: str) -> None:
    with pytest.raises(InvalidValueError):
        decode(text)


def test_base58_text_is_read_up_to_its_limit() -> None:
    assert len(decode_base58("1" * RADIX_CHARS_MAX)) == RADIX_CHARS_MAX
    with pytest.raises(InvalidValueError):
        decode_base58("1" * (RADIX_CHARS_MAX + 1))
