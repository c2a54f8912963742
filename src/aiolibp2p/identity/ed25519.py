"""Ed25519, as libp2p stores and uses it.

Spec: libp2p peer-ids.md, "Ed25519"; RFC 8032.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from aiolibp2p.entropy import Entropy
from aiolibp2p.errors import InvalidValueError

SEED_BYTES = 32
PUBLIC_BYTES = 32


class Ed25519Verifier:
    """The public half of an Ed25519 key."""

    __slots__ = ("_key",)

    def __init__(self, data: bytes) -> None:
        """Take the 32 bytes of the key.

        Raises:
            InvalidValueError: they are not 32.
        """
        if len(data) != PUBLIC_BYTES:
            raise InvalidValueError(f"an Ed25519 public key has {PUBLIC_BYTES} bytes, not {len(data)}")
        self._key = Ed25519PublicKey.from_public_bytes(data)

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Return whether `signature` is this key's over `data`."""
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


class Ed25519Signer:
    """An Ed25519 private key."""

    __slots__ = ("_key", "data", "public_data")

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_data = self._key.public_key().public_bytes_raw()
        self.data = seed + self.public_data

    @classmethod
    def generate(cls, entropy: Entropy | None) -> Ed25519Signer:
        """Make a key, from the system's random bytes where `entropy` is None."""
        if entropy is None:
            return cls(Ed25519PrivateKey.generate().private_bytes_raw())
        return cls(entropy.token(SEED_BYTES))

    @classmethod
    def from_data(cls, data: bytes) -> Ed25519Signer:
        """Take seed and public key (64 bytes), or the old form that ends with the public key twice (96 bytes).

        Raises:
            InvalidValueError: another length, copies that differ, or a public key that is not the seed's.
        """
        if len(data) not in (SEED_BYTES + PUBLIC_BYTES, SEED_BYTES + 2 * PUBLIC_BYTES):
            raise InvalidValueError(f"an Ed25519 private key has 64 or 96 bytes, not {len(data)}")
        signer = cls(data[:SEED_BYTES])
        # A key whose public half is not its own would sign under one that others do not see, which leaks the seed.
        for start in range(SEED_BYTES, len(data), PUBLIC_BYTES):
            if data[start : start + PUBLIC_BYTES] != signer.public_data:
                raise InvalidValueError("the public half of an Ed25519 private key is not its own")
        return signer

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature over `data`."""
        return self._key.sign(data)
