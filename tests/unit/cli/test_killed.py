"""Tests of `add` that is killed: what it has printed is whole, and what it has not is not there by halves."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from aiolibp2p import Cid, unixfs
from aiolibp2p.blocks import Blockstore, MemoryBlockstore
from aiolibp2p.node.repo import Repo

RUN = "import sys; from aiolibp2p.cli import main; sys.exit(main())"
KILLS = 50
REPOS = 2
"""Side by side, each with its part of the kills."""
TREES = 5
FILE_BYTES = {"empty": 0, "one": 1, "sub/many": 250_000, "sub/more": 850_000}
TREE_BYTES = sum(FILE_BYTES.values())
LARGE, SMALL = 262_144, 170
"""Bytes of a chunk: in the small ones, a tree has more blocks than one commit takes."""
GROWTH_BYTES = {LARGE: TREE_BYTES, SMALL: 6 * TREE_BYTES}
"""How much a tree makes the file of the blocks grow, about."""
LOOK_SECONDS = 0.0005


@dataclass(frozen=True)
class Round:
    """One `add` of some trees, no block of which is in another, and the moment at which it is killed."""

    repo: Path
    number: int
    chunk_bytes: int
    lines_before: int
    """How many it has printed before."""
    grown_bytes: int
    """By how much the file of the blocks has grown since."""

    @classmethod
    def drawn(cls, repo: Path, number: int) -> Round:
        drawing = random.Random(f"{repo.name} {number}")
        chunk_bytes = drawing.choice([LARGE, LARGE, LARGE, SMALL])
        grown_bytes = drawing.choice([0, *[drawing.randrange(1, GROWTH_BYTES[chunk_bytes])] * 4])
        lines_before = drawing.randrange(TREES if chunk_bytes == LARGE else 2)
        return cls(repo, number, chunk_bytes, lines_before, grown_bytes)

    def content(self, tree: int, name: str) -> bytes:
        label = f"{self.repo.name} {self.number} {tree} {name}"
        return hashlib.shake_256(label.encode()).digest(FILE_BYTES[name])

    def write(self, below: Path) -> list[Path]:
        """Write the trees to disk and return their paths."""
        for tree in range(TREES):
            for name in FILE_BYTES:
                path = below / f"tree {tree}" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.content(tree, name))
        return [below / f"tree {tree}" for tree in range(TREES)]


def killed_add(part: Round, paths: list[Path]) -> tuple[int, list[Cid]]:
    """Add, kill, and return the exit code and what was printed; it is looked at what the process does, not at a clock.

    A code of zero is that of a process which was done before the moment had come.
    """
    file = part.repo / "blocks" / "data.mdb"
    command = [sys.executable, "-c", RUN, "add", "--json", "--repo", str(part.repo)]
    command += ["--chunker", f"size-{part.chunk_bytes}", *map(str, paths)]
    # Most of the time would go to reading the same sources again.
    cached = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(part.repo.with_suffix(".pyc"))}
    before = size_bytes(file)
    printed = b""
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0, env=os.environ | cached) as process:
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        printed_lines = 0
        while printed_lines < part.lines_before or size_bytes(file) - before < part.grown_bytes:
            if not select.select([descriptor], [], [], LOOK_SECONDS)[0]:
                continue
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                break
            printed += piece
            if printed.count(b"\n") > printed_lines and printed_lines < part.lines_before:
                before = size_bytes(file)
            printed_lines = printed.count(b"\n")
        process.send_signal(signal.SIGKILL)
        printed += process.stdout.read()
    lines = printed.split(b"\n")
    assert lines.pop() == b"", "a line was cut off"
    return process.returncode, [Cid.parse(json.loads(line)["cid"]) for line in lines]


def size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def check_tree(store: Blockstore, part: Round, tree: int, root: Cid) -> None:
    """Read a tree back, every file of it."""
    names = []
    for directory in ("", "sub/"):
        async with aclosing(unixfs.ls(store, root, directory)) as entries:
            names += [directory + entry.name async for entry in entries]
    assert sorted(names) == sorted(["sub", *FILE_BYTES])
    for name in FILE_BYTES:
        async with aclosing(unixfs.cat(store, root, name)) as pieces:
            read = b"".join([piece async for piece in pieces])
        assert read == part.content(tree, name), f"{part}, tree {tree}, {name}"


async def state_of(store: Blockstore, part: Round, tree: int, path: Path) -> str:
    """Return how much of a tree that was not printed is in the store: all, a part, or nothing."""
    meant = MemoryBlockstore()
    root = await unixfs.add(meant, path, chunk_bytes=part.chunk_bytes)
    if await store.has(root):
        await check_tree(store, part, tree, root)
        return "all"
    cids = [cid async for cid in meant.cids()]
    # Every round adds the same few bytes, the empty file and the like.
    there = [size for size in await store.sizes(cids) if size is not None and size > 1]
    return "a part" if there else "nothing"


async def check_round(part: Round, printed: list[Cid], paths: list[Path]) -> str | None:
    """Look into the repo, whose lock must be free; return how much of the tree that was cut off is there."""
    with Repo.open(part.repo, create=True) as repo:
        async with repo.store() as store:
            for tree, root in enumerate(printed):
                await check_tree(store, part, tree, root)
            if len(printed) == TREES:
                return None
            return await state_of(store, part, len(printed), paths[len(printed)])


async def check_all(repo: Path, rounds: list[tuple[Round, list[Cid]]]) -> int:
    """Read back what was ever printed, and return how many trees that were."""
    with Repo.open(repo, create=False) as opened:
        async with opened.store() as store:
            for part, printed in rounds:
                for tree, root in enumerate(printed):
                    await check_tree(store, part, tree, root)
    return sum(len(printed) for _, printed in rounds)


def kill_again_and_again(below: Path, number: int) -> tuple[int, Counter[str]]:
    """Return how many completed adds were read back, and what became of those that were cut off."""
    rounds: list[tuple[Round, list[Cid]]] = []
    cut: Counter[str] = Counter()
    repo = below / f"repo {number}"
    while cut.total() < KILLS // REPOS:
        part = Round.drawn(repo, len(rounds))
        sources = below / f"sources {number}"
        paths = part.write(sources)
        code, printed = killed_add(part, paths)
        assert code in (0, -signal.SIGKILL)
        rounds.append((part, printed))
        state = asyncio.run(check_round(part, printed, paths))
        # Where the machine slept, the process was done meanwhile: that is no kill during `add`.
        if state is not None:
            cut[state] += 1
        assert len(rounds) < 2 * KILLS
        shutil.rmtree(sources)
    complete = asyncio.run(check_all(repo, rounds))
    shutil.rmtree(repo)
    return complete, cut


@pytest.mark.sockets
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_every_add_that_was_printed_is_whole_after_50_kills(tmp_path: Path) -> None:
    with ThreadPoolExecutor(REPOS) as threads:
        results = list(threads.map(partial(kill_again_and_again, tmp_path), range(REPOS)))
    complete = sum(result[0] for result in results)
    cut = sum((result[1] for result in results), Counter[str]())
    print(f"{cut.total()} kills, {complete} completed adds read back whole; of those cut off there was {dict(cut)}")
    assert cut.total() == KILLS
    assert complete > KILLS
    # Some were killed between two commits of one tree, and some before the first was durable.
    assert cut["a part"] > 0
    assert cut["nothing"] > 0
