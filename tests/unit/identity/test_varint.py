"""Unsigned varints of multiformats."""

from __future__ import annotations

import pytest

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.varint import VARINT_MAX, decode_varint, encode_varint, scan_varint

ENCODINGS = {
    0: "00",
    1: "01",
    127: "7f",
    128: "8001",
    255: "ff01",
    300: "ac02",
    16384: "808001",
    VARINT_MAX: "ffffffffffffffff7f",
}


@pytest.mark.parametrize("number", ENCODINGS)
def test_numbers_have_the_encoding_of_the_specification(number: int) -> None:
    encoded = bytes.fromhex(ENCODINGS[number])
    assert encode_varint(number) == encoded
    assert decode_varint(encoded) == (number, len(encoded))


def test_decoding_starts_at_the_offset_and_returns_the_next() -> None:
    assert decode_varint(b"\xff\xac\x02\x07", 1) == (300, 3)
    assert decode_varint(bytearray(b"\xff\xac\x02\x07"), 3) == (7, 4)
    assert decode_varint(memoryview(b"\xac\x02")) == (300, 2)


@pytest.mark.parametrize("number", [-1, VARINT_MAX + 1])
def test_numbers_out_of_range_are_not_encoded(number: int) -> None:
    with pytest.raises(InvalidValueError):
        encode_varint(number)


@pytest.mark.parametrize("encoded", ["8000", "ff00", "80808000", "808080808080808000"])
@pytest.mark.conforms("V1")
def test_encodings_that_are_not_minimal_are_refused(encoded: str) -> None:
    with pytest.raises(InvalidValueError):
        decode_varint(bytes.fromhex(encoded))


@pytest.mark.parametrize("encoded", ["ff" * 9, "ff" * 9 + "01", "80" * 20])
@pytest.mark.conforms("V1")
def test_more_than_nine_bytes_are_refused(encoded: str) -> None:
    with pytest.raises(InvalidValueError):
        scan_varint(bytes.fromhex(encoded))


@pytest.mark.parametrize("encoded", ["", "80", "ff" * 8])
def test_a_varint_whose_end_is_missing_is_incomplete_and_not_decoded(encoded: str) -> None:
    data = bytes.fromhex(encoded)
    assert scan_varint(data) is None
    with pytest.raises(InvalidValueError):
        decode_varint(data)
