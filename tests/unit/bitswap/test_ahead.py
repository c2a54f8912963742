"""How far ahead of its reader a session wants blocks, and when a lost stream for wants is opened again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import cast

import pytest

from aiolibp2p import Limits, Stream, Timeouts
from aiolibp2p.sansio.bitswap.message import Message
from aiolibp2p.sim import current_loop
from tests.support.bitswap import answer, blocks, node, scripted, settled

SIZE = 1000
MANY = blocks(40, SIZE)
CIDS = [cid for cid, _ in MANY]
Fetching = AsyncGenerator[bytes, None]


async def following(fetching: Fetching) -> bytes:
    return await anext(fetching)


@pytest.mark.parametrize("ahead", [1, 2, 5, 31])
async def test_no_more_blocks_are_wanted_ahead_than_the_limit(ahead: int) -> None:
    async with (
        scripted("peer") as peer,
        node("client", limits=Limits(bitswap_ahead_blocks=ahead)) as client,
        client.bitswap.session([peer.address]) as session,
    ):
        fetching = cast(Fetching, session.fetch(CIDS))
        first = current_loop().create_task(following(fetching))
        await settled()
        assert list(session._waiting) == [bytes(cid) for cid in CIDS[:ahead]]
        peer.say(client.peer_id, answer(MANY[0]))
        assert await first == MANY[0][1]
        second = current_loop().create_task(following(fetching))
        await settled()
        # From the second on it is at least two: the next is wanted while one is looked at.
        assert len(session._waiting) <= max(2, ahead)
        second.cancel()
        await settled()
        await fetching.aclose()
        assert not session._waiting


@pytest.mark.parametrize(("ahead_bytes", "ahead"), [(4 * SIZE - 1, 3), (4 * SIZE, 4), (5 * SIZE, 5), (1, 2)])
async def test_blocks_that_wait_for_their_turn_stay_within_their_bytes(ahead_bytes: int, ahead: int) -> None:
    """Of the size of the last one, and two at least."""
    limits = Limits(bitswap_ahead_bytes=ahead_bytes)
    async with (
        scripted("peer") as peer,
        node("client", limits=limits) as client,
        client.bitswap.session([peer.address]) as session,
    ):
        fetching = cast(Fetching, session.fetch(CIDS))
        for number in range(33):  # more than were wanted before the size of one was known
            coming = current_loop().create_task(following(fetching))
            await settled()
            peer.say(client.peer_id, answer(MANY[number]))
            assert await coming == MANY[number][1]
        coming = current_loop().create_task(following(fetching))
        await settled()
        assert 1 <= len(session._waiting) <= ahead
        assert len(session._waiting) > ahead // 4
        coming.cancel()
        await settled()
        await fetching.aclose()


async def test_a_stream_for_wants_that_was_lost_is_opened_again_after_bitswap_reopen() -> None:
    """T8: without a word from the peer."""
    opened: list[float] = []

    def reset(peer: object, stream: Stream, message: Message) -> None:
        opened.append(current_loop().time())
        stream.reset()

    async with scripted("peer", reset) as peer, node("client") as client:
        task = current_loop().create_task(client.bitswap.get(CIDS[0], [peer.address]))
        await settled(3.5)
        reopen = Timeouts().bitswap_reopen
        assert opened == [n * reopen for n in range(4)]
        task.cancel()
        await settled()
