"""Identify takes any stream, in any chunks, with documented errors only, and stays within its limits."""

from __future__ import annotations

from collections.abc import Callable

from aiolibp2p.errors import LimitError, RemoteProtocolError
from aiolibp2p.identity.envelope import seal_peer_record
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.limits import Limits
from aiolibp2p.sansio.identify import MESSAGE_BYTES, Decoder, Identify, encode, merge_push, verify

LIMITS = Limits(identify_addresses=4, identify_protocols=5)


class FixedEntropy:
    """The same bytes every time, so that a finding can be repeated."""

    def token(self, n: int) -> bytes:
        """Return `n` bytes."""
        return b"\x42" * n

    def fork(self, label: str) -> FixedEntropy:
        """Return itself."""
        return self


KEY = PrivateKey.generate(FixedEntropy())
ADDRESS = Multiaddr("/ip4/192.0.2.1/tcp/4001")
SAID = Identify(
    protocol_version="ipfs/0.1.0",
    agent_version="fuzz",
    public_key=KEY.public,
    listen_addresses=(ADDRESS,),
    observed_address=ADDRESS,
    protocols=("/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"),
    signed_peer_record=seal_peer_record(KEY, 1, [ADDRESS]),
)


def stream(data: bytes) -> None:
    """Feed `data` in chunks of the size that its first byte says; use what comes out."""
    decoder = Decoder(LIMITS)
    size = data[0] + 1 if data else 1
    try:
        for start in range(1, len(data), size):
            decoder.receive_bytes(data[start : start + size])
        heard = verify(decoder.receive_eof(), KEY.public.peer_id, LIMITS)
    except (RemoteProtocolError, LimitError):
        return
    merged = merge_push(verify(SAID, KEY.public.peer_id), heard)
    for one in (heard, merged):
        assert len(one.listen_addresses) <= LIMITS.identify_addresses
        assert len(one.protocols) <= LIMITS.identify_protocols
        assert all(len(message) <= MESSAGE_BYTES for message in encode(one))


TARGETS: dict[str, Callable[[bytes], None]] = {"stream": stream}

SEEDS: dict[str, list[bytes]] = {
    "stream": [b"\xff" + b"".join(encode(SAID)), b"\x05" + b"".join(encode(Identify(protocols=("/a",)))) * 3],
}
