"""Files that cannot be read, disks without room and repos in use: what a user sees of them, while a daemon serves on.

An error is one line that names the path, and nothing that was there is lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiolibp2p.cli import main
from tests.support.commands import RUN, Daemon, fails

pytestmark = [
    pytest.mark.sockets,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the special files and the limits are of POSIX"),
]

SERVED = hashlib.shake_256(b"served").digest(600_000)
TOO_MUCH = hashlib.shake_256(b"too much").digest(8_000_000)
NEARLY_FULL = """
import resource, shutil
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))
shutil.disk_usage = lambda path: shutil._ntuple_diskusage(0, 0, 1000)
"""
"""A file that may not grow takes a part of a write, as a disk does that is nearly full; the disk says that it is."""
WITHOUT_RIGHTS = """
import ctypes, sys
if sys.platform == "linux":
    # Root reads whatever it likes, unless it gives up what capabilities(7) lets it.
    libc = ctypes.CDLL(None, use_errno=True)
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capset(header, none) == 0
"""
NO_SPACE = "no space left on device. Try: again when there is room on the disk\n"


class Served:
    """A repo with one file, and the daemon that serves it."""

    def __init__(self, directory: Path, cid: str, before: str = "") -> None:
        self.directory = directory
        self.repo = directory / "repo"
        self.cid = cid
        self.daemon = Daemon(self.repo, before=before)

    def check(self) -> None:
        """Fetch the file as an honest peer does."""
        target = self.directory / "fetched"
        assert main(["get", self.cid, "--from", self.daemon.address, "-o", str(target)]) == 0
        assert target.read_bytes() == SERVED
        target.unlink()

    def end(self) -> str:
        """End the daemon, which must have gone on without a word; look into the repo."""
        code, out, log = self.daemon.end()
        assert (code, out, len(log.splitlines())) == (0, "", 3), log
        target = self.directory / "kept"
        assert main(["get", self.cid, "--repo", str(self.repo), "-o", str(target)]) == 0
        assert target.read_bytes() == SERVED
        return log


def added(captured: pytest.CaptureFixture[bytes], path: Path, repo: Path) -> str:
    assert main(["add", str(path), "--repo", str(repo), "--json"]) == 0
    return str(json.loads(captured.readouterr().out)["cid"])


def run(*words: str, before: str, stdout: int = subprocess.PIPE) -> tuple[int, bytes, str]:
    """Run a command in a process of its own that begins with some statements."""
    command = [sys.executable, "-W", "error", "-c", before + RUN, *words]
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, check=False)
    return done.returncode, done.stdout or b"", done.stderr.decode()


@pytest.fixture
def cid(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> str:
    (tmp_path / "served").write_bytes(SERVED)
    return added(capfdbinary, tmp_path / "served", tmp_path / "repo")


@pytest.fixture
def served(tmp_path: Path, cid: str) -> Iterator[Served]:
    running = Served(tmp_path, cid)
    yield running
    running.daemon.end()


@pytest.fixture
def served_on_a_full_disk(tmp_path: Path, cid: str) -> Iterator[Served]:
    running = Served(tmp_path, cid, NEARLY_FULL)
    yield running
    running.daemon.end()


@pytest.fixture
def too_much(tmp_path: Path) -> Path:
    path = tmp_path / "too much"
    path.write_bytes(TOO_MUCH)
    return path


# -- what cannot be read -----------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Give a directory, whose name `bad` is still free."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a file before").write_bytes(b"before")
    (tmp_path / "tree" / "that is good").write_bytes(b"good")
    return tmp_path / "tree"


def test_what_is_no_file_is_named_and_not_waited_for(
    capfdbinary: pytest.CaptureFixture[bytes], served: Served, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tree / "bad"
    words = ["--repo", str(served.repo)]
    os.mkfifo(bad)
    neither = f"aiolibp2p add: system: {bad}: neither a file, a directory nor a symbolic link\n"
    assert fails(capfdbinary, "add", str(tree), *words) == neither
    assert fails(capfdbinary, "add", str(bad), *words) == neither
    bad.unlink()
    monkeypatch.chdir(tree)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("bad")  # by its short name: a socket's may not be long
        assert fails(capfdbinary, "add", str(tree), *words) == neither
    served.check()
    bad.unlink()
    # What was added before is told, and there.
    assert main(["add", str(tree), "/nowhere", *words]) == 1
    printed = capfdbinary.readouterr()
    assert printed.err == b"aiolibp2p add: system: /nowhere: no such file or directory\n"
    added_cid = printed.out.splitlines()[-1].split()[0].decode()
    assert main(["cat", f"{added_cid}/that is good", *words]) == 0
    assert capfdbinary.readouterr().out == b"good"
    served.end()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_a_file_whose_bytes_cannot_be_read_is_named(
    capfdbinary: pytest.CaptureFixture[bytes], served: Served, tree: Path
) -> None:
    # The first page of a process is nobody's: to read it is an error of input.
    line = fails(capfdbinary, "add", "/proc/self/mem", "--repo", str(served.repo))
    assert line == "aiolibp2p add: system: /proc/self/mem: input/output error\n"
    line = fails(capfdbinary, "block", "put", "/proc/self/mem", "--repo", str(served.repo))
    assert line == "aiolibp2p block put: system: /proc/self/mem: input/output error\n"
    served.check()
    served.end()


@pytest.mark.parametrize("is_directory", [False, True], ids=["file", "directory"])
def test_what_one_has_no_right_to_read_is_named(
    capfdbinary: pytest.CaptureFixture[bytes], served: Served, tree: Path, is_directory: bool
) -> None:
    bad = tree / "bad"
    if is_directory:
        bad.mkdir()
    else:
        bad.write_bytes(b"secret")
    bad.chmod(0)
    words = ["add", "--json", str(tree / "a file before"), str(tree), "--repo", str(served.repo)]
    code, out, error = run(*words, before=WITHOUT_RIGHTS)
    bad.chmod(0o700)
    assert (code, error) == (1, f"aiolibp2p add: system: {bad}: permission denied\n")
    (line,) = out.splitlines()
    assert main(["cat", json.loads(line)["cid"], "--repo", str(served.repo)]) == 0
    assert capfdbinary.readouterr().out == b"before"
    served.check()
    served.end()


# -- a full disk -------------------------------------------------------------------------------------------------------


def test_add_on_a_full_disk_names_the_repo_and_loses_nothing(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, cid: str, too_much: Path
) -> None:
    repo = tmp_path / "repo"
    for _ in range(2):
        found = run("add", "--json", str(tmp_path / "served"), str(too_much), "--repo", str(repo), before=NEARLY_FULL)
        assert (found[0], json.loads(found[1])["cid"]) == (1, cid)
        assert found[2] == f"aiolibp2p add: write: {repo / 'blocks'}: {NO_SPACE}"
        assert main(["cat", cid, "--repo", str(repo)]) == 0
        assert capfdbinary.readouterr() == (SERVED, b"")
    # With room, what failed is added, and is whole.
    assert main(["cat", added(capfdbinary, too_much, repo), "--repo", str(repo)]) == 0
    assert capfdbinary.readouterr() == (TOO_MUCH, b"")


async def test_a_daemon_on_a_full_disk_serves_what_it_has_while_adds_fail(
    capfdbinary: pytest.CaptureFixture[bytes], served_on_a_full_disk: Served, tmp_path: Path, too_much: Path
) -> None:
    served = served_on_a_full_disk
    words = ["add", str(too_much), "--repo", str(served.repo)]
    failing = asyncio.create_task(asyncio.to_thread(main, words), name="add")
    await asyncio.to_thread(served.check)
    assert await failing == 1
    assert capfdbinary.readouterr().err.decode() == f"aiolibp2p add: daemon: {served.repo}: {NO_SPACE}"
    await asyncio.to_thread(served.check)
    (tmp_path / "small").write_bytes(b"there is room for this")
    assert await asyncio.to_thread(main, ["add", str(tmp_path / "small"), "--repo", str(served.repo)]) == 0
    await asyncio.to_thread(served.end)
    capfdbinary.readouterr()
    assert await asyncio.to_thread(main, words) == 0


def test_a_fetch_into_a_repo_on_a_full_disk_names_it_and_goes_on_where_it_was(
    capfdbinary: pytest.CaptureFixture[bytes], served: Served, tmp_path: Path, too_much: Path
) -> None:
    cid = added(capfdbinary, too_much, served.repo)
    repo, target = tmp_path / "second", tmp_path / "out"
    target.write_bytes(b"what was there")
    words = ["get", cid, "--from", served.daemon.address, "--repo", str(repo), "-o", str(target)]
    code, out, error = run(*words, before=NEARLY_FULL)
    assert (code, out, error) == (1, b"", f"aiolibp2p get: write: {repo / 'blocks'}: {NO_SPACE}")
    assert target.read_bytes() == b"what was there"
    served.check()
    assert main(words) == 0
    assert target.read_bytes() == TOO_MUCH
    served.end()


def test_what_get_and_cat_have_no_room_to_write_is_named_and_what_was_there_stays(
    capfdbinary: pytest.CaptureFixture[bytes], served: Served, tmp_path: Path, too_much: Path
) -> None:
    cid = added(capfdbinary, too_much, served.repo)
    directory = tmp_path / "there"
    directory.mkdir()
    target = directory / "out"
    target.write_bytes(b"what was there")
    words = [cid, "--from", served.daemon.address]
    code, out, error = run("get", *words, "-o", str(target), before=NEARLY_FULL)
    assert (code, out, error) == (1, b"", f"aiolibp2p get: system: {target}: file too large\n")
    assert [(path.name, path.read_bytes()) for path in directory.iterdir()] == [("out", b"what was there")]
    if os.path.exists("/dev/full"):
        line = fails(capfdbinary, "get", *words, "-o", "/dev/full")
        assert line == "aiolibp2p get: system: /dev/full: no space left on device\n"
        with open("/dev/full", "wb") as full:
            found = run("cat", *words, before="", stdout=full.fileno())
        assert found == (1, b"", "aiolibp2p cat: system: stdout: no space left on device\n")
    served.check()
    served.end()


def test_a_repo_for_which_there_is_no_room_is_named_and_made_later(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    repo = tmp_path / "new"
    words = ["add", str(tmp_path / "file"), "--repo", str(repo)]
    for limit_bytes, path in ((10, repo / "key"), (1000, repo / "blocks")):
        before = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))\n"
        code, out, error = run(*words, before=before)
        assert (code, out, error.count("\n")) == (1, b"", 1)
        assert f": {path}: " in error
    assert main(words) == 0


# -- a second daemon ---------------------------------------------------------------------------------------------------


def test_a_second_daemon_on_a_repo_names_the_first_one_which_serves_on(
    capfdbinary: pytest.CaptureFixture[bytes], served: Served, tmp_path: Path
) -> None:
    line = (
        f"aiolibp2p daemon: open: {served.repo}: in use by process {served.daemon.process.pid}:"
        " end it, or use another directory\n"
    )
    for words in ([], ["--listen", "/ip4/127.0.0.1/tcp/0"]):
        assert fails(capfdbinary, "daemon", "--repo", str(served.repo), *words) == line
        served.check()
        capfdbinary.readouterr()
    assert added(capfdbinary, tmp_path / "served", served.repo) == served.cid
    served.end()
