"""The benchmark itself: its figures are right, each of its servers answers, and a wrong answer is counted."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench import calls, cast, goals, load, publishing, report
from bench.chart import chart
from bench.databases import databases
from bench.figures import Round, Series, percentile, ratio, spread
from bench.growth import Progress, sizes_up_to
from bench.peers import processes as peers
from bench.processes import ROOT, python
from bench.product import Installation, Server, serving, serving_wsgi
from bench.rounds import measured
from bench.run import Options, run
from bench.targets import (
    CALLBACKS_PER_SECOND,
    LINKS_PER_SECOND,
    introspection,
    one_query,
    peer_introspection,
    product_targets,
    wrong_answers,
    yardstick,
)
from tests.machine import missing

ROWS = 30
ONE_PROCESS = {"workers": 1, "threads": 4}
# What is sent once must last for the second of a round, on any machine and with the quickest client.
STOCK = {"links": LINKS_PER_SECOND, "callbacks": CALLBACKS_PER_SECOND}
# Git knows this tree without storing it.
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
MOTTO = "CharField(max_length=20, default='of old')"
NEWEST = max(path.stem for path in (ROOT / "brands" / "migrations").glob("[0-9]*.py"))
OTHER_TABLES = f"""
from django.db.migrations import AddField, Migration
from django.db.models import CharField

class Migration(Migration):
    dependencies = [("brands", "{NEWEST}")]
    operations = [AddField("brand", "motto", {MOTTO})]
"""


# What large tables must not differ in, however they were filled.
SAME = (
    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint ORDER BY conname, conrelid",
    "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace ORDER BY 1",
    """SELECT brand_id, external_id, closed_at, c.session, e.kind, e.actor FROM conversations_conversation c
    JOIN infrastructure_auditevent e ON e.conversation_uuid = c.uuid ORDER BY c.id""",
    """SELECT id, conversation_id, authorization_server_id, status, scope, octet_length(link_token_digest),
    octet_length(link_token_ciphertext), expires_at - issued_at FROM conversations_challenge ORDER BY id""",
    """SELECT id, conversation_id, challenge_id, authorization_server_id, octet_length(ciphertext), end_reason,
    expires_at - issued_at FROM conversations_accesstoken ORDER BY id""",
    """SELECT count(DISTINCT c.uuid), count(DISTINCT link_token_digest), count(DISTINCT t.uuid)
    FROM conversations_challenge c LEFT JOIN conversations_accesstoken t ON t.challenge_id = c.id""",
    "SELECT nextval(pg_get_serial_sequence('conversations_challenge', 'id'))",
    "SELECT nextval(pg_get_serial_sequence('conversations_accesstoken', 'id'))",
)


def a_round(answers: int, seconds: float = 1.0, **values: float) -> Round:
    return Round(answers=answers, seconds=seconds, p50_ms=1.0, p99_ms=2.0, **{"errors": 0, **values})  # type: ignore[arg-type]  # numbers


@pytest.mark.parametrize(("share", "expected"), [(50, 50), (99, 99), (100, 100), (1, 1), (0.1, 1)], ids=str)
def test_a_percentile_is_the_value_that_so_many_do_not_exceed(share: float, expected: float) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_nothing_measured_is_zero_and_no_error() -> None:
    assert (percentile([], 99), spread([])) == (0.0, {"count": 0, "p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0})


def test_a_ratio_is_the_median_of_rounds_that_stood_side_by_side() -> None:
    """A slow minute of the machine hits both sides of a pair: the ratio of the medians would be 0.5 here."""
    ours = Series((a_round(500), a_round(50), a_round(400)))
    yardsticks = Series((a_round(1000), a_round(100), a_round(800)))
    assert ratio(ours, yardsticks) == {"ratio": 0.5, "range": [0.5, 0.5]}
    assert ratio(ours, Series((a_round(500), a_round(500), a_round(800))))["ratio"] == 0.5


def test_the_rounds_that_a_busy_machine_has_spoilt_do_not_count() -> None:
    """A quarter at either end is left out; the others are averaged, which varies less than their median."""
    ours = Series(tuple(a_round(answers) for answers in (1, 990, 400, 410, 500, 510, 2, 980)))
    yardsticks = Series((a_round(1000),) * 8)
    assert ratio(ours, yardsticks) == {"ratio": 0.46, "range": [0.4, 0.51]}
    assert ratio(Series(()), Series(())) == {"ratio": 0.0, "range": [0.0, 0.0]}


def test_conversations_of_every_kind_have_rows_of_their_own_and_no_two_are_neighbours() -> None:
    stretch = cast.PERIOD * cast.COPIES
    originals = [number for number in range(1, stretch + 1) if cast.original_of(number, stretch, copied=True) == number]
    copied_from = {cast.original_of(number, stretch, copied=True) for number in range(1, stretch + 1)}
    kinds = {(cast.brand_of(number), number % 4, number % 20) for number in range(1, stretch + 1)}
    assert (len(originals), copied_from) == (cast.PERIOD, set(originals))
    assert {(cast.brand_of(number), number % 4, number % 20) for number in originals} == kinds
    assert min(after - before for before, after in pairwise(originals)) > 1
    assert all(
        cast.brand_of(number) == cast.brand_of(cast.original_of(number, stretch, copied=True))
        for number in range(1, stretch + 1)
    )
    assert cast.original_of(stretch + 1, stretch + 9, copied=True) == stretch + 1


def test_cpu_time_is_counted_for_each_answer_and_errors_over_all_rounds() -> None:
    series = Series((a_round(100, server_cpu_seconds=0.1, errors=1), a_round(300, server_cpu_seconds=0.1, errors=2)))
    summary = series.summary()
    assert (summary["server_cpu_us"], summary["errors"], summary["answers"]) == (500, 3, 400)
    assert (summary["per_second"], summary["per_second_range"]) == (200, [100, 300])


def test_growth_is_measured_in_powers_of_ten() -> None:
    assert [sizes_up_to(rows) for rows in (10_000, 50_000, 1_000_000)] == [
        (10_000,), (10_000, 50_000), (10_000, 100_000, 1_000_000),
    ]  # fmt: skip


def test_a_stopped_growth_goes_on_with_the_step_that_was_not_finished(tmp_path: Path) -> None:
    taken: list[str] = []

    def take(step: str) -> str:
        taken.append(step)
        if taken == ["seeding", "round"]:
            raise KeyboardInterrupt
        return f"{step} done"

    with pytest.raises(KeyboardInterrupt):
        _take_both(tmp_path, take)
    assert _take_both(tmp_path, take) == ["seeding done", "round done"]
    assert _take_both(tmp_path, take) == ["seeding done", "round done"]
    assert taken == ["seeding", "round", "round"]


def _take_both(folder: Path, take: Callable[[str], str]) -> list[str]:
    progress = Progress(folder / "progress.json")
    return [progress.once(step, partial(take, step)) for step in ("seeding", "round")]


def test_a_seeding_that_was_stopped_goes_on_behind_the_last_conversation(tmp_path: Path) -> None:
    with databases("sqlite", tmp_path) as store:
        installation = Installation.new(tmp_path, store.create("stopped"))
        installation.seed("stopped", conversations=10)
        made = installation.seed("stopped", conversations=ROWS)
        assert [store.count("stopped", f"conversations_{table}") for table in ("conversation", "accesstoken")] == [
            ROWS
        ] * 2
        with serving(installation, **ONE_PROCESS) as server:
            of_both = [
                (calls.token_read(made, number), cast.access_token(number).encode()) for number in (1, 10, 11, ROWS)
            ]
            assert wrong_answers(server.port, of_both) == 0


def test_copied_rows_are_as_those_that_the_product_has_written(tmp_path: Path) -> None:
    """Same indexes and constraints, same numbers of rows of each kind, sizes and references; originals can be read."""
    many = cast.PERIOD * cast.COPIES + ROWS
    with databases("postgresql", tmp_path) as store:
        Installation.new(tmp_path, store.create("tables")).make_tables()
        installations = [Installation.new(tmp_path, store.create(name, like="tables")) for name in ("each", "copied")]
        shares = {"conversations": many, "share_ended": 4, "share_old": 20}
        installations[0].seed("each", **shares)
        made = installations[1].seed("copied", **shares, copied=True)
        each, copied = ([store.execute(name, question) for question in SAME] for name in ("each", "copied"))
        assert copied == each
        assert [len(rows) > 0 for rows in each] == [True] * len(SAME)
        with serving(installations[1], **ONE_PROCESS) as server:
            sample = [(calls.token_read(made, number), cast.access_token(number).encode()) for number in readable(made)]
            assert wrong_answers(server.port, sample) == 0


def readable(made: dict[str, Any]) -> list[int]:
    """All originals and the conversations after the last whole stretch, without those that have ended."""
    many = made["conversations"]
    originals = {cast.original_of(number, many, copied=True) for number in range(1, many + 1)}
    return [number for number in sorted(originals) if cast.has_live_token(number, made["share_ended"])]


def test_a_goal_is_met_missed_or_was_not_measured() -> None:
    targets = {"token_read": {"cpu_of_yardstick": {"ratio": 0.65, "range": [0.5, 0.7]}}}
    rows = goals.rows({"targets": targets, "boot": {"cpu_seconds": [3.0], "unique_mib": [19.0]}})
    verdicts = {operation: verdict for operation, _, _, _, verdict in rows}
    assert verdicts["`GET .../token`"] == "above the floor"
    assert verdicts["boot of a worker, CPU"] == "missed"
    assert verdicts["a worker's own memory (USS, having worked)"] == "met"
    assert verdicts["`POST .../challenges`, committed"] == "not measured"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def product(folder: Path) -> Iterator[tuple[Server, dict[str, Any], Any]]:
    with databases("sqlite", folder) as store, peers.brand(folder) as brand:
        installation = Installation.new(folder, store.create("product"), brand.ca_file)
        made = installation.seed("product", conversations=ROWS, issuer=brand.issuer, **STOCK)
        with serving(installation, **ONE_PROCESS) as server:
            yield server, made, store


def test_each_call_of_the_product_is_answered_and_counted(product: tuple[Server, dict[str, Any], Any]) -> None:
    """Those that write are proved by rows, the others by what their answers hold."""
    server, made, store = product
    for target in product_targets(server, made):
        done = measured(target, 1, store, "product")
        assert (target.name, done.errors, done.answers > 0) == (target.name, 0, True)


def test_an_answer_with_another_conversations_token_is_an_error(product: tuple[Server, dict[str, Any], Any]) -> None:
    server, made, _ = product
    wrong = [(calls.token_read(made, 1), cast.access_token(2).encode())]
    assert wrong_answers(server.port, wrong) == 1
    assert wrong_answers(server.port, [(calls.token_read(made, 1), cast.access_token(1).encode())]) == 0


@pytest.mark.parametrize("client", ["wrk", "our own"])
def test_refusals_and_prepared_requests_that_ran_out_are_errors(
    product: tuple[Server, dict[str, Any], Any], client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, made, _ = product
    if client == "wrk" and not load.wrk():
        missing("wrk is not installed: the benchmark's use of it was not tested")
    if client == "our own":
        monkeypatch.setattr(load, "wrk", lambda: None)
    stranger = calls.proxied("GET", "/api/v1/conversations/x/token", Authorization="Bearer nobody")
    refused = load.closed_loop(server.port, [stranger], seconds=1, connections=1, again=True)
    ran_out = load.closed_loop(server.port, calls.token_reads(made)(2), seconds=1, connections=1, again=False)
    answered = load.closed_loop(server.port, calls.token_reads(made)(2), seconds=1, connections=1, again=True)
    assert (refused.errors > 0, ran_out.errors > 0, answered.errors, answered.answers > 0) == (True, True, 0, True)


def test_the_yardstick_answers(folder: Path) -> None:
    with serving_wsgi("bench.yardstick:application", folder, {}, **ONE_PROCESS) as server:
        assert wrong_answers(server.port, (yardstick(server).sample or list)()) == 0


def test_the_yardstick_that_asks_a_database_answers(folder: Path) -> None:
    with databases("sqlite", folder) as store:
        environment = {"DATABASE_URL": store.create("one_query")}
        with serving_wsgi("bench.one_query:application", folder, environment, **ONE_PROCESS) as server:
            assert wrong_answers(server.port, (one_query(server).sample or list)()) == 0


def test_django_oauth_toolkit_introspects(folder: Path) -> None:
    if not find_spec("oauth2_provider"):
        missing("django-oauth-toolkit is not installed: it was not tested as a peer of the benchmark")
    environment = {"DATABASE_URL": f"sqlite:///{folder / 'toolkit.sqlite3'}"}
    python("bench.introspection_seeding", str(ROWS), environment=environment)
    with serving_wsgi("bench.introspection:application", folder, environment, **ONE_PROCESS) as server:
        assert wrong_answers(server.port, (introspection(server, ROWS).sample or list)()) == 0


def test_oidc_provider_introspects(folder: Path) -> None:
    if reason := peers.missing():
        missing(f"{reason}: oidc-provider was not tested as a peer of the benchmark")
    with databases("postgresql", folder) as store:
        store.create("peer")
        with peers.oidc_provider(folder, store.socket_folder, "peer", ROWS) as server:
            target = peer_introspection(server, ROWS, peers.BASIC)
            assert wrong_answers(server.port, (target.sample or list)()) == 0
            assert store.cpu_seconds() > 0


def test_a_run_ends_in_text_chart_and_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.run.PROFILED_REQUESTS", 9)
    options = Options(database="sqlite", conversations=ROWS, rounds=1, seconds=1, only=("token_read", "profile"))
    done = run(options, tmp_path, lambda _: None)
    document = tmp_path / "measured" / "performance.md"
    document.parent.mkdir()
    for file in (document, tmp_path / "performance.md"):
        file.write_text(f"before\n{publishing.BEGIN}\nold\n{publishing.END}\nafter\n")
    publishing.publish([done], tmp_path)
    published = document.read_text()
    assert report.errors_in(done) == 0
    assert "GET .../token" in report.as_text(done)
    assert set(done["profile"]["token_read"]) >= {"total", "the product", "database: driver and waiting"}
    assert "GET .../token" in chart(done)
    assert (published[:7], published[-6:], "old" in published) == ("before\n", "after\n", False)
    assert json.loads(document.with_suffix(".json").read_text()) == [done]


def test_a_build_with_other_tables_is_measured_on_a_database_that_its_own_code_seeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build before has another column, without which no brand can be inserted, and no operations of APIs."""
    repository = tmp_path / "repository"
    commit_other_tables(repository)
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    only = ("token_read", "call", "create")
    options = Options(database="sqlite", conversations=ROWS, rounds=1, seconds=1, only=only, beside="HEAD")
    done = run(options, tmp_path, lambda _: None)
    assert (report.errors_in(done), set(done["beside"])) == (0, {"token_read", "create"})
    assert done["skipped"] == {"call_before": "HEAD does not answer it"}
    assert "POST .../challenges, HEAD" in report.as_text(done)
    with closing(sqlite3.connect(tmp_path / "product_before.sqlite3")) as connection:
        assert connection.execute("SELECT DISTINCT motto FROM brands_brand").fetchall() == [("of old",)]


def commit_other_tables(repository: Path) -> None:
    """Clone this product, and commit a change of its tables there."""
    if not (ROOT / ".git").exists():
        missing("this is no git repository: the benchmark of two builds was not tested")
    git("clone", "--quiet", "--depth", "1", ROOT.as_uri(), str(repository))
    with (repository / "brands" / "models" / "__init__.py").open("a") as models:
        models.write(f"from django.db.models import CharField\n\nBrand.add_to_class('motto', {MOTTO})\n")
    (repository / "brands" / "migrations" / f"{NEWEST}_and_a_motto.py").write_text(OTHER_TABLES)
    with (repository / "bench" / "cast.py").open("a") as constants:
        constants.write("OPERATIONS = {}\n")
    inside = ("-C", str(repository), "-c", "user.name=Ada", "-c", "user.email=ada@acme.example")
    git(*inside, "add", "--all")
    git(*inside, "commit", "--quiet", "--message", "Give brands a motto")


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True)


@pytest.mark.parametrize("name", ["performance.md", "measured/performance.md"])
def test_the_document_has_the_marks_that_the_command_writes_between(name: str) -> None:
    text = (publishing.DOCS / name).read_text()
    assert text.index(publishing.BEGIN) < text.index(publishing.END)


def test_the_documents_hold_what_is_made_of_the_figures(tmp_path: Path) -> None:
    for name in ("performance.md", "measured/performance.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((publishing.DOCS / name).read_text())
    figures = json.loads((publishing.DOCS / "measured" / "performance.json").read_text())
    publishing.publish(figures, tmp_path)
    for name in ("performance.md", "measured/performance.md", "measured/performance.json"):
        assert (tmp_path / name).read_text() == (publishing.DOCS / name).read_text()


def test_the_command_says_what_it_can_do() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "bench", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (result.returncode, "--publish" in result.stdout) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--beside", "no-such-branch"], "no such commit"),
        (["--beside", EMPTY_TREE], "no bench/seeding.py"),
        (["growth", "--beside", "HEAD"], "not for growth"),
    ],
)
def test_a_build_that_cannot_be_measured_is_refused_before_anything_is_seeded(
    arguments: list[str], reason: str
) -> None:
    command = [sys.executable, "-m", "bench", *arguments, "--only", "boot", "--database", "sqlite", "--rows", "9"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, reason in result.stderr, "seeding 9" in result.stderr) == (2, True, False)
