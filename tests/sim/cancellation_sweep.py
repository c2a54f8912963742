"""The cancellation sweep: what hosts do, disturbed at every one of its steps, leaves nothing behind.

python -m tests.sim.cancellation_sweep                                      all of it, on all processors
python -m tests.sim.cancellation_sweep --scenario fetch                     one scenario
python -m tests.sim.cancellation_sweep --scenario fetch --family reset --step 17
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import logging
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

from aiolibp2p import Host, Multiaddr, Stream
from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks import Cid
from aiolibp2p.errors import Libp2pError
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.sim import Host as Machine
from aiolibp2p.sim import Link, current_loop, current_net, sim_runtime
from aiolibp2p.sim.sweep import processors, sweep
from aiolibp2p.unixfs import cat
from aiolibp2p.unixfs.layout import Layout, file_blocks
from tests.support.hosts import ECHO, OTHER
from tests.support.sweep import FAMILIES, OWN, TIMEOUTS, Family, FaultyStore, Point, Scenario, Stage, play, points

COMMAND = "python -m tests.sim.cancellation_sweep"
Block = tuple[Cid, bytes]
Main = Callable[[Stage], Coroutine[Any, Any, None]]

LATENCY = 0.01
SILENT = Multiaddr("/ip4/9.9.9.9/tcp/1")
"""An address that nobody has, ranked before those of hosts."""
LEAVING_SECONDS = 0.075
"""When half of the leaves have come."""
TEXT = hashlib.shake_128(b"sweep").digest(4096)
BLOCKS = list(file_blocks([TEXT[at : at + 1024] for at in range(0, len(TEXT), 1024)], Layout(chunk_bytes=1024)))
"""A file of four leaves; the root is the last."""
OVER_CREDIT_BYTES = 300_000
"""More than a stream's first credit."""


# -- stages ----------------------------------------------------------------------------------------------------------


async def echo(stream: Stream) -> None:
    """Send back what comes, until the end."""
    async for data in stream:
        await stream.write(data)


async def finish_first(stream: Stream) -> None:
    """Say something and finish, then read until the end."""
    await stream.write(TEXT)
    stream.close_write()
    async for _ in stream:
        pass


class Opening(contextlib.AsyncExitStack):
    """Hosts that are left one after the other, each on a machine of its own."""

    def __init__(self) -> None:
        super().__init__()
        current_net().set_link(Link(latency=LATENCY))
        self.hosts: dict[str, Host] = {}
        self.bitswaps: dict[str, Bitswap] = {}
        self.machines: dict[str, Machine] = {}
        self.stores: list[FaultyStore] = []

    def host(self, name: str) -> Host:
        """Make a host that listens, once it is entered."""
        machine = self.machines[name] = current_net().host(name)
        runtime = sim_runtime(current_loop(), name, machine)
        host = self.hosts[name] = Host(runtime=runtime, listen=[f"/ip4/{machine.addresses[0]}/tcp/4001"])
        return host

    async def enter(self, name: str) -> Host:
        """Make a host and enter it."""
        host = self.host(name)
        with self.machines[name].here():
            return await self.enter_async_context(host)

    def store(self, has: Iterable[Block] = ()) -> FaultyStore:
        """Make a store that can be told to fail."""
        store = FaultyStore(has)
        self.stores.append(store)
        return store

    async def serve(self, name: str, has: Iterable[Block]) -> Bitswap:
        """Let a host serve blocks and fetch others."""
        with self.machines[name].here():
            bitswap = Bitswap(self.hosts[name], self.store(has))
            self.bitswaps[name] = await self.enter_async_context(bitswap)
        return bitswap

    @property
    def stage(self) -> Stage:
        """What there is, for a scenario that alice plays."""
        return Stage(self.machines["alice"], self.hosts, self.bitswaps, self.stores)


@contextlib.asynccontextmanager
async def two_hosts(*, connected: bool = True) -> AsyncIterator[Stage]:
    """Give alice and bob, who serves two protocols."""
    async with Opening() as opening:
        bob = await opening.enter("bob")
        bob.handle(ECHO, echo)
        bob.handle(OTHER, finish_first)
        alice = await opening.enter("alice")
        if connected:
            await alice.connect(bob.addresses[0])
            await alice.identify(bob.peer_id)
            await current_loop().pass_time(1)
        yield opening.stage


@contextlib.asynccontextmanager
async def three_addresses() -> AsyncIterator[Stage]:
    """Give alice, bob and carol, and a name that leads to three addresses, of which only the last is bob's."""
    async with Opening() as opening:
        bob, carol = await opening.enter("bob"), await opening.enter("carol")
        addresses = [SILENT, *(host.addresses[0].without_peer_id() for host in (carol, bob))]
        txt = [f"dnsaddr={address.with_peer_id(bob.peer_id)}" for address in addresses]
        current_net().name("_dnsaddr.bob.example", txt=txt, seconds=LATENCY)
        await opening.enter("alice")
        yield opening.stage


@contextlib.asynccontextmanager
async def two_servers(*, entered: bool = True) -> AsyncIterator[Stage]:
    """Give alice, who has nothing, and bob and carol, who have half of the leaves each."""
    async with Opening() as opening:
        for name, leaves in (("bob", BLOCKS[:2]), ("carol", BLOCKS[2:4])):
            await opening.enter(name)
            await opening.serve(name, [*leaves, BLOCKS[-1]])
        if entered:
            await opening.enter("alice")
            await opening.serve("alice", [])
        else:
            opening.host("alice")
            opening.store()
        yield opening.stage


# -- scenarios -------------------------------------------------------------------------------------------------------


def peer_of(stage: Stage) -> PeerId:
    return stage.hosts["bob"].peer_id


async def dial(stage: Stage) -> None:
    """Dial, upgrade and identify."""
    alice, bob = stage.hosts["alice"], stage.hosts["bob"]
    await alice.connect(bob.addresses[0])
    await alice.identify(bob.peer_id)


async def race(stage: Stage) -> None:
    """Dial a name, which leads to an address that nobody has, to one of another peer, and to one of the peer's."""
    alice, bob = stage.hosts["alice"], stage.hosts["bob"]
    await alice.connect(f"/dnsaddr/bob.example/p2p/{bob.peer_id}")


async def lazy(stage: Stage) -> None:
    """Open lazily, write, read and close."""
    async with await stage.hosts["alice"].open_stream(peer_of(stage), ECHO) as stream:
        await stream.write(TEXT)
        assert await stream.read_exactly(len(TEXT)) == TEXT
    await stream.wait_closed()


async def eager(stage: Stage) -> None:
    """Propose a protocol that the peer does not speak, and one that it does, before it has said what it speaks."""
    connection = await stage.hosts["alice"].connect(stage.hosts["bob"].addresses[0])
    async with await connection.open_stream("/unspoken/1.0.0", ECHO) as stream:
        assert not stream.lazy
        await stream.write(TEXT)
        assert await stream.read_exactly(len(TEXT)) == TEXT


async def ping(stage: Stage) -> None:
    """Ask three questions on one stream."""
    alice = stage.hosts["alice"]
    asking = [current_loop().create_task(alice.ping(peer_of(stage)), name=f"{OWN}ping {number}") for number in range(3)]
    await all_of(asking)


async def over_credit(stage: Stage) -> None:
    """Write more than the peer takes at once, to a peer that does not read while nobody reads its answer."""
    async with await stage.hosts["alice"].open_stream(peer_of(stage), ECHO) as stream:
        writing = current_loop().create_task(stream.write(bytes(OVER_CREDIT_BYTES)), name=f"{OWN}write")
        reading = current_loop().create_task(stream.read_exactly(OVER_CREDIT_BYTES), name=f"{OWN}read")
        await all_of([writing, reading])
        stream.close_write()
        assert await stream.read() == b""


async def half_close(stage: Stage) -> None:
    """Finish writing first, then read to the end."""
    async with await stage.hosts["alice"].open_stream(peer_of(stage), ECHO) as stream:
        await stream.write(TEXT)
        stream.close_write()
        assert b"".join([data async for data in stream]) == TEXT
    await stream.wait_closed()


async def half_closed(stage: Stage) -> None:
    """Let the peer finish writing first, then write and finish."""
    async with await stage.hosts["alice"].open_stream(peer_of(stage), OTHER) as stream:
        assert b"".join([data async for data in stream]) == TEXT
        await stream.write(TEXT)
        stream.close_write()
    await stream.wait_closed()


async def fetch(stage: Stage) -> None:
    """Fetch a DAG of which two peers have a half each."""
    await fetch_from(stage, stage.bitswaps["alice"])


async def fetch_from(stage: Stage, bitswap: Bitswap) -> None:
    peers = [stage.hosts[name].addresses[0] for name in ("bob", "carol")]
    async with bitswap.session(peers) as session, contextlib.aclosing(cat(session, BLOCKS[-1][0])) as pieces:
        assert b"".join([piece async for piece in pieces]) == TEXT


async def leave(stage: Stage) -> None:
    """Leave the host in the middle of a fetch."""
    fetching: list[asyncio.Task[None]] = []
    try:
        async with stage.hosts["alice"] as alice, Bitswap(alice, stage.stores[-1]) as bitswap:
            fetching.append(current_loop().create_task(fetch_from(stage, bitswap), name=f"{OWN}fetch"))
            await current_loop().pass_time(LEAVING_SECONDS)
    finally:
        for task in fetching:
            task.cancel()
        results = await asyncio.gather(*fetching, return_exceptions=True)
    for result in results:
        if result is not None and not isinstance(result, Libp2pError | asyncio.CancelledError):
            raise result


async def all_of(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait for all, and leave none behind."""
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def named(
    main: Main, stage: Callable[[], contextlib.AbstractAsyncContextManager[Stage]], seconds: float = 0.0
) -> Scenario:
    """Return a scenario by the name of its function."""
    return Scenario(main.__name__.replace("_", "-"), stage, main, seconds)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        named(dial, partial(two_hosts, connected=False)),
        named(race, three_addresses),
        named(lazy, two_hosts),
        named(eager, partial(two_hosts, connected=False)),
        named(ping, two_hosts),
        named(over_credit, two_hosts),
        named(half_close, two_hosts),
        named(half_closed, two_hosts),
        named(fetch, two_servers),
        named(leave, partial(two_servers, entered=False), 2 * TIMEOUTS.connection_close),
    )
}


# -- all of them -----------------------------------------------------------------------------------------------------


def wrong_at(point: Point) -> list[str]:
    """Disturb a scenario at one point, and say what is wrong then."""
    return play(point.scenario, point).leaks


def replay(point: Point) -> str:
    """Return the command that disturbs a scenario at this point again."""
    return f"{COMMAND} --scenario {point.scenario.name} --family {point.family} --step {point.at}"


def report(point: Point, wrong: str) -> str:
    """Say what is wrong, where, and how to see it again."""
    return f"{point}\n  {wrong}\n  again: {replay(point)}"


def counted(scenario: Scenario) -> list[Point]:
    """Return the points of a scenario, whose undisturbed run has to leave nothing either."""
    found, undisturbed = points(scenario)
    assert not undisturbed.leaks, "\n  ".join([f"{scenario.name}, undisturbed:", *undisturbed.leaks])
    return found


def sweep_scenario(scenario: Scenario, families: Sequence[Family], jobs: int) -> tuple[int, list[str]]:
    """Disturb a scenario everywhere; return at how many points, and what was wrong."""
    found = [point for point in counted(scenario) if point.family in families]
    result = sweep(lambda number: " | ".join(wrong_at(found[number])) or None, range(len(found)), jobs)
    tried = Counter(point.family for point in found)
    numbers = ", ".join(f"{family} {tried[family]}" for family in families)
    print(f"{scenario.name:12} {len(found):5} points ({numbers}), leaks {len(result.failed)}", flush=True)
    return len(found), [report(found[number], wrong) for number, wrong in sorted(result.failed.items())]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep, or one point of it, and return how the process is to end."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Disturb scenarios at every step, and look for leaks.")
    parser.add_argument("--scenario", choices=SCENARIOS, help="this one only")
    parser.add_argument("--family", choices=FAMILIES, help="disturb in this way only")
    parser.add_argument("--step", type=int, help="before this step only")
    parser.add_argument("--jobs", type=int, default=processors(), help="processes; default: one a processor")
    options = parser.parse_args(arguments)
    scenarios = [SCENARIOS[options.scenario]] if options.scenario else list(SCENARIOS.values())
    families: Sequence[Family] = [options.family] if options.family else FAMILIES
    if options.step is not None:
        found = [point for scenario in scenarios for point in counted(scenario) if point.at == options.step]
        wrong = {point: wrong_at(point) for point in found if point.family in families}
        for point, lines in wrong.items():
            print(f"{point}: {'nothing is left' if not lines else ''}", *lines, sep="\n  ")
        return any(wrong.values()) or not wrong
    began = time.monotonic()
    swept = [sweep_scenario(scenario, families, options.jobs) for scenario in scenarios]
    failures = [line for _, lines in swept for line in lines]
    print(*failures, sep="\n", end="\n" if failures else "")
    seconds = time.monotonic() - began
    print(f"{sum(number for number, _ in swept)} points in {seconds:.1f} s, leaks {len(failures)}")
    return bool(failures)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # of handlers that fail, which is what is done to them
    sys.exit(main())
