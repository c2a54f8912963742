"""The UnixFS message: what is written, and what is read of what others write."""

from __future__ import annotations

import pytest

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.unixfs.node import NodeType, UnixFsNode, decode_unixfs, encode_unixfs

FILE = UnixFsNode(type=NodeType.FILE, file_bytes=262_145, block_bytes=(262_144, 1))


def test_a_directory_is_its_type_alone() -> None:
    assert encode_unixfs(UnixFsNode(type=NodeType.DIRECTORY)) == bytes.fromhex("0801")


def test_sizes_are_written_one_by_one_after_the_total() -> None:
    assert encode_unixfs(FILE) == bytes.fromhex("0802 18818010 20808010 2001")
    assert decode_unixfs(encode_unixfs(FILE)) == FILE


def test_fields_are_written_in_the_order_of_their_numbers() -> None:
    shard = UnixFsNode(type=NodeType.HAMT_SHARD, data=b"\x05", hash_type=0x22, fanout=256)
    assert encode_unixfs(shard) == bytes.fromhex("0805 120105 2822 308002")
    assert decode_unixfs(encode_unixfs(shard)) == shard


def test_an_absent_total_is_not_a_total_of_zero() -> None:
    assert decode_unixfs(bytes.fromhex("0802")).file_bytes is None
    assert decode_unixfs(bytes.fromhex("08021800")).file_bytes == 0


def test_empty_data_is_not_absent_data() -> None:
    assert decode_unixfs(bytes.fromhex("08021200")).data == b""
    assert decode_unixfs(bytes.fromhex("0802")).data is None


def test_packed_sizes_are_read() -> None:
    assert decode_unixfs(bytes.fromhex("0802 18818010 2204808010 01")).block_bytes == (262_144, 1)


def test_fields_may_come_in_any_order_and_the_last_one_counts() -> None:
    assert decode_unixfs(bytes.fromhex("1805 1200 0801 0802 1803")) == UnixFsNode(
        type=NodeType.FILE, data=b"", file_bytes=3
    )


def test_mode_mtime_and_unknown_fields_are_skipped() -> None:
    mode, mtime, fixed64, fixed32 = "38a403", "42020801", "59" + "00" * 8, "65" + "00" * 4
    assert decode_unixfs(bytes.fromhex("0801" + mode + mtime + fixed64 + fixed32)) == UnixFsNode(
        type=NodeType.DIRECTORY
    )


def test_a_file_and_raw_bytes_are_files_and_a_shard_is_a_directory() -> None:
    assert {kind for kind in NodeType if UnixFsNode(type=kind).is_file} == {NodeType.FILE, NodeType.RAW}
    assert {kind for kind in NodeType if UnixFsNode(type=kind).is_directory} == {
        NodeType.DIRECTORY,
        NodeType.HAMT_SHARD,
    }


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param("", id="no type"),
        pytest.param("1805", id="no type, but a size"),
        pytest.param("0806", id="unknown type"),
        pytest.param("08", id="cut off in a number"),
        pytest.param("0802 120501", id="cut off in bytes"),
        pytest.param("0802 5900", id="cut off in a fixed field"),
        pytest.param("0a0102", id="type as bytes"),
        pytest.param("0802 1005", id="data as a number"),
        pytest.param("0802 1a0105", id="size as bytes"),
        pytest.param("0802 5b", id="a group"),
        pytest.param("0802 0001", id="field 0"),
        pytest.param("0802 18ffffffffffffffffffff01", id="a number of more than 63 bits"),
        pytest.param("0802 2201ff", id="packed sizes cut off"),
    ],
)
def test_malformed_data_is_refused(encoded: str) -> None:
    with pytest.raises(InvalidValueError):
        decode_unixfs(bytes.fromhex(encoded))
