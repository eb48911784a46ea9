"""`GET /challenges/{challenge_id}` before Django's handler, with or without `wait`: from one row to the answer.

tests/fuzz/test_fast_challenge_read.py holds this and the full way, which is `views.read_challenge`, together.
"""

import re
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from django.utils import timezone

from brands.authentication import PresentedKey
from brands.models import BotKey
from conversations.api.calls import count_call, holds_scope, seconds
from conversations.api.conditional import entity_tag, matches_entity_tag
from conversations.api.fast_bodies import Reply
from conversations.api.fast_reads import presented_read
from conversations.api.lookups import is_challenge_id
from conversations.api.waiting import MAX_WAIT_SECONDS, can_change, in_turn, retry_after, wait_for_change
from conversations.flow.readable_challenges import ReadableChallenge, challenge_by_one_query
from web.answered_before import COUNTED_BEFORE

_PARAMETERS: Final = {"wait", "session"}
_IF_NONE_MATCH: Final = "HTTP_IF_NONE_MATCH"


def prepared(environ: dict[str, Any], path: re.Match[str]) -> Callable[[], Reply | None] | None:
    """Return what answers this request; None if it is no read, or one that the full way has to judge."""
    challenge_id, read = path["challenge"], presented_read(environ, _PARAMETERS)
    if read is None or not is_challenge_id(challenge_id):
        return None
    presented, query = read
    wait = seconds(query.get("wait", "0"), MAX_WAIT_SECONDS)
    if wait is None:
        return None
    return lambda: _answer(environ, presented, UUID(challenge_id), wait, query.get("session"))


def _answer(
    environ: dict[str, Any], presented: PresentedKey, uuid: UUID, wait: int, session: str | None
) -> Reply | None:
    """Return the answer; None if the full way has to find the reason.

    Then nothing is counted, unless the call has waited. Raises what counting, decryption and the database raise.
    """
    now = timezone.now()
    with in_turn() if wait else nullcontext():
        found = _readable(presented, uuid, now)
    # Another session, or one that is written otherwise (S3).
    if found is None or session not in {None, str(found.row.session)}:
        return None
    count_call(presented.public_id, found.row.key_calls_per_minute)
    reply, is_unchanged = _reply(environ, found, now)
    has_missed_change = _IF_NONE_MATCH in environ and not is_unchanged
    if not wait or not can_change(found.row, now) or has_missed_change:
        return reply
    if not wait_for_change(found.row, found.row.brand_pk, wait):
        return reply._replace(headers=(*reply.headers, *retry_after().items()))
    # The key may have been revoked. If so, the full way says it, and neither counts nor waits again.
    environ |= {COUNTED_BEFORE: True, "QUERY_STRING": ""}
    now = timezone.now()
    with in_turn():
        again = _readable(presented, uuid, now)
    return None if again is None else _reply(environ, again, now)[0]


def _readable(presented: PresentedKey, uuid: UUID, now: datetime) -> ReadableChallenge | None:
    """Find the challenge, and record the key's use; None if this key may not read it."""
    found = challenge_by_one_query(presented, uuid, now)
    if found is None or not holds_scope(found.row.key_scopes, BotKey.Scope.CHALLENGE_READ):
        return None
    presented.note_use(found.key, now)
    return found


def _reply(environ: dict[str, Any], found: ReadableChallenge, now: datetime) -> tuple[Reply, bool]:
    """Return the answer, and whether the bot has it already. Then it is 304 (RFC 9110 section 15.4.5)."""
    representation = found.representation(now)
    tag = entity_tag(representation)
    is_unchanged = matches_entity_tag(environ.get(_IF_NONE_MATCH, ""), tag)
    status = "304 Not Modified" if is_unchanged else "200 OK"
    return Reply(msgspec.json.encode(representation), status, (("ETag", tag),)), is_unchanged
