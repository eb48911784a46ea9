"""The one place that writes audit rows, in the transaction of the change they tell of, and their copy as log line."""

import logging
from datetime import datetime

from conversations.models import AccessToken, AuditEvent, Challenge, Conversation
from delegation_site.logs import current_request_id

SYSTEM = "system"
CONSUMER = "consumer"

logger = logging.getLogger("consumer_delegation.audit")


def record(
    kind: AuditEvent.Kind,
    conversation: Conversation,
    *,
    now: datetime,
    actor: str,
    outcome: str = "",
    challenge: Challenge | None = None,
    access_token: AccessToken | None = None,
) -> None:
    """Write one event. `actor` is `system`, `consumer`, `bot:<public key id>` or `admin:<id>`."""
    event = AuditEvent(
        at=now,
        kind=kind,
        outcome=outcome,
        actor=actor,
        brand_uuid=conversation.brand.uuid,
        conversation_uuid=conversation.uuid,
        challenge_uuid=challenge.uuid if challenge else None,
        access_token_uuid=access_token.uuid if access_token else None,
        request_id=current_request_id(),
    )
    event.save(force_insert=True)
    logger.info(kind.value, extra=log_fields(event))


def log_fields(event: AuditEvent) -> dict[str, str]:
    """Return the event as the fields of its log line."""
    names = ("uuid", "outcome", "actor", "brand_uuid", "conversation_uuid", "challenge_uuid", "access_token_uuid")
    return {name: str(value) for name in names if (value := getattr(event, name))}
