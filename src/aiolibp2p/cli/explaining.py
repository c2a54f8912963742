"""`--explain`: what became of every address that a command dialled, or did not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from aiolibp2p.cli.errors import error_line, explain
from aiolibp2p.cli.options import Settings
from aiolibp2p.cli.output import milliseconds_text, print_json, shown_name
from aiolibp2p.errors import DialError, Libp2pError
from aiolibp2p.host import Host
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.net.connection import Connection
from aiolibp2p.report import AddressReport, DialReport

ExplainOption = Annotated[
    bool, typer.Option("--explain", help="Show every address that was dialled or left out, when, how long, and why.")
]

_COLUMNS = ("address", "begun after", "took", "outcome", "stages, or why not")
_WIDTH_UNWATCHED = 1000
"""Where no terminal is: nobody's lines are to be cut."""


@dataclass(slots=True)
class Explanation:
    """The dials of one command."""

    settings: Settings
    is_wanted: bool
    as_json: bool = False
    reports: list[DialReport] = field(default_factory=list)

    async def connect(self, host: Host, target: Multiaddr) -> Connection:
        """Connect, and keep what became of the dial.

        Raises: as `Host.connect`.
        Cancellation: the dial is given up.
        """
        try:
            connection = await host.connect(target)
        except DialError as error:
            self._keep(error.report)
            raise
        self._keep(connection.dial_report)
        return connection

    def _keep(self, report: DialReport | None) -> None:
        if report is not None and self.is_wanted:
            self.reports.append(report)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the dials of the block behind it, if anybody wants to see them, whatever else it ends with.

        In JSON they are part of the command's line; one that fails, and has none, gets a line with its error.
        """
        try:
            yield
        except Libp2pError as error:
            if self.is_wanted and self.as_json:
                print_json({"error": error_line(explain(error), self.settings.command), **self.to_json()})
            raise
        finally:
            if self.is_wanted and not self.as_json:
                for report in self.reports:
                    print_report(report)

    def to_json(self) -> dict[str, Any]:
        """Return what goes into the command's line: nothing, unless it is wanted."""
        return {"dials": [report.to_json() for report in self.reports]} if self.is_wanted else {}


def print_report(report: DialReport) -> None:
    """Print a table of one dial to stderr."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_UNWATCHED
    who = "whoever answers" if report.peer_id is None else report.peer_id
    ending = "failed" if report.winner is None else "connected"
    print_line = f"dial of {who}: {ending} after {milliseconds_text(report.seconds)}"
    console.print(Text(print_line), soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in _COLUMNS:
        table.add_column(column, overflow="fold")
    for entry in report.addresses:
        table.add_row(*(Text(shown_name(cell)) for cell in _cells(entry, report.peer_id)))
    console.print(table)
    if report.more:
        console.print(Text(f"and {report.more} more addresses, which were not looked at"), soft_wrap=True)


def _cells(entry: AddressReport, peer_id: str | None) -> tuple[str, ...]:
    # Whose addresses they are stands above the table.
    suffix = f"/p2p/{peer_id}"
    address = entry.address.removesuffix(suffix)
    if entry.name is not None:
        address += f" (of {entry.name.removesuffix(suffix)})"
    parts = [f"{stage} {milliseconds_text(seconds)}" for stage, seconds in entry.stages]
    if entry.sockets > 1:
        parts.append(f"on socket {entry.sockets}")
    if entry.reason is not None:
        parts.append(entry.reason)
    return (
        address,
        "-" if entry.began is None else milliseconds_text(entry.began),
        "-" if entry.seconds is None else milliseconds_text(entry.seconds),
        entry.outcome,
        ", ".join(parts),
    )
