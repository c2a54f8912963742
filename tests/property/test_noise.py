"""Noise: chunks mean nothing, every batch arrives whole, and no damage goes unseen."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st

from aiolibp2p.errors import RemoteProtocolError
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.sansio.noise import PLAINTEXT_BYTES, NoiseChannel, NoiseHandshake, NoiseIdentity


class SeededEntropy:
    """Bytes that follow from a seed; every draw of one source is the same."""

    def __init__(self, seed: str) -> None:
        self.seed = seed

    def token(self, n: int) -> bytes:
        return (sha256(self.seed.encode()).digest() * (n // 32 + 1))[:n]

    def fork(self, label: str) -> SeededEntropy:
        return SeededEntropy(f"{self.seed}:{label}")


DIALLER = NoiseIdentity(PrivateKey.generate(SeededEntropy("a")), SeededEntropy("b"))
LISTENER = NoiseIdentity(PrivateKey.generate(SeededEntropy("c")), SeededEntropy("d"))

sizes = st.one_of(
    st.integers(0, 64),
    st.sampled_from(
        [16383, 16384, 16385, PLAINTEXT_BYTES - 1, PLAINTEXT_BYTES, PLAINTEXT_BYTES + 1, 3 * PLAINTEXT_BYTES]
    ),
    st.integers(0, 200_000),
)
batches = st.lists(st.lists(sizes, max_size=5), max_size=4)
cuts = st.lists(st.one_of(st.integers(1, 70), st.integers(1, 70_000)), max_size=20)


def channels() -> tuple[NoiseChannel, NoiseChannel]:
    return NoiseChannel(b"1" * 32, b"2" * 32), NoiseChannel(b"2" * 32, b"1" * 32)


def cut(data: bytes, chunk_sizes: list[int]) -> list[bytes]:
    chunks = []
    for size in chunk_sizes:
        chunks.append(data[:size])
        data = data[size:]
    return [*chunks, data]


def receive(channel: NoiseChannel, chunks: list[bytes]) -> tuple[bytes, bytes, str | None]:
    """Return the plaintext, what is left of the last record, and what broke the channel."""
    plaintext = left = b""
    for chunk in chunks:
        left += chunk
        plaintexts, used = channel.decrypt(left)
        assert all(plaintexts)
        plaintext += b"".join(plaintexts)
        left = left[used:]
        if channel.failure is not None:
            return plaintext, b"", str(channel.failure)
    return plaintext, left, None


@settings(max_examples=60)
@given(batches=batches, chunk_sizes=cuts)
def test_batches_arrive_whole_however_they_are_cut(batches: list[list[int]], chunk_sizes: list[int]) -> None:
    ours, theirs = channels()
    number = 0
    sent = wire = b""
    for batch in batches:
        parts = []
        for size in batch:
            number += 1
            parts.append(bytes((number % 256,)) * size)
        sent += b"".join(parts)
        wire += ours.encrypt([memoryview(part) if index % 2 else part for index, part in enumerate(parts)])
    assert receive(theirs, cut(wire, chunk_sizes)) == (sent, b"", None)


@settings(max_examples=60)
@given(
    texts=st.lists(st.binary(max_size=40), min_size=1, max_size=6),
    position=st.integers(0, 10_000),
    change=st.integers(1, 255),
    chunk_sizes=st.lists(st.integers(1, 70), max_size=20),
)
def test_a_changed_byte_is_seen_in_the_same_place_however_it_is_cut(
    texts: list[bytes], position: int, change: int, chunk_sizes: list[int]
) -> None:
    sender = channels()[0]
    wire = bytearray(b"".join(sender.encrypt([text]) for text in texts))
    if not wire:
        return
    wire[position % len(wire)] ^= change
    whole = receive(channels()[1], [bytes(wire)])
    plaintext, left, failure = whole
    assert b"".join(texts).startswith(plaintext)
    # A length made larger only waits for bytes that never come, which the end of the stream then shows.
    assert failure is not None or left
    assert receive(channels()[1], cut(bytes(wire), chunk_sizes)) == whole


@settings(max_examples=25)
@given(chunk_sizes=st.lists(st.integers(1, 120), max_size=12), early=st.binary(max_size=50))
def test_the_handshake_ends_alike_however_it_is_cut(chunk_sizes: list[int], early: bytes) -> None:
    initiator = NoiseHandshake("initiator", DIALLER, SeededEntropy("e"))
    responder = NoiseHandshake("responder", LISTENER, SeededEntropy("f"))
    ends = {}
    for sender, receiver, tail in (
        (initiator, responder, b""),
        (responder, initiator, early),
        (initiator, responder, early),
    ):
        chunks = cut(sender.bytes_to_send() + tail, chunk_sizes)
        for position, chunk in enumerate(chunks):
            result = receiver.receive_bytes(chunk)
            if result is not None:
                ends[receiver] = (result.muxer, receiver.unread + b"".join(chunks[position + 1 :]))
                break
    assert ends == {initiator: ("/yamux/1.0.0", early), responder: ("/yamux/1.0.0", early)}


@settings(max_examples=60)
@given(position=st.integers(0, 1000), change=st.integers(1, 255), number=st.integers(1, 2))
def test_a_changed_byte_breaks_the_handshake(position: int, change: int, number: int) -> None:
    initiator = NoiseHandshake("initiator", DIALLER, SeededEntropy("e"))
    responder = NoiseHandshake("responder", LISTENER, SeededEntropy("f"))
    responder.receive_bytes(initiator.bytes_to_send())
    message = responder.bytes_to_send()
    receiver = initiator
    if number == 2:
        initiator.receive_bytes(message)
        message = initiator.bytes_to_send()
        receiver = responder
    changed = bytearray(message)
    changed[position % len(changed)] ^= change
    protocol: str | None = None
    try:
        assert receiver.receive_bytes(changed) is None
    except RemoteProtocolError as error:
        protocol = error.protocol
    # A length made larger only waits for bytes that never come.
    assert protocol == "noise" or changed[:2] > message[:2]
