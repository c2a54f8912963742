"""The identify message; I1 to I10 are the rows of the conformance checklist (those of streams are tested there)."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from aiolibp2p.errors import LimitError, RemoteProtocolError
from aiolibp2p.identity.envelope import (
    LEGACY_RECORD_DOMAIN,
    LEGACY_RECORD_TYPE,
    PeerRecord,
    open_peer_record,
    seal,
    seal_peer_record,
)
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.pb import peer_record_pb2
from aiolibp2p.identity.varint import decode_varint, encode_varint
from aiolibp2p.limits import Limits, Refused, unheard
from aiolibp2p.sansio.identify import (
    MESSAGE_BYTES,
    MESSAGES,
    Decoder,
    Identify,
    encode,
    merge_push,
    reachable_addresses,
    verify,
)
from aiolibp2p.sansio.pb import identify_pb2
from tests.support.refusals import Refusals


class SeededEntropy:
    """Bytes that follow from a seed."""

    def __init__(self, seed: str) -> None:
        self.seed = seed

    def token(self, n: int) -> bytes:
        return (sha256(self.seed.encode()).digest() * (n // 32 + 1))[:n]

    def fork(self, label: str) -> SeededEntropy:
        return SeededEntropy(f"{self.seed}:{label}")


KEY = PrivateKey.generate(SeededEntropy("peer"))
OTHER = PrivateKey.generate(SeededEntropy("other"))
PEER = KEY.public.peer_id
ADDRESSES = (Multiaddr("/ip4/192.0.2.1/tcp/4001"), Multiaddr("/ip6/2001:db8::1/tcp/4001"))
OBSERVED = Multiaddr("/ip4/198.51.100.7/tcp/50000")
SAID = Identify(
    protocol_version="ipfs/0.1.0",
    agent_version="aiolibp2p/0.1.0",
    public_key=KEY.public,
    listen_addresses=ADDRESSES,
    observed_address=OBSERVED,
    protocols=("/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"),
)


def framed(body: bytes) -> bytes:
    return encode_varint(len(body)) + body


def parsed(message: bytes) -> identify_pb2.Identify:
    """Return one message, whose length must be right."""
    size, at = decode_varint(message)
    assert len(message) == at + size
    return identify_pb2.Identify.FromString(message[at:])


def decode(*messages: bytes, limits: Limits | None = None, refused: Refused = unheard) -> Identify:
    decoder = Decoder(limits or Limits(), refused)
    for message in messages:
        decoder.receive_bytes(message)
    return decoder.receive_eof()


def record(key: PrivateKey, seq: int, *addresses: Multiaddr) -> bytes:
    return seal_peer_record(key, seq, addresses)


def test_what_is_encoded_is_decoded() -> None:
    said = replace(SAID, signed_peer_record=record(KEY, 1, *ADDRESSES))
    assert decode(*encode(said)) == said


@pytest.mark.conforms("I1")
def test_i1_the_bytes_are_those_of_the_specification() -> None:
    (message,) = encode(
        Identify(protocol_version="p", agent_version="a", listen_addresses=ADDRESSES[:1], protocols=("/x",))
    )
    assert message == bytes((20,)) + b"\x2a\x01p" + b"\x32\x01a" + b"\x12\x08\x04\xc0\x00\x02\x01\x06\x0f\xa1" + (
        b"\x1a\x02/x"
    )
    (message,) = encode(SAID)
    fields = parsed(message)
    assert fields.public_key == bytes(KEY.public)
    assert fields.observed_addr == bytes(OBSERVED)


@pytest.mark.conforms("I2")
def test_i2_signed_record_travels_in_field_eight() -> None:
    signed = record(KEY, 1, *ADDRESSES)
    (message,) = encode(replace(SAID, signed_peer_record=signed))
    assert parsed(message).signed_peer_record == signed
    assert b"\x42" + framed(signed) in message


@pytest.mark.conforms("I2")
def test_i2_legacy_record_of_rust_is_accepted() -> None:
    payload = peer_record_pb2.PeerRecord(peer_id=bytes(PEER), seq=7)
    payload.addresses.add(multiaddr=bytes(ADDRESSES[1]))
    signed = seal(KEY, LEGACY_RECORD_DOMAIN, LEGACY_RECORD_TYPE, payload.SerializeToString())
    assert verify(replace(SAID, signed_peer_record=signed), PEER).listen_addresses == ADDRESSES[1:]


@pytest.mark.conforms("I3")
def test_i3_what_exceeds_4096_bytes_is_split_and_merged() -> None:
    signed = record(KEY, 1, *ADDRESSES)
    said = replace(SAID, protocols=tuple(f"/protocol/{n:0100}" for n in range(150)), signed_peer_record=signed)
    messages = encode(said)
    assert len(messages) == 5
    assert all(len(message) <= MESSAGE_BYTES for message in messages)
    assert decode(*messages) == said
    first = parsed(messages[0])
    assert (first.public_key, len(first.listen_addrs)) == (bytes(KEY.public), 2)


def test_i3_a_message_may_be_exactly_of_the_limit() -> None:
    filler = "x" * (MESSAGE_BYTES - 2 - 3)
    assert [len(message) for message in encode(Identify(agent_version=filler))] == [MESSAGE_BYTES]
    assert len(encode(Identify(agent_version=filler, protocols=("/a",)))) == 2


def test_i3_a_record_that_does_not_fit_gets_a_message_of_its_own() -> None:
    signed = record(KEY, 1, *(Multiaddr(f"/ip4/192.0.2.1/tcp/{port}") for port in range(1, 250)))
    said = replace(SAID, protocols=tuple(f"/protocol/{n:0100}" for n in range(20)), signed_peer_record=signed)
    messages = encode(said)
    assert len(messages) == 2
    assert not parsed(messages[0]).HasField("signed_peer_record")
    assert parsed(messages[1]).signed_peer_record == signed
    assert decode(*messages) == said


def test_i3_a_record_too_long_for_any_message_is_left_out() -> None:
    messages = encode(replace(SAID, signed_peer_record=bytes(MESSAGE_BYTES)))
    assert decode(*messages) == SAID


def test_i3_no_more_messages_are_sent_than_are_merged_and_the_record_stays() -> None:
    signed = record(KEY, 1, *ADDRESSES)
    said = replace(SAID, protocols=tuple(f"/protocol/{n:0200}" for n in range(1024)), signed_peer_record=signed)
    messages = encode(said)
    assert len(messages) == MESSAGES
    heard = decode(*messages)
    assert heard.signed_peer_record == signed
    assert heard.listen_addresses == ADDRESSES
    assert 150 < len(heard.protocols) < 1024


@pytest.mark.conforms("I3")
def test_i3_messages_of_the_limit_are_taken_and_longer_ones_refused_by_their_length() -> None:
    limits = Limits()
    body = identify_pb2.Identify(agent_version=b"x" * (limits.identify_bytes - 3)).SerializeToString()
    assert len(body) == limits.identify_bytes
    assert len(decode(framed(body)).agent_version or "") == limits.identify_bytes - 3
    refusals = Refusals()
    with pytest.raises(LimitError) as caught:
        Decoder(limits, refusals).receive_bytes(encode_varint(limits.identify_bytes + 1))
    assert caught.value.limit == "identify_bytes"
    assert refusals == {"identify_bytes": 1}


@pytest.mark.conforms("I3")
def test_i3_ten_messages_are_merged_and_an_eleventh_refused() -> None:
    messages = [framed(identify_pb2.Identify(protocols=[b"/%d" % n]).SerializeToString()) for n in range(10)]
    assert decode(*messages).protocols == tuple(f"/{n}" for n in range(10))
    assert decode(b"".join(messages)) == decode(*messages)
    refusals = Refusals()
    decoder = Decoder(Limits(), refusals)
    decoder.receive_bytes(b"".join(messages))
    assert not refusals
    with pytest.raises(LimitError) as caught:
        decoder.receive_bytes(b"\x00")
    assert caught.value.limit == "identify_messages"
    assert refusals == {"identify_messages": 1}


@pytest.mark.conforms("I4")
def test_i4_an_empty_address_is_never_sent() -> None:
    (message,) = encode(Identify(agent_version="a"))
    fields = parsed(message)
    assert not fields.HasField("observed_addr")
    assert list(fields.listen_addrs) == []
    assert encode(Identify()) == [b"\x00"]


@pytest.mark.conforms("I4")
def test_i4_bad_addresses_are_skipped_and_the_others_kept() -> None:
    unknown = b"\xff\xff\x7fxyz"
    body = identify_pb2.Identify(
        listen_addrs=[b"", unknown, bytes(ADDRESSES[0]), b"\x04\x01", bytes(ADDRESSES[1])], observed_addr=b""
    )
    heard = decode(framed(body.SerializeToString()))
    assert heard.listen_addresses == ADDRESSES
    assert heard.observed_address is None


def test_i4_peer_ids_are_taken_off_addresses() -> None:
    body = identify_pb2.Identify(
        observed_addr=bytes(OBSERVED.with_peer_id(PEER)),
        listen_addrs=[bytes(ADDRESSES[0].with_peer_id(PEER)), bytes(Multiaddr(f"/p2p/{PEER}")), bytes(ADDRESSES[0])],
    )
    heard = decode(framed(body.SerializeToString()))
    assert heard.observed_address == OBSERVED
    assert heard.listen_addresses == ADDRESSES[:1]


def test_addresses_and_protocols_are_kept_up_to_their_limits() -> None:
    limits = Limits(identify_addresses=3, identify_protocols=2)
    addresses = [Multiaddr(f"/ip4/192.0.2.1/tcp/{port}") for port in range(1, 6)]
    body = identify_pb2.Identify(
        listen_addrs=[b"bad", *map(bytes, addresses)], protocols=[b"/a", b"/a", b"", b"\xff", b"/b", b"/c"]
    )
    heard = decode(framed(body.SerializeToString()), limits=limits)
    assert heard.listen_addresses == tuple(addresses[:3])
    assert heard.protocols == ("/a", "/b")
    signed = replace(heard, signed_peer_record=record(KEY, 1, *addresses))
    assert verify(signed, PEER, limits).listen_addresses == tuple(addresses[:3])


@pytest.mark.parametrize(("count", "over"), [(2, False), (3, False), (4, True)])
def test_addresses_and_protocols_beyond_their_limits_are_counted_once_a_message(count: int, over: bool) -> None:
    """Those that are there twice are one."""
    limits, refusals = Limits(identify_addresses=3, identify_protocols=3), Refusals()
    addresses = [Multiaddr(f"/ip4/192.0.2.1/tcp/{port + 1}") for port in range(count)]
    body = identify_pb2.Identify(
        listen_addrs=[bytes(address) for address in addresses] * 2, protocols=[b"/%d" % n for n in range(count)] * 2
    )
    heard = decode(framed(body.SerializeToString()), limits=limits, refused=refusals)
    assert (len(heard.listen_addresses), len(heard.protocols)) == (min(count, 3), min(count, 3))
    assert refusals == ({"identify_addresses": 1, "identify_protocols": 1} if over else {})
    signed = replace(heard, signed_peer_record=record(KEY, 1, *addresses))
    verify(signed, PEER, limits, refusals)
    assert refusals["identify_addresses"] == 2 * over


def test_no_more_bad_addresses_are_looked_at_than_may_matter() -> None:
    bad = [b"\xff\xff\x7f%d" % n for n in range(12)]
    for count, found in ((11, ADDRESSES[:1]), (12, ())):
        body = identify_pb2.Identify(listen_addrs=[*bad[:count], bytes(ADDRESSES[0])]).SerializeToString()
        assert decode(framed(body), limits=Limits(identify_addresses=3)).listen_addresses == found


@pytest.mark.conforms("I5")
def test_i5_push_keeps_what_it_leaves_out_and_replaces_what_it_lists() -> None:
    update = Identify(agent_version="aiolibp2p/0.2.0", protocols=("/new",))
    assert merge_push(SAID, update) == replace(SAID, agent_version="aiolibp2p/0.2.0", protocols=("/new",))
    assert merge_push(SAID, Identify()) == SAID
    assert merge_push(Identify(), SAID) == SAID
    moved = merge_push(SAID, Identify(listen_addresses=ADDRESSES[1:]))
    assert moved == replace(SAID, listen_addresses=ADDRESSES[1:])


def test_i5_a_newer_record_in_a_push_evicts_the_addresses_it_leaves_out() -> None:
    old = verify(replace(SAID, signed_peer_record=record(KEY, 5, *ADDRESSES)), PEER)
    newer = verify(Identify(signed_peer_record=record(KEY, 6, ADDRESSES[1])), PEER)
    merged = merge_push(old, newer)
    assert merged.listen_addresses == ADDRESSES[1:]
    assert merged.peer_record is not None
    assert merged.peer_record.seq == 6
    gone = merge_push(merged, verify(Identify(signed_peer_record=record(KEY, 7)), PEER))
    assert gone.listen_addresses == ()


@pytest.mark.parametrize("seq", [4, 5])
@pytest.mark.conforms("E2")
def test_i5_a_record_that_is_not_newer_changes_no_address(seq: int) -> None:
    old = verify(replace(SAID, signed_peer_record=record(KEY, 5, *ADDRESSES)), PEER)
    stale = verify(Identify(protocols=("/new",), signed_peer_record=record(KEY, seq, ADDRESSES[1])), PEER)
    assert merge_push(old, stale) == replace(old, protocols=("/new",))


def test_i5_a_broken_record_in_a_push_leaves_the_known_one() -> None:
    old = verify(replace(SAID, signed_peer_record=record(KEY, 5, *ADDRESSES)), PEER)
    update = verify(Identify(signed_peer_record=b"broken", listen_addresses=ADDRESSES[1:]), PEER)
    assert merge_push(old, update) == replace(old, listen_addresses=ADDRESSES[1:])


@pytest.mark.conforms("I6")
def test_i6_addresses_of_the_peers_own_record_supersede_its_listen_addresses() -> None:
    signed = record(KEY, 9, ADDRESSES[1], ADDRESSES[1].with_peer_id(PEER))
    checked = verify(replace(SAID, signed_peer_record=signed), PEER)
    assert checked.listen_addresses == ADDRESSES[1:]
    assert checked.peer_record == open_peer_record(signed)[0]
    assert isinstance(checked.peer_record, PeerRecord)
    assert (checked.peer_record.peer_id, checked.peer_record.seq) == (PEER, 9)


@pytest.mark.parametrize(
    "signed",
    [
        b"",
        b"\xff",
        record(OTHER, 1, *ADDRESSES),
        record(KEY, 1, *ADDRESSES)[:-1] + b"\x00",
        seal(KEY, "another-domain", b"\x03\x01", b""),
    ],
    ids=["empty", "no protobuf", "of another peer", "bad signature", "another domain"],
)
@pytest.mark.conforms("I6")
def test_i6_a_record_that_is_not_the_peers_own_is_ignored(signed: bytes) -> None:
    said = replace(SAID, listen_addresses=ADDRESSES[:1], signed_peer_record=signed)
    assert verify(said, PEER) == said


@pytest.mark.conforms("I7")
def test_i7_public_key_must_be_the_connections() -> None:
    assert verify(SAID, PEER) == SAID
    assert verify(replace(SAID, public_key=None), PEER) == replace(SAID, public_key=None)
    with pytest.raises(RemoteProtocolError) as caught:
        verify(SAID, OTHER.public.peer_id)
    assert caught.value.protocol == "identify"


@pytest.mark.parametrize("key", [b"", b"\x08\x01", b"\x08\x63\x12\x01x", b"\xff"], ids=repr)
def test_i7_public_key_that_is_none_is_an_error(key: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(framed(identify_pb2.Identify(public_key=key).SerializeToString()))


@pytest.mark.conforms("I7")
def test_i7_private_addresses_of_public_peers_are_not_kept() -> None:
    loopback, private, public = (
        Multiaddr(f"/ip4/{host}/tcp/4001") for host in ("127.0.0.1", "192.168.1.5", "203.0.113.9")
    )
    addresses = (loopback, private, public)
    assert reachable_addresses(addresses, loopback) == addresses
    assert reachable_addresses(addresses, private) == (private, public)
    assert reachable_addresses(addresses, public) == (public,)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x05", b"\x05\x2a\x01", b"\x80", b"\x02\xff\xff", b"\x80\x00", b"\xff" * 9, b"\x03\x2a\x05p"],
    ids=repr,
)
def test_bad_framing_and_no_protobuf_are_errors(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(data)
    assert caught.value.protocol == "identify"


def test_text_that_is_not_utf8_is_no_error() -> None:
    heard = decode(framed(b"\x2a\x01\xff\x32\x02a\xfe"))
    assert (heard.protocol_version, heard.agent_version) == ("\ufffd", "a\ufffd")


def test_a_later_message_overrides_single_fields_and_extends_lists() -> None:
    first = framed(identify_pb2.Identify(agent_version=b"one", protocols=[b"/a"]).SerializeToString())
    second = framed(identify_pb2.Identify(agent_version=b"two", protocols=[b"/b"]).SerializeToString())
    heard = decode(first, second)
    assert (heard.agent_version, heard.protocols) == ("two", ("/a", "/b"))
