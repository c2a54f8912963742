"""What a node waits for: the command `profile`, and the dump at SIGUSR1."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from aiolibp2p.cli import running
from aiolibp2p.cli.errors import CommandError
from aiolibp2p.cli.options import JsonOption, Settings, with_globals
from aiolibp2p.cli.sources import RepoOption
from aiolibp2p.errors import StorageError
from aiolibp2p.host import Host
from aiolibp2p.log import logger_of
from aiolibp2p.net.tasks import Tasks
from aiolibp2p.node.access import Access
from aiolibp2p.node.debug import ask_daemon, profile_node
from aiolibp2p.node.repo import default_path
from aiolibp2p.profile import TaskAges
from aiolibp2p.version import VERSION

_RETRY_SECONDS = 0.1
"""How soon a dump looks again whether its reader has made room."""
_RETRIES_MAX = 100
"""Looks without room after which the rest of a dump is dropped."""

_log = logger_of("cli")

UnwakeableOption = Annotated[
    bool,
    typer.Option("--unwakeable", help="Only tasks that nothing can wake; the daemon stands still while it searches."),
]


@with_globals
def profile(
    _settings: Settings, repo: RepoOption = None, unwakeable: UnwakeableOption = False, as_json: JsonOption = False
) -> None:
    """Show what each task of the running daemon waits for, where and how long, and its connections and streams."""
    path: Path = repo or default_path(os.environ, sys.platform)
    access = Access.read(path)
    if access is None:
        raise CommandError("daemon", f"no daemon serves {path}", f"aiolibp2p daemon --repo {path}")
    try:
        print(running.run(lambda: ask_daemon(path, access, running.TIMEOUTS, unwakeable=unwakeable, as_json=as_json)))
    except StorageError as error:
        hint = f"aiolibp2p daemon --repo {path}"
        if isinstance(error.__cause__, TimeoutError):
            hint = f"py-spy dump --pid {access.pid}, which shows where a loop is stuck"
        raise CommandError("daemon", error.describe(), hint) from error


class ProfileDump:
    """Writes the profile of a node to stderr at each SIGUSR1, where there is such a signal.

    It works until the loop is closed, so that it shows why a host is slow to leave, too. A reader of stderr who does
    not read holds up nothing: what finds no room in ten seconds is dropped. Signals that come while a dump is being
    written are answered by one more.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._tasks = Tasks(asyncio.get_running_loop(), self._failed)
        self._dumping: asyncio.Task[None] | None = None
        self._asked = False

    def start(self) -> None:
        """Listen to the signal, in the loop's thread."""
        loop = asyncio.get_running_loop()
        number: signal.Signals | None = getattr(signal, "SIGUSR1", None)
        if number is None:
            return
        loop.add_signal_handler(number, self._begin)

    def _begin(self) -> None:
        self._asked = True
        if self._dumping is None or self._dumping.done():
            self._dumping = self._tasks.start(self._dump(), "profile dump")

    async def _dump(self) -> None:
        while self._asked:
            self._asked = False
            found = await profile_node(self._host)
            text = f"aiolibp2p {VERSION}, process {os.getpid()}\n{found}\n"
            await write_as_read(sys.stderr.fileno(), text.encode(errors="backslashreplace"))

    def _failed(self, error: BaseException) -> None:
        _log.debug("the profile could not be written", exc_info=error)


def watch_tasks(host: Host) -> None:
    """Dump the profile of a node at SIGUSR1, and know how old tasks are and how long they wait, while the loop runs."""
    TaskAges(asyncio.get_running_loop(), now=host.clock.now).start()
    ProfileDump(host).start()


async def write_as_read(descriptor: int, data: bytes) -> None:
    """Write to a pipe, terminal or file as far as it takes it, without blocking the loop for its reader.

    Its mode stays as it is, for others write to it too. What finds no room for long is dropped.

    Raises:
        OSError: nobody can read it any more.
    Cancellation: some of the data is written.
    """
    retries = 0
    while data and retries < _RETRIES_MAX:
        if select.select([], [descriptor], [], 0)[1]:
            # So much fits whenever there is room at all.
            written = os.write(descriptor, data[: select.PIPE_BUF])
            data = data[written:]
            retries = 0
            await asyncio.sleep(0)
        else:
            retries += 1
            await asyncio.sleep(_RETRY_SECONDS)
