"""One end of a connection as the operating system holds it: the socket beneath a transport."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from aiolibp2p.sim.network.pipe import Pipe
from aiolibp2p.sim.network.tap import Side
from aiolibp2p.sim.network.wire import Packet, Wire


class Endpoint:
    """A connected socket: two pipes, and an error once the connection has failed."""

    def __init__(self, side: Side, pipes: tuple[Pipe, Pipe], wire: Wire, names: tuple[Any, Any]) -> None:
        """Make one end; `pipes` lead out and in, `wire` carries resets, `names` are its own and its peer's address."""
        self.side: Side = side
        self.outgoing, self.incoming = pipes
        self.sockname, self.peername = names
        self.peer: Endpoint
        self.error: OSError | None = None
        self.closed = False
        self.on_failed: Callable[[], None] = lambda: None
        self.on_closed: Callable[[], None] = lambda: None
        self._wire = wire
        self.outgoing.on_timeout = self._time_out
        self.incoming.on_unwanted = self.send_reset

    def send(self, data: bytes | memoryview) -> int:
        """Take what there is room for.

        Raises:
            OSError: the connection has failed.
        """
        if self.error is not None:
            raise self.error
        return self.outgoing.write(data)

    def close(self) -> None:
        """Close the socket: what was taken still leaves, then FIN; with unread bytes it is RST, as on Linux."""
        if self.closed:
            return
        self.closed = True
        unread = self.incoming.unread_bytes
        self.incoming.close()
        if self.error is None:
            if unread:
                self.send_reset()
            else:
                self.outgoing.end()
        self.on_closed()

    def send_reset(self) -> None:
        """Send RST and forget the connection."""
        if self.error is None:
            self.error = _os_error(errno.ECONNRESET)
            self.outgoing.stop()
            if self.outgoing.record is not None:
                self.outgoing.record("rst", b"")
        self._wire.send(Packet(0, self.peer.fail, lambda: None))

    def fail(self, code: int = errno.ECONNRESET) -> None:
        """Fail with an error of the operating system: by default, a reset arrived."""
        if self.error is None:
            self.error = _os_error(code)
            self.outgoing.stop()
            self.on_failed()

    def _time_out(self) -> None:
        self.fail(errno.ETIMEDOUT)


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
