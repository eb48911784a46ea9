"""`GET .../token`: in one query where the answer is the token, step by step where it is anything else."""

import logging
import re
from datetime import datetime
from typing import Any, Final

import msgspec
from django.http import HttpRequest
from django.http.request import HttpHeaders
from django.utils import timezone

from brands.authentication import PresentedKey
from brands.models import BotKey, Brand
from conversations.api.calls import Answer, Call, bot_call, count_token_read, seconds
from conversations.api.lookups import is_conversation_id, open_conversation_of, server_of
from conversations.flow.authorization_status import token_representation
from conversations.flow.read_counts import count_read
from conversations.flow.readable_tokens import readable_token, refuse_missing_scope, token_by_one_query
from conversations.models import AccessToken
from web.errors import Problem

HEADER: Final = "X-Purpose"
# Asked for by this name: `request.headers` is made anew for each request, and nothing else of a token read needs it.
_WSGI_NAME: Final = HttpHeaders.to_wsgi_name(HEADER)
PARAMETER: Final = "purpose"
# A code and no prose: it is counted, and stands in log lines.
_PURPOSE: Final = re.compile(r"[a-z0-9][a-z0-9_.:-]{0,63}")
MAX_MIN_TTL: Final = 3600
# RFC 6749 section 3.3; half of what a challenge may ask for: percent-encoded, all of it has to fit into the 8,190 bytes
# of a request line that gunicorn reads. A bot that needs more compares it with the `scope` of the answer.
MAX_NEEDED_SCOPE_LENGTH: Final = 2000
_SCOPE: Final = re.compile(rf"[ !#-\[\]-~]{{0,{MAX_NEEDED_SCOPE_LENGTH}}}")
_PARAMETERS: Final = {"authorization_server", "min_ttl", "scope", PARAMETER}

logger = logging.getLogger("consumer_delegation.audit")


def read_purpose(request: HttpRequest, brand: Brand, parameter: str | None = None) -> str:
    """Return the purpose of the header or of the query; empty where none is named and none is needed.

    Raises `Problem`.
    """
    header: str | None = request.META.get(_WSGI_NAME)
    purpose = parameter if header is None else header
    if None not in {header, parameter} and header != parameter:
        raise Problem(422, "invalid_purpose", f"{HEADER} and {PARAMETER} name different purposes. Send one of them.")
    if not purpose and brand.token_read_purpose_required:
        raise Problem(422, "purpose_required", f"This brand demands a purpose of each token read: send {HEADER}.")
    if purpose is None:
        return ""
    if not _PURPOSE.fullmatch(purpose):
        detail = "A purpose has 1 to 64 characters of a-z 0-9 _ . : - and begins with a letter or a digit."
        raise Problem(422, "invalid_purpose", detail)
    return purpose


def token_answer(call: Call, access_token: AccessToken, read_for: str, now: datetime) -> dict[str, Any]:
    """Return the token as the answer to a read; count the read, and write the line that says so."""
    value, members = access_token.reveal_access_token().reveal(), access_token.reveal_response_members()
    _log(call, access_token, read_for)
    count_read(call.bot_key, read_for, now)
    answer = {"access_token": value, **token_representation(access_token, now)}
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


def _at_once(request: HttpRequest, presented: PresentedKey, conversation_id: str) -> Answer | None:
    """Answer with the token; None where `read_token` has to say why not. Nothing is counted or noted before."""
    query = {name: values[0] for name, values in request.GET.lists() if len(values) == 1}
    if not query.keys() <= _PARAMETERS or len(query) != len(request.GET):
        return None
    min_ttl = seconds(query.get("min_ttl", "0"), MAX_MIN_TTL)
    if min_ttl is None or not is_conversation_id(conversation_id):
        return None
    now = timezone.now()
    read = token_by_one_query(presented, conversation_id, query.get("authorization_server", ""), min_ttl, now)
    if read is None or BotKey.Scope.TOKEN_READ not in set(read.bot_key.scopes):
        return None
    needed = query.get("scope", "")
    if not _SCOPE.fullmatch(needed) or not set(needed.split()) <= set(read.access_token.scope.split()):
        return None
    try:
        purpose = read_purpose(request, read.bot_key.brand, query.get(PARAMETER))
    except Problem:
        return None
    count_token_read(read.bot_key)
    presented.note_use(read.bot_key, now)
    return 200, token_answer(Call(request, read.bot_key), read.access_token, purpose, now)


@bot_call(BotKey.Scope.TOKEN_READ, counted=count_token_read, at_once=_at_once)
def read_token(call: Call, conversation_id: str) -> Answer:
    """`GET /conversations/{conversation_id}/token`."""
    query = call.query(*_PARAMETERS)
    if (min_ttl := seconds(query.get("min_ttl", "0"), MAX_MIN_TTL)) is None:
        raise Problem(422, "invalid_min_ttl", "min_ttl is a number of seconds from 0 to 3600.")
    if not _SCOPE.fullmatch(needed := query.get("scope", "")):
        detail = f"A scope is names separated by spaces, in at most {MAX_NEEDED_SCOPE_LENGTH} characters."
        raise Problem(422, "invalid_scope", detail)
    purpose = read_purpose(call.request, call.bot_key.brand, query.get(PARAMETER))
    conversation = open_conversation_of(call, conversation_id)
    server = server_of(call.bot_key.brand, query.get("authorization_server"))
    now = timezone.now()
    access_token = readable_token(conversation, server, min_ttl, now)
    refuse_missing_scope(access_token, server, needed)
    return 200, token_answer(call, access_token, purpose, now)
