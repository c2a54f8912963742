"""What holds for every CID, dag-pb block, and sequence of calls on a store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libipld import decode_dag_cbor, encode_dag_cbor, encode_multibase

from aiolibp2p.blocks import Blockstore, Cid, LmdbBlockstore, MemoryBlockstore
from aiolibp2p.blocks.cid import DAG_CBOR, DAG_PB, IDENTITY, RAW, SHA2_256, SHA2_512
from aiolibp2p.blocks.dag import PbLink, PbNode, decode_node, encode_node, links_of
from aiolibp2p.errors import BlockNotFoundError, InvalidValueError
from aiolibp2p.identity.varint import VARINT_MAX, encode_varint
from aiolibp2p.limits import Limits

NUMBERS = st.integers(0, 300) | st.integers(0, VARINT_MAX)
V0_CIDS = st.binary(min_size=32, max_size=32).map(lambda digest: Cid.from_digest(digest, DAG_PB, version=0))
V1_CIDS = st.builds(
    lambda code, digest, codec: Cid.from_digest(digest, codec, hash_code=code), NUMBERS, st.binary(max_size=80), NUMBERS
)
CIDS = V0_CIDS | V1_CIDS
NAMES = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.just("\udcff")
LINKS = st.lists(st.builds(PbLink, CIDS, NAMES, st.none() | st.integers(0, 2**64 - 1)), max_size=5)
HASHES = st.sampled_from([IDENTITY, 0x11, SHA2_256, SHA2_512, 0x16, 0x56, 0xB220, 0xB260])


@given(CIDS)
def test_a_cid_is_its_bytes_and_its_text(cid: Cid) -> None:
    assert Cid(bytes(cid)) == cid
    assert Cid.parse(str(cid)) == cid
    rebuilt = Cid.from_multihash(cid.multihash, cid.codec, version=cid.version)
    assert rebuilt == cid
    assert hash(rebuilt) == hash(cid)
    assert cid.to_v1().version == 1
    assert cid.to_v1().multihash == cid.multihash
    if cid.version == 1:
        assert cid.prefix + cid.digest == bytes(cid)


@given(V1_CIDS, st.sampled_from("bzkf"))
def test_version_1_is_the_same_in_every_base(cid: Cid, base: str) -> None:
    assert Cid.parse(encode_multibase(base, bytes(cid))) == cid


@given(CIDS, st.integers(0, 200), st.binary(max_size=2))
def test_bytes_cut_off_or_added_are_no_cid(cid: Cid, keep: int, tail: bytes) -> None:
    data = bytes(cid)
    changed = data[:keep] + tail if keep < len(data) else data + tail
    if changed == data or (keep < len(data) and tail):
        return
    with pytest.raises(InvalidValueError):
        Cid(changed)


@given(st.binary(max_size=100), NUMBERS, HASHES)
def test_a_name_verifies_its_block_and_no_other(data: bytes, codec: int, hash_code: int) -> None:
    cid = Cid.from_data(data, codec, hash_code=hash_code)
    assert cid.verify(data)
    assert not cid.verify(data + b"\0")
    assert Cid.from_prefix(cid.prefix, data) == cid


@given(st.lists(NUMBERS, max_size=6), st.binary(max_size=40))
def test_a_prefix_of_anything_is_refused_or_names_a_block_that_verifies(numbers: list[int], data: bytes) -> None:
    try:
        cid = Cid.from_prefix(b"".join(map(encode_varint, numbers)), data)
    except InvalidValueError:
        return
    assert cid.verify(data)


@given(LINKS, st.none() | st.binary(max_size=40))
def test_a_dag_pb_block_is_read_as_it_was_written(links: list[PbLink], data: bytes | None) -> None:
    encoded = encode_node(links, data)
    node = decode_node(encoded)
    assert node.data == data
    assert sorted(map(repr, node.links)) == sorted(map(repr, links))
    assert encode_node(node.links, node.data) == encoded
    names = [(link.name or "").encode("utf-8", "surrogateescape") for link in node.links]
    assert names == sorted(names)
    assert links_of(Cid.from_data(encoded, DAG_PB), encoded) == [link.cid for link in node.links]


@given(st.binary(max_size=60))
def test_any_bytes_are_a_dag_pb_block_or_refused(data: bytes) -> None:
    try:
        node = decode_node(data)
    except InvalidValueError:
        return
    assert decode_node(encode_node(node.links, node.data)) == PbNode(
        tuple(sorted(node.links, key=lambda link: (link.name or "").encode("utf-8", "surrogateescape"))), node.data
    )


LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5) | st.binary(max_size=3)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_every_dag_cbor_value_is_walked_to_its_end(value: Any) -> None:
    # What looks like a CID is encoded as a link by libipld: three bytes are too few for one.
    data = encode_dag_cbor(value)
    assert decode_dag_cbor(data) == value
    assert links_of(Cid.from_data(data, DAG_CBOR), data) == []


# -------------------------------------------------------------------------------------- a store against a dictionary

KEYS = st.integers(0, 5)
CALLS = st.lists(
    st.tuples(st.just("put"), st.lists(KEYS, min_size=1, max_size=3))
    | st.tuples(st.just("delete"), KEYS.map(lambda n: [n]))
    | st.tuples(st.sampled_from(["get", "get_many", "sizes", "fetch"]), st.lists(KEYS, min_size=1, max_size=6))
    | st.tuples(st.sampled_from(["cids", "reopen"]), st.just([0])),
    max_size=12,
)
SIZES = (0, 1, 100, 5000, 70_000, 300_000)
DATA = [bytes((n,)) * size for n, size in enumerate(SIZES)]
NAMED = [Cid.from_data(data, DAG_PB if n % 2 else RAW) for n, data in enumerate(DATA)]


async def check(store: Blockstore, held: dict[int, bytes], name: str, keys: list[int]) -> None:
    cids = [NAMED[key] for key in keys]
    expected = [held.get(key) for key in keys]
    if name == "put":
        await store.put_many([(NAMED[key], DATA[key]) for key in keys])
        held.update((key, DATA[key]) for key in keys)
    elif name == "delete":
        await store.delete(cids[0])
        held.pop(keys[0], None)
    elif name == "get_many":
        assert await store.get_many(cids) == expected
    elif name == "sizes":
        assert await store.sizes(cids) == [None if data is None else len(data) for data in expected]
    elif name == "get":
        found = await asyncio.gather(*(store.get(cid) for cid in cids), return_exceptions=True)
        assert [None if isinstance(one, BlockNotFoundError) else one for one in found] == expected
    elif name == "fetch":
        got: list[bytes | None] = []
        try:
            async for data in store.fetch(cids):
                got.append(data)
        except BlockNotFoundError:
            got.append(None)
        assert got == expected[: len(got)]
        assert len(got) == len(expected) or got[-1] is None
    elif name == "cids":
        assert {cid.multihash async for cid in store.cids()} == {NAMED[key].multihash for key in held}


async def run_calls(store: Blockstore, calls: list[tuple[str, list[int]]]) -> None:
    held: dict[int, bytes] = {}
    async with store:
        for name, keys in calls:
            if name == "reopen" and isinstance(store, LmdbBlockstore):
                await store.close()
                await store.open()
            else:
                await check(store, held, name, keys)


@given(CALLS)
def test_a_store_in_memory_is_a_dictionary(calls: list[tuple[str, list[int]]]) -> None:
    asyncio.run(run_calls(MemoryBlockstore(), calls))


@pytest.mark.slow
@settings(max_examples=20)
@given(CALLS)
def test_an_lmdb_store_is_a_dictionary(calls: list[tuple[str, list[int]]]) -> None:
    limits = Limits(storage_map_bytes=1 << 20, storage_threads=2, storage_read_blocks=2, storage_ahead_bytes=1000)
    with TemporaryDirectory() as folder:
        asyncio.run(run_calls(LmdbBlockstore(Path(folder) / "store", limits=limits), calls))
