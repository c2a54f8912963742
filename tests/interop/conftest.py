"""Peer programs for the tests, the one line that says when some were left out, and the cells that a stack cannot do."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.interop.cannot import CANNOT, cell_of
from tests.interop.peers import GO_PEER, PY_PEER, Dialer, Listener, Peers, Stack

GO_MOD = GO_PEER.parent.parent / "go.mod"
CELLS = pytest.StashKey[set[tuple[str, str]]]()
STACKS = ["js", pytest.param("go", marks=pytest.mark.go), pytest.param("py", marks=pytest.mark.py)]


def go_version_needed() -> str:
    """Return the version that go.mod asks for."""
    lines = GO_MOD.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("go ") for line in lines if line.startswith("go "))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # Under make, the Makefile has looked for them and has said the same.
    if "MAKELEVEL" in os.environ:
        return
    if not os.access(GO_PEER, os.X_OK):
        terminalreporter.write_line(f"Go cells were not run: no Go >= {go_version_needed()} found")
    if not os.access(PY_PEER, os.X_OK):
        terminalreporter.write_line("py-libp2p cells were not run: `make py-peer` says why")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Expect of each cell that CANNOT names that it fails, and keep the list of all cells."""
    cells = config.stash.setdefault(CELLS, set())
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "stack" not in fixtures or "other" in fixtures:
            continue
        cell, stack = cell_of(item.nodeid)
        cells.add((cell, str(stack)))
        if stack == "py" and cell in CANNOT:
            cannot = CANNOT[cell]
            item.add_marker(pytest.mark.xfail(reason=f"py-libp2p: {cannot.reason}", run=cannot.run, strict=True))


@pytest.fixture
def cells(pytestconfig: pytest.Config) -> set[tuple[str, str]]:
    """Give all cells that were collected, those that are not run among them, each with its stack."""
    return pytestconfig.stash[CELLS]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `stack`, or the programs of one, against every stack."""
    if {"stack", "listener", "dialer"} & set(metafunc.fixturenames) and "stack" not in marked(metafunc):
        metafunc.parametrize("stack", STACKS)


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
