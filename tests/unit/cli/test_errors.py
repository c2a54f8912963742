"""Tests of the line that an error becomes."""

from __future__ import annotations

import errno
import os

import pytest

from aiolibp2p.cli.errors import CommandError, error_line, explain
from aiolibp2p.errors import (
    BlockNotFoundError,
    ConnectionEndedError,
    DeadlineError,
    DialError,
    InvalidValueError,
    Libp2pError,
    LimitError,
    ListenError,
    LocalProtocolError,
    NegotiationError,
    PeerIdMismatchError,
    RemoteProtocolError,
    StorageError,
    StreamResetError,
)

ADDRESS = "/ip4/192.0.2.7/tcp/4001"
PEER = "12D3KooWQotx3NVjxZBFCSqj1u8g6eSKhqY6Vh1FJ48GzVTtUdM1"
OTHER = "12D3KooWQwxXhEdavTLzznCvMuLT5YAua2sJrhV9PGPQ4N5GgYNH"


def caused(error: Libp2pError, cause: OSError) -> Libp2pError:
    error.__cause__ = cause
    return error


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def at_connect(cause: OSError) -> DialError:
    return DialError(None, {ADDRESS: caused(ConnectionEndedError("text", by="remote", stage="connect"), cause)})


def line_of(error: BaseException) -> str:
    return error_line(explain(error), "ping")


@pytest.mark.parametrize(
    ("number", "detail", "hint"),
    [
        (errno.ECONNREFUSED, "connection refused", "check that the peer is running"),
        (errno.EHOSTUNREACH, "no route to host", "check that this machine has a route"),
        (errno.ENETUNREACH, "network is unreachable", "check that this machine has a route"),
    ],
)
def test_a_socket_that_does_not_connect_names_what_the_system_said(number: int, detail: str, hint: str) -> None:
    assert line_of(at_connect(os_error(number))).startswith(
        f"aiolibp2p ping: connect: {detail} ({ADDRESS}). Try: {hint}"
    )


def unresolved(address: str, error: Libp2pError) -> str:
    return line_of(DialError(None, {address: error}))


def test_a_name_that_does_not_resolve_is_said_to_be_one() -> None:
    error = ConnectionEndedError("whatever the system says", by="remote", stage="resolve")
    line = unresolved("/dns4/a.example/tcp/1", error)
    assert line.startswith(
        "aiolibp2p ping: resolve: the name does not resolve (/dns4/a.example/tcp/1). Try: check the name"
    )
    error = ConnectionEndedError("no record names an address", by="remote", stage="resolve")
    assert unresolved("/dnsaddr/a.example", error) == (
        "aiolibp2p ping: resolve: no record names an address (/dnsaddr/a.example)."
        " Try: /dns/…/tcp/…, if the name is a machine's, or check its TXT records at _dnsaddr."
    )


def test_a_name_that_nobody_answers_for_points_at_the_nameserver() -> None:
    late = DeadlineError("resolve", 10.0, stage="resolve")
    assert unresolved("/dns/a.example/tcp/1", late).startswith(
        "aiolibp2p ping: resolve: no answer within 10 s (/dns/a.example/tcp/1). Try: check that this machine reaches"
    )
    again = ConnectionEndedError("nobody answers", by="local", stage="resolve")
    for address in ("/dns/a.example/tcp/1", "/dnsaddr/a.example"):
        assert "check that this machine reaches a nameserver" in unresolved(address, again)


def test_an_address_that_was_left_out_says_why() -> None:
    backing_off = LocalProtocolError("backing off for another 4 s", stage="back-off")
    assert line_of(DialError(PEER, {ADDRESS: backing_off})).startswith(
        f"aiolibp2p ping: back-off: backing off for another 4 s ({ADDRESS}). Try: again after that"
    )
    nowhere = LocalProtocolError("its port is 0", stage="address")
    assert line_of(DialError(None, {ADDRESS: nowhere})) == (
        f"aiolibp2p ping: address: its port is 0 ({ADDRESS}). Try: another address of the peer"
    )


def test_of_many_addresses_some_are_named_and_those_never_dialled_only_if_none_was() -> None:
    failures: dict[str, BaseException] = {
        f"/ip4/9.9.9.{number}/tcp/1": DeadlineError("dial_address", 15.0, stage="connect") for number in range(9)
    }
    failures["/ip4/9.9.9.9/udp/1/quic-v1"] = LocalProtocolError("no transport", stage="dial")
    line = line_of(DialError(PEER, failures))
    assert "9.9.9.3/tcp/1: connect: no answer within 15 s; and 5 more. Try: check that the peer is up" in line
    assert "quic" not in line
    del failures["/ip4/9.9.9.0/tcp/1"]
    quic = {f"/ip4/9.9.9.{n}/udp/1/quic-v1": LocalProtocolError("no transport", stage="dial") for n in range(2)}
    assert line_of(DialError(PEER, quic)).count("quic-v1") == 2


def test_a_connect_that_takes_too_long_points_at_the_network() -> None:
    error = DialError(None, {ADDRESS: DeadlineError("dial_address", 15.0, stage="connect")})
    assert line_of(error).startswith(f"aiolibp2p ping: connect: no answer within 15 s ({ADDRESS}). Try: check that the")


@pytest.mark.parametrize(
    "failure",
    [
        DeadlineError("dial_address", 15.0, stage="security negotiation"),
        ConnectionEndedError(by="remote", stage="muxer negotiation"),
        RemoteProtocolError("it does not decrypt", protocol="noise", stage="noise message 2"),
    ],
)
def test_a_failed_upgrade_names_its_stage_and_doubts_the_port(failure: Libp2pError) -> None:
    line = line_of(DialError(None, {ADDRESS: failure}))
    assert line.startswith(f"aiolibp2p ping: {failure.stage}: ")
    assert f"({ADDRESS}). Try: check that this port is a libp2p peer's" in line


def test_another_peer_than_the_one_dialled_is_named_by_its_address() -> None:
    dialled = f"{ADDRESS}/p2p/{PEER}"
    line = line_of(DialError(PEER, {dialled: PeerIdMismatchError(PEER, OTHER, stage="noise message 2")}))
    assert line == (
        f"aiolibp2p ping: noise message 2: another peer answered ({dialled})."
        f" Try: {ADDRESS}/p2p/{OTHER}, if that is the peer you mean"
    )


def test_several_addresses_are_all_named() -> None:
    failures: dict[str, BaseException] = {}
    for address in (ADDRESS, "/ip6/2001:db8::1/tcp/4001"):
        failures |= {address: next(iter(at_connect(os_error(errno.ECONNREFUSED)).failures.values()))}
    line = line_of(DialError(PEER, failures))
    assert line.startswith(f"aiolibp2p ping: dial: {ADDRESS}: connect: connection refused; /ip6/2001:db8::1/tcp/4001:")


def test_a_peer_without_an_address_asks_for_one() -> None:
    assert line_of(DialError(PEER, {})).startswith(f"aiolibp2p ping: dial: no address known for {PEER}. Try: ")


def test_a_transport_that_is_not_there_shows_those_that_are() -> None:
    failure = LocalProtocolError("no transport of this host dials such an address", stage="dial")
    assert "Try: an address of the form /ip4/…/tcp/…" in line_of(DialError(None, {f"{ADDRESS}/ws": failure}))


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.EADDRINUSE, "another port"), (errno.EADDRNOTAVAIL, "an address of this machine"), (errno.EACCES, "a port")],
)
def test_a_listener_that_does_not_start_names_address_and_reason(number: int, hint: str) -> None:
    line = line_of(caused(ListenError(ADDRESS, "text"), os_error(number)))
    assert line.startswith(f"aiolibp2p ping: listen: {os.strerror(number).lower()} ({ADDRESS}). Try: {hint}")


def test_an_address_that_nothing_listens_on_shows_one_that_is() -> None:
    assert line_of(ListenError("/dns/a.example/tcp/0", "text")) == (
        "aiolibp2p ping: listen: no transport of this host listens there (/dns/a.example/tcp/0)."
        " Try: an address like /ip4/127.0.0.1/tcp/0"
    )


@pytest.mark.parametrize(
    ("protocol", "hint"),
    [
        ("/perf/1.0.0", "aiolibp2p listen --perf"),
        ("/noise", "a peer that has Noise"),
        ("/yamux/1.0.0", "a peer that has"),
    ],
)
def test_a_protocol_in_vain_says_what_the_peer_lacks(protocol: str, hint: str) -> None:
    line = line_of(NegotiationError((protocol,)))
    start = f"aiolibp2p ping: protocol negotiation: the peer does not speak {protocol}. Try: {hint}"
    assert line.startswith(start)


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (DeadlineError("ping", 10.0, stage="ping"), "ping: no answer within 10 s. Try: again"),
        (StreamResetError(by="remote", code=2), "session: the peer reset the stream (code 0x2). Try: again"),
        (ConnectionEndedError(by="remote"), "session: the peer ended the connection. Try: again"),
        (RemoteProtocolError("a word", protocol="identify", stage="identify"), "identify: the peer broke identify: a"),
        (LimitError("streams", stage="open stream"), "open stream: limit streams reached. Try: again when less"),
        (InvalidValueError("a word"), "session: a word"),
        (FileNotFoundError(errno.ENOENT, "x", "name"), "system: name: no such file or directory"),
        (CommandError("key", "no such file.", "another"), "key: no such file. Try: another"),
        (
            BlockNotFoundError("bafy"),
            "fetch: block bafy not found. Try: --from ADDR, the address of a peer",
        ),
        (
            DeadlineError("bitswap_fetch", 60.0, "no peer has sent bafy", stage="fetch"),
            "fetch: no peer has sent bafy within 60 s. Try: again later",
        ),
        (
            DeadlineError("storage", 10.0),
            "session: the disk has not answered within 10 s. Try: again later, and",
        ),
        (
            StorageError("/repo", "no space left on device", errno=errno.ENOSPC, stage="write"),
            "write: /repo: no space left on device. Try: again when there is room on the disk",
        ),
        (StorageError("/repo", "in use by process 7"), "storage: /repo: in use by process 7"),
        (
            NegotiationError(("/ipfs/bitswap/1.2.0",)),
            "protocol negotiation: the peer does not speak /ipfs/bitswap/1.",
        ),
        (ZeroDivisionError("by zero"), "unexpected error: ZeroDivisionError: by zero. Try: --debug"),
    ],
)
def test_every_error_becomes_one_line_with_its_stage(error: Exception, start: str) -> None:
    line = line_of(error)
    assert line.startswith(f"aiolibp2p ping: {start}")
    assert "\n" not in line


def test_a_text_of_several_lines_becomes_one() -> None:
    assert "\n" not in line_of(RemoteProtocolError("one\n  two", stage="read"))


def test_without_a_command_the_program_stands_alone() -> None:
    assert error_line(explain(CommandError("usage", "what")), None) == "aiolibp2p: usage: what"
