"""Programs that are slow or blocked: they hold up neither the network nor the end of a host.

Two tests of go-libp2p in virtual time, about a slow consumer of events and a blocked notifiee while a swarm closes, say
here that networking waits for no consumer at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from aiolibp2p import Host, Limits, Stream, Timeouts
from aiolibp2p.errors import ConnectionEndedError, DeadlineError
from aiolibp2p.net.events import ConnectionClosed, ConnectionOpened, Event, EventStream
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.hosts import ECHO, other_tasks, raw_peer, sim_host
from tests.support.raw import NS
from tests.support.scripts import ACCEPTED, responding

MILLISECOND = 1_000_000
LISTENERS = 20
ROUNDS = 300
Doing = Callable[[Stream], Awaitable[None]]


async def echo(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data)


@asynccontextmanager
async def listeners(count: int) -> AsyncIterator[list[Host]]:
    """Give hosts 5 ms away from everybody."""
    current_net().set_link(Link(latency=0.005))
    async with AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(sim_host(f"listener {number}")) for number in range(count)]
        for host in hosts:
            host.handle(ECHO, echo)
        yield hosts


async def come_and_go(host: Host, target: Host) -> int:
    """Connect, ask, get an answer, disconnect; return how long it took."""
    start_ns = current_loop().time_ns()
    stream = await host.open_stream(target.addresses[0], ECHO)
    await stream.write(b"hello")
    assert await stream.read() == b"hello"
    stream.close()
    await host.disconnect(target.peer_id)
    return current_loop().time_ns() - start_ns


# -- slow consumers of events ------------------------------------------------------------------------------------------


async def test_a_consumer_that_takes_nothing_or_is_slow_delays_nobody_and_its_misses_are_counted() -> None:
    """Slow consumer of events: what happens takes as long as without it; others see everything."""
    loop = current_loop()
    async with sim_host("ours", limits=Limits(events=100)) as host, listeners(1) as (other,):
        undisturbed_ns = await come_and_go(host, other)
        await loop.pass_time(1)
        stuck, slow, quick = host.events(), host.events(), host.events()
        seen: dict[str, list[Event]] = {"slow": [], "quick": []}

        async def consume(name: str, events: EventStream, seconds: float) -> None:
            async for event in events:
                seen[name].append(event)
                if seconds:
                    await loop.pass_time(seconds)

        consumers = [loop.create_task(consume("slow", slow, 1)), loop.create_task(consume("quick", quick, 0))]
        for _ in range(ROUNDS):
            assert await come_and_go(host, other) == undisturbed_ns == 30 * MILLISECOND
        await loop.settle()
        opened = [event for event in seen["quick"] if isinstance(event, ConnectionOpened)]
        closed = [event for event in seen["quick"] if isinstance(event, ConnectionClosed)]
        assert len(opened) == len(closed) == ROUNDS
        happened = len(seen["quick"])
        assert (quick.missed, stuck.missed) == (0, happened - 100)
        assert slow.missed + len(seen["slow"]) + 100 == happened
        assert [event for event in seen["quick"] if event in seen["slow"]] == seen["slow"]  # in order
    assert [event async for event in stuck] == seen["quick"][-100:]
    await asyncio.gather(*consumers)


async def test_many_that_connect_at_once_wait_for_no_consumer() -> None:
    """Slow consumer of events: not even where all their events come at one instant and none is ever taken."""
    loop = current_loop()
    async with sim_host("ours", limits=Limits(events=1)) as host, listeners(LISTENERS) as others:
        events = host.events()
        await asyncio.gather(*(host.connect(other.addresses[0]) for other in others))
        assert loop.time_ns() == 20 * MILLISECOND
        assert events.missed == LISTENERS - 1
        del events
        await host.disconnect(others[0].peer_id)


# -- blocked handlers and observers, while a host ends -----------------------------------------------------------------


async def for_ever(stream: Stream) -> None:
    await asyncio.get_running_loop().create_future()


async def reading(stream: Stream) -> None:
    await stream.read_exactly(1000)


async def writing(stream: Stream) -> None:
    await stream.write(bytes(10 << 20))


async def waiting_for_the_end_of_its_own_host(stream: Stream) -> None:
    stream.connection.close()
    await stream.connection.wait_closed()
    await for_ever(stream)


async def clearing_up_with_the_peer(stream: Stream) -> None:
    try:
        await for_ever(stream)
    finally:
        stream.close()
        with pytest.raises(ConnectionEndedError):
            await stream.wait_closed()


@pytest.mark.parametrize(
    "handler", [for_ever, reading, writing, waiting_for_the_end_of_its_own_host, clearing_up_with_the_peer]
)
async def test_a_host_ends_at_once_though_handlers_are_blocked(handler: Doing) -> None:
    """Blocked handler during close: it is cancelled, and its peers are told at that instant."""
    loop = current_loop()
    async with listeners(LISTENERS) as others:
        before = other_tasks()
        async with sim_host("ours") as host:
            host.handle(ECHO, handler)
            for other in others:
                stream = await other.open_stream(host.addresses[0], ECHO)
                await stream.write(b"wake up")
            await loop.pass_time(1)
            left_ns = loop.time_ns()
        assert loop.time_ns() - left_ns <= NS  # `connection_close`, for what is queued to peers that do not read it
        await loop.pass_time(2)
        assert all(not other.connections for other in others)
        assert other_tasks() <= before


async def test_a_handler_that_refuses_to_end_costs_its_peers_and_the_network_nothing() -> None:
    """Blocked handler during close: sockets end at once; only leaving waits, for `Timeouts.shutdown`, and names it."""
    loop = current_loop()
    go, ended = asyncio.Event(), asyncio.Event()

    async def stubborn(stream: Stream) -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    async def leave(other: Host) -> int:
        async with sim_host("ours") as host:
            host.handle(ECHO, stubborn)
            stream = await other.open_stream(host.addresses[0], ECHO)
            await stream.write(b"wake up")
            await loop.pass_time(1)
            loop.call_at_ns(loop.time_ns() + 5 * MILLISECOND + 1, lambda: told.append(len(other.connections)))
            left.append(loop.time_ns())
        raise AssertionError("the handler was not named")

    left: list[int] = []
    told: list[int] = []
    async with listeners(1) as (other,):
        with pytest.raises(DeadlineError, match=ECHO) as caught:
            await leave(other)
        assert loop.time_ns() - left[0] == round(Timeouts().shutdown * NS)
        assert caught.value.deadline == "shutdown"
        await loop.pass_time(1)
        assert (told, other.connections) == ([0], [])
        go.set()
        await ended.wait()


async def test_a_host_ends_at_once_while_everybody_who_was_told_of_a_connection_is_busy() -> None:
    """Blocked notifiee during close: one consumer stands still, one dials who never answers, a watcher disconnects."""
    loop = current_loop()
    async with listeners(LISTENERS) as others, raw_peer(responding(ACCEPTED)) as silent:
        async with sim_host("ours") as host:

            async def stand_still() -> None:
                async for _ in host.events():
                    await loop.create_future()

            async def dial_on(events: EventStream) -> None:
                async for event in events:
                    if isinstance(event, ConnectionOpened):
                        with pytest.raises(ConnectionEndedError):
                            await host.connect(silent.address)

            gone = []
            host.watch(lambda peer_id: gone.append((peer_id, host._swarm.disconnect(peer_id))))
            busy = [loop.create_task(stand_still()), loop.create_task(dial_on(host.events()))]
            await asyncio.gather(*(host.connect(other.addresses[0]) for other in others))
            await loop.pass_time(2)
            left_ns = loop.time_ns()
        assert loop.time_ns() == left_ns
        assert sorted(gone, key=str) == sorted([(other.peer_id, []) for other in others], key=str)
        await busy[1]
        assert not busy[0].done()
        busy[0].cancel()
        await asyncio.wait(busy[:1])
        await loop.pass_time(1)
        assert all(not other.connections for other in others)
