"""Unsigned varints of multiformats: minimal, at most nine bytes, so below 2**63.

Spec: multiformats unsigned-varint, "Practical maximum of 9 bytes" and "must be encoded in as few bytes as possible".
"""

from __future__ import annotations

from aiolibp2p.errors import InvalidValueError

VARINT_BYTES_MAX = 9
"""The longest varint that multiformats allow."""

VARINT_MAX = (1 << 63) - 1
"""The largest number in so many bytes."""

_ONE_BYTE = tuple(bytes((n,)) for n in range(0x80))


def encode_varint(n: int) -> bytes:
    """Return `n` as a minimal varint.

    Raises:
        InvalidValueError: `n` is negative or above VARINT_MAX.
    """
    if 0 <= n < 0x80:
        return _ONE_BYTE[n]
    if not 0 <= n <= VARINT_MAX:
        raise InvalidValueError(f"{n} does not fit in a varint")
    encoded = bytearray()
    while n >= 0x80:
        encoded.append(n & 0x7F | 0x80)
        n >>= 7
    encoded.append(n)
    return bytes(encoded)


def scan_varint(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int] | None:
    """Read the varint at `offset` of bytes that may go on later.

    Returns its value and the offset after it, or None where its last byte is not there yet.

    Raises:
        InvalidValueError: it is longer than nine bytes, or not minimal.
    """
    if offset >= len(data):
        return None
    byte = data[offset]
    if byte < 0x80:
        return byte, offset + 1
    value = byte & 0x7F
    shift = 7
    for position in range(offset + 1, min(offset + VARINT_BYTES_MAX, len(data))):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0:
                raise InvalidValueError("varint is not minimal")
            return value, position + 1
        shift += 7
    if len(data) - offset >= VARINT_BYTES_MAX:
        raise InvalidValueError(f"varint is longer than {VARINT_BYTES_MAX} bytes")
    return None


def decode_varint(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int]:
    """Read the varint at `offset` of complete bytes; return its value and the offset after it.

    Raises:
        InvalidValueError: it is cut off, longer than nine bytes, or not minimal.
    """
    found = scan_varint(data, offset)
    if found is None:
        raise InvalidValueError("varint is cut off")
    return found
