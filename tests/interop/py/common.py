"""What the py-libp2p listener and dialler share: how a host is made, and how a stream is read and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto import ecc, ed25519, rsa, secp256k1
from libp2p.network.config import ConnectionConfig
from libp2p.network.stream.exceptions import StreamEOF, StreamError
from libp2p.rcmgr.manager import ResourceLimits, ResourceManager

ECHO = "/echo/1.0.0"  # sends back what it reads, as it comes
SINK = "/sink/1.0.0"  # reads to the end, answers the count as 8 bytes
PERF = "/perf/1.0.0"  # libp2p's perf
AFTER_EOF = "/after-eof/1.0.0"  # reads to the end, then sends it all back
HALF_CLOSE = "/half-close/1.0.0"  # sends "done", ends its own side, then reads on
RESET = "/reset/1.0.0"  # reads something and resets
AWAIT_RESET = "/await-reset/1.0.0"  # answers one byte with one, then notes how the stream ended
STALL = "/stall/1.0.0"  # negotiates and never reads
PUSH = "/push/1.0.0"  # changes our protocols, so that identify-push goes out
PUSHED = "/pushed/1.0.0"  # the protocol that is then new
REPORT = "/report/1.0.0"  # answers with what we know of the one who asks
NEVER = "/never/1.0.0"  # nobody speaks it
PING = "/ipfs/ping/1.0.0"
IDENTIFY = "/ipfs/id/1.0.0"

MANY = 100_000
READ_BYTES = 1 << 16
WRITE_BYTES = 1 << 16
LEFT_OPEN_SECONDS = 5.0
"""How long streams that are about to end are given to do so."""
POLL_SECONDS = 0.005

KEY_PAIRS: dict[str, Callable[[], Any]] = {
    "ed25519": ed25519.create_new_key_pair,
    "secp256k1": secp256k1.create_new_key_pair,
    "rsa": rsa.create_new_key_pair,
    "ecdsa": lambda: ecc.create_new_key_pair("P-256"),
}


def make_host(*, key_type: str = "ed25519", stock: bool = False) -> Any:
    """Make a host with py-libp2p's own choice of security and muxers.

    Its defaults take 3 connections of a peer and 10 new ones a second, and dial known peers anew while there are
    fewer than 100: all that is lifted unless `stock` is set.
    """
    if stock:
        return new_host(key_pair=KEY_PAIRS[key_type]())
    manager = ResourceManager(
        limits=ResourceLimits(max_connections=MANY, max_memory_mb=MANY, max_streams=MANY),
        enable_memory_limits=False,
        enable_circuit_breaker=False,
        enable_graceful_degradation=False,
        enable_rate_limiting=False,
    )
    config = ConnectionConfig(
        max_connections=MANY, min_connections=0, low_watermark=0, high_watermark=MANY, max_connections_per_peer=MANY
    )
    return new_host(key_pair=KEY_PAIRS[key_type](), resource_manager=manager, connection_config=config)


async def read_all(stream: Any) -> AsyncIterator[bytes]:
    """Yield what arrives on a stream until it ends."""
    while True:
        try:
            data = await stream.read(READ_BYTES)
        except StreamEOF:
            return
        if data:
            yield data


async def collect(stream: Any) -> bytes:
    """Read a stream to its end."""
    return b"".join([data async for data in read_all(stream)])


async def wait_for_end(stream: Any) -> str:
    """Read to the end, and say how the stream ended.

    It is read without a size: a `read(n)` that waits takes a reset for the end of the stream.
    """
    try:
        while True:
            await stream.read()
    except StreamError as error:
        return type(error).__name__


async def read_exactly(stream: Any, size: int) -> bytes:
    """Read so many bytes."""
    data = b""
    while len(data) < size:
        data += await stream.read(size - len(data))
    return data


async def send_bytes(stream: Any, buffer: bytes, size: int, chunk: int = WRITE_BYTES) -> None:
    """Send so many bytes of a buffer (repeated if need be), `chunk` at a time."""
    for at in range(0, size, chunk):
        piece = min(chunk, size - at)
        start = at if len(buffer) >= size else 0
        await stream.write(buffer[start : start + piece])


async def exchange(stream: Any, data: bytes, chunk: int = WRITE_BYTES) -> bytes:
    """Write all of `data` while reading, end our side, and return what came until the peer ended."""
    parts: list[bytes] = []

    async def read() -> None:
        async for part in read_all(stream):
            parts.append(part)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await send_bytes(stream, data, len(data), chunk)
        await stream.close_write()
    await stream.close()
    return b"".join(parts)


def connection_to(host: Any, peer_id: Any) -> Any:
    """Return the newest connection to a peer."""
    return host.get_network().get_connections(peer_id)[-1]


def open_streams(connection: Any, but: Any = None) -> dict[str, int]:
    """Count the streams that Yamux holds for a connection by protocol; a ping stream is kept, and does not count."""
    protocols = {id(stream.muxed_stream): stream.get_protocol() for stream in connection.get_streams()}
    found: dict[str, int] = {}
    for stream in list(connection.muxed_conn.streams.values()):
        protocol = str(protocols.get(id(stream), "ended here"))
        # One that was reset is kept for a minute when some of what came was not read.
        if stream is not but and not stream.closed and protocol != PING:
            found[protocol] = found.get(protocol, 0) + 1
    return found


async def left_open(connection: Any, but: Any = None, busy: Callable[[], bool] = lambda: False) -> dict[str, int]:
    """Return the open streams of a connection, once those that are about to end have had the time to."""
    found = open_streams(connection, but)
    with trio.move_on_after(LEFT_OPEN_SECONDS):
        while found or busy():
            await trio.sleep(POLL_SECONDS)
            found = open_streams(connection, but)
    return found


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def describe(error: BaseException) -> str:
    """Return the class and text of an error; of a group, those of its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    cause = f" ({describe(error.__cause__)})" if error.__cause__ is not None else ""
    return f"{type(error).__name__}: {error}{cause}"


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)
