"""Audit rows of a conversation, in the transaction of the change they tell of (`delegation_site.audit`)."""

from datetime import datetime
from uuid import UUID

from conversations.models import AuditEvent, Challenge, Conversation
from delegation_site.audit import CONSUMER, SYSTEM, record_event

__all__ = ["CONSUMER", "SYSTEM", "record"]


def record(
    kind: AuditEvent.Kind,
    conversation: Conversation,
    *,
    now: datetime,
    actor: str,
    outcome: str = "",
    challenge: Challenge | None = None,
    access_token_uuid: UUID | None = None,
) -> None:
    """Write one event of a conversation. `actor` is `system`, `consumer`, `bot:<public key id>` or `admin:<id>`."""
    record_event(
        kind,
        brand_uuid=conversation.brand.uuid,
        actor=actor,
        now=now,
        outcome=outcome,
        conversation_uuid=conversation.uuid,
        challenge_uuid=challenge.uuid if challenge else None,
        access_token_uuid=access_token_uuid,
    )
