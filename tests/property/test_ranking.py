"""Whatever the addresses are, each is dialled once, in one order, and never later than it has to be."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from aiolibp2p import Multiaddr, Timeouts
from aiolibp2p.net.ranking import rank

TIMES = Timeouts()
HOSTS = st.sampled_from(["/ip4/8.8.8.8", "/ip4/8.8.4.4", "/ip4/10.0.0.1", "/ip4/127.0.0.1", "/ip6/2a00::1", "/ip6/::1"])
TRANSPORTS = st.sampled_from(
    ["/tcp/{}", "/tcp/{}/ws", "/udp/{}/quic-v1", "/udp/{}/quic-v1/webtransport", "/udp/{}/webrtc-direct", "/udp/{}"]
)
RELAY = "/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/p2p-circuit"
ADDRESSES = st.builds(
    lambda host, transport, port, relay: Multiaddr(host + transport.format(port) + relay),
    HOSTS,
    TRANSPORTS,
    st.integers(0, 3),
    st.sampled_from(["", "", RELAY]),
)


@given(st.lists(ADDRESSES))
def test_every_address_is_there_once_and_the_first_is_due_at_once(addresses: list[Multiaddr]) -> None:
    ranked = rank(addresses, TIMES)
    assert sorted(map(str, set(addresses))) == sorted(str(address) for address, _ in ranked)
    delays = [delay for _, delay in ranked]
    assert delays == sorted(delays)
    assert delays[:1] in ([], [0.0])


@given(st.lists(ADDRESSES).flatmap(lambda found: st.tuples(st.just(found), st.permutations(found))))
def test_the_order_in_which_they_came_decides_nothing(pair: tuple[list[Multiaddr], list[Multiaddr]]) -> None:
    assert rank(pair[0], TIMES) == rank(pair[1], TIMES)


@given(st.lists(ADDRESSES))
def test_groups_are_in_their_order_and_no_gap_is_longer_than_a_relays(addresses: list[Multiaddr]) -> None:
    ranked = rank(addresses, TIMES)
    first: dict[str, float] = {}
    for address, delay in ranked:
        relayed = "p2p-circuit" in address.protocols
        group = "relay" if relayed else "private" if address.is_private else "public"
        first.setdefault(group, delay)
    if "private" in first and "public" in first:
        assert first["public"] == TIMES.dial_private_step
    direct = [delay for address, delay in ranked if "p2p-circuit" not in address.protocols]
    if direct and "relay" in first:
        assert first["relay"] == max(direct) + TIMES.dial_relay_delay
    delays = [delay for _, delay in ranked]
    gaps = [later - earlier for earlier, later in pairwise(delays)]
    assert max(gaps, default=0.0) <= 4 * TIMES.dial_step + 1e-9


@given(st.lists(ADDRESSES))
def test_of_one_group_and_transport_both_families_are_among_the_first_two(addresses: list[Multiaddr]) -> None:
    tcp = [
        address
        for address, _ in rank(addresses, TIMES)
        if "tcp" in address.protocols and "p2p-circuit" not in address.protocols and not address.is_private
    ]
    families = [address.protocols[0] for address in tcp]
    assert set(families[:2]) == set(families)
    if families:
        assert families[0] == ("ip6" if "ip6" in families else "ip4")
