"""Key pairs of peers.

A key type is one row of the table `_SCHEMES`: what is absent there is refused by number.
Spec: libp2p peer-ids.md, "Keys". The encoding is the key's identity, so only the deterministic one is accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Protocol, final

from google.protobuf.message import DecodeError

from aiolibp2p.entropy import Entropy
from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.ecdsa import EcdsaSigner, EcdsaVerifier
from aiolibp2p.identity.ed25519 import Ed25519Signer, Ed25519Verifier
from aiolibp2p.identity.pb import keys_pb2
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.identity.rsa import RsaSigner, RsaVerifier
from aiolibp2p.identity.secp256k1 import Secp256k1Signer, Secp256k1Verifier

# One dial reads the same key three times, and a peer that comes back brings it again: 60 µs each.
_KEYS_REMEMBERED = 1024


class KeyType(IntEnum):
    """The key types of the specification, by their number on the wire."""

    RSA = 0
    ED25519 = 1
    SECP256K1 = 2
    ECDSA = 3


class _Verifier(Protocol):
    def verify(self, data: bytes, signature: bytes) -> bool: ...


class _Signer(Protocol):
    @property
    def data(self) -> bytes: ...

    @property
    def public_data(self) -> bytes: ...

    def sign(self, data: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Scheme:
    """How one key type is read, from the `data` field of the public and of the private key, and how one is made."""

    load_public: Callable[[bytes], _Verifier]
    load_private: Callable[[bytes], _Signer]
    generate: Callable[[Entropy | None], _Signer]


_SCHEMES: dict[int, _Scheme] = {
    KeyType.RSA: _Scheme(RsaVerifier, RsaSigner.from_data, RsaSigner.generate),
    KeyType.ED25519: _Scheme(Ed25519Verifier, Ed25519Signer.from_data, Ed25519Signer.generate),
    KeyType.SECP256K1: _Scheme(Secp256k1Verifier, Secp256k1Signer, Secp256k1Signer.generate),
    KeyType.ECDSA: _Scheme(EcdsaVerifier, EcdsaSigner.from_data, EcdsaSigner.generate),
}


@final
class PublicKey:
    """A public key: a value, equal by its encoding."""

    __slots__ = ("_encoded", "_peer_id", "_verifier", "type")

    type: KeyType
    """Its type."""

    def __init__(self, key_type: KeyType, data: bytes) -> None:
        """Take a key by type and the specification's data of that type.

        Raises:
            InvalidValueError: there is no such type, or the data are not such a key.
        """
        self._verifier = _scheme(key_type).load_public(data)
        self.type = key_type
        self._encoded = keys_pb2.PublicKey(type=key_type, data=data).SerializeToString()
        self._peer_id: PeerId | None = None

    @classmethod
    def from_bytes(cls, encoded: bytes) -> PublicKey:
        """Read a public key in libp2p's protobuf form.

        Raises:
            InvalidValueError: it is not the deterministic encoding of a key of these types.
        """
        return _public_key(bytes(encoded))

    @property
    def peer_id(self) -> PeerId:
        """The ID of the peer that holds this key's private half."""
        if self._peer_id is None:
            self._peer_id = PeerId.from_encoded_key(self._encoded)
        return self._peer_id

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Return whether `signature` was made over `data` by this key's private half."""
        return self._verifier.verify(data, signature)

    def __bytes__(self) -> bytes:
        return self._encoded

    def __eq__(self, other: object) -> bool:
        return self._encoded == other._encoded if isinstance(other, PublicKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._encoded)

    def __repr__(self) -> str:
        return f"<PublicKey {self.type.name} of {self.peer_id}>"


@final
class PrivateKey:
    """A private key; `repr` and `str` show none of it. Two are equal where their public halves are."""

    __slots__ = ("_public", "_signer", "type")

    type: KeyType
    """Its type."""

    def __init__(self, key_type: KeyType, signer: _Signer) -> None:
        self.type = key_type
        self._signer = signer
        self._public: PublicKey | None = None

    @classmethod
    def generate(cls, entropy: Entropy | None = None, *, type: KeyType = KeyType.ED25519) -> PrivateKey:
        """Make a key: of Ed25519 unless `type` says otherwise, of ECDSA on P-256, of RSA with 2,048 bits.

        Args:
            entropy: where its bytes come from, so that the same give the same key; None is the operating system, and
                for RSA the only source, whose search for primes takes a tenth of a second or more.
            type: its type.

        Raises:
            InvalidValueError: an RSA key was to come from an `entropy`.
        """
        return cls(type, _scheme(type).generate(entropy))

    @classmethod
    def from_bytes(cls, encoded: bytes) -> PrivateKey:
        """Read a private key in libp2p's protobuf form.

        Raises:
            InvalidValueError: it is not the deterministic encoding of a key of these types.
        """
        key_type, data = _decode(keys_pb2.PrivateKey, encoded)
        return cls(key_type, _scheme(key_type).load_private(data))

    @property
    def public(self) -> PublicKey:
        """The public half."""
        if self._public is None:
            self._public = PublicKey(self.type, self._signer.public_data)
        return self._public

    def sign(self, data: bytes) -> bytes:
        """Return this key's signature over `data`."""
        return self._signer.sign(data)

    def __bytes__(self) -> bytes:
        return keys_pb2.PrivateKey(type=self.type, data=self._signer.data).SerializeToString()

    def __eq__(self, other: object) -> bool:
        return self.public == other.public if isinstance(other, PrivateKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.public)

    def __repr__(self) -> str:
        return f"<PrivateKey {self.type.name} of {self.public.peer_id}>"


@lru_cache(maxsize=_KEYS_REMEMBERED)
def _public_key(encoded: bytes) -> PublicKey:
    return PublicKey(*_decode(keys_pb2.PublicKey, encoded))


def _scheme(key_type: int) -> _Scheme:
    scheme = _SCHEMES.get(key_type)
    if scheme is None:
        raise InvalidValueError(f"there is no key type {key_type}")
    return scheme


def _decode(message_type: type[keys_pb2.PublicKey | keys_pb2.PrivateKey], encoded: bytes) -> tuple[KeyType, bytes]:
    """Return type and data of an encoded key, whose type is then one of `_SCHEMES`."""
    try:
        message = message_type.FromString(encoded)
    except DecodeError as error:
        raise InvalidValueError("not the protobuf of a key") from error
    if not (message.HasField("type") and message.HasField("data")):
        raise InvalidValueError("a key needs both type and data")
    # Two encodings of one key would give it two peer IDs.
    if message_type(type=message.type, data=message.data).SerializeToString() != encoded:
        raise InvalidValueError("a key that is not encoded deterministically")
    _scheme(message.type)
    return KeyType(message.type), message.data
