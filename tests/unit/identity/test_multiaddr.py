"""Multiaddrs, in text and in bytes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.address_protocols import BY_CODE, BY_NAME
from aiolibp2p.identity.multiaddr import ADDRESS_BYTES_MAX, ADDRESS_CHARS_MAX, Multiaddr
from aiolibp2p.identity.peer_id import PeerId

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "identity" / "multiaddr.json").read_text("utf-8"))
RELAY = PeerId.parse("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")
PEER = PeerId.parse("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda vector: vector["text"])
@pytest.mark.conforms("A1")
def test_text_and_bytes_are_those_of_the_vectors(vector: dict[str, str]) -> None:
    data = bytes.fromhex(vector["bytes"])
    assert bytes(Multiaddr(vector["text"])) == data
    assert str(Multiaddr(data)) == vector["text"]
    assert Multiaddr(vector["text"]) == Multiaddr(data)
    assert hash(Multiaddr(vector["text"])) == hash(Multiaddr(data))


@pytest.mark.parametrize("vector", VECTORS["aliases"], ids=lambda vector: vector["text"])
@pytest.mark.conforms("A1")
def test_other_texts_of_an_address_become_the_canonical_one(vector: dict[str, str]) -> None:
    assert str(Multiaddr(vector["text"])) == vector["canonical"]
    assert Multiaddr(vector["text"]) == Multiaddr(vector["canonical"])


@pytest.mark.parametrize("text", VECTORS["invalid_text"], ids=ascii)
def test_text_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        Multiaddr(text)


@pytest.mark.parametrize("what", VECTORS["invalid_bytes"])
def test_bytes_that_are_no_address_are_refused(what: str) -> None:
    with pytest.raises(InvalidValueError):
        Multiaddr(bytes.fromhex(VECTORS["invalid_bytes"][what]))


def test_the_vectors_have_every_protocol() -> None:
    seen = {name for vector in VECTORS["valid"] for name in Multiaddr(vector["text"]).protocols}
    assert seen == {protocol.name for protocol in BY_CODE.values()} - {"garlic64"}
    assert set(BY_NAME) - {protocol.name for protocol in BY_CODE.values()} == {"ipfs"}


@pytest.mark.parametrize("size", [386, 387, 388])
def test_an_i2p_destination_is_written_in_the_base64_of_i2p(size: int) -> None:
    data = b"\xbe\x03" + bytes((size & 0x7F | 0x80, size >> 7)) + b"\xfb\xff" * (size // 2) + b"\0" * (size % 2)
    text = str(Multiaddr(data))
    assert text.startswith("/garlic64/-~")
    assert bytes(Multiaddr(text)) == data
    with pytest.raises(InvalidValueError):
        Multiaddr(text + "!")


def test_an_address_is_read_up_to_its_longest() -> None:
    longest = b"\x04\x01\x02\x03\x04\xe1\x03\xf7\x1f" + b"%" * (ADDRESS_BYTES_MAX - 9)
    assert len(longest) == ADDRESS_BYTES_MAX
    address = Multiaddr(longest)
    assert Multiaddr(str(address)) == address
    with pytest.raises(InvalidValueError):
        Multiaddr(longest + b"\xe0\x03")
    with pytest.raises(InvalidValueError):
        address.encapsulate("/http")
    with pytest.raises(InvalidValueError):
        Multiaddr(str(address) + "/http")
    with pytest.raises(InvalidValueError):
        Multiaddr("/http-path/" + "a" * ADDRESS_CHARS_MAX)


def test_the_most_verbose_address_of_the_greatest_size_survives_as_text() -> None:
    address = Multiaddr(b"\xdf\x03" * (ADDRESS_BYTES_MAX // 2))
    assert Multiaddr(str(address)) == address


def test_components_are_names_with_the_text_of_their_values() -> None:
    address = Multiaddr("/ip4/127.0.0.1/tcp/443/tls/ws")
    assert address.components == (("ip4", "127.0.0.1"), ("tcp", "443"), ("tls", None), ("ws", None))
    assert address.protocols == ("ip4", "tcp", "tls", "ws")
    assert address.value("tcp") == "443"
    assert address.value("tls") is None
    assert address.value("udp") is None
    assert Multiaddr("/unix/a/b").components == (("unix", "/a/b"),)


def test_an_address_of_an_address_is_equal_to_it() -> None:
    address = Multiaddr("/ip4/127.0.0.1/tcp/1")
    assert Multiaddr(address) == address
    assert address != Multiaddr("/ip4/127.0.0.1/tcp/2")
    assert address != "/ip4/127.0.0.1/tcp/1"
    assert repr(address) == "Multiaddr('/ip4/127.0.0.1/tcp/1')"
    assert pickle.loads(pickle.dumps(address)) == address


def test_encapsulating_appends() -> None:
    address = Multiaddr("/ip4/127.0.0.1").encapsulate("/tcp/1").encapsulate(Multiaddr("/ws"))
    assert str(address) == "/ip4/127.0.0.1/tcp/1/ws"


def test_nothing_goes_behind_a_path() -> None:
    address = Multiaddr("/ip4/1.2.3.4/tcp/1/unix/a")
    with pytest.raises(InvalidValueError):
        address.encapsulate("/tcp/1")
    with pytest.raises(InvalidValueError):
        address.with_peer_id(PEER)


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("/ip4/1.2.3.4/tcp/1/ws", "/ws", "/ip4/1.2.3.4/tcp/1"),
        ("/ip4/1.2.3.4/tcp/1/ws", "/tcp/1", "/ip4/1.2.3.4"),
        ("/ip4/1.2.3.4/tcp/1/ws", "/tcp/1/ws", "/ip4/1.2.3.4"),
        ("/ip4/1.2.3.4/tcp/1/ws", "/tcp/2", "/ip4/1.2.3.4/tcp/1/ws"),
        ("/ip4/1.2.3.4/tcp/1/ws", "tcp", "/ip4/1.2.3.4"),
        ("/ip4/1.2.3.4/tcp/1/ws", "udp", "/ip4/1.2.3.4/tcp/1/ws"),
        ("/ip4/1.2.3.4/tcp/1/ip4/1.2.3.4/tcp/1", "/tcp/1", "/ip4/1.2.3.4/tcp/1/ip4/1.2.3.4"),
        ("/ip4/1.2.3.4/tcp/1/ip4/1.2.3.4/tcp/1", "ip4", "/ip4/1.2.3.4/tcp/1"),
        (f"/tcp/1/p2p/{RELAY}", "ipfs", "/tcp/1"),
    ],
)
def test_decapsulating_cuts_at_the_last_occurrence(text: str, other: str, expected: str) -> None:
    assert str(Multiaddr(text).decapsulate(other)) == expected
    if other.startswith("/"):
        assert str(Multiaddr(text).decapsulate(Multiaddr(other))) == expected


def test_nothing_is_no_address_to_decapsulate_to() -> None:
    for other in ("ip4", "/ip4/1.2.3.4"):
        with pytest.raises(InvalidValueError):
            Multiaddr("/ip4/1.2.3.4/tcp/1").decapsulate(other)
    with pytest.raises(InvalidValueError):
        Multiaddr(f"/p2p/{PEER}").without_peer_id()
    with pytest.raises(InvalidValueError):
        Multiaddr("/tcp/1").decapsulate("nothing")


@pytest.mark.parametrize(
    ("text", "peer_id", "rest"),
    [
        (f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}", PEER, "/ip4/1.2.3.4/tcp/1"),
        ("/ip4/1.2.3.4/tcp/1", None, "/ip4/1.2.3.4/tcp/1"),
        (f"/tcp/1/p2p/{RELAY}/p2p-circuit/p2p/{PEER}", PEER, f"/tcp/1/p2p/{RELAY}/p2p-circuit"),
        (f"/tcp/1/p2p/{RELAY}/p2p-circuit", None, f"/tcp/1/p2p/{RELAY}/p2p-circuit"),
        (f"/tcp/1/tls/http/p2p/{PEER}/http-path/a", PEER, "/tcp/1/tls/http/http-path/a"),
    ],
)
def test_the_peer_of_an_address_is_the_one_at_its_end(text: str, peer_id: PeerId | None, rest: str) -> None:
    address = Multiaddr(text)
    assert address.peer_id == peer_id
    assert address.peer_id is address.peer_id
    assert str(address.without_peer_id()) == rest


def test_a_peer_id_is_appended_once() -> None:
    address = Multiaddr("/ip4/1.2.3.4/tcp/1").with_peer_id(PEER)
    assert str(address) == f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}"
    assert address.with_peer_id(PEER) is address
    with pytest.raises(InvalidValueError):
        address.with_peer_id(RELAY)


@pytest.mark.parametrize(
    ("text", "endpoint", "is_plain"),
    [
        ("/ip4/1.2.3.4/tcp/1", ("1.2.3.4", 1), True),
        (f"/ip4/1.2.3.4/tcp/65535/p2p/{PEER}", ("1.2.3.4", 65535), True),
        ("/ip6/2001:db8::1/tcp/0", ("2001:db8::1", 0), True),
        ("/ip6zone/eth0/ip6/fe80::1/tcp/1", ("fe80::1%eth0", 1), True),
        ("/dns/a.example/tcp/1", ("a.example", 1), True),
        ("/dns4/a.example/tcp/1", ("a.example", 1), True),
        ("/dns6/a.example/tcp/1", ("a.example", 1), True),
        ("/ip4/1.2.3.4/tcp/443/tls/ws", ("1.2.3.4", 443), False),
        (f"/ip4/1.2.3.4/tcp/1/p2p/{RELAY}/p2p-circuit", ("1.2.3.4", 1), False),
        (f"/ip4/1.2.3.4/tcp/1/p2p/{RELAY}/p2p-circuit/p2p/{PEER}", ("1.2.3.4", 1), False),
        ("/ip4/1.2.3.4/udp/1/quic-v1", None, False),
        ("/ip4/1.2.3.4", None, False),
        ("/dnsaddr/a.example/tcp/1", None, False),
        ("/tcp/1", None, False),
        ("/ip6zone/eth0", None, False),
        ("/ip6zone/eth0/ip4/1.2.3.4/tcp/1", None, False),
        (f"/p2p/{PEER}", None, False),
    ],
)
def test_a_tcp_endpoint_is_host_and_port_at_the_start(
    text: str, endpoint: tuple[str, int] | None, is_plain: bool
) -> None:
    assert Multiaddr(text).tcp_endpoint == endpoint
    assert Multiaddr(text).is_plain_tcp is is_plain


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("127.0.0.1", "/ip4/127.0.0.1/tcp/80"),
        ("::1", "/ip6/::1/tcp/80"),
        ("fe80::1%eth0", "/ip6zone/eth0/ip6/fe80::1/tcp/80"),
    ],
)
def test_a_sockets_host_and_port_make_an_address(host: str, text: str) -> None:
    assert str(Multiaddr.from_tcp(host, 80)) == text
    assert Multiaddr.from_tcp(host, 80).tcp_endpoint == (host, 80)


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("localhost", 80),
        ("", 80),
        ("1.2.3.4/udp/1", 80),
        ("::1%", 80),
        ("::1%a/tcp/1", 80),
        ("1.2.3.4", 65536),
        ("::", -1),
    ],
)
def test_a_host_that_is_no_ip_address_makes_none(host: str, port: int) -> None:
    with pytest.raises(InvalidValueError):
        Multiaddr.from_tcp(host, port)


@pytest.mark.parametrize(
    ("text", "is_loopback", "is_private"),
    [
        ("/ip4/127.0.0.1/tcp/1", True, True),
        ("/ip4/127.255.255.255", True, True),
        ("/ip4/128.0.0.0", False, False),
        ("/ip4/10.0.0.1", False, True),
        ("/ip4/11.0.0.1", False, False),
        ("/ip4/100.64.0.1", False, True),
        ("/ip4/100.127.255.255", False, True),
        ("/ip4/100.128.0.1", False, False),
        ("/ip4/169.254.1.1", False, True),
        ("/ip4/172.15.255.255", False, False),
        ("/ip4/172.16.0.1", False, True),
        ("/ip4/172.31.255.255", False, True),
        ("/ip4/172.32.0.0", False, False),
        ("/ip4/192.168.1.1", False, True),
        ("/ip4/192.169.1.1", False, False),
        ("/ip6/::1", True, True),
        ("/ip6/::2", False, False),
        ("/ip6/fc00::1", False, True),
        ("/ip6/fdff::1", False, True),
        ("/ip6/fe80::1", False, True),
        ("/ip6/febf::1", False, True),
        ("/ip6/fec0::1", False, False),
        ("/ip6/2001:db8::1", False, False),
        ("/ip6/::ffff:127.0.0.1", True, True),
        ("/ip6/::ffff:192.168.0.1", False, True),
        ("/ip6/::ffff:1.1.1.1", False, False),
        ("/ip6zone/eth0/ip6/fe80::1/tcp/1", False, True),
        ("/ip6zone/eth0", False, False),
        ("/dns/localhost/tcp/1", True, True),
        ("/dns4/LocalHost/tcp/1", True, True),
        ("/dns/a.example/tcp/1", False, False),
        (f"/p2p/{PEER}", False, False),
    ],
)
def test_loopback_and_private_ranges_are_told_apart(text: str, is_loopback: bool, is_private: bool) -> None:
    assert Multiaddr(text).is_loopback is is_loopback
    assert Multiaddr(text).is_private is is_private
