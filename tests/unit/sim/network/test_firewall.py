"""Firewalls that remember who was spoken to."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from aiolibp2p.sim import Host, Link, current_loop, current_net
from tests.support.datagrams import Mailbox, mailbox

MS = 1_000_000
NS = 1_000_000_000


def guarded(**options: Any) -> tuple[Host, Host]:
    """Return a host behind a firewall and one that is not."""
    net = current_net()
    net.set_link(Link(latency=0.050))
    return net.host("alice", "198.51.100.1", behind=net.firewall(**options)), net.host("bob", "198.51.100.2")


async def test_inbound_datagrams_get_in_only_after_outbound_ones_to_the_same_port() -> None:
    alice, bob = guarded()
    tap, inside, outside, elsewhere = (
        current_net().tap(),
        await mailbox(alice),
        await mailbox(bob),
        await mailbox(bob, port=8),
    )
    outside.send(b"too early", alice)
    await current_loop().pass_time(1)
    inside.send(b"open", bob)
    await current_loop().pass_time(1)
    outside.send(b"answer", alice)
    outside.send(b"another port", alice, 8)
    elsewhere.send(b"a stranger", alice)
    await current_loop().pass_time(1)
    assert inside.payloads == [b"answer"]
    assert outside.received == [(1050 * MS, b"open", ("198.51.100.1", 7))]
    assert [(drop.packet.payload, drop.reason) for drop in tap.drops] == [
        (b"too early", "firewall"),
        (b"another port", "firewall"),
        (b"a stranger", "firewall"),
    ]


async def test_datagrams_that_cross_each_other_meet_open_firewalls() -> None:
    net = current_net()
    net.set_link(Link(latency=0.050))
    hosts = [net.host(name, behind=net.firewall()) for name in ("alice", "bob")]
    boxes = [await mailbox(host) for host in hosts]
    for box, host in zip(boxes, reversed(hosts), strict=True):
        box.send(b"x", host)
    await current_loop().pass_time(1)
    assert [box.payloads for box in boxes] == [[b"x"], [b"x"]]


async def test_everybody_reaches_an_open_port() -> None:
    alice, bob = guarded(open_ports=[7])
    inside, other, outside = await mailbox(alice, echo=True), await mailbox(alice, port=8), await mailbox(bob)
    outside.send(b"x", alice)
    outside.send(b"y", alice, 8)
    await current_loop().pass_time(1)
    assert inside.payloads == outside.payloads == [b"x"]
    assert other.payloads == []


async def test_hosts_behind_the_same_firewall_do_not_pass_it() -> None:
    net = current_net()
    firewall = net.firewall()
    alice, carol = net.host("alice", behind=firewall), net.host("carol", behind=firewall)
    one, other = await mailbox(alice), await mailbox(carol)
    one.send(b"x", carol)
    await current_loop().settle()
    assert other.payloads == [b"x"]


async def test_what_was_let_out_is_forgotten_to_the_nanosecond() -> None:
    net, loop = current_net(), current_loop()
    alice, bob = net.host("alice", behind=net.firewall(udp_idle=30.0)), net.host("bob")
    inside, outside = await mailbox(alice), await mailbox(bob)
    inside.send(b"x", bob)
    for at_ns in (30 * NS - 1, 30 * NS):
        loop.call_at_ns(at_ns, partial(outside.send, str(at_ns).encode(), alice))
    await loop.pass_time(31)
    assert inside.payloads == [b"29999999999"]


async def test_an_error_gets_in_if_it_is_about_what_was_let_out_and_always_out() -> None:
    alice, bob = guarded(open_ports=[9])
    inside = await mailbox(alice, to=(bob.addresses[0], 9))
    outside = await mailbox(bob, to=(alice.addresses[0], 9))
    inside.send(b"x")
    outside.send(b"x")
    await current_loop().pass_time(1)
    assert [type(error) for _, error in inside.errors] == [ConnectionRefusedError]
    assert [type(error) for _, error in outside.errors] == [ConnectionRefusedError]


async def test_thousands_of_sockets_are_forgotten() -> None:
    alice, bob = guarded(udp_idle=1.0)
    outside = await mailbox(bob)
    for port in range(1000, 1600):
        inside = await mailbox(alice, port=port)
        inside.send(b"x", bob)
        inside.transport.close()
    await current_loop().pass_time(2)
    last = await mailbox(alice, port=7)
    for port in range(1000, 1600):
        last.send(b"x", bob, port)
    last.send(b"x", bob)
    await current_loop().pass_time(0.5)
    outside.send(b"answer", alice)
    await current_loop().pass_time(0.5)
    assert last.payloads == [b"answer"]


async def test_ipv6_is_filtered_and_not_translated() -> None:
    net = current_net()
    alice = net.host("alice", "2001:db8::1", behind=net.firewall())
    bob = net.host("bob", "2001:db8::2")
    tap, boxes = net.tap(), [Mailbox(), Mailbox()]
    for box, host in zip(boxes, (alice, bob), strict=True):
        await _on_ipv6(box, host)
    boxes[1].send(b"too early", alice)
    await current_loop().settle()
    boxes[0].send(b"x", bob)
    await current_loop().settle()
    boxes[1].send(b"y", alice)
    await current_loop().settle()
    assert boxes[0].payloads == [b"y"]
    assert [source for _, _, source in boxes[1].received] == [("2001:db8::1", 7, 0, 0)]
    assert [drop.reason for drop in tap.drops] == ["firewall"]


async def _on_ipv6(box: Mailbox, host: Host) -> None:
    with host.here():
        await current_loop().create_datagram_endpoint(lambda: box, ("::", 7))


async def test_nobody_connects_to_a_port_that_is_not_open() -> None:
    alice, bob = guarded(open_ports=[80])
    tap = current_net().tap()
    accepted: list[int] = []

    async def serve(port: int) -> asyncio.Server:
        def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.append(port)
            writer.close()

        return await asyncio.start_server(accept, "0.0.0.0", port)

    for port in (80, 81):
        await alice.spawn(serve(port))
    with bob.here():
        reader, writer = await asyncio.open_connection("alice", 80)
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(TimeoutError):
            await asyncio.open_connection("alice", 81)
    assert accepted == [80]
    assert {drop.reason for drop in tap.drops} == {"firewall"}


async def test_a_connection_from_inside_is_answered() -> None:
    alice, bob = guarded()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    async def serve() -> None:
        await asyncio.start_server(echo, "0.0.0.0", 80)

    await bob.spawn(serve())
    with alice.here():
        reader, writer = await asyncio.open_connection("bob", 80)
        writer.write(b"x" * 1_000_000)
        writer.write_eof()
        assert await reader.read() == b"x" * 1_000_000
        writer.close()


async def test_a_firewall_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="no time"):
        current_net().firewall(tcp_idle=0.0)
    with pytest.raises(TypeError, match="no_such_field"):
        current_net().firewall(no_such_field=1)
