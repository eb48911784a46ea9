"""`POST .../calls/{operation}` before Django's handler: from the request's fields and one row to the API and back.

Nothing goes back to the full way once the call is counted, or may have been sent: what is raised from then on is raised
again there, before anything else (`FAILED_BEFORE`). tests/fuzz/test_fast_call.py holds this and the full way, which is
`operations.call_operation`, together.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
from django.utils import timezone

from brands.authentication import PresentedKey
from brands.models import BotKey
from conversations.api.calls import MAX_CALL_BODY_BYTES, CallBody, count_call, holds_scope, named_session
from conversations.api.fast_bodies import Reply, is_post_of_json, read_json
from conversations.api.lookups import is_conversation_id
from conversations.api.operations import document, request_of
from conversations.api.token_read import WSGI_NAME, read_purpose
from conversations.flow.api_calls import Caller, is_refusal, refuse, send_call
from conversations.flow.callable_tokens import CallableToken, callable_by_one_query, presented_token
from conversations.flow.errors import TokenReplaced
from oauth_client.resource_server import ResourceRequest
from web.errors import Problem

# Names that an admin can declare. How the path of another one is decoded, the full way says.
_OPERATION: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_body_decoder: Final = msgspec.json.Decoder(CallBody)


def prepared(environ: dict[str, Any], path: re.Match[str]) -> Callable[[], Reply | None] | None:
    """Return what answers this request; None if it is no call, or one that the full way has to judge."""
    conversation_id, operation = path[1], path["call"]
    if (
        not is_post_of_json(environ, MAX_CALL_BODY_BYTES)
        or not _OPERATION.fullmatch(operation)
        or not is_conversation_id(conversation_id)
    ):
        return None
    presented = PresentedKey.read(environ.get("HTTP_AUTHORIZATION", ""))
    if presented is None:
        return None
    return lambda: _answer(environ, presented, conversation_id, operation)


def _answer(environ: dict[str, Any], presented: PresentedKey, conversation_id: str, operation: str) -> Reply | None:
    """Return the answer; None if the full way has to find the reason. Then nothing is counted or sent.

    Raises what counting, `request_of`, decryption and the database raise, and what `call_api` raises.
    """
    now = timezone.now()
    found = callable_by_one_query(presented, conversation_id, operation, now)
    if found is None or not holds_scope(found.row.key_scopes, BotKey.Scope.API_CALL):
        return None
    row, body = found.row, read_json(environ, _body_decoder)
    if body is None or body.challenge is not None:
        return None
    try:
        purpose = read_purpose(environ.get(WSGI_NAME), body.purpose, is_required=row.is_purpose_required)
        session = named_session(body.session)
    except Problem:  # raised again by the full way, which counts first
        return None
    if not found.accepts_session(session):
        return None
    presented.note_use(found.key, now)
    count_call(presented.public_id, row.key_calls_per_minute)
    request = request_of(found.declaration, body)
    caller = Caller(row.key_pk, f"bot:{presented.public_id}", purpose)
    return _called(found, request, caller, conversation_id)


def _called(found: CallableToken, request: ResourceRequest, caller: Caller, conversation_id: str) -> Reply:
    row = found.row
    response = send_call(row, request, found.reveal(), caller)
    if is_refusal(response):
        access_token = presented_token(row.token_pk)
        if access_token is None:
            raise TokenReplaced
        refuse(response, access_token.authorization_server, access_token, caller.actor)
    return Reply(msgspec.json.encode(document(conversation_id, row.session, row.operation, response)))
