"""secp256k1, as libp2p stores and uses it.

Spec: libp2p peer-ids.md, "Secp256k1"; BIP 62 for signatures. Of the two signatures that differ in the sign of S, ours
is the one with the low S, which every stack takes. Both are right: that of a peer may have either.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from aiolibp2p.entropy import Entropy
from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity import elliptic

PUBLIC_BYTES: Final = 33
"""A compressed point: the sign of y, and x."""

_CURVE = SECP256K1()
_ORDER = _CURVE.group_order
_COMPRESSED = (0x02, 0x03)


class Secp256k1Verifier:
    """The public half of a secp256k1 key."""

    __slots__ = ("_key",)

    def __init__(self, data: bytes) -> None:
        """Take the 33 bytes of a compressed point; the longer forms would give one key a second peer ID.

        Raises:
            InvalidValueError: they are none.
        """
        if len(data) != PUBLIC_BYTES or data[0] not in _COMPRESSED:
            raise InvalidValueError(f"a secp256k1 public key is a compressed point of {PUBLIC_BYTES} bytes")
        self._key = elliptic.load_point(_CURVE, data)

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Return whether `signature` is this key's over `data`, with a low S or a high one."""
        return elliptic.verify(self._key, data, signature)


class Secp256k1Signer:
    """A secp256k1 private key."""

    __slots__ = ("_key", "data", "public_data")

    def __init__(self, data: bytes) -> None:
        """Take the 32 bytes of the number.

        Raises:
            InvalidValueError: they are not 32, or out of range.
        """
        if len(data) != elliptic.SCALAR_BYTES:
            raise InvalidValueError(f"a secp256k1 private key has {elliptic.SCALAR_BYTES} bytes, not {len(data)}")
        self._key = elliptic.load_scalar(_CURVE, data)
        self.data = bytes(data)
        self.public_data = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)

    @classmethod
    def generate(cls, entropy: Entropy | None) -> Secp256k1Signer:
        """Make a key, from the system's random bytes where `entropy` is None."""
        return cls(elliptic.make_scalar(_CURVE, entropy))

    def sign(self, data: bytes) -> bytes:
        """Return the signature over `data` with a low S, in DER."""
        signature = elliptic.sign(self._key, data)
        r, s = decode_dss_signature(signature)
        return signature if s <= _ORDER // 2 else encode_dss_signature(r, _ORDER - s)
