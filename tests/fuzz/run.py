"""Fuzz one target for as long as you like: `python -m tests.fuzz.run identity.multiaddr [arguments of libFuzzer]`.

A target is a function of `fuzz_<file>.py` in this folder, in its table TARGETS; `SEEDS` there and the kept inputs of
`corpus/<target>/` are what it begins with, unless a directory is among the arguments. `--gauge=FILE` has samples of its
memory written there. With atheris installed the fuzzer follows the coverage of this package; without it Hypothesis
draws the bytes. Without an argument the names are listed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.gauge import Gauge

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus"
GAUGE = "--gauge="
EXAMPLES_WITHOUT_ATHERIS = 100_000


@dataclass(frozen=True, slots=True)
class Target:
    """A function that must survive any bytes, and inputs that it accepts."""

    name: str
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]

    def kept(self) -> list[bytes]:
        """Return the inputs that earlier campaigns have found worth keeping, and those that once failed."""
        return [path.read_bytes() for path in sorted((CORPUS / self.name).glob("*"))]

    def write_corpus(self, folder: Path) -> None:
        """Write what there is to begin with to `folder`, each input under its hash."""
        for data in (*self.seeds, *self.kept()):
            (folder / name_of(data)).write_bytes(data)


def name_of(data: bytes) -> str:
    """Return the name of an input's file."""
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tests.fuzz.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their own module up while they are made.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def targets_of(path: Path) -> list[Target]:
    """Return the targets that a `fuzz_*.py` file defines."""
    module = _load(path)
    seeds: dict[str, list[bytes]] = getattr(module, "SEEDS", {})
    prefix = path.stem.removeprefix("fuzz_")
    return [Target(f"{prefix}.{name}", run, tuple(seeds.get(name, ()))) for name, run in module.TARGETS.items()]


def fuzz_files() -> list[Path]:
    """Return the files that define targets."""
    return sorted(FOLDER.glob("fuzz_*.py"))


def mutations(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return seeds with some bytes replaced, inserted or cut out, and their end cut off or something appended."""
    edits = st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 2), st.binary(min_size=1, max_size=2)), min_size=1, max_size=4
    )

    def mutate(seed: bytes, changes: list[tuple[int, int, bytes]], keep: int, tail: bytes) -> bytes:
        data = bytearray(seed)
        for position, kept, replacement in changes:
            at = position % (len(data) + 1)
            data[at : at + kept] = replacement
        return bytes(data[: len(data) - keep]) + tail

    return st.builds(
        mutate, st.sampled_from(list(seeds)), edits, st.sampled_from((0, 0, 0, 1, 5)), st.binary(max_size=3)
    )


def _with_atheris(path: Path, name: str, arguments: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["aiolibp2p"]):
        target = find(name, path)
    gauges = [argument.removeprefix(GAUGE) for argument in arguments if argument.startswith(GAUGE)]
    arguments = [argument for argument in arguments if not argument.startswith(GAUGE)]
    run = Gauge(target.run, Path(gauges[0])) if gauges else target.run
    with tempfile.TemporaryDirectory() as folder:
        corpus, program = Path(folder, "corpus"), Path(folder, "run")
        # libFuzzer starts itself again to merge, with other arguments.
        program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-m", "tests.fuzz.run", name])} "$@"\n')
        program.chmod(0o700)
        if all(argument.startswith("-") for argument in arguments):
            corpus.mkdir()
            target.write_corpus(corpus)
            arguments = [*arguments, str(corpus)]
        atheris.Setup([str(program), *arguments], run)
        atheris.Fuzz()


def _with_hypothesis(path: Path, name: str) -> None:
    target = find(name, path)
    inputs = st.binary() | mutations(target.seeds) if target.seeds else st.binary()
    settings(max_examples=EXAMPLES_WITHOUT_ATHERIS, deadline=None)(given(inputs)(target.run))()


def path_of(name: str) -> Path:
    """Return the file that a target would be in."""
    return FOLDER / f"fuzz_{name.partition('.')[0]}.py"


def find(name: str, path: Path | None = None) -> Target:
    """Return a target by its name."""
    return next(target for target in targets_of(path or path_of(name)) if target.name == name)


def main(arguments: list[str]) -> int:
    """Run the target that is named; return the exit code."""
    if not arguments:
        print("\n".join(target.name for path in fuzz_files() for target in targets_of(path)))
        return 0
    name = arguments[0]
    path = path_of(name)
    if not path.is_file():
        print(f"no target is called {name}", file=sys.stderr)
        return 64
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: Hypothesis draws the bytes", file=sys.stderr)
        _with_hypothesis(path, name)
    else:
        _with_atheris(path, name, arguments[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
