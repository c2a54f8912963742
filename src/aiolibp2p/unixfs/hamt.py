"""Sharded directories: a trie over the hashes of names, whose nodes have one link for each slot in use.

Spec: UnixFS, "HAMT Directory". A link's name begins with its slot in upper-case hexadecimal digits; what follows is the
name of an entry, or nothing where the slot holds a shard of the next level. Levels take the hash's bits from the most
significant on, as many as the fanout needs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

from aiolibp2p.blocks.dag import PbLink
from aiolibp2p.errors import InvalidValueError
from aiolibp2p.unixfs.layout import Block, Subtree, block_of
from aiolibp2p.unixfs.murmur3 import MURMUR3_X64_64, murmur3_x64_64
from aiolibp2p.unixfs.node import NodeType, UnixFsNode

SHARD_OVER_BYTES = 262_144
"""A directory shards when its names and CIDs together exceed this (Kubo's rule)."""

FANOUT = 256
"""Slots of a shard that we write."""

FANOUT_MAX = 1024
"""Slots of a shard that we read, as the specification bounds them."""

_HASH_BITS = 64


def directory_blocks(entries: Mapping[str, Subtree]) -> Generator[Block, None, Subtree]:
    """Give the blocks of a directory, a single one or shards; return its root.

    Raises:
        InvalidValueError: a name cannot be encoded, or names of a sharded directory have the same hash.
    """
    names = {name: encode_name(name) for name in entries}
    if sum(len(names[name]) + len(bytes(entry.cid)) for name, entry in entries.items()) <= SHARD_OVER_BYTES:
        links = [entry.link(name) for name, entry in entries.items()]
        block, root = block_of(links, UnixFsNode(type=NodeType.DIRECTORY))
        yield block
        return root
    placed = [(murmur3_x64_64(names[name]), entry.link(name)) for name, entry in entries.items()]
    return (yield from _shard_blocks(placed, 0))


def encode_name(name: str) -> bytes:
    """Return the bytes of a name; one that is not UTF-8 holds surrogates, as those of `os.listdir` do.

    Raises:
        InvalidValueError: it cannot be encoded.
    """
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidValueError(f"{name!r} is not a name") from error


def _shard_blocks(entries: Sequence[tuple[int, PbLink]], consumed_bits: int) -> Generator[Block, None, Subtree]:
    slots: dict[int, list[tuple[int, PbLink]]] = {}
    for name_hash, link in entries:
        slot = slot_of(name_hash, consumed_bits, FANOUT)
        if slot is None:
            raise InvalidValueError(f"entries {entries[0][1].name!r} and {entries[1][1].name!r} have the same hash")
        slots.setdefault(slot, []).append((name_hash, link))
    links = []
    bit_field = 0
    for slot, within in sorted(slots.items()):
        bit_field |= 1 << slot
        prefix = f"{slot:02X}"
        if len(within) == 1:
            link = within[0][1]
            links.append(PbLink(link.cid, prefix + (link.name or ""), link.size))
        else:
            shard = yield from _shard_blocks(within, consumed_bits + FANOUT.bit_length() - 1)
            links.append(shard.link(prefix))
    node = UnixFsNode(
        type=NodeType.HAMT_SHARD,
        data=bit_field.to_bytes((bit_field.bit_length() + 7) // 8, "big"),
        hash_type=MURMUR3_X64_64,
        fanout=FANOUT,
    )
    block, root = block_of(links, node)
    yield block
    return root


def slot_of(name_hash: int, consumed_bits: int, fanout: int) -> int | None:
    """Return the slot of a name where shards above took `consumed_bits` of its hash; None when too few are left."""
    shift = _HASH_BITS - consumed_bits - (fanout.bit_length() - 1)
    return name_hash >> shift & fanout - 1 if shift >= 0 else None


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as it is read."""

    fanout: int
    links: tuple[PbLink, ...]

    @classmethod
    def of(cls, node: UnixFsNode, links: Sequence[PbLink]) -> Shard:
        """Check a node and its links.

        Raises:
            InvalidValueError: its hash, fanout, bit field or names are not those of a shard.
        """
        fanout = node.fanout or 0
        if node.hash_type != MURMUR3_X64_64:
            raise InvalidValueError(f"the shard has hash {node.hash_type}, not murmur3-x64-64")
        if not 8 <= fanout <= FANOUT_MAX or fanout & fanout - 1:
            raise InvalidValueError(f"a fanout of {fanout} is no power of two from 8 to {FANOUT_MAX}")
        shard = cls(fanout, tuple(links))
        slots = 0
        for link in links:
            slot = shard._slot(link)
            if slots >> slot:
                raise InvalidValueError(f"the shard's link {link.name!r} is out of order")
            slots |= 1 << slot
        if slots != int.from_bytes(node.data or b"", "big"):
            raise InvalidValueError("the shard's bit field does not agree with its links")
        return shard

    @property
    def bits(self) -> int:
        """Bits of a hash that this level takes."""
        return self.fanout.bit_length() - 1

    def entries(self) -> Iterator[tuple[str, PbLink]]:
        """Give the name and link of each entry; the name of a shard of the next level is empty."""
        digits = self._digits
        for link in self.links:
            yield (link.name or "")[digits:], link

    def find(self, name: str, consumed_bits: int) -> tuple[str, PbLink] | None:
        """Return what is in the slot of `name`: its entry, or a shard of the next level, whose name is empty."""
        slot = slot_of(murmur3_x64_64(encode_name(name)), consumed_bits, self.fanout)
        if slot is None:
            return None
        prefix = f"{slot:0{self._digits}X}"
        for found, link in self.entries():
            if self._prefix(link) == prefix and found in ("", name):
                return found, link
        return None

    @property
    def _digits(self) -> int:
        return len(f"{self.fanout - 1:X}")

    def _prefix(self, link: PbLink) -> str:
        return (link.name or "")[: self._digits]

    def _slot(self, link: PbLink) -> int:
        prefix = self._prefix(link)
        if len(prefix) == self._digits and not prefix.strip("0123456789ABCDEF"):
            slot = int(prefix, 16)
            if slot < self.fanout:
                return slot
        raise InvalidValueError(f"the shard's link {link.name!r} does not begin with a slot")
