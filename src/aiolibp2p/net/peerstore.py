"""What is known of peers: where they can be reached and who says so, what they speak, and what to leave alone.

In memory, without a task or a timer: what has expired is left out when it is asked for. `node/peerstore.py` keeps one
on disk.

What is known of a connected peer stays. Of the others, `Limits.peers_remembered` peers and `Limits.peerstore_bytes` are
kept. Where more are known, peers go in this order:

1. those that no dial of ours has reached, what was heard of longest ago first, down to a quarter of all there may be:
   who makes up peers, or connects under many names, pushes out nobody that we have met;
2. those that one has, the one with news longest ago first.

A peer with an address from the user that does not expire stays: more of them than may be kept are refused.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from aiolibp2p.errors import InvalidValueError, LimitError, PeerIdMismatchError
from aiolibp2p.identity.keys import PublicKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.limits import Limits, Refused, Timeouts, unheard
from aiolibp2p.net.backoff import Backoff, Key, is_fault_of_address
from aiolibp2p.net.known import RANK, AddressEntry, KnownAddress, KnownPeer, PeerEntry, Source
from aiolibp2p.runtime import Clock
from aiolibp2p.sansio.identify import Identify, reachable_addresses

_HELD: Final = frozenset({Source.DIALLED, Source.SIGNED, Source.IDENTIFIED})
"""Sources whose addresses stay while their peer is connected."""
_STRANGERS: Final = 4
"""Of so many peers, one may be a stranger even if those we have met would fill the store."""


class Peerstore:
    """What a host knows of peers.

    Args:
        clock: what expiry and back-off count in; that of the host's runtime.
        limits: how much is kept.
        timeouts: how long.
    """

    def __init__(self, clock: Clock, *, limits: Limits | None = None, timeouts: Timeouts | None = None) -> None:
        self._clock = clock
        self._limits = limits = limits if limits is not None else Limits()
        self._timeouts = timeouts = timeouts if timeouts is not None else Timeouts()
        self._peers: dict[PeerId, PeerEntry] = {}
        self._connected = 0
        """How many of them have connections."""
        self._given: set[PeerId] = set()
        """Those with an address from the user that does not expire."""
        self._strangers: OrderedDict[PeerId, None] = OrderedDict()
        """Unconnected peers that no dial has reached; news longest ago first."""
        self._met: OrderedDict[PeerId, None] = OrderedDict()
        """Unconnected peers that one has."""
        self._bytes = 0
        """What the unconnected ones take."""
        self._backoff = Backoff(clock, limits, timeouts)
        self.refused: Refused = unheard
        """Hears of each peer or back-off that made room for another; that of the host which uses this."""
        self._watchers: list[Callable[[PeerId], None]] = []
        self._kept = {
            Source.GIVEN: math.inf,
            Source.DIALLED: timeouts.dialled_address,
            Source.SIGNED: timeouts.recent_address,
            Source.IDENTIFIED: timeouts.recent_address,
            Source.FOUND: timeouts.found_address,
        }

    # -- addresses ---------------------------------------------------------------------------------------------------

    def addresses(self, peer_id: PeerId) -> list[Multiaddr]:
        """Return where a peer may be reached, the best source first, each without the peer's ID.

        Those that are backing off are among them: `backing_off` tells.
        """
        peer = self._peers.get(peer_id)
        return [] if peer is None else [address for address, _ in peer.ranked(self._clock.now())]

    def add_addresses(
        self, peer_id: PeerId, addresses: Iterable[Multiaddr], *, source: Source, ttl_seconds: float | None = None
    ) -> None:
        """Remember addresses of a peer, each with or without its ID; what is known better already stays so.

        Args:
            peer_id: whose they are.
            addresses: in the order in which they are to be dialled.
            source: how they are known.
            ttl_seconds: for how long; None is what fits the source: for ever when given, while the peer is connected
                and `Timeouts.dialled_address` or `recent_address` longer when it has been, else `found_address`.

        Raises:
            InvalidValueError: an address that the user gives names another peer; from other sources it is left out.
            LimitError: the user gives more than `identify_addresses` of a peer, or of `peers_remembered` peers.
        """
        plain = [found for address in addresses if (found := _of_peer(address, peer_id, source)) is not None]
        if not plain:
            return
        if source is Source.GIVEN:
            self._check_given(peer_id, plain)
        peer = self._peer(peer_id)
        now = self._clock.now()
        expires_at = now + (self._kept[source] if ttl_seconds is None else ttl_seconds)
        for address in plain:
            known = self._note(peer, address, source, now, expires_at)
            if known is not None and ttl_seconds is None and source in _HELD:
                known.held = peer.connections > 0
        if source is Source.GIVEN and peer.is_given:
            self._given.add(peer_id)
        self._settle(peer_id, peer)

    def identified(self, peer_id: PeerId, said: Identify, remote: Multiaddr) -> None:
        """Remember what a peer has said of itself.

        Its addresses replace those that it said before, unless they come in a signed record older than the one known.

        Spec: RFC 0003 peer-routing-records, "Ordering".

        Args:
            peer_id: who the peer has proved to be.
            said: as `sansio.identify.verify` returned it for this peer.
            remote: where the peer was connected from: what cannot be reached from there is left out.
        """
        peer = self._peer(peer_id)
        peer.protocols, peer.agent = said.protocols, said.agent_version
        if said.public_key is not None and peer_id.public_key is None:
            peer.public_key = said.public_key
        seq = None if said.peer_record is None else said.peer_record.seq
        if seq is None or peer.record_seq is None or seq >= peer.record_seq or not peer.has_signed:
            source = Source.IDENTIFIED if seq is None else Source.SIGNED
            peer.withdraw(said.listen_addresses, source)
            if seq is not None:
                peer.record_seq = seq
            now = self._clock.now()
            expires_at = now + self._kept[source]
            for address in reachable_addresses(said.listen_addresses, remote):
                known = self._note(peer, address, source, now, expires_at)
                if known is not None:
                    known.held = peer.connections > 0
                    known.claimed = known.claimed if known.claimed is Source.SIGNED else source
        self._settle(peer_id, peer)

    def _note(
        self, peer: PeerEntry, address: Multiaddr, source: Source, now: float, expires_at: float
    ) -> AddressEntry | None:
        """Remember one address; None where the peer has as many, and none is worth less."""
        known = peer.addresses.get(address)
        if known is None:
            if len(peer.addresses) >= self._limits.identify_addresses and not peer.make_room(source, now):
                return None
            known = peer.addresses[address] = AddressEntry(source, now, expires_at)
            return known
        if RANK[source] <= RANK[known.source]:
            known.source = source
        known.confirmed_at = now
        known.expires_at = max(known.expires_at, expires_at)
        return known

    def _check_given(self, peer_id: PeerId, addresses: Iterable[Multiaddr]) -> None:
        peer = self._peers.get(peer_id)
        known = () if peer is None else [a for a, known in peer.addresses.items() if known.source is Source.GIVEN]
        if len({*known, *addresses}) > self._limits.identify_addresses:
            raise LimitError("identify_addresses", f"addresses given of {peer_id}")
        if peer_id not in self._given and len(self._given) >= self._limits.peers_remembered:
            raise LimitError("peers_remembered", "peers whose addresses were given")

    # -- dials -------------------------------------------------------------------------------------------------------

    def dial_succeeded(self, peer_id: PeerId, address: Multiaddr) -> None:
        """Take note that a dial has reached the peer: the address is proven, and its back-off over."""
        plain = _plain(address)
        self._backoff.end(plain)
        self._backoff.end((peer_id, plain))
        peer = self._peer(peer_id)
        peer.reached = True
        now = self._clock.now()
        known = self._note(peer, plain, Source.DIALLED, now, now + self._kept[Source.DIALLED])
        if known is not None:
            known.held = peer.connections > 0
        self._settle(peer_id, peer)

    def dial_failed(self, peer_id: PeerId | None, address: Multiaddr, error: BaseException) -> None:
        """Take note that a dial has failed: the address backs off, unless the fault was ours.

        Where another peer answered, the address is forgotten as one of this peer's, and blamed on nobody else's.
        """
        plain = _plain(address)
        if isinstance(error, PeerIdMismatchError):
            if peer_id is not None:
                self._not_there(peer_id, plain)
        elif is_fault_of_address(error):
            self._back_off(plain)

    def backing_off(self, address: Multiaddr, peer_id: PeerId | None = None) -> float:
        """Return the seconds for which an address is to be left alone; 0.0 where it need not be.

        Args:
            address: with or without a peer's ID.
            peer_id: who is looked for there; None is anyone.
        """
        plain = _plain(address)
        seconds = self._backoff.remaining(plain)
        return seconds if peer_id is None else max(seconds, self._backoff.remaining((peer_id, plain)))

    def _not_there(self, peer_id: PeerId, address: Multiaddr) -> None:
        """Take note that another peer answered where this one was dialled."""
        peer = self._peers.get(peer_id)
        known = None if peer is None else peer.addresses.get(address)
        if peer is None or known is None:
            return
        if known.source is Source.GIVEN:
            self._back_off((peer_id, address))
            return
        del peer.addresses[address]
        self._settle(peer_id, peer)

    def _back_off(self, key: Key) -> None:
        if self._backoff.failed(key):
            self.refused("addresses_remembered")

    # -- connections -------------------------------------------------------------------------------------------------

    def connected(self, peer_id: PeerId) -> None:
        """Take note of a connection, made by either side: the peer is alive, and none of its addresses backs off."""
        peer = self._peer(peer_id)
        if not peer.connections:
            peer.expire(self._clock.now())
            self._connected += 1
            self._bytes -= peer.size_bytes
            peer.size_bytes = 0
            self._strangers.pop(peer_id, None)
            self._met.pop(peer_id, None)
            if len(self._backoff):
                for address in peer.addresses:
                    self._backoff.end(address)
        peer.connections += 1
        peer.last_seen = self._clock.wall()
        self._settle(peer_id, peer)

    def disconnected(self, peer_id: PeerId) -> None:
        """Take note of the end of a connection that `connected` was called for.

        With the last one, the addresses that were held begin to expire.
        """
        peer = self._peers[peer_id]
        peer.connections -= 1
        peer.last_seen = self._clock.wall()
        if not peer.connections:
            self._connected -= 1
            now = self._clock.now()
            for known in peer.addresses.values():
                if known.held:
                    known.held = False
                    known.expires_at = max(known.expires_at, now + self._kept[known.source])
        self._settle(peer_id, peer)

    # -- what else is known ------------------------------------------------------------------------------------------

    def protocols(self, peer_id: PeerId) -> tuple[str, ...]:
        """Return what a peer last said that it accepts.

        A peer that has been restarted since may speak others: no stream is opened lazily on the strength of this. Where
        several protocols are offered, only what identify says on the same connection does that.
        """
        peer = self._peers.get(peer_id)
        return () if peer is None else peer.protocols

    def set_protocols(self, peer_id: PeerId, protocols: Iterable[str]) -> None:
        """Remember what a peer accepts, `Limits.identify_protocols` at most, in place of what was remembered."""
        peer = self._peer(peer_id)
        peer.protocols = tuple(protocols)[: self._limits.identify_protocols]
        self._settle(peer_id, peer)

    def public_key(self, peer_id: PeerId) -> PublicKey | None:
        """Return a peer's key, which its ID may hold; None where it is not known."""
        peer = self._peers.get(peer_id)
        return peer_id.public_key or (None if peer is None else peer.public_key)

    def add_public_key(self, peer_id: PeerId, key: PublicKey) -> None:
        """Remember a peer's key.

        Raises:
            InvalidValueError: it is another peer's.
        """
        if key.peer_id != peer_id:
            raise InvalidValueError(f"the key of {key.peer_id} is not that of {peer_id}")
        if peer_id.public_key is None:
            peer = self._peer(peer_id)
            peer.public_key = key
            self._settle(peer_id, peer)

    def __contains__(self, peer_id: object) -> bool:
        """Whether something is known of a peer."""
        return peer_id in self._peers

    def peers(self) -> list[PeerId]:
        """Return the peers of which something is known."""
        return list(self._peers)

    def info(self, peer_id: PeerId) -> KnownPeer | None:
        """Return all that is known of a peer; None for one of whom nothing is."""
        peer = self._peers.get(peer_id)
        if peer is None:
            return None
        now = self._clock.now()
        addresses = tuple(
            KnownAddress(
                address=address,
                source=known.source,
                seconds_left=max(known.expires_at - now, self._kept[known.source] if known.held else 0.0),
                held=known.held,
                claimed=known.claimed,
                backing_off=self.backing_off(address, peer_id),
            )
            for address, known in peer.ranked(now)
        )
        return KnownPeer(
            peer_id=peer_id,
            addresses=addresses,
            protocols=peer.protocols,
            agent=peer.agent,
            public_key=self.public_key(peer_id),
            record_seq=peer.record_seq,
            connected=peer.connections > 0,
            last_seen=peer.last_seen,
        )

    def restore(self, known: KnownPeer) -> None:
        """Take what another peerstore knew of a peer; addresses that were held expire from now on.

        What is known here already stays. The peer is taken for the one with the newest news.
        """
        if known.peer_id in self._peers:
            return
        peer = self._peer(known.peer_id)
        now = self._clock.now()
        for address in known.addresses[: self._limits.identify_addresses]:
            if address.seconds_left > 0:
                entry = AddressEntry(address.source, now, now + address.seconds_left)
                entry.claimed = address.claimed
                peer.addresses[address.address] = entry
        if peer.is_given:
            self._given.add(known.peer_id)
        peer.reached = any(entry.source is Source.DIALLED for entry in peer.addresses.values())
        peer.protocols = known.protocols[: self._limits.identify_protocols]
        peer.agent, peer.record_seq, peer.last_seen = known.agent, known.record_seq, known.last_seen
        if known.public_key is not None and known.peer_id.public_key is None:
            peer.public_key = known.public_key
        self._settle(known.peer_id, peer)

    def forget(self, peer_id: PeerId) -> None:
        """Forget what is known of a peer; of one that is connected, all but that."""
        peer = self._peers.get(peer_id)
        if peer is None:
            return
        for address, _ in peer.ranked(self._clock.now()):
            self._backoff.end(address)
            self._backoff.end((peer_id, address))
        self._drop(peer_id)
        if peer.connections:
            fresh = self._peers[peer_id] = PeerEntry()
            fresh.connections, fresh.last_seen = peer.connections, peer.last_seen
            self._connected += 1

    def watch(self, changed: Callable[[PeerId], None]) -> Callable[[], None]:
        """Call back with each peer of which something was learnt or forgotten; return what stops that.

        The callback must not wait or raise, nor change the peerstore.
        """
        self._watchers.append(changed)
        return lambda: self._watchers.remove(changed)

    # -- bounds ------------------------------------------------------------------------------------------------------

    def _peer(self, peer_id: PeerId) -> PeerEntry:
        peer = self._peers.get(peer_id)
        if peer is None:
            peer = self._peers[peer_id] = PeerEntry()
        return peer

    def _settle(self, peer_id: PeerId, peer: PeerEntry) -> None:
        """Give a peer with news its place, and make room."""
        if not peer.connections:
            peer.expire(self._clock.now())
            size_bytes = peer.measure()
            self._bytes += size_bytes - peer.size_bytes
            peer.size_bytes = size_bytes
            self._strangers.pop(peer_id, None)
            self._met.pop(peer_id, None)
            if peer_id not in self._given:
                (self._met if peer.reached else self._strangers)[peer_id] = None
            self._make_room()
        for changed in self._watchers:
            changed(peer_id)

    def _make_room(self) -> None:
        limits = self._limits
        while len(self._peers) - self._connected > limits.peers_remembered or self._bytes > limits.peerstore_bytes:
            fewest = limits.peers_remembered // _STRANGERS
            queue = self._strangers if len(self._strangers) > fewest or not self._met else self._met
            if not queue:
                return  # all others were given
            many = len(self._peers) - self._connected > limits.peers_remembered
            self.refused("peers_remembered" if many else "peerstore_bytes")
            self._drop(next(iter(queue)))

    def _drop(self, peer_id: PeerId) -> None:
        peer = self._peers.pop(peer_id)
        self._bytes -= peer.size_bytes
        self._connected -= peer.connections > 0
        self._strangers.pop(peer_id, None)
        self._met.pop(peer_id, None)
        self._given.discard(peer_id)
        for changed in self._watchers:
            changed(peer_id)


def _plain(address: Multiaddr) -> Multiaddr:
    """Return an address without the peer's ID, if more than that is in it."""
    return address if address.peer_id is None or len(address.protocols) == 1 else address.without_peer_id()


def _of_peer(address: Multiaddr, peer_id: PeerId, source: Source) -> Multiaddr | None:
    """Return an address without the peer's ID; None where it is no address of that peer's."""
    named = address.peer_id
    if named is None:
        return address
    try:
        if named != peer_id:
            raise InvalidValueError(f"{address} names another peer than {peer_id}")
        return address.without_peer_id()
    except InvalidValueError:
        if source is Source.GIVEN:
            raise
        return None
