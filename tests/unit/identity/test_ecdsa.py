"""ECDSA keys on P-256."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.ecdsa import EcdsaSigner, EcdsaVerifier

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "identity" / "keys.json").read_text("utf-8"))["keys"]
PUBLIC = bytes.fromhex(VECTORS["ecdsa"]["public"])[4:]
PRIVATE = bytes.fromhex(VECTORS["ecdsa"]["private"])[4:]
POINT = PUBLIC[-65:]
ORDER = ec.SECP256R1().group_order
OTHER_CURVES = {
    "P-224": ec.SECP224R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
    "secp256k1": ec.SECP256K1(),
}


def test_a_signature_is_that_of_rfc_6979() -> None:
    # RFC 6979, A.2.5, SHA-256, message "sample"; its S is a high one, which is left as it is.
    key = EcdsaSigner(bytes.fromhex("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"))
    r = 0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716
    s = 0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8
    assert decode_dss_signature(key.sign(b"sample")) == (r, s)


def test_keys_are_written_as_openssl_writes_them() -> None:
    key = ec.derive_private_key(int.from_bytes(PRIVATE[7:39], "big"), ec.SECP256R1())
    signer = EcdsaSigner.from_data(PRIVATE)
    assert signer.data == key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert signer.public_data == key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_a_signature_in_the_fixed_length_form_of_web_crypto_does_not_verify() -> None:
    signer = EcdsaSigner.from_data(PRIVATE)
    r, s = decode_dss_signature(signer.sign(b"data"))
    assert not EcdsaVerifier(signer.public_data).verify(b"data", r.to_bytes(32, "big") + s.to_bytes(32, "big"))


@pytest.mark.parametrize("name", OTHER_CURVES)
def test_a_key_on_another_curve_is_refused_by_the_name_of_the_curve(name: str) -> None:
    key = ec.generate_private_key(OTHER_CURVES[name])
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    for load, data in ((EcdsaVerifier, public), (EcdsaSigner.from_data, private)):
        with pytest.raises(InvalidValueError) as caught:
            load(data)
        assert str(caught.value) == f"an ECDSA key on {name}, and only P-256 is supported"


def test_a_key_in_the_form_of_js_libp2p_is_refused() -> None:
    # js-libp2p writes a public key as an ECPrivateKey without the number.
    body = b"\x02\x01\x01\xa0\x0a" + PRIVATE[41:51] + b"\xa1\x44\x03\x42\x00" + POINT
    with pytest.raises(InvalidValueError) as caught:
        EcdsaVerifier(b"\x30" + bytes([len(body)]) + body)
    assert str(caught.value) == "not a P-256 public key in PKIX form"


NOT_PUBLIC = {
    "empty": b"",
    "head only": PUBLIC[:-65],
    "a byte short": PUBLIC[:-1],
    "a byte long": PUBLIC + b"\0",
    "the bare point": POINT,
    "a private key": PRIVATE,
    "point not on the curve": PUBLIC[:-1] + bytes([PUBLIC[-1] ^ 1]),
    "coordinates of 0": PUBLIC[:-64] + bytes(64),
    "coordinates beyond the field": PUBLIC[:-64] + b"\xff" * 64,
    "infinity": PUBLIC[:-65] + bytes(65),
    "hybrid": PUBLIC[:-65] + bytes([6 + (POINT[-1] & 1)]) + POINT[1:],
    "compressed": b"\x30\x39" + PUBLIC[2:23] + b"\x03\x22\x00" + bytes([2 + (POINT[-1] & 1)]) + POINT[1:33],
    "length in the long form": b"\x30\x81\x59" + PUBLIC[2:],
    "length without end": b"\x30\x80" + PUBLIC[2:] + b"\0\0",
}


@pytest.mark.parametrize("what", NOT_PUBLIC)
def test_only_the_one_form_of_an_uncompressed_point_is_a_public_key(what: str) -> None:
    with pytest.raises(InvalidValueError):
        EcdsaVerifier(NOT_PUBLIC[what])


NOT_PRIVATE = {
    "empty": b"",
    "a byte short": PRIVATE[:-1],
    "a byte long": PRIVATE + b"\0",
    "a public key": PUBLIC,
    "without curve and public half": b"\x30\x25" + PRIVATE[2:39],
    "the number 0": PRIVATE[:7] + bytes(32) + PRIVATE[39:],
    "the order of the curve": PRIVATE[:7] + ORDER.to_bytes(32, "big") + PRIVATE[39:],
    "the public half of another": PRIVATE[:-65] + EcdsaSigner(bytes(31) + b"\1").public_data[-65:],
    "another version": PRIVATE[:4] + b"\2" + PRIVATE[5:],
}


@pytest.mark.parametrize("what", NOT_PRIVATE)
def test_only_the_one_form_of_a_number_within_range_is_a_private_key(what: str) -> None:
    with pytest.raises(InvalidValueError):
        EcdsaSigner.from_data(NOT_PRIVATE[what])
