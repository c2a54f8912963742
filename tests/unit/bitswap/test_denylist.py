"""Tests of the denylist: the compact format's rules, and which blocks they name."""

from __future__ import annotations

import hashlib

import pytest

from aiolibp2p.bitswap import Denylist
from aiolibp2p.blocks import Cid
from aiolibp2p.blocks.cid import DAG_CBOR, DAG_PB, RAW
from aiolibp2p.errors import InvalidValueError

ONE, TWO, THREE = (Cid.from_data(data) for data in (b"one", b"two", b"three"))
V0 = Cid.from_multihash(ONE.multihash, DAG_PB, version=0)


def denied(text: str) -> list[bool]:
    found = Denylist.parse(text)
    return [cid.multihash in found for cid in (ONE, TWO, THREE)]


@pytest.mark.parametrize("name", [ONE, V0, Cid.from_multihash(ONE.multihash, DAG_CBOR), f"{ONE}/*", f"{ONE}/"])
def test_a_cid_of_any_version_and_codec_denies_its_block(name: object) -> None:
    assert denied(f"/ipfs/{name}\n") == [True, False, False]


def test_comments_empty_lines_hints_and_a_header_are_no_rules() -> None:
    text = f"version: 1\nname: /ipfs/{TWO}\n---\n\n# a comment\n/ipfs/{ONE} reason=law\r\n/ipfs/{THREE} # why"
    assert denied(text) == [True, False, True]


def test_the_last_rule_about_a_block_counts() -> None:
    assert denied(f"/ipfs/{ONE}\n!/ipfs/{ONE}\n!/ipfs/{TWO}\n/ipfs/{TWO}") == [False, True, False]


def test_a_double_hash_names_a_block_by_the_hash_of_its_base58_multihash() -> None:
    digest = hashlib.sha256(str(V0).encode()).digest()
    rule = Cid.from_multihash(b"\x12\x20" + digest, DAG_PB, version=0)
    assert denied(f"//{rule}") == [True, False, False]
    assert denied(f"//{rule}\n!//{rule}") == [False, False, False]


def test_the_double_hash_of_the_specification_denies_the_block_that_it_says() -> None:
    found = Denylist.parse("//QmX9dhRcQcKUw3Ws8485T5a9dtjrSCQaUAHnG4iK9i4ceM\n")
    named = Cid.parse("bafybeidjwik6im54nrpfg7osdvmx7zojl5oaxqel5cmsz46iuelwf5acja")
    assert named.multihash in found
    assert ONE.multihash not in found


def test_the_legacy_hash_of_the_specification_denies_the_block_that_it_says() -> None:
    found = Denylist.parse("//d9d295bde21f422d471a90f2a37ec53049fdf3e5fa3ee2e8f20e10003da429e7\n")
    assert Cid.parse("bafybeiefwqslmf6zyyrxodaxx4vwqircuxpza5ri45ws3y5a62ypxti42e").multihash in found
    assert ONE.multihash not in found


def test_rules_about_paths_and_names_are_skipped_and_counted() -> None:
    found = Denylist.parse(f"/ipns/example.com\n/ipfs/{ONE}/path*\n/ipfs/{ONE}/path\n/ipfs/{TWO}")
    assert (found.skipped, len(found)) == (3, 1)


BLAKE3 = "//gW813G35CnLsy7gRYYHuf63hrz71U1xoLFDVeV7actx6oX"


@pytest.mark.parametrize("line", ["/ipfs/nothing", "ipfs/x", "//", "//0OIl", "//" + "zz" * 32, "+/ipfs/x", BLAKE3])
def test_a_line_that_is_no_rule_is_named(line: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        Denylist.parse(f"version: 1\n---\n/ipfs/{ONE}\n{line}\n")
    assert "line 4" in caught.value.describe()
    assert caught.value.stage == "denylist"


def test_another_version_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="version"):
        Denylist.parse("version: 2\n---\n")
    assert len(Denylist.parse("version: '1' # as it is\n---\n")) == 0


def test_without_an_end_there_is_no_header() -> None:
    with pytest.raises(InvalidValueError, match="line 1"):
        Denylist.parse("version: 1\n/ipfs/x")


def test_blocks_are_added_and_taken_away_as_cids_or_multihashes() -> None:
    found = Denylist([ONE, TWO.multihash])
    assert ONE.multihash in found
    assert TWO.multihash in found
    assert b"\x12" not in found
    assert None not in found
    found.discard(V0)
    found.add(THREE)
    found.discard(TWO.multihash)
    assert [cid.multihash in found for cid in (ONE, TWO, THREE)] == [False, False, True]


def test_codecs_of_legacy_rules_are_those_in_use() -> None:
    for codec in (RAW, DAG_PB, DAG_CBOR):
        digest = hashlib.sha256(f"{Cid.from_multihash(ONE.multihash, codec)}/".encode()).hexdigest()
        assert denied(f"//{digest}") == [True, False, False]
