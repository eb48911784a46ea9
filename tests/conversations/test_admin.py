"""What a brand's admin sees of conversations: states and times; and what ending a token does."""

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.templatetags.admin_list import result_headers
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from brands import scoped_admin
from brands.models import AuthorizationServer
from conversations.models import AccessToken, AuditEvent, Challenge, Conversation, WebhookDelivery
from tests.admin_pages import OURS, AdminBrowser, House, address, rows_of
from tests.cast import Browser, code_on
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

Houses = tuple[House, House]
READ_ONLY = [Conversation, Challenge, AccessToken, AuditEvent, WebhookDelivery]


def every_page(house: House) -> list[str]:
    """Return every address at which the admin shows something of a house."""
    rows = [(model, row) for model in OURS for row in rows_of(model, house.brand)]
    of_rows = [address(model, page, row) for model, row in rows for page in ("change", "history")]
    return ["/admin/", *(address(model, "changelist") for model in OURS), *of_rows]


def test_no_page_shows_a_token_a_subject_a_code_or_what_they_are_stored_as(
    houses: Houses, operator: AdminBrowser
) -> None:
    """J9, H7, K5: planted values, looked for on every page and in every history."""
    acme, _ = houses
    edited = acme.admin.send_changed(address(AuthorizationServer, "change", acme.server), client_secret="planted-again")
    assert edited.status_code == 302
    planted = acme.secrets | {"client secret, typed": "planted-again"}
    pages = every_page(acme)
    assert len(pages) > 20
    for browser in (acme.admin, operator):
        texts = {page: html.unescape(browser.get(page).content.decode()) for page in pages}
        found = [(page, name) for page, text in texts.items() for name, value in planted.items() if value in text]
        assert found == []
    messages = "".join(LogEntry.objects.values_list("change_message", flat=True))
    assert [name for name, value in planted.items() if value in messages] == []


@pytest.mark.parametrize("model", READ_ONLY)
def test_what_happened_is_read_and_not_written(houses: Houses, operator: AdminBrowser, model: type[Any]) -> None:
    """J9: by nobody, whatever is sent."""
    row = houses[0].row(model)
    before = model.objects.filter(pk=row.pk).values().get()
    for browser in (houses[0].admin, operator):
        assert browser.get(address(model, "change", row)).context["adminform"].form.fields == {}
        assert browser.post(address(model, "change", row), {"external_id": "x", "status": "issued"}).status_code == 403
        assert browser.post(address(model, "add"), {}).status_code == 403
    assert model.objects.filter(pk=row.pk).values().get() == before


def test_ending_a_token_counts_from_the_bots_next_read(houses: Houses) -> None:
    """K6: rechallenge_required with the reason revoked; the ciphertext is gone, and the audit says who."""
    acme, rival = houses
    mine, theirs = acme.row(AccessToken), rival.row(AccessToken)
    assert acme.bot.token()[0] == 200
    page = acme.admin.run(AccessToken, "revoke_tokens", mine, theirs)
    assert [str(message) for message in page.context["messages"]] == ["1 token ended."]
    status, problem = acme.bot.token()
    assert (status, problem["code"], problem["reason"]) == (409, "rechallenge_required", "revoked")
    mine.refresh_from_db()
    assert (mine.ciphertext, mine.end_reason) == (None, "revoked")
    event = AuditEvent.objects.get(kind="token.ended")
    assert (event.outcome, event.actor) == ("revoked", f"admin:{acme.admin.user.pk}")
    assert rival.bot.token()[0] == 200


def test_ending_a_token_twice_says_that_nothing_was_left_to_end(houses: Houses) -> None:
    acme, _ = houses
    token = acme.row(AccessToken)
    for said in ("1 token ended.", "0 tokens ended."):
        page = acme.admin.run(AccessToken, "revoke_tokens", token)
        assert [str(message) for message in page.context["messages"]] == [said]
    assert AuditEvent.objects.filter(kind="token.ended").count() == 1


def test_ending_a_token_that_waits_for_its_code_ends_its_challenge(
    houses: Houses, logins: dict[str, FakeAuthorizationServer]
) -> None:
    acme, _ = houses
    acme.bot.chat = "another-chat"
    login = logins["acme"]
    challenge = acme.bot.challenge()
    Browser().sign_in(challenge["url"], login)
    pending = AccessToken.objects.get(confirmed_at=None)
    acme.admin.run(AccessToken, "revoke_tokens", pending)
    assert acme.bot.read_challenge(challenge)["status"] == "withdrawn"
    assert acme.bot.status() == ("unchallenged", None)
    pending.refresh_from_db()
    assert (pending.ciphertext, pending.end_reason) == (None, "revoked")


def test_states_are_shown_as_they_are_now(houses: Houses) -> None:
    """The clock counts, whatever the sweep has done yet."""
    acme, _ = houses
    token, challenge = acme.row(AccessToken), acme.row(Challenge)
    AccessToken.objects.filter(pk=token.pk).update(expires_at=token.issued_at)
    Challenge.objects.filter(pk=challenge.pk).update(status="issued", expires_at=challenge.issued_at)
    for model, row in ((AccessToken, token), (Challenge, challenge)):
        for page in (address(model, "changelist"), address(model, "change", row)):
            assert ">expired<" in acme.admin.get(page).content.decode()


SEARCHED = [Conversation, Challenge, AccessToken, WebhookDelivery]


def found(browser: AdminBrowser, model: type[Any], term: str) -> int:
    page = browser.get(address(model, "changelist"), q=term)
    assert page.status_code == 200
    return int(page.context["cl"].result_count)


@pytest.mark.parametrize("model", SEARCHED)
def test_rows_are_found_by_the_beginning_of_a_chats_id(
    houses: Houses, operator: AdminBrowser, model: type[Any]
) -> None:
    """The bug: only the whole id was found, and nobody types the whole id of a chat."""
    acme, rival = houses
    of_acme = len(rows_of(model, acme.brand))
    chat = acme.bot.chat
    Conversation.objects.create(brand=acme.brand, external_id="chat%of_anybody")
    for term in (chat, chat[:-1], f" {chat} "):
        assert [found(browser, model, term) for browser in (acme.admin, rival.admin, operator)] == [of_acme, 0, of_acme]
    for term in (chat[1:], chat.upper(), "chat_of", "chat%a", "%", "_", "\\", "'", chat + "x", "\U0010ffff"):
        assert found(operator, model, term) == 0, term
    assert found(operator, model, "chat-of-") == of_acme + len(rows_of(model, rival.brand))


def test_the_beginning_of_an_id_is_a_range_of_the_index(houses: Houses) -> None:
    """The brand alone would find the index, and then read all chats of the brand."""
    brand = houses[0].brand
    Conversation.objects.bulk_create(Conversation(brand=brand, external_id=f"other-{number}") for number in range(2000))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE conversations_conversation")  # of three rows PostgreSQL would read all
    beginning = scoped_admin.begins_with("external_id", "chat-of-")
    chats = Conversation.objects.filter(beginning, brand__in=[house.brand.pk for house in houses])
    plan = chats.order_by().explain()
    assert "one_session_per_number" in plan
    assert "external_id>?" in plan or "~>=~" in plan


@pytest.mark.parametrize("model", SEARCHED)
def test_a_row_is_found_by_its_uuid(houses: Houses, model: type[Any]) -> None:
    """J1: a brand's own rows alone; and a chat whose id is a UUID is found by that."""
    acme, rival = houses
    row = acme.row(model)
    for uuid in (str(row.uuid), row.uuid.hex, str(row.uuid).upper()):
        assert [found(house.admin, model, uuid) for house in (acme, rival)] == [1, 0]
    Conversation.objects.filter(brand=acme.brand).update(external_id="0b4e7c1e-55d5-4c3a-9f0e-0d3c1f8a7b6d")
    assert found(acme.admin, model, "0b4e7c1e-55d5-4c3a-9f0e-0d3c1f8a7b6d") == len(rows_of(model, acme.brand))


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_each_cell_of_a_list_names_its_column(houses: Houses, model: type[Any]) -> None:
    """A phone shows no table but a card for each row: a time without the name of its column says nothing."""
    page = houses[0].admin.get(address(model, "changelist"))
    texts = [str(header["text"]) for header in _headers(page)]
    labels = re.findall(r'<t[dh] data-label="([^"]+)"', page.content.decode())
    assert set(labels) == {text[:1].upper() + text[1:] for text in texts}


def _headers(page: Any) -> list[dict[str, Any]]:
    return [header for header in result_headers(page.context["cl"]) if "checkbox" not in str(header["class_attrib"])]


def test_a_challenges_status_and_error_come_right_after_its_chat(houses: Houses) -> None:
    """The bug: the error stood in the last column, which was cut off at 1280 pixels."""
    text = houses[0].admin.get(address(Challenge, "changelist")).content.decode()
    assert re.findall(r'<t[dh] data-label="([^"]+)"', text)[:3] == ["Conversation", "Status", "Last error"]


def test_lists_cost_the_same_however_long_they_are(houses: Houses, logins: dict[str, FakeAuthorizationServer]) -> None:
    acme, _ = houses
    before = {model: queries_of(acme, model) for model in OURS}
    for number in range(5):
        acme.bot.chat = f"chat-{number}"
        acme.bot.complete(code_on(Browser().sign_in(acme.bot.challenge()["url"], logins["acme"])))
    assert {model: queries_of(acme, model) for model in OURS} == before


def queries_of(house: House, model: type[Any]) -> int:
    return queries_at(house.admin, address(model, "changelist"))


def test_a_list_counts_and_pages_no_further_than_its_bound(houses: Houses, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a million rows the count of all and the last page took seconds."""
    acme, _ = houses
    Conversation.objects.bulk_create(Conversation(brand=acme.brand, external_id=f"web:{n}") for n in range(5))
    monkeypatch.setattr(scoped_admin, "MOST_LISTED", 3)
    with CaptureQueriesContext(connection) as queries:
        page = acme.admin.get(address(Conversation, "changelist"))
    counts = [query["sql"] for query in queries if "COUNT(*)" in query["sql"]]
    assert (page.context["cl"].result_count, page.context["cl"].full_result_count) == (3, None)
    assert [sql.count("LIMIT 3") for sql in counts] == [1]


MOST_QUERIES_OF_THE_INDEX = 8
MOST_QUERIES_OF_A_PAGE = 15


def test_no_page_of_the_admin_asks_the_database_more_often_than_it_has_to(
    houses: Houses, operator: AdminBrowser
) -> None:
    """The bug: 58 queries for the first page, 54 of them whether this admin administers a brand."""
    acme, _ = houses
    first = acme.brand
    pages = [
        *(address(model, "changelist") for model in OURS),
        *(address(model, "change", rows_of(model, first)[0]) for model in OURS),
        *(address(model, "add") for model in OURS),
    ]
    for browser in (acme.admin, operator):
        assert queries_at(browser, "/admin/") <= MOST_QUERIES_OF_THE_INDEX
        asked = {page: queries_at(browser, page) for page in pages}
        assert {page: queries for page, queries in asked.items() if queries > MOST_QUERIES_OF_A_PAGE} == {}


def queries_at(browser: AdminBrowser, page: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        browser.get(page)
    return len(queries)


@pytest.mark.parametrize(
    ("model", "moment"),
    [(Conversation, "created_at"), (Challenge, "issued_at"), (AccessToken, "issued_at")],
)
def test_lists_are_cut_to_the_last_hour_day_week_or_month(houses: Houses, model: type[Any], moment: str) -> None:
    """J4: of the admin's own brands; a span that does not exist shows all."""
    acme, rival = houses
    row, spans = acme.row(model), ("hour", "day", "week", "month", "nonsense", "")
    shown = {}
    for days in (0, 0.5, 20, 40, 3):
        model.objects.filter(pk=row.pk).update(**{moment: timezone.now() - timedelta(days=days)})
        listed = {span: listed_to(acme, model, within=span) for span in spans}
        assert {pk for found in listed.values() for pk in found} <= {row.pk}
        shown[days] = [span for span, found in listed.items() if found]
    pages = {span: acme.admin.get(address(model, "changelist"), within=span) for span in spans}
    assert [span for span, page in pages.items() if page.context["cl"].result_count] == shown[3]
    assert [mark for page in pages.values() for mark in rival.marks if mark in page.content.decode()] == []
    always = ["nonsense", ""]
    assert shown == {
        0: ["hour", "day", "week", "month", *always],
        0.5: ["day", "week", "month", *always],
        3: ["week", "month", *always],
        20: ["month", *always],
        40: always,
    }


def listed_to(house: House, model: type[Any], **query: str) -> list[Any]:
    """The keys of the rows that a list shows the house's admin. Asks Django's list and renders no page."""
    request = RequestFactory().get(address(model, "changelist"), query)
    request.user = house.admin.user
    return [row.pk for row in admin.site._registry[model].get_changelist_instance(request).result_list]


def test_the_log_is_cut_to_a_kind_and_a_span(houses: Houses) -> None:
    """The bug: the page offered to filter by kind, and answered 400 to whoever did."""
    acme, _ = houses
    page = acme.admin.get(address(AuditEvent, "changelist"), kind="token.issued", within="hour")
    assert (page.status_code, [event.kind for event in page.context["cl"].result_list]) == (200, ["token.issued"])
    assert acme.admin.get(address(AuditEvent, "changelist"), kind="no.such").context["cl"].result_count == 0
