"""What a host does and waits for at one moment: its tasks, connections, streams and tombstones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from aiolibp2p.net.connection import Connection
from aiolibp2p.net.dial import Dialer
from aiolibp2p.net.events import EventStream
from aiolibp2p.net.stream import Stream
from aiolibp2p.net.swarm import Swarm
from aiolibp2p.profile import TaskProfile, duration_text, name_waits

_STREAMS_SHOWN = 20
"""Streams of one connection, and tombstones, that the text lists; JSON has them all."""

name_waits(
    {
        Stream.read: "stream read",
        Stream._write_rest: "stream write",
        Stream.answered: "stream negotiation",
        Stream.wait_closed: "stream close",
        Connection._wait_to_open: "stream open",
        Connection.wait_closed: "connection close",
        EventStream.__anext__: "event",
        Swarm.connect: "dial",
        Dialer._connect: "connection upgrade",
        Dialer._look_up: "name look-up",
    }
)


@dataclass(frozen=True, slots=True)
class StreamProfile:
    """One stream in use."""

    id: int
    protocol: str
    """Empty until it is settled."""
    inbound: bool
    handshake: Literal["pending", "answered", "refused"]
    age: float
    """Seconds since it was opened."""
    waits: tuple[Literal["read", "write"], ...]
    """What a task, or a server on callbacks, waits to do on it."""
    reading: float | None
    """Seconds since a read began to wait, or since a server on callbacks last received something."""
    writing: float | None
    """Seconds since a write that waits made progress; None where no deadline counts them."""
    unread_bytes: int

    def __str__(self) -> str:
        parts: list[str] = [self.handshake]
        seconds = {"read": self.reading, "write": self.writing}
        for wait in self.waits:
            waited = seconds[wait]
            parts.append(f"{wait}s" if waited is None else f"{wait}s, {duration_text(waited)}")
        parts.append(f"age {duration_text(self.age)}")
        if self.unread_bytes:
            parts.append(f"{self.unread_bytes} bytes unread")
        return f"stream {self.id} {_direction(self)} {self.protocol or '?'} [{'; '.join(parts)}]"


@dataclass(frozen=True, slots=True)
class TombstoneProfile:
    """One stream that was closed here and whose peer still owes something."""

    id: int
    protocol: str
    inbound: bool
    handshake: Literal["pending", "answered", "refused"]
    left: float
    """Seconds until it is forgotten."""

    def __str__(self) -> str:
        state = f"{self.handshake}; {duration_text(self.left)} left"
        return f"tombstone {self.id} {_direction(self)} {self.protocol or '?'} [{state}]"


@dataclass(frozen=True, slots=True)
class ConnectionProfile:
    """One connection and its streams."""

    peer_id: str
    address: str
    """The peer's."""
    direction: Literal["inbound", "outbound"]
    age: float
    """Seconds since it was made."""
    bytes_in: int
    bytes_out: int
    streams: tuple[StreamProfile, ...]
    """Oldest first, as are the tombstones."""
    tombstones: tuple[TombstoneProfile, ...]

    def __str__(self) -> str:
        state = f"age {duration_text(self.age)}; {self.bytes_in} bytes in, {self.bytes_out} out"
        lines = [f"connection {self.direction} {self.peer_id} at {self.address} [{state}]"]
        lines += _shown(self.streams, "streams")
        lines += _shown(self.tombstones, "tombstones")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class HostProfile:
    """What a host does and waits for."""

    peer_id: str
    tasks: TaskProfile
    """The tasks that the host owns: handlers of streams, and dials."""
    connections: tuple[ConnectionProfile, ...]
    """Oldest first."""

    def __str__(self) -> str:
        streams = sum(len(connection.streams) for connection in self.connections)
        tombstones = sum(len(connection.tombstones) for connection in self.connections)
        counts = [(len(self.tasks.tasks), "task"), (len(self.connections), "connection")]
        counts += [(streams, "stream"), (tombstones, "tombstone")]
        title = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts)
        parts: list[object] = [f"host {self.peer_id}: {title}"]
        if self.tasks.tasks:
            parts.append(self.tasks)
        return "\n".join(map(str, [*parts, *self.connections]))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it; durations in seconds."""
        connections = [asdict(connection) for connection in self.connections]
        return {"peer_id": self.peer_id, **self.tasks.to_json(), "connections": connections}


def profile_connection(connection: Connection) -> ConnectionProfile:
    """Return what a connection and its streams wait for."""
    return ConnectionProfile(
        peer_id=str(connection.peer_id),
        address=str(connection.remote_address),
        direction=connection.direction,
        age=max(0.0, connection._clock.wall() - connection.opened_at),
        bytes_in=connection.bytes_in,
        bytes_out=connection.bytes_out,
        streams=tuple(_profile_stream(stream) for stream in connection.streams),
        tombstones=tuple(_profile_tombstone(stream) for stream in connection.tombstones),
    )


async def profile_connections_in_turns(connections: Iterable[Connection]) -> tuple[ConnectionProfile, ...]:
    """Return what connections and their streams wait for; other tasks run after each of them.

    Cancellation: nothing happens.
    """
    found: list[ConnectionProfile] = []
    for connection in tuple(connections):
        if connection.ended is None:
            found.append(profile_connection(connection))
        await asyncio.sleep(0)
    return tuple(found)


def _profile_stream(stream: Stream) -> StreamProfile:
    now = stream.connection._clock.now()
    waits: list[Literal["read", "write"]] = []
    reading = writing = None
    if stream._read_waiter is not None or stream._readable is not None:
        waits.append("read")
        reading = now - stream._read_since
    if stream._write_waiter is not None or stream._writable is not None:
        waits.append("write")
        if stream._write_deadline is not None:
            writing = now - (stream._write_deadline - stream.connection._timeouts.write_stall)
    return StreamProfile(
        id=stream.id,
        protocol=stream.protocol,
        inbound=stream.inbound,
        handshake=stream.handshake,
        age=now - stream.opened_at,
        waits=tuple(waits),
        reading=reading,
        writing=writing,
        # A muxer that does not count what it holds for a stream says nothing of it.
        unread_bytes=len(stream._head) + getattr(stream._muxed, "unread_bytes", 0),
    )


def _profile_tombstone(stream: Stream) -> TombstoneProfile:
    left = max(0.0, stream._bury_at - stream.connection._clock.now())
    return TombstoneProfile(stream.id, stream.protocol, stream.inbound, stream.handshake, left)


def _direction(stream: StreamProfile | TombstoneProfile) -> str:
    return "inbound" if stream.inbound else "outbound"


def _shown(entries: Iterable[object], name: str) -> list[str]:
    lines = [f"    {entry}" for entry in entries]
    more = len(lines) - _STREAMS_SHOWN
    return [*lines[:_STREAMS_SHOWN], f"    and {more} more {name}"] if more > 0 else lines
