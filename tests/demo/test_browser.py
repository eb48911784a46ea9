"""The scripted consumer has to be as strict as a real browser, or the journey proves nothing about cookies."""

import io
from collections.abc import Iterator
from http.client import HTTPMessage
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3 import HTTPResponse

from demo.browser import Browser, BrowserError

OURS, BRAND, ELSEWHERE = "http://localhost:8000", "http://127.0.0.1:8001", "http://plain.example"
FORM = '<form method="post"><input name="kept" value="1"><button>Continue</button></form>'


class FakeWeb(BaseAdapter):
    """Answers from a dictionary and remembers what it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, tuple[int, list[tuple[str, str]], str]] = {}
        self.seen: list[requests.PreparedRequest] = []

    def answers_with(self, url: str, *headers: tuple[str, str], status: int = 200, body: str = "") -> None:
        self.answers[url] = (status, list(headers), body)

    def send(self, request: requests.PreparedRequest, *_: object, **__: object) -> requests.Response:
        self.seen.append(request)
        status, headers, body = self.answers.get(str(request.url), (200, [], ""))
        message = HTTPMessage()
        for name, value in headers:
            message[name] = value
        # The cookie jar reads the standard library's response, which urllib3 keeps at hand.
        original: Any = SimpleNamespace(msg=message, isclosed=lambda: True)
        raw = HTTPResponse(
            io.BytesIO(body.encode()), dict(headers), status, preload_content=False, original_response=original
        )
        return HTTPAdapter().build_response(request, raw)

    def close(self) -> None:
        return

    @property
    def last_cookie(self) -> str:
        return self.seen[-1].headers.get("Cookie", "")


@pytest.fixture
def web() -> FakeWeb:
    return FakeWeb()


@pytest.fixture
def browser(web: FakeWeb) -> Iterator[Browser]:
    browser = Browser(lambda *_: None)
    browser.session.mount("http://", web)
    yield browser
    browser.session.close()


def visit_and_come_back(web: FakeWeb, browser: Browser, cookie: str, first: str, again: str = "") -> str:
    web.answers_with(f"{first}/", ("Set-Cookie", cookie))
    browser.open(f"{first}/")
    browser.open(f"{again or first}/again")
    return web.last_cookie


@pytest.mark.parametrize("origin", [OURS, BRAND])
def test_loopback_takes_secure_and_host_cookies(web: FakeWeb, browser: Browser, origin: str) -> None:
    assert visit_and_come_back(web, browser, "__Host-attempt=1; Path=/; Secure", origin) == "__Host-attempt=1"


def test_a_secure_cookie_from_a_plain_host_is_refused(web: FakeWeb, browser: Browser) -> None:
    assert visit_and_come_back(web, browser, "attempt=1; Path=/; Secure", ELSEWHERE) == ""


@pytest.mark.parametrize(
    "cookie",
    [
        "__Host-attempt=1; Path=/",
        "__Host-attempt=1; Path=/c; Secure",
        "__Host-attempt=1; Secure",
        "__Host-attempt=1; Path=/; Secure; Domain=127.0.0.1",
        "__Secure-attempt=1; Path=/",
    ],
)
def test_a_prefix_that_is_not_kept_loses_the_cookie(web: FakeWeb, browser: Browser, cookie: str) -> None:
    assert visit_and_come_back(web, browser, cookie, BRAND) == ""


def test_cookies_ignore_ports_but_not_hosts(web: FakeWeb, browser: Browser) -> None:
    assert visit_and_come_back(web, browser, "name=1; Path=/", BRAND, "http://127.0.0.1:8002") == "name=1"
    assert visit_and_come_back(web, browser, "other=1; Path=/", BRAND, OURS) == ""


@pytest.mark.parametrize(("same_site", "sent"), [("Strict", ""), ("Lax", "name=1"), ("None", "name=1")])
def test_a_redirect_from_another_site_brings_lax_cookies_only(
    web: FakeWeb, browser: Browser, same_site: str, sent: str
) -> None:
    web.answers_with(f"{OURS}/", ("Set-Cookie", f"name=1; Path=/; Secure; SameSite={same_site}"))
    web.answers_with(f"{BRAND}/back", ("Location", f"{OURS}/callback"), status=302)
    browser.open(f"{OURS}/")
    browser.open(f"{BRAND}/back", came_from=f"{BRAND}/consent")
    assert web.last_cookie == sent


def test_a_form_posted_across_sites_brings_no_lax_cookie(web: FakeWeb, browser: Browser) -> None:
    web.answers_with(f"{OURS}/", ("Set-Cookie", "name=1; Path=/; SameSite=Lax"))
    web.answers_with(f"{BRAND}/", body=FORM.replace("<form", f'<form action="{OURS}/post"'))
    browser.open(f"{OURS}/")
    browser.press(browser.open(f"{BRAND}/"), "Continue")
    assert web.last_cookie == ""


def test_a_post_tells_its_origin_and_a_redirect_afterwards_does_not(web: FakeWeb, browser: Browser) -> None:
    web.answers_with(f"{OURS}/c/1", body=FORM)
    page = browser.open(f"{OURS}/c/1")
    web.answers_with(f"{OURS}/c/1", ("Location", f"{BRAND}/authorize"), status=303)
    browser.press(page, "Continue")
    post, after = web.seen[-2:]
    assert (post.method, post.headers["Origin"], post.body) == ("POST", OURS, "kept=1")
    assert (after.method, after.headers.get("Origin"), after.body) == ("GET", None, None)


def test_a_page_that_hides_its_address_posts_with_a_null_origin(web: FakeWeb, browser: Browser) -> None:
    web.answers_with(f"{OURS}/c/1", ("Referrer-Policy", "no-referrer"), body=FORM)
    browser.press(browser.open(f"{OURS}/c/1"), "Continue")
    assert web.seen[-1].headers["Origin"] == "null"


def test_every_hop_is_reported(web: FakeWeb) -> None:
    hops: list[tuple[str, str, int]] = []
    browser = Browser(lambda method, url, response: hops.append((method, url, response.status_code)))
    browser.session.mount("http://", web)
    web.answers_with(f"{OURS}/", ("Location", "/next"), status=303)
    browser.open(f"{OURS}/")
    assert hops == [("GET", f"{OURS}/", 303), ("GET", f"{OURS}/next", 200)]


def test_a_missing_button_is_an_error_that_tells_what_the_page_says(web: FakeWeb, browser: Browser) -> None:
    web.answers_with(f"{OURS}/", body="<h1>This link no longer works</h1>")
    with pytest.raises(BrowserError, match="This link no longer works"):
        browser.press(browser.open(f"{OURS}/"), "Continue")


def test_redirects_that_never_end_are_an_error(web: FakeWeb, browser: Browser) -> None:
    web.answers_with(f"{OURS}/", ("Location", "/"), status=302)
    with pytest.raises(BrowserError, match="redirects"):
        browser.open(f"{OURS}/")
