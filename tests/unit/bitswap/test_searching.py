"""A session that searches for more peers when those it has lack a block, and searchers that misbehave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from aiolibp2p import Limits, Timeouts
from aiolibp2p.blocks import Cid
from aiolibp2p.errors import BlockNotFoundError, DialError
from aiolibp2p.host import Target
from aiolibp2p.sim import current_loop
from tests.support.bitswap import block, blocks, node, scripted, settled
from tests.support.hosts import raw_peer
from tests.support.scripts import ACCEPTED, responding

LOGGER = "aiolibp2p.bitswap"


class Searcher:
    """Gives these peers, the same for each CID; `asked` is for which CIDs, `most` how many at a time."""

    def __init__(self, *targets: Target, seconds: float = 0.0) -> None:
        self.asked: list[Cid] = []
        self.most = self.now = self.given = 0
        self._targets = targets
        self._seconds = seconds

    async def __call__(self, cid: Cid) -> AsyncIterator[Target]:
        self.asked.append(cid)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self._seconds:
                await current_loop().pass_time(self._seconds)
            for target in self._targets:
                self.given += 1
                yield target
        finally:
            self.now -= 1


async def hanging(cid: Cid) -> AsyncIterator[Target]:
    await asyncio.get_running_loop().create_future()
    yield ""


async def stubborn(cid: Cid) -> AsyncIterator[Target]:
    while True:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if current_loop().time() > 1000:
                raise
    yield ""


async def raising(cid: Cid) -> AsyncIterator[Target]:
    raise RuntimeError("no router")
    yield ""


def refusing(cid: Cid) -> AsyncIterator[Target]:
    raise RuntimeError("no router")


async def giving_nonsense(cid: Cid) -> AsyncIterator[Target]:
    for nonsense in ("/nowhere", 7, None):
        yield nonsense  # type: ignore[misc]


async def test_peers_that_a_search_finds_are_connected_and_asked() -> None:
    cid, data = block("a block")
    async with node("lacks it") as lacks, node("has it", [(cid, data)]) as has, node("client") as client:
        find = Searcher(has.address)
        async with client.bitswap.session([lacks.address], find_providers=find) as session:
            assert await session.get(cid) == data
            assert session.peers == [lacks.peer_id, has.peer_id]
        assert find.asked == [cid]


async def test_a_peer_may_be_named_by_an_id_whose_addresses_the_host_knows() -> None:
    cid, data = block("a block")
    async with node("has it", [(cid, data)]) as has, node("client") as client:
        await client.host.connect(has.address)
        async with client.bitswap.session(find_providers=Searcher(has.peer_id)) as session:
            assert await session.get(cid) == data


async def test_with_no_peer_at_all_there_is_a_search() -> None:
    many = blocks(20)
    async with node("has all", many) as has, node("client") as client:
        find = Searcher(has.address)
        async with client.bitswap.session(find_providers=find) as session:
            assert [data async for data in session.fetch([cid for cid, _ in many])] == [data for _, data in many]
        assert len(find.asked) <= Limits().bitswap_searches


async def test_peers_that_cannot_be_reached_do_not_end_a_session_that_can_search() -> None:
    cid, data = block("a block")
    async with node("gone") as gone:
        address = gone.address
    async with node("has it", [(cid, data)]) as has, node("client") as client:
        with pytest.raises(DialError):
            await client.bitswap.get(cid, [address])
        async with client.bitswap.session([address], find_providers=Searcher(has.address)) as session:
            assert await session.get(cid) == data


async def test_peers_that_are_silent_are_searched_past_when_they_do_not_answer_in_time() -> None:
    cid, data = block("a block")
    async with scripted("silent") as silent, node("has it", [(cid, data)]) as has, node("client") as client:
        async with client.bitswap.session([silent.address], find_providers=Searcher(has.address)) as session:
            assert await session.get(cid) == data
        assert current_loop().time() == Timeouts().bitswap_answer


async def test_when_those_that_are_found_lack_it_too_it_is_not_found_and_not_searched_for_again_soon() -> None:
    cid, _ = block("a block")
    async with node("lacks it") as lacks, node("too") as too, node("client") as client:
        find = Searcher(too.address)
        async with client.bitswap.session([lacks.address], find_providers=find) as session:
            for _ in range(3):
                with pytest.raises(BlockNotFoundError):
                    await session.get(cid)
            assert len(find.asked) == 1
            await settled(Timeouts().bitswap_search_again - 0.001)
            with pytest.raises(BlockNotFoundError):
                await session.get(cid)
            assert len(find.asked) == 1
            await settled(0.001)
            with pytest.raises(BlockNotFoundError):
                await session.get(cid)
            assert len(find.asked) == 2


async def test_a_few_searches_run_at_a_time_and_the_others_follow() -> None:
    many = blocks(30)
    limits = Limits(bitswap_searches=3)
    async with node("lacks them") as lacks, node("client", limits=limits) as client:
        find = Searcher(seconds=1.0)
        async with client.bitswap.session([lacks.address], find_providers=find) as session:
            getting = [current_loop().create_task(session.get(cid)) for cid, _ in many[:10]]
            done = await asyncio.gather(*getting, return_exceptions=True)
            assert all(isinstance(error, BlockNotFoundError) for error in done)
        assert find.most == 3
        assert sorted(find.asked) == sorted(cid for cid, _ in many[:10])
        assert current_loop().time() == 4.0


async def test_what_is_wanted_no_longer_is_not_searched_for() -> None:
    (one, _), (other, _) = blocks(2)
    limits = Limits(bitswap_searches=1)
    async with node("lacks them") as lacks, node("client", limits=limits) as client:
        find = Searcher(seconds=1.0)
        async with client.bitswap.session([lacks.address], find_providers=find) as session:
            first, second = (current_loop().create_task(session.get(cid)) for cid in (one, other))
            await settled(0.5)
            second.cancel()
            await asyncio.gather(first, second, return_exceptions=True)
            await settled(5)
        assert find.asked == [one]


async def test_no_more_peers_are_taken_from_one_search_than_the_limit() -> None:
    cid, data = block("a block")
    limits = Limits(bitswap_providers=3)
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node(f"lacks it {n}")) for n in range(3)]
        has = await stack.enter_async_context(node("has it", [(cid, data)]))
        client = await stack.enter_async_context(node("client", limits=limits))
        for order, found in (([*nodes, has], False), ([nodes[0], nodes[0], nodes[1], has], True)):
            find = Searcher(*(one.address for one in order))
            async with client.bitswap.session([nodes[0].address], find_providers=find) as session:
                if found:
                    assert await session.get(cid) == data
                else:
                    with pytest.raises(BlockNotFoundError):
                        await session.get(cid)
            assert find.given == (4 if found else 3)


@pytest.mark.parametrize(
    ("searcher", "seconds"),
    [(hanging, 10), (stubborn, 10), (raising, 0), (refusing, 0), (giving_nonsense, 0)],
)
async def test_a_searcher_that_misbehaves_costs_the_time_of_a_search_and_nothing_else(
    searcher: Callable[[Cid], AsyncIterator[Target]], seconds: int, caplog: pytest.LogCaptureFixture
) -> None:
    cid, _ = block("a block")
    known, data = block("known")
    with caplog.at_level(logging.INFO, LOGGER):
        async with node("lacks it", [(known, data)]) as lacks, node("client") as client:
            async with client.bitswap.session([lacks.address], find_providers=searcher) as session:
                with pytest.raises(BlockNotFoundError):
                    await session.get(cid)
                assert current_loop().time() == seconds
                assert await session.get(known) == data
                client.bitswap.client.core.connected(lacks.peer_id)
            if searcher is stubborn:
                assert "a search for peers does not end, and is abandoned" in caplog.messages
                await settled(1000)
                for task in asyncio.all_tasks():
                    if task.get_name() == "bitswap find_providers":
                        task.cancel()
                await settled()
    assert bool(caplog.messages) == (searcher is not giving_nonsense)


async def test_a_session_that_ends_ends_its_searches() -> None:
    cid, _ = block("a block")
    async with raw_peer(responding(ACCEPTED)) as mute, node("lacks it") as lacks, node("client") as client:
        find = Searcher(mute.address)
        async with client.bitswap.session([lacks.address], find_providers=find) as session:
            task = current_loop().create_task(session.get(cid))
            await settled(1)
            assert not task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await settled()
        assert (await mute.link()).ended_ns is not None
        assert current_loop().time() == 1
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("bitswap ")]
