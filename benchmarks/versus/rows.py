"""What is compared, and what is aimed at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from benchmarks.versus.programs import ASYNCIO, GO, JS, PY, UVLOOP

Kind = Literal["rate", "memory", "latency"]


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Who dials and who listens."""

    name: str
    dialler: str
    listener: str


def alone(*stacks: str) -> tuple[Contestant, ...]:
    return tuple(Contestant(name=stack, dialler=stack, listener=stack) for stack in stacks)


def dialled_by(dialler: str, *listeners: str) -> tuple[Contestant, ...]:
    return tuple(Contestant(name=listener, dialler=dialler, listener=listener) for listener in listeners)


EACH = alone(UVLOOP, ASYNCIO, GO, JS, PY)
MIXED = (
    Contestant(name="aiolibp2p to go", dialler=UVLOOP, listener=GO),
    Contestant(name="go to aiolibp2p", dialler=GO, listener=UVLOOP),
    Contestant(name="aiolibp2p to js", dialler=UVLOOP, listener=JS),
    Contestant(name="js to aiolibp2p", dialler=JS, listener=UVLOOP),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of work; `goals` maps another stack to what our value divided by its value should reach."""

    name: str
    work: str
    unit: str
    command: str
    count: int
    kind: Kind = "rate"
    concurrency: int = 1
    chunk_bytes: int = 64 << 10
    result: str = "perSecond"
    contestants: tuple[Contestant, ...] = EACH
    goals: dict[str, float] = field(default_factory=dict)
    goal: float | None = None
    """What our value itself should reach."""
    parts: dict[str, float] = field(default_factory=dict)
    """The part of the work that a slow stack does; what is counted is a rate."""
    adds: bool = False
    """Whether the listener adds a file meanwhile."""
    once: bool = False
    """Whether it is measured in the first repetition only."""

    @property
    def higher_is_better(self) -> bool:
        return self.kind == "rate"

    @property
    def moves_bytes(self) -> bool:
        """Whether `count` is in bytes."""
        return self.command == "upload"


def upload(name: str, work: str, count: int, **more: object) -> Row:
    fields: dict[str, object] = {
        "unit": "MB/s",
        "command": "upload",
        "result": "MBps",
        "parts": {JS: 0.4, PY: 0.05},
    } | more
    return Row(name=name, work=work, count=count, **fields)  # type: ignore[arg-type]


ROWS = (
    upload(
        "upload",
        "1 GB on one stream in writes of 64 KiB, counted and answered by the receiver",
        1_000_000_000,
        goals={GO: 1.2, JS: 4.0, PY: 6.0},
        parts={PY: 0.05},
    ),
    upload("upload-16", "1 GB on 16 streams of one connection at once", 1_000_000_000, concurrency=16),
    upload(
        "upload-1k",
        "200 MB in writes of 1 KiB",
        200_000_000,
        chunk_bytes=1 << 10,
        goals={GO: 1.0},
        parts={JS: 0.2, PY: 0.02},
    ),
    upload("upload-1m", "1 GB in writes of 1 MiB", 1_000_000_000, chunk_bytes=1 << 20),
    Row(
        name="streams",
        work="open /echo/1.0.0, 32 bytes there and back, close; one at a time, 4,000 times",
        unit="streams/s",
        command="streams",
        count=4_000,
        goals={GO: 1.3},
        parts={PY: 0.05},
    ),
    Row(
        name="streams-32",
        work="the same, 32 at once, 15,000 times",
        unit="streams/s",
        command="streams",
        count=15_000,
        concurrency=32,
        goals={GO: 3.0},
        parts={PY: 0.02},
    ),
    Row(
        name="ping",
        work="one ping after the other on one stream, 10,000 times",
        unit="pings/s",
        command="ping",
        count=10_000,
        goals={GO: 0.8},
        parts={PY: 0.02},
    ),
    Row(
        name="dial-identify",
        work="one host connects, waits for the peer's identify and disconnects, 300 times",
        unit="dials/s",
        command="redial",
        count=300,
        goals={GO: 1.3},
        parts={PY: 0.05},
    ),
    upload("upload-mixed", "upload, between stacks", 1_000_000_000, contestants=MIXED),
    Row(
        name="ping-p99",
        work="the 99th percentile of 2,000 pings, one due every millisecond",
        unit="ms",
        command="latency",
        kind="latency",
        count=2_000,
        contestants=dialled_by(UVLOOP, UVLOOP, ASYNCIO, GO, JS),
    ),
    Row(
        name="ping-p99-adding",
        work="the same of those due while the listener adds a file of 500 MB to its blocks in the same process",
        unit="ms",
        command="latency",
        kind="latency",
        count=500_000_000,
        contestants=dialled_by(UVLOOP, UVLOOP, ASYNCIO, GO, JS),
        adds=True,
    ),
    Row(
        name="idle",
        work="memory of the listener for each of 500 idle connections, dialled by go-libp2p",
        unit="KiB",
        command="idle",
        kind="memory",
        count=500,
        result="KiBEach",
        contestants=dialled_by(GO, UVLOOP, ASYNCIO, GO, JS, PY),
        goal=24.0,
        once=True,
    ),
    Row(
        name="open-streams",
        work="memory of the listener for each of 5,000 open streams on 10 connections, dialled by go-libp2p",
        unit="KiB",
        command="open-streams",
        kind="memory",
        count=5_000,
        result="KiBEach",
        contestants=dialled_by(GO, UVLOOP, ASYNCIO, GO, JS, PY),
        once=True,
    ),
)
