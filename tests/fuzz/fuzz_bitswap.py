"""Bitswap takes any stream, in any chunks; what a peer says leaves ledgers and wantlists consistent and bounded."""

from __future__ import annotations

from collections.abc import Callable

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.bitswap.cids import prefix_of, wanted_multihash
from aiolibp2p.sansio.bitswap.client import Client
from aiolibp2p.sansio.bitswap.decoder import Decoder
from aiolibp2p.sansio.bitswap.engine import Engine
from aiolibp2p.sansio.bitswap.message import Entry, Message, Payload, Presence, encode

LIMITS = Limits(bitswap_wants_per_peer=8, bitswap_message_bytes=4096)
TIMEOUTS = Timeouts()
RAW = b"\x01\x55\x12\x20"


def messages(data: bytes) -> list[Message]:
    """Feed `data` in chunks of the size that its first byte says."""
    decoder = Decoder(LIMITS)
    size = data[0] + 1 if data else 1
    found = [one for start in range(1, len(data), size) for one in decoder.receive_bytes(data[start : start + size])]
    decoder.receive_eof()
    assert decoder.buffered_bytes <= LIMITS.bitswap_message_bytes
    for message in found:
        assert len(message.entries) <= 2 * LIMITS.bitswap_wants_per_peer
        assert len(message.payloads) <= LIMITS.bitswap_wants_per_peer
        assert len(message.presences) <= LIMITS.bitswap_wants_per_peer
    return found


def stream(data: bytes) -> None:
    """Read a stream; what was read can be written again."""
    for message in messages(data):
        buffers = encode(message, 2 * LIMITS.bitswap_message_bytes)
        decoder = Decoder(Limits())
        (again,) = decoder.receive_bytes(b"".join(buffers))
        message.skipped = message.dropped = 0
        assert again == message


def server(data: bytes) -> None:
    """Serve what a stream asks for, from a store that has every other block."""
    engine: Engine[str] = Engine(LIMITS, TIMEOUTS)
    for message in messages(data):
        asked = engine.receive("peer", message, 0.0)
        engine.looked_up("peer", {mh: 10 if mh[-1] % 2 else None for mh in asked}, 0.0)
        ledger = engine.ledger("peer")
        assert ledger is None or len(ledger) <= LIMITS.bitswap_wants_per_peer
    while (found := engine.next_batch(0.0)) is not None:
        answer = engine.answer(found[1], dict.fromkeys(found[1].blocks, b"0123456789"))
        encode(answer, LIMITS.bitswap_message_bytes)
        engine.written(found[1], 0.0)
    assert engine.loaded_bytes == 0
    engine.disconnected("peer", 0.0)


def client(data: bytes) -> None:
    """Take what a peer answers to wants for some CIDs."""
    ours: Client[str] = Client(LIMITS, TIMEOUTS)
    ours.connected("peer")
    session = ours.session(["peer"], 0.0)
    session.want([RAW + bytes(31) + bytes((n,)) for n in range(8)], 0.0)
    for message in messages(data):
        if ours.message_to_send("peer", 0.0) is not None:
            ours.message_sent("peer", 0.0)
        ours.received_presences("peer", message.presences, 0.0)
        for payload in message.payloads:
            # The shell hashes; here the first byte says which block it is.
            ours.received_block("peer", RAW[2:] + bytes(31) + payload.data[:1], len(payload.data), 0.0)
    ours.close(session, 0.0)
    assert len(session) == 0


def cid(data: bytes) -> None:
    """Split any bytes as a CID."""
    try:
        prefix = prefix_of(data)
    except InvalidValueError:
        prefix = b""
    try:
        multihash = wanted_multihash(data, LIMITS.bitswap_cid_bytes)
    except InvalidValueError:
        return
    assert data.endswith(multihash)
    assert prefix


TARGETS: dict[str, Callable[[bytes], None]] = {"stream": stream, "server": server, "client": client, "cid": cid}

_SAID = Message(
    [Entry(RAW + bytes(31) + bytes((n,)), n, n == 3, n % 2 == 0, True) for n in range(5)],
    full=True,
    payloads=[Payload(RAW, b"\x01data"), Payload(b"\x00\x70\x12\x20", b"")],
    presences=[Presence(RAW + bytes(32), False), Presence(RAW + bytes(31) + b"\x02", True)],
    pending_bytes=3,
)
_STREAM = b"".join(encode(_SAID, 4096))

SEEDS: dict[str, list[bytes]] = {
    name: [b"\xff" + _STREAM, b"\x06" + _STREAM * 2] for name in ("stream", "server", "client")
} | {"cid": [RAW + bytes(32), b"\x12\x20" + bytes(32), b"\x01\x70\xa0\xe4\x02\x20" + bytes(32)]}
