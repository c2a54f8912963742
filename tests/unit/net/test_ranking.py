"""The order of addresses: pure, and the same however they come."""

from __future__ import annotations

import pytest

from aiolibp2p import Multiaddr, Timeouts
from aiolibp2p.net.ranking import rank, undialable

STEP, PRIVATE, RELAY = Timeouts().dial_step, Timeouts().dial_private_step, Timeouts().dial_relay_delay
RELAYED = "/ip4/8.8.8.8/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/p2p-circuit"


def ranked(*texts: str) -> list[tuple[str, float]]:
    return [(str(address), delay) for address, delay in rank(map(Multiaddr, texts), Timeouts())]


def test_no_address_is_no_dial() -> None:
    assert ranked() == []


def test_a_single_address_is_dialled_at_once() -> None:
    for text in ("/ip4/8.8.8.8/tcp/1", "/ip4/10.0.0.1/tcp/1", RELAYED, "/ip4/8.8.8.8/udp/1/webrtc-direct"):
        assert ranked(text) == [(text, 0.0)]


def test_ip6_goes_first_ip4_a_step_later_and_the_rest_a_step_after_that() -> None:
    assert ranked("/ip4/8.8.8.9/tcp/1", "/ip4/8.8.8.8/tcp/1", "/ip6/2a00::2/tcp/1", "/ip6/2a00::1/tcp/1") == [
        ("/ip6/2a00::1/tcp/1", 0.0),
        ("/ip4/8.8.8.8/tcp/1", STEP),
        ("/ip6/2a00::2/tcp/1", 2 * STEP),
        ("/ip4/8.8.8.9/tcp/1", 2 * STEP),
    ]


def test_of_one_family_all_but_the_first_are_a_step_later() -> None:
    assert ranked("/ip4/8.8.8.8/tcp/3", "/ip4/8.8.8.8/tcp/2", "/ip4/8.8.8.8/tcp/1") == [
        ("/ip4/8.8.8.8/tcp/1", 0.0),
        ("/ip4/8.8.8.8/tcp/2", STEP),
        ("/ip4/8.8.8.8/tcp/3", STEP),
    ]


def test_quic_goes_before_tcp_and_tcp_before_what_is_left() -> None:
    assert ranked(
        "/ip4/8.8.8.8/udp/1/webrtc-direct",
        "/ip4/8.8.8.8/tcp/2/tls/ws",
        "/ip4/8.8.8.8/tcp/3",
        "/ip4/8.8.8.8/udp/4/quic-v1/webtransport",
        "/ip4/8.8.8.8/udp/5/quic-v1",
    ) == [
        ("/ip4/8.8.8.8/udp/5/quic-v1", 0.0),
        ("/ip4/8.8.8.8/udp/4/quic-v1/webtransport", STEP),
        ("/ip4/8.8.8.8/tcp/3", 2 * STEP),
        ("/ip4/8.8.8.8/tcp/2/tls/ws", 3 * STEP),
        ("/ip4/8.8.8.8/udp/1/webrtc-direct", 7 * STEP),
    ]


def test_private_addresses_go_before_public_ones_with_steps_of_their_own() -> None:
    assert ranked("/ip4/8.8.8.8/tcp/1", "/ip4/10.0.0.1/tcp/2", "/ip4/127.0.0.1/tcp/1", "/ip4/8.8.8.8/tcp/2") == [
        ("/ip4/127.0.0.1/tcp/1", 0.0),
        ("/ip4/10.0.0.1/tcp/2", PRIVATE),
        ("/ip4/8.8.8.8/tcp/1", PRIVATE),
        ("/ip4/8.8.8.8/tcp/2", PRIVATE + STEP),
    ]


def test_addresses_behind_a_relay_come_behind_all_direct_ones() -> None:
    assert ranked(RELAYED, "/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/tcp/2") == [
        ("/ip4/8.8.8.8/tcp/1", 0.0),
        ("/ip4/8.8.8.8/tcp/2", STEP),
        (RELAYED, STEP + RELAY),
    ]


def test_an_address_with_a_zone_is_one_of_ip6() -> None:
    assert ranked("/ip4/8.8.8.8/tcp/1", "/ip6zone/eth0/ip6/2a00::1/tcp/1")[0][0] == "/ip6zone/eth0/ip6/2a00::1/tcp/1"


@pytest.mark.parametrize(
    ("host", "port", "is_dialable"),
    [
        ("8.8.8.8", 4001, True),
        ("127.0.0.1", 1, True),
        ("::1", 1, True),
        ("fe80::1%eth0", 1, True),
        ("fec0::1", 1, True),
        ("fe80::1", 1, False),
        ("FEBF::1", 1, False),
        ("8.8.8.8", 0, False),
        ("0.0.0.0", 1, False),
        ("::", 1, False),
        ("::ffff:0.0.0.0", 1, False),
    ],
)
def test_what_leads_nowhere_is_told(host: str, port: int, *, is_dialable: bool) -> None:
    assert (undialable((host, port)) is None) == is_dialable
