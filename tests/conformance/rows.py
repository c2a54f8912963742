"""What a libp2p stack has to keep to, row by row, and why a row has no test here.

A row is proved by tests that name it: `@pytest.mark.conforms("M1", "M3")`. `tests/conformance/table.py` finds them and
writes `docs/reference/conformance.md`. The levels: M, the specification says MUST; S, it says SHOULD; D, other stacks
break where it is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One rule; `why_not` says in a line why no test names it."""

    id: str
    level: str
    rule: str
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """The rules of one protocol; `absent` is said of all of them while the protocol is not spoken."""

    title: str
    rows: tuple[Row, ...]
    absent: str = ""


MULTISTREAM = Section(
    "multistream-select",
    (
        Row(
            "M1",
            "M",
            "A message is an unsigned varint of its length, UTF-8 and a newline that the length counts; `na` "
            "is `03 6e 61 0a`.",
        ),
        Row("M2", "M", "A first message other than `/multistream/1.0.0` ends the negotiation, from either side."),
        Row(
            "M3",
            "D",
            "Header, proposal and payload may come in one segment; either side may send its header without waiting.",
        ),
        Row(
            "M4",
            "D",
            "Where a lazily chosen protocol is refused, the first read fails, and what was written counts as "
            "not delivered.",
        ),
        Row(
            "M5",
            "D",
            "A message over 1,024 bytes is refused, none is sent, and nothing is allocated by its announced length.",
        ),
        Row("M6", "D", "`ls` is never sent; a peer that sends it is answered."),
        Row("M7", "D", "An empty message, or one without its newline, is an error."),
        Row("M8", "D", "The proposal of a simultaneous connect is answered with `na` and never sent."),
        Row("M9", "D", "A negotiation has a deadline, and a silent peer holds no task."),
        Row("M10", "D", "The protocols of a peer may change."),
    ),
)
NOISE = Section(
    "Noise, and early muxer negotiation",
    (
        Row("N1", "M", "The protocol is `/noise`, its name Noise_XX_25519_ChaChaPoly_SHA256, its prologue empty."),
        Row(
            "N2",
            "M",
            "A message has a length of two bytes, big-endian, and at most 65,535 bytes: the largest is accepted.",
        ),
        Row(
            "N3",
            "M",
            "A record without plaintext is accepted, skipped, and never taken for the end of the stream.",
        ),
        Row(
            "N4",
            "M",
            "The signature over the static key is checked before anything is made known; a wrong one closes.",
        ),
        Row("N5", "M", "The initiator sends no payload in message 1; extensions go in message 2 and message 3."),
        Row("N6", "M", "Unknown fields of the payload, and its old field 3, are ignored."),
        Row("N7", "M", "The peer that answers must be the one that was dialled."),
        Row(
            "N8",
            "M",
            "Of the initiator's muxers the first that both speak is taken; none in common fails; a peer "
            "without a list negotiates by multistream.",
        ),
        Row(
            "N9",
            "M",
            "Early data is used only after the signature was checked, and carries nothing of the user's.",
        ),
        Row("N10", "M", "The end of the nonces closes; a record that is not authentic is fatal."),
        Row("N11", "S", "The static key is of the process, and never on disk."),
        Row("N12", "D", "A record cut off by the end of the socket is an error, not an end of stream."),
    ),
)
TLS = Section(
    "TLS",
    tuple(
        Row(f"T{number}", level, rule)
        for number, level, rule in (
            (1, "M", "TLS 1.3 only; the server asks for a certificate."),
            (2, "M", "Exactly one certificate, self-signed and valid at the time."),
            (3, "M", "The extension 1.3.6.1.4.1.53594.1.1 holds host key and signature."),
            (4, "M", "An unknown critical extension aborts; ours may come critical or not."),
            (5, "M", "Both ends check the host's signature, the client the peer ID too."),
            (6, "M", "No SNI is sent, and any is ignored."),
            (7, "D", "The libp2p extension comes first."),
            (8, "M", "ALPN lists the muxers, `libp2p` last."),
            (9, "M", "A refusal after the client's handshake reaches the first read."),
            (10, "S", "The certificate's key is an EC key of its own."),
            (11, "D", "Long validities do not overflow."),
        )
    ),
    absent="TLS is not spoken yet",
)
QUIC = Section(
    "QUIC",
    tuple(
        Row(f"Q{number}", level, rule)
        for number, level, rule in (
            (1, "M", "ALPN is `libp2p`, version 1 only."),
            (2, "D", "Idle connections are kept alive within the peers' timeouts."),
            (3, "D", "At the peer's stream limit `open_stream` waits."),
            (4, "D", "Half-close, reset and STOP_SENDING map to QUIC's."),
            (5, "D", "Retry, version negotiation, new connection IDs and a rebinding NAT are survived."),
            (6, "D", "An unknown ALPN is answered with an alert."),
            (7, "D", "The server's side of a hole punch sends random packets."),
        )
    ),
    absent="QUIC is not spoken yet",
)
YAMUX = Section(
    "Yamux",
    (
        Row(
            "Y1",
            "M",
            "Twelve bytes of header, version 0, types 0 to 3, odd ids of the client, even ones of the server, "
            "id 0 for the session; another version is answered with GoAway 1.",
        ),
        Row(
            "Y2",
            "M",
            "SYN and ACK come with data or with a window update; data may follow a SYN before its ACK, which "
            "is always sent.",
        ),
        Row("Y3", "M", "A window begins with 256 KiB, updates add to it, and one over 32 bits is an error."),
        Row("Y4", "M", "Only payload counts; more than the window is answered with GoAway 1."),
        Row("Y5", "M", "FIN closes one half; data after it is an error; both free the id."),
        Row("Y6", "M", "RST ends both halves at once; late frames of the id are ignored, their payload consumed."),
        Row("Y7", "M", "A ping is answered with its own value; an answer to none is ignored."),
        Row("Y8", "M", "After a GoAway no stream is opened; those that are open go on unless it names an error."),
        Row(
            "Y9",
            "S",
            "At most 256 streams are unacknowledged, the next one waits; what is inbound and not accepted is bounded.",
        ),
        Row("Y10", "D", "A SYN for an id in use, or of the wrong parity, is answered with GoAway 1."),
        Row(
            "Y11",
            "D",
            "The window grows to 16 MiB with what the round trip needs; an update leaves at half a window.",
        ),
        Row("Y12", "D", "Frames are capped and streams take turns, so that none starves updates."),
        Row("Y13", "D", "Two full sides do not lock each other out: reading never waits for writing."),
        Row("Y14", "D", "A reset may carry an error code, in a window update's length."),
        Row("Y15", "D", "A GoAway with an unknown code is an error with that code."),
        Row("Y16", "D", "Inbound streams over the limit are reset."),
        Row("Y17", "D", "A connection is asked every 30 s whether it lives; no answer closes it."),
        Row(
            "Y18",
            "D",
            "No burst of streams before the peer's first frame: js-libp2p drops the connection at more than ten.",
        ),
    ),
)
MPLEX = Section(
    "mplex",
    (Row("X1", "D", "Off by default; a slow reader's stream is reset."),),
    absent="mplex is deprecated and not spoken; every peer of ours speaks Yamux",
)
WEBSOCKET = Section(
    "WebSocket",
    (
        Row("W1", "D", "`/ws`, `/wss`, `/tls/ws`, `/tls/sni/…/ws`, their default ports, http-path."),
        Row("W2", "D", "Binary frames whose boundaries mean nothing; a text frame is an error."),
        Row("W3", "M", "Noise or TLS is negotiated inside."),
        Row("W4", "D", "A close frame is the end; an end without one is a truncation."),
    ),
    absent="WebSocket is not spoken yet",
)
WEBRTC = Section(
    "WebRTC-direct",
    tuple(
        Row(f"R{number}", level, rule)
        for number, level, rule in (
            (1, "M", "The address carries the hash of the certificate."),
            (2, "M", "A message has at most 16,384 bytes."),
            (3, "M", "FIN closes the writing half and is answered with FIN_ACK."),
            (4, "M", "After STOP_SENDING flags are still processed."),
            (5, "M", "Channel 0 is negotiated, streams have empty labels."),
            (6, "M", "The listener begins the Noise handshake, with a prologue of both hashes."),
            (7, "M", "The user fragment is the password; the server infers the offer."),
            (8, "S", "New fragments are limited in rate, answers to unproven addresses in size."),
            (9, "D", "The first channel is not lost before the handshake ends."),
            (10, "D", "An error code of a reset is ignored where unknown."),
            (11, "D", "webrtc-rs 0.56 and go fail between themselves."),
        )
    ),
    absent="WebRTC-direct is not spoken yet",
)
IDENTIFY = Section(
    "identify",
    (
        Row("I1", "M", "`/ipfs/id/1.0.0` and its push: who answers sends, then closes."),
        Row(
            "I2",
            "D",
            "The signed peer record goes out in the standard domain and is verified in that and in rust's legacy one.",
        ),
        Row("I3", "D", "At most 4 KiB are sent in one message; 8 KiB and ten messages are accepted and merged."),
        Row("I4", "D", "No empty address is sent; bad ones are skipped, the others kept."),
        Row("I5", "M", "What a push leaves out stays; a repeated field that it has replaces."),
        Row("I6", "D", "A record counts only for the peer of the connection, and then before listenAddrs."),
        Row("I7", "D", "The public key must be the connection's; private addresses of public peers are ignored."),
        Row("I8", "D", "An answer has 5 s; changes that come together go out as one push."),
        Row("I9", "D", "It works over limited connections.", "relayed connections are not built yet"),
        Row("I10", "S", "Only protocols that are served are named."),
    ),
)
PING = Section(
    "ping and perf",
    (
        Row("P1", "M", "32 random bytes, echoed until the end of the stream, however many pings come."),
        Row("P2", "M/S", "At most one ping stream to a peer, at most two of one."),
        Row(
            "P3",
            "D",
            "A ping stream that the peer has closed is opened anew without a word; an echo that differs is an error.",
        ),
        Row("F1", "M", "perf: one big-endian u64; everything is read before anything is sent; off by default."),
    ),
)
KEYS = Section(
    "keys, IDs, records, addresses",
    (
        Row("K1", "M", "Keys: Ed25519 and RSA, in the deterministic encoding."),
        Row(
            "K2",
            "M",
            "An ID is the identity hash up to 42 bytes, else SHA-256; base58 and CIDv1 text are accepted.",
        ),
        Row("K3", "M", "Of the old 96-byte Ed25519 form both copies are compared."),
        Row("K4", "D", "RSA from 2,048 to 8,192 bits; secp256k1 in DER, high S accepted."),
        Row(
            "E1",
            "M",
            "An envelope signs domain, payload type and payload, each after its length; the signature is field 5.",
        ),
        Row("E2", "M", "A record is verified before it is read, its ID is its key's, its sequence number grows."),
        Row("V1", "D", "Varints are minimal and of at most nine bytes."),
        Row(
            "A1",
            "D",
            "Addresses survive text and bytes; an unknown protocol costs that address only; `/ipfs/` is `/p2p/`.",
        ),
    ),
)
RELAY = Section(
    "relay, DCUtR, AutoNAT v2",
    tuple(
        Row(identifier, level, rule)
        for identifier, level, rule in (
            ("C1", "M", "CONNECT only to peers with a reservation."),
            ("C2", "M", "The voucher is an envelope in its own domain."),
            ("C3", "S", "Nothing is relayed over a relayed connection."),
            ("C4", "S", "Both halves are reset at the limits of data and duration."),
            ("C5", "D", "Limited connections carry only protocols that opted in."),
            ("D1", "M", "DCUtR: who was dialled begins; both dial at the agreed time."),
            ("D2", "S", "Three attempts, the round trip measured anew for each."),
            ("D3", "M", "In a TCP simultaneous open A is the initiator."),
            ("N21", "M", "AutoNAT v2 dials one address, with the nonce checked and amplification bounded."),
            ("N22", "D", "At most 8 KiB and 50 addresses."),
        )
    ),
    absent="relay, DCUtR and AutoNAT are not built yet",
)
BITSWAP = Section(
    "Bitswap",
    (
        Row(
            "B1",
            "M",
            "1.0.0, 1.1.0 and 1.2.0; messages up to 4 MiB, blocks up to 2 MiB; a block that does not match, or "
            "that nobody asked for, is dropped.",
        ),
        Row("B2", "M", "Answers come on a stream of the responder's, and are taken from there."),
        Row("B3", "S", "A cancel after receipt, HAVE and DONT_HAVE, priorities in order."),
        Row(
            "B4",
            "D",
            "boxo's bounds: 1,024 wants of a peer, CIDs of 168 bytes, blocks up to 1,024 bytes in place of a HAVE.",
        ),
        Row("B5", "D", "One stream a peer: hundreds make Kubo go away."),
        Row("B6", "D", "dag-pb with links before data; 174 links and 256 KiB give Kubo's CIDs."),
    ),
)
LATER = Section(
    "DHT, gossipsub, IPNS",
    tuple(
        Row(identifier, level, rule)
        for identifier, level, rule in (
            ("H1", "M", "Distances on SHA-256, k = 20, α = 10; clients neither name nor accept the protocol."),
            ("H2", "D", "A node does not ask itself, and every hop has its time."),
            ("H3", "M", "A provider speaks for itself only; records expire."),
            ("G1", "M", "Validators; IDONTWANT; unknown extensions are ignored."),
            ("G2", "D", "Subscriptions first; bounded messages; back-off after a prune."),
            ("U1", "M", "Only the second signature with matching CBOR is trusted."),
        )
    ),
    absent="the DHT, gossipsub and IPNS are not built yet",
)

SECTIONS = (MULTISTREAM, NOISE, TLS, QUIC, YAMUX, MPLEX, WEBSOCKET, WEBRTC, IDENTIFY, PING, KEYS, RELAY, BITSWAP, LATER)
