"""Blocks that are not for everybody: they are missing, for who may not have them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from aiolibp2p.bitswap import Denylist
from aiolibp2p.blocks import Cid, MemoryBlockstore
from aiolibp2p.blocks.cid import DAG_PB
from aiolibp2p.identity.peer_id import PeerId
from tests.support.bitswap import block, node, scripted, settled, wants

OPEN, SECRET = block("open", 2000), block("secret", 2000)


class CountingStore(MemoryBlockstore):
    """Keeps what it was asked for."""

    def __init__(self, *has: tuple[Cid, bytes]) -> None:
        super().__init__(has)
        self.asked: set[bytes] = set()

    async def sizes(self, cids: Sequence[Cid]) -> list[int | None]:
        self.asked |= {cid.multihash for cid in cids}
        return await super().sizes(cids)


@pytest.mark.parametrize("denied", [[SECRET[0]], {SECRET[0].multihash}, Denylist([SECRET[0]])], ids=repr)
@pytest.mark.parametrize("have", [False, True])
async def test_a_denied_block_is_missing_by_every_name_and_the_store_is_not_asked(denied: object, have: bool) -> None:
    store = CountingStore(OPEN, SECRET)
    other = Cid.from_multihash(SECRET[0].multihash, DAG_PB)
    async with node("server", store=store, serving={"denied": denied}) as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        peer.say(server.peer_id, wants(OPEN[0], SECRET[0], other, have=have))
        await settled()
        presences = {bytes(SECRET[0]): False, bytes(other): False}
        assert peer.heard.presences == {**presences, **({bytes(OPEN[0]): True} if have else {})}
        assert peer.heard.blocks == ([] if have else [OPEN[1]])
        assert store.asked == {OPEN[0].multihash}
        assert server.bitswap.server.refused_wants == 1


async def test_a_block_is_served_to_whom_the_filter_lets_have_it() -> None:
    asked: list[tuple[PeerId, Cid]] = []
    friend_id: list[PeerId] = []

    def may_serve(peer_id: PeerId, cid: Cid) -> bool:
        asked.append((peer_id, cid))
        return peer_id in friend_id or cid == OPEN[0]

    async with (
        node("server", [OPEN, SECRET], serving={"may_serve": may_serve}) as server,
        scripted("friend") as friend,
        scripted("other") as other,
    ):
        friend_id.append(friend.host.peer_id)
        for peer in (friend, other):
            await peer.host.connect(server.address)
            await settled()
            peer.say(server.peer_id, wants(OPEN[0], Cid.from_multihash(SECRET[0].multihash, DAG_PB)))
            await settled()
        assert sorted(friend.heard.blocks) == sorted([OPEN[1], SECRET[1]])
        assert other.heard.blocks == [OPEN[1]]
        assert list(other.heard.presences.values()) == [False]
        assert {cid for _, cid in asked} == {OPEN[0], SECRET[0]}


async def test_a_denied_block_that_arrives_is_not_sent_to_who_waits_for_it() -> None:
    async with (
        node("server", serving={"denied": [SECRET[0]], "may_serve": lambda peer_id, cid: True}) as server,
        scripted("peer") as peer,
    ):
        await peer.host.connect(server.address)
        await settled()
        peer.say(server.peer_id, wants(OPEN[0], SECRET[0], dont_have=False))
        await settled()
        for cid, data in (OPEN, SECRET):
            await server.store.put(cid, data)
            server.bitswap.arrived(cid, len(data))
        await settled()
        assert (peer.heard.blocks, peer.heard.presences) == ([OPEN[1]], {})


async def test_a_block_that_is_denied_after_it_was_looked_up_is_missing_until_it_is_allowed() -> None:
    denied = Denylist()

    class Denying(MemoryBlockstore):
        async def sizes(self, cids: Sequence[Cid]) -> list[int | None]:
            denied.add(SECRET[0])
            return await super().sizes(cids)

    async with (
        node("server", store=Denying([OPEN, SECRET]), serving={"denied": denied}) as server,
        scripted("peer") as peer,
    ):
        await peer.host.connect(server.address)
        await settled()
        peer.say(server.peer_id, wants(OPEN[0], SECRET[0]))
        await settled()
        assert (peer.heard.blocks, peer.heard.presences) == ([OPEN[1]], {bytes(SECRET[0]): False})
        denied.discard(SECRET[0])
        server.bitswap.arrived(SECRET[0], len(SECRET[1]))
        await settled()
        assert peer.heard.blocks == [OPEN[1], SECRET[1]]
