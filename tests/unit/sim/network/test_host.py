"""Hosts: their access lines and addresses."""

from __future__ import annotations

import asyncio
import errno

import pytest

from aiolibp2p.sim import Host, Link, current_loop, current_net
from tests.support.datagrams import mailbox

MS = 1_000_000


async def test_what_leaves_a_host_shares_its_line_up() -> None:
    net = current_net()
    alice, bob, carol = net.host("alice", up=8e6), net.host("bob"), net.host("carol")
    net.set_link(Link(latency=0.010))
    sender, boxes = await mailbox(alice), [await mailbox(host) for host in (bob, carol)]
    for host in (bob, carol, bob):
        sender.send(bytes(972), host)
    await current_loop().pass_time(1)
    assert [box.times_ns for box in boxes] == [[11 * MS, 13 * MS], [12 * MS]]


async def test_what_reaches_a_host_shares_its_line_down() -> None:
    net = current_net()
    alice, bob, carol = net.host("alice", down=8e6), net.host("bob"), net.host("carol")
    net.set_link(Link(latency=0.010))
    receiver, senders = await mailbox(alice), [await mailbox(host) for host in (bob, carol)]
    for sender in (*senders, senders[0]):
        sender.send(bytes(972), alice)
    await current_loop().pass_time(1)
    assert receiver.times_ns == [11 * MS, 12 * MS, 13 * MS]


async def test_a_line_and_a_link_follow_each_other() -> None:
    net = current_net()
    alice, bob = net.host("alice", up=8e6), net.host("bob", down=8e6)
    net.set_link(Link(latency=0.010, bandwidth=4e6), alice, bob)
    sender, receiver = await mailbox(alice), await mailbox(bob)
    for _ in range(2):
        sender.send(bytes(972), bob)
    await current_loop().pass_time(1)
    assert receiver.times_ns == [14 * MS, 16 * MS]


async def test_what_stays_within_a_host_crosses_no_line() -> None:
    host = current_net().host("alice", up=8.0, down=8.0)
    box = await mailbox(host)
    box.send(b"x", host)
    box.transport.sendto(b"y", ("127.0.0.1", 7))
    await current_loop().settle()
    assert box.payloads == [b"x", b"y"]


async def test_a_full_line_drops_datagrams_and_makes_tcp_wait() -> None:
    net = current_net()
    alice, bob = net.host("alice", up=8e6, queue_bytes=3_000), net.host("bob")
    tap = net.tap()
    sender, receiver = await mailbox(alice), await mailbox(bob)
    for _ in range(5):
        sender.send(bytes(972), bob)
    await current_loop().pass_time(1)
    assert len(receiver.received) == 3
    await upload(alice, bob, 100_000)
    assert [drop.reason for drop in tap.drops] == ["queue", "queue"]


async def upload(alice: Host, bob: Host, size: int) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(len(await reader.read()))
        writer.close()

    received: asyncio.Future[int] = current_loop().create_future()
    with bob.here():
        server = await asyncio.start_server(accept, "0.0.0.0", 80)
    with alice.here():
        _, writer = await asyncio.open_connection("bob", 80)
    writer.write(bytes(size))
    writer.close()
    assert await received == size
    server.close()


async def test_a_full_line_down_loses_segments_and_tcp_sends_them_again() -> None:
    net = current_net()
    alice, bob = net.host("alice"), net.host("bob", down=8e6, queue_bytes=10_000)
    net.set_link(Link(latency=0.010, mtu=1500))
    tap = net.tap()
    await upload(alice, bob, 1 << 20)
    await current_loop().pass_time(1)
    assert {drop.reason for drop in tap.drops} == {"queue"}


async def test_tcp_reaches_the_addresses_of_both_families() -> None:
    net = current_net()
    alice, bob = net.host("alice", "10.0.0.1", "2001:db8::1"), net.host("bob", "10.0.0.2", "2001:db8::2")
    peers: list[object] = []

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer.get_extra_info("peername"))
        writer.close()

    with bob.here():
        server = await asyncio.start_server(accept, None, 80)
    for ip in bob.addresses:
        with alice.here():
            reader, writer = await asyncio.open_connection(ip, 80)
        assert await reader.read() == b""
        writer.close()
    assert peers == [("10.0.0.1", 49152), ("2001:db8::1", 49153, 0, 0)]
    server.close()
    await current_loop().settle()


async def test_a_host_without_ipv6_does_not_reach_it() -> None:
    net = current_net()
    net.host("bob", "2001:db8::2")
    with pytest.raises(OSError, match="unreachable") as caught:
        await asyncio.open_connection("2001:db8::2", 80)
    assert caught.value.errno == errno.ENETUNREACH


def test_an_address_must_be_one() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="address"):
            current_net().host("alice", "alice.example")


async def test_hosts_without_addresses_get_public_ones() -> None:
    hosts = [current_net().host(f"h{i}") for i in range(300)]
    assert len({host.addresses for host in hosts}) == 300
    assert hosts[0].addresses == ("1.0.0.2",)
    assert current_net().hosts[1:] == hosts


async def test_home_is_where_code_is_that_says_nothing() -> None:
    box = await mailbox(current_net().home)
    assert box.transport.get_extra_info("sockname") == ("0.0.0.0", 7)
    assert "home" in repr(box.transport)
    assert "home" in repr(current_net().home)
