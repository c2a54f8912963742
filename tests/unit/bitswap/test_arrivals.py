"""`get_many`: blocks in the order in which they come, and no more of them than their reader has room for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import cast

import pytest

from aiolibp2p import Limits
from aiolibp2p.blocks import Cid
from aiolibp2p.errors import BlockNotFoundError, DeadlineError, InvalidValueError
from aiolibp2p.sansio.bitswap.received import Cause
from aiolibp2p.sim import current_loop
from tests.support.bitswap import Block, answer, block, blocks, node, scripted, settled

SIZE = 1000
Fetching = AsyncGenerator[tuple[Cid, bytes], None]


def cids_of(many: list[Block]) -> list[Cid]:
    return [cid for cid, _ in many]


async def following(fetching: Fetching) -> Block:
    return await anext(fetching)


async def read_to_its_end(fetching: Fetching) -> None:
    async for _ in fetching:
        pass


async def test_blocks_come_in_the_order_in_which_they_arrive() -> None:
    many = blocks(4)
    async with (
        scripted("peer") as peer,
        node("client") as client,
        client.bitswap.session([peer.address]) as session,
    ):
        fetching = cast(Fetching, session.get_many(cids_of(many)))
        for number in (2, 0, 3, 1):
            coming = current_loop().create_task(following(fetching))
            await settled()
            peer.say(client.peer_id, answer(many[number]))
            assert await coming == many[number]
        with pytest.raises(StopAsyncIteration):
            await anext(fetching)


async def test_what_the_store_has_comes_first_and_each_cid_as_often_as_it_is_wanted() -> None:
    many = blocks(6)
    async with (
        node("server", many) as server,
        node("client", many[4:]) as client,
        client.bitswap.session([server.address]) as session,
    ):
        wanted = [*many, many[0]]
        came = [pair async for pair in session.get_many(cids_of(wanted))]
        assert sorted(came) == sorted(wanted)
        assert came[:2] == many[4:]
        assert session.received.blocks == 4


async def test_while_nobody_reads_no_more_blocks_are_wanted_than_the_limit_and_no_more_cids_are_taken() -> None:
    many = blocks(400)
    taken = 0

    def cids() -> Iterator[Cid]:
        nonlocal taken
        for cid, _ in many:
            taken += 1
            yield cid

    limits = Limits(bitswap_ahead_blocks=50)
    async with (
        node("server", many) as server,
        node("client", limits=limits) as client,
        client.bitswap.session([server.address]) as session,
    ):
        fetching = cast(Fetching, session.get_many(cids()))
        came = [await anext(fetching)]
        await settled(100)
        assert session.received.blocks == taken == 32
        came.append(await anext(fetching))
        await settled(100)
        assert session.received.blocks <= 52
        assert taken <= 52
        came += [pair async for pair in fetching]
        assert sorted(came) == sorted(many)
        assert session.received.blocks == 400


async def test_while_nobody_reads_twice_the_bytes_of_the_limit_are_held_and_the_rest_is_wanted_later() -> None:
    many = blocks(33, 100) + blocks(67, 20 << 10, "large")
    limits = Limits(bitswap_ahead_bytes=200 << 10)
    async with (
        node("server", many) as server,
        node("client", limits=limits) as client,
        client.bitswap.session([server.address]) as session,
    ):
        fetching = cast(Fetching, session.get_many(cids_of(many)))
        came = [await anext(fetching), await anext(fetching)]
        await settled(100)
        assert session.received.block_bytes <= (400 << 10) + 8 * (20 << 10)
        assert not session._waiting
        came += [pair async for pair in fetching]
        assert sorted(came) == sorted(many)
        assert session.received.causes[Cause.UNASKED] == 0


async def test_a_block_that_is_not_found_is_told_when_it_comes_to_its_turn() -> None:
    many = blocks(10)
    missing = block("missing")[0]
    async with (
        node("server", many) as server,
        node("client") as client,
        client.bitswap.session([server.address]) as session,
    ):
        fetching = cast(Fetching, session.get_many([missing, *cids_of(many)]))
        assert await anext(fetching) in many
        with pytest.raises(BlockNotFoundError):
            await read_to_its_end(fetching)
        assert not session._waiting


async def test_a_bad_cid_is_refused() -> None:
    async with (
        node("server") as server,
        node("client") as client,
        client.bitswap.session([server.address]) as session,
    ):
        with pytest.raises(InvalidValueError):
            await anext(session.get_many([Cid.from_digest(bytes(10), hash_code=0x12)]))
        assert [pair async for pair in session.get_many([])] == []


async def test_when_all_are_silent_the_deadline_is_exact() -> None:
    async with (
        scripted("silent") as silent,
        node("client") as client,
        client.bitswap.session([silent.address]) as session,
    ):
        began = current_loop().time()
        with pytest.raises(DeadlineError):
            await anext(session.get_many(cids_of(blocks(3))))
        assert current_loop().time() - began == 60.0
        assert not session._waiting


@pytest.mark.parametrize("how", ["cancelled", "closed"])
async def test_a_reader_that_leaves_wants_nothing_any_more_and_others_go_on(how: str) -> None:
    many = blocks(20)
    async with (
        scripted("peer") as peer,
        node("client") as client,
        client.bitswap.session([peer.address]) as session,
    ):
        fetching = cast(Fetching, session.get_many(cids_of(many)))
        leaver = current_loop().create_task(following(fetching))
        stayer = current_loop().create_task(client.bitswap.get(many[0][0], [peer.address]))
        await settled()
        if how == "cancelled":
            leaver.cancel()
            await asyncio.gather(leaver, return_exceptions=True)
        else:
            peer.say(client.peer_id, answer(many[1]))
            assert await leaver == many[1]
            await fetching.aclose()
        await settled()
        assert not session._waiting
        cancelled = {entry.cid for entry in peer.heard.entries if entry.cancel}
        asked = {entry.cid for entry in peer.heard.entries if not entry.cancel} - {bytes(many[1][0])}
        assert cancelled - {bytes(many[1][0])} == asked - {bytes(many[0][0])}
        peer.say(client.peer_id, answer(many[0]))
        assert await stayer == many[0][1]
