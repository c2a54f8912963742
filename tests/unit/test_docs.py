"""docs/howto/simulate.md says what is so: its files are run, and its commands print what it shows."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import aiolibp2p.sim
from aiolibp2p.sim import Connection, Link, World, run_world

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "howto" / "simulate.md"
EXAMPLES = {"test_orders.py": "simulate_http", "test_prices.py": "simulate_libp2p"}
FEWER = {"5000": "60"}
"""What is run many times is run fewer times here; the first failure is among them."""
ANYTHING = "…\n"
PCAP_OF_NANOSECONDS = bytes.fromhex("4d3cb2a1")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(PAGE), re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    """Return the files that the page has its reader write, by name; what is continued is as at that place's end."""
    found: dict[str, str] = {}
    for block in blocks("python"):
        first, _, rest = block.partition("\n")
        match = re.fullmatch(r"# (\w+\.py)(, continued)?", first)
        assert match is not None, first
        assert bool(match[2]) == (match[1] in found)
        found[match[1]] = found[match[1]] + "\n\n" + rest if match[2] else rest
    return found


def commands() -> list[tuple[list[str], str]]:
    parts = re.findall(r"^\$ (.*)\n((?:[^$].*\n|\n)*)", "".join(blocks("console")), re.MULTILINE)
    return [(shlex.split(words), output) for words, output in parts]


def shape(text: str) -> str:
    """Return a text without what differs from run to run, or with the version of Python and of aiohttp."""
    text = re.sub(r"^(  seed \d+: ).*", r"\1EVENT", text, flags=re.MULTILINE)
    text = re.sub(r"; age [^]]*|\[ *\d+%\]", "", text)
    text = re.sub(r"\b[Tt]ask-\d+|made-\d+", "TASK", text)
    text = re.sub(r"^E? +[~^]+\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"[\d.,]*\d", "N", text)
    return re.sub(r"N(?:, N)+(?:, …)?|(?<=failed: )N", "NUMBERS", text)


def prints(shown: str, printed: str) -> bool:
    """Return whether a program has printed what is shown, in which `…` on a line of its own is anything."""
    parts = [re.escape(part) for part in shape(shown).split(ANYTHING)]
    return re.fullmatch("(?:.*\n)*?".join(parts), shape(printed).rstrip("\n") + "\n") is not None


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sole_test(module: Any) -> Any:
    (test,) = (thing for name, thing in vars(module).items() if name.startswith("test_"))
    return test


@pytest.mark.slow
def test_the_commands_of_the_page_print_what_it_says(tmp_path: Path) -> None:
    for name, text in files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    # Plugins that are installed here for other tests take a second each time.
    plugins = {
        "PYTHONUTF8": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "-p aiolibp2p.sim.pytest_plugin",
    }
    environment = {**os.environ, **plugins, "COLUMNS": "80", "PYTHONWARNINGS": "error"}
    for machine in ("CI", "BUILD_NUMBER"):  # where one is set, pytest does not shorten its summary
        environment.pop(machine, None)
    asked = commands()
    assert len(asked) == 4
    for (program, *words), shown in asked:
        assert program == "python"
        command = [sys.executable, *(FEWER.get(word, word) for word in words)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
        )
        assert done.stderr == ""
        assert prints(shown, done.stdout), f"{shape(shown)}\n--- but {words} printed ---\n{shape(done.stdout)}"
    assert (tmp_path / "orders.pcap").read_bytes()[:4] == PCAP_OF_NANOSECONDS


def test_what_differs_from_what_is_shown_is_noticed() -> None:
    assert prints("a 5\n…\nb\n", "a 7\nx\ny\nb\n\n")
    assert prints("3 of 50 seeds failed: 1, 2, 3, …\n", "1 of 60 seeds failed: 57\n")
    for printed in ("a 7\nx\n", "a 7\nx\nb\nc\n", "x\na 7\nb\n", "A 7\nb\n"):
        assert not prints("a 5\n…\nb\n", printed)


@pytest.mark.parametrize(("file", "name"), EXAMPLES.items())
def test_the_programs_of_the_page_begin_as_the_examples_are(file: str, name: str) -> None:
    head, _, program = text_of(ROOT / "examples" / f"{name}.py").partition("\n\n")
    assert head.startswith('"""')
    assert files()[file].startswith(program)
    assert f"examples/{name}.py" in text_of(PAGE)


@pytest.mark.sockets  # aiohttp makes sockets, which the simulated loop takes for its own
@pytest.mark.parametrize("name", EXAMPLES.values())
def test_the_examples_pass(name: str) -> None:
    sole_test(example(name))()


def test_a_program_that_knows_nothing_of_libp2p_is_tested_in_ten_lines() -> None:
    module = example("simulate_http")
    assert len(inspect.getsource(sole_test(module)).splitlines()) <= 10
    program = inspect.getsource(module.run_shop) + inspect.getsource(module.order)
    assert "sim" not in program
    assert "libp2p" not in program


def test_what_the_page_names_is_there() -> None:
    async def main(sim: World) -> dict[str, Any]:
        return {"sim": sim, "host": sim.host("a"), "net": sim.net}

    have = {**run_world(main), "connection": Connection}
    prose = re.sub(r"^```.*?^```$", "", text_of(PAGE), flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"(?=\b(sim|net|host|connection)\.([a-z]\w+))", prose))
    assert {("sim", "partition"), ("host", "crash"), ("connection", "reset"), ("net", "connections")} <= named
    for thing, name in named:
        assert hasattr(have[thing], name) or hasattr(aiolibp2p.sim, name), f"{thing}.{name}"
    (row,) = re.findall(r"^\| `sim\.link\(.*$", prose, re.MULTILINE)
    assert set(re.findall(r"(\w+)=", row)) == {field.name for field in fields(Link)} | {"oneway"}


def test_the_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", text_of(PAGE)):
        assert (PAGE.parent / target).exists(), target
