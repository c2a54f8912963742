"""A TCP connection: its handshake, its two ends, and what a test may do to it."""

from __future__ import annotations

import asyncio
import errno
import random
import zlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from aiolibp2p.sim.network.endpoint import Endpoint, TcpPacket
from aiolibp2p.sim.network.host import Host
from aiolibp2p.sim.network.listener import Listener
from aiolibp2p.sim.network.packet import Address, Packet
from aiolibp2p.sim.network.pipe import Pipe
from aiolibp2p.sim.network.tap import Kind, Sent, Side
from aiolibp2p.sim.network.transport import SimTransport
from aiolibp2p.sim.scheduler import NS

if TYPE_CHECKING:
    from aiolibp2p.sim.network.net import SimNet

HANDSHAKE_RETRIES = 6
"""How often a lost SYN is sent again, after 1, 2, 4 … seconds: ETIMEDOUT after 127 s, as on Linux."""


class Connection:
    """A connection between two hosts, or within one.

    The client's end connects after one round trip; the server's end is accepted when the client's ACK has arrived.
    """

    def __init__(self, net: SimNet, client_host: Host, addresses: tuple[Address, Address]) -> None:
        """Make one that is not connected yet; addresses are the client's and the server's."""
        self.id = net.next_connection()
        self.client_transport: SimTransport | None = None
        self.server_transport: SimTransport | None = None
        self._net = net
        self._loop = net.loop
        self._listener: Listener | None = None
        self._accepted = False
        self._connected = self._loop.create_future()
        self._established = False
        self._syn_sent_ns = 0
        there, back = self._make_pipe("client"), self._make_pipe("server")
        self.client = Endpoint(net, "client", client_host, (there, back), addresses)
        self.server = Endpoint(net, "server", None, (back, there), addresses[::-1])
        self.client.peer, self.server.peer = self.server, self.client
        self.client.on_closed = self.server.on_closed = self._closed
        self.server.incoming.on_readable = self._ack_arrives

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.client.sockname}->{self.client.peername}>"

    def _make_pipe(self, by: Side) -> Pipe:
        rng = random.Random(f"{self._loop.seed}/tcp/{self.id}/{by}") if self._net.tuning.ragged else None
        pipe = Pipe(self._loop, self._net.tuning, rng)
        pipe.record = partial(self._record, by)
        return pipe

    def _record(self, by: Side, kind: Kind, data: bytes) -> None:
        now_ns, trace = self._loop.time_ns(), self._loop.trace
        if trace is not None:
            trace.add(f"{now_ns} tcp {self.id} {by} {kind} {len(data)} {zlib.crc32(data):08x}")
        for tap in self._net.taps:
            tap.segments.append(Sent(now_ns, self.id, by, kind, data))

    # What a test may do

    def end(self, side: Side) -> Endpoint:
        """Return one end."""
        return self.client if side == "client" else self.server

    @property
    def held(self) -> list[Packet]:
        """What `hold` holds back."""
        return self.client.valve.held + self.server.valve.held

    def hold(self, by: Side) -> None:
        """Hold back whatever this side sends, acknowledgements too, until `open`."""
        self.end(by).valve.hold()

    def black_hole(self, by: Side) -> None:
        """Swallow whatever this side sends until `open`; both black holes make both ends half-open."""
        self.end(by).valve.cut()

    def open(self) -> None:
        """Let everything through again; what was swallowed is sent again when TCP would."""
        for end in (self.client, self.server):
            end.valve.open()

    def stop_reading(self, side: Side) -> None:
        """Let one side's program read no more, as a slow reader does; `start_reading` ends it."""
        self.transport(side).pause_reading()

    def start_reading(self, side: Side) -> None:
        """Let one side's program read again."""
        self.transport(side).resume_reading()

    def reset(self, side: Side | None = None) -> None:
        """Let RST arrive now at one end, or at both, as from something between them."""
        for end in (self.client, self.server):
            if side in (None, end.side):
                end.fail()

    def transport(self, side: Side) -> SimTransport:
        """Return the transport of one side.

        Raises:
            LookupError: it has none yet.
        """
        transport = self.client_transport if side == "client" else self.server_transport
        if transport is None:
            raise LookupError(f"{self!r} has no transport on the {side}'s side yet")
        return transport

    # The handshake

    async def connect(self) -> None:
        """Connect.

        Raises:
            OSError: ECONNREFUSED, ECONNRESET or ETIMEDOUT.
        Cancellation: the connection is given up; a listener that has accepted it sees it end.
        """
        self._send_syn()
        try:
            await self._connected
        except BaseException:
            if self._established:
                self.client.close()
            else:
                self.client.abandon()
                self._closed()
            raise

    def _send_syn(self, tries: int = 0) -> None:
        """Send SYN, and again if it or its answer is lost, for a client that hears nothing cannot tell.

        The server's end is whoever a SYN reaches, with the addresses it has then.
        """
        lost = False

        def lose() -> None:
            nonlocal lost
            if not lost:
                again = partial(self._send_syn, tries + 1) if tries < HANDSHAKE_RETRIES else self._give_up
                self._loop.call_at_ns(sent_ns + (NS << tries), again)
            lost = True

        def arrive(arrived: Packet) -> None:
            self._syn_arrives(arrived, lose)

        if self.client.closed or self._connected.done():
            return
        sent_ns = self._syn_sent_ns = self._loop.time_ns()
        syn = TcpPacket(self.client, None, "syn", arrive, lose)
        self.client.valve.admit(syn, self._net.send)

    def _give_up(self) -> None:
        if not self._connected.done():
            self._fail(errno.ETIMEDOUT)

    def _syn_arrives(self, syn: Packet, lose: Callable[[], None]) -> None:
        host = syn.path.target
        assert host is not None  # what leads nowhere never arrives
        if self.client.closed or self._connected.done():
            return  # given up, or a duplicate
        if self.server.closed:
            self.server.settle(host, (syn.target, syn.source))
            self._listener = host.listener_at(syn.target)
        if self._listener is None:
            self._answer_reset(errno.ECONNREFUSED, lose)
            self.server.abandon()
        else:
            self.server.send_packet("syn ack", self._syn_ack_arrives, lose, sequence=0)

    def _answer_reset(self, code: int, lose: Callable[[], None]) -> None:
        self.server.send_packet("rst", partial(self._fail, code), lose)

    def _fail(self, code: int) -> None:
        if not self._connected.done():
            self._connected.set_exception(OSError(code, f"Connect call failed {self.client.peername}"))
        else:
            self.client.fail(code)

    def _syn_ack_arrives(self) -> None:
        if not self._connected.done() and not self.client.closed:
            self._established = self.client.established = self.server.established = True
            if self.server.closed:
                self.server.vanish()  # its host has crashed since it answered
            round_trip_ns = self._loop.time_ns() - self._syn_sent_ns
            self.client.outgoing.round_trip_ns = self.client.incoming.round_trip_ns = round_trip_ns
            self._connected.set_result(None)
            self._send_ack()

    def _send_ack(self, tries: int = 0) -> None:
        """Send the last packet of the handshake, and again if it is lost; what carries bytes does as well."""

        def lose() -> None:
            if tries < HANDSHAKE_RETRIES and not self.client.vanished:
                self._loop.call_at_ns(sent_ns + (NS << tries), partial(self._send_ack, tries + 1))

        sent_ns = self._loop.time_ns()
        if not (self._accepted or self.client.vanished):
            self.client.send_packet("ack", self._ack_arrives, lose)

    def _ack_arrives(self) -> None:
        listener = self._listener
        if not self._accepted and listener is not None:  # only a listener answers with SYN-ACK
            self._accepted = True
            listener.host.enter(listener.context.copy(), self._accept, listener)

    def _accept(self, listener: Listener) -> None:
        factory, server = listener.factory, listener.server
        if factory is None or server is None:
            self._answer_reset(errno.ECONNRESET, _nothing)
            self.server.close()
            return
        try:
            protocol = factory()
        except Exception as error:  # noqa: BLE001  # a factory that fails costs one connection
            self._loop.call_exception_handler(
                {"message": "the protocol factory of a server failed", "exception": error}
            )
            self.server.send_reset()
            self.server.close()
            return
        self.server_transport = SimTransport(self._loop, self.server, protocol, server=server)

    def attach_client(self, protocol: asyncio.BaseProtocol, waiter: asyncio.Future[None]) -> SimTransport:
        """Attach the client's protocol; `waiter` is done once it has begun."""
        self.client_transport = SimTransport(self._loop, self.client, protocol, waiter=waiter)
        return self.client_transport

    def _closed(self) -> None:
        if self.client.closed and not self._established:
            self.server.abandon()
        if self.client.closed and self.server.closed:
            self._net.forget(self)


def _nothing() -> None:
    pass
