"""Keys in libp2p's protobuf form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiolibp2p.entropy import Entropy
from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.keys import KeyType, PrivateKey, PublicKey
from aiolibp2p.identity.peer_id import PeerId

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "identity" / "keys.json").read_text("utf-8"))["keys"]
PRIVATE = bytes.fromhex(VECTORS["ed25519"]["private"])
PUBLIC = bytes.fromhex(VECTORS["ed25519"]["public"])
SEED = PRIVATE[4:36]


class CountingEntropy:
    """Bytes that count up from 0, and how many were asked for."""

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def token(self, n: int) -> bytes:
        self.drawn.append(n)
        return bytes(range(n))

    def fork(self, label: str) -> Entropy:
        return self


@pytest.mark.parametrize("key_type", KeyType, ids=lambda key_type: key_type.name)
@pytest.mark.conforms("K1")
def test_the_specifications_private_key_gives_its_public_key_and_the_peer_id(key_type: KeyType) -> None:
    vector = VECTORS[key_type.name.lower()]
    key = PrivateKey.from_bytes(bytes.fromhex(vector["private"]))
    assert bytes(key.public) == bytes.fromhex(vector["public"])
    assert bytes(key) == bytes.fromhex(vector["private"])
    assert str(key.public.peer_id) == vector["peer_id"]
    assert key.type is key.public.type is key_type
    public = PublicKey.from_bytes(bytes.fromhex(vector["public"]))
    assert public == key.public
    assert public.verify(b"data", key.sign(b"data"))


def test_keys_are_equal_by_value() -> None:
    key, again, other = PrivateKey.from_bytes(PRIVATE), PrivateKey.from_bytes(PRIVATE), PrivateKey.generate()
    assert key == again
    assert hash(key) == hash(again)
    assert key.public == PublicKey.from_bytes(PUBLIC)
    assert hash(key.public) == hash(PublicKey.from_bytes(PUBLIC))
    assert key != other
    assert key.public != other.public
    assert key != PRIVATE
    assert key.public != PUBLIC


def test_public_half_and_peer_id_are_made_once() -> None:
    key = PrivateKey.from_bytes(PRIVATE)
    assert key.public is key.public
    assert key.public.peer_id is key.public.peer_id


def test_a_signature_of_ed25519_is_that_of_rfc_8032() -> None:
    # RFC 8032, section 7.1, test 2.
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    key = PrivateKey.from_bytes(b"\x08\x01\x12\x40" + seed + public)
    assert key.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


@pytest.mark.parametrize("key_type", KeyType, ids=lambda key_type: key_type.name)
def test_a_signature_verifies_with_its_key_and_data_only(key_type: KeyType) -> None:
    key, other = (PrivateKey.generate(type=key_type) for _ in range(2))
    signature = key.sign(b"data")
    assert key.public.verify(b"data", signature)
    assert not key.public.verify(b"Data", signature)
    assert not other.public.verify(b"data", signature)
    for damaged in (signature[:-1], signature + b"\0", b"", bytes(len(signature)), b"\xff" * 10_000):
        assert not key.public.verify(b"data", damaged)


@pytest.mark.parametrize("key_type", KeyType, ids=lambda key_type: key_type.name)
def test_generated_keys_differ_and_are_read_back(key_type: KeyType) -> None:
    key, other = (PrivateKey.generate(type=key_type) for _ in range(2))
    assert key != other
    assert key.type is key_type
    again = PrivateKey.from_bytes(bytes(key))
    assert again == key
    assert bytes(again) == bytes(key)
    assert PublicKey.from_bytes(bytes(key.public)) == key.public


def test_a_generated_key_is_of_ed25519_unless_another_type_is_named() -> None:
    assert PrivateKey.generate().type is KeyType.ED25519
    entropy = CountingEntropy()
    key = PrivateKey.generate(entropy)
    assert entropy.drawn == [32]
    assert bytes(key)[4:36] == bytes(range(32))


@pytest.mark.parametrize("key_type", [KeyType.ED25519, KeyType.SECP256K1, KeyType.ECDSA], ids=lambda each: each.name)
def test_keys_from_the_same_entropy_are_the_same_and_sign_the_same(key_type: KeyType) -> None:
    key, again = (PrivateKey.generate(CountingEntropy(), type=key_type) for _ in range(2))
    assert bytes(key) == bytes(again)
    assert key.sign(b"data") == again.sign(b"data")


@pytest.mark.parametrize("key_type", KeyType, ids=lambda key_type: key_type.name)
def test_only_a_key_whose_encoding_is_short_is_held_by_its_peer_id(key_type: KeyType) -> None:
    public = PublicKey.from_bytes(bytes.fromhex(VECTORS[key_type.name.lower()]["public"]))
    is_short = key_type in (KeyType.ED25519, KeyType.SECP256K1)
    assert PeerId(bytes(public.peer_id)).public_key == (public if is_short else None)
    assert bytes(public.peer_id).startswith(b"\x00" if is_short else b"\x12\x20")


@pytest.mark.conforms("K3")
def test_the_old_form_with_the_public_key_twice_is_read_and_written_in_the_new() -> None:
    old = b"\x08\x01\x12\x60" + PRIVATE[4:] + PRIVATE[36:]
    assert bytes(PrivateKey.from_bytes(old)) == PRIVATE


@pytest.mark.parametrize("position", [36, 67, 68, 99])
@pytest.mark.conforms("K3")
def test_an_old_form_with_a_changed_copy_is_refused(position: int) -> None:
    old = bytearray(b"\x08\x01\x12\x60" + PRIVATE[4:] + PRIVATE[36:])
    old[position] ^= 1
    with pytest.raises(InvalidValueError):
        PrivateKey.from_bytes(bytes(old))


def test_a_private_key_with_a_public_half_of_another_is_refused() -> None:
    other = bytes(PrivateKey.generate())[36:]
    with pytest.raises(InvalidValueError):
        PrivateKey.from_bytes(PRIVATE[:36] + other)


@pytest.mark.parametrize("name", VECTORS)
def test_data_of_one_key_type_are_none_of_another(name: str) -> None:
    for half, read in (("public", PublicKey.from_bytes), ("private", PrivateKey.from_bytes)):
        encoded = bytes.fromhex(VECTORS[name][half])
        for key_type in KeyType:
            if key_type != encoded[1]:
                with pytest.raises(InvalidValueError):
                    read(b"\x08" + bytes([key_type]) + encoded[2:])


def test_a_key_type_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidValueError) as caught:
        PublicKey.from_bytes(b"\x08\x09" + PUBLIC[2:])
    assert str(caught.value) == "there is no key type 9"


NOT_DETERMINISTIC = {
    "empty": b"",
    "not protobuf": b"\xff\xff",
    "cut off": PUBLIC[:-1],
    "without data": PUBLIC[:2],
    "without type": PUBLIC[2:],
    "fields swapped": PUBLIC[2:] + PUBLIC[:2],
    "type twice": PUBLIC[:2] + PUBLIC,
    "a further field": PUBLIC + b"\x18\x01",
    "garbage at the end": PUBLIC + b"\x00",
    "type not minimal": b"\x08\x81\x00" + PUBLIC[2:],
    "length not minimal": PUBLIC[:3] + b"\xa0\x00" + PUBLIC[4:],
    "type beyond 32 bits": b"\x08\x81\x80\x80\x80\x10" + PUBLIC[2:],
    "key of 31 bytes": b"\x08\x01\x12\x1f" + PUBLIC[5:],
    "key of 33 bytes": b"\x08\x01\x12\x21" + PUBLIC[4:] + b"\0",
}


@pytest.mark.parametrize("what", NOT_DETERMINISTIC)
@pytest.mark.conforms("K1")
def test_only_the_deterministic_encoding_of_a_public_key_is_accepted(what: str) -> None:
    with pytest.raises(InvalidValueError):
        PublicKey.from_bytes(NOT_DETERMINISTIC[what])


@pytest.mark.parametrize(
    "encoded", [PRIVATE[:-1], PRIVATE + b"\x18\x01", b"\x08\x01\x12\x20" + SEED, b"\x08\x01\x12\x00"]
)
def test_only_the_deterministic_encoding_of_a_private_key_is_accepted(encoded: bytes) -> None:
    with pytest.raises(InvalidValueError):
        PrivateKey.from_bytes(encoded)


@pytest.mark.parametrize("name", VECTORS)
def test_text_of_a_private_key_shows_none_of_it(name: str) -> None:
    encoded = bytes.fromhex(VECTORS[name]["private"])
    key = PrivateKey.from_bytes(encoded)
    assert {repr(key), str(key), f"{key}", repr([key])[1:-1]} == {
        f"<PrivateKey {key.type.name} of {VECTORS[name]['peer_id']}>"
    }
