"""Floods, oddities and blocks of every size: the right answers, in bounded memory, on connections that stay."""

from __future__ import annotations

import pytest

from aiolibp2p import Limits
from aiolibp2p.blocks import Cid
from aiolibp2p.errors import BlockNotFoundError
from aiolibp2p.sansio.bitswap.cids import prefix_of
from aiolibp2p.sansio.bitswap.message import EMPTY_BYTES, PROTOCOL, Entry, Message, block_bytes, encode
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import DATA, SYN, WINDOW_UPDATE
from aiolibp2p.sim import current_loop
from tests.support.bitswap import block, blocks, node, scripted, settled, wants
from tests.support.hosts import raw_peer
from tests.support.raw import Frame
from tests.support.scripts import initiating

LIMITS = Limits()
MESSAGE_BYTES = LIMITS.bitswap_message_bytes
PREFIX = prefix_of(bytes(block("prefix")[0]))
LARGEST = next(n for n in range(MESSAGE_BYTES, 0, -1) if block_bytes(PREFIX, n) + EMPTY_BYTES <= MESSAGE_BYTES)
"""The largest block that fits in a message."""
FLOOD_MESSAGES = 50
FLOOD_ENTRIES = 1000
BENIGN = {
    "an entry without a CID": b"\x0a\x04\x0a\x02\x10\x01",
    "a wantlist without entries": b"\x0a\x00",
    "an empty message": b"",
    "a want type that nobody knows": b"\x0a\x2a\x0a\x28\x0a\x24" + bytes(Cid.from_data(b"?")) + b"\x20\x63",
    "fields that nobody knows": b"\xfa\x07\x03abc\xf8\x07\x01",
    "a presence of a type that nobody knows": b"\x22\x28\x0a\x24" + bytes(Cid.from_data(b"?")) + b"\x10\x63",
}
"""Bodies of messages, each of which says little."""


def framed(body: bytes) -> bytes:
    assert len(body) < 128
    return bytes((len(body),)) + body


@pytest.mark.slow
async def test_a_flood_of_wants_is_bounded_and_what_is_there_is_answered() -> None:
    """T10: fifty thousand wants that cannot be met hold no more than the limit of one peer."""
    many = blocks(20)
    async with node("server", many) as server, scripted("peer") as peer, node("honest") as honest:
        await peer.host.connect(server.address)
        await settled()
        for number in range(FLOOD_MESSAGES):
            start = number * FLOOD_ENTRIES
            digests = ((b"\x01\x55\x12\x20" + n.to_bytes(32, "big")) for n in range(start, start + FLOOD_ENTRIES))
            message = Message([Entry(cid, 1, False, False, False) for cid in digests])
            peer.say(server.peer_id, b"".join(encode(message, MESSAGE_BYTES)))
            await settled()
            ledger = server.bitswap.server.engine.ledger(peer.host.peer_id)
            assert ledger is not None
            assert len(ledger) <= LIMITS.bitswap_wants_per_peer
            assert len(ledger._heap) <= 2 * LIMITS.bitswap_wants_per_peer
        assert server.host.refusals["bitswap_wants_per_peer"] >= FLOOD_MESSAGES * FLOOD_ENTRIES - 1024
        peer.say(server.peer_id, wants(*(cid for cid, _ in many)))
        await settled(1)
        assert sorted(peer.heard.blocks) == sorted(data for _, data in many)
        assert await honest.bitswap.get(many[0][0], [server.address]) == many[0][1]


@pytest.mark.parametrize("odd", BENIGN)
async def test_a_benign_oddity_costs_nothing(odd: str) -> None:
    """T10: what it comes with, and what follows it, is answered on the same stream."""
    cid, data = block("a block")
    async with node("server", [(cid, data)]) as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        stream = peer.say(server.peer_id, framed(BENIGN[odd]) + wants(cid))
        await settled(1)
        assert peer.heard.blocks == [data]
        peer.say(server.peer_id, framed(BENIGN[odd]))
        assert stream.usable
        assert len(server.host.connections) == 1


async def test_cids_that_cannot_be_wanted_are_skipped_one_by_one() -> None:
    """T10: identity, too long, too short a digest, no CID at all, in one message with one that is right."""
    cid, data = block("a block")
    odd = [
        b"\x01\x55\x00\x05hello",
        b"\x01\x55\x12\xc8\x01" + bytes(200),
        b"\x01\x55\x12\x10" + bytes(16),
        b"nonsense",
        b"\x01",
    ]
    async with node("server", [(cid, data)]) as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        entries = [Entry(one, 1, False, False, True) for one in (*odd, bytes(cid))]
        stream = peer.say(server.peer_id, b"".join(encode(Message(entries), MESSAGE_BYTES)))
        await settled(1)
        assert peer.heard.blocks == [data]
        assert stream.usable


@pytest.mark.parametrize(("length", "ends"), [(MESSAGE_BYTES, False), (MESSAGE_BYTES + 1, True)])
async def test_a_message_of_four_mib_is_taken_and_one_byte_more_costs_its_stream(length: int, ends: bool) -> None:
    """T10: by its length alone, before its bytes have come."""
    cid, data = block("a block")
    async with node("server", [(cid, data)]) as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        prefix, left = b"", length
        while left > 127:
            prefix, left = prefix + bytes((left & 127 | 128,)), left >> 7
        stream = peer.say(server.peer_id, prefix + bytes((left,)))
        await settled(1)
        assert stream.usable != ends
        stream.reset()
        peer.say(server.peer_id, wants(cid))
        await settled(1)
        assert peer.heard.blocks == [data]


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, 1024, 1025, 2 << 20, LARGEST])
async def test_blocks_of_every_size_go_both_ways(size: int) -> None:
    """T18: as they are wanted of the server, and of whoever fetched them."""
    cid, data = block("a block", size)
    async with node("server", [(cid, data)]) as server, node("client") as client, node("third") as third:
        assert await client.bitswap.get(cid, [server.address]) == data
        assert await third.bitswap.get(cid, [client.address]) == data
        assert server.bitswap.server.engine.spent.stalls == 0


async def test_a_block_that_fits_in_no_message_is_refused_cleanly() -> None:
    """T18: whoever wants it is told at once that it is not to be had here."""
    cid, data = block("a block", MESSAGE_BYTES)
    small = block("small")
    async with node("server", [(cid, data), small]) as server, node("client") as client:
        with pytest.raises(BlockNotFoundError):
            await client.bitswap.get(cid, [server.address])
        assert current_loop().time() == 0
        assert await client.bitswap.get(small[0], [server.address]) == small[1]


@pytest.mark.parametrize("have", [True, False])
async def test_an_empty_block_is_served_over_both_kinds_of_want(have: bool) -> None:
    """T21: it is there, though it is nothing; a want-have brings it at once."""
    cid, data = block("nothing", 0)
    assert data == b""
    async with node("server", [(cid, data)]) as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        peer.say(server.peer_id, wants(cid, have=have))
        await settled()
        assert (peer.heard.blocks, peer.heard.presences) == ([b""], {})


async def test_a_full_wantlist_takes_back_exactly_what_waits() -> None:
    """T23: what the stream has begun to accept comes, and of all that waited behind it only what is still wanted."""
    many = blocks(40, 64 << 10)
    async with node("server", many) as server, raw_peer(initiating()) as peer:
        link = await peer.dial(server.address)
        link.reads = False
        answers: list[Frame] = []

        def on_frame(frame: Frame) -> None:
            if frame.stream_id % 2 == 0 and frame.kind == DATA and (answers or proposal(PROTOCOL) in frame.body):
                if not answers:
                    link.answer(frame.stream_id, PROTOCOL)
                answers.append(frame)

        link.on_frame = on_frame
        link.send_data(3, proposal(PROTOCOL) + wants(*(cid for cid, _ in many)), SYN)
        await settled(1)
        (record,) = server.bitswap.server.engine._peers.values()
        ledger = record.ledger
        written, begun = ledger.sent.blocks, sum(len(batch.answers) for batch in record.batches)
        kept = many[30:32]
        link.send_data(3, wants(*(cid for cid, _ in kept), full=True))
        await settled(0.1)
        assert {want.cid for want in ledger.wants if want.state == "ready"} == {bytes(cid) for cid, _ in kept}
        link.reads = True
        link.send_frame(WINDOW_UPDATE, 0, answers[0].stream_id, 8 << 20)
        await settled(1)
        got = b"".join(frame.body for frame in answers)
        came = [number for number, (_, data) in enumerate(many) if data in got]
        assert 0 < written + begun < 30
        assert came == [*range(written + begun), 30, 31]
        assert len(ledger) == 0
