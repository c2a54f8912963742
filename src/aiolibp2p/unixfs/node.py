"""The UnixFS message inside a dag-pb node: what the node is, and how many bytes of a file lie below it.

Spec: UnixFS, "dag-pb Types" and "Data Field": a protobuf message of which `Type` is required. Permissions and times of
modification (fields 7 and 8) are skipped: Kubo's defaults write neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.varint import decode_varint, encode_varint


class NodeType(IntEnum):
    """What a node is (`DataType` of the specification)."""

    RAW = 0
    DIRECTORY = 1
    FILE = 2
    METADATA = 3
    SYMLINK = 4
    HAMT_SHARD = 5


_TYPE, _DATA, _FILE_BYTES, _BLOCK_BYTES, _HASH_TYPE, _FANOUT = range(1, 7)
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_WIRE_TYPES = {
    _TYPE: (_VARINT,),
    _DATA: (_LENGTH,),
    _FILE_BYTES: (_VARINT,),
    _BLOCK_BYTES: (_VARINT, _LENGTH),  # packed, where a peer chose so
    _HASH_TYPE: (_VARINT,),
    _FANOUT: (_VARINT,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnixFsNode:
    """One node's UnixFS data; None where a field is absent.

    `data` is a leaf's bytes, a symlink's target or a shard's bit field; `file_bytes` counts the file's bytes here and
    below, `block_bytes` those below each link.
    """

    type: NodeType
    data: bytes | None = None
    file_bytes: int | None = None
    block_bytes: tuple[int, ...] = ()
    hash_type: int | None = None
    fanout: int | None = None

    @property
    def is_directory(self) -> bool:
        """Whether names lie below it."""
        return self.type in (NodeType.DIRECTORY, NodeType.HAMT_SHARD)

    @property
    def is_file(self) -> bool:
        """Whether it holds bytes of a file."""
        return self.type in (NodeType.FILE, NodeType.RAW)


def encode_unixfs(node: UnixFsNode) -> bytes:
    """Return the message with its fields in the order of their numbers, as every writer does."""
    parts = [b"\x08", encode_varint(node.type)]
    if node.data is not None:
        parts += [b"\x12", encode_varint(len(node.data)), node.data]
    if node.file_bytes is not None:
        parts += [b"\x18", encode_varint(node.file_bytes)]
    for below_bytes in node.block_bytes:
        parts += [b"\x20", encode_varint(below_bytes)]
    if node.hash_type is not None:
        parts += [b"\x28", encode_varint(node.hash_type)]
    if node.fanout is not None:
        parts += [b"\x30", encode_varint(node.fanout)]
    return b"".join(parts)


def decode_unixfs(data: bytes) -> UnixFsNode:
    """Read a message; unknown fields are skipped, and of a field that repeats the last one counts.

    Raises:
        InvalidValueError: it is no protobuf message, a field has a wrong wire type, or the type is absent or unknown.
    """
    numbers: dict[int, int] = {}
    content: bytes | None = None
    block_bytes: list[int] = []
    offset = 0
    while offset < len(data):
        key, offset = decode_varint(data, offset)
        field, wire_type = key >> 3, key & 7
        if field == 0 or wire_type not in _WIRE_TYPES.get(field, (wire_type,)):
            raise InvalidValueError(f"UnixFS field {field} has wire type {wire_type}")
        value, span, offset = _value(data, offset, wire_type)
        if field == _DATA:
            content = bytes(span)
        elif field == _BLOCK_BYTES:
            block_bytes += _packed(span) if wire_type == _LENGTH else (value,)
        else:
            numbers[field] = value
    if _TYPE not in numbers:
        raise InvalidValueError("UnixFS data without a type")
    if numbers[_TYPE] not in NodeType.__members__.values():
        raise InvalidValueError(f"UnixFS type {numbers[_TYPE]} is unknown")
    return UnixFsNode(
        type=NodeType(numbers[_TYPE]),
        data=content,
        file_bytes=numbers.get(_FILE_BYTES),
        block_bytes=tuple(block_bytes),
        hash_type=numbers.get(_HASH_TYPE),
        fanout=numbers.get(_FANOUT),
    )


def _value(data: bytes, offset: int, wire_type: int) -> tuple[int, bytes, int]:
    """Return a field's number, or its bytes, and the offset after it."""
    if wire_type == _VARINT:
        value, offset = decode_varint(data, offset)
        return value, b"", offset
    if wire_type == _LENGTH:
        size, offset = decode_varint(data, offset)
    elif wire_type in _FIXED_BYTES:
        size = _FIXED_BYTES[wire_type]
    else:
        raise InvalidValueError(f"UnixFS data with wire type {wire_type}")
    if size > len(data) - offset:
        raise InvalidValueError("UnixFS data is cut off")
    return 0, data[offset : offset + size], offset + size


def _packed(span: bytes) -> list[int]:
    values: list[int] = []
    offset = 0
    while offset < len(span):
        value, offset = decode_varint(span, offset)
        values.append(value)
    return values
