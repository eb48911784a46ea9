"""A consumer at an authorization server: signs in, agrees or refuses, and stops at the redirect to our callback."""

from typing import Final
from urllib.parse import parse_qs, urljoin, urlsplit

import requests
from requests.cookies import RequestsCookieJar

from demo.browser import BrowserCookiePolicy, origin
from demo.html_forms import Form, parse_page

MOST_PAGES: Final = 12
PASSWORD: Final = "correct horse battery staple"

# Fields that a person fills in.
TYPED: Final = frozenset({"login", "username", "password"})
# Names and texts of buttons that refuse.
REFUSALS: Final = frozenset({"cancel", "deny", "refuse"})


class BrowserSession(requests.Session):
    """Sends cookies by its own policy. `requests` would use the standard library's."""

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        prepared = super().prepare_request(request)
        prepared.headers.pop("Cookie", None)
        prepared.prepare_cookies(self.cookies)
        return prepared


class Consumer:
    """A browser. It keeps its cookies from one sign-in to the next."""

    def __init__(self, login: str, password: str = PASSWORD, ca_file: str = "") -> None:
        self.login = login
        self.password = password
        self.browser = BrowserSession()
        self.browser.trust_env = False
        self.browser.verify = ca_file or True
        self.browser.cookies = RequestsCookieJar(policy=BrowserCookiePolicy())

    def sign_in(self, authorization_url: str, *, untick: frozenset[str] = frozenset(), redirect_uri: str = "") -> str:
        """Sign in and agree to everything except the scopes in `untick`. Returns the callback URL with the response.

        Give `redirect_uri` if the URL does not contain it, because the request was pushed.
        """
        return self._walk(authorization_url, refusing=False, untick=untick, redirect_uri=redirect_uri)

    def refuse(self, authorization_url: str) -> str:
        """Sign in if asked to, and refuse consent. Returns the callback URL."""
        return self._walk(authorization_url, refusing=True, untick=frozenset())

    def _walk(self, address: str, *, refusing: bool, untick: frozenset[str], redirect_uri: str = "") -> str:
        redirect_uri = redirect_uri or parse_qs(urlsplit(address).query)["redirect_uri"][0]
        response = self._open(address)
        for _ in range(MOST_PAGES):
            if response.is_redirect:
                address = urljoin(response.url, response.headers["Location"])
                if address.split("?")[0] == redirect_uri:
                    return address
                response = self._open(address)
            else:
                response = self._answer(response, refusing=refusing, untick=untick)
        raise AssertionError(f"no way back to {redirect_uri} after {MOST_PAGES} pages; the last one was {response.url}")

    def _answer(self, response: requests.Response, *, refusing: bool, untick: frozenset[str]) -> requests.Response:
        page = parse_page(response.text)
        assert response.ok, f"{response.status_code} at {response.url}: {page.text}"
        assert page.forms, f"a page without a form at {response.url}: {page.text}"
        form = page.forms[-1]
        address = urljoin(response.url, form.action)
        typed = {name: self._typed(name) for name in form.fields if name in TYPED}
        if refusing and not typed and _button(form, refusing=True) is None:
            return self._open(f"{address}/abort")  # oidc-provider's refusal is a link beside the form
        kept = {name: _without(values, untick) for name, values in form.fields.items()}
        pressed = _button(form, refusing=refusing and not typed) or {}
        return self.browser.post(
            address,
            data=kept | typed | pressed,
            headers={"Origin": origin(response.url)},
            allow_redirects=False,
            timeout=60,
        )

    def _open(self, address: str) -> requests.Response:
        return self.browser.get(address, allow_redirects=False, timeout=60)

    def _typed(self, name: str) -> str:
        return self.password if name == "password" else self.login


def _without(values: str | list[str], unticked: frozenset[str]) -> list[str]:
    return [value for value in ([values] if isinstance(values, str) else values) if value not in unticked]


def _button(form: Form, *, refusing: bool) -> dict[str, str] | None:
    """The fields that the accepting button adds, or the refusing one; None if there is no such button."""
    for button in form.buttons:
        if button.name and (button.value in REFUSALS) == refusing:
            return {button.name: button.value}
    return None
