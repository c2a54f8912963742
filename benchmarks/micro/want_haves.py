"""What one core does of want-haves: `python benchmarks/micro/want_haves.py`.

Peers ask for HAVE of blocks, in messages of some size; each wants more missing ones than are remembered, so that others
make room. Each want-have is decoded, entered into the peer's ledger, looked up (in a dictionary: the store is not what
is measured), answered, and the answer encoded; all in this process, without a stream. Each row is the best of several
rounds, in processor time, so that a busy machine disturbs it least.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from hashlib import sha256

from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.bitswap.decoder import Decoder
from aiolibp2p.sansio.bitswap.engine import Engine
from aiolibp2p.sansio.bitswap.message import Entry, Message, encode

ROUNDS = 3
CIDS = 8_192
LARGE_BYTES = 256 << 10
GOAL = 20_000
LIMITS = Limits()

Sizes = dict[bytes, int | None]


def cid_of(n: int) -> bytes:
    return b"\x01\x55\x12\x20" + sha256(b"%d" % n).digest()


def questions(per_message: int) -> list[bytes]:
    """Return messages that ask for HAVE of all CIDs, as they come from a stream."""
    messages = []
    for start in range(0, CIDS, per_message):
        entries = [Entry(cid_of(n), CIDS - n, False, True, True) for n in range(start, start + per_message)]
        messages.append(b"".join(encode(Message(entries), LIMITS.bitswap_message_bytes)))
    return messages


def serve(messages: list[bytes], sizes: Sizes, peers: int) -> int:
    """Answer all messages, of so many peers in turn; return the bytes of the answers."""
    engine: Engine[int] = Engine(LIMITS, Timeouts())
    decoders = [Decoder(LIMITS) for _ in range(peers)]
    answered = 0
    for number, data in enumerate(messages):
        peer, now = number % peers, number * 0.001
        for message in decoders[peer].receive_bytes(data):
            engine.receive(peer, message, now)
            while asked := engine.unknown(peer):
                engine.looked_up(peer, {multihash: sizes[multihash] for multihash in asked}, now)
        while (following := engine.next_batch(now)) is not None:
            to, batch = following
            buffers = encode(engine.answer(batch, {}), LIMITS.bitswap_message_bytes)
            n_bytes = sum(map(len, buffers))
            engine.accepted(to, n_bytes)
            engine.written(batch, now, n_bytes)
            answered += n_bytes
        engine.handle_timeout(now)
    return answered


def best(work: Callable[[], object]) -> float:
    """Return the processor seconds of one call in the best round."""
    seconds = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        seconds = min(seconds, time.process_time() - start)
    return seconds


def main() -> None:
    print(f"python {platform.python_version()}, {os.cpu_count()} cores; goal {GOAL:,} want-haves/s")
    here: Sizes = {cid_of(n)[2:]: LARGE_BYTES for n in range(CIDS)}
    missing: Sizes = dict.fromkeys(here)
    mixed: Sizes = {multihash: size if multihash[-1] % 2 else None for multihash, size in here.items()}
    for per_message in (1, 16, 512):
        messages = questions(per_message)
        for name, sizes in (("HAVE", here), ("DONT_HAVE", missing), ("half of each", mixed)):
            for peers in (1, 64):
                seconds = best(lambda messages=messages, sizes=sizes, peers=peers: serve(messages, sizes, peers))  # type: ignore[misc]
                print(f"{CIDS / seconds:>9,.0f} /s  {per_message:>4} a message, {peers:>2} peers, {name}")


if __name__ == "__main__":
    main()
