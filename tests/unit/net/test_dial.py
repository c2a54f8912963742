"""Dials: one for all who wait for a peer, given up with the last of them, and never made in vain."""

from __future__ import annotations

import asyncio

import pytest

from aiolibp2p import Limits, Multiaddr
from aiolibp2p.errors import ConnectionEndedError, DialError, LimitError, LocalProtocolError
from aiolibp2p.net.known import Source
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.hosts import other_tasks, raw_peer, sim_host, two_hosts
from tests.support.raw import NS, RawLink
from tests.support.scripts import ACCEPTED, responding


async def test_many_who_connect_at_once_share_one_dial_and_one_connection() -> None:
    async with sim_host("ours") as host, raw_peer() as peer:
        connections = await asyncio.gather(*(host.connect(peer.address) for _ in range(50)))
        assert len(set(connections)) == 1
        assert len(peer.links) == 1
        assert await host.connect(peer.peer_id) is connections[0]
        assert await host.connect(str(peer.peer_id)) is connections[0]


async def test_many_who_connect_at_once_share_one_failure() -> None:
    net = current_net()
    net.set_link(Link(latency=0.01))
    async with sim_host("ours") as host, raw_peer() as peer:
        peer._server.close()  # type: ignore[union-attr]
        results = await asyncio.gather(*(host.connect(peer.address) for _ in range(5)), return_exceptions=True)
        assert [type(result) for result in results] == [DialError] * 5
        assert current_loop().time_ns() == NS // 50


async def test_one_that_gives_up_does_not_end_the_dial_of_the_others() -> None:
    current_net().set_link(Link(latency=0.01))
    async with sim_host("ours") as host, raw_peer() as peer:
        tasks = [current_loop().create_task(host.connect(peer.address)) for _ in range(3)]
        await current_loop().pass_time(0.02)
        tasks[0].cancel()
        await asyncio.gather(*tasks[1:])
        assert tasks[0].cancelled()
        assert len(peer.links) == 1


async def test_the_dial_ends_with_the_last_who_waits() -> None:
    async with sim_host("ours") as host, raw_peer(responding(ACCEPTED)) as peer:
        before = other_tasks()
        tasks = [current_loop().create_task(host.connect(peer.address)) for _ in range(3)]
        await current_loop().pass_time(1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await current_loop().settle()
        assert peer.links[0].ended_ns == 1 * NS
        assert other_tasks() - {link.task for link in peer.links} == before
        assert host._swarm._dials == host._swarm._links == {}


async def test_a_connect_in_the_turn_in_which_the_last_waiter_gave_up_dials_anew() -> None:
    current_net().set_link(Link(latency=0.01))
    async with sim_host("ours") as host, raw_peer() as peer:
        loop = current_loop()
        first = loop.create_task(host.connect(peer.address))
        await loop.pass_time(0.005)
        first.cancel()
        await loop.create_task(host.connect(peer.address))
        assert first.cancelled()


@pytest.mark.parametrize("at_ms", [0, 10, 15, 20, 30])
@pytest.mark.parametrize("turns", range(12))
async def test_a_dial_may_be_cancelled_at_every_step(at_ms: int, turns: int) -> None:
    current_net().set_link(Link(latency=0.01))
    async with sim_host("ours") as host, raw_peer(responding(ACCEPTED)) as peer:
        loop = current_loop()

        def later(left: int) -> None:
            if left:
                loop.call_soon(later, left - 1)
            else:
                dialling.cancel()

        dialling = loop.create_task(host.connect(peer.address))
        # The socket is connected after 20 ms; what was set later comes later in that instant.
        loop.call_at_ns(at_ms * NS // 1000, lambda: loop.call_at_ns(max(20, at_ms) * NS // 1000, lambda: later(turns)))
        with pytest.raises(asyncio.CancelledError):
            await dialling
        await loop.pass_time(0.1)
        assert [timer for timer in loop.pending_timers() if timer.when() < 60] == []
        assert host._swarm._links == {}
        assert [transport for transport in current_net().transports if transport.endpoint.side == "client"] == []


async def test_a_refused_connection_is_not_dialled_a_second_time() -> None:
    net = current_net()
    net.set_link(Link(latency=0.01))
    net.host("nobody listens")
    async with sim_host("ours") as host:
        before = net.next_connection()
        with pytest.raises(DialError) as caught:
            await host.connect("/ip4/1.0.0.2/tcp/4001")
        assert net.next_connection() - before == 2  # one in between
        assert current_loop().time_ns() == NS // 50
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, ConnectionEndedError)
        assert (failure.by, failure.stage, failure.message) == ("remote", "connect", "connection refused")


async def test_every_failure_is_told_by_its_address() -> None:
    async with sim_host("ours") as host, raw_peer() as peer:
        refused = Multiaddr(f"/ip4/{peer.ip}/tcp/1")
        other = Multiaddr("/ip4/9.9.9.9/udp/4001/quic-v1")
        host.peerstore.add_addresses(peer.peer_id, [refused, other], source=Source.GIVEN)
        with pytest.raises(DialError) as caught:
            await host.connect(peer.peer_id)
        assert list(caught.value.failures) == [str(refused), str(other)]
        assert isinstance(caught.value.failures[str(other)], LocalProtocolError)


async def test_a_name_that_nobody_has_is_a_failure_of_its_address() -> None:
    async with sim_host("ours") as host:
        with pytest.raises(DialError) as caught:
            await host.connect("/dns4/nobody.example/tcp/4001")
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, ConnectionEndedError)
        assert failure.stage == "resolve"


async def test_a_peer_without_a_known_address_fails_at_once() -> None:
    async with sim_host("ours") as host, raw_peer() as peer:
        with pytest.raises(DialError) as caught:
            await host.connect(peer.peer_id)
        assert caught.value.failures == {}
        assert caught.value.peer_id == str(peer.peer_id)


async def test_a_peer_is_reached_again_where_it_was_reached_before() -> None:
    async with sim_host("ours") as host, raw_peer() as peer:
        await host.connect(peer.address)
        await host.disconnect(peer.peer_id)
        assert (await host.connect(peer.peer_id)).peer_id == peer.peer_id
        assert len(peer.links) == 2


async def test_an_address_without_a_peer_id_takes_whoever_answers() -> None:
    async with sim_host("ours") as host, raw_peer() as peer:
        connection = await host.connect(peer.address.split("/p2p/")[0])
        assert connection.peer_id == peer.peer_id
        assert (connection.direction, connection.transport) == ("outbound", "tcp")
        assert (connection.security, connection.muxer) == ("/noise", "/yamux/1.0.0")
        assert str(connection.remote_address) in peer.address


async def test_a_host_does_not_dial_itself() -> None:
    async with sim_host("ours") as host:
        with pytest.raises(LocalProtocolError):
            await host.connect(host.addresses[0])


async def test_a_full_host_does_not_dial() -> None:
    async with sim_host("ours", limits=Limits(connections=1)) as host, raw_peer() as peer, raw_peer(name="b") as other:
        await host.connect(peer.address)
        with pytest.raises(LimitError) as caught:
            await host.connect(other.address)
        assert (caught.value.limit, caught.value.stage) == ("connections", "dial")
        assert other.links == []


async def test_leaving_ends_the_dials_of_all() -> None:
    async with raw_peer(responding(ACCEPTED)) as peer:
        async with sim_host("ours") as host:
            dialling = [current_loop().create_task(host.connect(peer.address)) for _ in range(3)]
            await current_loop().settle()
        results = await asyncio.gather(*dialling, return_exceptions=True)
        assert [type(result) for result in results] == [ConnectionEndedError] * 3
        assert current_loop().time_ns() == 0


async def test_a_connect_in_the_turn_in_which_the_host_is_left_ends() -> None:
    async with raw_peer() as peer:
        async with sim_host("ours") as host:
            connecting = current_loop().create_task(host.connect(peer.address))
            await asyncio.sleep(0)
        with pytest.raises(ConnectionEndedError):
            await connecting


async def test_two_hosts_that_dial_each_other_at_once_both_succeed() -> None:
    current_net().set_link(Link(latency=0.01))
    async with sim_host("alice") as alice, sim_host("bob") as bob:
        first, second = await asyncio.gather(alice.connect(bob.addresses[0]), bob.connect(alice.addresses[0]))
        await current_loop().pass_time(1)
        assert first.ended is second.ended is None
        assert len(alice.connections) == len(bob.connections) == 2
        await alice.disconnect(bob.peer_id)
        await current_loop().pass_time(1)
        assert alice.connections == bob.connections == []


async def test_a_peer_that_said_goaway_is_dialled_anew() -> None:
    async with sim_host("ours") as host, raw_peer() as peer:
        connection = await host.connect(peer.address)
        link = await peer.link()
        await current_loop().settle()
        link.go_away()
        await current_loop().settle()
        with pytest.raises(ConnectionEndedError) as caught:
            await connection.open_stream("/echo/1.0.0")
        assert caught.value.by == "remote"
        assert connection.ended is None
        stream = await host.open_stream(peer.peer_id, "/echo/1.0.0")
        assert stream.connection is not connection


async def test_a_dial_that_breaks_off_before_the_first_byte_costs_its_socket_only() -> None:
    async def script(link: RawLink) -> None:
        link.transport.abort()

    async with two_hosts() as (alice, _bob, connection), raw_peer(script) as peer:
        with pytest.raises(DialError):
            await alice.connect(peer.address)
        assert alice.connections == [connection]
