"""The scripted consumer's browser: it follows redirects, fills in forms, and applies browsers' cookie rules."""

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
    """The page does not have the expected button, or redirects do not end."""


def site(url: str) -> tuple[str, str]:
    """Scheme and host, which SameSite compares. Ports do not count, and our hosts have no subdomains."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or ""


def origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def is_trustworthy(url: str) -> bool:
    """Whether the URL is https or loopback ("potentially trustworthy origin", Secure Contexts)."""
    scheme, host = site(url)
    return scheme == "https" or host in LOOPBACK_HOSTS


class BrowserCookiePolicy(DefaultCookiePolicy):
    """Adds rules of RFC 6265bis that the standard library lacks: Secure on loopback, name prefixes, SameSite."""

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
        """SameSite=None is always sent to another site; Lax, the default, only with a GET."""
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
        """Open a URL. `came_from` is the URL of the page that contains the link, empty for a typed address."""
        return self._go("GET", url, came_from, {})

    def press(self, page: Page, button: str, **filled_in: str) -> Page:
        """Submit the form of the button whose text begins with `button`. `filled_in` are values for its fields."""
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
            # Fetch, "HTTP-redirect fetch": a 303, and a 302 after POST, become GET and lose the body.
            method, data, sender = "GET", {}, None
        raise BrowserError(f"More than {MOST_REDIRECTS} redirects, the last one to {url}")

    def _send(
        self, method: str, url: str, data: dict[str, Any], crossed: bool, sender: Page | None
    ) -> requests.Response:
        self.policy.cross_site, self.policy.safe_method = crossed, method == "GET"
        headers = {"Origin": origin_header(sender, url)} if sender and method == "POST" else {}
        params, body = (data, None) if method == "GET" else (None, data)
        request = self.session.prepare_request(requests.Request(method, url, headers, params=params, data=body))
        # requests has set the cookies from a copy of the jar without our policy. Replace them.
        request.headers.pop("Cookie", None)
        request.prepare_cookies(self.jar)
        return self.session.send(request, timeout=TIMEOUT, allow_redirects=False)


def origin_header(sender: Page, url: str) -> str:
    """The Origin header (Fetch, "append a request Origin header"): `null` if the page's Referrer-Policy hides it."""
    policy = sender.response.headers.get("Referrer-Policy", "")
    hidden = policy == "no-referrer" or (policy == "same-origin" and origin(sender.url) != origin(url))
    return "null" if hidden else origin(sender.url)
