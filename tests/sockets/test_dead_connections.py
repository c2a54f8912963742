"""TCP whose other end is gone, on real sockets: all who wait wake in time, and nothing is left.

A relay between the hosts falls silent, as a cut cable does, or resets both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest

from aiolibp2p import Host, Limits, Stream, Timeouts
from aiolibp2p.errors import ConnectionEndedError, DeadlineError, DialError, Libp2pError
from aiolibp2p.sansio.multistream import HEADER
from tests.support.hosts import ECHO, OTHER, other_tasks, use_everything
from tests.support.leaks import host_leaks
from tests.support.loops import on_real_loops, run_on
from tests.support.relay import Relay
from tests.support.worlds import World, echo, ended, start

pytestmark = pytest.mark.sockets

WORLD = World(virtual=False)
WINDOW = 256 << 10
STREAMS = 8
UNKNOWN = ("/unknown/1.0.0", "/another/1.0.0")
STAGES = ("connect", "security negotiation", "noise handshake")
SHORT = Timeouts(keepalive=0.3, keepalive_answer=0.3, dial_private_address=0.25, upgrade=0.25)
"""A connection that falls silent ends soon."""


def never_reading(stream: Stream) -> None:
    stream.idle_timeout = 3600


@asynccontextmanager
async def relayed(
    timeouts: Timeouts | None = None, *, silent_after: int | None = None, limits: Limits | None = None
) -> AsyncIterator[tuple[Host, Host, Relay, str]]:
    """Give two hosts, a relay to the second, and the address of that one by the relay."""
    async with WORLD.host("bob", timeouts=timeouts) as bob:
        bob.handle(ECHO, echo)
        bob.serve(OTHER, never_reading)
        port = int(str(bob.addresses[0]).split("/")[4])
        async with Relay(port, silent_after=silent_after) as relay, Host(timeouts=timeouts, limits=limits) as alice:
            yield alice, bob, relay, f"/ip4/127.0.0.1/tcp/{relay.port}/p2p/{bob.peer_id}"


async def nothing_left(*hosts: Host) -> None:
    """Wait until the hosts have no connection, and see that they hold nothing."""
    await WORLD.until(lambda: not any(host.connections or host._swarm._links or len(host._tasks) for host in hosts))
    for host in hosts:
        assert [*host_leaks("host", host)] == []


async def test_on_a_half_open_connection_every_wait_ends_at_its_own_deadline() -> None:
    """T6: and at the keepalive's answer what has a longer one; both hosts hold nothing afterwards."""
    timeouts = Timeouts(ping=0.1, negotiate=0.15, open_stream=0.2, close=0.25, keepalive=1.0, keepalive_answer=0.5)
    async with relayed(timeouts, limits=Limits(yamux_ack_backlog=STREAMS)) as (alice, bob, relay, address):
        connection = await alice.connect(address)
        await alice.identify(bob.peer_id)
        reading, unread, closed = [await connection.open_stream(name) for name in (ECHO, OTHER, ECHO)]
        for stream in (reading, unread, closed):
            await stream.write(b"x")
        assert await WORLD.in_time(reading.read()) == b"x"
        writing = start(unread.write(bytes(2 * WINDOW)))
        await WORLD.until(lambda: unread._muxed.credit == 0)
        relay.hold()
        closed.close()
        waits: dict[str, Awaitable[object]] = {
            "read": reading.read(),
            "write": writing,
            "wait_closed": closed.wait_closed(),
            "ping": alice.ping(bob.peer_id),
            "eager open": connection.open_stream(*UNKNOWN),
        }
        tasks = {name: start(ended(wait), name) for name, wait in waits.items()}
        await asyncio.sleep(0)
        while connection._may_open():
            await connection.open_stream(ECHO)
        tasks["open"] = start(ended(asyncio.gather(*(connection.open_stream(ECHO) for _ in range(4)))))
        came = {name: await WORLD.in_time(task) for name, task in tasks.items()}
        assert came == {
            "read": "keepalive_answer",
            "write": "keepalive_answer",
            "wait_closed": "close",
            "ping": "ping",
            "eager open": "negotiate",
            "open": "open_stream",
        }
        assert isinstance(connection.ended, DeadlineError)
        await nothing_left(alice, bob)


@pytest.mark.parametrize("how", ["the socket is reset", "the host is left", "the peer hangs up"])
async def test_when_the_other_end_dies_all_who_wait_are_told_at_once(how: str) -> None:
    """T6: with who ended it; no deadline could have told them in this time."""
    async with relayed(limits=Limits(yamux_ack_backlog=STREAMS)) as (alice, bob, relay, address):
        connection = await alice.connect(address)
        await alice.identify(bob.peer_id)
        streams = [await connection.open_stream(OTHER) for _ in range(STREAMS - 1)]
        waits: list[Awaitable[object]] = [stream.read() for stream in streams]
        waits += [streams[0].write(bytes(2 * WINDOW)), connection.open_stream(*UNKNOWN)]
        waits += [connection.open_stream(ECHO) for _ in range(3)]
        tasks = [start(ended(wait)) for wait in waits]
        await asyncio.sleep(0)
        if how == "the socket is reset":
            relay.kill()
        elif how == "the host is left":
            await bob._shut_down()
        else:
            bob.connections[0].abort()
        assert "ConnectionEndedError" in {await WORLD.in_time(task) for task in tasks}
        assert {task.result() for task in tasks} <= {"ConnectionEndedError", "NegotiationError", "done"}
        assert [task.result() for task in tasks[: STREAMS - 1]] == ["ConnectionEndedError"] * (STREAMS - 1)
        assert isinstance(connection.ended, ConnectionEndedError)
        assert connection.ended.by == "remote"
        await nothing_left(alice, bob)


@pytest.mark.parametrize("n_bytes", [0, 1, 20, 60, 130, 200, 400, 700])
async def test_a_dial_may_be_cut_off_at_any_byte(n_bytes: int) -> None:
    """T6: T19: it ends at its deadline and names the stage, or has become a connection that ends in time."""
    async with relayed(SHORT, silent_after=n_bytes) as (alice, bob, _, address):

        async def use() -> None:
            stream = await alice.open_stream(address, ECHO)
            await stream.write(b"x" * 1000)
            async for _ in stream:
                pass

        with pytest.raises(Libp2pError) as caught:
            await WORLD.in_time(use())
        if isinstance(caught.value, DialError):
            (failure,) = caught.value.failures.values()
            assert isinstance(failure, DeadlineError)
            assert failure.deadline in ("dial_private_address", "upgrade")
            assert failure.stage in STAGES
        else:
            assert isinstance(caught.value, DeadlineError | ConnectionEndedError)
        await nothing_left(alice, bob)


async def test_a_cable_that_is_mended_before_the_keepalive_loses_nothing() -> None:
    """T6: what was written meanwhile arrives, whole and once."""
    async with relayed() as (alice, bob, relay, address):
        connection = await alice.connect(address)
        await alice.identify(bob.peer_id)
        stream = await connection.open_stream(ECHO)
        await stream.write(b"before ")
        assert await WORLD.in_time(stream.read_exactly(7)) == b"before "
        relay.hold()
        await stream.write(b"meanwhile ")
        await WORLD.until(lambda: any(end.held for end in relay.ends))
        relay.release()
        await stream.write(b"after")
        stream.close_write()
        assert b"".join([data async for data in stream]) == b"meanwhile after"
        assert connection.ended is None


async def test_after_a_half_open_connection_the_peer_is_reached_again() -> None:
    """T6: the next call after its end dials, and is answered."""
    async with relayed(SHORT) as (alice, bob, relay, address):
        connection = await alice.connect(address)
        relay.hold()
        await WORLD.until(lambda: connection.ended is not None)
        relay.silent = False
        stream = await WORLD.in_time(alice.open_stream(bob.addresses[0], ECHO))
        await stream.write(b"again")
        assert await WORLD.in_time(stream.read()) == b"again"
        stream.close()


# -- at every step -----------------------------------------------------------------------------------------------------


Disturbance = Callable[[Host, Host, Relay, "asyncio.Task[None]"], Awaitable[object] | None]


def reset_the_sockets(alice: Host, bob: Host, relay: Relay, using: asyncio.Task[None]) -> None:
    relay.kill()


def hang_up(alice: Host, bob: Host, relay: Relay, using: asyncio.Task[None], *, who: int) -> None:
    for connection in (alice, bob)[who].connections:
        connection.abort()


def cancel(alice: Host, bob: Host, relay: Relay, using: asyncio.Task[None]) -> None:
    using.cancel()


def leave(alice: Host, bob: Host, relay: Relay, using: asyncio.Task[None], *, who: int) -> Awaitable[object]:
    return (alice, bob)[who]._shut_down()


DISTURBANCES: dict[str, Disturbance] = {
    "the sockets are reset": reset_the_sockets,
    "the dialler hangs up": partial(hang_up, who=0),
    "the listener hangs up": partial(hang_up, who=1),
    "the program is cancelled": cancel,
    "the dialler is left": partial(leave, who=0),
    "the listener is left": partial(leave, who=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", DISTURBANCES)
async def test_a_connection_may_die_at_every_step(what: str) -> None:
    """T6: after any number of turns of the loop: whoever waits wakes, and nothing is left."""
    outer = other_tasks()
    turns, undisturbed = 0, False
    while not undisturbed:
        async with relayed(Timeouts(close=0.2)) as (alice, bob, relay, address):
            using = start(use_everything(alice, bob, address))
            for _ in range(turns):
                await asyncio.sleep(0)
            undisturbed = using.done() or turns > 400
            doing = DISTURBANCES[what](alice, bob, relay, using)
            if doing is not None:
                await doing
            await WORLD.in_time(asyncio.wait([using]))
            if not using.cancelled():
                error = using.exception()
                assert error is None or isinstance(error, Libp2pError | EOFError), error
            for connection in alice.connections:
                for stream in connection.streams:
                    stream.reset()
                connection.close()
            await nothing_left(alice, bob)
        turns += 1 + turns // 8
    await WORLD.until(lambda: other_tasks() == outer)


@on_real_loops
def test_a_socket_that_is_accepted_while_its_host_is_left_is_closed(kind: str) -> None:
    """T6: in whichever turn that is; its other end is told at once, and not when the collector finds it."""
    told: list[int] = []

    async def main() -> None:
        for turns in range(8):
            async with Host(listen=["/ip4/127.0.0.1/tcp/0"]) as host:
                port = int(str(host.addresses[0]).split("/")[4])
                connecting = start(asyncio.open_connection("127.0.0.1", port))
                for _ in range(turns):
                    await asyncio.sleep(0)
            try:
                reader, writer = await WORLD.in_time(connecting)
                with contextlib.suppress(ConnectionResetError):
                    assert await WORLD.in_time(reader.read()) in (b"", HEADER)
                writer.close()
            except OSError:
                pass  # the host was left before the connection came
            told.append(turns)

    gc.disable()
    try:
        run_on(kind, main)
    finally:
        gc.enable()
    assert told == list(range(8))
