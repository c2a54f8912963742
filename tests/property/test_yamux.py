"""Yamux: chunks mean nothing, and whatever two sessions do, every byte arrives once and in order."""

from __future__ import annotations

import math
from hashlib import shake_128

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.yamux import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    OPENED,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Buffer,
    YamuxSession,
    YamuxStream,
)
from tests.unit.sansio.yamux_wire import EVERYTHING, Frame, joined, parse, read_all

TIMEOUTS = Timeouts(keepalive=math.inf)
PATTERN_BYTES = 4 << 20
PATTERN = memoryview(shake_128(b"yamux").digest(PATTERN_BYTES) * 2)

# -- chunks ----------------------------------------------------------------------------------------------------------

ids = st.sampled_from([0, 1, 2, 3, 5, 7])
flags = st.sampled_from([0, 0, 0, SYN, SYN, ACK, FIN, RST, SYN | FIN, ACK | FIN, 0xFFFF])
payloads = st.binary(max_size=40) | st.integers(0, 70_000).map(bytes)
frames = st.one_of(
    st.builds(lambda i, f, p: Frame(DATA, f, i, len(p), p), ids, flags, payloads),
    st.builds(lambda i, f, n: Frame(WINDOW_UPDATE, f, i, n), ids, flags, st.integers(0, 1000)),
    st.builds(lambda f, n: Frame(PING, f, 0, n), st.sampled_from([SYN, SYN, ACK]), st.integers(0, 3)),
    st.builds(lambda n: Frame(GO_AWAY, 0, 0, n), st.sampled_from([0, 0, 0, 1])),
)
openings = st.builds(lambda i, p: Frame(DATA, SYN, i, len(p), p), st.sampled_from([1, 3, 5]), payloads)
conversations = st.builds(
    lambda first, rest, tail: b"".join(map(bytes, first + rest)) + tail,
    st.lists(openings, max_size=3, unique_by=lambda frame: frame.stream_id),
    st.lists(frames, max_size=12),
    st.binary(max_size=30),
)
cuts = st.lists(st.integers(1, 60) | st.integers(1, 70_000), max_size=30)


def new_session(*, initiator: bool, limits: Limits | None = None) -> YamuxSession:
    return YamuxSession(initiator=initiator, limits=limits or Limits(), timeouts=TIMEOUTS, now=0.0)


def outcome(wire: bytes, sizes: list[int]) -> object:
    """Return what the application and the peer see of a session that was fed `wire` in chunks."""
    session = new_session(initiator=False)
    seen: dict[YamuxStream, int] = {}
    for size in [*sizes, len(wire)]:
        session.receive_bytes(wire[:size], 0.0)
        wire = wire[size:]
        for stream in session.changed:
            seen[stream] = seen.get(stream, 0) | stream.events
            stream.events = 0
        session.changed.clear()
    session.receive_eof()
    streams = [
        (stream.id, bits, stream.reset_by, stream.reset_code, stream.credit, read_all(stream), stream.at_eof)
        for stream, bits in seen.items()
    ]
    return repr(session.terminated), streams, parse(joined(session.bytes_to_send(EVERYTHING)))


@given(wire=conversations, sizes=cuts)
def test_how_bytes_are_cut_changes_nothing(wire: bytes, sizes: list[int]) -> None:
    assert outcome(wire, sizes) == outcome(wire, [])


@given(wire=st.lists(frames, max_size=6).map(lambda few: b"".join(map(bytes, few))[:2000]))
def test_bytes_may_come_one_by_one(wire: bytes) -> None:
    assert outcome(wire, [1] * len(wire)) == outcome(wire, [])


# -- pieces ----------------------------------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(0, 5) | st.integers(0, 70_000), max_size=30),
    asked=st.lists(st.integers(1, 200_000), min_size=1, max_size=10),
    others=st.integers(0, 2),
)
def test_pieces_of_any_size_leave_whole(sizes: list[int], asked: list[int], others: int) -> None:
    session = new_session(initiator=True, limits=Limits(connection_send_bytes=8 << 20))
    streams = [session.open_stream() for _ in range(others + 1)]
    written = dict.fromkeys((stream.id for stream in streams), 0)
    for n, size in enumerate(sizes):
        stream = streams[n % len(streams)]
        stream.send_window += size
        start = written[stream.id]
        written[stream.id] += stream.write(PATTERN[start : start + size])
    parts: list[Buffer] = []
    while session.has_output:
        parts += session.bytes_to_send(asked[len(parts) % len(asked)])
    payloads = dict.fromkeys(written, b"")
    for frame in parse(joined(parts)):
        payloads.setdefault(frame.stream_id, b"")
        payloads[frame.stream_id] += frame.payload
    payloads.pop(0, None)
    assert payloads == {stream_id: bytes(PATTERN[:size]) for stream_id, size in written.items()}
    assert session.room == 8 << 20


@given(
    sizes=st.lists(st.integers(0, 50) | st.integers(0, 40_000), max_size=12),
    reads=st.lists(st.integers(1, 50) | st.integers(1, 100_000), max_size=60),
)
def test_reads_of_any_size_lose_nothing(sizes: list[int], reads: list[int]) -> None:
    session = new_session(initiator=False)
    session.receive_bytes(bytes(Frame(WINDOW_UPDATE, SYN, 1, 0)), 0.0)
    stream = session.streams[1]
    received, got = 0, b""
    turns = max(len(sizes), len(reads))
    for n in range(turns):
        if n < len(sizes):
            size = min(sizes[n], stream.receive_window)
            payload = bytes(PATTERN[received : received + size])
            received += size
            session.receive_bytes(bytes(Frame(DATA, 0, 1, size, payload)), 0.0)
        if n < len(reads):
            data = stream.read(reads[n])
            assert len(data) <= reads[n]
            got += data
        assert stream.unread_bytes == sum(map(len, stream.chunks)) == received - len(got)
    assert got + read_all(stream) == PATTERN[:received]
    assert session.terminated is None


# -- two sessions ----------------------------------------------------------------------------------------------------

LIMITS = Limits(
    connection_send_bytes=100_000,
    yamux_ack_backlog=5,
    early_streams=2,
    yamux_window_max=1 << 20,
    forgotten_ids=2,
)


class End:
    """One end of a stream, and what it should be."""

    def __init__(self, stream: YamuxStream) -> None:
        self.stream = stream
        self.start = (stream.id * 65_521 + (17 if stream.session._peer_parity else 0)) % PATTERN_BYTES
        self.written = 0
        self.read = 0
        self.discards = self.broken = self.closed = False

    def expected(self, start: int, size: int) -> memoryview:
        """Return the bytes that this end writes at `start`."""
        at = (self.start + start) % PATTERN_BYTES
        return PATTERN[at : at + size]


class TwoSessions(RuleBasedStateMachine):
    """Two sessions, two wires that hold bytes back, and a model of each stream."""

    @initialize(window=st.sampled_from([0, 256 << 10, 300_000]))
    def start(self, window: int) -> None:
        limits = Limits(**{**LIMITS.__dict__, "yamux_window": window})
        self.sessions = [new_session(initiator=initiator, limits=limits) for initiator in (True, False)]
        self.wires = [bytearray(), bytearray()]
        """What each side has sent and the other has not yet received."""
        self.ends: list[dict[int, End]] = [{}, {}]
        self.now = 0.0

    # What a shell does.

    def pull(self, side: int, max_bytes: int) -> None:
        session = self.sessions[side]
        assert session.has_output or not session.bytes_to_send(max_bytes)
        for part in session.bytes_to_send(max_bytes):
            self.wires[side] += part

    def deliver(self, side: int, size: int) -> None:
        receiver = self.sessions[1 - side]
        data = bytes(self.wires[side][:size])
        del self.wires[side][:size]
        receiver.receive_bytes(data, self.now)
        for stream in receiver.changed:
            assert stream.events
            if stream.events & OPENED:
                assert stream.id not in self.ends[1 - side]
                self.ends[1 - side][stream.id] = End(stream)
            if stream.reset_by is not None:
                self.broken(stream.id)
            stream.events = 0
        receiver.changed.clear()

    def broken(self, stream_id: int) -> None:
        for ends in self.ends:
            if stream_id in ends:
                ends[stream_id].broken = True

    def pick(self, side: int, number: int) -> End | None:
        ends = list(self.ends[side].values())
        return ends[number % len(ends)] if ends else None

    sides = st.integers(0, 1)
    numbers = st.integers(0, 7)
    sizes = st.integers(0, 30) | st.integers(0, 5000) | st.integers(0, 400_000)

    @rule(side=sides)
    def open(self, side: int) -> None:
        session = self.sessions[side]
        if session.can_open and len(self.ends[side]) < 12:
            stream = session.open_stream()
            self.ends[side][stream.id] = End(stream)

    @rule(side=sides, number=numbers, size=sizes, urgent=st.sampled_from([False, False, True]))
    def write(self, side: int, number: int, size: int, urgent: bool) -> None:
        end = self.pick(side, number)
        if end is None or end.closed or end.stream.reset_by is not None:
            return
        room, credit = self.sessions[side].room, end.stream.credit
        taken = end.stream.write(end.expected(end.written, size), urgent=urgent)
        assert taken == max(0, min(size, credit) if urgent else min(size, credit, room))
        end.written += taken

    @rule(side=sides, number=numbers, size=sizes)
    def read(self, side: int, number: int, size: int) -> None:
        end = self.pick(side, number)
        if end is not None:
            self.take(side, end, size + 1)

    def take(self, side: int, end: End, size: int) -> int:
        data = end.stream.read(size)
        assert len(data) <= size
        if data:
            assert not end.discards
            other = self.ends[1 - side][end.stream.id]
            assert end.read + len(data) <= other.written
            assert data == other.expected(end.read, len(data)), "what is read is what was written, in order"
            end.read += len(data)
        return len(data)

    @rule(side=sides, number=numbers)
    def close_write(self, side: int, number: int) -> None:
        end = self.pick(side, number)
        if end is not None:
            end.closed = True
            end.stream.close_write()

    @rule(side=sides, number=numbers)
    def stop_reading(self, side: int, number: int) -> None:
        end = self.pick(side, number)
        if end is not None:
            end.discards = True
            end.stream.stop_reading()

    @rule(side=sides, number=numbers, code=st.integers(0, 3))
    def reset(self, side: int, number: int, code: int) -> None:
        end = self.pick(side, number)
        if end is not None and number < 3:
            self.broken(end.stream.id)
            end.discards = end.closed = end.broken = True
            end.stream.reset(code)

    @rule(side=sides, number=numbers)
    def forget(self, side: int, number: int) -> None:
        end = self.pick(side, number)
        if end is not None and number < 3:
            end.discards = end.closed = True
            end.stream.close_write()
            end.stream.forget()

    @rule(side=sides, size=st.integers(1, 300_000))
    def send(self, side: int, size: int) -> None:
        self.pull(side, size)

    @precondition(lambda self: any(self.wires))
    @rule(side=sides, size=st.integers(1, 40) | st.integers(1, 300_000), seconds=st.floats(0, 0.2))
    def receive(self, side: int, size: int, seconds: float) -> None:
        self.now += seconds
        self.deliver(side, size)

    @rule(rounds=st.integers(1, 3))
    def exchange(self, rounds: int) -> None:
        for _ in range(rounds):
            for side in (0, 1):
                self.pull(side, EVERYTHING)
                self.deliver(side, EVERYTHING)

    # What must hold at any time.

    @invariant()
    def nobody_ends_the_session(self) -> None:
        for session in self.sessions:
            assert session.terminated is None

    @invariant()
    def counts_are_what_they_count(self) -> None:
        for session, ends in zip(self.sessions, self.ends, strict=True):
            streams = [end.stream for end in ends.values()]
            for stream in streams:
                assert stream.send_window >= 0
                assert stream.receive_window >= 0
                assert stream.queued_bytes == sum(map(len, stream.queue))
                assert stream.unread_bytes == sum(map(len, stream.chunks))
            assert session.room + sum(stream.queued_bytes for stream in streams) == LIMITS.connection_send_bytes
            assert session.unread_bytes == sum(stream.unread_bytes for stream in streams)
            live = list(session.streams.values())
            assert session._windows == sum(stream.window for stream in live)
            assert session._unacknowledged == sum(not stream.acknowledged for stream in live) <= 5
            assert all(end.stream in live or end.stream.finished or end.stream.forgotten for end in ends.values())
            assert len(session._forgotten) <= 2

    # What must hold when both have finished.

    def teardown(self) -> None:
        if not hasattr(self, "sessions"):
            return
        for ends in self.ends:
            for end in ends.values():
                end.stream.close_write()
        self.settle()
        for ends in self.ends:
            for end in ends.values():
                end.stream.close_write()
        self.settle()
        for side, session in enumerate(self.sessions):
            assert session.streams == {}, f"streams are left on side {side}"
            assert (session.unread_bytes, session.room) == (0, LIMITS.connection_send_bytes)
            assert session._finished == {}
            assert not session.scheduled
            for end in self.ends[side].values():
                other = self.ends[1 - side].get(end.stream.id)
                lossy = end.broken or end.discards or end.stream.reset_by or other is None or other.broken
                if not lossy and other is not None and not other.stream.forgotten:
                    assert end.read == other.written
                    assert end.stream.at_eof

    def settle(self) -> None:
        """Exchange and read until nothing moves."""
        moved = True
        while moved:
            moved = False
            for side in (0, 1):
                for end in list(self.ends[side].values()):
                    while self.take(side, end, 1 << 20):
                        moved = True
                self.pull(side, EVERYTHING)
                moved = moved or bool(self.wires[side])
                self.deliver(side, EVERYTHING)


TestTwoSessions = TwoSessions.TestCase
TestTwoSessions.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
