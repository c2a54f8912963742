"""Addresses of libp2p: a path of protocols, from the network to the peer.

Spec: multiformats multiaddr. The protocols themselves are in `address_protocols`.
"""

from __future__ import annotations

from typing import final

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.address_protocols import BY_CODE, BY_NAME, AddressProtocol
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.identity.varint import decode_varint

ADDRESS_BYTES_MAX = 4096
"""The longest multiaddr: WebTransport with two hashes takes some 150 bytes, an I2P destination some 500."""

ADDRESS_CHARS_MAX = 10 * ADDRESS_BYTES_MAX
"""The longest text that is read: no component writes a byte in more letters (`/p2p-websocket-star` is two bytes)."""

_Parts = tuple[tuple[AddressProtocol, bytes], ...]

_HOSTS = frozenset({"ip4", "ip6", "dns", "dns4", "dns6"})
_IP6_LOOPBACK = bytes(15) + b"\x01"
_IP4_IN_IP6 = bytes(10) + b"\xff\xff"


@final
class Multiaddr:
    """An address: a value, immutable, equal by its bytes and never empty."""

    __slots__ = ("_components", "_data", "_hash", "_parts", "_peer_id", "_text")

    _data: bytes
    _parts: _Parts
    _components: tuple[tuple[str, str | None], ...] | None
    _hash: int | None
    _peer_id: PeerId | None
    _text: str | None

    def __init__(self, value: str | bytes | Multiaddr) -> None:
        """Read an address from text or bytes, or copy one.

        Raises:
            InvalidValueError: it is empty or too long, names an unknown protocol, or has a bad value.
        """
        if isinstance(value, Multiaddr):
            self._parts, self._data = value._parts, value._data
        elif isinstance(value, str):
            self._parts = _parse_text(value)
            self._data = _join(self._parts)
        else:
            self._parts = _parse_bytes(value)
            self._data = bytes(value)
        self._components = self._hash = self._text = None

    @classmethod
    def from_tcp(cls, host: str, port: int) -> Multiaddr:
        """Return the TCP address of an IP address, as sockets write it, and a port.

        Raises:
            InvalidValueError: `host` is not an IP address (a `%zone` may follow an IPv6 one) or `port` is not a port.
        """
        texts = [("ip6" if ":" in host else "ip4", host), ("tcp", str(port))]
        if "%" in host:
            address, _, zone = host.partition("%")
            texts[:1] = [("ip6zone", zone), ("ip6", address)]
        return _from_parts(tuple((BY_NAME[name], _parse_value(BY_NAME[name], text)) for name, text in texts))

    @property
    def protocols(self) -> tuple[str, ...]:
        """The names of its protocols, in order."""
        return tuple(protocol.name for protocol, _ in self._parts)

    @property
    def components(self) -> tuple[tuple[str, str | None], ...]:
        """Its components, each a protocol's name and the value's text; None for a protocol without a value."""
        if self._components is None:
            self._components = tuple(
                (protocol.name, None if protocol.size_bytes == 0 else protocol.render(value))
                for protocol, value in self._parts
            )
        return self._components

    def value(self, name: str) -> str | None:
        """Return the text of the first value of protocol `name`; None where it is absent or has no value."""
        return next((text for protocol, text in self.components if protocol == name), None)

    def encapsulate(self, other: Multiaddr | str) -> Multiaddr:
        """Return this address with `other` behind it.

        Raises:
            InvalidValueError: `other` is not an address, this one ends with a path, or the result is too long.
        """
        return _from_parts(self._parts + Multiaddr(other)._parts)

    def decapsulate(self, other: Multiaddr | str) -> Multiaddr:
        """Return what stands before the last `other`, an address or a protocol's name; all where it is not contained.

        Raises:
            InvalidValueError: `other` is neither, or nothing would be left.
        """
        if isinstance(other, str) and not other.startswith("/"):
            protocol = BY_NAME.get(other)
            if protocol is None:
                raise InvalidValueError(f"unknown protocol {other[:64]!r}")
            starts = [at for at, part in enumerate(self._parts) if part[0] is protocol]
        else:
            tail = Multiaddr(other)._parts
            starts = [at for at in range(len(self._parts)) if self._parts[at : at + len(tail)] == tail]
        return _from_parts(self._parts[: starts[-1]]) if starts else self

    @property
    def peer_id(self) -> PeerId | None:
        """The peer at the end of the address; None where none is named, as behind a relay without a target."""
        try:
            return self._peer_id
        except AttributeError:
            at = self._peer_at()
            self._peer_id = None if at is None else PeerId(self._parts[at][1])
        return self._peer_id

    def with_peer_id(self, peer_id: PeerId) -> Multiaddr:
        """Return this address with `/p2p/<peer_id>` at its end; the same where it names that peer already.

        Raises:
            InvalidValueError: it names another peer, ends with a path, or the result is too long.
        """
        if self.peer_id is None:
            return _from_parts((*self._parts, (BY_NAME["p2p"], bytes(peer_id))))
        if self.peer_id != peer_id:
            raise InvalidValueError(f"{self} names another peer than {peer_id}")
        return self

    def without_peer_id(self) -> Multiaddr:
        """Return this address without the component that `peer_id` reads.

        Raises:
            InvalidValueError: nothing would be left.
        """
        at = self._peer_at()
        return self if at is None else _from_parts(self._parts[:at] + self._parts[at + 1 :])

    @property
    def tcp_endpoint(self) -> tuple[str, int] | None:
        """The host (an IP address, with its zone, or a name) and port it begins with; None where that is not TCP.

        What is spoken on top, as in `/ip4/…/tcp/443/tls/ws`, is not looked at: `is_plain_tcp` does.
        """
        start = self._tcp_start()
        if start is None:
            return None
        protocol, host = self._parts[start]
        zone = "%" + self._parts[0][1].decode("utf-8") if start else ""
        return protocol.render(host) + zone, int.from_bytes(self._parts[start + 1][1], "big")

    @property
    def is_plain_tcp(self) -> bool:
        """Whether it is a TCP endpoint and at most the peer's ID: what the TCP transport dials."""
        start = self._tcp_start()
        return start is not None and self.protocols[start + 2 :] in ((), ("p2p",))

    @property
    def is_loopback(self) -> bool:
        """Whether it leads to this machine: 127.0.0.0/8, `::1`, or the name `localhost`."""
        name, value = self._host()
        if name == "ip4":
            return value[0] == 127
        if name == "ip6":
            return value == _IP6_LOOPBACK
        return name.startswith("dns") and value.lower() == b"localhost"

    @property
    def is_private(self) -> bool:
        """Whether it leads to this machine or the networks around it: loopback, link-local, private and shared ranges.

        RFC 1918, RFC 3927, RFC 6598; for IPv6, RFC 4193 and fe80::/10.
        """
        name, value = self._host()
        if name == "ip4":
            return _is_private_ip4(value)
        if name == "ip6":
            return value[0] & 0xFE == 0xFC or (value[0] == 0xFE and value[1] & 0xC0 == 0x80) or self.is_loopback
        return self.is_loopback

    def _host(self) -> tuple[str, bytes]:
        """Return name and value of the host; that of ip4 for an IPv6 address that holds one."""
        at = 1 if self._parts[0][0].name == "ip6zone" and len(self._parts) > 1 else 0
        protocol, value = self._parts[at]
        if protocol.name == "ip6" and value.startswith(_IP4_IN_IP6):
            return "ip4", value[len(_IP4_IN_IP6) :]
        return protocol.name, value

    def _tcp_start(self) -> int | None:
        """Return where host and TCP port stand: behind a zone, if there is one."""
        names = self.protocols
        if names[:1] == ("ip6zone",):
            return 1 if names[1:3] == ("ip6", "tcp") else None
        return 0 if names[0] in _HOSTS and names[1:2] == ("tcp",) else None

    def _peer_at(self) -> int | None:
        """Return where the last peer ID stands that is not a relay's."""
        names = self.protocols
        for at in range(len(names) - 1, -1, -1):
            if names[at] == "p2p-circuit":
                return None
            if names[at] == "p2p":
                return at
        return None

    def __bytes__(self) -> bytes:
        return self._data

    def __reduce__(self) -> tuple[type[Multiaddr], tuple[bytes]]:
        # The cached hash is of this process only.
        return Multiaddr, (self._data,)

    def __str__(self) -> str:
        if self._text is None:
            self._text = "".join(_component_text(name, text) for name, text in self.components)
        return self._text

    def __repr__(self) -> str:
        return f"Multiaddr({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return self._data == other._data if isinstance(other, Multiaddr) else NotImplemented

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self._data)
        return self._hash


def _is_private_ip4(value: bytes) -> bool:
    first, second = value[0], value[1]
    return (
        first in (10, 127)
        or (first == 100 and second & 0xC0 == 64)
        or (first == 169 and second == 254)
        or (first == 172 and second & 0xF0 == 16)
        or (first == 192 and second == 168)
    )


def _component_text(name: str, text: str | None) -> str:
    if text is None:
        return f"/{name}"
    # The text of a path begins with the slash that would separate it.
    return f"/{name}{text}" if BY_NAME[name].is_path else f"/{name}/{text}"


def _join(parts: _Parts) -> bytes:
    data = b"".join(protocol.encode(value) for protocol, value in parts)
    if len(data) > ADDRESS_BYTES_MAX:
        raise InvalidValueError(f"a multiaddr of {len(data)} bytes is longer than {ADDRESS_BYTES_MAX}")
    return data


def _from_parts(parts: _Parts) -> Multiaddr:
    """Return the address of parts that are already checked."""
    if not parts:
        raise InvalidValueError("nothing is left of the multiaddr")
    if any(protocol.is_path for protocol, _ in parts[:-1]):
        raise InvalidValueError("nothing can stand behind a path")
    address = Multiaddr.__new__(Multiaddr)
    address._parts = parts
    address._data = _join(parts)
    address._components = address._hash = address._text = None
    return address


def _parse_bytes(data: bytes) -> _Parts:
    if not 0 < len(data) <= ADDRESS_BYTES_MAX:
        raise InvalidValueError(f"a multiaddr has 1 to {ADDRESS_BYTES_MAX} bytes, not {len(data)}")
    parts = []
    offset = 0
    while offset < len(data):
        code, offset = decode_varint(data, offset)
        protocol = BY_CODE.get(code)
        if protocol is None:
            raise InvalidValueError(f"unknown protocol code {code}")
        size = protocol.size_bytes
        if size is None:
            size, offset = decode_varint(data, offset)
        value = data[offset : offset + size]
        if len(value) != size:
            raise InvalidValueError(f"the value of {protocol.name} is cut off")
        protocol.check(value)
        parts.append((protocol, value))
        offset += size
        if protocol.is_path and offset != len(data):
            raise InvalidValueError(f"{protocol.name} is not the last component")
    return tuple(parts)


def _parse_text(text: str) -> _Parts:
    if len(text) > ADDRESS_CHARS_MAX:
        raise InvalidValueError(f"a multiaddr of {len(text)} letters is longer than {ADDRESS_CHARS_MAX}")
    words = text.rstrip("/").split("/")
    if words[0] or len(words) < 2:
        raise InvalidValueError(f"a multiaddr begins with a slash and a protocol, not {text[:64]!r}")
    parts = []
    position = 1
    while position < len(words):
        name = words[position]
        position += 1
        protocol = BY_NAME.get(name)
        if protocol is None:
            raise InvalidValueError(f"unknown protocol {name[:64]!r}")
        value = b""
        if protocol.size_bytes != 0:
            if position == len(words):
                raise InvalidValueError(f"{protocol.name} needs a value")
            if protocol.is_path:
                word, position = "/" + "/".join(words[position:]), len(words)
            else:
                word, position = words[position], position + 1
            value = _parse_value(protocol, word)
        parts.append((protocol, value))
    return tuple(parts)


def _parse_value(protocol: AddressProtocol, word: str) -> bytes:
    try:
        return protocol.parse(word)
    except InvalidValueError as error:
        raise InvalidValueError(f"{protocol.name}: {error}") from error
