"""Which page a consumer sees: a template and its context, from where the challenge stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from brands.oauth import ErrorCode
from conversations.flow.attempts import DROPPED, held_attempts
from conversations.flow.completion import shown_code, shown_handle
from conversations.models import (
    SIGN_IN_STATUSES,
    AccessToken,
    AuthorizationRequest,
    Challenge,
    ChallengeStatus,
)


@dataclass(frozen=True)
class Page:
    """A template below `templates/consumer/`, its context, and the HTTP status."""

    template: str
    context: dict[str, Any] = field(default_factory=dict)
    status: int = 200


# To a browser without an attempt's cookie an unknown link and every ended challenge are this one page (G9).
LINK_NO_LONGER_WORKS = Page("link_no_longer_works.html", status=404)

_ENDED_PAGES = {
    ChallengeStatus.DENIED: "denied.html",
    ChallengeStatus.EXPIRED: "too_late.html",
    ChallengeStatus.SUPERSEDED: "replaced.html",
    ChallengeStatus.WITHDRAWN: "withdrawn.html",
}
_FAILED_PAGES = {
    Challenge.Error.SUBJECT_MISMATCH.value: "other_person.html",
    Challenge.Error.TOO_MANY_CODES.value: "too_many_codes.html",
    Challenge.Error.OTHER_CONVERSATION.value: "other_conversation.html",
}


def link_page(challenge: Challenge, link_token: str, now: datetime) -> Page:
    """Return the page before the brand's own: whose it is, since when, why, and where the button leads (A4)."""
    server = challenge.authorization_server
    context = _brand(challenge, link_token) | {
        "host": urlsplit(server.authorization_endpoint).netloc,
        "purpose": challenge.purpose,
        "asked_seconds_ago": max(0, int((now - challenge.issued_at).total_seconds())),
        "asked_at": challenge.issued_at,
        "longest": now + timedelta(seconds=server.max_token_lifetime),
        "now": now,
    }
    return Page("link.html", context)


def other_browser_page(challenge: Challenge, link_token: str) -> Page:
    """Return the page of a sign-in that came back where it did not begin (B5)."""
    return Page("other_browser.html", _brand(challenge, link_token))


def cancelled_page(challenge: Challenge, link_token: str) -> Page:
    """Return the answer to "this wasn't me"."""
    return Page("not_me.html", _brand(challenge, link_token))


def server_busy_page(challenge: Challenge) -> Page:
    """Return the page of a brand at its limit; its button reloads the callback, which spent nothing."""
    return Page("server_busy.html", {"brand": challenge.conversation.brand}, status=503)


def chat_page_of(attempt: AuthorizationRequest, cookies: Mapping[str, str]) -> str | None:
    """Return the chat's own page with the handle in its fragment, while a sign-in of the check `chat_page` waits (A11).

    The address is the configured one, never one of the request. A fragment is sent to no server and stands in no log.
    """
    challenge = attempt.challenge
    if challenge.status != ChallengeStatus.CONFIRMATION_NEEDED or not attempt.succeeded:
        return None
    handle = shown_handle(challenge, cookies[attempt.cookie_name])
    return f"{challenge.authorization_server.chat_page_url}#consumer_delegation_handle={handle}" if handle else None


def result_page(challenge: Challenge, link_token: str, cookies: Mapping[str, str], now: datetime) -> Page | None:
    """Return the precise outcome for the browser that began one of the challenge's attempts.

    Returns None where such a browser has yet to sign in, and `LINK_NO_LONGER_WORKS` for every other browser.
    """
    attempts = held_attempts(challenge, cookies)
    if not attempts:
        return LINK_NO_LONGER_WORKS
    status = challenge.status_at(now)
    brand = _brand(challenge, link_token)
    if status in SIGN_IN_STATUSES:
        return _unfinished_page(attempts, brand, now)
    if status == ChallengeStatus.CONFIRMATION_NEEDED:
        return _code_page(challenge, attempts[0], cookies, brand, now)
    if status == ChallengeStatus.COMPLETED:
        return _signed_in_page(challenge, attempts[0], brand, now)
    if status == ChallengeStatus.CANCELLED:
        return Page("undone.html" if attempts[0].succeeded else "not_me.html", brand)
    if status == ChallengeStatus.FAILED:
        return Page(_FAILED_PAGES[challenge.error], brand)
    return Page(_ENDED_PAGES[status], brand)


def _unfinished_page(attempts: list[AuthorizationRequest], brand: dict[str, Any], now: datetime) -> Page | None:
    if any(attempt.in_progress(now) for attempt in attempts):
        return Page("one_moment.html", brand)
    if attempts[0].error == DROPPED:
        return Page("start_again.html", brand)
    if attempts[0].claimed_at is not None:
        missing = attempts[0].error == ErrorCode.INSUFFICIENT_SCOPE
        return Page("missing_permission.html" if missing else "not_answering.html", brand)
    return None


def _code_page(
    challenge: Challenge,
    attempt: AuthorizationRequest,
    cookies: Mapping[str, str],
    brand: dict[str, Any],
    now: datetime,
) -> Page:
    chat_page = chat_page_of(attempt, cookies)
    if chat_page:
        return Page("back_to_chat.html", brand | {"chat_page": chat_page})
    code = shown_code(challenge, cookies[attempt.cookie_name]) if attempt.succeeded else None
    if code is None:
        return Page("elsewhere.html", brand)
    return Page("completion_code.html", brand | {"code": code, "expires_at": challenge.expires_at, "now": now})


def _signed_in_page(challenge: Challenge, attempt: AuthorizationRequest, brand: dict[str, Any], now: datetime) -> Page:
    token = AccessToken.objects.filter(challenge=challenge).first()
    if token is None or token.end_reason_at(now):
        return Page("over.html", brand)
    server = challenge.authorization_server
    context = {"expires_at": token.expires_at, "now": now, "mine": attempt.succeeded, "chat_page": server.chat_page_url}
    return Page("signed_in.html", brand | context)


def _brand(challenge: Challenge, link_token: str) -> dict[str, Any]:
    return {"brand": challenge.conversation.brand, "link_token": link_token}
