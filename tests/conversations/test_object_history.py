"""The history page of a row: who changed which field, in names; and what the flow did to it."""

import html
import re
from typing import Any

import pytest
from django.db import connection
from django.db.models import Model
from django.test.utils import CaptureQueriesContext

from brands.audited_changes import names_of, save_audited
from brands.models import AuthorizationServer, BotKey, Brand, WebhookEndpoint
from conversations.models import AccessToken, AuditEvent, Challenge, Conversation
from conversations.object_history import MOST_EVENTS
from tests.admin_pages import AdminBrowser, House, address

pytestmark = pytest.mark.django_db

Houses = tuple[House, House]
WITH_A_HISTORY = [Brand, AuthorizationServer, BotKey, WebhookEndpoint, Conversation, Challenge, AccessToken]


def history(admin: AdminBrowser, row: Model) -> list[str]:
    """Return the rows of the table of the audit log, the newest first."""
    page = html.unescape(admin.get(address(type(row), "history", row)).content.decode())
    table = page.partition('class="history-table"')[2].partition("</table>")[0].partition("<tbody>")[2]
    return [" ".join(re.sub(r"<[^>]+>", " ", line).split()) for line in table.split("<tr>")[1:]]


def test_a_change_names_the_admin_the_field_and_of_listed_fields_both_values(houses: Houses) -> None:
    """J13. The bug: "Changed Scope." and no more; and in the audit log `admin:7`."""
    acme, _ = houses
    url = address(AuthorizationServer, "change", acme.server)
    old = AuthorizationServer.objects.get(pk=acme.server.pk).scope
    answer = acme.admin.send_changed(url, scope=f"{old} orders.read", client_id="another", accept_zero_expires_in="on")
    assert answer.status_code == 302
    newest = history(acme.admin, acme.server)[0]
    assert f" {acme.admin.user.username} Changed " in newest
    assert "Client ID" in newest
    assert "another" not in newest
    assert f"Scope: {old} → {old} orders.read" in newest
    assert ": off → on" in newest


def test_a_new_secret_is_named_as_the_form_names_it(houses: Houses) -> None:
    """The bug: "Client secret ciphertext"."""
    acme, _ = houses
    url = address(AuthorizationServer, "change", acme.server)
    assert acme.admin.send_changed(url, client_secret="another").status_code == 302
    line = history(acme.admin, acme.server)[0]
    assert line.endswith("Secret changed Client secret")


def test_a_moved_address_is_shown_with_its_hosts_alone(houses: Houses) -> None:
    """J13: its path or query may hold a secret."""
    acme, _ = houses
    server = AuthorizationServer.objects.get(pk=acme.server.pk)
    server.revocation_endpoint = "https://login.acme.example/planted?key=planted"
    save_audited(server)
    lines = history(acme.admin, server)
    assert any(
        "the operator Host changed Address to end tokens (revocation endpoint): empty → login.acme.example" in line
        for line in lines
    )
    assert "planted?" not in acme.admin.get(address(AuthorizationServer, "history", server)).content.decode()


@pytest.mark.parametrize("model", WITH_A_HISTORY)
def test_each_kind_of_row_has_its_events_and_no_other_brands(houses: Houses, model: type[Any]) -> None:
    """J1, J13: also of what only the flow changes."""
    acme, rival = houses
    save_audited(acme.row(BotKey))
    for row in (acme.row(model), rival.row(model)):
        if model in {Brand, AuthorizationServer}:
            row.is_active = False
            save_audited(row)
    lines = history(acme.admin, acme.row(model))
    assert lines
    assert [mark for mark in rival.marks if mark in str(lines)] == []
    assert history(rival.admin, acme.row(model)) == []


def test_the_history_is_bounded_in_length_and_queries(houses: Houses) -> None:
    acme, _ = houses
    actors = [f"admin:{number}" for number in range(10_000, 10_250)]
    AuditEvent.objects.bulk_create(
        AuditEvent(kind="brand.changed", actor=actor, brand_uuid=acme.brand.uuid, object_uuid=acme.brand.uuid)
        for actor in actors
    )
    with CaptureQueriesContext(connection) as queries:
        lines = history(acme.admin, acme.brand)
    assert (len(lines), len(queries) <= 15) == (MOST_EVENTS, True)


def test_actors_that_are_gone_keep_their_number(acme_admin: Any) -> None:
    assert names_of({"admin:999999", f"admin:{acme_admin.pk}", "bot:0000", "system", "admin:x"}) == {
        "admin:999999": "a deleted account (admin:999999)",
        f"admin:{acme_admin.pk}": acme_admin.username,
        "bot:0000": "bot:0000",
        "system": "this product",
        "admin:x": "admin:x",
    }


def test_the_list_of_the_log_names_actors_and_conversations(houses: Houses) -> None:
    """J13, with the queries of a page and not of each line."""
    acme, rival = houses
    with CaptureQueriesContext(connection) as queries:
        page = html.unescape(acme.admin.get(address(AuditEvent, "changelist")).content.decode())
    assert "the bot key acme-key" in page
    assert f">{acme.bot.chat}</a>" in page
    assert [mark for mark in rival.marks if mark in page] == []
    assert len(queries) <= 15
