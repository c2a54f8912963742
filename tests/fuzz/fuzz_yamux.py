"""A Yamux session takes any bytes, in any chunks, without an exception and within bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aiolibp2p.errors import Libp2pError, LocalProtocolError
from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.yamux import (
    ACK,
    FIN,
    HEADER_BYTES,
    INITIAL_WINDOW_BYTES,
    OPENED,
    RST,
    SYN,
    YamuxSession,
    YamuxStream,
)

LIMITS = Limits(
    connection_unread_bytes=20_000,
    connection_control_bytes=600,
    connection_send_bytes=5000,
    forgotten_ids=2,
    forgotten_bytes=100,
    yamux_ack_backlog=3,
    early_streams=2,
)
TIMEOUTS = Timeouts(keepalive=3.0, keepalive_answer=2.0)


def new_session(*, initiator: bool) -> YamuxSession:
    """Return a session with small limits and, where it may, two streams of its own."""
    session = YamuxSession(initiator=initiator, limits=LIMITS, timeouts=TIMEOUTS, now=0.0)
    for _ in range(2):
        session.open_stream().write(b"hello")
    return session


def check(session: YamuxSession, openings: int) -> None:
    """Check the counts, and what is kept after at most `openings` streams were opened."""
    streams = {*session.streams.values(), *session.changed, *session._finished}
    assert session.unread_bytes == sum(stream.unread_bytes for stream in streams) <= LIMITS.connection_unread_bytes
    assert all(stream.unread_bytes == sum(map(len, stream.chunks)) for stream in streams)
    assert all(stream.receive_window >= 0 and stream.send_window >= 0 for stream in streams)
    assert all(stream.unread_bytes <= max(stream.window, INITIAL_WINDOW_BYTES) for stream in streams)
    assert session.room == LIMITS.connection_send_bytes - sum(stream.queued_bytes for stream in streams)
    assert session.control_bytes <= LIMITS.connection_control_bytes + 2 * HEADER_BYTES
    assert session._windows == sum(stream.window for stream in session.streams.values())
    assert len(session._forgotten) <= LIMITS.forgotten_ids
    assert len(session._partial) < HEADER_BYTES
    assert len(session.streams) <= openings + 2
    assert 0 <= session._unacknowledged <= LIMITS.yamux_ack_backlog
    if session.terminated is not None:
        assert not session.scheduled


def settle(session: YamuxSession) -> list[YamuxStream]:
    """Take what has happened, as a shell does; each stream is told of once."""
    changed, session.changed = session.changed, []
    assert len({id(stream) for stream in changed}) == len(changed)
    for stream in changed:
        assert stream.events
        if stream.events & OPENED:
            assert stream.id & 1 == session._peer_parity
        stream.events = 0
    return changed


def command(session: YamuxSession, stream: YamuxStream, byte: int) -> None:
    """Do one of the things that an application does."""
    kind = byte % 8
    try:
        if kind == 0:
            stream.write(bytes(byte))
    except Libp2pError:
        assert stream.fin_queued or stream.reset_by is not None or session.terminated is not None
    if kind == 1:
        stream.read(byte + 1)
    elif kind == 2:
        stream.close_write()
    elif kind == 3:
        stream.stop_reading()
    elif kind == 4:
        stream.reset(byte)
    elif kind == 5:
        stream.close_write()
        stream.forget()
    elif kind == 6:
        session.bytes_to_send(byte * 20)
    elif session.can_open:
        session.open_stream()


def feed(session: YamuxSession, data: bytes) -> None:
    """Feed `data`, whose first byte says how it is cut, with nothing read and nothing sent."""
    size = (data[0] & 63) + 1 if data else 1
    known: set[YamuxStream] = set()
    for start in range(1, len(data), size):
        session.receive_bytes(data[start : start + size], start / 10)
        check(session, len(data) // HEADER_BYTES)
        known.update(settle(session))
    for stream in known:
        stream.read(1 << 20)
    session.receive_eof()
    session.bytes_to_send(1 << 20)
    assert session.terminated is not None


def initiator(data: bytes) -> None:
    """Take any bytes as the side that dialled."""
    feed(new_session(initiator=True), data)


def responder(data: bytes) -> None:
    """Take any bytes as the side that was dialled."""
    feed(new_session(initiator=False), data)


def frames_of(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Read six bytes each as one plausible frame, and what the application does behind it."""
    flags = (0, SYN, ACK, FIN, RST, SYN | FIN, ACK | FIN, 0xFFFF)
    for at in range(0, len(data) - 5, 6):
        kind, flag, stream_id, high, low, act = data[at : at + 6]
        length = (high % 16) << 8 | low
        kind %= 5 if high > 250 else 4
        header = bytes((0, kind)) + flags[flag % 8].to_bytes(2, "big") + (stream_id % 8).to_bytes(4, "big")
        if kind == 3 and high < 200:
            length = 0
        yield header + length.to_bytes(4, "big") + (bytes(length) if kind == 0 else b""), act


def structured(data: bytes) -> None:
    """Take plausible frames, while an application works and the clock goes on."""
    session = new_session(initiator=bool(data) and data[0] > 127)
    streams: list[YamuxStream] = list(session.streams.values())
    now = 0.0
    for number, (frame, act) in enumerate(frames_of(data)):
        now += act / 400
        session.receive_bytes(frame[: act % 30], now)
        session.receive_bytes(frame[act % 30 :], now)
        streams += [stream for stream in settle(session) if stream not in streams]
        if act & 1:
            command(session, streams[act // 2 % len(streams)], act // 3)
            streams += [stream for stream in session.streams.values() if stream not in streams]
        if act == 255:
            session.handle_timeout(session.next_timeout())
        settle(session)
        check(session, 2 * (number + 1))
    for stream in streams:
        stream.read(1 << 20)
        stream.reset()
    assert session.unread_bytes == 0
    assert session.room == LIMITS.connection_send_bytes - sum(stream.queued_bytes for stream in streams)


def opening_after_the_end(data: bytes) -> None:
    """Open a stream on a session that may be over."""
    session = new_session(initiator=True)
    session.receive_bytes(data, 0.0)
    try:
        session.open_stream()
        assert session.terminated is None
    except LocalProtocolError:
        assert not session.can_open


TARGETS: dict[str, Callable[[bytes], None]] = {
    "initiator": initiator,
    "responder": responder,
    "structured": structured,
    "opening_after_the_end": opening_after_the_end,
}

_PING = bytes.fromhex("000200010000000000000001")
_SYN_1 = bytes.fromhex("000100010000000100000000")
_DATA_1 = bytes.fromhex("000000000000000100000005") + b"hello"
_FIN_1 = bytes.fromhex("000100040000000100000000")
_RST_1 = bytes.fromhex("000100080000000100001002")
_GO_AWAY = bytes.fromhex("000300000000000000000000")

SEEDS: dict[str, list[bytes]] = {
    "initiator": [b"\x3f" + _PING + _DATA_1 + _FIN_1 + _GO_AWAY, b"\x04" + _RST_1 + _DATA_1],
    "responder": [
        b"\x3f" + _PING + _SYN_1 + _DATA_1 + _FIN_1,
        b"\x0b" + _SYN_1 + _RST_1 + _SYN_1 + _DATA_1 * 3 + _GO_AWAY,
        b"\x3f" + _PING * 40,
    ],
    "structured": [bytes(range(240)), b"\x00\x01\x01\x0f\xff\x03" * 40, b"\x01\x00\x02\x0f\xff\x00" * 60],
    "opening_after_the_end": [_PING + _GO_AWAY, _PING + _RST_1],
}
