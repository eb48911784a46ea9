"""The scripted consumer's browser: follows redirects, fills in forms, and stores cookies like a browser."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from http.cookiejar import Cookie, DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import Request

import requests
from requests.cookies import RequestsCookieJar

from demo.html_forms import Form, ParsedPage, parse_page

TIMEOUT = 30
MOST_REDIRECTS = 10
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
Report = Callable[[str, str, requests.Response], None]


class BrowserError(Exception):
    """The page is not the one that the story expects, so the consumer cannot continue."""


def site(url: str) -> tuple[str, str]:
    """Return what SameSite compares: scheme and host without port. None of our hosts has subdomains."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or ""


def origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def is_trustworthy(url: str) -> bool:
    """Whether the URL is https or on loopback: a "potentially trustworthy origin" (W3C Secure Contexts)."""
    scheme, host = site(url)
    return scheme == "https" or host in LOOPBACK_HOSTS


class BrowserCookiePolicy(DefaultCookiePolicy):
    """The standard library's rules, plus RFC 6265bis: Secure on loopback, name prefixes, SameSite."""

    def __init__(self) -> None:
        super().__init__()
        self.cross_site = False
        self.safe_method = True

    def set_ok(self, cookie: Cookie, request: Request) -> bool:
        return bool(super().set_ok(cookie, request)) and may_be_set(cookie, request.get_full_url())

    def return_ok_secure(self, cookie: Cookie, request: Request) -> bool:
        return not cookie.secure or is_trustworthy(request.get_full_url())

    def return_ok(self, cookie: Cookie, request: Request) -> bool:
        return bool(super().return_ok(cookie, request)) and (not self.cross_site or self._is_sent_cross_site(cookie))

    def _is_sent_cross_site(self, cookie: Cookie) -> bool:
        """Whether a cross-site request carries the cookie: SameSite=None always, Lax (the default) if it is a GET."""
        same_site = attribute(cookie, "samesite").lower() or "lax"
        return same_site == "none" or (same_site == "lax" and self.safe_method)


def may_be_set(cookie: Cookie, url: str) -> bool:
    if cookie.secure and not is_trustworthy(url):
        return False
    if cookie.name.startswith("__Secure-"):
        return cookie.secure
    if cookie.name.startswith("__Host-"):
        return cookie.secure and cookie.path == "/" and cookie.path_specified and not cookie.domain_specified
    return True


def attribute(cookie: Cookie, name: str) -> str:
    rest: dict[str, Any] = vars(cookie)["_rest"]
    return next((str(value) for key, value in rest.items() if key.lower() == name), "")


@dataclass(frozen=True)
class Page:
    url: str
    response: requests.Response
    parsed: ParsedPage

    @property
    def status(self) -> int:
        return self.response.status_code

    def form_with(self, button: str) -> Form:
        for form in self.parsed.forms:
            if form.button(button) is not None:
                return form
        raise BrowserError(f"There is no button {button!r} on {self.url}; it says: {self.parsed.text[:300]}")


class Browser:
    def __init__(self, report: Report) -> None:
        self.report = report
        self.policy = BrowserCookiePolicy()
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = os.environ.get("DEMO_CA_FILE") or True
        self.session.headers["User-Agent"] = "Mozilla/5.0 (a scripted consumer)"
        self.session.headers["Accept"] = "text/html,application/xhtml+xml"
        self.jar = RequestsCookieJar(policy=self.policy)
        self.session.cookies = self.jar

    def open(self, url: str, came_from: str = "") -> Page:
        """Open a URL. `came_from` is the page with the link; empty if the URL was typed in."""
        return self._go("GET", url, came_from, {})

    def press(self, page: Page, button: str, **filled_in: str) -> Page:
        """Submit the form that contains this button. `button` is the beginning of the button's text."""
        form = page.form_with(button)
        data = {**form.fields, **(form.button(button) or {}), **filled_in}
        return self._go(form.method, urljoin(page.url, form.action), page.url, data, sender=page)

    def _go(self, method: str, url: str, came_from: str, data: dict[str, Any], sender: Page | None = None) -> Page:
        crossed = False
        for _ in range(MOST_REDIRECTS):
            crossed = crossed or bool(came_from and site(came_from) != site(url))
            response = self._send(method, url, data, crossed, sender)
            self.report(method, url, response)
            if not response.is_redirect:
                return Page(url, response, parse_page(response.text))
            came_from, url = url, urljoin(url, response.headers["Location"])
            # As browsers do (Fetch standard): a 303, and a 302 after a POST, become a GET without a body.
            method, data, sender = "GET", {}, None
        raise BrowserError(f"More than {MOST_REDIRECTS} redirects, the last one to {url}")

    def _send(
        self, method: str, url: str, data: dict[str, Any], crossed: bool, sender: Page | None
    ) -> requests.Response:
        self.policy.cross_site, self.policy.safe_method = crossed, method == "GET"
        headers = {"Origin": origin_header(sender, url)} if sender and method == "POST" else {}
        params, body = (data, None) if method == "GET" else (None, data)
        request = self.session.prepare_request(requests.Request(method, url, headers, params=params, data=body))
        # requests adds cookies by its own rules, from a copy of the jar. Replace them by those of our policy.
        request.headers.pop("Cookie", None)
        request.prepare_cookies(self.jar)
        return self.session.send(request, timeout=TIMEOUT, allow_redirects=False)


def origin_header(sender: Page, url: str) -> str:
    """Return the `Origin` of a form; `null` if the page's referrer policy hides it (Fetch standard)."""
    policy = sender.response.headers.get("Referrer-Policy", "")
    hidden = policy == "no-referrer" or (policy == "same-origin" and origin(sender.url) != origin(url))
    return "null" if hidden else origin(sender.url)
