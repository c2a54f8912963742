"""Hosts that lose power, start again, or stand still."""

from __future__ import annotations

import asyncio
import errno
import gc
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from aiolibp2p.sim import Host, Link, current_loop, current_net, run
from aiolibp2p.sim.network import host_here
from tests.support.datagrams import mailbox

MS = 1_000_000
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def two_hosts(latency: float = 0.050) -> tuple[Host, Host]:
    net = current_net()
    net.set_link(Link(latency=latency))
    return net.host("alice"), net.host("bob")


async def connected(alice: Host, bob: Host) -> tuple[Streams, Streams]:
    """Connect alice to bob, whose server and its tasks are bob's own."""
    accepted: asyncio.Future[Streams] = current_loop().create_future()

    async def serve() -> None:
        await asyncio.start_server(lambda *streams: accepted.set_result(streams), "0.0.0.0", 80)

    await bob.spawn(serve())
    with alice.here():
        streams = await asyncio.open_connection("bob", 80)
    return streams, await accepted


async def test_a_task_of_a_host_and_what_it_makes_belong_to_it() -> None:
    alice, bob = two_hosts()
    seen: list[Host | None] = []

    async def child() -> None:
        seen.append(host_here())

    async def main() -> str:
        seen.append(host_here())
        await current_loop().create_task(child(), name="child")
        current_loop().call_soon(lambda: seen.append(host_here()))
        await asyncio.sleep(0)
        return "done"

    task = alice.spawn(main(), name="main")
    assert task.get_name() == "alice/main"
    assert await task == "done"
    assert bob.spawn(child()).get_name() == "bob/child"
    await current_loop().settle()
    assert seen == [alice, alice, alice, bob]
    assert host_here() is None


async def test_after_a_crash_nothing_of_the_host_runs_not_even_a_finally_block() -> None:
    alice, _ = two_hosts()
    ran: list[str] = []

    async def waits(event: asyncio.Event, name: str) -> None:
        try:
            await event.wait()
            ran.append(name)
        finally:
            ran.append(f"finally of {name}")

    async def ticks() -> None:
        loop = current_loop()
        loop.call_later(5, ran.append, "timer")
        loop.call_soon(ran.append, "callback")
        while True:
            await loop.pass_time(1)
            ran.append("tick")

    shared = asyncio.Event()
    for i in range(3):
        _ = alice.spawn(waits(shared, f"task {i}"))
    _ = alice.spawn(ticks())
    ours = current_loop().create_task(waits(shared, "ours"), name="ours")
    await current_loop().pass_time(2.5)
    assert ran == ["callback", "tick", "tick"]
    alice.crash()
    alice.crash()
    assert not alice.is_up
    shared.set()
    await ours
    await current_loop().pass_time(100)
    gc.collect()
    assert ran == ["callback", "tick", "tick", "ours", "finally of ours"]


def test_the_end_of_a_run_does_not_end_what_a_crash_has_stopped() -> None:
    ran: list[str] = []

    async def generates() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            ran.append("generator")

    async def iterates() -> None:
        try:
            async for _ in generates():
                await asyncio.Event().wait()
        finally:
            ran.append("task")

    async def main() -> None:
        alice, _ = two_hosts()
        _ = alice.spawn(iterates())
        await current_loop().settle()
        alice.crash()

    run(main, strict=True)
    gc.collect()
    assert ran == []


async def test_callbacks_that_are_due_when_the_power_goes_do_not_run() -> None:
    alice, _ = two_hosts()
    ran: list[str] = []

    async def works(name: str) -> None:
        ran.append(name)

    current_loop().call_soon(alice.crash)
    _ = alice.spawn(works("after the crash"))
    await current_loop().settle()
    assert ran == []


async def test_code_that_cuts_its_own_power_goes_no_further_than_its_next_await() -> None:
    alice, _ = two_hosts()
    ran: list[str] = []

    async def ends_itself() -> None:
        alice.crash()
        ran.append("still")
        await asyncio.sleep(0)
        ran.append("never")

    _ = alice.spawn(ends_itself())
    await current_loop().pass_time(10)
    assert ran == ["still"]


async def test_a_peer_of_a_crashed_host_does_not_notice_until_it_sends() -> None:
    alice, bob = two_hosts()
    (reader, writer), _ = await connected(alice, bob)
    tap = current_net().tap()
    bob.crash()
    reading = current_loop().create_task(reader.read(), name="reading")
    await current_loop().pass_time(3600)
    assert not reading.done()
    assert tap.packets == []
    start = current_loop().time_ns()
    writer.write(b"anyone?")
    with pytest.raises(TimeoutError):
        await reading
    assert current_loop().time_ns() - start == 924_600 * MS + 50 * MS
    assert {drop.reason for drop in tap.drops} == {"down"}
    writer.close()
    assert current_net().connections == []


async def test_a_host_that_was_started_again_resets_connections_of_before() -> None:
    alice, bob = two_hosts()
    (reader, writer), _ = await connected(alice, bob)
    bob.restart()
    assert bob.is_up
    await current_loop().pass_time(60)
    start = current_loop().time_ns()
    writer.write(b"hello again")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    assert current_loop().time_ns() - start == 100 * MS
    writer.close()


async def test_bytes_that_were_not_acknowledged_before_a_crash_lead_to_a_reset_after_it() -> None:
    alice, bob = two_hosts()
    (reader, writer), _ = await connected(alice, bob)
    writer.write(b"under way")
    await current_loop().pass_time(0.025)
    bob.crash()
    await current_loop().pass_time(10)
    bob.restart()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    assert current_loop().time_ns() < 30_000 * MS
    writer.close()


async def test_bytes_that_a_crash_kept_from_being_acknowledged_lead_to_a_reset_too() -> None:
    alice, bob = two_hosts()
    (reader, writer), _ = await connected(alice, bob)
    arrives_ns = current_loop().time_ns() + 50 * MS
    writer.write(b"just arrived")
    current_loop().call_at_ns(arrives_ns, bob.restart)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    assert current_loop().time_ns() < arrives_ns + 1_000 * MS
    writer.close()


async def test_a_writer_whose_window_a_crash_left_closed_is_reset_after_it() -> None:
    alice, bob = two_hosts()
    (reader, writer), (_, there) = await connected(alice, bob)
    transport: Any = there.transport
    transport.pause_reading()
    writer.write(bytes(2 << 20))
    await current_loop().pass_time(10)
    bob.restart()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_packets_that_have_left_a_host_outlive_it() -> None:
    alice, bob = two_hosts()
    (reader, writer), (_, there) = await connected(alice, bob)
    sender, receiver = await mailbox(bob), await mailbox(alice)
    there.write(b"last words")
    sender.send(b"and these", alice)
    bob.crash()
    assert await reader.readexactly(10) == b"last words"
    assert receiver.payloads == [b"and these"]
    writer.close()
    bob.restart()
    await current_loop().pass_time(10)
    assert current_net().connections == []


async def test_what_reaches_a_host_without_power_is_lost_and_its_ports_are_free_again() -> None:
    alice, bob = two_hosts()
    sender, receiver = await mailbox(alice, to=(bob.addresses[0], 7)), await mailbox(bob)
    tap = current_net().tap()
    bob.crash()
    sender.send(b"x")
    await current_loop().pass_time(1)
    assert (sender.errors, [drop.reason for drop in tap.drops]) == ([], ["down"])
    bob.restart()
    sender.send(b"x")
    await current_loop().pass_time(1)
    assert isinstance(sender.errors[0][1], ConnectionRefusedError)
    again = await mailbox(bob)
    sender.send(b"y")
    await current_loop().pass_time(1)
    assert (receiver.received, again.payloads) == ([], [b"y"])
    assert receiver.events == ["made"]


async def test_a_crash_in_the_middle_of_a_handshake_leaves_nothing_behind() -> None:
    for at_ms in (25, 75, 125):
        net = current_net()
        alice, bob = net.host(f"alice{at_ms}"), net.host(f"bob{at_ms}")
        net.set_link(Link(latency=0.050))
        with bob.here():
            await asyncio.start_server(lambda _reader, writer: writer.close(), "0.0.0.0", 80)
        _ = alice.spawn(opens(bob))
        await current_loop().pass_time(at_ms / 1000)
        alice.crash()
        await current_loop().pass_time(300)
        assert [c for c in net.connections if not c.server.closed and c.server_transport is not None] == []


async def opens(bob: Host) -> None:
    _, writer = await asyncio.open_connection(bob.name, 80)
    await asyncio.Event().wait()
    writer.close()


async def test_a_server_that_crashes_before_its_answer_arrives_leaves_its_client_half_open() -> None:
    alice, bob = two_hosts()
    with bob.here():
        await asyncio.start_server(lambda _reader, writer: writer.close(), "0.0.0.0", 80)
    current_loop().call_at(0.075, bob.restart)
    with alice.here():
        reader, writer = await asyncio.open_connection("bob", 80)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    assert current_loop().time_ns() == 200 * MS
    writer.close()


async def test_a_connect_to_a_host_without_power_goes_on_until_it_is_back() -> None:
    alice, bob = two_hosts()
    bob.crash()
    opening = alice.spawn(opens(bob))
    await current_loop().pass_time(5)
    bob.restart()
    with pytest.raises(ConnectionRefusedError):
        await opening
    assert current_loop().time_ns() == 7_100 * MS


async def test_nothing_can_be_done_on_a_host_without_power() -> None:
    alice, _ = two_hosts()
    alice.crash()
    with pytest.raises(OSError, match="alice has crashed") as caught, alice.here():
        pass
    assert caught.value.errno == errno.ENETDOWN
    with pytest.raises(OSError, match="alice has crashed"):
        _ = alice.spawn(asyncio.sleep(0))
    alice.pause(1)
    assert alice.parked is None


async def test_a_restarted_host_runs_what_is_spawned_on_it() -> None:
    alice, bob = two_hosts()

    async def serve(answer: bytes) -> None:
        async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            writer.close()

        await asyncio.start_server(accept, "0.0.0.0", 80)

    for answer in (b"one", b"two"):
        bob.restart()
        await bob.spawn(serve(answer))
        with alice.here():
            reader, writer = await asyncio.open_connection("bob", 80)
        assert await reader.read() == answer
        writer.close()


async def test_a_paused_host_stands_still_and_goes_on_afterwards() -> None:
    alice, _ = two_hosts()
    ran: list[tuple[int, str]] = []

    def note(what: str) -> None:
        ran.append((current_loop().time_ns() // MS, what))

    async def ticks() -> None:
        current_loop().call_later(2, note, "timer")
        cancelled = current_loop().call_later(1.5, note, "cancelled")
        current_loop().call_later(4, cancelled.cancel)
        while len(ran) < 5:
            await current_loop().pass_time(1)
            note("tick")

    task = alice.spawn(ticks())
    current_loop().call_at(1.2, alice.pause, 3.0)
    current_loop().call_at(2.2, alice.pause, 1.0)
    await task
    assert ran == [(1000, "tick"), (4200, "cancelled"), (4200, "timer"), (4200, "tick"), (5200, "tick")]


async def test_a_pause_can_be_made_longer() -> None:
    alice, _ = two_hosts()
    alice.pause(1)
    await current_loop().pass_time(0.5)
    alice.pause(1)
    await alice.spawn(asyncio.sleep(0), name="waits")
    assert current_loop().time_ns() == 1_500 * MS


async def test_a_paused_host_acknowledges_and_its_program_reads_later() -> None:
    alice, bob = two_hosts()
    (_, writer), (reader, _) = await connected(alice, bob)
    bob.pause(5)
    start = current_loop().time_ns()
    writer.write(b"hello")
    connection = current_net().connections[0]
    reading = bob.spawn(reader.readexactly(5), name="reads")
    await current_loop().pass_time(1)
    assert connection.client.outgoing._acknowledged == 5
    assert not reading.done()
    assert await reading == b"hello"
    assert current_loop().time_ns() - start == 5_000 * MS
    writer.close()


async def test_a_paused_host_accepts_connections_later() -> None:
    alice, bob = two_hosts()
    accepted: list[int] = []

    def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(current_loop().time_ns())
        writer.close()

    async def serve() -> None:
        await asyncio.start_server(accept, "0.0.0.0", 81)

    await bob.spawn(serve())
    start = current_loop().time_ns()
    bob.pause(5)
    with alice.here():
        _, writer = await asyncio.open_connection("bob", 81)
    assert current_loop().time_ns() - start == 100 * MS
    writer.write(b"early")
    await current_loop().pass_time(10)
    assert [at_ns - start for at_ns in accepted] == [5_000 * MS]
    writer.close()
    await current_loop().pass_time(1)


async def test_a_crash_ends_a_pause() -> None:
    alice, _ = two_hosts()
    ran: list[str] = []

    async def waits(name: str) -> None:
        await asyncio.sleep(0)
        ran.append(name)

    _ = alice.spawn(waits("before"))
    alice.pause(5)
    await current_loop().settle()
    alice.restart()
    await alice.spawn(waits("after"))
    assert current_loop().time_ns() == 0
    await current_loop().pass_time(10)
    assert ran == ["after"]


async def test_code_at_home_survives_a_crash_of_home() -> None:
    home = current_net().home
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 80)
    home.crash()
    home.restart()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", 80)
    server.close()
