"""Hosts behind NATs: who reaches whom, by which address, and for how long."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiolibp2p.sim import Host, Link, Trace, World, current_loop, current_net, run, run_world
from aiolibp2p.sim.network import NatKind, NatRules
from tests.support.datagrams import Mailbox, mailbox
from tests.support.nats import KINDS, STUN, Address, behind, observed, slow_net

MS = 1_000_000
NS = 1_000_000_000
CONES = tuple(kind for kind in KINDS if kind != "symmetric")


class Outside:
    """Two public hosts with two sockets each, and one socket behind a NAT."""

    def __init__(self, kind: NatKind, **options: Any) -> None:
        net = slow_net()
        self.nat = behind(kind, **options)
        self.alice = net.host("alice", "10.0.0.2", behind=self.nat)
        self.hosts = net.host("stun", STUN), net.host("other", "198.51.100.2")
        self.ends: dict[Address, Mailbox] = {}
        self.box: Mailbox
        self.tap = net.tap()

    async def made(self) -> Outside:
        self.box = await mailbox(self.alice)
        for host, port in itertools.product(self.hosts, (7, 8)):
            self.ends[host.addresses[0], port] = await mailbox(host, port=port)
        return self

    async def that_get_in(self, public: Address) -> set[str]:
        """Let everybody send to a public address, and return who gets in."""
        before = len(self.box.received)
        for end, sender in self.ends.items():
            sender.transport.sendto(f"{end[0]}:{end[1]}".encode(), public)
        await current_loop().pass_time(0.2)
        return {payload.decode() for payload in self.box.payloads[before:]}


WHO_GETS_IN = {
    "full-cone": {"198.51.100.1:7", "198.51.100.1:8", "198.51.100.2:7", "198.51.100.2:8"},
    "restricted": {"198.51.100.1:7", "198.51.100.1:8"},
    "port-restricted": {"198.51.100.1:7"},
    "symmetric": {"198.51.100.1:7"},
}


@pytest.mark.parametrize("kind", KINDS)
async def test_after_one_datagram_those_get_in_that_the_kind_of_nat_lets_in(kind: NatKind) -> None:
    outside = await Outside(kind).made()
    public = await observed(outside.box, outside.ends[STUN, 7], (STUN, 7))
    assert public[0] == "203.0.113.1"
    assert await outside.that_get_in(public) == WHO_GETS_IN[kind]
    refused = [drop for drop in outside.tap.drops if drop.reason == "nat"]
    assert len(refused) == 4 - len(WHO_GETS_IN[kind]) == len(outside.tap.drops)
    assert {drop.at_ns for drop in refused} <= {250 * MS}, "it is refused where it arrives"
    assert {drop.packet.target for drop in refused} <= {public}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_public_port_depends_on_the_target_behind_a_symmetric_nat_alone(kind: NatKind) -> None:
    outside = await Outside(kind).made()
    seen = {await observed(outside.box, outside.ends[to], to) for to in outside.ends}
    assert len(seen) == (4 if kind == "symmetric" else 1)
    assert {ip for ip, _ in seen} == {outside.nat.address}
    assert seen == {outside.nat.public(("10.0.0.2", 7), to) for to in outside.ends}
    assert (outside.nat.rules.mapping == "endpoint-independent") == (kind != "symmetric")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_nobody_asked_for_does_not_get_in(kind: NatKind) -> None:
    outside = await Outside(kind).made()
    assert await outside.that_get_in((outside.nat.address, 7)) == set()
    assert [(drop.reason, drop.packet.protocol) for drop in outside.tap.drops] == [("nat", "udp")] * 4


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_gets_in_and_comes_from_where_the_question_went(kind: NatKind) -> None:
    net = slow_net()
    alice, bob = net.host("alice", "10.0.0.2", behind=behind(kind)), net.host("bob")
    asks, answers = await mailbox(alice), await mailbox(bob, echo=True)
    asks.send(b"ping", bob)
    await current_loop().pass_time(1)
    assert asks.received == [(100 * MS, b"ping", (bob.addresses[0], 7))]
    [(at_ns, _, source)] = answers.received
    assert at_ns == 50 * MS
    assert source[0] == "203.0.113.1"


async def test_private_addresses_are_used_again_behind_another_nat() -> None:
    net = slow_net()
    nats = [behind("full-cone", name, f"203.0.113.{number}") for number, name in enumerate("abc", 1)]
    hosts = [net.host(f"in {nat.name}", "10.0.0.2", behind=nat) for nat in nats]
    bob = net.host("bob")
    boxes, server = [await mailbox(host) for host in hosts], await mailbox(bob, echo=True)
    for box, host in zip(boxes, hosts, strict=True):
        box.send(host.name.encode(), bob)
    await current_loop().pass_time(1)
    assert [box.payloads for box in boxes] == [[b"in a"], [b"in b"], [b"in c"]]
    assert [source[0] for _, _, source in server.received] == [nat.address for nat in nats]
    with pytest.raises(ValueError, match="taken"):
        net.host("again", "10.0.0.2", behind=nats[0])


async def test_hosts_behind_the_same_nat_reach_each_other_by_private_addresses() -> None:
    net, nat = slow_net(), behind("symmetric")
    alice, carol = net.host("alice", behind=nat), net.host("carol", behind=nat)
    assert alice.addresses == ("10.0.0.2",)
    assert carol.addresses == ("10.0.0.3",)
    asks, answers = await mailbox(alice), await mailbox(carol, echo=True)
    asks.send(b"x", carol)
    await current_loop().pass_time(1)
    assert asks.received == [(100 * MS, b"x", ("10.0.0.3", 7))]
    assert answers.received == [(50 * MS, b"x", ("10.0.0.2", 7))]


async def test_a_private_address_means_nothing_outside() -> None:
    net = slow_net()
    alice, bob = net.host("alice", behind=behind("full-cone")), net.host("bob")
    tap, sender, receiver = net.tap(), await mailbox(bob), await mailbox(alice)
    sender.send(b"x", alice)
    await current_loop().pass_time(1)
    assert receiver.received == []
    assert [drop.reason for drop in tap.drops] == ["no route"]


@pytest.mark.parametrize("hairpin", [False, True])
async def test_by_its_public_address_a_neighbour_is_reached_only_with_hairpinning(hairpin: bool) -> None:
    net, nat = slow_net(), behind("full-cone", hairpin=hairpin)
    alice, carol, bob = net.host("alice", behind=nat), net.host("carol", behind=nat), net.host("bob", STUN)
    one, other, server, tap = await mailbox(alice), await mailbox(carol, echo=True), await mailbox(bob), net.tap()
    public = [await observed(box, server, (STUN, 7)) for box in (one, other)]
    one.transport.sendto(b"x", public[1])
    await current_loop().pass_time(1)
    assert [source for _, _, source in other.received] == ([public[0]] if hairpin else [])
    assert [source for _, _, source in one.received] == ([public[1]] if hairpin else [])
    assert [drop.reason for drop in tap.drops] == ([] if hairpin else ["nat"])


async def test_hairpinning_filters_like_everything_else() -> None:
    net, nat = slow_net(), behind("port-restricted", hairpin=True)
    alice, carol, bob = net.host("alice", behind=nat), net.host("carol", behind=nat), net.host("bob", STUN)
    one, other, server = await mailbox(alice), await mailbox(carol), await mailbox(bob)
    public = [await observed(box, server, (STUN, 7)) for box in (one, other)]
    one.transport.sendto(b"refused", public[1])
    await current_loop().pass_time(1)
    other.transport.sendto(b"opens", public[0])
    one.transport.sendto(b"x", public[1])
    await current_loop().pass_time(1)
    assert one.payloads == [b"opens"]
    assert other.payloads == [b"x"]


PUNCHED = {
    frozenset(pair): "symmetric" not in pair or pair in [("full-cone", "symmetric"), ("restricted", "symmetric")]
    for pair in itertools.combinations_with_replacement(KINDS, 2)
}
"""Which pairs of kinds a hole can be punched between, as RFC 5128 §3.3 has it."""


@pytest.mark.parametrize(("ours", "theirs"), list(itertools.product(KINDS, KINDS)))
async def test_holes_are_punched_unless_both_ports_have_to_be_guessed(ours: NatKind, theirs: NatKind) -> None:
    net = slow_net()
    nats = behind(ours, "a", "203.0.113.1"), behind(theirs, "b", "203.0.113.2")
    hosts = [net.host(f"in {nat.name}", "10.0.0.2", behind=nat) for nat in nats]
    boxes, server = [await mailbox(host) for host in hosts], await mailbox(net.host("stun", STUN))
    public = [await observed(box, server, (STUN, 7)) for box in boxes]
    for _ in range(3):
        for box, to in zip(boxes, reversed(public), strict=True):
            box.transport.sendto(b"punch", to)
        for box in boxes:
            for source in {source for _, _, source in box.received}:
                box.transport.sendto(b"answer", source)
        await current_loop().pass_time(1)
    answered = [b"answer" in box.payloads for box in boxes]
    assert answered == [PUNCHED[frozenset((ours, theirs))]] * 2


@pytest.mark.parametrize("kind", CONES)
async def test_datagrams_sent_at_the_same_time_meet_open_nats(kind: NatKind) -> None:
    net = slow_net()
    nats = [behind(kind, name, address) for name, address in (("a", "203.0.113.1"), ("b", "203.0.113.2"))]
    hosts = [net.host(f"in {nat.name}", "10.0.0.2", behind=nat) for nat in nats]
    boxes, server = [await mailbox(host) for host in hosts], await mailbox(net.host("stun", STUN))
    public = [await observed(box, server, (STUN, 7)) for box in boxes]
    for box, to in zip(boxes, reversed(public), strict=True):
        box.transport.sendto(b"at once", to)
    await current_loop().pass_time(1)
    assert [box.payloads for box in boxes] == [[b"at once"], [b"at once"]]


async def test_with_preserved_ports_two_need_nobody_to_tell_them() -> None:
    net = slow_net()
    nats = [
        behind("port-restricted", name, address, preserve_ports=True)
        for name, address in (("a", "203.0.113.1"), ("b", "203.0.113.2"))
    ]
    boxes = [await mailbox(net.host(f"in {nat.name}", behind=nat)) for nat in nats]
    for box, nat in zip(boxes, reversed(nats), strict=True):
        box.transport.sendto(b"x", (nat.address, 7))
    await current_loop().pass_time(1)
    assert [box.payloads for box in boxes] == [[b"x"], [b"x"]]


async def test_a_preserved_port_is_given_once() -> None:
    net, nat = slow_net(), behind("full-cone", preserve_ports=True)
    boxes = [await mailbox(net.host(name, behind=nat)) for name in ("alice", "carol")]
    server = await mailbox(net.host("stun", STUN))
    first, second = [(await observed(box, server, (STUN, 7)))[1] for box in boxes]
    assert first == 7
    assert second != 7


@pytest.mark.parametrize("kind", KINDS)
async def test_a_mapping_ends_to_the_nanosecond(kind: NatKind) -> None:
    net, loop = current_net(), current_loop()
    alice, bob = net.host("alice", behind=behind(kind, udp_idle=30.0)), net.host("bob", STUN)
    box, server = await mailbox(alice), await mailbox(bob)
    box.transport.sendto(b"x", (STUN, 7))
    await loop.settle()
    public = server.received[-1][2]
    for at_ns in (30 * NS - 1, 30 * NS):
        loop.call_at_ns(at_ns, partial(server.transport.sendto, str(at_ns).encode(), public))
    await loop.pass_time(31)
    assert box.received == [(30 * NS - 1, b"29999999999", (STUN, 7))]


async def test_only_what_leaves_keeps_a_mapping_alive() -> None:
    net = current_net()
    nat = behind("full-cone", udp_idle=30.0)
    alice, bob = net.host("alice", behind=nat), net.host("bob", STUN)
    box, server = await mailbox(alice), await mailbox(bob)
    public = await observed(box, server, (STUN, 7))
    for _ in range(5):
        await current_loop().pass_time(20)
        assert await observed(box, server, (STUN, 7)) == public
    for _ in range(2):
        await current_loop().pass_time(20)
        server.transport.sendto(b"x", public)
    await current_loop().settle()
    assert len(box.received) == 1
    assert nat.public(("10.0.0.2", 7)) is None
    assert await observed(box, server, (STUN, 7)) != public


async def test_whom_one_has_spoken_to_is_forgotten_while_others_keep_the_mapping() -> None:
    outside = await Outside("restricted", udp_idle=30.0).made()
    public = await observed(outside.box, outside.ends[STUN, 7], (STUN, 7))
    for _ in range(4):
        await current_loop().pass_time(10)
        assert await observed(outside.box, outside.ends["198.51.100.2", 7], ("198.51.100.2", 7)) == public
    assert await outside.that_get_in(public) == {"198.51.100.2:7", "198.51.100.2:8"}


async def test_a_thousand_peers_are_remembered_and_forgotten() -> None:
    net, nat = current_net(), behind("symmetric", udp_idle=30.0)
    alice, bob = net.host("alice", behind=nat), net.host("bob", STUN)
    box, server = await mailbox(alice), await mailbox(bob)
    for _ in range(3):
        for port in range(1000, 2000):
            box.transport.sendto(b"x", (STUN, port))
        await current_loop().pass_time(30)
    assert await observed(box, server, (STUN, 7)) == nat.public(("10.0.0.2", 7), (STUN, 7))
    assert len({nat.public(("10.0.0.2", 7), (STUN, port)) for port in range(1000, 2000)}) == 1
    assert len(box.errors) == 0


async def test_an_error_on_the_way_finds_the_socket_behind_the_nat() -> None:
    net = slow_net()
    alice, bob = net.host("alice", behind=behind("symmetric")), net.host("bob", STUN)
    tap, connected = net.tap(), await mailbox(alice, to=(STUN, 9))
    connected.send(b"x")
    await current_loop().pass_time(1)
    [(at_ns, error)] = connected.errors
    assert isinstance(error, ConnectionRefusedError)
    assert at_ns == 100 * MS
    assert [seen.packet.source[0] for seen in tap.packets] == ["203.0.113.1", bob.addresses[0]]
    assert [seen.packet.target[0] for seen in tap.packets] == [bob.addresses[0], "203.0.113.1"]


async def test_an_error_behind_the_nat_names_the_public_address_outside() -> None:
    net, nat = slow_net(), behind("full-cone")
    alice, bob = net.host("alice", behind=nat), net.host("bob", STUN)
    box, server = await mailbox(alice), await mailbox(bob)
    public = await observed(box, server, (STUN, 7))
    asks = await mailbox(bob, to=public)
    alice.refused_ports.add(7)
    asks.send(b"x")
    await current_loop().pass_time(1)
    assert [type(error) for _, error in asks.errors] == [ConnectionRefusedError]


async def test_where_the_network_tells_a_socket_behind_the_nat_hears_that_there_is_no_way() -> None:
    net = slow_net()
    net.unknown_addresses = "unreachable"
    connected = await mailbox(net.host("alice", behind=behind("full-cone")), to=("192.0.2.1", 9))
    connected.send(b"x")
    await current_loop().settle()
    assert len(connected.errors) == 1


async def test_links_faults_and_power_are_those_of_the_host_behind_the_nat() -> None:
    net = current_net()
    alice, bob = net.host("alice", behind=behind("port-restricted")), net.host("bob", STUN)
    net.set_link(Link(latency=0.010), alice, bob)
    net.set_link(Link(latency=0.300), bob, alice)
    tap, box, _ = net.tap(), await mailbox(alice), await mailbox(bob, echo=True)
    box.send(b"one", bob)
    await current_loop().pass_time(1)
    assert box.times_ns == [310 * MS]
    net.partition(alice, bob)
    box.send(b"two", bob)
    await current_loop().pass_time(1)
    net.repair(alice, bob)
    box.send(b"three", bob)
    await current_loop().pass_time(0.1)
    alice.crash()
    await current_loop().pass_time(1)
    assert box.payloads == [b"one"]
    assert [drop.reason for drop in tap.drops] == ["cut", "down"]


async def test_a_datagram_that_a_link_doubles_enters_twice() -> None:
    net = current_net()
    net.set_link(Link(latency=0.010, duplicate=1.0))
    alice, bob = net.host("alice", behind=behind("full-cone")), net.host("bob", STUN)
    box, server = await mailbox(alice), await mailbox(bob)
    public = await observed(box, server, (STUN, 7))
    server.transport.sendto(b"x", public)
    await current_loop().pass_time(1)
    assert box.payloads == [b"x", b"x"]


async def test_customers_of_a_carrier_are_behind_two_nats() -> None:
    net = slow_net()
    carrier = behind("port-restricted", "carrier", "203.0.113.9", hairpin=True)
    homes = [behind("full-cone", f"home {n}", f"100.64.0.{n}", behind=carrier) for n in (1, 2)]
    hosts = [net.host(f"host {n}", "10.0.0.2", behind=home) for n, home in enumerate(homes)]
    boxes, server = [await mailbox(host) for host in hosts], await mailbox(net.host("stun", STUN))
    public = [await observed(box, server, (STUN, 7)) for box in boxes]
    assert [ip for ip, _ in public] == ["203.0.113.9"] * 2
    assert carrier.hosts == hosts
    inner = [home.public(("10.0.0.2", 7)) for home in homes]
    assert [carrier.public(address) for address in inner if address] == public
    server.transport.sendto(b"back", public[0])
    boxes[0].transport.sendto(b"among customers", inner[1])
    await current_loop().pass_time(1)
    assert [box.payloads for box in boxes] == [[b"back"], [b"among customers"]]
    for box, to in zip(boxes, reversed(public), strict=True):
        box.transport.sendto(b"by the carrier", to)
    await current_loop().pass_time(1)
    assert [box.payloads[-1] for box in boxes] == [b"by the carrier"] * 2


async def test_addresses_of_ipv6_pass_a_nat_and_the_firewall_that_it_has() -> None:
    net = slow_net()
    nats = [
        behind("symmetric", "open", "203.0.113.1"),
        behind("symmetric", "closed", "203.0.113.2", firewall=net.firewall()),
    ]
    hosts = [net.host(f"in {nat.name}", "10.0.0.2", f"2001:db8::{n}", behind=nat) for n, nat in enumerate(nats, 2)]
    tap, boxes = net.tap(), [Mailbox() for _ in hosts]
    for box, host in zip(boxes, hosts, strict=True):
        await _on_ipv6(box, host)
    boxes[1].transport.sendto(b"x", ("2001:db8::2", 7))
    await current_loop().pass_time(1)
    boxes[0].transport.sendto(b"y", ("2001:db8::3", 7))
    boxes[0].transport.sendto(b"z", ("2001:db8::3", 8))
    await current_loop().pass_time(1)
    assert boxes[0].received == [(50 * MS, b"x", ("2001:db8::3", 7, 0, 0))]
    assert boxes[1].payloads == [b"y"]
    assert [drop.reason for drop in tap.drops] == ["firewall"]


async def _on_ipv6(box: Mailbox, host: Host) -> None:
    with host.here():
        await current_loop().create_datagram_endpoint(lambda: box, ("::", 7))


async def test_a_nat_that_makes_no_sense_is_refused() -> None:
    net = current_net()
    with pytest.raises(ValueError, match="kind is one of"):
        net.nat("a", "203.0.113.1", kind="conical")
    with pytest.raises(ValueError, match="unknown_tcp"):
        net.nat("a", "203.0.113.1", unknown_tcp="maybe")
    with pytest.raises(ValueError, match="no time"):
        net.nat("a", "203.0.113.1", udp_idle=0.0)
    with pytest.raises(ValueError, match="2001:db8::1"):
        net.nat("a", "2001:db8::1")
    with pytest.raises(TypeError, match="no_such_field"):
        net.nat("a", "203.0.113.1", no_such_field=1)
    net.host("bob", "203.0.113.1")
    with pytest.raises(ValueError, match="taken"):
        net.nat("a", "203.0.113.1")
    rules = NatRules(kind="symmetric", udp_idle=20.0)
    nat = net.nat("a", "203.0.113.2", rules, hairpin=True)
    assert nat.rules == NatRules(kind="symmetric", udp_idle=20.0, hairpin=True)
    with pytest.raises(ValueError, match="already"):
        net.nat("a", "203.0.113.3")


def test_the_same_seed_gives_the_same_ports_and_the_same_trace() -> None:
    async def main() -> Address:
        outside = await Outside("symmetric").made()
        await observed(outside.box, outside.ends[STUN, 7], (STUN, 7))
        return await observed(outside.box, outside.ends[STUN, 8], (STUN, 8))

    def digest(seed: int) -> tuple[Address, str]:
        trace = Trace()
        return run(main, seed=seed, trace=trace), trace.digest()

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


def test_a_world_has_nats_and_firewalls() -> None:
    async def main(world: World) -> None:
        nat = world.nat("home", "203.0.113.1", kind="symmetric")
        alice, bob = world.host("alice", behind=nat), world.host("bob", STUN, behind=world.firewall(open_ports=[7]))
        box, server = await mailbox(alice), await mailbox(bob)
        seen = []
        for target in (nat, alice, alice):
            seen.append(await observed(box, server, (STUN, 7)))
            world.rebind(target, "203.0.113.2" if target is nat else None)
        assert [ip for ip, _ in seen] == ["203.0.113.1", "203.0.113.2", "203.0.113.2"]
        assert len(set(seen)) == 3
        with pytest.raises(ValueError, match="behind no NAT"):
            world.rebind(bob)

    run_world(main)


# Whatever happens

STEPS = st.lists(
    st.tuples(st.sampled_from(["out", "in", "wait", "rebind"]), st.integers(0, 1), st.integers(0, 3)), max_size=30
)
PEERS = [(STUN, 1), (STUN, 2), ("198.51.100.2", 1), ("198.51.100.2", 2)]


@settings(max_examples=60)
@given(kind=st.sampled_from(KINDS), preserve=st.booleans(), steps=STEPS)
def test_a_datagram_enters_if_and_only_if_the_rules_of_its_kind_say_so(
    kind: NatKind, preserve: bool, steps: list[tuple[str, int, int]]
) -> None:
    async def main() -> None:
        net, nat = current_net(), behind(kind, udp_idle=10.0, preserve_ports=preserve)
        inside = [await mailbox(net.host(name, behind=nat), port=7) for name in ("alice", "carol")]
        hosts = {ip: net.host(ip, ip) for ip in dict.fromkeys(ip for ip, _ in PEERS)}
        outside = [await mailbox(hosts[ip], port=port) for ip, port in PEERS]
        spoken: dict[tuple[int, int], int] = {}  # who inside has spoken to whom, and when that is forgotten
        known: dict[tuple[int, int], Address] = {}  # as whom each was seen by each
        for what, who, whom in steps:
            now_ns = current_loop().time_ns()
            living = {pair for pair, until_ns in spoken.items() if until_ns > now_ns}
            if what == "wait":
                await current_loop().pass_time(whom + 2)
            elif what == "rebind":
                nat.rebind()
                spoken.clear()
                known.clear()
            elif what == "out":
                inside[who].transport.sendto(b"out", PEERS[whom])
                await current_loop().settle()
                known[who, whom] = outside[whom].received[-1][2][:2]
                spoken[who, whom] = now_ns + 10 * NS
            elif known:
                # Somebody sends to where it, or another, has seen somebody who is inside.
                to = sorted(known.values())[who % len(known)]
                before = [len(box.received) for box in inside]
                outside[whom].transport.sendto(b"in", to)
                await current_loop().settle()
                grown = {number for number, box in enumerate(inside) if len(box.received) > before[number]}
                allowed = {(one, peer) for one, peer in living if known[one, peer] == to}
                if kind == "restricted":
                    allowed = {(one, peer) for one, peer in allowed if PEERS[peer][0] == PEERS[whom][0]}
                elif kind != "full-cone":
                    allowed &= {(0, whom), (1, whom)}
                assert grown == {one for one, _ in allowed}
                assert len(grown) <= 1

    run(main)
