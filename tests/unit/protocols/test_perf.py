"""Perf: both ways, counted to the byte, off unless asked for."""

from __future__ import annotations

import pytest

from aiolibp2p.errors import NegotiationError, RemoteProtocolError
from aiolibp2p.net.events import HandlerFailed
from aiolibp2p.protocols.perf import PROTOCOL
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import FIN, RST, SYN
from aiolibp2p.sim import Link, Tuning, current_loop, current_net
from tests.support.hosts import against_raw, raw_peer, sim_host, two_hosts
from tests.support.raw import Frame
from tests.support.scripts import initiating

MIB = 1 << 20


@pytest.mark.parametrize("sizes", [(0, 0), (1, 0), (0, 1), (5 * MIB + 3, 0), (0, 5 * MIB + 3), (MIB, 2 * MIB)])
@pytest.mark.conforms("F1")
async def test_perf_moves_that_many_bytes_both_ways(sizes: tuple[int, int]) -> None:
    async with two_hosts(serve_perf=True) as (alice, bob, connection):
        steps: list[int] = []
        result = await alice.perf(bob.peer_id, upload_bytes=sizes[0], download_bytes=sizes[1], progress=steps.append)
        assert (result.upload_bytes, result.download_bytes) == sizes
        assert sum(steps) == sum(sizes)
        await current_loop().settle()
        assert connection.streams == connection.tombstones == []


async def test_perf_measures_each_direction() -> None:
    current_net().set_link(Link(latency=0.05, bandwidth=80e6))
    current_net().tuning = Tuning(send_buffer=4 * MIB, receive_buffer=4 * MIB)
    async with two_hosts(serve_perf=True) as (alice, bob, _connection):
        result = await alice.perf(bob.peer_id, upload_bytes=10 * MIB, download_bytes=10 * MIB)
        assert 1 < result.upload_seconds < 2
        assert 1 < result.download_seconds < 2


@pytest.mark.conforms("F1")
async def test_perf_is_off_unless_asked_for() -> None:
    async with two_hosts() as (alice, bob, _connection):
        with pytest.raises(NegotiationError):
            await alice.perf(bob.peer_id, upload_bytes=1)


async def test_a_peer_that_sends_another_number_of_bytes_breaks_the_protocol() -> None:
    def cheat(frame: Frame) -> None:
        if frame.flags & FIN:
            link.send_data(frame.stream_id, bytes(9))
            link.fin(frame.stream_id)

    async with against_raw() as (host, link, connection):
        link.on_frame = cheat
        measuring = current_loop().create_task(host.perf(connection.peer_id, download_bytes=10))
        await current_loop().settle()
        link.answer(await link.stream_for(PROTOCOL), PROTOCOL)
        with pytest.raises(RemoteProtocolError) as caught:
            await measuring
        assert caught.value.protocol == "perf"


async def test_a_stream_that_ends_before_the_size_fails_alone() -> None:
    async with sim_host("ours", serve_perf=True) as host, raw_peer(initiating()) as peer:
        events = host.events()
        link = await peer.dial(host.addresses[0])
        link.send_data(1, proposal(PROTOCOL) + b"\x00\x00", SYN)
        link.fin(1)
        await current_loop().settle()
        assert len(link.flagged(1, RST)) == 1
        await anext(events)
        assert isinstance(await anext(events), HandlerFailed)
        assert len(host.connections) == 1
