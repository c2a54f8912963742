"""A peerstore on disk: what a node knows of peers, when it starts again.

The peerstore itself is in memory (`net/peerstore.py`). This one fills it when it is opened, then follows it: what has
changed is written `Timeouts.peerstore_write` later, on a storage thread, each peer once however often it has changed. A
process that is killed loses what it learnt since; a disk that fails or hangs costs nothing but that.

A key is a peer ID, its value DAG-CBOR. The time that an address has left is kept with the wall clock's at which it was
written, so a clock that is set back lengthens nothing, and one that jumps makes all be written again.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import libipld

from aiolibp2p.blocks.commits import Change
from aiolibp2p.blocks.lmdb_map import LmdbMap
from aiolibp2p.blocks.threads import Call, State, StorageThreads
from aiolibp2p.errors import InvalidValueError, LocalProtocolError, StorageError
from aiolibp2p.identity.keys import PublicKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.limits import Limits, Timeouts
from aiolibp2p.log import logger_of
from aiolibp2p.net.known import KnownAddress, KnownPeer, Source
from aiolibp2p.net.peerstore import Peerstore
from aiolibp2p.runtime import Clock, Runtime

T = TypeVar("T")

FORMAT: Final = "aiolibp2p peers 1 (lmdb 0.9)\n"
"""What the file `version` says."""

_PEERS_A_WRITE: Final = 64
"""Peers encoded in one turn of the loop, some 2 ms, and written by one commit."""
_JUMP_SECONDS: Final = 60.0
"""What the wall clock may go wrong by before all is written again."""

_log = logger_of("node")


class _Write(Call):
    """Some changes, made durable by one call."""

    __slots__ = ("_owner", "changes", "peers")

    def __init__(self, owner: LmdbPeerstore, peers: list[PeerId], changes: list[Change]) -> None:
        super().__init__()
        self._owner = owner
        self.peers = peers
        self.changes = changes

    def run(self) -> None:
        """Write, on a storage thread."""
        self._owner._map.write(self.changes)

    def changed(self) -> None:
        """Hear that the call is late or over."""
        self._owner._write_changed(self)


class LmdbPeerstore:
    """A directory that keeps a peerstore, for one process at a time: `async with LmdbPeerstore(path) as peerstore`.

    Args:
        path: the directory, which is made when it is opened; the disk is not touched before.
        clock: None is that of the running loop and the system; a host with another one is given the same.
        limits: of the peerstore.
        timeouts: of the peerstore, and how long the disk may take.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.path = Path(path)
        self._limits = limits if limits is not None else Limits()
        self._timeouts = timeouts if timeouts is not None else Timeouts()
        self._given_clock = clock
        # The file holds less than the memory does, so this grows where a user gives many addresses, if ever.
        map_limits = replace(self._limits, storage_map_bytes=4 * self._limits.peerstore_bytes)
        self._map = LmdbMap(self.path, map_limits, form=FORMAT)
        self._threads: StorageThreads | None = None
        self._clock: Clock
        self._peerstore: Peerstore
        self._dirty: dict[PeerId, None] = {}
        """Peers whose entry on disk is not what is known; they are known, or on disk, so the bounds of both hold."""
        self._stored: set[PeerId] = set()
        """Peers that are on disk."""
        self._timer: asyncio.TimerHandle | None = None
        self._writing: _Write | None = None
        self._failing = False
        """Whether the last write failed."""
        self._wall_offset = 0.0

    # -- life --------------------------------------------------------------------------------------------------------

    async def open(self) -> Peerstore:
        """Return a peerstore with what the directory knows; entries that are not understood are left out and alone.

        Raises:
            StorageError: another process has it open (`errno` is EWOULDBLOCK), the directory holds something else or is
                broken, or the disk refuses.
            DeadlineError: that has taken longer than `Timeouts.storage`.
            LocalProtocolError: it is open.
        Cancellation: it is closed.
        """
        if self._threads is not None:
            raise LocalProtocolError(f"the peerstore {self.path} is open")
        clock = self._clock = self._given_clock or Runtime.system().clock
        self._peerstore = Peerstore(clock, limits=self._limits, timeouts=self._timeouts)
        one_thread = replace(self._limits, storage_threads=1, storage_threads_max=1)
        threads = self._threads = StorageThreads("peerstore", limits=one_thread, timeouts=self._timeouts)
        try:
            known = await threads.run(self._load)
            for place, peer in enumerate(known):
                if place % _PEERS_A_WRITE == _PEERS_A_WRITE - 1:
                    await asyncio.sleep(0)
                self._peerstore.restore(peer)
        except BaseException as error:
            await threads.close(self._map.close)
            self._threads = None
            if isinstance(error, StorageError) and error.errno is None:
                text = f"{error.message}; without this directory, what it knows of peers is learnt anew"
                raise StorageError(error.path, text, stage=error.stage) from error
            raise
        self._stored = {peer.peer_id for peer in known}
        self._wall_offset = clock.wall() - clock.now()
        self._unwatch = self._peerstore.watch(self._learnt)
        for peer_id in self._stored.difference(self._peerstore.peers()):
            self._learnt(peer_id)
        return self._peerstore

    async def flush(self) -> None:
        """Write what has changed; whether that succeeds is logged. Bounded by `Timeouts.storage` for each write.

        Cancellation: what has begun is completed.
        """
        while self._threads is not None:
            writing = self._writing
            if writing is None:
                if not self._dirty:
                    return
                self._write()
            else:
                await writing.wait()
                if writing.late or self._failing:
                    return

    async def close(self) -> None:
        """Write what has changed, then let the directory go.

        Raises:
            DeadlineError: a write has not returned within `Timeouts.storage`; the directory is let go when it does.
        Cancellation: it is closed all the same.
        """
        threads = self._threads
        if threads is None:
            return
        self._unwatch()
        try:
            async with asyncio.timeout(self._timeouts.storage):
                await self.flush()
        except TimeoutError:
            _log.warning("peers are not written", extra={"path": self.path, "peers": len(self._dirty)})
        finally:
            self._threads = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            await threads.close(self._map.close)

    async def __aenter__(self) -> Peerstore:
        """Open it; raises as `open`."""
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; raises as `close`."""
        await self.close()

    # -- writing -----------------------------------------------------------------------------------------------------

    def _learnt(self, peer_id: PeerId) -> None:
        """Take note of a change."""
        if peer_id in self._peerstore or peer_id in self._stored:
            self._dirty[peer_id] = None
            self._write_later()
        else:
            self._dirty.pop(peer_id, None)  # forgotten before it was written

    def _write_later(self) -> None:
        if self._timer is None and self._writing is None and self._threads is not None:
            self._timer = self._clock.call_at(self._clock.now() + self._timeouts.peerstore_write, self._write)

    def _write(self) -> None:
        """Begin to write the peers that changed first."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._threads is None:
            return
        self._check_wall()
        wall = self._clock.wall()
        changes: list[Change] = []
        peers: list[PeerId] = []
        while self._dirty and len(peers) < _PEERS_A_WRITE:
            peer_id = next(iter(self._dirty))
            del self._dirty[peer_id]
            peers.append(peer_id)
            known = self._peerstore.info(peer_id)
            if known is not None or peer_id in self._stored:
                # What is there stays there unless it is deleted, as blocks never change.
                changes.append((bytes(peer_id), None))
            if known is not None:
                changes.append((bytes(peer_id), encode(known, wall)))
        if changes:
            self._writing = _Write(self, peers, changes)
            self._threads.start(self._writing)
        elif self._dirty:
            self._write_later()

    def _check_wall(self) -> None:
        """Write all again where the wall clock was set: what was written before says the wrong time."""
        offset = self._clock.wall() - self._clock.now()
        if abs(offset - self._wall_offset) > _JUMP_SECONDS:
            self._wall_offset = offset
            self._dirty.update(dict.fromkeys(self._peerstore.peers()))

    def _write_changed(self, write: _Write) -> None:
        if write.state is State.RUNNING:
            _log.warning("the disk does not answer", extra={"path": self.path, "seconds": self._timeouts.storage})
            return
        self._writing = None
        if write.state is State.RETURNED and write.error is None:
            self._failing = False
            self._stored.difference_update(write.peers)
            self._stored.update(PeerId(key) for key, value in write.changes if value is not None)
            forgotten_meanwhile = (id_ for id_ in write.peers if id_ in self._stored and id_ not in self._peerstore)
            self._dirty.update(dict.fromkeys(forgotten_meanwhile))
        else:
            if write.error is not None and not self._failing:
                _log.warning("peers are not written", extra={"path": self.path, "error": write.error})
            self._failing = True
            # To be tried again; what was learnt meanwhile of the same peers is written with it.
            self._dirty.update(dict.fromkeys(write.peers))
        if self._dirty:
            self._write_later()

    # -- reading, on a storage thread ----------------------------------------------------------------------------------

    def _load(self) -> list[KnownPeer]:
        """Open the directory and return the peers in it, those seen longest ago first."""
        self._map.open()
        wall = self._clock.wall()
        found: list[KnownPeer] = []
        skipped = 0
        last = b""
        while items := self._map.items_after(last):
            last = items[-1][0]
            for key, value in items:
                try:
                    found.append(decode(key, value, wall))
                except InvalidValueError:
                    skipped += 1
        if skipped:
            _log.warning("entries are not understood and left alone", extra={"path": self.path, "entries": skipped})
        return sorted(found, key=lambda peer: peer.last_seen or 0.0)


def encode(known: KnownPeer, wall: float) -> bytes:
    """Return the entry of a peer.

    Args:
        known: what there is to keep.
        wall: seconds since 1970.
    """
    key = known.public_key
    entry = {
        "at": wall,
        "addresses": [_encode_address(address) for address in known.addresses],
        "protocols": list(known.protocols),
        "agent": known.agent,
        # The ID of a peer with a short key is that key.
        "key": None if key is None or known.peer_id.public_key is not None else bytes(key),
        "seq": known.record_seq,
        "seen": known.last_seen,
    }
    return libipld.encode_dag_cbor(entry)


def _encode_address(known: KnownAddress) -> list[object]:
    left = None if known.seconds_left == math.inf else known.seconds_left
    claimed = None if known.claimed is None else str(known.claimed)
    return [bytes(known.address), str(known.source), left, known.held, claimed]


def decode(key: bytes, value: bytes, wall: float) -> KnownPeer:
    """Return what an entry says at the time `wall`; addresses that are not understood are left out.

    The addresses of a peer that was connected when it was written expire from now on: nobody saw the end.

    Raises:
        InvalidValueError: it is no entry of a peer.
    """
    peer_id = PeerId(key)
    try:
        entry: Any = libipld.decode_dag_cbor(value)
        age = max(0.0, wall - float(entry["at"]))
        protocols = tuple(_checked(name, str) for name in entry["protocols"])
        agent = None if entry["agent"] is None else _checked(entry["agent"], str)
        public_key = None if entry["key"] is None else PublicKey.from_bytes(_checked(entry["key"], bytes))
        seq = None if entry["seq"] is None else int(entry["seq"])
        seen = None if entry["seen"] is None else float(entry["seen"])
        addresses = tuple(_decode_addresses(entry["addresses"], age))
    except InvalidValueError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidValueError(f"no entry of a peer: {error!r}") from error
    if public_key is not None and public_key.peer_id != peer_id:
        raise InvalidValueError(f"the entry of {peer_id} has the key of {public_key.peer_id}")
    return KnownPeer(
        peer_id=peer_id,
        addresses=addresses,
        protocols=protocols,
        agent=agent,
        public_key=public_key,
        record_seq=seq,
        last_seen=seen,
    )


def _decode_addresses(entries: Iterable[Any], age: float) -> Iterable[KnownAddress]:
    for entry in entries:
        try:
            data, source, left, held, claimed = entry
            seconds = math.inf if left is None else float(left) - (0.0 if held else age)
            yield KnownAddress(
                address=Multiaddr(_checked(data, bytes)),
                source=Source(source),
                seconds_left=seconds,
                held=False,
                claimed=None if claimed is None else Source(claimed),
            )
        except (ValueError, TypeError):
            continue


def _checked(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise InvalidValueError(f"{value!r:.80} is not {kind.__name__}")
    return value
