"""Bitswap as the protobuf library reads and writes it, and CIDs to want: what ours is measured against."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from aiolibp2p.sansio.bitswap.message import Entry, Message, Payload

RAW_PREFIX = b"\x01\x55\x12\x20"
_TYPES = descriptor_pb2.FieldDescriptorProto


def _add(
    message: descriptor_pb2.DescriptorProto, number: int, name: str, kind: int, of: str = "", many: bool = False
) -> None:
    field = message.field.add(name=name, number=number, type=kind)
    field.label = _TYPES.LABEL_REPEATED if many else _TYPES.LABEL_OPTIONAL
    if of:
        field.type_name = of


def _message_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="bitswap_test.proto", package="bitswap_test", syntax="proto3")
    entry = file.message_type.add(name="Entry")
    _add(entry, 1, "block", _TYPES.TYPE_BYTES)
    _add(entry, 2, "priority", _TYPES.TYPE_INT32)
    _add(entry, 3, "cancel", _TYPES.TYPE_BOOL)
    _add(entry, 4, "wantType", _TYPES.TYPE_INT32)  # an enum, whose unknown values are written too
    _add(entry, 5, "sendDontHave", _TYPES.TYPE_BOOL)
    wantlist = file.message_type.add(name="Wantlist")
    _add(wantlist, 1, "entries", _TYPES.TYPE_MESSAGE, ".bitswap_test.Entry", many=True)
    _add(wantlist, 2, "full", _TYPES.TYPE_BOOL)
    block = file.message_type.add(name="Block")
    _add(block, 1, "prefix", _TYPES.TYPE_BYTES)
    _add(block, 2, "data", _TYPES.TYPE_BYTES)
    presence = file.message_type.add(name="BlockPresence")
    _add(presence, 1, "cid", _TYPES.TYPE_BYTES)
    _add(presence, 2, "type", _TYPES.TYPE_INT32)
    message = file.message_type.add(name="Message")
    _add(message, 1, "wantlist", _TYPES.TYPE_MESSAGE, ".bitswap_test.Wantlist")
    _add(message, 2, "blocks", _TYPES.TYPE_BYTES, many=True)
    _add(message, 3, "payload", _TYPES.TYPE_MESSAGE, ".bitswap_test.Block", many=True)
    _add(message, 4, "blockPresences", _TYPES.TYPE_MESSAGE, ".bitswap_test.BlockPresence", many=True)
    _add(message, 5, "pendingBytes", _TYPES.TYPE_INT32)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bitswap_test.Message"))


PbMessage: Any = _message_class()
"""The message of the specification, by the protobuf library."""


def varint(n: int) -> bytes:
    """Return `n` as a minimal varint."""
    encoded = bytearray()
    while n >= 0x80:
        encoded.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes((*encoded, n))


def frame(body: bytes) -> bytes:
    """Return a message body with its length."""
    return varint(len(body)) + body


def digest(n: int) -> bytes:
    """Return the digest of block number `n`."""
    return sha256(b"block %d" % n).digest()


def cid(n: int) -> bytes:
    """Return a raw CIDv1."""
    return RAW_PREFIX + digest(n)


def cid_v0(n: int) -> bytes:
    """Return a CIDv0 of the same block."""
    return b"\x12\x20" + digest(n)


def multihash(n: int) -> bytes:
    """Return the multihash of that block."""
    return b"\x12\x20" + digest(n)


def wants(*entries: Entry | int, full: bool = False) -> Message:
    """Return a message of wants; a number stands for a want-block of that CID that asks for DONT_HAVE."""
    return Message(
        [entry if isinstance(entry, Entry) else Entry(cid(entry), send_dont_have=True) for entry in entries], full=full
    )


def blocks(message: Message) -> list[bytes]:
    """Return the data of the blocks in a message."""
    return [payload.data for payload in message.payloads]


def payload(n: int, data: bytes) -> Payload:
    """Return a block under the prefix of raw CIDs."""
    return Payload(cid(n)[:4], data)
