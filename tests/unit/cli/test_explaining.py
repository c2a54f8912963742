"""`--explain`: a table, or a part of the line in JSON, of what became of every address."""

from __future__ import annotations

import json

import pytest

from aiolibp2p import Host, Multiaddr
from aiolibp2p.cli.explaining import Explanation, print_report
from aiolibp2p.cli.options import Settings
from aiolibp2p.errors import DialError
from aiolibp2p.report import AddressReport, DialReport
from tests.support.hosts import raw_peer, sim_host

PEER = "12D3KooWQotx3NVjxZBFCSqj1u8g6eSKhqY6Vh1FJ48GzVTtUdM1"
STAGES = (("resolve", 0.1), ("connect", 0.02), ("security negotiation", 0.03), ("noise handshake", 0.001))
REPORT = DialReport(
    peer_id=PEER,
    seconds=0.401,
    addresses=(
        AddressReport(
            address=f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}",
            name=f"/dnsaddr/boot.example/p2p/{PEER}",
            outcome="connected",
            began=0.25,
            seconds=0.151,
            stages=STAGES,
            sockets=2,
        ),
        AddressReport(
            address="/ip6/2001:db8::1/tcp/4001",
            outcome="failed",
            began=0.0,
            seconds=0.0,
            stages=(("connect", 0.0),),
            sockets=1,
            reason="connect: network is unreachable",
            error=OSError(),
        ),
        AddressReport(address="/ip4/192.0.2.1/udp/1/quic-v1", outcome="left out", reason="no \x1b[31mtransport"),
    ),
    more=3,
)


def test_the_table_has_a_line_for_every_address_and_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(REPORT)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.rstrip() for line in printed.err.splitlines()] == [
        f"dial of {PEER}: connected after 401.000 ms",
        "address                                             begun after  took        outcome    stages, or why not",
        "/ip4/192.0.2.1/tcp/4001 (of /dnsaddr/boot.example)  250.000 ms   151.000 ms  connected  resolve 100.000 ms,"
        " connect 20.000 ms, security negotiation 30.000 ms, noise handshake 1.000 ms, on socket 2",
        "/ip6/2001:db8::1/tcp/4001                           0.000 ms     0.000 ms    failed     connect 0.000 ms,"
        " connect: network is unreachable",
        "/ip4/192.0.2.1/udp/1/quic-v1                        -            -           left out   no \\x1b[31mtransport",
        "and 3 more addresses, which were not looked at",
    ]


def test_a_dial_of_whoever_answers_that_failed_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(DialReport(peer_id=None, seconds=1.0, addresses=()))
    assert capsys.readouterr().err.startswith("dial of whoever answers: failed after 1000.000 ms\n")


async def dialled(explanation: Explanation, host: Host, *targets: str) -> None:
    for target in targets:
        await explanation.connect(host, Multiaddr(target))


async def test_a_dial_that_is_explained_is_shown_whether_it_succeeds_or_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    explanation = Explanation(Settings(), is_wanted=True)
    async with sim_host("ours") as host, raw_peer() as peer:
        with pytest.raises(DialError), explanation.shown():
            await dialled(explanation, host, peer.address, f"/ip4/{peer.ip}/tcp/1")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("dial of ") == 2
    assert f"dial of {peer.peer_id}: connected after 0.000 ms" in printed.err
    assert "dial of whoever answers: failed after 0.000 ms" in printed.err
    assert "connection refused" in printed.err


async def test_in_json_the_dials_are_part_of_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    explanation = Explanation(Settings(), is_wanted=True, as_json=True)
    async with sim_host("ours") as host, raw_peer() as peer:
        with explanation.shown():
            await dialled(explanation, host, peer.address)
    assert capsys.readouterr() == ("", "")
    (dial,) = explanation.to_json()["dials"]
    assert dial["peer_id"] == str(peer.peer_id)
    (address,) = dial["addresses"]
    assert (address["address"], address["outcome"], address["reason"]) == (peer.address, "connected", None)
    assert list(address["stages"]) == ["connect", "security negotiation", "noise handshake"]


async def test_in_json_a_dial_that_fails_gets_a_line_with_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    explanation = Explanation(Settings(command="ping"), is_wanted=True, as_json=True)
    async with sim_host("ours") as host, raw_peer() as peer:
        with pytest.raises(DialError), explanation.shown():
            await dialled(explanation, host, f"/ip4/{peer.ip}/tcp/1")
    printed = capsys.readouterr()
    assert (printed.err, printed.out.count("\n")) == ("", 1)
    line = json.loads(printed.out)
    assert line["error"].startswith("aiolibp2p ping: connect: connection refused (/ip4/1.0.0.3/tcp/1). Try: ")
    assert line["dials"][0]["addresses"][0]["error"] == "ConnectionEndedError"


async def test_unwanted_nothing_is_kept_or_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (True, False):
        explanation = Explanation(Settings(), is_wanted=False, as_json=as_json)
        async with sim_host(f"ours {as_json}") as host, raw_peer(name=f"{as_json}") as peer:
            with pytest.raises(DialError), explanation.shown():
                await dialled(explanation, host, peer.address, f"/ip4/{peer.ip}/tcp/1")
        assert explanation.to_json() == {}
        assert explanation.reports == []
        assert capsys.readouterr() == ("", "")
