"""Tests of `get` and `cat`, as a shell runs them, over a peer on 127.0.0.1."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiolibp2p import Cid, Host, Timeouts, unixfs
from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks import MemoryBlockstore
from aiolibp2p.blocks.dag import PbLink, encode_node
from aiolibp2p.cli import main, running
from aiolibp2p.cli.errors import CommandError
from aiolibp2p.cli.sources import parse_content
from aiolibp2p.unixfs.node import NodeType, UnixFsNode, encode_unixfs

CONTENT = hashlib.shake_256(b"content").digest(1_000_003)
MISSING = Cid.from_data(b"nobody has this")


class ServingPeer:
    """A peer with a few files on a loop of its own, there while commands run on theirs."""

    def __init__(self, directory: Path, *, bitswap: bool = True) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(directory, bitswap)), name="peer", daemon=True
        )
        self._thread.start()
        self._ready.wait()

    async def _serve(self, directory: Path, bitswap: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        store = MemoryBlockstore()
        self.directory = str(await unixfs.add(store, directory))
        self.file = str(await unixfs.add(store, directory / "file"))
        self.escaping = str(await self._directory_of(store, "../escaped"))
        self.broken = str(await self._directory_of(store, "child", MISSING))
        async with Host(listen=["/ip4/127.0.0.1/tcp/0"]) as host:
            self.address = str(host.addresses[0])
            if not bitswap:
                self._ready.set()
                await self._ended.wait()
                return
            async with Bitswap(host, store):
                self._ready.set()
                await self._ended.wait()

    @staticmethod
    async def _directory_of(store: MemoryBlockstore, name: str, child: Cid | None = None) -> Cid:
        leaf = Cid.from_data(b"leaf")
        await store.put(leaf, b"leaf")
        data = encode_node([PbLink(child or leaf, name, 4)], encode_unixfs(UnixFsNode(type=NodeType.DIRECTORY)))
        cid = Cid.from_data(data, 0x70)
        await store.put(cid, data)
        return cid

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingPeer]:
    """Give a peer that serves a directory."""
    directory = tmp_path_factory.mktemp("served")
    (directory / "file").write_bytes(CONTENT)
    (directory / "below").mkdir()
    (directory / "below" / "small").write_bytes(b"small")
    serving = ServingPeer(directory)
    yield serving
    serving.end()


def fails(capsys: pytest.CaptureFixture[str], *words: str, code: int = 1) -> str:
    """Return the one line of a command that fails and prints nothing else."""
    assert main(words) == code
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1), printed.err
    return printed.err


# -- what is asked for -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [("{}", ""), ("{}/a/b", "a/b"), ("/ipfs/{}", ""), ("/ipfs/{}/a", "a"), ("ipfs://{}/a", "a")],
)
def test_content_is_a_cid_with_or_without_a_path(text: str, path: str) -> None:
    assert parse_content(text.format(MISSING)) == (MISSING, path)


@pytest.mark.parametrize("text", ["", "/", "nonsense", "/ipfs/", "Qm", "file/bafy"])
def test_what_begins_with_no_cid_is_wrong_usage(text: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_content(text)
    assert (caught.value.is_usage, caught.value.failure.stage) == (True, "CID")


@pytest.mark.parametrize("command", ["get", "cat"])
def test_an_address_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str], command: str) -> None:
    line = fails(capsys, command, str(MISSING), "--from", "127.0.0.1:9", code=2)
    assert line.startswith(f"aiolibp2p {command}: address: '127.0.0.1:9' is not a multiaddr. Try: /ip4/127.0.0.1/tcp/9")


# -- from a peer -------------------------------------------------------------------------------------------------------


@pytest.mark.sockets
def test_get_writes_a_file_and_ends_with_cid_bytes_and_seconds(
    capsys: pytest.CaptureFixture[str], peer: ServingPeer, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    assert main(["get", peer.file, "--from", peer.address, "-o", str(target), "--json"]) == 0
    printed = capsys.readouterr()
    said: dict[str, Any] = json.loads(printed.out)
    assert said.pop("seconds") > 0
    assert said == {"cid": peer.file, "bytes": len(CONTENT)}
    assert (printed.out.count("\n"), printed.err) == (1, "")
    assert target.read_bytes() == CONTENT


@pytest.mark.sockets
def test_get_explains_the_dial_of_every_peer_on_stderr_or_in_its_line(
    capsys: pytest.CaptureFixture[str], peer: ServingPeer, tmp_path: Path
) -> None:
    words = ["get", peer.file, "--from", "/ip4/127.0.0.1/tcp/1", "--from", peer.address, "-o", str(tmp_path / "out")]
    assert main([*words, "--explain"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(str(tmp_path / "out"))
    assert printed.err.count("dial of ") == 2
    assert "connection refused" in printed.err
    assert main([*words, "--explain", "--json"]) == 0
    printed = capsys.readouterr()
    dials = json.loads(printed.out)["dials"]
    assert [dial["addresses"][0]["outcome"] for dial in dials] == ["failed", "connected"]
    assert printed.err == ""


@pytest.mark.sockets
def test_get_without_a_name_takes_the_last_one(
    capsys: pytest.CaptureFixture[str], peer: ServingPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["get", f"{peer.directory}/below/small", "--from", peer.address]) == 0
    assert capsys.readouterr().out.startswith("small: 5 B in ")
    assert main(["get", f"/ipfs/{peer.directory}", "--from", peer.address]) == 0
    assert (tmp_path / "small").read_bytes() == b"small"
    assert (tmp_path / peer.directory / "file").read_bytes() == CONTENT
    assert (tmp_path / peer.directory / "below" / "small").read_bytes() == b"small"


@pytest.mark.sockets
def test_cat_writes_a_part_of_a_file(capfdbinary: pytest.CaptureFixture[bytes], peer: ServingPeer) -> None:
    words = ["cat", f"{peer.directory}/file", "--from", peer.address]
    assert main(words) == 0
    assert capfdbinary.readouterr() == (CONTENT, b"")
    assert main([*words, "--offset", "262000", "--length", "500"]) == 0
    assert capfdbinary.readouterr() == (CONTENT[262_000:262_500], b"")


@pytest.mark.sockets
def test_blocks_of_peers_are_kept_in_a_repo_that_is_named(
    capfdbinary: pytest.CaptureFixture[bytes], peer: ServingPeer, tmp_path: Path
) -> None:
    words = ["cat", peer.file, "--repo", str(tmp_path / "repo")]
    assert main([*words, "--from", peer.address]) == 0
    assert main(words) == 0
    assert capfdbinary.readouterr() == (CONTENT * 2, b"")


@pytest.mark.sockets
def test_a_fetch_touches_no_repo_that_is_not_named(
    capfdbinary: pytest.CaptureFixture[bytes], peer: ServingPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOLIBP2P_PATH", str(tmp_path / "repo"))
    assert main(["cat", f"{peer.directory}/below/small", "--from", peer.address]) == 0
    assert capfdbinary.readouterr() == (b"small", b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.sockets
def test_of_several_peers_one_has_to_be_there(
    capfdbinary: pytest.CaptureFixture[bytes], peer: ServingPeer, tmp_path: Path
) -> None:
    gone = "/ip4/127.0.0.1/tcp/1"
    assert main(["cat", f"{peer.directory}/below/small", "--from", gone, "--from", peer.address]) == 0
    assert capfdbinary.readouterr() == (b"small", b"")
    assert main(["cat", peer.file, "--from", gone]) == 1
    assert capfdbinary.readouterr().err.startswith(b"aiolibp2p cat: connect: connection refused (/ip4/127.0.0.1/tcp/1)")


@pytest.mark.sockets
def test_a_block_that_the_peer_has_not_got_is_named(
    capsys: pytest.CaptureFixture[str], peer: ServingPeer, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    for content in (str(MISSING), peer.broken):
        line = fails(capsys, "get", content, "--from", peer.address, "-o", str(target))
        assert line.startswith(
            f"aiolibp2p get: fetch: block {MISSING} not found. Try: --from ADDR, the address of a peer that"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.sockets
def test_get_never_writes_outside_its_destination(
    capsys: pytest.CaptureFixture[str], peer: ServingPeer, tmp_path: Path
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    line = fails(capsys, "get", peer.escaping, "--from", peer.address, "-o", str(inside / "out"))
    assert line.startswith("aiolibp2p get: content: the entry '../escaped' of directory ")
    assert list(inside.iterdir()) == []
    assert list(tmp_path.iterdir()) == [inside]


@pytest.mark.sockets
def test_a_path_that_leads_nowhere_is_named(capsys: pytest.CaptureFixture[str], peer: ServingPeer) -> None:
    line = fails(capsys, "cat", f"{peer.directory}/nothing", "--from", peer.address)
    assert line == f"aiolibp2p cat: system: {peer.directory}/nothing: no such file or directory\n"
    line = fails(capsys, "cat", peer.directory, "--from", peer.address)
    assert line == f"aiolibp2p cat: system: {peer.directory}: is a directory\n"


@pytest.mark.sockets
def test_a_peer_without_bitswap_is_told_apart_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    bare = ServingPeer(tmp_path, bitswap=False)
    line = fails(capsys, "cat", str(MISSING), "--from", bare.address)
    bare.end()
    assert line.startswith("aiolibp2p cat: protocol negotiation: the peer does not speak /ipfs/bitswap/1.2.0. Try: a p")


@pytest.mark.sockets
def test_a_peer_that_is_too_slow_ends_a_fetch_with_the_block(
    capsys: pytest.CaptureFixture[str], peer: ServingPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "TIMEOUTS", Timeouts(bitswap_fetch=0.0))
    line = fails(capsys, "cat", peer.file, "--from", peer.address)
    assert line.startswith(
        f"aiolibp2p cat: fetch: no peer has sent {peer.file} or anything else within 0 s. Try: again"
    )
