"""Every role of multistream-select takes any bytes, in any chunks, with documented errors only."""

from __future__ import annotations

from collections.abc import Callable

from aiolibp2p.errors import NegotiationError, RemoteProtocolError
from aiolibp2p.sansio.multistream import (
    HEADER,
    MESSAGE_BYTES,
    NA,
    REFUSALS,
    EagerInitiator,
    LazyInitiator,
    Responder,
    encode_message,
    proposal,
)

PROTOCOLS = ("/a", "/echo/1.0.0")


def check(negotiation: Responder | EagerInitiator | LazyInitiator) -> None:
    """Check that no more is kept than one unfinished message, and the answers to what may be refused."""
    reader = negotiation._reader
    assert reader is None or len(reader._data) - reader._at <= MESSAGE_BYTES + 2
    assert len(negotiation._out) <= len(HEADER) + (REFUSALS + 1) * (MESSAGE_BYTES + 2)


def receive(negotiation: Responder | EagerInitiator | LazyInitiator, data: bytes) -> None:
    """Feed `data` in chunks of the size that its first byte says."""
    size = data[0] + 1 if data else 1
    for start in range(1, len(data), size):
        try:
            chosen = negotiation.receive_bytes(data[start : start + size])
        except (RemoteProtocolError, NegotiationError):
            return
        check(negotiation)
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


def session(data: bytes) -> None:
    """Let both sides speak, each chunk as it is or with a byte of it changed or left out."""
    ours: EagerInitiator | LazyInitiator
    acts = iter(data)
    ours = LazyInitiator(PROTOCOLS[0]) if next(acts, 0) & 1 else EagerInitiator(PROTOCOLS)
    theirs = Responder(PROTOCOLS[next(acts, 0) % 3 :], lambda: PROTOCOLS)
    settled: dict[bool, str] = {}
    changed = False
    for turn in range(8):
        sender, receiver = (ours, theirs) if turn % 2 == 0 else (theirs, ours)
        message = bytearray(sender.bytes_to_send())
        act = next(acts, 0)
        if message and act & 1:
            changed = True
            at = next(acts, 0) % len(message)
            message[at : at + 1] = bytes((act,)) if act & 2 else b""
        cut = next(acts, 0) % (len(message) + 1)
        for piece in (bytes(message[:cut]), bytes(message[cut:])):
            if (receiver is ours) in settled:
                break
            try:
                chosen = receiver.receive_bytes(piece)
            except (RemoteProtocolError, NegotiationError):
                assert changed or not theirs._accepts(PROTOCOLS[0])
                return
            check(receiver)
            if chosen is not None:
                settled[receiver is ours] = chosen
    assert changed or len(set(settled.values())) <= 1


TARGETS: dict[str, Callable[[bytes], None]] = {
    "responder": responder,
    "eager_initiator": eager_initiator,
    "lazy_initiator": lazy_initiator,
    "session": session,
}

SEEDS: dict[str, list[bytes]] = {
    "responder": [
        b"\xff" + proposal("/a") + b"payload",
        b"\x00" + HEADER + encode_message("/x") + b"\x03ls\n" + encode_message("/a"),
    ],
    "eager_initiator": [b"\xff" + proposal("/a"), b"\x07" + HEADER + NA + encode_message("/echo/1.0.0")],
    "lazy_initiator": [b"\xff" + proposal("/a") + b"payload", b"\x03" + HEADER + NA],
    "session": [bytes(2), b"\x01\x00" + bytes(20), b"\x00\x01" + bytes(20), b"\x00\x00\x01\x05\x03", b"\x00\x02"],
}
