"""What a test does to the network: partitions, holds, isolation, rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from aiolibp2p.sim.network.host import Host
from aiolibp2p.sim.network.link import Link
from aiolibp2p.sim.network.path import Path
from aiolibp2p.sim.network.pipe import Tuning
from aiolibp2p.sim.network.rules import Rule
from aiolibp2p.sim.network.topology import Topology
from aiolibp2p.sim.scheduler import VirtualTimeLoop

Hosts = Host | Iterable[Host]
"""One host, or several."""


class Faults(Topology):
    """A network that can be cut, held back and ruled.

    Cut and held are states of a direction between two hosts, and the last word counts: to hold what is cut ends the
    cut. What goes on within a host is never touched.
    """

    def __init__(self, loop: VirtualTimeLoop, link: Link, tuning: Tuning) -> None:
        """Make a network without hosts and without faults."""
        super().__init__(loop, link, tuning)
        self._isolated: set[str] = set()

    def path(self, source: Host, target: Host | None) -> Path:
        """Return one direction between two hosts; its `valve` holds or cuts all that crosses it. None is nowhere."""
        is_new = (source.name, target.name if target is not None else "") not in self._paths
        path = super().path(source, target)
        if is_new and source is not target and target is not None and {source.name, target.name} & self._isolated:
            path.valve.cut()
        return path

    def partition(self, a: Hosts, b: Hosts, *, oneway: bool = False) -> None:
        """Lose what goes between hosts, what is held back included, until `repair`; what has left arrives.

        Args:
            a: one host or several.
            b: those on the other side.
            oneway: only what goes from a to b.
        """
        for path in self._between(a, b, oneway=oneway):
            path.valve.cut()
            self.tell(f"cut {path.name}")

    def repair(self, a: Hosts, b: Hosts | None = None, *, oneway: bool = False) -> None:
        """End a partition; without b, all of those that a is part of, and its isolation.

        TCP sends again what was lost, at the times when a real stack would.
        """
        if b is None:
            one = {host.name for host in _each(a)}
            self._isolated -= one
            paths = [p for p in self._paths.values() if p.source.name in one or (p.target and p.target.name in one)]
        else:
            paths = list(self._between(a, b, oneway=oneway))
        for path in paths:
            if path.valve.state == "cut" and path.target is not None:
                path.valve.open()
                self.tell(f"repair {path.name}")

    def hold(self, a: Hosts, b: Hosts, *, oneway: bool = False) -> None:
        """Keep back what goes between hosts, in order, until `release`; `in_flight` shows it.

        TCP takes it for a long way, and not for a loss: it sends nothing again and does not time out.
        """
        for path in self._between(a, b, oneway=oneway):
            path.valve.hold()
            self.tell(f"hold {path.name}")

    def release(self, a: Hosts, b: Hosts, *, oneway: bool = False) -> None:
        """Let what was held back go on its way, in order, as if it were sent at this moment."""
        for path in self._between(a, b, oneway=oneway):
            if path.valve.state == "held":
                path.valve.open()
                self.tell(f"release {path.name}")

    def isolate(self, host: Host) -> None:
        """Make a host a black hole: it goes on, and nothing gets in or out, to and from hosts added later too.

        `repair(host)` ends it.
        """
        self._isolated.add(host.name)
        self.tell(f"isolate {host.name}")
        for path in self._paths.values():
            if path.source is not path.target and path.target is not None and host in (path.source, path.target):
                path.valve.cut()

    def rule(self, function: Rule) -> Callable[[], None]:
        """Let a function decide about every packet at the beginning of its path, and return what ends that.

        It is called with the packet, whose `number` counts those of its path from 1 on, and returns None for no
        opinion, "drop", "duplicate", or the seconds by which the packet arrives later, while those behind it do not
        wait. Rules are asked in the order in which they were added, and the first opinion counts.
        """
        self.rules.append(function)

        def end() -> None:
            if function in self.rules:
                self.rules.remove(function)

        return end

    def _between(self, a: Hosts, b: Hosts, *, oneway: bool) -> Iterator[Path]:
        for one in _each(a):
            for other in _each(b):
                if one is not other:
                    yield self.path(one, other)
                    if not oneway:
                        yield self.path(other, one)


def _each(hosts: Hosts) -> list[Host]:
    return [hosts] if isinstance(hosts, Host) else list(hosts)
