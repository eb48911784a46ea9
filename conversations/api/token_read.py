"""`GET .../token`, step by step: it finds out which error to answer.

A read that is answered with the token does not come here: `fast_token_read` answers it before Django's handler.
"""

import logging
import re
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from django.http.request import HttpHeaders
from django.utils import timezone

from brands.models import BotKey
from conversations.api.calls import Answer, Call, as_token_read, bot_call, named_session, seconds
from conversations.api.lookups import open_conversation_of, server_of
from conversations.flow.authorization_status import token_representation
from conversations.flow.errors import TokenIsSenderConstrained
from conversations.flow.read_counts import count_read
from conversations.flow.readable_tokens import readable_token, refuse_missing_scope
from conversations.models import AccessToken
from infrastructure import logs, metrics
from infrastructure.crypto import Secret
from web.errors import Problem

HEADER: Final = "X-Purpose"
# Read from `request.META`: building `request.headers` for this one header would slow down each token read.
WSGI_NAME: Final = HttpHeaders.to_wsgi_name(HEADER)
PARAMETER: Final = "purpose"
# A code, not prose: reads are counted by purpose, and log lines contain it.
_PURPOSE: Final = re.compile(r"[a-z0-9][a-z0-9_.:-]{0,63}")
MAX_MIN_TTL: Final = 3600
# RFC 6749 section 3.3. Half of what a challenge may ask for, because it has to fit percent-encoded into the 8,190 bytes
# of gunicorn's longest request line. A bot that needs more compares the answer's `scope` itself.
MAX_NEEDED_SCOPE_LENGTH: Final = 2000
SCOPE: Final = re.compile(rf"[ !#-\[\]-~]{{0,{MAX_NEEDED_SCOPE_LENGTH}}}")
PARAMETERS: Final = {"authorization_server", "min_ttl", "scope", "session", PARAMETER}

logger = logging.getLogger("consumer_delegation.audit")


class Read(NamedTuple):
    """Who reads which token, for the log line and the counts. `purpose` is the challenge's, which the consumer saw."""

    key_pk: int
    public_id: str
    brand_uuid: UUID
    conversation_uuid: UUID
    access_token_uuid: UUID
    purpose: str


def read_purpose(header: str | None, parameter: str | None, *, is_required: bool) -> str:
    """Read the purpose from the header or the query; empty if there is none and the brand requires none.

    Raises `Problem`.
    """
    purpose = parameter if header is None else header
    if None not in {header, parameter} and header != parameter:
        raise Problem(422, "invalid_purpose", f"{HEADER} and {PARAMETER} name different purposes. Send one of them.")
    if not purpose and is_required:
        raise Problem(422, "purpose_required", f"This brand requires a purpose for each token read: send {HEADER}.")
    if purpose is None:
        return ""
    if not _PURPOSE.fullmatch(purpose):
        detail = "A purpose has 1 to 64 characters of a-z 0-9 _ . : - and begins with a letter or a digit."
        raise Problem(422, "invalid_purpose", detail)
    return purpose


def purpose_of(call: Call, parameter: str | None = None) -> str:
    """Read the purpose of a call. Raises `Problem`."""
    is_required = call.bot_key.brand.token_read_purpose_required
    return read_purpose(call.request.META.get(WSGI_NAME), parameter, is_required=is_required)


def note_read(read: Read, read_for: str, now: datetime) -> None:
    """Log and count a read that is answered with the token. `read_for` is the purpose that the bot named."""
    logs.info(
        logger,
        "token.read",
        {
            "actor": f"bot:{read.public_id}",
            "brand_uuid": str(read.brand_uuid),
            "conversation_uuid": str(read.conversation_uuid),
            "access_token_uuid": str(read.access_token_uuid),
            "purpose": read.purpose,
            "read_purpose": read_for,
        },
    )
    count_read(read.key_pk, read_for, now)
    metrics.count_token_read(read.brand_uuid)


def document(value: Secret, members: Secret | None, session: int, representation: dict[str, Any]) -> dict[str, Any]:
    """Build the answer that contains the token."""
    answer = {"access_token": value.reveal(), "session": session, **representation}
    # Stored as JSON, so it is copied into the answer undecoded.
    return answer | ({"token_response_members": msgspec.Raw(members.reveal().encode())} if members else {})


def token_answer(call: Call, access_token: AccessToken, purpose: str, now: datetime) -> dict[str, Any]:
    """Build the answer that contains the token. Logs and counts the read. Raises `TokenIsSenderConstrained`."""
    if access_token.is_sender_constrained:
        raise TokenIsSenderConstrained
    value, members = access_token.reveal_access_token(), access_token.reveal_response_members()
    challenge, conversation, key = access_token.challenge, access_token.conversation, call.bot_key
    read = Read(key.pk, key.public_id, key.brand.uuid, conversation.uuid, access_token.uuid, challenge.purpose)
    note_read(read, purpose, now)
    return document(value, members, conversation.session, token_representation(access_token, challenge.scope, now))


@bot_call(BotKey.Scope.TOKEN_READ, counted=as_token_read)
def read_token(call: Call, conversation_id: str) -> Answer:
    """`GET /conversations/{conversation_id}/token`."""
    query = call.query(*PARAMETERS)
    if (min_ttl := seconds(query.get("min_ttl", "0"), MAX_MIN_TTL)) is None:
        raise Problem(422, "invalid_min_ttl", "min_ttl is a number of seconds from 0 to 3600.")
    if not SCOPE.fullmatch(needed := query.get("scope", "")):
        detail = f"scope is a list of names separated by spaces, of at most {MAX_NEEDED_SCOPE_LENGTH} characters."
        raise Problem(422, "invalid_scope", detail)
    purpose = purpose_of(call, query.get(PARAMETER))
    session = named_session(query.get("session"))
    conversation = open_conversation_of(call, conversation_id, session)
    server = server_of(call.bot_key.brand, query.get("authorization_server"))
    now = timezone.now()
    access_token = readable_token(conversation, server, min_ttl, now)
    refuse_missing_scope(access_token, server, needed)
    return 200, token_answer(call, access_token, purpose, now)
