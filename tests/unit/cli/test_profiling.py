"""The command `profile`, and the dump at SIGUSR1, of processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aiolibp2p.cli import main
from aiolibp2p.cli.profiling import _RETRIES_MAX, write_as_read
from aiolibp2p.sim import current_loop
from tests.support.loops import start, turns

RUN = "import sys; from aiolibp2p.cli import main; sys.exit(main())"
LISTEN = "/ip4/127.0.0.1/tcp/0"

posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGUSR1")


@contextmanager
def running(*words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run a command that announces itself; give the process and what it said."""
    command = [sys.executable, "-W", "error", "-c", RUN, *words, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield process, json.loads(line)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.sockets
@pytest.mark.slow
def test_profile_shows_the_tasks_and_connections_of_the_daemon(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    repo = ["--repo", str(tmp_path / "repo")]
    with running("daemon", *repo, "--listen", LISTEN) as (_, said):
        assert main(["profile", *repo]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"host {said['peer_id']}: ")
        assert "announce_until_signal  " in text
        assert "; age " in text

        assert main(["profile", *repo, "--json"]) == 0
        out = capsys.readouterr().out
        found = json.loads(out)
        assert (out.count("\n"), found["peer_id"], found["connections"]) == (1, said["peer_id"], [])
        assert found["tasks"] == sum(group["count"] for group in found["groups"])

        assert main(["profile", *repo, "--unwakeable"]) == 0
        assert capsys.readouterr().out == "there is no task that nothing can wake\n"


@pytest.mark.sockets
@pytest.mark.slow
def test_profile_without_a_daemon_says_which_repo_has_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    words = ["profile", "--repo", str(repo)]
    hint = f"Try: aiolibp2p daemon --repo {repo}\n"
    assert main(words) == 1
    assert capsys.readouterr().err == f"aiolibp2p profile: daemon: no daemon serves {repo}. {hint}"
    with running("daemon", "--repo", str(repo), "--listen", LISTEN) as (process, _):
        process.kill()
    assert main(words) == 1
    gone = f"{repo}: its daemon, process {process.pid}, does not answer"
    assert capsys.readouterr().err == f"aiolibp2p profile: daemon: {gone}. {hint}"


@pytest.mark.sockets
@pytest.mark.slow
@posix_only
@pytest.mark.parametrize("words", [("listen", LISTEN), ("daemon", "--listen", LISTEN)], ids=["listen", "daemon"])
def test_a_node_dumps_its_profile_at_a_signal_and_goes_on(tmp_path: Path, words: tuple[str, ...]) -> None:
    repo = ["--repo", str(tmp_path / "repo")] if words[0] == "daemon" else []
    with running(*words, *repo) as (process, said):
        assert process.stderr is not None
        for _ in range(2):
            process.send_signal(signal.SIGUSR1)
            lines = iter(process.stderr.readline, "")
            first = next(line for line in lines if line.startswith("aiolibp2p "))
            assert first.endswith(f", process {said['pid']}\n")
            assert next(lines).startswith(f"host {said['peer_id']}: ")
            assert any("announce_until_signal  " in line for line in lines)
        assert main(["ping", said["addresses"][0], "-n", "1"]) == 0
        process.terminate()
        process.communicate()
        assert process.returncode == 0


# -- writing without waiting for a reader ------------------------------------------------------------------------------


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def drain(descriptor: int) -> bytes:
    """Return what there is to read."""
    data = b""
    while select.select([descriptor], [], [], 0)[0]:
        data += os.read(descriptor, 1 << 16)
    return data


@posix_only
async def test_a_dump_waits_for_a_slow_reader_and_the_loop_does_not() -> None:
    data = bytes(range(256)) * 1024
    with pipe() as (reading, writing):
        written = start("dump", write_as_read(writing, data))
        read = b""
        while not written.done():
            await current_loop().pass_time(1)
            read += drain(reading)
        assert read == data
        assert os.get_blocking(writing)  # others write there too


@posix_only
async def test_what_nobody_reads_is_dropped() -> None:
    with pipe() as (reading, writing):
        begin = current_loop().time()
        await write_as_read(writing, bytes(1 << 20))
        assert current_loop().time() - begin == pytest.approx(_RETRIES_MAX * 0.1)
        assert 0 < len(drain(reading)) < 1 << 20


@posix_only
async def test_a_dump_to_a_reader_that_is_gone_fails() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    task = start("dump", write_as_read(writing, b"x"))
    await turns()
    with pytest.raises(BrokenPipeError):
        await asyncio.shield(task)
    os.close(writing)
