"""Host: life, handlers, events, and what it does when something of it fails."""

from __future__ import annotations

import asyncio

import pytest

from aiolibp2p import Host, Multiaddr, PrivateKey, Stream, Timeouts
from aiolibp2p.errors import (
    ConnectionEndedError,
    InvalidValueError,
    Libp2pError,
    LocalProtocolError,
    NegotiationError,
    StreamResetError,
)
from aiolibp2p.net.events import HandlerFailed
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import GO_AWAY, RST, SYN
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


async def test_an_accept_callback_that_raises_resets_its_stream_only() -> None:
    def broken(_: Stream) -> None:
        raise ZeroDivisionError

    async with sim_host("ours") as host, raw_peer(initiating()) as peer:
        host.serve(ECHO, broken)
        events = host.events()
        link = await peer.dial(host.addresses[0])
        link.send_data(1, proposal(ECHO), SYN)
        link.send_data(3, proposal("/ipfs/ping/1.0.0") + bytes(32), SYN)
        await current_loop().settle()
        assert len(link.flagged(1, RST)) == 1
        assert link.sent_on(3) == proposal("/ipfs/ping/1.0.0") + bytes(32)
        assert len(host.connections) == 1
        while not isinstance(event := await anext(events), HandlerFailed):
            pass
        assert isinstance(event.error, ZeroDivisionError)
