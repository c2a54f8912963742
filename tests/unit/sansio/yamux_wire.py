"""Yamux frames as the specification has them, written down a second time, and sessions to try them on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.yamux import ACK, DATA, GO_AWAY, PING, SYN, WINDOW_UPDATE, Buffer, YamuxSession, YamuxStream
from tests.support.refusals import Refusals, reached

KIB = 1 << 10
WINDOW = 256 * KIB
EVERYTHING = 1 << 40


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; `length` is that of the payload unless it is given."""

    kind: int
    flags: int
    stream_id: int
    length: int
    payload: bytes = b""
    version: int = 0

    def __bytes__(self) -> bytes:
        header = bytes((self.version, self.kind)) + self.flags.to_bytes(2, "big")
        return header + self.stream_id.to_bytes(4, "big") + self.length.to_bytes(4, "big") + self.payload


def data(stream_id: int, payload: bytes = b"", flags: int = 0) -> Frame:
    return Frame(DATA, flags, stream_id, len(payload), payload)


def update(stream_id: int, length: int = 0, flags: int = 0) -> Frame:
    return Frame(WINDOW_UPDATE, flags, stream_id, length)


def ping(opaque: int, flags: int = SYN) -> Frame:
    return Frame(PING, flags, 0, opaque)


def go_away(code: int) -> Frame:
    return Frame(GO_AWAY, 0, 0, code)


def joined(parts: Iterable[Buffer]) -> bytes:
    return b"".join(bytes(part) for part in parts)


def parse(wire: bytes) -> list[Frame]:
    """Return the frames of `wire`, which must end with a whole one."""
    frames = []
    while wire:
        assert len(wire) >= 12, "half a header"
        kind, flags = wire[1], int.from_bytes(wire[2:4], "big")
        length = int.from_bytes(wire[8:12], "big")
        size = length if kind == DATA else 0
        assert len(wire) >= 12 + size, "half a payload"
        stream_id = int.from_bytes(wire[4:8], "big")
        frames.append(Frame(kind, flags, stream_id, length, wire[12 : 12 + size], wire[0]))
        wire = wire[12 + size :]
    return frames


def sent(session: YamuxSession) -> list[Frame]:
    """Take everything that the session wants to send."""
    frames = parse(joined(session.bytes_to_send(EVERYTHING)))
    assert not session.has_output
    return frames


def take(session: YamuxSession, *frames: Frame, now: float = 0.0) -> None:
    """Give the session some frames in one chunk."""
    session.receive_bytes(b"".join(map(bytes, frames)), now)


def new_session(
    *, initiator: bool = True, heard: bool = True, timeouts: Timeouts | None = None, now: float = 0.0, **limits: Any
) -> YamuxSession:
    """Return a session whose first ping has left and, unless not `heard`, whose peer's first ping was answered."""
    session = YamuxSession(
        initiator=initiator,
        limits=Limits(**limits),
        timeouts=timeouts or Timeouts(),
        now=now,
        refused=Refusals(),
    )
    assert sent(session) == [ping(1)]
    if heard:
        take(session, ping(7), now=now)
        assert sent(session) == [ping(7, ACK)]
        session.openable = False
    return session


def refusals(session: YamuxSession) -> dict[str, int]:
    """Return what limits have refused on a session made here."""
    assert isinstance(session._refused, Refusals)
    return reached(session._refused)


def listening(**limits: Any) -> YamuxSession:
    return new_session(initiator=False, **limits)


def opened(session: YamuxSession, stream_id: int = 1, *frames: Frame) -> YamuxStream:
    """Let the peer open a stream, and acknowledge it."""
    take(session, update(stream_id, flags=SYN), *frames)
    stream = session.streams[stream_id]
    assert update(stream_id, flags=ACK) in sent(session)
    events(session)
    return stream


def opening(session: YamuxSession) -> YamuxStream:
    """Open a stream that the peer has acknowledged."""
    stream = session.open_stream()
    assert sent(session) == [update(stream.id, flags=SYN)]
    take(session, update(stream.id, flags=ACK))
    session.openable = False
    return stream


def events(session: YamuxSession) -> dict[int, int]:
    """Take what happened, by stream id."""
    assert len({id(stream) for stream in session.changed}) == len(session.changed), "a stream is listed once"
    happened = {stream.id: stream.events for stream in session.changed}
    for stream in session.changed:
        stream.events = 0
    session.changed.clear()
    return happened


def read_all(stream: YamuxStream) -> bytes:
    """Read until nothing is there."""
    return b"".join(iter(lambda: stream.read(1 << 30), b""))


def exchange(one: YamuxSession, other: YamuxSession, now: float = 0.0) -> None:
    """Carry bytes both ways until nobody has more to send."""
    while one.has_output or other.has_output:
        other.receive_bytes(joined(one.bytes_to_send(EVERYTHING)), now)
        one.receive_bytes(joined(other.bytes_to_send(EVERYTHING)), now)


def pair(now: float = 0.0, **limits: Any) -> tuple[YamuxSession, YamuxSession]:
    """Return two sessions that have pinged each other."""
    one, other = (
        YamuxSession(initiator=initiator, limits=Limits(**limits), timeouts=Timeouts(), now=now)
        for initiator in (True, False)
    )
    exchange(one, other, now)
    return one, other
