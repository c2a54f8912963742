"""A simulated world for one test: machines, links between them, virtual time, and hosts of libp2p if it wants any."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from aiolibp2p.host import Host as Libp2pHost
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.profile import TaskProfile, profile_tasks, unwakeable
from aiolibp2p.sim.loop import LeftoverError, Schedule, SimLoop
from aiolibp2p.sim.network import Firewall, Host, Link, Nat, Rule, SimNet
from aiolibp2p.sim.network.boot import Boot, here
from aiolibp2p.sim.network.faults import Hosts
from aiolibp2p.sim.pcap import Capture
from aiolibp2p.sim.runtime import SeededEntropy, sim_runtime
from aiolibp2p.sim.scheduler import LIMIT_SECONDS, NS
from aiolibp2p.sim.trace import Trace

T = TypeVar("T")

_PORT = 4001
"""Where hosts of libp2p listen unless told otherwise, as is the custom."""


class InvariantError(AssertionError):
    """What `World.always` was told did not hold."""


class Elapsed:
    """Virtual time since a block began, and until it ended once it has."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._since_ns = loop.time_ns()
        self._until_ns: int | None = None

    @property
    def ns(self) -> int:
        """Nanoseconds."""
        return (self._loop.time_ns() if self._until_ns is None else self._until_ns) - self._since_ns

    @property
    def seconds(self) -> float:
        """Seconds."""
        return self.ns / NS

    def end(self) -> None:
        """Stand still from now on."""
        self._until_ns = self._loop.time_ns()


class World:
    """What a simulated test works with; `sim_test` and `run_world` make one.

    Code that says nothing else runs on the machine `home`; `with host.here():` and tasks started in it run on another.
    """

    def __init__(self, loop: SimLoop) -> None:
        """Make a world of one machine; the loop gets a network if it has none."""
        if loop.net is None:
            loop.net = SimNet(loop)
        self.loop = loop
        self.net = loop.net
        """The network: connections, listeners, taps."""
        self.trace = loop.trace if loop.trace is not None else Trace()
        """Everything that crossed the network, in order; `trace.digest()` stands for it."""
        loop.trace = self.trace
        self._libp2p = contextlib.AsyncExitStack()
        self._files = contextlib.ExitStack()
        self._starts: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<World seed={self.loop.seed!r} at {self.loop.time():.9f} s>"

    # Machines and what lies between them

    def host(self, name: str, *addresses: str, **options: Any) -> Host:
        """Add a machine; without addresses it gets a public one of IPv4.

        Args:
            name: what others reach it by, too.
            addresses: of either family; the first of each is what it sends from.
            options: as of `SimNet.host`: `behind=nat` …

        Raises:
            ValueError: the name or an address is taken.
        """
        return self.net.host(name, *addresses, **options)

    def nat(self, name: str, address: str, **options: Any) -> Nat:
        """Add a NAT, for machines to be behind: `world.host("alice", behind=world.nat("home", "203.0.113.1"))`.

        Args:
            name: of no other NAT.
            address: the one of IPv4 that whoever is behind it has outside.
            options: as of `SimNet.nat`: `kind="symmetric"`, `hairpin=True`, `udp_idle=30.0` …

        Raises:
            TypeError: there is no such option.
            ValueError: the name or the address is taken, or a value has no meaning.
        """
        return self.net.nat(name, address, **options)

    def name(self, name: str, *addresses: str, **options: Any) -> None:
        """Let a name stand for addresses: `world.name("peer.example", "203.0.113.7", seconds=0.05)`.

        Args:
            addresses: of either family; without any the name does not resolve.
            options: as of `SimNet.name`: `txt=["dnsaddr=/ip4/…"]`, `seconds=math.inf` …

        Raises:
            TypeError: there is no such option.
            ValueError: an address is none, or the time is negative.
        """
        self.net.name(name, *addresses, **options)

    def firewall(self, **options: Any) -> Firewall:
        """Return a firewall, for machines to be behind that keep their addresses: it lets in what they asked for.

        Args:
            options: as of `SimNet.firewall`: `open_ports=[4001]`, `udp_idle=30.0` …

        Raises:
            TypeError: there is no such option.
            ValueError: a value has no meaning.
        """
        return self.net.firewall(**options)

    def rebind(self, nat: Nat | Host, address: str | None = None) -> None:
        """Let a NAT, or the one that a machine is behind, forget its mappings, and change its address if one is given.

        What becomes of those behind it is told by `Nat.rebind`.

        Raises:
            ValueError: the machine is behind none, or the address is taken or none of IPv4.
        """
        device = nat.behind if isinstance(nat, Host) else nat
        if device is None or isinstance(device, Firewall):
            raise ValueError(f"{nat!r} is behind no NAT")
        device.rebind(address)

    def link(self, a: Hosts, b: Hosts, *, oneway: bool = False, **options: Any) -> None:
        """Say how machines reach each other; in one direction only if `oneway`.

        Args:
            a: a machine or several.
            b: those at the other end; one that is in `a` too keeps its way to itself.
            oneway: change only the way from `a` to `b`.
            options: the fields of `Link`: `latency=0.05`, `bandwidth=20e6` …

        Raises:
            TypeError: `Link` has no such field.
            ValueError: a value has no meaning.
        """
        link = Link(**options)
        for one, other in itertools.product(_each(a), _each(b)):
            if one is not other:
                self.net.set_link(link, one, other)
                if not oneway:
                    self.net.set_link(link, other, one)

    def partition(self, a: Hosts, b: Hosts, *, oneway: bool = False) -> None:
        """Lose what goes between machines until `repair`; only from `a` to `b` if `oneway`."""
        self.net.partition(a, b, oneway=oneway)

    def repair(self, a: Hosts, b: Hosts | None = None, *, oneway: bool = False) -> None:
        """End a partition; without `b`, all those that `a` is part of, and its isolation."""
        self.net.repair(a, b, oneway=oneway)

    def hold(self, a: Hosts, b: Hosts, *, oneway: bool = False) -> None:
        """Keep back what goes between machines, in order, until `release`."""
        self.net.hold(a, b, oneway=oneway)

    def release(self, a: Hosts, b: Hosts, *, oneway: bool = False) -> None:
        """Let what was held back go on its way, in order."""
        self.net.release(a, b, oneway=oneway)

    def isolate(self, host: Host) -> None:
        """Make a machine a black hole until `repair(host)`: it goes on, and nothing gets in or out."""
        self.net.isolate(host)

    def rule(self, function: Rule) -> Callable[[], None]:
        """Let a function decide about every packet, and return what ends that.

        `lambda p: "drop" if p.number == 3 else None` loses the third packet of each direction between two machines.
        """
        return self.net.rule(function)

    # Time

    @property
    def now_ns(self) -> int:
        """The virtual time in nanoseconds."""
        return self.loop.time_ns()

    async def settle(self) -> None:
        """Wait until everything else is blocked, without time passing.

        Cancellation: nothing happens.
        """
        await self.loop.settle()

    async def pass_time(self, seconds: float) -> None:
        """Wait until `seconds` of virtual time have passed.

        Cancellation: nothing happens.
        """
        await self.loop.pass_time(seconds)

    @contextlib.contextmanager
    def elapsed(self) -> Iterator[Elapsed]:
        """Measure the virtual time of a block: `with world.elapsed() as t: …`, then `t.ns`."""
        measured = Elapsed(self.loop)
        try:
            yield measured
        finally:
            measured.end()

    # What has to be so

    def always(self, text: str, check: Callable[[], object]) -> Callable[[], None]:
        """Check something at every instant of virtual time, and return what ends that.

        It is checked when nothing more can run at an instant, before the clock moves and before `settle` returns, and
        not between two steps of one instant, where much is half done. If it does not hold, the run ends with
        InvariantError.

        Args:
            text: what has to be so, for the message.
            check: returns whether it is; or returns None, and raises AssertionError if it is not.
        """

        def checked() -> None:
            try:
                result = check()
            except AssertionError as error:
                raise InvariantError(f"not so at {self.loop.time():.9f} s: {text}: {error}") from error
            if result is not None and not result:
                raise InvariantError(f"not so at {self.loop.time():.9f} s: {text}")

        return self.loop.at_each_instant(checked)

    async def until(self, predicate: Callable[[], object], *, within: float) -> None:
        """Wait until something is so, and no longer.

        It is looked at when nothing more can run at an instant, before the clock moves: what is so only for a moment
        within an instant goes unseen.

        Args:
            predicate: returns whether it is so.
            within: seconds of virtual time; at the end of that instant it is looked at for the last time.

        Raises:
            TimeoutError: it has not become so. Besides, whatever the predicate raises.
        Cancellation: nothing happens.
        """
        __tracebackhide__ = True
        done = self.loop.create_future()
        deadline_ns = self.now_ns + round(within * NS)
        name = getattr(predicate, "__qualname__", repr(predicate))

        def look() -> None:
            if not done.done():
                try:
                    if predicate():
                        done.set_result(None)
                    elif self.now_ns >= deadline_ns:
                        done.set_exception(TimeoutError(f"not so within {within:g} s of virtual time: {name}"))
                except Exception as error:  # noqa: BLE001  # whoever waits gets it
                    done.set_exception(error)

        end = self.loop.at_each_instant(look)
        stop = self.loop.call_at_ns(deadline_ns, lambda: None)  # so that the clock stops there
        try:
            await done
        finally:
            stop.cancel()
            end()

    # Hosts of libp2p

    async def libp2p(self, host: Host, **options: Any) -> Libp2pHost:
        """Return a host of libp2p that runs on a machine until the world ends.

        It has the machine's virtual clock, network and seeded randomness; its key depends on the seed and the machine's
        name, so a host started again after a crash is the same peer.

        Args:
            host: the machine.
            options: as of `aiolibp2p.Host`; without `listen` it listens on the machine's addresses, port 4001.

        Raises:
            ListenError: an address cannot be listened on.
        Cancellation: the host is ended.
        """
        self._starts[host.name] += 1
        runtime = sim_runtime(self.loop, f"{host.name}#{self._starts[host.name]}", host)
        options.setdefault("key", PrivateKey.generate(SeededEntropy(f"{self.loop.seed}/key").fork(host.name)))
        options.setdefault("listen", [listening_address(ip) for ip in host.addresses])
        node = Libp2pHost(runtime=runtime, **options)
        with host.here():
            boot = here.get()
            await node.__aenter__()
        self._libp2p.push_async_callback(_end_unless_crashed, node, boot)
        return node

    # What there is

    def tasks(self) -> TaskProfile:
        """Return what every task waits for, where and for how long; it prints as text."""
        return profile_tasks(self.loop)

    def unwakeable(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that nothing can wake any more."""
        return unwakeable(self.loop)

    def pcap(self, path: str | os.PathLike[str]) -> None:
        """Write every packet from now on into a file that Wireshark and tcpdump read, with its virtual time.

        The file is whole once the world has ended.

        Raises:
            OSError: it cannot be written.
        """
        file = self._files.enter_context(open(path, "wb"))  # noqa: SIM115  # ended with the world
        self.net.taps.append(Capture(file))

    def close_files(self) -> None:
        """Write what is left of captures."""
        self.net.taps[:] = [tap for tap in self.net.taps if not isinstance(tap, Capture)]
        self._files.close()

    async def close(self) -> None:
        """End the hosts of libp2p, the last one first.

        Raises: what ending one of them raises.
        Cancellation: they are ended at once.
        """
        await self._libp2p.aclose()


def _each(hosts: Hosts) -> list[Host]:
    return [hosts] if isinstance(hosts, Host) else list(hosts)


async def _end_unless_crashed(node: Libp2pHost, boot: Boot | None) -> None:
    if boot is None or boot.alive:  # of a machine that has crashed nothing is left to end
        await node.__aexit__(None, None, None)


def listening_address(ip: str) -> str:
    """Return where a host of libp2p listens on an address of its machine."""
    return f"/ip{6 if ':' in ip else 4}/{ip}/tcp/{_PORT}"


def new_event_loop(
    seed: int | str = 0, *, schedule: Schedule = "fifo", limit_seconds: float = LIMIT_SECONDS
) -> SimLoop:
    """Return a simulated loop with a network, for whoever takes a loop factory: `asyncio.Runner`, a plugin of pytest.

    `World(loop)` gives the world of such a loop; whoever runs it ends it.

    Args:
        seed: everything random in the simulation is drawn from it; the module `random` is left alone.
        schedule: "random" runs the tasks of one turn in a seeded order.
        limit_seconds: virtual time after which the run fails.
    """
    return World(SimLoop(seed, schedule=schedule, limit_seconds=limit_seconds)).loop


def run_world(
    main: Callable[[World], Coroutine[Any, Any, T]],
    *,
    seed: int | str = 0,
    schedule: Schedule = "fifo",
    limit_seconds: float = LIMIT_SECONDS,
    trace: Trace | None = None,
    strict: bool = False,
    on_failure: Callable[[World, BaseException], object] | None = None,
) -> T:
    """Run a coroutine in a world of its own and return its result.

    The module `random` is seeded meanwhile, for programs that draw from it.

    Args:
        main: gets the world.
        seed: everything random in the world is drawn from it.
        schedule: "random" runs the tasks of one turn in a seeded order.
        limit_seconds: virtual time after which the run fails.
        trace: where to record what happens.
        strict: fail when a task or a timer is left at the end; an exception that escaped from a callback, or of a task
            whose result nobody took, is a failure always.
        on_failure: called when the run has failed, while all its tasks are still where they were.

    Raises:
        DeadlockError: everything waits and nothing will happen.
        LivelockError: virtual time stands still.
        TimeLimitError: the limit of virtual time is reached.
        LeftoverError: something is left.
        InvariantError: something that had to be so always was not.
    """
    loop = SimLoop(seed, schedule=schedule, limit_seconds=limit_seconds, trace=trace)
    world = World(loop)
    failed: list[BaseException] = []

    def fail(error: BaseException) -> None:
        if on_failure is not None and not failed:
            failed.append(error)
            on_failure(world, error)

    drawn = random.getstate()
    random.seed(f"{seed}/random")
    try:
        try:
            result = loop.run_until_complete(loop.create_task(_until_closed(world, main, fail), name="main"))
            loop.run_until_complete(loop.settle())
            left = loop.leftovers() if strict else loop.escaped()
            if left:
                raise LeftoverError("left behind:\n" + "\n".join(left))
            return result
        except BaseException as error:
            fail(error)
            raise
        finally:
            loop.end()
    finally:
        random.setstate(drawn)
        world.close_files()
        loop.close()


async def _until_closed(
    world: World, main: Callable[[World], Coroutine[Any, Any, T]], fail: Callable[[BaseException], object]
) -> T:
    try:
        return await main(world)
    except BaseException as error:
        fail(error)  # before the hosts of libp2p end, so that their tasks are seen
        raise
    finally:
        await world.close()
