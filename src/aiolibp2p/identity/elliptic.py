"""ECDSA over SHA-256 on one curve: what the key types secp256k1 and ECDSA have in common.

A nonce follows from key and data (RFC 6979): no weak random source gives a key away, and a simulation replays.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from aiolibp2p.entropy import Entropy
from aiolibp2p.errors import InvalidValueError

SCALAR_BYTES: Final = 32
"""Of a private key on either curve."""

# FIPS 186-5, A.2.1: with 64 bits more than the order has, no scalar is noticeably more likely than another.
_SEED_BYTES = SCALAR_BYTES + 8


def signature_algorithm() -> ec.ECDSA:
    """Return ECDSA over SHA-256, with nonces of RFC 6979 where the OpenSSL below has them (3.2)."""
    try:
        return ec.ECDSA(SHA256(), deterministic_signing=True)
    except UnsupportedAlgorithm:
        return ec.ECDSA(SHA256())


_ALGORITHM = signature_algorithm()


def load_point(curve: ec.EllipticCurve, point: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public key at a point in SEC 1 form.

    Raises:
        InvalidValueError: there is no such point on the curve.
    """
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    except ValueError as error:
        raise InvalidValueError(f"not a point on {curve.name}") from error


def load_scalar(curve: ec.EllipticCurve, scalar: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the private key of a big-endian number.

    Raises:
        InvalidValueError: it is 0, or not below the order of the curve.
    """
    try:
        return ec.derive_private_key(int.from_bytes(scalar, "big"), curve)
    except ValueError as error:
        raise InvalidValueError(f"not a private key on {curve.name}") from error


def make_scalar(curve: ec.EllipticCurve, entropy: Entropy | None) -> bytes:
    """Return the number of a fresh private key, from the system's random bytes where `entropy` is None."""
    if entropy is None:
        number = ec.generate_private_key(curve).private_numbers().private_value
    else:
        number = int.from_bytes(entropy.token(_SEED_BYTES), "big") % (curve.group_order - 1) + 1
    return number.to_bytes(SCALAR_BYTES, "big")


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Return the signature over `data`, in DER."""
    return key.sign(data, _ALGORITHM)


def verify(key: ec.EllipticCurvePublicKey, data: bytes, signature: bytes) -> bool:
    """Return whether `signature`, in DER, is the key's over `data`."""
    try:
        key.verify(signature, data, _ALGORITHM)
    except InvalidSignature:
        return False
    return True
