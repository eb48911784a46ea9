"""The audit log: append-only in the database itself, and each row a line on standard output.

These tests do not take the triggers away; that is done around the flush of transactional tests alone (conftest.py).
"""

import io
import json
import logging
import logging.config
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.flow.events import ConversationEvent
from conversations.models import Challenge
from infrastructure import audit
from infrastructure.audit import record_event
from infrastructure.logs import JSON_LOGGING
from infrastructure.models import AuditEvent
from tests import databases
from tests.cast import Bot, Browser, code_on
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

REFUSED = """
[brand]
slug = "acme"
name = "Acme"

[[authorization_servers]]
key = "orders"
authorization_endpoint = "https://login.acme.example/authorize"
token_endpoint = "https://login.acme.example/token"
client_id = "consumer-delegation"
scope = "orders"
required_scope = "billing"
"""
ON_BOTH = [
    "UPDATE infrastructure_auditevent SET outcome = 'another'",
    "UPDATE infrastructure_auditevent SET at = at WHERE id = (SELECT max(id) FROM infrastructure_auditevent)",
    "DELETE FROM infrastructure_auditevent",
]
ONLY_ON = {
    databases.SQLITE: [
        "INSERT OR REPLACE INTO infrastructure_auditevent SELECT * FROM infrastructure_auditevent",
        "REPLACE INTO infrastructure_auditevent SELECT * FROM infrastructure_auditevent",
    ],
    databases.POSTGRESQL: [
        "TRUNCATE infrastructure_auditevent",
        "TRUNCATE infrastructure_auditevent RESTART IDENTITY CASCADE",
        """INSERT INTO infrastructure_auditevent SELECT * FROM infrastructure_auditevent
            ON CONFLICT (id, at) DO UPDATE SET outcome = 'another'""",
    ],
}


def event() -> AuditEvent:
    record_event(ConversationEvent.CONVERSATION_CLOSED, brand_uuid=uuid4(), actor="system", outcome="first")
    return AuditEvent.objects.get()


@pytest.mark.parametrize("statement", ON_BOTH + ONLY_ON[databases.chosen()])
def test_the_database_refuses_to_change_a_row(statement: str) -> None:
    """Part 5: whoever speaks SQL as the application, injected or with its stolen password."""
    event()
    before = list(AuditEvent.objects.values())
    with pytest.raises(IntegrityError, match="the audit log is append-only"), transaction.atomic():
        connection.cursor().execute(statement)
    assert list(AuditEvent.objects.values()) == before


def test_the_orm_is_refused_as_well() -> None:
    """Part 5: honest mistakes in our own code."""
    row = event()
    for change in (
        lambda: AuditEvent.objects.update(outcome="another"),
        lambda: AuditEvent.objects.all().delete(),
        row.delete,
        row.save,
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            change()
    assert AuditEvent.objects.get().outcome == "first"


def test_rows_are_added_as_before() -> None:
    """Part 5: append-only is not read-only."""
    event()
    record_event(ConversationEvent.CONVERSATION_CLOSED, brand_uuid=uuid4(), actor="system")
    assert AuditEvent.objects.count() == 2


def test_the_way_back_of_the_migration_and_forth_again() -> None:
    """Part 5: what the tests' fixture does around a flush leaves the table guarded."""
    event()
    audit.remove(connection)
    AuditEvent.objects.update(outcome="another")
    audit.install(connection)
    with pytest.raises(DatabaseError), transaction.atomic():
        AuditEvent.objects.update(outcome="third")
    assert AuditEvent.objects.get().outcome == "another"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("time", [1, 2])
def test_a_transactional_test_is_guarded_too_and_leaves_nothing_behind(time: int) -> None:
    """Part 5: the second of two finds the flush done and the triggers back."""
    assert AuditEvent.objects.count() == 0
    event()
    with pytest.raises(IntegrityError):
        AuditEvent.objects.all().delete()


def test_prune_touches_no_audit_row(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    """Part 5: also when everything that the rows tell of is gone."""
    acme_bot.challenge()
    acme_bot.in_chat("DELETE")
    before = list(AuditEvent.objects.values())
    with time_machine.travel(timezone.now() + timedelta(days=365)):
        call_command("prune", stdout=io.StringIO())
    assert Challenge.objects.count() == 0
    assert len(before) > 2
    assert list(AuditEvent.objects.values()) == before


@pytest.fixture
def standard_output() -> Iterator[io.StringIO]:
    """Return what the product's own handler and formatter write for the audit logger."""
    handler = logging.StreamHandler(written := io.StringIO())
    description = JSON_LOGGING
    configurator = logging.config.DictConfigurator({"version": 1})
    handler.setFormatter(configurator.configure_formatter(dict(description["formatters"]["json"])))
    handler.addFilter(configurator.configure_filter(dict(description["filters"]["request_id"])))
    logger = logging.getLogger("consumer_delegation.audit")
    logger.addHandler(handler)
    yield written
    logger.removeHandler(handler)


def as_line(row: Mapping[str, Any]) -> dict[str, str]:
    left_out = {"id", "at", "kind", "request_id"}
    return {name: str(value) for name, value in row.items() if name not in left_out and value}


@pytest.mark.django_db(transaction=True)
def test_each_row_has_its_line(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, standard_output: io.StringIO
) -> None:
    """Part 5, ASVS 16.4.3: the same event as one JSON object a line, for a collector elsewhere."""
    AuditEvent.objects.count()
    bot_key_made_before = set(AuditEvent.objects.values_list("uuid", flat=True))
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    acme_bot.in_chat("DELETE", "/token")
    acme_bot.in_chat("DELETE")
    lines = {UUID(line["uuid"]): line for line in map(json.loads, standard_output.getvalue().splitlines())}
    rows = [row for row in AuditEvent.objects.values() if row["uuid"] not in bot_key_made_before]
    assert {row["kind"] for row in rows} >= {"challenge.changed", "token.issued", "token.ended", "conversation.closed"}
    assert set(lines) == {row["uuid"] for row in rows}
    for row in rows:
        line = lines[row["uuid"]]
        assert line["message"] == row["kind"]
        assert line["request_id"] == row["request_id"]
        assert {name: line[name] for name in as_line(row)} == as_line(row)


@pytest.mark.django_db(transaction=True)
def test_what_was_rolled_back_has_no_line(standard_output: io.StringIO, tmp_path: Path) -> None:
    """The bug: a configuration file that was refused left `brand.created` in the collector, and no row."""
    file = tmp_path / "acme.toml"
    file.write_text(REFUSED)
    with pytest.raises(CommandError):
        call_command("apply_config", str(file))
    assert (AuditEvent.objects.count(), standard_output.getvalue()) == (0, "")
