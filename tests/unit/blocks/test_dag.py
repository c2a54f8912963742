"""dag-pb bytes as the specification's fixtures have them, and the links of each codec."""

from __future__ import annotations

import pytest
from libipld import encode_dag_cbor

from aiolibp2p.blocks.cid import DAG_CBOR, DAG_PB, IDENTITY, LIBP2P_KEY, Cid
from aiolibp2p.blocks.dag import PbLink, PbNode, decode_node, encode_node, links_of
from aiolibp2p.errors import InvalidValueError

CID = Cid(bytes.fromhex("015500050001020304"))
OTHER = Cid.from_data(b"other")
HASH = "0a09015500050001020304"


@pytest.mark.parametrize(
    ("encoded", "node"),
    [
        ("", PbNode()),
        ("0a00", PbNode(data=b"")),
        ("0a050001020304", PbNode(data=bytes(range(5)))),
        ("120b" + HASH, PbNode((PbLink(CID, None, None),))),
        ("120d" + HASH + "1200", PbNode((PbLink(CID, "", None),))),
        ("1216" + HASH + "1209736f6d65206e616d65", PbNode((PbLink(CID, "some name", None),))),
        ("120d" + HASH + "1800", PbNode((PbLink(CID, None, 0),))),
        ("120e" + HASH + "18f207", PbNode((PbLink(CID, None, 1010),))),
        ("1214" + HASH + "18ffffffffffffff0f", PbNode((PbLink(CID, None, 2**53 - 1),))),
        ("1216" + HASH + "18ffffffffffffffffff01", PbNode((PbLink(CID, None, 2**64 - 1),))),
        ("120f" + HASH + "12001800" + "0a00", PbNode((PbLink(CID),), b"")),
    ],
    ids=lambda value: value or "empty" if isinstance(value, str) else "",
)
def test_a_block_is_encoded_as_the_specification_has_it(encoded: str, node: PbNode) -> None:
    assert encode_node(node.links, node.data).hex() == encoded
    assert decode_node(bytes.fromhex(encoded)) == node


def test_links_are_written_in_the_order_of_their_names_and_before_the_data() -> None:
    links = [PbLink(CID, "b", 1), PbLink(OTHER, "", 2), PbLink(CID, "a", 3), PbLink(CID, None, 4), PbLink(CID, "", 5)]
    encoded = encode_node(links, b"data")
    node = decode_node(encoded)
    assert [link.size for link in node.links] == [2, 4, 5, 3, 1]
    assert encoded.endswith(b"\x0a\x04data")


def test_data_before_the_links_is_read() -> None:
    links = encode_node([PbLink(CID), PbLink(OTHER)])
    assert decode_node(b"\x0a\x01x" + links) == PbNode((PbLink(CID), PbLink(OTHER)), b"x")


def test_a_name_that_is_not_utf_8_keeps_its_bytes() -> None:
    encoded = bytes.fromhex("120f" + HASH + "1202ffc3")
    assert encode_node(decode_node(encoded).links) == encoded


@pytest.mark.parametrize(
    "encoded",
    [
        "0a",
        "0a01",
        "0a000a00",
        "1200",
        "120b" + HASH[:-2],
        "120b" + HASH + "0a00" + "120b" + HASH,
        "08",
        "0800",
        "1800",
        "1a00",
        "09" + "00" * 8,
        "120d" + HASH + "0a00",
        "120d" + "1200" + HASH,
        "120f" + HASH + "18001200",
        "120f" + HASH + "18001800",
        "120d" + HASH + "2000",
        "120d" + HASH + "1000",
        "120d" + HASH + "1205",
        "120c" + HASH + "18",
        "1216" + HASH + "18ffffffffffffffffff02",
        "1217" + HASH + "1880808080808080808080 01",
        "12040a020155",
        "ffffffffffffffffffff01",
    ],
)
def test_a_malformed_block_is_refused(encoded: str) -> None:
    with pytest.raises(InvalidValueError):
        decode_node(bytes.fromhex(encoded))


@pytest.mark.parametrize("size", [-1, 2**64])
def test_a_size_of_more_than_64_bits_is_refused(size: int) -> None:
    with pytest.raises(InvalidValueError):
        encode_node([PbLink(CID, "", size)])


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidValueError):
        encode_node([PbLink(CID, "\ud800")])


def test_raw_blocks_and_keys_link_to_nothing() -> None:
    assert links_of(OTHER, bytes(OTHER)) == []
    assert links_of(Cid.from_data(b"\x08\x01", LIBP2P_KEY, hash_code=IDENTITY), b"\x08\x01") == []


def test_links_of_dag_pb_are_in_the_order_of_the_block() -> None:
    data = encode_node([PbLink(OTHER), PbLink(CID), PbLink(OTHER)])
    assert links_of(Cid.from_data(data, DAG_PB), data) == [OTHER, CID, OTHER]


def cbor_link(cid: Cid) -> bytes:
    data = b"\x00" + bytes(cid)
    return b"\xd8\x2a\x58" + bytes((len(data),)) + data


def test_links_of_dag_cbor_are_its_tagged_items_and_not_what_looks_like_one() -> None:
    data = b"\x83" + cbor_link(CID) + b"\x58\x24" + bytes(OTHER) + b"\xa1\x61a" + cbor_link(OTHER)
    assert links_of(Cid.from_data(data, DAG_CBOR), data) == [CID, OTHER]


def test_dag_cbor_without_links_has_none() -> None:
    value = {"a": [1, -1, 1.5, None, True, "text", b"bytes", {"b": 2**40}], "c": [[]] * 30}
    data = encode_dag_cbor(value)
    assert links_of(Cid.from_data(data, DAG_CBOR), data) == []


def test_dag_cbor_nested_deeper_than_the_stack_is_walked() -> None:
    data = b"\x81" * 100_000 + cbor_link(CID)
    assert links_of(Cid.from_data(data, DAG_CBOR), data) == [CID]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x82\x00",
        b"\x00\x00",
        b"\x9f\xff",
        b"\x41",
        b"\x9b" + b"\xff" * 8,
        b"\x5b" + b"\xff" * 8,
        b"\x18",
        b"\xd8\x2b\x41\x00",
        b"\xd8\x2a\x00",
        b"\xd8\x2a\x41\x00",
        b"\xd8\x2a\x40",
        b"\xd8\x2a\x49" + bytes(CID),
        b"\x1c",
    ],
)
def test_malformed_dag_cbor_is_refused_with_the_name_of_its_block(data: bytes) -> None:
    cid = Cid.from_data(data, DAG_CBOR)
    with pytest.raises(InvalidValueError, match=str(cid)):
        links_of(cid, data)


def test_a_codec_that_is_not_known_is_named() -> None:
    cid = Cid.from_data(b"{}", 0x0129)
    with pytest.raises(InvalidValueError, match="0x129"):
        links_of(cid, b"{}")
