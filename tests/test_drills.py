"""The drills' own figures: a promise that was broken is said, and the table says it, too."""

import socket
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from demo.bot_api import BotApi
from demo.processes import Certificate
from drills import table
from drills.__main__ import in_turn
from drills.brand import Brand
from drills.catalog import DRILLS
from drills.counting import orphans_at_brand
from drills.databases import DurablePostgreSQL
from drills.journeys import Load
from drills.promises import Drill, FaultDidNotTakeHold, Lost, Outcome, Shape, broken
from drills.proofs import fails_with, is_gone, refuses
from drills.run import check_taken_hold
from drills.services import PIPE_BYTES, WebGroup
from drills.stage import Prepared, Stage
from drills.table import Result, exit_status
from tests import nginx

AWAY = Drill(name="away", promise="503 only", inject=lambda _: None, allowed=frozenset({"503"}), most_orphans=1,
             recovers_within=75)  # fmt: skip
KEPT = Outcome(done=50, unfinished=0, errors=Counter({"503": 7}), lost=Lost(orphans=1), per_second=2.04, late=3,
               slowest=5.25, load=7.6)  # fmt: skip
CONTROL = replace(AWAY, name="control", is_control=True)
CALM = Outcome(done=50, unfinished=0)
BROKEN = Outcome(done=9, unfinished=0, errors=Counter({"500": 1}), recovered_after=None)

FILE = Path("unused")
DATABASE = DurablePostgreSQL(FILE)
BOT = BotApi("https://acme.example", "acme-bot")
MADE = Prepared(
    FILE, DATABASE, Certificate(FILE, FILE, FILE), {nginx.HTTPS: 1}, 2, bot_key="", encryption_key="", secret_key=""
)


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
        (Outcome(done=50, unfinished=0, lost=Lost(orphans=3)), ["3 tokens left valid at the brand"]),
        (Outcome(done=50, unfinished=4), ["4 journeys did not end"]),
        (Outcome(done=50, unfinished=0, recovered_after=None), ["it did not recover"]),
        (Outcome(done=50, unfinished=0, recovered_after=75.1), ["it recovered after more than 75 s"]),
        (Outcome(done=0, unfinished=0), ["no journey was done"]),
    ],
    ids=["error", "lost", "orphans", "unfinished", "no recovery", "late recovery", "nothing done"],
)  # fmt: skip
def test_what_breaks_a_promise_is_named(outcome: Outcome, said: list[str]) -> None:
    assert broken(AWAY, outcome) == said


def test_late_webhooks_break_the_promise_of_the_control_run_alone() -> None:
    late = Outcome(done=50, unfinished=0, late=2)
    assert (broken(CONTROL, late), broken(AWAY, late)) == (["2 webhooks late"], [])


def test_a_fault_without_a_proof_did_not_take_hold() -> None:
    check_taken_hold(CONTROL, [])
    check_taken_hold(AWAY, ["connections refused"])
    with pytest.raises(FaultDidNotTakeHold, match="it shows no proof"):
        check_taken_hold(AWAY, [])


def test_a_proof_that_does_not_hold_ends_the_drill() -> None:
    stage = Stage(Path(), MADE, Shape(), DATABASE)
    stage.prove("a process is gone", holds=True)
    with pytest.raises(FaultDidNotTakeHold, match="not seen: connections refused"):
        stage.prove("connections refused", holds=False)
    assert stage.proofs == ["a process is gone"]


def test_a_process_that_runs_is_not_gone_and_one_that_was_killed_is() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        before = is_gone(process.pid, seconds=0.2)
        process.kill()
        assert (before, is_gone(process.pid)) == (False, True)


def test_a_pipe_is_full_once_a_line_is_in_it_that_nobody_reads(tmp_path: Path) -> None:
    group = WebGroup("bots", [], {}, tmp_path, holds_socket=False)
    group.reader = subprocess.Popen(["/bin/sleep", "60"], stdin=subprocess.PIPE, pipesize=PIPE_BYTES, bufsize=0)
    assert group.reader.stdin
    before = group.is_pipe_full()
    group.reader.stdin.write(b"a line\n")
    assert (before, group.is_pipe_full()) == (False, True)
    group.close()


def test_only_a_closed_port_refuses_and_only_the_named_error_counts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert refuses(f"postgres://postgres@127.0.0.1:{port}/postgres")
    assert (fails_with(KeyError, lambda: dict[str, str]()["acme"]), fails_with(KeyError, lambda: None)) == (True, False)
    with pytest.raises(ZeroDivisionError):
        fails_with(KeyError, lambda: 1 // 0)


def test_orphans_are_tokens_of_the_brand_that_are_neither_stored_nor_revoked() -> None:
    assert orphans_at_brand({"issued": [1, 2, 3, 4], "revoked": [2]}, [1, 4]) == {3}


@pytest.mark.parametrize(("revoked", "stored"), [([9], [1]), ([], [9])], ids=["revoked", "stored"])
def test_a_token_that_the_brand_never_issued_makes_the_count_void(revoked: list[int], stored: list[int]) -> None:
    with pytest.raises(ValueError, match="1 tokens are not of the brand"):
        orphans_at_brand({"issued": [1], "revoked": revoked}, stored)


def test_a_revoked_token_and_no_other_is_revoked_in_the_notes_of_the_brand() -> None:
    brand = Brand("https://acme.example", {})
    brand.tokens = {"1.first": False, "2.second": False}
    brand.revoke({"token": "2.second"})
    brand.revoke({"token": "3.rival"})
    assert brand.notes()[2] == {"issued": [1, 2], "revoked": [2], "webhooks": [], "exchanging": 0}


@pytest.mark.parametrize(
    ("results", "is_ci", "status"),
    [
        ([Result(CONTROL, CALM), Result(AWAY, KEPT)], True, 0),
        ([Result(CONTROL, CALM)], False, 0),
        ([], False, 1),
        ([Result(CONTROL, CALM), Result(AWAY, BROKEN)], False, 1),
        ([Result(CONTROL, CALM), Result(AWAY, failed="OSError")], False, 1),
        ([Result(CONTROL, CALM), Result(AWAY, skipped="no disk")], False, 1),
        ([Result(CONTROL, CALM), Result(AWAY, KEPT), Result(named("disk"), skipped="no disk")], False, 0),
        ([Result(CONTROL, CALM), Result(AWAY, KEPT), Result(named("disk"), skipped="no disk")], True, 1),
        ([Result(CONTROL, BROKEN)], False, 1),
    ],
    ids=["kept", "control asked for alone", "nothing", "broken", "failed", "all skipped", "one skipped",
         "one skipped in CI", "control broken"],
)  # fmt: skip
def test_the_exit_status_is_0_only_if_a_drill_ran_and_all_kept(results: list[Result], is_ci: bool, status: int) -> None:
    assert exit_status(results, is_ci=is_ci) == status


@pytest.mark.parametrize(
    ("of_control", "run"),
    [(Result(CONTROL, CALM), ["control", "away"]), (Result(CONTROL, BROKEN), ["control"]),
     (Result(CONTROL, failed="OSError"), ["control"]), (Result(CONTROL, skipped="no nginx"), ["control"])],
    ids=["kept", "broken", "failed", "skipped"],
)  # fmt: skip
def test_no_drill_runs_after_a_control_run_that_did_not_keep_its_promise(of_control: Result, run: list[str]) -> None:
    results = in_turn([CONTROL, AWAY], lambda drill: of_control if drill.is_control else Result(drill, KEPT))
    assert [result.drill.name for result in results] == run


def test_no_more_sign_ins_begin_than_the_load_allows_after_its_first() -> None:
    load = Load(BOT, per_second=0.001)
    waits = [load.pause() for _ in range(3)]
    assert [round(wait, -2) for wait in waits] == [0, 1000, 2000]


def test_the_control_run_is_the_first_drill_and_the_only_one_without_a_fault() -> None:
    assert [drill.name for drill in DRILLS if drill.is_control] == [DRILLS[0].name] == ["control"]


def test_the_table_stands_between_the_marks_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "operator.md"
    page.write_text(f"before\n{table.BEGIN}\n| `away` | a row of another form |\n{table.END}\nafter\n")
    results = [
        Result(AWAY, KEPT),
        Result(named("crash"), BROKEN),
        Result(named("disk"), skipped="no disk can be mounted here"),
        Result(named("stuck"), failed="RuntimeError"),
    ]
    order = ["away", "crash", "disk", "stuck"]
    table.publish(results[1:], order, "Two a second", "ab12", page)
    table.publish(results[:1], order, "Two a second", "cd34", page)
    written = page.read_text()
    assert (written.startswith(f"before\n{table.BEGIN}\n"), written.endswith(f"{table.END}\nafter\n")) == (True, True)
    assert written.splitlines()[3].endswith(". Two a second.")
    assert written.splitlines()[7:11] == [
        (
            "| `away` | 503 only | 50 (2.0/s) | 7 x 503 | 0 | 0 | 0 | 3 (slowest 5.2 s) | 1 of 1 allowed | 0.0 s | "
            "kept | 8 | cd34 |"
        ),
        (
            "| `crash` | 503 only | 9 (0.0/s) | 1 x 500 | 0 | 0 | 0 | 0 (slowest 0.0 s) | 0 | never | **broken**: "
            "1 x 500; it did not recover | 0 | ab12 |"
        ),
        "| `disk` | 503 only | - | - | - | - | - | - | - | - | skipped: no disk can be mounted here | - | ab12 |",
        "| `stuck` | 503 only | - | - | - | - | - | - | - | - | **failed**: RuntimeError | - | ab12 |",
    ]
    assert [result.is_broken for result in results] == [False, True, False, True]


def test_each_drill_has_a_name_of_its_own_and_the_page_has_the_marks() -> None:
    text = table.PAGE.read_text()
    assert len({drill.name for drill in DRILLS}) == len(DRILLS)
    assert text.index(table.BEGIN) < text.index(table.END)
