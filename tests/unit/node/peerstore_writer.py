"""Keep what is known of two peers in a directory, and be killed: `peerstore_writer.py DIRECTORY`.

Prints the ID of the one that was written; the other had been learnt of just before the end.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys

from aiolibp2p import Multiaddr, PrivateKey, Timeouts
from aiolibp2p.net.known import Source
from aiolibp2p.node.peerstore import LmdbPeerstore
from aiolibp2p.sansio.identify import Identify

DIALLED = Multiaddr("/ip4/8.8.0.1/tcp/4001")
SAID = Multiaddr("/ip4/8.8.0.2/tcp/4001")


async def main(path: str) -> None:
    """Learn, write, learn more, and end."""
    written, lost = (PrivateKey.generate().public.peer_id for _ in range(2))
    disk = LmdbPeerstore(path, timeouts=Timeouts(peerstore_write=math.inf))
    store = await disk.open()
    store.connected(written)
    store.dial_succeeded(written, DIALLED)
    store.identified(written, Identify(listen_addresses=(SAID,)), DIALLED)
    await disk.flush()
    store.add_addresses(lost, [SAID], source=Source.FOUND)
    print(written, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
