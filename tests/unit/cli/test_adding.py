"""Tests of the commands on a repo: `init`, `add`, `ls`, `cat`, `get`, `refs` and `block`, as a shell runs them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from aiolibp2p import Cid, PeerId
from aiolibp2p.blocks.cid import DAG_PB
from aiolibp2p.cli import main
from aiolibp2p.cli.options import KeyTypeName
from aiolibp2p.node.repo import Repo

CONTENT = hashlib.shake_256(b"content").digest(600_000)
EMPTY_DIRECTORY = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
MISSING = Cid.from_data(b"nobody has this")

pytestmark = pytest.mark.sockets
"""Commands run loops of their own."""


class Shell:
    """Runs commands on one repo, in this process."""

    def __init__(self, capfdbinary: pytest.CaptureFixture[bytes], repo: Path) -> None:
        self._captured = capfdbinary
        self.repo = repo

    def run(self, *words: str) -> tuple[int, bytes, str]:
        """Return exit code, stdout and stderr."""
        code = main([*words, "--repo", str(self.repo)])
        printed = self._captured.readouterr()
        return code, printed.out, printed.err.decode()

    def out(self, *words: str) -> bytes:
        """Return what a command prints that does what it should."""
        code, out, error = self.run(*words)
        assert (code, error) == (0, "")
        return out

    def lines(self, *words: str) -> list[str]:
        """Return the lines of such a command."""
        return self.out(*words).decode().splitlines()

    def json(self, *words: str) -> Any:
        """Return what such a command prints as its only line."""
        (line,) = self.lines(*words, "--json")
        return json.loads(line)

    def fails(self, *words: str, code: int = 1) -> str:
        """Return the one line of a command that fails and prints nothing else."""
        found, out, error = self.run(*words)
        assert (found, out, error.count("\n")) == (code, b"", 1), error
        return error


@pytest.fixture
def shell(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> Shell:
    return Shell(capfdbinary, tmp_path / "repo")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Give a directory of two files of three leaves each, which are the same, and an empty directory."""
    path = tmp_path / "tree"
    (path / "empty").mkdir(parents=True)
    for name in ("file", "twin"):
        (path / name).write_bytes(CONTENT)
    (path / ".hidden").write_bytes(b"hidden")
    return path


def give_stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


# -- the repo ----------------------------------------------------------------------------------------------------------


def test_init_makes_a_repo_and_leaves_one_that_is_there(shell: Shell) -> None:
    said = shell.json("init")
    assert said == {"peer_id": str(PeerId.parse(said["peer_id"])), "repo": str(shell.repo)}
    assert shell.json("init") == said
    assert shell.lines("init")[0].split() == ["peer", "ID", said["peer_id"]]


@pytest.mark.parametrize("key_type", KeyTypeName)
def test_init_makes_a_key_of_the_type_that_is_named(shell: Shell, key_type: str) -> None:
    said = shell.json("init", "--type", key_type)
    with Repo.open(shell.repo, create=False) as repo:
        assert repo.key.type.name == key_type.upper()
        assert said["peer_id"] == str(repo.key.public.peer_id)
    assert shell.json("init") == said == shell.json("init", "--type", key_type)


def test_init_never_replaces_a_key_by_one_of_another_type(shell: Shell) -> None:
    said = shell.json("init")
    assert shell.fails("init", "--type", "rsa") == (
        f"aiolibp2p init: key: the key in {shell.repo} is of type ed25519, and is never replaced."
        " Try: another place for a key of type rsa\n"
    )
    assert shell.json("init") == said


def test_the_repo_of_the_environment_is_used_without_the_option(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOLIBP2P_PATH", str(tmp_path / "repo"))
    assert main(["init", "--json"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["repo"] == str(tmp_path / "repo")


@pytest.mark.parametrize("command", ["get", "cat", "ls", "refs"])
def test_reading_makes_no_repo(shell: Shell, command: str) -> None:
    line = shell.fails(command, str(MISSING))
    assert line.startswith(f"aiolibp2p {command}: repo: {shell.repo}: there is no repo here. Try: aiolibp2p init")
    assert not shell.repo.exists()


def test_a_repo_in_use_is_refused_with_its_user(shell: Shell, tree: Path) -> None:
    with Repo.open(shell.repo, create=True):
        for words in (["add", str(tree)], ["cat", str(MISSING)], ["init"], ["block", "stat", str(MISSING)]):
            line = shell.fails(*words)
            assert f"{shell.repo}: in use by process {os.getpid()}: end it, or use another directory" in line


def test_a_directory_of_other_files_is_no_repo(shell: Shell, tree: Path) -> None:
    shell.repo = tree
    line = shell.fails("add", str(tree / "file"))
    assert line == (
        f"aiolibp2p add: repo: {tree}: not a repo: other files are in it."
        " Try: a directory that is empty or not there yet\n"
    )


# -- what goes in comes out --------------------------------------------------------------------------------------------


def test_add_ends_with_cid_bytes_and_blocks_of_each_path(shell: Shell, tree: Path) -> None:
    added = [json.loads(line) for line in shell.lines("add", str(tree / "file"), str(tree / "empty"), "--json")]
    assert added == [
        {"cid": added[0]["cid"], "bytes": len(CONTENT), "blocks": 4},
        {"cid": EMPTY_DIRECTORY, "bytes": 0, "blocks": 1},
    ]
    assert shell.out("cat", added[0]["cid"]) == CONTENT


def test_add_without_json_prints_cid_and_path(shell: Shell, tree: Path) -> None:
    assert shell.lines("add", str(tree / "empty")) == [f"{EMPTY_DIRECTORY}  {tree / 'empty'}"]


def test_a_directory_comes_out_as_it_went_in(shell: Shell, tree: Path, tmp_path: Path) -> None:
    cid = shell.json("add", str(tree))["cid"]
    target = tmp_path / "out"
    said = shell.json("get", cid, "-o", str(target))
    assert said.pop("seconds") > 0
    assert said == {"cid": cid, "bytes": 2 * len(CONTENT)}
    assert sorted(path.name for path in target.iterdir()) == ["empty", "file", "twin"]
    assert (target / "twin").read_bytes() == CONTENT
    assert shell.out("cat", f"{cid}/twin", "--offset", "599999") == CONTENT[-1:]


def test_names_with_a_dot_are_added_when_asked_for(shell: Shell, tree: Path) -> None:
    cid = shell.json("add", "--hidden", str(tree))["cid"]
    assert shell.out("cat", f"{cid}/.hidden") == b"hidden"


def test_stdin_is_added_as_a_file(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    give_stdin(monkeypatch, CONTENT)
    said = shell.json("add", "-")
    assert said["bytes"] == len(CONTENT)
    assert shell.out("cat", said["cid"]) == CONTENT


def test_chunks_and_links_decide_the_blocks(shell: Shell, tree: Path) -> None:
    words = ["add", str(tree / "file"), "--chunker"]
    assert shell.json(*words, "size-1048576", "--max-file-links", "1024") == {
        "cid": str(Cid.from_data(CONTENT)),
        "bytes": len(CONTENT),
        "blocks": 1,
    }
    assert shell.json(*words, "size-100000", "--max-file-links", "3")["blocks"] == 6 + 3


def test_ls_lists_names_cids_and_bytes_of_all_blocks(shell: Shell, tree: Path) -> None:
    cid = shell.json("add", str(tree))["cid"]
    file = shell.json("add", str(tree / "file"))["cid"]
    assert shell.json("ls", cid) == {
        "cid": cid,
        "entries": [
            {"name": "empty", "cid": EMPTY_DIRECTORY, "dag_bytes": 4},
            {"name": "file", "cid": file, "dag_bytes": 600158},
            {"name": "twin", "cid": file, "dag_bytes": 600158},
        ],
    }
    assert shell.lines("ls", cid)[:2] == [f"{EMPTY_DIRECTORY}       4  empty", f"{file}  600158  file"]
    assert shell.lines("ls", f"{cid}/empty") == []


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names there cannot be so")
def test_ls_shows_names_that_would_move_the_cursor_as_text(shell: Shell, tree: Path) -> None:
    (tree / "a\nb\x1b[2J\udcff").write_bytes(b"")
    cid = shell.json("add", str(tree))["cid"]
    assert shell.lines("ls", cid)[0].endswith("  a\\nb\\x1b[2J\\udcff")
    assert shell.json("ls", cid)["entries"][0]["name"] == "a\nb\x1b[2J\udcff"


def test_refs_prints_one_cid_a_line_parents_first(shell: Shell, tree: Path) -> None:
    cid = shell.json("add", str(tree))["cid"]
    file = shell.json("add", str(tree / "file"))["cid"]
    leaves = [str(Cid.from_data(CONTENT[start : start + 262_144])) for start in range(0, len(CONTENT), 262_144)]
    assert shell.lines("refs", cid) == [EMPTY_DIRECTORY, file, file]
    assert shell.lines("refs", f"{cid}/file") == leaves
    assert shell.lines("refs", "-r", cid) == [EMPTY_DIRECTORY, *[file, *leaves] * 2]
    assert shell.lines("refs", "-r", "-u", cid) == [EMPTY_DIRECTORY, file, *leaves]
    assert shell.lines("refs", "-r", "--json", cid) == shell.lines("refs", "-r", cid)


# -- single blocks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [0, 1, 2 << 20])
def test_a_block_comes_out_as_it_went_in(shell: Shell, monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
    data = bytes(size_bytes)
    give_stdin(monkeypatch, data)
    cid = str(Cid.from_data(data))
    assert shell.lines("block", "put") == [cid]
    assert shell.out("block", "get", cid) == data
    assert shell.json("block", "stat", cid) == {"cid": cid, "bytes": size_bytes}


def test_a_block_of_a_file_has_the_codec_that_was_named(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "block"
    path.write_bytes(b"\x0a\x02\x08\x01")
    said = shell.json("block", "put", str(path), "--cid-codec", "dag-pb")
    assert said == {"cid": EMPTY_DIRECTORY, "bytes": 4}
    assert Cid.parse(EMPTY_DIRECTORY).codec == DAG_PB


def test_a_block_that_peers_would_refuse_is_refused(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    give_stdin(monkeypatch, bytes((2 << 20) + 1))
    assert shell.fails("block", "put").startswith("aiolibp2p block put: content: more than 2097152 bytes, which peers")
    give_stdin(monkeypatch, b"no dag-pb")
    line = shell.fails("block", "put", "--cid-codec", "dag-pb")
    assert line.startswith("aiolibp2p block put: content: block bafybei")


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["add"], "aiolibp2p add: usage: Missing argument"),
        (["add", "x", "--chunker", "rabin"], "aiolibp2p add: usage: 'rabin' is no chunker. Try: --chunker size-262144"),
        (["add", "x", "--chunker", "size-0"], "aiolibp2p add: usage: chunks have 1 to 2096896 bytes, not 0"),
        (["add", "x", "--max-file-links", "1"], "aiolibp2p add: usage: nodes have 2 to 32768 links, not 1"),
        (["block", "put", "--cid-codec", "x"], "aiolibp2p block put: usage: 'x' is no codec. Try: --cid-codec raw or"),
        (["block", "get", f"{MISSING}/x"], "aiolibp2p block get: usage: a block has no path behind its CID. Try: "),
        (["ls", "nonsense"], "aiolibp2p ls: CID: not a CID: 'nonsense'. Try: a CID like bafybei…"),
    ],
)
def test_wrong_usage_is_one_line_and_makes_no_repo(shell: Shell, words: list[str], start: str) -> None:
    assert shell.fails(*words, code=2).startswith(start)
    assert not shell.repo.exists()


def test_a_path_that_cannot_be_read_is_named_and_those_before_it_are_added(shell: Shell, tree: Path) -> None:
    code, out, error = shell.run("add", str(tree / "empty"), str(tree / "nothing"))
    assert (code, out.split()[0].decode()) == (1, EMPTY_DIRECTORY)
    assert error == f"aiolibp2p add: system: {tree / 'nothing'}: no such file or directory\n"


def test_a_block_that_is_not_in_the_repo_is_named(shell: Shell) -> None:
    shell.json("init")
    for words in (["cat"], ["refs"], ["block", "get"], ["block", "stat"]):
        line = shell.fails(*words, str(MISSING))
        assert f": fetch: block {MISSING} not found. Try: --from ADDR, the address of a peer that has it" in line
