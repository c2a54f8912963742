"""RSA keys: their forms, and what one may cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.keys import KeyType, PrivateKey, PublicKey
from aiolibp2p.identity.rsa import RsaSigner, RsaVerifier

FOLDER = Path(__file__).parents[2] / "vectors" / "identity"
BOUNDS = json.loads((FOLDER / "rsa_bounds.json").read_text("utf-8"))["keys"]
SMALLEST = PrivateKey.from_bytes(bytes.fromhex(BOUNDS["rsa_2048"]["private"]))
LARGEST = PrivateKey.from_bytes(bytes.fromhex(BOUNDS["rsa_8192"]["private"]))
PRIVATE = SMALLEST._signer.data
PUBLIC = SMALLEST._signer.public_data
# rsaEncryption and NULL.
ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")


def der(tag: int, *parts: bytes) -> bytes:
    """Return a value of DER, of less than 64 KiB."""
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    return bytes([tag, 0x81, size]) + body if size < 0x100 else bytes([tag, 0x82]) + size.to_bytes(2, "big") + body


def integer(number: int, *, pad: bytes = b"") -> bytes:
    """Return a number in DER, or with `pad` before it, which DER forbids."""
    return der(2, pad + number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def pkix(n: int, e: int, *, algorithm: bytes = ALGORITHM, pad: bytes = b"") -> bytes:
    return der(0x30, algorithm, der(3, b"\0", der(0x30, integer(n, pad=pad), integer(e))))


def pkcs1(*numbers: int, version: int = 0) -> bytes:
    return der(0x30, integer(version), *map(integer, numbers))


def parts() -> list[int]:
    """Return n, e, d, p, q and the three numbers for the Chinese remainder of the smallest key."""
    key = SMALLEST._signer._key  # type: ignore[attr-defined]
    numbers: rsa.RSAPrivateNumbers = key.private_numbers()
    public = numbers.public_numbers
    return [public.n, public.e, numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp]


MODULUS, EXPONENT, *_ = parts()


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.conforms("K4")
def test_keys_of_the_least_and_of_the_most_bits_work(name: str) -> None:
    key = PrivateKey.from_bytes(bytes.fromhex(BOUNDS[name]["private"]))
    assert bytes(key).hex() == BOUNDS[name]["private"]
    assert bytes(key.public).hex() == BOUNDS[name]["public"]
    assert str(key.public.peer_id) == BOUNDS[name]["peer_id"]
    signature = key.sign(b"data")
    assert len(signature) == int(name.removeprefix("rsa_")) // 8
    assert key.public.verify(b"data", signature)


def test_a_signature_depends_on_key_and_data_only() -> None:
    assert LARGEST.sign(b"data") == LARGEST.sign(b"data")


def test_a_generated_key_has_2048_bits_and_the_exponent_65537() -> None:
    key = PrivateKey.generate(type=KeyType.RSA)
    assert len(key.sign(b"")) == 256
    assert bytes(key.public).endswith(b"\x02\x03\x01\x00\x01")


def test_a_key_is_not_made_from_a_given_entropy() -> None:
    class Zeros:
        def token(self, n: int) -> bytes:
            return bytes(n)

        def fork(self, label: str) -> Zeros:
            return self

    with pytest.raises(InvalidValueError):
        PrivateKey.generate(Zeros(), type=KeyType.RSA)


@pytest.mark.parametrize("bits", [512, 1024, 2047, 8193, 8200, 16384])
@pytest.mark.conforms("K4")
def test_a_public_key_with_too_few_or_too_many_bits_is_refused(bits: int) -> None:
    with pytest.raises(InvalidValueError) as caught:
        RsaVerifier(pkix(1 << (bits - 1) | 1, EXPONENT))
    if bits < 8200:
        assert str(caught.value) == f"an RSA key of {bits} bits, where 2048 to 8192 may be"


@pytest.mark.parametrize("exponent", [3, 17, 65537, 2**31 - 1])
def test_odd_exponents_of_up_to_31_bits_are_taken(exponent: int) -> None:
    key = RsaVerifier(pkix((1 << 8192) - 1, exponent))
    assert not key.verify(b"data", bytes(1024))


@pytest.mark.parametrize("exponent", [-3, 0, 1, 2, 65536, 2**31 + 1, 2**64 + 1, MODULUS - 2, MODULUS, MODULUS + 2])
def test_other_exponents_are_refused(exponent: int) -> None:
    with pytest.raises(InvalidValueError):
        RsaVerifier(pkix(MODULUS, exponent))


@pytest.mark.parametrize("modulus", [0, -1, -MODULUS, MODULUS - 1, 1 << 4095])
def test_a_modulus_that_is_even_or_not_positive_is_refused(modulus: int) -> None:
    with pytest.raises(InvalidValueError):
        RsaVerifier(pkix(modulus, EXPONENT))


def other_public_forms() -> Iterator[tuple[str, bytes]]:
    key = rsa.RSAPublicNumbers(EXPONENT, MODULUS).public_key()
    spki = ec.generate_private_key(ec.SECP256R1()).public_key()
    yield "empty", b""
    yield "cut off", PUBLIC[:-1]
    yield "a byte long", PUBLIC + b"\0"
    yield "PEM", key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    yield "PKCS #1", key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    yield "a private key", PRIVATE
    yield "of another algorithm", spki.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    yield "for PSS only", pkix(MODULUS, EXPONENT, algorithm=bytes.fromhex("300b06092a864886f70d01010a"))
    yield "algorithm without NULL", pkix(MODULUS, EXPONENT, algorithm=bytes.fromhex("300b06092a864886f70d010101"))
    yield "modulus with a zero too many", pkix(MODULUS, EXPONENT, pad=b"\0")
    yield "length in too many bytes", b"\x30\x83\0" + PUBLIC[2:]
    yield "length without end", b"\x30\x80" + PUBLIC[4:] + b"\0\0"
    yield "bits left over", PUBLIC.replace(b"\x03\x82\x01\x0f\x00", b"\x03\x82\x01\x0f\x01", 1)
    yield "a third number", der(0x30, ALGORITHM, der(3, b"\0", der(0x30, *map(integer, (MODULUS, EXPONENT, 1)))))
    yield "long zeros", bytes(100_000)
    yield "the algorithm and no more", der(0x30, ALGORITHM)


NOT_PUBLIC = dict(other_public_forms())


@pytest.mark.parametrize("what", NOT_PUBLIC)
def test_only_the_one_form_in_der_is_a_public_key(what: str) -> None:
    with pytest.raises(InvalidValueError):
        PublicKey(KeyType.RSA, NOT_PUBLIC[what])


def test_the_forms_that_these_tests_write_are_right() -> None:
    assert pkix(MODULUS, EXPONENT) == PUBLIC
    assert pkcs1(*parts()) == PRIVATE


CHANGES: dict[str, Callable[[int], int]] = {
    "another": lambda number: number + 2,
    "1": lambda number: 1,
    "0": lambda number: 0,
    "negative": lambda number: -number,
}


@pytest.mark.parametrize("position", range(8))
@pytest.mark.parametrize("change", CHANGES)
def test_a_private_key_whose_parts_do_not_belong_together_is_refused(position: int, change: str) -> None:
    numbers = parts()
    numbers[position] = CHANGES[change](numbers[position])
    with pytest.raises(InvalidValueError):
        RsaSigner.from_data(pkcs1(*numbers))


def other_private_forms() -> Iterator[tuple[str, bytes]]:
    key = SMALLEST._signer._key  # type: ignore[attr-defined]
    plain = NoEncryption()
    small = rsa.generate_private_key(65537, 1024)
    yield "empty", b""
    yield "cut off", PRIVATE[:-1]
    yield "a byte long", PRIVATE + b"\0"
    yield "a public key", PUBLIC
    yield "PEM", key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, plain)
    yield "PKCS #8", key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, plain)
    yield "encrypted", key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    yield "of more than two primes", pkcs1(*parts(), version=1)
    yield "of 1024 bits", small.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, plain)
    yield "long zeros", bytes(100_000)
    yield "a modulus of 16384 bits", pkcs1((1 << 16384) - 1, *parts()[1:])
    yield "numbers of 32000 bits", pkcs1(*[(1 << 4900) - 1] * 8)


NOT_PRIVATE = dict(other_private_forms())


@pytest.mark.parametrize("what", NOT_PRIVATE)
def test_only_the_one_form_in_der_is_a_private_key(what: str) -> None:
    with pytest.raises(InvalidValueError):
        RsaSigner.from_data(NOT_PRIVATE[what])


def test_a_private_key_of_another_type_is_none_of_rsa() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(InvalidValueError):
        RsaSigner.from_data(key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
