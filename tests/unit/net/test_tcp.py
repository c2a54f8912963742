"""What the two ends of a socket are called."""

from __future__ import annotations

import asyncio

import pytest

from aiolibp2p.net.tcp import network_of


class Named(asyncio.Transport):
    """A transport whose peer has a name."""

    def __init__(self, name: object) -> None:
        super().__init__({"peername": name})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("1.2.3.4", 1), ("1.2.3.4", 2), True),
        (("1.2.3.4", 1), ("1.2.3.5", 1), False),
        (("2001:db8:0:1::1", 1, 0, 0), ("2001:db8:0:1:ffff::2", 1, 0, 0), True),
        (("2001:db8:0:1::1", 1, 0, 0), ("2001:db8:0:2::1", 1, 0, 0), False),
        (("fe80::1%eth0", 1, 0, 1), ("fe80::2%eth0", 1, 0, 1), True),
        (("::ffff:1.2.3.4", 1, 0, 0), ("1.2.3.4", 1), True),
        (("::ffff:1.2.3.4", 1, 0, 0), ("::ffff:1.2.3.5", 1, 0, 0), False),
    ],
)
def test_a_network_is_what_one_owner_may_have(one: object, other: object, same: bool) -> None:
    assert (network_of(Named(one)) == network_of(Named(other))) is same


@pytest.mark.parametrize("name", [None, (), "/run/socket", ("nowhere", 1, 0, 0)])
def test_a_socket_without_an_internet_address_has_no_network(name: object) -> None:
    assert network_of(Named(name)) == ""
