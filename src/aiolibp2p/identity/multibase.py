"""The few multibase encodings that peer IDs and certificate hashes are written in.

Every decoder takes exactly one text for given bytes: no padding, no foreign letter case, no stray bits.
Spec: multiformats multibase; base58btc and base36 by repeated division, base32 and base64url by RFC 4648.
"""

from __future__ import annotations

import base64
import binascii

from aiolibp2p.errors import InvalidValueError

RADIX_CHARS_MAX = 128
"""The longest base58 or base36 text that is decoded: the work grows with its square, and a 64-byte hash needs 105."""

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_VALUES = {alphabet: {letter: value for value, letter in enumerate(alphabet)} for alphabet in (_BASE58, _BASE36)}


def encode_base58(data: bytes) -> str:
    """Return `data` in base58btc, without a multibase prefix."""
    return _encode_radix(data, _BASE58)


def decode_base58(text: str) -> bytes:
    """Return the bytes of base58btc text without a multibase prefix.

    Raises:
        InvalidValueError: a letter outside the alphabet, or more than RADIX_CHARS_MAX of them.
    """
    return _decode_radix(text, _BASE58, "base58")


def encode_base32(data: bytes) -> str:
    """Return `data` in lower-case base32 without padding and without a multibase prefix."""
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def decode_base32(text: str) -> bytes:
    """Return the bytes of lower-case base32 text without padding and without a multibase prefix.

    Raises:
        InvalidValueError: a letter outside the alphabet, an impossible length, or stray bits at the end.
    """
    try:
        data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError) as error:
        raise InvalidValueError("not base32") from error
    if encode_base32(data) != text:
        raise InvalidValueError("not canonical base32")
    return data


def encode_base64url(data: bytes) -> str:
    """Return `data` in base64url without padding and without a multibase prefix."""
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def decode_base64url(text: str) -> bytes:
    """Return the bytes of base64url text without padding and without a multibase prefix.

    Raises:
        InvalidValueError: a letter outside the alphabet, an impossible length, or stray bits at the end.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise InvalidValueError("not base64url") from error
    if encode_base64url(data) != text:
        raise InvalidValueError("not canonical base64url")
    return data


def decode_multibase(text: str) -> bytes:
    """Return the bytes of text whose first letter names its encoding.

    Raises:
        InvalidValueError: the encoding is none of base16, base32, base36, base58btc and base64url, or its text is bad.
    """
    prefix, rest = text[:1], text[1:]
    match prefix:
        case "b":
            return decode_base32(rest)
        case "z":
            return decode_base58(rest)
        case "k":
            return _decode_radix(rest, _BASE36, "base36")
        case "u":
            return decode_base64url(rest)
        case "f":
            return _decode_base16(rest)
    raise InvalidValueError(f"no multibase encoding is called {prefix!r}")


def _decode_base16(text: str) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError as error:
        raise InvalidValueError("not base16") from error
    if data.hex() != text:
        raise InvalidValueError("not canonical base16")
    return data


def _encode_radix(data: bytes, alphabet: str) -> str:
    number = int.from_bytes(data, "big")
    radix = len(alphabet)
    letters = []
    while number:
        number, value = divmod(number, radix)
        letters.append(alphabet[value])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return alphabet[0] * zeros + "".join(reversed(letters))


def _decode_radix(text: str, alphabet: str, name: str) -> bytes:
    if len(text) > RADIX_CHARS_MAX:
        raise InvalidValueError(f"{name} text of {len(text)} letters is longer than {RADIX_CHARS_MAX}")
    values = _VALUES[alphabet]
    radix = len(alphabet)
    number = 0
    try:
        for letter in text:
            number = number * radix + values[letter]
    except KeyError as error:
        raise InvalidValueError(f"{error.args[0]!r} is not a letter of {name}") from None
    zeros = len(text) - len(text.lstrip(alphabet[0]))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
