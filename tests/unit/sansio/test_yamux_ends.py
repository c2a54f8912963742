"""How a Yamux session ends: keepalive, floods, broken frames, the end of its bytes, our own goodbye."""

from __future__ import annotations

import math

import pytest

from aiolibp2p.errors import ConnectionEndedError, DeadlineError, LocalProtocolError, RemoteProtocolError
from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.yamux import (
    ACK,
    GO_AWAY_INTERNAL_ERROR,
    GO_AWAY_PROTOCOL_ERROR,
    HEADER_BYTES,
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
    sent,
    take,
    update,
)

TIMES = Timeouts(keepalive=30.0, keepalive_answer=10.0)


# -- keepalive -------------------------------------------------------------------------------------------------------


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
    assert session.next_timeout() == 62.5
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
    assert session.next_timeout() == 70.5
    session.handle_timeout(70.5)
    assert sent(session) == [ping(3)]
    session.handle_timeout(80.5)
    assert isinstance(session.terminated, DeadlineError)


def test_bytes_put_keepalive_off() -> None:
    """Y17."""
    session = new_session(timeouts=TIMES)
    for now in (10.0, 39.0, 68.0):
        take(session, ping(5), now=now)
        assert session.next_timeout() == now + 30.0
        session.handle_timeout(now + 29.0)
        assert sent(session) == [ping(5, ACK)]


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
        assert isinstance(session.terminated, RemoteProtocolError)
        assert session.terminated.stage == "connection"


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
    assert isinstance(session.terminated, RemoteProtocolError)
    assert session._control_bytes <= 1200 + HEADER_BYTES


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
    take(session, data(1, b"answer"), update(1, flags=4), data(3, b"half"))
    session.receive_eof()
    assert read_all(whole) == b"answer"
    assert whole.at_eof
    assert read_all(part) == b"half"
    assert not part.at_eof
    with pytest.raises((LocalProtocolError, ConnectionEndedError)):
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
