"""What a block links to: the dag-pb codec, and the links of blocks of every codec known here.

Spec: IPLD DAG-PB, "Format" and "Protobuf strictness"; IPLD DAG-CBOR, "Links" and "Strictness".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aiolibp2p.blocks.cid import DAG_CBOR, DAG_PB, LIBP2P_KEY, RAW, Cid
from aiolibp2p.errors import InvalidValueError

_DATA = 0x0A
_LINKS = 0x12
_HASH = 0x0A
_NAME = 0x12
_TSIZE = 0x18
_LINK_FIELDS = {_HASH: "Hash", _NAME: "Name", _TSIZE: "Tsize"}
_VARINT_BITS = 64

_CBOR_LINK_TAG = 42
_CBOR_BYTES = 2
_CBOR_TEXT = 3
_CBOR_ARRAY = 4
_CBOR_MAP = 5
_CBOR_TAG = 6


@dataclass(frozen=True, slots=True)
class PbLink:
    """A link of a dag-pb block.

    A name that is not UTF-8 holds surrogates, as the names of `os.listdir` do, so that its bytes survive.
    """

    cid: Cid
    name: str | None = ""
    size: int | None = 0
    """Bytes of everything below the link, encoded; a claim that nobody checks."""


@dataclass(frozen=True, slots=True)
class PbNode:
    """A dag-pb block; `data` None where it has none, which is not the same as empty."""

    links: tuple[PbLink, ...] = ()
    data: bytes | None = None


def encode_node(links: Iterable[PbLink], data: bytes | None = None) -> bytes:
    """Return the bytes of a dag-pb block: its links in the order of their names, then its data.

    Links of one name keep their order. Names are sorted by their bytes.

    Raises:
        InvalidValueError: a size is negative or takes more than 64 bits, or a name cannot be encoded.
    Spec: DAG-PB, "Link sorting".
    """
    encoded = [(_encode_name(link.name), link) for link in links]
    encoded.sort(key=lambda pair: pair[0] or b"")
    parts: list[bytes] = []
    for name, link in encoded:
        body = _encode_link(link, name)
        parts += (b"\x12", _encode_varint(len(body)), body)
    if data is not None:
        parts += (b"\x0a", _encode_varint(len(data)), data)
    return b"".join(parts)


def decode_node(data: bytes) -> PbNode:
    """Return the links and the data of a dag-pb block.

    Raises:
        InvalidValueError: it is malformed, or has a field that dag-pb does not, or a field twice or out of place.
    Spec: DAG-PB, "Protobuf strictness": data may stand before the links, but not between them.
    """
    links: list[PbLink] = []
    content: bytes | None = None
    links_ended = False
    at = 0
    while at < len(data):
        tag, start = _decode_varint(data, at)
        if tag not in (_DATA, _LINKS):
            raise InvalidValueError(f"a dag-pb block with the field tag {tag}")
        size, start = _decode_varint(data, start)
        at = start + size
        if at > len(data):
            raise InvalidValueError("a dag-pb block is cut off")
        body = data[start:at]
        if tag == _DATA:
            if content is not None:
                raise InvalidValueError("a dag-pb block with its data twice")
            content = body
            links_ended = bool(links)
        elif links_ended:
            raise InvalidValueError("a dag-pb block with its data between its links")
        else:
            links.append(_decode_link(body))
    return PbNode(tuple(links), content)


def links_of(cid: Cid, data: bytes) -> list[Cid]:
    """Return what the block links to, in order, once for each time it does.

    Raises:
        InvalidValueError: the block is malformed, or its codec is none of raw, dag-pb, dag-cbor and libp2p-key.
    """
    try:
        if cid.codec in (RAW, LIBP2P_KEY):
            return []
        if cid.codec == DAG_PB:
            return [link.cid for link in decode_node(data).links]
        if cid.codec == DAG_CBOR:
            return _cbor_links(data)
    except InvalidValueError as error:
        raise InvalidValueError(f"block {cid}: {error}") from error
    raise InvalidValueError(f"block {cid}: its codec 0x{cid.codec:x} is not known here")


def _encode_name(name: str | None) -> bytes | None:
    if name is None:
        return None
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidValueError(f"{name!r} is not a name") from error


def _encode_link(link: PbLink, name: bytes | None) -> bytes:
    cid = bytes(link.cid)
    parts = [b"\x0a", _encode_varint(len(cid)), cid]
    if name is not None:
        parts += (b"\x12", _encode_varint(len(name)), name)
    if link.size is not None:
        parts += (b"\x18", _encode_varint(link.size))
    return b"".join(parts)


def _decode_link(data: bytes) -> PbLink:
    cid: Cid | None = None
    name: str | None = None
    size: int | None = None
    last = 0
    at = 0
    while at < len(data):
        tag, at = _decode_varint(data, at)
        if tag not in _LINK_FIELDS:
            raise InvalidValueError(f"a dag-pb link with the field tag {tag}")
        if tag <= last:
            raise InvalidValueError(f"a dag-pb link with its {_LINK_FIELDS[tag]} twice or out of order")
        last = tag
        value, at = _decode_varint(data, at)
        if tag == _TSIZE:
            size = value
            continue
        end = at + value
        if end > len(data):
            raise InvalidValueError("a dag-pb link is cut off")
        if tag == _HASH:
            cid = Cid(data[at:end])
        else:
            name = data[at:end].decode("utf-8", "surrogateescape")
        at = end
    if cid is None:
        raise InvalidValueError("a dag-pb link without a Hash")
    return PbLink(cid, name, size)


def _encode_varint(n: int) -> bytes:
    # Protobuf's varints have 64 bits; those of multiformats, in `identity.varint`, 63.
    if not 0 <= n < 1 << _VARINT_BITS:
        raise InvalidValueError(f"{n} does not fit in 64 bits")
    encoded = bytearray()
    while n >= 0x80:
        encoded.append(n & 0x7F | 0x80)
        n >>= 7
    encoded.append(n)
    return bytes(encoded)


def _decode_varint(data: bytes, at: int) -> tuple[int, int]:
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1
    value = shift = 0
    while at < len(data) and shift < _VARINT_BITS:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> _VARINT_BITS:
                break
            return value, at
        shift += 7
    raise InvalidValueError("a varint is cut off or too long")


def _cbor_links(data: bytes) -> list[Cid]:
    """Return the links of a dag-cbor block, by a walk over the heads of its items.

    A decoder that gives links as bytes, as libipld's does, cannot tell them from bytes that only look like a CID, and
    one that recurses can be made to run out of stack.
    """
    links: list[Cid] = []
    # How many items each open array or map still has; a map's are its keys and values.
    open_items = [1]
    at = 0
    while open_items:
        if open_items[-1] == 0:
            open_items.pop()
            continue
        open_items[-1] -= 1
        kind, value, at = _cbor_head(data, at)
        if kind in (_CBOR_BYTES, _CBOR_TEXT):
            at = _cbor_end(data, at, value)
        elif kind in (_CBOR_ARRAY, _CBOR_MAP):
            items = value if kind == _CBOR_ARRAY else 2 * value
            # An item takes a byte at least, so a count beyond what is left is a lie, and is never counted down.
            if items > len(data) - at:
                raise InvalidValueError("dag-cbor: more items than bytes")
            open_items.append(items)
        elif kind == _CBOR_TAG:
            kind, size, start = _cbor_head(data, at)
            if value != _CBOR_LINK_TAG or kind != _CBOR_BYTES:
                raise InvalidValueError("dag-cbor: a tag that is not of a link")
            at = _cbor_end(data, start, size)
            if data[start : start + 1] != b"\x00":
                raise InvalidValueError("dag-cbor: a link without its leading zero")
            links.append(Cid(data[start + 1 : at]))
    if at != len(data):
        raise InvalidValueError("dag-cbor: bytes after the end")
    return links


def _cbor_head(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the major type, the argument and the offset after the head at `at`."""
    if at >= len(data):
        raise InvalidValueError("dag-cbor: cut off")
    kind, low = data[at] >> 5, data[at] & 0x1F
    if low < 24:
        return kind, low, at + 1
    size = 1 << (low - 24)
    if low > 27 or at + 1 + size > len(data):
        raise InvalidValueError("dag-cbor: cut off, or an item of unknown length")
    return kind, int.from_bytes(data[at + 1 : at + 1 + size], "big"), at + 1 + size


def _cbor_end(data: bytes, start: int, size: int) -> int:
    if size > len(data) - start:
        raise InvalidValueError("dag-cbor: cut off")
    return start + size
