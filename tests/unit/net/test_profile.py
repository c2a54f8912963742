"""What a host says of its tasks, connections, streams and tombstones."""

from __future__ import annotations

import asyncio
import json

import pytest

from aiolibp2p import Limits, Stream, Timeouts
from aiolibp2p.errors import DeadlineError, LocalProtocolError
from aiolibp2p.net.profile import profile_connections_in_turns
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sim import current_loop
from tests.support.hosts import ECHO, OTHER, against_raw, other_tasks, sim_host, two_hosts
from tests.support.loops import start


async def never_write(stream: Stream) -> None:
    while await stream.read(1):
        pass


async def test_streams_are_shown_with_who_waits_on_them_and_for_how_long() -> None:
    async with two_hosts() as (alice, bob, connection):
        bob.handle(ECHO, never_write)
        stream = await connection.open_stream(ECHO)
        await stream.write(b"x")
        reader = start("reader", stream.read())
        await current_loop().pass_time(45)

        said = alice.profile()
        assert (said.peer_id, said.tasks.tasks) == (str(alice.peer_id), ())
        (of_connection,) = said.connections
        assert (of_connection.peer_id, of_connection.direction, of_connection.age) == (
            str(bob.peer_id),
            "outbound",
            45.0,
        )
        (shown,) = of_connection.streams
        assert (shown.protocol, shown.inbound, shown.handshake) == (ECHO, False, "answered")
        assert (shown.waits, shown.reading, shown.writing, shown.unread_bytes) == (("read",), 45.0, None, 0)
        assert shown.age == 45.0
        assert f"stream {stream.id} outbound {ECHO} [answered; reads, 45 s; age 45 s]" in str(said)

        said = bob.profile()
        (task,) = said.tasks.tasks
        assert (task.name, task.wait, task.waiting, task.age) == (ECHO, "stream read", 45.0, 45.0)
        assert str(said).startswith(
            f"host {bob.peer_id}: 1 task, 1 connection, 1 stream, 0 tombstones\ntask '{ECHO}' ["
        )
        reader.cancel()
        stream.reset()
        await asyncio.wait([reader])


async def test_a_write_that_waits_for_credit_and_what_lies_unread_are_shown() -> None:
    async def do_not_read(_stream: Stream) -> None:
        await over.wait()

    over = asyncio.Event()
    async with two_hosts() as (alice, bob, connection):
        bob.handle(ECHO, do_not_read)
        stream = await connection.open_stream(ECHO)
        writer = start("writer", stream.write(bytes(1 << 20)))
        await current_loop().pass_time(30)
        (ours,), (theirs,) = (host.profile().connections[0].streams for host in (alice, bob))
        assert (ours.waits, ours.writing, theirs.waits) == (("write",), 30.0, ())
        assert theirs.unread_bytes == Limits().yamux_window - len(proposal(ECHO))
        assert str(ours).endswith("; writes, 30 s; age 30 s]")
        assert str(theirs).endswith(f"; {theirs.unread_bytes} bytes unread]")
        over.set()
        writer.cancel()
        await asyncio.wait([writer])


async def test_a_tombstone_is_shown_with_the_time_it_has_left() -> None:
    async with against_raw() as (host, _, connection):
        stream = await connection.open_stream(ECHO)
        stream.close()
        await current_loop().pass_time(4)
        (of_connection,) = host.profile().connections
        (tombstone,) = of_connection.tombstones
        assert stream.id not in [other.id for other in of_connection.streams]
        assert (tombstone.id, tombstone.protocol, tombstone.handshake, tombstone.left) == (
            stream.id,
            ECHO,
            "pending",
            Timeouts().close - 4,
        )
        assert f"tombstone {stream.id} outbound {ECHO} [pending; 6 s left]" in str(of_connection)
        with pytest.raises(DeadlineError):
            await stream.wait_closed()
        assert host.profile().connections[0].tombstones == ()


async def test_a_stream_on_callbacks_and_one_whose_protocol_is_not_settled_are_shown() -> None:
    async with two_hosts() as (_, bob, connection):
        bob.serve(ECHO, lambda stream: stream.on_readable(lambda: None))
        stream = await connection.open_stream(ECHO)
        await current_loop().pass_time(2)
        (theirs,) = bob.profile().connections[0].streams
        assert (theirs.waits, theirs.reading) == (("read",), 2.0)
        stream.reset()
    async with against_raw() as (host, _, connection):
        asked = start("asks", connection.open_stream(ECHO, OTHER))
        await current_loop().settle()
        pending = host.profile().connections[0].streams[-1]
        assert (pending.protocol, pending.handshake) == ("", "pending")
        assert " outbound ? [pending; age 0 s]" in str(pending)
        asked.cancel()
        await asyncio.wait([asked])


async def test_a_dial_is_a_task_of_the_host() -> None:
    async with sim_host("ours") as host:
        dial = start("dials", host.connect("/ip4/9.9.9.9/tcp/4001"))
        await current_loop().pass_time(3)
        (task,) = host.profile().tasks.tasks
        assert task.name.startswith("dial ")
        assert (task.wait, task.age) == ("socket connect", 3.0)
        dial.cancel()
        await asyncio.wait([dial, *other_tasks()])


async def test_text_lists_some_streams_and_json_all() -> None:
    async with two_hosts() as (alice, bob, connection):
        bob.handle(ECHO, never_write)
        streams = [await connection.open_stream(ECHO) for _ in range(25)]
        await current_loop().settle()
        text, said = str(alice.profile()), json.loads(json.dumps(alice.profile().to_json()))
        assert len([line for line in text.splitlines() if line.startswith("    stream ")]) == 20
        assert text.splitlines()[-1] == "    and 5 more streams"
        assert (said["tasks"], said["groups"]) == (0, [])
        assert [stream["id"] for stream in said["connections"][0]["streams"]] == [stream.id for stream in streams]
        # The handlers at the other side wait at one place.
        assert [group["count"] for group in bob.profile().to_json()["groups"]] == [25]
        for stream in streams:
            stream.reset()


async def test_the_profile_of_connections_in_turns_is_that_at_once() -> None:
    async with two_hosts() as (alice, _, _connection):
        assert await profile_connections_in_turns(alice.connections) == alice.profile().connections
    with pytest.raises(LocalProtocolError):
        sim_host("another").profile()
