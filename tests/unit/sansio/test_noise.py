"""Noise XX as libp2p uses it; N1 to N12 are the rows of the conformance checklist."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from aiolibp2p.errors import (
    ConnectionEndedError,
    LocalProtocolError,
    NegotiationError,
    PeerIdMismatchError,
    RemoteProtocolError,
)
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.sansio.noise import (
    NONCES,
    PAYLOAD_BYTES,
    PLAINTEXT_BYTES,
    RECORD_BYTES,
    NoiseChannel,
    NoiseHandshake,
    NoiseIdentity,
    NoiseResult,
    XXHandshake,
)
from aiolibp2p.sansio.pb import noise_pb2

VECTOR = Path(__file__).parents[2] / "vectors" / "noise" / "cacophony_xx_25519_chachapoly_sha256.json"
YAMUX = "/yamux/1.0.0"
MPLEX = "/mplex/6.7.0"
KEYS_OF_ALL_TYPES = {
    name: PrivateKey.from_bytes(bytes.fromhex(vector["private"]))
    for file in ("keys.json", "rsa_bounds.json")
    for name, vector in json.loads((VECTOR.parents[1] / "identity" / file).read_text("utf-8"))["keys"].items()
}


class SeededEntropy:
    """Bytes that follow from a seed."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.drawn = 0

    def token(self, n: int) -> bytes:
        self.drawn += 1
        return (sha256(f"{self.seed}/{self.drawn}".encode()).digest() * (n // 32 + 1))[:n]

    def fork(self, label: str) -> SeededEntropy:
        return SeededEntropy(f"{self.seed}:{label}")


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


KEYS = {name: PrivateKey.generate(SeededEntropy(name)) for name in ("dialler", "listener", "other")}
IDENTITIES = {name: NoiseIdentity(key, SeededEntropy(f"{name} static")) for name, key in KEYS.items()}


def initiator(*, expected: str | None = "listener", muxers: Sequence[str] = (YAMUX,)) -> NoiseHandshake:
    expected_peer = KEYS[expected].public.peer_id if expected else None
    return NoiseHandshake(
        "initiator", IDENTITIES["dialler"], SeededEntropy("i"), expected_peer=expected_peer, muxers=muxers
    )


def responder(*, muxers: Sequence[str] = (YAMUX,), prologue: bytes = b"") -> NoiseHandshake:
    return NoiseHandshake("responder", IDENTITIES["listener"], SeededEntropy("r"), muxers=muxers, prologue=prologue)


def shake(ours: NoiseHandshake, theirs: NoiseHandshake) -> tuple[NoiseResult, NoiseResult]:
    assert theirs.receive_bytes(ours.bytes_to_send()) is None
    our_result = ours.receive_bytes(theirs.bytes_to_send())
    assert our_result is not None
    their_result = theirs.receive_bytes(ours.bytes_to_send())
    assert their_result is not None
    return our_result, their_result


def channels() -> tuple[NoiseChannel, NoiseChannel]:
    return NoiseChannel(b"1" * 32, b"2" * 32), NoiseChannel(b"2" * 32, b"1" * 32)


class RawPeer:
    """The other end as bytes: a responder that puts any payload into message 2, or an initiator into message 3."""

    def __init__(self, handshake: NoiseHandshake, *, signer: str = "listener") -> None:
        self.handshake = handshake
        role: str = handshake._role
        self.static = X25519PrivateKey.from_private_bytes(bytes(range(32)))
        ephemeral = X25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
        self.pattern = XXHandshake("responder" if role == "initiator" else "initiator", self.static, ephemeral)
        if role == "initiator":
            self.pattern.read_message(handshake.bytes_to_send()[2:])
        else:
            handshake.receive_bytes(framed(self.pattern.write_message(b"")))
            self.pattern.read_message(handshake.bytes_to_send()[2:])
        self.key = KEYS[signer]

    def payload(self, *, signed: bytes | None = None, prefix: bytes = b"noise-libp2p-static-key:") -> bytes:
        static = self.static.public_key().public_bytes_raw() if signed is None else signed
        return noise_pb2.NoiseHandshakePayload(
            identity_key=bytes(self.key.public), identity_sig=self.key.sign(prefix + static)
        ).SerializeToString()

    def send(self, payload: bytes) -> NoiseResult | None:
        return self.handshake.receive_bytes(framed(self.pattern.write_message(payload)))


@pytest.mark.conforms("N1")
def test_n1_the_published_vector_of_this_protocol_name() -> None:
    vector = json.loads(VECTOR.read_text())

    def side(role: str, name: str) -> XXHandshake:
        static, ephemeral = (
            X25519PrivateKey.from_private_bytes(bytes.fromhex(vector[f"{name}_{key}"]))
            for key in ("static", "ephemeral")
        )
        prologue = bytes.fromhex(vector[f"{name}_prologue"])
        return XXHandshake("initiator" if role == "initiator" else "responder", static, ephemeral, prologue)

    sides = [side("initiator", "init"), side("responder", "resp")]
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    for number, (payload, ciphertext) in enumerate(messages[:3]):
        assert sides[number % 2].write_message(payload) == ciphertext
        assert sides[1 - number % 2].read_message(ciphertext) == payload
    assert {one.handshake_hash.hex() for one in sides} == {vector["handshake_hash"]}
    ends = [NoiseChannel(*one.split()) for one in sides]
    for number, (payload, ciphertext) in enumerate(messages[3:]):
        # The pattern's roles go on in turn: after message 3 the responder speaks.
        assert ends[1 - number % 2].encrypt([payload]) == framed(ciphertext)
        assert ends[number % 2].decrypt(framed(ciphertext)) == ([payload], len(ciphertext) + 2)


@pytest.mark.conforms("N1")
def test_n1_prologues_must_agree() -> None:
    ours, theirs = initiator(), responder(prologue=b"libp2p-webrtc-noise:")
    theirs.receive_bytes(ours.bytes_to_send())
    with pytest.raises(RemoteProtocolError):
        ours.receive_bytes(theirs.bytes_to_send())


def test_both_sides_learn_who_the_other_is() -> None:
    ours, theirs = shake(initiator(), responder())
    assert (ours.peer_id, ours.public_key) == (KEYS["listener"].public.peer_id, KEYS["listener"].public)
    assert (theirs.peer_id, theirs.public_key) == (KEYS["dialler"].public.peer_id, KEYS["dialler"].public)
    assert theirs.channel.decrypt(ours.channel.encrypt([b"to you"]))[0] == [b"to you"]
    assert ours.channel.decrypt(theirs.channel.encrypt([b"to me"]))[0] == [b"to me"]


@pytest.mark.parametrize("name", KEYS_OF_ALL_TYPES)
def test_k1_a_key_of_every_type_proves_itself_in_either_role(name: str) -> None:
    key = KEYS_OF_ALL_TYPES[name]
    identity = NoiseIdentity(key, SeededEntropy(name))
    for role in ("initiator", "responder"):
        expected = (KEYS["listener"] if role == "initiator" else key).public.peer_id
        dialler = NoiseHandshake(
            "initiator",
            identity if role == "initiator" else IDENTITIES["dialler"],
            SeededEntropy("i"),
            expected_peer=expected,
            muxers=[YAMUX],
        )
        listener = NoiseHandshake(
            "responder",
            identity if role == "responder" else IDENTITIES["listener"],
            SeededEntropy("r"),
            muxers=[YAMUX],
        )
        ours, theirs = shake(dialler, listener)
        seen = theirs if role == "initiator" else ours
        assert (seen.peer_id, seen.public_key) == (key.public.peer_id, key.public)


@pytest.mark.parametrize("name", KEYS_OF_ALL_TYPES)
def test_k1_a_signature_by_another_key_of_the_same_type_is_refused(name: str) -> None:
    handshake = initiator(expected=None)
    peer = RawPeer(handshake)
    peer.key = KEYS_OF_ALL_TYPES[name]
    payload = noise_pb2.NoiseHandshakePayload.FromString(peer.payload())
    payload.identity_sig = peer.key.sign(b"something else")
    with pytest.raises(RemoteProtocolError):
        peer.send(payload.SerializeToString())


def test_unread_is_what_follows_the_last_message() -> None:
    ours, theirs = initiator(), responder()
    theirs.receive_bytes(ours.bytes_to_send())
    assert ours.receive_bytes(theirs.bytes_to_send() + b"early") is not None
    assert ours.unread == b"early"
    assert theirs.receive_bytes(ours.bytes_to_send() + b"earlier") is not None
    assert theirs.unread == b"earlier"
    for handshake in (ours, theirs):
        with pytest.raises(LocalProtocolError):
            handshake.receive_bytes(b"late")


@pytest.mark.conforms("N2")
def test_n2_lengths_are_two_bytes_big_endian() -> None:
    message = initiator().bytes_to_send()
    assert message[:2] == b"\x00\x20"
    assert len(message) == 34


@pytest.mark.conforms("N2")
def test_n2_handshake_message_of_the_limit_is_taken() -> None:
    handshake = initiator(expected=None)
    peer = RawPeer(handshake)
    payload = peer.payload()
    filler = PAYLOAD_BYTES - len(payload) - 3
    # Field 3 with a length of two bytes.
    assert peer.send(payload + bytes((3 << 3 | 2, filler & 0x7F | 0x80, filler >> 7)) + bytes(filler)) is not None


@pytest.mark.parametrize("size", [0, 95, 96 + PAYLOAD_BYTES + 1, 65535])
def test_n2_impossible_length_is_refused_before_the_message_arrives(size: int) -> None:
    handshake = initiator()
    assert handshake.receive_bytes(size.to_bytes(2, "big")[:1]) is None
    with pytest.raises(RemoteProtocolError) as caught:
        handshake.receive_bytes(size.to_bytes(2, "big")[1:])
    assert (caught.value.protocol, caught.value.stage) == ("noise", "noise message 2")


@pytest.mark.conforms("N2")
def test_n2_records_hold_at_most_65519_bytes_of_plaintext() -> None:
    ours, theirs = channels()
    data = bytes(range(256)) * 1024
    wire = ours.encrypt([b"header", memoryview(data), b"tail"])
    assert wire[:2] == RECORD_BYTES.to_bytes(2, "big")
    plaintexts, used = theirs.decrypt(wire)
    assert used == len(wire)
    assert b"".join(plaintexts) == b"header" + data + b"tail"
    assert [len(plaintext) for plaintext in plaintexts[:-1]] == [PLAINTEXT_BYTES] * 4


@pytest.mark.parametrize("size", [1, 16384, 16385, PLAINTEXT_BYTES - 1, PLAINTEXT_BYTES, PLAINTEXT_BYTES + 1])
@pytest.mark.parametrize("records", [0, 1, 2])
def test_n2_records_are_those_of_the_cipher_at_every_edge(size: int, records: int) -> None:
    parts = [*[b"h" * 12, b"x" * (PLAINTEXT_BYTES - 12)] * records, b"", b"y" * size]
    plaintext = b"".join(parts)
    cipher = ChaCha20Poly1305(b"1" * 32)
    expected = b"".join(
        framed(cipher.encrypt(bytes(4) + number.to_bytes(8, "little"), plaintext[at : at + PLAINTEXT_BYTES], None))
        for number, at in enumerate(range(0, len(plaintext), PLAINTEXT_BYTES))
    )
    assert channels()[0].encrypt(parts) == expected


def test_every_call_has_an_output_of_its_own() -> None:
    ours, theirs = channels()
    source = bytearray(b"a" * 200_000)
    first = ours.encrypt([source])
    kept = bytes(first)
    source[:] = b"b" * 200_000
    second = ours.encrypt([source])
    assert first is not second
    assert first == kept
    assert b"".join(theirs.decrypt(first)[0]) == b"a" * 200_000


@pytest.mark.conforms("N3")
def test_n3_empty_records_are_skipped() -> None:
    cipher = ChaCha20Poly1305(b"2" * 32)
    records = [
        cipher.encrypt(bytes(4) + n.to_bytes(8, "little"), text, None) for n, text in enumerate([b"", b"x", b""])
    ]
    wire = b"".join(map(framed, records))
    assert channels()[0].decrypt(wire) == ([b"x"], len(wire))


def test_n3_nothing_is_sent_for_nothing() -> None:
    ours, theirs = channels()
    assert ours.encrypt([]) == b""
    assert ours.encrypt([b"", b""]) == b""
    assert theirs.decrypt(ours.encrypt([b"x"]))[0] == [b"x"]


@pytest.mark.parametrize("end", ["initiator", "responder"])
@pytest.mark.parametrize(
    "damage", [{"signed": bytes(32)}, {"prefix": b"noise-libp2p-static-key"}, {"prefix": b""}], ids=str
)
@pytest.mark.conforms("N4")
def test_n4_a_signature_over_anything_but_the_static_key_fails(end: str, damage: dict[str, bytes]) -> None:
    handshake = initiator() if end == "initiator" else responder()
    peer = RawPeer(handshake)
    with pytest.raises(RemoteProtocolError) as caught:
        peer.send(peer.payload(**damage))
    assert caught.value.protocol == "noise"
    assert caught.value.stage == ("noise message 2" if end == "initiator" else "noise message 3")
    assert handshake.bytes_to_send() == b""
    with pytest.raises(LocalProtocolError):
        handshake.receive_bytes(b"")


@pytest.mark.parametrize("payload", [b"", b"\xff", b"\x0a\x02\x08\x01", b"\x12\x01x"], ids=repr)
@pytest.mark.conforms("N4")
def test_n4_a_payload_without_a_key_fails(payload: bytes) -> None:
    for handshake in (initiator(), responder()):
        with pytest.raises(RemoteProtocolError):
            RawPeer(handshake).send(payload)


@pytest.mark.conforms("N5")
def test_n5_extensions_travel_in_messages_two_and_three_only() -> None:
    ours, theirs = initiator(), responder()
    first = ours.bytes_to_send()
    assert len(first) == 2 + 32
    theirs.receive_bytes(first)
    second = theirs.bytes_to_send()
    assert len(second) == 2 + 32 + 48 + len(IDENTITIES["listener"].payload((YAMUX,))) + 16
    ours.receive_bytes(second)
    assert len(ours.bytes_to_send()) == 2 + 48 + len(IDENTITIES["dialler"].payload((YAMUX,))) + 16


@pytest.mark.conforms("N5")
def test_n5_a_payload_in_message_one_is_ignored() -> None:
    handshake = responder()
    peer = XXHandshake(
        "initiator", X25519PrivateKey.from_private_bytes(bytes(32)), X25519PrivateKey.from_private_bytes(b"x" * 32)
    )
    assert handshake.receive_bytes(framed(peer.write_message(b"user data"))) is None
    assert handshake.bytes_to_send() != b""


@pytest.mark.conforms("N6")
def test_n6_payload_has_the_fields_of_the_specification() -> None:
    payload = IDENTITIES["dialler"].payload((YAMUX, MPLEX))
    encoded_key = bytes(KEYS["dialler"].public)
    assert payload.startswith(b"\x0a" + bytes((len(encoded_key),)) + encoded_key + b"\x12\x40")
    extensions = b"\x12\x0c/yamux/1.0.0\x12\x0c/mplex/6.7.0"
    assert payload.endswith(b"\x22" + bytes((len(extensions),)) + extensions)
    assert b"\x22" + bytes((len(extensions),)) not in IDENTITIES["dialler"].payload(())


@pytest.mark.conforms("N6")
def test_n6_unknown_fields_and_the_old_data_field_are_ignored() -> None:
    peer = RawPeer(initiator())
    result = peer.send(peer.payload() + b"\x1a\x04data" + b"\x22\x05\x0a\x03abc" + b"\x7a\x01x")
    assert result is not None
    assert result.peer_muxers == ()


@pytest.mark.conforms("N7")
def test_n7_another_peer_than_the_dialled_one_is_refused() -> None:
    peer = RawPeer(initiator(), signer="other")
    with pytest.raises(PeerIdMismatchError) as caught:
        peer.send(peer.payload())
    assert caught.value.expected == str(KEYS["listener"].public.peer_id)
    assert caught.value.actual == str(KEYS["other"].public.peer_id)
    assert (caught.value.protocol, caught.value.stage) == ("noise", "noise message 2")


def test_n7_a_lie_about_the_key_is_no_mismatch() -> None:
    peer = RawPeer(initiator(), signer="other")
    with pytest.raises(RemoteProtocolError) as caught:
        peer.send(peer.payload(signed=bytes(32)))
    assert not isinstance(caught.value, PeerIdMismatchError)


@pytest.mark.parametrize(
    ("dialler", "listener", "muxer"),
    [
        ([YAMUX], [YAMUX], YAMUX),
        ([YAMUX, MPLEX], [MPLEX, YAMUX], YAMUX),
        ([MPLEX, YAMUX], [YAMUX, MPLEX], MPLEX),
        (["/other", YAMUX], [MPLEX, YAMUX], YAMUX),
        ([YAMUX], [], None),
        ([], [YAMUX], None),
        ([], [], None),
    ],
)
@pytest.mark.conforms("N8")
def test_n8_the_first_of_the_initiators_muxers_that_both_have(
    dialler: list[str], listener: list[str], muxer: str | None
) -> None:
    ours, theirs = shake(initiator(muxers=dialler), responder(muxers=listener))
    assert (ours.muxer, theirs.muxer) == (muxer, muxer)
    assert (ours.peer_muxers, theirs.peer_muxers) == (tuple(listener), tuple(dialler))


@pytest.mark.conforms("N8")
def test_n8_lists_without_overlap_fail_the_handshake() -> None:
    ours, theirs = initiator(muxers=[YAMUX]), responder(muxers=[MPLEX])
    theirs.receive_bytes(ours.bytes_to_send())
    with pytest.raises(NegotiationError) as caught:
        ours.receive_bytes(theirs.bytes_to_send())
    assert (caught.value.offered, caught.value.stage) == ((YAMUX,), "noise message 2")
    assert ours.bytes_to_send() == b""


def test_n8_a_muxer_that_is_not_utf8_is_nobodys() -> None:
    peer = RawPeer(initiator())
    result = peer.send(peer.payload() + b"\x22\x11\x12\x01\xff\x12\x0c/yamux/1.0.0")
    assert result is not None
    assert result.muxer == YAMUX


@pytest.mark.conforms("N9")
def test_n9_early_data_is_not_looked_at_before_the_signature() -> None:
    handshake = initiator()
    peer = RawPeer(handshake)
    message = framed(peer.pattern.write_message(peer.payload(signed=bytes(32))))
    with pytest.raises(RemoteProtocolError):
        handshake.receive_bytes(message + b"early data")
    assert handshake.unread == b""


@pytest.mark.conforms("N10")
def test_n10_the_last_nonce_is_never_used() -> None:
    ours, theirs = channels()
    ours._sent = theirs._received = NONCES - 2
    assert theirs.decrypt(ours.encrypt([bytes(PLAINTEXT_BYTES + 1)])) == ([bytes(PLAINTEXT_BYTES), b"\0"], 65556)
    with pytest.raises(ConnectionEndedError) as caught:
        ours.encrypt([b"x"])
    assert caught.value.by == "local"
    with pytest.raises(ConnectionEndedError):
        ours.encrypt([bytes(PLAINTEXT_BYTES)])
    theirs.decrypt(framed(bytes(17)))
    assert theirs.failure is not None


@pytest.mark.parametrize("flipped", [2, 20, 65536])
@pytest.mark.conforms("N10")
def test_n10_a_changed_record_ends_both_directions(flipped: int) -> None:
    ours, theirs = channels()
    wire = bytearray(ours.encrypt([b"before"]) + ours.encrypt([bytes(PLAINTEXT_BYTES)]))
    start = 2 + len(b"before") + 16
    wire[start + flipped] ^= 1
    assert theirs.decrypt(wire) == ([b"before"], start)
    assert theirs.failure is not None
    assert theirs.failure.protocol == "noise"
    with pytest.raises(RemoteProtocolError):
        theirs.decrypt(b"")
    with pytest.raises(LocalProtocolError):
        theirs.encrypt([b"x"])


@pytest.mark.conforms("N10")
def test_n10_a_repeated_record_is_fatal() -> None:
    ours, theirs = channels()
    wire = ours.encrypt([b"once"])
    theirs.decrypt(wire)
    assert theirs.decrypt(wire) == ([], 0)
    assert theirs.failure is not None


@pytest.mark.parametrize("size", [0, 1, 15])
def test_n10_a_record_too_short_for_its_tag_is_fatal_at_once(size: int) -> None:
    channel = channels()[0]
    channel.decrypt(size.to_bytes(2, "big"))
    assert channel.failure is not None


def test_n10_bytes_that_do_not_decrypt_break_the_handshake() -> None:
    handshake = initiator()
    with pytest.raises(RemoteProtocolError) as caught:
        handshake.receive_bytes(framed(bytes(range(1, 201))))
    assert (caught.value.protocol, caught.value.stage) == ("noise", "noise message 2")
    assert isinstance(caught.value.__cause__, InvalidTag)


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), bytes(31) + b"\x80"])
def test_a_key_that_makes_the_secret_public_is_refused_by_both_sides(point: bytes) -> None:
    for handshake, message in ((initiator(), point + bytes(200)), (responder(), point)):
        with pytest.raises(RemoteProtocolError) as caught:
            handshake.receive_bytes(framed(message))
        assert caught.value.protocol == "noise"
        assert handshake.bytes_to_send()[34:] == b""


def test_an_answer_of_another_protocol_breaks_the_handshake() -> None:
    with pytest.raises(RemoteProtocolError):
        initiator().receive_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.conforms("N11")
def test_n11_the_static_key_is_signed_once_for_all_handshakes() -> None:
    identity = IDENTITIES["dialler"]
    assert identity.payload((YAMUX,)) is identity.payload([YAMUX])
    other = NoiseIdentity(KEYS["dialler"], SeededEntropy("another process"))
    assert other.static.private_bytes_raw() != identity.static.private_bytes_raw()


def test_n11_ephemeral_keys_differ_from_handshake_to_handshake() -> None:
    entropy = SeededEntropy("one")
    first, second = (NoiseHandshake("initiator", IDENTITIES["dialler"], entropy).bytes_to_send() for _ in range(2))
    assert first != second


@pytest.mark.conforms("N12")
def test_n12_a_record_cut_by_the_end_of_stream_is_an_error() -> None:
    ours, theirs = channels()
    wire = ours.encrypt([b"whole"]) + ours.encrypt([b"cut"])
    for missing in range(1, 21):
        reader = channels()[1]
        plaintexts, used = reader.decrypt(wire[:-missing])
        assert plaintexts == [b"whole"]
        with pytest.raises(RemoteProtocolError) as caught:
            reader.receive_eof(len(wire) - missing - used)
        assert caught.value.protocol == "noise"
    plaintexts, used = theirs.decrypt(wire)
    theirs.receive_eof(len(wire) - used)
