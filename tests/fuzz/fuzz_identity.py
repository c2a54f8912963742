"""Varints, texts, keys, peer IDs, addresses, records: a value that is written as it was read, or InvalidValueError."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.envelope import (
    LEGACY_RECORD_DOMAIN,
    LEGACY_RECORD_TYPE,
    PEER_RECORD_DOMAIN,
    PEER_RECORD_TYPE,
    open_envelope,
    open_peer_record,
    seal,
    seal_peer_record,
)
from aiolibp2p.identity.keys import KeyType, PrivateKey, PublicKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.multibase import decode_base58, decode_multibase, encode_base58
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.identity.varint import decode_varint, encode_varint, scan_varint


class _SeededEntropy:
    """The same bytes in every run."""

    def token(self, n: int) -> bytes:
        return hashlib.shake_256(b"fuzz").digest(n)

    def fork(self, label: str) -> _SeededEntropy:
        return self


KEYS = [
    PrivateKey.generate(_SeededEntropy(), type=key_type)
    for key_type in (KeyType.ED25519, KeyType.SECP256K1, KeyType.ECDSA)
]
KEY = KEYS[0]
KEYS.append(PrivateKey.generate(type=KeyType.RSA))
PEER_ID = KEY.public.peer_id
_SIGNATURES = {key.type: key.sign(b"data") for key in KEYS}
ADDRESS = Multiaddr(f"/ip4/127.0.0.1/udp/4001/quic-v1/p2p/{PEER_ID}/p2p-circuit")


def fuzz_varint(data: bytes) -> None:
    try:
        number, end = decode_varint(data)
    except InvalidValueError:
        return
    assert encode_varint(number) == data[:end]
    assert scan_varint(data) == (number, end)


def fuzz_text(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for decode in (decode_base58, decode_multibase):
        try:
            decoded = decode(text)
        except InvalidValueError:
            continue
        if decode is decode_base58:
            assert encode_base58(decoded) == text


def fuzz_public_key(data: bytes) -> None:
    try:
        key = PublicKey.from_bytes(data)
    except InvalidValueError:
        return
    assert bytes(key) == data
    # Of an Ed25519 key of small order this one may be right.
    key.verify(b"data", bytes(64))
    key.verify(b"data", _SIGNATURES[key.type])


def fuzz_private_key(data: bytes) -> None:
    try:
        key = PrivateKey.from_bytes(data)
    except InvalidValueError:
        return
    assert PrivateKey.from_bytes(bytes(key)) == key
    if key.type is not KeyType.RSA:  # whose primes are not proved prime
        assert key.public.verify(b"data", key.sign(b"data"))


def fuzz_peer_id(data: bytes) -> None:
    try:
        peer_id = PeerId(data)
    except InvalidValueError:
        return
    assert peer_id.public_key is None or peer_id.public_key.peer_id == peer_id
    assert PeerId.parse(str(peer_id)) == peer_id == PeerId.parse(peer_id.to_cid_text())


def fuzz_peer_id_text(data: bytes) -> None:
    try:
        peer_id = PeerId.parse(data.decode("utf-8", "replace"))
    except InvalidValueError:
        return
    assert PeerId.parse(str(peer_id)) == peer_id


def _use(address: Multiaddr) -> None:
    again = Multiaddr(str(address))
    assert bytes(again) == bytes(address)
    assert again.components == address.components
    assert again.peer_id == address.peer_id
    assert again.is_private or not again.is_loopback
    assert again.tcp_endpoint is not None or not again.is_plain_tcp


def fuzz_multiaddr(data: bytes) -> None:
    try:
        address = Multiaddr(data)
    except InvalidValueError:
        return
    assert bytes(address) == data
    _use(address)


def fuzz_multiaddr_text(data: bytes) -> None:
    try:
        address = Multiaddr(data.decode("utf-8", "replace"))
    except InvalidValueError:
        return
    _use(address)


def fuzz_envelope(data: bytes) -> None:
    try:
        envelope = open_envelope(data, "domain")
    except InvalidValueError:
        return
    assert envelope.public_key != KEY.public or (envelope.payload_type, envelope.payload) == (b"type", b"payload")


def fuzz_peer_record(data: bytes) -> None:
    """The bytes as an envelope, and as what a peer signed: nobody guesses a signature."""
    legacy = seal(KEY, LEGACY_RECORD_DOMAIN, LEGACY_RECORD_TYPE, data)
    for envelope in (data, seal(KEY, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, data), legacy):
        try:
            record, key = open_peer_record(envelope)
        except InvalidValueError:
            continue
        assert record.peer_id == key.peer_id
        assert all(bytes(address) for address in record.addresses)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "varint": fuzz_varint,
    "text": fuzz_text,
    "public_key": fuzz_public_key,
    "private_key": fuzz_private_key,
    "peer_id": fuzz_peer_id,
    "peer_id_text": fuzz_peer_id_text,
    "multiaddr": fuzz_multiaddr,
    "multiaddr_text": fuzz_multiaddr_text,
    "envelope": fuzz_envelope,
    "peer_record": fuzz_peer_record,
}

_RECORD = seal_peer_record(KEY, 7, [ADDRESS, Multiaddr("/unix/a/b")])

SEEDS: dict[str, list[bytes]] = {
    "varint": [b"\x00", b"\xac\x02", encode_varint((1 << 63) - 1)],
    "text": [str(PEER_ID).encode(), PEER_ID.to_cid_text().encode()],
    "public_key": [bytes(key.public) for key in KEYS],
    "private_key": [*map(bytes, KEYS), b"\x08\x01\x12\x60" + bytes(KEY)[4:] + bytes(KEY)[36:]],
    "peer_id": [bytes(PEER_ID), b"\x12\x20" + bytes(32)],
    "peer_id_text": [str(PEER_ID).encode(), PEER_ID.to_cid_text().encode()],
    "multiaddr": [
        bytes(ADDRESS),
        bytes(Multiaddr("/ip6zone/x/ip6/fe80::1/tcp/1/tls/sni/a.example/http/http-path/a%2Fb")),
    ],
    "multiaddr_text": [
        str(ADDRESS).encode(),
        b"/ip6/::1/udp/1/webrtc-direct/certhash/uEiAAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHw",
    ],
    "envelope": [seal(KEY, "domain", b"type", b"payload")],
    "peer_record": [_RECORD, open_envelope(_RECORD, PEER_RECORD_DOMAIN).payload],
}
