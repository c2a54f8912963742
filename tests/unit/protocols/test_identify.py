"""Identify and its push, sent and received."""

from __future__ import annotations

import asyncio

import pytest

from aiolibp2p import Limits, Stream, Timeouts
from aiolibp2p.errors import (
    ConnectionEndedError,
    LimitError,
    NegotiationError,
    RemoteProtocolError,
    StreamResetError,
)
from aiolibp2p.net.events import HandlerFailed, PeerIdentified
from aiolibp2p.protocols.identify import PROTOCOL, PUSH_PROTOCOL
from aiolibp2p.sansio.identify import Identify, encode
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import FIN, RST, SYN
from aiolibp2p.sim import Link, current_loop, current_net
from aiolibp2p.version import AGENT
from tests.support.hosts import ECHO, OTHER, against_raw, raw_peer, sim_host, two_hosts
from tests.support.raw import NS, RawLink
from tests.support.refusals import reached
from tests.support.scripts import initiating


async def handler(stream: Stream) -> None:
    await stream.read()


def said(link: RawLink, *protocols: str) -> bytes:
    """Return what a raw peer says of itself."""
    return b"".join(encode(Identify(agent_version="raw", public_key=link.peer.key.public, protocols=protocols)))


@pytest.mark.conforms("I10")
async def test_a_host_says_what_it_is() -> None:
    async with two_hosts(agent="mine/1") as (alice, bob, connection):
        known = await alice.identify(bob.peer_id)
        assert known is connection.identify
        assert known.agent_version == "mine/1"
        assert known.protocol_version == "ipfs/0.1.0"
        assert known.public_key == bob.key.public
        assert [address.with_peer_id(bob.peer_id) for address in known.listen_addresses] == bob.addresses
        assert known.observed_address == connection.local_address
        assert set(known.protocols) == {PROTOCOL, PUSH_PROTOCOL, "/ipfs/ping/1.0.0"}
        assert known.peer_record is not None
        assert known.peer_record.peer_id == bob.peer_id
        assert AGENT.startswith("aiolibp2p")


async def test_both_sides_ask_without_being_asked_to() -> None:
    async with sim_host("alice") as alice, sim_host("bob") as bob:
        await alice.connect(bob.addresses[0])
        await current_loop().settle()
        assert [connection.identify is not None for connection in (*alice.connections, *bob.connections)] == [True] * 2
        assert alice.connections[0].streams == bob.connections[0].streams == []


async def test_a_host_that_does_not_listen_says_no_address() -> None:
    async with sim_host("alice", listen=[]) as alice, sim_host("bob") as bob:
        await alice.connect(bob.addresses[0])
        await current_loop().settle()
        known = await bob.identify(alice.peer_id)
        assert known.listen_addresses == ()
        assert known.peer_record is None


@pytest.mark.conforms("I8")
async def test_changes_within_the_delay_go_out_as_one_push() -> None:
    async with two_hosts() as (alice, bob, connection):
        loop = current_loop()
        started_ns = loop.time_ns()
        events = alice.events()
        bob.handle(ECHO, handler)
        await loop.pass_time(0.05)
        bob.handle(OTHER, handler)
        bob.unhandle(ECHO)
        event = await anext(events)
        assert isinstance(event, PeerIdentified)
        assert loop.time_ns() - started_ns == NS // 10
        assert OTHER in event.identify.protocols
        assert ECHO not in event.identify.protocols
        assert connection.identify is event.identify
        await loop.pass_time(10)
        assert len(events._events) == 0
        assert connection.streams == bob.connections[0].streams == []
        assert bob.connections[0].tombstones == []


@pytest.mark.conforms("M10")
async def test_a_push_voids_a_refusal() -> None:
    async with two_hosts() as (alice, bob, connection):
        stream = await connection.open_stream(ECHO)
        with pytest.raises(NegotiationError):
            await stream.read()
        assert connection.refused == {ECHO}
        bob.handle(ECHO, handler)
        await current_loop().pass_time(0.2)
        assert connection.refused == set()
        lazy = await connection.open_stream(OTHER, ECHO)
        assert (lazy.protocol, lazy.lazy) == (ECHO, True)
        lazy.close()
        assert alice.connections == [connection]


async def test_a_peer_that_takes_no_push_gets_none() -> None:
    async with against_raw() as (host, link, connection):
        number = await link.stream_for(PROTOCOL)
        link.send_data(number, proposal(PROTOCOL) + said(link, ECHO))
        link.fin(number)
        await current_loop().settle()
        assert connection.identify is not None
        assert (connection.identify.agent_version, connection.identify.protocols) == ("raw", (ECHO,))
        host.handle(OTHER, handler)
        await current_loop().pass_time(1)
        assert not any(PUSH_PROTOCOL.encode() in frame.body for frame in link.frames)


async def test_a_push_of_a_peer_is_merged_into_what_is_known() -> None:
    async with against_raw() as (host, link, connection):
        number = await link.stream_for(PROTOCOL)
        link.send_data(number, proposal(PROTOCOL) + said(link, ECHO))
        link.fin(number)
        await current_loop().settle()
        events = host.events()
        link.send_data(2, proposal(PUSH_PROTOCOL), SYN)
        link.send_data(2, b"".join(encode(Identify(protocols=(OTHER,)))))
        await current_loop().settle()
        assert connection.identify is not None
        assert connection.identify.protocols == (ECHO,)  # it ends with its stream
        link.fin(2)
        event = await anext(events)
        assert isinstance(event, PeerIdentified)
        assert (event.identify.agent_version, event.identify.protocols) == ("raw", (OTHER,))


@pytest.mark.conforms("I8")
async def test_a_push_that_never_ends_is_given_up_at_identify() -> None:
    async with sim_host("ours") as host, raw_peer(initiating()) as peer:
        link = await peer.dial(host.addresses[0])
        link.send_data(1, proposal(PUSH_PROTOCOL), SYN)
        await current_loop().pass_time(6)
        assert link.flagged(1, RST) == [5 * NS]
        assert host.connections[0].ended is None


@pytest.mark.parametrize(
    "answer",
    [b"\xff\xff\xff\xff\xff", b"\x05hello", b"\x00"],
    ids=["no varint", "no protobuf", "empty"],
)
async def test_an_answer_that_is_no_identify_message_is_an_error_of_identify_alone(answer: bytes) -> None:
    async with against_raw() as (host, link, connection):
        number = await link.stream_for(PROTOCOL)
        asking = current_loop().create_task(host.identify(connection.peer_id))
        link.send_data(number, proposal(PROTOCOL) + answer)
        link.fin(number)
        if answer == b"\x00":
            assert (await asking).protocols == ()
            return
        with pytest.raises(RemoteProtocolError) as caught:
            await asking
        assert (caught.value.protocol, caught.value.stage) == ("identify", "identify")
        assert connection.ended is None
        assert connection.identify is None


async def test_an_answer_that_is_too_long_is_refused_and_counted() -> None:
    async with against_raw() as (host, link, connection):
        number = await link.stream_for(PROTOCOL)
        asking = current_loop().create_task(host.identify(connection.peer_id))
        link.send_data(number, proposal(PROTOCOL) + b"\xff\x7f" + bytes(16383))
        with pytest.raises(LimitError) as caught:
            await asking
        assert (caught.value.limit, caught.value.stage) == ("identify_bytes", "identify")
        assert reached(host.refusals) == {"identify_bytes": 1}
        assert connection.ended is None


async def test_a_peer_that_claims_the_key_of_another_is_not_believed() -> None:
    async with against_raw() as (host, link, connection), raw_peer(name="other") as other:
        number = await link.stream_for(PROTOCOL)
        asking = current_loop().create_task(host.identify(connection.peer_id))
        lie = b"".join(encode(Identify(public_key=other.key.public, protocols=(ECHO,))))
        link.send_data(number, proposal(PROTOCOL) + lie)
        link.fin(number)
        try:
            known = await asking
        except RemoteProtocolError:
            return
        assert known.public_key in (None, link.peer.key.public)


async def test_a_peer_without_identify_refuses() -> None:
    async with against_raw() as (host, link, connection):
        asking = current_loop().create_task(host.identify(connection.peer_id))
        link.refuse(await link.stream_for(PROTOCOL))
        with pytest.raises(NegotiationError):
            await asking


async def test_a_peer_that_resets_the_question_is_asked_again_when_somebody_wants_to_know() -> None:
    async with against_raw() as (host, link, connection):
        first = await link.stream_for(PROTOCOL)
        link.rst(first)
        await current_loop().settle()
        asking = [current_loop().create_task(host.identify(connection.peer_id)) for _ in range(3)]
        await current_loop().settle()
        second = await link.stream_for(PROTOCOL)
        assert second != first
        link.rst(second)
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(result) for result in results] == [StreamResetError] * 3


async def test_who_waits_is_told_when_the_connection_ends() -> None:
    async with against_raw() as (host, link, connection):
        asking = current_loop().create_task(host.identify(connection.peer_id))
        await current_loop().settle()
        link.transport.abort()
        with pytest.raises(ConnectionEndedError):
            await asking
        assert host._identifier._queries == {}
        assert host._identifier._failures == {}


async def test_the_end_of_the_connection_is_not_put_down_to_identify() -> None:
    async with against_raw() as (_, link, connection):
        link.transport.abort()
        await current_loop().settle()
        assert connection.ended is not None
        assert connection.ended.stage != "identify"


async def test_one_who_gives_up_leaves_the_question_to_the_others() -> None:
    async with against_raw() as (host, link, connection):
        asking = [current_loop().create_task(host.identify(connection.peer_id)) for _ in range(2)]
        await current_loop().settle()
        asking[0].cancel()
        number = await link.stream_for(PROTOCOL)
        link.send_data(number, proposal(PROTOCOL) + said(link))
        link.fin(number)
        assert (await asking[1]).agent_version == "raw"


@pytest.mark.conforms("I1")
async def test_the_answer_to_a_peer_is_closed_behind_it() -> None:
    async with sim_host("ours") as host, raw_peer(initiating()) as peer:
        link = await peer.dial(host.addresses[0])
        link.send_data(1, proposal(PROTOCOL), SYN)
        await current_loop().settle()
        assert len(link.sent_on(1)) > len(proposal(PROTOCOL)) + 100
        assert link.flagged(1, FIN) == [0]
        await current_loop().pass_time(11)
        assert host.connections[0].streams == host.connections[0].tombstones == []


async def test_a_broken_push_resets_its_stream_and_keeps_what_was_known() -> None:
    async with two_hosts() as (alice, bob, connection):
        known = connection.identify
        events = alice.events()
        stream = await bob.open_stream(alice.peer_id, PUSH_PROTOCOL)
        await stream.write(b"\xff\xff\xff\xff\xff\xff")
        stream.close_write()
        event = await anext(events)
        assert isinstance(event, HandlerFailed)
        assert connection.identify is known
        assert connection.ended is None
        stream.reset()


async def test_more_addresses_than_the_limit_are_not_kept() -> None:
    async with two_hosts(limits=Limits(identify_protocols=2)) as (alice, bob, _connection):
        known = await alice.identify(bob.peer_id)
        assert len(known.protocols) == 2


async def test_identify_takes_one_round_trip_after_the_connection() -> None:
    current_net().set_link(Link(latency=0.05))
    async with sim_host("alice", timeouts=Timeouts()) as alice, sim_host("bob") as bob:
        await alice.connect(bob.addresses[0])
        await alice.identify(bob.peer_id)
        assert current_loop().time_ns() == 3 * NS // 10
