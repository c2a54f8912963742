"""CIDs: bytes and texts of both versions, hashes, prefixes, and what is refused."""

from __future__ import annotations

import hashlib
import pickle

import pytest
from libipld import encode_multibase

from aiolibp2p.blocks.cid import DAG_CBOR, DAG_PB, IDENTITY, RAW, SHA2_256, SHA2_512, Cid, digest_of
from aiolibp2p.errors import InvalidValueError

HELLO = b"hello world"
HELLO_RAW = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
EMPTY_DIRECTORY = bytes.fromhex("0a020801")
EMPTY_DIRECTORY_V0 = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"
EMPTY_DIRECTORY_V1 = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"


def test_a_block_is_named_as_kubo_names_it() -> None:
    assert str(Cid.from_data(HELLO)) == HELLO_RAW
    assert str(Cid.from_data(b"")) == "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    assert str(Cid.from_data(EMPTY_DIRECTORY, DAG_PB)) == EMPTY_DIRECTORY_V1
    assert str(Cid.from_data(EMPTY_DIRECTORY, DAG_PB, version=0)) == EMPTY_DIRECTORY_V0
    assert str(Cid.from_data(b"\xa0", DAG_CBOR)) == "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua"


def test_a_cid_says_what_it_is_made_of() -> None:
    cid = Cid.parse(HELLO_RAW)
    assert (cid.version, cid.codec, cid.hash_code) == (1, RAW, SHA2_256)
    assert cid.digest == hashlib.sha256(HELLO).digest()
    assert cid.multihash == b"\x12\x20" + cid.digest
    assert bytes(cid) == b"\x01\x55" + cid.multihash
    assert cid.prefix == b"\x01\x55\x12\x20"
    assert len(cid) == 36


def test_version_0_is_dag_pb_and_sha2_256_and_has_a_name_in_version_1() -> None:
    cid = Cid.parse(EMPTY_DIRECTORY_V0)
    assert (cid.version, cid.codec, cid.hash_code) == (0, DAG_PB, SHA2_256)
    assert bytes(cid) == cid.multihash
    assert str(cid.to_v1()) == EMPTY_DIRECTORY_V1
    assert cid != cid.to_v1()
    assert cid.to_v1().to_v1() == cid.to_v1()
    assert cid.prefix == b"\x00\x70\x12\x20"
    assert Cid.from_prefix(cid.prefix, EMPTY_DIRECTORY) == cid


@pytest.mark.parametrize("base", "bBzkKfFmu")
def test_version_1_is_read_in_any_usual_multibase(base: str) -> None:
    cid = Cid.parse(HELLO_RAW)
    assert Cid.parse(encode_multibase(base, bytes(cid))) == cid


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        "z",
        "Qm",
        HELLO_RAW[:-1],
        HELLO_RAW + "a",
        HELLO_RAW.replace("f", "1"),
        " " + HELLO_RAW,
        "/ipfs/" + HELLO_RAW,
        "ipfs://" + HELLO_RAW,
        EMPTY_DIRECTORY_V0[:-1],
        EMPTY_DIRECTORY_V0[:-1] + "0",
        "z" + EMPTY_DIRECTORY_V0,
        "\x00" + HELLO_RAW,
        "b\ud800",
        "\N{ROCKET}",
        "z" + "1" * 5000,
    ],
)
def test_text_that_is_not_one_cid_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        Cid.parse(text)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x01\x55",
        b"\x01\x55\x12\x20" + bytes(31),
        b"\x01\x55\x12\x20" + bytes(33),
        b"\x00\x55\x12\x20" + bytes(32),
        b"\x02\x55\x12\x20" + bytes(32),
        b"\x12\x20" + bytes(31),
        b"\x12\x20" + bytes(33),
        b"\x81\x00\x55\x12\x20" + bytes(32),
        b"\x01\xd5\x00\x12\x20" + bytes(32),
        b"\x01" + b"\xff" * 9 + b"\x01\x12\x20" + bytes(32),
    ],
    ids=lambda data: data[:6].hex() + f"+{len(data)}",
)
def test_bytes_that_are_not_one_cid_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidValueError):
        Cid(data)


def test_a_digest_over_64_bytes_and_a_codec_of_many_bytes_are_taken() -> None:
    cid = Cid(b"\x01\x80\x80\x04\x00\x80\x01" + bytes(128))
    assert cid.codec == 0x10000
    assert cid.digest == bytes(128)
    assert Cid.parse(str(cid)) == cid


def test_bytes_of_any_kind_are_copied() -> None:
    buffer = bytearray(bytes(Cid.parse(HELLO_RAW)))
    cid = Cid(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert str(cid) == HELLO_RAW


def test_an_identity_cid_holds_its_block() -> None:
    cid = Cid.from_data(HELLO, hash_code=IDENTITY)
    assert cid.digest == HELLO
    assert cid.verify(HELLO)
    assert not cid.verify(HELLO + b"!")
    assert Cid.from_prefix(cid.prefix, HELLO) == cid
    with pytest.raises(InvalidValueError):
        Cid.from_prefix(cid.prefix, HELLO + b"!")


@pytest.mark.parametrize(
    ("code", "digest"),
    [
        (0x11, hashlib.sha1(HELLO).digest()),
        (0x12, hashlib.sha256(HELLO).digest()),
        (0x13, hashlib.sha512(HELLO).digest()),
        (0x14, hashlib.sha3_512(HELLO).digest()),
        (0x15, hashlib.sha3_384(HELLO).digest()),
        (0x16, hashlib.sha3_256(HELLO).digest()),
        (0x17, hashlib.sha3_224(HELLO).digest()),
        (0x20, hashlib.sha384(HELLO).digest()),
        (0x56, hashlib.sha256(hashlib.sha256(HELLO).digest()).digest()),
        (0x1013, hashlib.sha224(HELLO).digest()),
        (0xB220, hashlib.blake2b(HELLO, digest_size=32).digest()),
        (0xB240, hashlib.blake2b(HELLO).digest()),
        (0xB260, hashlib.blake2s(HELLO).digest()),
    ],
    ids=lambda value: hex(value) if isinstance(value, int) else "",
)
def test_a_block_is_verified_by_its_hash_function(code: int, digest: bytes) -> None:
    cid = Cid.from_digest(digest, hash_code=code)
    assert Cid.from_data(HELLO, hash_code=code) == cid
    assert Cid.from_prefix(cid.prefix, HELLO) == cid
    assert cid.verify(HELLO)
    assert not cid.verify(HELLO + b"!")


@pytest.mark.parametrize("code", [0x01, 0x1B, 0x1E, 0xD5, 0xB213])
def test_an_unknown_hash_function_is_named_with_the_cid(code: int) -> None:
    cid = Cid.from_digest(bytes(32), hash_code=code)
    with pytest.raises(InvalidValueError, match=f"{cid}.*0x{code:x}"):
        cid.verify(HELLO)
    with pytest.raises(InvalidValueError):
        Cid.from_prefix(cid.prefix, HELLO)


def test_a_cut_digest_counts_while_it_is_long_enough_to_prove_something() -> None:
    cut = Cid.from_digest(hashlib.sha512(HELLO).digest()[:20], hash_code=SHA2_512)
    assert cut.verify(HELLO)
    assert Cid.from_prefix(cut.prefix, HELLO) == cut
    too_short = Cid.from_digest(hashlib.sha256(HELLO).digest()[:19])
    with pytest.raises(InvalidValueError):
        too_short.verify(HELLO)
    with pytest.raises(InvalidValueError):
        digest_of(SHA2_256, HELLO, 33)


@pytest.mark.parametrize(
    "prefix", ["", "01", "015512", "01551220ff", "00551220", "00701320", "02551220", "81005512 20"]
)
def test_a_malformed_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidValueError):
        Cid.from_prefix(bytes.fromhex(prefix), HELLO)


def test_version_0_of_anything_but_dag_pb_and_sha2_256_is_refused() -> None:
    with pytest.raises(InvalidValueError):
        Cid.from_data(HELLO, RAW, version=0)
    with pytest.raises(InvalidValueError):
        Cid.from_data(HELLO, DAG_PB, version=0, hash_code=SHA2_512)
    with pytest.raises(InvalidValueError):
        Cid.from_data(HELLO, version=2)


def test_a_cid_is_a_value() -> None:
    one, two = Cid.parse(HELLO_RAW), Cid.parse(HELLO_RAW)
    assert one == two
    assert hash(one) == hash(two)
    assert one != HELLO_RAW
    assert {one: 1}[two] == 1
    assert pickle.loads(pickle.dumps(one)) == one
    assert eval(repr(one), {"Cid": Cid}) == one
    assert sorted([one, Cid.from_data(b"")]) == sorted([Cid.from_data(b""), two])
    with pytest.raises(AttributeError):
        one.version = 0  # type: ignore[misc]
