"""`POST .../challenges` of a new chat before Django's handler: from the request's fields and one row to the answer.

tests/fuzz/test_fast_create.py holds this and the full way, which is `views.create_challenge`, together.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
from django.db import IntegrityError
from django.utils import timezone

from brands.authentication import PresentedKey
from brands.models import BotKey, may_use_check
from conversations.api.calls import (
    MAX_BODY_BYTES,
    ChallengeBody,
    count_call,
    holds_scope,
    idempotent_request,
)
from conversations.api.conditional import entity_tag
from conversations.api.fast_bodies import Reply, is_post_of_json, read_json
from conversations.api.lookups import is_conversation_id, only_one
from conversations.api.views import link_members, wishes_in
from conversations.flow.authorization_status import ChallengePlace, representation_of
from conversations.flow.errors import FlowError
from conversations.flow.first_challenges import (
    FirstChallenge,
    ServerRow,
    first_by_one_query,
    issue_first_challenge,
    knows_all_digests,
)
from conversations.flow.idempotency import IdempotentRequest
from conversations.flow.new_challenges import Judged, Wishes, url_of_link
from web.answered_before import COUNTED_BEFORE
from web.errors import Problem

_IDEMPOTENCY_KEY: Final = "HTTP_IDEMPOTENCY_KEY"
_body_decoder: Final = msgspec.json.Decoder(ChallengeBody)


class _Wanted(NamedTuple):
    """What is to be issued, and where."""

    server: ServerRow
    wishes: Wishes
    judged: Judged
    request: IdempotentRequest | None


def prepared(environ: dict[str, Any], path: re.Match[str]) -> Callable[[], Reply | None] | None:
    """Return what answers this request; None if it creates nothing, or the full way has to judge it."""
    conversation_id = path[1]
    presented = PresentedKey.read(environ.get("HTTP_AUTHORIZATION", ""))
    if (
        presented is None
        or not is_post_of_json(environ, MAX_BODY_BYTES)
        or not is_conversation_id(conversation_id)
        or (_IDEMPOTENCY_KEY in environ and not knows_all_digests())
    ):
        return None
    return lambda: _answer(environ, presented, conversation_id)


def _answer(environ: dict[str, Any], presented: PresentedKey, conversation_id: str) -> Reply | None:
    """Return the answer; None if the full way has to find the reason. Then nothing is stored, and mostly not counted.

    Raises what counting and the database raise.
    """
    now = timezone.now()
    found = first_by_one_query(presented, conversation_id, now)
    if found is None or not holds_scope(found.servers[0].key_scopes, BotKey.Scope.CHALLENGE_CREATE):
        return None
    wanted = _wanted(environ, found)
    if wanted is None:
        return None
    presented.note_use(found.key, now)
    count_call(presented.public_id, found.servers[0].key_calls_per_minute)
    server, wishes, judged, request = wanted
    try:
        challenge, link_token = issue_first_challenge(
            server, conversation_id, wishes, judged, actor=f"bot:{presented.public_id}", now=now, request=request
        )
    except IntegrityError:
        # Another call has just created the conversation, or has used this idempotency key.
        environ[COUNTED_BEFORE] = True
        return None
    place = ChallengePlace(conversation_id, challenge.conversation.session, server.key)
    representation = representation_of(challenge, place, wishes.context, now)
    link = link_members(url_of_link(link_token), server.brand_name, wishes.locale)
    headers = (("ETag", entity_tag(representation)),)
    return Reply(msgspec.json.encode(representation | link), "201 Created", headers)


def _wanted(environ: dict[str, Any], found: FirstChallenge) -> _Wanted | None:
    """Read the body and apply the rules; None if the full way has to say what is wrong."""
    body = read_json(environ, _body_decoder)
    if body is None:
        return None
    try:
        server = only_one(found.servers, body.authorization_server)
        checks_of_key = msgspec.json.decode(server.checks_of_key, type=list[str])
        wishes = Wishes(**wishes_in(body))
        judged = wishes.judged_at(server, partial(may_use_check, checks_of_key))
        request = idempotent_request(environ.get(_IDEMPOTENCY_KEY), body)
    except (Problem, FlowError, msgspec.DecodeError):
        return None
    return _Wanted(server, wishes, judged, request) if wishes.session in {None, 1} else None
