"""The content that is served: made from a seed, the same bytes as the programs of Go and js make from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from aiolibp2p.blocks import Cid
from aiolibp2p.node.repo import Repo

PIECE_BYTES = 1 << 20
BATCH_BYTES = 16 << 20
READ_BYTES = 1 << 20


def pieces(seed: str, n_bytes: int) -> Iterator[bytes]:
    """Yield SHAKE128 of "SEED/0", "SEED/1", …, a MiB of each, cut at the size."""
    for number, at in enumerate(range(0, n_bytes, PIECE_BYTES)):
        yield hashlib.shake_128(f"{seed}/{number}".encode()).digest(min(PIECE_BYTES, n_bytes - at))


def write_file(path: Path, seed: str, n_bytes: int) -> str:
    """Write a file of these bytes and return its SHA-256."""
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for piece in pieces(seed, n_bytes):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(READ_BYTES):
            digest.update(data)
    return digest.hexdigest()


def numbered(seed: str, count: int, block_bytes: int) -> Iterator[bytes]:
    """Yield the blocks that SEED COUNT SIZE name in the programs of Go and js."""
    for number in range(count):
        yield b"".join(pieces(f"{seed}/block/{number}", block_bytes))


async def put_numbered(repo: Path, seed: str, count: int, block_bytes: int) -> None:
    """Put numbered blocks into a repo, which is made if it is not there."""
    with Repo.open(repo, create=True) as opened:
        async with opened.store() as store:
            batch: list[tuple[Cid, bytes]] = []
            for data in numbered(seed, count, block_bytes):
                batch.append((Cid.from_data(data), data))
                if len(batch) * block_bytes >= BATCH_BYTES:
                    await store.put_many(batch)
                    batch.clear()
            if batch:
                await store.put_many(batch)
