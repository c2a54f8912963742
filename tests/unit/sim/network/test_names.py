"""Names of a simulated network: what they stand for, and how long that takes to learn."""

from __future__ import annotations

import asyncio
import math
import socket

import pytest

from aiolibp2p.runtime import Runtime
from aiolibp2p.sim import World, current_loop, current_net, sim_test
from tests.support.raw import NS


async def test_a_name_stands_for_addresses_of_both_families() -> None:
    current_net().name("a.example", "8.8.8.8", "2a00::1")
    found = await current_loop().getaddrinfo("A.EXAMPLE", 80, type=socket.SOCK_STREAM)
    assert [entry[4][0] for entry in found] == ["8.8.8.8", "2a00::1"]
    found = await current_loop().getaddrinfo("a.example.", 80, family=socket.AF_INET6, type=socket.SOCK_STREAM)
    assert [entry[4] for entry in found] == [("2a00::1", 80, 0, 0)]


async def test_a_name_can_be_given_another_meaning_or_none() -> None:
    net = current_net()
    net.name("a.example", "8.8.8.8")
    net.name("a.example", "8.8.4.4")
    assert net.resolve("a.example") == ["8.8.4.4"]
    del net.names["a.example"]
    with pytest.raises(socket.gaierror):
        net.resolve("a.example")


async def test_an_answer_takes_its_time_even_if_there_is_none() -> None:
    net, loop = current_net(), current_loop()
    net.name("slow.example", "8.8.8.8", seconds=2)
    net.name("none.example", seconds=3)
    await loop.getaddrinfo("slow.example", 80)
    assert loop.time_ns() == 2 * NS
    with pytest.raises(socket.gaierror):
        await loop.getaddrinfo("none.example", 80)
    assert loop.time_ns() == 5 * NS
    assert net.names.asked == {"slow.example": 1, "none.example": 1}


async def test_a_connection_to_a_name_waits_for_its_answer() -> None:
    net, loop = current_net(), current_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 80)
    net.name("here.example", "127.0.0.1", seconds=1)
    transport, _ = await loop.create_connection(asyncio.Protocol, "here.example", 80)
    assert loop.time_ns() == NS
    transport.close()
    server.close()


async def test_a_name_that_nobody_answers_for_is_waited_for_without_end() -> None:
    current_net().name("mute.example", txt=["a"], seconds=math.inf)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1000):
            await current_loop().resolve_txt("mute.example")


async def test_txt_records_are_those_of_the_name() -> None:
    current_net().name("_dnsaddr.a.example", txt=["one", "two"])
    names = Runtime.system().names
    assert await names.txt("_dnsaddr.a.example") == ["one", "two"]
    for name in ("a.example", "_dnsaddr.b.example"):
        with pytest.raises(OSError, match=f"no TXT records of {name}"):
            await names.txt(name)


async def test_what_is_no_address_is_no_meaning() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        current_net().name("a.example", "nonsense")
    with pytest.raises(ValueError, match="-1"):
        current_net().name("a.example", seconds=-1)


async def test_the_interfaces_of_a_machine_are_its_addresses_and_loopback() -> None:
    machine = current_net().host("m", "5.0.0.1", "2a00::1")
    with machine.here():
        assert Runtime.system().net.interface_addresses() == ["127.0.0.1", "::1", "5.0.0.1", "2a00::1"]


@sim_test
async def test_a_world_has_names(world: World) -> None:
    world.name("a.example", "8.8.8.8", txt=["x"], seconds=1)
    assert await world.loop.resolve_txt("a.example") == ["x"]
    assert world.now_ns == NS
    with pytest.raises(TypeError):
        world.name("a.example", ttl=1)
