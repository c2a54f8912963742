"""Sessions and wantlists together."""

from __future__ import annotations

import math

import pytest

from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.bitswap.client import Client
from aiolibp2p.sansio.bitswap.message import Message, Presence
from tests.unit.sansio.bitswap.wire import cid, cid_v0, multihash

REPAIR = Timeouts().bitswap_repair


def client_of(*peers: str) -> Client[str]:
    client: Client[str] = Client(Limits(), Timeouts())
    for peer in peers:
        client.connected(peer)
    return client


def told(client: Client[str], peer: str, now: float = 0.0) -> Message:
    """Write what a peer is to be told; return it."""
    assert peer in client.peers_to_write()
    message = client.message_to_send(peer, now)
    assert message is not None
    client.message_sent(peer, now)
    return message


def test_a_block_goes_to_every_session_that_wants_it_by_its_own_cid() -> None:
    client = client_of("a")
    one, two = client.session(["a"], 0.0), client.session(["a"], 0.0)
    one.want([cid(1)], 0.0)
    two.want([cid_v0(1)], 0.0)
    assert len(told(client, "a").entries) == 2
    assert client.wanted(multihash(1))
    assert client.received_block("a", multihash(1), 10, 0.0) == [(one, cid(1)), (two, cid_v0(1))]
    assert not client.wanted(multihash(1))
    assert client.message_to_send("a", 0.0) is None
    assert client.peers_to_write() == []


def test_one_of_two_getters_that_gives_up_does_not_strand_the_other() -> None:
    """T13: the want stays with the peer, and no cancel is sent."""
    client = client_of("a")
    one, two = client.session(["a"], 0.0), client.session(["a"], 0.0)
    for session in (one, two):
        session.want([cid(1)], 0.0)
    told(client, "a")
    client.close(one, 0.0)
    client.close(one, 0.0)
    assert client.message_to_send("a", 0.0) is None
    assert client.received_block("a", multihash(1), 10, 0.0) == [(two, cid(1))]


def test_blocks_that_nobody_wants_are_counted() -> None:
    client = client_of("a")
    session = client.session(["a"], 0.0)
    session.want([cid(1)], 0.0)
    client.received_block("a", multihash(1), 10, 0.0)
    assert client.received_block("a", multihash(1), 10, 0.0) == []
    assert client.received_block("a", multihash(2), 5, 0.0) == []
    received = client.received
    assert (received.blocks, received.block_bytes) == (1, 10)
    assert (received.duplicates, received.duplicate_bytes) == (2, 15)


def test_presences_reach_the_sessions_and_are_counted() -> None:
    client = client_of("a", "b")
    session = client.session(["a", "b", "unknown"], 0.0)
    session.want([cid(1)], 0.0)
    told(client, "a")
    told(client, "b")
    client.received_presences("b", [Presence(cid(1), True), Presence(cid(9), False)], 0.0)
    client.received_presences("a", [Presence(cid(1), False)], 0.0)
    message = told(client, "b")
    assert [(entry.cid, entry.want_have) for entry in message.entries] == [(cid(1), False)]
    assert (client.received.haves, client.received.dont_haves) == (1, 2)


def test_a_disconnected_peer_is_left_out_and_can_come_back() -> None:
    client = client_of("a")
    session = client.session(["a"], 0.0)
    session.want([cid(1)], 0.0)
    client.disconnected("a", 0.0)
    client.disconnected("a", 0.0)
    assert session.exhausted() == [cid(1)]
    assert client.peers_to_write() == []
    assert client.message_to_send("a", 0.0) is None
    client.message_sent("a", 0.0)
    client.stream_ended("a")
    client.connected("a")
    assert client.add_peer(session, "a", 0.0)
    assert not client.add_peer(session, "b", 0.0)
    assert told(client, "a").full


def test_a_stream_that_ended_is_followed_by_one_that_tells_everything() -> None:
    client = client_of("a")
    session = client.session(["a"], 0.0)
    session.want([cid(1), cid(2)], 0.0)
    told(client, "a")
    client.received_block("a", multihash(1), 5, 0.0)
    client.stream_ended("a")
    message = told(client, "a")
    assert message.full
    assert [entry.cid for entry in message.entries] == [cid(2)]


def test_a_want_without_an_answer_is_told_again_within_the_repair_time_and_a_half() -> None:
    client = client_of("a")
    session = client.session(["a"], 0.0)
    session.want([cid(1)], 0.0)
    told(client, "a")
    now = 0.0
    while not client.peers_to_write():
        now = client.next_timeout()
        client.handle_timeout(now)
    assert REPAIR <= now <= REPAIR * 1.5
    assert [entry.cid for entry in told(client, "a", now).entries] == [cid(1)]


def test_where_nothing_is_wanted_no_timer_runs() -> None:
    client = client_of("a")
    assert client.next_timeout() == math.inf
    session = client.session(["a"], 0.0)
    session.want([cid(1)], 0.0)
    told(client, "a")
    client.received_bytes("a", 1, 0.0)
    client.received_block("a", multihash(1), 5, 0.0)
    client.handle_timeout(client.next_timeout())
    assert client.next_timeout() == math.inf
    client.close(session, 0.0)
    assert not client._interest


def test_an_old_peer_is_told_no_want_have() -> None:
    client: Client[str] = Client(Limits(), Timeouts())
    client.connected("a", supports_have=False)
    client.connected("b", supports_have=False)
    session = client.session(["a", "b"], 0.0)
    session.want([cid(1)], 0.0)
    assert client.peers_to_write() == ["a"]


@pytest.mark.parametrize("first_stays", [True, False])
def test_a_peer_that_said_dont_have_is_asked_again_for_whoever_wants_it_next(first_stays: bool) -> None:
    client = client_of("a")
    one, two = client.session(["a"], 0.0), client.session(["a"], 0.0)
    one.want([cid(1)], 0.0)
    told(client, "a")
    client.received_presences("a", [Presence(cid(1), False)], 0.0)
    assert one.exhausted() == [cid(1)]
    if not first_stays:
        one.unwant([cid(1)], 0.0)
    two.want([cid(1)], 0.0)
    # One that believes it answered needs the cancel.
    for cancel in (True, False):
        assert [(entry.cid, entry.cancel) for entry in told(client, "a").entries] == [(cid(1), cancel)]
    assert client.peers_to_write() == []
    assert two.exhausted() == []
    client.received_presences("a", [Presence(cid(1), False)], 0.0)
    assert two.exhausted() == [cid(1)]


def test_nothing_is_told_again_while_a_slow_peer_is_sending() -> None:
    client = client_of("a")
    session = client.session(["a"], 0.0)
    session.want([cid(1), cid(2)], 0.0)
    told(client, "a")
    for now in range(0, 10 * round(REPAIR), 20):
        client.received_bytes("a", 1000, now)
        client.handle_timeout(now)
        assert client.peers_to_write() == []
    client.received_block("a", multihash(1), 10, now)
    client.handle_timeout(now + REPAIR - 1)
    assert client.peers_to_write() == []
    client.handle_timeout(now + 2 * REPAIR)
    assert {entry.cid for entry in told(client, "a", now + 2 * REPAIR).entries} == {cid(2)}


def test_a_session_asks_when_another_one_has_left_it_room() -> None:
    client: Client[str] = Client(Limits(bitswap_window_wants=2), Timeouts())
    client.connected("a")
    one, two = client.session(["a"], 0.0), client.session(["a"], 0.0)
    one.want([cid(1), cid(2)], 0.0)
    two.want([cid(3)], 0.0)
    assert len(told(client, "a").entries) == 2
    client.close(one, 0.0)
    client.ask_queued(0.0)
    assert two.queued == 1  # the peer still remembers what it was told
    assert all(entry.cancel for entry in told(client, "a").entries)
    client.ask_queued(0.0)
    assert [entry.cid for entry in told(client, "a").entries] == [cid(3)]
