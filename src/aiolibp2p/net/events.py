"""What a host tells those who listen, through queues that drop the oldest rather than hold anything up."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from aiolibp2p.errors import Libp2pError, LimitError

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


Event = ConnectionOpened | ConnectionClosed | ConnectionRefused | InboundFailed | PeerIdentified | HandlerFailed


class EventStream:
    """The events from now on, for one consumer; `missed` counts those it was too slow for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        self.missed = 0
        self._loop = loop
        self._events: deque[Event] = deque(maxlen=limit)
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
        return self._events.popleft()

    def put(self, event: Event) -> None:
        """Add an event; the oldest makes room."""
        if len(self._events) == self._events.maxlen:
            self.missed += 1
        self._events.append(event)
        self._wake()

    def end(self) -> None:
        """End the iteration after what is there."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Events:
    """Hands every event to every consumer that is still there."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        self._loop = loop
        self._limit = limit
        # Weak: a consumer that dropped its iterator must not be fed for ever.
        self._streams: weakref.WeakSet[EventStream] = weakref.WeakSet()

    def subscribe(self) -> EventStream:
        """Return the events from now on."""
        stream = EventStream(self._loop, self._limit)
        self._streams.add(stream)
        return stream

    def put(self, event: Event) -> None:
        """Tell all consumers."""
        for stream in tuple(self._streams):
            stream.put(event)

    def end(self) -> None:
        """End all iterations."""
        for stream in tuple(self._streams):
            stream.end()
