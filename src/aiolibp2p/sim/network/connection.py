"""A TCP connection: its handshake, its two ends, and what a test may do to it."""

from __future__ import annotations

import asyncio
import errno
import random
import zlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from aiolibp2p.sim.network.endpoint import Endpoint
from aiolibp2p.sim.network.host import Address, Host, Listener, socket_name
from aiolibp2p.sim.network.pipe import Pipe
from aiolibp2p.sim.network.tap import Kind, Sent, Side
from aiolibp2p.sim.network.transport import SimTransport
from aiolibp2p.sim.network.wire import Packet, Wire
from aiolibp2p.sim.scheduler import NS

if TYPE_CHECKING:
    from aiolibp2p.sim.network.net import SimNet

HANDSHAKE_RETRIES = 6
"""How often a lost SYN is sent again, after 1, 2, 4 … seconds: ETIMEDOUT after 127 s, as on Linux."""


class Connection:
    """A connection between two hosts, or within one.

    The client's end connects after one round trip; the server's end is accepted when the client's ACK has arrived.
    """

    def __init__(self, net: SimNet, hosts: tuple[Host, Host | None], addresses: tuple[Address, Address]) -> None:
        """Make one that is not connected yet; hosts and addresses are the client's and the server's."""
        self.id = net.next_connection()
        self.client_transport: SimTransport | None = None
        self.server_transport: SimTransport | None = None
        self._net = net
        self._loop = net.loop
        self._server_host = hosts[1]
        self._server_address = addresses[1]
        self._listener: Listener | None = None
        self._connected = self._loop.create_future()
        self._established = False
        client_host, server_host = hosts
        self.wires: dict[Side, Wire] = {
            "client": Wire(net.path(client_host, server_host)),
            "server": Wire(net.path(server_host, client_host)),
        }
        pipes = {by: self._make_pipe(by) for by in self.wires}
        names = socket_name(addresses[0]), socket_name(addresses[1])
        self.client = Endpoint("client", (pipes["client"], pipes["server"]), self.wires["client"], names)
        self.server = Endpoint("server", (pipes["server"], pipes["client"]), self.wires["server"], names[::-1])
        self.client.peer, self.server.peer = self.server, self.client
        self.client.on_closed = self.server.on_closed = self._closed

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.client.sockname}->{self.client.peername}>"

    def _make_pipe(self, by: Side) -> Pipe:
        back: Side = "server" if by == "client" else "client"
        rng = random.Random(f"{self._loop.seed}/tcp/{self.id}/{by}") if self._net.tuning.ragged else None
        pipe = Pipe(self._loop, (self.wires[by], self.wires[back]), self._net.tuning, rng)
        pipe.record = partial(self._record, by)
        return pipe

    def _record(self, by: Side, kind: Kind, data: bytes) -> None:
        now_ns, trace = self._loop.time_ns(), self._loop.trace
        if trace is not None:
            trace.add(f"{now_ns} tcp {self.id} {by} {kind} {len(data)} {zlib.crc32(data):08x}")
        for tap in self._net.taps:
            tap.segments.append(Sent(now_ns, self.id, by, kind, data))

    # What a test may do

    def hold(self, by: Side) -> None:
        """Hold back whatever this side sends, acknowledgements too, until `open`."""
        self.wires[by].valve.hold()

    def black_hole(self, by: Side) -> None:
        """Swallow whatever this side sends until `open`; both black holes make both ends half-open."""
        self.wires[by].valve.cut()

    def open(self) -> None:
        """Let everything through again; what was swallowed is sent again when TCP would."""
        for wire in self.wires.values():
            wire.valve.open()

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
        self._insist("client", self._syn_arrives, lambda: self._fail(errno.ETIMEDOUT))
        try:
            await self._connected
        except BaseException:
            if self._established:
                self.client.close()
            else:
                self.client.closed = self.server.closed = True
                self._closed()
            raise

    def _insist(self, by: Side, arrive: Callable[[], None], give_up: Callable[[], None], tries: int = 0) -> None:
        def lose() -> None:
            delay_ns = NS << tries
            again = give_up if tries == HANDSHAKE_RETRIES else partial(self._insist, by, arrive, give_up, tries + 1)
            self._loop.call_at_ns(self._loop.time_ns() + delay_ns, again)

        if self.client.closed and not self._established:
            return
        self.wires[by].send(Packet(0, arrive, lose))

    def _syn_arrives(self) -> None:
        assert self._server_host is not None  # the path to an address that nobody has carries nothing
        self._listener = self._server_host.listener_at(self._server_address)
        if self._listener is None:
            self._answer_reset(errno.ECONNREFUSED)
        else:
            self._insist("server", self._syn_ack_arrives, lambda: None)

    def _answer_reset(self, code: int) -> None:
        self.wires["server"].send(Packet(0, lambda: self._fail(code), lambda: None))

    def _fail(self, code: int) -> None:
        if not self._connected.done():
            self._connected.set_exception(OSError(code, f"Connect call failed {self.client.peername}"))
        else:
            self.client.fail(code)

    def _syn_ack_arrives(self) -> None:
        if not self._connected.done():
            self._established = True
            self._connected.set_result(None)
            self._insist("client", self._ack_arrives, lambda: None)

    def _ack_arrives(self) -> None:
        listener = self._listener
        assert listener is not None  # only a listener answers with SYN-ACK
        if listener.factory is None or listener.server is None:
            self._answer_reset(errno.ECONNRESET)
            self.server.close()
            return
        listener.context.copy().run(self._accept, listener.factory, listener.server)

    def _accept(self, factory: Callable[[], asyncio.BaseProtocol], server: asyncio.Server) -> None:
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
        if self.client.closed and self.server.closed:
            self._net.forget(self)
