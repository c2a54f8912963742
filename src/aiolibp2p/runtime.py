"""The only door to time, randomness and sockets.

Everything above takes a Runtime and asks nothing else for the time, for random bytes or for a connection. The system's
runtime belongs to one event loop; on a simulated loop the same runtime reads virtual time.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiolibp2p.entropy import Entropy

_SAME_CLOCK_SECONDS = 1.0

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class Clock(Protocol):
    """Monotonic time in seconds, timers on it, and the wall clock."""

    def now(self) -> float:
        """Return the monotonic time that `call_at` counts in."""
        ...

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Call `callback(*args)` at `when`."""
        ...

    def wall(self) -> float:
        """Return seconds since 1970."""
        ...


class Net(Protocol):
    """TCP sockets."""

    async def connect_tcp(self, factory: ProtocolFactory, host: str, port: int) -> None:
        """Connect to `host`, an IP address or a name, and attach the protocol; raises OSError."""
        ...

    async def listen_tcp(self, factory: ProtocolFactory, host: str, port: int) -> asyncio.Server:
        """Listen on one IP address; port 0 lets the system choose; raises OSError."""
        ...

    async def stop_listening(self, servers: Sequence[asyncio.Server]) -> None:
        """Close what `listen_tcp` returned."""
        ...


class LoopClock:
    """The clock of an asyncio event loop; the wall clock is the system's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wall: Callable[[], float] = time.time) -> None:
        # uvloop's time goes in whole milliseconds; it is the system's monotonic clock, which can be read more finely. A
        # simulated loop has a time of its own.
        self.now = time.monotonic if abs(time.monotonic() - loop.time()) < _SAME_CLOCK_SECONDS else loop.time
        self.call_at = loop.call_at
        self.wall = wall


class SystemEntropy:
    """The operating system's random bytes."""

    def token(self, n: int) -> bytes:
        """Return `n` random bytes."""
        return os.urandom(n)

    def fork(self, label: str) -> SystemEntropy:
        """Return itself: the system's bytes need no splitting."""
        return self


class LoopNet:
    """TCP sockets of an asyncio event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    async def connect_tcp(self, factory: ProtocolFactory, host: str, port: int) -> None:
        """Connect to `host` and attach the protocol.

        Raises:
            OSError: refused, unreachable, or a name that does not resolve.
        Cancellation: the socket is closed.
        """
        try:
            await self._loop.create_connection(factory, host, port)
        except UnicodeError as error:
            # What getaddrinfo says of a name with an empty or overlong label; a peer may have told us that name.
            raise OSError(f"{host!r} is not a name that resolves") from error

    async def listen_tcp(self, factory: ProtocolFactory, host: str, port: int) -> asyncio.Server:
        """Listen on one IP address.

        Raises:
            OSError: the address is in use or not ours.
        Cancellation: the socket is closed.
        """
        # asyncio waits for a turn of the loop once the socket listens, and leaves it open when it is cancelled there.
        server = await self._loop.create_server(factory, host, port, backlog=socket.SOMAXCONN, start_serving=False)
        try:
            await server.start_serving()
        except BaseException:
            server.close()
            raise
        return server

    async def stop_listening(self, servers: Sequence[asyncio.Server]) -> None:
        """Close what `listen_tcp` returned; connections that were accepted in this turn get their protocols first.

        Cancellation: all are closed.
        """
        try:
            if isinstance(self._loop, asyncio.SelectorEventLoop):
                # asyncio loses the socket of a connection whose server is closed between its acceptance and the next
                # turn, in which it gets its transport: so nothing more is accepted, and that turn is waited for.
                for listening in (listening for server in servers for listening in server.sockets):
                    self._loop.remove_reader(listening.fileno())
                await asyncio.sleep(0)
        finally:
            for server in servers:
                server.close()


def os_error_text(error: OSError) -> str:
    """Return what an OSError says, in one line without the address (asyncio puts several texts into one)."""
    if error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Clock, entropy and sockets of one host."""

    clock: Clock
    entropy: Entropy
    net: Net

    @classmethod
    def system(cls) -> Runtime:
        """Return the runtime of the running event loop and the operating system.

        Raises:
            RuntimeError: no event loop is running.
        """
        loop = asyncio.get_running_loop()
        return cls(clock=LoopClock(loop), entropy=SystemEntropy(), net=LoopNet(loop))
