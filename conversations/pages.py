"""Choose the page that a consumer sees: template and context, by the status of the challenge or token."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from django.utils import translation
from django.utils.timesince import timesince
from django.utils.translation import gettext

from brands.branding import described, theme_of
from brands.models import AuthorizationServer, SamePersonCheck
from conversations.flow.authorization_requests import DROPPED, UNEXPECTED_SUBJECT, authorization_requests_of_browser
from conversations.flow.completion import derived_code, derived_handle
from conversations.flow.outcomes import derived_receipt_token
from conversations.models import (
    SIGN_IN_STATUSES,
    AccessToken,
    AuthorizationRequest,
    Challenge,
    ChallengeStatus,
)
from oauth_client import MEANINGS, ConsumerPage
from web.pages import language_of_locale


@dataclass(frozen=True)
class Page:
    """A template below `templates/consumer/`. `status` is the HTTP status, `locale` the chat's, `theme` CSS rules.

    `may_fetch`: its script may ask us again (B24).
    """

    template: str
    context: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    locale: str = ""
    theme: str = ""
    may_fetch: bool = False


@dataclass(frozen=True)
class Reason:
    """The bot's reason. `language` is None if it is the page's, and empty if nobody knows it (HTML's `lang`)."""

    text: str
    language: str | None
    direction: str


# A browser without an authorization request's cookie gets this page for an unknown link and for every ended challenge
# (G9).
LINK_NO_LONGER_WORKS = Page("link_no_longer_works.html", status=404)

_COMPLETION_CODE = "completion_code.html"
_SCRIPT_LENGTH = 4
_ENDED_PAGES = {
    ChallengeStatus.DENIED: "denied.html",
    ChallengeStatus.EXPIRED: "too_late.html",
    ChallengeStatus.SUPERSEDED: "replaced.html",
    ChallengeStatus.WITHDRAWN: "withdrawn.html",
}


def link_page(challenge: Challenge, link_token: str, now: datetime) -> Page:
    """The page with the button that begins the sign-in. It names the brand, the purpose and the server's host (A4)."""
    server = challenge.authorization_server
    return _page(
        "link.html",
        challenge,
        link_token,
        host=urlsplit(server.authorization_endpoint).netloc,
        purpose=partial(_reason, challenge),
        asked_at=_unless_just_now(challenge.issued_at, now),
        allowed=_scope_describer(challenge, challenge.scope),
        lasts=_time_left_writer(now + timedelta(seconds=_lifetime(server)), now),
        is_usual=server.usual_token_lifetime is not None,
        now=now,
    )


def _lifetime(server: AuthorizationServer) -> int:
    """How long this server's last tokens lived; before the first one, how long we let them live at most."""
    return min(server.usual_token_lifetime or server.max_token_lifetime, server.max_token_lifetime)


def _reason(challenge: Challenge) -> Reason | None:
    """Choose the bot's reason in the active language, or in the nearest one; None if the bot gave none."""
    given = challenge.purpose_by_locale or {challenge.locale: challenge.purpose}
    written = {locale: text.strip().rstrip(" .") for locale, text in given.items()}
    texts = {locale: text for locale, text in written.items() if text}
    if not texts:
        return None
    locale = min(texts, key=partial(_distance, chat=challenge.locale))
    is_of_page = bool(locale) and language_of_locale(locale) == translation.get_language()
    return Reason(texts[locale], None if is_of_page else locale, _direction(locale))


def _distance(locale: str, *, chat: str) -> int:
    """Rank a locale: that of the chat, that of the chat but for its region, the page's, English, any other."""
    wanted = language_of_locale(locale)
    nearest = (
        locale.lower() == chat.lower(),
        locale.lower().partition("-")[0] == chat.lower().partition("-")[0],
        wanted is not None and wanted == translation.get_language(),
        wanted == "en",
        True,
    )
    return nearest.index(True)


def _direction(locale: str) -> str:
    """`rtl` or `ltr` of a language that Django knows; empty if the text itself has to tell.

    Where a script is named (`pa-Arab`, `he-Latn`) it need not be the usual one of the language (RFC 5646).
    """
    if any(len(part) == _SCRIPT_LENGTH and part.isalpha() for part in locale.split("-")[1:]):
        return ""
    try:
        return "rtl" if translation.get_language_info(language_of_locale(locale) or locale.lower())["bidi"] else "ltr"
    except KeyError:
        return ""


def other_browser_page(challenge: Challenge, link_token: str) -> Page:
    """The page after a callback in another browser than the one that began the sign-in (B5)."""
    return _page("other_browser.html", challenge, link_token)


def not_completed_page(challenge: Challenge, link_token: str) -> Page:
    """The page after a callback without a valid authorization response. The consumer may try again (B13)."""
    return _page("not_completed.html", challenge, link_token)


def cancelled_page(challenge: Challenge, link_token: str) -> Page:
    return _page("not_me.html", challenge, link_token)


def closed_page(challenge: Challenge) -> Page:
    """The page of a link whose conversation was closed, for a browser that began it (G9)."""
    return _page("over.html", challenge)


def server_busy_page(challenge: Challenge) -> Page:
    """The page if this process already makes as many token requests to the brand's servers as it may at once.

    The page's button reloads the callback.
    """
    return replace(_page("server_busy.html", challenge), status=503)


def chat_page_of(authorization_request: AuthorizationRequest, cookies: Mapping[str, str]) -> str | None:
    """Build the URL of the chat's own page, with the handle in its fragment (A11).

    The handle is a one-use value that the page passes to its bot, to confirm the sign-in. Returns None unless a sign-in
    with the check `chat_page` waits for its handle. The URL is always the configured one,
    never one from the request. Browsers do not send the fragment to a server, so no access log contains the handle.
    """
    challenge = authorization_request.challenge
    if challenge.status != ChallengeStatus.CONFIRMATION_NEEDED or not authorization_request.succeeded:
        return None
    handle = derived_handle(challenge, cookies[authorization_request.cookie_name])
    return f"{challenge.authorization_server.chat_page_url}#consumer_delegation_handle={handle}" if handle else None


def result_page(challenge: Challenge, link_token: str, cookies: Mapping[str, str], now: datetime) -> Page | None:
    """Choose the page with the outcome, for a browser that holds a cookie of the challenge's authorization requests.

    Returns None if that browser still has to sign in, and `LINK_NO_LONGER_WORKS` for every other browser.
    """
    authorization_requests = authorization_requests_of_browser(challenge, cookies)
    if not authorization_requests:
        return LINK_NO_LONGER_WORKS
    status = challenge.status_at(now)
    context: dict[str, Any] = {}
    if status in SIGN_IN_STATUSES:
        template, context = _unfinished(authorization_requests, now), {"reference": reference_of(challenge)}
    elif status == ChallengeStatus.CONFIRMATION_NEEDED:
        template, context = _code(challenge, authorization_requests[0], cookies, now)
    elif status == ChallengeStatus.COMPLETED:
        template, context = _signed_in(challenge, authorization_requests[0], cookies, now)
    elif status == ChallengeStatus.CANCELLED:
        template = "undone.html" if authorization_requests[0].succeeded else "not_me.html"
    elif status == ChallengeStatus.FAILED:
        template, context = _failed(challenge)
    else:
        template = _ENDED_PAGES[status]
    if template is None:
        return None
    page = _page(template, challenge, link_token, **context)
    return replace(page, may_fetch=template == _COMPLETION_CODE)


def standing(challenge: Challenge, cookies: Mapping[str, str], now: datetime) -> dict[str, Any] | None:
    """Tell the page with the completion code whether the code is still waited for, and for how many seconds (B24).

    Returns None unless the browser holds the cookie of the authorization request that succeeded: to all others, also
    to those that began the same challenge, this says nothing. Costs one query and writes nothing.
    """
    authorization_requests = authorization_requests_of_browser(challenge, cookies)
    if not authorization_requests or not authorization_requests[0].succeeded:
        return None
    waiting = challenge.status_at(now) == ChallengeStatus.CONFIRMATION_NEEDED
    return {"waiting": waiting, "seconds_left": _seconds_left(challenge, now) if waiting else 0}


def receipt_page(access_token: AccessToken, receipt_token: str, now: datetime) -> Page:
    """The page that says what the consumer allowed and until when, with a button that ends it."""
    challenge = access_token.challenge
    if access_token.end_reason_at(now):
        return _page("receipt_over.html", challenge)
    return _page(
        "receipt.html",
        challenge,
        receipt_token=receipt_token,
        signed_in_at=_unless_just_now(access_token.issued_at, now),
        allowed=_scope_describer(challenge, access_token.scope),
        left=_time_left_writer(access_token.expires_at, now),
        now=now,
    )


def reference_of(challenge: Challenge) -> str:
    """Return the beginning of the challenge's id, to read aloud. Its brand's admins can search for it."""
    return f"{challenge.uuid.hex[:4]} {challenge.uuid.hex[4:8]}"


def _unfinished(authorization_requests: list[AuthorizationRequest], now: datetime) -> str | None:
    if any(authorization_request.in_progress(now) for authorization_request in authorization_requests):
        return "one_moment.html"
    if authorization_requests[0].error == DROPPED:
        return "start_again.html"
    if authorization_requests[0].claimed_at is not None:
        # If `error` is empty, the exchange did not finish within half a minute, so show NOT_ANSWERING (B11).
        meaning = MEANINGS.get(authorization_requests[0].error)
        return _template(meaning.page if meaning else ConsumerPage.NOT_ANSWERING)
    return None


def _failed(challenge: Challenge) -> tuple[str, dict[str, Any]]:
    """Choose the page of a failed challenge.

    `was_named`: the bot expected a certain account (A12). Otherwise the mismatch is with the account used before.
    """
    was_named = challenge.authorization_requests.filter(error=UNEXPECTED_SUBJECT).exists()
    return _template(MEANINGS[challenge.error].page), {"was_named": was_named}


def _template(page: ConsumerPage) -> str:
    return f"{page.value}.html"


def _code(
    challenge: Challenge, authorization_request: AuthorizationRequest, cookies: Mapping[str, str], now: datetime
) -> tuple[str, dict[str, Any]]:
    chat_url = chat_page_of(authorization_request, cookies)
    if chat_url:
        return "back_to_chat.html", {"chat_url": chat_url}
    code = (
        derived_code(challenge, cookies[authorization_request.cookie_name]) if authorization_request.succeeded else None
    )
    if code is None:
        return "elsewhere.html", {}
    context = {
        "code": code,
        "left": _time_left_writer(challenge.expires_at, now),
        "seconds_left": _seconds_left(challenge, now),
    }
    return _COMPLETION_CODE, context


def _signed_in(
    challenge: Challenge, authorization_request: AuthorizationRequest, cookies: Mapping[str, str], now: datetime
) -> tuple[str, dict[str, Any]]:
    token = AccessToken.objects.filter(challenge=challenge).first()
    if token is None or token.end_reason_at(now):
        return "over.html", {}
    receipt = derived_receipt_token(token, cookies[authorization_request.cookie_name])
    context = {
        "left": _time_left_writer(token.expires_at, now),
        "signed_in_here": authorization_request.succeeded,
        "receipt_token": receipt,
    }
    return "signed_in.html", context


def _page(template: str, challenge: Challenge, link_token: str = "", **context: Any) -> Page:
    brand = challenge.conversation.brand
    shared = {"brand": brand, "link_token": link_token, "chat_page": _chat_page(challenge)}
    return Page(template, shared | context, locale=challenge.locale, theme=theme_of(brand.accent_colour))


def _chat_page(challenge: Challenge) -> str:
    """Return the URL of the page that contains the chat; empty if this chat is in another channel.

    If the server accepts the check `chat_page` but this challenge uses another check, the chat is not on that page. If
    the server does not accept it, `chat_page_url` is only a link back.
    """
    server = challenge.authorization_server
    accepts_chat_page = SamePersonCheck.CHAT_PAGE in server.same_person_checks
    if accepts_chat_page and challenge.same_person_check != SamePersonCheck.CHAT_PAGE:
        return ""
    return server.chat_page_url


def _scope_describer(challenge: Challenge, scope: str) -> Callable[[], list[str]]:
    """Return a function that describes a scope. The template calls it, because the page's language is chosen later."""
    return partial(described, scope, challenge.authorization_server.scope_descriptions)


def _unless_just_now(moment: datetime, now: datetime) -> datetime | None:
    """Return the moment; None if it is less than a minute ago."""
    return moment if now - moment >= timedelta(minutes=1) else None


def _seconds_left(challenge: Challenge, now: datetime) -> int:
    return int((challenge.expires_at - now).total_seconds())


def _time_left_writer(moment: datetime, now: datetime) -> Callable[[], str]:
    """Return a function that writes the time left. The template calls it, as that of `_scope_describer`."""
    return partial(_duration, now, moment)


def _duration(now: datetime, moment: datetime) -> str:
    """Write a duration in minutes, rounded to the nearest. Rounded down, five minutes would be shown as four."""
    if moment - now < timedelta(minutes=1):
        return gettext("less than a minute")
    return timesince(now, moment + timedelta(seconds=30))
