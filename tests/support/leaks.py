"""What must be gone once an operation is over: every count that streams, sockets, credit and wants leave behind.

Each check gives lines; none means that all is as before. They look into hosts: a leak is what no public name shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from aiolibp2p import Connection, Host, Stream
from aiolibp2p.bitswap import Bitswap
from aiolibp2p.bitswap.wire import MessageWriter
from aiolibp2p.net.link import Link
from aiolibp2p.protocols import ping
from aiolibp2p.sansio.bitswap.message import PROTOCOLS
from aiolibp2p.sansio.yamux import YamuxSession, YamuxStream
from aiolibp2p.sim import SimNet

KEPT = (ping.PROTOCOL, *PROTOCOLS)
"""Protocols whose streams are kept for the next question."""


def differing(where: str, facts: Iterable[tuple[str, object, object]]) -> Iterator[str]:
    """Give a line for each fact that is not as it has to be: its name, what it is, what it has to be."""
    for name, found, expected in facts:
        if found != expected:
            yield f"{where}: {name} is {found!r}, not {expected!r}"


def host_leaks(name: str, host: Host, bitswap: Bitswap | None = None) -> Iterator[str]:
    """Look at one host that does nothing."""
    swarm = host._swarm
    connections = host.connections
    kept = {session._stream for session in host._pinger._sessions.values() if not session.ended}
    if bitswap is not None:
        kept.update(written_on(bitswap))
    yield from differing(
        name,
        [
            ("tasks", len(host._tasks), 0),
            ("dials", list(swarm._dials), []),
            ("sockets being upgraded", list(swarm._pending_inbound), []),
            ("networks of those", swarm._pending_of, {}),
            ("sockets", list(swarm._links), [connection._muxer for connection in connections]),
            ("connections counted", swarm._connection_count, len(connections)),
            ("peers without a connection", [peer for peer in swarm._peers.values() if not peer.connections], []),
            ("streams counted", swarm.counts.streams, sum(len(c.streams) for c in connections)),
            ("tombstones counted", swarm.counts.tombstones, 0),
            ("handlers counted", swarm.counts.handlers, 0),
            ("identify queries", list(host._identifier._queries), []),
            ("identify failures", [c for c in host._identifier._failures if c not in connections], []),
            ("ping sessions", [c for c in host._pinger._sessions if c not in connections], []),
            ("pings", sum(len(session._under_way) for session in host._pinger._sessions.values()), 0),
        ],
    )
    for peer in swarm._peers.values():
        counts = peer.counts
        streams = sum(len(connection.streams) for connection in peer.connections)
        yield from differing(
            name, [("a peer's counts", (counts.streams, counts.tombstones, counts.handlers), (streams, 0, 0))]
        )
    for connection in connections:
        yield from connection_leaks(name, connection, kept)
    if bitswap is not None:
        yield from bitswap_leaks(name, bitswap)


def connection_leaks(name: str, connection: Connection, kept: set[Stream]) -> Iterator[str]:
    """Look at one connection; `kept` are the streams that a protocol keeps for later."""
    streams = connection.streams
    link = connection._muxer
    assert isinstance(link, Link)
    session = link._session
    assert session is not None
    left = [stream for stream in streams if stream.protocol not in KEPT or (not stream.inbound and stream not in kept)]
    yield from differing(
        f"{name} {connection.direction}",
        [
            ("streams", left, []),
            ("tombstones", connection.tombstones, []),
            ("inbound", connection._inbound, sum(stream.inbound for stream in streams)),
            ("outbound", connection._outbound, sum(not stream.inbound for stream in streams)),
            ("openers", len(connection._open_waiters), 0),
            ("muxed streams", list(session.streams), [stream.id for stream in streams]),
            ("waiting for room", len(link._room_waiters), 0),
            ("closing timer", link._close_timer, None),
            ("flush", link._flush_scheduled, False),
        ],
    )
    yield from differing(f"{name} {connection.direction}", session_facts(session))


def session_facts(session: YamuxSession) -> list[tuple[str, object, object]]:
    """Return what has to be so of a session on which nothing moves."""
    return [
        ("terminated", session.terminated, None),
        ("room", session.room, session.limits.connection_send_bytes),
        ("unread bytes", session.unread_bytes, 0),
        ("finished and unread", list(session._finished), []),
        ("unacknowledged", session._unacknowledged, 0),
        ("windows", session._windows, sum(stream.window for stream in session.streams.values())),
        ("scheduled", list(session.scheduled), []),
        ("control bytes", session.control_bytes, 0),
    ]


def written_on(bitswap: Bitswap) -> Iterator[Stream]:
    """Give the streams that Bitswap keeps for its next messages."""
    for writer in writers_of(bitswap):
        if writer._stream is not None:
            yield writer._stream


def writers_of(bitswap: Bitswap) -> list[MessageWriter[Any]]:
    """Return what writes messages, of both halves."""
    return [*bitswap.client._writers.values(), *bitswap.server._writers.values()]


def bitswap_leaks(name: str, bitswap: Bitswap) -> Iterator[str]:
    """Look at a Bitswap that nobody wants anything of."""
    client, server, core = bitswap.client, bitswap.server, bitswap.client.core
    engine = server.engine
    ledgers = [record.ledger for record in engine._peers.values()]
    connected = {connection.peer_id for connection in bitswap._host.connections}
    yield from differing(
        name,
        [
            ("Bitswap's tasks", len(bitswap._tasks), 0),
            ("interest", list(core._interest), []),
            ("sessions", (list(core._sessions), list(client._sessions)), ([], [])),
            ("wantlists", [cid for wantlist in core._wantlists.values() for cid in wantlist._desired], []),
            ("wants told", [cid for wantlist in core._wantlists.values() for cid in wantlist._told], []),
            ("messages being sent", [w._sending for w in core._wantlists.values() if w._sending is not None], []),
            ("unfinished bytes", bitswap._unfinished, {}),
            ("loaded bytes", engine.loaded_bytes, 0),
            ("stalled bytes", (engine.stalled_bytes, engine._pools.stalled), (0, {})),
            ("wants of peers", [want.cid for ledger in ledgers for want in ledger.wants], []),
            ("unconfirmed answers", [cid for ledger in ledgers for cid in ledger._unconfirmed], []),
            ("batches", [batch for ledger in ledgers for batch in (*ledger._taken, *ledger._written)], []),
            ("batches of peers", [batch for record in engine._peers.values() for batch in record.batches], []),
            ("waiting for blocks", list(engine._waiting), []),
            ("eligible peers", engine.eligible, 0),
            ("look-ups", list(server._looking), []),
            ("busy writers", [writer for writer in writers_of(bitswap) if writer.busy or writer._blocked], []),
            ("peers that are gone", [peer for peer in engine._peers if peer not in connected], []),
            ("wantlists of those", [peer for peer in core._wantlists if peer not in connected], []),
        ],
    )


def pair_leaks(hosts: Sequence[Host], net: SimNet) -> Iterator[str]:
    """Look whether both ends of every connection agree: on its being there, its streams, and their credit."""
    ends: dict[tuple[str, str], Connection] = {}
    for host in hosts:
        for connection in host.connections:
            ends[str(connection.local_address), str(connection.remote_address)] = connection
    for (local, remote), connection in ends.items():
        other = ends.get((remote, local))
        if other is None:
            yield f"{connection!r} has no other end"
            continue
        ours, theirs = muxed_streams(connection), muxed_streams(other)
        if set(ours) != set(theirs):
            yield f"{connection!r} has the streams {sorted(ours)}, its other end {sorted(theirs)}"
            continue
        for number, stream in ours.items():
            there = theirs[number]
            if not stream.fin_sent and stream.send_window != there.receive_window:
                credit = f"may send {stream.send_window}, which are {there.receive_window} there"
                yield f"stream {number} of {connection!r} {credit}"
    if len(net.transports) != len(ends):
        yield f"{len(net.transports)} sockets for {len(ends)} ends of connections: {net.transports}"


def muxed_streams(connection: Connection) -> dict[int, YamuxStream]:
    """Return the streams that the muxer of a connection knows."""
    link = connection._muxer
    assert isinstance(link, Link)
    assert link._session is not None
    return link._session.streams


def timer_leaks(hosts: Sequence[Host], pending: Sequence[asyncio.TimerHandle]) -> Iterator[str]:
    """Look at the timers of hosts that have done nothing for longer than any deadline: only keepalives are left."""
    connections = [connection for host in hosts for connection in host.connections]
    for connection in connections:
        if connection._deadlines._heap:
            yield f"{connection!r} has the deadlines {connection._deadlines._heap}"
    keepalives = {id(timer) for c in connections if (timer := getattr(c._muxer, "_timer", None)) is not None}
    for timer in pending:
        if id(timer) not in keepalives:
            yield f"timer {timer!r}"
