"""Write to one store from one process after another, and kill each: `crash_writer.py STORE ROUNDS`.

Prints, for each round, how many batches each of its writers was told are durable. Imported, it says what they are.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
import traceback
from itertools import count

from aiolibp2p.blocks import Cid, LmdbBlockstore

WRITERS = 2
BLOCK_BYTES = 32 << 10
BLOCKS_A_BATCH = (1, 4, 16, 64)


def batch_of(round_: int, writer: int, n: int) -> list[tuple[Cid, bytes]]:
    """Return the blocks of one batch."""
    blocks = []
    for block in range(BLOCKS_A_BATCH[round_ % len(BLOCKS_A_BATCH)]):
        seed = hashlib.sha256(f"{round_}.{writer}.{n}.{block}".encode()).digest()
        data = seed * (BLOCK_BYTES // len(seed))
        blocks.append((Cid.from_data(data), data))
    return blocks


async def write_for_ever(path: str, round_: int, pipe: int) -> None:
    """Put batch after batch, and tell of each that is durable."""

    async def write(writer: int) -> None:
        for n in count():
            await store.put_many(batch_of(round_, writer, n))
            os.write(pipe, bytes((writer,)))

    async with LmdbBlockstore(path) as store:
        await asyncio.gather(*(write(writer) for writer in range(WRITERS)))


def main(path: str, rounds: int) -> None:
    """Let a process write, kill it, and print what it was told; a fork spares the imports."""
    for round_ in range(rounds):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                asyncio.run(write_for_ever(path, round_, writing))
            except BaseException:  # noqa: BLE001 - a child must not go on as its parent
                traceback.print_exc()
            os._exit(1)
        os.close(writing)
        # Some are killed before their first commit ends, others after a few.
        told = b"".join(os.read(reading, 1) for _ in range(round_ % 5))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        while more := os.read(reading, 1024):
            told += more
        os.close(reading)
        killed = os.WIFSIGNALED(status)
        print(json.dumps({"killed": killed, "told": [told.count(writer) for writer in range(WRITERS)]}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
