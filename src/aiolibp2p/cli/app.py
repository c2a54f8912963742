"""The commands in one tree, and the one place where their errors become a line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from aiolibp2p.cli import adding, bitswap, content, daemon, network, node, profiling, tools
from aiolibp2p.cli.errors import CommandError, Failure, error_line, explain
from aiolibp2p.cli.options import PROGRAM, DebugOption, KeyOption, Settings, note_globals
from aiolibp2p.version import VERSION

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_UsageError = typer.BadParameter.__mro__[1]
"""What every complaint about arguments is: typer exports only this one of its kinds."""

app = typer.Typer(
    name=PROGRAM,
    help="libp2p for asyncio: content by its CID, identities, a bare host, and questions to other peers.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("init")(node.init)
app.command("daemon")(daemon.daemon)
app.command("add")(adding.add)
app.command("get")(content.get)
app.command("cat")(content.cat)
app.command("ls")(content.ls)
app.command("refs")(content.refs)
app.command("id")(node.show_id)
app.command("ping")(network.ping)
app.command("identify")(network.identify)
app.command("profile")(profiling.profile)
app.command("listen")(tools.listen)
app.command("perf")(tools.perf)

_block = typer.Typer(help="Single blocks: put, get, stat.")
_block.command("put")(adding.block_put)
_block.command("get")(adding.block_get)
_block.command("stat")(adding.block_stat)
app.add_typer(_block, name="block")

_bitswap = typer.Typer(help="What the running daemon exchanges with peers.")
_bitswap.command("stat")(bitswap.stat)
_bitswap.command("ledger")(bitswap.ledger)
_bitswap.command("wantlist")(bitswap.wantlist)
app.add_typer(_bitswap, name="bitswap")


@_block.callback()
def _name_block_command(context: typer.Context) -> None:
    context.ensure_object(Settings).command = f"block {context.invoked_subcommand}"


@_bitswap.callback()
def _name_bitswap_command(context: typer.Context) -> None:
    context.ensure_object(Settings).command = f"bitswap {context.invoked_subcommand}"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"{PROGRAM} {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_print_version, is_eager=True)
    ] = False,
    debug: DebugOption = False,
    key: KeyOption = None,
) -> None:
    settings = note_globals(context, key, debug=debug)
    settings.command = context.invoked_subcommand


def run_command(arguments: list[str]) -> int:
    """Run one command and return its exit code; whatever goes wrong becomes one line on stderr."""
    settings = Settings()
    code = _run(arguments, settings)
    if settings.waits_for_stdin:
        # All is closed and said. The interpreter would wait for that thread, and with it for whoever writes to stdin.
        os._exit(code)
    return code


def _run(arguments: list[str], settings: Settings) -> int:
    streams = (sys.stdout, sys.stderr)
    try:
        code = app(args=arguments or ["--help"], prog_name=PROGRAM, standalone_mode=False, obj=settings)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # typer exits when the reader of our output is gone, and leaves wrapped streams behind.
        sys.stdout, sys.stderr = streams
        return _reader_gone()
    except Exception as error:  # noqa: BLE001  the boundary between the program and the person
        return _report(error, settings)
    return code if isinstance(code, int) else 0


def _report(error: Exception, settings: Settings) -> int:
    if settings.debug:
        traceback.print_exception(error)
    if isinstance(error, _UsageError):
        command = f"{PROGRAM} {settings.command}" if settings.command else PROGRAM
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        failure = Failure(stage="usage", detail=" ".join(text.split()), hint=f"{command} --help")
        code = EXIT_USAGE
    else:
        failure = explain(error)
        code = EXIT_USAGE if isinstance(error, CommandError) and error.is_usage else EXIT_FAILED
    print(error_line(failure, settings.command), file=sys.stderr)
    return code


def _reader_gone() -> int:
    """Let nothing more be written to a pipe that nobody reads: the interpreter flushes once more when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return EXIT_FAILED
