"""Dialling: one address, from TCP to a connection, and how many are under way at the same time.

A dial is optimistic: the security protocol is proposed together with its first message. A peer that breaks off or
answers garbage there gets one fresh socket on which every answer is awaited, within the same deadline, and its address
is remembered. Which addresses of a peer are dialled when is decided in `race`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiolibp2p.errors import By, ConnectionEndedError, DeadlineError, Libp2pError, LimitError
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.net.connection import Connection
from aiolibp2p.net.link import MUXERS, Link
from aiolibp2p.net.race import CONNECT_STAGE, RESOLVE_STAGE, Attempt, Dial
from aiolibp2p.net.resolve import look_up
from aiolibp2p.net.tasks import Tasks, begin, begun
from aiolibp2p.net.upgrade import NEGOTIATION_STAGE, Upgrade
from aiolibp2p.runtime import is_temporary, os_error_text

if TYPE_CHECKING:
    from aiolibp2p.net.swarm import Swarm

__all__ = ["CONNECT_STAGE", "RESOLVE_STAGE", "Dialer", "OutboundLink"]


class OutboundLink(Link):
    """A link that a dial waits for; it notes when each of its stages was over."""

    def __init__(self, owner: Swarm, upgrade: Upgrade, dial: Dial, attempt: Attempt) -> None:
        super().__init__(owner, upgrade)
        self.outcome: asyncio.Future[None] = owner.loop.create_future()
        self._dial: Dial | None = dial
        self._attempt: Attempt | None = attempt

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the upgrade."""
        if self._attempt is not None:
            self._attempt.connected = self._now()
        super().connection_made(transport)

    def _receive_upgrade(self, data: bytes) -> None:
        attempt, heard = self._attempt, self._now()
        super()._receive_upgrade(data)
        if attempt is not None and attempt.negotiated is None and self.stage != NEGOTIATION_STAGE:
            attempt.negotiated = heard

    def upgraded(self, connection: Connection) -> None:
        """Hand the connection to the dial."""
        dial, attempt = self._let_go()
        if not self.outcome.done():
            self.outcome.set_result(None)
        if dial is None or attempt is None or dial.over:
            connection.abort()  # the dial has ended in this very turn, and nobody would know of it
        else:
            dial.won(attempt, connection)

    def failed(self, error: Libp2pError) -> None:
        """Hand the error to the task of the address."""
        if not self.outcome.done():
            self.outcome.set_exception(error)

    def give_up(self) -> None:
        """Drop the socket, if there is one already: another address was faster, or nobody waits any more."""
        if self.transport is not None and self.connection is None:
            self.abort(ConnectionEndedError("the dial was given up", by="local"))

    def _let_go(self) -> tuple[Dial | None, Attempt | None]:
        """Return the dial, and keep nothing of it: a link lives as long as its connection."""
        dial, attempt = self._dial, self._attempt
        self._dial = self._attempt = None
        return dial, attempt


class Dialer:
    """Makes outbound connections for a swarm."""

    def __init__(self, swarm: Swarm, tasks: Tasks) -> None:
        self.swarm = swarm
        self.dials: dict[PeerId | Multiaddr, Dial] = {}
        """Those under way: by the peer, or by the address where it is not known."""
        self._tasks = tasks
        self._under_way = 0
        """Addresses being dialled and names being looked up."""
        self._waiting: dict[Dial, None] = {}
        """Dials that may begin no address until another one's has ended, in turn."""
        self._pessimistic: dict[tuple[str, int], None] = {}
        """Endpoints that broke off when the dial was optimistic."""

    async def connect(
        self, peer_id: PeerId | None, given: Sequence[Multiaddr], known: Sequence[Multiaddr]
    ) -> Connection:
        """Dial, or wait for the dial that is under way, which gets the addresses that it does not have.

        Raises: as `Swarm.connect`.
        Cancellation: the dial goes on while others wait for it, else it is given up.
        """
        key: PeerId | Multiaddr = peer_id if peer_id is not None else given[0]
        dial = self.dials.get(key)
        if dial is None:
            self.swarm.check_room()
            dial = self.dials[key] = Dial(self, key, peer_id)
        dial.add(given, known)
        return await dial.wait()

    def close(self) -> None:
        """Give all dials up."""
        for dial in tuple(self.dials.values()):
            dial.give_up()

    # -- what dials call ---------------------------------------------------------------------------------------------

    def take(self, dial: Dial) -> bool:
        """Return whether one more address may be begun now; else `dial.advance` is called when it is its turn.

        Raises:
            LimitError: too many dials wait already.
        """
        limits = self.swarm.limits
        if self._under_way < limits.dials:
            self._under_way += 1
            return True
        if dial not in self._waiting and not dial.is_running:  # else the end of one of its own lets it go on
            if len(self._waiting) >= limits.dials_waiting:
                self.swarm.refused("dials_waiting")
                raise LimitError("dials_waiting", stage="dial")
            self._waiting[dial] = None
        return False

    def release(self) -> None:
        """Take note that an address has ended, and let others begin in its place."""
        self._under_way -= 1
        while self._waiting and self._under_way < self.swarm.limits.dials:
            dial = next(iter(self._waiting))
            del self._waiting[dial]
            dial.advance()

    def forget(self, dial: Dial) -> None:
        """Take note that a dial is over: whoever comes from now on needs one of its own."""
        self._waiting.pop(dial, None)
        if self.dials.get(dial.key) is dial:
            del self.dials[dial.key]

    def start(self, dial: Dial, attempt: Attempt) -> None:
        """Begin an address, or the look-up of a name, in a task of its own."""
        if attempt.is_name:
            attempt.task = self._tasks.start(begin(self._look_up(dial, attempt)), f"resolve {attempt.address}")
        else:
            attempt.task = self._tasks.start(begin(self._dial(dial, attempt)), f"dial {attempt.address}")

    # -- names -------------------------------------------------------------------------------------------------------

    async def _look_up(self, dial: Dial, attempt: Attempt) -> None:
        found: list[Multiaddr] = []
        error: Libp2pError | None = None
        try:
            await begun()
            swarm = self.swarm
            async with asyncio.timeout(attempt.until - swarm.clock.now()) as scope:
                found = await look_up(swarm.runtime.names, attempt.address, swarm.limits.dns_records)
        except OSError as caught:
            if scope.expired():
                error = DeadlineError("resolve", swarm.timeouts.resolve, stage=RESOLVE_STAGE)
            else:
                by: By = "local" if is_temporary(caught) else "remote"
                error = ConnectionEndedError(os_error_text(caught), by=by, stage=RESOLVE_STAGE)
                error.__cause__ = caught
        finally:
            dial.looked_up(attempt, found, error)

    # -- one address -------------------------------------------------------------------------------------------------

    async def _dial(self, dial: Dial, attempt: Attempt) -> None:
        error: Libp2pError | None = None
        try:
            await begun()
            await self._dial_address(dial, attempt)
        except Libp2pError as caught:
            error = caught
        finally:
            dial.ended(attempt, error)

    async def _dial_address(self, dial: Dial, attempt: Attempt) -> None:
        timeouts = self.swarm.timeouts
        name = "dial_private_address" if attempt.address.is_private else "dial_address"
        seconds: float = getattr(timeouts, name)
        try:
            async with asyncio.timeout(seconds) as scope:
                await self._attempt(dial, attempt)
        except TimeoutError:
            if not scope.expired():
                raise
            raise DeadlineError(name, seconds, stage=attempt.stage) from None

    async def _attempt(self, dial: Dial, attempt: Attempt) -> None:
        endpoint = attempt.endpoint
        assert endpoint is not None  # it is no name
        optimistic = endpoint not in self._pessimistic
        try:
            await self._connect(dial, attempt, endpoint, optimistic=optimistic)
            return
        except Libp2pError as error:
            if not optimistic or attempt.link is None or not attempt.link.may_retry(error):
                raise
        attempt.connected = attempt.negotiated = None
        await self._connect(dial, attempt, endpoint, optimistic=False)
        # Remembered only now: a peer that is simply gone has said nothing about optimism.
        self._pessimistic[endpoint] = None
        if len(self._pessimistic) > self.swarm.limits.addresses_remembered:
            del self._pessimistic[next(iter(self._pessimistic))]
            self.swarm.refused("addresses_remembered")

    async def _connect(self, dial: Dial, attempt: Attempt, endpoint: tuple[str, int], *, optimistic: bool) -> None:
        swarm = self.swarm
        upgrade = Upgrade(
            swarm.noise,
            swarm.entropy,
            initiator=True,
            muxers=MUXERS,
            expected_peer=attempt.peer_id,
            optimistic=optimistic,
        )
        link = attempt.link = OutboundLink(swarm, upgrade, dial, attempt)
        attempt.dialled = swarm.clock.now()
        attempt.sockets += 1
        try:
            await swarm.runtime.net.connect_tcp(lambda: link, *endpoint)
            await link.outcome
        except OSError as error:
            if isinstance(error, Libp2pError):  # a DeadlineError is a TimeoutError, and that is an OSError
                raise
            raise ConnectionEndedError(os_error_text(error), by="remote", stage=CONNECT_STAGE) from error
        finally:
            if link.connection is None:
                link.abort(ConnectionEndedError("the dial was given up", by="local"))
                if link.outcome.done() and not link.outcome.cancelled():
                    link.outcome.exception()
