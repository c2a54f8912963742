"""Keys on secp256k1."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.keys import KeyType, PrivateKey, PublicKey
from aiolibp2p.identity.secp256k1 import Secp256k1Signer, Secp256k1Verifier

ORDER = SECP256K1().group_order
FIELD = 2**256 - 2**32 - 977
ONE = (1).to_bytes(32, "big")
KEY = Secp256k1Signer(ONE)
GENERATOR = bytes.fromhex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")


def test_the_public_key_is_a_compressed_point() -> None:
    assert KEY.public_data == b"\x02" + GENERATOR
    assert KEY.data == ONE
    assert Secp256k1Signer((ORDER - 1).to_bytes(32, "big")).public_data == b"\x03" + GENERATOR


def test_a_signature_is_that_of_rfc_6979_with_a_low_s() -> None:
    # A vector that libraries for Bitcoin share: key 1, text "Satoshi Nakamoto".
    r = 0x934B1EA10A4B3C1757E2B0C017D0B6143CE3C9A7E6A4A49860D7A6AB210EE3D8
    s = 0x2442CE9D2B916064108014783E923EC36B49743E2FFA1C4496F01A512AAFD9E5
    assert decode_dss_signature(KEY.sign(b"Satoshi Nakamoto")) == (r, s)


@pytest.mark.conforms("K4")
def test_every_signature_has_a_low_s_and_its_twin_with_the_high_one_verifies_too() -> None:
    verifier = Secp256k1Verifier(KEY.public_data)
    for number in range(20):
        data = bytes([number])
        signature = KEY.sign(data)
        r, s = decode_dss_signature(signature)
        assert 1 <= s <= ORDER // 2
        assert verifier.verify(data, signature)
        assert verifier.verify(data, encode_dss_signature(r, ORDER - s))


def test_a_signature_that_is_not_in_der_does_not_verify() -> None:
    verifier = Secp256k1Verifier(KEY.public_data)
    r, s = decode_dss_signature(signature := KEY.sign(b"data"))
    long_form = b"\x30\x81" + signature[1:]
    for damaged in (r.to_bytes(32, "big") + s.to_bytes(32, "big"), long_form, signature + b"\0", signature[1:]):
        assert not verifier.verify(b"data", damaged)


@pytest.mark.parametrize(("r", "s"), [(0, 0), (0, 1), (1, 0), (ORDER, 1), (1, ORDER), (2**300, 1)])
def test_a_signature_of_numbers_out_of_range_does_not_verify(r: int, s: int) -> None:
    assert not Secp256k1Verifier(KEY.public_data).verify(b"data", encode_dss_signature(r, s))


NO_POINTS = {
    "empty": b"",
    "a byte short": b"\x02" + GENERATOR[:-1],
    "a byte long": b"\x02" + GENERATOR + b"\0",
    "uncompressed": b"\x04" + GENERATOR + bytes(32),
    "hybrid": b"\x06" + GENERATOR + bytes(32),
    "an uncompressed head on a short point": b"\x04" + GENERATOR,
    "no head": b"\0" + GENERATOR,
    "infinity": b"\0",
    "x without a y": b"\x02" + (5).to_bytes(32, "big"),
    "x beyond the field": b"\x02" + (FIELD + 1).to_bytes(32, "big"),
}


@pytest.mark.parametrize("what", NO_POINTS)
def test_only_a_compressed_point_on_the_curve_is_a_public_key(what: str) -> None:
    with pytest.raises(InvalidValueError):
        PublicKey(KeyType.SECP256K1, NO_POINTS[what])


@pytest.mark.parametrize(
    "data", [b"", ONE[1:], ONE + b"\0", bytes(32), ORDER.to_bytes(32, "big"), b"\xff" * 32], ids=len
)
def test_only_32_bytes_within_range_are_a_private_key(data: bytes) -> None:
    with pytest.raises(InvalidValueError):
        PrivateKey.from_bytes(b"\x08\x02\x12" + bytes([len(data)]) + data)
