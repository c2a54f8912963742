"""World: what a simulated test works with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from aiolibp2p import Stream
from aiolibp2p.sim import InvariantError, World, current_loop, new_event_loop, run_world

MS = 1_000_000
NS = 1_000_000_000
ECHO = "/echo/1.0.0"


def in_world(test: Callable[[World], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Make a test of a coroutine of a world, strictly; `sim_test` is not what is tested here."""

    def run() -> None:
        run_world(test, seed=5, strict=True)

    run.__name__ = test.__name__
    return run


@in_world
async def test_links_have_a_direction_or_two(sim: World) -> None:
    a, b = sim.host("a"), sim.host("b")
    sim.link(a, b, latency=0.05)
    with b.here():
        server = await asyncio.start_server(lambda _, writer: writer.close(), "0.0.0.0", 7)
    with a.here(), sim.elapsed() as t:
        _, writer = await asyncio.open_connection("b", 7)
    assert t.ns == 100 * MS
    writer.close()
    sim.link(b, a, latency=0.2, oneway=True)
    with a.here(), sim.elapsed() as t:
        _, writer = await asyncio.open_connection("b", 7)
        assert t.ns == 250 * MS
        await sim.pass_time(1)
    await sim.pass_time(1)
    assert (t.ns, t.seconds) == (1_250 * MS, 1.25)
    writer.close()
    server.close()
    await sim.pass_time(1)


@in_world
async def test_links_between_several_machines_leave_the_way_within_one_alone(sim: World) -> None:
    machines = [sim.host(name) for name in "abc"]
    sim.link(machines, machines, latency=0.05)
    sim.link(machines[:1], machines[1:], latency=0.2, oneway=True)
    ways = {(a.name, b.name): sim.net.path(a, b).link.latency for a in machines for b in machines}
    assert ways == {
        **dict.fromkeys((("a", "b"), ("a", "c")), 0.2),
        **dict.fromkeys((("b", "a"), ("b", "c"), ("c", "a"), ("c", "b")), 0.05),
        **dict.fromkeys((("a", "a"), ("b", "b"), ("c", "c")), 0),
    }


@in_world
async def test_a_world_shows_its_seed_and_its_time(sim: World) -> None:
    await sim.pass_time(1.5)
    assert repr(sim) == "<World seed=5 at 1.500000000 s>"


def test_a_loop_for_a_runner_has_a_world() -> None:
    async def main() -> int:
        sim = World(current_loop())
        a, b = sim.host("a"), sim.host("b")
        sim.link(a, b, latency=0.05)
        with a.here(), pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("b", 80)
        return sim.now_ns

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        assert runner.run(main()) == 100 * MS


@in_world
async def test_until_wakes_at_the_instant_at_which_it_is_so(sim: World) -> None:
    async def count() -> None:
        for _ in range(100):
            counted.append(len(counted))
            await sim.pass_time(0.5)

    counted: list[int] = []
    counting = sim.loop.create_task(count())
    await sim.until(lambda: len(counted) == 7, within=60)
    assert sim.now_ns == 3 * NS
    await sim.until(lambda: True, within=0)
    assert sim.now_ns == 3 * NS
    counting.cancel()


@in_world
async def test_until_gives_up_and_says_what_did_not_become_so(sim: World) -> None:
    def pigs_fly() -> bool:
        return False

    with pytest.raises(TimeoutError, match=r"within 60 s of virtual time: .*pigs_fly"):
        await sim.until(pigs_fly, within=60)
    assert sim.now_ns == 60 * NS


@in_world
async def test_until_raises_what_its_predicate_raises(sim: World) -> None:
    def late() -> bool:
        raise TimeoutError("my own")

    with pytest.raises(TimeoutError, match="my own"):
        await sim.until(late, within=60)
    with pytest.raises(ZeroDivisionError):
        await sim.until(lambda: 1 // 0, within=60)
    assert sim.now_ns == 0


def test_what_must_always_be_so_ends_the_run_at_the_instant_at_which_it_is_not() -> None:
    async def main(sim: World) -> None:
        seconds: list[float] = []
        sim.always("less than five", lambda: len(seconds) < 5)
        while True:
            seconds.append(1)
            await sim.pass_time(1)

    with pytest.raises(InvariantError, match=r"not so at 4\.000000000 s: less than five"):
        run_world(main)


def test_a_check_may_assert_instead_of_answering() -> None:
    async def main(sim: World) -> None:
        def check() -> None:
            assert sim.now_ns < NS, "too late"

        sim.always("it is early", check)
        await sim.pass_time(1)
        await sim.pass_time(1)

    with pytest.raises(InvariantError, match="it is early: too late"):
        run_world(main)


@in_world
async def test_a_check_is_not_made_between_two_steps_of_one_instant_and_can_be_ended(sim: World) -> None:
    balances = [5, 5]
    end = sim.always("money is neither made nor lost", lambda: sum(balances) == 10)
    balances[0] -= 1
    await asyncio.sleep(0)
    balances[1] += 1
    await sim.settle()
    end()
    balances[0] = 0
    await sim.pass_time(1)


@in_world
async def test_partitions_holds_and_rules_reach_the_network(sim: World) -> None:
    a, b = sim.host("a", up=1e9, down=1e9), sim.host("b")
    heard: list[int] = []

    class Hears(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            heard.append(data[0])

    with b.here():
        hearing, _ = await sim.loop.create_datagram_endpoint(Hears, ("0.0.0.0", 9))
    with a.here():
        speaking, _ = await sim.loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("0.0.0.0", 0))

    async def say(number: int) -> list[int]:
        speaking.sendto(bytes([number]), (b.addresses[0], 9))
        await sim.pass_time(1)
        return list(heard)

    assert await say(1) == [1]
    sim.partition(a, b, oneway=True)
    assert await say(2) == [1]
    sim.repair(a, b)
    sim.hold(a, b)
    assert await say(3) == [1]
    sim.release(a, b)
    assert await say(4) == [1, 3, 4]
    sim.isolate(b)
    assert await say(5) == [1, 3, 4]
    sim.repair(b)
    end = sim.rule(lambda packet: "drop" if packet.payload == b"\6" else None)
    assert await say(6) == [1, 3, 4]
    end()
    assert await say(7) == [1, 3, 4, 7]
    speaking.close()
    hearing.close()
    await sim.settle()


@in_world
async def test_a_host_started_again_after_a_crash_is_the_same_peer_and_draws_other_bytes(sim: World) -> None:
    a, b = sim.host("a"), sim.host("b")
    alice, bob = await sim.libp2p(a), await sim.libp2p(b)
    connection = await alice.connect(bob.addresses[0])
    b.crash()
    assert not sim.net.connections or sim.now_ns == 0
    await sim.until(lambda: not alice.connections, within=3600)
    b.restart()
    again = await sim.libp2p(b)
    assert again.peer_id == bob.peer_id
    assert await alice.connect(again.addresses[0]) is not connection


@in_world
async def test_hosts_of_libp2p_run_on_machines(sim: World) -> None:
    a, b = sim.host("a"), sim.host("b")
    sim.link(a, b, latency=0.05)
    alice, bob = await sim.libp2p(a), await sim.libp2p(b, listen=["/ip4/1.0.0.3/tcp/9"])

    async def echo(stream: Stream) -> None:
        await stream.write(await stream.read_exactly(5))

    bob.handle(ECHO, echo)
    with sim.elapsed() as t:
        connection = await alice.connect(bob.addresses[0])
        stream = await connection.open_stream(ECHO)
        await stream.write(b"hello")
        assert await stream.read_exactly(5) == b"hello"
    assert t.ns == 300 * MS  # TCP, Noise and the muxer, the stream
    assert str(connection.remote_address).startswith("/ip4/1.0.0.3/tcp/9")
    assert str(bob.connections[0].remote_address).startswith("/ip4/1.0.0.2/tcp/")
    assert str(alice.addresses[0]).startswith("/ip4/1.0.0.2/tcp/4001")
    stream.close()


def test_the_key_of_a_host_depends_on_the_seed_and_the_name_of_its_machine() -> None:
    def peer_ids(seed: int, *names: str) -> list[str]:
        async def main(sim: World) -> list[str]:
            return [str((await sim.libp2p(sim.host(name))).peer_id) for name in names]

        return run_world(main, seed=seed)

    a, b = peer_ids(1, "a", "b")
    assert peer_ids(1, "b", "c", "a")[::2] == [b, a]
    assert peer_ids(2, "a")[0] not in (a, b)


@in_world
async def test_the_world_lists_its_tasks(sim: World) -> None:
    waiting = sim.loop.create_task(asyncio.Event().wait(), name="patient")
    await sim.pass_time(180)
    assert "'patient' [event wait, 3 minutes" in str(sim.tasks())
    waiting.cancel()


@in_world
async def test_the_digest_stands_for_what_crossed_the_network(sim: World) -> None:
    empty = sim.trace.digest()
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 7)
    assert sim.trace.digest() == empty
    _, writer = await asyncio.open_connection("127.0.0.1", 7)
    writer.write(b"x")
    await sim.settle()
    assert sim.trace.digest() != empty
    writer.close()
    server.close()
    await sim.pass_time(1)


def test_a_failure_is_told_of_while_every_task_is_where_it_was() -> None:
    told: list[tuple[str, bool]] = []

    async def main(sim: World) -> None:
        await sim.libp2p(sim.host("a"))
        raise KeyError("x")

    def on_failure(world: World, error: BaseException) -> None:
        told.append((repr(error), bool(world.net.listeners)))

    with pytest.raises(KeyError):
        run_world(main, on_failure=on_failure)
    assert told == [("KeyError('x')", True)]
