"""Every row that concerns what is built has a test that names it, or says why not; the page says what the tests say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.rows import SECTIONS, Row, Section
from tests.conformance.table import PAGE, marked, page, proofs

ROWS = [(section, row) for section in SECTIONS for row in section.rows]


@pytest.fixture(scope="module")
def found() -> dict[str, list[str]]:
    return proofs()


@pytest.mark.parametrize(("section", "row"), ROWS, ids=[row.id for _, row in ROWS])
def test_a_row_is_named_by_a_test_or_says_why_not(section: Section, row: Row, found: dict[str, list[str]]) -> None:
    why_not = row.why_not or section.absent
    assert bool(found.get(row.id)) != bool(why_not), f"{row.id}: {why_not or 'no test names it'}"


def test_tests_name_only_rows_that_there_are(found: dict[str, list[str]]) -> None:
    assert set(found) <= {row.id for _, row in ROWS}


def test_rows_have_ids_of_their_own() -> None:
    ids = [row.id for _, row in ROWS]
    assert len(ids) == len(set(ids)) == 118


def test_the_page_is_what_the_marks_say(found: dict[str, list[str]]) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(found), "run python -m tests.conformance.table"


def test_marks_of_classes_and_of_tests_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.conformance.table.TESTS", tmp_path / "tests")
    (tmp_path / "tests").mkdir()
    path = tmp_path / "tests" / "test_it.py"
    path.write_text(
        "import pytest\n"
        "@pytest.mark.conforms('A')\n@pytest.mark.slow\ndef test_one(): ...\n"
        "@pytest.mark.conforms('B')\nclass TestAll:\n"
        "    @pytest.mark.conforms('C', 'D')\n    async def test_two(self): ...\n"
    )
    assert list(marked(path)) == [
        ("A", "tests/test_it.py::test_one"),
        *((row, "tests/test_it.py::TestAll::test_two") for row in "BCD"),
    ]
