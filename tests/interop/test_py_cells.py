"""What is tested against js and go is tested against py-libp2p too, or there is a reason; and cells of its own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from aiolibp2p.blocks import Cid
from aiolibp2p.unixfs import cat
from tests.interop.cannot import CANNOT, cell_of
from tests.interop.peers import Listener, Peers
from tests.support.cells import local_node, server_of, single, told
from tests.vectors.unixfs.cases import content

HERE = Path(__file__).parent
MIB = 1 << 20
LARGEST_BLOCK_BYTES = 512 << 10


@pytest.fixture
def py_server(peers: Peers) -> Listener:
    return server_of(peers, "py")


def test_every_cell_of_js_and_go_is_one_of_py_or_has_a_reason(cells: set[tuple[str, str]]) -> None:
    # Of those that were collected: all of them, unless the run is of some files alone. Of keys, see test_keys.
    others = {cell for cell, stack in cells if stack != "py" and not cell.startswith("test_keys.py::")}
    run = {cell for cell, stack in cells if stack == "py"}
    assert others - run - set(CANNOT) == set()


def test_what_has_a_reason_exists() -> None:
    tests = {cell.partition("[")[0].partition("::")[::2] for cell in CANNOT}
    assert not [name for file, name in tests if f"async def {name}(" not in (HERE / file).read_text(encoding="utf-8")]


def test_a_cell_is_named_without_its_stack() -> None:
    assert cell_of("tests/interop/test_a.py::test_b[py-1, no-2]") == ("test_a.py::test_b[1, no-2]", "py")
    assert cell_of("tests/interop/test_a.py::test_b[1-go]") == ("test_a.py::test_b[1]", "go")
    assert cell_of("tests/interop/test_a.py::test_b[js]") == ("test_a.py::test_b", "js")
    assert cell_of("tests/interop/test_a.py::test_b") == ("test_a.py::test_b", None)


@pytest.mark.py
async def test_we_fetch_the_largest_block_that_it_serves(py_server: Listener) -> None:
    cid, data = single("theirs", LARGEST_BLOCK_BYTES)
    await told(py_server, "block", "theirs", LARGEST_BLOCK_BYTES)
    async with local_node() as node:
        assert await node.bitswap.get(cid, [py_server.addr]) == data


@pytest.mark.py
async def test_we_fetch_a_file_by_the_cid_that_it_gives(py_server: Listener) -> None:
    # Of more chunks than fit into one node.
    named = await told(py_server, "generate", "theirs", 50 * MIB)
    wanted, found = hashlib.sha256(), hashlib.sha256()
    for piece in content("theirs", 50 * MIB):
        wanted.update(piece)
    async with local_node() as node, node.bitswap.session([py_server.addr]) as session:
        async for part in cat(session, Cid.parse(named["cid"])):
            found.update(part)
    assert found.digest() == wanted.digest()
