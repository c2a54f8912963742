"""ECDSA on P-256, as libp2p stores and uses it.

Spec: libp2p peer-ids.md, "ECDSA"; RFC 5480 for the public key, RFC 5915 for the private one. The specification names no
curve: P-256 is the one that all stacks with this key type have, and the only one here. On it both encodings have fixed
bytes around fixed places, so they are compared and not parsed: a second way to write a key would be a second peer ID.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from aiolibp2p.entropy import Entropy
from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity import elliptic

_CURVE = SECP256R1()
_POINT_BYTES = 65
_UNCOMPRESSED = 0x04

# SubjectPublicKeyInfo: id-ecPublicKey and the curve's OID, then a bit string.
_PUBLIC_HEAD: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
# ECPrivateKey: version 1 and an octet string of the number …
_PRIVATE_HEAD: Final = bytes.fromhex("30770201010420")
# … then the curve's OID, and the public key as a bit string.
_PRIVATE_MIDDLE: Final = bytes.fromhex("a00a06082a8648ce3d030107a144034200")
_SCALAR_END = len(_PRIVATE_HEAD) + elliptic.SCALAR_BYTES
_POINT_START = _SCALAR_END + len(_PRIVATE_MIDDLE)

_OTHER_CURVES: Final = {
    bytes.fromhex("06052b81040021"): "P-224",
    bytes.fromhex("06052b81040022"): "P-384",
    bytes.fromhex("06052b81040023"): "P-521",
    bytes.fromhex("06052b8104000a"): "secp256k1",
}
"""By their OIDs, to name them when they are refused."""
_OID_WITHIN_BYTES = 160
"""So near its beginning a key says on which curve it is, whatever the curve."""


class EcdsaVerifier:
    """The public half of an ECDSA key."""

    __slots__ = ("_key",)

    def __init__(self, data: bytes) -> None:
        """Take the key in PKIX form: a SubjectPublicKeyInfo in DER, of an uncompressed point on P-256.

        Raises:
            InvalidValueError: it is none, or of another curve, which is named.
        """
        head, point = data[: len(_PUBLIC_HEAD)], data[len(_PUBLIC_HEAD) :]
        if head != _PUBLIC_HEAD or len(point) != _POINT_BYTES or point[0] != _UNCOMPRESSED:
            raise _refused(data, "public key in PKIX form")
        self._key = elliptic.load_point(_CURVE, point)

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Return whether `signature`, in DER, is this key's over `data`."""
        return elliptic.verify(self._key, data, signature)


class EcdsaSigner:
    """An ECDSA private key."""

    __slots__ = ("_key", "data", "public_data")

    def __init__(self, scalar: bytes) -> None:
        self._key = elliptic.load_scalar(_CURVE, scalar)
        point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.public_data = _PUBLIC_HEAD + point
        self.data = _PRIVATE_HEAD + scalar + _PRIVATE_MIDDLE + point

    @classmethod
    def generate(cls, entropy: Entropy | None) -> EcdsaSigner:
        """Make a key on P-256, from the system's random bytes where `entropy` is None."""
        return cls(elliptic.make_scalar(_CURVE, entropy))

    @classmethod
    def from_data(cls, data: bytes) -> EcdsaSigner:
        """Take the key as an ECPrivateKey in DER, with its curve and its public half, as all stacks write it.

        Raises:
            InvalidValueError: it is none, or of another curve, which is named, or its public half is not its own.
        """
        is_formed = data.startswith(_PRIVATE_HEAD) and data[_SCALAR_END:_POINT_START] == _PRIVATE_MIDDLE
        if not is_formed or len(data) != _POINT_START + _POINT_BYTES:
            raise _refused(data, "private key in the form of RFC 5915")
        signer = cls(data[len(_PRIVATE_HEAD) : _SCALAR_END])
        if signer.data != data:
            raise InvalidValueError("the public half of an ECDSA private key is not its own")
        return signer

    def sign(self, data: bytes) -> bytes:
        """Return the signature over `data`, in DER."""
        return elliptic.sign(self._key, data)


def _refused(data: bytes, form: str) -> InvalidValueError:
    start = data[:_OID_WITHIN_BYTES]
    for oid, name in _OTHER_CURVES.items():
        if oid in start:
            return InvalidValueError(f"an ECDSA key on {name}, and only P-256 is supported")
    return InvalidValueError(f"not a P-256 {form}")
