"""The asyncio transport of a simulated socket; it does what the selector loop's transport does."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from asyncio.transports import _FlowControlMixin
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from aiolibp2p.sim.network.endpoint import Endpoint
from aiolibp2p.sim.scheduler import VirtualTimeLoop

_READ_BYTES = 256 << 10


class SimTransport(_FlowControlMixin):
    """A transport over an Endpoint.

    Bytes that the socket has no room for stay in the transport as views of what was given to `write`, as in Python 3.12
    and later: a caller that reuses its buffer corrupts its stream here too. `abort` drops those; what the socket has
    taken still leaves, and then FIN, or RST if there are unread bytes.
    """

    _start_tls_compatible = True
    _maybe_pause_protocol: Callable[[], None]  # of the mixin, which the type stubs leave out
    _maybe_resume_protocol: Callable[[], None]

    def __init__(
        self,
        loop: VirtualTimeLoop,
        endpoint: Endpoint,
        protocol: asyncio.BaseProtocol,
        *,
        server: asyncio.Server | None = None,
        waiter: asyncio.Future[None] | None = None,
    ) -> None:
        """Attach a protocol to a connected socket, in the context of the caller; `waiter` is done once it has begun."""
        extra = {"sockname": endpoint.sockname, "peername": endpoint.peername, "socket": None}
        super().__init__(extra, loop)
        self.endpoint = endpoint
        self._order = loop.next_order()
        self._loop: VirtualTimeLoop = loop
        self._context = contextvars.copy_context()
        self._server: Any = server
        self._buffer: deque[bytes | memoryview] = deque()
        self._closing = False
        self._ending = False
        self._lost = False
        self._paused = False
        self._reading = False
        self._at_eof = False
        self._read_scheduled = False
        self._write_scheduled = False
        self.set_protocol(protocol)
        endpoint.incoming.on_readable = self._schedule_read
        endpoint.outgoing.on_room = self._schedule_write
        endpoint.on_failed = self._socket_failed
        endpoint.on_vanished = self._vanish
        if server is not None:
            attach: Any = server._attach  # type: ignore[attr-defined]
            attach(*_server_arguments(self))
        loop.call_soon(protocol.connection_made, self, context=self._context)
        loop.call_soon(self._begin, waiter, context=self._context)

    def __hash__(self) -> int:
        return self._order

    def __repr__(self) -> str:
        state = "closed" if self.endpoint.closed else "closing" if self._closing else "open"
        return f"<SimTransport {self.endpoint.side} {self.endpoint.sockname}->{self.endpoint.peername} {state}>"

    def _begin(self, waiter: asyncio.Future[None] | None) -> None:
        self._reading = True
        self._schedule_read()
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand what arrives to another protocol."""
        self._protocol: Any = protocol
        self._buffered_protocol = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    # Reading

    def is_reading(self) -> bool:
        """Return whether the protocol gets what arrives."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """Leave what arrives in the socket, whose window then closes."""
        self._paused = True

    def resume_reading(self) -> None:
        """Read again."""
        if self._paused and not self._closing:
            self._paused = False
            self._schedule_read()

    def _schedule_read(self) -> None:
        if not self._read_scheduled and self._reading and not self._paused and not self._closing:
            incoming = self.endpoint.incoming
            if incoming.unread_bytes or self.endpoint.error or (incoming.eof and not self._at_eof):
                self._read_scheduled = True
                self._loop.call_soon(self._read_ready, context=self._context)

    def _read_ready(self) -> None:
        self._read_scheduled = False
        if self._paused or self._closing:
            return
        incoming, error = self.endpoint.incoming, self.endpoint.error
        try:
            if incoming.unread_bytes:
                self._feed()
            elif error is not None:
                self._fatal_error(error, "Fatal read error on simulated transport")
            elif incoming.eof and not self._at_eof:
                self._at_eof = True
                if not self._protocol.eof_received():
                    self.close()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:  # noqa: BLE001  # what a callback raises ends its connection, as in asyncio
            self._fatal_error(exc, "Fatal error: a callback of the protocol failed.")
        self._schedule_read()

    def _feed(self) -> None:
        protocol, incoming = self._protocol, self.endpoint.incoming
        if not self._buffered_protocol:
            protocol.data_received(incoming.read(_READ_BYTES))
            return
        buffer = memoryview(protocol.get_buffer(-1))
        if not len(buffer):
            raise RuntimeError("get_buffer() returned an empty buffer")
        data = incoming.read(len(buffer))
        buffer[: len(data)] = data
        buffer.release()
        protocol.buffer_updated(len(data))

    # Writing

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send bytes; what the socket has no room for is kept and must not change."""
        self._write(data)
        self._maybe_pause_protocol()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Send several pieces as one write."""
        for data in list_of_data:
            self._write(data)
        self._maybe_pause_protocol()

    def _write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._ending:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self._lost:
            return
        if not self._buffer:
            try:
                taken = self.endpoint.send(data if isinstance(data, bytes) else memoryview(data).cast("B"))
            except OSError as error:
                self._fatal_error(error, "Fatal write error on simulated transport")
                return
            if taken == len(data):
                return
            data = memoryview(data).cast("B")[taken:]
        self._buffer.append(memoryview(data).cast("B"))

    def _schedule_write(self) -> None:
        if self._buffer and not self._write_scheduled:
            self._write_scheduled = True
            self._loop.call_soon(self._write_ready, context=self._context)

    def _write_ready(self) -> None:
        self._write_scheduled = False
        if self._lost:
            return
        try:
            while self._buffer:
                taken = self.endpoint.send(self._buffer[0])
                if taken < len(self._buffer[0]):
                    self._buffer[0] = self._buffer[0][taken:]
                    break
                self._buffer.popleft()
        except OSError as error:
            self._fatal_error(error, "Fatal write error on simulated transport")
            return
        self._maybe_resume_protocol()
        if not self._buffer:
            if self._closing:
                self._lose(None)
            elif self._ending:
                self.endpoint.outgoing.end()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the socket has not taken."""
        return sum(map(len, self._buffer))

    def can_write_eof(self) -> bool:
        """Return True."""
        return True

    def write_eof(self) -> None:
        """Send FIN behind what was written."""
        if self._closing or self._ending:
            return
        self._ending = True
        if not self._buffer:
            self.endpoint.outgoing.end()

    # The end

    def is_closing(self) -> bool:
        """Return whether the transport is closing or closed."""
        return self._closing

    def close(self) -> None:
        """Read no more, and close the socket once it has taken all that was written."""
        if self._closing:
            return
        self._closing = True
        if not self._buffer:
            self._lose(None)

    def abort(self) -> None:
        """Drop what the socket has not taken and close it."""
        self._force_close(None)

    def _socket_failed(self) -> None:
        # A real loop hears of it from whichever direction it waits for.
        self._schedule_write()
        self._schedule_read()

    def _vanish(self) -> None:
        self._buffer.clear()
        self._closing = self._lost = True

    def _fatal_error(self, error: BaseException, message: str) -> None:
        if not isinstance(error, OSError):
            report = {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
            self._loop.call_exception_handler(report)
        self._force_close(error)

    def _force_close(self, error: BaseException | None) -> None:
        if not self._lost:
            self._buffer.clear()
            self._closing = True
            self._lose(error)

    def _lose(self, error: BaseException | None) -> None:
        if not self._lost:
            self._lost = True
            self._loop.call_soon(self._call_connection_lost, error, context=self._context)

    def _call_connection_lost(self, error: BaseException | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self.endpoint.close()
            self._protocol = None
            server, self._server = self._server, None
            if server is not None:
                server._detach(*_server_arguments(self))


def _server_arguments(transport: SimTransport) -> tuple[SimTransport, ...]:
    return (transport,) if sys.version_info >= (3, 13) else ()
