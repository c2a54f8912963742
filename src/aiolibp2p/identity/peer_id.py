"""Peer IDs: the multihash of a public key.

Spec: libp2p peer-ids.md, "Peer Ids".
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, final

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.multibase import decode_base58, decode_multibase, encode_base32, encode_base58

if TYPE_CHECKING:
    from aiolibp2p.identity.keys import PublicKey

INLINE_KEY_BYTES_MAX = 42
"""An encoded key of at most so many bytes is its own hash (the identity multihash)."""

_IDENTITY = 0x00
_SHA2_256 = b"\x12\x20"
_SHA2_256_BYTES = 34
_CID_LIBP2P_KEY = b"\x01\x72"


def check_peer_id(data: bytes) -> None:
    """Check that `data` are the bytes of a peer ID.

    Raises:
        InvalidValueError: they are neither a sha2-256 multihash nor an identity multihash of a short key.
    """
    size = len(data)
    if size == _SHA2_256_BYTES and data.startswith(_SHA2_256):
        return
    # Lengths and codes here are below 0x80, so each is one byte.
    if 2 < size <= INLINE_KEY_BYTES_MAX + 2 and data[0] == _IDENTITY and data[1] == size - 2:
        return
    raise InvalidValueError("not the multihash of a key")


@final
class PeerId:
    """Who a peer is: a value, immutable, and quick as a key of a dictionary."""

    __slots__ = ("_data", "_hash", "_text")

    def __init__(self, data: bytes) -> None:
        """Take the bytes of the multihash.

        Raises:
            InvalidValueError: they are not a peer ID.
        """
        check_peer_id(data)
        self._data = bytes(data)
        self._hash = hash(self._data)
        self._text: str | None = None

    @classmethod
    def from_public_key(cls, key: PublicKey) -> PeerId:
        """Return the ID of the peer with this key."""
        return key.peer_id

    @classmethod
    def from_encoded_key(cls, encoded: bytes) -> PeerId:
        """Return the ID that belongs to a key in libp2p's protobuf form, which is not looked into."""
        if len(encoded) <= INLINE_KEY_BYTES_MAX:
            return cls(bytes((_IDENTITY, len(encoded))) + encoded)
        return cls(_SHA2_256 + sha256(encoded).digest())

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """Read a peer ID in either of its text forms: base58btc, or a CIDv1 of the type libp2p-key.

        Raises:
            InvalidValueError: it is neither.
        """
        if text.startswith(("1", "Qm")):
            return cls(decode_base58(text))
        cid = decode_multibase(text)
        if not cid.startswith(_CID_LIBP2P_KEY):
            raise InvalidValueError("a CID that is not of a libp2p key")
        return cls(cid[len(_CID_LIBP2P_KEY) :])

    @property
    def public_key(self) -> PublicKey | None:
        """The public key, where the ID holds it and its type is supported; None where it holds only a hash."""
        # Not kept, as a key keeps its ID: of every stranger both would wait for the collector.
        from aiolibp2p.identity.keys import PublicKey  # the module above

        if self._data[0] != _IDENTITY:
            return None
        try:
            return PublicKey.from_bytes(self._data[2:])
        except InvalidValueError:
            return None

    def to_cid_text(self) -> str:
        """Return the ID as a CIDv1 of the type libp2p-key in base32 (`bafz…`)."""
        return "b" + encode_base32(_CID_LIBP2P_KEY + self._data)

    def __bytes__(self) -> bytes:
        return self._data

    def __reduce__(self) -> tuple[type[PeerId], tuple[bytes]]:
        # The cached hash is of this process only.
        return PeerId, (self._data,)

    def __str__(self) -> str:
        if self._text is None:
            self._text = encode_base58(self._data)
        return self._text

    def __repr__(self) -> str:
        return f"PeerId.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return self._data == other._data if isinstance(other, PeerId) else NotImplemented

    def __hash__(self) -> int:
        return self._hash
