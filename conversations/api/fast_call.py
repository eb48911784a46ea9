"""`POST .../calls/{operation}` before Django's handler: from the request's fields and one row to the API and back.

Nothing goes back to the full way once the call is counted, or may have been sent: what is raised from then on is raised
again there, before anything else (`FAILED_BEFORE`). tests/fuzz/test_fast_call.py holds this and the full way, which is
`operations.call_operation`, together.
"""

import re
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final

import msgspec
from django.utils import timezone

from brands.authentication import PresentedKey
from brands.models import BotKey
from conversations.api.calls import MAX_CALL_BODY_BYTES, CallBody, count_call, holds_scope, named_session
from conversations.api.lookups import is_conversation_id
from conversations.api.operations import document, request_of
from conversations.api.token_read import WSGI_NAME, read_purpose
from conversations.flow.api_calls import Caller, is_refusal, refuse, send_call
from conversations.flow.callable_tokens import CallableToken, callable_by_one_query, presented_token
from conversations.flow.errors import TokenReplaced
from oauth_client.resource_server import ResourceRequest
from web.errors import Problem

# As clients write it. For another one Django's parser decides.
_CONTENT_TYPES: Final = {
    *("application/json", "application/json; charset=utf-8", "application/json;charset=utf-8"),
    *("application/json; charset=UTF-8", "application/json;charset=UTF-8"),
}
# Names that an admin can declare. How the path of another one is decoded, the full way says.
_OPERATION: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_LENGTH: Final = re.compile("[1-9][0-9]{0,5}")
_body_decoder: Final = msgspec.json.Decoder(CallBody)


def prepared(environ: dict[str, Any], conversation_id: str, operation: str) -> Callable[[], bytes | None] | None:
    """Return what answers this request; None if it is no call, or one that the full way has to judge."""
    length = environ.get("CONTENT_LENGTH", "")
    if (
        environ.get("REQUEST_METHOD") != "POST"
        or environ.get("CONTENT_TYPE") not in _CONTENT_TYPES
        or environ.get("QUERY_STRING")
        or environ.get("HTTP_TRANSFER_ENCODING")
        or not _LENGTH.fullmatch(length)
        or int(length) > MAX_CALL_BODY_BYTES
        or not _OPERATION.fullmatch(operation)
        or not is_conversation_id(conversation_id)
    ):
        return None
    presented = PresentedKey.read(environ.get("HTTP_AUTHORIZATION", ""))
    if presented is None:
        return None
    return lambda: _answer(environ, presented, conversation_id, operation)


def _answer(environ: dict[str, Any], presented: PresentedKey, conversation_id: str, operation: str) -> bytes | None:
    """Return the body of the answer; None if the full way has to find the reason. Then nothing is counted or sent.

    Raises what counting, `request_of`, decryption and the database raise, and what `call_api` raises.
    """
    now = timezone.now()
    found = callable_by_one_query(presented, conversation_id, operation, now)
    if found is None or not holds_scope(found.row.key_scopes, BotKey.Scope.API_CALL):
        return None
    # After the key: a stranger's body may be slow, and would hold the thread.
    row, body = found.row, _body(environ)
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
    count_call(presented.public_id)
    request = request_of(found.declaration, body)
    caller = Caller(row.key_pk, f"bot:{presented.public_id}", purpose)
    return _called(found, request, caller, conversation_id)


def _called(found: CallableToken, request: ResourceRequest, caller: Caller, conversation_id: str) -> bytes:
    row = found.row
    response = send_call(row, request, found.reveal(), caller)
    if is_refusal(response):
        access_token = presented_token(row.token_pk)
        if access_token is None:
            raise TokenReplaced
        refuse(response, access_token.authorization_server, access_token, caller.actor)
    return msgspec.json.encode(document(conversation_id, row.session, row.operation, response))


def _body(environ: dict[str, Any]) -> CallBody | None:
    """Read and decode the body; None if the full way has to say what is wrong with it. It gets the same bytes.

    Raises what the server raises if the client has gone away.
    """
    raw = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    environ["wsgi.input"] = BytesIO(raw)
    try:
        return _body_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
