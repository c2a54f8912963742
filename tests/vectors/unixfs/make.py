"""Make the CIDs of files.json and directories.json by Helia and boxo: `python -m tests.vectors.unixfs.make [--check]`.

Each case is a file or directory on disk that a listener of the interoperability tests adds when it is told
`add PATH`: `node listener.mjs --bitswap` calls `addByteStream` or `addAll` of @helia/unixfs, `peer -bitswap listen`
builds with boxo's balanced layout and dynamic directories, as `ipfs add --cid-version=1` does. With --check nothing is
written, and what differs is an error. It takes minutes: Helia needs two for 20,000 entries.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.interop.peers import HERE as INTEROP
from tests.interop.peers import Listener, PeerProgramError, Stack
from tests.vectors.unixfs.cases import HERE, FileCase, Group, TreeCase

SECONDS = 300.0
KUBO = (262_144, 174)
HELIA = (1_048_576, 1_024)
"""Bytes of a block and links of a node."""

SIZES = {
    "empty": 0,
    "1 byte": 1,
    "a block of 256 KiB": 262_144,
    "a block of 256 KiB and 1 byte": 262_145,
    "a block of 1 MiB": 1_048_576,
    "a block of 1 MiB and 1 byte": 1_048_577,
    "100 MB": 100_000_000,
}
DEEP = {
    "a full node": 174 * 1024,
    "a full node and 1 byte": 174 * 1024 + 1,
    "two full levels": 174 * 174 * 1024,
    "two full levels and 1 byte": 174 * 174 * 1024 + 1,
}

FILES = [
    *(
        FileCase(f"{name}, in {chunk_bytes >> 10} KiB", "unixfs/file", size, chunk_bytes, links)
        for chunk_bytes, links in (KUBO, HELIA)
        for name, size in SIZES.items()
    ),
    *(FileCase(f"{name}, in 1 KiB", "unixfs/file", size, 1024, 174) for name, size in DEEP.items()),
]

BOUND = "an-entry-of-28-bytes-{:07d}"
TREES = [
    TreeCase("empty", "unixfs/empty", ()),
    TreeCase("a single empty file", "unixfs/one", (Group("empty", 1, 0),)),
    TreeCase("1,000 small files", "unixfs/small", (Group("file-{:04d}", 1000, 1, 7),)),
    TreeCase(
        "names beyond ASCII, where the order of UTF-16 is not that of UTF-8",
        "unixfs/names",
        tuple(Group(name, 1, 5) for name in ("é", "z", "日本", "～", "\U00010348", "A", "a b", "%2F")),
    ),
    TreeCase(
        "nested",
        "unixfs/nested",
        (Group("a/b/c/file-{}", 3, 300_000, 1), Group("a/b.txt", 1, 10), Group("z-{}", 2, 100)),
        ("a/empty", "none"),
    ),
    TreeCase("with symlinks", "unixfs/links", (Group("file", 1, 10),), (), (("to-file", "file"), ("up", "../x"))),
    TreeCase("just at the bound", "unixfs/bound", (Group(BOUND, 4096, 20),)),
    TreeCase("just over the bound", "unixfs/bound", (Group(BOUND, 4095, 20), Group(f"+{BOUND}", 1, 20))),
    TreeCase(
        "just over the bound by bytes of UTF-8, not by characters",
        "unixfs/bound",
        (Group(BOUND, 4095, 20), Group("é" + BOUND[1:], 1, 20)),
    ),
    TreeCase(
        "just over the bound, a directory among the entries",
        "unixfs/bound",
        (Group(BOUND, 4095, 20), Group(f"+{BOUND}/file", 1, 20)),
    ),
    TreeCase("20,000 entries", "unixfs/many", (Group("entry-{:05d}", 20_000, 16),)),
    TreeCase(
        "a sharded directory below another",
        "unixfs/below",
        (Group("below/an-entry-with-a-longer-name-{:05d}", 5000, 16), Group("file", 1, 300_000)),
    ),
]


def versions() -> dict[Stack, str]:
    """Return each stack's version, as its lock file has it."""
    locked = json.loads((INTEROP / "js" / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    names = ("helia", "@helia/unixfs", "ipfs-unixfs-importer")
    js = ", ".join(f"{name} {locked['node_modules/' + name]['version']}" for name in names)
    required = (INTEROP / "go" / "go.mod").read_text(encoding="utf-8").split()
    return {"js": js, "go": f"boxo {required[required.index('github.com/ipfs/boxo') + 1]}"}


def short(stack: Stack) -> str:
    return {"js": "helia", "go": "boxo"}[stack]


class Adders:
    """A listener of each stack that adds what it is told."""

    def __init__(self) -> None:
        self._listeners = {"js": Listener("js", "listen", "--bitswap"), "go": Listener("go", "listen", "-bitswap")}

    def add(self, stack: Stack, path: Path, case: FileCase | TreeCase) -> str:
        """Return the CID.

        Raises:
            PeerProgramError: it was not added.
        """
        dash = "-" if stack == "go" else "--"
        listener = self._listeners[stack]
        listener.send([f"{dash}chunk-bytes={case.chunk_bytes}", f"{dash}links={case.links}", "add", str(path)])
        answer = listener.next_line().result(SECONDS)
        if "error" in answer:
            raise PeerProgramError(f"{stack}: {case.name}: {answer['error']}")
        return str(answer["cid"])

    def cids(self, case: FileCase | TreeCase, path: Path) -> dict[Stack, str]:
        """Return the CID by stack; that of js lacks where Helia has no symlinks."""
        stacks: list[Stack] = ["go"] if isinstance(case, TreeCase) and case.symlinks else ["go", "js"]
        return {stack: self.add(stack, path, case) for stack in stacks}

    def close(self) -> None:
        """End them."""
        for listener in self._listeners.values():
            listener.close()


def write_case(case: FileCase | TreeCase, path: Path) -> None:
    if isinstance(case, TreeCase):
        case.write(path)
        return
    with path.open("wb") as file:
        for part in case.content():
            file.write(part)


def made(cases: Iterable[FileCase | TreeCase]) -> list[dict[str, Any]]:
    """Return the cases with the CIDs that both stacks give; boxo's is the one that counts."""
    found = []
    adders = Adders()
    try:
        for case in cases:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "case"
                write_case(case, path)
                cids = adders.cids(case, path)
            entry = {key: value for key, value in dataclasses.asdict(case).items() if value not in ((), "", {})}
            if isinstance(case, TreeCase):
                entry["groups"] = [dataclasses.asdict(group) for group in case.groups]
                entry["entry_bytes"] = case.entry_bytes
            entry["cid"] = cids["go"]
            entry["made_by"] = [short(stack) for stack, cid in cids.items() if cid == cids["go"]]
            others = {short(stack): cid for stack, cid in cids.items() if cid != cids["go"]}
            found.append({**entry, **({"others": others} if others else {})})
            print(entry["made_by"], case.name)
    finally:
        adders.close()
    return found


def main() -> int:
    """Make or check both files; return how many differ."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    differ = 0
    for name, cases in (("files.json", FILES), ("directories.json", TREES)):
        text = json.dumps(
            {
                "how": "python -m tests.vectors.unixfs.make; cases.py says what is in the files",
                "stacks": {short(stack): version for stack, version in versions().items()},
                "cases": made(cases),
            },
            indent=2,
        )
        if not check:
            (HERE / name).write_text(text + "\n", encoding="utf-8")
        elif (HERE / name).read_text(encoding="utf-8") != text + "\n":
            print(f"{name} differs")
            differ += 1
    return differ


if __name__ == "__main__":
    sys.exit(main())
