"""Binary CIDs, as far as Bitswap looks into them: which multihash, which prefix, and whether it may be wanted.

Spec: multiformats CID ("CIDv0" is a bare sha2-256 multihash; CIDv1 is version, codec and multihash); a block travels
with the prefix of its CID, which is everything but the digest (Bitswap 1.1.0).
"""

from __future__ import annotations

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.varint import decode_varint

IDENTITY = 0x00
"""The hash code whose digest is the data itself: such a block needs no fetching."""
DIGEST_BYTES_MIN = 20
"""The shortest digest that go and we take; what is shorter proves nothing."""
DIGEST_BYTES_MAX = 128
"""The longest digest that go takes."""
WANTED_CID_BYTES_MIN = 1 + 1 + 1 + 1 + DIGEST_BYTES_MIN
"""The shortest CID that may be wanted."""
PREFIX_BYTES_MAX = 4 * 9
"""Four varints of at most nine bytes."""
V0_PREFIX = b"\x00\x70\x12\x20"
"""The prefix of every CIDv0: version 0, dag-pb, sha2-256, 32 bytes."""

_V0_HEAD = b"\x12\x20"
_V0_BYTES = 34
_V1_BYTES = 36


def split_cid(cid: bytes) -> tuple[bytes, bytes]:
    """Return the prefix (version, codec, hash code, digest length) and the multihash of a binary CID.

    Raises:
        InvalidValueError: it is not exactly one CID of version 0 or 1.
    """
    if _is_usual(cid):
        return cid[:4], cid[2:]
    if len(cid) == _V0_BYTES and cid.startswith(_V0_HEAD):
        return V0_PREFIX, cid
    _, hash_at, digest_at, _ = _parse(cid)
    return cid[:digest_at], cid[hash_at:]


def multihash_of(cid: bytes) -> bytes:
    """Return the multihash of a binary CID: the key under which its block is kept.

    Raises:
        InvalidValueError: it is not exactly one CID of version 0 or 1.
    """
    return split_cid(cid)[1]


def prefix_of(cid: bytes) -> bytes:
    """Return what travels with the block of a binary CID.

    Raises:
        InvalidValueError: it is not exactly one CID of version 0 or 1.
    """
    return split_cid(cid)[0]


def wanted_multihash(cid: bytes, max_bytes: int) -> bytes:
    """Return the multihash of a CID that may be wanted over Bitswap.

    Raises:
        InvalidValueError: it is no CID, is longer than `max_bytes`, has a digest too short or too long, or is an
            identity CID.
    """
    if len(cid) > max_bytes:
        raise InvalidValueError(f"a CID of {len(cid)} bytes: at most {max_bytes} may be wanted")
    if _is_usual(cid):
        return cid[2:]
    if len(cid) == _V0_BYTES and cid.startswith(_V0_HEAD):
        return cid
    code, hash_at, _, digest_bytes = _parse(cid)
    if code == IDENTITY:
        raise InvalidValueError("an identity CID carries its block and cannot be wanted")
    if not DIGEST_BYTES_MIN <= digest_bytes <= DIGEST_BYTES_MAX:
        raise InvalidValueError(f"a digest of {digest_bytes} bytes cannot be wanted")
    return cid[hash_at:]


def _is_usual(cid: bytes) -> bool:
    """Return whether it is of version 1 and sha2-256 with a codec of one byte, as nearly all are.

    Reading four varints takes ten times as long, several times for each small block.
    """
    return len(cid) == _V1_BYTES and cid[0] == 1 and cid[1] < 0x80 and cid[2:4] == _V0_HEAD


def _parse(cid: bytes) -> tuple[int, int, int, int]:
    """Return hash code, offset of the multihash, offset of the digest and its length."""
    version, at = decode_varint(cid)
    if version != 1:
        raise InvalidValueError(f"a CID of version {version}" if version != 0x12 else "a CIDv0 of the wrong length")
    _, hash_at = decode_varint(cid, at)
    code, at = decode_varint(cid, hash_at)
    digest_bytes, digest_at = decode_varint(cid, at)
    if len(cid) - digest_at != digest_bytes:
        raise InvalidValueError(f"a CID with {len(cid) - digest_at} bytes of digest where it announces {digest_bytes}")
    return code, hash_at, digest_at, digest_bytes
