"""CIDs, prefixes and blocks take any bytes with documented errors only, and what they accept they write again."""

from __future__ import annotations

from collections.abc import Callable

from aiolibp2p.blocks.cid import DAG_CBOR, DAG_PB, Cid
from aiolibp2p.blocks.dag import PbLink, decode_node, encode_node, links_of
from aiolibp2p.errors import InvalidValueError

RAW_CID = Cid.from_data(b"fuzz")
V0 = Cid.from_data(b"", DAG_PB, version=0)
CBOR_LINK = b"\xd8\x2a\x58\x25\x00" + bytes(RAW_CID)


def cid(data: bytes) -> None:
    """Read bytes; write what was read as bytes and as text."""
    try:
        read = Cid(data)
    except InvalidValueError:
        return
    assert bytes(read) == data
    assert Cid.from_multihash(read.multihash, read.codec, version=read.version) == read
    text = str(read)
    try:
        assert Cid.parse(text) == read
    except InvalidValueError:
        # Only a CID of hundreds of bytes has a text that is too long.
        assert len(data) > 600


def text(data: bytes) -> None:
    """Read text, which need not be UTF-8."""
    try:
        read = Cid.parse(data.decode("utf-8", "surrogatepass" if data[:1] == b"b" else "replace"))
    except (InvalidValueError, UnicodeDecodeError):
        return
    assert Cid.parse(str(read)) == read


def prefix(data: bytes) -> None:
    """Name a block by the prefix that a peer sent, its first byte being how long that is."""
    size = data[0] if data else 0
    try:
        named = Cid.from_prefix(data[1 : 1 + size], data[1 + size :])
    except InvalidValueError:
        return
    assert named.verify(data[1 + size :])


def dag_pb(data: bytes) -> None:
    """Read a block; what is read is written the same from then on."""
    try:
        node = decode_node(data)
    except InvalidValueError:
        return
    written = encode_node(node.links, node.data)
    again = decode_node(written)
    assert again.data == node.data
    assert len(again.links) == len(node.links)
    assert encode_node(again.links, again.data) == written


def dag_cbor(data: bytes) -> None:
    """Walk a block for its links."""
    try:
        links = links_of(Cid.from_data(b"", DAG_CBOR), data)
    except InvalidValueError:
        return
    assert all(bytes(link) in data for link in links)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "cid": cid,
    "text": text,
    "prefix": prefix,
    "dag_pb": dag_pb,
    "dag_cbor": dag_cbor,
}

SEEDS: dict[str, list[bytes]] = {
    "cid": [bytes(RAW_CID), bytes(V0), b"\x01\x55\x00\x03abc", b"\x01\x55\xb2\x40\x20" + bytes(32)],
    "text": [
        str(RAW_CID).encode(),
        str(V0).encode(),
        b"z" + str(V0).encode(),
        b"k2jmtxw8rjh1z69c6not3wtdxb0u3urbzhyll",
    ],
    "prefix": [b"\x04" + RAW_CID.prefix + b"data", b"\x04" + V0.prefix + b"\x0a\x00", b"\x04\x01\x55\x00\x02ab"],
    "dag_pb": [
        encode_node([PbLink(RAW_CID, "name", 5), PbLink(V0, "", 0), PbLink(RAW_CID, None, None)], b"data"),
        b"\x0a\x02\x08\x01",
    ],
    "dag_cbor": [b"\x82" + CBOR_LINK + b"\xa1\x61a" + CBOR_LINK, b"\xa0", b"\x83\xf4\xfb" + bytes(8) + b"\x3a\0\0\0\1"],
}
