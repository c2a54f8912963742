"""The small parts below a host: tasks, names of addresses, the upgrade."""

from __future__ import annotations

import asyncio

import pytest

from aiolibp2p import Multiaddr, PrivateKey
from aiolibp2p.errors import (
    ConnectionEndedError,
    ListenError,
    NegotiationError,
    PeerIdMismatchError,
    RemoteProtocolError,
)
from aiolibp2p.net import tcp
from aiolibp2p.net.tasks import Tasks, begin, begun
from aiolibp2p.net.upgrade import Upgrade
from aiolibp2p.sansio.noise import NoiseIdentity, NoiseResult
from aiolibp2p.sim import SeededEntropy, current_loop
from tests.support.raw import MUXERS


async def nothing() -> None: ...


async def forever() -> None:
    await asyncio.Event().wait()


async def test_closing_tasks_ends_them_all_and_names_those_that_refuse() -> None:
    crashes: list[BaseException] = []
    tasks = Tasks(current_loop(), crashes.append)
    go = asyncio.Event()

    async def stubborn() -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    started = [tasks.start(forever(), "meek"), *(tasks.start(stubborn(), name) for name in ("b", "a"))]
    started.append(tasks.start(nothing(), "short"))
    await current_loop().settle()
    assert len(tasks) == 3
    assert await tasks.close(2.5) == ["a", "b"]
    assert current_loop().time_ns() == 2_500_000_000
    go.set()
    await asyncio.wait(started)
    await current_loop().settle()
    assert len(tasks) == 0
    assert crashes == []


async def test_what_has_begun_is_ended_although_its_task_is_cancelled_before_its_first_step() -> None:
    ended: list[str] = []

    async def noting(name: str) -> None:
        try:
            await begun()
            ended.append(f"{name} ran")
        finally:
            ended.append(f"{name} ended")

    tasks = Tasks(current_loop(), print)
    early, late = (tasks.start(begin(noting(name)), name) for name in ("early", "late"))
    assert ended == []
    early.cancel()
    await asyncio.wait([early, late])
    assert ended == ["early ended", "late ran", "late ended"]
    assert early.cancelled()


async def test_closing_no_tasks_takes_no_time() -> None:
    tasks = Tasks(current_loop(), print)
    assert await tasks.close(10) == []
    assert current_loop().time_ns() == 0


async def test_an_exception_that_leaves_a_task_is_a_crash_and_a_cancellation_is_none() -> None:
    crashes: list[BaseException] = []
    tasks = Tasks(current_loop(), crashes.append)

    async def fail() -> None:
        raise ZeroDivisionError

    failing, meek = tasks.start(fail(), "failing"), tasks.start(forever(), "meek")
    await current_loop().settle()
    meek.cancel()
    await current_loop().settle()
    assert failing.done()
    assert [type(error) for error in crashes] == [ZeroDivisionError]
    assert len(tasks) == 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (("127.0.0.1", 4001), "/ip4/127.0.0.1/tcp/4001"),
        (("::1", 4001, 0, 0), "/ip6/::1/tcp/4001"),
        (("nonsense", 4001), "/ip4/0.0.0.0/tcp/0"),
        (None, "/ip4/0.0.0.0/tcp/0"),
        ("", "/ip4/0.0.0.0/tcp/0"),
    ],
)
def test_what_a_socket_calls_itself_is_a_multiaddr(name: object, text: str) -> None:
    assert str(tcp.address_of(name)) == text


def test_tcp_addresses_can_be_listened_on() -> None:
    assert tcp.listen_endpoint(Multiaddr("/ip4/127.0.0.1/tcp/0")) == ("127.0.0.1", 0)
    assert tcp.listen_endpoint(Multiaddr("/ip6/::1/tcp/9")) == ("::1", 9)


@pytest.mark.parametrize("text", ["/ip4/127.0.0.1", "/ip4/1.2.3.4/udp/1", "/dns4/a/tcp/1", "/ip4/1.2.3.4/tcp/1/ws"])
def test_other_addresses_cannot(text: str) -> None:
    with pytest.raises(ListenError) as caught:
        tcp.listen_endpoint(Multiaddr(text))
    assert caught.value.address == text


class Pair:
    """Two upgrades that talk to each other."""

    def __init__(self, *, optimistic: bool = True, cut: int = 1 << 20, expected: bool = False) -> None:
        entropy = SeededEntropy("upgrade")
        keys = [PrivateKey.generate(entropy.fork("key")) for _ in range(2)]
        dialler, listener = (NoiseIdentity(key, entropy.fork("static")) for key in keys)
        self.dialler = Upgrade(
            dialler,
            entropy,
            initiator=True,
            muxers=MUXERS,
            expected_peer=keys[0].public.peer_id if expected else None,
            optimistic=optimistic,
        )
        self.listener = Upgrade(listener, entropy, initiator=False, muxers=MUXERS)
        self.cut = cut
        self.flights: list[tuple[str, int]] = []

    def run(self) -> list[NoiseResult]:
        results = []
        sides = [("dialler", self.dialler, self.listener), ("listener", self.listener, self.dialler)]
        while True:
            moved = False
            for name, sender, receiver in sides:
                data = sender.bytes_to_send()
                if data:
                    self.flights.append((name, len(data)))
                    moved = True
                for at in range(0, len(data), self.cut):
                    result = receiver.receive_bytes(data[at : at + self.cut])
                    if result is not None:
                        results.append(result)
            if not moved:
                return results


@pytest.mark.parametrize("cut", [1, 7, 1 << 20])
@pytest.mark.parametrize(("optimistic", "flights"), [(True, 3), (False, 5)])
def test_an_upgrade_takes_three_flights_and_five_without_optimism(optimistic: bool, flights: int, cut: int) -> None:
    pair = Pair(optimistic=optimistic, cut=cut)
    results = pair.run()
    assert len(results) == 2
    assert {result.muxer for result in results} == set(MUXERS)
    if cut > 1000:
        assert [name for name, _ in pair.flights] == (["dialler", "listener"] * 3)[:flights]


def test_another_peer_than_expected_is_no_reason_to_dial_again() -> None:
    pair = Pair(expected=True)
    with pytest.raises(PeerIdMismatchError) as caught:
        pair.run()
    assert not pair.dialler.may_retry(caught.value)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionEndedError(by="remote"), True),
        (ConnectionEndedError(by="local"), False),
        (RemoteProtocolError("garbage"), True),
        (NegotiationError(["/noise"]), False),
    ],
)
def test_only_a_peer_that_broke_off_or_garbled_on_an_optimistic_flight_is_dialled_again(
    error: ConnectionEndedError | RemoteProtocolError | NegotiationError, again: bool
) -> None:
    assert Pair(optimistic=True).dialler.may_retry(error) is again
    assert Pair(optimistic=False).dialler.may_retry(error) is False
    assert Pair().listener.may_retry(error) is False
