"""What a simulated machine gives to libp2p: its clock, its seeded randomness, its sockets and what names stand for."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiolibp2p.runtime import LoopNet, ProtocolFactory, Runtime, SystemNames
from aiolibp2p.sim.loop import EscapeError, SimLoop
from aiolibp2p.sim.network import Host

_POOL_BYTES = 1024


class SeededEntropy:
    """Reproducible bytes: SHAKE-256 over the seed, the labels of the forks that led here, and a counter.

    Whoever knows the seed knows every byte, so this is for simulations only.
    """

    def __init__(self, seed: int | str | bytes) -> None:
        data = seed if isinstance(seed, bytes) else str(seed).encode()
        self._key = hashlib.blake2b(data, digest_size=32).digest()
        self._pool = b""
        self._refills = 0
        self._forks: Counter[str] = Counter()

    def token(self, n: int) -> bytes:
        """Return the next `n` bytes; how they were asked for in pieces changes nothing."""
        while len(self._pool) < n:
            self._pool += hashlib.shake_256(self._key + self._refills.to_bytes(8, "big")).digest(_POOL_BYTES)
            self._refills += 1
        token, self._pool = self._pool[:n], self._pool[n:]
        return token

    def fork(self, label: str) -> SeededEntropy:
        """Return a source for one purpose.

        Its bytes depend on the label and on how often that label was forked before (so that two connections do not get
        the same keys), and not on what was drawn.
        """
        self._forks[label] += 1
        return SeededEntropy(self._key + f"{label}#{self._forks[label]}".encode())


class HostClock:
    """The clock of one run of a machine: when the machine crashes, its timers are gone."""

    def __init__(self, loop: SimLoop, host: Host) -> None:
        self._loop = loop
        self.now = loop.time
        self.wall = loop.wall
        with host.here():
            self._context = contextvars.copy_context()

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Call `callback(*args)` on the machine at `when`."""
        return self._loop.call_at(when, callback, *args, context=self._context.copy())


class HostNet(LoopNet):
    """TCP sockets of one simulated host."""

    def __init__(self, loop: SimLoop, host: Host) -> None:
        super().__init__(loop)
        self.host = host

    async def connect_tcp(self, factory: ProtocolFactory, host: str, port: int) -> None:
        """Connect from this host and attach the protocol.

        Raises:
            OSError: refused, timed out, or a name that does not resolve.
        Cancellation: the connection is given up.
        """
        with self.host.here():
            await super().connect_tcp(factory, host, port)

    async def listen_tcp(self, factory: ProtocolFactory, host: str, port: int) -> asyncio.Server:
        """Listen on one of this host's addresses.

        Raises:
            OSError: the address is in use or not ours.
        """
        with self.host.here():
            return await super().listen_tcp(factory, host, port)

    def interface_addresses(self) -> list[str]:
        """Return the addresses of this host, loopback ones too."""
        try:
            with self.host.here():
                return super().interface_addresses()
        except OSError:
            return []  # it has crashed


def sim_runtime(loop: SimLoop, seed_label: str, host: Host | None = None) -> Runtime:
    """Return the runtime of one simulated host.

    Args:
        loop: gives the time, the seed and the network.
        seed_label: tells this host's random bytes from those of others.
        host: the machine it runs on; None is the network's `home`.

    Raises:
        EscapeError: the loop has no network.
        OSError: the machine has crashed.
    """
    if loop.net is None:
        raise EscapeError("no network is attached to this loop")
    machine = host or loop.net.home
    return Runtime(
        clock=HostClock(loop, machine),
        entropy=SeededEntropy(f"{loop.seed}/entropy").fork(seed_label),
        net=HostNet(loop, machine),
        names=SystemNames(loop),
    )
