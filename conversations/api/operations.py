"""List the declared operations of a brand's APIs, and call one with the conversation's token.

What the API says is in the member `response`, apart from what we say, so that a bot can never take the brand's 409 for
ours (P10).
"""

import base64
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import msgspec
from django.core.exceptions import ValidationError
from django.utils import timezone

from brands.api_operations import SAFE_METHODS
from brands.models import BotKey, Operation
from brands.operation_requests import ArgumentsInvalid, Declaration, input_schema, is_deeper, request_for
from conversations.api.calls import (
    MAX_CALL_BODY_BYTES,
    Answer,
    Call,
    CallBody,
    ChallengeBody,
    bot_call,
    named_session,
    refuse_missing_scopes,
)
from conversations.api.lookups import open_conversation_of, operation_of, operations_of
from conversations.api.token_read import purpose_of
from conversations.api.views import conversation_unless_closed, issued, wanted_challenge
from conversations.flow.api_calls import Caller, call_api
from conversations.flow.challenges import issue_challenge
from conversations.flow.errors import (
    ApiHostChanged,
    StepUpRequired,
    WrongAuthorizationStatus,
    refuse_unnamed_session,
)
from conversations.flow.readable_tokens import token_to_present, usable_token
from conversations.models import AccessToken
from oauth_client.resource_server import ResourceRequest, ResourceResponse
from web.errors import Problem

# Of the API's headers, those that a bot can use. `Set-Cookie` and whatever is about the connection is not among them.
_PASSED_ON: Final = (
    *("content-type", "content-language", "etag", "last-modified", "link", "location", "retry-after"),
    *("ratelimit", "ratelimit-policy", "deprecation", "sunset", "x-request-id", "x-correlation-id"),
)
_MAX_HEADER_LENGTH: Final = 2048
_PRINTABLE: Final = re.compile(r"[ -~]*")
_MEDIA_TYPE: Final = re.compile(r"\s*([\w.+-]+/[\w.+-]+)\s*(?:;.*?\bcharset\s*=\s*\"?([\w.-]+))?", re.IGNORECASE)
_JSON: Final = re.compile(r"application/(?:[\w.-]+\+)?json")
_TEXT: Final = re.compile(r"text/.+|application/(?:xml|[\w.-]+\+xml|x-www-form-urlencoded|javascript)")
# One page of the list of operations.
MAX_LISTED_OPERATIONS: Final = 100
MAX_LISTED_BYTES: Final = 1_000_000
# Some parsers of bots stop at 64 levels, and our answer adds two.
_MOST_LEVELS: Final = 60
# Not every codec of Python's: some of them decode what is no text.
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "iso-8859-1", "windows-1252"})


@bot_call(BotKey.Scope.API_CALL)
def list_operations(call: Call) -> Answer:
    """`GET /operations`: what this key can call. Where a request goes, its method and path, is not told."""
    found = operations_of(call, _after(call), MAX_LISTED_OPERATIONS + 1)
    are_reused = call.bot_key.brand.reuses_conversation_ids
    page = list(_page(_listed(operation, ids_are_reused=are_reused) for operation in found[:MAX_LISTED_OPERATIONS]))
    return 200, {"operations": page, "next_after": found[len(page) - 1].name if len(page) < len(found) else None}


def _after(call: Call) -> str:
    query = call.query("after")
    if "after" not in query:
        return ""
    try:
        Operation._meta.get_field("name").clean(query["after"], None)  # its length, too
    except ValidationError:
        detail = "after is the next_after of the page before, the name of an operation."
        raise Problem(422, "invalid_after", detail) from None
    return query["after"]


def _page(listed: Iterable[dict[str, Any]]) -> Iterator[msgspec.Raw]:
    """Yield the first one, and of the others as many as fit: one operation can have 128 KB of schemas."""
    total = 0
    for one in listed:
        text = msgspec.json.encode(one)
        if total and total + len(text) > MAX_LISTED_BYTES:
            return
        total += len(text)
        yield msgspec.Raw(text)


def _listed(operation: Operation, *, ids_are_reused: bool) -> dict[str, Any]:
    is_read_only = operation.method in SAFE_METHODS
    return {
        "name": operation.name,
        "description": operation.description or None,
        "input_schema": input_schema(operation),
        "read_only": is_read_only,
        "session_required": ids_are_reused and not is_read_only,
    }


@bot_call(BotKey.Scope.API_CALL)
def call_operation(call: Call, conversation_id: str, operation: str) -> Answer:
    """`POST /conversations/{conversation_id}/calls/{operation}`.

    With `challenge`, and the scope `challenge:create`, the answer is a challenge if the conversation has no token that
    fits. The same call does the operation after the sign-in.
    """
    call.query()
    body = call.body(CallBody, MAX_CALL_BODY_BYTES)
    purpose = purpose_of(call, body.purpose)
    called = operation_of(call, operation)
    request = request_of(Declaration.of(called), body)
    if body.challenge is not None:
        refuse_missing_scopes(call.bot_key, (BotKey.Scope.API_CALL, BotKey.Scope.CHALLENGE_CREATE))
        wanted = _challenge(called, body)
        return _called_or_challenged(call, conversation_id, _Wanted(called, request, purpose), wanted)
    # An operation that changes something, late or repeated, must not act for the next person (P12).
    changes = called.method not in SAFE_METHODS
    conversation = open_conversation_of(call, conversation_id, named_session(body.session), ends=changes)
    access_token = token_to_present(conversation, called.api.authorization_server, timezone.now())
    return _called(call, access_token, _Wanted(called, request, purpose))


@dataclass(frozen=True)
class _Wanted:
    """What is to be sent to the brand's API, and what for."""

    operation: Operation
    request: ResourceRequest
    purpose: str


def request_of(declared: Declaration, body: CallBody) -> ResourceRequest:
    """Check the arguments and build the request. Raises `Problem`. Count the call first (P14)."""
    try:
        return request_for(declared, body.arguments, body.body)
    except ArgumentsInvalid as error:
        raise Problem(422, "arguments_invalid", error.reason, pointer=error.pointer) from None


def _called(call: Call, access_token: AccessToken, wanted: _Wanted) -> Answer:
    caller = Caller(call.bot_key.pk, call.actor, wanted.purpose)
    response = call_api(wanted.operation, wanted.request, access_token, caller)
    conversation = access_token.conversation
    return 200, document(conversation.external_id, conversation.session, wanted.operation.name, response)


def _called_or_challenged(call: Call, conversation_id: str, wanted: _Wanted, asked: ChallengeBody) -> Answer:
    """Do the operation, or answer 202 with the open challenge, as `authorize` does. If there is none, create one."""
    session = named_session(asked.session)
    conversation = conversation_unless_closed(call, conversation_id, session)
    challenge = wanted_challenge(call, asked)
    if conversation is not None:
        if wanted.operation.method not in SAFE_METHODS:
            refuse_unnamed_session(conversation, session)
        access_token = usable_token(conversation, challenge, 0, timezone.now())
        if access_token is not None:
            with suppress(WrongAuthorizationStatus, ApiHostChanged, StepUpRequired):
                return _called(call, access_token, wanted)
    created, _ = issue_challenge(call.bot_key.brand, conversation_id, challenge, actor=call.actor, now=timezone.now())
    return issued(created, timezone.now(), status=202)


def _challenge(operation: Operation, body: CallBody) -> ChallengeBody:
    """Return the challenge that leads to this operation: at its authorization server, with its scope."""
    wanted = body.challenge or ChallengeBody()
    server = operation.api.authorization_server
    if wanted.authorization_server not in {"", server.key}:
        detail = f"This operation needs a token of the authorization server {server.key}."
        raise Problem(422, "authorization_server_unknown", detail)
    if None not in {wanted.session, body.session} and wanted.session != body.session:
        raise Problem(422, "invalid_session", "The call and its challenge name different sessions.")
    scope = wanted.scope and " ".join(dict.fromkeys([*wanted.scope.split(), *operation.scope.split()]))
    session = wanted.session if body.session is None else body.session
    return msgspec.structs.replace(wanted, authorization_server=server.key, scope=scope, session=session)


def document(conversation_id: str, session: int, operation: str, response: ResourceResponse) -> dict[str, Any]:
    """Build the answer to a call."""
    return {
        "conversation_id": conversation_id,
        "session": session,
        "operation": operation,
        "response": representation(response),
    }


def representation(response: ResourceResponse) -> dict[str, Any]:
    """Return what the brand's API said, as bots get it: its status, chosen headers, and the body in its encoding."""
    given = {name.lower(): value for name, value in response.headers.items()}
    headers = {name: given[name] for name in _PASSED_ON if name in given}
    encoding, body = _body(response)
    return {
        "status": response.status,
        # A header with other bytes is left out: in a log or a terminal they could be more than a text.
        "headers": {
            name: value
            for name, value in headers.items()
            if len(value) <= _MAX_HEADER_LENGTH and _PRINTABLE.fullmatch(value)
        },
        "body_encoding": encoding,
        "body": body,
    }


def _body(response: ResourceResponse) -> tuple[str, Any]:
    """Return the body as JSON if it is JSON, else as text, else in base64; and the name of that."""
    if not response.body or response.status == HTTPStatus.NO_CONTENT:
        return "none", None
    read = _MEDIA_TYPE.match(response.headers.get("Content-Type", ""))
    media_type, charset = (read[1].lower(), (read[2] or "utf-8").lower()) if read else ("", "")
    if _JSON.fullmatch(media_type) and _is_json(body := response.body.removeprefix(b"\xef\xbb\xbf")):
        # As it came, so that numbers keep their digits.
        return "json", msgspec.Raw(body)
    if (_JSON.fullmatch(media_type) or _TEXT.fullmatch(media_type)) and charset in _CHARSETS:
        try:
            return "text", response.body.decode(charset)
        except UnicodeDecodeError:
            pass
    return "base64", base64.b64encode(response.body).decode()


def _is_json(body: bytes) -> bool:
    """Whether every bot can read this as JSON. One whose parser gives up would not know that the call was made."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    # Few brackets cannot be many levels: most answers are not walked through.
    return body.count(b"[") + body.count(b"{") <= _MOST_LEVELS or not is_deeper(value, _MOST_LEVELS)
