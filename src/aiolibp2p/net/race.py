"""One dial: the addresses of a peer, each begun at its time, and all who wait for the connection.

The next address is begun a step after the one before, or as soon as all that were begun have failed. The first one that
is upgraded wins, and the others' sockets are dropped in the same moment. An address that begins with a name is looked
up first; what it leads to is ranked when it is known. All of it runs on callbacks: the only tasks are one for each
address under way, and for a single address nothing else is made.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from aiolibp2p.errors import ConnectionEndedError, DeadlineError, DialError, Libp2pError, LocalProtocolError
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.log import logger_of
from aiolibp2p.net.ranking import rank, undialable
from aiolibp2p.net.resolve import DNSADDR, begins_with_name
from aiolibp2p.net.upgrade import HANDSHAKE_STAGE, NEGOTIATION_STAGE
from aiolibp2p.report import AddressReport, DialReport, Outcome

if TYPE_CHECKING:
    from aiolibp2p.net.connection import Connection
    from aiolibp2p.net.dial import Dialer, OutboundLink

_log = logger_of("net")

RESOLVE_STAGE = "resolve"
CONNECT_STAGE = "connect"
ADDRESS_STAGE = "address"
"""Where an address leads nowhere, whatever is dialled there."""
BACKOFF_STAGE = "back-off"
_DIAL_STAGE = "dial"
_SLOWER = "another address was faster"
_NAME_SHARE = 2
"""Look-ups of one dial at the same time are this part of `Limits.dials_per_peer`: names that nobody answers for leave
room for addresses, as these do not count them."""


class Attempt:
    """One address of a dial, or one name; times are the clock's."""

    __slots__ = (
        "address",
        "began",
        "connected",
        "dialled",
        "due",
        "ended",
        "endpoint",
        "error",
        "is_known",
        "link",
        "negotiated",
        "outcome",
        "peer_id",
        "reason",
        "sockets",
        "source",
        "task",
        "until",
    )

    def __init__(self, address: Multiaddr, peer_id: PeerId | None, *, is_known: bool, source: Attempt | None) -> None:
        self.address = address
        self.peer_id = peer_id
        """Who must answer there; None takes whoever does."""
        self.is_known = is_known
        """Whether it is one that the host knew, and not one that the user has just given."""
        self.source = source
        """The name that led to it."""
        self.endpoint: tuple[str, int] | None = None
        """Where a socket is to be connected; None for a name."""
        self.due = 0.0
        self.began: float | None = None
        self.dialled: float | None = None
        """When its socket was begun: the second one, where it took two."""
        self.connected: float | None = None
        self.negotiated: float | None = None
        """When the answer about the secure channel came."""
        self.ended: float | None = None
        self.until = math.inf
        """When the look-up of its name, and of those that this leads to, is to be over."""
        self.sockets = 0
        self.outcome: Outcome | None = None
        """None while it waits or is under way, and for a name that led to others."""
        self.reason: str | None = None
        self.error: Libp2pError | None = None
        self.task: asyncio.Task[None] | None = None
        self.link: OutboundLink | None = None

    @property
    def is_name(self) -> bool:
        """Whether it has to be looked up."""
        return self.endpoint is None

    @property
    def stage(self) -> str:
        """What is being waited for."""
        if self.is_name:
            return RESOLVE_STAGE
        return CONNECT_STAGE if self.link is None else self.link.stage

    def leave_out(self, reason: str, error: Libp2pError | None = None) -> None:
        """Note that it is not dialled, and why; without an error where it is no news."""
        self.outcome, self.error, self.reason = "left out", error, reason

    def fail(self, error: Libp2pError, now: float) -> None:
        """Note that it has failed."""
        self.outcome, self.error, self.reason, self.ended = "failed", error, str(error), now

    def lose(self, now: float) -> None:
        """Note that another address has won."""
        begun = self.began is not None
        self.outcome, self.reason = ("lost" if begun else "left out"), _SLOWER
        self.ended = now if begun else None

    def names(self) -> Iterator[Attempt]:
        """Give the names that led to it, the nearest first."""
        source = self.source
        while source is not None:
            yield source
            source = source.source

    def report(self, began: float) -> AddressReport:
        """Return what became of it, in a dial that began then."""
        names = list(self.names())
        first = names[-1].began if names else self.began
        return AddressReport(
            address=str(self.address),
            name=str(names[-1].address) if names else None,
            outcome=self.outcome or "under way",
            began=None if first is None else first - began,
            seconds=None if first is None or self.ended is None else self.ended - first,
            stages=tuple(self._stages(names)),
            sockets=self.sockets,
            reason=self.reason,
            error=self.error,
        )

    def _stages(self, names: Sequence[Attempt]) -> Iterator[tuple[str, float]]:
        """Give its stages and how long each took, up to the one in which it ended."""
        times: list[tuple[str, float | None, float | None]] = []
        if names or self.is_name:
            times.append(
                (RESOLVE_STAGE, names[-1].began, names[0].ended) if names else (RESOLVE_STAGE, self.began, None)
            )
        if not self.is_name:
            times.append((CONNECT_STAGE, self.dialled, self.connected))
            times.append((NEGOTIATION_STAGE, self.connected, self.negotiated))
            times.append((HANDSHAKE_STAGE, self.negotiated, None))
        for stage, start, end in times:
            until = self.ended if end is None else end
            if start is not None and until is not None:
                yield stage, until - start


class DialRecord:
    """What is kept of a dial that is over: enough for its report, which is made when somebody asks."""

    __slots__ = ("_attempts", "_began", "_ended", "_more", "_peer_id")

    def __init__(self, dial: Dial, ended: float) -> None:
        self._peer_id = dial.peer_id
        self._attempts: Sequence[Attempt] = dial.attempts
        self._more = dial.more
        self._began = dial.began
        self._ended = ended

    def report(self) -> DialReport:
        """Return what became of every address."""
        return DialReport(
            peer_id=None if self._peer_id is None else str(self._peer_id),
            seconds=self._ended - self._began,
            addresses=tuple(
                attempt.report(self._began)
                for attempt in self._attempts
                if attempt.outcome is not None or not attempt.is_name
            ),
            more=self._more,
        )


class Dial:
    """A dial of one peer, or of whoever answers at an address."""

    def __init__(self, dialer: Dialer, key: PeerId | Multiaddr, peer_id: PeerId | None) -> None:
        swarm = dialer.swarm
        self.key = key
        self.peer_id = peer_id
        self.attempts: list[Attempt] = []
        """All addresses and names, in the order in which they became known."""
        self.more = 0
        """Those beyond `Limits.dial_addresses`."""
        self.over = False
        self._dialer = dialer
        self._swarm = swarm
        self._limits = swarm.limits
        self._timeouts = swarm.timeouts
        self._clock = swarm.clock
        self.began = swarm.clock.now()
        self._filed: set[object] = set()
        self._names: deque[Attempt] = deque()
        """Names that are to be looked up, in their order."""
        self._planned: list[Attempt] = []
        """Addresses that are to be dialled, the first one first."""
        self._running: dict[Attempt, None] = {}
        self._looking_up = 0
        """How many of those are names."""
        self._timer: asyncio.TimerHandle | None = None
        """When the next address is due."""
        self._deadline: asyncio.TimerHandle | None = None
        self._waiters: dict[asyncio.Future[Connection], None] = {}
        self._result: Connection | Libp2pError | None = None

    # -- who waits ---------------------------------------------------------------------------------------------------

    async def wait(self) -> Connection:
        """Return the connection.

        Raises: as `Swarm.connect`.
        Cancellation: the dial is given up with the last who waits.
        """
        if self.over:
            if isinstance(self._result, Libp2pError):
                raise self._result
            assert self._result is not None  # nobody can have given up what nobody waits for
            return self._result
        waiter: asyncio.Future[Connection] = self._swarm.loop.create_future()
        self._waiters[waiter] = None
        try:
            return await waiter
        finally:
            del self._waiters[waiter]
            if waiter.done() and not waiter.cancelled():
                waiter.exception()  # who waited may have been cancelled in this turn
            if not self._waiters and not self.over:
                self.give_up()

    @property
    def is_running(self) -> bool:
        """Whether an address is being dialled or a name looked up."""
        return bool(self._running)

    def give_up(self) -> None:
        """End the dial: nobody waits for it, or the host is leaving."""
        if not self.over:
            self._end(ConnectionEndedError("the dial was given up", by="local", stage=_DIAL_STAGE))

    # -- addresses ---------------------------------------------------------------------------------------------------

    def add(self, given: Iterable[Multiaddr], known: Iterable[Multiaddr]) -> None:
        """Dial these addresses too: those that the user has given at once, those that were known a step later."""
        now = self._clock.now()
        was = len(self.attempts)
        self._plan(self._file(given, is_known=False), now)
        late = now + self._timeouts.dial_step if len(self.attempts) > was else now
        self._plan(self._file(known, is_known=True), late)
        self.advance()

    def _file(self, addresses: Iterable[Multiaddr], *, is_known: bool, source: Attempt | None = None) -> list[Attempt]:
        """Note addresses that are new; return those that are to be dialled, names not among them."""
        fresh: list[Attempt] = []
        for address in addresses:
            if address in self._filed:
                continue
            if len(self.attempts) >= self._limits.dial_addresses:
                self.more += 1
                self._swarm.refused("dial_addresses")
                continue
            self._filed.add(address)
            attempt = Attempt(address, self.peer_id or address.peer_id, is_known=is_known, source=source)
            self.attempts.append(attempt)
            self._refuse(attempt)
            if attempt.outcome is not None:
                continue
            if attempt.endpoint is not None:
                fresh.append(attempt)
            else:
                self._names.append(attempt)
        return fresh

    def _refuse(self, attempt: Attempt) -> None:
        """Leave out an address that is not to be dialled; one that is to be has its endpoint then."""
        address = attempt.address
        is_name = begins_with_name(address)
        endpoint = address.tcp_endpoint if address.is_plain_tcp else None
        reason, stage = None, ADDRESS_STAGE
        if endpoint is None and address.protocols[0] != DNSADDR:
            reason, stage = "no transport of this host dials such an address", _DIAL_STAGE
        elif self.peer_id is not None and (address.peer_id or self.peer_id) != self.peer_id:
            reason = "it names another peer"
        elif is_name:
            if sum(1 for _ in attempt.names()) >= self._limits.dns_depth:
                self._swarm.refused("dns_depth")
                reason = "too many names lead to it"
        elif endpoint is not None:
            attempt.endpoint = endpoint
            reason = undialable(endpoint)
            if reason is None and self._swarm.listens_on(endpoint):
                reason = "it is an address of this host"
            if (endpoint, attempt.peer_id) in self._filed:
                attempt.leave_out("it is there already")
                return
            self._filed.add((endpoint, attempt.peer_id))
        if reason is None and attempt.is_known:
            seconds = self._swarm.peerstore.backing_off(address, self.peer_id)
            if seconds > 0:
                reason, stage = f"backing off for another {seconds:.3g} s", BACKOFF_STAGE
        if reason is not None:
            attempt.leave_out(reason, LocalProtocolError(reason, stage=stage))

    def _plan(self, attempts: list[Attempt], start: float) -> None:
        """Say when addresses are due."""
        if len(attempts) > 1:
            delays = dict(rank([attempt.address for attempt in attempts], self._timeouts))
            for attempt in attempts:
                attempt.due = start + delays[attempt.address]
        elif attempts:
            attempts[0].due = start
        self._planned += attempts
        if len(self._planned) > 1:
            self._planned.sort(key=_due)

    # -- the race ----------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Begin what is due; end the dial where nothing is left to be begun or waited for."""
        if self.over:
            return
        try:
            self._begin_due()
        except Libp2pError as error:
            self._end(error)
            return
        if not (self._running or self._planned or self._names):
            self._fail()
        elif self._deadline is None and self._needs_deadline():
            when = self.began + self._timeouts.dial
            self._deadline = self._clock.call_at(when, self._too_slow)

    def _needs_deadline(self) -> bool:
        """Whether the dial may take longer than `Timeouts.dial`.

        One address that is under way has a shorter time of its own, and a second timer costs a dial two per cent.
        """
        timeouts = self._timeouts
        longest = max(timeouts.dial_address, timeouts.dial_private_address)
        is_single = len(self._running) == 1 and not (self._looking_up or self._names or self._planned)
        return not is_single or longest > timeouts.dial

    def _begin_due(self) -> None:
        most = self._limits.dials_per_peer
        names, planned = self._names, self._planned
        while names and self._looking_up < max(1, most // _NAME_SHARE):
            if not self._dialer.take(self):
                return
            self._looking_up += 1
            self._begin(names.popleft())
        if not planned:
            return
        now = self._clock.now()
        if not self._running:
            self._bring_forward(now)
        while planned and planned[0].due <= now and len(self._running) - self._looking_up < most:
            if not self._dialer.take(self):
                return
            self._begin(planned.pop(0))
        if planned and len(self._running) - self._looking_up < most:
            self._call_at(planned[0].due)

    def _bring_forward(self, now: float) -> None:
        """Let the next addresses, those that are due at the same time, be due now."""
        due = self._planned[0].due
        if due > now:
            for attempt in self._planned:
                if attempt.due == due:
                    attempt.due = now

    def _call_at(self, when: float) -> None:
        if self._timer is not None:
            if self._timer.when() == when:
                return
            self._timer.cancel()
        self._timer = self._clock.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._planned:
            # A timer may be early by the loop's own step, which is a millisecond with uvloop.
            self._bring_forward(self._clock.now())
        self.advance()

    def _begin(self, attempt: Attempt) -> None:
        attempt.began = self._clock.now()
        self._running[attempt] = None
        if attempt.is_name:
            source = attempt.source
            attempt.until = attempt.began + self._timeouts.resolve if source is None else source.until
        self._dialer.start(self, attempt)

    # -- what attempts call ------------------------------------------------------------------------------------------

    def won(self, attempt: Attempt, connection: Connection) -> None:
        """Take the connection that an address has led to: no other is made."""
        now = self._clock.now()
        attempt.ended = now
        attempt.outcome = "connected"
        for other in self.attempts:
            if other.outcome is None and other.ended is None:
                other.lose(now)
            elif other.error is not None:
                _forget_frames(other.error)
        connection.dial_record = DialRecord(self, now)
        if attempt.source is not None:
            # The address is known from now on, and so is the name: it will lead elsewhere one day.
            *_, name = attempt.names()
            self._swarm.peerstore.dial_succeeded(connection.peer_id, name.address)
        self._end(connection, winner=attempt)

    def looked_up(self, attempt: Attempt, found: Sequence[Multiaddr], error: Libp2pError | None) -> None:
        """Take what a name has led to."""
        self._looking_up -= 1
        if found and not self.over:
            attempt.ended = now = self._clock.now()
            were = len(self.attempts) + self.more
            self._plan(self._file(found, is_known=attempt.is_known, source=attempt), now)
            if len(self.attempts) + self.more == were:
                attempt.leave_out("it leads to nothing new")
        self.ended(attempt, error, is_done=bool(found))

    def ended(self, attempt: Attempt, error: Libp2pError | None, *, is_done: bool = False) -> None:
        """Take note that the task of an address has ended, with an error or because it was cancelled."""
        del self._running[attempt]
        attempt.task = attempt.link = None
        if not self.over and error is not None:
            attempt.fail(error, self._clock.now())
            self._swarm.peerstore.dial_failed(attempt.peer_id, attempt.address, error)
        self._dialer.release()
        if error is None and not is_done:
            self.give_up()  # somebody else has cancelled the task
        else:
            self.advance()

    # -- ends --------------------------------------------------------------------------------------------------------

    def _too_slow(self) -> None:
        """End the dial at `Timeouts.dial`."""
        self._deadline = None
        now, seconds = self._clock.now(), self._timeouts.dial
        for attempt in self._running:
            error = DeadlineError("dial", seconds, stage=attempt.stage)
            attempt.fail(error, now)
            self._swarm.peerstore.dial_failed(attempt.peer_id, attempt.address, error)
        for attempt in (*self._planned, *self._names):
            late = DeadlineError("dial", seconds, "it was not its turn", stage=_DIAL_STAGE)
            attempt.leave_out(late.describe(), late)
        self._fail()

    def _fail(self) -> None:
        failures = {str(attempt.address): attempt.error for attempt in self.attempts if attempt.error is not None}
        report = DialRecord(self, self._clock.now()).report()
        error = DialError(None if self.peer_id is None else str(self.peer_id), failures, report)
        error.__cause__ = next(iter(failures.values()), None)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("a dial failed", extra={"peer_id": self.peer_id, "report": report.to_json()})
        self._end(error)

    def _end(self, result: Connection | Libp2pError, *, winner: Attempt | None = None) -> None:
        """Stop everything, drop the sockets of all but the winner, and tell who waits."""
        self.over = True
        self._result = result
        self._planned.clear()
        self._names.clear()
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()
        self._timer = self._deadline = None
        for attempt in self._running:
            if attempt is not winner:
                if attempt.link is not None:
                    attempt.link.give_up()
                if attempt.task is not None:
                    attempt.task.cancel()
        self._dialer.forget(self)
        for waiter in self._waiters:
            if waiter.done():
                continue
            if isinstance(result, Libp2pError):
                waiter.set_exception(result)
            else:
                waiter.set_result(result)


def _forget_frames(error: BaseException) -> None:
    """Let an error that a connection keeps keep nothing else."""
    found: BaseException | None = error
    while found is not None:
        found.__traceback__ = found.__context__ = None
        found = found.__cause__


def _due(attempt: Attempt) -> float:
    return attempt.due
