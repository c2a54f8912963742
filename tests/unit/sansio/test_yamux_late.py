"""What Yamux drops and returns: bytes unread, bytes unwanted, and bytes that come late (I1 of the design)."""

from __future__ import annotations

import pytest

from aiolibp2p.limits import Limits
from aiolibp2p.sansio.yamux import (
    ACK,
    FIN,
    READABLE,
    RESET,
    RESOURCE_LIMIT,
    RST,
    SYN,
    WINDOW_UPDATE,
    YamuxSession,
    YamuxStream,
)
from tests.unit.sansio.yamux_wire import (
    KIB,
    WINDOW,
    Frame,
    data,
    events,
    exchange,
    listening,
    new_session,
    opened,
    opening,
    pair,
    ping,
    read_all,
    refusals,
    sent,
    take,
    update,
)

HALF = WINDOW // 2


def fill(session: YamuxSession, stream_id: int, size: int, now: float) -> None:
    """Receive `size` bytes in frames of at most 60 KiB."""
    while size > 0:
        take(session, data(stream_id, bytes(min(size, 60 * KIB))), now=now)
        size -= 60 * KIB


# -- what may lie unread ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("extra", "resets"), [(-1, 0), (0, 0), (1, 1)])
def test_longest_unread_stream_is_reset_when_too_much_lies_unread(extra: int, resets: int) -> None:
    """Edge −1, 0, +1 of `connection_unread_bytes`."""
    session = listening(connection_unread_bytes=10_000)
    streams = [opened(session, stream_id) for stream_id in (1, 3, 5)]
    take(session, data(1, bytes(3000)), data(3, bytes(4500)), data(5, bytes(1500)), data(1, bytes(1000 + extra)))
    assert refusals(session) == ({"connection_unread_bytes": 1} if resets else {})
    assert session.unread_bytes == sum(stream.unread_bytes for stream in streams)
    assert session.unread_bytes == (5501 if resets else 10_000 + extra)
    assert [stream.reset_by for stream in streams] == [None, "local" if resets else None, None]
    assert sent(session) == [update(3, RESOURCE_LIMIT, RST)] * resets
    assert events(session)[3] == READABLE | RESET * resets


def test_stream_that_is_receiving_can_be_the_longest() -> None:
    session = listening(connection_unread_bytes=10_000)
    other, stream = opened(session, 3, data(3, bytes(100))), opened(session)
    wire = bytes(data(1, bytes(20_000), FIN)) + bytes(data(3, b"after"))
    session.receive_bytes(wire[:5000], 0.0)
    assert not stream.finished
    session.receive_bytes(wire[5000:], 0.0)
    assert (stream.reset_by, stream.reset_code, stream.fin_received) == ("local", RESOURCE_LIMIT, False)
    assert session.unread_bytes == other.unread_bytes == 105
    assert sent(session) == [update(1, RESOURCE_LIMIT, RST)]


def test_unread_bytes_leave_the_count_with_their_stream() -> None:
    session = listening()
    ways = [opened(session, stream_id, data(stream_id, bytes(1000))) for stream_id in (1, 3, 5, 7)]
    assert session.unread_bytes == 4000
    ways[0].reset()
    assert session.unread_bytes == 3000
    ways[1].stop_reading()
    assert session.unread_bytes == 2000
    take(session, update(5, flags=RST))
    assert session.unread_bytes == 1000
    ways[3].forget()
    assert session.unread_bytes == 0


def finished(session: YamuxSession, stream_id: int, size: int) -> YamuxStream:
    """Return a stream that both sides have finished, with `size` bytes unread."""
    stream = opened(session, stream_id, data(stream_id, bytes(size), FIN))
    stream.close_write()
    assert sent(session) == [update(stream_id, flags=FIN)]
    assert stream_id not in session.streams
    assert session.unread_bytes >= size
    events(session)
    return stream


def test_unread_bytes_of_a_finished_stream_leave_the_count_however_it_goes() -> None:
    for leave in (read_all, YamuxStream.stop_reading, YamuxStream.reset, YamuxStream.forget):
        session = listening()
        stream = finished(session, 1, 1000)
        leave(stream)
        assert (session.unread_bytes, stream.read(10), session._finished) == (0, b"", {})
        assert sent(session) == [], "the peer has nothing to do with it any more"


def test_finished_stream_that_is_half_read_still_counts() -> None:
    session = listening()
    stream = finished(session, 1, 1000)
    assert len(stream.read(400)) == 400
    assert session.unread_bytes == 600
    assert len(stream.read(600)) == 600
    assert stream.at_eof
    assert (session.unread_bytes, session._finished) == (0, {})


def test_finished_stream_can_be_the_longest_unread() -> None:
    session = listening(connection_unread_bytes=1000)
    stream = finished(session, 1, 900)
    small = opened(session, 3, data(3, bytes(101)))
    assert (stream.reset_by, stream.reset_code) == ("local", RESOURCE_LIMIT)
    assert (small.reset_by, session.unread_bytes) == (None, 101)
    assert refusals(session) == {"connection_unread_bytes": 1}
    assert not stream.chunks
    assert not session.has_output, "the peer has finished: it is told nothing"


def test_finished_stream_that_was_dropped_unread_tells_of_a_reset() -> None:
    session = listening(connection_unread_bytes=1000)
    stream = finished(session, 1, 900)
    other = opened(session, 3)
    take(session, data(3, bytes(200)))
    assert events(session) == {1: RESET, 3: READABLE}
    assert other.unread_bytes == 200
    assert stream.finished


def test_late_rst_for_a_finished_stream_takes_no_unread_byte() -> None:
    """Y5: both FIN frees the id."""
    session = listening()
    stream = finished(session, 1, 1000)
    take(session, update(1, flags=RST), data(1, b"x"), update(1, 10))
    assert len(read_all(stream)) == 1000
    assert stream.at_eof
    assert sent(session) == []


@pytest.mark.parametrize("initiator", [True, False])
def test_larger_window_is_announced_in_the_opening(initiator: bool) -> None:
    """Y3: window update in the SYN/ACK may enlarge."""
    ours = new_session(initiator=initiator, yamux_window=1 << 20)
    if initiator:
        stream, flag = ours.open_stream(), SYN
    else:
        take(ours, update(1, flags=SYN))
        stream, flag = ours.streams[1], ACK
    assert sent(ours) == [update(1, flags=flag), update(1, (1 << 20) - WINDOW)]
    fill(ours, 1, 1 << 20, 0.0)
    assert ours.terminated is None
    assert len(read_all(stream)) == 1 << 20
    assert sum(frame.length for frame in sent(ours)) == 1 << 20


@pytest.mark.parametrize("window", [0, 1, 64 * KIB, WINDOW, WINDOW + 1, 3 * WINDOW])
def test_streams_flow_with_any_configured_window(window: int) -> None:
    """Y3: what is below the initial window cannot be taken back from the peer."""
    one, other = pair(yamux_window=window)
    stream = one.open_stream()
    written = got = 0
    for _ in range(20):
        written += stream.write(bytes(WINDOW))
        exchange(one, other)
        got += len(read_all(other.streams[1]))
        exchange(one, other)
    assert written == got == 20 * WINDOW
    assert one.terminated is other.terminated is None


# -- what is dropped -------------------------------------------------------------------------------------------------


def test_discarded_bytes_return_their_credit() -> None:
    """I1: or an echoing peer would stop reading ours."""
    session = listening()
    stream = opened(session)
    fill(session, 1, WINDOW, 0.0)
    stream.stop_reading()
    stream.stop_reading()
    assert sent(session) == [update(1, WINDOW)]
    assert stream.credit_due
    returned = 0
    for _ in range(100):
        take(session, data(1, bytes(10 * KIB)))
        returned += sum(frame.length for frame in sent(session))
    assert session.terminated is None
    assert 1000 * KIB - HALF < returned <= 1000 * KIB
    assert (session.unread_bytes, stream.read(10)) == (0, b"")
    take(session, update(1, flags=FIN))
    assert stream.at_eof


def test_frame_that_is_dropped_as_it_comes_returns_each_byte_once() -> None:
    """I1: reading stops in the middle of a frame."""
    session = listening()
    stream = opened(session)
    wire = bytes(data(1, bytes(WINDOW)))
    session.receive_bytes(wire[: 12 + 1000], 0.0)
    stream.stop_reading()
    for start in range(1012, len(wire), 1000):
        session.receive_bytes(wire[start : start + 1000], 0.0)
    returned = sum(frame.length for frame in sent(session))
    assert stream.receive_window == returned <= WINDOW
    assert returned > HALF


def test_stop_reading_after_the_peers_fin_returns_nothing() -> None:
    session = listening()
    stream = opened(session, 1, data(1, bytes(200 * KIB), FIN))
    stream.stop_reading()
    assert sent(session) == []
    assert stream.at_eof


def forgotten(session: YamuxSession) -> int:
    """Open a stream, write, finish and forget it; return its id."""
    stream = opening(session)
    stream.write(b"request")
    stream.close_write()
    stream.forget()
    assert sent(session) == [data(stream.id, b"request"), update(stream.id, flags=FIN)]
    assert stream.id not in session.streams
    return stream.id


def test_what_is_queued_leaves_before_a_stream_is_forgotten() -> None:
    """I1: a slow honest peer still reads every byte."""
    session = new_session()
    stream = opening(session)
    stream.write(bytes(200 * KIB))
    stream.close_write()
    stream.forget()
    assert session.streams == {1: stream}
    frames = sent(session)
    assert sum(len(frame.payload) for frame in frames) == 200 * KIB
    assert frames[-1] == update(1, flags=FIN)
    assert session.streams == {}
    assert session.room == Limits().connection_send_bytes


@pytest.mark.parametrize(("sizes", "resets"), [((1024,), 0), ((1023, 1), 0), ((1025,), 1), ((1000, 25), 1)])
def test_late_bytes_for_a_forgotten_id_are_dropped_up_to_1024(sizes: tuple[int, ...], resets: int) -> None:
    """I1: RST only after more than 1,024 bytes."""
    session = new_session()
    stream_id = forgotten(session)
    take(session, update(stream_id, 500), *(data(stream_id, bytes(size)) for size in sizes), data(stream_id))
    assert sent(session) == [update(stream_id, 0, RST)] * resets
    assert refusals(session) == ({"forgotten_bytes": 1} if resets else {})
    take(session, data(stream_id, bytes(3000) if resets else b"", FIN), update(stream_id, flags=FIN))
    assert sent(session) == []
    assert session.terminated is None


def test_late_body_for_a_forgotten_id_is_consumed_in_pieces() -> None:
    """I1."""
    session = new_session()
    wire = bytes(data(forgotten(session), bytes(100 * KIB))) + bytes(ping(4))
    for start in range(0, len(wire), 7000):
        session.receive_bytes(wire[start : start + 7000], 0.0)
    assert sent(session) == [update(1, 0, RST), ping(4, ACK)]


def test_oldest_forgotten_id_makes_room() -> None:
    """I1: a bounded table; frames for an id that left it are ignored."""
    session = new_session(forgotten_ids=3)
    ids = [forgotten(session) for _ in range(3)]
    assert refusals(session) == {}
    ids.append(forgotten(session))
    assert refusals(session) == {"forgotten_ids": 1}
    take(session, *(data(stream_id, bytes(2000)) for stream_id in ids))
    assert [frame.stream_id for frame in sent(session)] == ids[1:]
    assert not session._forgotten


def test_forgotten_stream_leaves_the_ack_backlog() -> None:
    session = new_session(yamux_ack_backlog=1)
    stream = session.open_stream()
    stream.close_write()
    stream.forget()
    assert not session.can_open
    sent(session)
    assert session.can_open
    assert session.openable


def test_bytes_of_a_frame_under_way_go_nowhere_when_its_stream_is_forgotten() -> None:
    """I1."""
    session = new_session()
    stream = opening(session)
    wire = bytes(data(1, bytes(5000), FIN))
    session.receive_bytes(wire[:1000], 0.0)
    stream.close_write()
    sent(session)
    stream.forget()
    session.receive_bytes(wire[1000:], 0.0)
    take(session, ping(8))
    assert [frame for frame in sent(session) if frame.kind != WINDOW_UPDATE] == [ping(8, ACK)]
    assert (session.streams, session.unread_bytes, stream.read(10)) == ({}, 0, b"")


def test_late_window_updates_keep_a_slow_sender_going_after_forget() -> None:
    """I1: credit for what is queued was taken when it was written."""
    one, other = pair()
    stream = one.open_stream()
    assert stream.write(bytes(WINDOW)) == WINDOW
    stream.close_write()
    stream.forget()
    exchange(one, other)
    assert len(read_all(other.streams[1])) == WINDOW
    exchange(one, other)
    assert other.streams[1].at_eof
    assert one.terminated is other.terminated is None


def test_readable_tells_of_bytes_and_of_the_end() -> None:
    session = listening()
    stream = opened(session)
    assert not stream.readable
    take(session, data(1, b"x"))
    assert stream.readable
    stream.read(1)
    assert not stream.readable
    take(session, update(1, flags=FIN))
    assert events(session) == {1: READABLE}
    assert stream.readable


def test_frame_of_any_length_for_an_unknown_id_is_skipped() -> None:
    """Y6: up to the largest length that a header can say, without memory."""
    session = listening()
    session.receive_bytes(bytes(Frame(0, 0, 9, 0xFFFF_FFFF)), 0.0)
    for _ in range(50):
        session.receive_bytes(bytes(60 * KIB), 0.0)
    assert session.unread_bytes == 0
    assert not session.changed
    assert session._body_left == 0xFFFF_FFFF - 50 * 60 * KIB


def test_stream_opened_again_under_a_forgotten_id_is_new() -> None:
    session = listening()
    stream = opened(session)
    stream.close_write()
    stream.forget()
    sent(session)
    take(session, data(1, bytes(5000), SYN))
    assert session.streams[1] is not stream
    assert session.streams[1].unread_bytes == 5000
    assert sent(session) == [update(1, flags=ACK)]


@pytest.mark.parametrize("initiator", [True, False])
def test_before_the_peers_first_frame_few_streams_may_be_opened(initiator: bool) -> None:
    """Edge of `early_streams`: js-libp2p drops the connection at more; who accepts has heard the peer already."""
    session = new_session(initiator=initiator, heard=False, early_streams=2)
    streams = 0
    while session.can_open and streams < 5:
        session.open_stream()
        streams += 1
    assert streams == (2 if initiator else 5)
    take(session, ping(3))
    assert session.can_open
