"""The Noise handshake and its records take any bytes, in any chunks, with documented errors only."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aiolibp2p.errors import LocalProtocolError, NegotiationError, RemoteProtocolError
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.sansio.noise import (
    LENGTH_BYTES,
    PAYLOAD_BYTES,
    NoiseChannel,
    NoiseHandshake,
    NoiseIdentity,
    Role,
    XXHandshake,
)


class FixedEntropy:
    """The same bytes every time, so that a finding can be repeated."""

    def token(self, n: int) -> bytes:
        """Return `n` bytes."""
        return b"\x42" * n

    def fork(self, label: str) -> FixedEntropy:
        """Return itself."""
        return self


ENTROPY = FixedEntropy()
IDENTITY_KEY = PrivateKey.generate(ENTROPY)
IDENTITY = NoiseIdentity(IDENTITY_KEY, ENTROPY)
ROLES: tuple[Role, Role] = ("initiator", "responder")
MESSAGE_BYTES_MAX = 96 + PAYLOAD_BYTES
STATIC = X25519PrivateKey.from_private_bytes(b"\x01" * 32)
EPHEMERAL = X25519PrivateKey.from_private_bytes(b"\x02" * 32)


def check(handshake: NoiseHandshake) -> None:
    """Check that no more than one message is kept."""
    assert len(handshake._received) <= LENGTH_BYTES + MESSAGE_BYTES_MAX
    assert len(handshake._out) <= LENGTH_BYTES + MESSAGE_BYTES_MAX


def receive(role: Role, data: bytes) -> None:
    """Feed `data` in chunks of the size that its first byte says."""
    handshake = NoiseHandshake(role, IDENTITY, ENTROPY)
    size = data[0] + 1 if data else 1
    for start in range(1, len(data), size):
        try:
            assert handshake.receive_bytes(data[start : start + size]) is None
            check(handshake)
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


def session(data: bytes) -> None:
    """Carry both sides' messages and records, cut, changed, dropped and repeated as the bytes say."""
    acts = iter(data)
    sides = {role: NoiseHandshake(role, IDENTITY, ENTROPY) for role in ROLES}
    channels: dict[Role, NoiseChannel] = {}
    for role, other in (ROLES, ROLES[::-1], ROLES):
        message = _changed(sides[role].bytes_to_send(), acts)
        cut = next(acts, 0)
        try:
            for piece in (message[:cut], message[cut:]):
                result = sides[other].receive_bytes(piece)
                check(sides[other])
                if result is not None:
                    assert result.peer_id == IDENTITY_KEY.public.peer_id
                    channels[other] = result.channel
        except (RemoteProtocolError, NegotiationError):
            return
        except LocalProtocolError:
            assert other in channels
            return
    if len(channels) == 2:
        _carry_records(channels, acts)


def _carry_records(channels: dict[Role, NoiseChannel], acts: Iterator[int]) -> None:
    """Carry records: the next in order is taken, and nothing else ever."""
    sent: dict[Role, list[tuple[bytes, bytes]]] = {role: [] for role in ROLES}
    taken = dict.fromkeys(ROLES, 0)
    kept = b""
    for act in acts:
        from_role, to_role = ROLES if act & 1 else ROLES[::-1]
        data = bytes(act)
        record = bytes(channels[from_role].encrypt([data]))
        sent[from_role].append((record, data))
        carried, kept = kept if act % 7 == 6 else _changed(record, acts), record
        chunks, used = channels[to_role].decrypt(carried)
        expected, plaintext = sent[from_role][taken[from_role]]
        if carried == expected:
            assert used == len(carried)
            assert b"".join(chunks) == plaintext
            taken[from_role] += 1
        else:
            assert not b"".join(chunks)
        if channels[to_role].failure is not None or used < len(carried):
            return  # the channel is over, or waits for the rest of a record that has no end


def _changed(message: bytes, acts: Iterator[int]) -> bytes:
    """Return the message as it was for an even byte, else with one byte changed."""
    if next(acts, 0) & 1 and message:
        at = next(acts, 0) % len(message)
        return message[:at] + bytes((message[at] ^ (next(acts, 0) or 1),)) + message[at + 1 :]
    return message


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
    "session": session,
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
    "session": [bytes(9), b"\x00\x40" * 3 + b"\x05\x00" * 8, b"\x00\x40\x01\x09\x01", bytes(6) + b"\x09\x00\x06\x00"],
    "records": [b"", bytes(40), b"\x00\x11" + bytes(17)],
}
