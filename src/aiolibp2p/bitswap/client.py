"""The fetching half of Bitswap: what all sessions share, every block verified.

Which peer is asked for what is decided in `sansio.bitswap`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from aiolibp2p.bitswap.context import Context
from aiolibp2p.bitswap.wire import MessageWriter
from aiolibp2p.blocks.cid import Cid
from aiolibp2p.errors import ConnectionEndedError, InvalidValueError
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.net.stream import Stream
from aiolibp2p.sansio.bitswap.client import Client as ClientCore
from aiolibp2p.sansio.bitswap.message import Message, encode
from aiolibp2p.sansio.bitswap.session import Session as SessionCore

if TYPE_CHECKING:
    from aiolibp2p.bitswap.session import Session


class Client:
    """What all sessions of a node share.

    Args:
        kept: told of fetched blocks that are in the store.
    """

    def __init__(self, context: Context, *, kept: Callable[[Sequence[tuple[Cid, bytes]]], None]) -> None:
        self.core: ClientCore[PeerId] = ClientCore(context.limits, context.timeouts)
        self.bad_blocks = 0
        """Received blocks whose CID uses a hash that is not known here."""
        self.context = context
        self.kept = kept
        self._clock = context.clock
        self._sessions: dict[SessionCore[PeerId], Session] = {}
        self._writers: dict[PeerId, MessageWriter[None]] = {}
        self._not_before: dict[PeerId, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._closed = False

    @property
    def unwanted_blocks(self) -> int:
        """Received blocks that were dropped: nobody had asked for them, or they were not what was asked for."""
        return self.bad_blocks + self.core.received.duplicates

    # -- inputs ------------------------------------------------------------------------------------------------------

    def receive(self, peer_id: PeerId, message: Message) -> None:
        """Take blocks and presences of a peer; what nobody wants is dropped."""
        now = self._clock.now()
        for prefix, data in message.payloads:
            try:
                cid = Cid.from_prefix(prefix, data)
            except InvalidValueError:
                self.bad_blocks += 1
                continue
            for core, wanted in self.core.received_block(peer_id, cid.multihash, len(data), now):
                session = self._sessions.get(core)
                if session is not None:
                    session.deliver(wanted, data)
        if message.presences:
            self.core.received_presences(peer_id, message.presences, now)
        # Once for all that has come in this turn: some peers send a message for each block.
        self._soon()

    def progress(self, peer_id: PeerId, n_bytes: int) -> None:
        """Take note that part of a message has come."""
        self.core.received_bytes(peer_id, n_bytes, self._clock.now())

    def connected(self, peer_id: PeerId, *, supports_have: bool) -> None:
        """Let sessions ask a peer."""
        self.core.connected(peer_id, supports_have=supports_have)

    def disconnected(self, peer_id: PeerId) -> None:
        """Ask a peer no more: no connection to it is left."""
        writer = self._writers.pop(peer_id, None)
        if writer is not None:
            writer.reset()
        self._not_before.pop(peer_id, None)
        self.core.disconnected(peer_id, self._clock.now())
        self.settle()

    def stream_ended(self, peer_id: PeerId, stream: Stream) -> None:
        """Take note of the end of a stream that may be the one for our wants."""
        writer = self._writers.get(peer_id)
        if writer is not None:
            writer.stream_ended(stream)

    def close(self) -> None:
        """Fetch nothing any more: who still waits is told."""
        self._closed = True
        for session in list(self._sessions.values()):
            session.fail(ConnectionEndedError("Bitswap is leaving", by="local", stage="bitswap"))
        for writer in self._writers.values():
            writer.reset()
        self._writers.clear()
        if self._timer is not None:
            self._timer.cancel()

    # -- sessions ----------------------------------------------------------------------------------------------------

    def open(self, session: Session, peers: Iterable[PeerId]) -> SessionCore[PeerId]:
        """Return the core of a new session.

        Raises:
            ConnectionEndedError: Bitswap has left.
        """
        if self._closed:
            raise ConnectionEndedError("Bitswap has left", by="local", stage="bitswap")
        core = self.core.session(peers, self._clock.now())
        self._sessions[core] = session
        return core

    def close_session(self, core: SessionCore[PeerId]) -> None:
        """End a session."""
        self.core.close(core, self._clock.now())
        self._sessions.pop(core, None)
        self.settle()

    def settle(self) -> None:
        """Write what peers are to be told, and look who waits in vain."""
        if self._closed:
            return
        now = self._clock.now()
        self.core.ask_queued(now)
        for peer_id in self.core.peers_to_write():
            writer = self._writers.get(peer_id)
            if writer is None:
                writer = self._writers[peer_id] = MessageWriter(peer_id, self, self.context.opened)
            if writer.busy or self._not_before.get(peer_id, -math.inf) > now:
                continue
            message = self.core.message_to_send(peer_id, now)
            if message is not None:
                protocol = self.context.protocol(peer_id)
                writer.send(None, encode(message, self.context.limits.bitswap_message_bytes, protocol))
        for session in list(self._sessions.values()):
            session.look_at_exhausted()
        self._arm()

    # -- what writers tell -------------------------------------------------------------------------------------------

    def accepted(self, peer_id: PeerId, n_bytes: int) -> None:
        """Nothing to do: wants are few bytes."""

    def blocked(self, peer_id: PeerId) -> None:
        """Nothing to do: the session asks elsewhere when no answer comes."""

    def writable(self, peer_id: PeerId, *, credited: bool) -> None:
        """Nothing to do."""

    def written(self, peer_id: PeerId, token: None, position: int) -> None:
        """Take note that a peer has been told."""
        self.core.message_sent(peer_id, self._clock.now())
        self._soon()

    def ended(self, peer_id: PeerId, *, unread: bool) -> None:
        """Take note that the stream to a peer is gone: a new one tells everything again, after a pause.

        Args:
            unread: makes no difference: what is wanted is told again after Bitswap has come back there.
        """
        self._not_before[peer_id] = self._clock.now() + self.context.timeouts.bitswap_reopen
        self.core.stream_ended(peer_id)
        self._arm()

    # -- time --------------------------------------------------------------------------------------------------------

    def _soon(self) -> None:
        self._set_timer(self._clock.now())

    def _arm(self) -> None:
        now = self._clock.now()
        waiting = [self._not_before.get(peer_id, now) for peer_id in self.core.peers_to_write()]
        self._set_timer(min([self.core.next_timeout(), *(when for when in waiting if when > now)]))

    def _set_timer(self, when: float) -> None:
        if not self._closed and when < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = self._clock.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self.core.handle_timeout(self._clock.now())
        self.settle()
