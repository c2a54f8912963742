"""The identify message: what a peer is, where it listens and what it speaks (libp2p specs, identify/README.md).

A sender may cut it into several messages, each with a varint length, that the receiver merges; the end of the stream
ends it. Field 8, a signed peer record, is not in the specification, but go, js and rust send it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import islice

from google.protobuf.message import DecodeError

from aiolibp2p.errors import InvalidValueError, LimitError, RemoteProtocolError
from aiolibp2p.identity.envelope import PeerRecord, open_peer_record
from aiolibp2p.identity.keys import PublicKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.identity.varint import encode_varint, scan_varint
from aiolibp2p.limits import Limits, Refused, unheard
from aiolibp2p.sansio.pb import identify_pb2

MESSAGE_BYTES = 4 << 10
"""The longest message sent, with its length: rust takes no more."""
MESSAGES = 10
"""How many messages are sent: go and js merge no more."""

_TRIED = 4
"""How many addresses are looked at for each that may be kept."""

_PUBLIC_KEY = 1
_LISTEN_ADDRESS = 2
_PROTOCOL = 3
_OBSERVED_ADDRESS = 4
_PROTOCOL_VERSION = 5
_AGENT_VERSION = 6
_SIGNED_PEER_RECORD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Identify:
    """What a peer says of itself; what it does not say is None or empty."""

    protocol_version: str | None = None
    agent_version: str | None = None
    public_key: PublicKey | None = None
    listen_addresses: tuple[Multiaddr, ...] = ()
    """Where it listens, without peer IDs; those of `peer_record` once there is one."""
    observed_address: Multiaddr | None = None
    """How it sees the other side's address, without peer ID."""
    protocols: tuple[str, ...] = ()
    """What it accepts."""
    signed_peer_record: bytes | None = None
    """A signed peer record as it came: believed only when `verify` has made it `peer_record`."""
    peer_record: PeerRecord | None = None
    """The same, verified to be the peer's own; never sent."""


def encode(message: Identify) -> list[bytes]:
    """Return the messages that carry `message`, each with its length and of at most MESSAGE_BYTES.

    Some readers take only the first, so what matters most is in it. What does not fit into so many messages is left
    out: protocols first, then addresses.
    """
    items: list[bytes] = []
    if message.public_key is not None:
        items.append(_field(_PUBLIC_KEY, bytes(message.public_key)))
    if message.protocol_version is not None:
        items.append(_field(_PROTOCOL_VERSION, message.protocol_version.encode()))
    if message.agent_version is not None:
        items.append(_field(_AGENT_VERSION, message.agent_version.encode()))
    if message.observed_address is not None:
        items.append(_field(_OBSERVED_ADDRESS, bytes(message.observed_address)))
    items += [_field(_LISTEN_ADDRESS, bytes(address)) for address in message.listen_addresses]
    items += [_field(_PROTOCOL, protocol.encode()) for protocol in message.protocols if protocol]
    record = message.signed_peer_record
    if not record or len(record_item := _field(_SIGNED_PEER_RECORD, record)) > _room():
        return _pack(items, MESSAGES)
    packed = _pack([*items, record_item], MESSAGES)
    # A record that found no room, because everything is full, takes the last message.
    return packed if packed[-1].endswith(record_item) else [*_pack(items, MESSAGES - 1), _prefixed(record_item)]


def _field(number: int, data: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + encode_varint(len(data)) + data


def _prefixed(body: bytes) -> bytes:
    return encode_varint(len(body)) + body


def _room() -> int:
    return MESSAGE_BYTES - len(encode_varint(MESSAGE_BYTES))


def _pack(items: Iterable[bytes], most: int) -> list[bytes]:
    """Return messages of whole items in order, no more than `most`."""
    bodies = [b""]
    room = _room()
    for item in items:
        if len(item) > room:
            continue
        if len(bodies[-1]) + len(item) > room:
            if len(bodies) == most:
                break
            bodies.append(b"")
        bodies[-1] += item
    return [_prefixed(body) for body in bodies]


class Decoder:
    """Reads an identify stream to its end.

    Args:
        limits: its `identify_…` fields bound what is taken and what is kept.
        refused: hears when one of them was reached.
    """

    def __init__(self, limits: Limits, refused: Refused = unheard) -> None:
        self._limits = limits
        self._refused = refused
        self._pending = b""
        self._merged = identify_pb2.Identify()
        self._messages = 0

    def receive_bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes of the stream.

        Raises:
            LimitError: a message is too long, or is one too many.
            RemoteProtocolError: a message is not its protobuf.
        """
        received = self._pending + bytes(data)
        at = 0
        while at < len(received):
            try:
                found = scan_varint(received, at)
            except InvalidValueError as error:
                raise _broken(f"a message's length: {error}") from error
            if found is None:
                break
            size, start = found
            # Judged by its length alone, so that no more than one message is ever kept.
            if size > self._limits.identify_bytes:
                raise self._refusal("identify_bytes", f"a message of {size} bytes")
            if self._messages == self._limits.identify_messages:
                raise self._refusal("identify_messages", "a message too many")
            if len(received) - start < size:
                break
            at = start + size
            self._messages += 1
            try:
                self._merged.MergeFromString(received[start:at])
            except DecodeError as error:
                raise _broken("a message is not its protobuf") from error
        self._pending = received[at:]

    def _refusal(self, limit: str, message: str) -> LimitError:
        self._refused(limit)
        return LimitError(limit, message, stage="identify")

    def receive_eof(self) -> Identify:
        """Return what the stream said, unverified; addresses and protocols that mean nothing here are left out.

        Raises:
            RemoteProtocolError: the stream ends within a message or without one, or the public key is none.
        """
        if self._pending:
            raise _broken("the stream ends within a message")
        if not self._messages:
            raise _broken("the stream ends without a message")
        merged = self._merged
        return Identify(
            protocol_version=_text(merged.protocol_version) if merged.HasField("protocol_version") else None,
            agent_version=_text(merged.agent_version) if merged.HasField("agent_version") else None,
            public_key=_public_key(merged.public_key) if merged.HasField("public_key") else None,
            listen_addresses=_addresses(merged.listen_addrs, self._limits.identify_addresses, self._refused),
            observed_address=next(iter(_addresses([merged.observed_addr], 1, unheard)), None),
            protocols=_protocols(merged.protocols, self._limits.identify_protocols, self._refused),
            signed_peer_record=merged.signed_peer_record if merged.HasField("signed_peer_record") else None,
        )


def verify(identify: Identify, peer_id: PeerId, limits: Limits | None = None, refused: Refused = unheard) -> Identify:
    """Return `identify` with its peer record, where that is the peer's own; its addresses are then the peer's.

    A record that is broken or another peer's is ignored.

    Args:
        identify: as decoded.
        peer_id: who the peer has proved to be.
        limits: how many addresses of the record are kept; None is the default.
        refused: hears when there are more.

    Raises:
        RemoteProtocolError: the public key is not the peer's.
    """
    if identify.public_key is not None and identify.public_key.peer_id != peer_id:
        raise _broken(f"{peer_id} sent the key of {identify.public_key.peer_id}")
    if identify.signed_peer_record is None:
        return identify
    try:
        record, _key = open_peer_record(identify.signed_peer_record)
    except InvalidValueError:
        return identify
    if record.peer_id != peer_id:
        return identify
    most = (limits or Limits()).identify_addresses
    addresses = dict.fromkeys(_without_peer_ids(record.addresses))
    if len(addresses) > most:
        refused("identify_addresses")
    return replace(identify, peer_record=record, listen_addresses=tuple(islice(addresses, most)))


def merge_push(old: Identify, update: Identify) -> Identify:
    """Return what is known after a push: what it leaves out stays, a list in it replaces the old one.

    Both are verified. A peer record that is no newer than the one known changes neither record nor addresses.
    """
    changes = {name: value for name in _FIELDS if (value := getattr(update, name)) not in (None, ())}
    known, sent = old.peer_record, update.peer_record
    if sent is not None:
        if known is not None and sent.seq <= known.seq:
            for name in ("peer_record", "signed_peer_record", "listen_addresses"):
                changes.pop(name, None)
        else:
            # A newer record evicts what it leaves out, even everything.
            changes["listen_addresses"] = update.listen_addresses
    elif known is not None:
        # What did not verify must not stand beside the record that did.
        changes.pop("signed_peer_record", None)
    return replace(old, **changes)


_FIELDS = tuple(field.name for field in fields(Identify))


def reachable_addresses(addresses: Iterable[Multiaddr], remote: Multiaddr) -> tuple[Multiaddr, ...]:
    """Return the addresses worth keeping of a peer that is connected from `remote`.

    A peer on the public network cannot be reached at private addresses, nor one beside us at its own loopback.
    """
    if remote.is_loopback:
        return tuple(addresses)
    if remote.is_private:
        return tuple(address for address in addresses if not address.is_loopback)
    return tuple(address for address in addresses if not address.is_private)


def _addresses(encoded: Iterable[bytes], most: int, refused: Refused) -> tuple[Multiaddr, ...]:
    """Return the distinct addresses that are understood, at most so many; what is understood is looked at in order."""
    found: dict[Multiaddr, None] = {}
    for data in islice(dict.fromkeys(encoded), most * _TRIED):
        try:
            address = Multiaddr(data).without_peer_id()
        except InvalidValueError:
            # One address of a later version is no reason to lose the others.
            continue
        if len(found) == most and address not in found:
            refused("identify_addresses")
            break
        found[address] = None
    return tuple(found)


def _without_peer_ids(addresses: Iterable[Multiaddr]) -> Iterable[Multiaddr]:
    for address in addresses:
        try:
            yield address.without_peer_id()
        except InvalidValueError:
            continue


def _protocols(encoded: Iterable[bytes], most: int, refused: Refused) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for data in encoded:
        try:
            protocol = data.decode()
        except UnicodeDecodeError:
            continue
        if protocol and len(found) == most and protocol not in found:
            refused("identify_protocols")
            break
        if protocol:
            found[protocol] = None
    return tuple(found)


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _public_key(encoded: bytes) -> PublicKey:
    try:
        return PublicKey.from_bytes(encoded)
    except InvalidValueError as error:
        raise _broken(f"the public key: {error}") from error


def _broken(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(message, protocol="identify")
