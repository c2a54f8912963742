"""The peerstore against a model that keeps everything in lists: what is known, for how long, and who makes room."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aiolibp2p import Limits, Multiaddr, PeerId, Timeouts
from aiolibp2p.errors import ConnectionEndedError, LimitError
from aiolibp2p.net.known import Source
from aiolibp2p.net.peerstore import Peerstore
from tests.support.peers import ManualClock, address_of, peer_of, said_by

LIMITS = Limits(peers_remembered=8, identify_addresses=4, addresses_remembered=6)
TIMES = Timeouts()
PUBLIC = Multiaddr("/ip4/9.9.9.9/tcp/9")
REFUSED = ConnectionEndedError("connection refused", by="remote")

numbers = st.integers(0, 15)
lists = st.lists(st.integers(0, 5).map(address_of), max_size=3, unique=True)


@dataclass
class Model:
    """A peer as it is to be known."""

    connections: int = 0
    reached: bool = False
    given: set[Multiaddr] = field(default_factory=set)


class Machine(RuleBasedStateMachine):
    """Anything may happen in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.store = Peerstore(self.clock, limits=LIMITS, timeouts=TIMES)
        self.models: dict[PeerId, Model] = {}
        """In the order of their news, the oldest first."""
        self.failures: dict[Multiaddr, tuple[int, float]] = {}
        """Of addresses, oldest first: how often in a row, and until when."""

    def news(self, peer_id: PeerId) -> Model:
        """Give a peer the newest news; one of those that are not connected makes room."""
        model = self.models.pop(peer_id) if peer_id in self.models else Model()
        self.models[peer_id] = model
        return model

    def make_room(self) -> None:
        while sum(not model.connections for model in self.models.values()) > LIMITS.peers_remembered:
            others = {id_: model for id_, model in self.models.items() if not model.connections and not model.given}
            strangers = [id_ for id_, model in others.items() if not model.reached]
            met = [id_ for id_, model in others.items() if model.reached]
            if not strangers and not met:
                return
            strangers_first = len(strangers) > LIMITS.peers_remembered // 4 or not met
            del self.models[(strangers if strangers_first else met)[0]]

    # -- what may happen

    @rule(number=numbers, addresses=lists)
    def found(self, number: int, addresses: list[Multiaddr]) -> None:
        self.store.add_addresses(peer_of(number), addresses, source=Source.FOUND)
        if addresses:
            self.news(peer_of(number))
            self.make_room()

    @rule(number=numbers, addresses=lists)
    def given(self, number: int, addresses: list[Multiaddr]) -> None:
        peer_id = peer_of(number)
        known = self.models.get(peer_id, Model()).given
        many = sum(bool(model.given) for model in self.models.values())
        try:
            self.store.add_addresses(peer_id, addresses, source=Source.GIVEN)
        except LimitError as error:
            if error.limit == "identify_addresses":
                assert len(known.union(addresses)) > LIMITS.identify_addresses
            else:
                assert not known
                assert many >= LIMITS.peers_remembered
            return
        assert len(known.union(addresses)) <= LIMITS.identify_addresses
        if addresses:
            self.news(peer_id).given.update(addresses)
            self.make_room()

    @rule(number=numbers, address=st.integers(0, 5).map(address_of))
    def dialled(self, number: int, address: Multiaddr) -> None:
        self.store.dial_succeeded(peer_of(number), address)
        self.news(peer_of(number)).reached = True
        self.failures.pop(address, None)
        self.make_room()

    @rule(number=numbers, address=st.integers(0, 9).map(address_of))
    def failed(self, number: int, address: Multiaddr) -> None:
        self.store.dial_failed(peer_of(number), address, REFUSED)
        now = self.clock.now()
        times, until = self.failures.pop(address, (0, now))
        if times and now >= until + seconds_of(times):
            times = 0
        self.failures[address] = (times + 1, now + seconds_of(times + 1))
        while len(self.failures) > LIMITS.addresses_remembered:
            del self.failures[next(iter(self.failures))]

    @rule(number=numbers)
    def connected(self, number: int) -> None:
        peer_id = peer_of(number)
        if not self.models.get(peer_id, Model()).connections:
            known = self.store.info(peer_id)
            for address in () if known is None else known.addresses:
                self.failures.pop(address.address, None)
        self.store.connected(peer_id)
        self.news(peer_id).connections += 1

    @rule(number=numbers, addresses=lists, seq=st.none() | st.integers(0, 3))
    def identified(self, number: int, addresses: list[Multiaddr], seq: int | None) -> None:
        peer_id = peer_of(number)
        if not self.models.get(peer_id, Model()).connections:
            return  # nobody says anything without a connection
        self.store.identified(peer_id, said_by(number, *addresses, seq=seq), PUBLIC)
        self.news(peer_id)

    @precondition(lambda self: any(model.connections for model in self.models.values()))
    @rule(data=st.data())
    def disconnected(self, data: st.DataObject) -> None:
        connected = [peer_id for peer_id, model in self.models.items() if model.connections]
        peer_id = data.draw(st.sampled_from(connected))
        self.store.disconnected(peer_id)
        self.news(peer_id).connections -= 1
        self.make_room()

    @rule(number=numbers)
    def forgotten(self, number: int) -> None:
        peer_id = peer_of(number)
        known = self.store.info(peer_id)
        for address in () if known is None else known.addresses:
            self.failures.pop(address.address, None)
        self.store.forget(peer_id)
        model = self.models.pop(peer_id, None)
        if model is not None and model.connections:
            self.models[peer_id] = Model(connections=model.connections)

    @rule(seconds=st.sampled_from([1.0, 6.0, TIMES.recent_address, TIMES.found_address, TIMES.dialled_address]))
    def time_passes(self, seconds: float) -> None:
        self.clock.seconds += seconds

    # -- what then holds

    @invariant()
    def the_same_peers_are_known(self) -> None:
        assert set(self.store.peers()) == set(self.models)

    @invariant()
    def back_offs_are_as_the_model_has_them(self) -> None:
        for number in range(10):
            _, until = self.failures.get(address_of(number), (0, 0.0))
            assert self.store.backing_off(address_of(number)) == max(0.0, until - self.clock.now())

    @invariant()
    def what_the_user_gave_is_known_and_nothing_else_stays_for_ever(self) -> None:
        for peer_id, model in self.models.items():
            known = self.store.info(peer_id)
            assert known is not None
            assert known.connected == bool(model.connections)
            assert len(known.addresses) <= LIMITS.identify_addresses
            for_ever = {entry.address for entry in known.addresses if entry.seconds_left == math.inf}
            assert for_ever == model.given
            assert [entry.address for entry in known.addresses] == self.store.addresses(peer_id)
            if not model.connections:
                assert not any(entry.held for entry in known.addresses)

    @invariant()
    def what_counts_for_the_bounds_is_what_there_is(self) -> None:
        sizes = sum(peer.measure() for peer in self.store._peers.values() if not peer.connections)
        assert self.store._bytes == sizes
        queued = {*self.store._strangers, *self.store._met}
        assert queued == {
            peer_id for peer_id, model in self.models.items() if not model.connections and not model.given
        }


def seconds_of(times: int) -> float:
    return min(TIMES.dial_backoff + (times - 1) ** 2 * TIMES.dial_backoff_step, TIMES.dial_backoff_max)


Machine.TestCase.settings = settings(max_examples=25, stateful_step_count=50, deadline=None)
TestPeerstore = pytest.mark.slow(Machine.TestCase)
