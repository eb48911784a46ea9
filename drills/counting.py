"""Count what was lost: compare what bots were told with the database, the log, the brand and its webhooks."""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from typing import Any, Final

from bench.processes import ROOT, base_environment
from drills.journeys import Journey
from drills.promises import Lost
from drills.stage import Stage

# What each journey that is done was told of, or could see: it must be in the audit log, and go out as an event.
_AUDITED: Final = frozenset({
    ("challenge.changed", "issued"), ("challenge.changed", "started"), ("challenge.changed", "confirmation_needed"),
    ("challenge.changed", "completed"), ("token.issued", "completion_code"),
})  # fmt: skip
_EVENTS: Final = frozenset({
    "challenge.issued", "challenge.started", "challenge.confirmation_needed", "challenge.completed", "token.issued",
})  # fmt: skip
_AUDIT_ROWS: Final = """
SELECT conversation.external_id, event.kind, event.outcome FROM infrastructure_auditevent event
JOIN conversations_conversation conversation ON conversation.uuid = event.conversation_uuid
"""
_UUIDS: Final = "SELECT uuid::text FROM infrastructure_auditevent"
# Waiting for a day or given up: a webhook that its receiver may never see.
WAITING: Final = """
SELECT (SELECT count(*) FROM conversations_webhookdelivery WHERE delivered_at IS NULL)
     + (SELECT count(*) FROM conversations_revocation)
"""
# The numbers of the tokens that a conversation holds; they begin with it.
_STORED: Final = """
import json, sys, django
django.setup()
from conversations.models import AccessToken
held = AccessToken.objects.filter(ended_at=None).select_related("conversation__brand")
json.dump([int(token.reveal_access_token().reveal().partition(".")[0]) for token in held], sys.stdout)
"""


def count_lost(stage: Stage) -> Lost:
    """Count when everything has ended and nothing waits in the outbox."""
    done = stage.load.done
    notes = stage.notes_of_brand()
    return Lost(
        tokens=sum(not _is_readable(journey) for journey in done),
        audit_rows=_lost_audit_rows(stage, done),
        webhooks=_lost_webhooks(stage, done, notes),
        orphans=len(orphans_at_brand(notes, _stored(stage))),
    )


def orphans_at_brand(notes: dict[str, Any], stored: list[int]) -> set[int]:
    """Return the numbers of the tokens that the brand issued and did not revoke, and that no conversation holds.

    Raises `ValueError` if the brand revoked, or we store, a token that it never issued: the count would mean nothing.
    """
    issued, revoked = set[int](notes["issued"]), set[int](notes["revoked"])
    if unknown := (revoked | set(stored)) - issued:
        raise ValueError(f"{len(unknown)} tokens are not of the brand")
    return issued - revoked - set(stored)


def _is_readable(journey: Journey) -> bool:
    answer = journey.bot.token(journey.conversation_id)
    return answer.is_ok and answer.body["access_token"] == journey.token


def _lost_audit_rows(stage: Stage, done: list[Journey]) -> int:
    """Count rows that a finished journey or a line of the log proves, and that are not in the table."""
    written = defaultdict[str, set[tuple[str, str]]](set)
    for chat, kind, outcome in stage.database.sql(_AUDIT_ROWS):
        written[chat].add((kind, outcome))
    missing = sum(len(_AUDITED - written[journey.conversation_id]) for journey in done)
    logged = {line["uuid"] for line in stage.lines() if line["name"] == "consumer_delegation.audit" and "uuid" in line}
    return missing + len(logged - {uuid for (uuid,) in stage.database.sql(_UUIDS)})


def _lost_webhooks(stage: Stage, done: list[Journey], notes: dict[str, Any]) -> int:
    """Count events that were not received, and deliveries that nobody will try again soon."""
    received = defaultdict[str, Counter[str]](Counter)
    for event in notes["webhooks"]:
        received[event["conversation_id"]][event["type"]] += 1
    missing = sum(len(_EVENTS - received[journey.conversation_id].keys()) for journey in done)
    return missing + int(stage.database.sql(WAITING)[0][0])


def _stored(stage: Stage) -> list[int]:
    environment = base_environment() | stage.environment | {"DJANGO_SETTINGS_MODULE": "delegation_site.settings"}
    result = subprocess.run(
        [sys.executable, "-c", _STORED], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    numbers: list[int] = json.loads(result.stdout)
    return numbers
