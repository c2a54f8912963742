"""Whole nodes: blocks of all sizes from one peer and from several."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from aiolibp2p import Stream, Timeouts
from aiolibp2p.blocks import Cid, MemoryBlockstore
from aiolibp2p.blocks.cid import DAG_PB, SHA2_256, SHA2_512
from aiolibp2p.errors import (
    BlockNotFoundError,
    DeadlineError,
    DialError,
    InvalidValueError,
    NegotiationError,
    StorageError,
)
from aiolibp2p.sansio.bitswap.message import PROTOCOL_1_0, PROTOCOL_1_1, Message
from aiolibp2p.sim import current_loop
from tests.support.bitswap import Node, Scripted, answer, block, blocks, node, scripted, settled
from tests.support.hosts import raw_peer, sim_host
from tests.support.scripts import ACCEPTED, responding


class SlowStore(MemoryBlockstore):
    """A store whose puts take their time, and of which the first may fail."""

    def __init__(self, seconds: float, fails: int = 0) -> None:
        super().__init__()
        self.put_counts: list[int] = []
        self._seconds = seconds
        self._fails = fails

    async def put_many(self, many: Sequence[tuple[Cid, bytes]]) -> None:
        await current_loop().pass_time(self._seconds)
        if self._fails:
            self._fails -= 1
            raise StorageError("blocks", "no space left on device", stage="write")
        self.put_counts.append(len(many))
        await super().put_many(many)


SIZES = [0, 1, 1024, 1025, 256 << 10, 2 << 20]


@pytest.mark.parametrize("size", SIZES)
async def test_one_block_is_fetched_and_kept(size: int) -> None:
    cid, data = block("a block", size)
    async with node("server", [(cid, data)]) as server, node("client") as client:
        assert await client.bitswap.get(cid, [server.address]) == data
        assert await client.store.get(cid) == data
        assert server.bitswap.server.engine.spent.written_bytes >= size


async def test_a_block_that_the_store_has_is_asked_of_nobody() -> None:
    cid, data = block("a block")
    async with node("server") as server, node("client", [(cid, data)]) as client:
        assert await client.bitswap.get(cid, [server.address]) == data
        assert server.bitswap.server.engine.ledger(client.peer_id) is None


async def test_400_blocks_come_in_the_order_in_which_they_are_wanted() -> None:
    many = blocks(400, 16 << 10)
    async with node("server", many) as server, node("client") as client:
        async with client.bitswap.session([server.address]) as session:
            assert [data async for data in session.fetch([cid for cid, _ in many])] == [data for _, data in many]
        assert client.bitswap.client.core.received.blocks == 400
        assert client.bitswap.client.core.received.duplicates == 0


async def test_blocks_are_fetched_from_all_that_are_connected() -> None:
    many = blocks(400, 4 << 10)
    async with node("server", many) as server, node("client") as client:
        await client.host.connect(server.address)
        assert [data async for data in client.bitswap.fetch([cid for cid, _ in many])] == [data for _, data in many]


async def test_a_block_wanted_twice_is_fetched_once() -> None:
    cid, data = block("a block")
    other = block("another")
    async with node("server", [(cid, data), other]) as server, node("client") as client:
        async with client.bitswap.session([server.address]) as session:
            wanted = [cid, other[0], cid]
            assert [data async for data in session.fetch(wanted)] == [data, other[1], data]
        assert client.bitswap.client.core.received.blocks == 2


async def test_what_is_appended_while_it_is_fetched_is_fetched_too() -> None:
    many = blocks(300)
    async with node("server", many) as server, node("client") as client:
        cids = [many[0][0]]
        fetched = []
        async with client.bitswap.session([server.address]) as session:
            async for data in session.fetch(cids):
                fetched.append(data)
                cids += [cid for cid, _ in many[len(cids) : 2 * len(cids)]]
        assert fetched == [data for _, data in many]


async def test_blocks_arrive_while_the_store_writes_and_are_written_together() -> None:
    store = SlowStore(seconds=1.0)
    many = blocks(100)
    async with node("server", many) as server, node("client", store=store) as client:
        loop = current_loop()
        async with client.bitswap.session([server.address]) as session:
            started = loop.time()
            async for cid, _ in session.get_many([cid for cid, _ in many]):
                assert await store.has(cid)
            seconds = loop.time() - started
    assert sum(store.put_counts) == 100
    # The first lot is what came first; the others what had come by the end of the one before.
    assert len(store.put_counts) <= 6
    assert seconds < 7.0


async def test_a_store_that_fails_fails_the_blocks_it_was_given_and_no_others() -> None:
    store = SlowStore(seconds=0.0, fails=1)
    (first, _), (second, data) = blocks(2)
    async with (
        node("server", blocks(2)) as server,
        node("client", store=store) as client,
        client.bitswap.session([server.address]) as session,
    ):
        with pytest.raises(StorageError):
            await session.get(first)
        assert await session.get(second) == data
        assert await session.get(first) == blocks(1)[0][1]


async def test_a_block_that_is_being_written_is_not_asked_for_again() -> None:
    store = SlowStore(seconds=5.0)
    cid, data = block("a block")
    async with node("server", [(cid, data)]) as server, node("client", store=store) as client:
        async with client.bitswap.session([server.address]) as session, asyncio.TaskGroup() as group:
            one = group.create_task(session.get(cid))
            await settled(1.0)
            other = group.create_task(session.get(cid))
        assert one.result() == other.result() == data
        assert client.bitswap.client.core.received.duplicates == 0
        assert server.bitswap.server.engine.spent.picks == 1


async def test_peers_that_have_parts_deliver_everything_together() -> None:
    many = blocks(300, 8 << 10)
    async with AsyncExitStack() as stack:
        servers: list[Node] = [
            await stack.enter_async_context(node(f"server {number}", many[number::3])) for number in range(3)
        ]
        client = await stack.enter_async_context(node("client"))
        async with client.bitswap.session([server.address for server in servers]) as session:
            assert sorted([pair async for pair in session.get_many([cid for cid, _ in many])]) == sorted(many)


async def test_a_peer_without_the_block_is_passed_over_at_once() -> None:
    cid, data = block("a block")
    async with node("lacks it") as lacks, node("has it", [(cid, data)]) as has, node("client") as client:
        assert await client.bitswap.get(cid, [lacks.address, has.address]) == data
        assert current_loop().time() == 0


async def test_a_block_that_all_lack_is_not_found() -> None:
    cid, _ = block("a block")
    async with node("lacks it") as one, node("too") as other, node("client") as client:
        with pytest.raises(BlockNotFoundError) as raised:
            await client.bitswap.get(cid, [one.address, other.address])
        assert raised.value.cid == str(cid)


async def test_with_no_peer_nothing_is_found() -> None:
    async with node("client") as client:
        with pytest.raises(BlockNotFoundError):
            await client.bitswap.get(block("a block")[0])


async def test_blocks_before_the_missing_one_are_yielded() -> None:
    many = blocks(20)
    missing = block("missing")[0]
    cids = [cid for cid, _ in many]
    async with node("server", many) as server, node("client") as client:
        async with client.bitswap.session([server.address]) as session:
            fetched = session.fetch([*cids[:10], missing, *cids[10:]])
            got = [await anext(fetched) for _ in range(10)]
            with pytest.raises(BlockNotFoundError) as raised:
                await anext(fetched)
        assert raised.value.cid == str(missing)
    assert got == [data for _, data in many[:10]]


async def test_a_peer_that_cannot_be_reached_is_done_without() -> None:
    cid, data = block("a block")
    async with node("gone") as gone:
        address = gone.address
    async with node("server", [(cid, data)]) as server, node("client") as client:
        with pytest.raises(DialError):
            await client.bitswap.get(cid, [address])
        assert await client.bitswap.get(cid, [address, server.address]) == data


@pytest.mark.parametrize("protocol", [PROTOCOL_1_1, PROTOCOL_1_0])
async def test_an_older_peer_is_asked_in_its_protocol(protocol: str) -> None:
    data = b"old"
    cid = Cid.from_data(data, DAG_PB, version=0)
    async with node("client") as client, scripted("old", protocols=[protocol]) as old:
        with pytest.raises(DeadlineError):  # it never answers; what matters is what it was asked, and how
            await client.bitswap.get(cid, [old.address])
        assert {stream.protocol for stream in old.heard.streams} == {protocol}
        assert {(entry.cid, entry.want_have) for entry in old.heard.entries} == {(bytes(cid), False)}


async def test_a_block_comes_under_the_name_that_was_asked() -> None:
    data = b"\x0a\x03abc"
    kept = Cid.from_data(data)
    asked = Cid.from_data(data, DAG_PB, version=0)
    long = Cid.from_data(data, hash_code=SHA2_512)
    async with (
        node("server", [(kept, data), (long, data)]) as server,
        node("client") as client,
        client.bitswap.session([server.address]) as session,
    ):
        assert {one async for one in session.get_many([asked, long])} == {(asked, data), (long, data)}


async def test_an_identity_cid_is_its_own_block_and_a_short_digest_is_refused() -> None:
    async with node("server") as server, node("client") as client:
        assert await client.bitswap.get(Cid.from_data(b"abc", hash_code=0), [server.address]) == b"abc"
        short = Cid.from_digest(bytes(10), hash_code=0x12)
        with pytest.raises(InvalidValueError):
            await client.bitswap.get(short, [server.address])
        assert server.bitswap.server.engine.ledger(client.peer_id) is None


async def test_two_nodes_fetch_from_each_other_at_the_same_time() -> None:
    left, right = blocks(200, 8 << 10, "left"), blocks(200, 8 << 10, "right")
    async with node("left", left) as one, node("right", right) as other:
        await one.host.connect(other.address)
        await settled()
        async with one.bitswap.session() as mine, other.bitswap.session() as its:
            pairs = mine.get_many([cid for cid, _ in right])
            async for pair in its.get_many([cid for cid, _ in left]):
                assert pair in left
                assert await anext(pairs) in right
            assert [pair async for pair in pairs] == []


async def test_a_session_is_a_source_of_blocks_and_a_store_takes_its_place() -> None:
    cid, data = block("a block")
    store = MemoryBlockstore([(cid, data)])
    async with (
        node("server", store=store) as server,
        node("client") as client,
        client.bitswap.session([server.address]) as session,
    ):
        for source in (session, store):
            assert await source.get(cid) == data


@pytest.mark.parametrize("hash_code", [SHA2_256, SHA2_512])
async def test_an_empty_block_is_known_to_everybody_even_where_all_peers_deny_it(hash_code: int) -> None:
    empty = Cid.from_data(b"", hash_code=hash_code)
    async with node("lacks it") as lacks, node("client") as client:
        assert await client.bitswap.get(empty, [lacks.address]) == b""
        assert await client.bitswap.get(empty) == b""


async def test_a_block_that_could_not_be_verified_is_not_asked_for() -> None:
    unknown = Cid(b"\x01\x55\xb3\x21\x20" + bytes(32))
    known, data = block("known")
    async with node("server", [(known, data)]) as server, node("client") as client:
        async with client.bitswap.session([server.address]) as session:
            with pytest.raises(InvalidValueError):
                await anext(session.fetch([known, unknown]))
            assert await session.get(known) == data
        assert client.bitswap.client.core.received.blocks == 1


async def test_peers_are_reached_at_the_same_time() -> None:
    cid, data = block("a block")
    async with AsyncExitStack() as stack:
        mute = [await stack.enter_async_context(raw_peer(responding(ACCEPTED), f"mute {n}")) for n in range(4)]
        server = await stack.enter_async_context(node("server", [(cid, data)]))
        client = await stack.enter_async_context(node("client"))
        assert await client.bitswap.get(cid, [*(peer.address for peer in mute), server.address]) == data
        assert current_loop().time() == 0


async def test_a_peer_without_bitswap_is_asked_in_vain_only_once_for_each_version() -> None:
    cid, _ = block("a block")
    async with sim_host("plain") as plain, node("client") as client:
        with pytest.raises(BlockNotFoundError):
            await client.bitswap.get(cid, [str(plain.addresses[0])])
        assert current_loop().time() <= 5
        with pytest.raises(NegotiationError):
            await client.bitswap.get(cid, [str(plain.addresses[0])])
        with pytest.raises(BlockNotFoundError):
            await client.bitswap.get(cid)


async def test_a_peer_that_speaks_an_older_version_without_saying_so_is_asked_in_it() -> None:
    cid, data = block("a block")

    def give(peer: Scripted, stream: Stream, message: Message) -> None:
        stream.try_write(answer((cid, data), protocol=PROTOCOL_1_1))

    async with scripted("old", give, protocols=[PROTOCOL_1_1]) as old, node("client") as client:
        connection = await client.host.connect(old.address)
        await settled()
        connection.identify = None
        connection.refused.clear()
        assert await client.bitswap.get(cid, [old.address]) == data


async def test_while_a_peer_is_being_reached_no_block_counts_as_not_found() -> None:
    cid, _ = block("a block")
    async with raw_peer(responding(ACCEPTED)) as mute, node("lacks it") as lacks, node("client") as client:
        with pytest.raises(BlockNotFoundError):
            await client.bitswap.get(cid, [lacks.address, mute.address])
        assert current_loop().time() == Timeouts().dial_address


async def test_a_session_that_ends_gives_up_peers_that_are_being_reached() -> None:
    cid, data = block("a block")
    async with (
        raw_peer(responding(ACCEPTED)) as mute,
        node("server", [(cid, data)]) as server,
        node("client") as client,
    ):
        assert await client.bitswap.get(cid, [server.address, mute.address]) == data
        await settled()
        assert (await mute.link()).ended_ns is not None
        assert current_loop().time() == 0
