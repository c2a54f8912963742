"""What the disk does: `python -m benchmarks.loopback.disk SOURCE DESTINATION` copies a file as plainly as can be.

Pieces of 16 MiB, each followed by fdatasync; one JSON line says how long that took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

PIECE_BYTES = 16 << 20


def copy(source: Path, destination: Path) -> tuple[int, float]:
    """Return bytes and seconds."""
    n_bytes = 0
    start = time.perf_counter()
    with source.open("rb", buffering=0) as reading, destination.open("xb", buffering=0) as writing:
        while data := reading.read(PIECE_BYTES):
            view = memoryview(data)
            while view:
                view = view[writing.write(view) :]
            os.fdatasync(writing.fileno())
            n_bytes += len(data)
    return n_bytes, time.perf_counter() - start


def main() -> None:
    n_bytes, seconds = copy(Path(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps({"bytes": n_bytes, "seconds": seconds}))


if __name__ == "__main__":
    main()
