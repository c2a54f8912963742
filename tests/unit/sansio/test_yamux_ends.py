"""How a Yamux session ends: keepalive, floods, broken frames, the end of its bytes, our own goodbye."""

from __future__ import annotations

import math

import pytest

from aiolibp2p.errors import ConnectionEndedError, DeadlineError, LimitError, RemoteProtocolError
from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.yamux import (
    ACK,
    FIN,
    GO_AWAY_INTERNAL_ERROR,
    GO_AWAY_PROTOCOL_ERROR,
    HEADER_BYTES,
    OPENED,
    RST,
    SYN,
    YamuxSession,
)
from tests.unit.sansio.yamux_wire import (
    Frame,
    data,
    events,
    go_away,
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

TIMES = Timeouts(keepalive=30.0, keepalive_answer=10.0)


# -- keepalive -------------------------------------------------------------------------------------------------------


@pytest.mark.conforms("Y17")
def test_quiet_peer_is_pinged_at_keepalive_and_given_up_at_keepalive_answer() -> None:
    """Y17: exact times."""
    session = new_session(timeouts=TIMES, now=100.0)
    assert session.next_timeout() == 130.0
    session.handle_timeout(129.999)
    assert not session.has_output
    session.handle_timeout(130.0)
    assert sent(session) == [ping(2)]
    assert session.next_timeout() == 140.0
    session.handle_timeout(139.999)
    assert session.terminated is None
    session.handle_timeout(140.0)
    assert isinstance(session.terminated, DeadlineError)
    assert (session.terminated.deadline, session.terminated.seconds) == ("keepalive_answer", 10.0)
    assert sent(session) == [go_away(GO_AWAY_INTERNAL_ERROR)]


def test_answer_to_the_keepalive_ping_measures_the_round_trip() -> None:
    """Y17."""
    session = new_session(timeouts=TIMES)
    session.handle_timeout(30.0)
    assert sent(session) == [ping(2)]
    take(session, ping(1, ACK), now=31.0)
    assert session.round_trip is None, "the answer to an earlier ping says nothing"
    take(session, ping(2, ACK), now=32.5)
    assert session.round_trip == 2.5
    assert session.next_timeout() == 60.0
    session.handle_timeout(40.0)
    assert session.terminated is None
    assert not session.has_output


def test_any_byte_shows_that_the_peer_lives() -> None:
    """Y17: a peer busy with a large frame answers late."""
    session = new_session(timeouts=TIMES)
    take(session, Frame(0, 0, 77, 1000), now=1.0)
    session.handle_timeout(31.0)
    assert sent(session) == [ping(2)]
    session.receive_bytes(b"x", 40.5)
    session.handle_timeout(41.0)
    assert session.terminated is None
    assert session.next_timeout() == 61.0
    session.handle_timeout(61.0)
    assert sent(session) == [ping(3)], "for the round trip"
    assert session.next_timeout() == 70.5
    session.handle_timeout(70.5)
    assert sent(session) == [ping(4)], "because it has been quiet"
    session.handle_timeout(80.5)
    assert isinstance(session.terminated, DeadlineError)


def test_bytes_put_keepalive_off() -> None:
    """Y17: a busy peer is asked for the round trip, and need not answer."""
    session = new_session(timeouts=TIMES)
    for number, now in enumerate((10.0, 40.0, 70.0), 2):
        take(session, ping(5), now=now)
        assert sent(session) == [ping(5, ACK)]
        assert session.next_timeout() == now + 20.0
        session.handle_timeout(now + 20.0)
        assert sent(session) == [ping(number)]
        assert session.next_timeout() == now + 30.0
    assert session.terminated is None


def test_a_way_that_becomes_longer_is_measured_on_a_busy_connection() -> None:
    session = new_session(timeouts=TIMES)
    take(session, ping(1, ACK), now=0.25)
    take(session, ping(9), now=29.0)
    session.handle_timeout(30.0)
    take(session, ping(2, ACK), now=33.0)
    assert session.round_trip == 3.0


def test_first_ping_alone_ends_nothing() -> None:
    """A peer that does not answer it is asked again when it has been quiet."""
    session = new_session(timeouts=TIMES, heard=False)
    session.handle_timeout(10.0)
    assert session.terminated is None
    session.handle_timeout(30.0)
    assert sent(session) == [ping(2)]
    take(session, ping(2, ACK), now=39.0)
    session.handle_timeout(69.0)
    assert sent(session) == [ping(3)]


def test_infinite_keepalive_never_asks() -> None:
    session = new_session(timeouts=Timeouts(keepalive=math.inf))
    assert session.next_timeout() == math.inf
    session.handle_timeout(1e9)
    assert not session.has_output


def test_ping_numbers_wrap_at_32_bits() -> None:
    session = new_session(timeouts=TIMES)
    session._ping_id = 0xFFFF_FFFF
    session.handle_timeout(30.0)
    assert sent(session) == [ping(0)]
    take(session, ping(0, ACK), now=31.0)
    assert session.round_trip == 1.0


# -- floods ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pings", "ends"), [(9, False), (10, False), (11, True)])
def test_flood_of_pings_whose_answers_are_not_read_ends_the_session(pings: int, ends: bool) -> None:
    """Edge −1, 0, +1 of `connection_control_bytes`."""
    session = new_session(connection_control_bytes=10 * HEADER_BYTES)
    for n in range(pings):
        take(session, ping(n))
    assert (session.terminated is not None) is ends
    if ends:
        assert isinstance(session.terminated, LimitError)
        assert (session.terminated.limit, session.terminated.stage) == ("connection_control_bytes", "connection")
    assert refusals(session) == ({"connection_control_bytes": 1} if ends else {})


def test_pings_whose_answers_leave_are_no_flood() -> None:
    session = new_session(connection_control_bytes=10 * HEADER_BYTES)
    for n in range(100):
        take(session, *(ping(n) for _ in range(10)))
        assert len(sent(session)) == 10
    assert session.terminated is None


def test_default_bound_of_a_flood() -> None:
    session = new_session()
    frames = Limits().connection_control_bytes // HEADER_BYTES
    session.receive_bytes(bytes(ping(1)) * frames, 0.0)
    assert session.terminated is None
    take(session, ping(1))
    assert session.terminated is not None


@pytest.mark.parametrize("size", [1, 100])
def test_flood_of_credit_and_resets_is_bounded_too(size: int) -> None:
    session = listening(connection_control_bytes=1200)
    for n in range(101):
        take(session, data(2 * n + 1, bytes(size), SYN))
        if session.terminated is None:
            session.streams[2 * n + 1].reset(1)
    assert isinstance(session.terminated, LimitError)
    assert session.control_bytes <= 1200 + HEADER_BYTES


@pytest.mark.parametrize("together", [True, False])
def test_streams_opened_and_reset_while_nothing_leaves_cost_nothing(together: bool) -> None:
    """No control frame bounds this flood: what is queued for streams that are gone goes too."""
    session = listening()
    for n in range(5000):
        opening_, resetting = update(2 * n + 1, flags=SYN), update(2 * n + 1, flags=RST)
        if together:
            take(session, opening_, resetting)
        else:
            take(session, opening_)
            take(session, resetting)
        session.changed.clear()
    assert len(session.scheduled) < 200
    assert session.streams == {}
    take(session, update(20_001, flags=SYN))
    assert sent(session) == [update(20_001, flags=ACK)]
    assert not session.scheduled
    assert session._dead == 0


def test_live_streams_keep_their_turn_when_dead_ones_are_swept() -> None:
    session = listening()
    for n in range(1000):
        take(session, update(2 * n + 1, flags=SYN))
    for stream_id, stream in list(session.streams.items()):
        if stream_id % 16 != 1:
            stream.reset()
    frames = [frame for frame in sent(session) if frame.flags == ACK]
    assert [frame.stream_id for frame in frames] == list(range(1, 2000, 16))


# -- ends ------------------------------------------------------------------------------------------------------------


def test_end_of_bytes_between_frames() -> None:
    session = new_session()
    session.receive_eof()
    assert isinstance(session.terminated, ConnectionEndedError)
    assert (session.terminated.by, session.terminated.code, session.terminated.message) == ("remote", None, "")
    first = session.terminated
    session.receive_eof()
    assert session.terminated is first
    assert not session.has_output


@pytest.mark.parametrize("cut", [1, 11, 12, 14])
def test_end_of_bytes_in_a_frame_is_no_clean_end(cut: int) -> None:
    session = listening()
    stream = opened(session)
    session.receive_bytes(bytes(data(1, b"abc"))[:cut], 0.0)
    session.receive_eof()
    assert isinstance(session.terminated, ConnectionEndedError)
    assert session.terminated.message
    assert not stream.at_eof


def test_what_was_received_can_be_read_after_the_end() -> None:
    session = listening()
    whole, part = opened(session, 1), opened(session, 3)
    take(session, data(1, b"answer"), update(1, flags=FIN), data(3, b"half"))
    session.receive_eof()
    assert read_all(whole) == b"answer"
    assert whole.at_eof
    assert read_all(part) == b"half"
    assert not part.at_eof
    with pytest.raises(ConnectionEndedError):
        whole.write(b"x")


def test_terminate_says_go_away_last_and_sends_no_data() -> None:
    session = listening()
    stream = opened(session)
    stream.write(b"unsent")
    take(session, ping(5))
    error = ConnectionEndedError(by="local")
    session.terminate(error, 0)
    session.terminate(RemoteProtocolError(), GO_AWAY_PROTOCOL_ERROR)
    assert session.terminated is error
    assert sent(session) == [ping(5, ACK), go_away(0)]
    assert not session.can_open


def test_terminate_without_a_code_says_nothing() -> None:
    session = new_session()
    session.terminate(ConnectionEndedError(by="local"), None)
    assert sent(session) == []


def test_nothing_is_taken_after_the_end() -> None:
    session = listening()
    session.terminate(ConnectionEndedError(by="local"))
    sent(session)
    take(session, update(1, flags=SYN), ping(4), now=5.0)
    session.handle_timeout(1000.0)
    assert (session.streams, events(session), session.has_output) == ({}, {}, False)


def test_frames_behind_a_broken_one_are_not_taken() -> None:
    session = listening()
    take(session, update(1, flags=SYN), Frame(7, 0, 0, 0), update(3, flags=SYN), ping(1))
    assert list(session.streams) == [1]
    assert sent(session) == [go_away(GO_AWAY_PROTOCOL_ERROR)]


def test_ends_of_two_sessions_do_not_depend_on_each_other() -> None:
    one, other = new_session(), YamuxSession(initiator=False, limits=Limits(), timeouts=TIMES, now=0.0)
    opening(one)
    other.terminate(ConnectionEndedError(by="local"), None)
    assert one.terminated is None


@pytest.mark.parametrize("cause", ["ping", "reset", "late"])
def test_frames_behind_the_end_by_a_flood_are_not_taken(cause: str) -> None:
    """The payload of the frame that ended it is not taken for frames either."""
    session = listening(connection_control_bytes=HEADER_BYTES, forgotten_bytes=0)
    opened(session, 1, update(1, flags=FIN))
    gone = opened(session, 3)
    gone.close_write()
    gone.forget()
    sent(session)
    inner = b"".join(map(bytes, (update(11, flags=SYN), ping(2))))
    last = {"ping": ping(2), "reset": data(1, inner), "late": data(3, inner)}[cause]
    take(session, ping(1), last, update(13, flags=SYN), ping(3), data(13, b"x"))
    assert isinstance(session.terminated, LimitError)
    assert {11, 13} & set(session.streams) == set()
    assert session.control_bytes <= 2 * HEADER_BYTES
    assert session._partial == b""


def test_nothing_is_queued_behind_our_go_away() -> None:
    session = listening()
    reading, resetting, closing = (
        opened(session, stream_id, data(stream_id, bytes(200_000))) for stream_id in (1, 3, 5)
    )
    session.terminate(ConnectionEndedError(by="local"), 0)
    read_all(reading)
    resetting.reset(4)
    closing.stop_reading()
    closing.close_write()
    assert sent(session) == [go_away(0)]


def test_writing_after_the_end_raises_why_it_ended() -> None:
    session = listening()
    stream = opened(session)
    take(session, go_away(2))
    with pytest.raises(ConnectionEndedError) as caught:
        stream.write(b"x", urgent=True)
    assert caught.value is session.terminated


def test_streams_that_come_after_our_go_away_are_reset() -> None:
    """Y8: no new streams either way; existing ones continue."""
    session = listening()
    stream = opened(session)
    session.go_away()
    assert sent(session) == [go_away(0)]
    assert not session.can_open
    take(session, data(3, b"too late", SYN), update(5, 10, SYN), data(1, b"fine"))
    assert not OPENED & sum(events(session).values())
    assert sent(session) == [update(3, flags=RST), update(5, flags=RST)]
    assert list(session.streams) == [1]
    assert stream.read(10) == b"fine"
    assert session.unread_bytes == 0


def test_error_after_a_polite_goodbye_is_still_told() -> None:
    """Y8."""
    session = listening()
    session.go_away()
    take(session, Frame(9, 0, 0, 0))
    assert sent(session) == [go_away(0), go_away(GO_AWAY_PROTOCOL_ERROR)]
