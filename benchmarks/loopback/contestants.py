"""Who fetches from whom, and what: the programs of one repetition, and how each fetches once."""

from __future__ import annotations

import asyncio
import math
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.loopback.content import put_numbered, sha256_of, write_file
from benchmarks.loopback.processes import AnonymousMemory, Daemon, OwnProgram, cli, finish
from benchmarks.versus.programs import ROOT, START_SECONDS, Program, machine_cpu_seconds
from tests.interop.peers import HERE, PeerProgramError, dialer_command, listener_command, node_program

Server = Literal["aiolibp2p", "boxo", "Helia"]
Client = Literal["aiolibp2p", "command", "boxo", "Helia", "disk"]
GO_SECONDS = 280
SEED = "loopback"
WINDOW = 256
"""Blocks that boxo's client wants at once: of more than 1,024 servers drop some, and it says them anew late."""
WARM_PART = 5
"""What is fetched before a measurement is this part of what is measured."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """A file in blocks of one size, its blocks in the repo that the daemon serves."""

    seed: str
    n_bytes: int
    block_bytes: int
    path: Path
    sha256: str
    cid: str
    blocks: int
    """How many there are, those of its nodes included."""

    @property
    def numbered(self) -> int:
        """How many numbered blocks are about as much."""
        return math.ceil(self.n_bytes / self.block_bytes)


class Material:
    """What all repetitions fetch, in a folder."""

    def __init__(self, folder: Path, n_bytes: int) -> None:
        self.folder = folder
        self.repo = folder / "served"
        self._sizes = {False: n_bytes, True: max(1, n_bytes // WARM_PART)}
        self._files: dict[str, tuple[Path, str]] = {}
        self._contents: dict[tuple[int, bool], Content] = {}
        self._fetched = 0

    def content(self, block_bytes: int, *, warm: bool) -> Content:
        """Return the file, or the one that warms up, added and numbered blocks put when it is asked for first.

        Raises:
            PeerProgramError: `aiolibp2p add` failed.
        """
        key = block_bytes, warm
        if key not in self._contents:
            self._contents[key] = self._add(block_bytes, warm=warm)
        return self._contents[key]

    def _add(self, block_bytes: int, *, warm: bool) -> Content:
        seed = f"{SEED}/warm" if warm else SEED
        if seed not in self._files:
            path = self.folder / seed.replace("/", "-")
            self._files[seed] = path, write_file(path, seed, self._sizes[warm])
        path, sha256 = self._files[seed]
        chunker = f"--chunker=size-{block_bytes}"
        answer = finish(cli("add", "--repo", self.repo, chunker, "--json", path)).answer
        added = Content(
            seed=seed,
            n_bytes=self._sizes[warm],
            block_bytes=block_bytes,
            path=path,
            sha256=sha256,
            cid=str(answer["cid"]),
            blocks=int(answer["blocks"]),
        )
        asyncio.run(put_numbered(self.repo, seed, added.numbered, block_bytes))
        return added

    def new_place(self) -> Path:
        """Return a folder for one fetch."""
        self._fetched += 1
        place = self.folder / f"fetched-{self._fetched}"
        place.mkdir()
        return place


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measurement."""

    repetition: int
    value: float
    """MB/s."""
    seconds: float
    client_cpu_seconds: float
    """Processor time within the clock; of a command, all of it."""
    server_cpu_seconds: float
    client_anonymous_bytes: int
    """The most RssAnon at any time of the warm-up and the measurement."""
    server_anonymous_bytes: int
    others_cores: float
    """How many cores everything else on the machine kept busy meanwhile; near 0, or the sample says little."""


class Stage:
    """The programs of one repetition, each started when first asked for."""

    def __init__(self, material: Material) -> None:
        self._material = material
        self._programs: dict[str, Program] = {}
        self._addresses: dict[str, str] = {}
        self._loaded: set[tuple[str, str]] = set()

    def close(self) -> None:
        """End all of them."""
        for program in self._programs.values():
            program.close()
        self._programs.clear()
        self._addresses.clear()
        self._loaded.clear()

    def measure(self, server: Server, client: Client, block_bytes: int, repetition: int) -> Sample:
        """Warm up, then measure once.

        Raises:
            PeerProgramError: a program failed, or what came is not what was fetched.
        """
        material = self._material
        content = material.content(block_bytes, warm=False)
        if client == "disk":
            return self._plain_copy(content, repetition)
        fetch = _Fetch(self, server, client)
        warm = material.content(block_bytes, warm=True)
        with AnonymousMemory(fetch.pids) as memory:
            fetch.once(warm, material.new_place())
            before = fetch.cpu_seconds, machine_cpu_seconds()
            start = time.perf_counter()
            answer = fetch.once(content, material.new_place())
            whole_seconds = time.perf_counter() - start
            used, all_used = fetch.used_since(before[0], answer), machine_cpu_seconds() - before[1]
        peaks = [memory.peak_bytes[pid] for pid in fetch.pids]
        seconds = float(answer["seconds"])
        return Sample(
            repetition=repetition,
            value=float(answer["bytes"]) / seconds / 1e6,
            seconds=seconds,
            client_cpu_seconds=float(answer["cpuSeconds"]),
            server_cpu_seconds=used[0],
            client_anonymous_bytes=int(answer.get("anonymous_bytes", peaks[-1])),
            server_anonymous_bytes=peaks[0],
            others_cores=max(0.0, (all_used - sum(used)) / whole_seconds),
        )

    def _plain_copy(self, content: Content, repetition: int) -> Sample:
        place = self._material.new_place()
        before, start = machine_cpu_seconds(), time.perf_counter()
        module = [sys.executable, "-m", "benchmarks.loopback.disk"]
        copied = finish([*module, str(content.path), str(place / "copy")])
        others = machine_cpu_seconds() - before - copied.cpu_seconds
        whole_seconds = time.perf_counter() - start
        shutil.rmtree(place)
        return Sample(
            repetition=repetition,
            value=content.n_bytes / copied.answer["seconds"] / 1e6,
            seconds=copied.answer["seconds"],
            client_cpu_seconds=copied.cpu_seconds,
            server_cpu_seconds=0.0,
            client_anonymous_bytes=copied.anonymous_bytes,
            server_anonymous_bytes=0,
            others_cores=max(0.0, others / whole_seconds),
        )

    # -- programs ----------------------------------------------------------------------------------------------------

    def server(self, kind: Server) -> tuple[Program, str, int]:
        """Return a program that serves, where, and its process ID."""
        if kind == "aiolibp2p":
            daemon = self._program("daemon", lambda: Daemon(self._material.repo))
            assert isinstance(daemon, Daemon)
            return daemon, daemon.address, daemon.pid
        name = f"the server of {kind}"
        stack, flag = ("go", "-bitswap") if kind == "boxo" else ("js", "--bitswap")
        command = listener_command("go" if kind == "boxo" else "js", "listen", (flag,))
        program = self._program(name, lambda: OwnProgram(name, command, HERE / stack))
        assert isinstance(program, OwnProgram)
        if name not in self._addresses:
            self._addresses[name] = str(program.next_line(START_SECONDS)["addr"])
        return program, self._addresses[name], program.pid

    def client(self, kind: Client) -> OwnProgram:
        """Return a program that takes commands to fetch."""
        name = f"the client of {kind}"
        commands: dict[Client, Callable[[], list[str]]] = {
            "aiolibp2p": lambda: [sys.executable, "-m", "benchmarks.loopback.node"],
            "boxo": lambda: dialer_command("go"),
            "Helia": lambda: [str(node_program()), "fetching.mjs"],
        }
        folders: dict[Client, Path] = {"aiolibp2p": ROOT, "boxo": HERE / "go", "Helia": HERE / "js"}
        program = self._program(name, lambda: OwnProgram(name, commands[kind](), folders[kind]))
        assert isinstance(program, OwnProgram)
        return program

    def load(self, kind: Server, content: Content, *, as_numbered: bool) -> None:
        """Let another stack's server have what is to be fetched; the daemon has it.

        Raises:
            PeerProgramError: it makes another CID of it.
        """
        key = f"{kind} {content.block_bytes} {as_numbered}", content.seed
        if kind == "aiolibp2p" or key in self._loaded:
            return
        program = self.server(kind)[0]
        if as_numbered:
            words = ["blocks", content.seed, str(content.numbered), str(content.block_bytes)]
        else:
            flag = "-" if kind == "boxo" else "--"
            words = [f"{flag}chunk-bytes={content.block_bytes}", "generate", content.seed, str(content.n_bytes)]
        answer = program.ask(words)
        if not as_numbered and answer["cid"] != content.cid:
            raise PeerProgramError(f"{kind} makes {answer['cid']} of what we make {content.cid} of")
        self._loaded.add(key)

    def _program(self, name: str, make: Callable[[], Program]) -> Program:
        if name not in self._programs:
            self._programs[name] = make()
        return self._programs[name]


class _Fetch:
    """One client and one server."""

    def __init__(self, stage: Stage, server: Server, client: Client) -> None:
        self._stage = stage
        self._kind = server
        self._client_kind = client
        self._server, self._address, server_pid = stage.server(server)
        self._client = None if client == "command" else stage.client(client)
        self.pids = [server_pid] if self._client is None else [server_pid, self._client.pid]

    @property
    def cpu_seconds(self) -> tuple[float, float]:
        """Processor time of server and client so far."""
        return self._server.cpu_seconds, 0.0 if self._client is None else self._client.cpu_seconds

    def used_since(self, before: tuple[float, float], answer: dict[str, Any]) -> tuple[float, float]:
        server, client = self.cpu_seconds
        return server - before[0], answer["cpuSeconds"] if self._client is None else client - before[1]

    def once(self, content: Content, place: Path) -> dict[str, Any]:
        """Fetch, and check what came.

        Raises:
            PeerProgramError: it failed, or something else came.
        """
        self._stage.load(self._kind, content, as_numbered=self._client_kind == "boxo")
        out, repo = place / "out", place / "repo"
        try:
            answer = self._ask(content, out, repo)
            expected = content.numbered * content.block_bytes if self._client_kind == "boxo" else content.n_bytes
            if answer["bytes"] != expected:
                raise PeerProgramError(f"{answer['bytes']} bytes came of {expected}")
            if out.exists() and sha256_of(out) != content.sha256:
                raise PeerProgramError("the file that came is another one")
            if answer.get("blocks", content.blocks) != content.blocks and self._client_kind == "aiolibp2p":
                raise PeerProgramError(f"{answer['blocks']} blocks are in the repo, of {content.blocks}")
        finally:
            shutil.rmtree(place)
        return answer

    def _ask(self, content: Content, out: Path, repo: Path) -> dict[str, Any]:
        address = self._address
        if self._client is None:
            words = ("get", content.cid, "--from", address, "--repo", repo, "-o", out, "--json")
            done = finish(cli(*words))
            return done.answer | {"cpuSeconds": done.cpu_seconds, "anonymous_bytes": done.anonymous_bytes}
        if self._client_kind == "boxo":
            numbered = [content.seed, str(content.numbered), str(content.block_bytes)]
            flags = [f"-timeout={GO_SECONDS}s", f"-window={WINDOW}"]
            answer = self._client.ask([*flags, "windowed", address, *numbered])
            return answer | {"cpuSeconds": answer["cpu"]}
        if self._client_kind == "Helia":
            return self._client.ask([address, content.cid, str(out)])
        return self._client.ask(["get", address, content.cid, str(repo), str(out)])
