"""What commands have in common: global options, addresses and sizes as people write them."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from aiolibp2p.cli.errors import CommandError
from aiolibp2p.errors import InvalidValueError
from aiolibp2p.identity.keys import KeyType, PrivateKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.log import EXAMPLE, VARIABLE, configure

PROGRAM = "aiolibp2p"
EXAMPLE_ADDRESS = "/ip4/192.0.2.1/tcp/4001/p2p/12D3Koo…"

_SIZE = re.compile(r"(?P<count>\d+(\.\d+)?)\s*(?P<unit>[a-z]*)", re.IGNORECASE)
_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS[_letter] = _UNITS[f"{_letter}b"] = 1000**_power
    _UNITS[f"{_letter}ib"] = _UNITS[f"{_letter}i"] = 1024**_power
_SIZE_BYTES_MAX = 1 << 63
_NAME = re.compile(r"([a-z0-9_]([a-z0-9_-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]\.?", re.IGNORECASE)
"""A name of the DNS with a dot in it, which no peer ID has; nor is it an IP address, as its last label begins with a
letter."""
_HOST_AND_PORT = re.compile(r"(?P<host>[\w.-]+):(?P<port>\d{1,5})")

Result = TypeVar("Result")


class KeyTypeName(StrEnum):
    """The key types as people write them; the names of the members are those of `KeyType`."""

    ED25519 = "ed25519"
    RSA = "rsa"
    SECP256K1 = "secp256k1"
    ECDSA = "ecdsa"


KeyOption = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="Private key of this host; without it, a fresh one.")
]
KeyTypeOption = Annotated[
    KeyTypeName | None,
    typer.Option("--type", help="Type of the key that is made; without it, ed25519, which every peer can read."),
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
    settings.debug = settings.debug or debug
    log_to_stderr(settings)
    return settings


def log_to_stderr(settings: Settings, *, default: int = logging.WARNING) -> None:
    """Log what `AIOLIBP2P_LOG` asks for; layers that it does not name from `default` on, or all of it with --debug.

    Raises:
        CommandError: the variable names a layer or a level that there is not.
    """
    try:
        configure(os.environ.get(VARIABLE, ""), default=logging.DEBUG if settings.debug else default)
    except InvalidValueError as error:
        raise CommandError(VARIABLE, error.describe(), EXAMPLE, is_usage=True) from error


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


def key_type_of(name: KeyTypeName | None) -> KeyType:
    """Return the key type that `KeyTypeOption` names; ED25519 where it was not given."""
    return KeyType.ED25519 if name is None else KeyType[name.name]


def check_key_type(key: PrivateKey, wanted: KeyTypeName | None, place: Path) -> None:
    """Check that a key that may have been there before is of the type that was asked for.

    Args:
        key: what is now in `place`.
        wanted: as `KeyTypeOption` gives it; None accepts any.
        place: the file or the repo.

    Raises:
        CommandError: it is of another.
    """
    if wanted is not None and key.type is not key_type_of(wanted):
        detail = f"the key in {place} is of type {key.type.name.lower()}, and is never replaced"
        raise CommandError("key", detail, f"another place for a key of type {wanted}")


def parse_address(text: str) -> Multiaddr:
    """Return the address that `text` is; a bare name, as `boot.example`, is that of the peers behind it.

    Raises:
        CommandError: it is none.
    """
    if _NAME.fullmatch(text) is not None:
        text = f"/dnsaddr/{text}"
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
