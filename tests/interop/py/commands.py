"""What a py-libp2p dialler can be asked to do. Each command gets a host of its own and returns what it found."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio
from libp2p.host.ping import PingService
from libp2p.identity.identify_push.identify_push import push_identify_to_peer
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

from tests.interop.py.common import (
    AFTER_EOF,
    AWAIT_RESET,
    ECHO,
    HALF_CLOSE,
    NEVER,
    PERF,
    POLL_SECONDS,
    PUSHED,
    REPORT,
    RESET,
    SINK,
    WRITE_BYTES,
    collect,
    connection_to,
    describe,
    digest,
    exchange,
    left_open,
    read_all,
    read_exactly,
    send_bytes,
    wait_for_end,
)
from tests.interop.py.handlers import echo as echo_back
from tests.interop.py.handlers import identify, protocols_of

HOLD_FOR_PUSH_SECONDS = 10.0

Answer = dict[str, Any]


@dataclass(kw_only=True)
class Context:
    """A command's host, whom it dials, and how."""

    host: Any
    address: str
    args: list[str]
    concurrency: int = 1
    chunk: int = WRITE_BYTES
    report: bool = False

    def __post_init__(self) -> None:
        self.target = info_from_p2p_addr(Multiaddr(self.address))
        self.peer_id = self.target.peer_id

    def number(self, at: int, default: int) -> int:
        """Return an argument that is a number."""
        return int(self.args[at]) if len(self.args) > at else default

    async def dial(self) -> Any:
        """Connect, and return the connection."""
        await self.host.connect(self.target)
        return connection_to(self.host, self.peer_id)

    async def open(self, protocol: str) -> Any:
        """Open a stream."""
        return await self.host.new_stream(self.peer_id, [protocol])

    async def identified(self) -> None:
        """Wait until py-libp2p's own identify has told who the peer is."""
        while not protocols_of(self.host.get_peerstore(), self.peer_id):  # noqa: ASYNC110  nothing tells of it
            await trio.sleep(POLL_SECONDS)


Command = Callable[[Context], Awaitable[Answer]]


def timed(start: float, count: int) -> Answer:
    seconds = time.perf_counter() - start
    return {"n": count, "seconds": seconds, "perSecond": count / seconds}


async def ask_report(context: Context) -> Answer:
    answer: Answer = json.loads(await exchange(await context.open(REPORT), b"") or b"{}")
    return answer


async def info(context: Context) -> Answer:
    """What identify told us."""
    connection = await context.dial()
    await context.identified()
    said = await identify(context.host, context.peer_id)
    return {
        "encryption": connection.get_negotiated_security_protocol(),
        "muxer": connection.get_negotiated_muxer_protocol(),
        "agent": said.agent_version,
        "protocolVersion": said.protocol_version,
        "protocols": protocols_of(context.host.get_peerstore(), context.peer_id),
        "listenAddrs": [str(Multiaddr(address)) for address in said.listen_addrs],
        "observedAddr": str(Multiaddr(said.observed_addr)),
        "signedPeerRecord": context.host.get_peerstore().get_peer_record(context.peer_id) is not None,
    }


async def ping(context: Context) -> Answer:
    """N pings on one stream, by py-libp2p's own service."""
    n = context.number(0, 100)
    await context.dial()
    await context.identified()
    start = time.perf_counter()
    counted = 0
    async for _ in PingService(context.host).ping_iter(context.peer_id, n):
        counted += 1
    return timed(start, n) | {"ok": counted == n}


async def ping_service(context: Context) -> Answer:
    """N pings of a stream each, which is ended after its answer."""
    n = context.number(0, 1)
    connection = await context.dial()
    await context.identified()
    service = PingService(context.host)
    took = [await service.ping(context.peer_id) for _ in range(n)]
    return {"roundTripMs": [times[0] for times in took], "openStreams": await left_open(connection)}


async def echo(context: Context) -> Answer:
    """SIZE bytes there and back, compared."""
    connection = await context.dial()
    data = os.urandom(context.number(0, 32))
    back = await exchange(await context.open(ECHO), data, context.chunk)
    return {
        "peerId": str(context.host.get_id()),
        "bytes": len(back),
        "sha256": digest(back),
        "ok": data == back,
        "openStreams": await left_open(connection),
    }


async def upload(context: Context) -> Answer:
    """BYTES to the sink, over so many streams at once, counted by the peer."""
    size = context.number(0, 0)
    await context.dial()
    await context.identified()
    share, rest = divmod(size, context.concurrency)
    counts: list[int] = []

    async def upload_one(part: int) -> None:
        stream = await context.open(SINK)
        await send_bytes(stream, bytes(context.chunk), part, context.chunk)
        await stream.close_write()
        counts.append(int.from_bytes(await collect(stream), "big"))
        await stream.close()

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(context.concurrency):
            nursery.start_soon(upload_one, share + (rest if number == 0 else 0))
    seconds = time.perf_counter() - start
    counted = sum(counts)
    return {"counted": counted, "ok": counted == size, "seconds": seconds, "MBps": size / seconds / 1e6}


async def download(context: Context) -> Answer:
    """BYTES by perf."""
    size = context.number(0, 0)
    await context.dial()
    start = time.perf_counter()
    stream = await context.open(PERF)
    await stream.write(size.to_bytes(8, "big"))
    await stream.close_write()
    counted = 0
    async for data in read_all(stream):
        counted += len(data)
    seconds = time.perf_counter() - start
    await stream.close()
    return {"counted": counted, "ok": counted == size, "seconds": seconds, "MBps": size / seconds / 1e6}


async def in_parallel(count: int, concurrency: int, work: Callable[[], Awaitable[None]]) -> Answer:
    """Run so many pieces of work, so many at once."""
    numbers = iter(range(count))
    errors: list[str] = []

    async def each() -> None:
        for _ in numbers:
            try:
                await work()
            except Exception as error:  # noqa: BLE001  counted, and the last one is reported
                errors.append(describe(error))

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(concurrency):
            nursery.start_soon(each)
    return timed(start, count) | {"failed": len(errors), "lastError": errors[-1] if errors else None}


async def streams(context: Context) -> Answer:
    """N streams, so many at once: 32 bytes echoed on each."""
    connection = await context.dial()
    await context.identified()
    data = os.urandom(32)

    async def work() -> None:
        stream = await context.open(ECHO)
        await stream.write(data)
        if await read_exactly(stream, len(data)) != data:
            raise ValueError("what came back differs")
        await stream.close()

    answer = await in_parallel(context.number(0, 1), context.concurrency, work)
    if context.report:
        answer |= {"openStreams": await left_open(connection), "report": await ask_report(context)}
    return answer


async def half_close(context: Context) -> Answer:
    """Both orders of ending: the peer answers after our end, and the peer ends first and still reads."""
    data = os.urandom(context.number(0, 100_000))
    connection = await context.dial()
    back = await exchange(await context.open(AFTER_EOF), data, context.chunk)
    stream = await context.open(HALF_CLOSE)
    first = await collect(stream)
    await send_bytes(stream, data, len(data), context.chunk)
    await stream.close()
    return {
        "ok": data == back,
        "bytes": len(data),
        "sha256": digest(data),
        "first": first.decode(),
        "openStreams": await left_open(connection),
        "report": await ask_report(context),
    }


async def reset(context: Context) -> Answer:
    """We reset. py-libp2p sends no code."""
    connection = await context.dial()
    stream = await context.open(AWAIT_RESET)
    await stream.write(b"r")
    await read_exactly(stream, 1)
    await stream.reset()
    return {"openStreams": await left_open(connection), "report": await ask_report(context)}


async def reset_by(context: Context) -> Answer:
    """The peer resets."""
    connection = await context.dial()
    stream = await context.open(RESET)
    await stream.write(context.number(0, 0).to_bytes(4, "big"))
    ended = await wait_for_end(stream)
    return {"reset": ended == "StreamReset", "ended": ended, "openStreams": await left_open(connection)}


async def na(context: Context) -> Answer:
    """A protocol that the peer does not speak, and then one that it does."""
    await context.dial()
    answer: Answer = {"eager": ""}
    try:
        await context.open(NEVER)
    except Exception as error:  # noqa: BLE001  which one it is, is what is told
        answer["eager"] = describe(error)
    answer["after"] = (await exchange(await context.open(ECHO), b"still here")).decode()
    return answer


async def push(context: Context) -> Answer:
    """Our protocols change, and identify-push goes out; stays until the peer disconnects."""
    connection = await context.dial()
    await context.identified()
    context.host.set_stream_handler(PUSHED, echo_back)
    await push_identify_to_peer(context.host, context.peer_id)
    with trio.move_on_after(HOLD_FOR_PUSH_SECONDS) as waiting:
        await connection.event_closed.wait()
    return {"disconnected": not waiting.cancelled_caught}


async def report(context: Context) -> Answer:
    """What the peer knows of us."""
    await context.dial()
    return {"report": await ask_report(context)}


async def redial(context: Context) -> Answer:
    """One host connects, waits for the peer's identify, and disconnects, N times."""
    n = context.number(0, 1)
    start = time.perf_counter()
    for _ in range(n):
        await context.dial()
        await context.identified()
        await context.host.disconnect(context.peer_id)
        context.host.get_peerstore().clear_protocol_data(context.peer_id)
    return timed(start, n)


COMMANDS: dict[str, Command] = {
    "info": info,
    "ping": ping,
    "ping-service": ping_service,
    "echo": echo,
    "upload": upload,
    "download": download,
    "streams": streams,
    "half-close": half_close,
    "reset": reset,
    "reset-by": reset_by,
    "na": na,
    "push": push,
    "report": report,
    "redial": redial,
}
