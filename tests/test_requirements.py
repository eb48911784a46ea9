"""docs/security-requirements.md: every demand has its proof, and every id that is cited means something."""

import re
from pathlib import Path
from typing import Final

from tests.test_house import ROOT, modules, named

TABLE: Final = ROOT / "docs" / "security-requirements.md"
ROW: Final = re.compile(r"^\| ([A-Z]\d+) \| (must|beyond) \| (.+) \|$", re.MULTILINE)
# Tests and code cite `(B10)`, `B10:` or `B10, B11`; the letters are those of the table's sections.
CITED: Final = re.compile(r"\b[ABCEGHJKLNPS]\d{1,2}\b")


def cited(*folders: str) -> dict[str, str]:
    """Return each id and one module that cites it."""
    return {found: named(path) for path in modules(*folders) if path != Path(__file__) for found in _ids(path)}


def _ids(path: Path) -> list[str]:
    return CITED.findall(path.read_text())


def letters(path: Path, pattern: str) -> list[str]:
    return re.findall(pattern, path.read_text(), re.MULTILINE)


def rows() -> list[tuple[str, str, str]]:
    return ROW.findall(TABLE.read_text())


def test_every_requirement_has_one_row() -> None:
    ids = [row[0] for row in rows()]
    assert len(ids) > 100
    assert sorted(ids) == sorted(set(ids))


def test_every_must_is_cited_by_a_test_and_the_rest_says_that_it_is_not_built() -> None:
    proved = cited("tests")
    assert [row[0] for row in rows() if row[1] == "must" and row[0] not in proved] == []
    unproved = {row[0] for row in rows() if row[0] not in proved}
    assert unproved == {row[0] for row in rows() if row[2].startswith("*Not built")}


def test_every_id_that_is_cited_has_a_row() -> None:
    known = {row[0] for row in rows()}
    assert {found: where for found, where in cited().items() if found not in known} == {}


def test_reviewers_are_told_what_every_letter_is_about() -> None:
    explained = letters(TABLE.with_name("security-review.md"), r"^\| ([A-Z]) \| ")
    assert sorted(explained) == sorted(letters(TABLE, "^## ([A-Z]): "))


def test_reviewers_are_told_of_every_module_that_answers_before_django() -> None:
    told = TABLE.with_name("security-review.md").read_text()
    answering = [
        path.name for folder in ("conversations", "conversations/api") for path in (ROOT / folder).glob("fast_*.py")
    ]
    assert [name for name in answering if name not in told] == []
