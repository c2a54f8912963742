"""The protocols that a multiaddr is made of: their codes, and how their values look in bytes and in text.

Spec: multiformats multiaddr, `protocols.csv` and `protocols/`. What is a valid value in one form is valid in the other,
so text and bytes of an address always convert.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import quote_from_bytes, unquote_to_bytes

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.multibase import decode_base32, decode_multibase, encode_base32, encode_base64url
from aiolibp2p.identity.peer_id import PeerId, check_peer_id
from aiolibp2p.identity.varint import decode_varint, encode_varint

_ONION_BYTES = 10
_ONION3_BYTES = 35
_GARLIC64_BYTES_MIN = 386
_GARLIC32_BYTES = 32
_GARLIC32_ENCRYPTED_BYTES_MIN = 35
_IPV4_MAPPED = bytes(10) + b"\xff\xff"
# One `segment-nz` of RFC 3986, section 3.3.
_PATH_SEGMENT = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})+")


def _no_text(text: str) -> bytes:
    raise InvalidValueError("takes no value")


def _no_bytes(data: bytes) -> str:
    raise InvalidValueError("has no value")


def _accept(data: bytes) -> None:
    """Accept any value: its length is all that is asked."""


@dataclass(frozen=True, slots=True)
class AddressProtocol:
    """One protocol of a multiaddr."""

    name: str
    code: int
    size_bytes: int | None = 0
    """Bytes of its value: 0 where it has none, None where a length comes first."""
    parse: Callable[[str], bytes] = _no_text
    """The bytes of a value's text; raises InvalidValueError."""
    render: Callable[[bytes], str] = _no_bytes
    """The text of a value's checked bytes."""
    check: Callable[[bytes], None] = _accept
    """Raises InvalidValueError for bytes, of the right size, that are no value."""
    is_path: bool = False
    """Whether its text takes everything up to the end, slashes too."""
    header: bytes = field(init=False)
    """Its code as a varint."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "header", encode_varint(self.code))

    def encode(self, value: bytes) -> bytes:
        """Return the component's bytes."""
        if self.size_bytes is None:
            return self.header + encode_varint(len(value)) + value
        return self.header + value


def _parse_decimal(text: str, bits: int) -> bytes:
    # int() would also take signs, blanks, underscores and other scripts' digits. 2**64 has 20 digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 20) or int(text) >> bits:
        raise InvalidValueError(f"{text[:24]!r} is not a number of {bits} bits")
    return int(text).to_bytes(bits // 8, "big")


def _render_decimal(data: bytes) -> str:
    return str(int.from_bytes(data, "big"))


def _number(name: str, code: int, bits: int) -> AddressProtocol:
    return AddressProtocol(name, code, bits // 8, lambda text: _parse_decimal(text, bits), _render_decimal)


def _parse_ip4(text: str) -> bytes:
    try:
        return IPv4Address(text).packed
    except AddressValueError as error:
        raise InvalidValueError(f"{text[:64]!r} is not an IPv4 address") from error


def _render_ip4(data: bytes) -> str:
    return f"{data[0]}.{data[1]}.{data[2]}.{data[3]}"


def _parse_ip6(text: str) -> bytes:
    try:
        address = IPv6Address(text)
    except AddressValueError as error:
        raise InvalidValueError(f"{text[:64]!r} is not an IPv6 address") from error
    if address.scope_id is not None:
        raise InvalidValueError("the zone of an IPv6 address has a component of its own, ip6zone")
    return address.packed


def _render_ip6(data: bytes) -> str:
    # Python writes these in one of two ways, depending on its version; go-multiaddr in this one.
    if data.startswith(_IPV4_MAPPED):
        return "::ffff:" + _render_ip4(data[12:])
    return IPv6Address(data).compressed


def _check_name(data: bytes) -> None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidValueError("a name that is not UTF-8") from error
    # Names come from anyone and end on terminals and in logs.
    if not text or "/" in text or not text.isprintable():
        raise InvalidValueError(f"{text[:64]!r} is not a name")


def _check_path(data: bytes) -> None:
    # The slash before a path belongs to it; one behind it would not survive as text.
    if len(data) < 2 or data[:1] != b"/" or data[-1:] == b"/":
        raise InvalidValueError("not the path of a socket")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidValueError("a path that is not UTF-8") from error
    if not text.isprintable():
        raise InvalidValueError(f"{text[:64]!r} is not the path of a socket")


def _parse_utf8(text: str, check: Callable[[bytes], None]) -> bytes:
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidValueError("text that is not Unicode") from error
    check(data)
    return data


def _render_utf8(data: bytes) -> str:
    return data.decode("utf-8")


def _name(name: str, code: int) -> AddressProtocol:
    return AddressProtocol(name, code, None, lambda text: _parse_utf8(text, _check_name), _render_utf8, _check_name)


def _parse_peer_id(text: str) -> bytes:
    return bytes(PeerId.parse(text))


def _render_peer_id(data: bytes) -> str:
    return str(PeerId(data))


def _check_certhash(data: bytes) -> None:
    _, offset = decode_varint(data)
    size, offset = decode_varint(data, offset)
    if len(data) != offset + size:
        raise InvalidValueError("not a multihash")


def _parse_certhash(text: str) -> bytes:
    data = decode_multibase(text)
    _check_certhash(data)
    return data


def _render_certhash(data: bytes) -> str:
    return "u" + encode_base64url(data)


def _check_http_path(data: bytes) -> None:
    if not data:
        raise InvalidValueError("an HTTP path is not empty")


def _parse_http_path(text: str) -> bytes:
    if _PATH_SEGMENT.fullmatch(text) is None:
        raise InvalidValueError(f"{text[:64]!r} is not one percent-encoded segment")
    return unquote_to_bytes(text)


def _render_http_path(data: bytes) -> str:
    return quote_from_bytes(data, safe="")


def _onion(name: str, code: int, host_bytes: int) -> AddressProtocol:
    def parse(text: str) -> bytes:
        host, separator, port = text.partition(":")
        if not separator or not host.isascii():
            raise InvalidValueError("an onion address is base32, a colon and a port")
        data = decode_base32(host.lower()) + _parse_decimal(port, 16)
        if len(data) != host_bytes + 2:
            raise InvalidValueError(f"the host of an {name} address has {host_bytes} bytes, not {len(data) - 2}")
        check(data)
        return data

    def render(data: bytes) -> str:
        return f"{encode_base32(data[:host_bytes])}:{_render_decimal(data[host_bytes:])}"

    def check(data: bytes) -> None:
        if data[host_bytes:] == b"\0\0":
            raise InvalidValueError("port 0 of an onion address")

    return AddressProtocol(name, code, host_bytes + 2, parse, render, check)


def _check_garlic64(data: bytes) -> None:
    if len(data) < _GARLIC64_BYTES_MIN:
        raise InvalidValueError(f"a garlic64 address has at least {_GARLIC64_BYTES_MIN} bytes, not {len(data)}")


def _render_garlic64(data: bytes) -> str:
    return base64.b64encode(data, altchars=b"-~").decode("ascii")


def _parse_garlic64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, altchars=b"-~")
    except (binascii.Error, ValueError) as error:
        raise InvalidValueError("not the base64 of I2P") from error
    if _render_garlic64(data) != text:
        raise InvalidValueError("not canonical base64 of I2P")
    _check_garlic64(data)
    return data


def _check_garlic32(data: bytes) -> None:
    if len(data) != _GARLIC32_BYTES and len(data) < _GARLIC32_ENCRYPTED_BYTES_MIN:
        raise InvalidValueError(f"a garlic32 address does not have {len(data)} bytes")


def _parse_garlic32(text: str) -> bytes:
    data = decode_base32(text)
    _check_garlic32(data)
    return data


_PROTOCOLS = (
    AddressProtocol("ip4", 4, 4, _parse_ip4, _render_ip4),
    _number("tcp", 6, 16),
    _number("dccp", 33, 16),
    AddressProtocol("ip6", 41, 16, _parse_ip6, _render_ip6),
    _name("ip6zone", 42),
    _number("ipcidr", 43, 8),
    _name("dns", 53),
    _name("dns4", 54),
    _name("dns6", 55),
    _name("dnsaddr", 56),
    _number("sctp", 132, 16),
    _number("udp", 273, 16),
    AddressProtocol("p2p-webrtc-star", 275),
    AddressProtocol("p2p-webrtc-direct", 276),
    AddressProtocol("p2p-stardust", 277),
    AddressProtocol("webrtc-direct", 280),
    AddressProtocol("webrtc", 281),
    AddressProtocol("p2p-circuit", 290),
    AddressProtocol("udt", 301),
    AddressProtocol("utp", 302),
    AddressProtocol(
        "unix", 400, None, lambda text: _parse_utf8(text, _check_path), _render_utf8, _check_path, is_path=True
    ),
    AddressProtocol("p2p", 421, None, _parse_peer_id, _render_peer_id, check_peer_id),
    AddressProtocol("https", 443),
    _onion("onion", 444, _ONION_BYTES),
    _onion("onion3", 445, _ONION3_BYTES),
    AddressProtocol("garlic64", 446, None, _parse_garlic64, _render_garlic64, _check_garlic64),
    AddressProtocol("garlic32", 447, None, _parse_garlic32, encode_base32, _check_garlic32),
    AddressProtocol("tls", 448),
    _name("sni", 449),
    AddressProtocol("noise", 454),
    AddressProtocol("quic", 460),
    AddressProtocol("quic-v1", 461),
    AddressProtocol("webtransport", 465),
    AddressProtocol("certhash", 466, None, _parse_certhash, _render_certhash, _check_certhash),
    AddressProtocol("ws", 477),
    AddressProtocol("wss", 478),
    AddressProtocol("p2p-websocket-star", 479),
    AddressProtocol("http", 480),
    AddressProtocol("http-path", 481, None, _parse_http_path, _render_http_path, _check_http_path),
    # `protocols.csv` leaves its size open; go-libp2p and rust-libp2p both send eight bytes.
    _number("memory", 777, 64),
    AddressProtocol("plaintextv2", 7367777),
)

BY_CODE: dict[int, AddressProtocol] = {protocol.code: protocol for protocol in _PROTOCOLS}
"""The protocols by their code."""

BY_NAME: dict[str, AddressProtocol] = {protocol.name: protocol for protocol in _PROTOCOLS} | {"ipfs": BY_CODE[421]}
"""The protocols by their name, and `ipfs` as the old one of `p2p`."""
