"""The admin's first page: what it says of a brand's sign-ins, to whom, and the same as a file."""

import csv
import io
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from brands.models import Brand
from conversations import home
from conversations.home import PERIODS
from conversations.models import CountedAuditLog, HourlyCount
from conversations.statistics import BUCKETS
from tests.admin_pages import AdminBrowser
from tests.cast import client_of_ours

pytestmark = pytest.mark.django_db

NOW: Final = datetime(2030, 1, 10, 12, 30, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
MOST_QUERIES_OF_THE_INDEX: Final = 8
MOST_QUERIES_OF_A_PAGE: Final = 15


@pytest.fixture(autouse=True)
def _clock() -> Any:
    with time_machine.travel(NOW, tick=False):
        CountedAuditLog.objects.create(pk=1, counted_at=NOW)
        yield


@pytest.fixture
def ada(acme_admin: Any) -> AdminBrowser:
    """Return the browser of Acme's admin."""
    return AdminBrowser(acme_admin)


def count(brand: Brand, times: int, measure: str, detail: str, hours_ago: int = 0) -> None:
    hour = NOW.replace(minute=0) - hours_ago * HOUR
    HourlyCount.objects.create(brand=brand, hour=hour, measure=measure, detail=detail, times=times)


def count_steps(brand: Brand, *times: int, hours_ago: int = 0) -> None:
    for step, number in zip(home.STEPS, times, strict=True):
        count(brand, number, "step", step, hours_ago)


def report(browser: AdminBrowser, **query: str) -> Any:
    page = browser.get("/admin/", **query)
    assert page.status_code == 200
    return page.context["home"]["report"]


def table(browser: AdminBrowser, **query: str) -> list[list[str]]:
    answer = browser.get("/admin/home.csv", **query)
    assert answer.status_code == 200
    return list(csv.reader(io.StringIO(answer.content.decode())))


def test_the_funnel_says_how_many_were_lost_at_each_step(acme: Brand, ada: AdminBrowser) -> None:
    count_steps(acme, 100, 80, 60, 59, 0)
    steps = report(ada).steps
    assert [(step.name, step.times, step.lost, step.lost_percent) for step in steps] == [
        ("Link issued", 100, None, None),
        ("Left for the brand", 80, 20, 20),
        ("Came back", 60, 20, 25),
        ("Token issued", 59, 1, 2),
        ("Confirmed", 0, 59, 100),
    ]


def test_who_began_before_the_period_makes_no_loss_negative(acme: Brand, ada: AdminBrowser) -> None:
    count_steps(acme, 0, 1, 2, 2, 2)
    assert [step.lost for step in report(ada).steps] == [None, 0, 0, 0, 0]


@pytest.mark.parametrize(("period", "first_hours_ago"), [("24h", 23), ("7d", 6 * 24 + 12), ("30d", 29 * 24 + 12)])
def test_a_period_has_whole_hours_or_days_and_nothing_before_them(
    acme: Brand, ada: AdminBrowser, period: str, first_hours_ago: int
) -> None:
    for hours_ago, times in ((-1, 1_000), (0, 1), (first_hours_ago, 10), (first_hours_ago + 1, 1_000)):
        count(acme, times, "step", "issued", hours_ago)
    found = report(ada, period=period)
    assert found.steps[0].times == 11
    assert (found.points[0].issued, found.points[-1].issued, len(found.points)) == (10, 1, PERIODS[period].count)


def test_outcomes_and_errors_are_said_in_words_the_most_frequent_first(acme: Brand, ada: AdminBrowser) -> None:
    for times, outcome in ((1, "denied"), (3, "expired"), (2, "failed:too_many_codes"), (1, "cancelled")):
        count(acme, times, "outcome", outcome)
    count(acme, 4, "error", "invalid_client")
    found = report(ada)
    assert [(reason.code, reason.times) for reason in found.outcomes] == [
        ("expired", 3),
        ("failed:too_many_codes", 2),
        ("cancelled", 1),
        ("denied", 1),
    ]
    assert all(reason.cause for reason in (*found.outcomes, *found.errors))
    assert "client id" in found.errors[0].remedy


def test_the_token_endpoints_errors_are_told_from_its_answers(acme: Brand, ada: AdminBrowser) -> None:
    for times, detail in ((97, "answered"), (2, "token_endpoint_timeout"), (1, "invalid_grant")):
        count(acme, times, "token_request", detail)
    found = report(ada)
    assert (found.token_requests, found.token_error_percent) == (100, "3.0")
    assert [reason.code for reason in found.token_errors] == ["token_endpoint_timeout", "invalid_grant"]


@pytest.mark.parametrize(
    ("left", "returned", "warned"), [(5, 0, True), (5, 1, False), (4, 0, False), (0, 0, False), (1_000, 0, True)]
)
def test_a_page_says_that_nobody_comes_back(
    acme: Brand, ada: AdminBrowser, left: int, returned: int, warned: bool
) -> None:
    """A server shows its sign-in first and looks at the redirect URI afterwards: nothing reaches us then."""
    count_steps(acme, left, left, returned, returned, returned)
    assert ("Is the redirect URI registered there" in ada.get("/admin/").content.decode()) is warned


@pytest.mark.parametrize(("answered", "failed", "warned"), [(3, 3, False), (3, 4, True), (0, 4, False), (0, 5, True)])
def test_a_page_says_that_the_token_endpoint_fails(
    acme: Brand, ada: AdminBrowser, answered: int, failed: int, warned: bool
) -> None:
    count_steps(acme, 9, 9, 9, 9, 9)
    for times, detail in ((answered, "answered"), (failed, "server_error")):
        count(acme, times, "token_request", detail)
    assert ("More than half of the requests" in ada.get("/admin/").content.decode()) is warned


@pytest.mark.parametrize(
    ("buckets", "median", "p95"),
    [
        ({}, "", ""),
        ({"500": 1}, "0.5 s", "0.5 s"),
        ({"1000": 10, "1500": 9, "90000": 1}, "1 s", "1.5 s"),
        ({"100": 1, "over": 1}, "0.1 s", "over 1 h"),
        ({"60000": 94, "300000": 6}, "1 min", "5 min"),
        ({"60000": 95, "300000": 5}, "1 min", "1 min"),
        ({"3600000": 3, "20000": 2}, "1 h", "1 h"),
    ],
)
def test_quantiles_are_the_bounds_of_their_buckets(
    acme: Brand, ada: AdminBrowser, buckets: dict[str, int], median: str, p95: str
) -> None:
    count_steps(acme, 1, 1, 1, 1, 1)
    for detail, times in buckets.items():
        count(acme, times, "until_left", detail, hours_ago=times % 3)
    first = report(ada).durations[0]
    assert (first.times, first.median, first.p95) == (sum(buckets.values()), median, p95)


def test_the_file_says_what_the_page_says(acme: Brand, ada: AdminBrowser) -> None:
    count_steps(acme, 10, 8, 8, 8, 8)
    count(acme, 2, "outcome", "expired")
    count(acme, 8, "token_request", "answered")
    count(acme, 8, "until_left", "5000")
    rows = table(ada, period="7d")
    assert rows[0] == ["table", "name", "number", "lost", "lost_percent", "median", "p95"]
    assert ["funnel", "Left for the brand", "8", "2", "20", "", ""] in rows
    assert ["outcomes", "expired", "2", "", "", "", ""] in rows
    assert ["token endpoint requests", "", "8", "", "", "", ""] in rows
    assert ["durations", "Link issued to left for the brand", "8", "", "", "5 s", "5 s"] in rows
    assert ["confirmed by day", "2030-01-10T00:00:00+00:00", "8", "", "", "", ""] in rows
    assert {len(row) for row in rows} == {7}


@pytest.mark.parametrize("planted", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_no_cell_of_the_file_is_a_formula(acme: Brand, ada: AdminBrowser, planted: str) -> None:
    """J14: no code of ours begins like that today; a spreadsheet would run it."""
    count(acme, 1, "error", planted)
    cells = {cell for row in table(ada) for cell in row}
    assert f"'{planted}" in cells
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))] == []


def test_a_page_shows_charts_with_a_text_and_no_script_or_style_of_its_own(acme: Brand, ada: AdminBrowser) -> None:
    """The admin's Content-Security-Policy refuses both."""
    count_steps(acme, 10, 8, 8, 8, 1_234)
    text = ada.get("/admin/").content.decode()
    section = text[text.index('<section class="home"') : text.index("</section>")]
    assert (
        section.count('role="img"') == section.count("<title") == section.count("<desc") == section.count("<svg") == 2
    )
    assert "Link issued: 10, Left for the brand: 8" in section
    assert "1,234" in section
    assert [found for found in ("style=", "<style", "<script", "onclick") if found in section] == []


def test_no_page_or_file_shows_another_brands_numbers(
    acme: Brand, rival: Brand, ada: AdminBrowser, rival_admin: Any
) -> None:
    """J1, J4: a brand of others is as one that does not exist."""
    count_steps(acme, 77_777, 0, 0, 0, 0)
    rita = AdminBrowser(rival_admin)
    for page in ("/admin/", "/admin/home.csv"):
        answers = [rita.get(page, brand=slug) for slug in ("acme", "no-such-brand", "")]
        assert [answer.status_code for answer in answers] == [404] * 3
        assert rita.get(page).status_code == 200
        assert "77,777" not in rita.get(page).content.decode()
        assert "Acme" not in rita.get(page).content.decode()
    assert report(ada).steps[0].times == 77_777


def test_nobody_else_gets_the_page_or_the_file(acme: Brand) -> None:
    """J8."""
    outsider = AdminBrowser(User.objects.create_user("outsider"))
    for page in ("/admin/", "/admin/home.csv"):
        assert client_of_ours().get(page, secure=True)["Location"].startswith("/admin/login/")
        assert outsider.get(page)["Location"].startswith("/admin/login/")
        assert outsider.post(page).status_code == 405


def test_who_has_several_brands_chooses_one(acme: Brand, rival: Brand, operator: AdminBrowser, acme_admin: Any) -> None:
    rival.admins.add(acme_admin)
    count_steps(rival, 5, 5, 5, 5, 5)
    for browser in (operator, AdminBrowser(acme_admin)):
        assert "Choose a brand" in browser.get("/admin/").content.decode()
        assert browser.get("/admin/home.csv").status_code == 404
        assert report(browser, brand="rival").steps[0].times == 5
        assert report(browser, brand="acme").is_empty


def test_an_empty_page_says_what_to_do_first(acme: Brand, ada: AdminBrowser, operator: AdminBrowser) -> None:
    for period, words in (("24h", "No sign-ins in these 24 hours"), ("30d", "No sign-ins yet")):
        text = ada.get("/admin/", period=period).content.decode()
        assert words in text
        assert 'href="/admin/brands/authorizationserver/"' in text
        assert 'class="home-chart"' not in text
    acme.delete()
    assert "Add the first one" in operator.get("/admin/").content.decode()
    assert "Your account administers no brand" in ada.get("/admin/").content.decode()


def test_an_empty_page_tells_a_viewer_whom_to_ask(acme: Brand, acme_admin: User) -> None:
    """J15. The bug: it told a viewer to connect a server, which a viewer cannot do."""
    vera = User.objects.create_user("vera", is_staff=True)
    acme.viewers.add(vera)
    text = AdminBrowser(vera).get("/admin/").content.decode()
    assert f"Ask {acme_admin.username}." in text
    assert "Connect your authorization server" not in text
    acme.admins.clear()
    assert "ask the operator to choose one" in AdminBrowser(vera).get("/admin/").content.decode()


@pytest.mark.parametrize(
    ("counted_at", "words"),
    [
        (None, "Nothing has been counted yet."),
        (NOW - timedelta(minutes=6), "These numbers are of 2030-01-10 12:24 UTC"),
    ],
)
def test_numbers_that_are_old_say_so(acme: Brand, ada: AdminBrowser, counted_at: datetime | None, words: str) -> None:
    """Where no worker runs, the page would otherwise say that nobody signs in."""
    CountedAuditLog.objects.update(counted_at=counted_at)
    assert words in ada.get("/admin/").content.decode()


@pytest.mark.parametrize("period", ["", "1y", "24h\x00", "__class__"])
def test_a_period_that_there_is_not_is_not_found(ada: AdminBrowser, period: str) -> None:
    assert ada.get("/admin/", period=period).status_code in {400, 404}
    assert ada.get("/admin/home.csv", period=period).status_code in {400, 404}


def test_page_and_file_cost_the_same_queries_however_much_happened(
    acme: Brand, ada: AdminBrowser, operator: AdminBrowser
) -> None:
    rows = [
        HourlyCount(brand=acme, hour=NOW.replace(minute=0) - ago * HOUR, measure="until_left", detail=bound, times=3)
        for ago in range(30 * 24)
        for bound in BUCKETS
    ]
    HourlyCount.objects.bulk_create(rows)
    count_steps(acme, 1, 1, 1, 1, 1)
    asked: Counter[str] = Counter()
    for browser in (ada, operator):
        for page in ("/admin/", "/admin/home.csv"):
            with CaptureQueriesContext(connection) as queries:
                assert browser.get(page, brand="acme", period="30d").status_code == 200
            asked[page] = max(asked[page], len(queries))
    assert asked["/admin/"] <= MOST_QUERIES_OF_THE_INDEX
    assert asked["/admin/home.csv"] <= MOST_QUERIES_OF_A_PAGE
