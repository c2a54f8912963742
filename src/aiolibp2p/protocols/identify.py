"""Identify, `/ipfs/id/1.0.0`, and its push: what each side is and speaks (libp2p specs, identify/README.md).

Every connection is asked at once, on callbacks: a peer that never answers holds no task, and after `Timeouts.identify`
no stream. A push goes to the peers that take it when our protocols or addresses change, once for all changes within
`Timeouts.identify_push_delay`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from aiolibp2p.errors import ConnectionEndedError, DeadlineError, Libp2pError
from aiolibp2p.identity.envelope import seal_peer_record
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.log import logger_of
from aiolibp2p.net.connection import Connection
from aiolibp2p.net.stream import Stream
from aiolibp2p.runtime import Clock
from aiolibp2p.sansio.identify import Decoder, Identify, encode, merge_push, verify

_log = logger_of("protocols")

PROTOCOL = "/ipfs/id/1.0.0"
PUSH_PROTOCOL = "/ipfs/id/push/1.0.0"
PROTOCOL_VERSION = "ipfs/0.1.0"


class IdentifyUser(Protocol):
    """What is told to peers, and who hears what they tell."""

    def listen_addresses(self) -> Sequence[Multiaddr]:
        """Return where this host listens, without its peer ID."""
        ...

    def protocols(self) -> Sequence[str]:
        """Return what this host accepts."""
        ...

    def on_identified(self, connection: Connection, identify: Identify) -> None:
        """Take note of what a peer has said, or pushed."""
        ...

    def refused(self, limit: str, count: int = 1, /) -> None:
        """Count what a limit has refused, ended or dropped."""
        ...


class Identifier:
    """Tells peers what this host is, and asks them."""

    def __init__(
        self,
        *,
        key: PrivateKey,
        agent: str,
        clock: Clock,
        limits: Limits,
        timeouts: Timeouts,
        user: IdentifyUser,
    ) -> None:
        self._key = key
        self._agent = agent
        self._clock = clock
        self._limits = limits
        self._timeouts = timeouts
        self._user = user
        self._queries: dict[Connection, _Query] = {}
        self._failures: dict[Connection, Libp2pError] = {}
        self._record: tuple[tuple[Multiaddr, ...], bytes] | None = None
        self._record_seq = 0
        self._push_timer: asyncio.TimerHandle | None = None
        self._closed = False

    # -- asking ------------------------------------------------------------------------------------------------------

    def ask(self, connection: Connection) -> None:
        """Ask the peer what it is; `connection.identify` is set when it has answered."""
        self._failures.pop(connection, None)
        self._queries[connection] = _Query(self, connection)

    async def identified(self, connection: Connection) -> Identify:
        """Return what the peer said, waiting for it if need be.

        Raises:
            DeadlineError: it has not answered within `Timeouts.identify`.
            NegotiationError: it does not speak identify.
            RemoteProtocolError: its answer was no identify message, or that of another peer.
            ConnectionEndedError, StreamResetError, LimitError: as they say.
        Cancellation: the query goes on.
        """
        if connection.identify is None and connection in self._failures:
            self.ask(connection)
        query = self._queries.get(connection)
        if connection.identify is None and query is not None:
            await query.wait()
        if connection.identify is not None:
            return connection.identify
        failure = self._failures.get(connection) or connection.ended
        raise (failure or ConnectionEndedError(by="local")).with_traceback(None)

    def forget(self, connection: Connection) -> None:
        """Take note of a connection's end."""
        query = self._queries.get(connection)
        if query is not None:
            query.finish(connection.ended)
        self._failures.pop(connection, None)

    def query_ended(self, connection: Connection, result: Identify | Libp2pError | None) -> None:
        """Take note of how a query ended."""
        self._queries.pop(connection, None)
        if isinstance(result, Identify):
            self._note(connection, result)
        elif result is not None and connection.ended is None:
            self._failures[connection] = result

    def _note(self, connection: Connection, identify: Identify) -> None:
        connection.identify = identify
        # What it says now outweighs what it refused before.
        connection.refused.difference_update(identify.protocols)
        self._user.on_identified(connection, identify)

    def checked(self, decoder: Decoder, connection: Connection) -> Identify:
        """Return what the peer of a connection said, now that it has ended.

        Raises:
            RemoteProtocolError: it was no identify message, or that of another peer.
        """
        return verify(decoder.receive_eof(), connection.peer_id, self._limits, self._user.refused)

    def new_query(self) -> tuple[Decoder, float, Clock]:
        """Return what a query works with: a decoder, its time, and the clock."""
        return Decoder(self._limits, self._user.refused), self._timeouts.identify, self._clock

    # -- answering ---------------------------------------------------------------------------------------------------

    async def answer(self, stream: Stream) -> None:
        """Tell a peer what this host is."""
        for message in self._messages(stream.connection):
            await stream.write(message)
        stream.close()

    async def take_push(self, stream: Stream) -> None:
        """Take what a peer says has changed.

        Raises:
            LimitError: there was too much of it.
            RemoteProtocolError: it was no identify message, or that of another peer.
        """
        stream.idle_timeout = self._timeouts.identify
        decoder = Decoder(self._limits, self._user.refused)
        async for data in stream:
            decoder.receive_bytes(data)
        connection = stream.connection
        update = self.checked(decoder, connection)
        old = connection.identify
        self._note(connection, update if old is None else merge_push(old, update))

    def push_soon(self, connections: Callable[[], Sequence[Connection]]) -> None:
        """Tell the peers that take pushes, a little later, so that several changes make one."""
        if self._push_timer is None and not self._closed:
            when = self._clock.now() + self._timeouts.identify_push_delay
            self._push_timer = self._clock.call_at(when, self._push, connections)

    def close(self) -> None:
        """Push nothing any more."""
        self._closed = True
        if self._push_timer is not None:
            self._push_timer.cancel()
            self._push_timer = None

    def _push(self, connections: Callable[[], Sequence[Connection]]) -> None:
        self._push_timer = None
        for connection in connections():
            identify = connection.identify
            if identify is None or PUSH_PROTOCOL not in identify.protocols or connection.ended is not None:
                continue
            try:
                stream = connection.open_now(PUSH_PROTOCOL)
            except Libp2pError:
                continue  # a peer without room for a stream learns it with its next connection
            messages = b"".join(self._messages(connection))
            if stream.try_write(messages) == len(messages):
                stream.close()
            else:
                stream.reset()

    def _messages(self, connection: Connection) -> list[bytes]:
        addresses = tuple(self._user.listen_addresses())
        return encode(
            Identify(
                protocol_version=PROTOCOL_VERSION,
                agent_version=self._agent,
                public_key=self._key.public,
                listen_addresses=addresses,
                observed_address=connection.remote_address,
                protocols=tuple(self._user.protocols()),
                signed_peer_record=self._signed_record(addresses) if addresses else None,
            )
        )

    def _signed_record(self, addresses: tuple[Multiaddr, ...]) -> bytes:
        if self._record is None or self._record[0] != addresses:
            self._record_seq = max(self._record_seq + 1, int(self._clock.wall() * 1e9))
            self._record = (addresses, seal_peer_record(self._key, self._record_seq, addresses))
        return self._record[1]


class _Query:
    """One question on one connection; ends by an answer, an error, its time, or the connection's end."""

    def __init__(self, identifier: Identifier, connection: Connection) -> None:
        self._identifier = identifier
        self._connection = connection
        self._waiters: list[asyncio.Future[None]] = []
        self._stream: Stream | None = None
        self._decoder, seconds, clock = identifier.new_query()
        error = DeadlineError("identify", seconds, stage="identify")
        self._timer: asyncio.TimerHandle = clock.call_at(clock.now() + seconds, self.finish, error)
        try:
            self._stream = connection.open_now(PROTOCOL)
        except Libp2pError as opening:
            self._timer.cancel()
            self._timer = clock.call_at(clock.now(), self.finish, opening)
            return
        self._stream.on_readable(self._on_readable)

    async def wait(self) -> None:
        """Wait for the end; bounded by the query's time."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def finish(self, result: Identify | Libp2pError | None) -> None:
        """End the query."""
        self._timer.cancel()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.on_readable(None)
            if isinstance(result, Identify):
                stream.close()
            else:
                stream.reset()
        if isinstance(result, Libp2pError) and _log.isEnabledFor(logging.DEBUG):
            _log.debug("a peer was not identified", extra={"peer_id": self._connection.peer_id, "error": result})
        self._identifier.query_ended(self._connection, result)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def _on_readable(self) -> None:
        stream = self._stream
        try:
            while stream is not None and (data := stream.try_read()) is not None:
                if data:
                    self._decoder.receive_bytes(data)
                else:
                    self.finish(self._identifier.checked(self._decoder, self._connection))
                    return
        except Libp2pError as error:
            if error is not self._connection.ended:  # which everybody on the connection is told
                error.stage = error.stage or "identify"
            self.finish(error)
