"""The one place that writes audit rows, in the transaction of the change they tell of, and their copy as log line.

The copy is what is left where somebody owns the database: standard output is collected elsewhere (ASVS 16.4.3). It is
written once the row is there for good: what was rolled back has not happened. Where the answer to a commit is lost, a
row may stand without its line.
"""

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from delegation_site.compiled import CompiledInsert
from delegation_site.logs import current_request_id
from delegation_site.models import AuditEvent

# Who did it: one of these, `bot:<public key id>` or `admin:<id>`.
SYSTEM: Final = "system"
CONSUMER: Final = "consumer"
OPERATOR: Final = "operator"

_LOGGED: Final = (
    "uuid",
    "outcome",
    "actor",
    "brand_uuid",
    "conversation_uuid",
    "challenge_uuid",
    "access_token_uuid",
    "object_uuid",
    "changed_fields",
)

_EVENTS: Final = CompiledInsert(AuditEvent)

logger = logging.getLogger("consumer_delegation.audit")


def record_event(
    kind: AuditEvent.Kind,
    *,
    brand_uuid: UUID,
    actor: str,
    now: datetime | None = None,
    outcome: str = "",
    conversation_uuid: UUID | None = None,
    challenge_uuid: UUID | None = None,
    access_token_uuid: UUID | None = None,
    object_uuid: UUID | None = None,
    changed_fields: Iterable[str] = (),
) -> None:
    """Write one event. Every argument is one of ours: nothing that a person or a server has typed goes in."""
    event = AuditEvent(
        at=now or timezone.now(),
        kind=kind,
        outcome=outcome,
        actor=actor,
        brand_uuid=brand_uuid,
        conversation_uuid=conversation_uuid,
        challenge_uuid=challenge_uuid,
        access_token_uuid=access_token_uuid,
        object_uuid=object_uuid,
        changed_fields=" ".join(changed_fields),
        request_id=current_request_id(),
    )
    _EVENTS.insert(event)
    # Robust: what else waits for the commit, letters to admins among it, takes no line along when it fails.
    transaction.on_commit(lambda: logger.info(kind.value, extra=log_fields(event)), robust=True)


def actor_of_admin(user_pk: object) -> str:
    """Return an admin's name for audit rows; never the e-mail address."""
    return f"admin:{user_pk}"


def log_fields(event: AuditEvent) -> dict[str, str]:
    """Return the event as the fields of its log line."""
    return {name: str(value) for name in _LOGGED if (value := getattr(event, name))}
