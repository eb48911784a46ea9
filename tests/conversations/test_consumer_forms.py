"""B22: from where a consumer's form is taken, and how a browser is told why it was not."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from conversations import urls
from conversations.models import AuthorizationRequest
from tests.cast import HOST, Bot, Browser, code_on, heading_of
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

OURS = f"https://{HOST}"
# What a page of ours makes a browser send whose owner has switched Origin and Referer off, or under `no-referrer`.
PRIVATE: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "same-origin"},
    {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
]
FOREIGN: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    {"Origin": f"{OURS}.evil.example"},
    {"Origin": f"http://{HOST}"},
    {"Origin": ""},
    {"Origin": "null"},
    {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "null", "Sec-Fetch-Site": "same-site"},
    {"Origin": "null", "Sec-Fetch-Site": "same-origin", "Referer": "https://evil.example/"},
    {"Origin": "null, null", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "NULL", "Sec-Fetch-Site": "same-origin"},
    {"Referer": "https://evil.example/"},
    {"Referer": "https://evil.example/", "Sec-Fetch-Site": "same-origin"},
    {"Referer": f"http://{HOST}/"},
    {"Referer": ""},
    *({"Sec-Fetch-Site": site} for site in ("cross-site", "same-site", "none", "", "same-origin, same-origin")),
]
Send = Callable[..., Any]


@pytest.fixture(params=["", "/cancel", "/undo", "/end"])
def send(request: Any, acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> Send:
    """Return what sends one of the four forms, with these headers and fields, from a page that is open."""
    url = acme_bot.challenge()["url"].removeprefix(OURS)
    if request.param in {"/undo", "/end"}:
        acme_bot.complete(code_on(ada.sign_in(url, acme_login)))
    page = ada.get(f"{url}/done" if request.param == "/undo" else url)
    if request.param == "/end":
        receipt = re.search(r'href="(/r/[^"]+)"', ada.get(f"{url}/done").content.decode())
        url = receipt[1] if receipt else ""
        page = ada.get(url)
    token = ada.client.cookies["__Host-csrf"].value
    assert b"csrfmiddlewaretoken" in page.content or request.param == "/undo"

    def post(headers: dict[str, str], token: str = token) -> Any:
        return ada.client.post(url + request.param, {"csrfmiddlewaretoken": token}, secure=True, headers=headers)

    return post


@pytest.mark.parametrize("headers", PRIVATE, ids=str)
def test_a_browser_that_hides_where_it_comes_from_can_press_every_button(send: Send, headers: dict[str, str]) -> None:
    """The bug: 403 and "allow cookies", which were allowed."""
    assert send(headers).status_code in {200, 303}


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_what_comes_from_elsewhere_or_does_not_prove_enough_is_refused(send: Send, headers: dict[str, str]) -> None:
    """Also with the right form token: a page on another port of our host has our cookies sent along (`same-site`)."""
    before = list(AuthorizationRequest.objects.values())
    answer = send(headers)
    assert (answer.status_code, heading_of(answer)) == (403, "This was not sent from our own page")
    text = answer.content.decode()
    assert ("allow cookies" in text, '<a class="button" href="">Try again</a>' in text) == (False, True)
    assert list(AuthorizationRequest.objects.values()) == before


@pytest.mark.parametrize("headers", [*PRIVATE, {"Origin": OURS}, {"Referer": f"{OURS}/c/"}], ids=str)
@pytest.mark.parametrize("token", ["", "x" * 32, "x" * 64])
def test_without_the_form_token_nothing_is_taken(send: Send, headers: dict[str, str], token: str) -> None:
    assert send(headers, token).status_code == 403


@pytest.mark.parametrize("headers", [*PRIVATE, *FOREIGN], ids=str)
def test_where_cookies_are_off_the_page_says_so(acme_bot: Bot, headers: dict[str, str], acme_server: Any) -> None:
    url = acme_bot.challenge()["url"]
    stranger = Browser()
    answer = stranger.client.post(url, {"csrfmiddlewaretoken": "x" * 64}, secure=True, headers=headers)
    assert (answer.status_code, heading_of(answer)) == (403, "This was not sent from our own page")
    assert "If you see this page again, allow cookies for it." in answer.content.decode()


@pytest.mark.parametrize("headers", PRIVATE, ids=str)
def test_the_admins_forms_stay_strict(ada: Browser, headers: dict[str, str]) -> None:
    url = "/admin/account/login/"
    assert ada.get(url).status_code == 200
    sent = {"csrfmiddlewaretoken": ada.client.cookies["__Host-csrf"].value, "login": "ada", "password": "ada"}
    assert ada.client.post(url, sent, secure=True, headers=headers).status_code == 403
    assert ada.client.post(url, sent, secure=True, headers={"Origin": OURS}).status_code == 200


def _views(patterns: list[Any]) -> Iterator[Any]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _views(pattern.url_patterns)
        elif isinstance(pattern, URLPattern):
            yield pattern.callback


def test_a_view_leaves_djangos_check_only_for_our_own() -> None:
    """Another one that is exempt would be open to every site; of a POST to a callback nothing is read."""
    exempt = {pattern.name for pattern in urls.urlpatterns if getattr(pattern.callback, "csrf_exempt", False)}
    everywhere = {view for view in _views(get_resolver().url_patterns) if getattr(view, "csrf_exempt", False)}
    assert len(everywhere - {pattern.callback for pattern in urls.api_urlpatterns}) == len(exempt)
    assert exempt == {"link", "cancel", "undo", "end_by_receipt", "callback", "damaged_callback"}


def test_an_admin_without_permission_is_not_told_of_cookies(acme_admin: Any, ada: Browser) -> None:
    """The bug: "This was not sent from our own page", to somebody who had sent nothing."""
    ada.client.force_login(acme_admin)
    page = ada.get("/admin/auth/user/")
    assert (page.status_code, heading_of(page)) == (403, "This is not allowed")
