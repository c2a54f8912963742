"""The CIDs that Helia and boxo gave files and directories (tests/vectors/unixfs) are ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiolibp2p.unixfs.hamt import directory_blocks
from aiolibp2p.unixfs.layout import Layout, Subtree, file_blocks, symlink_of
from aiolibp2p.unixfs.walk import Walk
from tests.unit.unixfs.dags import drain
from tests.vectors.unixfs.cases import FileCase, TreeCase, file_cases, tree_cases

LARGE_BYTES = 10_000_000
MANY_FILES = 100


def files() -> list[Any]:
    slow = {True: [pytest.mark.slow], False: []}
    return [pytest.param(case, id=case.name, marks=slow[case.size_bytes > LARGE_BYTES]) for case in file_cases()]


def trees(*, large: bool) -> list[Any]:
    marks = [pytest.mark.slow] if large else []
    cases = [case for case in tree_cases() if (sum(group.count for group in case.groups) > MANY_FILES) == large]
    return [pytest.param(case, id=case.name, marks=marks) for case in cases]


def rechunked(parts: Iterable[bytes], size: int) -> Iterator[bytes]:
    held = b""
    for part in parts:
        held += part
        whole = len(held) - len(held) % size
        yield from (held[start : start + size] for start in range(0, whole, size))
        held = held[whole:]
    if held:
        yield held


def in_memory(case: TreeCase) -> Subtree:
    """Return the root of a tree without writing it to the disk, where so many files take seconds."""
    layout = Layout(chunk_bytes=case.chunk_bytes, max_links=case.links)
    tree: dict[str, Any] = {}

    def place(path: str, leaf: Subtree | dict[str, Any]) -> None:
        *above, name = path.split("/")
        within = tree
        for directory in above:
            within = within.setdefault(directory, {})
        within[name] = leaf

    def root(within: dict[str, Any]) -> Subtree:
        below = {name: root(entry) if isinstance(entry, dict) else entry for name, entry in within.items()}
        return drain(directory_blocks(below))[1]

    for path, _, parts in case.files():
        place(path, drain(file_blocks(rechunked(parts, case.chunk_bytes), layout))[1])
    for path in case.directories:
        place(path, {})
    for path, target in case.symlinks:
        place(path, symlink_of(os.fsencode(target))[1])
    return root(tree)


@pytest.mark.parametrize("case", files())
@pytest.mark.conforms("B6")
def test_a_file_has_the_cid_of_the_vector(case: FileCase) -> None:
    layout = Layout(chunk_bytes=case.chunk_bytes, max_links=case.links)
    _, root = drain(file_blocks(rechunked(case.content(), case.chunk_bytes), layout))
    assert str(root.cid) == case.cid
    assert root.file_bytes == case.size_bytes


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets not everyone make symbolic links")
@pytest.mark.parametrize("case", trees(large=False))
@pytest.mark.conforms("B6")
def test_a_directory_on_disk_has_the_cid_of_the_vector(case: TreeCase, tmp_path: Path) -> None:
    case.write(tmp_path / "tree")
    walk = Walk(Layout(chunk_bytes=case.chunk_bytes, max_links=case.links))
    _, root = drain(walk.path(str(tmp_path / "tree")))
    assert str(root.cid) == case.cid
    assert in_memory(case) == root


@pytest.mark.parametrize("case", trees(large=True))
def test_a_large_directory_has_the_cid_of_the_vector(case: TreeCase) -> None:
    assert str(in_memory(case).cid) == case.cid
