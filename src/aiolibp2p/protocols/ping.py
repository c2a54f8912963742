"""Ping, `/ipfs/ping/1.0.0`: bytes come back as they were sent (libp2p specs, ping/ping.md).

Both sides run on callbacks: an answer leaves in the turn of the loop in which the question came, without a task switch.
The initiator keeps one stream a connection, on which any number of pings are under way in order; a responder that
closes it after a silence, as go-libp2p does, costs a new stream.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from aiolibp2p.entropy import Entropy
from aiolibp2p.errors import DeadlineError, Libp2pError, RemoteProtocolError, StreamResetError
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.limits import Limits, Refused, Timeouts
from aiolibp2p.net.connection import Connection
from aiolibp2p.net.stream import Stream
from aiolibp2p.runtime import Clock
from aiolibp2p.sansio.yamux import RESOURCE_LIMIT

PROTOCOL = "/ipfs/ping/1.0.0"
PAYLOAD_BYTES = 32


class PingResponder:
    """Answers inbound ping streams, at most `Limits.ping_streams` of one peer."""

    def __init__(self, limits: Limits, refused: Refused) -> None:
        self._limits = limits
        self._refused = refused
        self._open: dict[PeerId, int] = {}

    def accept(self, stream: Stream) -> None:
        """Serve a stream, or reset it when the peer has too many."""
        peer_id = stream.peer_id
        count = self._open.get(peer_id, 0)
        if count >= self._limits.ping_streams:
            self._refused("ping_streams")
            stream.reset(RESOURCE_LIMIT)
            return
        self._open[peer_id] = count + 1
        _Echo(self, stream).start()

    def release(self, peer_id: PeerId) -> None:
        """Take note of a served stream's end."""
        count = self._open[peer_id] - 1
        if count:
            self._open[peer_id] = count
        else:
            del self._open[peer_id]


class _Echo:
    """Sends back what one stream receives; reads no further while something waits to be sent."""

    __slots__ = ("_ended", "_responder", "_stream", "_unsent")

    def __init__(self, responder: PingResponder, stream: Stream) -> None:
        self._responder = responder
        self._stream = stream
        self._unsent = b""
        self._ended = False

    def start(self) -> None:
        self._stream.on_readable(self._go_on)
        self._go_on()

    def _go_on(self) -> None:
        stream = self._stream
        while not self._ended:
            try:
                data = self._unsent or stream.try_read()
                if not data:
                    if data is not None:
                        self._end()
                    return
                self._unsent = data[stream.try_write(data) :]
                if self._unsent:
                    stream.on_writable(self._go_on)
                    return
            except Libp2pError:
                self._end()

    def _end(self) -> None:
        self._ended = True
        self._stream.close()
        self._stream.on_readable(None)
        self._responder.release(self._stream.peer_id)


@dataclass(slots=True)
class _Ping:
    payload: bytes
    sent_at: float
    answer: asyncio.Future[float]


class PingInitiator:
    """Measures round trips to peers."""

    def __init__(self, clock: Clock, entropy: Entropy, timeouts: Timeouts) -> None:
        self._clock = clock
        self._entropy = entropy
        self._timeouts = timeouts
        self._sessions: dict[Connection, _PingSession] = {}

    async def ping(self, connection: Connection) -> float:
        """Return the seconds until the peer's answer.

        Raises:
            DeadlineError: no answer within `Timeouts.ping`.
            NegotiationError: the peer does not speak ping.
            RemoteProtocolError: it answered something else.
            ConnectionEndedError, StreamResetError, LimitError: as they say.
        Cancellation: the answer is dropped when it comes.
        """
        session = self._sessions.get(connection)
        fresh = session is None or session.ended
        if session is None or session.ended:
            session = await self._open(connection)
        try:
            return await session.send(self._entropy.token(PAYLOAD_BYTES))
        except StreamResetError:
            # The responder may have closed a stream that was quiet for long while our question was on its way.
            if fresh:
                raise
        session = await self._open(connection)
        return await session.send(self._entropy.token(PAYLOAD_BYTES))

    def forget(self, connection: Connection) -> None:
        """Take note of a connection's end."""
        session = self._sessions.pop(connection, None)
        if session is not None and connection.ended is not None:
            session.fail(connection.ended)

    async def _open(self, connection: Connection) -> _PingSession:
        stream = await connection.open_stream(PROTOCOL)
        session = self._sessions[connection] = _PingSession(self._clock, stream, self._timeouts.ping)
        return session


class _PingSession:
    """One stream of pings; answers come in the order of the questions."""

    def __init__(self, clock: Clock, stream: Stream, seconds: float) -> None:
        self.ended = False
        self._clock = clock
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._stream = stream
        self._under_way: deque[_Ping] = deque()
        self._received = self._unsent = b""
        stream.on_readable(self._on_readable)

    def send(self, payload: bytes) -> asyncio.Future[float]:
        """Send a question; the future gets the seconds until its answer."""
        ping = _Ping(payload, self._clock.now(), self._stream.connection._loop.create_future())
        self._under_way.append(ping)
        if self._timer is None:
            self._timer = self._clock.call_at(ping.sent_at + self._seconds, self._too_slow)
        waits = bool(self._unsent)
        self._unsent += payload
        if not waits:
            self._push()
        return ping.answer

    def _push(self) -> None:
        """Send what has not found room: a busy connection delays a question, and fails none."""
        if self.ended:
            return
        try:
            self._unsent = self._unsent[self._stream.write_at_once(self._unsent) :]
        except Libp2pError as error:
            self.fail(error)
            return
        if self._unsent:
            self._stream.on_writable(self._push)

    def _too_slow(self) -> None:
        """End the questions whose time is over: one timer serves them all, and is set again only when it has rung."""
        self._timer = None
        now = self._clock.now()
        error = DeadlineError("ping", self._seconds, stage="ping")
        for ping in self._under_way:
            if ping.answer.done():
                continue
            if ping.sent_at + self._seconds > now:
                self._timer = self._clock.call_at(ping.sent_at + self._seconds, self._too_slow)
                return
            ping.answer.set_exception(error)
        if self._under_way:
            self.fail(error)  # nobody waits on this stream any more: the next question deserves another

    def fail(self, error: Libp2pError) -> None:
        """End the stream and all questions."""
        if self.ended:
            return
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._stream.on_readable(None)
        self._stream.reset()
        while self._under_way:
            answer = self._under_way.popleft().answer
            if not answer.done():
                answer.set_exception(error)

    def _on_readable(self) -> None:
        while True:
            try:
                data = self._stream.try_read()
            except Libp2pError as error:
                self.fail(error)
                return
            if data is None:
                return
            if not data:
                self.fail(StreamResetError(by="remote", stage="ping"))
                return
            if not self._take(self._received + data):
                self.fail(RemoteProtocolError("the answer is not the question", protocol="ping"))
                return

    def _take(self, data: bytes) -> bool:
        while len(data) >= PAYLOAD_BYTES:
            if not self._under_way:
                return False
            ping = self._under_way.popleft()
            if data[:PAYLOAD_BYTES] != ping.payload:
                self._under_way.appendleft(ping)
                return False
            if not ping.answer.done():
                ping.answer.set_result(self._clock.now() - ping.sent_at)
            data = data[PAYLOAD_BYTES:]
        self._received = data
        return True
