"""Create authorization requests, find them by state and cookie, claim them once, and record their end."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from django.db import models, transaction
from django.db.models import Count, F, OuterRef, Subquery
from django.db.models.functions import Coalesce

from brands.models import AuthorizationServer
from conversations.flow.events import ConversationEvent, record, webhooks_of
from conversations.flow.transitions import lock_conversation, start_challenge
from conversations.models import (
    COOKIE_PREFIX,
    AuthorizationRequest,
    Challenge,
    ChallengeStatus,
    Conversation,
)
from infrastructure.audit import CONSUMER
from infrastructure.compiled import (
    CompiledInsert,
    CompiledQuery,
    CompiledUpdate,
    Parameter,
    numbered,
    placeholders,
    unsaved,
)
from infrastructure.crypto import Secret, key_ring, random_token, s256_code_challenge
from oauth_client.dpop import ProofKey, new_proof_key

# Limit for the authorization requests of a challenge that still wait for their callback. Beyond it the oldest one is
# ended with the error `dropped`, and its row stays. So a scanner that posts our form cannot lock the consumer out (B8).
MAX_PENDING_REQUESTS = 10
# How many ended requests of a challenge are kept. Successful ones are never deleted here.
MAX_FINISHED_ROWS = 5 * MAX_PENDING_REQUESTS
# Error of a dropped authorization request. This code is ours, not a server's.
DROPPED = "dropped"
# Error if the consumer signed in with another account than the one that the bot named. The challenge's error is then
# `subject_mismatch`.
UNEXPECTED_SUBJECT = "unexpected_subject"
# A cookie takes 93 bytes of the Cookie header. gunicorn answers 431 to every page if the header exceeds 8,190 bytes.
MAX_COOKIES = 40
# Each expired cookie adds a header to the redirect. Proxies read all headers of a response, including the long Location
# header, into one small buffer.
MAX_EXPIRED_AT_ONCE = 10
MAX_COOKIES_LOOKED_UP = 200
MIN_COOKIE_LIFETIME = timedelta(minutes=5)

_COOKIE_NAME = re.compile(COOKIE_PREFIX + r"([0-9a-f]{32})")
# Labels of the digests. "attempt" is an older name of the authorization request: another label would invalidate
# digests.
_STATE, _COOKIE, _NONCE = "state", "attempt-cookie", "nonce"

# Columns of the server that no sign-in reads. One of JSON costs as much as several of text. If one is asked for after
# all, it is read with a query of its own.
NOT_OF_SIGN_INS: Final = tuple(
    f"authorization_server__{name}"
    for name in (
        *("ignored_metadata", "signing_key_jwk", "previous_signing_key_jwk", "scope", "scope_descriptions"),
        *("same_person_checks", "subject_claim", "expected_claims_policy", "chat_page_url", "usual_token_lifetime"),
    )
)
OF_DEMAND: Final = ("acr_values", "max_age")
OF_CONVERSATION: Final = tuple(f"conversation__{name}" for name in ("uuid", "session", "brand__uuid"))

_CURRENT_CHALLENGE: Final = CompiledQuery(
    lambda: (
        Challenge.objects.filter(pk=Parameter("pk", models.BigIntegerField()))
        .select_related("conversation__brand")
        .only("uuid", "authorization_server_id", "status", "error", "scope", "expires_at", *OF_DEMAND, *OF_CONVERSATION)
        .annotate(
            has_webhooks=webhooks_of("conversation__brand_id"),
            requests=Coalesce(Subquery(_requests_of(OuterRef("pk"))), 0),
        )
        .order_by()
    )
)
_TIMES_OF_CHALLENGE: Final = CompiledQuery(
    lambda: (
        AuthorizationRequest.objects.filter(challenge_id=Parameter("challenge", models.BigIntegerField()))
        .order_by("-id")
        .only("claimed_at", "finished_at")
    )
)
_REQUESTS_OF_CHALLENGE: Final = CompiledQuery(
    lambda: (
        AuthorizationRequest.objects.filter(challenge_id=Parameter("challenge", models.BigIntegerField()))
        .order_by("-id")
        .only("uuid", "challenge_id", "cookie_digest", "claimed_at", "finished_at", "error")
    )
)
_INSERT: Final = CompiledInsert(AuthorizationRequest)
_NOW: Final = Parameter("now", models.DateTimeField())
_ROW: Final = AuthorizationRequest.objects.filter(pk=Parameter("pk", models.BigIntegerField()))
_UNFINISHED: Final = _ROW.filter(finished_at=None)
# The challenge's condition is a subquery, never a join. With a join Django puts the whole condition, including
# claimed_at IS NULL, in a subquery. An UPDATE that has waited for another claim does not evaluate a subquery again, so
# two callbacks could both claim.
_CLAIM: Final = CompiledUpdate(
    lambda: _UNFINISHED.filter(
        claimed_at=None,
        challenge__in=Challenge.objects.filter(status=ChallengeStatus.STARTED, expires_at__gt=_NOW),
    ),
    claimed_at=_NOW,
)
_FINISH: Final = CompiledUpdate(
    lambda: _ROW,
    finished_at=_NOW,
    error=Parameter("error", models.CharField()),
    error_detail=Parameter("detail", models.CharField()),
    nonce_digest=None,
    code_verifier_ciphertext=None,
    dpop_key_ciphertext=None,
)
# What the redirect after a callback depends on.
_OF_RESULT: Final = ("uuid", "authorization_server_id", "status", "expires_at", "completion_handle_digest")
_RELOAD: Final = CompiledQuery(
    lambda: (
        _ROW.select_related("challenge")  # type: ignore[no-redef]  # the class says what the query sets
        .only("uuid", "finished_at", "error", *(f"challenge__{name}" for name in _OF_RESULT))
        .annotate(token_expires_at=F("challenge__access_token__expires_at"))
        .order_by()
    )
)


class Returned(StrEnum):
    """What the authorization response (RFC 6749 section 4.1.2) contained: a code or an error."""

    CODE = "code"
    ERROR = "error"


@dataclass(frozen=True)
class NewAuthorizationRequest:
    """A new row, the authorization endpoint's parameters, the browser's cookie, and the key of a DPoP token."""

    authorization_request: AuthorizationRequest
    parameters: dict[str, str] = field(repr=False)
    cookie: Secret
    proof_key: ProofKey | None


def begin_authorization_request(challenge: Challenge, now: datetime) -> NewAuthorizationRequest | None:
    """Insert an authorization request with its own state, nonce, code verifier and cookie (B1).

    Returns None if the challenge no longer accepts a sign-in.
    """
    if not challenge.accepts_sign_in(now):
        return None
    with transaction.atomic():
        lock_conversation(challenge.conversation_id)
        current: Any = _CURRENT_CHALLENGE.first(pk=challenge.pk)
        if current is None or not current.accepts_sign_in(now):
            return None
        current.conversation.has_webhooks = current.has_webhooks
        # The server was read a moment ago. The callback checks that its configuration has not changed since (C4).
        current.authorization_server = challenge.authorization_server
        if current.requests >= MAX_PENDING_REQUESTS:
            _drop_oldest_requests(current, now)
        begun = _insert(current, now)
        start_challenge(current, now)
    return begun


def _requests_of(challenge: Any) -> Any:
    """Return the query for the number of authorization requests of a challenge."""
    rows = AuthorizationRequest.objects.filter(challenge=challenge).order_by().values("challenge")
    return rows.annotate(number=Count("pk")).values("number")


def authorization_request_of_callback(callback_id: str, state: str) -> AuthorizationRequest | None:
    """Find the authorization request with this state, and its active server, by the server's redirect URI (C1).

    None if it was begun at another server: a state of one brand's server is unknown at the callback of another.
    """
    digests = key_ring().digests(_STATE, state)
    found = _by_state(len(digests)).first(callback_id=callback_id, **numbered("digest", digests))
    if found is not None:
        found.challenge.authorization_server.brand = found.challenge.conversation.brand
    return found


@lru_cache(maxsize=8)
def _by_state(digests: int) -> CompiledQuery[AuthorizationRequest]:
    """Compile the query for a number of digests: one for each key of the key ring."""
    server = "challenge__authorization_server"
    rows = AuthorizationRequest.objects.filter(
        **{
            "state_digest__in": placeholders("digest", models.BinaryField(), digests),
            f"{server}__callback_id": Parameter("callback_id", models.CharField()),
            f"{server}__is_active": True,
            f"{server}__brand": F("challenge__conversation__brand"),
            "challenge__conversation__brand__is_active": True,
        }
    )
    unread = [f"challenge__{name}" for name in NOT_OF_SIGN_INS]
    return CompiledQuery(
        lambda: rows.select_related("challenge__conversation__brand", server).defer(*unread).order_by()
    )


def holds_cookie(authorization_request: AuthorizationRequest, cookies: Mapping[str, str]) -> bool:
    """Whether one of the cookies shows that this browser began the authorization request (B3)."""
    cookie = cookies.get(authorization_request.cookie_name, "")
    return key_ring().recognises(authorization_request.cookie_digest, _COOKIE, authorization_request.uuid.bytes, cookie)


def authorization_requests_of_browser(challenge: Challenge, cookies: Mapping[str, str]) -> list[AuthorizationRequest]:
    """Return this browser's authorization requests for the challenge: the successful one first, then the newest.

    The query filters by challenge: a challenge has few authorization requests, while a returning customer's browser may
    hold many cookies, oldest first. A browser without a cookie of ours costs no query (G9).
    """
    if not _cookie_uuids(cookies):
        return []
    rows = [row for row in _REQUESTS_OF_CHALLENGE.all(challenge=challenge.pk) if holds_cookie(row, cookies)]
    for row in rows:
        row.challenge = challenge
    return sorted(rows, key=lambda row: (not row.succeeded, -row.pk))


def authorization_request_of_closed_conversation(
    link_token_digests: list[bytes], cookies: Mapping[str, str]
) -> AuthorizationRequest | None:
    """Return this browser's authorization request for a link of a conversation that was closed; None if it has none.

    One query, from the cookies: an unknown link and the closed one of somebody else cost the same (G9). A browser
    without a cookie of ours costs no query.
    """
    uuids = list(_cookie_uuids(cookies).values())[-MAX_COOKIES_LOOKED_UP:]
    if not uuids:
        return None
    rows = AuthorizationRequest.objects.filter(
        uuid__in=uuids,
        challenge__link_token_digest__in=link_token_digests,
        challenge__conversation__closed_at__isnull=False,
        challenge__conversation__brand__is_active=True,
        challenge__authorization_server__is_active=True,
    ).select_related("challenge__conversation__brand", "challenge__authorization_server")
    return next((row for row in rows if holds_cookie(row, cookies)), None)


def newest_authorization_request_of_browser(
    server: AuthorizationServer, cookies: Mapping[str, str]
) -> AuthorizationRequest | None:
    """Return the newest authorization request that this browser began at the server; None if none is stored.

    For a callback without a usable state. A browser without a cookie of ours costs no query (G9).
    """
    uuids = list(_cookie_uuids(cookies).values())[-MAX_COOKIES_LOOKED_UP:]
    if not uuids:
        return None
    at_server = AuthorizationRequest.objects.filter(uuid__in=uuids, challenge__authorization_server=server)
    newest_first = at_server.select_related("challenge__conversation__brand").order_by("-pk")
    return next((row for row in newest_first if holds_cookie(row, cookies)), None)


def retry_in_progress(challenge: Challenge) -> bool:
    """Whether the challenge's newest authorization request has not ended. Then the consumer is trying again."""
    newest = challenge.authorization_requests.order_by("-pk").only("finished_at").first()
    return newest is not None and newest.finished_at is None


def cookies_to_expire(cookies: Mapping[str, str], now: datetime) -> list[str]:
    """Return the names of at most `MAX_EXPIRED_AT_ONCE` cookies that the browser is to delete, useless ones first (B3).

    A cookie is useless if its row is gone or its value is wrong, if the exchange failed, if the challenge no longer
    accepts a sign-in, or if the token has ended. The browser keeps at most `MAX_COOKIES`, the new cookie included. If
    there are more, the oldest are expired too. Cookies of successful sign-ins, which can still be undone, are expired
    last. A browser without a cookie of ours costs no query.
    """
    named = _cookie_uuids(cookies)
    if not named:
        return []
    rows = AuthorizationRequest.objects.filter(uuid__in=list(named.values())[:MAX_COOKIES_LOOKED_UP])
    held = [row for row in _for_cookie_check(rows) if holds_cookie(row, cookies)]
    useful = [row for row in held if not row.cookie_is_useless(now)]
    useful.sort(key=lambda row: (row.succeeded, row.pk))
    useless = named.keys() - {row.cookie_name for row in useful}
    too_many = [row.cookie_name for row in useful[: max(len(useful) + 1 - MAX_COOKIES, 0)]]
    return [*(name for name in named if name in useless), *too_many][:MAX_EXPIRED_AT_ONCE]


def nonce_matches(authorization_request: AuthorizationRequest, nonce: str) -> bool:
    """Whether an ID token's nonce is the one we sent (OpenID Connect Core section 3.1.3.7, step 11)."""
    return key_ring().recognises(authorization_request.nonce_digest, _NONCE, authorization_request.uuid.bytes, nonce)


def claim(authorization_request: AuthorizationRequest, now: datetime) -> bool:
    """Claim the exchange. If several callbacks run at once, exactly one gets True (B10)."""
    if _CLAIM.run(pk=authorization_request.pk, now=now) != 1:
        return False
    authorization_request.claimed_at = now
    return True


def release(authorization_request: AuthorizationRequest) -> None:
    """Undo a claim, so that the same callback works a moment later. Call it only if the code has not been sent yet."""
    AuthorizationRequest.objects.filter(pk=authorization_request.pk, finished_at=None).update(claimed_at=None)
    authorization_request.claimed_at = None


def reloaded(authorization_request: AuthorizationRequest) -> AuthorizationRequest:
    return _RELOAD.get(pk=authorization_request.pk)


def cookie_lifetime(authorization_request: AuthorizationRequest, now: datetime) -> int:
    """Return the cookie's lifetime in seconds: until the challenge ends, and at least 5 minutes (B3).

    After a success the cookie lasts as long as the token, so that this browser can undo the sign-in. The row must have
    been `reloaded` then.
    """
    moments = [now + MIN_COOKIE_LIFETIME, authorization_request.challenge.expires_at]
    if authorization_request.succeeded and authorization_request.token_expires_at:
        moments.append(authorization_request.token_expires_at)
    return int((max(moments) - now).total_seconds())


def finish_authorization_request(
    authorization_request: AuthorizationRequest, now: datetime, error: str = "", detail: str = ""
) -> None:
    """Store the result. Erase the nonce's digest, code verifier and DPoP key, which only the exchange needed (K7).

    The state's digest stays, so that a repeated callback is recognised (B11).
    """
    _FINISH.run_later(pk=authorization_request.pk, now=now, error=error, detail=detail)


def record_return(
    authorization_request: AuthorizationRequest, conversation: Conversation, returned: Returned, now: datetime
) -> None:
    """Record the callback at the moment of its claim. Runs in the transaction of the result, which saves a commit."""
    record(
        ConversationEvent.AUTHORIZATION_REQUEST_RETURNED,
        conversation,
        now=authorization_request.claimed_at or now,
        actor=CONSUMER,
        outcome=returned,
        challenge=authorization_request.challenge,
    )


def _insert(challenge: Challenge, now: datetime) -> NewAuthorizationRequest:
    state, cookie, nonce, code_verifier = random_token(), random_token(), random_token(), random_token(48)
    configuration = challenge.authorization_server.configuration(challenge.scope, challenge.demand)
    authorization_request = unsaved(
        AuthorizationRequest, challenge=challenge, configuration=configuration.to_json(), created_at=now
    )
    ring = key_ring()
    authorization_request.state_digest = ring.digest(_STATE, state)
    authorization_request.cookie_digest = ring.digest(_COOKIE, authorization_request.uuid.bytes, cookie)
    authorization_request.nonce_digest = ring.digest(_NONCE, authorization_request.uuid.bytes, nonce)
    authorization_request.set_code_verifier(Secret(code_verifier))
    authorization_request.set_proof_key(proof_key := new_proof_key(configuration))
    if configuration.pushed_authorization_request_endpoint:
        _INSERT.insert(authorization_request)  # if the push fails, the row is found by its number
    else:
        _INSERT.insert_later(authorization_request)
    parameters = {"state": state, "nonce": nonce, "code_challenge": s256_code_challenge(code_verifier)}
    return NewAuthorizationRequest(authorization_request, parameters, Secret(cookie), proof_key)


def _cookie_uuids(cookies: Mapping[str, str]) -> dict[str, UUID]:
    """Map the names of our cookies, in the browser's order, to the UUIDs of authorization requests."""
    matches = [match for name in cookies if (match := _COOKIE_NAME.fullmatch(name))]
    return {match[0]: UUID(hex=match[1]) for match in matches}


def _for_cookie_check(rows: models.QuerySet[AuthorizationRequest]) -> models.QuerySet[AuthorizationRequest]:
    """Load, in one query, only the columns that `holds_cookie` and `cookie_is_useless` read."""
    of_challenge = [f"challenge__{name}" for name in ("status", "expires_at")]
    of_token = [f"challenge__access_token__{name}" for name in ("ended_at", "end_reason", "expires_at")]
    own = ("uuid", "cookie_digest", "claimed_at", "finished_at", "error")
    return rows.select_related("challenge__access_token").only(*own, *of_challenge, *of_token)


def _drop_oldest_requests(challenge: Challenge, now: datetime) -> None:
    """End the oldest authorization requests that wait for their callback, and delete the oldest ended rows.

    The row of a dropped request stays for a while. A consumer whose request was dropped because of a scanner is then
    offered another try when they return. Without the row they would be told that their link is dead.
    """
    rows = _TIMES_OF_CHALLENGE.all(challenge=challenge.pk)
    unclaimed = [row for row in rows if row.claimed_at is None and row.finished_at is None]
    for row in unclaimed[MAX_PENDING_REQUESTS - 1 :]:
        finish_authorization_request(row, now, DROPPED)
    if surplus := [row.pk for row in rows if row.finished_at is not None][MAX_FINISHED_ROWS:]:
        AuthorizationRequest.objects.filter(pk__in=surplus).exclude(error="").delete()
