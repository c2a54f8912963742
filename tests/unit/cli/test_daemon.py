"""Tests of `daemon` as a process of its own, with commands in this one."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiolibp2p import Cid, Multiaddr, PrivateKey
from aiolibp2p.cli import main
from tests.support.commands import RUN, Daemon

CONTENT = hashlib.shake_256(b"five megabytes").digest(5_000_000)
SHA_256 = hashlib.sha256(CONTENT).hexdigest()

pytestmark = [pytest.mark.sockets, pytest.mark.slow]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return tmp_path / "repo"


@pytest.fixture
def cid(capsys: pytest.CaptureFixture[str], repo: Path, tmp_path: Path) -> str:
    """Give the CID of a file of 5 MB that the repo has."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    assert main(["add", str(path), "--repo", str(repo), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["bytes"] == len(CONTENT)
    return str(Cid.parse(said["cid"]))


@pytest.fixture
def daemon(repo: Path, cid: str) -> Iterator[Daemon]:
    """Give a daemon that serves the file."""
    running = Daemon(repo, "--listen", "/ip4/127.0.0.1/tcp/0")
    yield running
    running.end(signal.SIGKILL)


def test_a_file_of_one_process_is_the_file_of_another(
    capsys: pytest.CaptureFixture[str], daemon: Daemon, repo: Path, cid: str, tmp_path: Path
) -> None:
    target = tmp_path / "fetched"
    command = [sys.executable, "-W", "error", "-c", RUN, "get", cid, "--from", daemon.address, "-o", str(target)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert said == {"cid": cid, "bytes": len(CONTENT), "seconds": said["seconds"]}
    assert hashlib.sha256(target.read_bytes()).hexdigest() == SHA_256

    # What has no use for a running daemon says who holds the repo.
    for words in (["init"], ["daemon"]):
        assert main([*words, "--repo", str(repo)]) == 1
        printed = capsys.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1)
        holder = f"{repo}: in use by process {daemon.process.pid}: end it, or use another directory"
        assert holder in printed.err
        assert printed.err.startswith(f"aiolibp2p {words[0]}: ")

    code, out, error = daemon.end()
    assert (code, out) == (0, "")
    assert [line.split(" ", 2)[2] for line in error.splitlines()] == [
        f"INFO aiolibp2p.cli: serving the blocks of the repo path={repo}",
        "INFO aiolibp2p.cli: leaving",
        f"INFO aiolibp2p.cli: the repo is free again path={repo}",
    ]
    assert main(["block", "stat", cid, "--repo", str(repo)]) == 0


def test_commands_on_the_repo_of_a_daemon_go_through_it(
    capsys: pytest.CaptureFixture[str], daemon: Daemon, repo: Path, cid: str, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    new.write_bytes(CONTENT[::-1])
    assert main(["add", str(new), "--repo", str(repo), "--json"]) == 0
    added = json.loads(capsys.readouterr().out)
    assert (added["bytes"], added["blocks"]) == (len(CONTENT), 21)
    # It is served at once, and read on the repo.
    for words in (["--from", daemon.address], ["--repo", str(repo)]):
        target = tmp_path / words[0]
        assert main(["get", added["cid"], *words, "-o", str(target)]) == 0
        assert target.read_bytes() == CONTENT[::-1]
    capsys.readouterr()
    assert main(["refs", "-r", cid, "--repo", str(repo)]) == 0
    assert len(capsys.readouterr().out.split()) == 20
    missing = str(Cid.from_data(b"nobody has this"))
    assert main(["block", "stat", missing, "--repo", str(repo)]) == 1
    assert f": fetch: block {missing} not found" in capsys.readouterr().err
    assert daemon.end()[0] == 0
    assert main(["block", "stat", added["cid"], "--repo", str(repo)]) == 0


def test_a_fetch_into_the_repo_of_a_daemon_is_served_by_it(
    capsys: pytest.CaptureFixture[str], daemon: Daemon, cid: str, tmp_path: Path
) -> None:
    repo = tmp_path / "second"
    second = Daemon(repo)
    assert main(["get", cid, "--from", daemon.address, "--repo", str(repo), "-o", str(tmp_path / "a")]) == 0
    assert main(["get", cid, "--from", second.address, "-o", str(tmp_path / "b")]) == 0
    assert second.end()[0] == 0
    assert (tmp_path / "b").read_bytes() == CONTENT


def test_the_line_of_a_daemon_says_who_and_where_it_is(
    capsys: pytest.CaptureFixture[str], daemon: Daemon, repo: Path
) -> None:
    address = Multiaddr(daemon.address)
    peer_id = str(PrivateKey.from_bytes((repo / "key").read_bytes()).public.peer_id)
    assert daemon.said == {"peer_id": peer_id, "addresses": [str(address)], "pid": daemon.process.pid}
    assert str(address.peer_id) == peer_id
    assert main(["block", "get", str(Cid.from_data(CONTENT)), "--from", daemon.address]) == 1
    assert ": fetch: block " in capsys.readouterr().err
    code, out, _ = daemon.end(signal.SIGINT)
    assert (code, out) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_repo_is_whole_and_free_when_its_daemon_was_killed(
    daemon: Daemon, repo: Path, cid: str, tmp_path: Path
) -> None:
    daemon.end(signal.SIGKILL)
    target = tmp_path / "kept"
    assert main(["get", cid, "--repo", str(repo), "-o", str(target)]) == 0
    assert hashlib.sha256(target.read_bytes()).hexdigest() == SHA_256


def test_a_daemon_makes_its_repo_and_listens_wherever_it_is_told(repo: Path, tmp_path: Path) -> None:
    key = PrivateKey.generate()
    (tmp_path / "key").write_bytes(bytes(key))
    anywhere = "/ip4/127.0.0.1/tcp/0"
    running = Daemon(repo, "--listen", anywhere, "--listen", anywhere, anywhere, "--key", str(tmp_path / "key"))
    code, _, _ = running.end()
    assert code == 0
    assert len(set(running.said["addresses"])) == 3
    assert running.said["peer_id"] == str(key.public.peer_id)


def test_a_daemon_that_cannot_listen_says_so_in_one_line(capsys: pytest.CaptureFixture[str], repo: Path) -> None:
    assert main(["daemon", "--repo", str(repo), "--listen", "/dns/a.example/tcp/0"]) == 1
    line = capsys.readouterr().err
    assert line.startswith("aiolibp2p daemon: listen: no transport of this host listens there (/dns/a.example/tcp/0)")
    assert main(["daemon", "--repo", str(repo), "--listen", "nowhere"]) == 2
