"""Peer IDs, in bytes and in both text forms."""

from __future__ import annotations

import gc
import json
import pickle
from pathlib import Path

import pytest

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.keys import _KEYS_REMEMBERED, KeyType, PrivateKey, PublicKey
from aiolibp2p.identity.peer_id import INLINE_KEY_BYTES_MAX, PeerId
from aiolibp2p.runtime import SystemEntropy

FOLDER = Path(__file__).parents[2] / "vectors" / "identity"
KEYS = json.loads((FOLDER / "keys.json").read_text("utf-8"))["keys"]
PEER_IDS = json.loads((FOLDER / "peer_ids.json").read_text("utf-8"))["peer_ids"]
ED25519 = KEYS["ed25519"]


@pytest.mark.parametrize("name", KEYS)
def test_the_id_of_an_encoded_key_is_its_multihash(name: str) -> None:
    peer_id = PeerId.from_encoded_key(bytes.fromhex(KEYS[name]["public"]))
    assert str(peer_id) == KEYS[name]["peer_id"]
    assert peer_id.to_cid_text() == KEYS[name]["cid"]


@pytest.mark.parametrize("texts", PEER_IDS, ids=lambda texts: texts["base58"])
@pytest.mark.conforms("K2")
def test_the_specifications_texts_are_read(texts: dict[str, str]) -> None:
    peer_id = PeerId.parse(texts["base58"])
    assert str(peer_id) == texts["base58"]
    assert PeerId.parse(texts.get("cid", texts["base58"])) == peer_id
    assert PeerId.parse(peer_id.to_cid_text()) == peer_id


@pytest.mark.conforms("K2")
def test_a_cid_is_read_in_every_encoding_of_multibase() -> None:
    peer_id = PeerId.parse(ED25519["peer_id"])
    assert PeerId.parse("f0172" + bytes(peer_id).hex()) == peer_id
    assert str(PeerId.parse("k51qzi5uqu5dhb6l8spkdx7yxafegfkee5by8h7lmjh2ehc2sgg34z7c15vzqs")).startswith("12D3KooW")


@pytest.mark.conforms("K2")
def test_a_key_of_42_bytes_is_its_own_hash_and_one_of_43_is_hashed() -> None:
    assert bytes(PeerId.from_encoded_key(b"k" * INLINE_KEY_BYTES_MAX)) == b"\x00\x2a" + b"k" * 42
    assert bytes(PeerId.from_encoded_key(b"k" * (INLINE_KEY_BYTES_MAX + 1)))[:2] == b"\x12\x20"


@pytest.mark.parametrize("key_type", [KeyType.ED25519, KeyType.SECP256K1])
def test_an_id_of_a_short_key_holds_it(key_type: KeyType) -> None:
    key = PrivateKey.generate(type=key_type).public
    peer_id = PeerId(bytes(key.peer_id))
    assert peer_id.public_key == key
    assert peer_id.public_key is peer_id.public_key
    assert PeerId.from_public_key(key) is key.peer_id
    assert PublicKey.from_bytes(bytes(peer_id)[2:]).peer_id == peer_id


@pytest.mark.parametrize("name", ["rsa", "ecdsa"])
def test_an_id_of_a_long_key_does_not_hold_it(name: str) -> None:
    assert PeerId.parse(KEYS[name]["peer_id"]).public_key is None


def test_an_id_of_bytes_that_are_no_key_has_none() -> None:
    assert PeerId(b"\x00\x03abc").public_key is None


def test_ids_are_equal_by_value_and_keys_of_a_dictionary() -> None:
    peer_id, again = PeerId.parse(ED25519["peer_id"]), PeerId.parse(ED25519["cid"])
    assert peer_id == again
    assert {peer_id: 1}[again] == 1
    assert peer_id != PrivateKey.generate().public.peer_id
    assert peer_id != bytes(peer_id)
    assert repr(peer_id) == f"PeerId.parse('{ED25519['peer_id']}')"


def test_an_id_survives_pickling() -> None:
    peer_id = PeerId.parse(ED25519["peer_id"])
    assert pickle.loads(pickle.dumps(peer_id)) == peer_id


@pytest.mark.parametrize(
    "data",
    [
        "",
        "00",
        "0000",
        "0002" + "00",
        "0001" + "0000",
        "002b" + "00" * 43,
        "1220" + "00" * 31,
        "1220" + "00" * 33,
        "121f" + "00" * 32,
        "1114" + "00" * 20,
        "1340" + "00" * 64,
        "00808000",
    ],
)
def test_bytes_that_are_no_multihash_of_a_key_are_refused(data: str) -> None:
    with pytest.raises(InvalidValueError):
        PeerId(bytes.fromhex(data))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "Qm",
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5",
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx50",
        "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5S",
        "1" * 10_000,
        "Qm" + "z" * 10_000,
        "k" + "z" * 10_000,
        "b",
        "bafz",
        "BAFZBEIE5745RPV2M6TJYUUGYWY4D5EWRQGQQHFNF445HE3OMZPJBX5XQXE",
        "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
        "hello",
        " 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA",
    ],
    ids=lambda text: text[:8],
)
def test_text_that_is_no_peer_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        PeerId.parse(text)


def test_an_id_and_its_key_wait_for_no_collector() -> None:
    def alive() -> int:
        return sum(isinstance(found, PublicKey | PeerId) for found in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = alive()
        for _ in range(_KEYS_REMEMBERED + 100):
            key = PrivateKey.generate(SystemEntropy()).public
            assert PublicKey.from_bytes(bytes(key)).peer_id.public_key == key
        assert alive() <= before + 2 * _KEYS_REMEMBERED + 2  # those that are remembered, and the last one
    finally:
        gc.enable()
