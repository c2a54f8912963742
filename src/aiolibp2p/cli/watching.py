"""A host that runs until it is told to end: `listen` and `daemon`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from aiolibp2p.cli.output import print_fields, print_json
from aiolibp2p.cli.profiling import watch_tasks
from aiolibp2p.host import Host
from aiolibp2p.net.events import (
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRefused,
    Event,
    EventStream,
    InboundFailed,
    LimitReached,
)

LISTEN_ADDRESS = "/ip4/127.0.0.1/tcp/0"
"""Where a host listens when nobody says."""

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def announce_until_signal(host: Host, *, as_json: bool) -> None:
    """Say who and where a host is, and show a person what happens, until SIGINT or SIGTERM; dump tasks at SIGUSR1.

    Cancellation: the signals act as ever only after the first.
    """
    events = host.events()
    _end_on_signals(events)
    watch_tasks(host)
    if as_json:
        texts = [str(address) for address in host.addresses]
        print_json({"peer_id": str(host.peer_id), "addresses": texts, "pid": os.getpid()})
    else:
        _announce(host)
    # Only for a person: a script that does not read our stderr would stop us when the pipe is full.
    watched = not as_json and sys.stderr.isatty()
    async for event in events:
        text = _event_text(event) if watched else None
        if text is not None:
            print(text, file=sys.stderr)


def _end_on_signals(events: EventStream) -> None:
    """End the events, and with them the command, at the first signal; a second one acts as ever."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        events.end()
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)

    try:
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, stop)
    except NotImplementedError:
        pass  # on Windows, Ctrl-C cancels the command


def _announce(host: Host) -> None:
    print_fields([("peer ID", str(host.peer_id)), ("listening on", [str(address) for address in host.addresses])])
    if sys.stdout.isatty():
        print(f"Ctrl-C ends it. In another terminal: aiolibp2p ping {host.addresses[0]}", file=sys.stderr)


def _event_text(event: Event) -> str | None:
    match event:
        case ConnectionOpened(connection):
            return f"{connection.direction} connection: {connection.peer_id} at {connection.remote_address}"
        case ConnectionClosed(connection, error):
            return f"connection ended: {connection.peer_id}: {error}"
        case ConnectionRefused(address, error):
            return f"connection refused: {address}: {error}"
        case InboundFailed(error):
            return f"inbound connection failed: {error}"
        case LimitReached(limit, count):
            return f"limit {limit} reached: {count} times so far"
    return None
