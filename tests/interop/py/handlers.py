"""The protocols that a py-libp2p listener (and a dialler) answers."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p.identity.identify.identify import parse_identify_response
from libp2p.identity.identify_push.identify_push import push_identify_to_peer
from libp2p.network.stream.exceptions import StreamEOF, StreamError
from libp2p.perf import PerfService

from tests.interop.py.common import (
    AFTER_EOF,
    AWAIT_RESET,
    ECHO,
    HALF_CLOSE,
    IDENTIFY,
    PERF,
    PING,
    POLL_SECONDS,
    PUSH,
    PUSHED,
    READ_BYTES,
    REPORT,
    RESET,
    SINK,
    STALL,
    collect,
    connection_to,
    describe,
    digest,
    left_open,
    read_all,
    read_exactly,
    say,
    send_bytes,
    wait_for_end,
)

IDENTIFIED_SECONDS = 5.0
HEAD_BYTES = 256

Handler = Callable[[Any], Awaitable[None]]


class Handlers:
    """Handlers of one host; what they note of a peer is told to that peer by REPORT."""

    def __init__(self, host: Any, *, log: bool = False) -> None:
        self._host = host
        self._log = log
        self._seen: dict[Any, dict[str, Any]] = {}
        self._active: Counter[Any] = Counter()

    async def register(self) -> None:
        """Register every handler."""
        for protocol, handler in (
            (ECHO, echo),
            (SINK, sink),
            (AFTER_EOF, after_eof),
            (HALF_CLOSE, self._half_close),
            (RESET, reset),
            (AWAIT_RESET, self._await_reset),
            (STALL, stall),
            (PUSH, self._push),
            (REPORT, self._report),
        ):
            self._handle(protocol, handler)
        await PerfService(self._host, {"protocol_name": PERF}).start()

    def stall_all(self) -> None:
        """Replace the handlers that data is sent to by one that never reads."""
        for protocol in (ECHO, SINK, PERF, PING):
            self._host.remove_stream_handler(protocol)
            self._handle(protocol, stall)

    def _handle(self, protocol: str, handler: Handler) -> None:
        async def handle(stream: Any) -> None:
            peer_id = stream.muxed_conn.peer_id
            counts = protocol not in (REPORT, STALL)
            self._active[peer_id] += counts
            try:
                await handler(stream)
            except Exception as error:  # noqa: BLE001  one that escapes takes the whole connection along
                if self._log:
                    print(f"handler of {protocol}: {describe(error)}", file=sys.stderr, flush=True)
                await stream.reset()
            finally:
                self._active[peer_id] -= counts

        self._host.set_stream_handler(protocol, handle)

    def _note(self, stream: Any, **facts: Any) -> None:
        self._seen.setdefault(stream.muxed_conn.peer_id, {}).update(facts)

    async def _half_close(self, stream: Any) -> None:
        await stream.write(b"done")
        await stream.close_write()
        data = await collect(stream)
        self._note(stream, halfCloseBytes=len(data), halfCloseSha256=digest(data))
        await stream.close()

    async def _await_reset(self, stream: Any) -> None:
        await stream.write(await read_exactly(stream, 1))
        self._note(stream, reset=await wait_for_end(stream))
        await stream.close()

    async def _push(self, stream: Any) -> None:
        # py-libp2p pushes when it listens on more addresses; of new protocols it tells nobody by itself.
        self._handle(PUSHED, echo)
        await push_identify_to_peer(self._host, stream.muxed_conn.peer_id)
        await stream.close()

    async def _report(self, stream: Any) -> None:
        await collect(stream)
        peer_id = stream.muxed_conn.peer_id
        facts = await self._known_of(peer_id)
        busy = lambda: self._active[peer_id] > 0  # noqa: E731
        facts["open"] = await left_open(connection_to(self._host, peer_id), stream.muxed_stream, busy)
        facts["seen"] = self._seen.get(peer_id, {})
        data = json.dumps(facts).encode()
        await send_bytes(stream, data, len(data))
        await stream.close()

    async def _known_of(self, peer_id: Any) -> dict[str, Any]:
        """Return what the peerstore knows of a peer, once identify has told; it does not keep agent and version."""
        peerstore = self._host.get_peerstore()
        known: list[str] = []
        with trio.move_on_after(IDENTIFIED_SECONDS):
            while not known:
                known = protocols_of(peerstore, peer_id)
                await trio.sleep(POLL_SECONDS)
        said = await identify(self._host, peer_id)
        record = peerstore.get_peer_record(peer_id)
        return {
            "peerId": str(peer_id),
            "protocols": protocols_of(peerstore, peer_id),
            "agent": said.agent_version,
            "protocolVersion": said.protocol_version,
            "signedPeerRecord": record is not None,
            "addrs": [str(address) for address in peerstore.addrs(peer_id)],
        }


def protocols_of(peerstore: Any, peer_id: Any) -> list[str]:
    return list(peerstore.get_protocols(peer_id)) if peerstore.has_peer(peer_id) else []


async def identify(host: Any, peer_id: Any) -> Any:
    """Ask a peer who it is, and return the message."""
    stream = await host.new_stream(peer_id, [IDENTIFY])
    said = parse_identify_response(await collect(stream))
    await stream.close()
    return said


async def echo(stream: Any) -> None:
    async for data in read_all(stream):
        await stream.write(data)
    await stream.close()


async def sink(stream: Any) -> None:
    counted = 0
    async for data in read_all(stream):
        counted += len(data)
    await stream.write(counted.to_bytes(8, "big"))
    await stream.close()


async def after_eof(stream: Any) -> None:
    data = await collect(stream)
    await send_bytes(stream, data, len(data))
    await stream.close()


async def reset(stream: Any) -> None:
    await read_exactly(stream, 4)
    await stream.reset()


async def mute(stream: Any) -> None:
    """Read what comes, answer nothing, and say when and how it ended."""
    start = trio.current_time()
    data = b""
    try:
        while True:
            data += await stream.read(READ_BYTES)
    except StreamEOF:
        error = "EOF"
    except StreamError as raised:
        error = type(raised).__name__
    seconds = trio.current_time() - start
    head = data[:HEAD_BYTES].decode(errors="replace")
    say({"event": "end", "error": error, "bytes": len(data), "head": head, "seconds": seconds})


async def stall(_stream: Any) -> None:
    await trio.sleep_forever()
