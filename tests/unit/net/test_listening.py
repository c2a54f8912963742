"""Where a host can be reached that listens on all addresses."""

from __future__ import annotations

import pytest

from aiolibp2p import Host, Multiaddr, Timeouts
from aiolibp2p.net.listening import ListenAddresses
from aiolibp2p.runtime import LoopNet
from aiolibp2p.sim import current_loop, current_net, sim_runtime
from tests.support.hosts import sim_host


class Interfaces(LoopNet):
    """A machine whose addresses a test sets."""

    def __init__(self, *addresses: str) -> None:
        super().__init__(current_loop())
        self.addresses = list(addresses)
        self.asked = 0

    def interface_addresses(self) -> list[str]:
        self.asked += 1
        return list(self.addresses)


def listening(net: Interfaces, *texts: str) -> ListenAddresses:
    addresses = ListenAddresses(net, sim_runtime(current_loop(), "clock").clock, 5.0)
    for text in texts:
        addresses.add(Multiaddr(text))
    return addresses


def texts(addresses: ListenAddresses) -> list[str]:
    return [str(address) for address in addresses.reachable()]


async def test_an_unspecified_address_stands_for_those_of_its_family() -> None:
    net = Interfaces("127.0.0.1", "8.8.8.8", "::1", "fe80::1", "2a00::1", "10.0.0.1")
    ip4 = ["/ip4/127.0.0.1/tcp/1", "/ip4/8.8.8.8/tcp/1", "/ip4/10.0.0.1/tcp/1"]
    ip6 = ["/ip6/::1/tcp/2", "/ip6/2a00::1/tcp/2"]
    assert texts(listening(net, "/ip4/0.0.0.0/tcp/1")) == ip4
    assert texts(listening(net, "/ip6/::/tcp/2")) == ip6
    assert texts(listening(net, "/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/2")) == ip4 + ip6


async def test_other_addresses_stay_as_they_are_and_each_is_there_once() -> None:
    net = Interfaces("8.8.8.8")
    assert texts(listening(net, "/ip4/8.8.4.4/tcp/1")) == ["/ip4/8.8.4.4/tcp/1"]
    assert net.asked == 0
    assert texts(listening(net, "/ip4/8.8.8.8/tcp/1", "/ip4/0.0.0.0/tcp/1")) == ["/ip4/8.8.8.8/tcp/1"]


async def test_a_machine_that_lists_nothing_is_reached_at_loopback() -> None:
    assert texts(listening(Interfaces(), "/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1")) == [
        "/ip4/127.0.0.1/tcp/1",
        "/ip6/::1/tcp/1",
    ]
    assert texts(listening(Interfaces("fe80::1"), "/ip6/::/tcp/1")) == ["/ip6/::1/tcp/1"]


async def test_the_system_is_asked_again_after_some_time() -> None:
    net = Interfaces("8.8.8.8")
    addresses = listening(net, "/ip4/0.0.0.0/tcp/1")
    for _ in range(3):
        assert texts(addresses) == ["/ip4/8.8.8.8/tcp/1"]
    net.addresses = ["8.8.4.4"]
    await current_loop().pass_time(4.9)
    assert texts(addresses) == ["/ip4/8.8.8.8/tcp/1"]
    assert net.asked == 1
    await current_loop().pass_time(0.1)
    assert texts(addresses) == ["/ip4/8.8.4.4/tcp/1"]


async def test_an_endpoint_is_one_of_this_hosts_where_it_listens() -> None:
    addresses = listening(Interfaces("8.8.8.8", "2a00::1"), "/ip4/0.0.0.0/tcp/1", "/ip4/1.1.1.1/tcp/2")
    assert addresses.includes(("8.8.8.8", 1))
    assert addresses.includes(("1.1.1.1", 2))
    for other in (("8.8.8.8", 2), ("1.1.1.1", 1), ("2a00::1", 1), ("8.8.4.4", 1)):
        assert not addresses.includes(other)


async def test_a_host_that_listens_on_all_addresses_tells_those_of_its_machine() -> None:
    machine = current_net().host("all", "5.0.0.5", "2a00::5")
    runtime = sim_runtime(current_loop(), "all", machine)
    listen = ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001"]
    async with Host(runtime=runtime, listen=listen) as host, sim_host("other") as other:
        told = [str(address.without_peer_id()) for address in host.addresses]
        assert told == [
            "/ip4/127.0.0.1/tcp/4001",
            "/ip4/5.0.0.5/tcp/4001",
            "/ip6/::1/tcp/4001",
            "/ip6/2a00::5/tcp/4001",
        ]
        said = await other.identify(host.addresses[1])
        assert [str(address) for address in said.listen_addresses] == told
        await current_loop().settle()
        known = [str(address) for address in other.peerstore.addresses(host.peer_id)]
        assert "/ip4/5.0.0.5/tcp/4001" in known


@pytest.mark.sockets
async def test_a_host_on_a_real_machine_is_reached_at_each_of_its_addresses_of_loopback() -> None:
    async with Host(listen=["/ip4/0.0.0.0/tcp/0"], timeouts=Timeouts(interfaces=0.0)) as host, Host() as other:
        told = [address for address in host.addresses if address.is_loopback]
        assert told
        assert all("0.0.0.0" not in str(address) for address in host.addresses)
        assert (await other.connect(told[0])).peer_id == host.peer_id
