"""Connections through NATs, and what becomes of them when it forgets them."""

from __future__ import annotations

import asyncio
import errno
from functools import partial
from typing import Any

import pytest

from aiolibp2p.sim import Host, Link, current_loop, current_net
from aiolibp2p.sim.network import NatKind, SimTransport
from tests.support.datagrams import mailbox
from tests.support.nats import KINDS, STUN, Address, behind, observed, slow_net

MS = 1_000_000
NS = 1_000_000_000
End = tuple[asyncio.StreamReader, SimTransport]


class Kept(asyncio.StreamReaderProtocol):
    """Reads into a stream, and puts it and the transport where the test finds them."""

    def __init__(self, ends: list[End]) -> None:
        self.reader = asyncio.StreamReader()
        self.ends = ends
        super().__init__(self.reader)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, SimTransport)
        self.ends.append((self.reader, transport))


async def serve(host: Host, port: int = 80) -> list[End]:
    """Listen on a host, and return where the connections that it accepts are going to be."""
    accepted: list[End] = []
    with host.here():
        await current_loop().create_server(lambda: Kept(accepted), "0.0.0.0", port)
    return accepted


async def dial(host: Host, to: Address, **options: Any) -> End:
    ends: list[End] = []
    with host.here():
        await current_loop().create_connection(lambda: Kept(ends), *to, **options)
    return ends[0]


class Dialled:
    """A connection from behind a NAT to a public host."""

    def __init__(self, kind: NatKind = "port-restricted", **options: Any) -> None:
        self.net = slow_net()
        self.nat = behind(kind, **options)
        self.alice = self.net.host("alice", "10.0.0.2", behind=self.nat)
        self.bob = self.net.host("bob", STUN)
        self.tap = self.net.tap()
        self.inner: End
        self.outer: End

    async def made(self) -> Dialled:
        accepted = await serve(self.bob)
        self.inner = await dial(self.alice, (STUN, 80))
        await current_loop().pass_time(1)
        [self.outer] = accepted
        return self

    @property
    def public(self) -> Address:
        ip, port = self.outer[1].get_extra_info("peername")
        return ip, port

    @property
    def drops(self) -> set[str]:
        return {drop.reason for drop in self.tap.drops}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_from_behind_a_nat_carries_bytes_both_ways(kind: NatKind) -> None:
    dialled = await Dialled(kind).made()
    (reader, writer), (their_reader, their_writer) = dialled.inner, dialled.outer
    assert writer.get_extra_info("sockname")[0] == "10.0.0.2"
    assert writer.get_extra_info("peername") == (STUN, 80)
    assert dialled.public == dialled.nat.public(writer.get_extra_info("sockname"), (STUN, 80), "tcp")
    for one, other in ((writer, their_reader), (their_writer, reader)):
        one.write(b"x" * 1_000_000)
        assert await other.readexactly(1_000_000) == b"x" * 1_000_000
    writer.close()
    their_writer.close()
    assert await reader.read() == await their_reader.read() == b""
    assert not dialled.tap.drops


async def test_connecting_costs_no_round_trip_more_than_without_a_nat() -> None:
    net = slow_net()
    await serve(net.host("bob", STUN))
    await dial(net.host("alice", behind=behind("symmetric")), (STUN, 80))
    assert current_loop().time_ns() == 100 * MS


async def test_a_lossy_link_loses_nothing_of_a_connection_through_a_nat() -> None:
    dialled = await Dialled().made()
    dialled.net.set_link(Link(latency=0.010, loss=0.05, duplicate=0.05, mtu=1500))
    dialled.inner[1].write(b"x" * 200_000)
    assert await dialled.outer[0].readexactly(200_000) == b"x" * 200_000
    late = [seen.packet.size_bytes for seen in dialled.tap.packets if len(seen.packet.payload) > 0]
    assert max(late) == 1500
    assert dialled.drops == {"loss"}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_unsolicited_connection_is_not_even_answered(kind: NatKind) -> None:
    net, tap = slow_net(), current_net().tap()
    alice, bob = net.host("alice", behind=behind(kind)), net.host("bob")
    accepted = await serve(alice)
    with pytest.raises(OSError, match="Connect call failed") as failed:
        await dial(bob, ("203.0.113.1", 80))
    assert failed.value.errno == errno.ETIMEDOUT
    assert accepted == []
    assert [drop.reason for drop in tap.drops] == ["nat"] * 7


@pytest.mark.parametrize("kind", KINDS)
async def test_to_the_port_of_a_connection_those_connect_whom_the_filter_lets_in(kind: NatKind) -> None:
    net = slow_net()
    nat = behind(kind)
    alice, bob, carol = net.host("alice", behind=nat), net.host("bob", STUN), net.host("carol")
    accepted_outside = await serve(bob)
    await dial(alice, (STUN, 80), local_addr=("10.0.0.2", 4001))
    await current_loop().pass_time(1)
    accepted = await serve(alice, 4001)
    ip, port = accepted_outside[0][1].get_extra_info("peername")
    reached = []
    for host in (bob, carol):
        try:
            reader, _ = await dial(host, (ip, port))
        except TimeoutError:
            continue
        await current_loop().pass_time(1)
        accepted[-1][1].write(b"welcome")
        assert await reader.readexactly(7) == b"welcome"
        reached.append(host.name)
    assert reached == {"full-cone": ["bob", "carol"], "restricted": ["bob"]}.get(kind, [])


async def test_neighbours_connect_by_the_public_address_with_hairpinning() -> None:
    net, nat = slow_net(), behind("full-cone", hairpin=True)
    alice, carol, bob = net.host("alice", behind=nat), net.host("carol", behind=nat), net.host("bob", STUN)
    outside = await serve(bob)
    await dial(alice, (STUN, 80), local_addr=("10.0.0.2", 4001))
    await current_loop().pass_time(1)
    accepted = await serve(alice, 4001)
    reader, _ = await dial(carol, outside[0][1].get_extra_info("peername"))
    await current_loop().pass_time(1)
    assert accepted[0][1].get_extra_info("peername")[0] == nat.address
    accepted[0][1].write(b"x")
    assert await reader.readexactly(1) == b"x"


# What is forgotten


@pytest.mark.parametrize("address", [None, "203.0.113.77"])
@pytest.mark.parametrize("side", ["inner", "outer"])
async def test_after_a_rebinding_a_connection_is_a_black_hole_until_tcp_gives_up(
    side: str, address: str | None
) -> None:
    dialled = await Dialled().made()
    dialled.nat.rebind(address)
    reader, writer = dialled.inner if side == "inner" else dialled.outer
    begun_ns = current_loop().time_ns()
    writer.write(b"x")
    with pytest.raises(TimeoutError):
        await reader.read()
    assert current_loop().time_ns() - begun_ns > 900 * NS
    quiet = dialled.outer if side == "inner" else dialled.inner
    assert not quiet[0].at_eof(), "who sends nothing hears nothing"
    assert dialled.drops == ({"no route"} if address is not None and side == "outer" else {"nat"})


async def test_a_nat_that_says_so_resets_what_it_has_forgotten() -> None:
    dialled = await Dialled(unknown_tcp="reset").made()
    dialled.nat.rebind()
    begun_ns = current_loop().time_ns()
    dialled.inner[1].write(b"x")
    with pytest.raises(ConnectionResetError):
        await dialled.inner[0].read()
    assert current_loop().time_ns() == begun_ns
    dialled.outer[1].write(b"x")
    await current_loop().pass_time(60)
    assert not dialled.outer[0].at_eof(), "outside nobody is told"
    assert dialled.drops == {"nat"}


async def test_after_a_rebinding_new_connections_and_datagrams_have_new_mappings() -> None:
    dialled = await Dialled("full-cone").made()
    box, server = await mailbox(dialled.alice), await mailbox(dialled.bob)
    old = await observed(box, server, (STUN, 7))
    dialled.nat.rebind()
    server.transport.sendto(b"lost", old)
    await current_loop().pass_time(1)
    new = await observed(box, server, (STUN, 7))
    assert new[0] == old[0]
    assert new[1] != old[1]
    server.transport.sendto(b"lost", old)
    server.transport.sendto(b"x", new)
    await current_loop().pass_time(1)
    assert box.payloads == [b"x"]
    dialled.inner[1].abort()
    dialled.inner = await dial(dialled.alice, (STUN, 80))
    dialled.inner[1].write(b"x")


async def test_a_nat_moves_to_a_new_address_and_leaves_the_old_one_to_others() -> None:
    dialled = await Dialled("full-cone").made()
    box, server = await mailbox(dialled.alice), await mailbox(dialled.bob)
    old = await observed(box, server, (STUN, 7))
    with pytest.raises(ValueError, match="taken"):
        dialled.nat.rebind(STUN)
    assert await observed(box, server, (STUN, 7)) == old
    dialled.nat.rebind("203.0.113.77")
    new = await observed(box, server, (STUN, 7))
    assert new[0] == "203.0.113.77"
    heir = await mailbox(dialled.net.host("heir", old[0]), port=old[1])
    server.transport.sendto(b"old", old)
    server.transport.sendto(b"new", new)
    await current_loop().pass_time(1)
    assert (heir.payloads, box.payloads) == ([b"old"], [b"new"])


@pytest.mark.parametrize("side", ["inner", "outer"])
async def test_an_idle_connection_is_forgotten_to_the_nanosecond(side: str) -> None:
    for spare_ns in (1, 0):
        net, loop = current_net(), current_loop()
        nat = behind("port-restricted", f"nat {spare_ns}", f"203.0.113.{spare_ns}", tcp_idle=7440.0)
        alice, bob = net.host(f"alice {spare_ns}", behind=nat), net.host(f"bob {spare_ns}")
        accepted = await serve(bob)
        inner = await dial(alice, (bob.addresses[0], 80))
        await loop.settle()
        [outer] = accepted
        begun_ns = loop.time_ns()
        one, other = (inner, outer) if side == "inner" else (outer, inner)
        loop.call_at_ns(begun_ns + 7440 * NS - spare_ns, partial(one[1].write, b"x"))
        await loop.pass_time(7441)
        assert other[0]._buffer == (b"x" if spare_ns else b"")  # type: ignore[attr-defined]


async def test_connections_that_did_not_come_about_or_have_ended_are_forgotten_sooner() -> None:
    dialled = await Dialled("full-cone", tcp_transitory=240.0, tcp_idle=7440.0).made()
    inside = dialled.inner[1].get_extra_info("sockname")
    await current_loop().pass_time(3000)
    assert dialled.nat.public(inside, protocol="tcp") == dialled.public
    dialled.inner[1].close()
    await current_loop().pass_time(1)
    assert await dialled.outer[0].read() == b""
    await current_loop().pass_time(300)
    assert dialled.nat.public(inside, protocol="tcp") is not None, "it is half closed"
    dialled.outer[1].close()
    await current_loop().pass_time(239)
    assert dialled.nat.public(inside, protocol="tcp") is not None
    await current_loop().pass_time(1.1)
    assert dialled.nat.public(inside, protocol="tcp") is None
    with pytest.raises(TimeoutError):
        await dial(dialled.alice, ("192.0.2.1", 80), local_addr=("10.0.0.2", 5000))
    assert dialled.nat.public(("10.0.0.2", 5000), protocol="tcp") is not None
    await current_loop().pass_time(240)
    assert dialled.nat.public(("10.0.0.2", 5000), protocol="tcp") is None


async def test_a_reset_ends_what_a_nat_remembers_of_a_connection() -> None:
    dialled = await Dialled(tcp_transitory=240.0).made()
    inside = dialled.inner[1].get_extra_info("sockname")
    dialled.outer[1].abort()
    dialled.inner[1].write(b"unwanted")
    await current_loop().pass_time(1)
    assert [seen.packet.flags for seen in dialled.tap.packets][-1] == "rst"
    assert dialled.nat.public(inside, protocol="tcp") is not None
    await current_loop().pass_time(240)
    assert dialled.nat.public(inside, protocol="tcp") is None
