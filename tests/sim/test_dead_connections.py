"""TCP whose other end is gone: half-open, cut off in a dial, dead. All who wait wake, and nothing is left.

What dies at every single step of the loop is in `test_faults_everywhere.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from aiolibp2p import Connection, Host, Limits, Stream
from aiolibp2p.errors import ConnectionEndedError, DeadlineError, DialError, Libp2pError
from aiolibp2p.sim import Connection as Socket
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.hosts import ECHO, OTHER, other_tasks, sim_host
from tests.support.raw import NS

LATENCY = 0.05
MILLISECOND = 1_000_000
WINDOW = 256 << 10
STREAMS = 8
UNKNOWN = ("/unknown/1.0.0", "/another/1.0.0")
STAGES = ("connect", "security negotiation", "noise handshake")


async def echo(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data)


def never_reading(stream: Stream) -> None:
    stream.idle_timeout = 3600


@asynccontextmanager
async def connected(**limits: int) -> AsyncIterator[tuple[Host, Host, Connection]]:
    """Give two hosts 50 ms apart and the first one's connection, quiet for a second."""
    current_net().set_link(Link(latency=LATENCY))
    async with sim_host("alice", limits=Limits(**limits)) as alice, sim_host("bob") as bob:
        bob.handle(ECHO, echo)
        bob.serve(OTHER, never_reading)
        connection = await alice.connect(bob.addresses[0])
        await alice.identify(bob.peer_id)
        await current_loop().pass_time(1)
        yield alice, bob, connection


def socket() -> Socket:
    (found,) = current_net().connections
    return found


def vanish() -> None:
    """Let both ends hear nothing of each other any more: a cable is cut, a machine loses power."""
    for side in ("client", "server"):
        socket().black_hole(side)


def left(*hosts: Host) -> list[object]:
    """Return what the hosts hold of connections."""
    held: list[object] = []
    for host in hosts:
        swarm = host._swarm
        held += [*swarm._links, *swarm._peers, *swarm._dials, *swarm._pending_inbound]
        held += [count for count in (swarm.counts.streams, swarm.counts.tombstones, swarm.counts.handlers) if count]
    return held


async def when(waiting: Awaitable[object], since_ns: int) -> tuple[str, int]:
    """Return how something ended, and after how many nanoseconds."""
    try:
        await waiting
        how = "done"
    except DeadlineError as error:
        how = error.deadline
    except Libp2pError as error:
        how = type(error).__name__
    return how, current_loop().time_ns() - since_ns


async def test_on_a_half_open_connection_every_wait_ends_at_its_own_deadline() -> None:
    """T6: and at the keepalive's answer what has a longer one; both hosts hold nothing afterwards."""
    async with connected(yamux_ack_backlog=STREAMS) as (alice, bob, connection):
        loop = current_loop()
        alice_tasks = other_tasks()
        reading, unread, closed = [await connection.open_stream(name) for name in (ECHO, OTHER, ECHO)]
        for stream in (reading, unread, closed):
            await stream.write(b"x")
        assert await reading.read() == b"x"
        writing = loop.create_task(unread.write(bytes(2 * WINDOW)))
        await loop.pass_time(1)
        assert not writing.done()
        vanish()
        start_ns = loop.time_ns()
        closed.close()
        assert loop.time_ns() == start_ns
        waits: dict[str, Awaitable[object]] = {
            "read": reading.read(),
            "write": writing,
            "wait_closed": closed.wait_closed(),
            "ping": alice.ping(bob.peer_id),
            "eager open": connection.open_stream(*UNKNOWN),
        }
        tasks = {name: loop.create_task(when(wait, start_ns)) for name, wait in waits.items()}
        await loop.settle()
        fill = [await connection.open_stream(ECHO) for _ in range(STREAMS - 2)]
        for name in ("open 1", "open 2", "open 3"):
            tasks[name] = loop.create_task(when(connection.open_stream(ECHO), start_ns))
        ended = {name: await task for name, task in tasks.items()}
        quiet_ns = ended["read"][1]
        assert 38 * NS <= quiet_ns <= 40 * NS  # 40 s after the last byte that came
        assert ended == {
            "read": ("keepalive_answer", quiet_ns),
            "write": ("keepalive_answer", quiet_ns),
            "wait_closed": ("close", 10 * NS),
            "ping": ("ping", 10 * NS),
            "eager open": ("negotiate", 10 * NS),
            "open 1": ("done", 10 * NS),  # in the places of the ping and the eager one
            "open 2": ("done", 10 * NS),
            "open 3": ("open_stream", 15 * NS),
        }
        assert all(stream._over for stream in fill)
        await loop.pass_time(3)
        assert left(alice, bob) == []
        assert other_tasks() == alice_tasks


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_when_the_other_end_dies_all_who_wait_are_told_at_once(how: str) -> None:
    """T6: with who ended it, within the time the news needs."""
    async with connected(yamux_ack_backlog=STREAMS) as (alice, bob, connection):
        loop = current_loop()
        streams = [await connection.open_stream(OTHER) for _ in range(STREAMS - 1)]
        await streams[0].write(b"x")
        start_ns = loop.time_ns()
        waits = [stream.read() for stream in streams]
        waits += [streams[0].write(bytes(2 * WINDOW)), connection.open_stream(*UNKNOWN)]  # type: ignore[list-item]
        waits += [connection.open_stream(ECHO), alice.ping(bob.peer_id)]  # type: ignore[list-item]
        tasks = [loop.create_task(when(wait, start_ns)) for wait in waits]
        await loop.settle()
        if how == "fin":
            socket().transport("server").abort()
        else:
            socket().reset()
        news_ns = 0 if how == "reset" else 50 * MILLISECOND
        assert {await task for task in tasks} == {("ConnectionEndedError", news_ns)}
        assert isinstance(connection.ended, ConnectionEndedError)
        assert connection.ended.by == "remote"
        await loop.pass_time(1)
        assert left(alice, bob) == []


@pytest.mark.parametrize("sides", [("client",), ("server",), ("client", "server")], ids=["out", "in", "both"])
@pytest.mark.parametrize("at_ms", range(10, 320, 20))
async def test_a_dial_may_be_cut_off_at_any_moment(at_ms: int, sides: tuple[str, ...]) -> None:
    """T6: it ends within `Timeouts.dial_address` and names the stage, or has become a connection that ends in time."""
    current_net().set_link(Link(latency=LATENCY))
    async with sim_host("alice") as alice, sim_host("bob") as bob:
        loop, tasks = current_loop(), other_tasks()
        bob.handle(ECHO, echo)

        def cut() -> None:
            for side in sides:
                socket().black_hole(side)  # type: ignore[arg-type]

        async def use() -> None:
            stream = await alice.open_stream(bob.addresses[0], ECHO)
            await stream.write(b"x")
            async for _ in stream:
                pass

        using = loop.create_task(use())
        loop.call_at_ns(at_ms * MILLISECOND, cut)
        with pytest.raises(Libp2pError) as caught:
            await using
        if isinstance(caught.value, DialError):
            (failure,) = caught.value.failures.values()
            assert isinstance(failure, DeadlineError)
            assert failure.deadline in ("dial_address", "upgrade")
            assert failure.stage in STAGES
            assert 15 * NS <= loop.time_ns() <= 15 * NS + 100 * MILLISECOND
        else:
            assert loop.time_ns() <= 41 * NS
        await loop.pass_time(60)
        assert left(alice, bob) == []
        assert other_tasks() == tasks


@pytest.mark.parametrize("seconds", [1, 10, 20])
async def test_a_cable_that_is_mended_before_the_keepalive_loses_nothing(seconds: float) -> None:
    """T6: what was written meanwhile arrives, whole and once."""
    async with connected() as (_alice, _bob, connection):
        stream = await connection.open_stream(ECHO)
        await stream.write(b"before ")
        await current_loop().pass_time(0.02)
        vanish()
        await stream.write(b"meanwhile ")
        await current_loop().pass_time(seconds)
        socket().open()
        await stream.write(b"after")
        stream.close_write()
        assert b"".join([data async for data in stream]) == b"before meanwhile after"
        assert connection.ended is None


DOING: dict[str, Callable[[Host, Host, Connection], Awaitable[object]]] = {
    "connect": lambda alice, bob, _: alice.connect(bob.peer_id),
    "open_stream": lambda alice, bob, _: alice.open_stream(bob.peer_id, ECHO),
    "disconnect": lambda alice, bob, _: alice.disconnect(bob.peer_id),
}


@pytest.mark.parametrize("doing", DOING)
async def test_on_a_half_open_connection_nothing_else_waits(doing: str) -> None:
    """T6: what needs no answer needs no time."""
    async with connected() as (alice, bob, connection):
        vanish()
        start_ns = current_loop().time_ns()
        await DOING[doing](alice, bob, connection)
        assert current_loop().time_ns() - start_ns <= (1 * NS if doing == "disconnect" else 0)


async def test_after_a_half_open_connection_the_peer_is_reached_again() -> None:
    """T6: the next call after its end dials, and is answered."""
    async with connected() as (alice, bob, connection):
        vanish()
        await current_loop().pass_time(41)
        assert connection.ended is not None
        start_ns = current_loop().time_ns()
        stream = await alice.open_stream(bob.peer_id, ECHO)
        await stream.write(b"again")
        assert await stream.read() == b"again"
        assert current_loop().time_ns() - start_ns == 300 * MILLISECOND
        stream.close()
