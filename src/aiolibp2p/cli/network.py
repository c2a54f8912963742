"""Questions to one peer: `ping` and `identify`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

import typer

from aiolibp2p.cli.explaining import ExplainOption, Explanation
from aiolibp2p.cli.options import AddressArgument, JsonOption, Settings, parse_address, with_globals
from aiolibp2p.cli.output import milliseconds_text, print_fields, print_json
from aiolibp2p.cli.running import make_host, run
from aiolibp2p.errors import DeadlineError, Libp2pError
from aiolibp2p.host import Host
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.net.connection import Connection
from aiolibp2p.sansio.identify import Identify

_PINGS = 5
_PING_INTERVAL = 1.0


@dataclass(slots=True)
class _Pings:
    """What came back so far."""

    connection: Connection
    sent: int = 0
    seconds: list[float] = field(default_factory=list)
    error: Libp2pError | None = None
    """What ended it early, or why the last question had no answer."""

    def summary(self) -> dict[str, object]:
        """Return all of it, times in seconds."""
        low, middle, high = self.spread() or (None, None, None)
        return {
            "peer_id": str(self.connection.peer_id),
            "address": str(self.connection.remote_address),
            "sent": self.sent,
            "answered": len(self.seconds),
            "min": low,
            "median": middle,
            "max": high,
            "seconds": self.seconds,
        }

    def text(self) -> str:
        """Return the line under the pings."""
        counts = f"{self.sent} sent, {len(self.seconds)} answered"
        spread = self.spread()
        if spread is None:
            return counts
        low, middle, high = map(milliseconds_text, spread)
        return f"{counts}; min {low}, median {middle}, max {high}"

    def spread(self) -> tuple[float, float, float] | None:
        """Return the least, the median and the greatest time; None without any."""
        from statistics import median  # slow to import

        return (min(self.seconds), median(self.seconds), max(self.seconds)) if self.seconds else None


@with_globals
def ping(
    settings: Settings,
    address: AddressArgument,
    count: Annotated[int, typer.Option("-n", "--count", min=0, help="How many; 0 goes on until Ctrl-C.")] = _PINGS,
    interval: Annotated[float, typer.Option("--interval", min=0, help="Seconds between them.")] = _PING_INTERVAL,
    as_json: JsonOption = False,
    explain: ExplainOption = False,
) -> int:
    """Measure round trips to a peer."""
    target = parse_address(address)
    explanation = Explanation(settings, explain, as_json)
    with explanation.shown():
        pings = run(lambda: _ping(explanation, target, count, interval, quiet=as_json))
    if as_json:
        print_json(pings.summary() | explanation.to_json())
    else:
        print(pings.text())
    # As with ping(8), one answer is a success, however many were lost.
    answered = bool(pings.seconds)
    if pings.error is not None and not (answered and isinstance(pings.error, DeadlineError)):
        raise pings.error
    return 0 if answered else 1


async def _ping(explanation: Explanation, target: Multiaddr, count: int, interval: float, *, quiet: bool) -> _Pings:
    async with make_host(explanation.settings) as host:
        pings = _Pings(await explanation.connect(host, target))
        if not quiet:
            connection = pings.connection
            print(f"{connection.peer_id} at {connection.remote_address}", flush=True)
        try:
            await _ping_on(host, pings, count, interval, quiet=quiet)
        except asyncio.CancelledError:
            # Ctrl-C ends the pings, and not the sight of what they showed.
            task = asyncio.current_task()
            if task is None or not task.uncancel():
                return pings
            raise
        except Libp2pError as error:
            pings.error = error
        return pings


async def _ping_on(host: Host, pings: _Pings, count: int, interval: float, *, quiet: bool) -> None:
    while True:
        pings.sent += 1
        try:
            seconds = await host.ping(pings.connection.peer_id)
        except DeadlineError as error:
            pings.error = error
            text = f"no answer within {error.seconds:g} s"
        else:
            pings.error = None
            pings.seconds.append(seconds)
            text = milliseconds_text(seconds)
        if not quiet:
            print(f"{pings.sent:>4}  {text}", flush=True)
        if pings.sent == count:
            return
        await asyncio.sleep(interval)


@with_globals
def identify(
    settings: Settings, address: AddressArgument, as_json: JsonOption = False, explain: ExplainOption = False
) -> None:
    """Ask a peer what it is, where it listens and what it speaks."""
    target = parse_address(address)
    explanation = Explanation(settings, explain, as_json)
    with explanation.shown():
        connection, said = run(lambda: _identify(explanation, target))
    key_type = None if said.public_key is None else said.public_key.type.name
    if as_json:
        print_json(
            {
                "peer_id": str(connection.peer_id),
                "agent_version": said.agent_version,
                "protocol_version": said.protocol_version,
                "key_type": key_type,
                "addresses": [str(address) for address in said.listen_addresses],
                "observed_address": None if said.observed_address is None else str(said.observed_address),
                "protocols": sorted(said.protocols),
                "signed_peer_record": said.peer_record is not None,
                "security": connection.security,
                "muxer": connection.muxer,
            }
            | explanation.to_json()
        )
        return
    print_fields(
        [
            ("peer ID", str(connection.peer_id)),
            ("agent", said.agent_version or "-"),
            ("protocol version", said.protocol_version or "-"),
            ("key", key_type or "-"),
            ("listens on", [str(address) for address in said.listen_addresses] or "-"),
            ("peer record", "signed" if said.peer_record is not None else "-"),
            ("sees us at", "-" if said.observed_address is None else str(said.observed_address)),
            ("connection", f"{connection.transport}, {connection.security}, {connection.muxer}"),
            ("speaks", sorted(said.protocols) or "-"),
        ]
    )


async def _identify(explanation: Explanation, target: Multiaddr) -> tuple[Connection, Identify]:
    async with make_host(explanation.settings) as host:
        connection = await explanation.connect(host, target)
        return connection, await host.identify(connection.peer_id)
