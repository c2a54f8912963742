"""Which tests name which row, and the page that says so: `python -m tests.conformance.table` writes it.

Marks are read from the source, so that a table is made without running or importing a test.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.rows import SECTIONS, Row

TESTS = Path(__file__).parent.parent
PAGE = TESTS.parent / "docs" / "reference" / "conformance.md"
MARK = "conforms"
HEAD = """\
# Conformance

What the specifications and other libp2p stacks ask for, row by row, and the tests of this repository that show it. M:
the specification says MUST; S: SHOULD; D: other stacks break where it is ignored. Written by
`python -m tests.conformance.table` from the marks of the tests; `make test` fails where it differs from them.
"""


def ids_of(decorator: ast.expr) -> list[str]:
    """Return the rows that `@pytest.mark.conforms(...)` names, none for any other decorator."""
    if not (isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith(f"mark.{MARK}")):
        return []
    return [ast.literal_eval(argument) for argument in decorator.args]


def marked(path: Path) -> Iterator[tuple[str, str]]:
    """Yield row and test for every mark in a file."""
    relative = path.relative_to(TESTS.parent).as_posix()

    def walk(body: list[ast.stmt], prefix: str, inherited: list[str]) -> Iterator[tuple[str, str]]:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            rows = [*inherited, *(row for decorator in node.decorator_list for row in ids_of(decorator))]
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{prefix}{node.name}::", rows)
            elif node.name.startswith("test_"):
                yield from ((row, f"{relative}::{prefix}{node.name}") for row in rows)
            else:
                assert not rows, f"{relative}: {node.name} is no test, and names {rows}"

    yield from walk(ast.parse(path.read_text(encoding="utf-8")).body, "", [])


def proofs() -> dict[str, list[str]]:
    """Return the tests that name each row."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        if "node_modules" in path.parts or ".venv" in path.parts:
            continue
        for row, test in marked(path):
            found.setdefault(row, []).append(test)
    return found


def shown(test: str) -> str:
    """Return a test as a link to its file and what its name says."""
    path, _, name = test.partition("::")
    said = name.rpartition("::")[2].removeprefix("test_").replace("_", " ")
    return f"[{said}](../../{path})"


def line_of(row: Row, absent: str, tests: list[str]) -> str:
    """Return the line of one row."""
    because = f"*{row.why_not or absent}*" if not tests else "<br>".join(shown(test) for test in tests)
    return f"| {row.id} | {row.level} | {row.rule} | {because} |"


def page(found: dict[str, list[str]]) -> str:
    """Return the whole page, given the tests of each row."""
    parts = [HEAD]
    for section in SECTIONS:
        if section.absent:
            rows = ", ".join(row.id for row in section.rows)
            parts.append(f"## {section.title}\n\n{section.absent[0].upper()}{section.absent[1:]}: {rows}.\n")
            continue
        lines = [line_of(row, section.absent, found.get(row.id, [])) for row in section.rows]
        parts.append(
            "\n".join([f"## {section.title}\n", "| row | level | rule | shown by |", "|---|---|---|---|", *lines, ""])
        )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(proofs()), encoding="utf-8")
