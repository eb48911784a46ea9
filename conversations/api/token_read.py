"""`GET .../token`: one query if the answer is the token; otherwise step by step, to find out which error to answer."""

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
from conversations.api.calls import Answer, Call, bot_call, count_token_read, named_session, seconds
from conversations.api.lookups import is_conversation_id, open_conversation_of, server_of
from conversations.flow.authorization_status import token_representation
from conversations.flow.read_counts import count_read
from conversations.flow.readable_tokens import readable_token, refuse_missing_scope, token_by_one_query
from conversations.models import AccessToken
from web.errors import Problem

HEADER: Final = "X-Purpose"
# Read from `request.META`: building `request.headers` for this one header would slow down each token read.
_WSGI_NAME: Final = HttpHeaders.to_wsgi_name(HEADER)
PARAMETER: Final = "purpose"
# A code, not prose: reads are counted by purpose, and log lines contain it.
_PURPOSE: Final = re.compile(r"[a-z0-9][a-z0-9_.:-]{0,63}")
MAX_MIN_TTL: Final = 3600
# RFC 6749 section 3.3. Half of what a challenge may ask for, because it has to fit percent-encoded into the 8,190 bytes
# of gunicorn's longest request line. A bot that needs more compares the answer's `scope` itself.
MAX_NEEDED_SCOPE_LENGTH: Final = 2000
_SCOPE: Final = re.compile(rf"[ !#-\[\]-~]{{0,{MAX_NEEDED_SCOPE_LENGTH}}}")
_PARAMETERS: Final = {"authorization_server", "min_ttl", "scope", "session", PARAMETER}

logger = logging.getLogger("consumer_delegation.audit")


def read_purpose(request: HttpRequest, brand: Brand, parameter: str | None = None) -> str:
    """Read the purpose from the header or the query; empty if there is none and the brand requires none.

    Raises `Problem`.
    """
    header: str | None = request.META.get(_WSGI_NAME)
    purpose = parameter if header is None else header
    if None not in {header, parameter} and header != parameter:
        raise Problem(422, "invalid_purpose", f"{HEADER} and {PARAMETER} name different purposes. Send one of them.")
    if not purpose and brand.token_read_purpose_required:
        raise Problem(422, "purpose_required", f"This brand requires a purpose for each token read: send {HEADER}.")
    if purpose is None:
        return ""
    if not _PURPOSE.fullmatch(purpose):
        detail = "A purpose has 1 to 64 characters of a-z 0-9 _ . : - and begins with a letter or a digit."
        raise Problem(422, "invalid_purpose", detail)
    return purpose


def token_answer(call: Call, access_token: AccessToken, purpose: str, now: datetime) -> dict[str, Any]:
    """Build the answer that contains the token. Logs and counts the read."""
    value, members = access_token.reveal_access_token().reveal(), access_token.reveal_response_members()
    _log(call, access_token, purpose)
    count_read(call.bot_key, purpose, now)
    answer = {
        "access_token": value,
        "session": access_token.conversation.session,
        **token_representation(access_token, now),
    }
    # Stored as JSON, so it is copied into the answer undecoded.
    return answer | ({"token_response_members": msgspec.Raw(members.reveal().encode())} if members else {})


def _log(call: Call, access_token: AccessToken, purpose: str) -> None:
    """Log a successful read. `purpose` in the log line is the challenge's, which the consumer saw."""
    logger.info(
        "token.read",
        extra={
            "actor": call.actor,
            "brand_uuid": str(call.bot_key.brand.uuid),
            "conversation_uuid": str(access_token.conversation.uuid),
            "access_token_uuid": str(access_token.uuid),
            "purpose": access_token.challenge.purpose,
            "read_purpose": purpose,
        },
    )


def _in_one_query(request: HttpRequest, presented: PresentedKey, conversation_id: str) -> Answer | None:
    """Answer with the token, or with None if `read_token` has to find the error. Then nothing was counted or logged."""
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
    # Another session, or one that is written otherwise.
    if "session" in query and query["session"] != str(read.access_token.conversation.session):
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


@bot_call(BotKey.Scope.TOKEN_READ, counted=count_token_read, fast_path=_in_one_query)
def read_token(call: Call, conversation_id: str) -> Answer:
    """`GET /conversations/{conversation_id}/token`."""
    query = call.query(*_PARAMETERS)
    if (min_ttl := seconds(query.get("min_ttl", "0"), MAX_MIN_TTL)) is None:
        raise Problem(422, "invalid_min_ttl", "min_ttl is a number of seconds from 0 to 3600.")
    if not _SCOPE.fullmatch(needed := query.get("scope", "")):
        detail = f"scope is a list of names separated by spaces, of at most {MAX_NEEDED_SCOPE_LENGTH} characters."
        raise Problem(422, "invalid_scope", detail)
    purpose = read_purpose(call.request, call.bot_key.brand, query.get(PARAMETER))
    session = named_session(query.get("session"))
    conversation = open_conversation_of(call, conversation_id, session)
    server = server_of(call.bot_key.brand, query.get("authorization_server"))
    now = timezone.now()
    access_token = readable_token(conversation, server, min_ttl, now)
    refuse_missing_scope(access_token, server, needed)
    return 200, token_answer(call, access_token, purpose, now)
