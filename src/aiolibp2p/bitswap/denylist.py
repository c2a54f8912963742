"""Blocks that are served to nobody, and the compact denylist format in which such lists are shared (IPIP-383).

A block is named by its multihash: the same bytes under another codec or CID version are the same block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, Self

from libipld import decode_multibase, encode_multibase

from aiolibp2p.blocks.cid import DAG_CBOR, DAG_PB, RAW, SHA2_256, Cid
from aiolibp2p.errors import InvalidValueError

LINE_CHARS_MAX: Final = 2 << 20
"""The longest line, as the format says."""

_STAGE = "denylist"
_HEADER_END = "---"
_HEADER_CHARS_MAX = 1 << 20
_SHA2_256_DIGEST_BYTES = 32
_MULTIHASH_HEAD = b"\x12\x20"
_CODECS = (RAW, DAG_PB, DAG_CBOR)
"""A legacy rule is the hash of one CID: each multihash is looked for under those that are in use."""


class Denylist:
    """A set of blocks, by multihash; `multihash in denylist` is all that serving asks of it.

    Args:
        blocks: CIDs, or bare multihashes.
    """

    def __init__(self, blocks: Iterable[Cid | bytes] = ()) -> None:
        self.skipped = 0
        """Rules of a file about paths below a CID and about names, which blocks know nothing of."""
        self._multihashes: set[bytes] = set()
        self._hashed: set[bytes] = set()
        """Digests (sha2-256) of multihashes as base58 text."""
        self._legacy: set[bytes] = set()
        """Digests (sha2-256) of CIDs as base32 text, and a slash."""
        for block in blocks:
            self.add(block)

    def __len__(self) -> int:
        return len(self._multihashes) + len(self._hashed) + len(self._legacy)

    def __contains__(self, multihash: object) -> bool:
        if multihash in self._multihashes:
            return True
        if not isinstance(multihash, bytes) or not (self._hashed or self._legacy):
            return False
        if self._hashed and _sha2_256(encode_multibase("z", multihash)[1:]) in self._hashed:
            return True
        return bool(self._legacy) and any(
            _sha2_256(f"{Cid.from_multihash(multihash, codec)}/") in self._legacy for codec in _CODECS
        )

    def add(self, block: Cid | bytes) -> None:
        """Deny a block."""
        self._multihashes.add(block.multihash if isinstance(block, Cid) else bytes(block))

    def discard(self, block: Cid | bytes) -> None:
        """Deny a block no more; rules that name it by a hash of its name stay."""
        self._multihashes.discard(block.multihash if isinstance(block, Cid) else bytes(block))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what a file of the compact denylist format denies.

        Rules are `/ipfs/CID` and `/ipfs/CID/*`, and `//HASH` of the base58 multihash (sha2-256) or, in the older form,
        of the CID. `!` before one takes it back; the last rule about a block counts. Rules about paths and names are
        skipped and counted.

        Raises:
            InvalidValueError: a line is no rule, or the file is of another version; it names the line.
        """
        found = cls()
        lines = text.split("\n")
        begin = _header_lines(lines)
        for number, line in enumerate(lines[begin:], start=begin + 1):
            try:
                found._apply(line)
            except InvalidValueError as error:
                raise InvalidValueError(f"line {number}: {error.message}", stage=_STAGE) from error
        return found

    def _apply(self, line: str) -> None:
        rule = line.split("#", 1)[0].split(maxsplit=1)  # hints may follow
        if not rule:
            return
        if len(line) > LINE_CHARS_MAX:
            raise InvalidValueError("longer than 2 MiB")
        name = rule[0].removeprefix("!")
        rules, key = self._named(name)
        if rules is None:
            self.skipped += 1
        elif name is rule[0]:
            rules.add(key)
        else:
            rules.discard(key)

    def _named(self, name: str) -> tuple[set[bytes] | None, bytes]:
        """Return the set that a rule belongs into, and what into it; no set where it is not about a block."""
        if name.startswith("//"):
            return self._double_hash(name[2:])
        if name.startswith("/ipns/"):
            return None, b""
        if not name.startswith("/ipfs/"):
            raise InvalidValueError(f"{name!r:.100} is no rule: they begin with /ipfs/, /ipns/ or //")
        cid, _, path = name.removeprefix("/ipfs/").partition("/")
        multihash = Cid.parse(cid).multihash
        return (self._multihashes if path in ("", "*") else None), multihash

    def _double_hash(self, text: str) -> tuple[set[bytes] | None, bytes]:
        if len(text) == 2 * _SHA2_256_DIGEST_BYTES:
            try:
                return self._legacy, bytes.fromhex(text)
            except ValueError:
                pass  # it may be base58 of another hash
        try:
            multihash = decode_multibase(f"z{text}")[1]
        except ValueError as error:
            raise InvalidValueError(f"//{text!r:.100} is neither a base58 multihash nor 64 hex digits") from error
        if not multihash.startswith(_MULTIHASH_HEAD) or len(multihash) != len(_MULTIHASH_HEAD) + _SHA2_256_DIGEST_BYTES:
            raise InvalidValueError(f"//{text:.100} is hashed by another function than sha2-256 (0x{SHA2_256:x})")
        return self._hashed, multihash[len(_MULTIHASH_HEAD) :]


def _header_lines(lines: list[str]) -> int:
    """Return how many lines the header has.

    Raises:
        InvalidValueError: it says another version than 1.
    """
    size = 0
    for number, line in enumerate(lines):
        size += len(line) + 1
        if size > _HEADER_CHARS_MAX:
            return 0
        if line.rstrip() == _HEADER_END:
            for field in lines[:number]:
                name, _, value = field.partition(":")
                if name == "version" and value.split("#")[0].strip(" \"'\r") != "1":
                    raise InvalidValueError(f"line {number + 1}: version {value.strip()!r} is not 1", stage=_STAGE)
            return number + 1
    return 0


def _sha2_256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
