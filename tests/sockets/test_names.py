"""TXT records from a nameserver on 127.0.0.1: what it answers, what it withholds, and a dial that follows them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from aiolibp2p import Host, Runtime, Timeouts
from aiolibp2p.errors import ConnectionEndedError, DeadlineError, DialError
from aiolibp2p.runtime import is_temporary

pytestmark = pytest.mark.sockets

Answer = Callable[[dns.message.Message], None]


@dataclass(eq=False)
class Nameserver(asyncio.DatagramProtocol):
    """A nameserver that knows what a test tells it."""

    records: dict[str, list[str]] = field(default_factory=dict)
    rcode: dns.rcode.Rcode = dns.rcode.NXDOMAIN
    """What it says of other names."""
    is_mute: bool = False
    truncates: bool = False
    """Whether it says everything over TCP only."""
    asked: list[str] = field(default_factory=list)
    port: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # By what it does: the transports of Python 3.11 are not of the class.
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.asked.append("udp")
        self.heard.set()
        if not self.is_mute:
            self.transport.sendto(self.answer(data, whole=not self.truncates).to_wire(), address)

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        data = await reader.readexactly(size)
        self.asked.append("tcp")
        wire = self.answer(data, whole=True).to_wire()
        writer.write(len(wire).to_bytes(2, "big") + wire)
        writer.close()

    def answer(self, data: bytes, *, whole: bool) -> dns.message.Message:
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        name = query.question[0].name.to_text(omit_final_dot=True)
        if name not in self.records:
            answer.set_rcode(self.rcode)
        elif not whole:
            answer.flags |= dns.flags.TC
        elif self.records[name]:
            answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "TXT", *self.records[name]))
        return answer

    @property
    def runtime(self) -> Runtime:
        return Runtime.system(nameservers=[f"127.0.0.1:{self.port}"])


@asynccontextmanager
async def nameserver(**options: object) -> AsyncIterator[Nameserver]:
    loop = asyncio.get_running_loop()
    server = Nameserver(**options)  # type: ignore[arg-type]
    tcp = await asyncio.start_server(server.serve_tcp, "127.0.0.1", 0)
    server.port = tcp.sockets[0].getsockname()[1]
    await loop.create_datagram_endpoint(lambda: server, ("127.0.0.1", server.port))
    try:
        yield server
    finally:
        server.transport.close()
        tcp.close()
        await asyncio.sleep(0)


async def test_txt_records_are_read_each_as_one_text() -> None:
    async with nameserver(records={"a.example": ['"one"', '"tw" "o"', '"\\195\\164"', '"\\255"']}) as server:
        assert sorted(await server.runtime.names.txt("a.example")) == sorted(["one", "two", "ä", "�"])


async def test_an_answer_that_is_too_long_for_udp_is_asked_for_over_tcp() -> None:
    long = [f'"{number:0>200}"' for number in range(50)]
    async with nameserver(records={"a.example": long}, truncates=True) as server:
        assert len(await server.runtime.names.txt("a.example")) == 50
        assert server.asked == ["udp", "tcp"]


@pytest.mark.parametrize("records", [{}, {"a.example": []}])
async def test_a_name_without_records_is_an_error_that_stays(records: dict[str, list[str]]) -> None:
    async with nameserver(records=records) as server:
        with pytest.raises(OSError, match=r"no TXT records of a\.example: ") as caught:
            await server.runtime.names.txt("a.example")
        assert not is_temporary(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a..example", "a" * 64 + ".example", ".".join(["abc"] * 80)])
async def test_what_is_no_name_of_the_dns_is_an_error(name: str) -> None:
    async with nameserver() as server:
        with pytest.raises(OSError, match="no TXT records"):
            await server.runtime.names.txt(name)
        assert server.asked == []


async def test_a_nameserver_that_fails_is_an_error_that_may_pass() -> None:
    async with nameserver(rcode=dns.rcode.REFUSED) as server:
        with pytest.raises(OSError, match="no TXT records") as caught:
            await server.runtime.names.txt("a.example")
        assert is_temporary(caught.value)


async def test_a_look_up_may_be_cancelled() -> None:
    async with nameserver(is_mute=True) as server:
        asking = asyncio.get_running_loop().create_task(server.runtime.names.txt("a.example"), name="asking")
        await server.heard.wait()
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()


async def test_a_dial_follows_the_records_to_the_peer() -> None:
    async with nameserver() as server, Host(listen=["/ip4/127.0.0.1/tcp/0"]) as other:
        (address,) = other.addresses
        us = f"/p2p/{other.peer_id}"
        server.records["_dnsaddr.boot.example"] = [f'"dnsaddr=/dnsaddr/one.boot.example{us}"', '"v=spf1 -all"']
        server.records["_dnsaddr.one.boot.example"] = [f'"dnsaddr={address}"']
        async with Host(runtime=server.runtime) as host:
            connection = await host.connect(f"/dnsaddr/boot.example{us}")
            assert connection.peer_id == other.peer_id
            report = connection.dial_report
            assert report is not None
            assert report.winner is not None
            assert (report.winner.address, report.winner.name) == (str(address), f"/dnsaddr/boot.example{us}")
            assert report.winner.stages[0][0] == "resolve"


async def test_a_nameserver_that_is_mute_ends_the_dial_at_resolve() -> None:
    async with (
        nameserver(is_mute=True) as server,
        Host(runtime=server.runtime, timeouts=Timeouts(resolve=0.05)) as host,
    ):
        with pytest.raises(DialError) as caught:
            await host.connect("/dnsaddr/boot.example")
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, DeadlineError)
        assert (failure.deadline, failure.stage) == ("resolve", "resolve")


async def test_localhost_is_a_name_that_the_system_resolves() -> None:
    async with Host(listen=["/ip4/127.0.0.1/tcp/0"]) as other, Host() as host:
        port = other.addresses[0].value("tcp")
        connection = await host.connect(f"/dns4/localhost/tcp/{port}/p2p/{other.peer_id}")
        assert connection.peer_id == other.peer_id


async def test_a_name_that_the_system_does_not_know_is_said_to_be_one() -> None:
    async with Host() as host:
        with pytest.raises(DialError) as caught:
            await host.connect("/dns4/a..b/tcp/1")
        (failure,) = caught.value.failures.values()
        assert isinstance(failure, ConnectionEndedError)
        assert failure.stage == "resolve"


def test_the_number_of_a_temporary_failure_is_the_systems() -> None:
    assert is_temporary(socket.gaierror(socket.EAI_AGAIN, ""))
