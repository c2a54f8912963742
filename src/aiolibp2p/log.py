"""Logging: one logger a layer, facts as fields of the record, and what `AIOLIBP2P_LOG` says.

The loggers are those of the standard library, `aiolibp2p.net` and so on, silent until a program configures logging; a
record's message is a fixed text, and its facts are in `extra`, so that a handler can index them. A program that wants
them on stderr calls `configure("net=debug")`; the command line does so with the environment variable `AIOLIBP2P_LOG`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import TextIO

from aiolibp2p.errors import InvalidValueError

VARIABLE = "AIOLIBP2P_LOG"
ROOT = "aiolibp2p"
LAYERS: Mapping[str, str] = {
    "net": "sockets, dials, connections, limits",
    "protocols": "identify",
    "host": "handlers, and what a host owns",
    "blocks": "stores",
    "bitswap": "blocks from peers and for peers",
    "node": "repo, peerstore, RPC",
    "cli": "the command line and its daemon",
}
"""The layers that log, and what of."""
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
EXAMPLE = "debug, or net=debug,bitswap=info"

_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def logger_of(layer: str) -> logging.Logger:
    """Return the logger of a layer.

    Raises:
        KeyError: there is no such layer.
    """
    LAYERS[layer]
    return logging.getLogger(f"{ROOT}.{layer}")


def parse(text: str) -> dict[str, int]:
    """Return the level of each layer that `text` names; `""` stands for all others.

    Raises:
        InvalidValueError: it names a layer or a level that there is not.
    """
    levels: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.lower().split(","))):
        layer, equals, level = part.rpartition("=")
        if (equals and layer not in LAYERS) or level not in LEVELS:
            wrong, known = (layer, LAYERS) if equals and layer not in LAYERS else (level, LEVELS)
            raise InvalidValueError(f"{wrong!r} is none of {', '.join(known)}", stage=VARIABLE)
        levels[layer] = LEVELS[level]
    return levels


class FieldsFormatter(logging.Formatter):
    """One line a record: time, level, layer, message, and its `extra` as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, followed by the traceback where there is one."""
        line, newline, traceback = super().format(record).partition("\n")
        fields = (f" {name}={shown(value)}" for name, value in vars(record).items() if name not in _OF_EVERY_RECORD)
        return "".join((line, *fields, newline, traceback))


def shown(value: object) -> str:
    """Return a field's value, quoted where it is not one word of printable letters."""
    text = str(value)
    return text if text and text.isprintable() and not any(letter in ' "=' for letter in text) else repr(text)


class _ToStderr(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at the time: programs, and tests, replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def configure(text: str, *, default: int = logging.WARNING, stream: TextIO | None = None) -> logging.Handler:
    """Write the records of this package to a stream, and return the handler that does.

    Calling it again replaces what it did before; other handlers of the program stay.

    Args:
        text: as `AIOLIBP2P_LOG`: a level, or layer=level, comma-separated; may be empty.
        default: the level of layers that `text` does not name.
        stream: None is stderr.

    Raises:
        InvalidValueError: `text` names a layer or a level that there is not.
    """
    levels = parse(text)
    root = logging.getLogger(ROOT)
    for old in [handler for handler in root.handlers if isinstance(handler.formatter, FieldsFormatter)]:
        root.removeHandler(old)
    handler = _ToStderr() if stream is None else logging.StreamHandler(stream)
    handler.setFormatter(FieldsFormatter())
    root.addHandler(handler)
    root.setLevel(levels.get("", default))
    for layer in LAYERS:
        logger_of(layer).setLevel(levels.get(layer, logging.NOTSET))
    return handler
