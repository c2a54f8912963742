"""What a command runs on: an event loop, a host and its key."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from aiolibp2p.cli.errors import CommandError
from aiolibp2p.cli.options import Settings
from aiolibp2p.errors import InvalidValueError
from aiolibp2p.host import Host
from aiolibp2p.identity.keys import KeyType, PrivateKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.limits import Timeouts
from aiolibp2p.runtime import os_error_text

TIMEOUTS = Timeouts()
"""Those of every host that a command makes."""

_KEY_STAGE = "key"
_KEY_BYTES_MAX = 16 << 10
_OWNER_ONLY = 0o600

Result = TypeVar("Result")


def run(main: Callable[[], Coroutine[Any, Any, Result]], *, for_throughput: bool = False) -> Result:
    """Run a coroutine on a fresh event loop.

    Args:
        for_throughput: whether to take uvloop where it is installed. It moves more bytes, but its clock has steps of a
            millisecond, which is many pings.
    """
    with asyncio.Runner(loop_factory=_uvloop() if for_throughput else None) as runner:
        return runner.run(main())


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def make_host(settings: Settings, listen: Sequence[Multiaddr] = (), *, serve_perf: bool = False) -> Host:
    """Return a host, not yet started, with the key of the settings.

    Raises:
        CommandError: the key cannot be read.
    """
    key = None if settings.key is None else read_key(settings.key)
    return Host(listen=listen, key=key, timeouts=TIMEOUTS, serve_perf=serve_perf)


def read_key(path: Path) -> PrivateKey:
    """Return the private key in a file, in libp2p's protobuf form.

    Raises:
        CommandError: the file cannot be read, or holds none.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_KEY_BYTES_MAX)
        return PrivateKey.from_bytes(data)
    except FileNotFoundError as error:
        hint = f"aiolibp2p id --create --key {path}"
        raise CommandError(_KEY_STAGE, f"there is no {path}", hint) from error
    except OSError as error:
        raise CommandError(_KEY_STAGE, f"cannot read {path}: {os_error_text(error)}") from error
    except InvalidValueError as error:
        hint = "a file that aiolibp2p id --create has made"
        raise CommandError(_KEY_STAGE, f"{path} holds no private key: {error}", hint) from error


def create_key(path: Path, key_type: KeyType) -> PrivateKey:
    """Make a key in a new file that only its owner can read, or return the one that is there, whatever its type.

    Raises:
        CommandError: the file can be neither made nor read.
    """
    key = PrivateKey.generate(type=key_type)
    try:
        # Exclusive: a key that somebody relies on is never overwritten.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    except FileExistsError:
        return read_key(path)
    except OSError as error:
        raise CommandError(_KEY_STAGE, f"cannot make {path}: {os_error_text(error)}") from error
    with open(descriptor, "wb") as file:
        file.write(bytes(key))
    return key
