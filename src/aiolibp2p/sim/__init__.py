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
from aiolibp2p.sim.network import (
    Connection,
    Firewall,
    Host,
    InFlight,
    Link,
    Nat,
    NatRules,
    Packet,
    Path,
    Rule,
    SimNet,
    Tap,
    Tuning,
    Verdict,
)
from aiolibp2p.sim.runtime import HostNet, SeededEntropy, sim_runtime
from aiolibp2p.sim.testing import sim_test
from aiolibp2p.sim.trace import Trace, first_divergence
from aiolibp2p.sim.world import InvariantError, World, new_event_loop, run_world

__all__ = [
    "Connection",
    "DeadlockError",
    "EscapeError",
    "Firewall",
    "Host",
    "HostNet",
    "InFlight",
    "InvariantError",
    "LeftoverError",
    "Link",
    "LivelockError",
    "Nat",
    "NatRules",
    "Packet",
    "Path",
    "Rule",
    "SeededEntropy",
    "SimLoop",
    "SimNet",
    "Tap",
    "TimeLimitError",
    "Trace",
    "Tuning",
    "Verdict",
    "World",
    "current_loop",
    "current_net",
    "first_divergence",
    "new_event_loop",
    "run",
    "run_world",
    "sim_runtime",
    "sim_test",
]
