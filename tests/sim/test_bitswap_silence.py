"""Peers that want blocks and do not take them, in all their ways: what honest peers notice, and what is spent."""

from __future__ import annotations

import asyncio
from functools import lru_cache

import pytest

from aiolibp2p import Timeouts
from aiolibp2p.sansio.bitswap.message import PROTOCOL
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sim import Link, current_loop, current_net
from aiolibp2p.sim import run as simulate
from tests.support.bitswap import Block, answer, block, blocks, node, settled
from tests.support.raw import NS
from tests.support.silence import KINDS, Outcome, Scene, SilentPeer, queued_bytes

HOUR = 3600.0
LATENCY = 0.025
WINDOW = 256 << 10
BLOCK_BYTES = 256 << 10
SILENT, HONEST = 4, 4
PER_PEER_BYTES = (64 << 10) + BLOCK_BYTES
"""What one silent peer may make a server hold."""
MOVING_BYTES = 4 * BLOCK_BYTES
"""What is held meanwhile for peers that take it."""
STALLING = tuple(name for name, kind in KINDS.items() if not kind.gives_credit)
TIMEOUTS = Timeouts()


async def play(scene: Scene) -> Outcome:
    current_net().set_link(Link(latency=LATENCY, bandwidth=100e6))
    return await scene.play()


@lru_cache(maxsize=4)
def without(honest: int, seconds: float, every: float, keepalive: float = TIMEOUTS.keepalive) -> Outcome:
    """Return what happens where nobody is silent."""
    scene = Scene(kind="drip", silent=0, honest=honest, seconds=seconds, fetch_every=every, honest_bytes=16 << 10,
                  keepalive=keepalive)  # fmt: skip
    return simulate(lambda: play(scene), limit_seconds=10 * HOUR)


@pytest.mark.slow
def test_peers_that_read_and_never_answer_cost_honest_ones_nothing_in_an_hour() -> None:
    """T1: at its full size, a thousand of them, in `benchmarks/virtual/serve_under_silence.py`."""
    kind = "read and never negotiate"
    scene = Scene(kind=kind, silent=50, honest=20, seconds=HOUR, fetch_every=300, honest_bytes=16 << 10,
                  silent_bytes=64 << 10, keepalive=600.0)  # fmt: skip
    outcome = simulate(lambda: play(scene), limit_seconds=10 * HOUR)
    baseline = without(20, HOUR, 300.0, 600.0)
    assert len(outcome.seconds) == len(baseline.seconds) == 20 * 12
    assert outcome.p99_seconds <= baseline.p99_seconds * 1.05
    assert max(outcome.shares().values()) <= 0.01
    # Each of them got what it wanted, once: they read.
    assert outcome.spent.read_blocks == baseline.spent.read_blocks + 50 * 4
    assert (outcome.stalls, outcome.tasks) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", STALLING)
def test_peers_that_take_nothing_cost_honest_ones_nothing_and_a_bounded_part_of_the_rest(kind: str) -> None:
    """T2: whatever they do meanwhile; what is spent on one is bounded by its back-offs."""
    seconds = 600.0
    scene = Scene(kind=kind, silent=SILENT, honest=HONEST, seconds=seconds, fetch_every=30, honest_bytes=16 << 10)
    outcome = simulate(lambda: play(scene), limit_seconds=10 * HOUR)
    baseline = without(HONEST, seconds, 30.0)
    assert len(outcome.seconds) == len(baseline.seconds) == HONEST * 20
    assert outcome.p99_seconds <= baseline.p99_seconds * 1.05
    assert outcome.oldest_task_seconds == 0
    assert outcome.stalls >= SILENT
    # 10, 20, 40, 80, 160 and 300 s: six back-offs in ten minutes, and each may end in two answers that are not taken.
    assert outcome.stalls <= SILENT * 6
    assert outcome.blocked.picks <= SILENT * 6 * 2
    assert outcome.blocked.read_bytes <= SILENT * 6 * 2 * (BLOCK_BYTES + 100)
    assert outcome.held_bytes <= SILENT * PER_PEER_BYTES + MOVING_BYTES
    # All that was not for honest peers was counted as spent on blocked ones, but for what is under way.
    others = outcome.spent.written_bytes - baseline.spent.written_bytes
    assert 0 <= others - outcome.blocked.written_bytes <= SILENT * (WINDOW + 20)


def filling(total: int) -> Block:
    """Return a block whose answer has so many bytes on its stream, the proposal of the protocol included."""
    size = total
    while len(proposal(PROTOCOL)) + len(answer(block("filling", size))) > total:
        size -= 1
    return block("filling", size)


@pytest.mark.parametrize("over", [-1, 0, 1, 100])
@pytest.mark.parametrize("kind", ["give no credit", "never negotiate"])
async def test_an_answer_that_fits_the_window_is_done_and_one_byte_more_ends_with_a_reset(kind: str, over: int) -> None:
    """T2: block and header at the peer's window −1, 0, +1 and +100 bytes."""
    wanted = filling(WINDOW + over)
    assert len(proposal(PROTOCOL)) + len(answer(wanted)) == WINDOW + over
    async with node("server", [wanted]) as server:
        peer = SilentPeer("silent", KINDS[kind], [wanted[0]])
        life = current_loop().create_task(peer.live(server.address))
        await settled(1)
        engine = server.bitswap.server.engine
        assert peer.received_bytes == min(WINDOW, WINDOW + over)
        # The time that these bytes may take at the slowest rate, after which all but the first try is shorter.
        await settled(TIMEOUTS.bitswap_stall + WINDOW / server.host.limits.bitswap_bytes_per_second)
        (wants,) = [record.ledger for record in engine._peers.values()]
        if over <= 0:
            assert (peer.resets_ns, engine.spent.stalls, len(wants), wants.unconfirmed) == ([], 0, 0, 0)
        else:
            assert len(peer.resets_ns) == engine.spent.stalls == 1
            assert peer.resets_ns[0] / NS == pytest.approx(10 + WINDOW / 12_500, abs=0.01)
            assert (wants.ready, engine.stalled_bytes, queued_bytes(server)) == (1, 0, 0)
            await settled(HOUR)
            # Tried once more, and given up.
            assert (engine.spent.stalls, len(wants), wants.lost) == (2, 0, 1)
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


@pytest.mark.slow
async def test_a_byte_now_and_then_wins_no_time_and_a_slow_honest_peer_is_served() -> None:
    """T3: one byte per 9 s, beside a peer on a line of 128 kbit/s."""
    many = blocks(12, 64 << 10)
    bait = blocks(4, BLOCK_BYTES, "bait")
    net = current_net()
    async with node("server", [*many, *bait]) as server, node("slow") as slow:
        machines = {machine.name: machine for machine in net.hosts}
        net.set_link(Link(latency=0.2, bandwidth=128e3), machines["server"], machines["slow"])
        dripping = SilentPeer("dripping", KINDS["drip"], [cid for cid, _ in bait])
        life = current_loop().create_task(dripping.live(server.address))
        started = current_loop().time()
        async with slow.bitswap.session([server.address]) as session:
            assert sorted([pair async for pair in session.get_many([cid for cid, _ in many])]) == sorted(many)
        took = current_loop().time() - started
        ideal = sum(len(data) for _, data in many) * 8 / 128e3
        assert ideal < took < ideal * 1.1 + 3
        await settled(60)
        engine = server.bitswap.server.engine
        # One ending of each try of the dripping one, at the slowest rate that is served; none of the slow one's.
        assert engine.spent.stalls == len(dripping.resets_ns) > 0
        assert dripping.resets_ns[0] / NS <= 10 + WINDOW / 12_500
        assert dripping.received_bytes <= (1 + len(dripping.resets_ns)) * (WINDOW + 20)
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
