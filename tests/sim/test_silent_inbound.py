"""Inbound connections that never speak, ten thousand of them: bounded, dropped in time, and no trouble to others."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from aiolibp2p import Host, Limits, Stream, Timeouts
from aiolibp2p.net.events import InboundFailed
from aiolibp2p.sim import Host as Machine
from aiolibp2p.sim import Link, current_loop, current_net, sim_runtime
from tests.support.hosts import ECHO, other_tasks, sim_host
from tests.support.raw import NS

MANY = 10_000
LATENCY = 0.05
ANSWER_NS = 300_000_000
"""From a dial to its first answer, undisturbed: three round trips."""
PENDING = Limits().pending_inbound
UPGRADE_NS = round(Timeouts().upgrade * NS)


class Silent(asyncio.Protocol):
    """A socket that says nothing, or one byte, and remembers when it was opened and dropped."""

    def __init__(self, says: bytes) -> None:
        self.says = says
        self.opened_ns = 0
        self.dropped_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.opened_ns = current_loop().time_ns()
        transport.write(self.says)

    def connection_lost(self, exc: Exception | None) -> None:
        self.dropped_ns = current_loop().time_ns()

    @property
    def lived_ns(self) -> int:
        """How long the other side let it live: it is accepted one way after it is open, and hears one way later."""
        return self.dropped_ns - self.opened_ns - 100_000_000


class Flood:
    """Silent sockets from several machines in turn, opened at a rate."""

    def __init__(self, machines: Sequence[Machine], target: Host, says: bytes) -> None:
        parts = str(target.addresses[0]).split("/")
        self.sockets: list[Silent] = []
        self.most_pending = 0
        """The most sockets that the host was upgrading at any time."""
        self._host = target
        self._machines = machines
        self._target = parts[2], int(parts[4])
        self._says = says
        self._last_ns = 0
        self._due_ns: list[int] = []

    def start(self, count: int, per_second: float) -> None:
        """Have `count` sockets opened."""
        start_ns = current_loop().time_ns()
        self._due_ns = [start_ns + round(number * NS / per_second) for number in reversed(range(count))]
        self._last_ns = self._due_ns[0]
        self._next()

    def _next(self) -> None:
        if self._due_ns:
            current_loop().call_at_ns(self._due_ns.pop(), self._open_soon)

    def _open_soon(self) -> None:
        self.most_pending = max(self.most_pending, len(self._host._swarm._pending_inbound))
        # The simulated loop holds its tasks, and makes an exception that nobody takes a failure.
        _ = current_loop().create_task(self._open())
        self._next()

    async def _open(self) -> None:
        socket = Silent(self._says)
        self.sockets.append(socket)
        with self._machines[len(self.sockets) % len(self._machines)].here():
            await current_net().create_connection(lambda: socket, *self._target)

    async def over(self) -> None:
        """Wait until all have been opened and the last is dropped."""
        await current_loop().pass_time((self._last_ns - current_loop().time_ns()) / NS)
        await current_loop().pass_time(Timeouts().upgrade + 1)
        assert all(socket.dropped_ns for socket in self.sockets)


@pytest.fixture(autouse=True)
def _uncollected() -> Iterator[None]:
    """Let the collector rest: a closed socket of the simulation is a cycle, and half of the time went into them."""
    gc.disable()
    yield
    gc.enable()


async def echo(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data)


async def ask(asker: Host, target: Any) -> int:
    """Dial, ask and get an answer; return how long that took, in nanoseconds."""
    start_ns = current_loop().time_ns()
    async with await asker.open_stream(target, ECHO) as stream:
        await stream.write(b"hello")
        assert await stream.read() == b"hello"
        return current_loop().time_ns() - start_ns


@asynccontextmanager
async def honest_hosts(count: int) -> AsyncIterator[list[Host]]:
    """Give hosts that echo."""
    async with AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(sim_host(f"honest {number}")) for number in range(count)]
        for host in hosts:
            host.handle(ECHO, echo)
        yield hosts


async def dials(host: Host, others: Sequence[Host], every: float) -> list[int]:
    """Dial the host and be dialled by it, one after the other; return how long each took."""
    tasks = []
    for number, other in enumerate(others):
        await current_loop().pass_time(every)
        asker, asked = (other, host) if number % 2 == 0 else (host, other)
        tasks.append(current_loop().create_task(ask(asker, asked.addresses[0])))
    return await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    ("count", "machines", "per_second", "says"),
    [
        pytest.param(1000, 8, 17, b"", id="slowly"),
        pytest.param(MANY, 8, MANY, b"", id="ten thousand in a second"),
        pytest.param(1500, 8, MANY, b"\x13", id="with one byte each"),
        pytest.param(1500, 1500, 1e6, b"", id="at once, each from a machine of its own"),
    ],
)
async def test_inbound_connections_that_never_speak(count: int, machines: int, per_second: float, says: bytes) -> None:
    """T20: bounded by Limits, dropped at Timeouts.upgrade; honest dials, in and out, take what they always do."""
    current_net().set_link(Link(latency=LATENCY))
    async with sim_host("ours", limits=Limits(events=2 * MANY)) as host, honest_hosts(8) as others:
        host.handle(ECHO, echo)
        tasks, seen = other_tasks(), host.events()
        flood = Flood([current_net().host(f"silent {number}") for number in range(machines)], host, says)
        flood.start(count, per_second)
        assert await dials(host, others, count / per_second / 9) == [ANSWER_NS] * 8
        await flood.over()
        assert flood.most_pending <= PENDING
        lived_ns = [socket.lived_ns for socket in flood.sockets]
        assert max(lived_ns) == UPGRADE_NS
        to_the_end = lived_ns.count(UPGRADE_NS)
        # An honest dial that was under way may have had the place of one of them.
        assert min(count, PENDING - len(others)) <= to_the_end
        assert host.refusals["pending_inbound"] == count - to_the_end
        assert len(host.connections) == len(others)
        assert not host._swarm._pending_inbound
        assert not host._swarm._pending_of
        assert other_tasks() == tasks
    errors = [event.error async for event in seen if isinstance(event, InboundFailed)]
    assert {error.stage for error in errors} == {"security negotiation"}
    assert Counter(getattr(error, "deadline", None) or getattr(error, "limit", None) for error in errors) == Counter(
        {"upgrade": to_the_end, "pending_inbound": count - to_the_end}
    )
    assert seen.missed == 0


async def test_sockets_of_one_network_that_go_on_coming_push_out_each_other_only() -> None:
    """T20: neither an age nor a byte is worth more than being one of few."""
    current_net().set_link(Link(latency=LATENCY))
    async with sim_host("ours", limits=Limits(pending_inbound=10)) as host:
        few, many = current_net().host("few"), current_net().host("many")
        quiet = Flood([few], host, b"")
        quiet.start(3, 1000)
        await current_loop().pass_time(1)
        flood = Flood([many], host, b"\x13")
        flood.start(100, 1000)
        await flood.over()
        assert [socket.lived_ns for socket in quiet.sockets] == [UPGRADE_NS] * 3
        assert [socket.lived_ns for socket in flood.sockets].count(UPGRADE_NS) == 7


async def test_of_one_network_those_that_never_spoke_go_first() -> None:
    """T20: an honest peer behind the address of silent ones has spoken, and stays."""
    current_net().set_link(Link(latency=LATENCY))
    async with sim_host("ours", limits=Limits(pending_inbound=10)) as host:
        host.handle(ECHO, echo)
        shared = current_net().host("shared")
        runtime = sim_runtime(current_loop(), "honest", shared)
        flood = Flood([shared], host, b"")
        async with Host(runtime=runtime) as honest:
            flood.start(300, 1000)
            assert await dials(host, [honest], 0.1) == [ANSWER_NS]
            await flood.over()
