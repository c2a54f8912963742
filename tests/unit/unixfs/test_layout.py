"""The balanced layout: which nodes a file has, and which CIDs. CIDs here were made by boxo v0.43.0."""

from __future__ import annotations

import pytest

from aiolibp2p.blocks.cid import DAG_PB, RAW, Cid
from aiolibp2p.blocks.dag import decode_node
from aiolibp2p.errors import InvalidValueError
from aiolibp2p.unixfs.layout import CHUNK_BYTES_MAX, LINKS_MAX, BalancedTree, Layout, Subtree, file_blocks, symlink_of
from aiolibp2p.unixfs.node import decode_unixfs
from tests.unit.unixfs.dags import drain

EMPTY = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


def chunked(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def shape(root: Subtree, blocks: dict[Cid, bytes]) -> object:
    """Return the number of bytes of a leaf, and a list for a node."""

    def below(cid: Cid) -> object:
        if cid.codec == RAW:
            return len(blocks[cid])
        return [below(link.cid) for link in decode_node(blocks[cid]).links]

    return below(root.cid)


def test_an_empty_file_is_an_empty_raw_block() -> None:
    blocks, root = drain(file_blocks([], Layout()))
    assert str(root.cid) == EMPTY
    assert blocks == [(root.cid, b"")]


def test_a_file_of_one_chunk_is_its_leaf() -> None:
    blocks, root = drain(file_blocks([b"hello"], Layout()))
    assert blocks == [(Cid.from_data(b"hello"), b"hello")]
    assert root == Subtree(Cid.from_data(b"hello"), 5, 5)


def test_a_file_of_two_chunks_has_a_node_above_them() -> None:
    blocks, root = drain(file_blocks([b"\0" * 262_144, b"\0"], Layout()))
    assert str(root.cid) == "bafybeigllfqgfpqydppr6cmv56g7ax4wyhruzswvcefv6j5kj77nzttfki"
    assert [cid.codec for cid, _ in blocks] == [RAW, RAW, DAG_PB]
    assert root.file_bytes == 262_145
    assert root.dag_bytes == sum(len(data) for _, data in blocks)


@pytest.mark.parametrize(
    ("leaves", "expected"),
    [
        (1, 1),
        (2, [1, 1]),
        (3, [1, 1, 1]),
        (4, [[1, 1, 1], [1]]),
        (9, [[1, 1, 1], [1, 1, 1], [1, 1, 1]]),
        (10, [[[1, 1, 1], [1, 1, 1], [1, 1, 1]], [[1]]]),
        (13, [[[1, 1, 1], [1, 1, 1], [1, 1, 1]], [[1, 1, 1], [1]]]),
    ],
)
def test_every_leaf_is_at_the_same_depth(leaves: int, expected: object) -> None:
    blocks, root = drain(file_blocks([bytes((n,)) for n in range(leaves)], Layout(chunk_bytes=1, max_links=3)))
    assert shape(root, dict(blocks)) == expected


def test_a_node_says_how_many_bytes_lie_below_each_link() -> None:
    data = bytes(range(100))
    blocks, root = drain(file_blocks(chunked(data, 7), Layout(chunk_bytes=7, max_links=3)))
    node = decode_unixfs(decode_node(dict(blocks)[root.cid]).data or b"")
    assert node.file_bytes == 100
    assert node.block_bytes == (63, 37)


@pytest.mark.parametrize(
    ("layout", "size", "expected"),
    [
        (Layout(chunk_bytes=7, max_links=3), 500, "bafybeiba2xodl2fgjtmvrpihqptyznxdzxt5zcmoxafmdj4zpqoek4tmyu"),
        (Layout(raw_leaves=False), 0, "bafybeif7ztnhq65lumvvtr4ekcwd2ifwgm3awq4zfr3srh462rwyinlb4y"),
        (Layout(raw_leaves=False), 5, "bafybeievd3wm3sn4765csrtfkx6rdgnu6va5e7q35uxhvgosdwqtdoi6uq"),
    ],
)
def test_cids_of_other_layouts(layout: Layout, size: int, expected: str) -> None:
    _, root = drain(file_blocks(chunked(b"\0" * size, layout.chunk_bytes), layout))
    assert str(root.cid) == expected


def test_cid_of_a_symbolic_link() -> None:
    (cid, _), link = symlink_of(b"target")
    assert str(cid) == "bafybeigisnhcd6tqu22qmi3u3iy53vppeg3gbul7ibw54egea244dx6cjq"
    assert link.cid == cid


def test_blocks_come_before_what_links_to_them() -> None:
    blocks, _ = drain(file_blocks([bytes((n,)) for n in range(30)], Layout(chunk_bytes=1, max_links=2)))
    seen: set[Cid] = set()
    for cid, data in blocks:
        if cid.codec == DAG_PB:
            assert {link.cid for link in decode_node(data).links} <= seen
        seen.add(cid)


@pytest.mark.parametrize(("chunk_bytes", "max_links"), [(0, 2), (CHUNK_BYTES_MAX + 1, 2), (1, 1), (1, LINKS_MAX + 1)])
def test_a_size_out_of_range_is_refused(chunk_bytes: int, max_links: int) -> None:
    with pytest.raises(InvalidValueError):
        Layout(chunk_bytes=chunk_bytes, max_links=max_links)


@pytest.mark.slow
def test_the_largest_blocks_stay_below_two_mebibytes() -> None:
    layout = Layout(chunk_bytes=CHUNK_BYTES_MAX, max_links=LINKS_MAX, raw_leaves=False)
    (leaf, *_), _ = drain(file_blocks([bytes(CHUNK_BYTES_MAX)], layout))
    assert len(leaf[1]) <= 2 << 20
    tree = BalancedTree(LINKS_MAX)
    child = Subtree(Cid.from_data(b""), (1 << 63) // LINKS_MAX - 1, (1 << 63) // LINKS_MAX - 1)
    for _ in range(LINKS_MAX):
        assert not list(tree.push(child))
    [(_, node)], _ = drain(tree.finish())
    assert len(node) <= 2 << 20
