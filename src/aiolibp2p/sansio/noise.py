"""Noise_XX_25519_ChaChaPoly_SHA256 as libp2p uses it: the handshake, its payload, and the records after it.

Spec: Noise revision 34; libp2p specs, noise/README.md and connections/inlined-muxer-negotiation.md. On the wire every
message and every record has a length of two bytes, big-endian, in front.

`NoiseHandshake` keeps the Handshake contract of `aiolibp2p.sansio`, `NoiseChannel` that of a secure channel.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from struct import Struct
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from google.protobuf.message import DecodeError

from aiolibp2p.entropy import Entropy
from aiolibp2p.errors import (
    ConnectionEndedError,
    InvalidValueError,
    LocalProtocolError,
    NegotiationError,
    PeerIdMismatchError,
    RemoteProtocolError,
)
from aiolibp2p.identity.keys import PrivateKey, PublicKey
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.sansio.pb import noise_pb2

Role = Literal["initiator", "responder"]
Buffer = bytes | bytearray | memoryview

PROTOCOL = "/noise"
PROTOCOL_NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"
SIGNATURE_PREFIX = b"noise-libp2p-static-key:"

KEY_BYTES = 32
TAG_BYTES = 16
LENGTH_BYTES = 2
RECORD_BYTES = 65535
"""The longest record, without its length."""
PLAINTEXT_BYTES = RECORD_BYTES - TAG_BYTES
"""The longest plaintext of a record."""
PAYLOAD_BYTES = 8 << 10
"""The longest handshake payload taken: those of go, js and rust are below 1 KiB, with RSA keys below 2 KiB."""
NONCES = (1 << 64) - 1
"""Records under one key; the last nonce is reserved."""

_MESSAGES: tuple[tuple[str, ...], ...] = (("e",), ("e", "ee", "s", "es"), ("s", "se"))
_ENCRYPTED_KEY_BYTES = KEY_BYTES + TAG_BYTES
_MESSAGE_BYTES_MIN = (KEY_BYTES, KEY_BYTES + _ENCRYPTED_KEY_BYTES + TAG_BYTES, _ENCRYPTED_KEY_BYTES + TAG_BYTES)

# Below this a record is cheaper as two concatenations than encrypted in place: 1.9 against 3.4 µs at 256 bytes,
# the same at 32 KiB. benchmarks/micro/noise.py has the rates.
_CONCATENATED_BYTES = 16 << 10
# Below this a slice of the received bytes is cheaper copied than viewed: by 0.2 µs at 256 bytes, by nothing at 8 KiB.
_COPIED_BYTES = 8 << 10

# A static key lives as long as its peer's process: who dials again brings the signature that was verified before, and
# an Ed25519 verification is a tenth of a handshake.
_SIGNATURES_REMEMBERED = 1024

_nonce_bytes = Struct("<4xQ").pack
_length_bytes = Struct(">H").pack
_FULL_RECORD = _length_bytes(RECORD_BYTES)
_ROOM_FOR_TAG = bytes(TAG_BYTES)


class SymmetricState:
    """The hash, the chaining key and the cipher of a handshake (Noise, "The SymmetricState object")."""

    __slots__ = ("_chaining_key", "_cipher", "_nonce", "handshake_hash")

    def __init__(self, prologue: bytes) -> None:
        # The name is exactly as long as a hash, so it is the first hash unhashed.
        self.handshake_hash = self._chaining_key = PROTOCOL_NAME
        self._cipher: ChaCha20Poly1305 | None = None
        self._nonce = 0
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        """Take `data` into the hash."""
        self.handshake_hash = sha256(self.handshake_hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        """Take a shared secret into the chaining key, and go on under a new key."""
        self._chaining_key, key = self._derive(secret)
        self._cipher = ChaCha20Poly1305(key)
        self._nonce = 0

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Return `plaintext` encrypted, or as it is before the first key."""
        if self._cipher is None:
            ciphertext = plaintext
        else:
            ciphertext = self._cipher.encrypt(_nonce_bytes(self._nonce), plaintext, self.handshake_hash)
            self._nonce += 1
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """Return `ciphertext` decrypted, or as it is before the first key.

        Raises:
            InvalidTag: it was not made by the holder of the same state.
        """
        if self._cipher is None:
            plaintext = ciphertext
        else:
            plaintext = self._cipher.decrypt(_nonce_bytes(self._nonce), ciphertext, self.handshake_hash)
            self._nonce += 1
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Return the key of the initiator's records and that of the responder's."""
        return self._derive(b"")

    def _derive(self, secret: bytes) -> tuple[bytes, bytes]:
        pseudorandom_key = hmac.digest(self._chaining_key, secret, "sha256")
        first = hmac.digest(pseudorandom_key, b"\x01", "sha256")
        return first, hmac.digest(pseudorandom_key, first + b"\x02", "sha256")


class XXHandshake:
    """The three messages of the pattern XX, with any payloads and without lengths."""

    def __init__(
        self, role: Role, static: X25519PrivateKey, ephemeral: X25519PrivateKey, prologue: bytes = b""
    ) -> None:
        self.remote_static = b""
        """The peer's static key, from its message on."""
        self.messages = 0
        """How many messages have been written and read."""
        self._initiator = role == "initiator"
        self._static = static
        self._ephemeral = ephemeral
        self._remote: dict[str, X25519PublicKey] = {}
        self._state = SymmetricState(prologue)

    @property
    def handshake_hash(self) -> bytes:
        """The hash over all messages so far."""
        return self._state.handshake_hash

    def write_message(self, payload: bytes) -> bytes:
        """Return the next message, which is ours.

        Raises:
            ValueError: a key of the peer is a point that makes the secret known to all.
        """
        message = b""
        for token in _MESSAGES[self.messages]:
            if token == "e":
                key = self._ephemeral.public_key().public_bytes_raw()
                self._state.mix_hash(key)
                message += key
            elif token == "s":
                message += self._state.encrypt_and_hash(self._static.public_key().public_bytes_raw())
            else:
                self._state.mix_key(self._exchange(token))
        self.messages += 1
        return message + self._state.encrypt_and_hash(payload)

    def read_message(self, message: bytes) -> bytes:
        """Return the payload of the next message, which is the peer's.

        Raises:
            InvalidTag: the peer's keys are not ours, or the message was changed.
            ValueError: it is too short, or a key in it is a point that makes the secret known to all.
        """
        if len(message) < _MESSAGE_BYTES_MIN[self.messages]:
            raise ValueError(f"{len(message)} bytes are too short")
        at = 0
        for token in _MESSAGES[self.messages]:
            if token == "e":
                key = message[:KEY_BYTES]
                at = KEY_BYTES
                self._state.mix_hash(key)
                self._remote["e"] = X25519PublicKey.from_public_bytes(key)
            elif token == "s":
                key = self._state.decrypt_and_hash(message[at : at + _ENCRYPTED_KEY_BYTES])
                at += _ENCRYPTED_KEY_BYTES
                self.remote_static = key
                self._remote["s"] = X25519PublicKey.from_public_bytes(key)
            else:
                self._state.mix_key(self._exchange(token))
        self.messages += 1
        return self._state.decrypt_and_hash(message[at:])

    def split(self) -> tuple[bytes, bytes]:
        """Return the key of our records and that of the peer's."""
        initiator, responder = self._state.split()
        return (initiator, responder) if self._initiator else (responder, initiator)

    def _exchange(self, token: str) -> bytes:
        # The first letter is the initiator's key, the second the responder's.
        ours, theirs = (token[0], token[1]) if self._initiator else (token[1], token[0])
        return (self._ephemeral if ours == "e" else self._static).exchange(self._remote[theirs])


class NoiseIdentity:
    """A host's static Noise key and its signature by the host's key, made once for all handshakes.

    The specification allows one static key per process; it is never written anywhere.

    Args:
        key: the host's key.
        entropy: where the static key comes from.
    """

    __slots__ = ("_payload", "_payload_muxers", "_signed", "static")

    def __init__(self, key: PrivateKey, entropy: Entropy) -> None:
        self.static = X25519PrivateKey.from_private_bytes(entropy.token(KEY_BYTES))
        signature = key.sign(SIGNATURE_PREFIX + self.static.public_key().public_bytes_raw())
        self._signed = noise_pb2.NoiseHandshakePayload(
            identity_key=bytes(key.public), identity_sig=signature
        ).SerializeToString()
        self._payload = self._signed
        self._payload_muxers: tuple[str, ...] = ()

    def payload(self, muxers: Sequence[str]) -> bytes:
        """Return the handshake payload that offers `muxers`."""
        offered = tuple(muxers)
        if offered != self._payload_muxers:
            extensions = noise_pb2.NoiseExtensions(stream_muxers=[muxer.encode() for muxer in offered])
            # Serialised fields may be concatenated; without a muxer there is no extension.
            extension = noise_pb2.NoiseHandshakePayload(extensions=extensions).SerializeToString() if offered else b""
            self._payload = self._signed + extension
            self._payload_muxers = offered
        return self._payload


@dataclass(frozen=True, slots=True)
class NoiseResult:
    """What a handshake has settled; the peer's key is verified."""

    peer_id: PeerId
    public_key: PublicKey
    channel: NoiseChannel
    muxer: str | None
    """The muxer both offered in their payloads; None where one side offered none: it is negotiated afterwards."""
    peer_muxers: tuple[str, ...]


class NoiseHandshake:
    """The libp2p handshake over XX, either side.

    Args:
        role: the initiator speaks first: `bytes_to_send` has its message at once.
        identity: our static key and its signature.
        entropy: where the ephemeral key comes from.
        expected_peer: the peer that was dialled; None takes anyone.
        muxers: the muxers offered, the preferred first; empty leaves them to multistream-select.
        prologue: empty for every transport but WebRTC and WebTransport.
    """

    def __init__(
        self,
        role: Role,
        identity: NoiseIdentity,
        entropy: Entropy,
        *,
        expected_peer: PeerId | None = None,
        muxers: Sequence[str] = ("/yamux/1.0.0",),
        prologue: bytes = b"",
    ) -> None:
        self.unread = b""
        """What came after the last message; complete once a call has returned the result."""
        self._role = role
        self._identity = identity
        self._expected_peer = expected_peer
        self._muxers = tuple(muxers)
        ephemeral = X25519PrivateKey.from_private_bytes(entropy.token(KEY_BYTES))
        self._pattern = XXHandshake(role, identity.static, ephemeral, prologue)
        self._received = b""
        self._out = b""
        self._ended = False
        if role == "initiator":
            self._write(b"")

    @property
    def stage(self) -> str:
        """Which message the handshake is at, as in the errors: "noise message 2"."""
        return f"noise message {min(self._pattern.messages + 1, len(_MESSAGES))}"

    def bytes_to_send(self) -> bytes:
        """Return and forget what is to be sent now."""
        out = self._out
        self._out = b""
        return out

    def receive_bytes(self, data: Buffer) -> NoiseResult | None:
        """Take bytes of the peer and return the result when the handshake is over on our side.

        An initiator then has its last message to send.

        Raises:
            RemoteProtocolError: what came is no such handshake, or the peer does not own the key it claims.
            PeerIdMismatchError: the peer is not the expected one.
            NegotiationError: both sides offer muxers, but no common one.
            LocalProtocolError: the handshake is over.
        """
        if self._ended:
            raise LocalProtocolError("the handshake is over")
        self._received += data
        try:
            while (message := self._next_message()) is not None:
                result = self._receive_message(message)
                if result is not None:
                    self._ended = True
                    self.unread = self._received
                    self._received = b""
                    return result
        except (RemoteProtocolError, NegotiationError):
            self._ended = True
            self._received = b""
            raise
        return None

    def _next_message(self) -> bytes | None:
        received = self._received
        if len(received) < LENGTH_BYTES:
            return None
        size = received[0] << 8 | received[1]
        # Judged by its length alone, so that no more than one message is ever kept.
        smallest = _MESSAGE_BYTES_MIN[self._pattern.messages]
        if not smallest <= size <= smallest + PAYLOAD_BYTES:
            raise self._broken(f"a message of {size} bytes, where {smallest} to {smallest + PAYLOAD_BYTES} may be")
        end = LENGTH_BYTES + size
        if len(received) < end:
            return None
        self._received = received[end:]
        return received[LENGTH_BYTES:end]

    def _receive_message(self, message: bytes) -> NoiseResult | None:
        stage = self.stage
        try:
            payload = self._pattern.read_message(message)
            # The first message is neither encrypted nor signed: whatever it carries is not looked at. Its key is first
            # used by our answer.
            if self._pattern.messages == 1:
                self._write(self._identity.payload(self._muxers))
                return None
        except (InvalidTag, ValueError) as error:
            raise self._broken(str(error) or "it does not decrypt", stage) from error
        public_key, peer_muxers = self._verify(payload, stage)
        muxer = self._choose_muxer(peer_muxers, stage)
        if self._role == "initiator":
            self._write(self._identity.payload(self._muxers))
        channel = NoiseChannel(*self._pattern.split())
        return NoiseResult(public_key.peer_id, public_key, channel, muxer, peer_muxers)

    def _verify(self, encoded: bytes, stage: str) -> tuple[PublicKey, tuple[str, ...]]:
        """Return the peer's key and muxers; nothing of the payload is believed before its signature."""
        try:
            payload = noise_pb2.NoiseHandshakePayload.FromString(encoded)
            public_key = PublicKey.from_bytes(payload.identity_key)
        except DecodeError as error:
            raise self._broken("the payload is not its protobuf", stage) from error
        except InvalidValueError as error:
            raise self._broken(f"the identity key: {error}", stage) from error
        if not _signed(public_key, self._pattern.remote_static, payload.identity_sig):
            raise self._broken("the identity key did not sign the static key", stage)
        if self._expected_peer is not None and public_key.peer_id != self._expected_peer:
            mismatch = PeerIdMismatchError(str(self._expected_peer), str(public_key.peer_id), stage=stage)
            mismatch.protocol = "noise"
            raise mismatch
        # A muxer whose name is not UTF-8 is one that nobody here speaks.
        return public_key, tuple(name.decode(errors="replace") for name in payload.extensions.stream_muxers)

    def _choose_muxer(self, peer_muxers: tuple[str, ...], stage: str) -> str | None:
        """Return the first of the initiator's muxers that both offer."""
        if not peer_muxers or not self._muxers:
            return None
        preferred, other = (self._muxers, peer_muxers) if self._role == "initiator" else (peer_muxers, self._muxers)
        for muxer in preferred:
            if muxer in other:
                return muxer
        raise NegotiationError(self._muxers, stage=stage)

    def _write(self, payload: bytes) -> None:
        message = self._pattern.write_message(payload)
        self._out += _length_bytes(len(message)) + message

    def _broken(self, message: str, stage: str | None = None) -> RemoteProtocolError:
        return RemoteProtocolError(message, protocol="noise", stage=stage or self.stage)


@lru_cache(maxsize=_SIGNATURES_REMEMBERED)
def _signed(public_key: PublicKey, static: bytes, signature: bytes) -> bool:
    return public_key.verify(SIGNATURE_PREFIX + static, signature)


class NoiseChannel:
    """The records of a finished handshake, both directions; each call takes a batch.

    Args:
        send_key: the key of our records.
        receive_key: the key of the peer's.
    """

    __slots__ = ("_decrypt", "_encrypt", "_encrypt_into", "_received", "_sent", "failure")

    def __init__(self, send_key: bytes, receive_key: bytes) -> None:
        sender = ChaCha20Poly1305(send_key)
        self.failure: RemoteProtocolError | None = None
        """What broke the channel; neither direction goes on after it."""
        self._encrypt = sender.encrypt
        self._encrypt_into = sender.encrypt_into
        self._decrypt = ChaCha20Poly1305(receive_key).decrypt
        self._sent = 0
        self._received = 0

    def encrypt(self, parts: Sequence[Buffer]) -> bytes | bytearray:
        """Return the records that carry `parts`, joined; nothing for nothing.

        Args:
            parts: in order, views of single bytes only; they may be changed as soon as this returns.

        Returns: a buffer of the caller's own: it is never written to again.

        Raises:
            ConnectionEndedError: the key has no nonce left.
            LocalProtocolError: the channel has failed.
        """
        if self.failure is not None:
            raise LocalProtocolError("the channel has failed")
        size = sum(map(len, parts))
        records = (size + PLAINTEXT_BYTES - 1) // PLAINTEXT_BYTES
        nonce = self._sent
        if nonce + records > NONCES:
            raise ConnectionEndedError("the Noise key has no nonce left", by="local")
        self._sent = nonce + records
        if size > _CONCATENATED_BYTES:
            return self._encrypt_in_place(parts, nonce)
        if size == 0:
            return b""
        return _length_bytes(size + TAG_BYTES) + self._encrypt(_nonce_bytes(nonce), b"".join(parts), None)

    def _encrypt_in_place(self, parts: Sequence[Buffer], nonce: int) -> bytearray:
        # One join lays out lengths, plaintext and room for tags in the output itself: the only copy, and no zeroing.
        # 1.8 GB/s from 64 KiB to 1 MiB, where joining first and encrypting the slices falls to 0.5 above 128 KiB: its
        # second large buffer is mapped and faulted in anew each time.
        pieces: list[Buffer] = [_FULL_RECORD]
        room = PLAINTEXT_BYTES
        for part in parts:
            size = len(part)
            rest = part
            while size > room:
                view = memoryview(rest)
                pieces += (view[:room], _ROOM_FOR_TAG, _FULL_RECORD)
                rest = view[room:]
                size -= room
                room = PLAINTEXT_BYTES
            pieces.append(rest)
            room -= size
        pieces.append(_ROOM_FOR_TAG)
        out = bytearray().join(pieces)
        view = memoryview(out)
        at = LENGTH_BYTES
        while at < len(out):
            end = min(at + RECORD_BYTES, len(out))
            self._encrypt_into(_nonce_bytes(nonce), view[at : end - TAG_BYTES], None, view[at:end])
            nonce += 1
            if end - at < RECORD_BYTES:
                view[at - LENGTH_BYTES : at] = _length_bytes(end - at)
            at = end + LENGTH_BYTES
        return out

    def decrypt(self, data: Buffer) -> tuple[list[bytes], int]:
        """Return the plaintext of every whole record in `data`, and how many bytes they took.

        The rest belongs in front of the next data. Where a record is broken, what came before it is returned and
        `failure` says why: look at it after every call.

        Raises:
            RemoteProtocolError: the channel had failed before.
        """
        if self.failure is not None:
            raise self.failure
        plaintexts: list[bytes] = []
        size = len(data)
        source = data if size <= _COPIED_BYTES else memoryview(data)
        nonce = self._received
        at = 0
        while size - at >= LENGTH_BYTES:
            start = at + LENGTH_BYTES
            end = start + (data[at] << 8 | data[at + 1])
            if end > size and end - start >= TAG_BYTES:
                break
            try:
                if end - start < TAG_BYTES or nonce >= NONCES:
                    raise InvalidTag
                plaintext = self._decrypt(_nonce_bytes(nonce), source[start:end], None)
            except InvalidTag:
                reason = "it does not decrypt" if end - start >= TAG_BYTES else f"{end - start} bytes hold no tag"
                self.failure = RemoteProtocolError(f"record {nonce}: {reason}", protocol="noise")
                break
            nonce += 1
            at = end
            # An empty record is allowed, carries nothing, and is not the end of the stream.
            if plaintext:
                plaintexts.append(plaintext)
        self._received = nonce
        return plaintexts, at

    def receive_eof(self, unread_bytes: int) -> None:
        """Check that the peer's end of stream does not cut a record.

        Args:
            unread_bytes: how many bytes `decrypt` has left.

        Raises:
            RemoteProtocolError: it does; what is missing may be all that mattered.
        """
        if unread_bytes:
            raise RemoteProtocolError("the stream ends within a record", protocol="noise")
