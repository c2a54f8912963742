"""Yamux on the wire, as a peer sees it; Y1 to Y18 are rows of the conformance checklist (from Y8: test_yamux_*.py)."""

from __future__ import annotations

import pytest

from aiolibp2p.errors import LocalProtocolError, RemoteProtocolError
from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.yamux import (
    ACK,
    FIN,
    GO_AWAY_PROTOCOL_ERROR,
    OPENED,
    PING,
    READABLE,
    RESET,
    RST,
    SYN,
    YamuxSession,
)
from tests.unit.sansio.yamux_wire import (
    WINDOW,
    Frame,
    data,
    events,
    go_away,
    joined,
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


def broke_protocol(session: YamuxSession) -> bool:
    """Whether the peer was told GoAway 1, last, and the session is over."""
    assert isinstance(session.terminated, RemoteProtocolError)
    assert session.terminated.protocol == "yamux"
    return sent(session)[-1] == go_away(GO_AWAY_PROTOCOL_ERROR)


@pytest.mark.conforms("Y1")
def test_header_is_version_type_flags_id_and_length_in_network_order() -> None:
    """Y1: 12 bytes, version 0."""
    session = YamuxSession(initiator=True, limits=Limits(), timeouts=Timeouts(), now=0.0)
    assert joined(session.bytes_to_send(1)) == bytes.fromhex("00 02 0001 00000000 00000001")
    stream = session.open_stream()
    stream.write(b"hi")
    assert joined(session.bytes_to_send(1)) == bytes.fromhex("00 00 0001 00000001 00000002") + b"hi"


@pytest.mark.conforms("Y1")
def test_initiator_opens_odd_ids_and_responder_even_ones() -> None:
    """Y1."""
    assert [new_session().open_stream().id for _ in range(2)] == [1, 1]
    for initiator, ids in ((True, [1, 3, 5]), (False, [2, 4, 6])):
        session = new_session(initiator=initiator)
        assert [session.open_stream().id for _ in ids] == ids


@pytest.mark.parametrize("frame", [Frame(0, 0, 0, 0, version=1), Frame(1, SYN, 2, 0, version=255), Frame(4, 0, 0, 0)])
@pytest.mark.conforms("Y1")
def test_unknown_version_or_type_ends_with_go_away_1(frame: Frame) -> None:
    """Y1: other version = GoAway(1)."""
    session = new_session()
    take(session, frame)
    assert broke_protocol(session)


@pytest.mark.parametrize("frame", [data(0, flags=SYN), update(0, flags=SYN)])
@pytest.mark.parametrize("initiator", [True, False])
@pytest.mark.conforms("Y1")
def test_stream_zero_cannot_be_opened(frame: Frame, initiator: bool) -> None:
    """Y1: id 0 only for ping and go-away."""
    session = new_session(initiator=initiator)
    take(session, frame)
    assert broke_protocol(session)


def test_ids_are_used_up_after_the_largest() -> None:
    """Y1: an id is 32 bits."""
    session = new_session()
    session._next_id = 0xFFFF_FFFF
    assert session.open_stream().id == 0xFFFF_FFFF
    with pytest.raises(LocalProtocolError):
        session.open_stream()


@pytest.mark.conforms("Y2")
def test_stream_opens_by_window_update_or_by_data() -> None:
    """Y2: SYN via data or window update; ACK must be sent."""
    session = listening()
    take(session, update(1, flags=SYN), data(3, b"early", SYN))
    assert events(session) == {1: OPENED, 3: OPENED | READABLE}
    assert sent(session) == [update(1, flags=ACK), update(3, flags=ACK)]
    assert session.streams[3].read(100) == b"early"


@pytest.mark.conforms("Y2")
def test_data_may_follow_syn_before_ack() -> None:
    """Y2: both ways."""
    session = new_session()
    stream = session.open_stream()
    stream.write(b"one")
    assert sent(session) == [data(1, b"one", SYN)]
    stream.write(b"two")
    assert sent(session) == [data(1, b"two")]
    take(session, update(1, flags=ACK))
    server = listening()
    take(server, data(1, b"one", SYN), data(1, b"two"))
    assert read_all(server.streams[1]) == b"onetwo"


@pytest.mark.conforms("Y2")
def test_ack_leaves_on_the_first_data_when_there_is_some() -> None:
    """Y2: ACK likewise."""
    session = listening()
    take(session, update(1, flags=SYN))
    session.streams[1].write(b"answer")
    assert sent(session) == [data(1, b"answer", ACK)]
    session.streams[1].write(b"more")
    assert sent(session) == [data(1, b"more")]


@pytest.mark.parametrize("frame", [data(1, b"x", ACK), update(1, 5, ACK), data(1, b"x"), update(1, flags=RST)])
@pytest.mark.conforms("Y2")
def test_any_answer_acknowledges(frame: Frame) -> None:
    """Y2: ACK comes on data or a window update; RST rejects."""
    session = new_session(yamux_ack_backlog=1)
    session.open_stream()
    sent(session)
    assert not session.can_open
    take(session, frame)
    assert session.can_open
    assert session.openable


@pytest.mark.conforms("Y3")
def test_each_side_may_send_256_kib_at_once() -> None:
    """Y3: the initial window, each way."""
    session = new_session()
    stream = session.open_stream()
    assert stream.write(bytes(WINDOW + 1)) == WINDOW == stream.credit + WINDOW
    server = listening()
    for frame in sent(session):
        take(server, frame)
    assert server.terminated is None
    assert len(read_all(server.streams[1])) == WINDOW


@pytest.mark.parametrize("flags", [SYN, 0])
@pytest.mark.conforms("Y3")
def test_window_update_in_the_opening_enlarges(flags: int) -> None:
    """Y3: window update in the SYN (or ACK) may enlarge; the delta is additive."""
    if flags:
        session = listening()
        take(session, update(1, 1000, SYN))
    else:
        session = new_session()
        session.open_stream()
        take(session, update(1, 1000, ACK))
    assert session.streams[1].credit == WINDOW + 1000
    take(session, update(1, 24))
    assert session.streams[1].credit == WINDOW + 1024


@pytest.mark.conforms("Y3")
def test_window_may_reach_the_largest_u32_and_no_more() -> None:
    """Y3: u32 overflow is an error."""
    session = listening()
    stream = opened(session)
    take(session, update(1, 0xFFFF_FFFF - WINDOW))
    assert stream.credit == 0xFFFF_FFFF
    assert session.terminated is None
    take(session, update(1, 1))
    assert broke_protocol(session)


@pytest.mark.parametrize(("extra", "over"), [(-1, False), (0, False), (1, True)])
@pytest.mark.conforms("Y4")
def test_payload_is_counted_against_the_window(extra: int, over: bool) -> None:
    """Y4: receiving beyond the window = protocol error, GoAway 1; edge −1, 0, +1."""
    session = listening()
    stream = opened(session)
    take(session, data(1, bytes(WINDOW - 1000)))
    take(session, data(1, bytes(1000 + extra)))
    assert (session.terminated is not None) is over
    assert stream.unread_bytes == (WINDOW - 1000 if over else WINDOW + extra)
    if over:
        assert broke_protocol(session)


@pytest.mark.conforms("Y4")
def test_too_long_frame_is_refused_at_its_header() -> None:
    """Y4: nothing of it is buffered."""
    session = listening()
    stream = opened(session)
    session.receive_bytes(bytes(Frame(0, 0, 1, WINDOW + 1)), 0.0)
    assert broke_protocol(session)
    assert stream.unread_bytes == 0


@pytest.mark.conforms("Y4")
def test_only_data_payload_counts() -> None:
    """Y4: headers and other frames are free."""
    session = listening()
    stream = opened(session)
    take(session, *(update(1, 1) for _ in range(30_000)), *(data(1) for _ in range(1000)), data(1, bytes(WINDOW)))
    assert session.terminated is None
    assert stream.unread_bytes == WINDOW


@pytest.mark.parametrize("fin", [data(1, flags=FIN), update(1, flags=FIN)])
@pytest.mark.conforms("Y5")
def test_fin_half_closes_and_writing_goes_on(fin: Frame) -> None:
    """Y5."""
    session = listening()
    stream = opened(session)
    take(session, data(1, b"last"), fin)
    assert events(session) == {1: READABLE}
    assert not stream.at_eof
    assert stream.read(10) == b"last"
    assert stream.at_eof
    assert stream.write(b"answer") == 6
    assert sent(session) == [data(1, b"answer")]
    assert 1 in session.streams
    stream.close_write()
    assert sent(session) == [update(1, flags=FIN)]
    assert stream.finished
    assert session.streams == {}


@pytest.mark.conforms("Y5")
def test_reading_goes_on_after_our_fin() -> None:
    """Y5."""
    session = new_session()
    stream = opening(session)
    stream.close_write()
    assert sent(session) == [update(1, flags=FIN)]
    with pytest.raises(LocalProtocolError):
        stream.write(b"x")
    take(session, data(1, b"answer"))
    assert stream.read(10) == b"answer"
    assert not stream.finished
    take(session, data(1, b"rest", FIN))
    assert session.streams == {}
    assert stream.finished
    assert stream.read(10) == b"rest"
    assert stream.at_eof


def test_payload_of_a_frame_with_fin_is_read_before_the_end() -> None:
    """Y5: js-libp2p 3 drops it; go and rust send it."""
    session = listening()
    stream = opened(session, 1, data(1, b"all of it", FIN))
    assert not stream.at_eof
    assert stream.read(100) == b"all of it"
    assert stream.at_eof


def test_fin_of_a_frame_counts_after_its_last_byte() -> None:
    """Y5."""
    session = listening()
    stream = opened(session)
    wire = bytes(data(1, b"abc", FIN))
    session.receive_bytes(wire[:-1], 0.0)
    assert (stream.read(10), stream.at_eof, stream.fin_received) == (b"ab", False, False)
    session.receive_bytes(wire[-1:], 0.0)
    assert (stream.read(10), stream.at_eof) == (b"c", True)


@pytest.mark.conforms("Y5")
def test_data_after_fin_resets_the_stream() -> None:
    """Y5: data after FIN from the peer = error; other streams are not harmed, and the payload is consumed."""
    session = listening()
    other = opened(session, 3)
    stream = opened(session)
    take(session, data(1, b"kept", FIN), data(1, b"too late"), data(3, b"fine"))
    assert stream.reset_by == "local"
    assert sent(session) == [update(1, flags=RST)]
    assert session.terminated is None
    assert other.read(10) == b"fine"


def test_empty_data_and_second_fin_after_fin_are_harmless() -> None:
    """Y5."""
    session = listening()
    stream = opened(session)
    take(session, update(1, flags=FIN), update(1, flags=FIN), data(1, flags=FIN), data(1))
    assert stream.reset_by is None
    assert stream.at_eof


@pytest.mark.parametrize("rst", [data(1, b"ignored", RST), update(1, flags=RST)])
@pytest.mark.conforms("Y6")
def test_rst_drops_both_halves_at_once(rst: Frame) -> None:
    """Y6."""
    session = listening()
    stream = opened(session)
    take(session, data(1, b"unread"))
    stream.write(b"unsent")
    events(session)
    take(session, rst)
    assert events(session) == {1: RESET}
    assert stream.reset_by == "remote"
    assert (stream.read(10), session.unread_bytes, session.room) == (b"", 0, Limits().connection_send_bytes)
    assert sent(session) == []
    assert session.streams == {}
    with pytest.raises(LocalProtocolError):
        stream.write(b"x")


def test_our_reset_is_one_frame_and_nothing_queued_leaves() -> None:
    """Y6."""
    session = listening()
    stream = opened(session)
    stream.write(b"unsent")
    stream.close_write()
    stream.reset()
    stream.reset(5)
    stream.close_write()
    assert stream.reset_by == "local"
    assert sent(session) == [update(1, flags=RST)]


@pytest.mark.conforms("Y6")
def test_late_frames_for_a_dead_id_are_ignored_and_their_payload_consumed() -> None:
    """Y6; js-libp2p sends window updates after its own FIN."""
    session = listening()
    stream = opened(session)
    stream.reset()
    sent(session)
    take(
        session,
        data(1, bytes(5000)),
        update(1, 100),
        update(1, flags=FIN),
        update(1, flags=RST),
        data(99, b"never opened"),
        data(0, b"no stream"),
        ping(3),
    )
    assert sent(session) == [ping(3, ACK)]
    assert session.terminated is None
    assert stream.reset_by == "local"


def test_late_window_update_after_both_fins_is_ignored() -> None:
    """Y6."""
    session = listening()
    stream = opened(session)
    take(session, update(1, flags=FIN))
    take(session, update(1, 4096))
    assert stream.credit == WINDOW + 4096
    stream.close_write()
    sent(session)
    take(session, update(1, 4096))
    assert session.terminated is None
    assert not session.has_output


@pytest.mark.conforms("Y7")
def test_ping_is_echoed_with_its_opaque_value() -> None:
    """Y7."""
    session = new_session()
    take(session, ping(0), ping(0xFFFF_FFFF))
    assert sent(session) == [ping(0, ACK), ping(0xFFFF_FFFF, ACK)]


@pytest.mark.conforms("Y7")
def test_unsolicited_ping_ack_is_ignored() -> None:
    """Y7: also one with another value, and a ping without flags."""
    session = new_session()
    take(session, ping(2, ACK), ping(1, 0))
    assert (session.terminated, session.round_trip, session.has_output) == (None, None, False)
    take(session, ping(1, ACK), now=0.25)
    assert session.round_trip == 0.25
    take(session, ping(1, ACK), now=9.0)
    assert session.round_trip == 0.25


@pytest.mark.parametrize("initiator", [True, False])
def test_first_frame_is_a_ping(initiator: bool) -> None:
    """Y7: js-libp2p does so too; without a round trip no window grows."""
    session = YamuxSession(initiator=initiator, limits=Limits(), timeouts=Timeouts(), now=0.0)
    session.open_stream().write(b"x")
    assert [frame.kind for frame in sent(session)] == [PING, 0]
