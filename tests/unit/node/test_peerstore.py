"""The peerstore on disk: what lasts, what a kill leaves, and what a strange or failing disk does."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import libipld
import lmdb
import pytest

from aiolibp2p import Host, Limits, Multiaddr, Timeouts
from aiolibp2p.blocks.commits import Change
from aiolibp2p.blocks.lmdb_map import LmdbMap
from aiolibp2p.errors import DeadlineError, InvalidValueError, LocalProtocolError, StorageError
from aiolibp2p.identity.keys import KeyType, PrivateKey
from aiolibp2p.net.known import KnownAddress, KnownPeer, Source
from aiolibp2p.node.daemon import running_node
from aiolibp2p.node.peerstore import FORMAT, LmdbPeerstore, decode, encode
from aiolibp2p.node.repo import Repo
from tests.support.peers import ManualClock, address_of, peer_of, said_by

PEER, OTHER = peer_of(1), peer_of(2)
A, B, C = (address_of(number) for number in range(3))
PUBLIC = Multiaddr("/ip4/9.9.9.9/tcp/9")
NEVER = Timeouts(peerstore_write=math.inf)
"""Nothing is written before the end, or `flush`."""
WALL = 1.7e9
WRITER = Path(__file__).parent / "peerstore_writer.py"

sockets = pytest.mark.sockets  # real threads, on a real loop


class SetClock(ManualClock):
    """A clock that goes when it is told to, with timers of the loop."""

    def call_at(self, when: float, callback: object, *args: object) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        return loop.call_at(loop.time() + 1e6, lambda: None)


# -- entries


def known_peer(number: int = 1) -> KnownPeer:
    addresses = (
        KnownAddress(address=A, source=Source.GIVEN, seconds_left=math.inf, held=False, claimed=None),
        KnownAddress(address=B, source=Source.SIGNED, seconds_left=900.0, held=True, claimed=Source.SIGNED),
        KnownAddress(address=C, source=Source.FOUND, seconds_left=100.0, held=False, claimed=None),
    )
    return KnownPeer(
        peer_id=peer_of(number),
        addresses=addresses,
        protocols=("/x", "/y"),
        agent="z/1",
        record_seq=2**64 - 1,
        connected=True,
        last_seen=WALL - 5.5,
    )


def test_an_entry_says_what_was_known_and_time_goes_on() -> None:
    value = encode(known_peer(), WALL)
    found = decode(bytes(PEER), value, WALL + 60)
    assert (found.peer_id, found.protocols, found.agent) == (PEER, ("/x", "/y"), "z/1")
    assert (found.record_seq, found.last_seen, found.connected) == (2**64 - 1, WALL - 5.5, False)
    # What was held expires from now on: nobody saw the end of the connection.
    assert [(entry.address, entry.seconds_left, entry.held) for entry in found.addresses] == [
        (A, math.inf, False),
        (B, 900.0, False),
        (C, 40.0, False),
    ]
    assert [entry.claimed for entry in found.addresses] == [None, Source.SIGNED, None]
    assert decode(bytes(PEER), value, WALL - 1e9).addresses[2].seconds_left == 100.0


def test_a_key_is_kept_where_the_id_does_not_hold_it() -> None:
    key = PrivateKey.generate(type=KeyType.ECDSA).public
    known = KnownPeer(peer_id=key.peer_id, public_key=key)
    assert decode(bytes(key.peer_id), encode(known, WALL), WALL).public_key == key
    with pytest.raises(InvalidValueError):
        decode(bytes(PEER), encode(known, WALL), WALL)


def changed(name: str, value: object) -> bytes:
    """Return an entry in which one field is something else."""
    return libipld.encode_dag_cbor({**libipld.decode_dag_cbor(encode(known_peer(), WALL)), name: value})


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"\x81" * 100_000,
        libipld.encode_dag_cbor(7),
        libipld.encode_dag_cbor([]),
        libipld.encode_dag_cbor({}),
        changed("at", "yesterday"),
        changed("addresses", 10**12),
        changed("protocols", [b"/x"]),
        changed("protocols", None),
        changed("agent", b"z/1"),
        changed("key", 10**12),
        changed("key", b"\xff"),
        changed("seq", [1]),
        changed("seen", {"x": 1}),
    ],
)
def test_an_entry_that_is_none_is_said_to_be_none(value: bytes) -> None:
    with pytest.raises(InvalidValueError):
        decode(bytes(PEER), value, WALL)


def test_an_address_that_is_not_understood_leaves_the_others() -> None:
    entry = libipld.decode_dag_cbor(encode(known_peer(), WALL))
    good = entry["addresses"][0]
    strange: list[object] = [b"\xff", "given", None, False, None]
    entry["addresses"] = [strange, [10**12, *good[1:]], [bytes(A), "rumour", None, False, None], 7, good]
    found = decode(bytes(PEER), libipld.encode_dag_cbor(entry), WALL)
    assert [address.address for address in found.addresses] == [A]


# -- on disk


@sockets
async def test_what_was_known_is_known_again(tmp_path: Path) -> None:
    async with LmdbPeerstore(tmp_path) as store:
        store.connected(PEER)
        store.dial_succeeded(PEER, B)
        store.identified(PEER, said_by(1, A, seq=3, protocols=("/x",), agent_version="z/1"), PUBLIC)
        store.disconnected(PEER)
        store.add_addresses(OTHER, [C], source=Source.GIVEN)
        before = store.info(PEER)
        assert before is not None
    async with LmdbPeerstore(tmp_path) as store:
        after = store.info(PEER)
        assert after is not None
        assert set(store.peers()) == {PEER, OTHER}
        assert (after.protocols, after.agent, after.record_seq) == (("/x",), "z/1", 3)
        assert after.last_seen == before.last_seen
        assert store.addresses(PEER) == [B, A]
        assert store.addresses(OTHER) == [C]
        store.forget(PEER)
    async with LmdbPeerstore(tmp_path) as store:
        assert store.peers() == [OTHER]


@sockets
async def test_each_peer_is_written_once_however_often_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[list[bytes]] = []
    write = LmdbMap.write

    def counted(self: LmdbMap, changes: Sequence[Change]) -> None:
        commits.append([key for key, value in changes if value is not None])
        write(self, changes)

    monkeypatch.setattr(LmdbMap, "write", counted)
    disk = LmdbPeerstore(tmp_path, timeouts=NEVER)
    async with disk as store:
        for number in range(100):
            for _ in range(10):
                store.add_addresses(peer_of(number % 70), [address_of(number)], source=Source.FOUND)
        await disk.flush()
        assert [len(keys) for keys in commits] == [64, 6]
        await disk.flush()
        assert len(commits) == 2
    assert len(commits) == 2


@sockets
async def test_news_is_written_after_its_time_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = threading.Event()
    keys: list[bytes] = []

    def write(self: LmdbMap, changes: Sequence[Change]) -> None:
        keys.extend(key for key, value in changes if value is not None)
        written.set()

    monkeypatch.setattr(LmdbMap, "write", write)
    async with LmdbPeerstore(tmp_path, timeouts=Timeouts(peerstore_write=0.001)) as store:
        store.add_addresses(PEER, [A], source=Source.FOUND)
        await asyncio.to_thread(written.wait)
        assert keys == [bytes(PEER)]


@sockets
async def test_a_peer_that_made_room_leaves_the_disk_too(tmp_path: Path) -> None:
    limits = Limits(peers_remembered=4)
    disk = LmdbPeerstore(tmp_path, limits=limits, timeouts=NEVER)
    async with disk as store:
        for number in range(20):
            store.add_addresses(peer_of(number), [A], source=Source.FOUND)
            if number % 3 == 0:
                await disk.flush()
            assert len(disk._dirty) <= 8
    async with LmdbPeerstore(tmp_path, limits=Limits(peers_remembered=100)) as store:
        assert set(store.peers()) == {peer_of(number) for number in range(16, 20)}
    # And with a smaller limit, those in excess.
    async with LmdbPeerstore(tmp_path, limits=Limits(peers_remembered=2)) as store:
        assert len(store.peers()) == 2
    async with LmdbPeerstore(tmp_path) as store:
        assert len(store.peers()) == 2


@sockets
async def test_what_has_expired_meanwhile_is_not_known_again(tmp_path: Path) -> None:
    clock = SetClock()
    async with LmdbPeerstore(tmp_path, clock=clock, timeouts=NEVER) as store:
        store.add_addresses(PEER, [A], source=Source.FOUND, ttl_seconds=100)
        store.add_addresses(PEER, [B], source=Source.FOUND, ttl_seconds=200)
    later = SetClock()  # the machine has been started again: its clock begins anew
    later.seconds, later.wall_offset = 0.0, clock.wall() + 150
    async with LmdbPeerstore(tmp_path, clock=later, timeouts=NEVER) as store:
        assert store.addresses(PEER) == [B]
        later.seconds += 50
        assert store.addresses(PEER) == []


@sockets
async def test_a_wall_clock_that_was_wrong_when_it_was_written_costs_nothing(tmp_path: Path) -> None:
    clock = SetClock()
    clock.wall_offset = 0.0  # 1970, until the network is up
    disk = LmdbPeerstore(tmp_path, clock=clock, timeouts=NEVER)
    async with disk as store:
        store.add_addresses(PEER, [A], source=Source.FOUND)
        await disk.flush()
        clock.wall_offset = WALL
        store.add_addresses(OTHER, [A], source=Source.FOUND)
        await disk.flush()
    async with LmdbPeerstore(tmp_path, clock=clock, timeouts=NEVER) as store:
        assert set(store.peers()) == {PEER, OTHER}
        assert store.addresses(PEER) == [A]
    clock.wall_offset = 0.0  # and set back, it lengthens nothing
    async with LmdbPeerstore(tmp_path, clock=clock, timeouts=NEVER) as store:
        known = store.info(PEER)
        assert known is not None
        assert known.addresses[0].seconds_left == Timeouts().found_address


@sockets
async def test_strange_entries_are_left_alone_one_by_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with LmdbPeerstore(tmp_path) as store:
        for number in range(3):
            store.add_addresses(peer_of(number), [A], source=Source.FOUND)
    with lmdb.open(str(tmp_path), lib_version=0) as env, env.begin(write=True) as transaction:
        transaction.put(b"no peer", b"\xa0")
        transaction.put(bytes(peer_of(1)), b"\x00" * 100)
    with caplog.at_level(logging.WARNING):
        async with LmdbPeerstore(tmp_path) as store:
            assert set(store.peers()) == {peer_of(0), peer_of(2)}
            store.add_addresses(peer_of(1), [B], source=Source.FOUND)
    assert [vars(record)["entries"] for record in caplog.records] == [2]
    async with LmdbPeerstore(tmp_path) as store:
        assert store.addresses(peer_of(1)) == [B]
    with lmdb.open(str(tmp_path), readonly=True, lib_version=0) as env, env.begin() as reading:
        assert reading.get(b"no peer") == b"\xa0"


@sockets
async def test_a_directory_of_another_version_or_that_is_broken_is_refused_with_what_to_do(tmp_path: Path) -> None:
    async with LmdbPeerstore(tmp_path / "one"):
        pass
    (tmp_path / "one" / "version").write_text(FORMAT.replace("1", "2", 1))
    with pytest.raises(StorageError, match="learnt anew"):
        await LmdbPeerstore(tmp_path / "one").open()
    async with LmdbPeerstore(tmp_path / "two"):
        pass
    (tmp_path / "two" / "data.mdb").write_bytes(b"\x55" * 65536)
    with pytest.raises(StorageError, match="learnt anew"):
        await LmdbPeerstore(tmp_path / "two").open()


@sockets
async def test_one_process_at_a_time_and_each_once(tmp_path: Path) -> None:
    disk = LmdbPeerstore(tmp_path)
    async with disk:
        with pytest.raises(LocalProtocolError):
            await disk.open()
        with pytest.raises(StorageError) as caught:
            await LmdbPeerstore(tmp_path).open()
        assert caught.value.errno == errno.EWOULDBLOCK
    await disk.close()
    await disk.flush()
    async with disk as store:
        assert store.peers() == []


# -- disks that fail


@sockets
async def test_a_full_disk_is_logged_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = LmdbMap.write
    failures = [StorageError(str(tmp_path), "no space left on device", errno=errno.ENOSPC)] * 2

    def failing(self: LmdbMap, changes: Sequence[Change]) -> None:
        if failures:
            raise failures.pop()
        write(self, changes)

    monkeypatch.setattr(LmdbMap, "write", failing)
    disk = LmdbPeerstore(tmp_path, timeouts=NEVER)
    with caplog.at_level(logging.WARNING):
        async with disk as store:
            store.add_addresses(PEER, [A], source=Source.FOUND)
            await disk.flush()
            store.add_addresses(OTHER, [A], source=Source.FOUND)
            await disk.flush()
            assert store.addresses(PEER) == [A]
    (record,) = caplog.records
    assert "no space left" in str(vars(record)["error"])
    async with LmdbPeerstore(tmp_path) as store:
        assert set(store.peers()) == {PEER, OTHER}


@sockets
async def test_a_disk_that_hangs_holds_up_neither_the_peerstore_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    write = LmdbMap.write

    def hanging(self: LmdbMap, changes: Sequence[Change]) -> None:
        gate.wait()
        write(self, changes)

    monkeypatch.setattr(LmdbMap, "write", hanging)
    limits = Limits(peers_remembered=10)
    disk = LmdbPeerstore(tmp_path, limits=limits, timeouts=Timeouts(peerstore_write=math.inf, storage=0.05))
    store = await disk.open()
    store.add_addresses(PEER, [A], source=Source.FOUND)
    await disk.flush()
    for number in range(100):
        store.add_addresses(peer_of(number), [A], source=Source.FOUND)
    assert len(store.peers()) == 10
    assert len(disk._dirty) <= 20
    with pytest.raises(DeadlineError):
        await disk.close()
    (thread,) = (thread for thread in threading.enumerate() if thread.name.startswith("peerstore"))
    gate.set()
    await asyncio.to_thread(thread.join)
    async with LmdbPeerstore(tmp_path) as again:
        assert again.peers() == [PEER]


@sockets
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it kills itself")
async def test_a_killed_process_leaves_what_was_written(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WRITER), str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == -signal.SIGKILL
    async with LmdbPeerstore(tmp_path) as store:
        (peer_id,) = store.peers()
        assert str(peer_id) == output.decode().strip()
        known = store.info(peer_id)
        assert known is not None
        assert [entry.source for entry in known.addresses] == [Source.DIALLED, Source.IDENTIFIED]
        # It was connected: its addresses begin to expire now.
        assert known.addresses[1].seconds_left == pytest.approx(Timeouts().recent_address, abs=60)


# -- in a node


@sockets
async def test_a_restarted_node_reaches_its_peers_by_their_id(tmp_path: Path) -> None:
    async with Host(listen=["/ip4/127.0.0.1/tcp/0"]) as peer:
        with Repo.open(tmp_path, create=True) as repo:
            async with running_node(repo, []) as node:
                await node.host.identify(peer.addresses[0])
        with Repo.open(tmp_path, create=False) as repo:
            async with running_node(repo, []) as node:
                assert node.host.peerstore.protocols(peer.peer_id)
                connection = await node.host.connect(peer.peer_id)
                assert connection.peer_id == peer.peer_id
