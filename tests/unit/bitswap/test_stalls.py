"""Peers that stop reading their answers: what is held for them, what they get when they read on, and over which way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from aiolibp2p import Limits, Stream, Timeouts
from aiolibp2p.blocks import Cid, MemoryBlockstore
from aiolibp2p.errors import LimitError
from aiolibp2p.sansio.bitswap.message import PROTOCOL, Message
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import DATA, RST, SYN
from aiolibp2p.sim import current_loop
from tests.support.bitswap import Block, Node, Scripted, block, blocks, node, scripted, settled, wants
from tests.support.hosts import raw_peer
from tests.support.raw import RawLink
from tests.support.scripts import initiating

TIMEOUTS = Timeouts()
MESSAGE_BYTES = (256 << 10) + 100
"""A batch, about."""


def held_bytes(server: Node) -> int:
    """Return how many bytes wait in the writers of a server."""
    writers = server.bitswap.server._writers.values()
    return sum(len(data) for writer in writers for _, buffers in writer._queue for data in buffers)


class Reader:
    """Stops to read answers when it is told so."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.stop_after = 0
        self._hear: list[Callable[[], None]] = []

    def __call__(self, peer: Scripted, stream: Stream, message: Message) -> None:
        if self.stop_after and len(peer.heard.blocks) >= self.stop_after and stream.inbound:
            self.streams.append(stream)
            assert stream._readable is not None
            self._hear.append(stream._readable)
            stream.on_readable(None)
            raise ConnectionAbortedError  # `Scripted` reads no further

    def read_on(self) -> None:
        self.stop_after = 0
        for stream, hear in zip(self.streams, self._hear, strict=True):
            stream.on_readable(hear)
            hear()


async def stop(server: Node, peer: Scripted, reader: Reader, many: list[Block]) -> None:
    """Let a peer take some of many blocks and then nothing."""
    reader.stop_after = 4
    await peer.host.connect(server.address)
    await settled()
    peer.say(server.peer_id, wants(*(cid for cid, _ in many)))
    await settled()


async def test_a_peer_that_stops_reading_holds_the_message_begun_and_no_more() -> None:
    many = blocks(40, 128 << 10)
    reader = Reader()
    async with node("server", many) as server, scripted("peer", reader) as peer:
        await stop(server, peer, reader, many)
        assert held_bytes(server) > MESSAGE_BYTES
        await settled(TIMEOUTS.bitswap_hold)
        engine = server.bitswap.server.engine
        assert held_bytes(server) <= MESSAGE_BYTES
        assert engine.stalled_bytes <= MESSAGE_BYTES
        assert engine.spent.let_go > 0
        await settled(5)
        reader.read_on()
        await settled()
        assert sorted(peer.heard.blocks) == sorted(data for _, data in many)
        assert (engine.loaded_bytes, engine.stalled_bytes, engine.spent.stalls) == (0, 0, 0)


class SlowStore(MemoryBlockstore):
    """Takes two seconds to load anything once it is slow."""

    slow = False

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        if self.slow:
            loaded = current_loop().create_future()
            current_loop().call_later(2, loaded.set_result, None)
            await loaded
        return await super().get_many(cids)


async def test_a_batch_that_is_let_go_while_it_is_loaded_is_not_written() -> None:
    many = blocks(40, 128 << 10)
    reader, store = Reader(), SlowStore(many)
    async with node("server", store=store) as server, scripted("peer", reader) as peer:
        await stop(server, peer, reader, many[:5])
        engine = server.bitswap.server.engine
        store.slow = True
        peer.say(server.peer_id, wants(*(cid for cid, _ in many[5:])))
        await settled(20)
        assert engine.stalled_bytes <= MESSAGE_BYTES
        assert held_bytes(server) <= MESSAGE_BYTES
        reader.read_on()
        await settled(60)
        assert sorted(peer.heard.blocks) == sorted(data for _, data in many)
        assert engine.loaded_bytes == 0


async def test_a_peer_that_is_given_up_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "aiolibp2p.bitswap")
    cid, data = block("a block", 300 << 10)
    async with node("server", [(cid, data)]) as server, two_links(server) as (link, _):
        want_over(link, cid)
        await settled(40)
        [record] = [one for one in caplog.records if one.name == "aiolibp2p.bitswap"]
        assert (record.levelname, vars(record)["peer_id"]) == ("INFO", link.peer.peer_id)


async def test_what_is_dropped_of_messages_is_logged_for_who_looks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "aiolibp2p.bitswap")
    limits = Limits(bitswap_wants_per_peer=4, bitswap_message_bytes=10_000)
    async with node("server", limits=limits) as server, two_links(server) as (link, _):
        want_over(link, *(cid for cid, _ in blocks(6)))
        await settled()
        link.send_data(3, b"\xff\xff\x7f")
        await settled()
        records = [one for one in caplog.records if one.name == "aiolibp2p.bitswap"]
        assert [one.message for one in records] == [
            "parts of a message were dropped",
            "a message was dropped, and its stream reset",
        ]
        assert vars(records[0])["dropped"] == 2
        assert isinstance(vars(records[1])["error"], LimitError)


async def test_answers_go_over_a_new_stream_when_the_peer_has_reset_one() -> None:
    """T8: each time."""
    cid, data = block("a block", 2000)
    async with node("server", [(cid, data)]) as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        for turn in range(3):
            peer.say(server.peer_id, wants(cid))
            await settled()
            assert peer.heard.blocks == [data] * (turn + 1)
            [last] = [stream for stream in peer.heard.streams if stream.inbound and stream.usable]
            # So old it counts as delivered.
            await settled(TIMEOUTS.bitswap_stall)
            last.reset()
            await settled()


@asynccontextmanager
async def two_links(server: Node) -> AsyncIterator[tuple[RawLink, RawLink]]:
    """Give two connections of one peer, which answers each stream on them and reads none."""
    async with raw_peer(initiating()) as peer:
        links = []
        for _ in range(2):
            link = await peer.dial(server.address)
            link.reads = False
            await settled(1)
            links.append(link)
        yield links[0], links[1]


def want_over(link: RawLink, *cids: Cid) -> None:
    """Want blocks on the first stream of a link."""
    link.send_data(3, proposal(PROTOCOL) + wants(*cids), SYN)


def answers_on(link: RawLink) -> list[int]:
    """Return the streams that the server has opened for Bitswap on a link."""
    opened = [frame for frame in link.frames if frame.kind == DATA and frame.body.startswith(proposal(PROTOCOL))]
    return [frame.stream_id for frame in opened if frame.stream_id % 2 == 0]


async def test_answers_move_to_a_newer_connection_as_soon_as_it_is_used() -> None:
    cid, data = block("a block", 300 << 10)
    async with node("server", [(cid, data)]) as server, two_links(server) as (old, new):
        want_over(old, cid)
        await settled(1)
        assert len(answers_on(old)) == 1
        assert answers_on(new) == []
        want_over(new, cid)
        await settled(1)
        assert len(answers_on(new)) == 1
        assert old.flagged(answers_on(old)[0], RST)
        # The other way only when the newer one has taken nothing for a while.
        old.send_data(3, wants(cid))
        await settled(0)
        assert len(answers_on(old)) == 2
        new.send_data(3, wants(cid))
        await settled(0)
        new.send_data(3, wants(cid))
        await settled(0)
        assert len(answers_on(new)) == 2
        old.send_data(3, wants(cid))
        await settled(0)
        assert len(answers_on(old)) == 2


async def test_a_second_connection_that_is_not_used_carries_no_answers() -> None:
    cid, data = block("a block", 300 << 10)
    async with node("server", [(cid, data)]) as server, two_links(server) as (old, new):
        want_over(old, cid)
        await settled(1)
        assert (len(answers_on(old)), len(answers_on(new))) == (1, 0)
        old.transport.abort()
        await settled(1)
        assert len(answers_on(new)) == 1
