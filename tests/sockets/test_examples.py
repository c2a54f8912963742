"""The examples run, and do what they say.

`hello.py` is the program of the README, and runs in its tests; those of the simulator run in `tests/unit/test_docs.py`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
CONTENT = hashlib.shake_256(b"a real file").digest(3_000_001)
SHA_256 = hashlib.sha256(CONTENT).hexdigest()
NOBODY = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWREiF3u18DaNM4V1LW54PTyLwAA1KCmhPND1jrTBGxPTs"
RUN_WITH_SIGNALS = (
    "import runpy, signal, sys; "
    "signal.signal(signal.SIGINT, signal.default_int_handler); "
    "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
"""A process in the background of a shell ignores SIGINT; here it is to be heard."""


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def first_light(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Give the example, with its directory in `tmp_path / "folders"` and warnings of its processes as errors."""
    folders = tmp_path / "folders"
    folders.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folders))
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    return example("first_light")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a file of 3 MB, with a name that wants quoting."""
    path = tmp_path / "-a file [bold] é.bin"
    path.write_bytes(CONTENT)
    return path


def nothing_left(tmp_path: Path) -> bool:
    return not list((tmp_path / "folders").iterdir())


@pytest.mark.sockets
@pytest.mark.slow
def test_a_file_that_one_process_adds_is_fetched_by_its_cid_from_another(
    capfd: pytest.CaptureFixture[str], first_light: Any, file: Path, tmp_path: Path
) -> None:
    assert first_light.main(["--", str(file)]) == 0
    out, error = capfd.readouterr()
    assert error == ""
    assert all(line.isprintable() for line in out.splitlines())  # no codes for a terminal where there is none
    facts = dict(re.findall(r"^  (\w+) +(\S.*)$", out, re.MULTILINE))
    assert re.fullmatch(r"/ip4/127\.0\.0\.1/tcp/\d+/p2p/12D3KooW\w{44}", facts["address"])
    assert facts["address"].endswith(facts["peer"])
    assert facts["CID"].startswith("bafybei")
    assert out.count("3.0 MB (3,000,001 bytes)") == out.count(" MB/s: ") == 2
    assert out.count(SHA_256) == 2
    assert out.endswith(" equal\n")
    assert nothing_left(tmp_path)


def test_a_file_that_cannot_be_read_is_one_line_before_anything_starts(
    capsys: pytest.CaptureFixture[str], first_light: Any, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    assert first_light.main([str(missing)]) == 1
    assert capsys.readouterr() == ("", f"first light: {missing}: no such file or directory\n")
    assert first_light.main([str(tmp_path)]) == 1
    assert capsys.readouterr() == ("", f"first light: {tmp_path}: not a file\n")


@pytest.mark.sockets
@pytest.mark.slow
def test_a_fetch_that_fails_is_the_line_of_its_command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, first_light: Any, file: Path, tmp_path: Path
) -> None:
    running_node = first_light.running_node

    @contextmanager
    def elsewhere(repo: Path) -> Iterator[dict[str, Any]]:
        with running_node(repo) as node:
            yield {**node, "addresses": [NOBODY]}

    monkeypatch.setattr(first_light, "running_node", elsewhere)
    assert first_light.main([str(file)]) == 1
    error = capfd.readouterr().err
    assert error.startswith("aiolibp2p get: connect: connection refused")
    assert error.count("\n") == 1
    assert nothing_left(tmp_path)


@pytest.mark.sockets
@pytest.mark.slow
def test_a_copy_that_differs_is_one_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, first_light: Any, file: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(first_light, "sha256_of", lambda path: path.name)
    assert first_light.main([str(file)]) == 1
    out, error = capfd.readouterr()
    assert "equal" not in out
    assert error == "first light: the copy differs from the file\n"
    assert nothing_left(tmp_path)


def test_a_node_that_does_not_start_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, first_light: Any, file: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    assert first_light.main([str(file)]) == 1
    assert capsys.readouterr().err == "first light: daemon: it has ended before it was ready\n"
    assert nothing_left(tmp_path)


@pytest.mark.sockets
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no signals to one process")
@pytest.mark.parametrize("is_ctrl_c", [True, False], ids=["Ctrl-C", "SIGTERM"])
def test_what_is_interrupted_leaves_neither_processes_nor_files(file: Path, tmp_path: Path, is_ctrl_c: bool) -> None:
    folders = tmp_path / "folders"
    folders.mkdir()
    command = [sys.executable, "-c", RUN_WITH_SIGNALS, str(EXAMPLES / "first_light.py"), "--", str(file)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folders)},
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        facts: dict[str, str] = {}
        while "address" not in facts:
            line = process.stdout.readline()
            assert line
            facts.update(re.findall(r"^  (\w+) +(\S+)", line))
        assert not nothing_left(tmp_path)
        if is_ctrl_c:
            # As the terminal sends it.
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
        _, error = process.communicate()
    assert (process.returncode, error) == (130, "")
    assert nothing_left(tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(int(facts["process"].rstrip(",")), 0)


def test_the_default_file_is_one_of_50_mb_or_more(first_light: Any) -> None:
    assert first_light.default_file().stat().st_size >= 50_000_000


def test_without_a_default_file_the_line_says_how_to_name_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, first_light: Any
) -> None:
    monkeypatch.setattr(first_light, "SHIPS_A_LARGE_FILE", "a-package-that-nobody-has")
    assert first_light.main([]) == 1
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert error.endswith("Try: make run FILE=/path/of/a/file\n")


@pytest.mark.sockets
@pytest.mark.slow
def test_streams_end_with_a_table_of_rates(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    streams = example("streams")
    monkeypatch.setattr(streams, "STREAM_BYTES", 3_000_001)
    monkeypatch.setattr(sys, "argv", ["streams.py"])
    assert streams.main() == 0
    out = capsys.readouterr().out
    for row in ("connect, identify", "ping × 100", "upload", "download"):
        assert f"│ {row} " in out
    assert out.count("MB/s") == 2


def test_streams_without_a_second_process_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["streams.py"])
    monkeypatch.setattr(sys, "executable", "false")
    assert example("streams").main() == 1
    assert capsys.readouterr().err == "streams: start: the second process has ended before it listened\n"


def test_every_example_runs_in_a_test() -> None:
    elsewhere = {"hello", "simulate_http", "simulate_libp2p", "why_close_never_waits"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == elsewhere | {"first_light", "streams"}
