"""What a host holds is limited, and what is refused is told and counted."""

from __future__ import annotations

import asyncio

import pytest

from aiolibp2p import Limits, Stream
from aiolibp2p.errors import DialError, LimitError, StreamResetError
from aiolibp2p.net.events import ConnectionOpened, ConnectionRefused, Event, EventStream, InboundFailed
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import RESOURCE_LIMIT, RST, SYN
from aiolibp2p.sim import current_loop
from tests.support.hosts import ECHO, raw_peer, sim_host
from tests.support.raw import RawLink
from tests.support.refusals import reached
from tests.support.scripts import HEADED, initiating


async def happened(events: EventStream) -> list[Event]:
    """Return the events so far."""
    await current_loop().settle()
    return [await anext(events) for _ in range(len(events._events))]


async def test_an_inbound_connection_beyond_the_limit_is_refused() -> None:
    limits = Limits(connections=2)
    async with (
        sim_host("ours", limits=limits) as host,
        raw_peer(initiating(), "a") as a,
        raw_peer(initiating(), "b") as b,
        raw_peer(initiating(), "c") as c,
    ):
        events = host.events()
        await a.dial(host.addresses[0])
        await b.dial(host.addresses[0])
        link = await c.dial(host.addresses[0])
        assert await link.closed() == 0
        refused = [event for event in await happened(events) if isinstance(event, ConnectionRefused)]
        assert [event.error.limit for event in refused] == ["connections"]
        assert len(host.connections) == 2
        assert reached(host.refusals) == {"connections": 1}
        a.links[0].transport.abort()
        await current_loop().settle()
        assert (await c.dial(host.addresses[0])).ended_ns is None
        await current_loop().settle()
        assert len(host.connections) == 2


async def test_connections_of_one_peer_are_limited() -> None:
    async with (
        sim_host("ours", limits=Limits(connections_per_peer=3)) as host,
        raw_peer(initiating()) as peer,
        raw_peer(initiating(), "other") as other,
    ):
        events = host.events()
        for _ in range(5):
            await peer.dial(host.addresses[0])
        await other.dial(host.addresses[0])
        await current_loop().settle()
        assert [link.ended_ns for link in peer.links] == [None, None, None, 0, 0]
        seen = await happened(events)
        assert [e.error.limit for e in seen if isinstance(e, ConnectionRefused)] == ["connections_per_peer"] * 2
        assert len([e for e in seen if isinstance(e, ConnectionOpened)]) == 4
        assert len(host._swarm.connections_to(peer.peer_id)) == 3


async def test_a_dial_that_a_limit_refuses_at_its_end_says_so() -> None:
    async with sim_host("ours", limits=Limits(connections_per_peer=1)) as host, raw_peer() as peer:
        await host.connect(peer.address)
        with pytest.raises(DialError) as caught:
            await host.connect(peer.address.split("/p2p/")[0])  # whoever answers: it turns out to be the same
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, LimitError)
        assert failure.limit == "connections_per_peer"
        assert len(peer.links) == 2
        assert len(host.connections) == 1


async def test_the_oldest_socket_that_is_being_upgraded_makes_room() -> None:
    async with sim_host("ours", limits=Limits(pending_inbound=2)) as host, raw_peer(initiating(HEADED)) as peer:
        events = host.events()
        for _ in range(4):
            await peer.dial(host.addresses[0])
        await current_loop().settle()
        assert [link.ended_ns for link in peer.links] == [0, 0, None, None]
        seen = await happened(events)
        errors = [event.error for event in seen if isinstance(event, InboundFailed)]
        assert [error.limit for error in errors if isinstance(error, LimitError)] == ["pending_inbound"] * 2
        assert [error.stage for error in errors] == ["security negotiation"] * 2


async def waiting(stream: Stream) -> None:
    await stream.read()


def open_inbound(link: RawLink, count: int, first: int = 1) -> list[int]:
    numbers = [first + 2 * n for n in range(count)]
    for number in numbers:
        link.send_data(number, proposal(ECHO), SYN)
    return numbers


@pytest.mark.parametrize(
    "limit", ["streams_per_connection", "streams_per_peer", "streams", "handlers_per_peer", "handlers"]
)
async def test_inbound_streams_beyond_a_limit_are_reset_with_its_code(limit: str) -> None:
    async with sim_host("ours", limits=Limits(**{limit: 4})) as host, raw_peer(initiating()) as peer:
        host.handle(ECHO, waiting)
        link = await peer.dial(host.addresses[0])
        await current_loop().pass_time(6)  # our own question has ended
        numbers = open_inbound(link, 6)
        await current_loop().settle()
        resets = [frame for frame in link.frames if frame.flags & RST and frame.stream_id in numbers]
        assert [(frame.stream_id, frame.length) for frame in resets] == [(9, RESOURCE_LIMIT), (11, RESOURCE_LIMIT)]
        assert reached(host.refusals) == {limit: 2}
        assert len(host.connections[0].streams) == 4
        link.rst(1)
        await current_loop().settle()
        open_inbound(link, 1, 21)
        await current_loop().settle()
        assert not link.flagged(21, RST)


async def test_limits_of_one_peer_leave_room_for_another() -> None:
    limits = Limits(streams_per_peer=3)
    async with (
        sim_host("ours", limits=limits) as host,
        raw_peer(initiating()) as peer,
        raw_peer(initiating(), "other") as other,
    ):
        host.handle(ECHO, waiting)
        links = [await peer.dial(host.addresses[0]) for _ in range(2)]
        link = await other.dial(host.addresses[0])
        await current_loop().pass_time(6)
        open_inbound(links[0], 2)
        open_inbound(links[1], 2)
        open_inbound(link, 3)
        await current_loop().settle()
        assert [len(each.flagged(3, RST)) for each in (*links, link)] == [0, 1, 0]
        assert not link.flagged(5, RST)


async def test_the_counts_return_to_zero() -> None:
    async with sim_host("ours") as host, raw_peer(initiating()) as peer:
        host.handle(ECHO, waiting)
        link = await peer.dial(host.addresses[0])
        open_inbound(link, 100)
        await current_loop().settle()
        counts = host._swarm.counts
        assert counts.handlers == 100
        link.transport.abort()
        await current_loop().settle()
        assert (counts.streams, counts.tombstones, counts.handlers) == (0, 0, 0)
        assert len(host._tasks) == 0
        assert host._swarm._peers == {}


async def test_a_peer_that_opens_and_resets_without_end_costs_nothing() -> None:
    async with sim_host("ours") as host, raw_peer(initiating()) as peer:
        host.handle(ECHO, waiting)
        link = await peer.dial(host.addresses[0])
        for number in range(1, 4001, 2):
            link.send_data(number, proposal(ECHO), SYN)
            link.rst(number)
        await current_loop().settle()
        assert host._swarm.counts.handlers == 0
        assert len(host._tasks) == 0
        assert host.connections[0].ended is None


async def test_a_stream_beyond_the_limit_of_the_other_side_is_reset_there() -> None:
    async with sim_host("alice") as alice, sim_host("bob", limits=Limits(handlers=2)) as bob:
        bob.handle(ECHO, waiting)
        await alice.connect(bob.addresses[0])
        streams = [await alice.open_stream(bob.peer_id, ECHO) for _ in range(3)]
        results = await asyncio.gather(
            streams[2].read(), *(asyncio.wait_for(stream.read(), 1) for stream in streams[:2]), return_exceptions=True
        )
        assert isinstance(results[0], StreamResetError)
        assert (results[0].by, results[0].code) == ("remote", RESOURCE_LIMIT)
        assert [type(result) for result in results[1:]] == [TimeoutError] * 2
