"""Signed envelopes and peer records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.envelope import (
    LEGACY_RECORD_DOMAIN,
    LEGACY_RECORD_TYPE,
    PEER_RECORD_DOMAIN,
    PEER_RECORD_TYPE,
    SEQ_MAX,
    open_envelope,
    open_peer_record,
    seal,
    seal_peer_record,
)
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.identity.multiaddr import Multiaddr

FOLDER = Path(__file__).parents[2] / "vectors" / "identity"
GO = json.loads((FOLDER / "envelope.json").read_text("utf-8"))
KEYS = {
    name: vector
    for file in ("keys.json", "rsa_bounds.json")
    for name, vector in json.loads((FOLDER / file).read_text("utf-8"))["keys"].items()
}
KEY = PrivateKey.from_bytes(bytes.fromhex(KEYS["ed25519"]["private"]))
ADDRESSES = (Multiaddr("/ip4/192.0.2.1/tcp/4001"), Multiaddr("/ip6/2001:db8::1/tcp/4001"))


def field(number: int, value: bytes) -> bytes:
    """Return a protobuf field of bytes, written by hand; `value` is shorter than 128 bytes."""
    assert len(value) < 128
    return bytes((number << 3 | 2, len(value))) + value


def record_bytes(peer_id: bytes, addresses: list[bytes]) -> bytes:
    return field(1, peer_id) + b"\x10\x07" + b"".join(field(3, field(1, address)) for address in addresses)


@pytest.mark.conforms("E1")
def test_an_envelope_of_go_libp2p_opens() -> None:
    envelope = open_envelope(bytes.fromhex(GO["envelope"]), GO["domain"], bytes.fromhex(GO["payload_type"]))
    assert envelope.payload == bytes.fromhex(GO["payload"])
    assert envelope.payload_type == bytes.fromhex(GO["payload_type"])


@pytest.mark.conforms("E1")
def test_the_signature_covers_domain_type_and_payload_each_with_its_length() -> None:
    signed = b"\x06domain" + b"\x04type" + b"\x07payload"
    expected = field(1, bytes(KEY.public)) + field(2, b"type") + field(3, b"payload") + field(5, KEY.sign(signed))
    assert seal(KEY, "domain", b"type", b"payload") == expected


def test_an_envelope_opens_for_its_domain_only() -> None:
    data = seal(KEY, "domain", b"type", b"payload")
    assert open_envelope(data, "domain").public_key == KEY.public
    with pytest.raises(InvalidValueError):
        open_envelope(data, "domain2")


def test_an_envelope_of_another_type_is_refused_where_the_type_matters() -> None:
    data = seal(KEY, "domain", b"type", b"payload")
    assert open_envelope(data, "domain").payload_type == b"type"
    with pytest.raises(InvalidValueError):
        open_envelope(data, "domain", b"epyt")


def test_bytes_cannot_move_between_the_fields_of_an_envelope() -> None:
    signature = seal(KEY, "domain", b"type", b"payload")[-64:]
    moved = field(1, bytes(KEY.public)) + field(2, b"typep") + field(3, b"ayload") + field(5, signature)
    with pytest.raises(InvalidValueError):
        open_envelope(moved, "domain")


def test_no_changed_byte_of_an_envelope_goes_unnoticed() -> None:
    data = seal(KEY, "domain", b"type", b"payload")
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0x01
        with pytest.raises(InvalidValueError):
            open_envelope(bytes(changed), "domain")


def test_a_cut_off_envelope_is_refused_at_every_length() -> None:
    data = seal(KEY, "domain", b"type", b"payload")
    for size in range(len(data)):
        with pytest.raises(InvalidValueError):
            open_envelope(data[:size], "domain")


def test_an_envelope_of_a_key_type_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidValueError) as caught:
        open_envelope(field(1, b"\x08\x09\x12\x01k") + field(2, b"type") + field(5, bytes(64)), "domain")
    assert str(caught.value) == "there is no key type 9"


@pytest.mark.parametrize("name", KEYS)
def test_envelopes_and_records_of_every_key_type_open(name: str) -> None:
    key = PrivateKey.from_bytes(bytes.fromhex(KEYS[name]["private"]))
    data = seal(key, "domain", b"type", b"payload")
    assert open_envelope(data, "domain").public_key == key.public
    with pytest.raises(InvalidValueError):
        open_envelope(data, "another")
    record, public_key = open_peer_record(seal_peer_record(key, 7, ADDRESSES))
    assert str(record.peer_id) == KEYS[name]["peer_id"]
    assert public_key == key.public
    assert record.addresses == ADDRESSES


@pytest.mark.conforms("I2")
def test_a_peer_record_has_the_domain_and_type_that_go_and_js_use() -> None:
    data = seal_peer_record(KEY, 7, ADDRESSES)
    envelope = open_envelope(data, "libp2p-peer-record", b"\x03\x01")
    assert envelope.payload == record_bytes(bytes(KEY.public.peer_id), [bytes(address) for address in ADDRESSES])


def test_a_peer_record_opens_to_what_was_sealed() -> None:
    record, public_key = open_peer_record(seal_peer_record(KEY, SEQ_MAX, ADDRESSES))
    assert record.peer_id == KEY.public.peer_id
    assert public_key == KEY.public
    assert record.seq == SEQ_MAX
    assert record.addresses == ADDRESSES


def test_a_peer_record_without_addresses_opens() -> None:
    record, _ = open_peer_record(seal_peer_record(KEY, 0, []))
    assert (record.seq, record.addresses) == (0, ())


@pytest.mark.parametrize("seq", [-1, SEQ_MAX + 1])
def test_a_sequence_number_out_of_range_is_refused(seq: int) -> None:
    with pytest.raises(InvalidValueError):
        seal_peer_record(KEY, seq, ADDRESSES)


@pytest.mark.conforms("I2")
def test_the_record_of_rfc_0003_opens_too() -> None:
    payload = record_bytes(bytes(KEY.public.peer_id), [bytes(ADDRESSES[0])])
    record, _ = open_peer_record(seal(KEY, LEGACY_RECORD_DOMAIN, LEGACY_RECORD_TYPE, payload))
    assert record.addresses == ADDRESSES[:1]


@pytest.mark.parametrize(
    ("domain", "payload_type"),
    [
        (PEER_RECORD_DOMAIN, LEGACY_RECORD_TYPE),
        (LEGACY_RECORD_DOMAIN, PEER_RECORD_TYPE),
        (PEER_RECORD_DOMAIN, b"\x03\x02"),
        (PEER_RECORD_DOMAIN, b""),
    ],
)
def test_a_record_whose_domain_or_type_is_another_is_refused(domain: str, payload_type: bytes) -> None:
    payload = record_bytes(bytes(KEY.public.peer_id), [])
    with pytest.raises(InvalidValueError):
        open_peer_record(seal(KEY, domain, payload_type, payload))


@pytest.mark.conforms("E2")
def test_a_record_about_another_peer_than_its_signer_is_refused() -> None:
    payload = record_bytes(bytes(PrivateKey.generate().public.peer_id), [bytes(ADDRESSES[0])])
    with pytest.raises(InvalidValueError):
        open_peer_record(seal(KEY, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, payload))


def test_a_record_that_does_not_parse_is_refused() -> None:
    with pytest.raises(InvalidValueError) as caught:
        open_peer_record(seal(KEY, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, b"\xff"))
    assert str(caught.value) == "not the protobuf of a peer record"


@pytest.mark.conforms("E2")
def test_the_signature_is_checked_before_the_record_is_parsed() -> None:
    data = bytearray(seal(KEY, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, b"\xff"))
    data[-1] ^= 1
    with pytest.raises(InvalidValueError) as caught:
        open_peer_record(bytes(data))
    assert str(caught.value) == "the signature of an envelope for libp2p-peer-record is wrong"


@pytest.mark.conforms("A1")
def test_addresses_that_are_empty_or_not_understood_do_not_cost_the_others() -> None:
    addresses = [b"", bytes(ADDRESSES[0]), b"\xe7\x07", b"\x04\x01", bytes(ADDRESSES[1])]
    payload = record_bytes(bytes(KEY.public.peer_id), addresses)
    record, _ = open_peer_record(seal(KEY, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, payload))
    assert record.addresses == ADDRESSES
