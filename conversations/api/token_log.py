"""The one JSON line of each token read (G6): who read, in which conversation; no row, and never the token."""

import logging

from conversations.api.calls import Call
from conversations.models import AccessToken

logger = logging.getLogger("consumer_delegation.audit")


def log_token_read(call: Call, access_token: AccessToken, read_for: str) -> None:
    """Write the line of a read that was answered with the token; `purpose` is what the consumer was told."""
    logger.info(
        "token.read",
        extra={
            "actor": call.actor,
            "brand_uuid": str(call.bot_key.brand.uuid),
            "conversation_uuid": str(access_token.conversation.uuid),
            "access_token_uuid": str(access_token.uuid),
            "purpose": access_token.challenge.purpose,
            "read_purpose": read_for,
        },
    )
