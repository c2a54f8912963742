"""The peerstore: what is known of peers, for how long, and what makes room."""

from __future__ import annotations

import errno
import math

import pytest

from aiolibp2p import Limits, Multiaddr, PeerId, PublicKey, Timeouts
from aiolibp2p.errors import (
    ConnectionEndedError,
    DeadlineError,
    InvalidValueError,
    LimitError,
    LocalProtocolError,
    PeerIdMismatchError,
)
from aiolibp2p.net.known import KnownPeer, Source
from aiolibp2p.net.peerstore import Peerstore
from tests.support.peers import ManualClock, address_of, key_of, peer_of, said_by

TIMES = Timeouts()
PEER, OTHER = peer_of(1), peer_of(2)
A, B, C, D = (address_of(number) for number in range(4))
PUBLIC = Multiaddr("/ip4/9.9.9.9/tcp/9")
REFUSED = ConnectionEndedError("connection refused", by="remote", stage="connect")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Peerstore:
    return Peerstore(clock)


def known_of(store: Peerstore, peer_id: PeerId = PEER) -> KnownPeer:
    known = store.info(peer_id)
    assert known is not None
    return known


# -- addresses and their time


def test_a_peer_of_whom_nothing_is_known_has_no_addresses(store: Peerstore) -> None:
    assert store.addresses(PEER) == []
    assert store.info(PEER) is None
    assert PEER not in store
    store.add_addresses(PEER, [], source=Source.GIVEN)
    store.forget(PEER)
    assert store.peers() == []


def test_the_best_source_comes_first_and_of_one_the_newest_news(store: Peerstore, clock: ManualClock) -> None:
    store.add_addresses(PEER, [A], source=Source.FOUND)
    clock.seconds += 1
    store.add_addresses(PEER, [B, C], source=Source.FOUND)
    store.add_addresses(PEER, [D], source=Source.IDENTIFIED)
    assert store.addresses(PEER) == [D, B, C, A]
    store.dial_succeeded(PEER, A)
    assert store.addresses(PEER) == [A, D, B, C]
    store.add_addresses(PEER, [C], source=Source.GIVEN)
    assert store.addresses(PEER) == [C, A, D, B]


@pytest.mark.parametrize(
    ("source", "seconds"),
    [
        (Source.GIVEN, math.inf),
        (Source.DIALLED, TIMES.dialled_address),
        (Source.SIGNED, TIMES.recent_address),
        (Source.IDENTIFIED, TIMES.recent_address),
        (Source.FOUND, TIMES.found_address),
    ],
)
def test_an_address_expires_as_its_source_has_it(
    store: Peerstore, clock: ManualClock, source: Source, seconds: float
) -> None:
    store.add_addresses(PEER, [A], source=source)
    assert known_of(store).addresses[0].seconds_left == seconds
    clock.seconds += min(seconds, 1e12) - 1e-3
    assert store.addresses(PEER) == [A]
    clock.seconds += 1
    assert store.addresses(PEER) == ([A] if source is Source.GIVEN else [])


def test_a_time_of_the_callers_is_kept_and_never_shortened_by_a_later_word(
    store: Peerstore, clock: ManualClock
) -> None:
    store.add_addresses(PEER, [A], source=Source.FOUND, ttl_seconds=100)
    store.add_addresses(PEER, [A], source=Source.FOUND, ttl_seconds=10)
    clock.seconds += 99
    assert store.addresses(PEER) == [A]
    clock.seconds += 1
    assert store.addresses(PEER) == []


def test_a_worse_source_takes_nothing_from_what_is_known_better(store: Peerstore) -> None:
    store.dial_succeeded(PEER, A)
    store.add_addresses(PEER, [A], source=Source.FOUND)
    assert known_of(store).addresses[0].source is Source.DIALLED


def test_what_a_peer_said_stays_while_it_is_connected_and_expires_after_its_last_connection(
    store: Peerstore, clock: ManualClock
) -> None:
    store.connected(PEER)
    store.connected(PEER)
    store.identified(PEER, said_by(1, A), PUBLIC)
    store.dial_succeeded(PEER, B)
    store.add_addresses(PEER, [C], source=Source.FOUND)
    clock.seconds += 30 * 86400
    assert store.addresses(PEER) == [B, A]
    store.disconnected(PEER)
    clock.seconds += 30 * 86400
    assert store.addresses(PEER) == [B, A]
    store.disconnected(PEER)
    clock.seconds += TIMES.recent_address - 1
    assert store.addresses(PEER) == [B, A]
    clock.seconds += 1
    assert store.addresses(PEER) == [B]
    clock.seconds += TIMES.dialled_address - TIMES.recent_address
    assert store.addresses(PEER) == []


def test_addresses_are_kept_without_the_id_of_their_peer(store: Peerstore) -> None:
    store.add_addresses(PEER, [A.with_peer_id(PEER), A], source=Source.FOUND)
    assert store.addresses(PEER) == [A]


def test_an_address_that_names_another_peer_is_the_users_mistake_and_else_left_out(store: Peerstore) -> None:
    strange, bare = A.with_peer_id(OTHER), Multiaddr(f"/p2p/{PEER}")
    store.add_addresses(PEER, [strange, bare, B], source=Source.FOUND)
    assert store.addresses(PEER) == [B]
    for address in (strange, bare):
        with pytest.raises(InvalidValueError):
            store.add_addresses(PEER, [C, address], source=Source.GIVEN)
    assert store.addresses(PEER) == [B]


# -- what a peer says of itself


@pytest.mark.conforms("E2", "I6")
def test_a_newer_record_replaces_what_the_last_one_said_and_an_older_one_is_ignored(store: Peerstore) -> None:
    store.identified(PEER, said_by(1, A, B, seq=5), PUBLIC)
    store.identified(PEER, said_by(1, C, seq=4), PUBLIC)
    assert store.addresses(PEER) == [A, B]
    store.identified(PEER, said_by(1, B, C, seq=6), PUBLIC)
    assert store.addresses(PEER) == [B, C]
    known = known_of(store)
    assert known.record_seq == 6
    assert {address.source for address in known.addresses} == {Source.SIGNED}


def test_an_unsigned_word_replaces_an_unsigned_one_and_leaves_the_signed(store: Peerstore, clock: ManualClock) -> None:
    store.identified(PEER, said_by(1, A, B), PUBLIC)
    clock.seconds += 1
    store.identified(PEER, said_by(1, B, C), PUBLIC)
    assert store.addresses(PEER) == [B, C]
    store.identified(PEER, said_by(1, C, seq=1), PUBLIC)
    assert store.addresses(PEER) == [C]
    store.identified(PEER, said_by(1, D), PUBLIC)
    assert store.addresses(PEER) == [C, D]


def test_a_record_evicts_what_the_peer_said_and_nothing_that_it_did_not_say(store: Peerstore) -> None:
    store.add_addresses(PEER, [A], source=Source.GIVEN)
    store.add_addresses(PEER, [B], source=Source.FOUND)
    store.dial_succeeded(PEER, C)
    store.identified(PEER, said_by(1, A, D, seq=1), PUBLIC)
    store.dial_succeeded(PEER, D)
    store.identified(PEER, said_by(1, seq=2), PUBLIC)
    # Where it was reached behind a forwarded port it never says; D it takes back.
    assert set(store.addresses(PEER)) == {A, B, C}


def test_a_record_counts_again_from_any_number_when_the_addresses_of_the_last_are_gone(
    store: Peerstore, clock: ManualClock
) -> None:
    store.identified(PEER, said_by(1, A, seq=9), PUBLIC)
    clock.seconds += TIMES.recent_address
    store.connected(PEER)
    store.disconnected(PEER)
    store.identified(PEER, said_by(1, B, seq=3), PUBLIC)
    assert store.addresses(PEER) == [B]


@pytest.mark.conforms("I7")
def test_private_addresses_of_a_public_peer_are_ignored_and_not_taken_for_withdrawn(store: Peerstore) -> None:
    private = Multiaddr("/ip4/192.168.1.7/tcp/4001")
    store.identified(PEER, said_by(1, A, private, seq=1), PUBLIC)
    assert store.addresses(PEER) == [A]
    store.identified(PEER, said_by(1, A, private, seq=1), Multiaddr("/ip4/192.168.1.9/tcp/7"))
    assert store.addresses(PEER) == [A, private]
    store.identified(PEER, said_by(1, A, private, seq=1), PUBLIC)
    assert store.addresses(PEER) == [A, private]


def test_protocols_agent_and_time_are_remembered_after_the_connection(store: Peerstore, clock: ManualClock) -> None:
    store.connected(PEER)
    assert known_of(store).connected
    store.identified(PEER, said_by(1, A, protocols=("/x", "/y"), agent_version="z/1"), PUBLIC)
    clock.seconds += 5
    store.disconnected(PEER)
    known = known_of(store)
    assert (known.protocols, known.agent, known.connected) == (("/x", "/y"), "z/1", False)
    assert known.last_seen == clock.wall()
    assert store.protocols(PEER) == ("/x", "/y")
    store.set_protocols(PEER, ["/y"])
    assert store.protocols(PEER) == ("/y",)
    assert store.protocols(OTHER) == ()


def test_no_more_protocols_are_kept_than_the_limit(clock: ManualClock) -> None:
    store = Peerstore(clock, limits=Limits(identify_protocols=2))
    store.set_protocols(PEER, ["/1", "/2", "/3"])
    assert store.protocols(PEER) == ("/1", "/2")


def test_a_key_is_in_the_id_or_remembered_when_it_is_the_peers_own(store: Peerstore) -> None:
    assert store.public_key(PEER) == key_of(1).public
    with pytest.raises(InvalidValueError):
        store.add_public_key(PEER, key_of(2).public)
    store.add_public_key(PEER, key_of(1).public)
    assert store.peers() == []  # nothing had to be remembered
    hashed, key = hashed_peer()
    assert store.public_key(hashed) is None
    store.add_public_key(hashed, key)
    assert store.public_key(hashed) == key


def hashed_peer() -> tuple[PeerId, PublicKey]:
    """Return a peer whose ID holds only a hash, and its key."""
    key = PublicKey.from_bytes(
        bytes.fromhex(
            "080012a60430820222300d06092a864886f70d01010105000382020f003082020a0282020100e1beab071d08200bde24eef00d049449b07770ff9910257b2d7d5dda242ce8f0e2f12e1af4b32d9efd2c090f66b0f29986dbb645dae9880089704a94e5066d594162ae6ee8892e6ec70701db0a6c445c04778eb3de1293aa1a23c3825b85c6620a2bc3f82f9b0c309bc0ab3aeb1873282bebd3da03c33e76c21e9beb172fd44c9e43be32e2c99827033cf8d0f0c606f4579326c930eb4e854395ad941256542c793902185153c474bed109d6ff5141ebf9cd256cf58893a37f83729f97e7cb435ec679d2e33901d27bb35aa0d7e20561da08885ef0abbf8e2fb48d6a5487047a9ecb1ad41fa7ed84f6e3e8ecd5d98b3982d2a901b4454991766da295ab78822add5612a2df83bcee814cf50973e80d7ef38111b1bd87da2ae92438a2c8cbcc70b31ee319939a3b9c761dbc13b5c086d6b64bf7ae7dacc14622375d92a8ff9af7eb962162bbddebf90acb32adb5e4e4029f1c96019949ecfbfeffd7ac1e3fbcc6b6168c34be3d5a2e5999fcbb39bba7adbca78eab09b9bc39f7fa4b93411f4cc175e70c0a083e96bfaefb04a9580b4753c1738a6a760ae1afd851a1a4bdad231cf56e9284d832483df215a46c1c21bdf0c6cfe951c18f1ee4078c79c13d63edb6e14feaeffabc90ad317e4875fe648101b0864097e998f0ca3025ef9638cd2b0caecd3770ab54a1d9c6ca959b0f5dcbc90caeefc4135baca6fd475224269bbe1b0203010001"
        )
    )
    return key.peer_id, key


def test_a_peer_can_be_forgotten_even_while_it_is_connected(store: Peerstore) -> None:
    store.connected(PEER)
    store.identified(PEER, said_by(1, A, protocols=("/x",)), PUBLIC)
    store.dial_failed(PEER, A, REFUSED)
    store.forget(PEER)
    known = known_of(store)
    assert (known.addresses, known.protocols, known.connected) == ((), (), True)
    assert store.backing_off(A) == 0.0
    store.disconnected(PEER)
    store.forget(PEER)
    assert store.info(PEER) is None


# -- back-off


def test_an_address_backs_off_longer_each_time_and_a_success_ends_it(store: Peerstore, clock: ManualClock) -> None:
    waits = []
    for _ in range(4):
        store.dial_failed(PEER, A, REFUSED)
        waits.append(store.backing_off(A))
        clock.seconds += waits[-1]
        assert store.backing_off(A) == 0.0
    assert waits == [5.0, 6.0, 9.0, 14.0]
    store.dial_failed(PEER, A.with_peer_id(PEER), REFUSED)
    assert store.backing_off(A.with_peer_id(PEER)) == store.backing_off(A) > 0
    assert store.backing_off(B) == 0.0
    store.dial_succeeded(PEER, A)
    assert store.backing_off(A) == 0.0
    store.dial_failed(PEER, A, REFUSED)
    assert store.backing_off(A) == 5.0


def test_back_off_has_a_longest_time_and_is_forgotten_after_as_long_again(store: Peerstore, clock: ManualClock) -> None:
    for _ in range(30):
        store.dial_failed(None, A, DeadlineError("dial_address", 15.0))
    assert store.backing_off(A) == TIMES.dial_backoff_max
    clock.seconds += 2 * TIMES.dial_backoff_max
    store.dial_failed(None, A, REFUSED)
    assert store.backing_off(A) == TIMES.dial_backoff


def test_an_address_that_is_only_a_peers_name_backs_off_like_any_other(store: Peerstore) -> None:
    name = Multiaddr(f"/p2p/{PEER}")
    store.dial_failed(PEER, name, REFUSED)
    assert store.backing_off(name) == TIMES.dial_backoff


def test_an_address_in_back_off_is_still_known(store: Peerstore) -> None:
    store.add_addresses(PEER, [A], source=Source.FOUND)
    store.dial_failed(PEER, A, REFUSED)
    assert store.addresses(PEER) == [A]
    assert known_of(store).addresses[0].backing_off == TIMES.dial_backoff


def test_a_peer_that_connects_is_alive_and_none_of_its_addresses_backs_off(store: Peerstore) -> None:
    store.add_addresses(PEER, [A], source=Source.FOUND)
    for address in (A, B):
        store.dial_failed(PEER, address, REFUSED)
    store.connected(PEER)
    assert (store.backing_off(A), store.backing_off(B)) == (0.0, TIMES.dial_backoff)


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (LocalProtocolError("no transport"), None),
        (LimitError("connections"), None),
        (ConnectionEndedError("the dial was given up", by="local"), None),
        (ConnectionEndedError("network is unreachable", by="remote"), errno.ENETUNREACH),
        (ConnectionEndedError("too many open files", by="remote"), errno.EMFILE),
    ],
)
def test_a_fault_of_ours_is_not_held_against_an_address(store: Peerstore, error: Exception, number: int | None) -> None:
    if number is not None:
        error.__cause__ = OSError(number, "as the system says")
    store.dial_failed(PEER, A, error)
    assert store.backing_off(A) == 0.0


def test_where_another_peer_answers_the_address_is_forgotten_and_not_blamed_on_its_owner(store: Peerstore) -> None:
    store.add_addresses(PEER, [A], source=Source.FOUND)
    store.add_addresses(OTHER, [A], source=Source.FOUND)
    store.dial_failed(PEER, A, PeerIdMismatchError(str(PEER), str(OTHER)))
    assert (store.addresses(PEER), store.addresses(OTHER)) == ([], [A])
    assert store.backing_off(A, OTHER) == 0.0
    # What the user gives is not forgotten: for that peer alone it backs off.
    store.add_addresses(PEER, [A], source=Source.GIVEN)
    store.dial_failed(PEER, A, PeerIdMismatchError(str(PEER), str(OTHER)))
    assert store.addresses(PEER) == [A]
    assert (store.backing_off(A), store.backing_off(A, OTHER)) == (0.0, 0.0)
    assert store.backing_off(A, PEER) == TIMES.dial_backoff
    store.dial_succeeded(PEER, A)
    assert store.backing_off(A, PEER) == 0.0


def test_no_more_back_offs_are_kept_than_the_limit(clock: ManualClock) -> None:
    store = Peerstore(clock, limits=Limits(addresses_remembered=2))
    dropped: list[str] = []
    store.refused = lambda limit, count=1, /: dropped.extend([limit] * count)
    for address in (A, B, C):
        store.dial_failed(None, address, REFUSED)
    assert dropped == ["addresses_remembered"]
    assert [store.backing_off(address) > 0 for address in (A, B, C)] == [False, True, True]


# -- bounds


def test_the_address_that_is_worth_least_makes_room_for_another_of_its_peer(clock: ManualClock) -> None:
    store = Peerstore(clock, limits=Limits(identify_addresses=3))
    store.add_addresses(PEER, [A, B, C, D], source=Source.FOUND)
    assert store.addresses(PEER) == [A, B, C]  # of one list, the first
    clock.seconds += 1
    store.add_addresses(PEER, [B], source=Source.SIGNED)
    store.add_addresses(PEER, [D], source=Source.FOUND)
    assert store.addresses(PEER) == [B, D, C]
    store.dial_succeeded(PEER, A)
    store.dial_succeeded(PEER, C)
    assert store.addresses(PEER) == [A, C, B]
    store.add_addresses(PEER, [D], source=Source.IDENTIFIED)
    assert store.addresses(PEER) == [A, C, B]
    clock.seconds += TIMES.found_address
    store.add_addresses(PEER, [D], source=Source.FOUND)
    assert store.addresses(PEER) == [A, C, D]


def test_more_addresses_than_a_peer_may_have_are_refused_to_the_user(clock: ManualClock) -> None:
    store = Peerstore(clock, limits=Limits(identify_addresses=2))
    store.add_addresses(PEER, [A], source=Source.GIVEN)
    with pytest.raises(LimitError) as caught:
        store.add_addresses(PEER, [B, C], source=Source.GIVEN)
    assert caught.value.limit == "identify_addresses"
    assert store.addresses(PEER) == [A]


def test_strangers_go_before_those_we_met_and_the_oldest_news_first(clock: ManualClock) -> None:
    store = Peerstore(clock, limits=Limits(peers_remembered=8))
    met = [peer_of(number) for number in range(10, 16)]
    for peer_id in met:
        store.dial_succeeded(peer_id, A)
    strangers = [peer_of(number) for number in range(20, 30)]
    for peer_id in strangers:
        store.add_addresses(peer_id, [B], source=Source.FOUND)
    assert store.peers() == [*met, *strangers[-2:]]
    # A quarter is left to strangers: the next we meet pushes out the one met longest ago.
    store.dial_succeeded(met[0], A)
    store.dial_succeeded(peer_of(16), A)
    assert set(store.peers()) == {*met[:1], *met[2:], peer_of(16), *strangers[-2:]}


def test_inbound_peers_under_many_names_push_out_nobody_that_we_met(clock: ManualClock) -> None:
    store = Peerstore(clock, limits=Limits(peers_remembered=8))
    met = [peer_of(number) for number in range(10, 16)]
    for peer_id in met:
        store.dial_succeeded(peer_id, A)
    for number in range(100, 200):
        store.connected(peer_of(number))
        store.identified(peer_of(number), said_by(number, B), PUBLIC)
        store.disconnected(peer_of(number))
    assert set(met) <= set(store.peers())
    assert len(store.peers()) == 8


def test_a_connected_peer_stays_however_many_others_are_heard_of(clock: ManualClock) -> None:
    store = Peerstore(clock, limits=Limits(peers_remembered=2))
    store.connected(PEER)
    store.identified(PEER, said_by(1, A), PUBLIC)
    for number in range(10, 20):
        store.add_addresses(peer_of(number), [B], source=Source.FOUND)
    assert store.peers() == [PEER, peer_of(18), peer_of(19)]


def test_peers_that_the_user_gave_stay_and_more_than_may_be_kept_are_refused(clock: ManualClock) -> None:
    store = Peerstore(clock, limits=Limits(peers_remembered=2))
    store.add_addresses(PEER, [A], source=Source.GIVEN)
    store.add_addresses(OTHER, [A], source=Source.GIVEN)
    for number in range(10, 20):
        store.dial_succeeded(peer_of(number), B)
    assert store.peers() == [PEER, OTHER]
    with pytest.raises(LimitError) as caught:
        store.add_addresses(peer_of(3), [A], source=Source.GIVEN)
    assert caught.value.limit == "peers_remembered"
    store.add_addresses(PEER, [B], source=Source.GIVEN)
    store.forget(OTHER)
    store.add_addresses(peer_of(3), [A], source=Source.GIVEN)


def test_what_peers_take_in_memory_is_bounded_whatever_they_say(clock: ManualClock) -> None:
    limits = Limits(peerstore_bytes=100_000)
    store = Peerstore(clock, limits=limits)
    long = tuple(f"/{n}/".ljust(1000, "x") for n in range(20))
    for number in range(20):
        store.connected(peer_of(number))
        store.identified(peer_of(number), said_by(number, A, protocols=long), PUBLIC)
    assert len(store.peers()) == 20
    dropped: list[str] = []
    store.refused = lambda limit, count=1, /: dropped.extend([limit] * count)
    for number in range(20):
        store.disconnected(peer_of(number))
    assert dropped == ["peerstore_bytes"] * 16
    assert store.peers() == [peer_of(number) for number in range(16, 20)]


# -- others


def test_who_watches_hears_of_each_change_until_it_no_longer_does(clock: ManualClock) -> None:
    store = Peerstore(clock, limits=Limits(peers_remembered=1))
    heard: list[PeerId] = []
    stop = store.watch(heard.append)
    store.add_addresses(PEER, [A], source=Source.FOUND)
    assert heard == [PEER]
    store.add_addresses(OTHER, [A], source=Source.FOUND)
    assert set(heard) == {PEER, OTHER}
    heard.clear()
    store.forget(OTHER)
    assert heard == [OTHER]
    stop()
    store.connected(PEER)
    assert heard == [OTHER]


def test_what_one_store_knows_another_takes(store: Peerstore, clock: ManualClock) -> None:
    store.connected(PEER)
    store.dial_succeeded(PEER, B)
    store.identified(PEER, said_by(1, A, seq=7, protocols=("/x",), agent_version="z/1"), PUBLIC)
    store.add_addresses(PEER, [C], source=Source.FOUND, ttl_seconds=10)
    store.add_addresses(PEER, [D], source=Source.GIVEN)
    copy = Peerstore(clock)
    copy.restore(known_of(store))
    known = known_of(copy)
    assert (known.protocols, known.agent, known.record_seq, known.connected) == (("/x",), "z/1", 7, False)
    assert known.last_seen == known_of(store).last_seen
    assert copy.addresses(PEER) == store.addresses(PEER) == [D, B, A, C]
    clock.seconds += 10
    assert copy.addresses(PEER) == [D, B, A]
    copy.identified(PEER, said_by(1, C, seq=6), PUBLIC)
    assert copy.addresses(PEER) == [D, B, A]
    copy.identified(PEER, said_by(1, C, seq=8), PUBLIC)
    assert copy.addresses(PEER) == [D, B, C]
    copy.restore(KnownPeer(peer_id=PEER))
    assert copy.addresses(PEER) == [D, B, C]
