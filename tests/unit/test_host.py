"""Host: life, handlers, events, and what it does when something of it fails."""

from __future__ import annotations

import asyncio

import pytest

from aiolibp2p import Host, Limits, Multiaddr, PrivateKey, Stream, Timeouts
from aiolibp2p.errors import (
    ConnectionEndedError,
    InvalidValueError,
    Libp2pError,
    LimitError,
    LocalProtocolError,
    NegotiationError,
    StreamResetError,
)
from aiolibp2p.net.events import ConnectionClosed, ConnectionOpened, HandlerFailed, PeerIdentified
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import FIN, GO_AWAY, RST, SYN
from aiolibp2p.sim import SeededEntropy, current_loop, current_net
from tests.support.hosts import ECHO, OTHER, other_tasks, raw_peer, sim_host, two_hosts
from tests.support.raw import NS
from tests.support.scripts import initiating


async def echo(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data)


# -- life --------------------------------------------------------------------------------------------------------------


async def test_addresses_are_dialable_and_end_in_the_peer_id() -> None:
    async with sim_host("ours", listen=["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"]) as host:
        assert len(host.addresses) == 2
        for address in host.addresses:
            assert isinstance(address, Multiaddr)
            assert address.peer_id == host.peer_id == host.key.public.peer_id
            assert not str(address).split("/p2p/")[0].endswith("/tcp/0")


async def test_a_key_that_is_given_is_the_identity() -> None:
    key = PrivateKey.generate(SeededEntropy("key"))
    async with sim_host("ours", key=key) as host:
        assert host.peer_id == key.public.peer_id


async def test_a_host_is_used_inside_its_block_and_entered_once() -> None:
    host = sim_host("ours")
    for use in (lambda: host.peer_id, lambda: host.addresses, lambda: host.key, host.events):
        with pytest.raises(LocalProtocolError):
            use()
    with pytest.raises(LocalProtocolError):
        await host.connect("/ip4/1.2.3.4/tcp/1")
    async with host:
        pass
    with pytest.raises(LocalProtocolError):
        await host.__aenter__()


@pytest.mark.parametrize("option", [{"transports": ("quic",)}, {"security": ("tls",)}, {"security": ()}])
def test_what_this_version_does_not_have_is_refused(option: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(LocalProtocolError):
        Host(**option)  # type: ignore[arg-type]


async def test_leaving_tells_peers_and_leaves_nothing_behind() -> None:
    before = other_tasks()
    async with raw_peer(initiating()) as peer:
        async with sim_host("ours") as host:
            host.handle(ECHO, echo)
            link = await peer.dial(host.addresses[0])
            link.send_data(1, proposal(ECHO), SYN)
            await current_loop().settle()
        assert other_tasks() == before
        assert await link.closed() == 0
        assert [frame.length for frame in link.frames if frame.kind == GO_AWAY] == [0]
    assert current_net().listeners == []
    assert current_loop().time_ns() == 0


async def test_a_handler_that_refuses_to_end_is_named_when_the_host_is_left() -> None:
    go = asyncio.Event()
    refused: asyncio.Task[object] | None = None

    async def stubborn(_: Stream) -> None:
        nonlocal refused
        refused = asyncio.current_task()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    async with raw_peer(initiating()) as peer:
        with pytest.raises(Libp2pError, match=ECHO):
            await leave_with_handler(peer, stubborn)
        assert current_loop().time_ns() == 3 * NS
        go.set()
        assert refused is not None
        await asyncio.wait([refused])


async def leave_with_handler(peer, handler) -> None:  # type: ignore[no-untyped-def]
    async with sim_host("ours", timeouts=Timeouts(shutdown=3)) as host:
        host.handle(ECHO, handler)
        link = await peer.dial(host.addresses[0])
        link.send_data(1, proposal(ECHO), SYN)
        await current_loop().settle()


async def test_connecting_after_leaving_fails_at_once() -> None:
    async with sim_host("ours") as host:
        pass
    with pytest.raises((LocalProtocolError, ConnectionEndedError)):
        await host.connect("/ip4/9.9.9.9/tcp/4001")
    assert current_loop().time_ns() == 0


async def test_a_protocol_served_after_leaving_leaves_no_timer() -> None:
    async with sim_host("ours") as host:
        pass
    host.handle(ECHO, echo)
    assert current_loop().pending_timers() == []


# -- crashes -----------------------------------------------------------------------------------------------------------


async def crash() -> None:
    raise ZeroDivisionError("a bug of ours")


async def crash_when_cancelled() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise ZeroDivisionError("a bug of ours") from None


async def crash_in(host: Host, *, wait: bool, on_cancel: bool = False) -> None:
    async with host:
        task = host._tasks.start(crash_when_cancelled() if on_cancel else crash(), "crashing")
        await current_loop().settle() if on_cancel else await asyncio.sleep(0)
        if wait:
            await current_loop().pass_time(1000)
        assert on_cancel or task.done()


@pytest.mark.parametrize("wait", [True, False])
async def test_a_crash_of_a_task_of_ours_surfaces_where_the_host_was_entered(wait: bool) -> None:
    with pytest.raises(ZeroDivisionError):
        await crash_in(sim_host("ours"), wait=wait)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
    assert current_loop().time_ns() == 0


async def test_a_crash_while_the_host_is_left_surfaces() -> None:
    with pytest.raises(ZeroDivisionError):
        await crash_in(sim_host("ours"), wait=False, on_cancel=True)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_of_the_user_goes_through_the_block() -> None:
    async def use() -> None:
        async with sim_host("ours"):
            await current_loop().pass_time(1000)

    task = current_loop().create_task(use())
    await current_loop().pass_time(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert current_loop().time_ns() == NS


# -- handlers ----------------------------------------------------------------------------------------------------------


async def test_a_handler_serves_and_its_stream_is_closed_when_it_returns() -> None:
    async with two_hosts() as (alice, bob, _connection):

        @bob.handle(ECHO)
        async def served(stream: Stream) -> None:
            assert (stream.protocol, stream.peer_id, stream.inbound) == (ECHO, alice.peer_id, True)
            await stream.write(await stream.read())

        stream = await alice.open_stream(bob.peer_id, ECHO)
        await stream.write(b"hello")
        assert [data async for data in stream] == [b"hello"]
        stream.close()
        await stream.wait_closed()


async def test_a_handler_that_raises_resets_its_stream_only_and_is_told() -> None:
    async def broken(stream: Stream) -> None:
        raise ZeroDivisionError

    async with two_hosts() as (alice, bob, connection):
        bob.handle(OTHER, broken)
        bob.handle(ECHO, echo)
        events = bob.events()
        good = await alice.open_stream(bob.peer_id, ECHO)
        bad = await alice.open_stream(bob.peer_id, OTHER)
        with pytest.raises(StreamResetError) as caught:
            await bad.read()
        assert caught.value.by == "remote"
        while not isinstance(event := await anext(events), HandlerFailed):
            pass
        assert isinstance(event.error, ZeroDivisionError)
        assert event.stream.protocol == OTHER
        await good.write(b"x")
        assert await good.read() == b"x"
        good.close()
        assert connection.ended is None


async def test_a_protocol_is_served_once_and_until_it_is_not() -> None:
    async with two_hosts() as (alice, bob, connection):
        bob.handle(ECHO, echo)
        with pytest.raises(LocalProtocolError):
            bob.handle(ECHO, echo)
        with pytest.raises(InvalidValueError):
            bob.handle("two\nlines", echo)
        stream = await connection.open_stream(ECHO)
        await stream.write(b"1")
        assert await stream.read() == b"1"
        bob.unhandle(ECHO)
        with pytest.raises(LocalProtocolError):
            bob.unhandle(ECHO)
        await stream.write(b"2")
        assert await stream.read() == b"2"
        stream.close()
        refused = await alice.open_stream(bob.peer_id, ECHO)
        with pytest.raises(NegotiationError):
            await refused.read()


async def test_of_several_protocols_the_first_that_the_peer_speaks_is_taken() -> None:
    async with sim_host("alice") as alice, sim_host("bob") as bob:
        bob.handle(ECHO, echo)
        connection = await alice.connect(bob.addresses[0])
        assert connection.identify is None
        asked = await connection.open_stream(OTHER, ECHO)
        assert (asked.protocol, asked.handshake, asked.lazy) == (ECHO, "answered", False)
        await alice.identify(bob.peer_id)
        known = await connection.open_stream(OTHER, ECHO)
        assert (known.protocol, known.handshake, known.lazy) == (ECHO, "pending", True)
        with pytest.raises(NegotiationError) as caught:
            await connection.open_stream("/a/1", "/b/1")
        assert caught.value.offered == ("/a/1", "/b/1")
        for stream in (asked, known):
            stream.close()


# -- events ------------------------------------------------------------------------------------------------------------


async def test_events_tell_of_connections_from_now_on_and_end_with_the_host() -> None:
    async with raw_peer() as peer:
        async with sim_host("ours") as host:
            events, late = host.events(), host.events()
            connection = await host.connect(peer.address)
            await host.disconnect(peer.peer_id)
            later = host.events()
        seen = [event async for event in events]
        assert [type(event) for event in seen] == [ConnectionOpened, ConnectionClosed]
        assert isinstance(seen[1], ConnectionClosed)
        assert seen[1].connection is connection
        assert isinstance(seen[1].error, ConnectionEndedError)
        assert seen[1].error.by == "local"
        assert [event async for event in late] == seen
        assert [event async for event in later] == []


async def test_a_slow_consumer_loses_the_oldest_and_is_told_how_many() -> None:
    async with raw_peer() as peer:
        async with sim_host("ours", limits=Limits(events=3)) as host:
            events = host.events()
            for _ in range(5):
                await host.connect(peer.address)
                await host.disconnect(peer.peer_id)
        assert events.missed == 7
        kept = [type(event) async for event in events]
        assert kept == [ConnectionClosed, ConnectionOpened, ConnectionClosed]


async def test_a_consumer_that_is_gone_is_not_fed() -> None:
    async with sim_host("ours") as host:
        events = host.events()
        assert len(host._events._streams) == 1
        del events
        assert len(host._events._streams) == 0


async def test_a_consumer_that_waits_is_woken_and_loses_nothing_when_it_is_cancelled() -> None:
    async with sim_host("ours") as host, raw_peer() as peer:
        events = host.events()
        waiting = current_loop().create_task(anext(events))
        await current_loop().settle()
        waiting.cancel()
        await asyncio.wait([waiting])
        waiting = current_loop().create_task(anext(events))
        await host.connect(peer.address)
        assert isinstance(await waiting, ConnectionOpened)


async def test_identified_peers_are_told() -> None:
    async with sim_host("alice") as alice, sim_host("bob") as bob:
        events = alice.events()
        await alice.connect(bob.addresses[0])
        while not isinstance(event := await anext(events), PeerIdentified):
            pass
        assert event.connection.peer_id == bob.peer_id
        assert event.identify is event.connection.identify


# -- connections -------------------------------------------------------------------------------------------------------


async def test_disconnecting_ends_all_connections_of_a_peer_and_of_no_other() -> None:
    async with (
        sim_host("ours") as host,
        raw_peer(initiating()) as peer,
        raw_peer(name="other") as other,
    ):
        links = [await peer.dial(host.addresses[0]) for _ in range(3)]
        kept = await host.connect(other.address)
        await host.disconnect(peer.peer_id)
        assert host.connections == [kept]
        await current_loop().settle()
        assert [link.ended_ns for link in links] == [0] * 3
        await host.disconnect(peer.peer_id)
        with pytest.raises(LocalProtocolError):
            await host.disconnect("/ip4/1.2.3.4/tcp/1")


async def test_the_end_of_a_connection_wakes_all_who_wait_on_it() -> None:
    async with sim_host("ours", limits=Limits(yamux_ack_backlog=12)) as host, raw_peer() as peer:
        connection = await host.connect(peer.address)
        link = await peer.link()
        link.accepts = link.reads = False
        await current_loop().settle()
        stream = await connection.open_stream(ECHO)
        closed = await connection.open_stream(ECHO)
        closed.close()
        loop = current_loop()
        waiting = [
            loop.create_task(stream.read()),
            loop.create_task(stream.write(bytes(1 << 20))),
            loop.create_task(closed.wait_closed()),
            loop.create_task(host.ping(peer.peer_id)),
            loop.create_task(host.identify(peer.peer_id)),
            loop.create_task(connection.open_stream(ECHO, OTHER)),
            *(loop.create_task(opening(connection)) for _ in range(12)),
        ]
        await loop.settle()
        link.transport.abort()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert loop.time_ns() == 0
        assert [type(result) for result in results[:6]] == [ConnectionEndedError] * 6
        assert ConnectionEndedError in {type(result) for result in results[6:]}
        await connection.wait_closed()


async def opening(connection) -> None:  # type: ignore[no-untyped-def]
    await (await connection.open_stream(ECHO)).read()


async def test_an_aborted_connection_says_no_goodbye() -> None:
    async with sim_host("ours") as host, raw_peer() as peer:
        connection = await host.connect(peer.address)
        link = await peer.link()
        await current_loop().settle()
        with pytest.raises(LocalProtocolError):
            await connection.wait_closed()
        connection.abort()
        connection.close()
        await connection.wait_closed()
        await current_loop().settle()
        assert not any(frame.kind == GO_AWAY for frame in link.frames)
        assert not any(frame.flags & (FIN | RST) for frame in link.frames)
        assert host.connections == []


async def test_a_full_host_is_told_by_the_error() -> None:
    async with sim_host("ours", limits=Limits(streams=1)) as host, raw_peer() as peer:
        connection = await host.connect(peer.address)
        with pytest.raises(LimitError) as caught:
            await connection.open_stream(ECHO)
        assert (caught.value.limit, caught.value.stage) == ("streams", "open stream")
