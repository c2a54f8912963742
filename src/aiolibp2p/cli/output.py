"""What commands print: results on stdout, one JSON line or a few plain ones; progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_KILO = 1000
_PROGRESS_STEP_BYTES = 4 << 20
_REFRESHES_PER_SECOND = 8


def print_json(result: Mapping[str, object]) -> None:
    """Print one line, at once; what stdout cannot encode, such as names that are no UTF-8, is escaped."""
    text = json.dumps(result, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(result)
    print(text, flush=True)


def print_fields(fields: Iterable[tuple[str, str | Iterable[str]]]) -> None:
    """Print names and values in two columns; a name with several values stands before the first.

    Lines are not wrapped: what is copied from them must stay whole.
    """
    rows = [(name, [values] if isinstance(values, str) else list(values)) for name, values in fields]
    width = max(len(name) for name, _ in rows)
    for name, values in rows:
        for position, value in enumerate(values):
            print(f"{name if position == 0 else '':<{width}}  {value}")
    sys.stdout.flush()


def write_bytes(data: bytes) -> None:
    """Write to stdout as it is, at once; it waits for whoever reads.

    Raises:
        OSError: it cannot be written.
    """
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, "stdout") from error


def shown_name(name: str) -> str:
    """Return a name that others chose so that a terminal only shows it, and takes it for one line."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def size_text(size_bytes: float) -> str:
    """Return bytes as people write them: 1.00 GB."""
    unit = 0
    while size_bytes >= _KILO and unit < len(_UNITS) - 1:
        size_bytes /= _KILO
        unit += 1
    return f"{size_bytes:.0f} B" if unit == 0 else f"{size_bytes:.3g} {_UNITS[unit]}"


def rate_text(size_bytes: int, seconds: float) -> str:
    """Return a rate: 826 MB/s."""
    return f"{size_text(size_bytes / seconds)}/s" if seconds > 0 else "-"


def milliseconds_text(seconds: float) -> str:
    """Return a round trip: 0.142 ms."""
    return f"{seconds * 1000:.3f} ms"


@contextmanager
def progress_bar(total_bytes: int | None) -> Iterator[Callable[[int], None] | None]:
    """Give what is to be called with the bytes of each step; None where nobody is watching.

    Args:
        total_bytes: None means that nobody knows.
    """
    if not sys.stderr.isatty() or total_bytes == 0:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, refresh_per_second=_REFRESHES_PER_SECOND) as bar:
        task = bar.add_task("", total=total_bytes)
        waiting = 0

        def advance(size_bytes: int) -> None:
            # An update takes some 20 µs, and bytes come in pieces of a few kilobytes.
            nonlocal waiting
            waiting += size_bytes
            if waiting >= _PROGRESS_STEP_BYTES:
                bar.advance(task, waiting)
                waiting = 0

        yield advance


def cumulative(advance: Callable[[int], None] | None) -> Callable[[int], None] | None:
    """Return what is to be called with all bytes so far, where a bar is to be told of each step."""
    if advance is None:
        return None
    told = 0

    def progress(size_bytes: int) -> None:
        nonlocal told
        advance(size_bytes - told)
        told = size_bytes

    return progress
