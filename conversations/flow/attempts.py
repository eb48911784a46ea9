"""Attempts: begun by the button, recognised by state and cookie, claimed once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final
from uuid import UUID, uuid4

from django.db import models

from brands.models import AuthorizationServer
from conversations.flow.events import ConversationEvent, record
from conversations.flow.transitions import locked_conversation, move_challenge
from conversations.models import (
    COOKIE_PREFIX,
    AccessToken,
    AuthorizationRequest,
    Challenge,
    ChallengeStatus,
    Conversation,
)
from infrastructure.audit import CONSUMER
from infrastructure.compiled import (
    CompiledInsert,
    CompiledQuery,
    CompiledRows,
    CompiledUpdate,
    Parameter,
    numbered,
    placeholders,
)
from infrastructure.crypto import Secret, key_ring, random_token, s256_code_challenge

# Dropping the oldest keeps a scanner that posts our form from locking the consumer out (B8).
MAX_ATTEMPTS = 10
# Why such an attempt ended; no server's word.
DROPPED = "dropped"
# Another account than the bot named signed in. Its challenge says `subject_mismatch`, as of another one than before.
UNEXPECTED_SUBJECT = "unexpected_subject"
# Each takes 93 bytes of a header that may have 8,190: beyond that gunicorn answers 431 to every page.
MAX_COOKIES = 40
# A proxy reads the headers of an answer into one small buffer, which the address at the brand shares with these.
MAX_EXPIRED_AT_ONCE = 10
MAX_COOKIES_LOOKED_UP = 200
MIN_COOKIE_LIFETIME = timedelta(minutes=5)

_COOKIE_NAME = re.compile(COOKIE_PREFIX + r"([0-9a-f]{32})")
_STATE, _COOKIE, _NONCE = "state", "attempt-cookie", "nonce"

_CURRENT_CHALLENGE: Final = CompiledQuery(
    lambda: Challenge.objects.filter(pk=Parameter("pk", models.BigIntegerField())).order_by()
)
_ATTEMPTS: Final = CompiledQuery(
    lambda: (
        AuthorizationRequest.objects.filter(challenge_id=Parameter("challenge", models.BigIntegerField()))
        .order_by("-id")
        .only("claimed_at", "finished_at")
    )
)
_OF_CHALLENGE: Final = CompiledQuery(
    lambda: (
        AuthorizationRequest.objects.filter(challenge_id=Parameter("challenge", models.BigIntegerField()))
        .order_by("-id")
        .only("uuid", "challenge_id", "cookie_digest", "claimed_at", "finished_at", "error")
    )
)
_NEW_ATTEMPT: Final = CompiledInsert(AuthorizationRequest)
_NOW: Final = Parameter("now", models.DateTimeField())
_THIS: Final = AuthorizationRequest.objects.filter(pk=Parameter("pk", models.BigIntegerField()))
_UNFINISHED: Final = _THIS.filter(finished_at=None)
# A subquery on the other table, never a join: for an UPDATE with a join Django moves the whole condition into a
# subquery on this table, which PostgreSQL does not evaluate again after waiting for another claim: two would win.
_CLAIM: Final = CompiledUpdate(
    lambda: _UNFINISHED.filter(
        claimed_at=None,
        challenge__in=Challenge.objects.filter(status=ChallengeStatus.STARTED, expires_at__gt=_NOW),
    ),
    claimed_at=_NOW,
)
_RELEASE: Final = CompiledUpdate(lambda: _UNFINISHED, claimed_at=None)
_FINISH: Final = CompiledUpdate(
    lambda: _THIS,
    finished_at=_NOW,
    error=Parameter("error", models.CharField()),
    nonce_digest=None,
    code_verifier_ciphertext=None,
)
_AS_IT_STANDS: Final = CompiledQuery(lambda: _THIS.select_related("challenge").order_by())
_EXPIRIES: Final = CompiledRows(
    lambda: (
        AccessToken.objects.filter(challenge_id=Parameter("challenge", models.BigIntegerField()))
        .order_by()
        .values_list("expires_at")
    )
)


@dataclass(frozen=True)
class BegunAttempt:
    """A fresh attempt, what its authorization request says, and the cookie that the browser must bring back."""

    attempt: AuthorizationRequest
    parameters: dict[str, str] = field(repr=False)
    cookie: Secret


class Returned(StrEnum):
    """What the browser came back with: the authorization response (RFC 6749 section 4.1.2) has a code or an error."""

    CODE = "code"
    ERROR = "error"


def begin_attempt(challenge: Challenge, now: datetime) -> BegunAttempt | None:
    """Begin a fresh attempt with its own state, nonce, verifier and cookie (B1).

    Returns None where the challenge no longer accepts a sign-in.
    """
    if not challenge.accepts_sign_in(now):
        return None
    with locked_conversation(challenge.conversation_id) as conversation:
        current = _CURRENT_CHALLENGE.first(pk=challenge.pk)
        if current is None or not current.accepts_sign_in(now):
            return None
        # The server as it was read a moment ago: a callback asks anew whether its configuration is still that one (C4).
        current.conversation, current.authorization_server = conversation, challenge.authorization_server
        _drop_oldest_attempts(current, now)
        begun = _insert_attempt(current, now)
        move_challenge(
            current, ChallengeStatus.STARTED, now=now, actor=CONSUMER, from_statuses=(ChallengeStatus.ISSUED,)
        )
    return begun


def attempt_of_state(server: AuthorizationServer, state: str) -> AuthorizationRequest | None:
    """Return the attempt of this state if it was begun at this very server.

    A state of one brand at the path of another is unknown (C1).
    """
    digests = key_ring().digests(_STATE, state)
    return _of_state(len(digests)).first(server=server.pk, **numbered("digest", digests))


@lru_cache(maxsize=8)
def _of_state(digests: int) -> CompiledQuery[AuthorizationRequest]:
    """Return the query for so many digests, one for each key of the ring."""
    attempts = AuthorizationRequest.objects.filter(
        state_digest__in=placeholders("digest", models.BinaryField(), digests),
        challenge__authorization_server=Parameter("server", models.BigIntegerField()),
    )
    return CompiledQuery(lambda: attempts.select_related("challenge__conversation__brand").order_by())


def holds_cookie(attempt: AuthorizationRequest, cookies: Mapping[str, str]) -> bool:
    """Tell whether this browser began the attempt (B3)."""
    cookie = cookies.get(attempt.cookie_name, "")
    return key_ring().recognises(attempt.cookie_digest, _COOKIE, attempt.uuid.bytes, cookie)


def held_attempts(challenge: Challenge, cookies: Mapping[str, str]) -> list[AuthorizationRequest]:
    """Return this browser's attempts at the challenge, the successful one first, then the newest.

    Looked up by the challenge, which has few, and not by the names that the browser sends: those are many where
    somebody is a regular customer, and the oldest come first. A browser without a cookie of ours costs no look (G9).
    """
    if not _attempts_named_by(cookies):
        return []
    held = [attempt for attempt in _OF_CHALLENGE.all(challenge=challenge.pk) if holds_cookie(attempt, cookies)]
    for attempt in held:
        attempt.challenge = challenge
    return sorted(held, key=lambda attempt: (not attempt.succeeded, -attempt.pk))


def newest_held_attempt(server: AuthorizationServer, cookies: Mapping[str, str]) -> AuthorizationRequest | None:
    """Return this browser's newest attempt at the server, of a challenge that is not forgotten.

    For an answer whose state names none. Without a cookie of an attempt the database is not asked (G9).
    """
    named = _attempts_named_by(cookies)
    if not named:
        return None
    uuids = list(named.values())[-MAX_COOKIES_LOOKED_UP:]
    at_server = AuthorizationRequest.objects.filter(uuid__in=uuids, challenge__authorization_server=server)
    newest_first = at_server.select_related("challenge__conversation__brand").order_by("-pk")
    return next((attempt for attempt in newest_first if holds_cookie(attempt, cookies)), None)


def is_tried_again(challenge: Challenge) -> bool:
    """Tell whether somebody is under way with a newer attempt than the one that failed last."""
    newest = challenge.authorization_requests.order_by("-pk").only("finished_at").first()
    return newest is not None and newest.finished_at is None


def cookies_to_expire(cookies: Mapping[str, str], now: datetime) -> list[str]:
    """Return the names of the cookies that a browser is to forget at the next press, the useless ones first (B3).

    Useless is one whose attempt failed, was dropped, cannot come back any more, or whose token has ended; a name that
    is not this browser's attempt, too. Of others the oldest go where a browser would have more than `MAX_COOKIES`
    with its new one, and those that can still be undone last. A browser without a cookie of ours costs no look.
    """
    named = _attempts_named_by(cookies)
    if not named:
        return []
    rows = AuthorizationRequest.objects.filter(uuid__in=list(named.values())[:MAX_COOKIES_LOOKED_UP])
    held = {attempt.cookie_name: attempt for attempt in _with_their_ends(rows) if holds_cookie(attempt, cookies)}
    useful = [attempt for attempt in held.values() if not attempt.is_over(now)]
    useless = named.keys() - {attempt.cookie_name for attempt in useful}
    useful.sort(key=lambda attempt: (attempt.succeeded, attempt.pk))
    too_many = [attempt.cookie_name for attempt in useful[: max(len(useful) + 1 - MAX_COOKIES, 0)]]
    return [*(name for name in named if name in useless), *too_many][:MAX_EXPIRED_AT_ONCE]


def nonce_matches(attempt: AuthorizationRequest, nonce: str) -> bool:
    """Compare an ID token's nonce with the attempt's (OpenID Connect Core section 3.1.3.7, step 11)."""
    return key_ring().recognises(attempt.nonce_digest, _NONCE, attempt.uuid.bytes, nonce)


def claim(attempt: AuthorizationRequest, now: datetime) -> bool:
    """Claim the attempt for its one exchange: of any number of concurrent callbacks exactly one gets True (B10)."""
    if _CLAIM.run(pk=attempt.pk, now=now) != 1:
        return False
    attempt.claimed_at = now
    return True


def release(attempt: AuthorizationRequest) -> None:
    """Give a claim back that nothing was done with: the same callback works a moment later."""
    _RELEASE.run(pk=attempt.pk)
    attempt.claimed_at = None


def reloaded(attempt: AuthorizationRequest) -> AuthorizationRequest:
    return _AS_IT_STANDS.get(pk=attempt.pk)


def cookie_lifetime(attempt: AuthorizationRequest, now: datetime) -> int:
    """Return how many seconds the cookie lives: until the challenge ends, and at least 5 minutes (B3).

    After a success it lives as long as the token: for as long as that there is something to undo.
    """
    moments = [now + MIN_COOKIE_LIFETIME, attempt.challenge.expires_at]
    if attempt.succeeded:
        moments += [expires_at for (expires_at,) in _EXPIRIES.rows(challenge=attempt.challenge_id)]
    return int((max(moments) - now).total_seconds())


def finish_attempt(attempt: AuthorizationRequest, now: datetime, error: str = "") -> None:
    """Write the attempt's result and erase what only its exchange needed (K7). The state's digest stays (B11)."""
    _FINISH.run(pk=attempt.pk, now=now, error=error)


def record_return(attempt: AuthorizationRequest, conversation: Conversation, returned: Returned, now: datetime) -> None:
    """Record the callback, at the moment of its claim. In the transaction of its result, which saves a commit."""
    record(
        ConversationEvent.AUTHORIZATION_REQUEST_RETURNED,
        conversation,
        now=attempt.claimed_at or now,
        actor=CONSUMER,
        outcome=returned,
        challenge=attempt.challenge,
    )


def _insert_attempt(challenge: Challenge, now: datetime) -> BegunAttempt:
    state, cookie, nonce, code_verifier = random_token(), random_token(), random_token(), random_token(48)
    configuration = challenge.authorization_server.configuration(challenge.scope)
    attempt = AuthorizationRequest(
        uuid=uuid4(), challenge=challenge, configuration=configuration.to_json(), created_at=now
    )
    ring = key_ring()
    attempt.state_digest = ring.digest(_STATE, state)
    attempt.cookie_digest = ring.digest(_COOKIE, attempt.uuid.bytes, cookie)
    attempt.nonce_digest = ring.digest(_NONCE, attempt.uuid.bytes, nonce)
    attempt.set_code_verifier(Secret(code_verifier))
    _NEW_ATTEMPT.insert(attempt)
    parameters = {"state": state, "nonce": nonce, "code_challenge": s256_code_challenge(code_verifier)}
    return BegunAttempt(attempt, parameters, Secret(cookie))


def _attempts_named_by(cookies: Mapping[str, str]) -> dict[str, UUID]:
    """Return the cookies of a browser that are named as ours are, in the browser's order, and their attempts."""
    matches = [match for name in cookies if (match := _COOKIE_NAME.fullmatch(name))]
    return {match[0]: UUID(hex=match[1]) for match in matches}


def _with_their_ends(attempts: models.QuerySet[AuthorizationRequest]) -> models.QuerySet[AuthorizationRequest]:
    """Read with attempts what tells whether they are over, in the same query, and nothing else."""
    of_challenge = [f"challenge__{name}" for name in ("status", "expires_at")]
    of_token = [f"challenge__access_token__{name}" for name in ("ended_at", "end_reason", "expires_at")]
    own = ("uuid", "cookie_digest", "claimed_at", "finished_at", "error")
    return attempts.select_related("challenge__access_token").only(*own, *of_challenge, *of_token)


def _drop_oldest_attempts(challenge: Challenge, now: datetime) -> None:
    """Keep the number of attempts that can still be exchanged below the cap, and that of all rows within bounds.

    A dropped attempt's row stays for a while: a consumer who was pushed out by a scanner is offered another try when
    she comes back, and is not told that her link is dead.
    """
    attempts = _ATTEMPTS.all(challenge=challenge.pk)
    unfinished = [attempt for attempt in attempts if attempt.claimed_at is None and attempt.finished_at is None]
    for attempt in unfinished[MAX_ATTEMPTS - 1 :]:
        finish_attempt(attempt, now, DROPPED)
    if over := [attempt.pk for attempt in attempts if attempt.finished_at is not None][MAX_ATTEMPTS * 5 :]:
        AuthorizationRequest.objects.filter(pk__in=over).exclude(error="").delete()
