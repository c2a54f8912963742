"""Peer programs for the tests, and the one line that says when those of Go were left out."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.interop.peers import GO_PEER, Dialer, Listener, Peers, Stack

GO_MOD = GO_PEER.parent.parent / "go.mod"
BOTH_STACKS = ["js", pytest.param("go", marks=pytest.mark.go)]


def go_version_needed() -> str:
    """Return the version that go.mod asks for."""
    lines = GO_MOD.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("go ") for line in lines if line.startswith("go "))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # Under make, the Makefile has looked for Go and has said the same.
    if not os.access(GO_PEER, os.X_OK) and "MAKELEVEL" not in os.environ:
        terminalreporter.write_line(f"Go cells were not run: no Go >= {go_version_needed()} found")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `stack`, or the programs of one, against both stacks."""
    if {"stack", "listener", "dialer"} & set(metafunc.fixturenames) and "stack" not in marked(metafunc):
        metafunc.parametrize("stack", BOTH_STACKS)


def marked(metafunc: pytest.Metafunc) -> set[str]:
    """Return the arguments that the test's own marks give values to."""
    found: set[str] = set()
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0]
        found.update(name.strip() for name in (names.split(",") if isinstance(names, str) else names))
    return found


@pytest.fixture(scope="session")
def peers() -> Iterator[Peers]:
    with Peers() as running:
        yield running


@pytest.fixture
def listener(peers: Peers, stack: Stack) -> Listener:
    return peers.listener(stack)


@pytest.fixture
def dialer(peers: Peers, stack: Stack) -> Dialer:
    return peers.dialer(stack)
