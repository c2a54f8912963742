"""Content identifiers: what a block is called, and how its name is checked.

Spec: multiformats CID, "How does it work?" and "Decoding Algorithm"; multihash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, final

from libipld import decode_multibase, encode_multibase

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.varint import decode_varint, encode_varint

RAW: Final = 0x55
DAG_PB: Final = 0x70
DAG_CBOR: Final = 0x71
LIBP2P_KEY: Final = 0x72

IDENTITY: Final = 0x00
SHA2_256: Final = 0x12
SHA2_512: Final = 0x13

DIGEST_BYTES_MIN: Final = 20
"""A shorter digest (other than an identity one) proves nothing: anyone can find data for it."""
TEXT_CHARS_MAX: Final = 1024
"""The longest text that is parsed: decoding base58 and base36 takes time that grows with its square."""

_BASES = frozenset("bBzkKfFmu")
_V0_PREFIX = b"\x12\x20"
_V0_BYTES = 34
_V0_CHARS = 46
_V1_SHA2_256_BYTES = 36
_V1_PREFIX_BYTES = 4

Hash = Callable[[bytes], bytes]


def _named(name: str) -> Hash:
    return lambda data: hashlib.new(name, data, usedforsecurity=False).digest()


def _blake2b(size: int) -> Hash:
    return lambda data: hashlib.blake2b(data, digest_size=size).digest()


def _blake2s(size: int) -> Hash:
    return lambda data: hashlib.blake2s(data, digest_size=size).digest()


_HASHES: dict[int, Hash] = {
    0x11: _named("sha1"),
    SHA2_256: lambda data: hashlib.sha256(data).digest(),
    SHA2_512: lambda data: hashlib.sha512(data).digest(),
    0x14: lambda data: hashlib.sha3_512(data).digest(),
    0x15: lambda data: hashlib.sha3_384(data).digest(),
    0x16: lambda data: hashlib.sha3_256(data).digest(),
    0x17: lambda data: hashlib.sha3_224(data).digest(),
    0x20: lambda data: hashlib.sha384(data).digest(),
    0x56: lambda data: hashlib.sha256(hashlib.sha256(data).digest()).digest(),
    0x1013: lambda data: hashlib.sha224(data).digest(),
    **{0xB200 + size: _blake2b(size) for size in range(DIGEST_BYTES_MIN, 65)},
    **{0xB240 + size: _blake2s(size) for size in range(DIGEST_BYTES_MIN, 33)},
}


def digest_of(hash_code: int, data: bytes, size: int | None = None) -> bytes:
    """Return the digest of `data`, cut to `size` bytes; None means the whole digest.

    The functions known here are identity, sha1, sha2, sha3, blake2b and blake2s. Data of 2,048 bytes and more is hashed
    without the interpreter's lock.

    Raises:
        InvalidValueError: the function is unknown, or never gives a digest of that size, or it is below
            DIGEST_BYTES_MIN.
    """
    if hash_code == IDENTITY:
        if size is not None and size != len(data):
            raise InvalidValueError(f"an identity digest of {size} bytes cannot hold {len(data)} bytes")
        return bytes(data)
    function = _HASHES.get(hash_code)
    if function is None:
        raise InvalidValueError(f"unknown hash function 0x{hash_code:x}")
    digest = function(data)
    if size is None or size == len(digest):
        return digest
    if not DIGEST_BYTES_MIN <= size < len(digest):
        raise InvalidValueError(f"hash function 0x{hash_code:x} gives no digest of {size} bytes that proves anything")
    return digest[:size]


@final
class Cid:
    """The name of a block: a value, immutable, and quick as a key of a dictionary.

    Two CIDs are equal when their bytes are: of one block there are a version 0 and a version 1, and one for each codec.
    """

    __slots__ = ("_at", "_codec", "_data", "_hash", "_text")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        """Take the bytes of a CID, which are copied unless they are `bytes`.

        Raises:
            InvalidValueError: they are not one CID, no more and no less.
        """
        data = bytes(data)
        self._text: str | None = None
        # Nearly all are sha2-256 with a codec of one byte; the general way takes three times as long.
        if len(data) == _V1_SHA2_256_BYTES and data[0] == 1 and data[1] < 0x80 and data[2:4] == _V0_PREFIX:
            self._at = 2
            self._codec = data[1]
        elif len(data) == _V0_BYTES and data.startswith(_V0_PREFIX):
            self._at = 0
            self._codec = DAG_PB
        else:
            self._codec, self._at = _split(data)
        self._data = data
        self._hash = hash(data)

    @classmethod
    def parse(cls, text: str) -> Cid:
        """Read a CID: version 0 (`Qm…`), or version 1 in base16, base32, base36, base58btc, base64 or base64url.

        Raises:
            InvalidValueError: it is not the text of one CID.
        """
        if len(text) > TEXT_CHARS_MAX:
            raise InvalidValueError(f"a CID of {len(text)} letters is longer than {TEXT_CHARS_MAX}")
        old = len(text) == _V0_CHARS and text.startswith("Qm")
        if not old and text[:1] not in _BASES:
            raise InvalidValueError(f"not a CID: {text!r}")
        try:
            data = decode_multibase("z" + text if old else text)[1]
        except ValueError as error:
            raise InvalidValueError(f"not a CID: {text!r}") from error
        if data.startswith(_V0_PREFIX) and not old:
            # Spec: CID, "Decoding Algorithm": a CIDv0 has no multibase prefix.
            raise InvalidValueError(f"a CID of version 0 inside a multibase text: {text!r}")
        try:
            return cls(data)
        except InvalidValueError as error:
            raise InvalidValueError(f"not a CID: {text!r}: {error}") from error

    @classmethod
    def from_data(cls, data: bytes, codec: int = RAW, *, version: int = 1, hash_code: int = SHA2_256) -> Cid:
        """Return the name of a block that holds `data`.

        Raises:
            InvalidValueError: the hash function is unknown, or the version is 0 and anything but dag-pb and sha2-256.
        """
        return cls.from_digest(digest_of(hash_code, data), codec, version=version, hash_code=hash_code)

    @classmethod
    def from_digest(cls, digest: bytes, codec: int = RAW, *, version: int = 1, hash_code: int = SHA2_256) -> Cid:
        """Return the name of a block with this digest.

        Raises:
            InvalidValueError: the version is 0 and anything but dag-pb and sha2-256, or it is neither 0 nor 1.
        """
        multihash = encode_varint(hash_code) + encode_varint(len(digest)) + digest
        return cls.from_multihash(multihash, codec, version=version)

    @classmethod
    def from_multihash(cls, multihash: bytes, codec: int = RAW, *, version: int = 1) -> Cid:
        """Return the name of a block with this multihash.

        Raises:
            InvalidValueError: it is no multihash, or the version is 0 and anything but dag-pb and sha2-256, or it is
                neither 0 nor 1.
        """
        if version == 1:
            return cls(b"\x01" + encode_varint(codec) + multihash)
        if version != 0 or codec != DAG_PB or len(multihash) != _V0_BYTES or not multihash.startswith(_V0_PREFIX):
            raise InvalidValueError("a CID of version 0 is of dag-pb and a sha2-256 digest of 32 bytes")
        return cls(multihash)

    @classmethod
    def from_prefix(cls, prefix: bytes | bytearray | memoryview, data: bytes) -> Cid:
        """Return the name of a block that holds `data`, by a prefix that a peer sent in place of the CID.

        Raises:
            InvalidValueError: the prefix is malformed, its hash function unknown, or its digest size not one that the
                function gives and that proves something.
        Spec: Bitswap 1.1.0, `Block.prefix`.
        """
        if len(prefix) == _V1_PREFIX_BYTES and prefix[0] == 1 and prefix[1] < 0x80 and prefix[2:] == _V0_PREFIX:
            return cls(bytes(prefix) + hashlib.sha256(data).digest())
        version, at = decode_varint(prefix)
        codec, at = decode_varint(prefix, at)
        hash_code, at = decode_varint(prefix, at)
        size, at = decode_varint(prefix, at)
        if at != len(prefix):
            raise InvalidValueError(f"{len(prefix) - at} bytes after the prefix of a CID")
        digest = digest_of(hash_code, data, size)
        return cls.from_digest(digest, codec, version=version, hash_code=hash_code)

    @property
    def version(self) -> int:
        """0 or 1."""
        return 1 if self._at else 0

    @property
    def codec(self) -> int:
        """What the block's bytes are: RAW, DAG_PB, DAG_CBOR or another code of multicodec."""
        return self._codec

    @property
    def multihash(self) -> bytes:
        """Function, size and digest: what names the same bytes whatever the codec."""
        return self._data[self._at :]

    @property
    def hash_code(self) -> int:
        """The hash function, a code of multicodec."""
        code = self._data[self._at]
        return code if code < 0x80 else decode_varint(self._data, self._at)[0]

    @property
    def digest(self) -> bytes:
        """The digest alone; of an identity CID this is the block."""
        _, at = decode_varint(self._data, self._at)
        _, at = decode_varint(self._data, at)
        return self._data[at:]

    @property
    def prefix(self) -> bytes:
        """Version, codec, hash function and digest size, each a varint: all of a CID but its digest.

        Spec: Bitswap 1.1.0, `Block.prefix`.
        """
        if self._at == 2 and self._data[2:_V1_PREFIX_BYTES] == _V0_PREFIX:
            return self._data[:_V1_PREFIX_BYTES]
        _, at = decode_varint(self._data, self._at)
        _, at = decode_varint(self._data, at)
        return self._data[:at] if self._at else b"\x00\x70" + _V0_PREFIX

    def verify(self, data: bytes) -> bool:
        """Return whether `data` is the block of this name.

        Raises:
            InvalidValueError: that cannot be told: the hash function is unknown, or the digest too short to prove it.
        """
        digest = self.digest
        hash_code = self.hash_code
        if hash_code == IDENTITY:
            return digest == data
        try:
            return digest == digest_of(hash_code, data, len(digest))
        except InvalidValueError as error:
            raise InvalidValueError(f"{self} cannot be verified: {error}") from error

    def to_v1(self) -> Cid:
        """Return the same block's name in version 1."""
        return self if self._at else Cid(b"\x01\x70" + self._data)

    def __bytes__(self) -> bytes:
        return self._data

    def __len__(self) -> int:
        return len(self._data)

    def __reduce__(self) -> tuple[type[Cid], tuple[bytes]]:
        # The cached hash is of this process only.
        return Cid, (self._data,)

    def __str__(self) -> str:
        if self._text is None:
            self._text = encode_multibase("b", self._data) if self._at else encode_multibase("z", self._data)[1:]
        return self._text

    def __repr__(self) -> str:
        return f"Cid.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return self._data == other._data if isinstance(other, Cid) else NotImplemented

    def __lt__(self, other: Cid) -> bool:
        return self._data < other._data

    def __hash__(self) -> int:
        return self._hash


def _split(data: bytes) -> tuple[int, int]:
    """Return the codec of a CID of version 1 and where its multihash begins."""
    version, at = decode_varint(data)
    if version != 1:
        raise InvalidValueError(f"a CID of version {version}")
    codec, multihash_at = decode_varint(data, at)
    _, at = decode_varint(data, multihash_at)
    size, at = decode_varint(data, at)
    if size != len(data) - at:
        raise InvalidValueError(f"a CID whose digest has {len(data) - at} bytes and says {size}")
    return codec, multihash_at
