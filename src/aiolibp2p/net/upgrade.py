"""From raw bytes to a secure channel: protocol negotiation for Noise, and the Noise handshake. No I/O.

An initiator is optimistic: header, proposal and Noise message 1 leave in one flight. A peer that breaks off or answers
garbage there (`may_retry`) deserves one fresh connection on which every answer is awaited.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiolibp2p.entropy import Entropy
from aiolibp2p.errors import ConnectionEndedError, Libp2pError, PeerIdMismatchError, RemoteProtocolError
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.sansio.multistream import LazyInitiator, Responder
from aiolibp2p.sansio.noise import PROTOCOL as NOISE
from aiolibp2p.sansio.noise import NoiseHandshake, NoiseIdentity, NoiseResult

NEGOTIATION_STAGE = "security negotiation"
HANDSHAKE_STAGE = "noise handshake"


class Upgrade:
    """One side of the way to a secure channel."""

    def __init__(
        self,
        identity: NoiseIdentity,
        entropy: Entropy,
        *,
        initiator: bool,
        muxers: Sequence[str],
        expected_peer: PeerId | None = None,
        optimistic: bool = True,
    ) -> None:
        self.initiator = initiator
        self.stage = NEGOTIATION_STAGE
        """What is being waited for."""
        self.unread = b""
        """Bytes that came after the handshake."""
        self._optimistic = initiator and optimistic
        self._negotiation: LazyInitiator | Responder | None
        self._negotiation = LazyInitiator(NOISE) if initiator else Responder((NOISE,))
        self._handshake = NoiseHandshake(
            "initiator" if initiator else "responder", identity, entropy, expected_peer=expected_peer, muxers=muxers
        )
        self._out = self._negotiation.bytes_to_send()
        if self._optimistic:
            self._out += self._handshake.bytes_to_send()

    def bytes_to_send(self) -> bytes:
        """Return and forget what is to be sent now."""
        out = self._out
        self._out = b""
        return out

    def may_retry(self, error: Libp2pError) -> bool:
        """Whether a failure may be due to our optimism: the peer broke off, or answered what makes no sense."""
        if not self._optimistic or isinstance(error, PeerIdMismatchError):
            return False
        if isinstance(error, ConnectionEndedError):
            return error.by == "remote"
        return isinstance(error, RemoteProtocolError)

    def receive_bytes(self, data: bytes) -> NoiseResult | None:
        """Take bytes; return the result when the channel is secure.

        Raises:
            NegotiationError: the peer does not speak Noise.
            RemoteProtocolError: it broke multistream-select or Noise.
            PeerIdMismatchError: it is another peer.
        """
        try:
            return self._receive(data)
        except Libp2pError as error:
            error.stage = error.stage or self.stage
            raise

    def _receive(self, data: bytes) -> NoiseResult | None:
        if self._negotiation is not None:
            chosen = self._negotiation.receive_bytes(data)
            self._out += self._negotiation.bytes_to_send()
            if chosen is None:
                return None
            data = self._negotiation.unread
            self._negotiation = None
            self.stage = HANDSHAKE_STAGE
            if self.initiator and not self._optimistic:
                self._out += self._handshake.bytes_to_send()
            if not data:
                return None
        result = self._handshake.receive_bytes(data)
        self._out += self._handshake.bytes_to_send()
        if result is not None:
            self.unread = self._handshake.unread
        return result
