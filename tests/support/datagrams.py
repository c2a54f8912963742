"""UDP sockets of simulated hosts for tests."""

from __future__ import annotations

import asyncio
from typing import Any

from aiolibp2p.sim import Host, current_loop
from aiolibp2p.sim.network import SimDatagramTransport


class Mailbox(asyncio.DatagramProtocol):
    """Keeps everything that happens to it, with its time."""

    def __init__(self) -> None:
        self.received: list[tuple[int, bytes, tuple[Any, ...]]] = []
        self.errors: list[tuple[int, Exception]] = []
        self.events: list[str] = []
        self.transport: SimDatagramTransport

    @property
    def payloads(self) -> list[bytes]:
        return [data for _, data, _ in self.received]

    @property
    def times_ns(self) -> list[int]:
        return [at_ns for at_ns, _, _ in self.received]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SimDatagramTransport)
        self.transport = transport
        self.events.append("made")

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self.received.append((current_loop().time_ns(), data, addr))

    def error_received(self, exc: Exception) -> None:
        self.errors.append((current_loop().time_ns(), exc))

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost" if exc is None else repr(exc))

    def send(self, data: bytes, host: Host | None = None, port: int = 7) -> None:
        """Send to a host's first address, or to whom the socket is connected."""
        self.transport.sendto(data, None if host is None else (host.addresses[0], port))


class Echo(Mailbox):
    """Sends back what it gets."""

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        super().datagram_received(data, addr)
        self.transport.sendto(data, addr)


async def mailbox(host: Host, *, port: int = 7, to: tuple[str, int] | None = None, echo: bool = False) -> Mailbox:
    """Return a socket of a host on all its IPv4 addresses, or one that is connected."""
    made = Echo() if echo else Mailbox()
    with host.here():
        if to is not None:
            await current_loop().create_datagram_endpoint(lambda: made, remote_addr=to)
        else:
            await current_loop().create_datagram_endpoint(lambda: made, local_addr=("0.0.0.0", port))
    return made
