"""What Bitswap says of itself: totals, where answers are, ledgers and wantlists."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from aiolibp2p import Timeouts
from aiolibp2p.blocks import Cid, MemoryBlockstore
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.sansio.bitswap.stat import Stage
from aiolibp2p.sim import current_loop
from tests.support.bitswap import block, blocks, node, scripted, settled, wants
from tests.support.hosts import raw_peer
from tests.support.scripts import initiating
from tests.unit.bitswap.test_stalls import want_over

MANY = blocks(4, 2000)


async def test_what_was_exchanged_is_counted_on_both_sides() -> None:
    async with node("server", MANY) as server, node("client") as client:
        for cid, data in MANY:
            assert await client.bitswap.get(cid, [server.address]) == data
        await settled()
        gave, got = server.bitswap.stat(), client.bitswap.stat()
        assert gave.serving.sent.blocks == got.received.blocks == len(MANY)
        assert gave.serving.sent.block_bytes == got.received.block_bytes == 8000
        assert (got.duplicate_blocks, got.wants) == (0, ())
        assert gave.peers == (str(client.peer_id),)
        assert gave.serving.spent.read_blocks == len(MANY)
        assert gave.serving.blocked_share == 0.0
        ledger = server.bitswap.ledger(client.peer_id)
        assert (ledger.sent.blocks, ledger.received.blocks, ledger.debt_ratio) == (4, 0, 8000.0)
        assert client.bitswap.ledger(server.peer_id).received.block_bytes == 8000
        await settled(Timeouts().bitswap_stall)
        assert server.bitswap.ledger(client.peer_id).state == "idle"
        assert server.bitswap.stat().serving.sent.confirmed == len(MANY)


async def test_all_that_is_said_is_json() -> None:
    async with node("server", MANY) as server, node("client") as client:
        await client.bitswap.get(MANY[0][0], [server.address])
        said = json.loads(json.dumps(server.bitswap.stat().to_json()))
        assert said["serving"]["sent"]["blocks"] == 1
        assert said["serving"]["stages"]["queued"] == {"answers": 0, "oldest_seconds": 0.0}
        ledger = json.loads(json.dumps(server.bitswap.ledger(client.peer_id).to_json()))
        assert (ledger["peer_id"], ledger["sent"]["blocks"]) == (str(client.peer_id), 1)


async def test_wants_are_listed_ours_and_those_of_a_peer() -> None:
    missing = [cid for cid, _ in blocks(3, label="missing")]
    async with node("server") as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        peer.say(server.peer_id, wants(*missing, dont_have=False))
        await settled()
        assert server.bitswap.wantlist(peer.host.peer_id) == missing
        assert server.bitswap.wantlist(server.peer_id) == server.bitswap.wantlist() == []
        address = f"{peer.host.addresses[0]}"
        task = current_loop().create_task(server.bitswap.get(missing[0], [address]))
        await settled()
        assert server.bitswap.wantlist() == [missing[0]]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_peer_that_is_not_connected_has_an_empty_ledger() -> None:
    async with node("server") as server, node("client") as client:
        ledger = server.bitswap.ledger(client.peer_id)
        assert (ledger.state, ledger.wants, ledger.received.messages) == ("idle", 0, 0)


class SlowStore(MemoryBlockstore):
    """Takes three seconds for everything."""

    async def _wait(self) -> None:
        future = current_loop().create_future()
        current_loop().call_later(3, future.set_result, None)
        await future

    async def sizes(self, cids: Sequence[Cid]) -> list[int | None]:
        await self._wait()
        return await super().sizes(cids)

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        await self._wait()
        return await super().get_many(cids)


async def test_the_stage_that_takes_time_is_named_with_its_age() -> None:
    async with node("server", store=SlowStore(MANY)) as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        peer.say(server.peer_id, wants(*(cid for cid, _ in MANY)))
        await settled(2)
        assert server.bitswap.stat().serving.stages.looking_up == Stage(4, 2.0)
        assert server.bitswap.ledger(peer.host.peer_id).state == "looking_up"
        await settled(2)
        stages = server.bitswap.stat().serving.stages
        assert (stages.looking_up, stages.loading) == (Stage(), Stage(4, 1.0))
        assert server.bitswap.ledger(peer.host.peer_id).state == "loading"
        await settled(4)
        stages = server.bitswap.stat().serving.stages
        assert (stages.loading, stages.unconfirmed) == (Stage(), Stage(4, 2.0))


async def test_a_peer_that_never_answers_is_seen_opening_and_awaiting_credit_and_backing_off() -> None:
    large = blocks(2, 200 << 10)
    async with node("server", large) as server, raw_peer(initiating()) as peer:
        link = await peer.dial(server.address)
        link.reads = False
        want_over(link, *(cid for cid, _ in large))
        await settled(4)
        peer_id: PeerId = link.peer.peer_id
        stages = server.bitswap.stat().serving.stages
        assert stages.opening == Stage(1, 4.0)
        assert stages.awaiting_credit == Stage(1, 4.0)
        ledger = server.bitswap.ledger(peer_id)
        assert (ledger.state, ledger.seconds, ledger.stalls) == ("awaiting_credit", 4.0, 0)
        assert 0 < ledger.held_bytes <= (200 << 10) + 100
        await settled(30)
        stat = server.bitswap.stat().serving
        ledger = server.bitswap.ledger(peer_id)
        assert (ledger.state, ledger.stalls, stat.stalls) == ("backing_off", 1, 1)
        assert stat.stages.backing_off.answers == 1  # the other was taken, and is old enough
        assert stat.blocked == stat.spent
        assert stat.blocked_share == 1.0


async def test_dropped_wants_are_told_with_their_reason() -> None:
    cid = block("missing")[0]
    async with node("server") as server, scripted("peer") as peer:
        await peer.host.connect(server.address)
        await settled()
        peer.say(server.peer_id, wants(cid))
        await settled()
        peer.say(server.peer_id, wants(cid, cancel=True))
        await settled()
        assert server.bitswap.stat().serving.dropped == {"cancelled": 1}
        assert server.bitswap.ledger(peer.host.peer_id).dropped == {"cancelled": 1}
