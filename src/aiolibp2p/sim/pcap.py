"""Captures: what crossed the simulated network, in virtual time, as a file that Wireshark and tcpdump read.

The format is the classic one of libpcap with nanoseconds; each packet is a bare IP packet (LINKTYPE_RAW).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterator
from typing import IO, Any

from aiolibp2p.sim.network.datagram import PortUnreachable
from aiolibp2p.sim.network.endpoint import TcpPacket
from aiolibp2p.sim.network.packet import Address, Packet
from aiolibp2p.sim.network.tap import Seen, Tap
from aiolibp2p.sim.scheduler import EPOCH_NS, NS

_MAGIC_NANOSECONDS = 0xA1B23C4D
_LINKTYPE_RAW = 101
_SNAPLEN = 1 << 18
_TTL = 64
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
_WINDOW = 0xFFFF
_TCP_HEADER_BYTES = 20
SEGMENT_BYTES_MAX = 0xFFFF - 40
"""The most that one TCP packet of IPv4 carries; what a simulated segment has more is written as another packet."""

_FLAGS = {"syn": SYN, "syn ack": SYN | ACK, "ack": ACK, "fin ack": FIN | ACK, "rst": RST | ACK}


def checksum(data: bytes) -> int:
    """Return the checksum of the internet (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_packet(source: str, target: str, protocol: int, payload: bytes, number: int = 0) -> bytes:
    """Return a packet of IPv4 (RFC 791) or IPv6 (RFC 8200); `number` is its identification, modulo 65536."""
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    if ":" in source:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, _TTL) + ends + payload
    fields = (0x45, 0, 20 + len(payload), number & 0xFFFF, 0x4000, _TTL, protocol)
    bare = struct.pack("!BBHHHBBH", *fields, 0) + ends
    return struct.pack("!BBHHHBBH", *fields, checksum(bare)) + ends + payload


def tcp_packet(source: Address, target: Address, flags: int, numbers: tuple[int, int], payload: bytes = b"") -> bytes:
    """Return an IP packet of TCP (RFC 9293); the numbers are its sequence and acknowledgement, modulo 2**32."""
    sequence, acknowledgement = (number & 0xFFFFFFFF for number in numbers)
    offset = _TCP_HEADER_BYTES // 4 << 4
    head = struct.pack("!HHIIBBH", source[1], target[1], sequence, acknowledgement, offset, flags, _WINDOW)
    total = _checksum_between(source[0], target[0], TCP, head + bytes(4) + payload)
    return ip_packet(source[0], target[0], TCP, head + struct.pack("!HH", total, 0) + payload)


def udp_packet(source: Address, target: Address, payload: bytes) -> bytes:
    """Return an IP packet of UDP (RFC 768)."""
    head = struct.pack("!HHH", source[1], target[1], 8 + len(payload))
    total = _checksum_between(source[0], target[0], UDP, head + bytes(2) + payload)
    return ip_packet(source[0], target[0], UDP, head + struct.pack("!H", total or 0xFFFF) + payload)


def port_unreachable(source: str, target: str, about: bytes) -> bytes:
    """Return an IP packet of ICMP that says that nothing listens where the packet `about` went (RFC 792, RFC 4443)."""
    if ":" in source:
        body = bytes(4) + about[: 1280 - 48]
        total = _checksum_between(source, target, ICMPV6, bytes((1, 4, 0, 0)) + body)
        return ip_packet(source, target, ICMPV6, struct.pack("!BBH", 1, 4, total) + body)
    body = bytes(4) + about[:28]
    total = checksum(bytes((3, 3, 0, 0)) + body)
    return ip_packet(source, target, ICMP, struct.pack("!BBH", 3, 3, total) + body)


def _checksum_between(source: str, target: str, protocol: int, data: bytes) -> int:
    """Return the checksum of data with zero in its place, and of the addresses, which it covers too."""
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    form, fields = ("!I3xB", (len(data), protocol)) if ":" in source else ("!xBH", (protocol, len(data)))
    return checksum(ends + struct.pack(form, *fields) + data)


class PcapFile:
    """A capture that is being written."""

    def __init__(self, file: IO[bytes]) -> None:
        """Begin one; the file is the caller's to close."""
        self._file = file
        file.write(struct.pack("=IHHiIII", _MAGIC_NANOSECONDS, 2, 4, 0, 0, _SNAPLEN, _LINKTYPE_RAW))

    def add(self, at_ns: int, packet: bytes) -> None:
        """Add an IP packet at a virtual time, which is written as what the virtual wall clock says."""
        seconds, nanoseconds = divmod(EPOCH_NS + at_ns, NS)
        self._file.write(struct.pack("=IIII", seconds, nanoseconds, len(packet), len(packet)) + packet)


class Capture(Tap):
    """A tap that writes each packet into a file as it leaves its host, and keeps none; put it among `SimNet.taps`.

    What is lost on the way is in it, as in a capture at the sender; what a rule or a link duplicates is in it once.
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Begin one; the file is the caller's to close."""
        super().__init__(segments=_Sink(), packets=_Sink(self._write), drops=_Sink())
        self._file = PcapFile(file)
        self._ways: dict[tuple[Address, Address], _Way] = {}

    def _write(self, seen: Seen) -> None:
        packet = seen.packet
        for data in self._tcp(packet) if isinstance(packet, TcpPacket) else [_other(packet)]:
            self._file.add(seen.at_ns, data)

    def _tcp(self, packet: TcpPacket) -> Iterator[bytes]:
        names = packet.source, packet.target
        if packet.flags in ("syn", "syn ack") or names not in self._ways:
            self._ways[names] = _Way()
        acknowledged, sequence = self._ways[names].numbers(packet)
        flags, left = _FLAGS[packet.flags], packet.payload
        while True:
            part, left = left[:SEGMENT_BYTES_MAX], left[SEGMENT_BYTES_MAX:]
            is_last = not left
            says = flags if is_last else flags & ~FIN
            yield tcp_packet(*names, says | PSH if part and is_last else says, (sequence, acknowledged), part)
            sequence += len(part)
            if is_last:
                return


class _Way:
    """One direction of a connection: what has been sent, and what its sender has of the other direction."""

    def __init__(self) -> None:
        self._next = 0
        self._acknowledged = 0

    def numbers(self, packet: TcpPacket) -> tuple[int, int]:
        """Return the acknowledgement and the sequence number of a packet."""
        if packet.flags != "syn":
            self._acknowledged = max(self._acknowledged, packet.acknowledges)
        sequence = packet.sequence if packet.payload or packet.flags == "fin ack" else self._next
        used = len(packet.payload) + (packet.flags in ("syn", "syn ack", "fin ack"))
        self._next = max(self._next, sequence + used)
        return self._acknowledged, sequence


def _other(packet: Packet) -> bytes:
    if isinstance(packet, PortUnreachable):
        return port_unreachable(packet.source[0], packet.target[0], _other(packet.about))
    return udp_packet(packet.source, packet.target, packet.payload)


class _Sink(list[Any]):
    """A list that passes on what is appended, or drops it."""

    def __init__(self, take: Callable[[Any], None] | None = None) -> None:
        super().__init__()
        self._take = take

    def append(self, thing: Any) -> None:
        if self._take is not None:
            self._take(thing)
