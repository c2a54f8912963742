"""Perf, `/perf/1.0.0`: how fast bytes go up and down (libp2p specs, perf/perf.md).

The initiator writes how many bytes it wants, as a big-endian u64, then as many as it likes, and half-closes; the
responder reads to the end, and then sends what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiolibp2p.errors import RemoteProtocolError
from aiolibp2p.net.connection import Connection
from aiolibp2p.net.stream import Stream
from aiolibp2p.runtime import Clock

PROTOCOL = "/perf/1.0.0"
_CHUNK = bytes(256 << 10)
_SIZE_BYTES = 8


@dataclass(frozen=True, slots=True)
class PerfResult:
    """What one run moved, and in how many seconds."""

    upload_bytes: int
    upload_seconds: float
    download_bytes: int
    download_seconds: float


async def respond(stream: Stream) -> None:
    """Serve one run.

    Raises: as `Stream.read` and `Stream.write`.
    Cancellation: the stream is reset by who runs the handler.
    """
    wanted = int.from_bytes(await stream.read_exactly(_SIZE_BYTES), "big")
    async for _ in stream:
        pass
    await _send(stream, wanted, None)


async def measure(
    connection: Connection,
    clock: Clock,
    *,
    upload_bytes: int = 0,
    download_bytes: int = 0,
    progress: Callable[[int], None] | None = None,
) -> PerfResult:
    """Send and receive that many bytes and say how long each took.

    The upload has ended when the peer has read it all, which shows in the first byte, or the end, that it sends.

    Args:
        progress: called with the bytes of each step, of either direction.

    Raises:
        NegotiationError: the peer does not serve perf.
        RemoteProtocolError: it sent another number of bytes.
        Others: as `Stream.read` and `Stream.write`.
    Cancellation: the stream is reset.
    """
    async with await connection.open_stream(PROTOCOL) as stream:
        started = clock.now()
        await stream.write(download_bytes.to_bytes(_SIZE_BYTES, "big"))
        await _send(stream, upload_bytes, progress)
        stream.close_write()
        data = await stream.read()
        uploaded = clock.now()
        received = len(data)
        while data:
            if progress is not None:
                progress(len(data))
            data = await stream.read()
            received += len(data)
        ended = clock.now()
        if received != download_bytes:
            raise RemoteProtocolError(f"{received} bytes came where {download_bytes} were asked for", protocol="perf")
        return PerfResult(upload_bytes, uploaded - started, download_bytes, ended - uploaded)


async def _send(stream: Stream, size: int, progress: Callable[[int], None] | None) -> None:
    chunk = memoryview(_CHUNK)
    while size > 0:
        piece = chunk[: min(size, len(chunk))]
        await stream.write(piece)
        size -= len(piece)
        if progress is not None:
            progress(len(piece))
