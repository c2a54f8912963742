"""Every role of multistream-select takes any bytes, in any chunks, with documented errors only."""

from __future__ import annotations

from collections.abc import Callable

from aiolibp2p.errors import NegotiationError, RemoteProtocolError
from aiolibp2p.sansio.multistream import HEADER, NA, EagerInitiator, LazyInitiator, Responder, encode_message, proposal

PROTOCOLS = ("/a", "/echo/1.0.0")


def receive(negotiation: Responder | EagerInitiator | LazyInitiator, data: bytes) -> None:
    """Feed `data` in chunks of the size that its first byte says."""
    size = data[0] + 1 if data else 1
    for start in range(1, len(data), size):
        try:
            chosen = negotiation.receive_bytes(data[start : start + size])
        except (RemoteProtocolError, NegotiationError):
            return
        if chosen is not None:
            assert chosen in PROTOCOLS
            assert data[start : start + size].endswith(negotiation.unread)
            return


def responder(data: bytes) -> None:
    """Take what a dialler sends."""
    receive(Responder(PROTOCOLS, lambda: PROTOCOLS), data)


def eager_initiator(data: bytes) -> None:
    """Take the answers to two proposals."""
    receive(EagerInitiator(PROTOCOLS), data)


def lazy_initiator(data: bytes) -> None:
    """Take the answer to one proposal."""
    receive(LazyInitiator(PROTOCOLS[0]), data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "responder": responder,
    "eager_initiator": eager_initiator,
    "lazy_initiator": lazy_initiator,
}

SEEDS: dict[str, list[bytes]] = {
    "responder": [
        b"\xff" + proposal("/a") + b"payload",
        b"\x00" + HEADER + encode_message("/x") + b"\x03ls\n" + encode_message("/a"),
    ],
    "eager_initiator": [b"\xff" + proposal("/a"), b"\x07" + HEADER + NA + encode_message("/echo/1.0.0")],
    "lazy_initiator": [b"\xff" + proposal("/a") + b"payload", b"\x03" + HEADER + NA],
}
