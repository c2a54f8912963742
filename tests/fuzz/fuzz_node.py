"""The files of a repo may hold any bytes: it opens, or says why not in an error of ours."""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libipld

from aiolibp2p.errors import InvalidValueError, StorageError
from aiolibp2p.identity.keys import PrivateKey
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.limits import Limits
from aiolibp2p.net.known import KnownAddress, KnownPeer, Source
from aiolibp2p.net.peerstore import Peerstore
from aiolibp2p.node.access import Access
from aiolibp2p.node.peerstore import decode, encode
from aiolibp2p.node.repo import FORMAT, Repo
from tests.fuzz.rig import SeededEntropy

KEY = PrivateKey.generate(SeededEntropy())
WALL = 1e9


def repo(data: bytes) -> None:
    """Open a repo whose key, or whose version, is these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        is_key = bool(data) and data[0] & 1
        Path(folder, "key").write_bytes(data[1:] if is_key else bytes(KEY))
        Path(folder, "version").write_bytes(FORMAT.encode() if is_key else data[1:])
        try:
            with Repo.open(folder, create=False) as opened:
                assert is_key or data[1:] == FORMAT.encode()
                assert PrivateKey.from_bytes(bytes(opened.key)) == opened.key
        except StorageError:
            pass


def access(data: bytes) -> None:
    """Read what a daemon has left, or somebody else: the file of its address, and of the lock."""
    size = data[0] * 16 if data else 0
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "lock").write_bytes(data[1 : 1 + size])
        Path(folder, "api").write_bytes(data[1 + size :])
        Access.read(Path(folder))
        os.unlink(Path(folder, "api"))
        assert Access.read(Path(folder)) is None


class _Still:
    """A clock that stands."""

    def now(self) -> float:
        return 1000.0

    def wall(self) -> float:
        return WALL

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        raise AssertionError("a peerstore has no timer")


def peer(data: bytes) -> None:
    """Take these bytes as the entry of a peer; what was understood is remembered, within bounds, and written again."""
    try:
        known = decode(bytes(KEY.public.peer_id), data, WALL)
    except InvalidValueError:
        return
    limits = Limits(peers_remembered=2, identify_addresses=4, identify_protocols=4)
    peerstore = Peerstore(_Still(), limits=limits)
    peerstore.restore(known)
    for peer_id in peerstore.peers():
        info = peerstore.info(peer_id)
        if info is not None:
            assert decode(bytes(peer_id), encode(info, WALL), WALL).protocols == info.protocols
            assert len(info.protocols) <= max(limits.identify_protocols, 0)


TARGETS: dict[str, Callable[[bytes], None]] = {"repo": repo, "access": access, "peer": peer}

_ADDRESS = Multiaddr("/ip4/192.0.2.1/tcp/4001")
_KNOWN = KnownPeer(
    peer_id=KEY.public.peer_id,
    addresses=tuple(
        KnownAddress(address=_ADDRESS, source=source, seconds_left=left, held=held, claimed=claimed)
        for source, left, held, claimed in (
            (Source.GIVEN, math.inf, False, None),
            (Source.SIGNED, 60.0, True, Source.SIGNED),
        )
    ),
    protocols=("/a", "/b"),
    agent="fuzz",
    public_key=KEY.public,
    record_seq=7,
    last_seen=WALL - 5,
)

SEEDS: dict[str, list[bytes]] = {
    "repo": [b"\x01" + bytes(KEY), b"\x00" + FORMAT.encode(), b"\x00aiolibp2p repo 2\n"],
    "access": [
        b"\x01" + b"7".ljust(16) + b'{"address": "http://127.0.0.1:1", "token": "ab", "pid": 7}\n',
        b"\x00" + b"[" * 4000,
    ],
    "peer": [
        encode(_KNOWN, WALL - 1),
        libipld.encode_dag_cbor(
            {"at": 1, "addresses": [], "protocols": [], "agent": None, "key": None, "seq": None, "seen": None}
        ),
    ],
}
