"""Reading messages: what is understood, what is skipped, what ends the stream."""

from __future__ import annotations

from itertools import pairwise

import pytest

from aiolibp2p.errors import LimitError, RemoteProtocolError
from aiolibp2p.limits import Limits
from aiolibp2p.sansio.bitswap.cids import V0_PREFIX
from aiolibp2p.sansio.bitswap.decoder import Decoder
from aiolibp2p.sansio.bitswap.message import Entry, Message, Payload, Presence
from tests.unit.sansio.bitswap.wire import PbMessage, cid, frame, varint

LIMITS = Limits()
MAX = LIMITS.bitswap_message_bytes
MAX_CID = LIMITS.bitswap_cid_bytes


def read_one(body: bytes, limits: Limits = LIMITS) -> Message:
    """Return the one message of a stream."""
    decoder = Decoder(limits)
    messages = decoder.receive_bytes(frame(body))
    assert decoder.failure is None
    (message,) = messages
    return message


def failure(data: bytes, limits: Limits = LIMITS) -> str:
    """Return why a stream is refused."""
    decoder = Decoder(limits)
    decoder.receive_bytes(data)
    decoder.receive_eof()
    assert isinstance(decoder.failure, RemoteProtocolError)
    assert decoder.failure.protocol == "bitswap"
    assert not decoder.buffered_bytes
    assert decoder.receive_bytes(b"\x00") == []
    return decoder.failure.message


def delimited(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def test_everything_the_protobuf_library_writes_is_read() -> None:
    pb = PbMessage()
    pb.wantlist.full = True
    pb.wantlist.entries.add(block=cid(1), priority=5, sendDontHave=True)
    pb.wantlist.entries.add(block=cid(2), priority=-3, wantType=1)
    pb.wantlist.entries.add(block=cid(3), cancel=True)
    pb.blocks.append(b"old")
    pb.payload.add(prefix=cid(4)[:4], data=b"new")
    pb.blockPresences.add(cid=cid(5))
    pb.blockPresences.add(cid=cid(6), type=1)
    pb.pendingBytes = 1000
    message = read_one(pb.SerializeToString())
    assert message.entries == [
        Entry(cid(1), 5, False, False, True),
        Entry(cid(2), -3, False, True, False),
        Entry(cid(3), 0, True, False, False),
    ]
    assert message.full
    assert message.payloads == [Payload(V0_PREFIX, b"old"), Payload(cid(4)[:4], b"new")]
    assert message.presences == [Presence(cid(5), True), Presence(cid(6), False)]
    assert message.pending_bytes == 1000
    assert not message.skipped
    assert not message.dropped


def test_an_empty_message_without_a_wantlist_is_read() -> None:
    assert read_one(b"") == Message()


def test_a_block_without_data_is_the_empty_block() -> None:
    assert read_one(delimited(3, delimited(1, cid(1)[:4]))).payloads == [Payload(cid(1)[:4], b"")]


def test_unknown_fields_are_passed_over() -> None:
    unknown = varint(9 << 3) + varint(300) + delimited(6, b"tokens") + b"\x51" + bytes(8) + b"\x55" + bytes(4)
    body = unknown + delimited(1, unknown + delimited(1, unknown + delimited(1, cid(1)))) + unknown
    assert read_one(body).entries == [Entry(cid(1), 0)]


def test_unknown_enum_values_are_skipped_and_counted() -> None:
    pb = PbMessage()
    pb.wantlist.entries.add(block=cid(1), wantType=2)
    pb.wantlist.entries.add(block=cid(2))
    pb.blockPresences.add(cid=cid(3), type=2)
    pb.blockPresences.add(cid=cid(4), type=1)
    message = read_one(pb.SerializeToString())
    assert [entry.cid for entry in message.entries] == [cid(2)]
    assert message.presences == [Presence(cid(4), False)]
    assert message.skipped == 2


@pytest.mark.parametrize(
    "bad",
    [
        delimited(1, delimited(1, b"")),
        delimited(1, delimited(1, delimited(1, bytes(LIMITS.bitswap_cid_bytes + 1)))),
        delimited(1, delimited(1, b"\x0a\x05cut")),
        delimited(1, delimited(1, b"\x07")),
        delimited(3, b""),
        delimited(3, delimited(1, b"\x01\x55") + delimited(2, b"short prefix")),
        delimited(3, delimited(1, bytes(37))),
        delimited(3, b"\x0a\x80"),
        delimited(4, b""),
        delimited(4, b"\x10"),
        delimited(4, delimited(1, bytes(LIMITS.bitswap_cid_bytes + 1))),
    ],
)
def test_one_bad_item_is_skipped_and_the_others_are_read(bad: bytes) -> None:
    good = delimited(1, delimited(1, delimited(1, cid(1))))
    message = read_one(good + bad + good)
    assert len(message.entries) == 2
    assert message.skipped == 1


@pytest.mark.parametrize(("length", "kept"), [(MAX_CID - 1, True), (MAX_CID, True), (MAX_CID + 1, False)])
@pytest.mark.conforms("B4")
def test_a_cid_of_the_longest_length_is_looked_at_and_a_longer_one_is_counted(length: int, kept: bool) -> None:
    entry, presence = (delimited(number, delimited(1, bytes(length))) for number in (1, 4))
    message = read_one(delimited(1, entry) + presence)
    assert (len(message.entries), len(message.presences)) == (kept, kept)
    assert message.long_cids == message.skipped == 2 * (not kept)


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a\x05cut",
        b"\x0a",
        b"\x0a" + b"\xff" * 10,
        b"\x0b",
        b"\x0f",
        b"\x51" + bytes(7),
        b"\x80",
        delimited(1, b"\x0a\x05cut"),
        delimited(1, b"\x0c"),
    ],
)
def test_what_is_no_protobuf_ends_the_stream(body: bytes) -> None:
    assert failure(frame(body))


@pytest.mark.conforms("B1")
def test_a_message_of_exactly_4_mib_is_read() -> None:
    body = delimited(3, delimited(1, cid(1)[:4]) + delimited(2, bytes(MAX - 16)))
    assert len(body) == MAX
    assert len(read_one(body).payloads[0].data) == MAX - 16


@pytest.mark.parametrize("length", [varint(MAX + 1), b"\xff" * 8 + b"\x7f"])
@pytest.mark.conforms("B1")
def test_a_longer_message_is_refused_before_it_is_taken(length: bytes) -> None:
    decoder = Decoder(LIMITS)
    decoder.receive_bytes(length)
    assert isinstance(decoder.failure, LimitError)
    assert decoder.failure.limit == "bitswap_message_bytes"


@pytest.mark.parametrize("length", [b"\x80\x00", b"\xff" * 9])
def test_a_length_that_is_not_minimal_or_longer_than_any_is_refused(length: bytes) -> None:
    assert failure(length + bytes(3))


@pytest.mark.parametrize("data", [b"\x80", b"\x05", b"\x05\x0a\x00", b"\x00\x01"])
def test_the_end_inside_a_message_is_a_failure(data: bytes) -> None:
    assert failure(data)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x02\x0a\x00"])
def test_the_end_between_messages_is_none(data: bytes) -> None:
    decoder = Decoder(LIMITS)
    decoder.receive_bytes(data)
    decoder.receive_eof()
    assert decoder.failure is None


def test_messages_before_a_bad_one_in_the_same_chunk_are_returned() -> None:
    decoder = Decoder(LIMITS)
    assert len(decoder.receive_bytes(frame(b"") + frame(b"\x0a\x00") + frame(b"\x0f"))) == 2
    assert decoder.failure is not None


def test_what_is_buffered_of_a_message_is_known() -> None:
    decoder = Decoder(LIMITS)
    decoder.receive_bytes(varint(1000) + bytes(300))
    decoder.receive_bytes(bytes(300))
    assert decoder.buffered_bytes == 600


def test_wants_and_cancels_beyond_the_limit_are_dropped_and_full_is_still_seen() -> None:
    limits = Limits(bitswap_wants_per_peer=10)
    pb = PbMessage()
    for n in range(30):
        pb.wantlist.entries.add(block=cid(n), priority=1)
        pb.wantlist.entries.add(block=cid(n + 100), cancel=True)
    pb.wantlist.full = True
    message = read_one(pb.SerializeToString(), limits)
    assert [entry.cid for entry in message.entries if not entry.cancel] == [cid(n) for n in range(10)]
    assert [entry.cid for entry in message.entries if entry.cancel] == [cid(n + 100) for n in range(10)]
    assert message.dropped == 40
    assert message.full


def test_of_a_message_full_of_rubbish_the_rest_is_dropped() -> None:
    limits = Limits(bitswap_wants_per_peer=10)
    body = delimited(1, b"\x0a\x00" * 1_000_000) + delimited(1, delimited(1, delimited(1, cid(1))))
    message = read_one(body, limits)
    assert message.skipped == 11
    assert message.dropped == 1
    assert not message.entries


def test_no_more_blocks_and_presences_are_kept_than_can_be_wanted() -> None:
    limits = Limits(bitswap_wants_per_peer=10)
    block = delimited(3, delimited(1, cid(1)[:4]))
    presence = delimited(4, delimited(1, cid(1)))
    message = read_one(presence * 21 + block * 31, limits)
    assert len(message.presences) == 10
    assert len(message.payloads) == 10
    assert message.dropped == 32


@pytest.mark.parametrize(
    "cheap",
    [
        b"\x30\x00",
        delimited(3, b""),
        delimited(4, b""),
        delimited(1, b"\x0a\x00"),
        b"\x12\x00",
        delimited(4, b"\x0a\x01x"),
    ],
)
def test_items_that_cost_the_sender_nothing_end_the_message(cheap: bytes) -> None:
    message = read_one(cheap * 300_000 + delimited(1, delimited(1, delimited(1, cid(1)))))
    assert not message.entries
    assert message.dropped


@pytest.mark.parametrize("item", [1, 3, 4])
def test_an_item_of_very_many_fields_is_skipped(item: int) -> None:
    many = delimited(1, b"") * 100_000
    body = delimited(1, delimited(1, many)) if item == 1 else delimited(item, many)
    message = read_one(body + delimited(4, delimited(1, cid(1))))
    assert message.skipped == 1
    assert message.presences == [Presence(cid(1), True)]


def one_block(n_bytes: int, before: bytes = b"\x0a\x00", after: bytes = b"\x28\x05") -> bytes:
    return before + delimited(3, delimited(1, cid(1)[:4]) + delimited(2, bytes(range(256)) * (n_bytes // 256))) + after


@pytest.mark.parametrize(
    "body",
    [
        one_block(512),
        one_block(512, after=b""),
        one_block(512, before=b"", after=delimited(4, delimited(1, cid(2))) + b"\x28\x05"),
        one_block(512, before=delimited(1, delimited(1, delimited(1, cid(3))) + b"\x10\x01")),
        one_block(512, before=b"\x0a\x00\x55" + bytes(4)),
        one_block(512, before=delimited(3, b"")),
        one_block(512, after=one_block(256)),
        delimited(3, delimited(2, bytes(300)) + delimited(1, cid(1)[:4])),
        delimited(3, delimited(1, cid(1)[:4]) + delimited(2, bytes(300)) + b"\x28\x00"),
        delimited(3, delimited(1, b"\x01") + delimited(2, bytes(300))),
        delimited(3, delimited(2, bytes(300))),
        delimited(2, bytes(300)),
        b"\x1a\xff\x01\x0a\x04" + cid(1)[:4] + b"\x12\xff\xff\x03" + bytes(244),
        b"\x0b" + one_block(512),
    ],
)
def test_a_block_that_fills_its_message_is_read_alike_wherever_it_is_cut(body: bytes) -> None:
    stream = frame(body) + frame(delimited(4, delimited(1, cid(9))))

    def read(*cuts: int) -> tuple[list[Message], bool]:
        decoder = Decoder(LIMITS)
        bounds = [0, *cuts, len(stream)]
        chunks = [stream[low:high] for low, high in pairwise(bounds)]
        messages = [message for chunk in chunks for message in decoder.receive_bytes(chunk)]
        return messages, decoder.failure is not None

    whole = read()
    for at in range(1, len(stream)):
        assert read(at) == whole
        assert read(at // 2, at) == whole
        assert read(at, min(len(stream), at + 3)) == whole
