"""Yamux with the peers there are: GoAway, the backlog of ACKs, codes, early streams (rows Y8 to Y18)."""

from __future__ import annotations

import pytest

from aiolibp2p.errors import ConnectionEndedError, LocalProtocolError, RemoteProtocolError
from aiolibp2p.sansio.yamux import (
    ACK,
    GO_AWAY_NORMAL,
    GO_AWAY_PROTOCOL_ERROR,
    RESOURCE_LIMIT,
    RST,
    SYN,
    WRITABLE,
    YamuxSession,
)
from tests.unit.sansio.yamux_wire import (
    KIB,
    WINDOW,
    Frame,
    data,
    events,
    exchange,
    go_away,
    listening,
    new_session,
    opened,
    opening,
    pair,
    ping,
    read_all,
    sent,
    take,
    update,
)


def broke_protocol(session: YamuxSession) -> bool:
    """Whether the peer was told GoAway 1, last, and the session is over."""
    assert isinstance(session.terminated, RemoteProtocolError)
    assert session.terminated.protocol == "yamux"
    return sent(session)[-1] == go_away(GO_AWAY_PROTOCOL_ERROR)


@pytest.mark.conforms("Y8")
def test_peers_go_away_0_forbids_new_streams_and_leaves_old_ones() -> None:
    """Y8."""
    session = new_session()
    stream = opening(session)
    session.openable = False
    take(session, go_away(GO_AWAY_NORMAL))
    assert session.going_away == GO_AWAY_NORMAL
    assert session.terminated is None
    assert session.openable, "who waits to open must be told that it cannot"
    assert not session.can_open
    with pytest.raises(LocalProtocolError):
        session.open_stream()
    take(session, data(1, b"still"))
    assert stream.read(10) == b"still"
    assert stream.write(b"works") == 5
    session.receive_eof()
    assert isinstance(session.terminated, ConnectionEndedError)
    assert (session.terminated.by, session.terminated.code) == ("remote", 0)


@pytest.mark.parametrize("code", [1, 2, 3, 0x1000, 0x1007, 0xFFFF_FFFF])
@pytest.mark.conforms("Y8", "Y15")
def test_go_away_with_an_error_ends_the_session(code: int) -> None:
    """Y8, Y15: any other code, known or not, is an error, and its number is kept."""
    session = new_session()
    opening(session)
    take(session, go_away(code), Frame(9, 9, 9, 9, version=9))
    assert isinstance(session.terminated, ConnectionEndedError)
    assert (session.terminated.by, session.terminated.code) == ("remote", code)
    assert not session.has_output


def test_we_say_go_away_once() -> None:
    """Y8: codes 0, 1, 2."""
    session = new_session()
    session.go_away()
    session.go_away(2)
    assert sent(session) == [go_away(0)]


@pytest.mark.conforms("Y9")
def test_257th_unacknowledged_stream_waits() -> None:
    """Y9: 256 unacknowledged, then one more for each that is acknowledged."""
    session = new_session()
    streams = [session.open_stream() for _ in range(256)]
    assert not session.can_open
    with pytest.raises(LocalProtocolError):
        session.open_stream()
    assert len(sent(session)) == 256
    session.openable = False
    take(session, update(streams[100].id, flags=ACK))
    assert session.openable
    assert session.open_stream().id == 513
    assert not session.can_open
    take(session, update(streams[100].id, flags=ACK), update(streams[100].id, 10))
    assert not session.can_open, "a stream is acknowledged once"


def test_stream_that_is_reset_before_its_ack_leaves_the_backlog() -> None:
    """Y9."""
    session = new_session(yamux_ack_backlog=2)
    unsent, announced = session.open_stream(), session.open_stream()
    unsent.reset()
    assert sent(session) == [update(announced.id, flags=SYN)], "the peer never hears of it"
    assert session.can_open
    session.open_stream()
    announced.reset(3)
    assert sent(session) == [update(announced.id, 3, RST), update(5, flags=SYN)]
    assert session.can_open


@pytest.mark.parametrize("frame", [update(1, flags=SYN), data(1, b"", SYN), update(2, flags=SYN), data(4, b"x", SYN)])
@pytest.mark.conforms("Y10")
def test_duplicate_id_or_wrong_parity_ends_with_go_away_1(frame: Frame) -> None:
    """Y10."""
    session = listening()
    opened(session)
    take(session, frame)
    assert broke_protocol(session)


def test_ids_need_not_come_in_order() -> None:
    """Y10: go-yamux takes an id first and sends its SYN later."""
    session = listening()
    take(session, update(5, flags=SYN), update(1, flags=SYN), update(3, flags=SYN))
    assert list(events(session)) == [5, 1, 3]


@pytest.mark.conforms("Y13")
def test_both_sides_full_do_not_block_each_other() -> None:
    """Y13: receiving never needs room to send; both windows and both send queues are full."""
    one, other = pair(connection_send_bytes=WINDOW, yamux_window_max=WINDOW)
    mine = one.open_stream()
    exchange(one, other)
    theirs = other.streams[1]
    for _ in range(2):
        mine.write(bytes(WINDOW))
        theirs.write(bytes(WINDOW))
        exchange(one, other)
        mine.write(bytes(WINDOW))
        theirs.write(bytes(WINDOW))
        assert one.room == other.room == 0 or mine.credit == theirs.credit == 0
        assert len(read_all(theirs)) == len(read_all(mine)) == WINDOW
        exchange(one, other)
        assert one.terminated is other.terminated is None
    assert mine.credit == theirs.credit == WINDOW


@pytest.mark.conforms("Y14")
def test_reset_code_is_in_the_length_of_a_window_update() -> None:
    """Y14: both ways; go-libp2p ships it."""
    session = listening()
    theirs, ours = opened(session), opened(session, 3)
    take(session, update(1, 0x1003, RST))
    assert (theirs.reset_by, theirs.reset_code) == ("remote", 0x1003)
    ours.reset(0xFFFF_FFFF)
    assert (ours.reset_by, ours.reset_code) == ("local", 0xFFFF_FFFF)
    assert sent(session) == [update(3, 0xFFFF_FFFF, RST)]


@pytest.mark.conforms("Y14")
def test_rst_on_a_data_frame_has_no_code() -> None:
    """Y14: never in Data frames."""
    session = listening()
    stream = opened(session)
    take(session, data(1, bytes(0x1002), RST), ping(5))
    assert (stream.reset_by, stream.reset_code) == ("remote", 0)
    assert sent(session) == [ping(5, ACK)]


@pytest.mark.conforms("Y16")
def test_refused_stream_gets_rst_instead_of_ack() -> None:
    """Y16: excess streams get RST; what they sent is dropped."""
    session = listening()
    take(session, data(1, b"hello", SYN))
    session.streams[1].reset(RESOURCE_LIMIT)
    take(session, data(1, bytes(3000)))
    assert sent(session) == [update(1, RESOURCE_LIMIT, RST)]
    assert (session.streams, session.unread_bytes) == ({}, 0)


@pytest.mark.conforms("Y18")
def test_at_most_10_streams_leave_before_the_peers_first_frame() -> None:
    """Y18: js-libp2p aborts the muxer at more."""
    session = new_session(heard=False)
    for _ in range(10):
        session.open_stream()
    assert not session.can_open
    with pytest.raises(LocalProtocolError):
        session.open_stream()
    take(session, ping(1))
    assert session.openable
    assert session.open_stream().id == 21


def test_ten_early_streams_are_all_even_when_some_are_gone() -> None:
    """Y18: what counts is what the peer was sent."""
    session = new_session(heard=False)
    for _ in range(10):
        session.open_stream().reset()
    assert not session.can_open


def test_responder_has_heard_its_peer() -> None:
    """Y18: the initiator's last handshake message came first."""
    session = new_session(initiator=False, heard=False)
    for _ in range(20):
        session.open_stream()


@pytest.mark.parametrize("cut", range(1, 16))
def test_frames_may_be_cut_anywhere(cut: int) -> None:
    session = listening()
    stream = opened(session)
    wire = bytes(data(1, b"one")) + bytes(ping(4))
    for _ in range(3):
        session.receive_bytes(wire[:cut], 0.0)
        session.receive_bytes(wire[cut:], 0.0)
    assert read_all(stream) == b"one" * 3
    assert sent(session) == [ping(4, ACK)] * 3


def test_writable_is_told_once_to_who_wants_it() -> None:
    session = new_session()
    stream = opening(session)
    stream.write(bytes(WINDOW))
    take(session, update(1, 10))
    assert events(session) == {}
    stream.want_write = True
    take(session, update(1, 10), update(1, 10))
    assert events(session) == {1: WRITABLE}
    assert not stream.want_write
    take(session, update(1, 10))
    assert events(session) == {}


def test_frame_as_large_as_the_whole_window_is_taken_in_a_streaming_way() -> None:
    """js-libp2p 3 sends Data frames as large as the credit it has."""
    session = listening()
    stream = opened(session)
    wire = bytes(data(1, bytes(WINDOW)))
    got = 0
    for start in range(0, len(wire), 10 * KIB):
        session.receive_bytes(wire[start : start + 10 * KIB], 0.0)
        got += len(read_all(stream))
        assert session.unread_bytes == 0
    assert got == WINDOW
