"""Which connections go where there are too many, and that they go politely."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from aiolibp2p import Host, Limits, Stream, Timeouts
from aiolibp2p.errors import LimitError
from aiolibp2p.net.events import ConnectionClosed, LimitReached
from aiolibp2p.net.trim import LOOKS, Candidate, Trim, choose
from aiolibp2p.sansio.yamux import GO_AWAY, GO_AWAY_NORMAL
from aiolibp2p.sim import current_loop
from tests.support.hosts import ECHO, raw_peer, sim_host
from tests.support.raw import RawPeer
from tests.support.refusals import reached
from tests.support.scripts import initiating

GRACE = Timeouts().connection_grace


def candidate(name: str, **facts: Any) -> Candidate[str]:
    """Return an old idle connection that a peer of its own has dialled, but for what `facts` say."""
    defaults: dict[str, Any] = {
        "peer": name,
        "made_at": 0.0,
        "used_at": 0.0,
        "inbound": True,
        "opened_streams": 0,
        "accepted_streams": 0,
        "protected": False,
    }
    return Candidate(connection=name, **(defaults | facts))


def trim(*candidates: Candidate[str], low: int = 0, high: int = 0, grace: float = 0.0, now: float = 100.0) -> Trim[str]:
    return choose(candidates, low=low, high=high, grace=grace, now=now)


@pytest.mark.parametrize(("count", "closed"), [(4, 0), (5, 0), (6, 3), (9, 6)])
def test_at_the_high_mark_nothing_is_closed_and_above_it_the_low_mark_is_left(count: int, closed: int) -> None:
    names = [str(number) for number in range(count)]
    assert trim(*map(candidate, names), low=3, high=5).close == (names[:closed] or ())


def test_a_low_mark_above_the_high_one_is_the_high_one() -> None:
    assert trim(*map(candidate, "abcd"), low=10, high=3).close == ["a"]


def test_the_order_is_what_we_want_then_what_they_want_then_who_dialled_then_the_last_use() -> None:
    order = [
        candidate("beside an older one, of use lately", peer="twice", made_at=5.0, used_at=90.0),
        candidate("unused for longest", peer="twice", used_at=1.0),
        candidate("unused", used_at=2.0),
        candidate("dialled by us", inbound=False),
        candidate("used by the peer", accepted_streams=1),
        candidate("used by the peer, dialled by us", accepted_streams=1, inbound=False),
        candidate("used by us", opened_streams=1, used_at=1.0),
        candidate("used by us lately", opened_streams=1, used_at=2.0),
        candidate("used by both", opened_streams=1, accepted_streams=9),
    ]
    assert trim(*reversed(order)).close == [each.connection for each in order]


@pytest.mark.parametrize(("idle", "used", "left"), [(9, 0, 2), (0, 9, 5), (3, 6, 5), (5, 4, 4), (8, 1, 2)])
def test_connections_in_use_are_closed_as_far_as_the_high_mark_only(idle: int, used: int, left: int) -> None:
    facts = [candidate(f"idle {n}") for n in range(idle)]
    facts += [candidate(f"used {n}", **{("opened_streams", "accepted_streams")[n % 2]: 1}) for n in range(used)]
    closed = trim(*facts, low=2, high=5).close
    assert len(closed) == idle + used - left
    assert sum(name.startswith("idle") for name in closed) == min(idle, idle + used - 2)


def test_neither_a_young_connection_nor_a_protected_one_is_closed() -> None:
    facts = [candidate("protected", protected=True), candidate("young", made_at=80.5), candidate("old", made_at=80.0)]
    assert trim(*facts, grace=20.0).close == ["old"]


@pytest.mark.parametrize(("high", "again_at"), [(3, math.inf), (2, 81.0 + 20), (1, 82.0 + 20), (0, 82.0 + 20)])
def test_it_looks_again_when_enough_of_the_young_ones_are_old(high: int, again_at: float) -> None:
    """And not earlier: a flood of young ones must not cost a look for each."""
    young = [candidate(str(number), made_at=81.0 + number) for number in range(2)]
    assert trim(*young, candidate("p", protected=True), high=high, grace=20.0, now=90.0).again_at == again_at


def test_it_looks_again_a_few_times_within_a_grace_at_most() -> None:
    young = [candidate(str(number), made_at=80.001) for number in range(2)]
    assert trim(*young, high=1, grace=20.0).again_at == 100.0 + 20.0 / LOOKS


@pytest.mark.parametrize(("young", "closed"), [(3, []), (2, []), (1, ["used"]), (0, ["used"])])
def test_connections_in_use_stay_while_enough_young_ones_may_go_instead(young: int, closed: list[str]) -> None:
    """Else whoever connects often and does nothing would end every transfer."""
    idle = [candidate(f"young {number}", made_at=90.0, opened_streams=1) for number in range(young)]
    kept = [candidate(f"protected {number}", protected=True) for number in range(5 - young)]
    used = candidate("used", accepted_streams=1)
    assert trim(*idle, *kept, used, high=4, grace=20.0).close == closed


def test_it_does_not_look_again_where_only_protected_ones_are_left() -> None:
    assert trim(*(candidate(name, protected=True) for name in "abc"), high=1) == Trim([], math.inf)


# -- in a swarm ------------------------------------------------------------------------------------------------------

MARKS = Limits(connections_high=4, connections_low=2)


@asynccontextmanager
async def dialled(host: Host, count: int, name: str = "peer") -> AsyncIterator[list[RawPeer]]:
    """Give peers that have dialled the host, one each second."""
    async with AsyncExitStack() as stack:
        peers = []
        for number in range(count):
            peer = await stack.enter_async_context(raw_peer(initiating(), f"{name} {number}"))
            await peer.dial(host.addresses[0])
            peers.append(peer)
            await current_loop().pass_time(1)
        yield peers


async def waiting(stream: Stream) -> None:
    await stream.read()


async def test_connections_above_the_high_mark_end_politely_when_their_grace_is_over() -> None:
    async with sim_host("ours", limits=MARKS) as host, dialled(host, 4) as old:
        await current_loop().pass_time(GRACE)
        assert len(host.connections) == 4
        events = host.events()
        async with dialled(host, 1, "new"):
            assert [link.ended_ns is None for peer in old for link in peer.links] == [False] * 3 + [True]
            goodbyes = [frame.length for peer in old for frame in peer.links[0].frames if frame.kind == GO_AWAY]
            assert goodbyes == [GO_AWAY_NORMAL] * 3
            assert len(host.connections) == 2
            assert reached(host.refusals) == {"connections_high": 3}
        seen = [await anext(events) for _ in range(len(events._events))]
        errors = [event.error for event in seen if isinstance(event, ConnectionClosed)][:3]
        assert [error.limit for error in errors if isinstance(error, LimitError)] == ["connections_high"] * 3
        assert {str(error) for error in errors} == {"connection: limit connections_high reached: closed to make room"}
        assert LimitReached("connections_high", 3) in seen


async def test_young_connections_stay_above_the_high_mark_until_enough_are_old() -> None:
    async with sim_host("ours", limits=MARKS) as host, dialled(host, 7):  # made at 0, 1, … 6
        await current_loop().pass_time(GRACE - 7 - 0.001)
        assert len(host.connections) == 7
        await current_loop().pass_time(0.002)
        assert len(host.connections) == 6
        await current_loop().pass_time(GRACE / LOOKS)
        # Two more are old, which is enough to come to the high mark.
        assert len(host.connections) == 4
        await current_loop().pass_time(2 * GRACE)
        assert len(host.connections) == 4


async def test_a_protected_peer_keeps_its_connection_until_its_last_tag_is_gone() -> None:
    async with (
        sim_host("ours", limits=Limits(connections_high=2, connections_low=1)) as host,
        dialled(host, 2) as peers,
    ):
        first = peers[0].peer_id
        host.protect(first, "pinned")
        host.protect(first, "friend")
        await current_loop().pass_time(GRACE)
        async with dialled(host, 1, "third"):
            assert {connection.peer_id for connection in host.connections} >= {first}
            assert len(host.connections) == 2
            async with dialled(host, 1, "fourth") as (fourth,):
                await current_loop().pass_time(GRACE)
                assert {connection.peer_id for connection in host.connections} == {first, fourth.peer_id}
        assert host.unprotect(first, "pinned")
        assert not host.unprotect(first, "friend")
        assert not host.unprotect(first, "friend")


async def test_the_end_of_a_protection_makes_room() -> None:
    limits = Limits(connections_high=2, connections_low=0)
    async with sim_host("ours", limits=limits) as host, dialled(host, 3) as peers:
        for peer in peers:
            host.protect(peer.peer_id, "all")
        await current_loop().pass_time(2 * GRACE)
        assert len(host.connections) == 3
        host.unprotect(peers[1].peer_id, "all")
        await current_loop().settle()
        assert {connection.peer_id for connection in host.connections} == {peers[0].peer_id, peers[2].peer_id}


async def test_a_connection_in_use_outlives_those_that_are_not() -> None:
    async with sim_host("ours", limits=MARKS) as host, dialled(host, 3) as idle:
        host.handle(ECHO, waiting)
        await current_loop().pass_time(GRACE)
        async with sim_host("user") as user, sim_host("used") as used:
            used.handle(ECHO, waiting)
            theirs = await user.open_stream(host.addresses[0], ECHO)
            ours = await host.open_stream(used.addresses[0], ECHO)
            await current_loop().settle()
            assert {connection.peer_id for connection in host.connections} == {user.peer_id, used.peer_id}
            assert (theirs.usable, ours.usable) == (True, True)
            assert [peer.links[0].ended_ns is None for peer in idle] == [False] * 3
            theirs.reset()
            ours.reset()


async def test_a_host_that_leaves_leaves_no_timer_of_a_grace() -> None:
    async with sim_host("ours", limits=Limits(connections_high=0, connections_low=0)) as host, dialled(host, 1):
        assert host._swarm._trim_timer is not None
