"""Names at the head of an address: what they lead to, for how long, how deep, and that it always ends."""

from __future__ import annotations

import asyncio
import math
import socket
from dataclasses import replace

import pytest

from aiolibp2p import Host, Limits, Multiaddr, Timeouts
from aiolibp2p.errors import ConnectionEndedError, DeadlineError, DialError, LocalProtocolError
from aiolibp2p.net.known import Source
from aiolibp2p.net.resolve import begins_with_name, look_up
from aiolibp2p.runtime import Names, Runtime
from aiolibp2p.sim import Link, current_loop, current_net, sim_runtime
from tests.support.hosts import sim_host
from tests.support.raw import NS

PEER = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
OTHER = "12D3KooWSzPeHsfxLSfdMviMDHZaeXbcBjsBLfiVUXWKwgYsjJZt"


def names() -> Names:
    return Runtime.system().names


async def found(text: str, most: int = 100) -> list[str]:
    return [str(address) for address in await look_up(names(), Multiaddr(text), most)]


async def refused(text: str) -> str:
    with pytest.raises(OSError, match=r".") as caught:
        await look_up(names(), Multiaddr(text), 100)
    return str(caught.value)


async def failing(host: Host, target: str) -> DialError:
    with pytest.raises(DialError) as caught:
        await host.connect(target)
    return caught.value


# -- one step --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "is_name"),
    [
        ("/dns/a.example/tcp/1", True),
        ("/dns4/a.example/tcp/1", True),
        ("/dns6/a.example/tcp/1", True),
        ("/dnsaddr/a.example", True),
        ("/ip4/8.8.8.8/tcp/1", False),
        ("/ip4/8.8.8.8/tcp/1/tls/sni/a.example", False),
    ],
)
def test_an_address_is_looked_up_if_it_begins_with_a_name(text: str, *, is_name: bool) -> None:
    assert begins_with_name(Multiaddr(text)) == is_name


async def test_dns_takes_both_families_and_keeps_what_follows() -> None:
    current_net().name("a.example", "8.8.8.8", "2a00::1", "8.8.4.4")
    assert await found(f"/dns/a.example/tcp/1/p2p/{PEER}") == [
        f"/ip4/8.8.8.8/tcp/1/p2p/{PEER}",
        f"/ip6/2a00::1/tcp/1/p2p/{PEER}",
        f"/ip4/8.8.4.4/tcp/1/p2p/{PEER}",
    ]
    assert await found("/dns4/a.example/tcp/1") == ["/ip4/8.8.8.8/tcp/1", "/ip4/8.8.4.4/tcp/1"]
    assert await found("/dns6/A.Example/tcp/1") == ["/ip6/2a00::1/tcp/1"]
    assert await found("/dns/a.example/tcp/1", most=1) == ["/ip4/8.8.8.8/tcp/1"]


async def test_a_name_without_an_address_of_the_family_does_not_resolve() -> None:
    current_net().name("a.example", "8.8.8.8")
    current_net().name("local.example", "fe80::1")
    assert "Name or service not known" in await refused("/dns6/a.example/tcp/1")
    assert await refused("/dns/local.example/tcp/1") == "local.example has no address of dns"


async def test_dnsaddr_takes_the_records_that_end_as_the_address_does() -> None:
    records = [
        f"dnsaddr=/ip4/8.8.8.8/tcp/1/p2p/{PEER}",
        f"dnsaddr=/ip4/8.8.4.4/tcp/1/p2p/{OTHER}",
        f"dnsaddr=/dnsaddr/b.example/p2p/{PEER}",
        f"dnsaddr=/ip4/8.8.8.8/tcp/1/p2p/{PEER}",
        "dnsaddr=/ip4/8.8.8.8/nothing",
        "dnsaddr=",
        "dnsaddr=/ip4/1.1.1.1/tcp/1",
        "v=spf1 -all",
        "",
    ]
    current_net().name("_dnsaddr.a.example", txt=records)
    assert await found(f"/dnsaddr/a.example/p2p/{PEER}") == [
        f"/ip4/8.8.8.8/tcp/1/p2p/{PEER}",
        f"/dnsaddr/b.example/p2p/{PEER}",
    ]
    assert len(await found("/dnsaddr/a.example")) == 4
    assert await found("/dnsaddr/a.example/tcp/1") == ["/ip4/1.1.1.1/tcp/1"]


async def test_only_so_many_records_are_looked_at() -> None:
    txt = ["nonsense"] * 9 + [f"dnsaddr=/ip4/8.8.8.{number}/tcp/1" for number in range(9)]
    current_net().name("_dnsaddr.a.example", txt=txt)
    assert await found("/dnsaddr/a.example", most=10) == ["/ip4/8.8.8.0/tcp/1"]


async def test_a_dnsaddr_without_a_record_that_fits_says_so() -> None:
    current_net().name("_dnsaddr.a.example", txt=["dnsaddr=/ip4/8.8.8.8/tcp/1"])
    current_net().name("_dnsaddr.b.example", txt=["v=spf1 -all"])
    assert f"ends in /p2p/{PEER}" in await refused(f"/dnsaddr/a.example/p2p/{PEER}")
    assert await refused("/dnsaddr/b.example") == "no record names an address"
    assert "_dnsaddr.c.example" in await refused("/dnsaddr/c.example")


# -- in a dial -------------------------------------------------------------------------------------------------------


async def test_a_name_is_dialled_where_it_leads_and_the_report_says_how_long_it_took() -> None:
    net = current_net()
    net.set_link(Link(latency=0.01))
    async with sim_host("ours") as host, sim_host("other") as other:
        net.name("other.example", "1.0.0.3", seconds=0.05)
        connection = await host.connect(f"/dns4/other.example/tcp/4001/p2p/{other.peer_id}")
        assert connection.peer_id == other.peer_id
        assert current_loop().time_ns() == NS * 90 // 1000
        assert net.names.asked["other.example"] == 1
        report = connection.dial_report
        assert report is not None
        (entry,) = report.addresses
        assert entry.address == f"/ip4/1.0.0.3/tcp/4001/p2p/{other.peer_id}"
        assert entry.name == f"/dns4/other.example/tcp/4001/p2p/{other.peer_id}"
        assert [stage for stage, _ in entry.stages] == ["resolve", "connect", "security negotiation", "noise handshake"]
        assert [seconds for _, seconds in entry.stages] == pytest.approx([0.05, 0.02, 0.02, 0.0])
        assert (entry.began, entry.seconds) == (0.0, 0.09)


async def test_a_name_that_led_to_the_peer_is_known_from_then_on() -> None:
    async with sim_host("ours") as host, sim_host("other") as other:
        current_net().name("other.example", "1.0.0.3")
        await host.connect(f"/dns4/other.example/tcp/4001/p2p/{other.peer_id}")
        known = [str(address) for address in host.peerstore.addresses(other.peer_id)]
        assert "/dns4/other.example/tcp/4001" in known
        assert "/ip4/1.0.0.3/tcp/4001" in known
        await host.disconnect(other.peer_id)
        assert (await host.connect(other.peer_id)).peer_id == other.peer_id


async def test_a_dnsaddr_leads_to_its_peer_through_other_names() -> None:
    net = current_net()
    async with sim_host("ours") as host, sim_host("other") as other:
        us = f"/p2p/{other.peer_id}"
        net.name("_dnsaddr.boot.example", txt=[f"dnsaddr=/dnsaddr/{n}.boot.example{us}" for n in "abc"], seconds=0.1)
        for number, label in enumerate("abc"):
            ends = [f"dnsaddr=/dns4/{label}.example/tcp/4001{us}", f"dnsaddr=/ip4/9.9.9.{number}/udp/1/quic-v1{us}"]
            net.name(f"_dnsaddr.{label}.boot.example", txt=ends, seconds=0.1)
        net.name("a.example", "9.9.9.9", seconds=0.1)
        net.name("b.example", "1.0.0.3", seconds=0.1)
        connection = await host.connect(f"/dnsaddr/boot.example{us}")
        # Three look-ups one behind the other, and all that are due together at the same time.
        assert current_loop().time_ns() == NS * 300 // 1000
        assert connection.dial_report is not None
        entries = {entry.address: entry for entry in connection.dial_report.addresses}
        assert [entry.outcome for entry in entries.values()].count("left out") == 3
        assert entries[f"/dns4/c.example/tcp/4001{us}"].outcome == "failed"
        assert entries[f"/ip4/1.0.0.3/tcp/4001{us}"].name == f"/dnsaddr/boot.example{us}"


async def test_whoever_a_dnsaddr_names_must_answer_there() -> None:
    async with sim_host("ours") as host, sim_host("other"):
        current_net().name("_dnsaddr.a.example", txt=[f"dnsaddr=/ip4/1.0.0.3/tcp/4001/p2p/{PEER}"])
        error = await failing(host, "/dnsaddr/a.example")
        assert [type(failure).__name__ for failure in error.failures.values()] == ["PeerIdMismatchError"]


async def test_a_dnsaddr_without_a_peer_takes_any_that_it_names() -> None:
    async with sim_host("ours") as host, sim_host("other") as other:
        ends = [f"dnsaddr=/ip4/1.0.0.3/tcp/1/p2p/{PEER}", f"dnsaddr=/ip4/1.0.0.3/tcp/4001/p2p/{other.peer_id}"]
        current_net().name("_dnsaddr.a.example", txt=ends)
        assert (await host.connect("/dnsaddr/a.example")).peer_id == other.peer_id


async def test_names_that_lead_to_each_other_come_to_an_end() -> None:
    async with sim_host("ours") as host:
        for label, next_label in ("ab", "bc", "ca"):
            current_net().name(f"_dnsaddr.{label}.example", txt=[f"dnsaddr=/dnsaddr/{next_label}.example"])
        error = await failing(host, "/dnsaddr/a.example")
        assert error.failures == {}
        assert error.report is not None
        (entry,) = error.report.addresses
        assert (entry.outcome, entry.reason) == ("left out", "it leads to nothing new")
        assert set(current_net().names.asked.values()) == {1}
        assert str(error) == "dial: no address was found"


async def test_names_that_lead_ever_deeper_end_at_dns_depth() -> None:
    async with sim_host("ours", limits=Limits(dns_depth=5)) as host:
        for number in range(20):
            current_net().name(f"_dnsaddr.{number}.example", txt=[f"dnsaddr=/dnsaddr/{number + 1}.example"])
        error = await failing(host, "/dnsaddr/0.example")
        assert list(error.failures) == ["/dnsaddr/5.example"]
        (failure,) = error.failures.values()
        assert isinstance(failure, LocalProtocolError)
        assert failure.message == "too many names lead to it"
        assert host.refusals["dns_depth"] == 1
        assert len(current_net().names.asked) == 5


async def test_a_name_that_leads_to_ever_more_names_ends_at_dial_addresses() -> None:
    async with sim_host("ours", limits=Limits(dial_addresses=30)) as host:
        for number in range(100):
            txt = [f"dnsaddr=/dnsaddr/{number * 3 + child + 1}.example" for child in range(3)]
            current_net().name(f"_dnsaddr.{number}.example", txt=txt)
        error = await failing(host, "/dnsaddr/0.example")
        assert sum(current_net().names.asked.values()) == 30
        assert error.report is not None
        assert error.report.more > 0
        assert host.refusals["dial_addresses"] == error.report.more


async def test_a_name_that_nobody_answers_for_ends_at_resolve() -> None:
    async with sim_host("ours") as host:
        current_net().name("slow.example", "8.8.8.8", seconds=math.inf)
        error = await failing(host, "/dns4/slow.example/tcp/1")
        assert current_loop().time_ns() == 10 * NS
        (failure,) = error.failures.values()
        assert isinstance(failure, DeadlineError)
        assert (failure.deadline, failure.stage, failure.seconds) == ("resolve", "resolve", 10.0)
        assert error.report is not None
        (entry,) = error.report.addresses
        assert (entry.outcome, entry.stages) == ("failed", (("resolve", 10.0),))


async def test_resolve_bounds_all_names_that_one_leads_to() -> None:
    async with sim_host("ours", timeouts=Timeouts(resolve=2.5)) as host:
        for number in range(9):
            txt = [f"dnsaddr=/dnsaddr/{number + 1}.example"]
            current_net().name(f"_dnsaddr.{number}.example", txt=txt, seconds=1)
        error = await failing(host, "/dnsaddr/0.example")
        assert current_loop().time_ns() == 2_500_000_000
        assert list(error.failures) == ["/dnsaddr/2.example"]


async def test_a_name_that_does_not_resolve_says_so_at_that_stage() -> None:
    async with sim_host("ours") as host:
        for target in ("/dns4/nobody.example/tcp/1", "/dnsaddr/nobody.example", "/dns/a..b/tcp/1"):
            error = await failing(host, target)
            (failure,) = error.failures.values()
            assert isinstance(failure, ConnectionEndedError)
            assert (failure.stage, failure.by) == ("resolve", "remote")
            assert isinstance(failure.__cause__, OSError)


async def test_a_slow_name_holds_up_no_address() -> None:
    async with sim_host("ours") as host, sim_host("other") as other:
        current_net().name("slow.example", "8.8.8.8", seconds=5)
        slow = [Multiaddr(f"/dns4/slow.example/tcp/{port}") for port in range(1, 60)]
        given = [*slow, Multiaddr("/ip4/1.0.0.3/tcp/4001")]
        host.peerstore.add_addresses(other.peer_id, given, source=Source.GIVEN)
        connection = await host.connect(other.peer_id)
        assert current_loop().time_ns() == 0
        assert connection.dial_report is not None
        outcomes = {entry.outcome for entry in connection.dial_report.addresses}
        assert outcomes == {"connected", "lost", "left out"}
        await current_loop().pass_time(1)
        assert host._swarm._dialer._under_way == 0


async def test_what_a_slow_name_leads_to_is_dialled_though_another_address_is_silent() -> None:
    async with sim_host("ours") as host, sim_host("other") as other:
        current_net().name("other.example", "1.0.0.3", seconds=2)
        host.peerstore.add_addresses(other.peer_id, [Multiaddr("/ip4/9.9.9.9/tcp/1")], source=Source.GIVEN)
        await host.connect(f"/dns/other.example/tcp/4001/p2p/{other.peer_id}")
        assert current_loop().time_ns() == 2 * NS


async def test_a_dial_is_given_up_while_a_name_is_looked_up() -> None:
    async with sim_host("ours") as host:
        current_net().name("slow.example", seconds=math.inf)
        dialling = current_loop().create_task(host.connect("/dns/slow.example/tcp/1"))
        await current_loop().pass_time(1)
        dialling.cancel()
        await asyncio.wait([dialling])
        await current_loop().settle()
        assert host._swarm._dials == {}
        assert host._swarm._dialer._under_way == 0


async def test_the_system_that_has_no_answer_for_now_is_not_held_against_the_name() -> None:
    class Unreachable:
        async def resolve(self, host: str, family: object) -> list[str]:
            return await Runtime.system().names.resolve(host, None)

        async def txt(self, name: str) -> list[str]:
            raise again

    again = socket.gaierror(socket.EAI_AGAIN, "nobody answers")
    machine = current_net().host("ours")
    runtime = replace(sim_runtime(current_loop(), "ours", machine), names=Unreachable())
    async with Host(runtime=runtime) as host:
        error = await failing(host, f"/dnsaddr/a.example/p2p/{PEER}")
        (failure,) = error.failures.values()
        assert isinstance(failure, ConnectionEndedError)
        assert (failure.by, str(failure)) == ("local", "resolve: nobody answers")
        assert host.peerstore.backing_off(Multiaddr("/dnsaddr/a.example")) == 0.0
