"""What one core does of Yamux: `python benchmarks/micro/yamux.py`.

Each row is the best of several rounds, so that a busy machine disturbs it least. Both ends run in this process, without
encryption and without a socket: half of the time is each end's.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable

from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.sansio.yamux import YamuxSession

ROUNDS = 7
ROUND_SECONDS = 0.1
RECORD_BYTES = 65_519
FLUSH_BYTES = 4 * RECORD_BYTES


def best(work: Callable[[], object]) -> float:
    """Return the seconds of one call in the best round."""
    work()
    start = time.perf_counter()
    work()
    calls = max(1, int(ROUND_SECONDS / max(time.perf_counter() - start, 1e-7)))
    result = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(calls):
            work()
        result = min(result, (time.perf_counter() - start) / calls)
    return result


def carry(sender: YamuxSession, receiver: YamuxSession) -> None:
    """Carry everything one way, cut as Noise records are."""
    while sender.has_output:
        data = b"".join(sender.bytes_to_send(FLUSH_BYTES))
        for start in range(0, len(data), RECORD_BYTES):
            receiver.receive_bytes(data[start : start + RECORD_BYTES], 0.0)


def exchange(one: YamuxSession, other: YamuxSession) -> None:
    """Carry bytes both ways until nobody has more to send."""
    while one.has_output or other.has_output:
        carry(one, other)
        carry(other, one)


def sessions() -> tuple[YamuxSession, YamuxSession]:
    """Return two sessions that have heard of each other."""
    one, other = (
        YamuxSession(initiator=initiator, limits=Limits(), timeouts=Timeouts(), now=0.0) for initiator in (True, False)
    )
    exchange(one, other)
    return one, other


def bulk(write_bytes: int, streams: int) -> Callable[[], None]:
    """Return a call that moves 128 KiB on each of some streams, written in pieces and read whole."""
    one, other = sessions()
    mine = [one.open_stream() for _ in range(streams)]
    exchange(one, other)
    theirs = [other.streams[stream.id] for stream in mine]
    data = memoryview(os.urandom(128 << 10))

    def work() -> None:
        for stream in mine:
            for start in range(0, len(data), write_bytes):
                stream.write(data[start : start + write_bytes])
        carry(one, other)
        for stream in theirs:
            while stream.read(1 << 20):
                pass
        other.changed.clear()
        for stream in theirs:
            stream.events = 0
        carry(other, one)

    return work


def request() -> Callable[[], None]:
    """Return a call that opens a stream, writes 100 bytes each way, and finishes it on both sides."""
    one, other = sessions()
    payload = bytes(100)

    def work() -> None:
        mine = one.open_stream()
        mine.write(payload)
        mine.close_write()
        carry(one, other)
        theirs = other.streams[mine.id]
        theirs.read(1000)
        theirs.write(payload)
        theirs.close_write()
        carry(other, one)
        mine.read(1000)
        for session in (one, other):
            for stream in session.changed:
                stream.events = 0
            session.changed.clear()

    return work


def main() -> None:
    """Print the table."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores; both ends")
    for streams in (1, 4):
        for write_bytes in (128 << 10, 16 << 10, 1 << 10):
            seconds = best(bulk(write_bytes, streams))
            size = streams * (128 << 10)
            name = f"{streams} × 128 KiB in writes of {write_bytes:,} bytes"
            print(f"{name:44} {size / seconds / 1e9:6.2f} GB/s {seconds * 1e6:9.1f} µs")
    print(f"{'open, 100 bytes each way, finish':44} {best(request()) * 1e6:21.1f} µs")


if __name__ == "__main__":
    main()
