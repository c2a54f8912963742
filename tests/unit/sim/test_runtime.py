"""The runtime of a simulated host, and that one seed gives one run."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aiolibp2p.entropy import Entropy
from aiolibp2p.runtime import Runtime
from aiolibp2p.sim import (
    EscapeError,
    SeededEntropy,
    SimLoop,
    Trace,
    Tuning,
    current_loop,
    current_net,
    run,
    sim_runtime,
)


def test_entropy_depends_on_the_seed_only() -> None:
    assert SeededEntropy("a").token(40) == SeededEntropy("a").token(40) != SeededEntropy("b").token(40)
    assert SeededEntropy(7).token(8) == SeededEntropy("7").token(8) == SeededEntropy(b"7").token(8)


def test_entropy_does_not_depend_on_how_it_is_asked() -> None:
    whole = SeededEntropy(1).token(5000)
    source: Entropy = SeededEntropy(1)
    assert b"".join(source.token(n) for n in (0, 1, 31, 1000, 3968)) == whole
    assert len(set(whole)) == 256


def test_entropy_is_the_same_everywhere() -> None:
    assert SeededEntropy("seed").fork("noise").token(8).hex() == "7e5e317b62c3fccb"


def test_a_draw_on_one_fork_does_not_move_another() -> None:
    one, other = SeededEntropy(1), SeededEntropy(1)
    one.token(100)
    one.fork("ping").token(100)
    assert one.fork("noise").token(32) == other.fork("noise").token(32)


def test_two_forks_for_one_purpose_differ() -> None:
    source = SeededEntropy(1)
    assert source.fork("noise").token(32) != source.fork("noise").token(32)


async def test_a_runtime_reads_virtual_time_and_connects_its_own_host() -> None:
    loop = current_loop()
    assert loop.net is not None
    alice, bob = loop.net.host("alice", "10.0.0.1"), loop.net.host("bob", "10.0.0.2")
    dialler: Runtime = sim_runtime(loop, "alice", alice)
    listener: Runtime = sim_runtime(loop, "bob", bob)
    peers: list[object] = []

    class Accepting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            peers.append(transport.get_extra_info("peername")[0])

    server = await listener.net.listen_tcp(Accepting, "0.0.0.0", 4001)
    await dialler.net.connect_tcp(asyncio.Protocol, "10.0.0.2", 4001)
    await loop.settle()
    assert peers == ["10.0.0.1"]
    await loop.pass_time(5)
    assert (dialler.clock.now(), dialler.clock.wall()) == (5.0, 946_684_805.0)
    assert dialler.entropy.token(8) != listener.entropy.token(8)
    server.close()


async def test_the_timers_of_a_machine_end_with_it() -> None:
    net = current_net()
    machines = net.host("crashes"), net.host("goes on")
    rang: list[str] = []
    for machine in machines:
        sim_runtime(current_loop(), machine.name, machine).clock.call_at(5, rang.append, machine.name)
    machines[0].crash()
    await current_loop().pass_time(6)
    assert rang == ["goes on"]
    with pytest.raises(OSError, match="has crashed"):
        sim_runtime(current_loop(), "again", machines[0])


async def test_without_a_host_a_runtime_is_at_home() -> None:
    loop = current_loop()
    runtime = sim_runtime(loop, "any")
    server = await runtime.net.listen_tcp(asyncio.Protocol, "127.0.0.1", 4001)
    await runtime.net.connect_tcp(asyncio.Protocol, "127.0.0.1", 4001)
    assert len(loop.net.connections if loop.net else ()) == 1
    server.close()


def test_a_runtime_needs_a_network() -> None:
    loop = SimLoop()
    with pytest.raises(EscapeError):
        sim_runtime(loop, "any")
    loop.close()


def digest_of(seed: int) -> str:
    """Run a busy little world and return the digest of everything that crossed its network, and of its tasks' steps."""
    trace = Trace(steps=True)

    async def main() -> None:
        loop = current_loop()
        assert loop.net is not None
        loop.net.tuning = Tuning(segment=300, read=200, ragged=True)
        entropy = sim_runtime(loop, "main").entropy

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(1000):
                writer.write(data)
            writer.close()

        async def dial(name: str) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", 4001)
            for _ in range(5):
                writer.write(entropy.fork(name).token(700))
                await reader.readexactly(700)
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(echo, "127.0.0.1", 4001)
        tasks = {loop.create_task(dial(name), name=name) for name in ("ada", "bob", "cy", "di")}
        while tasks:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                trace.add(f"done {task.get_name()}")
        server.close()

    run(main, seed=seed, schedule="random", trace=trace)
    assert trace.count > 500
    return trace.digest()


def test_the_same_seed_gives_the_same_trace_and_another_seed_another() -> None:
    assert digest_of(1) == digest_of(1) != digest_of(2)


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_another_process_with_other_hashes_gives_the_same_trace(hash_seed: str) -> None:
    code = "import sys; sys.path[:0] = sys.argv[1:]; import test_runtime; print(test_runtime.digest_of(1))"
    here = Path(__file__).parent
    package = Path(sys.modules["aiolibp2p"].__file__ or "").parent.parent
    command = [sys.executable, "-c", code, str(here), str(package)]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == digest_of(1)
