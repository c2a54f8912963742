"""Host: what it learns of peers, for how long it knows it, and what it does with that."""

from __future__ import annotations

import pytest

from aiolibp2p import Connection, Host, Limits, Multiaddr, PeerId, Timeouts
from aiolibp2p.errors import DialError, LimitError, LocalProtocolError, NegotiationError
from aiolibp2p.net.known import KnownPeer, Source
from aiolibp2p.net.peerstore import Peerstore
from aiolibp2p.runtime import LoopClock
from aiolibp2p.sim import current_loop
from aiolibp2p.version import AGENT
from tests.support.hosts import ECHO, OTHER, raw_peer, sim_host, two_hosts
from tests.support.peers import address_of, peer_of

TIMES = Timeouts()


def known_of(host: Host, peer_id: PeerId) -> KnownPeer:
    known = host.peerstore.info(peer_id)
    assert known is not None
    return known


def sources(host: Host, peer_id: PeerId) -> dict[str, Source]:
    return {str(entry.address): entry.source for entry in known_of(host, peer_id).addresses}


async def test_the_peerstore_is_there_while_the_host_is() -> None:
    host = sim_host("ours")
    with pytest.raises(LocalProtocolError):
        host.peerstore  # noqa: B018  it raises
    async with host:
        assert host.peerstore.peers() == []


async def test_both_sides_learn_what_the_other_signed_and_the_dialler_where_it_answered() -> None:
    async with two_hosts() as (alice, bob, _):
        listens, from_here = str(bob.addresses[0].without_peer_id()), str(alice.addresses[0].without_peer_id())
        assert sources(alice, bob.peer_id) == {listens: Source.DIALLED}
        assert sources(bob, alice.peer_id) == {from_here: Source.SIGNED}
        known = known_of(bob, alice.peer_id)
        assert known.connected
        assert set(known.protocols) == set(alice.protocols())
        assert (known.agent, known.public_key) == (AGENT, alice.key.public)


async def test_addresses_begin_to_expire_when_the_last_connection_has_ended() -> None:
    async with two_hosts() as (alice, bob, _):
        await current_loop().pass_time(TIMES.recent_address * 2)
        assert bob.peerstore.addresses(alice.peer_id)
        await alice.disconnect(bob.peer_id)
        await current_loop().settle()
        assert not known_of(bob, alice.peer_id).connected
        assert known_of(bob, alice.peer_id).addresses[0].seconds_left == TIMES.recent_address
        await current_loop().pass_time(TIMES.recent_address)
        assert bob.peerstore.addresses(alice.peer_id) == []
        assert alice.peerstore.addresses(bob.peer_id) == [bob.addresses[0].without_peer_id()]
        assert (await alice.connect(bob.peer_id)).peer_id == bob.peer_id


async def test_a_peer_that_dialled_us_can_be_dialled_back() -> None:
    async with two_hosts() as (alice, bob, _):
        await alice.disconnect(bob.peer_id)
        await current_loop().settle()
        connection = await bob.connect(alice.peer_id)
        assert connection.direction == "outbound"


async def test_a_peer_whose_address_the_user_gave_is_reached_by_its_id() -> None:
    async with sim_host("ours") as host, raw_peer() as peer:
        with pytest.raises(DialError):
            await host.connect(peer.peer_id)
        host.peerstore.add_addresses(peer.peer_id, [Multiaddr(peer.address)], source=Source.GIVEN)
        assert (await host.connect(peer.peer_id)).peer_id == peer.peer_id


async def test_a_peerstore_of_the_callers_outlives_the_host() -> None:
    peerstore = Peerstore(LoopClock(current_loop()))
    async with sim_host("bob") as bob:
        async with sim_host("alice", peerstore=peerstore) as alice:
            assert alice.peerstore is peerstore
            await alice.connect(bob.addresses[0])
        assert not peerstore.info(bob.peer_id).connected  # type: ignore[union-attr]  # it was met
        async with sim_host("carol", peerstore=peerstore) as carol:
            assert (await carol.connect(bob.peer_id)).peer_id == bob.peer_id


async def test_what_a_peer_refuses_is_not_remembered_as_spoken() -> None:
    async with two_hosts() as (alice, bob, connection):
        alice.peerstore.set_protocols(bob.peer_id, [ECHO, OTHER])
        stream = await connection.open_stream(ECHO)
        with pytest.raises(NegotiationError):
            await stream.read()
        await alice.disconnect(bob.peer_id)
        assert alice.peerstore.protocols(bob.peer_id) == (OTHER,)


async def test_of_several_protocols_none_is_taken_for_spoken_on_the_strength_of_an_earlier_connection() -> None:
    async def echo(_: object) -> None:
        """Take a stream and end it."""

    async with sim_host("alice") as alice, sim_host("bob") as bob:
        bob.handle(OTHER, echo)
        # An earlier version of the peer spoke both.
        alice.peerstore.set_protocols(bob.peer_id, [ECHO, OTHER])
        connection: Connection = await alice.connect(bob.addresses[0])
        assert connection.identify is None
        stream = await connection.open_stream(ECHO, OTHER)
        assert (stream.protocol, stream.handshake) == (OTHER, "answered")


async def test_peers_that_make_room_are_counted_and_those_given_beyond_the_limit_refused() -> None:
    async with sim_host("ours", limits=Limits(peers_remembered=2)) as host:
        for number in range(5):
            host.peerstore.add_addresses(peer_of(number), [address_of(number)], source=Source.FOUND)
        assert host.refusals["peers_remembered"] == 3
        for number in range(2):
            host.peerstore.add_addresses(peer_of(number), [address_of(number)], source=Source.GIVEN)
        with pytest.raises(LimitError):
            host.peerstore.add_addresses(peer_of(2), [address_of(2)], source=Source.GIVEN)
