"""The Noise handshake and its records take any bytes, in any chunks, with documented errors only."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aiolibp2p.errors import NegotiationError, RemoteProtocolError
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.sansio.noise import NoiseChannel, NoiseHandshake, NoiseIdentity, Role, XXHandshake


class FixedEntropy:
    """The same bytes every time, so that a finding can be repeated."""

    def token(self, n: int) -> bytes:
        """Return `n` bytes."""
        return b"\x42" * n

    def fork(self, label: str) -> FixedEntropy:
        """Return itself."""
        return self


ENTROPY = FixedEntropy()
IDENTITY = NoiseIdentity(PrivateKey.generate(ENTROPY), ENTROPY)
STATIC = X25519PrivateKey.from_private_bytes(b"\x01" * 32)
EPHEMERAL = X25519PrivateKey.from_private_bytes(b"\x02" * 32)


def receive(role: Role, data: bytes) -> None:
    """Feed `data` in chunks of the size that its first byte says."""
    handshake = NoiseHandshake(role, IDENTITY, ENTROPY)
    size = data[0] + 1 if data else 1
    for start in range(1, len(data), size):
        try:
            assert handshake.receive_bytes(data[start : start + size]) is None
        except (RemoteProtocolError, NegotiationError):
            return


def initiator(data: bytes) -> None:
    """Take message 2."""
    receive("initiator", data)


def responder(data: bytes) -> None:
    """Take messages 1 and 3."""
    receive("responder", data)


def payload(data: bytes) -> None:
    """Take any payload in a message 2 that decrypts."""
    handshake = NoiseHandshake("initiator", IDENTITY, ENTROPY)
    peer = XXHandshake("responder", STATIC, EPHEMERAL)
    peer.read_message(handshake.bytes_to_send()[2:])
    message = peer.write_message(data[:60_000])
    try:
        handshake.receive_bytes(len(message).to_bytes(2, "big") + message)
    except (RemoteProtocolError, NegotiationError):
        return


def records(data: bytes) -> None:
    """Take records, true and false ones."""
    sender = NoiseChannel(b"1" * 32, b"2" * 32)
    receiver = NoiseChannel(b"2" * 32, b"1" * 32)
    true = bytes(sender.encrypt([data]))
    assert b"".join(receiver.decrypt(true + data)[0]).startswith(data)
    if receiver.failure is None:
        receiver.decrypt(data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "initiator": initiator,
    "responder": responder,
    "payload": payload,
    "records": records,
}

_INITIATOR = NoiseHandshake("initiator", IDENTITY, ENTROPY)
_RESPONDER = NoiseHandshake("responder", IDENTITY, ENTROPY)
_MESSAGE_1 = _INITIATOR.bytes_to_send()
_RESPONDER.receive_bytes(_MESSAGE_1)
_MESSAGE_2 = _RESPONDER.bytes_to_send()

SEEDS: dict[str, list[bytes]] = {
    "initiator": [b"\x40" + _MESSAGE_2[:-1]],
    "responder": [b"\xff" + _MESSAGE_1 + b"\x00\x60" + bytes(range(96)), b"\xff\x00\x20" + bytes(32)],
    "payload": [
        IDENTITY.payload(()),
        NoiseIdentity(PrivateKey.generate(ENTROPY), ENTROPY).payload(("/yamux/1.0.0", "/mplex/6.7.0")),
    ],
    "records": [b"", bytes(40), b"\x00\x11" + bytes(17)],
}
