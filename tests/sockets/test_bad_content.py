"""Peers whose blocks and messages are not what they should be, and DAGs that are not: what a user sees of them.

An error is one line that names the block or the entry, nothing that was there is lost, and others are served meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from aiolibp2p import Cid, Host, Stream, Timeouts, unixfs
from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks import Blockstore, MemoryBlockstore
from aiolibp2p.blocks.cid import RAW
from aiolibp2p.blocks.dag import PbLink
from aiolibp2p.cli import main, running
from aiolibp2p.cli.errors import error_line, explain
from aiolibp2p.errors import DeadlineError
from aiolibp2p.identity.varint import encode_varint
from aiolibp2p.runtime import SystemEntropy
from aiolibp2p.sansio.bitswap.message import PROTOCOL, Message, Payload, encode
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import RST, SYN
from aiolibp2p.unixfs.murmur3 import MURMUR3_X64_64
from aiolibp2p.unixfs.node import NodeType, UnixFsNode
from tests.support.bitswap import MESSAGE_BYTES, Node, Scripted, wants
from tests.support.commands import Daemon, fails
from tests.support.raw import Frame, RawPeer
from tests.support.scripts import initiating
from tests.unit.unixfs.dags import Dags

pytestmark = pytest.mark.sockets
needs_links = pytest.mark.skipif(sys.platform == "win32", reason="Windows lets not everyone make symbolic links")

LISTEN = ["/ip4/127.0.0.1/tcp/0"]
CONTENT = hashlib.shake_256(b"content").digest(30_000)
CHUNK_BYTES = 10_000
LIED_ABOUT = Cid.from_data(CONTENT[CHUNK_BYTES : 2 * CHUNK_BYTES])
UNKNOWN_HASH_PREFIX = b"\x01\x55\xb3\x21\x20"
UNKNOWN_HASH = Cid(UNKNOWN_HASH_PREFIX + bytes(32))
SHORT = Timeouts(bitswap_fetch=3.0)
BAD_MESSAGES = {
    "over 4 MiB": encode_varint(MESSAGE_BYTES + 1),
    "a length without end": b"\xff" * 10,
    "no protobuf": b"\x02\xff\xff",
    "a field of no type": b"\x02\x0f\x00",
    "a field cut off": b"\x02\x0a\x7f",
}


def payload(prefix: bytes, data: bytes) -> bytes:
    return b"".join(encode(Message(payloads=[Payload(prefix, data)]), MESSAGE_BYTES))


def constant(message: bytes) -> Callable[[Cid, bytes], bytes]:
    return lambda _cid, _data: message


LIES: dict[str, Callable[[Cid, bytes], bytes]] = {
    "one byte is another": lambda cid, data: payload(cid.prefix, bytes([data[0] ^ 1]) + data[1:]),
    "the last byte is missing": lambda cid, data: payload(cid.prefix, data[:-1]),
    "another block": lambda cid, _data: payload(cid.prefix, b"another"),
    "an unknown hash": lambda _cid, data: payload(UNKNOWN_HASH_PREFIX, data),
    "a prefix that is none": lambda _cid, data: payload(b"\xff", data),
    **{f"a message: {name}": constant(message) for name, message in BAD_MESSAGES.items()},
}
"""What a peer writes in place of a block."""


@asynccontextmanager
async def serving(store: Blockstore) -> AsyncIterator[Node]:
    async with Host(listen=LISTEN) as host, Bitswap(host, store) as bitswap:
        yield Node(host, store, bitswap)


@asynccontextmanager
async def lying(store: MemoryBlockstore, lie: Callable[[Cid, bytes], bytes]) -> AsyncIterator[Scripted]:
    """Give a peer that serves a store, and lies about one block."""
    has = {cid.multihash: await store.get(cid) async for cid in store.cids()}

    def answer(_peer: Scripted, stream: Stream, message: Message) -> None:
        for entry in message.entries:
            cid = Cid(entry.cid)
            data = has[cid.multihash]
            stream.try_write(lie(cid, data) if cid == LIED_ABOUT else payload(cid.prefix, data))

    async with Host(listen=LISTEN) as host:
        peer = Scripted(host, answer)
        host.serve(PROTOCOL, peer.accept)
        yield peer


def is_reset(stream_id: int, frame: Frame) -> bool:
    return frame.stream_id == stream_id and bool(frame.flags & RST)


async def a_file() -> tuple[MemoryBlockstore, Cid]:
    store = MemoryBlockstore()
    return store, await unixfs.add(store, io.BytesIO(CONTENT), chunk_bytes=CHUNK_BYTES)


async def command(*words: str) -> int:
    """Run a command on a thread, while this loop serves it."""
    return await asyncio.to_thread(main, words)


async def fetched_by(peer: str, cid: Cid, target: Path) -> bytes:
    """Return what an honest peer gets."""
    assert await command("get", str(cid), "--from", peer, "-o", str(target)) == 0
    return await asyncio.to_thread(target.read_bytes)


# -- blocks and messages of a peer -------------------------------------------------------------------------------------


async def read_from(*peers: str, root: Cid, timeouts: Timeouts) -> tuple[bytes, BaseException | None, set[Cid]]:
    """Return the bytes of a file that came, why no more did, and the blocks that were kept."""
    kept = MemoryBlockstore()
    read = b""
    async with Host(timeouts=timeouts) as host, Bitswap(host, kept, serve=False) as bitswap:
        try:
            async with bitswap.session(peers) as session:
                async for piece in unixfs.cat(session, root):
                    read += piece
        except DeadlineError as error:
            return read, error, {cid async for cid in kept.cids()}
    return read, None, {cid async for cid in kept.cids()}


@pytest.mark.slow
async def test_a_peer_that_lies_about_a_block_costs_that_block_which_is_named() -> None:
    store, root = await a_file()
    true = {cid async for cid in store.cids()}
    first = {Cid.from_data(CONTENT[:CHUNK_BYTES]), Cid.from_multihash(root.multihash, RAW)}

    async def against(name: str) -> None:
        async with lying(store, LIES[name]) as liar:
            read, error, kept = await read_from(liar.address, root=root, timeouts=SHORT)
        assert read == CONTENT[:CHUNK_BYTES], name
        assert error is not None, name
        line = error_line(explain(error), "cat")
        assert line.startswith(f"aiolibp2p cat: fetch: no peer has sent {LIED_ABOUT} "), line
        # What comes behind a message that is none is lost with its stream.
        assert first <= kept <= true - {LIED_ABOUT}, name

    await asyncio.gather(*(against(name) for name in LIES))


@pytest.mark.slow
async def test_beside_a_peer_that_lies_an_honest_one_is_enough() -> None:
    store, root = await a_file()
    true = {cid async for cid in store.cids()}

    async def against(name: str) -> None:
        async with lying(store, LIES[name]) as liar, serving(store) as honest:
            for peers in ((liar.address, honest.address), (honest.address, liar.address)):
                assert await read_from(*peers, root=root, timeouts=Timeouts()) == (CONTENT, None, true), name

    await asyncio.gather(*(against(name) for name in LIES))


@pytest.mark.slow
async def test_get_from_a_peer_that_lies_is_one_line_and_goes_on_from_there_with_an_honest_one(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, root = await a_file()
    repo, target = str(tmp_path / "repo"), tmp_path / "out"
    target.write_bytes(b"what was there")
    words = ["get", str(root), "--repo", repo, "-o", str(target), "--from"]
    async with lying(store, LIES["one byte is another"]) as liar, serving(store) as honest:
        with monkeypatch.context() as patch:
            patch.setattr(running, "TIMEOUTS", SHORT)
            line = await asyncio.to_thread(fails, capfdbinary, *words, liar.address)
        said = f"no peer has sent {LIED_ABOUT} or anything else that was asked for, but 1 other block, within 3 s"
        assert line.startswith(f"aiolibp2p get: fetch: {said}. Try: ")
        assert sorted(os.listdir(tmp_path)) == ["out", "repo"]
        assert target.read_bytes() == b"what was there"
        assert await asyncio.to_thread(fails, capfdbinary, "block", "stat", str(LIED_ABOUT), "--repo", repo)
        monkeypatch.setattr(running, "TIMEOUTS", Timeouts(bitswap_answer=0.5))
        assert await command(*words, liar.address, "--from", honest.address) == 0
    assert target.read_bytes() == CONTENT
    assert await command("cat", str(root), "--repo", repo) == 0
    assert capfdbinary.readouterr().out.endswith(CONTENT)


@pytest.mark.slow
async def test_a_daemon_serves_others_and_the_sender_itself_whatever_message_came(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    repo = tmp_path / "repo"
    assert await command("add", str(tmp_path / "file"), "--repo", str(repo), "--json") == 0
    cid = Cid.parse(json.loads(capfdbinary.readouterr().out)["cid"])
    daemon = await asyncio.to_thread(Daemon, repo)
    try:
        async with RawPeer(initiating(), entropy=SystemEntropy()) as raw:
            link = await raw.dial(daemon.address)
            for number, bad in enumerate(BAD_MESSAGES.values()):
                stream_id = 1 + 2 * number
                link.send_data(stream_id, proposal(PROTOCOL) + bad, SYN)
                await link.frame(partial(is_reset, stream_id))
            # Blocks that were never asked for, and wants of what no hash is known for, are no offence.
            link.send_data(101, proposal(PROTOCOL) + payload(UNKNOWN_HASH_PREFIX, b"x") + wants(UNKNOWN_HASH), SYN)
            assert await fetched_by(daemon.address, cid, tmp_path / "meanwhile") == CONTENT
            link.send_data(103, proposal(PROTOCOL) + wants(cid), SYN)
            await link.frame(lambda frame: CONTENT[:100] in frame.body)
        assert await fetched_by(daemon.address, cid, tmp_path / "afterwards") == CONTENT
    finally:
        code, out, log = await asyncio.to_thread(daemon.end)
    assert (code, out) == (0, "")
    assert "Traceback" not in log


# -- what a CID names --------------------------------------------------------------------------------------------------


async def test_a_hash_that_is_not_known_is_named_and_the_rest_is_served(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    store = Dags()
    good = store.raw(b"good")
    holds_it = store.directory(("good", good), ("unknown", UNKNOWN_HASH))
    repo = str(tmp_path / "repo")
    async with serving(store) as node:
        assert await command("get", str(good), "--from", node.address, "--repo", repo, "-o", str(tmp_path / "g")) == 0
        capfdbinary.readouterr()
        for words in (["cat", str(UNKNOWN_HASH)], ["get", str(holds_it), "-o", str(tmp_path / "out")]):
            line = await asyncio.to_thread(fails, capfdbinary, *words, "--from", node.address)
            assert line == f"aiolibp2p {words[0]}: content: block {UNKNOWN_HASH}: unknown hash function 0x10b3\n"
        line = await asyncio.to_thread(fails, capfdbinary, "cat", str(UNKNOWN_HASH), "--repo", repo)
        assert line.startswith(f"aiolibp2p cat: fetch: block {UNKNOWN_HASH} not found. Try: --from ADDR")
        assert await fetched_by(node.address, good, tmp_path / "good") == b"good"
    assert sorted(os.listdir(tmp_path)) == ["g", "good", "repo"]


async def test_a_missing_block_is_named_while_others_are_served(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    store, whole = await a_file()
    dags = Dags()
    missing = Cid.from_data(b"nobody has this")
    first = dags.raw(CONTENT[:CHUNK_BYTES])
    broken = dags.directory(("sub", dags.directory(("file", dags.file((first, CHUNK_BYTES), (missing, 15))))))
    await store.put_many([(cid, await dags.get(cid)) async for cid in dags.cids()])
    expected = f": fetch: block {missing} not found. Try: --from ADDR, the address of a peer that has it\n"
    async with serving(store) as node:
        for words in (
            ["get", str(broken), "-o", str(tmp_path / "out"), "--repo", str(tmp_path / "repo")],
            ["get", f"{broken}/sub/file", "-o", str(tmp_path / "out")],
        ):
            failing = asyncio.create_task(command(*words, "--from", node.address), name=words[0])
            assert await fetched_by(node.address, whole, tmp_path / "whole") == CONTENT
            assert await failing == 1
            assert capfdbinary.readouterr().err.decode() == f"aiolibp2p {words[0]}{expected}"
        assert await command("cat", f"{broken}/sub/file", "--from", node.address) == 1
        printed = capfdbinary.readouterr()
        assert (printed.out, printed.err.decode()) == (CONTENT[:CHUNK_BYTES], f"aiolibp2p cat{expected}")
    # What came before is kept, and from there on only the missing one is asked for.
    assert await command("block", "stat", str(first), "--repo", str(tmp_path / "repo")) == 0
    assert sorted(os.listdir(tmp_path)) == ["repo", "whole"]


# -- names of entries --------------------------------------------------------------------------------------------------


def evil_directories(store: Dags, outside: Path) -> dict[str, tuple[Cid, str]]:
    """Return directories by what is wrong with them: their root, and how the line of `get` goes on."""
    evil, good = store.raw(b"evil"), store.raw(b"good")
    found: dict[str, tuple[Cid, str]] = {}
    for name in ("..", ".", "", "../outside/x", f"{outside}/x", "a/b", "/", "a\0b", "../../../../../../tmp/x"):
        said = f"content: the entry {name!r} of directory '/sub' is no name of a file"
        plain = store.directory(("good", good), (name, evil))
        found[f"plain {name!r}"] = store.directory(("sub", plain)), said
        if name:
            shard = store.node(
                [PbLink(evil, f"07{name}", 1), PbLink(good, "F0good", 1)],
                UnixFsNode(
                    type=NodeType.HAMT_SHARD,
                    data=(1 << 0x07 | 1 << 0xF0).to_bytes(31, "big"),
                    hash_type=MURMUR3_X64_64,
                    fanout=256,
                ),
            )
            found[f"sharded {name!r}"] = store.directory(("sub", shard)), said
    link = store.symlink(str(outside))
    for what, second in (("a file", evil), ("a directory", store.directory(("x", evil)))):
        for order in (1, -1):
            twice = store.directory(*[("x", link), ("x", second)][::order])
            found[f"{what} through a link, {order}"] = twice, "system: {out}/x: file exists"
    found["a file twice"] = store.directory(("x", good), ("x", evil)), "system: {out}/x: file exists"
    return found


@needs_links
@pytest.mark.slow
async def test_get_writes_nothing_outside_its_destination_whatever_entries_are_called(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside, inside, repo = tmp_path / "outside", tmp_path / "inside", str(tmp_path / "repo")
    outside.mkdir()
    inside.mkdir()
    monkeypatch.chdir(inside)
    store = Dags()
    good = store.raw(b"good")
    evil = evil_directories(store, outside)
    out = inside / "out"
    async with serving(store) as node:
        for what, (cid, said) in evil.items():
            line = f"aiolibp2p get: {said.format(out=out)}\n"
            # From a peer into a repo, then from that repo.
            for origin in (["--from", node.address, "--repo", repo], ["--repo", repo]):
                found = await asyncio.to_thread(fails, capfdbinary, "get", str(cid), *origin, "-o", str(out))
                assert found == line, what
            assert list(outside.iterdir()) == list(inside.iterdir()) == [], what
            assert sorted(os.listdir(tmp_path)) == ["inside", "outside", "repo"], what
        assert await fetched_by(node.address, good, tmp_path / "good") == b"good"


@needs_links
async def test_a_link_that_leads_outside_is_kept_as_one_and_not_followed(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    store = Dags()
    (tmp_path / "precious").write_bytes(b"precious")
    link = store.symlink(str(tmp_path / "precious"))
    cid = store.directory(("link", link), ("up", store.symlink("..")))
    target = tmp_path / "out"
    async with serving(store) as node:
        assert await command("get", str(cid), "--from", node.address, "-o", str(target)) == 0
        assert {path.name: os.readlink(path) for path in target.iterdir()} == {
            "link": str(tmp_path / "precious"),
            "up": "..",
        }
        capfdbinary.readouterr()
        # Nor is one that was there: neither as the destination, nor as a part of a path in the DAG.
        assert await fetched_by(node.address, store.raw(b"new"), target / "link") == b"new"
        assert not (target / "link").is_symlink()
        capfdbinary.readouterr()
        line = await asyncio.to_thread(fails, capfdbinary, "cat", f"{cid}/link/x", "--from", node.address)
        assert line == f"aiolibp2p cat: system: {cid}/link: not a directory\n"
    assert (tmp_path / "precious").read_bytes() == b"precious"
