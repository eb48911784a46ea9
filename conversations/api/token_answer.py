"""The token as an answer: counted, and in one JSON line of the log (G6) who read it, where; never the token there."""

import logging
from datetime import datetime
from typing import Any

import msgspec

from conversations.api.calls import Call
from conversations.flow.facts import token_facts
from conversations.flow.read_counts import count_read
from conversations.models import AccessToken

logger = logging.getLogger("consumer_delegation.audit")


def token_answer(call: Call, access_token: AccessToken, read_for: str, now: datetime) -> dict[str, Any]:
    """Return the token as the answer to a read; count the read, and write the line that says so."""
    value, members = access_token.reveal_access_token().reveal(), access_token.reveal_response_members()
    _log(call, access_token, read_for)
    count_read(call.bot_key, read_for, now)
    answer = {"access_token": value, **token_facts(access_token, now)}
    # As it was written when it was read: JSON, and no member of ours.
    return answer | ({"token_response_members": msgspec.Raw(members.reveal().encode())} if members else {})


def _log(call: Call, access_token: AccessToken, read_for: str) -> None:
    """Write the line of a read that is answered with the token; `purpose` is what the consumer was told."""
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
