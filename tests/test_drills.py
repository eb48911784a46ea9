"""The drills' own figures: a promise that was broken is said, and the table says it, too."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from drills import table
from drills.catalog import DRILLS
from drills.promises import Drill, Lost, Outcome, broken
from drills.table import Result

AWAY = Drill(name="away", promise="503 only", inject=lambda _: None, allowed=frozenset({"503"}), most_orphans=1)
KEPT = Outcome(done=50, unfinished=0, errors=Counter({"503": 7}), lost=Lost(orphans=3, announced=2))


def named(name: str) -> Drill:
    return replace(AWAY, name=name)


def test_a_promise_is_kept_if_only_allowed_errors_came_and_nothing_was_lost() -> None:
    assert broken(AWAY, KEPT) == []


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome(done=50, unfinished=0, errors=Counter({"503": 7, "500": 2, "no answer": 1})),
         ["2 x 500", "1 x no answer"]),
        (Outcome(done=50, unfinished=0, lost=Lost(tokens=1, audit_rows=2, webhooks=3)),
         ["1 tokens lost", "2 audit rows lost", "3 webhooks lost"]),
        (Outcome(done=50, unfinished=0, lost=Lost(orphans=3, announced=1)), ["3 tokens left valid at the brand"]),
        (Outcome(done=50, unfinished=4), ["4 journeys did not end"]),
        (Outcome(done=50, unfinished=0, recovered_after=None), ["it did not recover"]),
        (Outcome(done=0, unfinished=0), ["no journey was done"]),
    ],
    ids=["error", "lost", "orphans", "unfinished", "no recovery", "nothing done"],
)  # fmt: skip
def test_what_breaks_a_promise_is_named(outcome: Outcome, said: list[str]) -> None:
    assert broken(AWAY, outcome) == said


def test_the_table_stands_between_the_marks_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "operator.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    results = [
        Result(AWAY, KEPT),
        Result(named("crash"), Outcome(done=9, unfinished=0, errors=Counter({"500": 1}), recovered_after=None)),
        Result(named("disk"), skipped="no disk can be mounted here"),
        Result(named("stuck"), failed="RuntimeError"),
    ]
    order = ["away", "crash", "disk", "stuck"]
    table.publish(results[1:], order, page)
    table.publish(results[:1], order, page)
    written = page.read_text()
    assert (written.startswith(f"before\n{table.BEGIN}\n"), written.endswith(f"{table.END}\nafter\n")) == (True, True)
    assert written.splitlines()[7:11] == [
        "| `away` | 503 only | 50 | 7 x 503 | 0 | 0 | 0 | 3 (2 in the log) | 0.0 s | kept |",
        "| `crash` | 503 only | 9 | 1 x 500 | 0 | 0 | 0 | 0 | never | **broken**: 1 x 500; it did not recover |",
        "| `disk` | 503 only | - | - | - | - | - | - | - | skipped: no disk can be mounted here |",
        "| `stuck` | 503 only | - | - | - | - | - | - | - | **failed**: RuntimeError |",
    ]
    assert [result.is_broken for result in results] == [False, True, False, True]


def test_each_drill_has_a_name_of_its_own_and_the_page_has_the_marks() -> None:
    text = table.PAGE.read_text()
    assert len({drill.name for drill in DRILLS}) == len(DRILLS)
    assert text.index(table.BEGIN) < text.index(table.END)
