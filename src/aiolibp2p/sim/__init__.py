"""Virtual time: a deterministic event loop and network on which durations are exact."""

from __future__ import annotations

from aiolibp2p.sim.loop import (
    DeadlockError,
    EscapeError,
    LeftoverError,
    LivelockError,
    SimLoop,
    TimeLimitError,
    current_loop,
    current_net,
    run,
)
from aiolibp2p.sim.network import Connection, Host, Link, SimNet, Tap, Tuning
from aiolibp2p.sim.trace import Trace
from aiolibp2p.sim.world import HostNet, SeededEntropy, sim_runtime

__all__ = [
    "Connection",
    "DeadlockError",
    "EscapeError",
    "Host",
    "HostNet",
    "LeftoverError",
    "Link",
    "LivelockError",
    "SeededEntropy",
    "SimLoop",
    "SimNet",
    "Tap",
    "TimeLimitError",
    "Trace",
    "Tuning",
    "current_loop",
    "current_net",
    "run",
    "sim_runtime",
]
