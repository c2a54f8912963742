"""Tests of the directory of a node."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from aiolibp2p import Cid, KeyType, PrivateKey
from aiolibp2p.errors import StorageError
from aiolibp2p.node.repo import FORMAT, Repo, default_path


def refused(path: Path, *, create: bool = True) -> StorageError:
    with pytest.raises(StorageError) as caught:
        Repo.open(path, create=create)
    return caught.value


def test_a_repo_is_made_once_and_keeps_its_key(tmp_path: Path) -> None:
    path = tmp_path / "a" / "repo"
    with Repo.open(path, create=True) as repo:
        key = repo.key
    with Repo.open(path, create=False) as repo:
        assert bytes(repo.key) == bytes(key)
    assert sorted(os.listdir(path)) == ["key", "lock", "version"]


@pytest.mark.parametrize("key_type", KeyType, ids=lambda key_type: key_type.name)
def test_a_new_repo_has_a_key_of_the_type_that_was_named_and_keeps_it(tmp_path: Path, key_type: KeyType) -> None:
    with Repo.open(tmp_path, create=True, key_type=key_type) as repo:
        key = repo.key
        assert key.type is key_type
    with Repo.open(tmp_path, create=True) as repo:
        assert bytes(repo.key) == bytes(key)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_only_its_owner_enters_a_repo_and_reads_its_key(tmp_path: Path) -> None:
    Repo.open(tmp_path / "repo", create=True).close()
    assert stat.S_IMODE((tmp_path / "repo").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "repo" / "key").stat().st_mode) == 0o600


def test_an_empty_directory_becomes_a_repo(tmp_path: Path) -> None:
    assert refused(tmp_path, create=False).errno == errno.ENOENT
    Repo.open(tmp_path, create=True).close()
    Repo.open(tmp_path, create=False).close()


def test_where_there_is_none_reading_makes_none(tmp_path: Path) -> None:
    error = refused(tmp_path / "repo", create=False)
    assert (error.errno, error.path, error.stage) == (errno.ENOENT, str(tmp_path / "repo"), "repo")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    assert refused(tmp_path).errno == errno.ENOTEMPTY
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]


def test_a_file_is_no_repo(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    assert refused(path).errno == errno.ENOTDIR


@pytest.mark.parametrize("names", [["lock"], ["lock", "key.new"], ["lock", "key"], ["lock", "key", "version.new"]])
def test_a_repo_whose_making_was_cut_off_is_made_again(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"ha")
    with Repo.open(tmp_path, create=True) as repo:
        assert bytes(PrivateKey.from_bytes((tmp_path / "key").read_bytes())) == bytes(repo.key)
    assert (tmp_path / "version").read_text() == FORMAT


def test_a_second_user_is_told_who_the_first_is(tmp_path: Path) -> None:
    with Repo.open(tmp_path, create=True):
        error = refused(tmp_path)
        assert error.errno == errno.EWOULDBLOCK
        assert f"process {os.getpid()}" in str(error)
    Repo.open(tmp_path, create=False).close()


def test_another_version_is_refused_and_let_go(tmp_path: Path) -> None:
    Repo.open(tmp_path, create=True).close()
    (tmp_path / "version").write_text("aiolibp2p repo 2\n")
    assert "'aiolibp2p repo 2'" in str(refused(tmp_path))
    (tmp_path / "version").write_text(FORMAT)
    Repo.open(tmp_path, create=True).close()


def test_a_key_that_is_none_is_refused_and_never_replaced(tmp_path: Path) -> None:
    Repo.open(tmp_path, create=True).close()
    (tmp_path / "key").write_bytes(b"what is this?")
    assert refused(tmp_path).path == str(tmp_path / "key")
    (tmp_path / "key").unlink()
    error = refused(tmp_path)
    assert (error.errno, error.path) == (errno.ENOENT, str(tmp_path / "key"))


@pytest.mark.sockets
async def test_blocks_of_a_repo_are_there_when_it_is_opened_again(tmp_path: Path) -> None:
    cid = Cid.from_data(b"block")
    for known in (False, True):
        with Repo.open(tmp_path, create=True) as repo:
            async with repo.store() as store:
                assert await store.has(cid) is known
                await store.put(cid, b"block")


def test_the_repo_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    data = str(tmp_path / "data")
    assert default_path({"AIOLIBP2P_PATH": "here", "XDG_DATA_HOME": data}, "linux") == Path("here")
    assert default_path({"XDG_DATA_HOME": data}, "linux") == tmp_path / "data" / "aiolibp2p"
    assert default_path({"XDG_DATA_HOME": "relative"}, "linux") == tmp_path / ".local" / "share" / "aiolibp2p"
    assert default_path({}, "darwin") == tmp_path / "Library" / "Application Support" / "aiolibp2p"
    assert default_path({"LOCALAPPDATA": data}, "win32") == tmp_path / "data" / "aiolibp2p"
    assert default_path({}, "win32") == tmp_path / "AppData" / "Local" / "aiolibp2p"
