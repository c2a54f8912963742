"""Signed envelopes, and the record of its addresses that a peer puts into one.

Spec: libp2p RFC 0002 and RFC 0003. The RFC's strings for peer records are those of old implementations: what go-libp2p
and js-libp2p write today has another domain and type, and so has ours; both are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from google.protobuf.message import DecodeError

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.keys import PrivateKey, PublicKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.pb import envelope_pb2, peer_record_pb2
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.identity.varint import encode_varint

PEER_RECORD_DOMAIN = "libp2p-peer-record"
PEER_RECORD_TYPE = b"\x03\x01"
"""The multicodec of a peer record."""

LEGACY_RECORD_DOMAIN = "libp2p-routing-state"
LEGACY_RECORD_TYPE = b"/libp2p/routing-state-record"
"""What RFC 0003 says, and rust-libp2p still sends with identify."""

SEQ_MAX = (1 << 64) - 1

# A peer that comes back brings the record it brought before: a look-up instead of 130 µs of Ed25519.
_RECORDS_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Envelope:
    """What an envelope held, its signature being `public_key`'s."""

    public_key: PublicKey
    payload_type: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """What a peer says of itself; of two records, the one with the higher `seq` counts."""

    peer_id: PeerId
    seq: int
    addresses: tuple[Multiaddr, ...]


def seal(key: PrivateKey, domain: str, payload_type: bytes, payload: bytes) -> bytes:
    """Sign `payload` for one purpose, `domain`, and return the envelope."""
    return envelope_pb2.Envelope(
        public_key=bytes(key.public),
        payload_type=payload_type,
        payload=payload,
        signature=key.sign(_signed_bytes(domain, payload_type, payload)),
    ).SerializeToString()


def open_envelope(data: bytes, domain: str, payload_type: bytes | None = None) -> Envelope:
    """Check an envelope's signature and return what it holds.

    Args:
        data: the envelope, bounded by whoever received it.
        domain: the purpose it must have been signed for.
        payload_type: the type it must say; None accepts any.

    Raises:
        InvalidValueError: it does not parse, its key is none, its type is another, or the signature is wrong.
    """
    envelope = _parse_envelope(data)
    if payload_type is not None and envelope.payload_type != payload_type:
        raise InvalidValueError(f"an envelope of type {envelope.payload_type[:64]!r}, not {payload_type!r}")
    public_key = PublicKey.from_bytes(envelope.public_key)
    signed = _signed_bytes(domain, envelope.payload_type, envelope.payload)
    if not public_key.verify(signed, envelope.signature):
        raise InvalidValueError(f"the signature of an envelope for {domain} is wrong")
    return Envelope(public_key, envelope.payload_type, envelope.payload)


def seal_peer_record(key: PrivateKey, seq: int, addresses: Iterable[Multiaddr]) -> bytes:
    """Sign a record of `addresses` as the peer that holds `key`.

    Args:
        key: the peer's.
        seq: higher than in any record signed before, and below 2**64.
        addresses: where the peer can be reached.

    Raises:
        InvalidValueError: `seq` is out of range.
    """
    if not 0 <= seq <= SEQ_MAX:
        raise InvalidValueError(f"{seq} is not a sequence number")
    record = peer_record_pb2.PeerRecord(peer_id=bytes(key.public.peer_id), seq=seq)
    for address in addresses:
        record.addresses.add(multiaddr=bytes(address))
    return seal(key, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, record.SerializeToString())


@lru_cache(maxsize=_RECORDS_REMEMBERED)
def open_peer_record(data: bytes) -> tuple[PeerRecord, PublicKey]:
    """Check a signed peer record; return it and the key of its peer.

    The signature is checked before the record is parsed. Addresses that are empty or not understood are left out.
    Whether the record is about the peer that was asked, and newer than the last, is the caller's to check.

    Args:
        data: the envelope, bounded by whoever received it.

    Raises:
        InvalidValueError: the envelope is bad, or the record does not parse or is about another peer than its signer.
    """
    is_legacy = _parse_envelope(data).payload_type == LEGACY_RECORD_TYPE
    domain = LEGACY_RECORD_DOMAIN if is_legacy else PEER_RECORD_DOMAIN
    envelope = open_envelope(data, domain, LEGACY_RECORD_TYPE if is_legacy else PEER_RECORD_TYPE)
    try:
        record = peer_record_pb2.PeerRecord.FromString(envelope.payload)
    except DecodeError as error:
        raise InvalidValueError("not the protobuf of a peer record") from error
    peer_id = envelope.public_key.peer_id
    if record.peer_id != bytes(peer_id):
        raise InvalidValueError(f"a record that {peer_id} signed is about another peer")
    addresses = []
    for info in record.addresses:
        try:
            addresses.append(Multiaddr(info.multiaddr))
        except InvalidValueError:
            # A later version's protocol is no reason to lose the other addresses.
            continue
    return PeerRecord(peer_id, record.seq, tuple(addresses)), envelope.public_key


def _parse_envelope(data: bytes) -> envelope_pb2.Envelope:
    try:
        return envelope_pb2.Envelope.FromString(data)
    except DecodeError as error:
        raise InvalidValueError("not the protobuf of an envelope") from error


def _signed_bytes(domain: str, payload_type: bytes, payload: bytes) -> bytes:
    parts = (domain.encode("utf-8"), payload_type, payload)
    return b"".join(encode_varint(len(part)) + part for part in parts)
