"""One dial of several addresses: when each begins, which one wins, what is left of the others, and who is told what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import fields

import pytest

from aiolibp2p import Connection, Host, Limits, Multiaddr, PeerId, Timeouts
from aiolibp2p.errors import ConnectionEndedError, DeadlineError, DialError, LimitError, LocalProtocolError
from aiolibp2p.net.known import Source
from aiolibp2p.report import AddressReport, DialReport
from aiolibp2p.sim import Link, current_loop, current_net, sim_runtime
from tests.support.hosts import other_tasks, raw_peer, sim_host
from tests.support.raw import NS, RawLink, RawPeer
from tests.support.scripts import ACCEPTED, responding

MS = NS // 1000
LATE_PORT = 65_000
"""Higher than any port that the system chooses: ranked behind those."""
NOBODY = PeerId.parse("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")


def silent(*numbers: int) -> list[Multiaddr]:
    """Return addresses that nobody has: packets to them vanish."""
    return [Multiaddr(f"/ip4/9.9.9.{number}/tcp/4001") for number in numbers]


def refused(peer: RawPeer, port: int = 7) -> Multiaddr:
    """Return an address of a peer's machine where nothing listens."""
    return Multiaddr(f"/ip4/{peer.ip}/tcp/{port}")


def plain(peer: RawPeer) -> Multiaddr:
    return Multiaddr(peer.address).without_peer_id()


def at(ip: str, port: int = 4001) -> Multiaddr:
    return Multiaddr.from_tcp(ip, port)


def host_at(name: str, *ips: str, port: int = 4001) -> Host:
    """Return a host that listens on all addresses of a machine of its own."""
    runtime = sim_runtime(current_loop(), name, current_net().host(name, *ips))
    return Host(runtime=runtime, listen=[at(ip, port) for ip in ips])


def know(host: Host, peer_id: PeerId, addresses: Sequence[Multiaddr]) -> None:
    host.peerstore.add_addresses(peer_id, addresses, source=Source.GIVEN)


async def failing(host: Host, target: str | PeerId | Multiaddr) -> DialError:
    with pytest.raises(DialError) as caught:
        await host.connect(target)
    return caught.value


def entries(of: Connection | DialError) -> dict[str, AddressReport]:
    report = of.dial_report if isinstance(of, Connection) else of.report
    assert isinstance(report, DialReport)
    return {entry.address: entry for entry in report.addresses}


def outcomes(of: Connection | DialError) -> list[str]:
    return [entry.outcome for entry in entries(of).values()]


def begun_ms(of: Connection | DialError) -> list[int | None]:
    return [None if entry.began is None else round(entry.began * 1000) for entry in entries(of).values()]


async def assert_nothing_is_left(*hosts: Host) -> None:
    """Check that a dial that is over has left nothing: no task, no socket, no timer but those of its connections."""
    await current_loop().settle()
    for host in hosts:
        assert host._swarm._dials == {}
        assert host._swarm._dialer._under_way == 0
        assert host._swarm._dialer._waiting == {}
        assert list(host._swarm._links) == [connection._muxer for connection in host.connections]
    assert [task for task in other_tasks() if task.get_name().startswith(("dial", "resolve"))] == []


# -- when ------------------------------------------------------------------------------------------------------------


async def test_the_next_addresses_are_begun_a_step_after_one_that_is_silent() -> None:
    async with sim_host("ours") as host, host_at("other", "9.9.9.2") as other:
        know(host, other.peer_id, silent(1, 2, 3))
        connection = await host.connect(other.peer_id)
        assert current_loop().time_ns() == 250 * MS
        assert outcomes(connection) == ["lost", "connected", "lost"]
        assert begun_ms(connection) == [0, 250, 250]
        await assert_nothing_is_left(host, other)
        assert len(current_net().transports) == 2


async def test_ip6_is_begun_first_and_ip4_one_step_later() -> None:
    async with sim_host("ours") as host, host_at("other", "5.0.0.1") as other:
        current_net().host("road", "2a00::1")
        ip4, ip6 = at("5.0.0.1"), at("2a00::9")
        know(host, other.peer_id, [ip4, ip6])
        connection = await host.connect(other.peer_id)
        assert (entries(connection)[str(ip6)].began, entries(connection)[str(ip4)].began) == (0.0, 0.0)
        assert entries(connection)[str(ip6)].reason == "connect: network is unreachable"
    async with host_at("dual", "5.0.0.2", "2a00::2") as host, host_at("late", "5.0.0.3") as other:
        know(host, other.peer_id, [at("5.0.0.3"), at("2a00::8")])
        connection = await host.connect(other.peer_id)
        assert begun_ms(connection) == [250, 0]
        assert outcomes(connection) == ["connected", "lost"]


async def test_the_next_address_is_begun_at_once_when_all_that_were_begun_have_failed() -> None:
    current_net().set_link(Link(latency=0.01))
    async with sim_host("ours") as host, raw_peer() as peer:
        know(host, peer.peer_id, [refused(peer), plain(peer)])
        first, second = entries(await host.connect(peer.peer_id)).values()
        assert (first.outcome, first.began, first.reason) == ("failed", 0.0, "connect: connection refused")
        assert (second.outcome, second.began) == ("connected", 0.02)


async def test_addresses_that_are_due_together_are_begun_together() -> None:
    current_net().set_link(Link(latency=0.01))
    async with sim_host("ours") as host, raw_peer() as peer:
        know(host, peer.peer_id, [refused(peer, port) for port in (1, 2, 3, 4)])
        assert begun_ms(await failing(host, peer.peer_id)) == [0, 20, 20, 20]
        assert current_loop().time_ns() == 40 * MS


async def test_private_addresses_are_a_shorter_step_apart_and_public_ones_come_one_behind_them() -> None:
    async with sim_host("ours") as host:
        know(host, NOBODY, [*silent(1), at("10.9.9.1"), at("10.9.9.2")])
        assert begun_ms(await failing(host, NOBODY)) == [30, 0, 30]
        assert current_loop().time_ns() == 15_030 * MS


async def test_what_is_given_is_begun_a_step_before_what_is_known() -> None:
    async with sim_host("ours") as host:
        know(host, NOBODY, silent(1, 2))
        given = f"/ip4/9.9.9.3/tcp/4001/p2p/{NOBODY}"
        error = await failing(host, given)
        assert begun_ms(error) == [0, 250, 500]
        assert next(iter(error.failures)) == given


async def test_no_more_than_dials_per_peer_are_under_way() -> None:
    async with sim_host("ours", limits=Limits(dials_per_peer=2)) as host:
        know(host, NOBODY, silent(*range(5)))
        assert begun_ms(await failing(host, NOBODY)) == [0, 250, 15_000, 15_250, 30_000]
        await assert_nothing_is_left(host)


async def test_no_more_than_dials_are_under_way_and_the_others_take_turns() -> None:
    limits = Limits(dials=2)
    async with sim_host("ours", limits=limits) as host, raw_peer(responding(ACCEPTED)) as mute, raw_peer(name="b") as b:
        dialling = [current_loop().create_task(host.connect(address)) for address in silent(1, 2, 3)]
        await current_loop().pass_time(1)
        assert host._swarm._dialer._under_way == 2
        waiting = current_loop().create_task(host.connect(b.address))
        dialling[0].cancel()
        await asyncio.wait([dialling[0]])
        await current_loop().settle()
        assert host._swarm._dialer._under_way == 2  # the third has its turn before the last
        assert not waiting.done()
        dialling[1].cancel()
        assert (await waiting).peer_id == b.peer_id
        assert current_loop().time_ns() == NS
        assert mute.links == []
        for task in dialling:
            task.cancel()
        await asyncio.wait(dialling)
        await assert_nothing_is_left(host)


async def test_a_dial_that_is_given_up_while_it_waits_for_its_turn_waits_no_more() -> None:
    async with sim_host("ours", limits=Limits(dials=1)) as host:
        first, second = (current_loop().create_task(host.connect(address)) for address in silent(1, 2))
        await current_loop().pass_time(1)
        for task in (second, first):
            task.cancel()
            await asyncio.wait([task])
        await assert_nothing_is_left(host)


async def test_a_dial_that_has_no_turn_within_dial_says_so() -> None:
    async with sim_host("ours", limits=Limits(dials=1), timeouts=Timeouts(dial=5, dial_address=20)) as host:
        first = current_loop().create_task(host.connect(silent(1)[0]))
        await asyncio.sleep(0)
        error = await failing(host, silent(2)[0])
        (failure,) = error.failures.values()
        assert isinstance(failure, DeadlineError)
        assert (failure.deadline, failure.message) == ("dial", "it was not its turn")
        assert outcomes(error) == ["left out"]
        assert current_loop().time_ns() == 5 * NS
        with pytest.raises(DialError):
            await first


async def test_more_dials_than_may_wait_are_refused() -> None:
    async with sim_host("ours", limits=Limits(dials=1, dials_waiting=1)) as host:
        waiting = [current_loop().create_task(host.connect(address)) for address in silent(1, 2)]
        await current_loop().settle()
        with pytest.raises(LimitError) as caught:
            await host.connect(silent(3)[0])
        assert (caught.value.limit, caught.value.stage) == ("dials_waiting", "dial")
        assert host.refusals["dials_waiting"] == 1
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        await assert_nothing_is_left(host)


async def test_a_dial_that_has_an_address_under_way_needs_no_place_among_those_that_wait() -> None:
    async with sim_host("ours", limits=Limits(dials=1, dials_waiting=0)) as host:
        know(host, NOBODY, silent(1, 2))
        assert begun_ms(await failing(host, NOBODY)) == [0, 15_000]


async def test_addresses_beyond_dial_addresses_are_left_out_and_counted() -> None:
    async with sim_host("ours", limits=Limits(dial_addresses=2)) as host:
        know(host, NOBODY, silent(1, 2, 3, 4, 5))
        error = await failing(host, NOBODY)
        assert error.report is not None
        assert (len(error.report.addresses), error.report.more) == (2, 3)
        assert host.refusals["dial_addresses"] == 3


async def test_for_a_single_address_there_is_one_task_and_no_timer_of_the_dial() -> None:
    async with sim_host("ours") as host, raw_peer(responding(ACCEPTED)) as peer:
        tasks, timers = other_tasks(), len(current_loop().pending_timers())
        dialling = current_loop().create_task(host.connect(peer.address))
        await current_loop().settle()
        # That of `dial_address`, and that of the upgrade.
        assert len(current_loop().pending_timers()) - timers == 2
        made = other_tasks() - tasks - {dialling} - {link.task for link in peer.links}
        assert [task.get_name() for task in made] == [f"dial {peer.address}"]
        dialling.cancel()
        await asyncio.wait([dialling])


# -- who wins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latency_ms", [0, 10, 100])
async def test_the_first_that_is_upgraded_wins_and_the_others_are_dropped_at_once(latency_ms: int) -> None:
    late = host_at("other", "5.0.0.9", port=LATE_PORT)
    async with sim_host("ours") as host, raw_peer(responding(ACCEPTED)) as mute, late as other:
        current_net().set_link(Link(latency=latency_ms / 1000))
        know(host, other.peer_id, [plain(mute), at("5.0.0.9", LATE_PORT)])
        connection = await host.connect(other.peer_id)
        assert current_loop().time_ns() == (250 + 4 * latency_ms) * MS
        assert list(host._swarm._links) == [connection._muxer]
        slow = entries(connection)[str(plain(mute))]
        assert (slow.outcome, slow.reason) == ("lost", "another address was faster")
        assert [stage for stage, _ in slow.stages] == ["connect", "security negotiation"]
        await current_loop().pass_time(1)
        assert host.connections == [connection]
        assert mute.links[0].ended_ns == (250 + 5 * latency_ms) * MS
        await assert_nothing_is_left(host)


@pytest.mark.parametrize("latency_ms", [0, 50])
async def test_of_two_that_are_upgraded_in_the_same_instant_one_connection_is_kept(latency_ms: int) -> None:
    async with (
        sim_host("ours", timeouts=Timeouts(dial_step=0.0)) as host,
        host_at("other", "5.0.0.8", "5.0.0.9", "5.0.0.10") as other,
    ):
        current_net().set_link(Link(latency=latency_ms / 1000))
        know(host, other.peer_id, [at("5.0.0.8"), at("5.0.0.9"), at("5.0.0.10")])
        connection = await host.connect(other.peer_id)
        assert sorted(outcomes(connection)) == ["connected", "lost", "lost"]
        assert host.connections == [connection]
        await current_loop().pass_time(1)
        assert host.connections == [connection]
        assert len(other.connections) == 1
        await assert_nothing_is_left(host, other)


async def test_a_peer_that_is_another_one_does_not_win() -> None:
    late = host_at("other", "5.0.0.9", port=LATE_PORT)
    async with sim_host("ours") as host, raw_peer() as wrong, late as other:
        know(host, other.peer_id, [plain(wrong), at("5.0.0.9", LATE_PORT)])
        connection = await host.connect(other.peer_id)
        assert connection.peer_id == other.peer_id
        assert outcomes(connection) == ["failed", "connected"]
        assert entries(connection)[str(plain(wrong))].error is not None


@pytest.mark.parametrize("at_ms", [0, 250, 260, 270, 280, 290])
@pytest.mark.parametrize("turns", range(10))
async def test_a_race_may_be_cancelled_at_every_step(at_ms: int, turns: int) -> None:
    late = host_at("other", "5.0.0.9", port=LATE_PORT)
    async with sim_host("ours") as host, raw_peer(responding(ACCEPTED)) as mute, late as other:
        current_net().set_link(Link(latency=0.01))
        loop = current_loop()
        know(host, other.peer_id, [*silent(1), plain(mute), at("5.0.0.9", LATE_PORT)])
        dialling = loop.create_task(host.connect(other.peer_id))

        def later(left: int) -> None:
            if left:
                loop.call_soon(later, left - 1)
            else:
                dialling.cancel()

        loop.call_at_ns(at_ms * MS, lambda: loop.call_at_ns(at_ms * MS, lambda: later(turns)))
        await asyncio.wait([dialling])
        await loop.pass_time(0.1)
        # One that is made in the very turn in which nobody waits any more stays.
        assert len(host.connections) == (0 if dialling.cancelled() and at_ms < 290 else 1)
        await assert_nothing_is_left(host)


async def test_a_race_that_is_won_keeps_no_frame_of_those_that_failed() -> None:
    async with sim_host("ours") as host, raw_peer() as peer:
        know(host, peer.peer_id, [refused(peer), plain(peer)])
        error = entries(await host.connect(peer.peer_id))[str(refused(peer))].error
        assert error is not None
        assert error.__traceback__ is None
        assert error.__cause__ is not None
        assert error.__cause__.__traceback__ is None


# -- who joins -------------------------------------------------------------------------------------------------------


async def test_an_address_that_comes_later_takes_part_in_the_dial_that_is_under_way() -> None:
    async with sim_host("ours") as host, raw_peer() as peer:
        first = current_loop().create_task(host.connect(f"/ip4/9.9.9.9/tcp/4001/p2p/{peer.peer_id}"))
        await current_loop().pass_time(1)
        connection = await host.connect(peer.address)
        assert await first is connection
        assert current_loop().time_ns() == NS
        assert begun_ms(connection) == [0, 1000]
        assert host.connections == [connection]
        await assert_nothing_is_left(host)


async def test_a_dial_with_an_address_that_came_later_is_still_bounded_by_dial() -> None:
    async with sim_host("ours", timeouts=Timeouts(dial=20.0)) as host:
        first = current_loop().create_task(host.connect(f"/ip4/9.9.9.8/tcp/4001/p2p/{NOBODY}"))
        await current_loop().pass_time(10)
        error = await failing(host, f"/ip4/9.9.9.9/tcp/4001/p2p/{NOBODY}")
        assert current_loop().time_ns() == 20 * NS
        assert [getattr(failure, "deadline", "") for failure in error.failures.values()] == ["dial_address", "dial"]
        with pytest.raises(DialError) as caught:
            await first
        assert caught.value is error


async def test_an_address_that_is_there_already_is_not_dialled_twice() -> None:
    async with sim_host("ours") as host, raw_peer(responding(ACCEPTED)) as peer:
        know(host, peer.peer_id, [plain(peer)])
        dialling = [current_loop().create_task(host.connect(peer.address)) for _ in range(20)]
        await current_loop().pass_time(1)
        assert len(peer.links) == 1
        (dial,) = host._swarm._dials.values()
        assert [(attempt.outcome, attempt.reason) for attempt in dial.attempts] == [
            (None, None),
            ("left out", "it is there already"),
        ]
        results = await asyncio.gather(*dialling, return_exceptions=True)
        assert [list(result.failures) for result in results if isinstance(result, DialError)] == [[peer.address]] * 20


# -- what is left out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("/ip4/9.9.9.9/udp/4001/quic-v1", "no transport of this host dials such an address"),
        ("/dns4/peer.example/udp/4001/quic-v1", "no transport of this host dials such an address"),
        ("/ip4/9.9.9.9/tcp/443/tls/ws", "no transport of this host dials such an address"),
        ("/ip4/9.9.9.9/tcp/0", "its port is 0"),
        ("/ip4/0.0.0.0/tcp/4001", "an unspecified address leads nowhere"),
        ("/ip6/::/tcp/4001", "an unspecified address leads nowhere"),
        ("/ip6/fe80::1/tcp/4001", "a link-local address means nothing without its zone"),
        ("/ip4/1.0.0.2/tcp/4001", "it is an address of this host"),
    ],
)
async def test_an_address_that_can_lead_nowhere_is_left_out_with_the_reason(address: str, reason: str) -> None:
    async with sim_host("ours") as host:
        assert str(host.addresses[0]).startswith("/ip4/1.0.0.2/tcp/4001")
        error = await failing(host, address)
        assert current_loop().time_ns() == 0
        (entry,) = entries(error).values()
        assert (entry.outcome, entry.reason, entry.began, entry.seconds) == ("left out", reason, None, None)
        failure = error.failures[address]
        assert isinstance(failure, LocalProtocolError)
        assert failure.stage == ("dial" if "transport" in reason else "address")
        assert error.__cause__ is failure


async def test_a_host_that_listens_on_all_addresses_dials_none_of_its_own() -> None:
    machine = current_net().host("all", "5.0.0.5")
    runtime = sim_runtime(current_loop(), "all", machine)
    async with Host(runtime=runtime, listen=["/ip4/0.0.0.0/tcp/4001"]) as host:
        for ip in ("5.0.0.5", "127.0.0.1"):
            assert entries(await failing(host, at(ip)))[str(at(ip))].reason == "it is an address of this host"
        assert entries(await failing(host, at("127.0.0.1", 4002)))[str(at("127.0.0.1", 4002))].outcome == "failed"


async def test_an_address_of_another_peer_is_left_out() -> None:
    async with sim_host("ours") as host:
        current_net().name("_dnsaddr.peer.example", txt=[f"dnsaddr=/ip4/9.9.9.9/tcp/1/p2p/{host.peer_id}"])
        know(host, NOBODY, [Multiaddr("/dnsaddr/peer.example")])
        error = await failing(host, NOBODY)
        assert [entry.reason for entry in entries(error).values()] == ["it names another peer"]


async def test_known_addresses_that_are_backing_off_are_left_out_and_one_that_is_given_is_not() -> None:
    async with sim_host("ours") as host, raw_peer() as peer:
        backing_off = [refused(peer, 7), refused(peer, 8)]
        know(host, peer.peer_id, backing_off)
        await failing(host, peer.peer_id)
        await current_loop().pass_time(1)
        error = await failing(host, peer.peer_id)
        assert current_loop().time_ns() == NS
        assert outcomes(error) == ["left out"] * 2
        for failure in error.failures.values():
            assert str(failure) == "back-off: backing off for another 4 s"
        again = await failing(host, f"{backing_off[0]}/p2p/{peer.peer_id}")
        assert outcomes(again) == ["failed", "left out", "left out"]
        know(host, peer.peer_id, [plain(peer)])
        assert sorted(outcomes(await host.connect(peer.peer_id))) == ["connected", "left out", "left out"]


async def test_an_address_whose_dial_was_given_up_or_lost_does_not_back_off() -> None:
    async with sim_host("ours") as host, host_at("other", "9.9.9.2") as other:
        know(host, other.peer_id, silent(1, 2))
        await host.connect(other.peer_id)
        dialling = current_loop().create_task(host.connect(silent(3)[0]))
        await current_loop().pass_time(1)
        dialling.cancel()
        await asyncio.wait([dialling])
        assert [host.peerstore.backing_off(address) for address in silent(1, 3)] == [0.0, 0.0]


# -- the report ------------------------------------------------------------------------------------------------------


async def test_the_report_of_a_connection_has_the_time_of_every_stage() -> None:
    current_net().set_link(Link(latency=0.01))
    async with sim_host("ours") as host, sim_host("other") as other:
        connection = await host.connect(other.addresses[0])
        report = connection.dial_report
        assert report is not None
        (entry,) = report.addresses
        assert report.winner is entry
        assert report.peer_id == str(other.peer_id)
        assert (entry.address, entry.outcome, entry.sockets) == (str(other.addresses[0]), "connected", 1)
        assert (entry.began, entry.seconds, report.seconds) == (0.0, 0.04, 0.04)
        assert [stage for stage, _ in entry.stages] == ["connect", "security negotiation", "noise handshake"]
        assert [seconds for _, seconds in entry.stages] == pytest.approx([0.02, 0.02, 0.0])
        await current_loop().pass_time(0.1)
        (inbound,) = other.connections
        assert inbound.dial_report is None


async def test_the_report_says_that_a_second_socket_was_needed() -> None:
    seen: list[RawLink] = []

    async def script(link: RawLink) -> None:
        seen.append(link)
        if len(seen) == 1:
            await current_loop().pass_time(0.5)
            link.transport.abort()
        else:
            await responding()(link)

    async with sim_host("ours") as host, raw_peer(script) as peer:
        (entry,) = entries(await host.connect(peer.address)).values()
        assert entry.sockets == 2
        assert (entry.began, entry.seconds) == (0.0, 0.5)
        assert sum(seconds for _, seconds in entry.stages) == 0.0


async def test_a_failed_dial_names_the_stage_that_it_ended_in() -> None:
    async with sim_host("ours") as host, raw_peer(responding(ACCEPTED)) as peer:
        (entry,) = entries(await failing(host, peer.address)).values()
        assert entry.stages == (("connect", 0.0), ("security negotiation", 15.0))
        assert entry.reason == "security negotiation: no progress within 15 s (Timeouts.dial_address)"


async def test_a_dial_under_way_can_be_looked_at() -> None:
    async with sim_host("ours") as host:
        dialling = current_loop().create_task(host.connect(silent(1)[0]))
        await current_loop().pass_time(1)
        (dial,) = host._swarm._dials.values()
        entry = dial.attempts[0].report(dial.began)
        assert (entry.outcome, entry.began, entry.seconds, entry.stages) == ("under way", 0.0, None, ())
        dialling.cancel()
        await asyncio.wait([dialling])


async def test_leaving_the_host_ends_a_race_at_once() -> None:
    async with sim_host("ours") as host:
        know(host, NOBODY, silent(1, 2, 3))
        dialling = current_loop().create_task(host.connect(NOBODY))
        await current_loop().pass_time(1)
    with pytest.raises(ConnectionEndedError, match="given up"):
        await dialling
    assert current_loop().time_ns() == NS
    assert current_net().connections == []


def test_every_number_of_a_dial_is_a_field() -> None:
    names = {field.name for kind in (Timeouts, Limits) for field in fields(kind)}
    assert names >= {"dial_step", "dial_private_step", "dial_relay_delay", "resolve", "dials", "dials_per_peer"}
