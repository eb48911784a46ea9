"""`GET .../token` before Django's handler: from the request's fields and one row to body and log line.

tests/fuzz/test_fast_token_read.py holds this and the full way, which is `token_read`, together.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec
from django.utils import timezone

from brands.authentication import PresentedKey
from brands.models import BotKey
from conversations.api.calls import count_token_read, holds_scope, seconds
from conversations.api.fast_bodies import Reply
from conversations.api.fast_reads import presented_read
from conversations.api.lookups import is_conversation_id
from conversations.api.token_read import (
    MAX_MIN_TTL,
    PARAMETER,
    PARAMETERS,
    SCOPE,
    WSGI_NAME,
    Read,
    document,
    note_read,
    read_purpose,
)
from conversations.flow.authorization_status import token_representation
from conversations.flow.readable_tokens import token_by_one_query
from web.errors import Problem


def prepared(environ: dict[str, Any], path: re.Match[str]) -> Callable[[], Reply | None] | None:
    """Return what answers this request; None if it is no read, or one that the full way has to judge."""
    conversation_id, read = path[1], presented_read(environ, PARAMETERS)
    if read is None or not is_conversation_id(conversation_id):
        return None
    return lambda: _answer(read.presented, conversation_id, read.query, environ.get(WSGI_NAME))


def _answer(presented: PresentedKey, conversation_id: str, query: dict[str, str], header: str | None) -> Reply | None:
    """Return the answer with the token; None if the full way has to find the reason. Then nothing is counted or logged.

    Raises what counting, decryption and the database raise.
    """
    min_ttl, needed = seconds(query.get("min_ttl", "0"), MAX_MIN_TTL), query.get("scope", "")
    if min_ttl is None or not SCOPE.fullmatch(needed):
        return None
    now = timezone.now()
    found = token_by_one_query(presented, conversation_id, query.get("authorization_server", ""), min_ttl, now)
    if found is None or not holds_scope(found.row.key_scopes, BotKey.Scope.TOKEN_READ):
        return None
    row = found.row
    # Another session, or one that is written otherwise (S3).
    if "session" in query and query["session"] != str(row.session):
        return None
    if not set(needed.split()) <= set(row.scope.split()):
        return None
    try:
        purpose = read_purpose(header, query.get(PARAMETER), is_required=row.is_purpose_required)
    except Problem:
        return None
    presented.note_use(found.key, now)
    count_token_read(presented.public_id, row.key_token_reads_per_minute)
    value = found.reveal("ciphertext")
    members = None if found.response_members_ciphertext is None else found.reveal("response_members_ciphertext")
    representation = token_representation(row, row.requested_scope, now)
    body = msgspec.json.encode(document(value, members, row.session, representation))
    read = Read(row.key_pk, presented.public_id, row.brand_uuid, row.conversation_uuid, row.uuid, row.purpose)
    note_read(read, purpose, now)
    return Reply(body)
