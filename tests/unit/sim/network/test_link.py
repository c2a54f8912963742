"""What a link does to what crosses it: each field of Link, for datagrams and for TCP."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from aiolibp2p.sim import Host, Link, Tap, Trace, current_loop, current_net, run
from tests.support.datagrams import Mailbox, mailbox

MS = 1_000_000
COUNT = 2000


def two_hosts(link: Link) -> tuple[Host, Host]:
    net = current_net()
    alice, bob = net.host("alice", "10.0.0.1"), net.host("bob", "10.0.0.2")
    net.set_link(link)
    return alice, bob


async def send_many(link: Link, *, apart: float = 0.001, count: int = COUNT) -> tuple[Mailbox, Tap]:
    """Send numbered datagrams over a link and return what arrived."""
    alice, bob = two_hosts(link)
    tap = current_net().tap()
    sender, receiver = await mailbox(alice), await mailbox(bob)
    for i in range(count):
        sender.send(i.to_bytes(4, "big"), bob)
        await current_loop().pass_time(apart)
    await current_loop().pass_time(10)
    return receiver, tap


def numbers(box: Mailbox) -> list[int]:
    return [int.from_bytes(data, "big") for data in box.payloads]


async def transfer(link: Link, size: int = 1 << 20) -> tuple[int, Tap]:
    """Carry bytes over TCP and return how many nanoseconds that took after the connection was there."""
    alice, bob = two_hosts(link)
    tap = current_net().tap()
    data = bytes(i * 7 % 251 for i in range(size))
    received: asyncio.Future[bytes] = current_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.read())
        writer.close()

    with bob.here():
        server = await asyncio.start_server(accept, "0.0.0.0", 80)
    with alice.here():
        reader, writer = await asyncio.open_connection("bob", 80)
    start = current_loop().time_ns()
    writer.write(data)
    writer.write_eof()
    assert await received == data
    took_ns = current_loop().time_ns() - start
    assert await reader.read() == b""
    writer.close()
    server.close()
    await current_loop().pass_time(200)
    assert current_net().connections == []
    return took_ns, tap


async def test_jitter_delays_each_packet_and_keeps_their_order() -> None:
    box, _ = await send_many(Link(latency=0.050, jitter=0.010), apart=0.020)
    delays = [at_ns - number * 20 * MS for number, at_ns in zip(numbers(box), box.times_ns, strict=True)]
    assert numbers(box) == list(range(COUNT))
    assert min(delays) >= 50 * MS
    assert max(delays) <= 60 * MS
    assert len(set(delays)) > COUNT * 0.99
    assert sum(delays) / COUNT == pytest.approx(55 * MS, rel=0.01)


async def test_packets_that_jitter_would_let_overtake_wait_for_those_before_them() -> None:
    box, _ = await send_many(Link(jitter=0.010), apart=0.0001)
    assert numbers(box) == list(range(COUNT))
    assert box.times_ns == sorted(box.times_ns)


async def test_loss_takes_its_fraction_of_packets_and_says_so() -> None:
    box, tap = await send_many(Link(loss=0.1))
    assert len(box.received) == pytest.approx(COUNT * 0.9, rel=0.03)
    assert {drop.reason for drop in tap.drops} == {"loss"}
    assert len(tap.drops) + len(box.received) == COUNT


async def test_bursts_lose_several_packets_in_a_row() -> None:
    box, tap = await send_many(Link(burst_loss=(0.01, 0.2)))
    lost = sorted(set(range(COUNT)) - set(numbers(box)))
    bursts = sum(number - 1 not in lost for number in lost)
    assert {drop.reason for drop in tap.drops} == {"burst"}
    assert bursts == pytest.approx(COUNT * 0.01, rel=0.5)
    assert len(lost) / bursts == pytest.approx(5, rel=0.5)


async def test_duplicates_arrive_twice() -> None:
    box, _ = await send_many(Link(latency=0.010, duplicate=0.2))
    twice = [number for number, copies in Counter(numbers(box)).items() if copies == 2]
    assert len(box.received) == COUNT + len(twice)
    assert len(twice) == pytest.approx(COUNT * 0.2, rel=0.1)
    assert numbers(box) == sorted(numbers(box))


async def test_reordered_packets_take_half_the_latency_and_wait_for_none() -> None:
    box, _ = await send_many(Link(latency=0.010, reorder=0.1))
    delays = [at_ns - number * MS for number, at_ns in zip(numbers(box), box.times_ns, strict=True)]
    assert set(delays) == {5 * MS, 10 * MS}
    assert delays.count(5 * MS) == pytest.approx(COUNT * 0.1, rel=0.2)
    assert numbers(box) != sorted(numbers(box))
    assert sorted(numbers(box)) == list(range(COUNT))


async def test_corruption_flips_one_bit_of_a_datagram() -> None:
    box, tap = await send_many(Link(corrupt=0.1), apart=0)
    flipped = [(i ^ number).bit_count() for i, number in enumerate(numbers(box))]
    assert set(flipped) == {0, 1}
    assert sum(flipped) == pytest.approx(COUNT * 0.1, rel=0.2)
    assert tap.drops == []


async def test_corruption_of_what_has_no_payload_is_loss() -> None:
    _, bob = two_hosts(Link())
    current_net().set_link(Link(corrupt=1.0), bob, current_net().home)
    sender = await mailbox(current_net().home, to=("10.0.0.2", 9))
    tap = current_net().tap()
    sender.send(b"x")
    await current_loop().settle()
    assert sender.errors == []
    assert [(drop.packet.protocol, drop.reason) for drop in tap.drops] == [("udp", "port"), ("icmp", "corrupt")]


async def test_a_datagram_larger_than_the_mtu_is_lost_and_tcp_cuts_its_segments_to_fit() -> None:
    alice, bob = two_hosts(Link(mtu=1280))
    tap = current_net().tap()
    sender, receiver = await mailbox(alice), await mailbox(bob)
    sender.send(bytes(1253), bob)
    sender.send(bytes(1252), bob)
    await current_loop().settle()
    assert [len(data) for data in receiver.payloads] == [1252]
    assert [drop.reason for drop in tap.drops] == ["mtu"]
    await tcp_fits(bob, tap)


async def tcp_fits(bob: Host, tap: Tap) -> None:
    with bob.here():
        server = await asyncio.start_server(lambda _, writer: writer.close(), "0.0.0.0", 80)
    reader, writer = await asyncio.open_connection("bob", 80)
    writer.write(bytes(5000))
    assert await reader.read() == b""
    writer.close()
    server.close()
    await current_loop().settle()
    sizes = [seen.packet.size_bytes for seen in tap.packets if seen.packet.protocol == "tcp"]
    assert max(sizes) == 1280
    assert [len(data) for _, data in tap.sent_by("client")] == [1240, 1240, 1240, 1240, 40]


async def test_what_finds_no_room_before_the_bandwidth_is_dropped() -> None:
    alice, bob = two_hosts(Link(bandwidth=8_000_000, queue_bytes=3000))
    tap = current_net().tap()
    sender, receiver = await mailbox(alice), await mailbox(bob)
    for _ in range(5):
        sender.send(bytes(972), bob)
    await current_loop().pass_time(0.0015)
    sender.send(bytes(972), bob)
    await current_loop().pass_time(1)
    assert receiver.times_ns == [1 * MS, 2 * MS, 3 * MS, 4 * MS]
    assert [drop.reason for drop in tap.drops] == ["queue", "queue"]


@pytest.mark.parametrize(
    "options",
    [
        {"loss": 0.05},
        {"burst_loss": (0.01, 0.3)},
        {"duplicate": 0.2},
        {"reorder": 0.2},
        {"corrupt": 0.05},
        {"jitter": 0.010},
        {"bandwidth": 20e6, "queue_bytes": 30_000},
        {"loss": 0.05, "duplicate": 0.1, "reorder": 0.1, "corrupt": 0.02, "jitter": 0.01, "bandwidth": 20e6},
    ],
    ids=lambda options: "+".join(options),
)
async def test_tcp_delivers_every_byte_once_and_in_order_over_any_link(options: dict[str, Any]) -> None:
    took_ns, _ = await transfer(Link(latency=0.005, mtu=1500, **options))
    assert took_ns < 60_000 * MS


async def test_a_lost_segment_is_sent_again_once_a_later_one_is_acknowledged() -> None:
    alice, bob = two_hosts(Link(latency=0.050, mtu=1500))
    lose_once = iter([None, None, "drop"])  # SYN, ACK, the first segment
    end = current_net().rule(lambda p: next(lose_once, None) if p.sender is alice else None)  # type: ignore[arg-type]
    arrived = await arrival_of(4000, alice, bob)
    assert arrived == 150 * MS
    end()


async def test_a_lost_last_segment_is_sent_again_after_the_round_trip_and_200_ms() -> None:
    alice, bob = two_hosts(Link(latency=0.050, mtu=1500))
    lose_once = iter([None, None, "drop"])
    current_net().rule(lambda p: next(lose_once, None) if p.sender is alice else None)  # type: ignore[arg-type]
    assert await arrival_of(1000, alice, bob) == 350 * MS


async def arrival_of(size: int, alice: Host, bob: Host) -> int:
    """Return how many nanoseconds after the first write the last of some bytes arrives."""
    received: asyncio.Future[int] = current_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(size)
        received.set_result(current_loop().time_ns())
        writer.close()

    with bob.here():
        server = await asyncio.start_server(accept, "0.0.0.0", 80)
    with alice.here():
        _, writer = await asyncio.open_connection("bob", 80)
    await current_loop().pass_time(1)
    start = current_loop().time_ns()
    writer.write(bytes(size))
    arrived = await received - start
    writer.close()
    server.close()
    await current_loop().pass_time(5)
    return arrived


async def test_a_loss_halves_what_tcp_keeps_under_way_and_acknowledgements_raise_it_again() -> None:
    queued, _ = await transfer(Link(latency=0.020, bandwidth=20e6, queue_bytes=60_000, mtu=1500), 4 << 20)
    least = (4 << 20) * 8 / 20e6 * 1e9
    assert least < queued < 2 * least


async def test_a_refusal_that_is_lost_is_asked_for_again() -> None:
    _, bob = two_hosts(Link(latency=0.050))
    first = iter(["drop"])
    current_net().rule(lambda p: next(first, None) if p.sender is bob else None)  # type: ignore[arg-type]
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("bob", 80)
    assert current_loop().time_ns() == 1_100 * MS


async def test_a_syn_whose_answers_are_lost_is_sent_again_and_given_up_after_127_seconds() -> None:
    _, bob = two_hosts(Link(latency=0.050))
    with bob.here():
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "0.0.0.0", 80)
    current_net().partition(bob, current_net().home, oneway=True)
    with pytest.raises(TimeoutError):
        await asyncio.open_connection("bob", 80)
    assert current_loop().time_ns() == 127_000 * MS
    assert current_net().connections == []
    current_net().repair(bob)
    reader, writer = await asyncio.open_connection("bob", 80)
    assert await reader.read() == b""
    writer.close()
    server.close()
    await current_loop().pass_time(1)


async def test_a_reset_that_is_lost_is_answered_again_when_the_peer_repeats_what_led_to_it() -> None:
    alice, bob = two_hosts(Link(latency=0.050))
    with bob.here():
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "0.0.0.0", 80)
    with alice.here():
        reader, writer = await asyncio.open_connection("bob", 80)
    assert await reader.read() == b""
    first = iter(["drop"])
    current_net().rule(lambda p: next(first, None) if p.flags == "rst" else None)  # type: ignore[arg-type]
    start = current_loop().time_ns()
    writer.write(b"anyone?")
    await current_loop().pass_time(0.2)
    assert not writer.transport.is_closing()
    await current_loop().pass_time(0.5)
    assert writer.transport.is_closing()
    assert current_net().connections == []
    assert current_loop().time_ns() - start == 700 * MS
    server.close()


async def test_what_arrives_again_after_a_close_is_not_answered_with_a_reset() -> None:
    alice, bob = two_hosts(Link(latency=0.050))
    box: list[bytes] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        box.append(await reader.read())
        writer.close()

    with bob.here():
        server = await asyncio.start_server(accept, "0.0.0.0", 80)
    tap = current_net().tap()
    current_net().rule(lambda p: "duplicate" if p.payload == b"bye" else None)
    with alice.here():
        reader, writer = await asyncio.open_connection("bob", 80)
    assert await reader.readexactly(3) == b"bye"
    writer.close()
    await current_loop().pass_time(5)
    assert box == [b""]
    assert "rst" not in {seen.packet.flags for seen in tap.packets}
    server.close()


def draws(*, extra_on_other: bool) -> list[int]:
    """Return which datagrams from alice to bob arrive, while others may cross another link."""

    async def main() -> list[int]:
        alice, bob = two_hosts(Link(loss=0.5))
        carol = current_net().host("carol")
        sender, receiver = await mailbox(alice), await mailbox(bob)
        await mailbox(carol)
        for i in range(200):
            sender.send(i.to_bytes(4, "big"), bob)
            if extra_on_other:
                sender.send(b"x", carol)
        await current_loop().settle()
        return numbers(receiver)

    return run(main)


def test_a_packet_more_on_one_link_changes_nothing_on_another() -> None:
    assert draws(extra_on_other=True) == draws(extra_on_other=False)


def digest_of(seed: int) -> str:
    trace = Trace()

    async def main() -> None:
        await send_many(Link(jitter=0.01, loss=0.1, duplicate=0.1, reorder=0.1, corrupt=0.1), count=200)

    run(main, seed=seed, trace=trace)
    return trace.digest()


def test_what_is_random_depends_on_the_seed_only() -> None:
    assert digest_of(1) == digest_of(1) != digest_of(2)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": 1.5},
        {"corrupt": -0.1},
        {"burst_loss": (0.1, 2)},
        {"latency": -1},
        {"jitter": -1},
        {"bandwidth": 0},
        {"mtu": 100},
    ],
)
def test_a_link_that_means_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Link(**options)
