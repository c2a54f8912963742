"""One end of a connection as the operating system holds it: the socket beneath a transport."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiolibp2p.sim.network.listener import socket_name
from aiolibp2p.sim.network.packet import Address, Packet
from aiolibp2p.sim.network.pipe import Pipe
from aiolibp2p.sim.network.tap import Side
from aiolibp2p.sim.network.valve import Valve

if TYPE_CHECKING:
    from aiolibp2p.sim.network.host import Host
    from aiolibp2p.sim.network.topology import Topology

_SEGMENT_HEADER_BYTES = 40
_IPV6_SEGMENT_HEADER_BYTES = 60


class TcpPacket(Packet):
    """One packet of a TCP connection, on its way to an end of it; the first of all goes to an end that is not yet."""

    __slots__ = ("_arguments", "_on_arrival", "_on_loss", "acknowledges", "flags", "sequence", "to")

    protocol = "tcp"
    header_bytes = _SEGMENT_HEADER_BYTES

    def __init__(
        self,
        sender: Endpoint,
        to: Endpoint | None,
        flags: str,
        on_arrival: Callable[..., object],
        on_loss: Callable[..., object],
        arguments: tuple[Any, ...] = (),
    ) -> None:
        """Make a packet from one end to the other.

        Args:
            sender: where it comes from.
            to: where it goes, if that is known.
            flags: what it says.
            on_arrival: called at the other end.
            on_loss: called at once; TCP would have to find out.
            arguments: what either is called with.
        """
        assert sender.host is not None  # an end that has no host yet does not send
        super().__init__(sender.host, sender.address, sender.peer_address)
        self.to = to
        self.flags = flags
        self.sequence = 0
        """The number of its first byte; SYN is 0 and the first byte 1."""
        self.acknowledges = 0
        """The number of the next byte that its sender expects."""
        self._on_arrival = on_arrival
        self._on_loss = on_loss
        self._arguments = arguments

    def arrive(self) -> None:
        """Reach the end it is for, if its addresses still lead there; a host that was started again resets it."""
        to = self.to
        if to is None:
            self._on_arrival(self)
        elif to.host is not self.path.target or to.address != self.target or to.peer_address != self.source:
            self.path.net.drop(self, "stranger")
        elif not to.vanished:
            self._on_arrival(*self._arguments)
        elif self.flags != "rst":
            to.send_reset()

    def lose(self, reason: str) -> None:
        """Let the sender know."""
        self._on_loss(*self._arguments)


class Endpoint:
    """A connected socket: two pipes, and an error once the connection has failed."""

    def __init__(
        self, net: Topology, side: Side, host: Host | None, pipes: tuple[Pipe, Pipe], ends: tuple[Address, Address]
    ) -> None:
        """Make one end.

        Args:
            net: where it is.
            side: which end.
            host: whose it is; None is not known yet, as before a SYN has arrived.
            pipes: which lead out and in.
            ends: its own address and its peer's.
        """
        self.side: Side = side
        self.host: Host | None = None
        self.outgoing, self.incoming = pipes
        self.address, self.peer_address = ends
        self.valve = Valve(net.drop)
        self.peer: Endpoint
        self.error: OSError | None = None
        self.closed = True  # until it belongs to a host
        self.established = False
        """Whether its connection has been made, as far as its client knows."""
        self.vanished = False
        """Whether its host has crashed: nobody knows of it there any more."""
        self.on_failed: Callable[[], None] = _nothing
        self.on_closed: Callable[[], None] = _nothing
        self.on_vanished: Callable[[], None] = _nothing
        self._net = net
        self.outgoing.on_timeout = self._time_out
        self.incoming.on_unwanted = self.send_reset
        self.outgoing.forward = self.incoming.back = self.send_packet
        self.outgoing.segment_limit = self._segment_bytes
        if host is not None:
            self.settle(host, ends)

    @property
    def sockname(self) -> tuple[Any, ...]:
        """Its own address, as sockets give it."""
        return socket_name(self.address)

    @property
    def peername(self) -> tuple[Any, ...]:
        """Its peer's address, as it sees it, as sockets give it."""
        return socket_name(self.peer_address)

    def settle(self, host: Host, ends: tuple[Address, Address]) -> None:
        """Belong to a host, with the addresses that it has there."""
        self.host = host
        self.address, self.peer_address = ends
        self.closed = False
        host.endpoints[self] = None

    def abandon(self) -> None:
        """Be of no host any more."""
        self.closed = True
        if self.host is not None:
            self.host.endpoints.pop(self, None)

    def send_packet(
        self,
        flags: str,
        on_arrival: Callable[..., object],
        on_loss: Callable[..., object],
        arguments: tuple[Any, ...] = (),
        payload: bytes = b"",
        sequence: int | None = None,
    ) -> None:
        """Send one packet to the other end, through this end's valve; without a number it gets the next."""
        packet = TcpPacket(self, self.peer, flags, on_arrival, on_loss, arguments)
        packet.payload = payload
        packet.sequence = self.outgoing.next_sequence if sequence is None else sequence
        packet.acknowledges = self.incoming.expected_sequence
        if self.valve.state == "open":
            self._net.send(packet)
        else:
            self.valve.admit(packet, self._net.send)

    def _segment_bytes(self) -> int | None:
        """Return the largest payload that its path carries, or None if any is fine."""
        path = self.host.routes.get(self.peer_address[0]) if self.host is not None else None
        mtu = path.link.mtu if path is not None else None
        if mtu is None:
            return None
        return mtu - (_IPV6_SEGMENT_HEADER_BYTES if ":" in self.peer_address[0] else _SEGMENT_HEADER_BYTES)

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
        unread = self.incoming.unread_bytes
        self.incoming.close()
        if self.error is None:
            if unread:
                self.send_reset()
            else:
                self.outgoing.end()
        self._leave()

    def send_reset(self) -> None:
        """Send RST and forget the connection."""
        if self.error is None:
            self.error = _os_error(errno.ECONNRESET)
            self.outgoing.stop()
            if self.outgoing.record is not None:
                self.outgoing.record("rst", b"")
        self.incoming.refused = True
        self.send_packet("rst", self.peer.fail, self.incoming.lose_answer)

    def fail(self, code: int = errno.ECONNRESET) -> None:
        """Fail with an error of the operating system: by default, a reset arrived."""
        if self.error is None and not self.vanished:
            self.error = _os_error(code)
            self.outgoing.stop()
            self.on_failed()

    def vanish(self) -> None:
        """Be gone with the host, without a packet and without a word to the transport."""
        if self.established:  # else the client may ask again, and meet the host as it is then
            self.vanished = True
            self.on_failed = _nothing
            self.on_vanished()
            self.outgoing.stop()
            self.incoming.vanish()
        self._leave()

    def _leave(self) -> None:
        self.abandon()
        self.on_closed()

    def _time_out(self) -> None:
        self.fail(errno.ETIMEDOUT)


def _nothing() -> None:
    pass


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
