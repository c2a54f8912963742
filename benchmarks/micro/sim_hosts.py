"""What an hour of a thousand simulated hosts costs: `python benchmarks/micro/sim_hosts.py [HOSTS [SECONDS]]`.

Each host pings another over UDP every 30 s (SECONDS) for a virtual hour, waits for each answer with a timeout, and
answers what it is asked. Links take 50 ms; in the second row they also jitter and lose, and hosts have access lines,
and in the third every packet goes into a trace. The time is that of the processor, so that a busy machine disturbs it
least. The goal is 10 s for the first row.
"""

from __future__ import annotations

import asyncio
import gc
import platform
import resource
import sys
import time
from functools import partial
from typing import Any

from aiolibp2p.sim import Host, Link, Trace, current_loop, current_net, run

HOSTS = 1000
PERIOD = 30.0
HOUR = 3600.0
PORT = 7
STRIDE = 7
TIMEOUT = 2.0
PLAIN = Link(latency=0.050)
ROUGH = Link(latency=0.050, jitter=0.010, loss=0.01)
Lines = tuple[float | None, float | None]
"""Bits per second up and down."""


class Pong(asyncio.DatagramProtocol):
    """Answers."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self.transport.sendto(data, addr)


class Ping(asyncio.DatagramProtocol):
    """Asks, and waits for the answer."""

    transport: asyncio.DatagramTransport

    def __init__(self) -> None:
        self.waiting: dict[bytes, asyncio.Future[None]] = {}
        self.answered = self.lost = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        waiting = self.waiting.pop(data, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def ping(self, number: int, target: tuple[str, int]) -> None:
        data = number.to_bytes(8, "big")
        answer = self.waiting[data] = current_loop().create_future()
        self.transport.sendto(data, target)
        try:
            async with asyncio.timeout(TIMEOUT):
                await answer
            self.answered += 1
        except TimeoutError:
            self.waiting.pop(data, None)
            self.lost += 1


async def node(host: Host, peer: Host, start: float, period: float, pings: list[Ping]) -> None:
    """Live on a host."""
    loop, ping = current_loop(), Ping()
    pings.append(ping)
    await loop.create_datagram_endpoint(Pong, (host.addresses[0], PORT))
    await loop.create_datagram_endpoint(lambda: ping, (host.addresses[0], 0))
    await asyncio.sleep(start)
    number = 0
    while True:
        number += 1
        await ping.ping(number, (peer.addresses[0], PORT))
        await asyncio.sleep(period)


async def hour(link: Link, count: int, period: float, lines: Lines) -> tuple[int, int, int, float]:
    """Return the pings answered and lost, the packets sent, and the seconds of the processor."""
    net = current_net()
    net.set_link(link)
    hosts = [net.host(f"h{i}", up=lines[0], down=lines[1]) for i in range(count)]
    pings: list[Ping] = []
    for i, host in enumerate(hosts):
        _ = host.spawn(node(host, hosts[(i * STRIDE + 1) % count], period * i / count, period, pings))
    start = time.process_time()
    await current_loop().pass_time(HOUR)
    took = time.process_time() - start
    packets = sum(path.sent for path in net.paths)
    return sum(ping.answered for ping in pings), sum(ping.lost for ping in pings), packets, took


def main() -> None:
    """Print one row for each kind of network."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else HOSTS
    period = float(sys.argv[2]) if len(sys.argv) > 2 else PERIOD
    print(f"{platform.python_implementation()} {platform.python_version()}, {count} hosts, a ping every {period:g} s")
    rows: list[tuple[str, Link, Lines, Trace | None]] = [
        ("latency", PLAIN, (None, None), None),
        ("jitter, loss, access lines", ROUGH, (20e6, 100e6), None),
        ("latency, with a trace", PLAIN, (None, None), Trace()),
    ]
    for name, link, lines, trace in rows:
        gc.collect()
        answered, lost, packets, took = run(partial(hour, link, count, period, lines), trace=trace)
        print(
            f"{name:28} {took:6.2f} s  {HOUR / took:6.0f} times as fast as time  {packets:8} packets"
            f"  {packets / took:8.0f} packets/s  {answered} answered, {lost} lost"
        )
    print(f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")


if __name__ == "__main__":
    main()
