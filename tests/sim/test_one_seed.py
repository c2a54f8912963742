"""One seed is one run: two hosts over TCP and Noise leave the same bytes at the same times in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aiolibp2p import Stream
from aiolibp2p.sim import Trace, World, run_world

ECHO = "/echo/1.0.0"
HERE = Path(__file__).parent
PACKAGE = Path(sys.modules["aiolibp2p"].__file__ or "").parent.parent
PROGRAM = "import sys; sys.path[:0] = sys.argv[1:]; import test_one_seed as it; print(it.digest_of(7), it.digest_of(8))"


async def talk(sim: World) -> None:
    """Let two hosts identify each other, ping, and echo on ten streams at once."""
    a, b = sim.host("a"), sim.host("b")
    sim.link(a, b, latency=0.02, bandwidth=10e6)
    alice, bob = await sim.libp2p(a), await sim.libp2p(b)

    async def echo(stream: Stream) -> None:
        async for chunk in stream:
            await stream.write(chunk)

    bob.handle(ECHO, echo)
    connection = await alice.connect(bob.addresses[0])
    await alice.ping(bob.peer_id)

    async def ask(n: int) -> None:
        stream = await connection.open_stream(ECHO)
        await stream.write(bytes([n]) * 3000 * n)
        stream.close_write()
        await stream.read_exactly(3000 * n)
        stream.close()

    tasks = {sim.loop.create_task(ask(n), name=f"ask {n}") for n in range(10)}
    for task in tasks:
        await task
    await sim.pass_time(3600)


def digest_of(seed: int) -> str:
    """Return what stands for all bytes on the wire and all steps of all tasks."""
    trace = Trace(steps=True)
    run_world(talk, seed=seed, schedule="random", trace=trace)
    assert trace.count > 500
    return trace.digest()


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["0", "1", "random"])
def test_one_seed_gives_one_trace_of_tcp_and_noise_in_every_process(hash_seed: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(HERE), str(PACKAGE)]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert found == [digest_of(7), digest_of(8)]
    assert found[0] != found[1]
