"""The README says what is so. `python tests/unit/test_readme.py` puts the table of measurements into it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiolibp2p.cli import main

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
MEASURED = "benchmarks/results/versus.json"
TABLE = re.compile(r"(?<=<!-- versus -->\n).*?(?=\n<!-- /versus -->)", re.DOTALL)
STACKS = ("aiolibp2p (uvloop)", "aiolibp2p (asyncio)", "go-libp2p", "js-libp2p")
ROWS = ("upload", "streams", "streams-32", "ping", "dial-identify")
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


def table(report: dict[str, Any]) -> str:
    """Return the medians of a report as the README's table."""

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:,.0f}"

    lines = [f"| | {' | '.join(STACKS)} |", "|---" + "|---:" * len(STACKS) + "|"]
    for name in ROWS:
        row = report["rows"][name]
        cells = " | ".join(number(row["medians"].get(stack)) for stack in STACKS)
        lines.append(f"| {row['work']}: {row['unit']} | {cells} |")
    machine, method = report["machine"], report["method"]
    how = f"{machine['cores']} × {machine['cpu']}, Python {report['versions']['python']}"
    lines += ["", f"{report['date'][:10]}, {how}, medians of {method['repetitions']}."]
    return "\n".join(lines)


def measured() -> dict[str, Any] | None:
    """Return the report that is in git, or without git the file; what a run at home left beside it is no claim."""
    listed = subprocess.run(["git", "show", f":{MEASURED}"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return json.loads(listed.stdout)  # type: ignore[no-any-return]
    path = ROOT / MEASURED
    if (ROOT / ".git").exists() or not path.exists():
        return None
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


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


def test_the_table_of_the_readme_is_what_was_measured() -> None:
    shown = TABLE.search(README.read_text(encoding="utf-8"))
    assert shown is not None
    report = measured()
    assert shown[0] == ("Not measured yet." if report is None else table(report))


def test_the_table_shows_the_medians_and_a_dash_for_what_was_not_run() -> None:
    row = {"work": "work", "unit": "MB/s", "medians": {STACKS[0]: 1234.5, STACKS[3]: 0.4}}
    report = {
        "date": "2026-01-02T03:04:05+00:00",
        "machine": {"cores": 2, "cpu": "CPU"},
        "versions": {"python": "3.13.0"},
        "method": {"repetitions": 5},
        "rows": dict.fromkeys(ROWS, row),
    }
    lines = table(report).splitlines()
    assert lines[2] == "| work: MB/s | 1,234 | – | – | 0 |"
    assert lines[-1] == "2026-01-02, 2 × CPU, Python 3.13.0, medians of 5."


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    report = json.loads((ROOT / MEASURED).read_text(encoding="utf-8"))
    README.write_text(TABLE.sub(lambda _: table(report), text), encoding="utf-8")
