"""What commands have in common: global options, addresses and sizes as people write them."""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from aiolibp2p.cli.errors import CommandError
from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.multiaddr import Multiaddr

PROGRAM = "aiolibp2p"
EXAMPLE_ADDRESS = "/ip4/192.0.2.1/tcp/4001/p2p/12D3Koo…"

_SIZE = re.compile(r"(?P<count>\d+(\.\d+)?)\s*(?P<unit>[a-z]*)", re.IGNORECASE)
_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS[_letter] = _UNITS[f"{_letter}b"] = 1000**_power
    _UNITS[f"{_letter}ib"] = _UNITS[f"{_letter}i"] = 1024**_power
_SIZE_BYTES_MAX = 1 << 63
_HOST_AND_PORT = re.compile(r"(?P<host>[\w.-]+):(?P<port>\d{1,5})")

Result = TypeVar("Result")

KeyOption = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="Private key of this host; without it, a fresh one.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Log to stderr, and show tracebacks of errors.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON line.")]
AddressArgument = Annotated[str, typer.Argument(metavar="ADDR", help=f"The peer, as {EXAMPLE_ADDRESS}")]


@dataclass(slots=True)
class Settings:
    """The global options of one run, and its command."""

    key: Path | None = None
    debug: bool = False
    command: str | None = None
    waits_for_stdin: bool = False
    """Whether a thread may be waiting for stdin, which nothing can end."""


def note_globals(context: typer.Context, key: Path | None, *, debug: bool) -> Settings:
    """Return the settings of the run, with what this level of the command line says: both levels take these options."""
    settings = context.ensure_object(Settings)
    settings.key = key or settings.key
    if debug and not settings.debug:
        settings.debug = True
        logging.basicConfig(level=logging.DEBUG, format="%(relativeCreated)d ms %(name)s %(levelname)s %(message)s")
    return settings


def with_globals(command: Callable[..., Result]) -> Callable[..., Result]:
    """Return a command as typer takes it, with the global options behind its own.

    Args:
        command: its first parameter is the settings of the run, the others are its own arguments and options.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        inspect.Parameter("context", either, annotation=typer.Context),
        *own,
        inspect.Parameter("key", either, default=None, annotation=KeyOption),
        inspect.Parameter("debug", either, default=False, annotation=DebugOption),
    ]

    @functools.wraps(command)
    def run(context: typer.Context, key: Path | None, *, debug: bool, **arguments: object) -> Result:
        return command(note_globals(context, key, debug=debug), **arguments)

    # What typer reads, in place of what the function says of itself.
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__dict__["__signature__"] = inspect.Signature(parameters)
    return run


def parse_address(text: str) -> Multiaddr:
    """Return the address that `text` is.

    Raises:
        CommandError: it is none.
    """
    try:
        return Multiaddr(text)
    except InvalidValueError as error:
        plain = _HOST_AND_PORT.fullmatch(text)
        hint = f"an address like {EXAMPLE_ADDRESS}"
        if plain is not None:
            kind = "ip4" if re.fullmatch(r"[\d.]+", plain["host"]) else "dns"
            hint = f"/{kind}/{plain['host']}/tcp/{plain['port']}"
        reason = f": {error}" if text.startswith("/") else ""
        raise CommandError("address", f"{text!r} is not a multiaddr{reason}", hint, is_usage=True) from error


def parse_size(text: str) -> int:
    """Return the bytes that `text` names: 1000000, 1GB (10⁹), 256MiB (2²⁸), 1.5k.

    Raises:
        CommandError: it names none, or too many.
    """
    found = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(found["unit"].lower()) if found is not None else None
    if found is None or unit is None:
        raise CommandError("size", f"{text!r} is not a number of bytes", "a size like 1GB or 256MiB", is_usage=True)
    size_bytes = int(float(found["count"]) * unit) if "." in found["count"] else int(found["count"]) * unit
    if size_bytes >= _SIZE_BYTES_MAX:
        raise CommandError("size", f"{text} is more than a peer can count", "a size like 1GB or 256MiB", is_usage=True)
    return size_bytes
