"""Peers that fall silent before there is a connection: each step has its deadline, in both directions."""

from __future__ import annotations

import pytest

from aiolibp2p import Timeouts
from aiolibp2p.errors import DeadlineError, DialError
from aiolibp2p.net.events import InboundFailed
from tests.support.hosts import ECHO, other_tasks
from tests.support.raw import NS, RawLink, Script
from tests.support.scripts import ACCEPTED, HEADED, MESSAGE_1, MESSAGE_2, MESSAGE_3, SELECTED, initiating, responding
from tests.support.worlds import World

NEGOTIATION = "security negotiation"
HANDSHAKE = "noise handshake"
MUXER = "muxer negotiation"


def within(whole: int, until: str) -> Script:
    """Return the script of a listener that keeps back the last byte of the message after `whole` ones."""

    async def script(link: RawLink) -> None:
        written: list[int] = []

        def write(data: bytes) -> None:
            link.transport.write(data[:-1] if len(written) == whole else data)
            written.append(len(data))

        link.write = write  # type: ignore[method-assign]
        await responding(until)(link)

    return script


DIALLED: dict[str, tuple[Script, str]] = {
    "that accepts": (responding(ACCEPTED), NEGOTIATION),
    "within its header": (within(0, HEADED), NEGOTIATION),
    "after its header": (responding(HEADED), NEGOTIATION),
    "within its answer": (within(0, SELECTED), NEGOTIATION),
    "after its answer": (responding(SELECTED), HANDSHAKE),
    "after message 1": (responding(MESSAGE_1), HANDSHAKE),
    "within message 2": (within(1, MESSAGE_2), HANDSHAKE),
}
DIALLING: dict[str, tuple[Script, str]] = {
    "that connects": (initiating(ACCEPTED), NEGOTIATION),
    "after its header": (initiating(HEADED), NEGOTIATION),
    "after its proposal": (initiating(SELECTED), HANDSHAKE),
    "after message 1": (initiating(MESSAGE_1), HANDSHAKE),
    "after message 3": (initiating(MESSAGE_3, muxers=()), MUXER),
}


@pytest.mark.parametrize("deadline", ["the address", "upgrade"])
@pytest.mark.parametrize("step", DIALLED)
async def test_a_dialled_peer_that_falls_silent_at_any_step_costs_the_deadline_of_the_dial(
    world: World, step: str, deadline: str
) -> None:
    """Case 5: T19: the stage is named, the socket is gone, and it is not dialled again."""
    script, stage = DIALLED[step]
    seconds = world.seconds(7, 0.1)
    timeouts = Timeouts(upgrade=seconds) if deadline == "upgrade" else address_timeouts(seconds)
    async with world.host("ours", timeouts=timeouts) as host, world.raw(script) as peer:
        tasks, start_ns = other_tasks(), world.now_ns()
        with pytest.raises(DialError) as caught:
            await world.in_time(host.connect(peer.address))
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, DeadlineError)
        assert (failure.seconds, failure.stage) == (seconds, stage)
        assert failure.deadline in (("upgrade",) if deadline == "upgrade" else ("dial_address", "dial_private_address"))
        assert not world.virtual or world.now_ns() - start_ns == 7 * NS
        assert len(peer.links) == 1
        await world.in_time(peer.links[0].closed())
        await world.until(lambda: not host._swarm._links)
        assert other_tasks() - {link.task for link in peer.links} <= tasks


def address_timeouts(seconds: float) -> Timeouts:
    """Return what bounds one address, public or private."""
    return Timeouts(dial_address=seconds, dial_private_address=seconds)


@pytest.mark.parametrize("step", DIALLING)
async def test_a_dialler_that_falls_silent_at_any_step_is_dropped_at_upgrade(world: World, step: str) -> None:
    """Case 5: T20: and told of as an inbound failure at that stage."""
    script, stage = DIALLING[step]
    seconds = world.seconds(7, 0.1)
    async with world.host("ours", timeouts=Timeouts(upgrade=seconds)) as host, world.raw(script) as peer:
        events, tasks, start_ns = host.events(), other_tasks(), world.now_ns()
        link = await world.in_time(peer.dial(host.addresses[0]))
        ended_ns = await world.in_time(link.closed())
        assert not world.virtual or ended_ns - start_ns == 7 * NS
        event = await world.in_time(anext(events))
        assert isinstance(event, InboundFailed)
        assert isinstance(event.error, DeadlineError)
        assert (event.error.deadline, event.error.seconds, event.error.stage) == ("upgrade", seconds, stage)
        await world.until(lambda: not host._swarm._links and not host._swarm._pending_inbound)
        assert host.connections == []
        assert other_tasks() - {link.task for link in peer.links} <= tasks


@pytest.mark.parametrize("until", [MESSAGE_2, MESSAGE_3])
async def test_a_peer_that_negotiates_no_muxer_ends_at_upgrade(world: World, until: str) -> None:
    """Case 5: after message 2, where we have a connection already, whoever uses it is told."""
    seconds = world.seconds(7, 0.2)
    script = responding(until, muxers=())
    async with world.host("ours", timeouts=Timeouts(upgrade=seconds)) as host, world.raw(script) as peer:
        connection = await world.in_time(host.connect(peer.address))
        stream = await connection.open_stream(ECHO)
        with pytest.raises(DeadlineError) as caught:
            await world.in_time(stream.read())
        assert (caught.value.deadline, caught.value.stage) == ("upgrade", MUXER)
        assert connection.ended is caught.value
        await world.in_time(peer.links[0].closed())
        assert host.connections == []
