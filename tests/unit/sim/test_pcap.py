"""Captures: headers and checksums, byte for byte, and what a whole world writes."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest

from aiolibp2p.sim import Link, World, run_world
from aiolibp2p.sim.pcap import (
    ACK,
    FIN,
    PSH,
    SEGMENT_BYTES_MAX,
    SYN,
    PcapFile,
    checksum,
    ip_packet,
    port_unreachable,
    tcp_packet,
    udp_packet,
)

NS = 1_000_000_000
FOUR = (("10.0.0.1", 1000), ("10.0.0.2", 80))
SIX = (("2001:db8::1", 1000), ("2001:db8::2", 80))


@dataclass(frozen=True)
class Ip:
    """A packet of IP, read by the rules of its RFC."""

    source: str
    target: str
    protocol: int
    payload: bytes


def parse_ip(packet: bytes) -> Ip:
    """Read one packet; every length and checksum has to be right."""
    if packet[0] >> 4 == 6:
        length, protocol, ttl = struct.unpack("!4xHBB", packet[:8])
        payload, ends, size = packet[40:], packet[8:40], 16
        assert (len(payload), ttl) == (length, 64)
    else:
        assert packet[0] == 0x45
        assert checksum(packet[:20]) == 0
        length, ttl, protocol = struct.unpack("!2xH4xBB", packet[:10])
        payload, ends, size = packet[20:], packet[12:20], 4
        assert (len(packet), ttl) == (length, 64)
    pseudo = ends + struct.pack("!II", len(payload), protocol)
    if protocol != 1:  # ICMP of IPv4 covers itself only
        assert checksum(pseudo + payload) == 0
    else:
        assert checksum(payload) == 0
    source, target = (str(ipaddress.ip_address(end)) for end in (ends[:size], ends[size:]))
    return Ip(source, target, protocol, payload)


def test_the_example_of_rfc_1071_has_its_checksum() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF ^ 0xDDF2
    assert checksum(b"\x01") == 0xFFFF ^ 0x0100


def test_a_known_ipv4_header_is_written_byte_for_byte() -> None:
    packet = ip_packet("192.168.0.1", "192.168.0.199", 17, bytes(95), number=0)
    assert packet[:20].hex() == "450000730000400040" + "11b861c0a80001c0a800c7"


@pytest.mark.parametrize("ends", [FOUR, SIX])
@pytest.mark.parametrize("payload", [b"", b"x", b"hello!", bytes(range(256)) * 5])
def test_tcp_packets_carry_numbers_flags_and_payload(
    ends: tuple[tuple[str, int], tuple[str, int]], payload: bytes
) -> None:
    ip = parse_ip(tcp_packet(*ends, PSH | ACK, (5, (1 << 32) + 7), payload))
    assert (ip.source, ip.target, ip.protocol) == (ends[0][0], ends[1][0], 6)
    fields = struct.unpack("!HHIIBBHHH", ip.payload[:20])
    assert fields[:7] == (1000, 80, 5, 7, 0x50, 0x18, 0xFFFF)
    assert ip.payload[20:] == payload


@pytest.mark.parametrize("ends", [FOUR, SIX])
def test_udp_packets_carry_ports_length_and_payload(ends: tuple[tuple[str, int], tuple[str, int]]) -> None:
    ip = parse_ip(udp_packet(*ends, b"hello"))
    assert ip.protocol == 17
    assert struct.unpack("!HHH", ip.payload[:6]) == (1000, 80, 13)
    assert ip.payload[8:] == b"hello"


def test_a_checksum_of_udp_that_is_zero_is_written_as_ones() -> None:
    rest = struct.unpack("!H", parse_ip(udp_packet(*FOUR, bytes(2))).payload[6:8])[0]
    assert parse_ip(udp_packet(*FOUR, struct.pack("!H", rest))).payload[6:8] == b"\xff\xff"


def test_unreachable_ports_name_the_packet_that_went_there() -> None:
    about = udp_packet(*FOUR, b"anybody there?")
    ip = parse_ip(port_unreachable("10.0.0.2", "10.0.0.1", about))
    assert (ip.protocol, ip.payload[:2], ip.payload[8:]) == (1, b"\3\3", about[:28])
    about = udp_packet(*SIX, b"anybody there?")
    ip = parse_ip(port_unreachable("2001:db8::2", "2001:db8::1", about))
    assert (ip.protocol, ip.payload[:2], ip.payload[8:]) == (58, b"\1\4", about)


def read_capture(data: bytes) -> list[tuple[int, Ip]]:
    """Return the virtual times in nanoseconds and the packets of a capture."""
    magic, major, minor, zone, sigfigs, _, link = struct.unpack("=IHHiIII", data[:24])
    assert (magic, major, minor, zone, sigfigs, link) == (0xA1B23C4D, 2, 4, 0, 0, 101)
    packets: list[tuple[int, Ip]] = []
    rest = data[24:]
    while rest:
        seconds, nanoseconds, kept, length = struct.unpack("=IIII", rest[:16])
        assert kept == length
        packets.append(((seconds - 946_684_800) * NS + nanoseconds, parse_ip(rest[16 : 16 + kept])))
        rest = rest[16 + kept :]
    return packets


def test_a_capture_has_the_virtual_time_of_each_packet() -> None:
    file = io.BytesIO()
    capture = PcapFile(file)
    capture.add(0, tcp_packet(*FOUR, SYN, (0, 0)))
    capture.add(5 * NS + 7, udp_packet(*SIX, b"x"))
    assert [(at_ns, ip.protocol) for at_ns, ip in read_capture(file.getvalue())] == [(0, 6), (5 * NS + 7, 17)]


@dataclass(frozen=True)
class Segment:
    """What a capture says of a packet of TCP."""

    at_ns: int
    source: str
    flags: int
    sequence: int
    acknowledged: int
    data: bytes


def segments_of(path: Path) -> list[Segment]:
    found: list[Segment] = []
    for at_ns, ip in read_capture(path.read_bytes()):
        sequence, acknowledged, flags = struct.unpack("!4xIIxB", ip.payload[:14])
        found.append(Segment(at_ns, ip.source, flags, sequence, acknowledged, ip.payload[20:]))
    return found


def capture_echo(path: Path, size: int, loss: float = 0.0) -> list[Segment]:
    """Echo bytes over a link of 50 ms and return what the capture has of it."""

    async def main(sim: World) -> None:
        a, b = sim.host("a"), sim.host("b")
        sim.link(a, b, latency=0.05, loss=loss)
        sim.pcap(path)

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read())
            writer.close()

        with b.here():
            server = await asyncio.start_server(echo, "0.0.0.0", 7)
        with a.here():
            reader, writer = await asyncio.open_connection("b", 7)
            writer.write(bytes(size))
            writer.write_eof()
            assert await reader.read() == bytes(size)
            writer.close()
        await sim.pass_time(10)
        server.close()

    run_world(main, seed=3)
    return segments_of(path)


def test_a_connection_is_captured_with_its_numbers_in_virtual_time(tmp_path: Path) -> None:
    found = capture_echo(tmp_path / "echo.pcap", 100)
    a, b = "1.0.0.2", "1.0.0.3"
    ms = [(s.at_ns // 1_000_000, s.source, s.flags, s.sequence, s.acknowledged, len(s.data)) for s in found]
    assert ms[:6] == [
        (0, a, SYN, 0, 0, 0),
        (50, b, SYN | ACK, 0, 1, 0),
        (100, a, ACK, 1, 1, 0),
        (100, a, ACK | PSH, 1, 1, 100),
        (100, a, ACK | FIN, 101, 1, 0),
        (150, b, ACK, 1, 102, 0),
    ]
    assert (150, b, ACK | PSH, 1, 102, 100) in ms
    assert (150, b, ACK | FIN, 101, 102, 0) in ms
    assert ms[-1][:3] == (200, a, ACK)
    assert ms[-1][4] == 102


@pytest.mark.parametrize("loss", [0.0, 0.4])
def test_the_bytes_of_a_capture_are_those_of_the_stream_whatever_was_lost_and_repeated(
    tmp_path: Path, loss: float
) -> None:
    size = 300_000
    found = capture_echo(tmp_path / "echo.pcap", size, loss=loss)
    repeated = 0
    for source in ("1.0.0.2", "1.0.0.3"):
        own = [segment for segment in found if segment.source == source]
        reached = 1
        for segment in sorted(own, key=lambda segment: segment.sequence):
            assert segment.sequence <= reached
            repeated += segment.sequence + len(segment.data) <= reached and bool(segment.data)
            reached = max(reached, segment.sequence + len(segment.data) + bool(segment.flags & FIN))
        assert reached == 1 + size + 1
        acknowledged = [segment.acknowledged for segment in own]
        assert acknowledged == sorted(acknowledged)
        assert acknowledged[-1] == size + 2
    assert bool(repeated) == bool(loss)
    assert max(len(segment.data) for segment in found) <= SEGMENT_BYTES_MAX


def test_datagrams_are_captured_and_so_is_that_nobody_listens(tmp_path: Path) -> None:
    async def main(sim: World) -> None:
        a, b = sim.host("a"), sim.host("b", "2001:db8::b", "10.0.0.2")
        sim.net.set_link(Link(latency=0.05))
        sim.pcap(tmp_path / "udp.pcap")
        with a.here():
            transport, _ = await sim.loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("0.0.0.0", 1000))
            transport.sendto(b"anybody there?", (b.addresses[1], 9))
            await sim.pass_time(1)
            transport.close()

    run_world(main)
    (sent_ns, sent), (said_ns, said) = read_capture((tmp_path / "udp.pcap").read_bytes())
    assert (sent_ns, sent.target, sent.protocol, sent.payload[8:]) == (0, "10.0.0.2", 17, b"anybody there?")
    assert (said_ns, said.source, said.protocol, said.payload[:2]) == (NS // 20, "10.0.0.2", 1, b"\3\3")


def test_a_capture_is_whole_when_the_run_fails(tmp_path: Path) -> None:
    async def main(sim: World) -> None:
        sim.pcap(tmp_path / "failed.pcap")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", 1)
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_world(main)
    assert len(segments_of(tmp_path / "failed.pcap")) == 2  # SYN and RST
