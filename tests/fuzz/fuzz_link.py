"""A whole host, from the socket to the handlers, takes any bytes of a peer, and holds nothing of it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aiolibp2p.net.link import Link
from aiolibp2p.sansio.bitswap.message import PROTOCOL as BITSWAP
from aiolibp2p.sansio.bitswap.message import Entry, Message, encode
from aiolibp2p.sansio.identify import Identify
from aiolibp2p.sansio.identify import encode as encode_identify
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.noise import NoiseChannel, NoiseHandshake, NoiseIdentity
from aiolibp2p.sansio.yamux import ACK, FIN, RST, SYN
from tests.fuzz.rig import BLOCK, ECHO, PEER, WANTED, Rig, SeededEntropy

PROTOCOLS = (
    "/ipfs/id/1.0.0",
    "/ipfs/id/push/1.0.0",
    "/ipfs/ping/1.0.0",
    "/perf/1.0.0",
    BITSWAP,
    ECHO,
    "/nobody/speaks/this",
    "ls",
)
KINDS = 4
DATA, WINDOW_UPDATE = 0, 1
_rigs: list[Rig] = []


def rig() -> Rig:
    """Return the host of this process, made with its first input."""
    if not _rigs:
        _rigs.append(Rig())
    return _rigs[0]


def pieces(data: bytes) -> Iterator[bytes]:
    """Cut `data` behind its first byte, which says how."""
    size = (data[0] + 1) * 8 if data else 1
    for start in range(1, len(data), size):
        yield data[start : start + size]


def _upgrade(data: bytes, *, initiator: bool) -> None:
    ours = rig()
    link = ours.open(ours.upgrade(initiator=initiator), initiator=initiator)
    for piece in pieces(data):
        ours.feed(link, piece)
        ours.check(link)
        ours.loop.turn()
    if data and data[0] & 1:
        link.eof_received()
    ours.finish(link)


def inbound(data: bytes) -> None:
    """Take what somebody who connects sends first."""
    _upgrade(data, initiator=False)


def outbound(data: bytes) -> None:
    """Take what somebody who was dialled answers."""
    _upgrade(data, initiator=True)


def records(data: bytes) -> None:
    """Take bytes in place of Noise records, behind a true one."""
    ours = rig()
    link = ours.open()
    ours.feed(link, NoiseChannel(b"2" * 32, b"1" * 32).encrypt((_PING,)))
    for piece in pieces(data):
        ours.feed(link, piece)
        ours.check(link)
    ours.finish(link)


def frames(data: bytes) -> None:
    """Take bytes of a peer as Yamux, in Noise records, by the side that dialled or was dialled."""
    ours = rig()
    link = ours.open(initiator=bool(data) and data[0] > 127)
    channel = NoiseChannel(b"2" * 32, b"1" * 32)
    for piece in pieces(data):
        ours.feed(link, channel.encrypt((piece,)))
        ours.check(link)
        if len(piece) & 1:
            ours.loop.turn()
    ours.finish(link)


def _frame(kind: int, flags: int, stream_id: int, length: int, body: bytes = b"") -> bytes:
    return bytes((0, kind)) + flags.to_bytes(2, "big") + stream_id.to_bytes(4, "big") + length.to_bytes(4, "big") + body


def _act(ours: Rig, link: Link, channel: NoiseChannel, acts: Iterator[tuple[int, int, bytes]]) -> None:
    """Do what the bytes say: open streams for protocols, write, finish, reset, pause, let time pass."""
    used = 0
    for kind, which, body in acts:
        ids = range(1, 2 * used + 1, 2) or (1,)
        stream_id = ids[which % len(ids)]
        out = b""
        if kind == 0:
            stream_id = 2 * used + 1
            used += 1
            body = proposal(PROTOCOLS[which % len(PROTOCOLS)]) + body
            out = _frame(DATA, SYN, stream_id, len(body), body)
        elif kind == 1:
            out = _frame(DATA, 0, stream_id, len(body), body)
        elif kind == 2:
            out = _frame(DATA, FIN, stream_id, len(body), body)
        elif kind == 3:
            out = _frame(WINDOW_UPDATE, RST, stream_id, which)
        elif kind == 4:
            out = _frame(WINDOW_UPDATE, 0, stream_id, which << 12)
        elif kind == 5 and which & 1:
            link.pause_writing()
        elif kind == 5:
            link.resume_writing()
        elif kind == 6:
            ours.loop.now += which / 8
        if out:
            ours.feed(link, channel.encrypt((out,)))
        ours.loop.turn(1 + which % 3)
        ours.check(link)


def _acts(data: bytes, kinds: int) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + 2 < len(data):
        kind, which, size = data[at], data[at + 1], data[at + 2]
        yield kind % kinds, which, data[at + 3 : at + 3 + size]
        at += 3 + size


def streams(data: bytes) -> None:
    """Serve streams of every protocol that a host speaks, all at once."""
    ours = rig()
    link = ours.open()
    _act(ours, link, NoiseChannel(b"2" * 32, b"1" * 32), _acts(data, 7))
    ours.finish(link)


def answers(data: bytes) -> None:
    """Take the answers to identify, ping, perf, an echo and a want, on the streams that were opened for them."""
    ours = rig()
    link = ours.open()
    channel = NoiseChannel(b"2" * 32, b"1" * 32)
    host, bitswap = ours.host, ours.bitswap
    ours.ask(lambda connection: host.ping(connection.peer_id))
    ours.ask(lambda connection: host.identify(connection.peer_id))
    ours.ask(lambda connection: host.perf(connection.peer_id, upload_bytes=100, download_bytes=100))
    ours.ask(lambda connection: connection.open_stream("/one/1.0.0", "/two/1.0.0"))
    ours.ask(lambda connection: bitswap.get(WANTED, [connection.peer_id]))
    protocols = {stream.id: stream.protocol for connection in host.connections for stream in connection.streams}
    for kind, which, body in _acts(data, 5):
        if not protocols:
            break
        stream_id = sorted(protocols)[which % len(protocols)]
        if kind == 0 and protocols[stream_id]:
            body = proposal(protocols[stream_id]) + body
        flags = (ACK, 0, FIN, RST, ACK | FIN)[kind]
        ours.feed(link, channel.encrypt((_frame(DATA, flags, stream_id, len(body), body),)))
        ours.loop.now += which / 512
        ours.loop.turn(2)
        ours.check(link)
        protocols |= {stream.id: stream.protocol for connection in host.connections for stream in connection.streams}
    ours.finish(link)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "inbound": inbound,
    "outbound": outbound,
    "records": records,
    "frames": frames,
    "streams": streams,
    "answers": answers,
}

_PING = _frame(2, SYN, 0, 7)


def _said(kind: int, which: int, body: bytes = b"") -> bytes:
    return bytes((kind, which, len(body))) + body


_IDENTIFY = b"".join(encode_identify(Identify(public_key=PEER.public, protocols=(BITSWAP, "/a"))))
_WANTS = b"".join(encode(Message([Entry(bytes(WANTED), 1, False, True, True)]), 4096))
_PEER_HELLO = NoiseHandshake("initiator", NoiseIdentity(PEER, SeededEntropy("static")), SeededEntropy("hello"))
_SYN = _frame(DATA, SYN, 1, len(proposal(ECHO)) + 5, proposal(ECHO) + b"hello")

SEEDS: dict[str, list[bytes]] = {
    "inbound": [b"\xff" + proposal("/noise") + _PEER_HELLO.bytes_to_send(), b"\x01" + proposal("/tls/1.0.0")],
    "outbound": [b"\xff" + proposal("/noise"), b"\x00" + proposal("/noise")[:20]],
    "records": [
        b"\xff" + bytes(NoiseChannel(b"2" * 32, b"1" * 32).encrypt((_SYN,))),
        b"\x03\x00\x11" + bytes(17),
    ],
    "frames": [b"\x7f" + _PING + _SYN, b"\x01" + _SYN + _frame(WINDOW_UPDATE, FIN, 1, 0), b"\xff" + _PING * 9],
    "streams": [
        b"".join(_said(0, number, BLOCK) for number in range(8)) + _said(2, 5) + _said(6, 255),
        _said(0, 3, bytes(7) + b"\x40") + _said(2, 0) + _said(0, 1, _IDENTIFY) + _said(2, 1) + _said(3, 0),
        _said(0, 4, _WANTS) + _said(5, 1) + _said(0, 2, bytes(32)) + _said(5, 0) + _said(6, 200) + _said(4, 9),
    ],
    "answers": [
        b"".join(_said(0, number) for number in range(6)) + _said(1, 0, _IDENTIFY) + _said(2, 0),
        _said(0, 0, _IDENTIFY) + _said(2, 0) + _said(0, 1, bytes(32)) + _said(3, 2) + _said(1, 3, b"\x03na\n"),
    ],
}
