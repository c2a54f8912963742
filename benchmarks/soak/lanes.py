"""What goes on around the node, all at once, a lane each: peers of three stacks that are used, use it, and are killed.

Every lane draws from a generator of its own, seeded: what is done, and in which order, is the same in every run; how
far it gets in a time is the machine's. What fails while its peer is alive was not meant to; what fails because its peer
was killed was, but has to end all the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.soak.processes import Answer, Program, ProgramFailedError
from tests.interop.peers import Stack
from tests.vectors.unixfs.cases import content

OPERATION_SECONDS = 90.0
"""The longest that an operation may take whose peer has gone: beyond all of our timeouts."""
SILENT_SECONDS = 20.0
"""The longest that a socket is kept which does not become a connection: `Timeouts.upgrade`, and the machine's share."""
FILE_BYTES = (40_000, 600_000, 3_000_000)


class Tally:
    """What was done, what failed because it was meant to, and what failed."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.meant: Counter[str] = Counter()
        self.meant_seconds: dict[str, float] = {}
        """The longest that any of those took to fail."""
        self.unmeant: list[dict[str, Any]] = []
        self.killed: Counter[str] = Counter()
        self.probes: list[tuple[float, Answer]] = []
        self._started = time.monotonic()

    def begin(self) -> None:
        """Count from now on."""
        self._started = time.monotonic()
        self.probes.clear()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started

    async def attempt(self, kind: str, peer: Program | None, work: Awaitable[object]) -> bool:
        """Do something with a peer; say whether it was done."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(OPERATION_SECONDS):
                await work
        except (ProgramFailedError, OSError, AssertionError) as error:
            # That of a deadline is an OSError too: nothing may take so long, whoever was killed.
            if peer is not None and peer.doomed and not isinstance(error, TimeoutError):
                self.meant[kind] += 1
                longest = max(self.meant_seconds.get(kind, 0.0), time.monotonic() - started)
                self.meant_seconds[kind] = round(longest, 2)
            else:
                text = f"{type(error).__name__}: {error}"[:500]
                self.unmeant.append({"seconds": round(self.seconds, 1), "what": kind, "error": text})
            return False
        self.done[kind] += 1
        return True


class Lane:
    """One sort of peer, over and over until it is told to stop; its programs outlive a round."""

    name = ""

    def __init__(self, node: Program, tally: Tally, *, seed: str, load: float) -> None:
        self.node = node
        self.tally = tally
        self.random = random.Random(f"{seed}/{self.name}")
        self._load = load
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Work until `stop`."""
        self._ended.clear()
        while not self._ended.is_set():
            await self.step()

    def stop(self) -> None:
        """Begin nothing any more."""
        self._ended.set()

    async def step(self) -> None:
        """Do one thing."""
        raise NotImplementedError

    async def rest(self, least: float, most: float) -> None:
        """Wait as long as the load asks for, or until the end of the round."""
        try:
            async with asyncio.timeout(self.random.uniform(least, most) / self._load):
                await self._ended.wait()
        except TimeoutError:
            pass

    async def quiet(self) -> None:
        """Take back what would be left at the end of a round."""

    async def close(self) -> None:
        """End the programs."""

    def chance(self, part: float) -> bool:
        """Draw."""
        return self.random.random() < part


class Used(Lane):
    """A listener of another stack: the node dials it, uses its streams, fetches its files; at times it is killed."""

    KILLED = 0.12

    def __init__(self, stack: Stack, node: Program, tally: Tally, *, seed: str, load: float) -> None:
        self.name = f"{stack} listener"
        self._stack: Stack = stack
        self._peer: Program | None = None
        self._files: list[Answer] = []
        self._fetched: set[str] = set()
        """What was fetched on the connection there is. Helia gives a block once: to a second want for it, without a
        cancel between them, its ledger answers that it was sent."""
        self._started = 0
        super().__init__(node, tally, seed=seed, load=load)

    async def step(self) -> None:
        """Use it once, or kill it in the middle."""
        if self._peer is None:
            self._peer = await self._start()
        peer = self._peer
        kind, work = self._draw(peer)
        attempt = asyncio.create_task(self.tally.attempt(f"we {kind} {self._stack}", peer, work))
        if self.chance(self.KILLED):
            await asyncio.sleep(self.random.uniform(0.0, 0.15))
            self._peer = None
            self.tally.killed[peer.name] += 1
            await peer.kill()
        await attempt
        await self.rest(0.5, 2.0)

    def _draw(self, peer: Program) -> tuple[str, Awaitable[object]]:
        which = self.random.randrange(6)
        if which < 2:
            file = self.random.choice(self._files)
            return "fetch from", self._fetch(peer, file)
        if which == 2:
            return "ping", self.node.ask("ping", peer.address, self.random.randint(1, 20))
        if which == 3:
            return "are reset by", self.node.ask("reset", peer.address, self.random.randint(0, 1 << 20))
        if which == 4:
            return "redial", self.node.ask("redial", peer.address, self.random.randint(1, 4))
        count, size = self.random.choice(((1, 300_000), (4, 20_000), (16, 32)))
        return "echo with", self.node.ask("echo", peer.address, count, size)

    async def _fetch(self, peer: Program, file: Answer) -> None:
        if self._stack == "js" and file["cid"] in self._fetched:
            await self.node.ask("disconnect", peer.address)
            self._fetched.clear()
        self._fetched.add(file["cid"])
        answer = await self.node.ask("fetch", peer.address, file["cid"], seconds=OPERATION_SECONDS)
        if answer["sha256"] != file["sha256"]:
            raise AssertionError(f"{answer['bytes']} bytes of a file that are not its bytes")

    async def _start(self) -> Program:
        peer = await Program.listener(self._stack)
        self._started += 1
        self._files = []
        self._fetched.clear()
        for size in FILE_BYTES:
            seed = f"{self.name}/{self._started}/{size}"
            added = await peer.ask("generate", seed, size)
            digest = hashlib.sha256(b"".join(content(seed, size))).hexdigest()
            self._files.append({"cid": added["cid"], "sha256": digest})
        return peer

    async def quiet(self) -> None:
        """Let the node leave it."""
        if self._peer is not None:
            await self.node.ask("disconnect", self._peer.address)

    async def close(self) -> None:
        """End it."""
        if self._peer is not None:
            await self._peer.close()


class Users(Lane):
    """A program of another stack, or of ours, that dials the node for each thing it does; now and then it is killed."""

    KILLED = 0.12

    def __init__(
        self,
        stack: Stack | None,
        start: Callable[[], Awaitable[Program]],
        node: Program,
        tally: Tally,
        *,
        files: list[Answer],
        seed: str,
        load: float,
    ) -> None:
        self.name = f"{stack or 'own'} dialer"
        self._stack = stack
        self._start = start
        self._files = files
        self._peer: Program | None = None
        super().__init__(node, tally, seed=seed, load=load)

    async def step(self) -> None:
        """Let it use the node once, or kill it in the middle; sometimes it falls silent first."""
        if self._peer is None:
            self._peer = await self._start()
        peer = self._peer
        kind, work = self._draw(peer)
        attempt = asyncio.create_task(self.tally.attempt(kind, peer, work))
        if self.chance(self.KILLED):
            await asyncio.sleep(self.random.uniform(0.0, 0.3))
            self._peer = None
            self.tally.killed[peer.name] += 1
            if self.chance(0.5):
                peer.freeze()
                await self.rest(1.0, 10.0)
            await peer.kill()
        await attempt
        if kind == "own peer stalls":
            self._peer = None
            await self.rest(0.5, 8.0)
            self.tally.killed[peer.name] += 1
            await peer.kill()
        await self.rest(1.0, 3.0)

    def _draw(self, peer: Program) -> tuple[str, Awaitable[object]]:
        which = self.random.randrange(6)
        address = self.node.address
        name = self._stack or "own peer"
        if which < 3:
            file = self.random.choice(self._files)
            return f"{name} fetches", self._fetch(peer, file)
        if self._stack is None:
            if which == 3:
                return "own peer redials", peer.ask("redial", address, self.random.randint(1, 5))
            if which == 4:
                return "own peer stalls", peer.ask("stall", address, self.random.randint(1, 8), 400_000)
            return "own peer echoes", peer.ask("echo", address, self.random.randint(1, 16), 5000)
        flag = "-" if self._stack == "go" else "--"
        many = self.random.choice((1, 4, 16))
        if which == 3:
            return f"{name} pings", peer.ask("ping", address, self.random.randint(1, 20))
        return f"{name} streams", self._streams(peer, f"{flag}concurrency={many}", 4 * many)

    async def _streams(self, peer: Program, flag: str, count: int) -> None:
        answer = await peer.ask(flag, "streams", self.node.address, count)
        if answer["failed"]:
            raise AssertionError(f"{answer['failed']} of {count} streams: {answer.get('lastError')}")

    async def _fetch(self, peer: Program, file: Answer) -> None:
        words = ["fetch"] if self._stack is None else ["get"]
        rest = [] if self._stack is None else ["-"]
        answer = await peer.ask(*words, self.node.address, file["cid"], *rest, seconds=OPERATION_SECONDS)
        if answer["sha256"] != file["sha256"]:
            raise AssertionError(f"{answer['bytes']} bytes of a file that are not its bytes")

    async def quiet(self) -> None:
        """Let it leave the node."""
        if self._peer is not None and self._stack is None:
            await self._peer.ask("disconnect", self.node.address)

    async def close(self) -> None:
        """End it."""
        if self._peer is not None:
            await self._peer.close()


class Silent(Lane):
    """Sockets that say nothing, half a greeting or garbage: the node drops them, or they reset themselves."""

    name = "silent sockets"
    SAYS = (b"", b"\x13/multistream/1.0.0\n", b"\x13/multistream/1.0.0\n\x07/noise\n\x00", b"GET / HTTP/1.1\r\n\r\n")

    async def step(self) -> None:
        """Open some, and wait until the node has dropped them, or reset them."""
        count = self.random.randint(1, 6)
        await asyncio.gather(*(self._one(self.random.choice(self.SAYS), self.chance(0.5)) for _ in range(count)))
        await self.rest(0.5, 3.0)

    async def _one(self, says: bytes, resets: bool) -> None:
        parts = self.node.address.split("/")
        reader, writer = await asyncio.open_connection(parts[2], int(parts[4]))
        writer.write(says)
        if resets:
            await self.rest(0.0, 2.0)
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
            self.tally.done["a socket resets"] += 1
        else:
            await self.tally.attempt("a silent socket is dropped", None, self._dropped(reader))
            writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass

    @staticmethod
    async def _dropped(reader: asyncio.StreamReader) -> None:
        async with asyncio.timeout(SILENT_SECONDS):
            try:
                while await reader.read(4096):
                    pass
            except ConnectionError:
                pass


class Probe(Lane):
    """An honest peer of ours, which measures what it waits for."""

    name = "probe"
    EVERY_SECONDS = 1.0

    def __init__(self, node: Program, tally: Tally, *, peer: Program, cid: str, seed: str, load: float) -> None:
        super().__init__(node, tally, seed=seed, load=load)
        self._peer = peer
        self._cid = cid

    async def step(self) -> None:
        """Measure once."""
        await self.tally.attempt("probe", self._peer, self._measure())
        try:
            async with asyncio.timeout(self.EVERY_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            pass

    async def _measure(self) -> None:
        answer = await self._peer.ask("probe", self.node.address, self._cid)
        self.tally.probes.append((self.tally.seconds, answer))

    async def close(self) -> None:
        """End it."""
        await self._peer.close()
