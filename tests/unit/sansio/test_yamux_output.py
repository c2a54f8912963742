"""What a Yamux session sends: control first, then one frame of each stream in turn."""

from __future__ import annotations

import pytest

from aiolibp2p.limits import Limits
from aiolibp2p.sansio.yamux import (
    ACK,
    DATA,
    FIN,
    FRAME_BYTES,
    GO_AWAY,
    HEADER_BYTES,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Buffer,
    YamuxSession,
    YamuxStream,
)
from tests.unit.sansio.yamux_wire import (
    EVERYTHING,
    KIB,
    WINDOW,
    Frame,
    data,
    joined,
    listening,
    new_session,
    opened,
    opening,
    parse,
    ping,
    sent,
    take,
    update,
)

NOISE_MESSAGE = 65_519
ROOM = Limits().connection_send_bytes


def boundaries(parts: list[Buffer]) -> list[int]:
    """Return where each frame ends."""
    ends, position = [], 0
    for frame in parse(joined(parts)):
        position += len(bytes(frame))
        ends.append(position)
    return ends


def large(session: YamuxSession) -> int:
    """Open a stream with a lot of credit; return its id."""
    stream = opening(session)
    take(session, update(stream.id, 16 << 20))
    return stream.id


def test_nothing_to_send_is_an_empty_list() -> None:
    session = new_session()
    assert not session.has_output
    assert session.bytes_to_send(EVERYTHING) == []


@pytest.mark.conforms("Y12")
def test_control_frames_leave_before_data() -> None:
    """Y12: a stream cannot hold up window updates and pings."""
    session = listening()
    stream = opened(session)
    stream.write(bytes(100 * KIB))
    take(session, ping(9), data(1, bytes(WINDOW)))
    stream.read(WINDOW)
    other = opened_quietly(session, 3)
    session.go_away()
    other.reset()
    kinds = [(frame.kind, frame.flags) for frame in sent(session)]
    assert kinds[:4] == [(PING, ACK), (WINDOW_UPDATE, 0), (GO_AWAY, 0), (WINDOW_UPDATE, RST)]
    assert {kind for kind, _ in kinds[4:]} == {DATA}


def opened_quietly(session: YamuxSession, stream_id: int) -> YamuxStream:
    take(session, update(stream_id, flags=SYN))
    return session.streams[stream_id]


@pytest.mark.conforms("Y12")
def test_streams_take_turns_frame_by_frame() -> None:
    """Y12: frames of at most 64 KiB, round robin."""
    session = new_session()
    ids = [large(session) for _ in range(3)]
    for stream_id in ids:
        session.streams[stream_id].write(bytes(200 * KIB))
    frames = sent(session)
    assert [frame.stream_id for frame in frames] == ids * (len(frames) // 3) + ids[: len(frames) % 3]
    assert all(0 < frame.length <= FRAME_BYTES for frame in frames)


@pytest.mark.conforms("Y12")
def test_small_stream_waits_for_one_frame_of_a_large_one() -> None:
    """Y12: what comes later is not behind all that is queued."""
    session = new_session()
    bulk, small = session.streams[large(session)], opening(session)
    bulk.write(bytes(ROOM - 10))
    assert [frame.stream_id for frame in parse(joined(session.bytes_to_send(1)))] == [bulk.id]
    small.write(b"quick")
    order = [frame.stream_id for frame in sent(session)]
    assert order.index(small.id) == 1
    assert set(order[2:]) == {bulk.id}


def test_data_frames_end_where_noise_messages_end() -> None:
    session = new_session()
    stream = session.streams[large(session)]
    stream.write(bytes(300 * KIB))
    ends = boundaries(session.bytes_to_send(EVERYTHING))
    assert FRAME_BYTES + HEADER_BYTES == NOISE_MESSAGE
    assert ends[:4] == [NOISE_MESSAGE * n for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("before", [1, 7, 100, 5000])
def test_frames_behind_control_and_small_ones_end_at_the_boundary_too(before: int) -> None:
    session = new_session()
    bulk, small = session.streams[large(session)], opening(session)
    take(session, *(ping(n) for n in range(before)))
    small.write(b"a little")
    bulk.write(bytes(500 * KIB))
    ends = boundaries(session.bytes_to_send(EVERYTHING))
    first = -(-(before * HEADER_BYTES + 20) // NOISE_MESSAGE)
    assert [NOISE_MESSAGE * n for n in range(first, first + 5)] == [e for e in ends if e % NOISE_MESSAGE == 0][:5]


def test_no_scrap_of_a_frame_is_sent_for_the_boundary() -> None:
    """Less than 1 KiB to the end of a Noise message is not worth a header."""
    session = new_session()
    one, other = session.streams[large(session)], session.streams[large(session)]
    one.write(bytes(FRAME_BYTES - 500))
    other.write(bytes(100 * KIB))
    frames = sent(session)
    assert [frame.length for frame in frames][:2] == [FRAME_BYTES - 500, FRAME_BYTES]


def test_output_stops_at_about_what_is_asked_for() -> None:
    session = new_session()
    stream = session.streams[large(session)]
    stream.write(bytes(ROOM))
    take(session, ping(1), ping(2))
    total = 0
    while session.has_output:
        size = len(joined(session.bytes_to_send(100_000)))
        assert size < 100_000 + NOISE_MESSAGE + HEADER_BYTES
        total += size
    assert total > ROOM


def test_all_control_frames_leave_however_little_is_asked_for() -> None:
    session = new_session()
    stream = opening(session)
    stream.write(b"data")
    take(session, *(ping(n) for n in range(20)))
    assert [frame.kind for frame in parse(joined(session.bytes_to_send(1)))] == [PING] * 20
    assert sent(session) == [data(1, b"data")]


def test_fin_leaves_after_what_is_queued_and_in_a_frame_of_its_own() -> None:
    """js-libp2p 3 drops the payload of a Data frame that carries FIN."""
    session = new_session()
    stream = opening(session)
    stream.write(bytes(100 * KIB))
    stream.close_write()
    stream.close_write()
    frames = sent(session)
    assert [(frame.kind, frame.flags) for frame in frames] == [(DATA, 0), (DATA, 0), (WINDOW_UPDATE, FIN)]
    assert frames[-1] == update(1, flags=FIN)


def test_stream_opened_written_and_closed_at_once_is_three_facts_in_two_frames() -> None:
    session = new_session()
    stream = session.open_stream()
    stream.write(b"all")
    stream.close_write()
    assert sent(session) == [data(1, b"all", SYN), update(1, flags=FIN)]


def test_stream_closed_before_it_was_written_to_still_opens() -> None:
    session = new_session()
    session.open_stream().close_write()
    assert sent(session) == [update(1, flags=SYN), update(1, flags=FIN)]


def test_answer_to_a_finished_stream_carries_its_ack() -> None:
    session = listening()
    take(session, data(1, b"request", SYN), update(1, flags=FIN))
    stream = session.streams[1]
    stream.write(b"answer")
    stream.close_write()
    assert sent(session) == [data(1, b"answer", ACK), update(1, flags=FIN)]
    assert session.streams == {}


def test_many_small_writes_leave_as_one_frame() -> None:
    session = new_session()
    stream = opening(session)
    for n in range(100):
        stream.write(bytes((n,)))
    assert sent(session) == [data(1, bytes(range(100)))]


def test_what_is_written_is_not_copied() -> None:
    session = new_session()
    stream = opening(session)
    whole, part = bytes(50 * KIB), bytes(500 * KIB)
    stream.write(whole)
    stream.write(part)
    parts = session.bytes_to_send(EVERYTHING)
    assert any(piece is whole for piece in parts)
    assert all(piece.obj is part for piece in parts if isinstance(piece, memoryview))


def test_bytearrays_and_views_are_taken() -> None:
    session = new_session()
    stream = opening(session)
    stream.write(bytearray(b"one "))
    stream.write(memoryview(b"-two-")[1:4])
    assert sent(session) == [data(1, b"one two")]


def test_empty_write_queues_nothing() -> None:
    session = new_session()
    stream = opening(session)
    assert stream.write(b"") == 0
    assert not session.has_output


def test_room_comes_back_as_bytes_leave() -> None:
    session = new_session()
    stream = session.streams[large(session)]
    assert stream.write(bytes(ROOM + 5)) == ROOM
    left = 0
    while session.has_output:
        left += sum(frame.length for frame in parse(joined(session.bytes_to_send(1))))
        assert session.room == left == ROOM - stream.queued_bytes
    assert session.room == ROOM


def test_room_comes_back_when_the_peer_resets() -> None:
    session = new_session()
    stream = opening(session)
    stream.write(bytes(1000))
    take(session, update(1, flags=RST))
    assert session.room == ROOM
    assert sent(session) == []


@pytest.mark.parametrize("sizes", [[1], [FRAME_BYTES], [FRAME_BYTES - 1, 1, 1], [1] * 70_000, [30_000] * 7])
def test_frames_hold_what_was_written_in_order(sizes: list[int]) -> None:
    session = new_session()
    stream = session.streams[large(session)]
    written = b"".join(bytes((n & 0xFF,)) * size for n, size in enumerate(sizes))
    position = 0
    for size in sizes:
        assert stream.write(written[position : position + size]) == size
        position += size
    frames = sent(session)
    assert b"".join(frame.payload for frame in frames) == written
    assert all(type(frame) is Frame and frame.flags == 0 for frame in frames)
    assert stream.queued_bytes == 0
    assert stream.queue == []
