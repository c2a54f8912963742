"""Sharded directories: when a directory shards, how shards are laid out and read. CIDs were made by boxo v0.43.0."""

from __future__ import annotations

import pytest

from aiolibp2p.blocks.cid import DAG_PB, Cid
from aiolibp2p.blocks.dag import PbLink, decode_node
from aiolibp2p.errors import InvalidValueError
from aiolibp2p.unixfs import hamt
from aiolibp2p.unixfs.hamt import Shard, directory_blocks, slot_of
from aiolibp2p.unixfs.layout import Subtree
from aiolibp2p.unixfs.node import NodeType, UnixFsNode, decode_unixfs
from tests.unit.unixfs.dags import drain

LEAF = Subtree(Cid.from_data(b""), 0)
EMPTY_DIRECTORY = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"


def entries(count: int) -> dict[str, Subtree]:
    """Return so many entries of 64 bytes each, a name of 28 and a CID of 36."""
    return {f"n{number:027}": LEAF for number in range(count)}


def shard(*names: str, bit_field: bytes = b"\x00", fanout: int | None = 256, hash_type: int | None = 0x22) -> Shard:
    node = UnixFsNode(type=NodeType.HAMT_SHARD, data=bit_field, hash_type=hash_type, fanout=fanout)
    return Shard.of(node, [PbLink(LEAF.cid, name, 0) for name in names])


def test_an_empty_directory() -> None:
    blocks, root = drain(directory_blocks({}))
    assert str(root.cid) == EMPTY_DIRECTORY
    assert blocks == [(root.cid, bytes.fromhex("0a020801"))]


def test_a_directory_of_exactly_the_bound_is_one_block() -> None:
    blocks, root = drain(directory_blocks(entries(4096)))
    assert len(blocks) == 1
    assert str(root.cid) == "bafybeia7ff7kskciimm6mkwwrtouih5qvg3r5ml5wlyexxxd4qri7ioozq"


def test_a_directory_shards_when_one_byte_more() -> None:
    over = entries(4095) | {"m" + "0" * 28: LEAF}
    blocks, root = drain(directory_blocks(over))
    assert len(blocks) > 256
    assert str(root.cid) == "bafybeihcqreyzhn2wj5hqhbove2uusjoev2bs3xqg3uzk3ysqbqzkqxbvi"
    assert root.dag_bytes == sum(len(data) for _, data in blocks)


@pytest.mark.slow
def test_the_order_of_entries_changes_nothing() -> None:
    over = entries(4097)
    assert drain(directory_blocks(dict(reversed(over.items())))) == drain(directory_blocks(over))


@pytest.mark.slow
def test_names_count_by_their_bytes() -> None:
    # 64 bytes each as above, in names of 14 letters of two bytes.
    letters = [chr(0xE0 + digit) for digit in range(8)]
    names = {"".join(letters[number >> 3 * place & 7] for place in range(14)): LEAF for number in range(4096)}
    assert len(drain(directory_blocks(names))[0]) == 1
    assert len(drain(directory_blocks(names | {"m": LEAF}))[0]) > 256


def test_a_name_that_is_no_utf8_keeps_its_bytes() -> None:
    blocks, _ = drain(directory_blocks({b"\xff".decode("utf-8", "surrogateescape"): LEAF}))
    assert b"\x12\x01\xff" in blocks[0][1]


def test_a_name_that_has_no_bytes_is_refused() -> None:
    with pytest.raises(InvalidValueError):
        drain(directory_blocks({"\ud800": LEAF}))


def test_every_entry_is_found_by_its_hash() -> None:
    blocks, root = drain(directory_blocks(entries(4097)))
    held = dict(blocks)

    def found(name: str) -> PbLink | None:
        cid, consumed_bits = root.cid, 0
        while True:
            node = decode_node(held[cid])
            shard = Shard.of(decode_unixfs(node.data or b""), node.links)
            result = shard.find(name, consumed_bits)
            if result is None or result[0]:
                return result and result[1]
            cid = result[1].cid
            consumed_bits += shard.bits

    for name in ("n" + "0" * 27, f"n{4096:027}", f"n{2048:027}"):
        link = found(name)
        assert link is not None
        assert link.cid == LEAF.cid
    assert found("n") is None
    assert found("") is None


def test_a_slot_with_several_names_holds_a_shard_that_is_named_by_the_slot_alone() -> None:
    blocks, root = drain(directory_blocks(entries(4097)))
    node = decode_node(dict(blocks)[root.cid])
    assert [link.name for link in node.links] == [f"{slot:02X}" for slot in range(256)]
    assert {link.cid.codec for link in node.links} == {DAG_PB}
    assert decode_unixfs(node.data or b"") == UnixFsNode(
        type=NodeType.HAMT_SHARD, data=b"\xff" * 32, hash_type=0x22, fanout=256
    )


def test_the_bit_field_has_no_leading_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamt, "SHARD_OVER_BYTES", 0)
    hashes = {b"a": 3 << 56, b"b": 9 << 56}
    monkeypatch.setattr(hamt, "murmur3_x64_64", hashes.__getitem__)
    [(_, block)], _ = drain(directory_blocks({"b": LEAF, "a": LEAF}))
    node = decode_node(block)
    assert [link.name for link in node.links] == ["03a", "09b"]
    assert decode_unixfs(node.data or b"").data == b"\x02\x08"


def test_names_of_one_hash_cannot_be_sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamt, "SHARD_OVER_BYTES", 0)
    monkeypatch.setattr(hamt, "murmur3_x64_64", lambda _name: 7)
    with pytest.raises(InvalidValueError, match="'first' and 'second'"):
        drain(directory_blocks({"first": LEAF, "second": LEAF}))


def test_slots_take_the_most_significant_bits_first() -> None:
    assert slot_of(0x0123456789ABCDEF, 0, 256) == 0x01
    assert slot_of(0x0123456789ABCDEF, 56, 256) == 0xEF
    assert slot_of(0x0123456789ABCDEF, 64, 256) is None
    assert slot_of(0x0123456789ABCDEF, 4, 8) == 0
    assert slot_of(0x0123456789ABCDEF, 60, 1024) is None


def test_slots_have_as_many_digits_as_the_fanout_needs() -> None:
    found = shard("007name", "3FF", bit_field=(1 << 1023 | 1 << 7).to_bytes(128, "big"), fanout=1024)
    assert [name for name, _ in found.entries()] == ["name", ""]
    assert [name for name, _ in shard("7name", bit_field=b"\x80", fanout=8).entries()] == ["name"]


def test_leading_zeros_of_a_bit_field_are_read() -> None:
    assert [name for name, _ in shard("01a", bit_field=bytes(31) + b"\x02").entries()] == ["a"]


@pytest.mark.parametrize(
    "malformed",
    [
        pytest.param({"hash_type": None}, id="no hash"),
        pytest.param({"hash_type": 0x12}, id="another hash"),
        pytest.param({"fanout": None}, id="no fanout"),
        pytest.param({"fanout": 4}, id="too small a fanout"),
        pytest.param({"fanout": 2048}, id="too large a fanout"),
        pytest.param({"fanout": 255}, id="a fanout that is no power of two"),
        pytest.param({"bit_field": b"\x01"}, id="a bit without a link"),
    ],
)
def test_a_malformed_shard_is_refused(malformed: dict[str, bytes]) -> None:
    with pytest.raises(InvalidValueError):
        shard(**malformed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "fanout"),
    [
        pytest.param(["0"], 256, id="too few digits"),
        pytest.param(["0aname"], 256, id="lower case"),
        pytest.param(["+1name"], 256, id="a sign"),
        pytest.param(["8name"], 8, id="a slot beyond the fanout"),
        pytest.param(["02b", "01a"], 256, id="out of order"),
        pytest.param(["01a", "01b"], 256, id="two in one slot"),
    ],
)
def test_a_link_without_a_place_of_its_own_is_refused(names: list[str], fanout: int) -> None:
    with pytest.raises(InvalidValueError):
        shard(*names, bit_field=b"\x06", fanout=fanout)
