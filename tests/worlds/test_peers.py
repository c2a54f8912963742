"""Peers: what one may take of a host, what is believed of it, and what security it is offered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from aiolibp2p import Host, Limits, Stream, Timeouts
from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks import MemoryBlockstore
from aiolibp2p.errors import DeadlineError, DialError, LocalProtocolError, NegotiationError
from aiolibp2p.net.events import ConnectionClosed, ConnectionOpened
from aiolibp2p.sansio.bitswap.message import PROTOCOL as BITSWAP
from aiolibp2p.sansio.multistream import HEADER, encode_message, proposal
from aiolibp2p.sansio.noise import PROTOCOL as NOISE
from aiolibp2p.sansio.yamux import RESOURCE_LIMIT, RST, SYN, WINDOW_UPDATE
from tests.support.bitswap import Scripted, answer, block, wants
from tests.support.hosts import ECHO, OTHER, other_tasks
from tests.support.raw import NS, RawLink
from tests.support.scripts import initiating, responding
from tests.support.worlds import World, echo, echoed, pair, session_of, start

OBSOLETE = ["/plaintext/2.0.0", "/plaintext/1.0.0", "/secio/1.0.0", "/insecure/1.0.0", "/tls/1.0.0", "/ipfs/1.0.0"]
"""What an upgrade must not be talked into."""
BACKLOG = Limits().yamux_ack_backlog


async def waiting(stream: Stream) -> None:
    await stream.read()


# -- what one peer may take --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of_one", "of_all"), [("streams_per_peer", "streams"), ("handlers_per_peer", "handlers")], ids=["streams", "tasks"]
)
async def test_one_peer_cannot_take_all_streams_or_tasks(world: World, of_one: str, of_all: str) -> None:
    """Case 13: over several connections of one peer; what it opens beyond its part is reset, others are served."""
    limits = Limits(**{of_one: 20, of_all: 30})
    async with (
        world.host("ours", limits=limits, timeouts=Timeouts(identify=world.seconds(5, 0.05))) as host,
        world.host("honest") as honest,
        world.raw(initiating()) as greedy,
    ):
        host.handle(OTHER, waiting)
        host.handle(ECHO, echo)
        links = [await world.in_time(greedy.dial(host.addresses[0])) for _ in range(3)]
        # Our own questions to it count as streams with it, until they end.
        await world.until(lambda: len(host.connections) == 3 and host._swarm.counts.streams == 0)
        for number in range(1, 81, 2):
            for link in links:
                link.send_data(number, proposal(OTHER), SYN)

        def resets() -> list[int]:
            frames = [frame for link in links for frame in link.frames]
            return [frame.length for frame in frames if frame.kind == WINDOW_UPDATE and frame.flags & RST]

        await world.until(lambda: resets().count(RESOURCE_LIMIT) == 3 * 40 - 20)
        assert getattr(host._swarm.counts, of_all) == 20
        assert len(host._tasks) <= 20
        connection = await world.in_time(honest.connect(host.addresses[0]))
        for _ in range(5):
            assert await world.in_time(echoed(await connection.open_stream(ECHO), b"served")) == b"served"
        assert await world.in_time(honest.ping(host.peer_id)) >= 0
        assert all(link.ended_ns is None for link in links)


async def test_one_peer_cannot_take_all_connections(world: World) -> None:
    """Case 13: its connections beyond `connections_per_peer` are refused; others connect, and are connected to."""
    limits = Limits(connections=6, connections_high=6, connections_low=4, connections_per_peer=3)
    async with (
        world.host("ours", limits=limits) as host,
        world.host("honest") as honest,
        world.raw(initiating()) as greedy,
        world.raw(name="dialled") as dialled,
    ):
        host.handle(ECHO, echo)
        links = [await world.in_time(greedy.dial(host.addresses[0])) for _ in range(20)]
        await world.until(lambda: len([link for link in links if link.ended_ns is not None]) == 17)
        assert len(host._swarm.connections_to(greedy.peer_id)) == 3
        assert host.refusals["connections_per_peer"] == 17
        connection = await world.in_time(honest.connect(host.addresses[0]))
        assert await world.in_time(echoed(await connection.open_stream(ECHO), b"served")) == b"served"
        await world.in_time(host.connect(dialled.address))
        assert len(host.connections) == 5


async def test_sockets_of_one_network_that_never_speak_leave_room_for_an_honest_dial(world: World) -> None:
    """Case 13: T20: as many again and again as may be upgraded at a time; one who speaks gets in meanwhile."""
    limits = Limits(pending_inbound=16)
    async with world.host("ours", limits=limits) as host, world.host("honest") as honest:
        host.handle(ECHO, echo)
        async with world.raw(lambda link: asyncio.sleep(0), "mute") as mute:
            for round_number in range(4):
                for _ in range(20):
                    await world.in_time(mute.dial(host.addresses[0]))
                connection = await world.in_time(honest.connect(host.addresses[0]))
                assert await world.in_time(echoed(await connection.open_stream(ECHO), b"served")) == b"served"
                await world.in_time(honest.disconnect(host.peer_id))
                assert len(host._swarm._pending_inbound) <= limits.pending_inbound
                await world.until(
                    lambda: len([link for link in mute.links if link.ended_ns is not None]) >= len(mute.links) - 16
                )
                assert host.refusals["pending_inbound"] >= 20 * round_number + 4


@pytest.mark.slow
async def test_with_256_unacknowledged_streams_only_that_peer_is_blocked(world: World) -> None:
    """T5: whoever opens the next one waits for `Timeouts.open_stream`; another peer is served and serves meanwhile."""

    async def mute(link: RawLink) -> None:
        link.accepts = link.reads = False
        await responding()(link)

    seconds = world.seconds(15, 0.5)
    timeouts = Timeouts(open_stream=seconds, identify=world.seconds(5, 0.05))
    async with pair(world, timeouts=timeouts) as (alice, bob, _), world.raw(mute) as peer:
        alice.handle(OTHER, echo)
        blocked = await world.in_time(alice.connect(peer.address))
        await world.until(lambda: session_of(blocked).round_trip is not None)
        await world.until(lambda: not blocked.streams and not blocked.tombstones)
        tasks = other_tasks()
        opened = [await world.in_time(blocked.open_stream(ECHO)) for _ in range(BACKLOG)]
        start_ns = world.now_ns()
        queue = [start(blocked.open_stream(ECHO)) for _ in range(50)]
        for _ in range(10):
            assert await world.in_time(echoed(await alice.open_stream(bob.peer_id, ECHO), b"served")) == b"served"
            assert await world.in_time(echoed(await bob.open_stream(alice.peer_id, OTHER), b"serves")) == b"serves"
        assert not any(task.done() for task in queue)
        results = await world.in_time(asyncio.gather(*queue, return_exceptions=True))
        assert {getattr(result, "deadline", None) for result in results} == {"open_stream"}
        assert not world.virtual or world.now_ns() - start_ns == 15 * NS
        for stream in opened:
            stream.reset()
        await world.until(lambda: not blocked.streams and other_tasks() == tasks)
        assert (await blocked.open_stream(ECHO)).usable


# -- nobody listens ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("consumer", ["none", "one that takes nothing", "one that left"])
async def test_networking_goes_on_without_a_consumer_of_events(world: World, consumer: str) -> None:
    """Case 14: what is kept for one that does not take it is bounded, and what it misses is counted."""
    rounds = 30
    limits = Limits(events=10)
    async with world.host("ours", limits=limits) as host, world.host("other") as other:
        host.handle(ECHO, echo)
        kept = None if consumer == "none" else host.events()
        if consumer == "one that left":
            del kept
            kept = None
        for _ in range(rounds):
            connection = await world.in_time(other.connect(host.addresses[0]))
            assert await world.in_time(echoed(await connection.open_stream(ECHO), b"on")) == b"on"
            await world.in_time(other.disconnect(host.peer_id))
        await world.until(lambda: not host.connections)
        if kept is None:
            assert len(host._events._streams) == 0
            return
        assert len(kept._events) == 10
        assert kept.missed >= 2 * rounds - 10
        last = [await anext(kept) for _ in range(10)]
        assert {type(event) for event in last} >= {ConnectionOpened, ConnectionClosed}


# -- what is believed of a peer ----------------------------------------------------------------------------------------


@asynccontextmanager
async def bitswap_client(world: World) -> AsyncIterator[tuple[Host, Bitswap, Scripted]]:
    """Give a client and a peer that says what its test lets it say."""
    async with AsyncExitStack() as stack:
        ours, theirs = [await stack.enter_async_context(world.host(name)) for name in ("ours", "theirs")]
        peer = Scripted(theirs, None)
        theirs.serve(BITSWAP, peer.accept)
        bitswap = await stack.enter_async_context(Bitswap(ours, MemoryBlockstore()))
        await world.in_time(ours.connect(theirs.addresses[0]))
        await world.in_time(ours.identify(theirs.peer_id))
        await world.in_time(theirs.identify(ours.peer_id))
        yield ours, bitswap, peer


async def test_a_peer_has_a_block_only_when_it_says_so(world: World) -> None:
    """Case 15: neither its asking for it nor ours of it counts; its last word does, and other blocks' words do not."""
    (cid, data), (other, _) = block("wanted"), block("another")
    async with bitswap_client(world) as (ours, bitswap, peer):
        getting = start(bitswap.get(cid, [peer.address]))
        await world.until(lambda: bytes(cid) in [entry.cid for entry in peer.heard.entries])
        (session,) = bitswap.client.core._sessions
        want = session._wants[bytes(cid)]
        theirs = peer.host.peer_id

        async def hears(message: bytes) -> None:
            read = peer.connection(ours.peer_id).bytes_out
            peer.say(ours.peer_id, message)
            await world.until(lambda: ours.connections[0].bytes_in >= read + len(message))
            await world.pass_time(world.seconds(0.001, 0.005))

        assert (want.asked, want.have, want.absent) == (theirs, set(), set())
        for message in (wants(cid), wants(cid, have=True), wants(cid, full=True), answer(haves=[other])):
            await hears(message)
            assert (want.have, want.absent) == (set(), set())
        await hears(answer(haves=[cid]))
        assert (want.have, want.absent) == ({theirs}, set())
        await hears(answer(lacks=[cid]))
        assert (want.have, want.absent) == (set(), {theirs})
        await hears(wants(cid))
        assert (want.have, want.absent) == (set(), {theirs})
        assert not getting.done() or getting.exception() is not None
        getting.cancel()
        await asyncio.wait([getting])
        assert data


# -- security ----------------------------------------------------------------------------------------------------------


async def test_plaintext_and_obsolete_security_are_refused(world: World) -> None:
    """Case 16: to one who dials, one after the other; Noise is taken afterwards."""

    async def script(link: RawLink) -> None:
        link.write(HEADER)
        assert await link.read_message() == "/multistream/1.0.0"
        for name in OBSOLETE:
            link.write(encode_message(name))
            assert await link.read_message() == "na"
        link.write(encode_message(NOISE))
        assert await link.read_message() == NOISE
        link.write(link.begin_noise())
        await link.read_noise()
        link.start_frames()

    async with world.host("ours") as host, world.raw(script) as peer:
        link = await world.in_time(peer.dial(host.addresses[0]))
        await world.until(lambda: bool(host.connections))
        assert link.ended_ns is None
        assert {connection.security for connection in host.connections} == {NOISE}


async def test_plaintext_and_obsolete_security_are_never_offered(world: World) -> None:
    """Case 16: a listener that refuses whatever comes, or names something else, is offered Noise and nothing else."""
    offered: list[str] = []

    async def script(link: RawLink) -> None:
        link.write(HEADER)
        assert await link.read_message() == "/multistream/1.0.0"
        offered.append(await link.read_message())
        number = len(link.peer.links)
        link.write(encode_message("na" if number == 1 else OBSOLETE[number % len(OBSOLETE)]))
        while True:
            await link.more()  # the Noise message that came with the proposal, until we are left alone
            if link.ended_ns is not None:
                return

    async with world.host("ours") as host, world.raw(script) as peer:
        for _ in range(4):
            with pytest.raises(DialError) as caught:
                await world.in_time(host.connect(peer.address))
            (failure,) = caught.value.failures.values()
            assert not isinstance(failure, DeadlineError)
        assert isinstance(failure, NegotiationError) or failure.stage == "security negotiation"  # type: ignore[attr-defined]
        assert set(offered) == {NOISE}
        assert host.connections == []


@pytest.mark.parametrize("security", [(), ("plaintext",), ("noise", "plaintext"), ("secio",), ("tls",)])
def test_a_host_cannot_be_told_to_use_anything_else(security: tuple[str, ...]) -> None:
    """There is no option for it."""
    with pytest.raises(LocalProtocolError):
        Host(security=security)
