"""Fourteen days of a block server whose peers fall silent, lived through three times: what a wait in `close` costs.

In virtual time (`aiolibp2p.sim`), with the real Noise, Yamux and multistream-select: one server, two honest peers that
fetch a file of 100 blocks every ten minutes, and sixteen that fall silent, one every ten minutes. A silent peer accepts
streams, answers Yamux's pings and goes on asking for blocks, but answers no protocol negotiation and gives no credit.
What differs is how the server closes the stream on which it has sent a block; see `POLICIES`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import math
import struct
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from aiolibp2p import Cid, Host, Limits, PeerId, PrivateKey, Stream, Timeouts
from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks import MemoryBlockstore
from aiolibp2p.errors import Libp2pError
from aiolibp2p.sansio.bitswap.decoder import Decoder
from aiolibp2p.sansio.bitswap.message import PROTOCOL, Entry, Message, Payload, encode
from aiolibp2p.sansio.multistream import HEADER, NA, encode_message, proposal
from aiolibp2p.sansio.noise import PROTOCOL as NOISE
from aiolibp2p.sansio.noise import NoiseChannel, NoiseHandshake, NoiseIdentity
from aiolibp2p.sansio.yamux import ACK, DATA, FIN, PING, SYN, WINDOW_UPDATE
from aiolibp2p.sansio.yamux import PROTOCOL as YAMUX
from aiolibp2p.sim import Link, SeededEntropy, current_loop, current_net, run, sim_runtime

NS = 1_000_000_000
HOUR = 3600
DAY = 24 * HOUR

WORKERS = 8
SILENT = 16
HONEST = 2
FIRST_SILENCE = 300.0
BETWEEN_SILENCES = 600.0
FETCH_EVERY = 600.0
FILE_BLOCKS = 100
BLOCK_BYTES = 1000
WANTS, WANTED_BYTES, ASK_EVERY = 4, 16 << 10, 3600.0
"""What each of the sixteen asks for every hour and at the moment of silence: so many blocks of this size."""
LATENCY = 0.025
CLOSE_WAIT = 10.0
SEND_LEAST, SEND_FIXED, SEND_BYTES_PER_SECOND = 10.0, 2.0, 12_500
"""A worker's opening and writing may take 2 s and the bytes at this rate, and 10 s at least."""
TIMEOUTS = Timeouts(keepalive=600.0)
MESSAGE_BYTES = Limits().bitswap_message_bytes

POLICIES = {
    1: "waits for the answer",
    2: "waits for 10 s at most",
    3: "waits for nobody",
}

OWN_STREAM = 1
"""The stream on which a peer played by hand asks; those that the server opens have even numbers."""
_frame = struct.Struct(">BBHII")


class Block(NamedTuple):
    """A block and its name."""

    cid: Cid
    data: bytes


def blocks(label: str, n: int, size: int) -> list[Block]:
    """Return so many blocks; each label has its own."""
    datas = [hashlib.shake_128(f"{label} {number}".encode()).digest(size) for number in range(n)]
    return [Block(Cid.from_data(data), data) for data in datas]


def full(cids: Iterable[bytes]) -> bytes:
    """Return a message that wants these blocks and no others."""
    return b"".join(encode(Message([Entry(cid, send_dont_have=True) for cid in cids], full=True), MESSAGE_BYTES))


def silence_ns(number: int) -> int:
    """Return when the `number`-th peer, counted from 1, falls silent."""
    return round((FIRST_SILENCE + (number - 1) * BETWEEN_SILENCES) * NS)


def hear(stream: Stream, receive: Callable[[PeerId, Message], None]) -> None:
    """Pass on the messages that come on a stream, and close it when its peer has."""
    decoder = Decoder(Limits())
    stream.idle_timeout = math.inf

    def go_on() -> None:
        try:
            while data := stream.try_read():
                for message in decoder.receive_bytes(data):
                    receive(stream.peer_id, message)
                if decoder.failure is not None:
                    raise decoder.failure
            if data == b"":
                stream.on_readable(None)
                stream.close()
        except Libp2pError:
            stream.on_readable(None)
            stream.reset()

    stream.on_readable(go_on)
    go_on()


# -- the server of policies one and two -----------------------------------------------------------------------------


class WorkerPool:
    """Eight workers answer all peers in turn: each sends one block on a new stream, and closes it politely.

    One block is under way to a peer at a time, so a silent peer holds one worker and not all of them.

    Args:
        patience: seconds that closing waits for the peer; `math.inf` means for ever.
    """

    def __init__(self, host: Host, store: Sequence[Block], patience: float) -> None:
        self.picks: deque[tuple[int, PeerId]] = deque(maxlen=50_000)
        """The latest sends: when a worker began, and for whom."""
        self._host = host
        self._payloads = {bytes(cid): Payload(cid.prefix, data) for cid, data in store}
        self._patience = patience
        self._wanted: dict[PeerId, dict[bytes, None]] = {}
        self._sending: dict[PeerId, bytes] = {}
        self._ring: list[PeerId] = []
        self._next = 0
        self._idle: deque[asyncio.Future[None]] = deque()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> WorkerPool:
        loop = current_loop()
        self._host.serve(PROTOCOL, self._accept)
        self._tasks = [loop.create_task(self._work(), name=f"send worker {number}") for number in range(WORKERS)]
        return self

    async def __aexit__(self, *_error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What peers want

    def _accept(self, stream: Stream) -> None:
        hear(stream, self._receive)

    def _receive(self, peer_id: PeerId, message: Message) -> None:
        if peer_id not in self._wanted:
            self._ring.append(peer_id)
        wanted = self._wanted.setdefault(peer_id, {})
        if message.full:
            wanted.clear()
        for entry in message.entries:
            if entry.cancel:
                wanted.pop(entry.cid, None)
            elif entry.cid in self._payloads:
                wanted[entry.cid] = None
        if self._idle and wanted:
            self._idle.popleft().set_result(None)

    # The workers

    async def _work(self) -> None:
        while True:
            peer_id = await self._pick()
            wanted = self._wanted[peer_id]
            cid = self._sending[peer_id] = next(iter(wanted))
            del wanted[cid]
            self.picks.append((current_loop().time_ns(), peer_id))
            try:
                await self._send(peer_id, self._payloads[cid])
            except (Libp2pError, TimeoutError):
                wanted[cid] = None  # it is due again, as it is where the peer asks again
            del self._sending[peer_id]

    async def _pick(self) -> PeerId:
        """Return whose turn it is: of those with wants and nothing under way, the next in the ring."""
        while True:
            for step in range(len(self._ring)):
                peer_id = self._ring[(self._next + step) % len(self._ring)]
                if self._wanted[peer_id] and peer_id not in self._sending:
                    self._next += step + 1
                    return peer_id
            idle = current_loop().create_future()
            self._idle.append(idle)
            await idle

    async def _send(self, peer_id: PeerId, payload: Payload) -> None:
        connection = self._host.connection_to(peer_id)
        if connection is None:
            self._wanted[peer_id].clear()
            return
        buffers = encode(Message(payloads=[payload]), MESSAGE_BYTES)
        seconds = max(SEND_LEAST, SEND_FIXED + sum(map(len, buffers)) / SEND_BYTES_PER_SECOND)
        async with asyncio.timeout(seconds):
            stream = await connection.open_stream(PROTOCOL)
            try:
                for buffer in buffers:
                    await stream.write(buffer)
            except BaseException:
                stream.reset()
                raise
        await self._close_politely(stream)

    async def _close_politely(self, stream: Stream) -> None:
        """Finish, and read until the peer has answered the negotiation and finished too; only then close.

        Raises:
            DeadlineError: it has done neither for as long as the server is patient.
        """
        stream.close_write()
        stream.idle_timeout = self._patience
        try:
            while await stream.read():
                pass
        finally:
            stream.close()


# -- peers -----------------------------------------------------------------------------------------------------------


class PeerThatFallsSilent:
    """A peer played by hand: a good one, until from one moment on it says nothing to a protocol negotiation."""

    def __init__(self, number: int, wants: Sequence[Cid]) -> None:
        self._name = f"silent {number}"
        self._silent_ns = silence_ns(number)
        self._wants = wants
        self._entropy = SeededEntropy(self._name)
        self._channel: NoiseChannel
        self._writer: asyncio.StreamWriter
        self._opened = False

    @property
    def silent(self) -> bool:
        """Whether it is silent now."""
        return current_loop().time_ns() >= self._silent_ns

    async def live(self, ip: str, port: int) -> None:
        """Connect, ask every hour and at the moment of silence, and hear what comes, to the end."""
        with current_net().host(self._name).here():
            reader, self._writer = await asyncio.open_connection(ip, port)
        self._writer.write(HEADER + encode_message(NOISE))
        await reader.readexactly(len(proposal(NOISE)))
        identity = NoiseIdentity(PrivateKey.generate(self._entropy), self._entropy)
        handshake = NoiseHandshake("initiator", identity, self._entropy, muxers=(YAMUX,))
        self._writer.write(handshake.bytes_to_send())
        while (result := handshake.receive_bytes(await reader.read(65536))) is None:
            pass
        self._writer.write(handshake.bytes_to_send())
        self._channel = result.channel
        asking = current_loop().create_task(self._ask(), name=f"{self._name} asks")
        try:
            await self._hear(reader, handshake.unread)
        finally:
            asking.cancel()

    async def _ask(self) -> None:
        loop = current_loop()
        while True:
            body = (b"" if self._opened else proposal(PROTOCOL)) + full(map(bytes, self._wants))
            self._send(DATA, 0 if self._opened else SYN, OWN_STREAM, len(body), body)
            self._opened = True
            left = (self._silent_ns - loop.time_ns()) / NS
            await asyncio.sleep(left if 0 < left < ASK_EVERY else ASK_EVERY)

    async def _hear(self, reader: asyncio.StreamReader, encrypted: bytes) -> None:
        received = b""
        while True:
            chunks, used = self._channel.decrypt(encrypted)
            encrypted = encrypted[used:]
            received = self._take(b"".join((received, *chunks)))
            data = await reader.read(65536)
            if not data:
                return
            encrypted += data

    def _take(self, received: bytes) -> bytes:
        """Take whole frames; return the rest."""
        at = 0
        while len(received) - at >= _frame.size:
            _, kind, flags, stream_id, length = _frame.unpack_from(received, at)
            end = at + _frame.size + (length if kind == DATA else 0)
            if len(received) < end:
                break
            self._answer(kind, flags, stream_id, length, received[at + _frame.size : end])
            at = end
        return received[at:]

    def _answer(self, kind: int, flags: int, stream_id: int, length: int, body: bytes) -> None:
        if kind == PING and flags & SYN:
            self._send(PING, ACK, 0, length)
        elif kind in (DATA, WINDOW_UPDATE):
            if flags & SYN:
                self._send(WINDOW_UPDATE, ACK, stream_id, 0)
            if self.silent:
                return
            if body.startswith(HEADER) and stream_id != OWN_STREAM:
                answer = proposal(PROTOCOL) if proposal(PROTOCOL) in body else HEADER + NA
                self._send(DATA, 0, stream_id, len(answer), answer)
            if body:
                self._send(WINDOW_UPDATE, 0, stream_id, len(body))
            if flags & FIN:
                self._send(WINDOW_UPDATE, FIN, stream_id, 0)

    def _send(self, kind: int, flags: int, stream_id: int, length: int, body: bytes = b"") -> None:
        self._writer.write(self._channel.encrypt((_frame.pack(0, kind, flags, stream_id, length) + body,)))


@dataclass
class Outcome:
    """What happened under one policy."""

    policy: int
    days: int
    wanted_bytes: int = WANTED_BYTES
    """The size of the blocks that the sixteen want."""
    arrivals: list[int] = field(default_factory=list)
    """When a block, verified, arrived at an honest peer, in nanoseconds."""
    fetches: list[int] = field(default_factory=list)
    """How long each file took that came whole, in nanoseconds."""
    ran_hours: int = 0
    """Hours that were run event by event; those after them repeat what had come before."""
    period_ns: int = 0
    """After how long it repeats; 0 where all hours were run."""
    read_for_silent: int = 0
    """Blocks that the server read from its store for one of the sixteen."""
    ping_seconds: float = math.nan
    """What a ping of the server took in the end."""
    real_seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def served(self) -> int:
        """Blocks that honest peers got, in all."""
        return len(self.arrivals)

    @property
    def asked(self) -> int:
        """Blocks that honest peers would have got from a server without silent peers."""
        return HONEST * FILE_BLOCKS * round(self.days * DAY / FETCH_EVERY)

    def per(self, seconds: int) -> list[int]:
        """Return the blocks in each stretch of so many seconds."""
        counts = [0] * math.ceil(self.days * DAY / seconds)
        for at_ns in self.arrivals:
            counts[at_ns // (seconds * NS)] += 1
        return counts

    def since(self, number: int) -> int:
        """Return the blocks that came after the `number`-th silence."""
        return sum(at_ns >= silence_ns(number) for at_ns in self.arrivals)

    def minutely(self) -> float:
        """Return the blocks a minute after the sixteenth silence."""
        return self.since(SILENT) * 60 * NS / (self.days * DAY * NS - silence_ns(SILENT))


class CountingStore(MemoryBlockstore):
    """Counts the blocks that are read for the sixteen."""

    def __init__(self, store: Sequence[Block], outcome: Outcome) -> None:
        super().__init__(store)
        self._outcome = outcome

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        """Return the blocks, None for each that is missing."""
        found = await super().get_many(cids)
        self._outcome.read_for_silent += sum(data is not None and len(data) != BLOCK_BYTES for data in found)
        return found


class HonestPeer:
    """Fetches a file every ten minutes, or at once where the last one took longer, and verifies every block."""

    def __init__(self, host: Host, file: Sequence[Block], outcome: Outcome) -> None:
        self._host = host
        self._file = {block.cid.digest: bytes(block.cid) for block in file}
        self._outcome = outcome
        self._missing: dict[bytes, bytes] = {}
        self._complete = asyncio.Event()
        host.serve(PROTOCOL, self._accept)

    async def live(self, address: str) -> None:
        """Fetch for ever; what is missing is asked for again every hour."""
        loop = current_loop()
        due = loop.time()
        whole = full(self._file.values())
        stream = await self._host.open_stream(address, PROTOCOL)
        while True:
            started_ns = loop.time_ns()
            self._missing = dict(self._file)
            self._complete.clear()
            while self._missing:
                await stream.write(whole if len(self._missing) == len(self._file) else full(self._missing.values()))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ASK_EVERY):
                        await self._complete.wait()
            self._outcome.fetches.append(loop.time_ns() - started_ns)
            due = max(due + FETCH_EVERY, loop.time())
            await asyncio.sleep(due - loop.time())

    def _accept(self, stream: Stream) -> None:
        hear(stream, self._receive)

    def _receive(self, _peer_id: PeerId, message: Message) -> None:
        for payload in message.payloads:
            if self._missing.pop(hashlib.sha256(payload.data).digest(), None) is not None:
                self._outcome.arrivals.append(current_loop().time_ns())
        if not self._missing:
            self._complete.set()


# -- one run ---------------------------------------------------------------------------------------------------------


def sim_host(name: str) -> Host:
    """Return a host on a machine of its own."""
    machine = current_net().host(name)
    listen = [f"/ip4/{machine.addresses[0]}/tcp/4001"]
    return Host(listen=listen, timeouts=TIMEOUTS, runtime=sim_runtime(current_loop(), name, machine))


@contextlib.asynccontextmanager
async def serving(outcome: Outcome, host: Host, store: Sequence[Block]) -> AsyncIterator[WorkerPool | None]:
    """Serve blocks under a policy; give the workers where there are any."""
    if outcome.policy == 3:
        async with Bitswap(host, CountingStore(store, outcome)):
            yield None
    else:
        async with WorkerPool(host, store, math.inf if outcome.policy == 1 else CLOSE_WAIT) as pool:
            yield pool


def period_of(pool: WorkerPool, outcome: Outcome) -> int:
    """Return after how many nanoseconds everything repeats, or 0 if it did not through the last two hours.

    From the sixteenth silence on the eight workers go round a ring of eighteen peers each of which always wants
    something, so what follows depends on nothing but whose turn it is and when each worker is free. Here both are
    compared, and when each block arrived, to the nanosecond.
    """
    since_ns = current_loop().time_ns() - 2 * HOUR * NS
    if since_ns < silence_ns(SILENT):
        return 0
    picks = [pick for pick in pool.picks if pick[0] >= since_ns]
    arrived = {at_ns for at_ns in outcome.arrivals if at_ns >= since_ns}
    ring = SILENT + HONEST
    for distance in range(ring, len(picks) // 4, ring):
        period = picks[-1][0] - picks[-1 - distance][0]
        pairs = zip(picks, picks[distance:], strict=False)
        picked_again = all(after == (at_ns + period, peer_id) for (at_ns, peer_id), after in pairs)
        if picked_again and all(at_ns - period in arrived for at_ns in arrived if at_ns - period >= since_ns):
            return period
    return 0


async def tell(outcome: Outcome, every_event: bool, progress: Callable[[str], object]) -> None:
    """Live through the days of one policy."""
    loop = current_loop()
    current_net().set_link(Link(latency=LATENCY))
    file, wanted = blocks("file", FILE_BLOCKS, BLOCK_BYTES), blocks("wanted", WANTS, outcome.wanted_bytes)
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(sim_host("server"))
        pool = await stack.enter_async_context(serving(outcome, server, [*file, *wanted]))
        address = str(server.addresses[0])
        lives = []
        for number in range(HONEST):
            host = await stack.enter_async_context(sim_host(f"honest {number + 1}"))
            lives.append(HonestPeer(host, file, outcome).live(address))
        for number in range(1, SILENT + 1):
            peer = PeerThatFallsSilent(number, [block.cid for block in wanted])
            lives.append(peer.live(address.split("/")[2], int(address.split("/")[4])))
        tasks = [loop.create_task(life, name=f"life {number}") for number, life in enumerate(lives)]
        hours = outcome.days * DAY // HOUR
        while outcome.ran_hours < hours and not outcome.period_ns:
            await loop.pass_time(outcome.ran_hours * HOUR + HOUR - loop.time())
            outcome.ran_hours += 1
            progress(f"policy {outcome.policy}: hour {outcome.ran_hours:,} of {hours:,}")
            if pool is not None and not every_event:
                outcome.period_ns = period_of(pool, outcome)
        ended_ns = loop.time_ns()
        outcome.ping_seconds = await host.ping(server.peer_id)
        for task in tasks:
            if task.done():
                task.result()  # a life that has ended has failed
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    repeat(outcome, ended_ns)


def repeat(outcome: Outcome, ended_ns: int) -> None:
    """Drop what came when the days were over; add what repeats where they were not lived through to the end."""
    arrivals = [at_ns for at_ns in outcome.arrivals if at_ns < ended_ns]
    if outcome.period_ns:
        last = [at_ns for at_ns in arrivals if at_ns >= ended_ns - outcome.period_ns]
        times = math.ceil((outcome.days * DAY * NS - ended_ns) / outcome.period_ns)
        later = [at_ns + again * outcome.period_ns for again in range(1, times + 1) for at_ns in last]
        arrivals += [at_ns for at_ns in later if at_ns < outcome.days * DAY * NS]
    outcome.arrivals = arrivals


def live_through(
    outcome: Outcome, *, every_event: bool = False, progress: Callable[[str], object] = lambda _text: None
) -> Outcome:
    """Fill in what happens, and return it.

    Args:
        outcome: an empty one.
        every_event: run all hours, also those that repeat what came before to the nanosecond.
        progress: told how far it is.
    """
    started, cpu_started = time.perf_counter(), time.process_time()
    limit = (outcome.days + 1) * DAY
    run(lambda: tell(outcome, every_event, progress), seed="why close never waits", limit_seconds=limit)
    outcome.real_seconds = time.perf_counter() - started
    outcome.cpu_seconds = time.process_time() - cpu_started
    return outcome


# -- what is shown ---------------------------------------------------------------------------------------------------

EIGHTHS = " ▁▂▃▄▅▆▇█"
CHART_COLUMNS, CHART_LINES = 60, 3
COLOURS = {1: "red", 2: "yellow", 3: "green"}
console = Console(highlight=False, soft_wrap=True)


def clock(ns: int) -> str:
    """Return a virtual time as hours and minutes."""
    return f"{ns // (HOUR * NS)}:{ns // (60 * NS) % 60:02}"


def by_day(outcomes: Sequence[Outcome]) -> Table:
    """Return the blocks of each day."""
    table = Table("day", title="blocks that the two honest peers got where close …")
    for outcome in outcomes:
        name = f"{outcome.policy}: {POLICIES[outcome.policy]}"
        table.add_column(name, justify="right", style=COLOURS[outcome.policy])
    for day, counts in enumerate(zip(*(outcome.per(DAY) for outcome in outcomes), strict=True), 1):
        table.add_row(str(day), *(f"{count:,}" for count in counts))
    table.add_section()
    table.add_row("all", *(f"{outcome.served:,}" for outcome in outcomes))
    table.add_row("of those wanted", *(f"{outcome.served / outcome.asked:.1%}" for outcome in outcomes))
    table.add_row("after 8th silence", *(f"{outcome.since(WORKERS):,}" for outcome in outcomes))
    table.add_row("a minute after 16th", *(f"{outcome.minutely():.2f}" for outcome in outcomes))
    return table


def chart(counts: Sequence[int], highest: int) -> list[str]:
    """Return lines of bars, the top one first; a column without a block has a dot."""
    levels = [math.ceil(count * CHART_LINES * 8 / highest) for count in counts]
    lines = []
    for line in reversed(range(CHART_LINES)):
        lines.append("".join(EIGHTHS[max(0, min(8, level - line * 8))] for level in levels))
    lines[-1] = "".join("·" if level == 0 else bar for level, bar in zip(levels, lines[-1], strict=True))
    return lines


def plot(outcomes: Sequence[Outcome]) -> None:
    """Print a chart for each policy, all to one scale."""
    hours = math.ceil(outcomes[0].days * 24 / CHART_COLUMNS)
    highest = max(max(outcome.per(hours * HOUR)) for outcome in outcomes)
    console.print(f"\nblocks in every {hours} h of {outcomes[0].days} days; the highest bar is {highest:,}, · is none")
    for outcome in outcomes:
        console.print(f"\n{outcome.policy}: {POLICIES[outcome.policy]}")
        for line in chart(outcome.per(hours * HOUR), highest):
            console.print(line, style=COLOURS[outcome.policy])


def how_it_ran(outcome: Outcome) -> str:
    """Return what of the days was run."""
    real = f"{outcome.real_seconds:.1f} s, of the processor {outcome.cpu_seconds:.1f} s"
    text = f"policy {outcome.policy}: {real}; {outcome.ran_hours} h were run event by event"
    if outcome.period_ns:
        text += f", then all repeats every {outcome.period_ns / NS:g} s, to the nanosecond, and is counted on"
    return text


def answer(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the answer to the question, in the figures that were measured."""
    one, two, three = outcomes
    slowest_minutes = max(two.fetches) / (60 * NS)
    return [
        f"Until it answers: {one.since(WORKERS):,} blocks came in what was left of {one.days} days after the eighth "
        f"silence, at {clock(silence_ns(WORKERS))}. A ping of the server took {one.ping_seconds * 1000:.0f} ms.",
        f"10 s at most: {two.minutely():.2f} blocks a minute instead of {three.minutely():.2f}, and a file took up to "
        f"{slowest_minutes:.0f} minutes. Each silent peer holds a worker until a deadline, again and again.",
        f"Not at all: {three.served:,} of {three.asked:,} blocks, every file within {max(three.fetches) / 1e6:g} ms "
        f"(the first, before any silence: {three.fetches[0] / 1e6:g} ms). The sixteen cost {three.read_for_silent:,} "
        "reads of the store, and no honest peer anything.",
        "So yes, there is a better way: close() changes a state and waits for nobody, and a peer that makes no "
        "progress holds nothing that another one needs.",
    ]


def svg(outcomes: Sequence[Outcome]) -> str:
    """Return the blocks of every hour as a drawing."""
    width, height, left, top = 860, 300, 60, 30
    hours = outcomes[0].days * 24
    highest = max(max(outcome.per(HOUR)) for outcome in outcomes)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 20}" height="{top + height + 50}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="black"/>',
        f'<text x="{left - 6}" y="{top + 5}" text-anchor="end">{highest:,}</text>',
        f'<text x="{left - 6}" y="{top + height}" text-anchor="end">0</text>',
        f'<text x="{left}" y="18">blocks an hour to honest peers, over {outcomes[0].days} days</text>',
    ]
    for day in range(outcomes[0].days + 1):
        x = left + day * 24 * width / hours
        parts.append(f'<text x="{x:g}" y="{top + height + 18}" text-anchor="middle">{day}</text>')
    for row, outcome in enumerate(outcomes):
        points = []
        for hour, count in enumerate(outcome.per(HOUR)):
            y = top + height - count * height / highest
            points += [f"{left + at * width / hours:.2f},{y:.2f}" for at in (hour, hour + 1)]
        colour = {1: "#c0392b", 2: "#b7950b", 3: "#1e8449"}[outcome.policy]
        name = f"{outcome.policy}: {POLICIES[outcome.policy]}"
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{left + row * 250}" y="{top + height + 42}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main(arguments: list[str] | None = None) -> int:
    """Live through the days three times, print what came of it, and return the exit code."""
    parser = argparse.ArgumentParser(
        description="Fourteen days of a block server whose peers fall silent, three times."
    )
    parser.add_argument("--days", type=int, default=14, metavar="N", help="virtual days (14)")
    parser.add_argument("--every-event", action="store_true", help="also run hours that repeat those before; minutes")
    help_text = "size of the blocks that the sixteen want (16384); with 262144 and more they do not fit a window"
    parser.add_argument("--wanted-bytes", type=int, default=WANTED_BYTES, metavar="N", help=help_text)
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a drawing, too")
    options = parser.parse_args(arguments)
    if options.days < 1:
        parser.error("--days: at least 1")
    if not BLOCK_BYTES < options.wanted_bytes <= 1 << 20:
        parser.error(f"--wanted-bytes: more than {BLOCK_BYTES}, and at most 1048576")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    outcomes = []
    with console.status("starting") as status:
        for policy in POLICIES:
            outcome = Outcome(policy, options.days, options.wanted_bytes)
            outcomes.append(live_through(outcome, every_event=options.every_event, progress=status.update))
    console.print(by_day(outcomes))
    plot(outcomes)
    console.print("\nHow long should close wait for a peer? Is there a better way?", style="bold")
    for line in answer(outcomes):
        console.print(f"- {line}", soft_wrap=False)
    console.print()
    for outcome in outcomes:
        console.print(how_it_ran(outcome), style="dim")
    real_seconds = sum(outcome.real_seconds for outcome in outcomes)
    cpu_seconds = sum(outcome.cpu_seconds for outcome in outcomes)
    console.print(f"{real_seconds:.1f} s of real time in all, {cpu_seconds:.1f} s of CPU", style="bold")
    if options.svg is not None:
        options.svg.write_text(svg(outcomes), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
