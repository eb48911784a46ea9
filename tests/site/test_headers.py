"""The header table: what every answer of the product carries, whatever it is an answer to (H6).

The addresses come from the URL configuration itself, so that a new one cannot be forgotten; the states of the
consumer's pages and the errors are listed here.
"""

import base64
import hashlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as current
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from brands.models import Brand
from conversations import views
from conversations.links import LinkToken, ReceiptToken
from conversations.models import AuthorizationRequest, Challenge
from tests.admin_pages import OURS, House, address
from tests.cast import HOST, Bot, Browser
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

EVERYWHERE = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains; preload",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
}
# No form-action: Chromium and Safari apply it to every redirect of the button's submission (B18).
OUR_POLICY = {
    "default-src": "'none'",
    "style-src": "'self'",
    "script-src": "'self'",
    "img-src": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
ADMIN_POLICY = OUR_POLICY | {
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "form-action": "'self'",
    "frame-src": "'self'",
}
ELSEWHERE = re.compile(r"""(?:src|href|action)=["'](?:https?:)?//|url\(|@import|postMessage|http-equiv""")


# Of patterns that are no plain text with values in it.
EXAMPLES = {"damaged_callback": "/callback/x/", "prefixed_link": f"/en/c/{'x' * LinkToken.length}"}


def addresses(patterns: list[Any], prefix: str = "/") -> Iterator[str]:
    """Yield an address for every pattern, with `x` wherever it takes a value; as many as a link or receipt has."""
    for pattern in patterns:
        route = str(pattern.pattern).replace("<link_token:link_token>", "x" * LinkToken.length)
        route = route.replace("<receipt_token:receipt_token>", "x" * ReceiptToken.length)
        route = re.sub(r"\(\?P<\w+>[^)]*\)|<[^>]+>", "x", route)
        route = route.removeprefix("^").removesuffix("$").removesuffix("\\Z")
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern.url_patterns, prefix + route)
        elif isinstance(pattern, URLPattern):
            yield EXAMPLES.get(str(pattern.name)) or prefix + route.replace("\\", "")


EVERY_ADDRESS = sorted(set(addresses(get_resolver().url_patterns)))


def policy_of(answer: Any) -> dict[str, str]:
    parts = (part.strip().partition(" ") for part in answer["Content-Security-Policy"].split(";"))
    return {name: value for name, _, value in parts}


def is_preview(answer: Any) -> bool:
    return str(answer.request["PATH_INFO"]).endswith("/preview/") and answer.status_code == 200


def policy_for(answer: Any, *, admin: bool) -> dict[str, str]:
    """Return the admin's policy or ours; a page's own stylesheet is allowed by the hash of its text, and no other."""
    policy = ADMIN_POLICY if admin else OUR_POLICY
    if is_preview(answer):
        policy = policy | {"frame-ancestors": "'self'"}
    if b"data-completion-code" in answer.content:  # the one page that asks us by itself (B24)
        policy = policy | {"connect-src": "'self'"}
    if answer.request["REQUEST_METHOD"] == "HEAD" or "text/html" not in answer.get("Content-Type", ""):
        return policy | {"style-src": policy_of(answer)["style-src"]}
    styles = re.findall(r"<style>(.*?)</style>", answer.content.decode(), re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in styles]
    return policy | ({"style-src": f"'sha256-{hashes[0]}'"} if len(hashes) == 1 else {})


def check(answer: Any, *, admin: bool = False) -> None:
    """Hold an answer against the table."""
    where = f"{answer.request['REQUEST_METHOD']} {answer.request['PATH_INFO']} {answer.status_code}"
    framed = {"X-Frame-Options": "SAMEORIGIN"} if is_preview(answer) else {}  # by our own pages (B17)
    assert {name: answer.get(name) for name in EVERYWHERE} == EVERYWHERE | framed, where
    assert policy_of(answer) == policy_for(answer, admin=admin), where
    if answer.request["REQUEST_METHOD"] != "HEAD":  # whose body, and with it the form, is not here to be seen
        with_form = b"<form" in answer.content
        assert answer.get("Referrer-Policy") == ("same-origin" if with_form else "no-referrer"), where
    assert [name for name in answer.headers if name.startswith("Access-Control-")] == [], where
    if not admin and "text/html" in answer["Content-Type"]:
        assert ELSEWHERE.findall(answer.content.decode()) == [], where
    if answer.request["PATH_INFO"].startswith("/api/"):
        assert (len(answer.cookies), answer["Content-Type"].split(";")[0].endswith("json")) == (0, True), where


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_every_address_answers_by_the_table(method: str) -> None:
    """H6, G7, B17: to a stranger, with every method; an API answer sets no cookie and allows no other origin."""
    assert len(EVERY_ADDRESS) > 30
    for url in EVERY_ADDRESS:
        client = Client(SERVER_NAME=HOST, enforce_csrf_checks=True, raise_request_exception=False)
        answer = client.generic(method, url, secure=True, headers={"Origin": "https://elsewhere.example"})
        assert answer.status_code < 500, url
        if "/api/docs" not in url and not url.endswith(("openapi.json", "openapi.yaml")):
            check(answer, admin=url.startswith("/admin/"))


def test_every_page_of_a_consumer_answers_by_the_table(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """H6, B17, B18: before the button, on the way, at the end, and where a sign-in went wrong."""
    link = acme_bot.challenge()["url"]
    pages = [ada.get(link), rita.press(link)]
    authorization_url = pages[1]["Location"]
    callback = f"{acme_login.redirect_uri}?{acme_login.authorize(authorization_url)}"
    pages += [ada.get(callback), ada.get(f"{link}/other-browser"), ada.get(f"{link}/done")]
    pages += [rita.get(callback), rita.get(f"{link}/done"), ada.get(link), rita.press(f"{link}/done", "/undo")]
    pages += [rita.get(f"{link}/done"), ada.get("/c/"), ada.get("/c/unknown")]
    for page in pages:
        check(page)
    assert [page.status_code for page in pages] == [200, 303, 303, 200, 404, 303, 200, 404, 303, 200, 404, 404]


@pytest.mark.parametrize("trouble", ["denied", "not answering", "cancelled", "in progress", "too late"])
def test_every_page_of_trouble_answers_by_the_table(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, trouble: str
) -> None:
    """H6."""
    acme_login.denies = trouble == "denied"
    if trouble == "not answering":
        acme_login.next_token_answer = (500, {"Content-Type": "text/html"}, b"<h1>Error</h1>")
    link = acme_bot.challenge()["url"]
    if trouble == "cancelled":
        check(ada.press(link, "/cancel"))
        return
    url = ada.begin(link)
    if trouble == "in progress":
        begun = Challenge.objects.get()
        AuthorizationRequest.objects.update(claimed_at=begun.started_at)
    elif trouble == "too late":
        Challenge.objects.update(expires_at=Challenge.objects.get().issued_at)
    else:
        ada.come_back(url, acme_login)
    page = ada.get(f"{link}/done")
    assert page.status_code == 200
    check(page)


def test_errors_answer_by_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """H6: 404, 403 of a form that is not ours, 400 of a host that is not ours, and a fault of our own."""

    def fail(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(views, "challenge_of_link", fail)
    client = Client(SERVER_NAME=HOST, enforce_csrf_checks=True, raise_request_exception=False)
    elsewhere = Client(SERVER_NAME="elsewhere.example")
    answers = [
        client.get("/nothing", secure=True),
        client.get("/api/v1/nothing", secure=True),
        client.post("/c/x", secure=True),
        elsewhere.get("/c/x", secure=True),
        elsewhere.get("/api/v1/conversations/x", secure=True),
        client.get(f"/c/{'x' * 27}", secure=True),
    ]
    assert [answer.status_code for answer in answers] == [404, 404, 403, 400, 400, 500]
    for answer in answers:
        check(answer)


def test_api_answers_carry_the_table_and_no_cookie(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """H6, G7: also with a token in it, also where a browser's cookies came along."""
    challenge = acme_bot.challenge()
    code = ada.sign_in(challenge["url"], acme_login).content.decode()
    found = re.search(r'data-completion-code="([0-9]{6})"', code)
    assert found
    acme_bot.complete(found[1])
    cookies = {"Cookie": "; ".join(f"{name}={morsel.value}" for name, morsel in ada.client.cookies.items())}
    answers = [
        acme_bot.send("GET", f"/conversations/{acme_bot.chat}/token", **cookies),
        acme_bot.send("POST", f"/conversations/{acme_bot.chat}/challenges", b"{", **cookies),
        acme_bot.send("DELETE", f"/conversations/{acme_bot.chat}", **cookies),
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 200]
    for answer in answers:
        check(answer)


def test_a_cookie_of_the_admin_opens_nothing_of_the_api(houses: tuple[House, House]) -> None:
    """G7: the API looks at no cookie."""
    client = houses[0].admin.client
    answer = client.get(f"/api/v1/conversations/{houses[0].bot.chat}/token", secure=True)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_bot_key")


def test_the_admins_pages_have_a_row_of_their_own(houses: tuple[House, House]) -> None:
    """H6: its own scripts, styles and forms; nothing inline and nothing foreign."""
    acme, _ = houses
    pages = ["/admin/", *(address(model, "changelist") for model in OURS)]
    pages += [address(model, page, acme.row(model)) for model in OURS for page in ("change", "history")]
    for page in pages:
        check(acme.admin.get(page), admin=True)


def test_an_error_page_of_the_admin_has_a_style_that_its_policy_allows(houses: tuple[House, House]) -> None:
    """H6. The bug: the admin's policy forbade the stylesheet inside the page, so an error page had no style."""
    acme, _ = houses
    for url, status in ((address(Brand, "add"), 403), ("/admin/nowhere/", 404)):
        page = acme.admin.get(url)
        text = page.content.decode()
        assert (page.status_code, 'rel="stylesheet"' in text, "<style" in text) == (status, True, False)
        check(page, admin=True)


def test_a_static_file_may_be_cached_and_is_nothing_but_itself() -> None:
    """H6: the one thing that caches may keep. No other site is invited to read it."""
    answer = Client(SERVER_NAME=HOST).get("/static/consumer.css", secure=True)
    kept = {name: value for name, value in EVERYWHERE.items() if name.startswith(("Cross", "Strict", "X-Content"))}
    assert {name: answer.get(name) for name in kept} == kept
    assert (answer["Cache-Control"], answer["Referrer-Policy"]) == ("max-age=60, public", "no-referrer")
    assert (answer["Content-Type"], answer.get("Access-Control-Allow-Origin")) == ('text/css; charset="utf-8"', None)
    answer.close()


def test_plain_http_is_sent_on_to_tls() -> None:
    """H6: HSTS is said over TLS alone (RFC 6797 section 7.2)."""
    answer = Client(SERVER_NAME=HOST).get("/c/x")
    assert (answer.status_code, answer["Location"]) == (301, f"https://{HOST}/c/x")
    assert answer.get("Strict-Transport-Security") is None


def test_our_own_cookies_are_as_strict_as_they_can_be(acme_bot: Bot, ada: Browser, acme_login: Any) -> None:
    """B3: `__Host-` means Secure, path / and no domain, which the browser holds us to."""
    names = [current.SESSION_COOKIE_NAME, current.CSRF_COOKIE_NAME]
    assert [name.startswith("__Host-") for name in names] == [True, True]
    ada.begin(acme_bot.challenge()["url"])
    for name, cookie in ada.client.cookies.items():
        assert (name[:7], cookie["secure"], cookie["httponly"], cookie["path"]) == ("__Host-", True, True, "/")
        assert (cookie["domain"], cookie["samesite"]) == ("", "Lax")
