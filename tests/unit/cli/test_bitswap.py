"""The commands `bitswap …` against a daemon, and the daemon's denylist."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiolibp2p import Cid, PrivateKey
from aiolibp2p.cli import main
from aiolibp2p.cli.bitswap import _table, read_denylist
from aiolibp2p.cli.errors import CommandError
from tests.support.commands import RUN, Daemon

DATA = b"a block of the daemon" * 100
BLOCK = Cid.from_data(DATA)
NOBODY = str(PrivateKey.generate().public.peer_id)

pytestmark = [pytest.mark.sockets, pytest.mark.slow]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return tmp_path / "repo"


@pytest.fixture
def words(capsys: pytest.CaptureFixture[str], repo: Path, tmp_path: Path) -> Iterator[list[str]]:
    """Give the options that name the repo of a running daemon, which has a block."""
    path = tmp_path / "block"
    path.write_bytes(DATA)
    assert main(["block", "put", str(path), "--repo", str(repo)]) == 0
    assert capsys.readouterr().out.strip() == str(BLOCK)
    running = Daemon(repo, "--listen", "/ip4/127.0.0.1/tcp/0")
    assert main(["get", str(BLOCK), "--from", running.address, "-o", str(tmp_path / "got")]) == 0
    capsys.readouterr()
    yield ["--repo", str(repo)]
    running.end(signal.SIGKILL)


def test_stat_ledger_and_wantlist_show_what_the_daemon_says(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(["bitswap", "stat", *words]) == 0
    text = capsys.readouterr().out
    assert f"1 blocks, {len(DATA) / 1000:.3g} kB; 0 HAVE, 0 DONT_HAVE" in text
    assert "at most 0.00%" in text
    assert main(["bitswap", "stat", "--json", *words]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["BlocksSent"], said["DataSent"]) == (1, len(DATA))
    before = json.loads(json.dumps(said["Stat"]))
    before["serving"]["sent"]["block_bytes"] -= 1000
    assert _table(said["Stat"], before).row_count == _table(said["Stat"], None).row_count + 1

    assert main(["bitswap", "ledger", NOBODY, *words]) == 0
    assert capsys.readouterr().out.startswith(f"peer ID        {NOBODY}\nstate          idle\n")
    assert main(["bitswap", "ledger", NOBODY, "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["Peer"] == NOBODY

    for more in ([], ["--peer", NOBODY]):
        assert main(["bitswap", "wantlist", *more, *words]) == 0
        assert capsys.readouterr().out == ""
    assert main(["bitswap", "wantlist", "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out) == {"Keys": []}

    assert main(["bitswap", "ledger", "nobody", *words]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert printed.err.startswith("aiolibp2p bitswap ledger: peer ID: ")


def test_watch_goes_on_until_it_is_interrupted(words: list[str]) -> None:
    command = [sys.executable, "-W", "error", "-c", RUN, "bitswap", "stat", "--watch", "--json", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        for _ in range(2):
            assert json.loads(watching.stdout.readline())["BlocksSent"] == 1
        watching.send_signal(signal.SIGINT)
        _, error = watching.communicate()
    assert (watching.returncode, error) == (130, "")


@pytest.mark.parametrize("command", [["stat"], ["stat", "--watch"], ["ledger", NOBODY], ["wantlist"]])
def test_without_a_daemon_one_line_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
) -> None:
    repo = tmp_path / "none"
    assert main(["bitswap", *command, "--repo", str(repo)]) == 1
    printed = capsys.readouterr()
    hint = f"Try: aiolibp2p daemon --repo {repo}\n"
    assert printed.err == f"aiolibp2p bitswap {command[0]}: daemon: no daemon serves {repo}. {hint}"
    assert printed.out == ""


def test_a_daemon_serves_nothing_of_its_denylist(
    capsys: pytest.CaptureFixture[str], repo: Path, tmp_path: Path
) -> None:
    path, denylist = tmp_path / "block", tmp_path / "list.deny"
    path.write_bytes(DATA)
    assert main(["block", "put", str(path), "--repo", str(repo)]) == 0
    denylist.write_text(f"version: 1\n---\n/ipfs/{BLOCK}\n/ipns/example.com\n")
    running = Daemon(repo, "--listen", "/ip4/127.0.0.1/tcp/0", "--denylist", str(denylist))
    try:
        assert main(["get", str(BLOCK), "--from", running.address, "-o", str(tmp_path / "got")]) == 1
        capsys.readouterr()
        assert main(["bitswap", "stat", "--json", "--repo", str(repo)]) == 0
        assert json.loads(capsys.readouterr().out)["Stat"]["serving"]["refused_wants"] >= 1
    finally:
        _, _, error = running.end()
    assert f"a denylist is in force path={denylist} blocks=1 skipped=1" in error


def test_a_denylist_that_cannot_be_read_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = tmp_path / "list.deny"
    for content in (None, b"\xff", b"rubbish\n"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(CommandError) as caught:
            read_denylist(path)
        assert str(path) in str(caught.value)
