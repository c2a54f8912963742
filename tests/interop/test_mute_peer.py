"""A peer that accepts streams, reads them, and never answers: nothing of ours waits for it."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from aiolibp2p import Host, Timeouts
from aiolibp2p.errors import DeadlineError
from tests.interop.peers import Listener, Peers, Stack
from tests.interop.served import ECHO, NEVER

MUTE_STACKS = [pytest.param("go", marks=pytest.mark.go), pytest.param("py", marks=pytest.mark.py)]
pytestmark = pytest.mark.parametrize("stack", MUTE_STACKS)

STREAMS = 20
SHORT_SECONDS = 0.3
SAMPLE_SECONDS = 0.05


@pytest.fixture
def mute(peers: Peers, stack: Stack) -> Listener:
    return peers.listener(stack, "mute")


@contextmanager
def watched_tasks() -> Iterator[set[int]]:
    """Give the numbers of tasks seen meanwhile, from a timer, which is no task itself."""
    loop = asyncio.get_running_loop()
    seen: set[int] = set()

    timer: asyncio.Handle

    def look() -> None:
        nonlocal timer
        seen.add(len(asyncio.all_tasks()))
        timer = loop.call_later(SAMPLE_SECONDS, look)

    look()
    try:
        yield seen
    finally:
        timer.cancel()


@pytest.mark.slow
async def test_close_waits_for_nothing_and_its_tombstone_goes_at_its_timeout(mute: Listener, stack: Stack) -> None:
    # Once as long as the timeout is by itself, and once not, for the time that it takes.
    timeouts = Timeouts(identify=SHORT_SECONDS) if stack == "go" else Timeouts(identify=SHORT_SECONDS, close=1.0)
    async with Host(timeouts=timeouts) as host:
        loop = asyncio.get_running_loop()
        tasks = len(asyncio.all_tasks())
        connection = await host.connect(mute.addr)
        # When our question has met its deadline, the peer's own is answered, and its handler's task is over.
        with pytest.raises(DeadlineError):
            await host.identify(mute.addr)
        streams = [await host.open_stream(mute.addr, NEVER) for _ in range(STREAMS)]
        took = []
        for number, stream in enumerate(streams):
            await stream.write(number.to_bytes(1000, "big"))
            start = time.perf_counter()
            stream.close()
            took.append(time.perf_counter() - start)
        closed_at = loop.time()
        assert (len(connection.streams), len(connection.tombstones)) == (0, STREAMS)
        with watched_tasks() as seen:
            assert statistics.median(took) < 0.001
            with pytest.raises(DeadlineError) as caught:
                await streams[-1].wait_closed()
            assert -0.1 <= loop.time() - closed_at - timeouts.close < 2
            assert connection.tombstones == []
            ended = [await mute.event(NEVER) for _ in streams]
        assert seen == {tasks}
        assert caught.value.deadline == "close"
        # The peer has read every byte and then the end of the stream, which was held until the timer.
        negotiation = len("/multistream/1.0.0\n") + len(NEVER + "\n") + 2
        assert [(event["error"], event["bytes"]) for event in ended] == [("EOF", negotiation + 1000)] * STREAMS
        assert all(-0.1 <= event["seconds"] - timeouts.close < 2 for event in ended)


async def test_a_read_ends_at_the_idle_timeout(mute: Listener) -> None:
    async with Host(timeouts=Timeouts(stream_idle=SHORT_SECONDS)) as host:
        await host.connect(mute.addr)
        async with await host.open_stream(mute.addr, ECHO) as stream:
            await stream.write(b"anybody?")
            with pytest.raises(DeadlineError) as caught:
                await stream.read()
            assert caught.value.deadline == "stream_idle"


async def test_eager_opening_ends_at_the_negotiation_timeout(mute: Listener) -> None:
    async with Host(timeouts=Timeouts(negotiate=SHORT_SECONDS)) as host:
        await host.connect(mute.addr)
        with pytest.raises(DeadlineError) as caught:
            await host.open_stream(mute.addr, ECHO, NEVER)
        assert caught.value.deadline == "negotiate"


async def test_a_ping_ends_at_its_timeout(mute: Listener) -> None:
    async with Host(timeouts=Timeouts(ping=SHORT_SECONDS)) as host:
        await host.connect(mute.addr)
        with pytest.raises(DeadlineError) as caught:
            await host.ping(mute.addr)
        assert caught.value.deadline == "ping"


async def test_a_peer_that_does_not_identify_itself_stays_connected(mute: Listener) -> None:
    async with Host(timeouts=Timeouts(identify=0.2, stream_idle=1)) as host:
        connection = await host.connect(mute.addr)
        async with await host.open_stream(mute.addr, ECHO) as stream:
            with pytest.raises(DeadlineError):
                await stream.read()
        assert connection.identify is None
        assert host.connections == [connection]
