"""`GET .../token`: in one query where the answer is the token, step by step where it is anything else."""

import re
from typing import Final

from django.http import HttpRequest
from django.utils import timezone

from brands.authentication import PresentedKey
from brands.models import BotKey
from conversations.api.calls import Answer, Call, bot_call, count_token_read, seconds
from conversations.api.lookups import is_conversation_id, open_conversation_of, server_of
from conversations.api.read_purpose import PARAMETER, read_purpose
from conversations.api.token_answer import token_answer
from conversations.flow.reading import readable_token, refuse_missing_scope
from conversations.flow.token_read import token_at_once
from delegation_site.problems import Problem

MAX_MIN_TTL: Final = 3600
# RFC 6749 section 3.3; half of what a challenge may ask for: percent-encoded, all of it has to fit into the 8,190 bytes
# of a request line that gunicorn reads. A bot that needs more compares it with the `scope` of the answer.
MAX_NEEDED_SCOPE_LENGTH: Final = 2000
_SCOPE: Final = re.compile(rf"[ !#-\[\]-~]{{0,{MAX_NEEDED_SCOPE_LENGTH}}}")
_PARAMETERS: Final = {"authorization_server", "min_ttl", "scope", PARAMETER}


def read_token(request: HttpRequest, conversation_id: str) -> Answer:
    """`GET /conversations/{conversation_id}/token`."""
    return _at_once(request, conversation_id) or _step_by_step(request, conversation_id=conversation_id)


def _at_once(request: HttpRequest, conversation_id: str) -> Answer | None:
    """Answer with the token; None where `_step_by_step` has to say why not. Nothing is counted or noted before."""
    presented = PresentedKey.read(request.META.get("HTTP_AUTHORIZATION", ""))
    query = {name: values[0] for name, values in request.GET.lists() if len(values) == 1}
    if presented is None or not query.keys() <= _PARAMETERS or len(query) != len(request.GET):
        return None
    min_ttl = seconds(query.get("min_ttl", "0"), MAX_MIN_TTL)
    if min_ttl is None or not is_conversation_id(conversation_id):
        return None
    now = timezone.now()
    read = token_at_once(presented, conversation_id, query.get("authorization_server", ""), min_ttl, now)
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


@bot_call(BotKey.Scope.TOKEN_READ, counted=count_token_read)
def _step_by_step(call: Call, conversation_id: str) -> Answer:
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
