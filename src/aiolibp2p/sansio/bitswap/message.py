"""Bitswap messages: what they hold, and how they are written (Bitswap 1.0.0, 1.1.0 and 1.2.0).

A message is a varint length and a protobuf. Blocks are framed by hand, so that their bytes go into the stream as they
are; the protobuf encoder would copy each twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from aiolibp2p.errors import LimitError
from aiolibp2p.identity.varint import encode_varint

PROTOCOL = "/ipfs/bitswap/1.2.0"
"""What is spoken where there is a choice: HAVE, DONT_HAVE and want-have."""
PROTOCOL_1_1 = "/ipfs/bitswap/1.1.0"
"""Any CID, but no presences."""
PROTOCOL_1_0 = "/ipfs/bitswap/1.0.0"
"""Blocks without prefixes: CIDv0 only."""
PROTOCOL_UNVERSIONED = "/ipfs/bitswap"
"""The same, older."""
PROTOCOLS = (PROTOCOL, PROTOCOL_1_1, PROTOCOL_1_0, PROTOCOL_UNVERSIONED)
"""All that are spoken, best first."""

PRIORITY_MAX = (1 << 31) - 1
"""The highest priority of a want (an int32)."""

EMPTY_BYTES = 2
"""What a message takes beside blocks and presences: an empty wantlist."""

_BARE_PROTOCOLS = frozenset({PROTOCOL_1_0, PROTOCOL_UNVERSIONED})
# A block shorter than this is copied next to its header; a longer one stays a buffer of its own.
_COPY_BYTES = 4096
_INT32_MASK = (1 << 64) - 1


class Entry(NamedTuple):
    """One want, or the cancelling of one."""

    cid: bytes
    priority: int = 1
    cancel: bool = False
    want_have: bool = False
    """Whether HAVE is asked for, not the block."""
    send_dont_have: bool = False
    """Whether DONT_HAVE is asked for where there is no block."""


class Payload(NamedTuple):
    """One block: `prefix` is its CID without the digest, which the receiver computes."""

    prefix: bytes
    data: bytes


class Presence(NamedTuple):
    """Whether the block of one CID is there."""

    cid: bytes
    have: bool


@dataclass(slots=True)
class Message:
    """One Bitswap message."""

    entries: list[Entry] = field(default_factory=list)
    full: bool = False
    """Whether the entries replace all earlier ones."""
    payloads: list[Payload] = field(default_factory=list)
    presences: list[Presence] = field(default_factory=list)
    pending_bytes: int = 0
    """What the sender still has queued for the receiver; only a hint."""
    skipped: int = 0
    """Entries, blocks and presences that were received and not understood; never sent."""
    long_cids: int = 0
    """How many of those because of the length of their CID."""
    dropped: int = 0
    """Entries, blocks and presences beyond what one message may bring; never sent."""

    def __bool__(self) -> bool:
        """Return whether it says anything."""
        return bool(self.entries or self.full or self.payloads or self.presences)


def supports_have(protocol: str) -> bool:
    """Return whether want-have, HAVE and DONT_HAVE can be said over `protocol`."""
    return protocol == PROTOCOL


def encode(message: Message, max_bytes: int, protocol: str = PROTOCOL) -> list[bytes]:
    """Return the buffers that carry `message`, its length first; blocks are in it as they are, without a copy.

    What the older protocols cannot say is left out: before 1.2.0 presences and want-haves, before 1.1.0 prefixes too.

    Args:
        message: one that is not changed until the buffers are sent.
        max_bytes: the longest message allowed (`Limits.bitswap_message_bytes`).
        protocol: the one that was negotiated.

    Raises:
        LimitError: the message is longer than `max_bytes`.
    """
    haves = supports_have(protocol)
    buffers: list[bytes] = []
    # The wantlist is always there, if empty: an absent one once crashed receivers written in go.
    head = bytearray(_delimited(0x0A, _wantlist(message, haves)))
    bare = protocol in _BARE_PROTOCOLS
    for prefix, data in message.payloads:
        if bare:
            head += b"\x12"
        else:
            inner = b"\x0a" + encode_varint(len(prefix)) + prefix
            if data:
                inner += b"\x12" + encode_varint(len(data))
            head += b"\x1a" + encode_varint(len(inner) + len(data)) + inner
        if bare:
            head += encode_varint(len(data))
        if len(data) < _COPY_BYTES:
            head += data
        else:
            buffers += (bytes(head), data)
            head = bytearray()
    if haves:
        for cid, have in message.presences:
            head += _delimited(0x22, _delimited(0x0A, cid) + (b"" if have else b"\x10\x01"))
    if head:
        buffers.append(bytes(head))
    size = sum(map(len, buffers))
    if message.pending_bytes and haves:
        hint = b"\x28" + encode_varint(min(message.pending_bytes, PRIORITY_MAX))
        # It displaces nothing: the largest block leaves no room for it.
        if size + len(hint) <= max_bytes:
            buffers.append(hint)
            size += len(hint)
    if size > max_bytes:
        raise LimitError("bitswap_message_bytes", f"a message of {size} bytes, where {max_bytes} are allowed")
    buffers[0] = encode_varint(size) + buffers[0]
    return buffers


def block_bytes(prefix: bytes, data_bytes: int) -> int:
    """Return how much a block of `data_bytes` adds to a message, at most."""
    # Three tags and lengths of at most four bytes each, as messages are at most 4 MiB.
    return data_bytes + len(prefix) + 1 + 4 + 2 + 1 + 4


def presence_bytes(cid: bytes) -> int:
    """Return how much a presence adds to a message, at most."""
    return len(cid) + 1 + 2 + 1 + 2 + 2


def _wantlist(message: Message, haves: bool) -> bytes:
    body = bytearray()
    for entry in _sendable(message.entries, haves):
        cid, priority, cancel, want_have, send_dont_have = entry
        one = _delimited(0x0A, cid)
        if priority:
            one += b"\x10" + _int32(priority)
        if cancel:
            one += b"\x18\x01"
        if want_have:
            one += b"\x20\x01"
        if send_dont_have and haves:
            one += b"\x28\x01"
        body += _delimited(0x0A, one)
    if message.full:
        body += b"\x10\x01"
    return bytes(body)


def _sendable(entries: Iterable[Entry], haves: bool) -> Iterable[Entry]:
    return entries if haves else (entry for entry in entries if not entry.want_have)


def _int32(value: int) -> bytes:
    if value >= 0:
        return encode_varint(value)
    # Protobuf writes a negative int32 as the 64 bits of its two's complement: ten bytes.
    rest = value & _INT32_MASK
    encoded = bytearray()
    while rest >= 0x80:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def _delimited(tag: int, data: bytes) -> bytes:
    return bytes((tag,)) + encode_varint(len(data)) + data
