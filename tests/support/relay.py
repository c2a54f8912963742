"""A relay between two sockets on 127.0.0.1 that can fall silent, or die: what a cut cable looks like to both ends."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self, cast


class _End(asyncio.Protocol):
    """One of the two sockets of a relayed connection."""

    transport: asyncio.Transport

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.other: _End | None = None
        self.held = bytearray()
        self.finished = False
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.relay.ends.append(self)
        if self.relay.closed:
            self.transport.abort()  # it was accepted in the turn in which the relay was left

    def data_received(self, data: bytes) -> None:
        self.held += data
        self.pass_on()

    def eof_received(self) -> bool:
        self.finished = True
        self.pass_on()
        return True

    def pass_on(self) -> None:
        """Give the other end what is held, as far as the relay lets it."""
        if self.other is None or self.relay.silent:
            return
        while self.held:
            room = self.relay.room()
            if not room:
                self.relay.hold()
                return
            passed = bytes(self.held[:room])
            del self.held[: len(passed)]
            self.relay.bytes_passed += len(passed)
            self.other.transport.write(passed)
        if self.finished:
            self.other.transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        if self.other is not None and not self.relay.silent:
            self.other.transport.abort()


class Relay:
    """Listens, and relays every connection to one port.

    Args:
        silent_after: how many bytes pass, both ways together, before it falls silent; None is no end.
    """

    def __init__(self, port: int, *, silent_after: int | None = None) -> None:
        self.silent = False
        self.closed = False
        self.bytes_passed = 0
        self.ends: list[_End] = []
        self.port = 0
        self._target = port
        self._silent_after = silent_after
        self._connecting: list[asyncio.Task[None]] = []

    def room(self) -> int:
        """Return how many bytes may pass now."""
        return 1 << 20 if self._silent_after is None else self._silent_after - self.bytes_passed

    def hold(self) -> None:
        """Let nothing pass any more: no byte, no end, no reset."""
        self.silent = True

    def release(self) -> None:
        """Let everything pass again, and what was held first."""
        self.silent = False
        self._silent_after = None
        for end in self.ends:
            end.pass_on()

    def kill(self) -> None:
        """Reset all sockets."""
        for end in self.ends:
            end.transport.abort()

    def _accept(self) -> _End:
        end = _End(self)
        loop = asyncio.get_running_loop()
        self._connecting.append(loop.create_task(self._connect(end), name="relay"))
        return end

    async def _connect(self, end: _End) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, other = await loop.create_connection(lambda: _End(self), "127.0.0.1", self._target)
        except OSError:
            end.transport.abort()
            return
        if end.gone:
            other.transport.abort()
            return
        end.other, other.other = other, end
        end.pass_on()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = True
        self._server.close()
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        self.silent = True
        self.kill()
        await asyncio.sleep(0)
