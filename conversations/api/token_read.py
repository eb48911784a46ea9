"""`GET .../token`: in one query where the answer is the token, step by step where it is anything else."""

from typing import Final

from django.http import HttpRequest
from django.utils import timezone

from brands.authentication import PresentedKey
from brands.models import BotKey
from conversations.api import views
from conversations.api.calls import Answer, Call, count_token_read
from conversations.api.lookups import is_conversation_id
from conversations.api.read_purpose import PARAMETER, read_purpose
from conversations.flow.token_read import token_at_once
from delegation_site.problems import Problem

_PARAMETERS: Final = {"authorization_server", "min_ttl", "scope", PARAMETER}


def read_token(request: HttpRequest, conversation_id: str) -> Answer:
    """`GET /conversations/{conversation_id}/token`."""
    return _at_once(request, conversation_id) or views.read_token(request, conversation_id=conversation_id)


def _at_once(request: HttpRequest, conversation_id: str) -> Answer | None:
    """Answer with the token; None where `views.read_token` has to say why not. Nothing is counted or noted before."""
    presented = PresentedKey.read(request.headers.get("Authorization", ""))
    query = {name: values[0] for name, values in request.GET.lists() if len(values) == 1}
    if presented is None or not query.keys() <= _PARAMETERS or len(query) != len(request.GET):
        return None
    min_ttl = views.seconds(query.get("min_ttl", "0"))
    if min_ttl is None or not is_conversation_id(conversation_id):
        return None
    now = timezone.now()
    read = token_at_once(presented, conversation_id, query.get("authorization_server", ""), min_ttl, now)
    if read is None or BotKey.Scope.TOKEN_READ not in set(read.bot_key.scopes):
        return None
    if not set(query.get("scope", "").split()) <= set(read.access_token.scope.split()):
        return None
    try:
        purpose = read_purpose(request, read.bot_key.brand, query.get(PARAMETER))
    except Problem:
        return None
    count_token_read(read.bot_key)
    presented.note_use(read.bot_key, now)
    return 200, views.token_answer(Call(request, read.bot_key), read.access_token, purpose, now)
