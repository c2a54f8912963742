"""UDP over the simulated network, through asyncio's own calls."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from functools import partial
from typing import Any

import pytest

from aiolibp2p.sim import Host, Link, Trace, Tuning, current_loop, current_net, run
from tests.support.datagrams import Mailbox, mailbox

MS = 1_000_000


def two_hosts() -> tuple[Host, Host]:
    return current_net().host("alice", "10.0.0.1"), current_net().host("bob", "10.0.0.2")


async def test_a_datagram_takes_the_latency_and_tells_where_it_came_from() -> None:
    alice, bob = two_hosts()
    current_net().set_link(Link(latency=0.050))
    sender, receiver = await mailbox(alice), await mailbox(bob, echo=True)
    sender.send(b"ping", bob)
    await current_loop().pass_time(1)
    assert receiver.received == [(50 * MS, b"ping", ("10.0.0.1", 7))]
    assert sender.received == [(100 * MS, b"ping", ("10.0.0.2", 7))]


async def test_datagrams_arrive_in_the_order_in_which_they_were_sent() -> None:
    alice, bob = two_hosts()
    sender, receiver = await mailbox(alice), await mailbox(bob)
    for i in range(50):
        sender.send(bytes([i]), bob)
    assert receiver.received == []
    await current_loop().settle()
    assert b"".join(receiver.payloads) == bytes(range(50))
    assert current_loop().time_ns() == 0


async def test_an_uncongested_datagram_is_one_event() -> None:
    alice, bob = two_hosts()
    current_net().set_link(Link(latency=1.0))
    sender, _ = await mailbox(alice), await mailbox(bob)
    for _ in range(3):
        sender.send(b"x", bob)
    assert len(current_loop().scheduled()) == 3


async def test_without_a_socket_the_sender_hears_of_it_only_if_it_is_connected() -> None:
    alice, bob = two_hosts()
    current_net().set_link(Link(latency=0.050))
    tap = current_net().tap()
    unconnected, connected = await mailbox(alice), await mailbox(alice, to=("10.0.0.2", 9))
    unconnected.send(b"x", bob, 9)
    await current_loop().pass_time(1)
    connected.send(b"x")
    await current_loop().pass_time(1)
    assert unconnected.errors == []
    [(at_ns, error)] = connected.errors
    assert isinstance(error, ConnectionRefusedError)
    assert at_ns == 1100 * MS
    assert [drop.reason for drop in tap.drops] == ["port", "port"]
    assert [seen.packet.protocol for seen in tap.packets] == ["udp", "icmp", "udp", "icmp"]


async def test_a_refused_port_answers_as_if_nothing_were_there() -> None:
    alice, bob = two_hosts()
    sender, receiver = await mailbox(alice, to=("10.0.0.2", 7)), await mailbox(bob)
    bob.refused_ports.add(7)
    sender.send(b"x")
    await current_loop().settle()
    assert receiver.received == []
    assert len(sender.errors) == 1


async def test_a_connected_socket_hears_its_peer_only() -> None:
    alice, bob = two_hosts()
    sender, stranger, peer = await mailbox(alice, to=("bob", 7)), await mailbox(alice), await mailbox(bob, echo=True)
    assert sender.transport.get_extra_info("peername") == ("10.0.0.2", 7)
    assert sender.transport.get_extra_info("sockname") == ("10.0.0.1", 49152)
    sender.send(b"one")
    sender.transport.sendto(b"two", ("10.0.0.2", 7))
    stranger.send(b"three", alice, 49152)
    await current_loop().settle()
    assert sender.payloads == [b"one", b"two"]
    assert len(peer.received) == 2
    with pytest.raises(ValueError, match="Invalid address"):
        sender.transport.sendto(b"x", ("10.0.0.2", 8))


async def test_of_several_sockets_on_a_port_the_most_particular_gets_the_datagram() -> None:
    alice, bob = two_hosts()
    loop, boxes = current_loop(), [Mailbox() for _ in range(3)]
    with bob.here():
        await loop.create_datagram_endpoint(lambda: boxes[0], ("0.0.0.0", 7), reuse_port=True)
        await loop.create_datagram_endpoint(lambda: boxes[1], ("10.0.0.2", 7), reuse_port=True)
        await loop.create_datagram_endpoint(lambda: boxes[2], ("10.0.0.2", 7), ("10.0.0.1", 8), reuse_port=True)
    local = await mailbox(bob, port=1)
    for sender in (await mailbox(alice), await mailbox(alice, port=8)):
        sender.send(b"x", bob)
    local.transport.sendto(b"loopback", ("127.0.0.1", 7))
    await loop.settle()
    assert [box.payloads for box in boxes] == [[b"loopback"], [b"x"], [b"x"]]


def _given(box: Mailbox) -> Mailbox:
    return box


async def test_sockets_that_share_a_port_share_the_senders() -> None:
    alice, bob = two_hosts()
    boxes = [Mailbox() for _ in range(4)]
    with bob.here():
        for box in boxes:
            await current_loop().create_datagram_endpoint(partial(_given, box), ("0.0.0.0", 7), reuse_port=True)
    for port in range(1000, 1040):
        sender = await mailbox(alice, port=port)
        sender.send(b"x", bob)
        sender.send(b"x", bob)
    await current_loop().settle()
    assert all(box.received for box in boxes)
    assert all(len({addr for _, _, addr in box.received}) * 2 == len(box.received) for box in boxes)


async def test_a_port_in_use_cannot_be_taken_until_it_is_given_back() -> None:
    loop = current_loop()
    transport, _ = await loop.create_datagram_endpoint(Mailbox, ("127.0.0.1", 7))
    for address in ("127.0.0.1", "0.0.0.0", "::"):
        with pytest.raises(OSError, match="address already in use") as caught:
            await loop.create_datagram_endpoint(Mailbox, (address, 7))
        assert caught.value.errno == errno.EADDRINUSE
    await loop.create_datagram_endpoint(Mailbox, ("::1", 7))
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 7)
    transport.close()
    await loop.settle()
    await loop.create_datagram_endpoint(Mailbox, ("0.0.0.0", 7))
    server.close()


async def test_only_the_hosts_own_addresses_can_be_bound() -> None:
    with pytest.raises(OSError, match="not ours") as caught:
        await current_loop().create_datagram_endpoint(Mailbox, ("203.0.113.9", 7))
    assert caught.value.errno == errno.EADDRNOTAVAIL
    with pytest.raises(ValueError, match="family"):
        await current_loop().create_datagram_endpoint(Mailbox)
    with pytest.raises(socket.gaierror):
        await current_loop().create_datagram_endpoint(Mailbox, ("127.0.0.1", 7), family=socket.AF_INET6)
    with pytest.raises(OSError, match="unreachable") as caught:
        await current_loop().create_datagram_endpoint(Mailbox, remote_addr=("2001:db8::1", 7))
    assert caught.value.errno == errno.ENETUNREACH


async def test_a_factory_that_fails_gives_the_port_back() -> None:
    factory: Any = lambda: 1 // 0  # noqa: E731
    with pytest.raises(ZeroDivisionError):
        await current_loop().create_datagram_endpoint(factory, ("127.0.0.1", 7))
    await current_loop().create_datagram_endpoint(Mailbox, ("127.0.0.1", 7))


async def test_giving_up_the_making_of_a_socket_closes_it() -> None:
    making = current_loop().create_task(current_loop().create_datagram_endpoint(Mailbox, ("127.0.0.1", 7)))
    await asyncio.sleep(0)
    making.cancel()
    await asyncio.wait([making])
    await current_loop().settle()
    assert current_net().datagram_transports == []


async def test_a_socket_without_an_address_gets_a_free_port() -> None:
    for family, ip in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        transport, _ = await current_loop().create_datagram_endpoint(Mailbox, family=family)
        assert transport.get_extra_info("sockname")[0] == ip
        assert transport.get_extra_info("peername") is transport.get_extra_info("socket") is None
    assert [t.local[1] for t in current_net().datagram_transports] == [49152, 49153]


async def test_sending_never_fails_for_want_of_room() -> None:
    alice, bob = two_hosts()
    current_net().set_link(Link(bandwidth=8_000, queue_bytes=2_000))
    tap = current_net().tap()
    sender, receiver = await mailbox(alice), await mailbox(bob)
    for _ in range(1000):
        sender.send(bytes(972), bob)
        assert sender.transport.get_write_buffer_size() == 0
    await current_loop().pass_time(3600)
    assert receiver.times_ns == [1_000 * MS, 2_000 * MS]
    assert sender.errors == []
    assert {drop.reason for drop in tap.drops} == {"queue"}


async def test_what_the_system_refuses_to_send_is_told_at_once() -> None:
    alice, bob = two_hosts()
    sender, receiver = await mailbox(alice), await mailbox(bob)
    local = Mailbox()
    with alice.here():
        await current_loop().create_datagram_endpoint(lambda: local, ("127.0.0.1", 0))
    sender.send(bytes(65_508), bob)
    sender.transport.sendto(b"x", ("::1", 7))
    local.send(b"x", bob)
    assert [getattr(error, "errno", None) for _, error in (*sender.errors, *local.errors)] == [
        errno.EMSGSIZE,
        errno.EAFNOSUPPORT,
        errno.EINVAL,
    ]
    sender.send(bytes(65_507), bob)
    await current_loop().settle()
    assert [len(data) for data in receiver.payloads] == [65_507]


async def test_what_cannot_be_sent_is_an_error_of_the_program() -> None:
    sender = await mailbox(current_net().home)
    bad: Any = "text"
    with pytest.raises(TypeError):
        sender.transport.sendto(bad, ("127.0.0.1", 7))
    with pytest.raises(ValueError, match="no address"):
        sender.transport.sendto(b"x")
    with pytest.raises(socket.gaierror):
        sender.transport.sendto(b"x", ("nowhere.example", 7))


async def test_an_empty_datagram_is_sent_where_this_python_sends_it() -> None:
    box = await mailbox(current_net().home)
    box.transport.sendto(b"", ("127.0.0.1", 7))
    box.transport.sendto(bytearray(b"next"), ("127.0.0.1", 7))
    await current_loop().settle()
    assert box.payloads == ([b"", b"next"] if sys.version_info >= (3, 13) else [b"next"])


async def test_a_buffer_may_be_used_again_at_once() -> None:
    box = await mailbox(current_net().home)
    buffer = bytearray(b"first")
    box.transport.sendto(memoryview(buffer), ("127.0.0.1", 7))
    buffer[:] = b"XXXXX"
    await current_loop().settle()
    assert box.payloads == [b"first"]


async def test_closing_ends_both_directions_and_takes_no_time() -> None:
    box = await mailbox(current_net().home)
    tap = current_net().tap()
    box.transport.sendto(b"late", ("127.0.0.1", 7))
    box.transport.close()
    box.transport.abort()
    assert box.transport.is_closing()
    box.transport.sendto(b"nothing", ("127.0.0.1", 7))
    await current_loop().settle()
    assert box.events == ["made", "lost"]
    assert box.received == []
    assert [drop.reason for drop in tap.drops] == ["port"]
    assert "closed" in repr(box.transport)


async def test_a_protocol_that_fails_loses_one_datagram_and_no_more() -> None:
    class Failing(Mailbox):
        def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
            super().datagram_received(data, addr)
            if data == b"bad":
                raise ZeroDivisionError

    box = Failing()
    await current_loop().create_datagram_endpoint(lambda: box, ("127.0.0.1", 7))
    for data in (b"bad", b"good"):
        box.transport.sendto(data, ("127.0.0.1", 7))
    await current_loop().settle()
    assert box.payloads == [b"bad", b"good"]
    assert [type(report["exception"]) for report in current_loop().unhandled] == [ZeroDivisionError]
    current_loop().unhandled.clear()


async def test_a_protocol_can_be_exchanged() -> None:
    first, second = await mailbox(current_net().home), Mailbox()
    assert first.transport.get_protocol() is first
    first.transport.set_protocol(second)
    first.transport.sendto(b"x", ("127.0.0.1", 7))
    await current_loop().settle()
    assert (first.payloads, second.payloads) == ([], [b"x"])


async def test_an_address_that_nobody_has_swallows_datagrams_or_tells_a_connected_socket() -> None:
    net = current_net()
    tap = net.tap()
    box = await mailbox(net.home, to=("203.0.113.1", 7))
    box.send(b"x")
    await current_loop().settle()
    assert box.errors == []
    net.unknown_addresses = "unreachable"
    box.send(b"x")
    await current_loop().settle()
    assert [getattr(error, "errno", None) for _, error in box.errors] == [errno.EHOSTUNREACH]
    assert [drop.reason for drop in tap.drops] == ["no route", "no route"]
    late = await mailbox(net.host("late", "203.0.113.1"))
    box.send(b"found")
    await current_loop().settle()
    assert late.payloads == [b"found"]


async def test_ipv6_has_headers_and_names_of_its_own() -> None:
    net = current_net()
    alice, bob = net.host("alice", "10.0.0.1", "2001:db8::1"), net.host("bob", "2001:DB8:0::2", "10.0.0.2")
    assert bob.addresses[0] == "2001:db8::2"
    net.set_link(Link(bandwidth=8_000_000))
    sender, receiver = Mailbox(), Mailbox()
    with alice.here():
        await current_loop().create_datagram_endpoint(lambda: sender, ("::", 1))
    with bob.here():
        await current_loop().create_datagram_endpoint(lambda: receiver, ("2001:db8::2", 7))
    assert sender.transport.get_extra_info("sockname") == ("::", 1, 0, 0)
    sender.transport.sendto(bytes(952), ("2001:db8::2", 7, 0, 0))
    await current_loop().pass_time(1)
    assert receiver.received == [(1 * MS, bytes(952), ("2001:db8::1", 1, 0, 0))]


async def test_a_socket_on_all_addresses_of_ipv6_serves_ipv4_too() -> None:
    net = current_net()
    alice, bob = net.host("alice", "10.0.0.1", "2001:db8::1"), net.host("bob", "10.0.0.2", "2001:db8::2")
    both = Mailbox()
    with bob.here():
        await current_loop().create_datagram_endpoint(lambda: both, ("::", 7))
    sender = await mailbox(alice, echo=True)
    both.transport.sendto(b"to ipv4", ("::ffff:10.0.0.1", 7, 0, 0))
    await current_loop().settle()
    assert sender.received[0][2] == ("10.0.0.2", 7)
    assert both.received == [(0, b"to ipv4", ("::ffff:10.0.0.1", 7, 0, 0))]


async def test_a_socket_can_be_of_ipv6_only() -> None:
    only, other = Mailbox(), Mailbox()
    await current_net().create_datagram_endpoint(lambda: only, ("::", 7), v6only=True)
    await current_loop().create_datagram_endpoint(lambda: other, ("0.0.0.0", 7))
    only.transport.sendto(b"six", ("::1", 7, 0, 0))
    other.transport.sendto(b"four", ("127.0.0.1", 7))
    await current_loop().settle()
    assert (only.payloads, other.payloads) == ([b"six"], [b"four"])


@pytest.mark.sockets
def test_a_socket_that_a_program_made_itself_lends_its_family_and_address() -> None:
    async def main() -> list[bytes]:
        box, server = Mailbox(), await mailbox(current_net().home, echo=True)
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(("::", 0))
            await current_loop().create_datagram_endpoint(lambda: box, sock=sock)
            assert sock.fileno() < 0
        assert box.transport.get_extra_info("sockname") == ("::", 49152, 0, 0)
        box.transport.sendto(b"mapped", ("::ffff:127.0.0.1", 7, 0, 0))
        await current_loop().settle()
        assert server.received[0][2] == ("127.0.0.1", 49152)
        return box.payloads

    assert run(main, strict=True) == [b"mapped"]


async def test_a_paused_host_keeps_datagrams_until_its_buffer_is_full() -> None:
    alice, bob = two_hosts()
    current_net().tuning = Tuning(receive_buffer=300)
    sender, receiver = await mailbox(alice), await mailbox(bob)
    tap = current_net().tap()
    bob.pause(5)
    for i in range(5):
        sender.send(bytes([i]) * 72, bob)
    await current_loop().pass_time(4)
    assert receiver.received == []
    await current_loop().pass_time(2)
    assert receiver.received == [(5_000 * MS, bytes([i]) * 72, ("10.0.0.1", 7)) for i in range(3)]
    assert [drop.reason for drop in tap.drops] == ["buffer", "buffer"]
    sender.send(b"again", bob)
    await current_loop().settle()
    assert receiver.payloads[-1] == b"again"


def test_the_trace_tells_what_was_sent_and_what_was_lost() -> None:
    async def main() -> None:
        sender = await mailbox(current_net().home)
        sender.transport.sendto(b"x", ("127.0.0.1", 9))
        await current_loop().settle()

    trace = Trace(keep=True)
    run(main, trace=trace)
    assert trace.lines == [
        "0 send home 127.0.0.1:7>127.0.0.1:9 1 udp 1 8cdc1683",
        "0 drop port home 127.0.0.1:7>127.0.0.1:9 1 udp 1 8cdc1683",
        "0 send home 127.0.0.1:0>127.0.0.1:0 2 icmp 0 00000000",
    ]
