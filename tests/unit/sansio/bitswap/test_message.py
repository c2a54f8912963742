"""Messages as they are written, read by the protobuf library and by our decoder."""

from __future__ import annotations

import pytest

from aiolibp2p.errors import LimitError
from aiolibp2p.limits import Limits
from aiolibp2p.sansio.bitswap.decoder import Decoder
from aiolibp2p.sansio.bitswap.message import (
    EMPTY_BYTES,
    PRIORITY_MAX,
    PROTOCOL,
    PROTOCOL_1_0,
    PROTOCOL_1_1,
    PROTOCOL_UNVERSIONED,
    PROTOCOLS,
    Entry,
    Message,
    Payload,
    Presence,
    block_bytes,
    encode,
    presence_bytes,
    supports_have,
)
from tests.unit.sansio.bitswap.wire import PbMessage, cid, cid_v0, frame

LIMITS = Limits()
MAX = LIMITS.bitswap_message_bytes


def written(message: Message, protocol: str = PROTOCOL) -> PbMessage:
    """Return the message as the protobuf library reads it."""
    data = b"".join(encode(message, MAX, protocol))
    read = PbMessage()
    body = data[next(n for n in range(1, 6) if not data[n - 1] & 0x80) :]
    read.ParseFromString(body)
    assert frame(body) == data
    return read


def test_wants_are_written_as_the_specification_says() -> None:
    entries = [
        Entry(cid(1), 7),
        Entry(cid(2), PRIORITY_MAX, want_have=True, send_dont_have=True),
        Entry(cid(3), 0, True),
    ]
    read = written(Message(entries, full=True))
    assert read.wantlist.full
    assert [(e.block, e.priority, e.cancel, e.wantType, e.sendDontHave) for e in read.wantlist.entries] == [
        (cid(1), 7, False, 0, False),
        (cid(2), PRIORITY_MAX, False, 1, True),
        (cid(3), 0, True, 0, False),
    ]


def test_a_negative_priority_is_a_number_of_ten_bytes() -> None:
    assert written(Message([Entry(cid(1), -5)])).wantlist.entries[0].priority == -5


def test_blocks_presences_and_pending_bytes_are_written_as_the_specification_says() -> None:
    message = Message(
        payloads=[Payload(cid(1)[:4], b"a" * 10_000), Payload(cid(2)[:4], b"")],
        presences=[Presence(cid(3), True), Presence(cid_v0(4), False)],
        pending_bytes=77,
    )
    read = written(message)
    assert [(block.prefix, block.data) for block in read.payload] == [(cid(1)[:4], b"a" * 10_000), (cid(2)[:4], b"")]
    assert [(presence.cid, presence.type) for presence in read.blockPresences] == [(cid(3), 0), (cid_v0(4), 1)]
    assert read.pendingBytes == 77


def test_the_wantlist_is_written_even_if_it_is_empty() -> None:
    assert encode(Message(), MAX) == [b"\x02\x0a\x00"]


def test_a_large_block_is_one_of_the_buffers_and_not_copied() -> None:
    data = bytes(256 << 10)
    buffers = encode(Message(payloads=[Payload(cid(1)[:4], data)] * 2), MAX)
    assert len(buffers) == 4
    assert buffers[1] is data
    assert buffers[3] is data


def test_before_1_2_0_nothing_is_said_of_presence() -> None:
    message = Message(
        [Entry(cid(1), send_dont_have=True), Entry(cid(2), want_have=True)],
        payloads=[Payload(cid(3)[:4], b"x")],
        presences=[Presence(cid(4), True)],
        pending_bytes=1,
    )
    read = written(message, PROTOCOL_1_1)
    assert [entry.block for entry in read.wantlist.entries] == [cid(1)]
    assert not read.wantlist.entries[0].sendDontHave
    assert [block.data for block in read.payload] == [b"x"]
    assert not read.blockPresences
    assert not read.pendingBytes


@pytest.mark.parametrize("protocol", [PROTOCOL_1_0, PROTOCOL_UNVERSIONED])
@pytest.mark.conforms("B1")
def test_before_1_1_0_blocks_have_no_prefix(protocol: str) -> None:
    read = written(
        Message(payloads=[Payload(b"\x00\x70\x12\x20", b"x" * 5000), Payload(b"\x00\x70\x12\x20", b"")]), protocol
    )
    assert list(read.blocks) == [b"x" * 5000, b""]
    assert not read.payload


@pytest.mark.conforms("B1")
def test_only_1_2_0_supports_have() -> None:
    assert [supports_have(protocol) for protocol in PROTOCOLS] == [True, False, False, False]


def test_the_largest_block_fills_a_message_of_4_mib_exactly() -> None:
    data = bytes(MAX - 18)
    buffers = encode(Message(payloads=[Payload(cid(1)[:4], data)], pending_bytes=5), MAX)
    assert sum(map(len, buffers)) == 4 + MAX
    decoder = Decoder(LIMITS)
    (read,) = decoder.receive_bytes(b"".join(buffers))
    assert read.payloads[0].data == data
    with pytest.raises(LimitError) as raised:
        encode(Message(payloads=[Payload(cid(1)[:4], data + b"x")]), MAX)
    assert raised.value.limit == "bitswap_message_bytes"


@pytest.mark.parametrize("n_bytes", [0, 1, 127, 128, 5000, 1 << 20])
def test_the_room_a_block_takes_is_not_underestimated(n_bytes: int) -> None:
    message = Message(payloads=[Payload(cid(1)[:4], bytes(n_bytes))], presences=[Presence(cid(2), False)])
    size = sum(map(len, encode(message, MAX))) - 4
    assert size <= EMPTY_BYTES + block_bytes(cid(1)[:4], n_bytes) + presence_bytes(cid(2)) <= size + 16


def test_a_message_says_something_or_not() -> None:
    assert not Message()
    assert not Message(pending_bytes=3)
    assert Message(full=True)
    assert Message([Entry(cid(1))])
    assert Message(presences=[Presence(cid(1), True)])
