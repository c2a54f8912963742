"""Our client in the comparison of fetching: `python -m benchmarks.loopback.node` runs commands from stdin.

A command is one JSON array a line, `["get", ADDR, CID, REPO, FILE]`, answered by one JSON line: what
`aiolibp2p get CID --from ADDR --repo REPO -o FILE` does, the clock running from connected and identified until the file
is there and every block is durable in the repo, which must be new.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from aiolibp2p import Host, unixfs
from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks import Cid
from aiolibp2p.node.repo import Repo
from benchmarks.versus.node import in_loop, say


async def get(address: str, cid: str, repo: str, out: str) -> dict[str, Any]:
    with Repo.open(Path(repo), create=True) as opened:
        async with opened.store() as store, Host() as host, Bitswap(host, store, serve=False) as bitswap:
            await host.identify(address)
            peer = (await host.connect(address)).peer_id
            cpu, start = time.process_time(), time.perf_counter()
            async with bitswap.session([peer]) as session:
                n_bytes = await unixfs.get(session, Cid.parse(cid), out)
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
            # Looked for after the clock has stopped, in what was committed.
            blocks = len([kept async for kept in store.cids()])
    return {"bytes": n_bytes, "seconds": seconds, "cpuSeconds": cpu_seconds, "blocks": blocks}


async def run(words: list[str]) -> dict[str, Any]:
    command, *arguments = words
    if command != "get":
        return {"error": f"no such command: {command}"}
    try:
        return await get(*arguments)
    except Exception as error:  # noqa: BLE001  the one who asked reports it
        return {"error": repr(error)}


def main() -> None:
    for line in sys.stdin:
        say(in_loop("uvloop", run(json.loads(line))))


if __name__ == "__main__":
    main()
