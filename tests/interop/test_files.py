"""Helia and boxo fetch files and directories from us, and we from them; all give them the same CIDs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from aiolibp2p.blocks import Cid
from aiolibp2p.unixfs import add, cat, get
from tests.interop.peers import Dialer, Listener, Peers, Stack
from tests.support.cells import digest_of, local_node, pieces, server_of, told, tree_at
from tests.vectors.unixfs.cases import FileCase, Group, TreeCase, file_cases, tree_cases

LARGE_BYTES = 100_000_000
TREES = ("1,000 small files", "nested", "names beyond ASCII, where the order of UTF-16 is not that of UTF-8")
SHARDED = TreeCase(
    "1,000 small files, sharded for their long names",
    "interop/sharded",
    (Group("a-long-name-" * 19 + "{:04d}", 1000, 1, 7),),
    cid="bafybeifzs5f4bzw55tljppyjq76vqqy3ugskoynrnwbb2uxnj5kz2acxae",
    made_by=("boxo", "helia"),
)
"""Not one of the fixtures: their smallest that is sharded has 4,096 entries, which take Helia 6 s to add."""


def large_files() -> list[Any]:
    """Return the files of 100 MB: one in blocks of 256 KiB with 174 links, one in blocks of 1 MiB with 1,024."""
    cases = [case for case in file_cases() if case.size_bytes == LARGE_BYTES]
    assert [(case.chunk_bytes, case.links) for case in cases] == [(262_144, 174), (1_048_576, 1_024)]
    return [pytest.param(case, id=case.name) for case in cases]


def trees() -> list[Any]:
    cases = [case for case in tree_cases() if case.name in TREES]
    assert len(cases) == len(TREES)
    return [pytest.param(case, id=case.name) for case in (*cases, SHARDED)]


@pytest.fixture
def server(peers: Peers, stack: Stack) -> Listener:
    return server_of(peers, stack)


@pytest.fixture
def written(case: TreeCase, tmp_path: Path) -> Path:
    """Give a tree on disk."""
    folder = tmp_path / "written"
    case.write(folder)
    return folder


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", large_files())
async def test_they_fetch_a_file(dialer: Dialer, case: FileCase) -> None:
    async with local_node() as node:
        cid = await add(node.store, pieces(case), chunk_bytes=case.chunk_bytes, max_links=case.links)
        assert (str(cid), case.made_by) == (case.cid, ("boxo", "helia"))
        answer = await dialer.run("get", node.address, cid, "-")
    assert (answer["type"], answer["bytes"], answer["sha256"]) == ("file", case.size_bytes, digest_of(case))


@pytest.mark.parametrize("case", large_files())
async def test_we_fetch_a_file(server: Listener, case: FileCase) -> None:
    sizes = {"chunk_bytes": case.chunk_bytes, "links": case.links}
    answer = await told(server, "generate", case.seed, case.size_bytes, **sizes)
    # The CID that `add` gives the same file in the other direction.
    assert answer["cid"] == case.cid
    async with local_node() as node, node.bitswap.session([server.addr]) as session:
        digest = hashlib.sha256()
        async for part in cat(session, Cid.parse(case.cid)):
            digest.update(part)
    assert digest.hexdigest() == digest_of(case)


# -- directories -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", trees())
async def test_they_fetch_a_directory(dialer: Dialer, case: TreeCase, written: Path, tmp_path: Path) -> None:
    async with local_node() as node:
        cid = await add(node.store, written)
        assert str(cid) == case.cid
        # Without this boxo's client asks for one file after the other, and waits for 20 ms between any two wants.
        flags = {"graph": True} if dialer.stack == "go" else {}
        answer = await dialer.run("get", node.address, cid, tmp_path / "fetched", **flags)
    assert answer["type"] == "directory"
    assert tree_at(tmp_path / "fetched") == tree_at(written)


@pytest.mark.parametrize("case", trees())
async def test_we_fetch_a_directory(server: Listener, case: TreeCase, written: Path, tmp_path: Path) -> None:
    answer = await told(server, "add", written)
    # The CID that `add` gives the same tree in the other direction.
    assert answer["cid"] == case.cid
    async with local_node() as node, node.bitswap.session([server.addr]) as session:
        await get(session, Cid.parse(case.cid), tmp_path / "fetched")
    assert tree_at(tmp_path / "fetched") == tree_at(written)
