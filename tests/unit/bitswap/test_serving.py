"""What a server says to what it is asked, and what it does with bad input and with a store that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from aiolibp2p import Limits, Stream
from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks import Cid, MemoryBlockstore
from aiolibp2p.errors import DeadlineError, StorageError
from aiolibp2p.identity.varint import encode_varint
from aiolibp2p.sansio.bitswap.message import PROTOCOL_1_0, PROTOCOL_1_1, Message, Payload, encode
from aiolibp2p.sim import current_loop
from tests.support.bitswap import (
    MESSAGE_BYTES,
    Block,
    answer,
    block,
    blocks,
    node,
    scripted,
    settled,
    wants,
)
from tests.support.hosts import sim_host
from tests.support.refusals import reached

SMALL, LARGE = block("small", 1024), block("large", 1025)
MISSING = block("missing")[0]


async def test_have_is_said_for_large_blocks_and_small_ones_are_sent_at_once() -> None:
    async with node("server", [SMALL, LARGE]) as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        peer.say(server.peer_id, wants(SMALL[0], LARGE[0], MISSING, have=True))
        await settled()
        assert peer.heard.blocks == [SMALL[1]]
        assert peer.heard.presences == {bytes(LARGE[0]): True, bytes(MISSING): False}


@pytest.mark.parametrize("have", [True, False])
async def test_an_empty_block_is_sent_and_is_not_missing(have: bool) -> None:
    empty = block("empty", 0)
    async with node("server", [empty]) as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        peer.say(server.peer_id, wants(empty[0], have=have))
        await settled()
        assert (peer.heard.blocks, peer.heard.presences) == ([b""], {})


async def test_who_does_not_ask_for_dont_have_hears_nothing_of_missing_blocks() -> None:
    async with node("server", [LARGE]) as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        peer.say(server.peer_id, wants(MISSING, LARGE[0], dont_have=False))
        await settled()
        assert (peer.heard.blocks, peer.heard.presences) == ([LARGE[1]], {})


@pytest.mark.conforms("B3")
async def test_what_is_cancelled_is_not_answered_when_it_comes() -> None:
    async with node("server") as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        peer.say(server.peer_id, wants(SMALL[0], LARGE[0], dont_have=False))
        peer.say(server.peer_id, wants(SMALL[0], cancel=True))
        await settled()
        for cid, data in (SMALL, LARGE):
            await server.store.put(cid, data)
            server.bitswap.arrived(cid, len(data))
        await settled()
        assert peer.heard.blocks == [LARGE[1]]


async def test_a_full_wantlist_replaces_what_was_wanted() -> None:
    """T23: what is no longer wanted is not answered when it comes."""
    async with node("server") as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        peer.say(server.peer_id, wants(SMALL[0], MISSING, dont_have=False))
        peer.say(server.peer_id, wants(LARGE[0], dont_have=False, full=True))
        await settled()
        ledger = server.bitswap.server.engine.ledger(peer.host.peer_id)
        assert ledger is not None
        assert [want.cid for want in ledger.wants] == [bytes(LARGE[0])]
        peer.say(server.peer_id, wants(full=True))
        await settled()
        assert ledger.wants == []


@pytest.mark.parametrize("protocol", [PROTOCOL_1_1, PROTOCOL_1_0])
@pytest.mark.conforms("B1")
async def test_an_older_peer_is_answered_in_its_protocol(protocol: str) -> None:
    data = b"\x0a\x03old"
    cid = Cid.from_data(data, 0x70, version=0)
    async with node("server", [(cid, data)]) as server, scripted("old", protocols=[protocol]) as old:
        await old.host.connect(server.address)
        await settled()
        old.say(server.peer_id, wants(cid, MISSING), protocol)
        await settled()
        assert {stream.protocol for stream in old.heard.streams} == {protocol}
        assert (old.heard.blocks, old.heard.presences) == ([data], {})


@pytest.mark.conforms("B5")
async def test_answers_go_over_one_stream_however_many_ask() -> None:
    many = blocks(30)
    async with node("server", many) as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        for cid, _ in many:
            stream = peer.connection(server.peer_id).open_now("/ipfs/bitswap/1.2.0")
            peer.accept(stream)
            stream.try_write(wants(cid))
            await settled()
        assert sorted(peer.heard.blocks) == sorted(data for _, data in many)
        assert sum(stream.inbound for stream in peer.heard.streams) == 1


@pytest.mark.conforms("B2")
async def test_answers_are_taken_on_the_stream_of_the_question() -> None:
    def at_once(peer: object, stream: object, message: Message) -> None:
        stream.try_write(answer(SMALL))  # type: ignore[attr-defined]

    async with scripted("peer", at_once) as peer, node("client") as client:
        assert await client.bitswap.get(SMALL[0], [peer.address]) == SMALL[1]


@pytest.mark.conforms("B1")
async def test_blocks_that_nobody_wants_are_dropped_and_counted() -> None:
    async with scripted("peer") as peer, node("client") as client:
        await client.host.connect(peer.address)
        await settled()
        peer.say(client.peer_id, answer(SMALL, LARGE))
        await settled()
        assert len(client.store) == 0  # type: ignore[arg-type]
        assert client.bitswap.client.core.received.duplicates == 2


@pytest.mark.conforms("B1")
async def test_a_block_with_other_bytes_is_dropped_and_an_honest_peer_serves() -> None:
    cid, data = LARGE
    forged = Message(payloads=[Payload(cid.prefix, b"x" + data[1:])])

    def lie(peer: object, stream: object, message: Message) -> None:
        stream.try_write(b"".join(encode(forged, MESSAGE_BYTES)))  # type: ignore[attr-defined]

    async with scripted("liar", lie) as liar, node("honest", [LARGE]) as honest, node("client") as client:
        assert await client.bitswap.get(cid, [liar.address, honest.address]) == data
        assert client.bitswap.client.core.received.duplicates >= 1
        assert client.bitswap.client.core.received.blocks == 1
        assert [one async for one in client.store.cids()] == [Cid.from_digest(cid.digest)]


async def test_a_block_with_an_unknown_hash_is_dropped_and_the_rest_of_the_message_is_taken() -> None:
    unknown = Message(payloads=[Payload(b"\x01\x55\xb3\x21\x20", b"data"), Payload(SMALL[0].prefix, SMALL[1])])

    def say(peer: object, stream: object, message: Message) -> None:
        stream.try_write(b"".join(encode(unknown, MESSAGE_BYTES)))  # type: ignore[attr-defined]

    async with scripted("peer", say) as peer, node("client") as client:
        assert await client.bitswap.get(SMALL[0], [peer.address]) == SMALL[1]
        assert client.bitswap.client.bad_blocks == 1


BAD = {
    "too long": encode_varint(MESSAGE_BYTES + 1),
    "length without end": b"\xff" * 10,
    "no protobuf": b"\x02\xff\xff",
    "wire type 7": b"\x02\x0f\x00",
    "a field cut off": b"\x02\x0a\x7f",
}


@pytest.mark.parametrize("bad", list(BAD))
@pytest.mark.parametrize("ours", [False, True], ids=["their stream", "our stream"])
async def test_a_message_that_is_none_costs_its_stream_and_nothing_else(bad: str, ours: bool) -> None:
    """T10: a new stream takes the place of the one that is reset."""
    cid, data = LARGE
    async with node("client", [SMALL]) as client, scripted("peer") as peer:
        task = current_loop().create_task(client.bitswap.get(cid, [peer.address]))
        await settled()
        peer.say(client.peer_id, wants(SMALL[0]))
        await settled()
        assert peer.heard.blocks == [SMALL[1]]
        if ours:
            stream = peer.heard.streams[0]
            assert stream.inbound
            stream.try_write(BAD[bad])
        else:
            stream = peer.connection(client.peer_id).open_now("/ipfs/bitswap/1.2.0")
            peer.accept(stream)
            stream.try_write(BAD[bad])
        await settled(2)
        assert not stream.usable
        peer.say(client.peer_id, wants(SMALL[0]))
        peer.say(client.peer_id, answer(LARGE))
        assert await task == data
        await settled()
        assert peer.heard.blocks == [SMALL[1], SMALL[1]]


async def test_a_stream_that_ends_inside_a_message_disturbs_nothing() -> None:
    async with node("server", [SMALL]) as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        stream = peer.connection(server.peer_id).open_now("/ipfs/bitswap/1.2.0")
        stream.try_write(wants(SMALL[0])[:-1])
        stream.close()
        await settled()
        peer.say(server.peer_id, wants(SMALL[0]))
        await settled()
        assert peer.heard.blocks == [SMALL[1]]


class FailingStore(MemoryBlockstore):
    """Fails, or hangs until its time is over, whenever one block is among what is asked."""

    def __init__(self, has: Sequence[Block], bad: Cid, *, sizes: bool, hangs: bool) -> None:
        super().__init__(has)
        self.bad = bad
        self.fails_on_sizes = sizes
        self.hangs = hangs
        self.over = asyncio.Event()

    async def _touch(self, cids: Sequence[Cid]) -> None:
        if self.bad.multihash in {cid.multihash for cid in cids}:
            if self.hangs:
                self.hangs = False  # afterwards the key is refused at once
                await self.over.wait()
                raise DeadlineError("storage", 10)
            raise StorageError("read", "the disk is ill")

    async def sizes(self, cids: Sequence[Cid]) -> list[int | None]:
        if self.fails_on_sizes:
            await self._touch(cids)
        return await super().sizes(cids)

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        if not self.fails_on_sizes:
            await self._touch(cids)
        return await super().get_many(cids)


@pytest.mark.parametrize("sizes", [True, False], ids=["sizes", "blocks"])
@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "fails"])
async def test_where_storage_fails_for_one_block_the_others_are_served(sizes: bool, hangs: bool) -> None:
    """T9: nothing is said of a block that storage does not answer for, and nobody waits for it."""
    many = blocks(20)
    bad = many[7][0]
    store = FailingStore(many, bad, sizes=sizes, hangs=hangs)
    async with (
        node("server", store=store) as server,
        scripted("peer") as peer,
        scripted("other") as other,
    ):
        for one in (peer, other):
            await one.host.connect(server.address)
        await settled()
        peer.say(server.peer_id, wants(*(cid for cid, _ in many)))
        other.say(server.peer_id, wants(many[0][0]))
        await settled()
        assert other.heard.blocks == [many[0][1]]
        await settled(10)
        store.over.set()
        await settled()
        assert sorted(peer.heard.blocks) == sorted(data for cid, data in many if cid != bad)
        assert peer.heard.presences == {}
        assert server.bitswap.server.storage_failures == 1


async def test_a_node_that_does_not_serve_answers_nothing_and_still_fetches() -> None:
    async with (
        node("server", [LARGE]) as server,
        node("quiet", [SMALL], serve=False) as quiet,
        scripted("peer") as peer,
    ):
        assert await quiet.bitswap.get(LARGE[0], [server.address]) == LARGE[1]
        await peer.host.connect(quiet.address)
        await settled()
        peer.say(quiet.peer_id, wants(SMALL[0], MISSING))
        await settled()
        assert peer.heard.messages == []


async def test_many_unfinished_messages_of_one_peer_are_not_all_held() -> None:
    async with node("server") as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        streams = [peer.connection(server.peer_id).open_now("/ipfs/bitswap/1.2.0") for _ in range(12)]
        head = encode_varint(MESSAGE_BYTES) + b"\x1a" + encode_varint(MESSAGE_BYTES - 5)
        await settled()
        await asyncio.gather(*(stream.write(head + bytes(3_500_000)) for stream in streams), return_exceptions=True)
        await settled(1)
        alive = [stream for stream in streams if stream.usable]
        assert 1 <= len(alive) * 3_500_000 <= 16 << 20


async def test_what_limits_drop_of_messages_is_counted_by_the_host() -> None:
    limits = Limits(bitswap_wants_per_peer=4, bitswap_message_bytes=100_000, connection_unread_bytes=10_000)
    many = [cid for cid, _ in blocks(9)]
    long = Cid(b"\x01\x55\x00\x81\x02" + bytes(257))
    async with node("server", limits=limits) as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        counted = server.host.refusals

        async def say(data: bytes) -> Stream:
            stream = peer.connection(server.peer_id).open_now("/ipfs/bitswap/1.2.0")
            peer.accept(stream)
            stream.try_write(data)
            await settled()
            return stream

        await say(wants(*many[:4]))
        assert reached(counted) == {}
        await say(wants(*many[4:], long))
        assert reached(counted) == {"bitswap_wants_per_peer": 1 + 4, "bitswap_cid_bytes": 1}
        assert not (await say(encode_varint(100_001))).usable
        held = await say(encode_varint(100_000) + bytes(5000))
        held.try_write(bytes(5000))
        await settled()
        assert held.usable
        assert counted["bitswap_message_bytes"] == 1
        held.try_write(b"1")
        await settled()
        assert not held.usable
        assert counted["connection_unread_bytes"] == 1


async def test_who_leaves_bitswap_is_not_sent_again_what_it_has_had() -> None:
    async with node("server", [LARGE]) as server, sim_host("client") as host:
        async with Bitswap(host, MemoryBlockstore()) as bitswap:
            assert await bitswap.get(LARGE[0], peers=[server.address]) == LARGE[1]
        await settled()
        assert host.connections
        assert server.bitswap.stat().serving.sent.blocks == 1
        async with Bitswap(host, MemoryBlockstore()) as bitswap:
            assert await bitswap.get(LARGE[0], peers=[server.address]) == LARGE[1]
        await settled()
        assert server.bitswap.stat().serving.sent.blocks == 2
