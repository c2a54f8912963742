"""What is read of this machine's files and directories, and what is refused."""

from __future__ import annotations

import errno
import inspect
import io
import os
import sys
from pathlib import Path

import pytest

from aiolibp2p.blocks.cid import Cid
from aiolibp2p.blocks.dag import decode_node
from aiolibp2p.errors import InvalidValueError
from aiolibp2p.unixfs import hamt
from aiolibp2p.unixfs.layout import Layout
from aiolibp2p.unixfs.walk import Walk, read_chunk
from tests.unit.unixfs.dags import drain

TREE = "bafybeif2fpqhhi3kmlbiot5boupeux54tmikn6ufnxchmgdwlxz46pk3ja"

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="Windows lets not everyone make symbolic links")
needs_pipes = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes in directories")
needs_bytes = pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are those of Linux")


def names_of(path: Path, *, hidden: bool = False) -> list[str | None]:
    blocks, root = drain(Walk(Layout(), hidden=hidden).path(str(path)))
    return [link.name for link in decode_node(dict(blocks)[root.cid]).links]


class Trickle(io.RawIOBase):
    """A file that gives at most two bytes at a time, as a pipe may."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 2))


class Broken:
    """A file on a disk that fails after the first chunk."""

    def __init__(self) -> None:
        self.chunks = [b"x" * 8]

    def read(self, size: int) -> bytes:
        if self.chunks:
            return self.chunks.pop()
        raise OSError(errno.EIO, "input/output error")


@needs_links
def test_a_tree_has_the_cid_that_boxo_gives_it(tmp_path: Path) -> None:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "Z").write_bytes(b"z")
    (tmp_path / "a.txt").write_bytes(b"a" * 300_000)
    (tmp_path / "sub" / "deep" / "é").write_bytes(b"")
    (tmp_path / "link").symlink_to("../nowhere")
    walk = Walk(Layout())
    blocks, root = drain(walk.path(str(tmp_path)))
    assert str(root.cid) == TREE
    assert walk.content_bytes == 300_001
    assert root.dag_bytes == sum(len(data) for _, data in blocks)


def test_a_path_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    _, root = drain(Walk(Layout()).path(str(tmp_path / "file")))
    assert root.cid == Cid.from_data(b"hello")


def test_names_that_begin_with_a_dot_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_bytes(b"")
    (tmp_path / ".also").mkdir()
    (tmp_path / "seen").write_bytes(b"")
    assert names_of(tmp_path) == ["seen"]
    assert names_of(tmp_path, hidden=True) == [".also", ".hidden", "seen"]


def test_what_is_asked_for_by_its_own_name_is_not_left_out(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_bytes(b"hello")
    _, root = drain(Walk(Layout()).path(str(tmp_path / ".hidden")))
    assert root.cid == Cid.from_data(b"hello")


@needs_bytes
def test_a_name_that_is_no_utf8_keeps_its_bytes_and_its_place(tmp_path: Path) -> None:
    for name in (b"\xff", "é".encode(), b"z"):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(b"")
    assert names_of(tmp_path) == ["z", "é", "\udcff"]


@pytest.mark.slow
def test_a_tree_deeper_than_the_stack_is_read(tmp_path: Path) -> None:
    depth = 300
    paths = [str(tmp_path) + level * "/d" for level in range(1, depth + 1)]
    for path in paths:
        os.mkdir(path)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + depth // 2)
    try:
        blocks, _ = drain(Walk(Layout()).path(str(tmp_path)))
    finally:
        sys.setrecursionlimit(limit)
        for path in reversed(paths):
            os.rmdir(path)
    assert len(blocks) == depth + 1


@needs_pipes
def test_a_pipe_is_refused_by_name_and_not_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(OSError, match="neither a file") as refused:
            drain(Walk(Layout()).path(str(path)))
        assert refused.value.filename == str(pipe)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        drain(Walk(Layout()).path(str(tmp_path / "missing")))
    assert missing.value.filename == str(tmp_path / "missing")


def test_a_file_that_vanishes_meanwhile_is_named(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"")
    blocks = Walk(Layout()).path(str(tmp_path))
    next(blocks)
    (tmp_path / "b").unlink()
    with pytest.raises(FileNotFoundError) as missing:
        drain(blocks)
    assert missing.value.filename == str(tmp_path / "b")


def test_an_error_of_the_disk_names_the_file() -> None:
    with pytest.raises(OSError, match="input/output") as failed:
        drain(Walk(Layout(chunk_bytes=8)).file(Broken(), "some/file"))
    assert failed.value.errno == errno.EIO
    assert failed.value.filename == "some/file"


def test_names_that_cannot_be_sharded_name_their_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamt, "SHARD_OVER_BYTES", 0)
    monkeypatch.setattr(hamt, "murmur3_x64_64", lambda _name: 7)
    for name in "ab":
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InvalidValueError, match=str(tmp_path)):
        drain(Walk(Layout()).path(str(tmp_path)))


def test_a_walk_that_is_given_up_closes_its_file(tmp_path: Path) -> None:
    # An open file that is collected is a warning, and warnings fail the tests.
    (tmp_path / "file").write_bytes(bytes(100))
    blocks = Walk(Layout(chunk_bytes=10)).path(str(tmp_path / "file"))
    next(blocks)
    blocks.close()


def test_chunks_are_full_though_the_file_gives_little_at_a_time() -> None:
    file = Trickle(bytes(range(25)))
    assert [len(read_chunk(file, 10)) for _ in range(4)] == [10, 10, 5, 0]
    whole, root = drain(Walk(Layout(chunk_bytes=10)).file(Trickle(bytes(range(25)))))
    assert [len(data) for _, data in whole[:-1]] == [10, 10, 5]
    assert root.file_bytes == 25


def test_a_file_that_does_not_block_is_refused() -> None:
    class Never:
        def read(self, size: int) -> None:
            return None

    with pytest.raises(OSError, match="does not block"):
        read_chunk(Never(), 1)
