"""The README says what is so. `python tests/unit/test_readme.py` fills in its tables, from results that are in git."""

from __future__ import annotations

import json
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiolibp2p.cli import main

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
MEASURED = "benchmarks/results"
STACKS = ("aiolibp2p (uvloop)", "aiolibp2p (asyncio)", "go-libp2p", "js-libp2p", "py-libp2p")
ROWS = (
    "upload",
    "upload-16",
    "upload-1k",
    "streams",
    "streams-32",
    "ping",
    "dial-identify",
    "ping-p99",
    "ping-p99-adding",
    "idle",
    "open-streams",
)
RUN = "import sys; from aiolibp2p.cli import main; sys.exit(main())"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[list[str], str]]:
    """Return each command of the console blocks, with what the README says it prints."""
    parts = re.findall(r"^\$ aiolibp2p (.*)\n((?:[^$].*\n)*)", "".join(blocks("console")), re.MULTILINE)
    return [(shlex.split(words), output) for words, output in parts]


def shape(text: str) -> str:
    """Return a text without what differs from run to run: numbers, units of size and peer IDs."""
    text = re.sub(r"12D3KooW\w+", "PEER", text)
    return re.sub(r" *\d[\d,.]*( [kMG]B(?!\w))?", " N", text)


def shown(name: str) -> str:
    """Return the part of the README that is filled in under this name."""
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def table(report: dict[str, Any]) -> str:
    """Return the medians of a report as the README's table."""

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"

    rows = [report["rows"][name] for name in ROWS if name in report["rows"]]
    stacks = [stack for stack in STACKS if any(stack in row["medians"] for row in rows)]
    lines = [f"| | {' | '.join(stacks)} |", "|---" + "|---:" * len(stacks) + "|"]
    for row in rows:
        cells = " | ".join(number(row["medians"].get(stack)) for stack in stacks)
        lines.append(f"| {row['work']}: {row['unit']} | {cells} |")
    machine, method = report["machine"], report["method"]
    how = f"{machine['cores']} × {machine['cpu']}, Python {report['versions']['python']}"
    lines += ["", f"{report['date'][:10]}, {how}, medians of {method['repetitions']}."]
    return "\n".join(lines)


def content_table(fetch: dict[str, Any], add: dict[str, Any], silence: dict[str, Any]) -> str:
    """Return what was measured of blocks and files as the README's second table."""
    rows = {name: row["medians"] for name, row in fetch["rows"].items()}
    ours, helia = "aiolibp2p from aiolibp2p", "Helia from Helia"
    n_bytes = fetch["method"]["size_bytes"] // 1_000_000
    file = f"a file of {n_bytes} MB between two nodes and to disk, every block verified"
    client = f"boxo's client fetches {n_bytes} MB"
    lines = [
        "| MB/s | aiolibp2p | beside it in the same run |",
        "|---|---:|---|",
        f"| {file}, blocks of 256 KiB | {rows['file'][ours]:.0f} | Helia, in memory: {rows['file'][helia]:.0f} |",
        f"| the same, blocks of 16 KiB | {rows['file-16k'][ours]:.0f} | Helia: {rows['file-16k'][helia]:.0f} |",
    ]
    for name, size in (("blocks", "256 KiB"), ("blocks-16k", "16 KiB")):
        from_us, from_boxo = (rows[name][f"boxo from {who}"] for who in ("aiolibp2p", "boxo"))
        lines.append(f"| {client}, blocks of {size} | {from_us:.0f} | from boxo, in memory: {from_boxo:.0f} |")
    added, copied = (
        statistics.median(sample["value"] for sample in add["samples"][who])
        for who in ("aiolibp2p add", "the disk alone")
    )
    mute, unread = (silence["modes"][mode]["median_ratio"] for mode in ("mute", "unread"))
    peers = silence["work"]["peers"]
    lines += [
        f"| `add` of {add['method']['size_bytes'] / 1e9:g} GB | {added:.0f} | a plain durable copy: {copied:.0f} |",
        "",
        f"The rate of an honest peer beside {peers} that ask for blocks and fall silent, by its rate without them:",
        f"{mute:.3f} where they never answer the negotiation, {unread:.3f} where they never read.",
    ]
    return "\n".join(lines)


def measured(name: str) -> dict[str, Any] | None:
    """Return the report that is in git, or without git the file; what a run at home left beside it is no claim."""
    where = f"{MEASURED}/{name}.json"
    listed = subprocess.run(["git", "show", f":{where}"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return json.loads(listed.stdout)  # type: ignore[no-any-return]
    path = ROOT / where
    if (ROOT / ".git").exists() or not path.exists():
        return None
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def tables() -> dict[str, str]:
    """Return both tables as they have to be."""
    versus, *content = (measured(name) for name in ("versus", "fetch", "add", "silence"))
    fetch, add, silence = content
    whole = fetch is not None and add is not None and silence is not None
    return {
        "versus": "Not measured yet." if versus is None else table(versus),
        "content": content_table(fetch, add, silence) if whole else "Not measured yet.",  # type: ignore[arg-type]
    }


@pytest.mark.sockets
@pytest.mark.slow
def test_the_program_of_the_readme_runs_as_it_stands() -> None:
    (program,) = blocks("python")
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"b'hello' from 12D3KooW\w{44}\n", done.stdout)


def test_the_program_of_the_readme_is_an_example() -> None:
    (program,) = blocks("python")
    assert (ROOT / "examples" / "hello.py").read_text(encoding="utf-8").endswith("\n" + program)


def test_the_program_of_the_readme_has_at_most_15_lines() -> None:
    (program,) = blocks("python")
    assert len([line for line in program.splitlines() if line]) <= 15


def test_the_make_targets_of_the_readme_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:^    |`)make ([a-z-]+)", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert {"run", "run-streams", "test", "bench"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README.read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target


@pytest.mark.sockets
@pytest.mark.slow
def test_the_commands_of_the_readme_print_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (listening, said), *asked = commands()
    assert listening[0] == "listen"
    assert {words[0] for words, _ in asked} == {"ping", "perf"}
    with subprocess.Popen([sys.executable, "-c", RUN, *listening], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.readline() + process.stdout.readline()
        assert shape(printed) == shape(said)
        address = printed.split()[-1]
        for words, said in asked:
            quick = ["--interval=0"] if words[0] == "ping" else []
            main([address if "/p2p/" in word else word.replace("100MB", "1MB") for word in words] + quick)
            output = capsys.readouterr()
            assert shape(output.out + output.err) == shape(said)
        process.terminate()
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["versus", "content"])
def test_the_tables_of_the_readme_are_what_was_measured(name: str) -> None:
    assert shown(name) == tables()[name]


def test_the_table_shows_the_medians_and_a_dash_for_what_was_not_run() -> None:
    row = {"work": "work", "unit": "MB/s", "medians": {STACKS[0]: 1234.5, STACKS[2]: 0.41}}
    other = {"work": "other", "unit": "ms", "medians": {STACKS[3]: 12.3}}
    report = {
        "date": "2026-01-02T03:04:05+00:00",
        "machine": {"cores": 2, "cpu": "CPU"},
        "versions": {"python": "3.13.0"},
        "method": {"repetitions": 5},
        "rows": {ROWS[0]: row, ROWS[2]: other},
    }
    lines = table(report).splitlines()
    assert lines[0] == f"| | {STACKS[0]} | {STACKS[2]} | {STACKS[3]} |"
    assert lines[2:4] == ["| work: MB/s | 1,234 | 0.4 | – |", "| other: ms | – | – | 12 |"]
    assert lines[-1] == "2026-01-02, 2 × CPU, Python 3.13.0, medians of 5."


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    for name, content in tables().items():
        text = text.replace(shown(name), content)
    README.write_text(text, encoding="utf-8")
