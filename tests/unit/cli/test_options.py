"""Tests of what commands have in common."""

from __future__ import annotations

import pytest

from aiolibp2p.cli import main
from aiolibp2p.cli.errors import CommandError
from aiolibp2p.cli.options import parse_address, parse_size
from aiolibp2p.log import VARIABLE


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("1000", 1000),
        ("17B", 17),
        ("1GB", 10**9),
        ("1 gb", 10**9),
        ("256MiB", 1 << 28),
        ("1.5k", 1500),
        ("0.5KiB", 512),
        ("2T", 2 * 10**12),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_a_size_is_a_number_with_a_decimal_or_binary_unit(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1", "1XB", "1e9", "1,5k", "1GB2", "10000000TiB", "0x10", "1.MB"])
def test_what_is_no_size_is_wrong_usage(text: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_size(text)
    assert caught.value.is_usage
    assert caught.value.failure.stage == "size"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("192.0.2.7:4001", "/ip4/192.0.2.7/tcp/4001"),
        ("peer.example:4001", "/dns/peer.example/tcp/4001"),
        ("peer", "an address like"),
        ("192.0.2.7", "an address like"),
        ("-peer.example", "an address like"),
        ("peer..example", "an address like"),
        ("/ip4/192.0.2.7/tcp", "an address like"),
    ],
)
def test_what_is_no_address_is_wrong_usage_and_shows_an_address(text: str, hint: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_address(text)
    assert caught.value.is_usage
    assert caught.value.failure.stage == "address"
    assert str(caught.value.failure.hint).startswith(hint)


@pytest.mark.parametrize("name", ["peer.example", "A-1.b_2.peer.EXAMPLE", "_x.xn--p1ai.example."])
def test_a_bare_name_is_that_of_the_peers_behind_it(name: str) -> None:
    assert str(parse_address(name)) == f"/dnsaddr/{name}"


def test_an_address_is_a_multiaddr() -> None:
    assert str(parse_address("/ip4/192.0.2.7/tcp/4001")) == "/ip4/192.0.2.7/tcp/4001"


def test_the_environment_says_which_layers_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "net=loud")
    assert main(["id"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "aiolibp2p: AIOLIBP2P_LOG: 'loud' is none of debug, info, warning, error."
        " Try: debug, or net=debug,bitswap=info\n"
    )
