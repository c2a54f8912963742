"""Security is proposed together with its first message; a peer that cannot take that gets one fresh connection."""

from __future__ import annotations

import pytest

from aiolibp2p.errors import ConnectionEndedError, DeadlineError, DialError, NegotiationError, RemoteProtocolError
from aiolibp2p.sansio.multistream import HEADER, encode_message, proposal
from aiolibp2p.sansio.noise import PROTOCOL as NOISE
from aiolibp2p.sansio.yamux import PROTOCOL as YAMUX
from aiolibp2p.sim import Link, current_loop, current_net
from tests.support.hosts import ECHO, raw_peer, sim_host
from tests.support.raw import NS, RawLink
from tests.support.scripts import responding

FLIGHT = proposal(NOISE)


def broken_off(link: RawLink) -> None:
    link.transport.close()


def reset(link: RawLink) -> None:
    link.transport.abort()


def garbled(link: RawLink) -> None:
    link.write(b"\x00\x00 is no multistream")


def garbled_after_the_answer(link: RawLink) -> None:
    link.write(FLIGHT + b"\xff\xff")


def broken_off_after_the_answer(link: RawLink) -> None:
    link.write(FLIGHT)
    link.transport.close()


FAILURES = [broken_off, reset, garbled, garbled_after_the_answer, broken_off_after_the_answer]


class Strict:
    """A listener that cannot take anything behind a proposal that it has not answered."""

    def __init__(self, fail=broken_off, times: int = 1) -> None:  # type: ignore[no-untyped-def]
        self.fail = fail
        self.times = times
        self.eager = 0

    async def __call__(self, link: RawLink) -> None:
        first = await link.read(len(FLIGHT))
        assert first == FLIGHT
        await current_loop().settle()
        if link._received:
            if self.times:
                self.times -= 1
                await link.read(len(link._received))
                self.fail(link)
                return
        else:
            self.eager += 1
        link._received[:0] = FLIGHT
        await responding()(link)


async def test_the_header_the_proposal_and_the_first_message_leave_in_one_flight() -> None:
    tap = current_net().tap()
    async with sim_host("ours") as host, raw_peer() as peer:
        await host.connect(peer.address)
        flight = tap.sent_by("client")[0][1]
        assert flight[: len(FLIGHT)] == FLIGHT
        assert flight[len(FLIGHT) :][:2] == b"\x00\x20"
        assert len(flight) == len(FLIGHT) + 34


@pytest.mark.parametrize("fail", FAILURES)
async def test_a_peer_that_fails_on_the_flight_gets_one_fresh_connection_and_is_remembered(fail) -> None:  # type: ignore[no-untyped-def]
    strict = Strict(fail)
    async with sim_host("ours") as host, raw_peer(strict) as peer:
        connection = await host.connect(peer.address)
        assert connection.peer_id == peer.peer_id
        assert (len(peer.links), strict.eager) == (2, 1)
        await host.disconnect(peer.peer_id)
        strict.times = 99
        await host.connect(peer.address)
        assert (len(peer.links), strict.eager) == (3, 2)


async def test_a_peer_that_took_the_flight_gets_it_again() -> None:
    strict = Strict(times=0)
    async with sim_host("ours") as host, raw_peer(strict) as peer:
        for number in (1, 2):
            await host.connect(peer.address)
            assert (len(peer.links), strict.eager) == (number, 0)
            await host.disconnect(peer.peer_id)


async def test_a_peer_that_fails_again_gets_no_third_connection_and_is_not_remembered() -> None:
    async def script(link: RawLink) -> None:
        await link.read(1)
        link.transport.close()

    async with sim_host("ours") as host, raw_peer(script) as peer:
        with pytest.raises(DialError) as caught:
            await host.connect(peer.address)
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, ConnectionEndedError)
        assert failure.stage == "security negotiation"
        assert len(peer.links) == 2
        with pytest.raises(DialError):
            await host.connect(peer.address)
        assert len(peer.links) == 4


async def test_both_attempts_share_one_deadline() -> None:
    async def script(link: RawLink) -> None:
        await link.read(1)
        if len(peer.links) == 1:
            await current_loop().pass_time(9)
            link.transport.close()

    async with sim_host("ours") as host, raw_peer(script) as peer:
        with pytest.raises(DialError) as caught:
            await host.connect(peer.address)
        assert current_loop().time_ns() == 15 * NS
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, DeadlineError)
        assert (failure.deadline, failure.stage) == ("dial_address", "security negotiation")
        assert len(peer.links) == 2


async def test_a_refusal_of_our_only_security_is_an_error_without_another_attempt() -> None:
    async def script(link: RawLink) -> None:
        await link.read(len(FLIGHT))
        link.write(HEADER + encode_message("na"))

    async with sim_host("ours") as host, raw_peer(script) as peer:
        with pytest.raises(DialError) as caught:
            await host.connect(peer.address)
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, NegotiationError)
        assert failure.offered == (NOISE,)
        assert failure.stage == "security negotiation"
        assert len(peer.links) == 1
        assert current_loop().time_ns() == 0


async def test_a_remembered_peer_is_told_by_its_address() -> None:
    strict = Strict()
    async with sim_host("ours") as host, raw_peer(strict) as peer, raw_peer(Strict(times=0), "other") as other:
        await host.connect(peer.address)
        await host.connect(other.address)
        assert len(other.links) == 1
        assert isinstance(other.script, Strict)
        assert other.script.eager == 0


async def test_message_3_leaves_together_with_the_proposal_of_the_muxer_and_the_first_frames() -> None:
    tap = current_net().tap()
    current_net().set_link(Link(latency=0.05))
    async with sim_host("ours") as host, raw_peer(responding(muxers=())) as peer:
        await host.connect(peer.address)
        await current_loop().settle()
        (at_ns, segment) = tap.sent_by("client")[1]
        assert at_ns == NS // 5
        records = 0
        while segment:
            segment = segment[2 + int.from_bytes(segment[:2], "big") :]
            records += 1
        assert records == 3  # message 3, the proposal, a ping and the stream of identify
        assert len(tap.sent_by("client")) == 2


async def test_a_peer_that_refuses_the_muxer_ends_the_connection_with_the_stage() -> None:
    async def script(link: RawLink) -> None:
        await responding("message 3", muxers=())(link)
        link.send(HEADER + encode_message("na"))

    async with sim_host("ours") as host, raw_peer(script) as peer:
        stream = await host.open_stream(peer.address, ECHO)
        with pytest.raises(NegotiationError) as caught:
            await stream.read()
        assert (caught.value.offered, caught.value.stage) == ((YAMUX,), "muxer negotiation")
        assert host.connections == []


async def test_a_peer_that_garbles_the_muxer_negotiation_ends_the_connection_with_the_stage() -> None:
    async def script(link: RawLink) -> None:
        await responding("message 3", muxers=())(link)
        link.send(b"\x00")

    async with sim_host("ours") as host, raw_peer(script) as peer:
        stream = await host.open_stream(peer.address, ECHO)
        with pytest.raises(RemoteProtocolError) as caught:
            await stream.read()
        assert (caught.value.protocol, caught.value.stage) == ("multistream-select", "muxer negotiation")
