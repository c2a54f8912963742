"""Yamux's flow control: credit, windows that grow, what may lie unread, and what comes late."""

from __future__ import annotations

import pytest

from aiolibp2p.limits import Limits
from aiolibp2p.sansio.yamux import (
    ACK,
    FIN,
    YamuxSession,
)
from tests.unit.sansio.yamux_wire import (
    KIB,
    WINDOW,
    data,
    listening,
    new_session,
    opened,
    opening,
    ping,
    read_all,
    refusals,
    sent,
    take,
    update,
)

HALF = WINDOW // 2


def measured(round_trip: float = 0.01, now: float = 0.0, **limits: int) -> YamuxSession:
    """Return a listening session that has measured its round trip."""
    session = listening(now=now, **limits)
    take(session, ping(1, ACK), now=now + round_trip)
    assert session.round_trip == pytest.approx(round_trip)
    return session


def fill(session: YamuxSession, stream_id: int, size: int, now: float) -> None:
    """Receive `size` bytes in frames of at most 60 KiB."""
    while size > 0:
        take(session, data(stream_id, bytes(min(size, 60 * KIB))), now=now)
        size -= 60 * KIB


# -- sending ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "taken"), [(WINDOW - 1, WINDOW - 1), (WINDOW, WINDOW), (WINDOW + 1, WINDOW)])
def test_write_takes_what_the_window_allows(size: int, taken: int) -> None:
    session = new_session()
    stream = opening(session)
    assert stream.write(bytes(size)) == taken
    assert (stream.credit, session.room) == (WINDOW - taken, Limits().connection_send_bytes - taken)
    assert stream.write(b"xx") == min(2, WINDOW - taken)


@pytest.mark.parametrize(("size", "taken"), [(99, 99), (100, 100), (101, 100)])
def test_write_takes_what_room_allows(size: int, taken: int) -> None:
    session = new_session(connection_send_bytes=100)
    stream = opening(session)
    assert stream.write(bytes(size)) == taken
    assert session.room == 100 - taken
    sent(session)
    assert session.room == 100


def test_room_is_shared_by_all_streams() -> None:
    session = new_session(connection_send_bytes=100)
    one, other = opening(session), opening(session)
    assert one.write(bytes(60)) == 60
    assert other.write(bytes(60)) == 40
    one.reset()
    assert session.room == 60
    assert other.write(bytes(20)) == 20


def test_urgent_bytes_need_no_room_but_credit() -> None:
    session = new_session(connection_send_bytes=10)
    stream, other = opening(session), opening(session)
    stream.write(bytes(10))
    assert stream.write(b"ab") == 0
    assert stream.write(b"ab", urgent=True) == 2
    assert session.room == -2
    assert other.write(b"c") == 0
    sent(session)
    assert session.room == 10
    assert stream.write(bytes(WINDOW), urgent=True) == WINDOW - 12
    assert stream.write(b"x", urgent=True) == 0


# -- receiving -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("read", "returned"), [(HALF - 1, 0), (HALF, HALF), (HALF + 1, HALF + 1)])
@pytest.mark.conforms("Y11")
def test_credit_is_returned_once_half_of_the_window_was_read(read: int, returned: int) -> None:
    """Y11: edge −1, 0, +1."""
    session = listening()
    stream = opened(session)
    fill(session, 1, WINDOW, 0.0)
    while read:
        assert not stream.credit_due
        read -= len(stream.read(min(read, 16 * KIB)) if read > 16 * KIB + 1 else stream.read(read))
    assert stream.credit_due is (returned > 0)
    assert sum(frame.length for frame in sent(session)) == returned == stream.receive_window


def test_credit_counts_what_still_lies_unread() -> None:
    session = listening()
    stream = opened(session)
    fill(session, 1, HALF, 0.0)
    assert not session.has_output
    assert len(stream.read(HALF)) == HALF
    fill(session, 1, HALF, 0.0)
    assert session.terminated is None
    assert sent(session) == [update(1, HALF)]


def test_receiver_never_holds_more_than_the_window() -> None:
    session = listening()
    stream = opened(session)
    allowed = WINDOW
    for size in (WINDOW, 1, HALF, 7, HALF + 1, 3 * KIB, HALF) * 5:
        size = min(size, allowed)
        fill(session, 1, size, 0.0)
        allowed -= size
        assert stream.unread_bytes <= WINDOW
        stream.read(size // 2 + 1)
        allowed += sum(frame.length for frame in sent(session))
    assert session.terminated is None
    assert stream.receive_window == allowed


def test_no_credit_is_returned_after_the_peers_fin() -> None:
    session = listening()
    stream = opened(session)
    fill(session, 1, WINDOW, 0.0)
    take(session, update(1, flags=FIN))
    assert len(read_all(stream)) == WINDOW
    assert sent(session) == []


def test_credit_in_the_middle_of_a_frame_leaves_out_the_bytes_to_come() -> None:
    session = listening()
    stream = opened(session)
    wire = bytes(data(1, bytes(WINDOW)))
    session.receive_bytes(wire[: 12 + HALF], 0.0)
    assert len(read_all(stream)) == HALF
    assert sent(session) == [update(1, HALF)]
    session.receive_bytes(wire[12 + HALF :], 0.0)
    assert len(read_all(stream)) == HALF
    assert sent(session) == [update(1, HALF)]
    assert stream.receive_window == WINDOW


def test_tiny_frames_are_joined() -> None:
    """One byte a frame must not cost forty bytes each."""
    session = listening()
    stream = opened(session)
    payload = bytes(n & 0xFF for n in range(20_000))
    take(session, *(data(1, payload[n : n + 1]) for n in range(len(payload))))
    assert stream.unread_bytes == 20_000
    assert len(stream.chunks) <= 4
    assert read_all(stream) == payload


def test_tiny_frames_between_reads_are_joined_and_in_order() -> None:
    session = listening()
    stream = opened(session)
    expected, got = b"", b""
    for n in range(3000):
        piece = bytes((n & 0xFF,)) * (n % 5 + 1)
        expected += piece
        take(session, data(1, piece))
        got += stream.read(2)
        assert len(stream.chunks) <= 2
    assert got + read_all(stream) == expected


def test_small_chunk_does_not_keep_the_record_it_came_in() -> None:
    session = listening()
    stream = opened(session)
    take(session, data(1, b"x" * 2000), data(1, b"y" * (16 * KIB)))
    small, large = stream.chunks
    assert type(small) is bytes
    assert type(large) is memoryview
    assert read_all(stream) == b"x" * 2000 + b"y" * (16 * KIB)


def test_what_lies_unread_keeps_at_most_twice_its_size_in_memory() -> None:
    """A peer that puts what is read at once beside what is not would else have four times as much kept."""
    session = listening()
    mute, read = opened(session), opened(session, 3)
    for size, kept in ((31 * KIB, bytes), (33 * KIB, memoryview)):
        take(session, data(1, bytes(size)), data(3, bytes(64 * KIB - size)))
        assert type(mute.chunks[-1]) is kept
        read_all(read)
        sent(session)
    assert sum(len(getattr(chunk, "obj", chunk)) for chunk in mute.chunks) <= 2 * mute.unread_bytes


def test_large_chunk_is_not_copied_for_a_byte_behind_it() -> None:
    session = listening()
    stream = opened(session)
    take(session, data(1, bytes(16 * KIB)), data(1, b"x"))
    assert [len(chunk) for chunk in stream.chunks] == [16 * KIB, 1]
    assert len(stream.read(1 << 20)) == 16 * KIB + 1


@pytest.mark.parametrize("max_bytes", [1, 2, 999, 1000, 1001, 1999, 2000, 2999, 3000, 1 << 20])
def test_read_returns_at_most_what_it_is_asked_for(max_bytes: int) -> None:
    session = listening()
    stream = opened(session)
    take(session, *(data(1, bytes((n,)) * 1000) for n in range(3)))
    pieces = list(iter(lambda: stream.read(max_bytes), b""))
    assert all(type(piece) is bytes and 0 < len(piece) <= max_bytes for piece in pieces)
    assert b"".join(pieces) == b"".join(bytes((n,)) * 1000 for n in range(3))
    assert stream.read(1) == b""
    assert stream.unread_bytes == session.unread_bytes == 0


# -- windows that grow -----------------------------------------------------------------------------------------------


@pytest.mark.conforms("Y11")
def test_window_doubles_when_it_was_used_up_within_four_round_trips() -> None:
    """Y11."""
    session = measured(0.01)
    stream = opened(session)
    fill(session, 1, HALF, 0.039)
    read_all(stream)
    assert stream.window == 2 * WINDOW
    assert sum(frame.length for frame in sent(session)) == HALF + WINDOW


def test_window_stays_when_it_lasted_four_round_trips() -> None:
    """Y11: the edge is exactly four; the stream came at 0.5."""
    session = measured(0.5)
    stream = opened(session)
    assert stream.window_since == 0.0
    stream.window_since = 0.5
    fill(session, 1, HALF, 2.5)
    read_all(stream)
    assert stream.window == WINDOW
    assert sent(session) == [update(1, HALF)]
    assert stream.window_since == 2.5


def test_window_never_grows_without_a_measured_round_trip() -> None:
    """Y11."""
    session = listening()
    stream = opened(session)
    for _ in range(20):
        fill(session, 1, WINDOW, 0.0)
        read_all(stream)
        assert sum(frame.length for frame in sent(session)) == WINDOW
    assert stream.window == WINDOW


@pytest.mark.parametrize("most", [300 * KIB, 1 << 20, 16 << 20])
@pytest.mark.conforms("Y11")
def test_window_grows_to_its_maximum_and_no_further(most: int) -> None:
    """Y11: to 16 MiB."""
    session = measured(1.0, yamux_window_max=most)
    stream = opened(session)
    windows = []
    for _ in range(9):
        fill(session, 1, stream.receive_window, 1.0)
        read_all(stream)
        sent(session)
        windows.append(stream.window)
        assert stream.receive_window == stream.window
    assert windows == [min(WINDOW << n, most) for n in range(1, 10)]
    assert session.terminated is None


def test_maximum_below_the_initial_window_shrinks_nothing() -> None:
    session = measured(1.0, yamux_window_max=KIB)
    stream = opened(session)
    fill(session, 1, WINDOW, 1.0)
    read_all(stream)
    assert stream.window == WINDOW
    assert stream.receive_window == WINDOW


def test_windows_together_do_not_grow_over_what_may_lie_unread() -> None:
    """Else two honest peers within their credit, whose readers pause, would lose a stream."""
    session = measured(1.0, connection_unread_bytes=1 << 20)
    streams = [opened(session, stream_id) for stream_id in (1, 3)]
    for stream in streams * 5:
        fill(session, stream.id, stream.receive_window, 1.0)
        read_all(stream)
        sent(session)
    assert sum(stream.window for stream in streams) == 1 << 20
    for stream in streams:
        fill(session, stream.id, stream.receive_window, 1.0)
    assert session.unread_bytes == 1 << 20
    assert (refusals(session), session.terminated) == ({}, None)
    streams[0].reset()
    read_all(streams[1])
    assert streams[1].window > 512 * KIB
    assert session._windows == streams[1].window


def test_window_of_a_stream_that_is_not_read_does_not_grow() -> None:
    session = measured(1.0)
    stream = opened(session)
    stream.stop_reading()
    for _ in range(8):
        fill(session, 1, stream.receive_window, 1.0)
        sent(session)
    assert stream.window == WINDOW
