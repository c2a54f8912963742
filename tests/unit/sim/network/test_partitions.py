"""Partitions, holds, isolation and rules, and what is under way meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aiolibp2p.sim import Host, Link, current_loop, current_net
from aiolibp2p.sim.network import Packet
from tests.support.datagrams import Mailbox, mailbox

MS = 1_000_000


class Three:
    """Three hosts 50 ms apart, each with an echoing mailbox; `made` makes them."""

    def __init__(self) -> None:
        net = current_net()
        net.set_link(Link(latency=0.050))
        self.hosts: list[Host] = [net.host(name) for name in ("alice", "bob", "carol")]
        self.boxes: list[Mailbox] = []

    async def made(self) -> Three:
        self.boxes = [await mailbox(host) for host in self.hosts]
        return self

    async def reached(self) -> set[str]:
        """Return which of the six directions carry a datagram, as two initials each."""
        before = [len(box.received) for box in self.boxes]
        for host, box in zip(self.hosts, self.boxes, strict=True):
            for other in self.hosts:
                if other is not host:
                    box.send(host.name[0].encode(), other)
        await current_loop().pass_time(1)
        return {
            data.decode() + host.name[0]
            for host, box, seen in zip(self.hosts, self.boxes, before, strict=True)
            for data in box.payloads[seen:]
        }


ALL = {"ab", "ac", "ba", "bc", "ca", "cb"}


async def test_a_partition_cuts_both_directions_until_it_is_repaired() -> None:
    three, net = await Three().made(), current_net()
    alice, bob, _ = three.hosts
    net.partition(alice, bob)
    assert await three.reached() == ALL - {"ab", "ba"}
    net.repair(alice, bob)
    assert await three.reached() == ALL


async def test_a_partition_can_be_of_one_direction() -> None:
    three, net = await Three().made(), current_net()
    alice, bob, _ = three.hosts
    net.partition(alice, bob, oneway=True)
    assert await three.reached() == ALL - {"ab"}
    net.partition(bob, alice, oneway=True)
    net.repair(alice, bob, oneway=True)
    assert await three.reached() == ALL - {"ba"}


async def test_a_partition_can_be_between_groups() -> None:
    three, net = await Three().made(), current_net()
    alice, *others = three.hosts
    net.partition(alice, others)
    assert await three.reached() == {"bc", "cb"}
    net.repair(alice)
    assert await three.reached() == ALL


async def test_what_has_left_before_a_partition_arrives() -> None:
    three, net = await Three().made(), current_net()
    alice, bob, _ = three.hosts
    three.boxes[0].send(b"before", bob)
    net.partition(alice, bob)
    three.boxes[0].send(b"after", bob)
    await current_loop().pass_time(1)
    assert three.boxes[1].payloads == [b"before"]


async def test_an_isolated_host_goes_on_and_nothing_gets_in_or_out() -> None:
    three, net = await Three().made(), current_net()
    alice = three.hosts[0]
    net.isolate(alice)
    assert await three.reached() == {"bc", "cb"}
    three.boxes[0].send(b"to itself", alice)
    late = await mailbox(net.host("late"))
    three.boxes[0].send(b"x", net.hosts[-1])
    late.send(b"y", alice)
    await current_loop().pass_time(1)
    assert late.received == []
    assert three.boxes[0].payloads == [b"to itself"]
    net.repair(alice)
    assert await three.reached() == ALL
    late.send(b"y", alice)
    await current_loop().pass_time(1)
    assert three.boxes[0].payloads[-1] == b"y"


async def test_what_is_held_arrives_in_order_once_it_is_released() -> None:
    three, net = await Three().made(), current_net()
    alice, bob, _ = three.hosts
    net.hold(alice, bob, oneway=True)
    for data in (b"one", b"two"):
        three.boxes[0].send(data, bob)
        await current_loop().pass_time(1)
    three.boxes[1].send(b"back", alice)
    await current_loop().pass_time(1)
    assert three.boxes[1].received == []
    assert three.boxes[0].payloads == [b"back"]
    net.release(alice, bob)
    await current_loop().pass_time(1)
    assert [(at_ns, data) for at_ns, data, _ in three.boxes[1].received] == [(3050 * MS, b"one"), (3050 * MS, b"two")]


async def test_a_partition_loses_what_was_held_and_a_hold_ends_a_partition() -> None:
    three, net = await Three().made(), current_net()
    alice, bob, _ = three.hosts
    tap = net.tap()
    net.hold(alice, bob)
    three.boxes[0].send(b"x", bob)
    net.partition(alice, bob)
    assert [drop.reason for drop in tap.drops] == ["cut"]
    net.release(alice, bob)
    assert await three.reached() == ALL - {"ab", "ba"}
    net.hold(alice, bob)
    net.repair(alice, bob)
    assert await three.reached() == ALL - {"ab", "ba"}
    net.release(alice, bob)
    await current_loop().pass_time(1)
    assert three.boxes[1].payloads[-1] == b"a"


async def test_a_partition_stalls_a_connection_and_its_end_lets_it_go_on() -> None:
    three, net = await Three().made(), current_net()
    alice, bob, _ = three.hosts

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.read())
        writer.close()

    received: asyncio.Future[bytes] = current_loop().create_future()
    with bob.here():
        server = await asyncio.start_server(accept, "0.0.0.0", 80)
    with alice.here():
        _, writer = await asyncio.open_connection("bob", 80)
    net.partition(alice, bob)
    writer.write(b"hello")
    writer.close()
    await current_loop().pass_time(10)
    assert not received.done()
    net.repair(alice, bob)
    assert await received == b"hello"
    server.close()
    await current_loop().pass_time(30)


async def test_what_is_under_way_can_be_looked_at() -> None:
    three, net = await Three().made(), current_net()
    alice, bob, carol = three.hosts
    net.hold(alice, carol)
    three.boxes[0].send(b"held", carol)
    three.boxes[0].send(b"first", bob)
    await current_loop().pass_time(0.010)
    three.boxes[1].send(b"second", alice)
    flights = net.in_flight()
    assert [(flight.packet.payload, flight.arrives_ns) for flight in flights] == [
        (b"first", 50 * MS),
        (b"second", 60 * MS),
        (b"held", None),
    ]
    packet = flights[0].packet
    assert (packet.sender, packet.path.target) == (alice, bob)
    assert packet.source == (alice.addresses[0], 7)
    assert packet.target == (bob.addresses[0], 7)
    net.release(alice, carol)
    await current_loop().pass_time(1)
    assert net.in_flight() == []


async def test_what_a_connection_holds_is_under_way_too() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 80)
    reader, writer = await asyncio.open_connection("127.0.0.1", 80)
    [connection] = current_net().connections
    await reader.read()
    connection.hold("client")
    writer.write(b"x")
    [flight] = current_net().in_flight()
    assert (flight.packet.payload, flight.packet.flags, flight.arrives_ns) == (b"x", "ack", None)
    connection.open()
    writer.close()
    server.close()
    await current_loop().settle()


async def test_a_rule_drops_the_packet_of_its_number() -> None:
    three, net = await Three().made(), current_net()
    bob = three.hosts[1]
    tap = net.tap()
    end = net.rule(lambda packet: "drop" if packet.number == 2 and packet.path.target is bob else None)
    for data in (b"one", b"two", b"three"):
        three.boxes[0].send(data, bob)
    await current_loop().pass_time(1)
    assert three.boxes[1].payloads == [b"one", b"three"]
    assert [(drop.packet.payload, drop.reason) for drop in tap.drops] == [(b"two", "rule")]
    end()
    end()
    assert net.rules == []


async def test_a_rule_duplicates() -> None:
    three, net = await Three().made(), current_net()
    net.rule(lambda packet: "duplicate" if packet.payload == b"twice" else None)
    for data in (b"once", b"twice"):
        three.boxes[0].send(data, three.hosts[1])
    await current_loop().pass_time(1)
    assert three.boxes[1].payloads == [b"once", b"twice", b"twice"]


async def test_a_rule_delays_one_packet_and_not_those_behind_it() -> None:
    three, net = await Three().made(), current_net()
    net.rule(lambda packet: 0.5 if packet.number == 1 else None)
    for data in (b"late", b"early"):
        three.boxes[0].send(data, three.hosts[1])
    await current_loop().pass_time(1)
    assert three.boxes[1].payloads == [b"early", b"late"]
    assert three.boxes[1].times_ns == [50 * MS, 550 * MS]


async def test_the_first_rule_with_an_opinion_counts() -> None:
    three, net = await Three().made(), current_net()
    net.rule(lambda packet: None)
    net.rule(lambda packet: 1.0)
    net.rule(lambda packet: "drop")
    three.boxes[0].send(b"x", three.hosts[1])
    await current_loop().pass_time(2)
    assert three.boxes[1].times_ns == [1050 * MS]


async def test_a_rule_sees_every_packet_of_a_connection() -> None:
    seen: list[tuple[int, str, str, int]] = []

    def look(packet: Packet) -> None:
        seen.append((packet.number, packet.sender.name, packet.flags, packet.size_bytes))

    three, net = await Three().made(), current_net()
    alice, bob, _ = three.hosts

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        writer.close()

    with bob.here():
        server = await asyncio.start_server(accept, "0.0.0.0", 80)
    net.rule(look)
    with alice.here():
        reader, writer = await asyncio.open_connection("bob", 80)
    writer.write(b"12345")
    assert await reader.read() == b""
    writer.close()
    await current_loop().pass_time(1)
    server.close()
    assert seen[:4] == [
        (1, "alice", "syn", 40),
        (1, "bob", "syn ack", 40),
        (2, "alice", "ack", 40),
        (3, "alice", "ack", 45),
    ]
    assert {flags for _, _, flags, _ in seen} == {"syn", "syn ack", "ack", "fin ack"}


@pytest.mark.parametrize("verdict", ["lose", -1, object()])
async def test_a_rule_that_returns_what_is_no_verdict_ends_the_run(verdict: Any) -> None:
    box = await mailbox(current_net().home)
    rule: Callable[[Packet], Any] = lambda _packet: verdict  # noqa: E731
    current_net().rule(rule)
    with pytest.raises(ValueError, match="a rule returned"):
        box.transport.sendto(b"x", ("127.0.0.1", 7))


async def test_paths_and_packets_say_what_they_are() -> None:
    three, net = await Three().made(), current_net()
    alice, bob, _ = three.hosts
    net.partition(alice, bob)
    assert repr(net.path(alice, bob)) == "<Path alice>bob cut>"
    assert repr(net.path(alice, None)) == "<Path alice>? cut>"
    three.boxes[1].send(b"x", three.hosts[2])
    [flight] = net.in_flight()
    assert repr(flight.packet) == "<Packet 1 udp ('1.0.0.3', 7)->('1.0.0.4', 7) 29 bytes>"
