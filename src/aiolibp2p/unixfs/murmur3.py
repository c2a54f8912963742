"""MurmurHash3 x64, the first 64 of its 128 bits: the hash that places names in a sharded directory.

Spec: multicodec murmur3-x64-64 (0x22), seed 0. It protects nothing: anyone can make names that collide.
"""

from __future__ import annotations

MURMUR3_X64_64 = 0x22
"""The multicodec of this hash, which a shard names as its `hashType`."""

_MASK = (1 << 64) - 1
_C1 = 0x87C37B91114253D5
_C2 = 0x4CF5AD432745937F
_BLOCK_BYTES = 16


def murmur3_x64_64(data: bytes) -> int:
    """Return the hash of `data`, whose most significant bit is the first that a directory uses."""
    h1 = h2 = 0
    whole_bytes = len(data) - len(data) % _BLOCK_BYTES
    for offset in range(0, whole_bytes, _BLOCK_BYTES):
        h1 ^= _mix1(int.from_bytes(data[offset : offset + 8], "little"))
        h1 = (_rotate(h1, 27) + h2) * 5 + 0x52DCE729 & _MASK
        h2 ^= _mix2(int.from_bytes(data[offset + 8 : offset + 16], "little"))
        h2 = (_rotate(h2, 31) + h1) * 5 + 0x38495AB5 & _MASK
    # An absent half mixes to 0, so the tail needs no case of its own.
    h1 ^= _mix1(int.from_bytes(data[whole_bytes : whole_bytes + 8], "little"))
    h2 ^= _mix2(int.from_bytes(data[whole_bytes + 8 :], "little"))
    h1 ^= len(data)
    h2 ^= len(data)
    h1 = h1 + h2 & _MASK
    h2 = h2 + h1 & _MASK
    return _finish(h1) + _finish(h2) & _MASK


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> 64 - bits) & _MASK


def _mix1(k: int) -> int:
    return _rotate(k * _C1 & _MASK, 31) * _C2 & _MASK


def _mix2(k: int) -> int:
    return _rotate(k * _C2 & _MASK, 33) * _C1 & _MASK


def _finish(h: int) -> int:
    h ^= h >> 33
    h = h * 0xFF51AFD7ED558CCD & _MASK
    h ^= h >> 33
    h = h * 0xC4CEB9FE1A85EC53 & _MASK
    return h ^ h >> 33
