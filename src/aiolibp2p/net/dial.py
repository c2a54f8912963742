"""Dialling: one address, from TCP to a connection, and the addresses of one peer, in turn.

A dial is optimistic: the security protocol is proposed together with its first message. A peer that breaks off or
answers garbage there gets one fresh socket on which every answer is awaited, within the same deadline, and its address
is remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiolibp2p.errors import ConnectionEndedError, DeadlineError, DialError, Libp2pError, LocalProtocolError
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.net.connection import Connection
from aiolibp2p.net.link import MUXERS, Link
from aiolibp2p.net.upgrade import Upgrade
from aiolibp2p.runtime import os_error_text

if TYPE_CHECKING:
    from aiolibp2p.net.swarm import Swarm

CONNECT_STAGE = "connect"


class OutboundLink(Link):
    """A link that somebody waits for."""

    def __init__(self, owner: Swarm, upgrade: Upgrade) -> None:
        super().__init__(owner, upgrade)
        self.outcome: asyncio.Future[Connection] = owner.loop.create_future()

    def upgraded(self, connection: Connection) -> None:
        """Hand the connection to who waits."""
        if not self.outcome.done():
            self.outcome.set_result(connection)

    def failed(self, error: Libp2pError) -> None:
        """Hand the error to who waits."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


class Dialer:
    """Makes outbound connections for a swarm."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._pessimistic: dict[tuple[str, int], None] = {}
        """Endpoints that broke off when the dial was optimistic."""

    async def dial(self, peer_id: PeerId | None, addresses: Sequence[Multiaddr]) -> Connection:
        """Dial the addresses in turn, within `Timeouts.dial`.

        Raises:
            DialError: none of them led to the peer.
        Cancellation: the socket is dropped.
        """
        failures: dict[str, BaseException] = {}
        timeouts = self._swarm.timeouts
        # One address has a shorter time of its own, and a second timer costs a dial two per cent.
        longest = len(addresses) * max(timeouts.dial_address, timeouts.dial_private_address)
        within = None if longest <= timeouts.dial else timeouts.dial
        current = ""
        try:
            async with asyncio.timeout(within) as scope:
                for address in addresses:
                    current = str(address)
                    try:
                        return await self.dial_address(address, peer_id)
                    except Libp2pError as error:
                        failures[current] = error
        except TimeoutError:
            if not scope.expired():
                raise
            failures[current] = DeadlineError("dial", timeouts.dial)
        raise DialError(None if peer_id is None else str(peer_id), failures) from next(iter(failures.values()), None)

    async def dial_address(self, address: Multiaddr, peer_id: PeerId | None) -> Connection:
        """Dial one address.

        Raises:
            LocalProtocolError: no transport of ours takes the address.
            DeadlineError: `dial_address`, `dial_private_address` or `upgrade`, whichever was shorter.
            ConnectionEndedError, NegotiationError, RemoteProtocolError, PeerIdMismatchError, LimitError: as they say.
        Cancellation: the socket is dropped.
        """
        endpoint = address.tcp_endpoint if address.is_plain_tcp else None
        if endpoint is None:
            raise LocalProtocolError("no transport of this host dials such an address", stage="dial")
        timeouts = self._swarm.timeouts
        name = "dial_private_address" if address.is_private else "dial_address"
        seconds: float = getattr(timeouts, name)
        attempt = _Attempt()
        try:
            async with asyncio.timeout(seconds) as scope:
                return await self._attempt(endpoint, peer_id, attempt)
        except TimeoutError:
            if not scope.expired():
                raise
            raise DeadlineError(name, seconds, stage=attempt.stage) from None

    async def _attempt(self, endpoint: tuple[str, int], peer_id: PeerId | None, attempt: _Attempt) -> Connection:
        optimistic = endpoint not in self._pessimistic
        try:
            return await self._connect(endpoint, peer_id, attempt, optimistic=optimistic)
        except Libp2pError as error:
            if not optimistic or attempt.link is None or not attempt.link.may_retry(error):
                raise
        connection = await self._connect(endpoint, peer_id, attempt, optimistic=False)
        # Remembered only now: a peer that is simply gone has said nothing about optimism.
        self._pessimistic[endpoint] = None
        if len(self._pessimistic) > self._swarm.limits.addresses_remembered:
            del self._pessimistic[next(iter(self._pessimistic))]
            self._swarm.refused("addresses_remembered")
        return connection

    async def _connect(
        self, endpoint: tuple[str, int], peer_id: PeerId | None, attempt: _Attempt, *, optimistic: bool
    ) -> Connection:
        swarm = self._swarm
        upgrade = Upgrade(
            swarm.noise, swarm.entropy, initiator=True, muxers=MUXERS, expected_peer=peer_id, optimistic=optimistic
        )
        link = attempt.link = OutboundLink(swarm, upgrade)
        try:
            await swarm.runtime.net.connect_tcp(lambda: link, *endpoint)
            return await link.outcome
        except OSError as error:
            if isinstance(error, Libp2pError):  # a DeadlineError is a TimeoutError, and that is an OSError
                raise
            raise ConnectionEndedError(os_error_text(error), by="remote", stage=CONNECT_STAGE) from error
        finally:
            if link.connection is None:
                link.abort(ConnectionEndedError("the dial was given up", by="local"))
                if link.outcome.done() and not link.outcome.cancelled():
                    link.outcome.exception()


class _Attempt:
    """What a dial of one address is waiting for."""

    __slots__ = ("link",)

    def __init__(self) -> None:
        self.link: OutboundLink | None = None

    @property
    def stage(self) -> str:
        """What is being waited for."""
        return CONNECT_STAGE if self.link is None else self.link.stage
