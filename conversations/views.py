"""Views of the consumer's pages. GET changes nothing, except at the callback, where the state can be used only once."""

from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_safe

from conversations.flow.authorization_requests import (
    authorization_requests_of_browser,
    cookie_lifetime,
    cookies_to_expire,
    reloaded,
)
from conversations.flow.challenges import cancel_challenge
from conversations.flow.challenges_of_links import challenge_of_link, challenge_to_begin, closed_challenge_of_browser
from conversations.flow.outcomes import access_token_of_receipt
from conversations.flow.sign_in import (
    UNKNOWN_SERVER,
    CallbackPage,
    CallbackResult,
    begin_sign_in,
    handle_callback,
    handle_misaddressed_callback,
    server_of_callback,
)
from conversations.flow.termination import undo
from conversations.flow.trial_sign_in import receive_trial, trial_of_callback
from conversations.links import intended_url
from conversations.models import AuthorizationRequest, Challenge
from conversations.pages import (
    LINK_NO_LONGER_WORKS,
    Page,
    cancelled_page,
    chat_page_of,
    closed_page,
    link_page,
    not_completed_page,
    other_browser_page,
    receipt_page,
    result_page,
    server_busy_page,
    standing,
)
from conversations.trial_page import page_of_trial
from infrastructure.crypto import DecryptionError
from oauth_client import FORM_POST
from web.errors import json_response
from web.limits import limited
from web.middleware import consumer_form
from web.pages import render_page


class SeeOther(HttpResponseRedirect):
    """Status 303 (RFC 9110 section 15.4.4): the browser follows with GET and never resends a form (RFC 9700 4.12)."""

    status_code = 303


def link(request: HttpRequest, link_token: str) -> HttpResponse:
    """`GET /c/{link_token}` changes nothing, because link previews and scanners open links too (B6)."""
    challenge, now = challenge_of_link(link_token), timezone.now()
    if challenge is None:
        return _no_challenge(request, link_token)
    if challenge.accepts_sign_in(now):
        return _render(request, link_page(challenge, link_token, now))
    if authorization_requests_of_browser(challenge, request.COOKIES):
        return SeeOther(reverse("done", args=[link_token]))
    return _render(request, LINK_NO_LONGER_WORKS)


@require_http_methods(["GET", "HEAD", "POST"])
@consumer_form
def link_or_begin(request: HttpRequest, link_token: str) -> HttpResponse:
    """`/c/{link_token}`: the button's POST begins the sign-in; GET and HEAD show the page."""
    return begin(request, link_token) if request.method == "POST" else link(request, link_token)


# What the URL of a link calls, also before Django's handler (`fast_begin`).
button = limited(link_or_begin)


def begin(request: HttpRequest, link_token: str) -> HttpResponse:
    """`POST /c/{link_token}`: redirect to the brand's authorization endpoint, or to the page that says why not."""
    challenge, now = challenge_to_begin(link_token), timezone.now()
    begun = begin_sign_in(challenge, now) if challenge else None
    if begun is None:
        return SeeOther(reverse("link", args=[link_token]))
    response = SeeOther(begun.authorization_url or reverse("done", args=[link_token]))
    _set_cookie(response, begun.authorization_request, begun.cookie.reveal())
    for name in cookies_to_expire(request.COOKIES, timezone.now()):
        response.delete_cookie(name, samesite="Lax")
    return response


@require_http_methods(["GET", "HEAD", "POST"])
@consumer_form
def cancel(request: HttpRequest, link_token: str) -> HttpResponse:
    """`POST /c/{link_token}/cancel`: the button "this wasn't me"."""
    if request.method != "POST":  # a restored tab requests this URL with GET
        return SeeOther(reverse("link", args=[link_token]))
    challenge = challenge_of_link(link_token)
    if challenge is None or not cancel_challenge(challenge, now=timezone.now()):
        return SeeOther(reverse("link", args=[link_token]))
    return _render(request, cancelled_page(challenge, link_token))


@require_http_methods(["GET", "HEAD", "POST"])
@consumer_form
def undo_sign_in(request: HttpRequest, link_token: str) -> HttpResponse:
    """`POST /c/{link_token}/undo`: only for a browser that holds an authorization request's cookie (B22)."""
    if request.method != "POST":  # "Try again" on an error page is a GET; redirect to the page with the button
        return SeeOther(reverse("done", args=[link_token]))
    challenge = challenge_of_link(link_token)
    if challenge is None:
        return _no_challenge(request, link_token)
    if not authorization_requests_of_browser(challenge, request.COOKIES):
        return _render(request, LINK_NO_LONGER_WORKS)
    undo(challenge, now=timezone.now())
    return SeeOther(reverse("done", args=[link_token]))


@require_safe
def done(request: HttpRequest, link_token: str) -> HttpResponse:
    """`GET /c/{link_token}/done`: the outcome, for the browser that began; others get the page for unknown links."""
    return _outcome(request, challenge_of_link(link_token), link_token)


@require_safe
def look(request: HttpRequest, link_token: str) -> HttpResponse:
    """`GET /c/{link_token}/standing`: whether the code is still waited for, for the browser that shows it (B24)."""
    challenge = challenge_of_link(link_token)
    found = standing(challenge, request.COOKIES, timezone.now()) if challenge else None
    return _render(request, LINK_NO_LONGER_WORKS) if found is None else json_response(found)


@require_safe
def receipt(request: HttpRequest, receipt_token: str) -> HttpResponse:
    """`GET /r/{receipt_token}`: what was granted, and until when. Changes nothing."""
    access_token = access_token_of_receipt(receipt_token)
    if access_token is None:
        return _render(request, LINK_NO_LONGER_WORKS)
    return _render(request, receipt_page(access_token, receipt_token, timezone.now()))


@require_http_methods(["GET", "HEAD", "POST"])
@consumer_form
def end_by_receipt(request: HttpRequest, receipt_token: str) -> HttpResponse:
    """`POST /r/{receipt_token}/end`: the consumer ends access. The token is erased, and revoked at the brand."""
    if request.method != "POST":  # as in `undo_sign_in`
        return SeeOther(reverse("receipt", args=[receipt_token]))
    access_token = access_token_of_receipt(receipt_token)
    if access_token is not None:
        undo(access_token.challenge, now=timezone.now())
    return SeeOther(reverse("receipt", args=[receipt_token]))


@require_safe
def other_browser(request: HttpRequest, link_token: str) -> HttpResponse:
    """`GET /c/{link_token}/other-browser`: the callback redirects here if the browser has no cookie for it (B5)."""
    challenge = challenge_of_link(link_token)
    if challenge is None or not challenge.accepts_sign_in(timezone.now()):
        return _outcome(request, challenge, link_token)
    return _render(request, other_browser_page(challenge, link_token))


@require_safe
def not_completed(request: HttpRequest, link_token: str) -> HttpResponse:
    """`GET /c/{link_token}/not-completed`: the callback redirects here without a valid authorization response (B13)."""
    challenge = challenge_of_link(link_token)
    if challenge is None or not challenge.accepts_sign_in(timezone.now()):
        return _outcome(request, challenge, link_token)
    return _render(request, not_completed_page(challenge, link_token))


@require_safe
def no_link(request: HttpRequest) -> HttpResponse:
    """`GET /c/`: the callback redirects here if it finds no link."""
    return _render(request, LINK_NO_LONGER_WORKS)


@require_http_methods(["GET", "HEAD", "POST"])
def damaged_link(request: HttpRequest, kind: str, rest: str) -> HttpResponse:
    """Redirect any other URL that contains `/c/` or `/r/` to the URL that it was meant to be, without a lookup (G9).

    Our forms never post here, so a POST is not redirected.
    """
    clean = None if request.method == "POST" else intended_url(kind, rest)
    return SeeOther(clean) if clean else _render(request, LINK_NO_LONGER_WORKS)


@csrf_exempt  # nothing of a POST is read
@require_http_methods(["GET", "POST"])
def callback(request: HttpRequest, callback_id: str) -> HttpResponse:
    """`GET /callback/{callback_id}`: redirect to a URL without code and state, so that they leave the browser (B15).

    Exception: if all slots for exchanges with the brand are taken, a page reloads this URL. Its state and code are
    unused. A POST (`response_mode=form_post`) comes without the cookie, which is SameSite=Lax (B4). It is redirected to
    a GET without the response's parameters. That GET has the cookie.
    """
    if request.method == "POST":
        return SeeOther(f"{reverse('callback', args=[callback_id])}?{FORM_POST}")
    if trial := trial_of_callback(callback_id, request.GET, request.COOKIES):
        receive_trial(trial, request.GET)
        return SeeOther(page_of_trial(trial))
    return _callback_response(request, handle_callback(callback_id, request.GET, request.COOKIES))


@csrf_exempt  # as for the callback
@require_http_methods(["GET", "POST"])
def damaged_callback(request: HttpRequest, callback_id: str) -> HttpResponse:
    """Answer a URL that only resembles a redirect URI, such as one with a slash at its end (B13, C1)."""
    server = server_of_callback(callback_id)
    result = handle_misaddressed_callback(server, request.COOKIES) if server else UNKNOWN_SERVER
    return _callback_response(request, result)


def _callback_response(request: HttpRequest, result: CallbackResult) -> HttpResponse:
    if result.authorization_request is None:
        return SeeOther(reverse("no_link") + _empty_fragment(request))
    if result.page == CallbackPage.SERVER_BUSY:
        response = _render(request, server_busy_page(result.authorization_request.challenge))
        response["Retry-After"] = "5"
        return response
    return _result_redirect(request, result.authorization_request, result.page)


def _result_redirect(
    request: HttpRequest, authorization_request: AuthorizationRequest, next_page: CallbackPage
) -> HttpResponse:
    try:
        link_token = authorization_request.challenge.reveal_link_token().reveal()
    except DecryptionError:
        return SeeOther(reverse("no_link"))
    if next_page == CallbackPage.OTHER_BROWSER:
        return SeeOther(reverse("other_browser", args=[link_token]))
    if next_page == CallbackPage.MALFORMED:
        # If the exchange has begun, `done` shows its outcome.
        is_open = authorization_request.claimed_at is None and authorization_request.challenge.accepts_sign_in(
            timezone.now()
        )
        page = reverse("not_completed" if is_open else "done", args=[link_token])
        return SeeOther(page + _empty_fragment(request))
    authorization_request = reloaded(authorization_request)
    response = SeeOther(chat_page_of(authorization_request, request.COOKIES) or reverse("done", args=[link_token]))
    if authorization_request.succeeded:
        _set_cookie(response, authorization_request, request.COOKIES[authorization_request.cookie_name])
    return response


def _empty_fragment(request: HttpRequest) -> str:
    """Choose an empty fragment, "#", if the authorization response may be in the fragment and not in the query.

    A browser keeps the fragment across a redirect unless the new URL has one, even an empty one. Otherwise the response
    would stay in the address bar (B15).
    """
    return "" if "state" in request.GET else "#"


def _set_cookie(response: HttpResponse, authorization_request: AuthorizationRequest, value: str) -> None:
    response.set_cookie(
        authorization_request.cookie_name,
        value,
        max_age=cookie_lifetime(authorization_request, timezone.now()),
        secure=True,
        httponly=True,
        samesite="Lax",  # the callback is a cross-site top-level GET, which would not carry a Strict cookie (B4)
    )


def _outcome(request: HttpRequest, challenge: Challenge | None, link_token: str) -> HttpResponse:
    if challenge is None:
        return _no_challenge(request, link_token)
    page = result_page(challenge, link_token, request.COOKIES, timezone.now())
    return _render(request, page) if page else SeeOther(reverse("link", args=[link_token]))


def _no_challenge(request: HttpRequest, link_token: str) -> HttpResponse:
    """Show the browser that began it that its chat was closed, and everybody else the page of an unknown link."""
    closed = closed_challenge_of_browser(link_token, request.COOKIES)
    return _render(request, closed_page(closed) if closed else LINK_NO_LONGER_WORKS)


def _render(request: HttpRequest, page: Page) -> HttpResponse:
    template = f"consumer/{page.template}"
    look: dict[str, Any] = {"locale": page.locale, "theme": page.theme, "may_fetch": page.may_fetch}
    return render_page(request, template, page.context, status=page.status, **look)
