"""Fetching: the sessions of a node and its wantlists at all peers, brought together.

The shell writes each peer's messages on one stream, verifies the blocks that come on any stream, and says what has
happened.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.bitswap.message import Message, Presence
from aiolibp2p.sansio.bitswap.received import Cause, Received
from aiolibp2p.sansio.bitswap.session import Session
from aiolibp2p.sansio.bitswap.wantlist import Wantlist

P = TypeVar("P", bound=Hashable)

REPAIR_LOOKS = 2
"""How often within `Timeouts.bitswap_repair` wants without an answer are looked for."""


class Client(Generic[P]):
    """Decides what to tell which peer; a peer is whatever the shell calls it.

    Args:
        limits: as `Session` and `Wantlist` need them.
        timeouts: `bitswap_answer` and `bitswap_repair`.
    """

    def __init__(self, limits: Limits, timeouts: Timeouts) -> None:
        self.received = Received()
        self._limits = limits
        self._timeouts = timeouts
        self._wantlists: dict[P, Wantlist[P]] = {}
        self._sessions: dict[Session[P], None] = {}
        self._interest: dict[bytes, dict[tuple[Session[P], bytes], None]] = {}
        self._to_write: dict[P, None] = {}
        self._repair_at = math.inf

    # -- peers and sessions ------------------------------------------------------------------------------------------

    def connected(self, peer: P, *, supports_have: bool = True) -> None:
        """Let sessions ask `peer`; nothing happens where they can already."""
        if peer not in self._wantlists:
            self._wantlists[peer] = Wantlist(
                peer, self._limits, self._timeouts, supports_have=supports_have, to_write=self._to_write
            )

    def disconnected(self, peer: P, now: float) -> None:
        """Ask `peer` no more: its last connection is gone, and what it was asked for is asked elsewhere."""
        if self._wantlists.pop(peer, None) is not None:
            for session in self._sessions:
                session.remove_peer(peer, now)
            self._to_write.pop(peer, None)

    def session(self, peers: Iterable[P], now: float) -> Session[P]:
        """Open a session that asks these peers, of those that are connected; `close` ends it."""
        session: Session[P] = Session(self._limits, self._timeouts, self._interest, self.received)
        self._sessions[session] = None
        for peer in peers:
            self.add_peer(session, peer, now)
        return session

    def add_peer(self, session: Session[P], peer: P, now: float) -> bool:
        """Let a session ask one more peer; return whether it is connected."""
        wantlist = self._wantlists.get(peer)
        if wantlist is not None:
            session.add_peer(wantlist, now)
        return wantlist is not None

    def close(self, session: Session[P], now: float) -> None:
        """End a session: what only it wanted is cancelled."""
        if session in self._sessions:
            session.close(now)
            del self._sessions[session]

    def ask_queued(self, now: float) -> None:
        """Let sessions use the room at peers that another session has left; call it before `peers_to_write`."""
        for session in self._sessions:
            session.ask_queued(now)

    # -- what peers say ----------------------------------------------------------------------------------------------

    def received_bytes(self, peer: P, n_bytes: int, now: float) -> None:
        """Take note that part of a message has come from `peer`."""
        wantlist = self._wantlists.get(peer)
        if wantlist is not None:
            wantlist.heard_at = now
        for session in self._sessions:
            session.received_bytes(peer, n_bytes, now)

    def wanted(self, multihash: bytes) -> bool:
        """Return whether somebody wants this block."""
        return multihash in self._interest

    def wants(self) -> list[bytes]:
        """Return the CIDs that somebody wants, each once."""
        return list(dict.fromkeys(cid for interested in self._interest.values() for _, cid in interested))

    def received_block(self, peer: P, multihash: bytes, n_bytes: int, now: float) -> list[tuple[Session[P], bytes]]:
        """Take note of a verified block; return who wanted it, and by which CID. An empty list: drop the block."""
        interested = list(self._interest.get(multihash, ()))
        wantlist = self._wantlists.get(peer)
        if wantlist is not None:
            wantlist.heard_at = now
        if not interested:
            cause, counts = (Cause.UNASKED, None) if wantlist is None else wantlist.take_owed(multihash)
            for received in (self.received,) if counts is None else (self.received, counts):
                received.duplicate(cause, n_bytes)
            return []
        self.received.block(n_bytes)
        if wantlist is not None:
            for _, cid in interested:
                wantlist.received_block(cid)
        for session, cid in interested:
            session.received_block(peer, cid, n_bytes, now)
        return interested

    def received_presences(self, peer: P, presences: Iterable[Presence], now: float) -> None:
        """Take note of what `peer` says it has and has not."""
        wantlist = self._wantlists.get(peer)
        for cid, have in presences:
            if have:
                self.received.haves += 1
                if wantlist is not None:
                    wantlist.received_have(cid)
            else:
                self.received.dont_haves += 1
                if wantlist is not None:
                    wantlist.received_dont_have(cid)
            for session in list(self._sessions):
                session.received_presence(peer, cid, have, now)

    # -- what goes out -----------------------------------------------------------------------------------------------

    def peers_to_write(self) -> list[P]:
        """Return the peers that are to be told something; drain it after every call on a session or the client."""
        return list(self._to_write)

    def message_to_send(self, peer: P, now: float) -> Message | None:
        """Return the message to write to `peer`; None for none, or while the one before is not accepted.

        `message_sent` or `stream_ended` follows.
        """
        wantlist = self._wantlists.get(peer)
        message = None if wantlist is None else wantlist.message_to_send()
        if message is None:
            self._to_write.pop(peer, None)
        elif self._repair_at == math.inf:
            self._repair_at = now + self._timeouts.bitswap_repair / REPAIR_LOOKS
        return message

    def message_sent(self, peer: P, now: float) -> None:
        """Take note that the stream has accepted the message."""
        wantlist = self._wantlists.get(peer)
        if wantlist is not None:
            wantlist.message_sent(now)

    def stream_ended(self, peer: P) -> None:
        """Take note that the stream for messages to `peer` is gone: a new one begins with everything that is wanted."""
        wantlist = self._wantlists.get(peer)
        if wantlist is not None:
            wantlist.stream_ended()

    # -- time --------------------------------------------------------------------------------------------------------

    def next_timeout(self) -> float:
        """Return when `handle_timeout` has something to do; `math.inf` for never."""
        return min(self._repair_at, *(session.next_timeout() for session in self._sessions), math.inf)

    def handle_timeout(self, now: float) -> None:
        """Ask elsewhere for what peers did not send in time, and tell again what has had no answer."""
        for session in self._sessions:
            session.handle_timeout(now)
        if self._repair_at <= now:
            wanting = False
            for wantlist in self._wantlists.values():
                wantlist.repair(now)
                wanting = wanting or len(wantlist) > 0
            self._repair_at = now + self._timeouts.bitswap_repair / REPAIR_LOOKS if wanting else math.inf
