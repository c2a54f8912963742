"""Connections that come and go and streams that fail, at any moment; storage that is stuck; and the end of it all."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

import pytest

from aiolibp2p import Timeouts
from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks import Cid, MemoryBlockstore
from aiolibp2p.errors import Libp2pError
from aiolibp2p.sansio.bitswap.ledger import Ledger
from aiolibp2p.sansio.bitswap.message import PROTOCOL
from aiolibp2p.sansio.bitswap.wants import Batch, Want
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.bitswap import Block, Node, block, blocks, node, scripted, settled, wants
from tests.support.hosts import sim_host
from tests.support.leaks import bitswap_leaks, host_leaks
from tests.support.silence import KINDS, SilentPeer

LATENCY = 0.025
STEP = 0.02
STEPS = 15
NEVER = -1
MANY = blocks(40, 64 << 10)
TIMEOUTS = Timeouts()


async def fetched(client: Node, server: Node, wanted: Sequence[Block]) -> bool:
    """Fetch blocks; return whether all came."""
    try:
        async with client.bitswap.session([server.address]) as session:
            return dict([pair async for pair in session.get_many([cid for cid, _ in wanted])]) == dict(wanted)
    except Libp2pError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("gap", [NEVER, 0, 1, 3])
async def test_wants_converge_whenever_which_of_two_connections_ends(first: int, gap: int) -> None:
    """T7: one ends at any moment of a fetch, and the other never, at once or some steps later."""
    current_net().set_link(Link(latency=LATENCY, bandwidth=100e6))
    for step in range(STEPS):
        async with node(f"server {step}", MANY) as server, node(f"client {step}") as client:
            # Both dial at the same time, so there are two.
            await asyncio.gather(client.host.connect(server.address), server.host.connect(client.address))
            await settled(1)
            sockets = list(current_net().connections)
            assert len(sockets) == 2
            loop = current_loop()
            fetch = loop.create_task(fetched(client, server, MANY))
            await settled(step * STEP)
            sockets[first].reset()
            if gap != NEVER:
                await settled(gap * STEP)
                sockets[1 - first].reset()
            ended_at = loop.time()
            if gap == NEVER:
                assert await fetch
            else:
                # Whoever has no connection left is told so, and finds everything after the next one was made.
                await fetch
                assert await fetched(client, server, MANY)
            assert loop.time() - ended_at <= TIMEOUTS.bitswap_repair
            await settled(TIMEOUTS.bitswap_stall)
            assert [*bitswap_leaks("server", server.bitswap), *bitswap_leaks("client", client.bitswap)] == []


@pytest.mark.parametrize("whose", ["wants", "answers", "both"])
async def test_after_a_failed_send_and_a_bounce_a_peer_is_usable_without_a_word_from_it(whose: str) -> None:
    """T8: our streams are reset, then the connection ends, in silence; the next fetch is served."""
    current_net().set_link(Link(latency=LATENCY))
    async with node("server", MANY) as server, node("client") as client:
        assert await fetched(client, server, MANY[:10])
        for host, kind in ((server.host, "wants"), (client.host, "answers")):
            for stream in host.connections[0].streams:
                if stream.protocol == PROTOCOL and stream.inbound and whose in (kind, "both"):
                    stream.reset()
        assert await fetched(client, server, MANY[10:20])
        (socket,) = current_net().connections
        for side in ("client", "server"):
            socket.black_hole(side)
        # Nobody hears of the end before the keepalive.
        lost = current_loop().create_task(fetched(client, server, MANY[20:30]))
        await settled(TIMEOUTS.keepalive + TIMEOUTS.keepalive_answer + 1)
        assert not await lost
        started = current_loop().time()
        assert await fetched(client, server, MANY[20:])
        assert current_loop().time() - started < 1


@pytest.mark.slow
async def test_peers_that_come_and_go_and_change_their_minds_leave_nothing_behind() -> None:
    """T11: the rest of the ten thousand is in `benchmarks/loopback/churn.py`."""
    big = blocks(4, 128 << 10, "big")
    lacking = [block(f"lacking {number}", 10)[0] for number in range(1000)]
    async with node("server", [*MANY, *big]) as server:
        await settled()
        gc.collect()
        kinds = list(KINDS)
        for number in range(90):
            peer = SilentPeer(f"peer {number}", KINDS[kinds[number % len(kinds)]], [cid for cid, _ in big])
            life = current_loop().create_task(peer.live(server.address))
            await settled(0.3)
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
        async with scripted("fickle") as fickle:
            await fickle.host.connect(server.address)
            await settled()
            for turn in range(30):
                fickle.say(server.peer_id, wants(*lacking, full=turn % 2 == 0, dont_have=False))
                fickle.say(server.peer_id, wants(*lacking, cancel=True))
                await settled(0.1)
            fickle.say(server.peer_id, wants(*(cid for cid, _ in MANY)))
            await settled(1)
            assert len(fickle.heard.blocks) == len(MANY)
        await settled(TIMEOUTS.bitswap_stall + TIMEOUTS.close + 1)
        engine = server.bitswap.server.engine
        assert (engine._peers, engine._waiting, engine._owners) == ({}, {}, {})
        assert (len(engine._scheduler), engine._scheduler._debts, engine._holders) == (0, {}, {})
        assert list(host_leaks("server", server.host, server.bitswap)) == []
        gc.collect()
        left = [one for one in gc.get_objects() if isinstance(one, (Want, Batch, Ledger))]
        assert left == []


class StuckStore(MemoryBlockstore):
    """Never returns the blocks of one read, whether it is cancelled or not, until it is let go."""

    def __init__(self, has: Sequence[Block]) -> None:
        super().__init__(has)
        self.over = asyncio.Event()

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        while not self.over.is_set():
            try:
                await self.over.wait()
            except asyncio.CancelledError:
                continue
        return await super().get_many(cids)


async def test_a_server_ends_in_time_while_storage_and_all_its_peers_are_stuck() -> None:
    """T14: what refuses to end is waited for as long as storage may take, and no longer."""
    bait = blocks(4, 256 << 10)
    store = StuckStore(MANY)
    loop = current_loop()
    async with sim_host("server") as host, scripted("peer") as peer:
        lives = []
        async with Bitswap(host, store) as bitswap:
            await store.put_many(bait)
            address = str(host.addresses[0])
            for number, kind in enumerate(KINDS.values()):
                silent = SilentPeer(f"silent {number}", kind, [cid for cid, _ in bait])
                lives.append(loop.create_task(silent.live(address)))
            await peer.host.connect(address)
            await settled()
            peer.say(host.peer_id, wants(*(cid for cid, _ in MANY)))
            await settled(5)
            assert bitswap.server.engine.loaded_bytes > 0
            started = loop.time()
        assert loop.time() - started == TIMEOUTS.storage
        store.over.set()
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        await settled(1)


class SlowKey(MemoryBlockstore):
    """Takes long to load one block."""

    def __init__(self, has: Sequence[Block], slow: Cid, seconds: float) -> None:
        super().__init__(has)
        self._slow = slow.multihash
        self._seconds = seconds

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        if self._slow in {cid.multihash for cid in cids}:
            await current_loop().pass_time(self._seconds)
        return await super().get_many(cids)


async def test_a_block_that_takes_storage_ten_seconds_holds_up_no_other_peer() -> None:
    """T9: two peers wait for it, while another one is served what it wants; and the stage is seen."""
    cid, data = block("slow", 256 << 10)
    store = SlowKey([*MANY, (cid, data)], cid, 10.0)
    current_net().set_link(Link(latency=LATENCY))
    async with node("server", store=store) as server, node("client") as client:
        assert await fetched(client, server, MANY[:1])
        started = current_loop().time()
        assert await fetched(client, server, MANY[1:20])
        alone = current_loop().time() - started
        async with scripted("crowd") as crowd, scripted("other") as other:
            for peer in (crowd, other):
                await peer.host.connect(server.address)
            await settled(1)
            for peer in (crowd, other):
                peer.say(server.peer_id, wants(cid))
            await settled(1)
            started = current_loop().time()
            assert await fetched(client, server, MANY[20:39])
            assert current_loop().time() - started <= alone
            assert crowd.heard.blocks == other.heard.blocks == []
            assert server.bitswap.stat().serving.stages.loading.answers == 2
            await settled(10)
            assert crowd.heard.blocks == other.heard.blocks == [data]
