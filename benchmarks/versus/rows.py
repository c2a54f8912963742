"""What is compared, how it is measured, and what is aimed at."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.versus.programs import ASYNCIO, GO, JS, UVLOOP, Programs, command_words, machine_cpu_seconds
from tests.interop.peers import PeerProgramError

WARM_UP = 5
"""The warm-up before a measurement is this part of the same work, on a connection of its own."""
IDLE_CONNECTIONS = 200


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Who dials and who listens."""

    name: str
    dialler: str
    listener: str


def alone(*stacks: str) -> tuple[Contestant, ...]:
    return tuple(Contestant(name=stack, dialler=stack, listener=stack) for stack in stacks)


EACH = alone(UVLOOP, ASYNCIO, GO, JS)
MIXED = (
    Contestant(name="aiolibp2p to go", dialler=UVLOOP, listener=GO),
    Contestant(name="go to aiolibp2p", dialler=GO, listener=UVLOOP),
    Contestant(name="aiolibp2p to js", dialler=UVLOOP, listener=JS),
    Contestant(name="js to aiolibp2p", dialler=JS, listener=UVLOOP),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of work; `goals` maps another stack to what our rate divided by its rate should reach."""

    name: str
    work: str
    unit: str
    command: str
    count: int
    concurrency: int = 1
    result: str = "perSecond"
    contestants: tuple[Contestant, ...] = EACH
    goals: dict[str, float] = field(default_factory=dict)
    once: bool = False
    """Whether it is measured in the first repetition only."""
    by_default: bool = True
    higher_is_better: bool = True


ROWS = (
    Row(
        name="upload",
        work="1 GB on one stream in writes of 64 KiB, counted and answered by the receiver",
        unit="MB/s",
        command="upload",
        count=1_000_000_000,
        result="MBps",
        goals={GO: 0.9, JS: 2.5},
    ),
    Row(
        name="streams",
        work="open /echo/1.0.0, 32 bytes there and back, close; one at a time, 4,000 times",
        unit="streams/s",
        command="streams",
        count=4_000,
        goals={GO: 1.0},
    ),
    Row(
        name="streams-32",
        work="the same, 32 at once, 15,000 times",
        unit="streams/s",
        command="streams",
        count=15_000,
        concurrency=32,
        goals={GO: 2.0},
    ),
    Row(
        name="ping",
        work="one ping after the other on one stream, 10,000 times",
        unit="pings/s",
        command="ping",
        count=10_000,
        goals={GO: 0.6},
    ),
    Row(
        name="dial-identify",
        work="one host connects, waits for the peer's identify and disconnects, 300 times",
        unit="dials/s",
        command="redial",
        count=300,
        goals={GO: 1.0},
    ),
    Row(
        name="upload-mixed",
        work="upload, between stacks",
        unit="MB/s",
        command="upload",
        count=1_000_000_000,
        result="MBps",
        contestants=MIXED,
    ),
    Row(
        name="idle",
        work=f"resident memory of the listener for each of {IDLE_CONNECTIONS} idle connections, dialled by go-libp2p",
        unit="KiB",
        command="idle",
        count=IDLE_CONNECTIONS,
        result="KiBEach",
        contestants=tuple(Contestant(name=s, dialler=GO, listener=s) for s in (UVLOOP, ASYNCIO, GO, JS)),
        once=True,
        by_default=False,
        higher_is_better=False,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measurement; the processor time includes making the host and connecting."""

    repetition: int
    value: float
    dialler_cpu_seconds: float
    listener_cpu_seconds: float
    others_cores: float
    """How many cores everything else on the machine kept busy meanwhile; near 0, or the sample says little."""


def measure(programs: Programs, row: Row, contestant: Contestant, *, repetition: int, scale: float) -> Sample:
    """Warm up, then measure once.

    Raises:
        PeerProgramError: a program failed, or some of the work was not done.
    """
    listener, ready = programs.listener(contestant.listener)
    dialler = programs.dialler(contestant.dialler, row.command)

    def run(count: int) -> dict[str, Any]:
        words = command_words(contestant.dialler, row.command, str(ready["addr"]), max(1, count), row.concurrency)
        if row.command == "idle":
            words.insert(0, f"-pid={ready['pid']}")
        answer = dialler.ask(words)
        if answer.get("failed") or answer.get("ok") is False:
            raise PeerProgramError(f"{row.name}, {contestant.name}: not all was done: {answer}")
        return answer

    count = row.count if row.once else round(row.count * scale)
    if not row.once:
        run(count // WARM_UP)
    before = dialler.cpu_seconds, listener.cpu_seconds, machine_cpu_seconds()
    start = time.perf_counter()
    answer = run(count)
    seconds = time.perf_counter() - start
    used = dialler.cpu_seconds - before[0], listener.cpu_seconds - before[1]
    return Sample(
        repetition=repetition,
        value=float(answer[row.result]),
        dialler_cpu_seconds=used[0],
        listener_cpu_seconds=used[1],
        others_cores=max(0.0, (machine_cpu_seconds() - before[2] - sum(used)) / seconds),
    )
