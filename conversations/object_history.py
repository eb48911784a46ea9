"""The audit log for readers: names instead of numbers, and the events about one row for its history page."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import capfirst

from brands.audited_changes import names_of
from brands.models import AuthorizationServer, BotKey, Brand, BrandAPI, Operation, WebhookEndpoint
from brands.scoped_admin import ReadOnlyAdmin
from conversations.models import AccessToken, AuditEvent, Challenge, Conversation

MOST_EVENTS: Final = 200


@dataclass(frozen=True)
class Line:
    """One event of a row's history. `fields` are as the form calls them, with old and new value where both are kept."""

    at: datetime
    by: str
    what: str
    fields: list[str]
    url: str


def history_of(row: Model) -> list[Line]:
    """Return the newest events about a row; empty for a row that the audit log does not name. Three queries at most."""
    lookup = _lookup(row)
    if lookup is None:
        return []
    events = list(AuditEvent.objects.filter(**lookup)[:MOST_EVENTS])
    names = names_of(event.actor for event in events)
    return [_line(event, row, names) for event in events]


def _lookup(row: Model) -> dict[str, Any] | None:
    match row:
        case Brand() | AuthorizationServer() | BotKey() | WebhookEndpoint() | BrandAPI() | Operation():
            return {"object_uuid": row.uuid}
        case Conversation():
            return {"conversation_uuid": row.uuid}
        case Challenge():
            return {"conversation_uuid": row.conversation.uuid, "challenge_uuid": row.uuid}
        case AccessToken():
            return {"conversation_uuid": row.conversation.uuid, "access_token_uuid": row.uuid}
    return None


def _line(event: AuditEvent, row: Model, names: dict[str, str]) -> Line:
    what = capfirst(event.kind.partition(".")[2].replace("_", " ")) if event.object_uuid else event.kind
    outcome = f": {event.outcome}" if event.outcome else ""
    url = reverse("admin:infrastructure_auditevent_change", args=[event.pk])
    fields = list(_fields(event, row))
    return Line(event.at, names[event.actor], what + outcome, fields, url)


def _fields(event: AuditEvent, row: Model) -> Iterator[str]:
    values = event.changed_values or {}
    for name in event.changed_fields.split():
        old_and_new = values.get(name)
        shown = f": {_shown(old_and_new[0])} → {_shown(old_and_new[1])}" if old_and_new else ""
        yield f"{_label(row, name)}{shown}"


def _label(row: Model, name: str) -> str:
    fields: dict[str, Any] = {field.name: field for field in row._meta.get_fields()}
    words = getattr(fields.get(name), "verbose_name", name.replace("_", " "))
    return str(capfirst(words)).removesuffix(" ciphertext")  # the column of a secret is that of its ciphertext


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) or "empty"


class NamedChangeList(ChangeList):
    """The list of the log, with the names of a page's actors and conversations, in three queries."""

    def get_results(self, request: HttpRequest) -> None:
        """Find the names once for all rows of the page."""
        super().get_results(request)
        events = self.result_list = list(self.result_list)
        names = names_of(event.actor for event in events)
        uuids = {event.conversation_uuid for event in events if event.conversation_uuid}
        conversations = {row.uuid: row for row in Conversation.objects.filter(uuid__in=uuids)}
        for event in events:
            event.actor_name = names[event.actor]
            event.conversation = conversations.get(event.conversation_uuid, event.conversation_uuid)


class NamedEventsAdmin(ReadOnlyAdmin):
    """Shows who did something, and in which conversation, by name."""

    list_display = ("at", "kind", "outcome", "who", "conversation_link")

    def get_changelist(self, *_: Any, **__: Any) -> type[ChangeList]:
        """Return the list that shows names instead of numbers."""
        return NamedChangeList

    @admin.display(description="who")
    def who(self, event: Any) -> str:
        """Show the actor's name. On the page of a single event, look it up."""
        name = getattr(event, "actor_name", None)
        return str(name or names_of([event.actor])[event.actor])

    @admin.display(description="conversation")
    def conversation_link(self, event: Any) -> str:
        """Link the conversation's page; a conversation that was deleted is named by its UUID."""
        row = getattr(event, "conversation", None)
        if row is None and event.conversation_uuid:
            row = Conversation.objects.filter(uuid=event.conversation_uuid).first() or event.conversation_uuid
        if not isinstance(row, Conversation):
            return str(row or "-")
        url = reverse("admin:conversations_conversation_change", args=[row.pk])
        return format_html('<a href="{}">{}</a>', url, row)
