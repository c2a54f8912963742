"""What holds for every varint, key, peer ID, address and record."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.address_protocols import BY_CODE, AddressProtocol
from aiolibp2p.identity.envelope import open_envelope, open_peer_record, seal, seal_peer_record
from aiolibp2p.identity.keys import KeyType, PrivateKey, PublicKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.multibase import (
    decode_base32,
    decode_base58,
    decode_base64url,
    encode_base32,
    encode_base58,
    encode_base64url,
)
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.identity.varint import VARINT_MAX, decode_varint, encode_varint, scan_varint

KEYS = {key_type: PrivateKey.generate(type=key_type) for key_type in KeyType}
KEY = KEYS[KeyType.ED25519]
SEEDED = [KeyType.ED25519, KeyType.SECP256K1, KeyType.ECDSA]
"""The types of keys that are made from an entropy."""
NAMES = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable() and "/" not in text and _is_utf8(text))
PEER_IDS = st.binary(min_size=1, max_size=60).map(PeerId.from_encoded_key)
MULTIHASHES = st.binary(max_size=64).map(lambda digest: b"\x12" + encode_varint(len(digest)) + digest)


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _values(protocol: AddressProtocol) -> st.SearchStrategy[bytes]:
    """Return what can be the value of `protocol`, in bytes."""
    match protocol.name:
        case "p2p":
            return PEER_IDS.map(bytes)
        case "certhash":
            return MULTIHASHES
        case "http-path":
            return st.binary(min_size=1, max_size=40)
        case "unix":
            parts = st.lists(NAMES, min_size=1, max_size=4)
            return parts.map(lambda names: ("/" + "/".join(names)).encode())
        case "onion" | "onion3":
            size = protocol.size_bytes or 0
            return st.binary(min_size=size, max_size=size).filter(lambda data: data[-2:] != b"\0\0")
        case "garlic64":
            return st.binary(min_size=386, max_size=420)
        case "garlic32":
            return st.binary(min_size=32, max_size=32) | st.binary(min_size=35, max_size=50)
    if protocol.size_bytes is None:
        return NAMES.map(str.encode)
    return st.binary(min_size=protocol.size_bytes, max_size=protocol.size_bytes)


@st.composite
def component_bytes(draw: st.DrawFn, protocols: list[AddressProtocol]) -> bytes:
    protocol = draw(st.sampled_from(protocols))
    return protocol.encode(draw(_values(protocol)))


ANYWHERE = [protocol for protocol in BY_CODE.values() if not protocol.is_path]
LAST = [protocol for protocol in BY_CODE.values() if protocol.is_path]
ADDRESS_BYTES = st.builds(
    lambda parts, last: b"".join((*parts, last)),
    st.lists(component_bytes(ANYWHERE), max_size=5),
    component_bytes(ANYWHERE) | component_bytes(LAST),
)
ADDRESSES = ADDRESS_BYTES.map(Multiaddr)
OPEN_ADDRESSES = st.lists(component_bytes(ANYWHERE), min_size=1, max_size=3).map(b"".join).map(Multiaddr)


@given(st.integers(0, VARINT_MAX), st.binary(max_size=4), st.binary(max_size=4))
def test_a_varint_is_read_back_between_other_bytes(number: int, before: bytes, after: bytes) -> None:
    encoded = encode_varint(number)
    assert 1 <= len(encoded) <= 9
    assert decode_varint(before + encoded + after, len(before)) == (number, len(before) + len(encoded))
    for size in range(len(encoded)):
        assert scan_varint(encoded[:size]) is None


@given(st.binary(max_size=20))
def test_a_number_has_one_varint_only(data: bytes) -> None:
    try:
        found = scan_varint(data)
    except InvalidValueError:
        return
    if found is not None:
        assert encode_varint(found[0]) == data[: found[1]]


@given(st.binary(max_size=60))
def test_text_encodings_are_read_back(data: bytes) -> None:
    assert decode_base58(encode_base58(data)) == data
    assert decode_base32(encode_base32(data)) == data
    assert decode_base64url(encode_base64url(data)) == data


@given(PEER_IDS)
def test_a_peer_id_is_read_back_from_bytes_and_both_texts(peer_id: PeerId) -> None:
    for again in (PeerId(bytes(peer_id)), PeerId.parse(str(peer_id)), PeerId.parse(peer_id.to_cid_text())):
        assert again == peer_id
        assert hash(again) == hash(peer_id)


@given(st.text(max_size=80))
def test_text_of_a_peer_id_is_a_peer_id_or_an_invalid_value(text: str) -> None:
    try:
        peer_id = PeerId.parse(text)
    except InvalidValueError:
        return
    assert PeerId.parse(str(peer_id)) == peer_id


@given(st.sampled_from(SEEDED), st.binary(min_size=40, max_size=40), st.binary(max_size=100))
def test_a_key_of_any_seed_signs_and_is_read_back(key_type: KeyType, seed: bytes, data: bytes) -> None:
    class Fixed:
        def token(self, n: int) -> bytes:
            return seed[:n]

        def fork(self, label: str) -> Fixed:
            return self

    key = PrivateKey.generate(Fixed(), type=key_type)
    assert PrivateKey.from_bytes(bytes(key)) == key
    public = PublicKey.from_bytes(bytes(key.public))
    assert public.verify(data, key.sign(data))
    assert PeerId(bytes(public.peer_id)).public_key == (None if key_type is KeyType.ECDSA else public)


@given(st.sampled_from(SEEDED), st.binary(max_size=100))
def test_bytes_are_no_signature_of_anyone(key_type: KeyType, signature: bytes) -> None:
    assert not KEYS[key_type].public.verify(b"data", signature)


@given(st.sampled_from(list(KeyType)), st.data())
def test_a_changed_public_key_is_another_or_an_invalid_value(key_type: KeyType, data: st.DataObject) -> None:
    encoded = bytearray(bytes(KEYS[key_type].public))
    # Where keys begin there is most to get wrong.
    position = data.draw(st.integers(0, 40) | st.integers(0, len(encoded) - 1)) % len(encoded)
    encoded[position] ^= data.draw(st.integers(1, 255))
    try:
        key = PublicKey.from_bytes(bytes(encoded))
    except InvalidValueError:
        return
    assert bytes(key) == bytes(encoded)
    assert key.peer_id != KEYS[key_type].public.peer_id
    assert not key.verify(b"data", KEYS[key_type].sign(b"data"))


@given(st.sampled_from(list(KeyType)), st.data())
def test_a_changed_private_key_is_another_or_an_invalid_value(key_type: KeyType, data: st.DataObject) -> None:
    encoded = bytearray(bytes(KEYS[key_type]))
    position = data.draw(st.integers(0, 40) | st.integers(0, len(encoded) - 1)) % len(encoded)
    encoded[position] ^= data.draw(st.integers(1, 255))
    try:
        key = PrivateKey.from_bytes(bytes(encoded))
    except InvalidValueError:
        return
    assert bytes(key) == bytes(encoded)
    assert key != KEYS[key_type]
    assert key.public.verify(b"data", key.sign(b"data"))


@given(ADDRESS_BYTES)
def test_an_address_survives_as_text_and_as_bytes(data: bytes) -> None:
    address = Multiaddr(data)
    again = Multiaddr(str(address))
    assert bytes(again) == bytes(address) == data
    assert again == address
    assert str(again) == str(address)
    assert again.components == address.components


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_ip_address_is_read_back_from_its_endpoint(ip: IPv4Address | IPv6Address, port: int) -> None:
    address = Multiaddr.from_tcp(str(ip), port)
    endpoint = address.tcp_endpoint
    assert endpoint is not None
    assert type(ip)(endpoint[0]) == ip
    assert endpoint[1] == port
    assert Multiaddr.from_tcp(*endpoint) == address == Multiaddr(str(address))


@settings(max_examples=50)
@given(OPEN_ADDRESSES, ADDRESSES)
def test_decapsulating_undoes_encapsulating(address: Multiaddr, other: Multiaddr) -> None:
    both = address.encapsulate(other)
    assert bytes(both) == bytes(address) + bytes(other)
    assert both.components == address.components + other.components
    assert both.decapsulate(other) == address
    assert Multiaddr(bytes(both)) == both


@settings(max_examples=50)
@given(OPEN_ADDRESSES, PEER_IDS)
def test_a_peer_id_goes_on_and_off_an_address_without_one(address: Multiaddr, peer_id: PeerId) -> None:
    assume(address.peer_id is None)
    named = address.with_peer_id(peer_id)
    assert named.peer_id == peer_id
    assert named.without_peer_id() == address
    assert address.without_peer_id() == address


@given(st.text(max_size=60).map(lambda text: "/" + text))
def test_text_is_an_address_or_an_invalid_value(text: str) -> None:
    try:
        address = Multiaddr(text)
    except InvalidValueError:
        return
    assert Multiaddr(str(address)) == address == Multiaddr(bytes(address))


@settings(max_examples=30)
@given(st.lists(ADDRESSES, max_size=3), st.integers(0, (1 << 64) - 1))
def test_a_peer_record_is_read_back(addresses: list[Multiaddr], seq: int) -> None:
    record, public_key = open_peer_record(seal_peer_record(KEY, seq, addresses))
    assert record.addresses == tuple(addresses)
    assert record.seq == seq
    assert record.peer_id == public_key.peer_id == KEY.public.peer_id


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0), st.integers(1, 255))
def test_a_changed_envelope_never_holds_something_else(
    payload_type: bytes, payload: bytes, position: int, flip: int
) -> None:
    data = bytearray(seal(KEY, "domain", payload_type, payload))
    original = open_envelope(bytes(data), "domain")
    assert (original.payload_type, original.payload) == (payload_type, payload)
    data[position % len(data)] ^= flip
    with pytest.raises(InvalidValueError):
        open_envelope(bytes(data), "domain")
