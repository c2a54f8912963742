"""What a host tells those who listen, through queues that drop the oldest rather than hold anything up."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from aiolibp2p.errors import Libp2pError, LimitError
from aiolibp2p.limits import Limits

if TYPE_CHECKING:
    from aiolibp2p.identity.multiaddr import Multiaddr
    from aiolibp2p.net.connection import Connection
    from aiolibp2p.net.stream import Stream
    from aiolibp2p.sansio.identify import Identify


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """A connection was made, by either side."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """A connection is over; `error` says by whom and why."""

    connection: Connection
    error: Libp2pError


@dataclass(frozen=True, slots=True)
class ConnectionRefused:
    """A limit refused a connection with `address`."""

    address: Multiaddr
    error: LimitError


@dataclass(frozen=True, slots=True)
class InboundFailed:
    """An inbound socket did not become a connection; `error.stage` says where it stopped."""

    error: Libp2pError


@dataclass(frozen=True, slots=True)
class PeerIdentified:
    """A peer has said, or pushed, what it is."""

    connection: Connection
    identify: Identify


@dataclass(frozen=True, slots=True)
class HandlerFailed:
    """A stream handler has raised; its stream was reset."""

    stream: Stream
    error: Exception


@dataclass(frozen=True, slots=True)
class LimitReached:
    """A limit, a field of `Limits`, has refused, ended or dropped something: `count` times since the host began.

    Only one of a limit waits for a consumer at a time, and says what is true when it is taken: however often a peer
    runs into a limit, it pushes out no other event.
    """

    limit: str
    count: int


Event = (
    ConnectionOpened
    | ConnectionClosed
    | ConnectionRefused
    | InboundFailed
    | PeerIdentified
    | HandlerFailed
    | LimitReached
)


class EventStream:
    """The events from now on, for one consumer; `missed` counts those it was too slow for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int, refusals: dict[str, int]) -> None:
        self.missed = 0
        self._loop = loop
        self._refusals = refusals
        self._events: deque[Event | str] = deque(maxlen=limit)
        """A name among them is that of a limit, until it is taken."""
        self._limits: set[str] = set()
        """The names among them."""
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; ends with the host.

        Cancellation: no event is lost.
        """
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        event = self._events.popleft()
        if not isinstance(event, str):
            return event
        self._limits.discard(event)
        return LimitReached(event, self._refusals[event])

    def put(self, event: Event) -> None:
        """Add an event; the oldest makes room."""
        self._append(event)

    def put_limit(self, limit: str) -> None:
        """Add that a limit was reached, unless that is still to be taken."""
        if limit not in self._limits:
            self._limits.add(limit)
            self._append(limit)

    def _append(self, event: Event | str) -> None:
        events = self._events
        if len(events) == events.maxlen:
            self.missed += 1
            self._refusals["events"] += 1
            if events and isinstance(oldest := events[0], str):
                self._limits.discard(oldest)
        events.append(event)
        self._wake()

    def end(self) -> None:
        """End the iteration after what is there."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Events:
    """Hands every event to every consumer that is still there, and counts what limits refuse."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        self._loop = loop
        self._limit = limit
        self._refusals = {field.name: 0 for field in fields(Limits)}
        self.refusals: Mapping[str, int] = MappingProxyType(self._refusals)
        """How often each limit has refused, ended or dropped something."""
        # Weak: a consumer that dropped its iterator must not be fed for ever.
        self._streams: weakref.WeakSet[EventStream] = weakref.WeakSet()

    def subscribe(self) -> EventStream:
        """Return the events from now on."""
        stream = EventStream(self._loop, self._limit, self._refusals)
        self._streams.add(stream)
        return stream

    def put(self, event: Event) -> None:
        """Tell all consumers."""
        for stream in tuple(self._streams):
            stream.put(event)

    def refused(self, limit: str, count: int = 1, /) -> None:
        """Count what a limit has refused, ended or dropped, and tell all consumers, each at its own pace."""
        self._refusals[limit] += count
        for stream in tuple(self._streams):
            stream.put_limit(limit)

    def end(self) -> None:
        """End all iterations."""
        for stream in tuple(self._streams):
            stream.end()
