"""Peers that fall silent before there is a connection: the time of every step is a field of Timeouts, exactly."""

from __future__ import annotations

import pytest

from aiolibp2p import Host, Limits, Multiaddr, Timeouts
from aiolibp2p.errors import ConnectionEndedError, DeadlineError, DialError
from aiolibp2p.net.events import InboundFailed
from aiolibp2p.net.known import Source
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.noise import PROTOCOL as NOISE
from aiolibp2p.sim import Link, current_loop, current_net, sim_runtime
from tests.support.hosts import ECHO, against_raw, other_tasks, raw_peer, sim_host
from tests.support.raw import NS, RawLink, RawPeer
from tests.support.scripts import ACCEPTED, HEADED, MESSAGE_1, MESSAGE_2, MESSAGE_3, SELECTED, initiating, responding

NEGOTIATION = "security negotiation"
HANDSHAKE = "noise handshake"
BEFORE_MESSAGE_2 = [(ACCEPTED, NEGOTIATION), (HEADED, NEGOTIATION), (SELECTED, HANDSHAKE), (MESSAGE_1, HANDSHAKE)]


@pytest.mark.parametrize(("until", "stage"), BEFORE_MESSAGE_2)
async def test_a_dial_of_a_peer_that_falls_silent_ends_at_dial_address_and_names_the_stage(
    until: str, stage: str
) -> None:
    """T19: after nothing, and after each message before the handshake's second."""
    async with sim_host("ours") as host, raw_peer(responding(until)) as peer:
        tasks = other_tasks()
        with pytest.raises(DialError) as caught:
            await host.connect(peer.address)
        assert current_loop().time_ns() == 15 * NS
        assert list(caught.value.failures) == [peer.address]
        failure = caught.value.failures[peer.address]
        assert isinstance(failure, DeadlineError)
        assert failure.deadline in ("dial_address", "upgrade")
        assert (failure.seconds, failure.stage) == (15.0, stage)
        assert host.connections == []
        assert len(peer.links) == 1  # silence is no reason to dial again
        await current_loop().settle()
        assert peer.links[0].ended_ns == 15 * NS
        assert other_tasks() == tasks


@pytest.mark.parametrize(
    ("until", "whole", "stage"), [(HEADED, 0, NEGOTIATION), (SELECTED, 0, NEGOTIATION), (MESSAGE_2, 1, HANDSHAKE)]
)
async def test_a_dialled_peer_that_stops_within_a_message_has_no_more_time(until: str, whole: int, stage: str) -> None:
    """T19: after some whole messages, the last byte of the next one never comes."""

    async def script(link: RawLink) -> None:
        written: list[int] = []

        def write(data: bytes) -> None:
            link.transport.write(data[:-1] if len(written) == whole else data)
            written.append(len(data))

        link.write = write  # type: ignore[method-assign]
        await responding(until)(link)

    async with sim_host("ours") as host, raw_peer(script) as peer:
        with pytest.raises(DialError) as caught:
            await host.connect(peer.address)
        assert current_loop().time_ns() == 15 * NS
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, DeadlineError)
        assert failure.stage == stage


async def test_a_dialled_peer_that_trickles_has_no_more_time() -> None:
    """T19: one byte a second is no progress: the time is that of the whole."""

    async def script(link: RawLink) -> None:
        for byte in proposal(NOISE):
            link.write(bytes((byte,)))
            await current_loop().pass_time(1)

    async with sim_host("ours") as host, raw_peer(script) as peer:
        with pytest.raises(DialError) as caught:
            await host.connect(peer.address)
        assert current_loop().time_ns() == 15 * NS
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, DeadlineError)
        assert failure.stage == NEGOTIATION


@pytest.mark.parametrize(("until", "stage"), BEFORE_MESSAGE_2)
async def test_a_private_address_has_less_time(until: str, stage: str) -> None:
    runtime = sim_runtime(current_loop(), "ours")
    async with Host(runtime=runtime) as host, RawPeer(responding(until)) as peer:
        assert peer.ip == "127.0.0.1"
        with pytest.raises(DialError) as caught:
            await host.connect(peer.address)
        assert current_loop().time_ns() == 5 * NS
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, DeadlineError)
        assert (failure.deadline, failure.seconds, failure.stage) == ("dial_private_address", 5.0, stage)


async def test_the_shorter_of_upgrade_and_dial_address_counts() -> None:
    current_net().set_link(Link(latency=0.25))
    async with sim_host("ours", timeouts=Timeouts(upgrade=2)) as host, raw_peer(responding(SELECTED)) as peer:
        with pytest.raises(DialError) as caught:
            await host.connect(peer.address)
        assert current_loop().time_ns() == 2_500_000_000  # one round trip of TCP comes before it
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, DeadlineError)
        assert (failure.deadline, failure.stage) == ("upgrade", HANDSHAKE)


async def test_an_address_that_nobody_has_ends_at_dial_address_in_the_stage_connect() -> None:
    async with sim_host("ours") as host:
        with pytest.raises(DialError) as caught:
            await host.connect("/ip4/9.9.9.9/tcp/4001")
        assert current_loop().time_ns() == 15 * NS
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, DeadlineError)
        assert (failure.deadline, failure.stage) == ("dial_address", "connect")


async def test_a_dial_over_many_addresses_ends_at_dial() -> None:
    """T19: however many addresses are silent."""
    one_by_one, times = Limits(dials_per_peer=1), Timeouts(dial=50)
    async with sim_host("ours", limits=one_by_one, timeouts=times) as host, raw_peer() as peer:
        addresses = [f"/ip4/9.9.9.{n}/tcp/4001" for n in range(10)]
        host.peerstore.add_addresses(peer.peer_id, map(Multiaddr, addresses), source=Source.GIVEN)
        with pytest.raises(DialError) as caught:
            await host.connect(peer.peer_id)
        assert current_loop().time_ns() == 50 * NS
        failures = list(caught.value.failures.values())
        assert caught.value.peer_id == str(peer.peer_id)
        assert [failure.deadline for failure in failures if isinstance(failure, DeadlineError)] == (
            ["dial_address"] * 3 + ["dial"] * 7
        )
        assert caught.value.report is not None
        outcomes = [address.outcome for address in caught.value.report.addresses]
        assert outcomes == ["failed"] * 4 + ["left out"] * 6
        await current_loop().settle()
        assert current_net().connections == []
        assert host._swarm._links == {}


async def test_the_next_address_is_begun_a_step_after_one_that_is_silent() -> None:
    async with sim_host("ours") as host, raw_peer() as peer:
        silent = f"/ip4/9.9.9.9/tcp/4001/p2p/{peer.peer_id}"
        host.peerstore.add_addresses(peer.peer_id, [Multiaddr(peer.address)], source=Source.GIVEN)
        connection = await host.connect(silent)
        assert current_loop().time_ns() == NS // 4
        assert str(connection.remote_address) in peer.address


async def test_a_dial_that_ends_at_its_deadline_leaves_no_half_open_socket() -> None:
    async with sim_host("ours") as host:
        for _ in range(3):
            with pytest.raises(DialError):
                await host.connect("/ip4/9.9.9.9/tcp/4001")
        assert current_net().connections == []
        assert host._swarm._links == {}


@pytest.mark.parametrize(
    ("until", "stage"),
    [
        (ACCEPTED, NEGOTIATION),
        (HEADED, NEGOTIATION),
        (SELECTED, HANDSHAKE),
        (MESSAGE_1, HANDSHAKE),
    ],
)
async def test_an_inbound_connection_that_falls_silent_is_dropped_at_upgrade(until: str, stage: str) -> None:
    """T20: after nothing, and after each message."""
    async with sim_host("ours") as host, raw_peer(initiating(until)) as peer:
        events, tasks = host.events(), other_tasks()
        link = await peer.dial(host.addresses[0])
        assert await link.closed() == 15 * NS
        event = await anext(events)
        assert isinstance(event, InboundFailed)
        assert isinstance(event.error, DeadlineError)
        assert (event.error.deadline, event.error.seconds, event.error.stage) == ("upgrade", 15.0, stage)
        assert host._swarm._pending_inbound == host._swarm._links == {}
        assert other_tasks() == tasks


async def test_an_inbound_connection_that_never_negotiates_a_muxer_is_dropped_at_upgrade() -> None:
    """T20: after the handshake."""
    async with sim_host("ours") as host, raw_peer(initiating(MESSAGE_3, muxers=())) as peer:
        events = host.events()
        link = await peer.dial(host.addresses[0])
        assert await link.closed() == 15 * NS
        event = await anext(events)
        assert isinstance(event, InboundFailed)
        assert isinstance(event.error, DeadlineError)
        assert (event.error.deadline, event.error.stage) == ("upgrade", "muxer negotiation")
        assert host.connections == []


@pytest.mark.parametrize("until", [MESSAGE_2, MESSAGE_3])
async def test_a_dialled_peer_that_never_negotiates_a_muxer_ends_at_upgrade(until: str) -> None:
    """T19: after message 2, where we have a connection already, and after message 3."""
    async with against_raw(responding(until, muxers=())) as (host, link, connection):
        stream = await connection.open_stream(ECHO)
        reading = current_loop().create_task(stream.read())
        assert await link.closed() == 15 * NS
        with pytest.raises(DeadlineError) as caught:
            await reading
        assert (caught.value.deadline, caught.value.stage) == ("upgrade", "muxer negotiation")
        assert connection.ended is caught.value
        assert host.connections == []


async def test_a_peer_that_says_nothing_after_the_handshake_ends_at_the_keepalive() -> None:
    """T19: after message 2 with an early muxer, where nothing is left to be negotiated."""
    async with against_raw(responding(MESSAGE_2)) as (_, link, connection):
        stream = await connection.open_stream(ECHO)
        with pytest.raises(DeadlineError) as caught:
            await stream.read()
        assert current_loop().time_ns() == 40 * NS
        assert (caught.value.deadline, caught.value.seconds) == ("keepalive_answer", 10.0)
        assert isinstance(connection.ended, DeadlineError)
        await link.closed()


async def test_leaving_while_a_dial_is_under_way_ends_the_dial() -> None:
    async with raw_peer(responding(ACCEPTED)) as peer:
        async with sim_host("ours") as host:
            dialling = current_loop().create_task(host.connect(peer.address))
            await current_loop().pass_time(1)
        with pytest.raises(ConnectionEndedError) as caught:
            await dialling
        assert caught.value.by == "local"
        assert current_loop().time_ns() == 1 * NS


async def test_leaving_ends_sockets_that_are_still_being_upgraded() -> None:
    async with raw_peer(initiating(HEADED)) as peer:
        async with sim_host("ours") as host:
            link = await peer.dial(host.addresses[0])
        assert await link.closed() == 0
