"""Back-off: how long an address that could not be dialled is left alone."""

from __future__ import annotations

import errno
from collections import OrderedDict
from typing import Final

from aiolibp2p.errors import ConnectionEndedError, LimitError, LocalProtocolError
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.runtime import Clock

Key = Multiaddr | tuple[PeerId, Multiaddr]
"""An address, or an address where another peer than this one answers."""

_OURS: Final = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE})
"""What the system says of this machine, not of the address."""


def is_fault_of_address(error: BaseException) -> bool:
    """Whether a failed dial says anything about its address.

    A dial that was given up, that a limit of ours forbade or that this machine has no network or no socket for does
    not: were it held against the addresses, all of them would be backing off when the network is back.
    """
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in _OURS:
        return False
    if isinstance(error, ConnectionEndedError):
        return error.by == "remote"
    return not isinstance(error, LocalProtocolError | LimitError)


class Backoff:
    """The addresses whose last dial failed; `Limits.addresses_remembered`, the one that failed longest ago goes first.

    The n-th failure in a row is followed by `Timeouts.dial_backoff` + (n - 1)² x `dial_backoff_step`, and no more than
    `dial_backoff_max`. A success ends the row, and so does a time as long as the back-off after its end.
    """

    def __init__(self, clock: Clock, limits: Limits, timeouts: Timeouts) -> None:
        self._clock = clock
        self._most = limits.addresses_remembered
        self._timeouts = timeouts
        self._failures: OrderedDict[Key, tuple[int, float]] = OrderedDict()
        """How often in a row, and until when."""

    def __len__(self) -> int:
        return len(self._failures)

    def failed(self, key: Key) -> bool:
        """Take note of a failure; return whether that of another address made room for it."""
        now = self._clock.now()
        times, until = self._failures.pop(key, (0, now))
        if times and now >= until + self._seconds(times):
            times = 0
        times += 1
        self._failures[key] = (times, now + self._seconds(times))
        if len(self._failures) <= self._most:
            return False
        self._failures.popitem(last=False)
        return True

    def end(self, key: Key) -> None:
        """End the row of failures."""
        self._failures.pop(key, None)

    def remaining(self, key: Key) -> float:
        """Return the seconds still to wait; 0.0 for none."""
        failure = self._failures.get(key)
        return 0.0 if failure is None else max(0.0, failure[1] - self._clock.now())

    def _seconds(self, times: int) -> float:
        timeouts = self._timeouts
        return min(timeouts.dial_backoff + (times - 1) ** 2 * timeouts.dial_backoff_step, timeouts.dial_backoff_max)
