"""The cast: Acme with Ada and acme-bot; Rival with Rita and rival-bot, who must see nothing of Acme's.

A bot calls our JSON API with its key. A consumer has her own browser, which keeps cookies.
"""

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from brands.authentication import create_bot_key
from brands.models import AuthorizationServer, BotKey, Brand, BrandAPI, Operation
from infrastructure.crypto import Secret
from tests import contract
from tests.fake_authorization_server import FakeAuthorizationServer, mounted
from tests.handler import Handler

HOST = "delegation.test"
CHAT = "whatsapp:4915112345678"
ACME_SECRET = "planted acme+secret/7%:é"
RIVAL_SECRET = "planted rival+secret/8%:é"


@lru_cache
def _handler(*, enforce_csrf_checks: bool) -> Handler:
    handler = Handler(enforce_csrf_checks=enforce_csrf_checks)
    handler.load_middleware()
    return handler


def client_of_ours(*, enforce_csrf_checks: bool = False, headers: dict[str, str] | None = None) -> Client:
    """A client that shares its loaded middleware. Loading it takes longer than most calls."""
    client = Client(SERVER_NAME=HOST, headers=headers)
    client.handler = _handler(enforce_csrf_checks=enforce_csrf_checks)
    return client


@dataclass
class Bot:
    """A bot with its key and its chat. Calls return the status and the decoded body."""

    key: str = field(repr=False)
    chat: str = CHAT

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Call the API. Returns the response."""
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        content_type = headers.pop("content_type", "application/json" if raw else "")
        client = client_of_ours(headers={"Authorization": f"Bearer {self.key}"} | headers)
        response = client.generic(method, f"/api/v1{path}", raw, content_type=content_type, secure=True)
        if method != "HEAD" and "Host" not in headers:
            contract.check(method, path, response)  # type: ignore[arg-type]  # the test client's own class
        return response

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        """Call the API. Returns the status and the JSON answer."""
        response = self.send(method, path, body, **headers)
        return response.status_code, response.json()

    def in_chat(self, method: str, what: str = "", body: Any = None) -> tuple[int, dict[str, Any]]:
        """Call something of this bot's own chat, such as `/token`."""
        return self.call(method, f"/conversations/{self.chat}{what}", body)

    def challenge(self, **body: Any) -> dict[str, Any]:
        """Create a challenge. Fails if none was created."""
        status, challenge = self.in_chat("POST", "/challenges", body)
        assert status == 201, challenge
        return challenge

    def token(self) -> tuple[int, dict[str, Any]]:
        return self.in_chat("GET", "/token")

    def complete(self, code: str) -> tuple[int, dict[str, Any]]:
        """Post a completion code."""
        return self.in_chat("POST", "/completion", {"code": code})

    def status(self) -> tuple[str, str | None]:
        """The authorization status at the brand's only server, and its reason."""
        status, facts = self.in_chat("GET")
        assert status == 200, facts
        (authorization,) = facts["authorization_servers"]
        return authorization["status"], authorization["reason"]

    def read_challenge(self, challenge: dict[str, Any]) -> dict[str, Any]:
        status, facts = self.call("GET", f"/challenges/{challenge['challenge_id']}")
        assert status == 200, facts
        return facts


class Browser:
    """A consumer's browser: own cookies, CSRF checks on, TLS, no automatic redirects."""

    def __init__(self) -> None:
        self.client = client_of_ours(enforce_csrf_checks=True)

    def get(self, url: str) -> Any:
        """Open one of our URLs."""
        return self._kept(self.client.get(_path(url), secure=True))

    def press(self, page_url: str, action: str = "") -> Any:
        """Open a page and submit one of its forms: the button, or `/cancel`, `/undo`."""
        self.get(page_url)
        link = _path(page_url).removesuffix("/done").removesuffix("/other-browser")
        cookie = self.client.cookies.get("__Host-csrf")
        data = {"csrfmiddlewaretoken": cookie.value} if cookie else {}
        return self._kept(self.client.post(link + action, data, secure=True, headers={"Referer": f"https://{HOST}/"}))

    def _kept(self, answer: Any) -> Any:
        """Delete the cookies that an answer expires. Browsers do that, Django's test client does not."""
        for name in [name for name, cookie in answer.cookies.items() if cookie["max-age"] == 0]:
            self.client.cookies.pop(name, None)
        return answer

    def begin(self, url: str) -> str:
        """Press the button of a link. Returns the authorization URL."""
        response = self.press(url)
        assert response.status_code == 303, response.content
        return str(response["Location"])

    def come_back(self, authorization_url: str, login: FakeAuthorizationServer) -> Any:
        """Sign in at the brand and follow its redirect to our callback. Returns the callback's answer."""
        return self.get(f"{login.redirect_uri}?{login.authorize(authorization_url)}")

    def sign_in(self, url: str, login: FakeAuthorizationServer) -> Any:
        """Follow a link to its end. Returns the last page."""
        answer = self.come_back(self.begin(url), login)
        assert answer.status_code == 303, answer.content
        return self.get(answer["Location"])

    def read_code(self, url: str) -> str:
        """The completion code on the result page of a link."""
        return code_on(self.get(f"{url}/done"))


def code_on(page: Any) -> str:
    """The completion code on a page. Fails if there is none."""
    found = re.search(r'data-completion-code="([0-9]{6})"', page.content.decode())
    assert found, page.content.decode()
    return found[1]


def heading_of(page: Any) -> str:
    found = re.search(r"<h1>(.*?)</h1>", page.content.decode(), re.DOTALL)
    assert found, page.content.decode()
    return html.unescape(found[1].strip())


def _path(url: str) -> str:
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def make_server(brand: Brand, key: str = "orders", secret: str = ACME_SECRET, **values: Any) -> AuthorizationServer:
    """Save an authorization server of a brand. Every value can be overridden."""
    defaults = FakeAuthorizationServer(host=f"login.{brand.slug}.example", client_id=f"{brand.slug}-client").fields()
    server = AuthorizationServer(brand=brand, key=key, **(defaults | values))
    server.set_client_secret(Secret(secret) if secret else None)
    server.save()
    return server


def declare_api(server: AuthorizationServer, key: str = "orders-api", **values: Any) -> BrandAPI:
    """Save an API that takes the tokens of a server."""
    defaults = {"base_url": f"https://api.{server.brand.slug}.example/v1"}
    return BrandAPI.objects.create(brand=server.brand, authorization_server=server, key=key, **(defaults | values))


def declare_operation(api: BrandAPI, name: str = "orders.list", **values: Any) -> Operation:
    """Save an operation of an API."""
    defaults = {"method": "GET", "path": "/orders"}
    return Operation.objects.create(brand=api.brand, api=api, name=name, **(defaults | values))


def make_bot(brand: Brand, *scopes: str, chat: str = CHAT) -> Bot:
    """Create a bot with a new key. Without scopes it gets all of them."""
    _, key = create_bot_key(brand, f"{brand.slug}-bot", scopes or BotKey.Scope.values)
    return Bot(key.reveal(), chat)


def make_brand(slug: str) -> Brand:
    return Brand.objects.create(name=slug.title(), slug=slug)


def make_admin(brand: Brand) -> Any:
    """Save a user who administers one brand and nothing else."""
    name = f"{brand.slug}-admin"
    user = get_user_model().objects.create_user(name, password=name, is_staff=True)
    brand.admins.add(user)
    return user


def _house_of(slug: str, request: pytest.FixtureRequest) -> Any:
    """The brand's house (`tests.admin_pages`), if the test uses houses. Its brand and admin are used then."""
    houses = request.getfixturevalue("houses") if "houses" in request.fixturenames else ()
    return next((house for house in houses if house.brand.slug == slug), None)


@pytest.fixture
def acme(db: None, request: pytest.FixtureRequest) -> Brand:
    house = _house_of("acme", request)
    return house.brand if house else make_brand("acme")


@pytest.fixture
def acme_server(acme: Brand) -> AuthorizationServer:
    """Acme's only authorization server, `orders`."""
    return make_server(acme)


@pytest.fixture
def logins() -> Iterator[dict[str, FakeAuthorizationServer]]:
    """Mount the two brands' authorization servers. No call of the product reaches anything else."""
    servers = {
        "acme": FakeAuthorizationServer("login.acme.example", "acme-client", ACME_SECRET),
        "rival": FakeAuthorizationServer("login.rival.example", "rival-client", RIVAL_SECRET, subject="rita"),
    }
    with mounted(*servers.values()):
        yield servers


@pytest.fixture
def acme_login(acme_server: AuthorizationServer, logins: dict[str, FakeAuthorizationServer]) -> FakeAuthorizationServer:
    """The authorization server behind `acme_server`. Ada is signed in there."""
    logins["acme"].redirect_uri = acme_server.redirect_uri
    return logins["acme"]


@pytest.fixture
def rival_login(
    rival_server: AuthorizationServer, logins: dict[str, FakeAuthorizationServer]
) -> FakeAuthorizationServer:
    """The authorization server behind `rival_server`. Rita is signed in there."""
    logins["rival"].redirect_uri = rival_server.redirect_uri
    return logins["rival"]


def use_openid(server: AuthorizationServer, login: FakeAuthorizationServer) -> None:
    """Switch a brand to OpenID Connect, on both sides."""
    login.openid = True
    AuthorizationServer.objects.filter(pk=server.pk).update(scope="openid orders.read", jwks_uri=f"{login.issuer}/jwks")


@pytest.fixture
def acme_bot(acme: Brand) -> Bot:
    """Acme's bot, with every scope."""
    return make_bot(acme)


@pytest.fixture
def rival(db: None, request: pytest.FixtureRequest) -> Brand:
    """The brand that must see nothing of Acme's."""
    house = _house_of("rival", request)
    return house.brand if house else make_brand("rival")


@pytest.fixture
def rival_server(rival: Brand) -> AuthorizationServer:
    """Rival's only authorization server, also called `orders`."""
    return make_server(rival, secret=RIVAL_SECRET)


@pytest.fixture
def rival_bot(rival: Brand) -> Bot:
    """Rival's bot, with every scope."""
    return make_bot(rival)


@pytest.fixture
def ada() -> Browser:
    """Ada's browser. She is in the chat with acme-bot."""
    return Browser()


@pytest.fixture
def rita() -> Browser:
    """Rita's browser. Links are forwarded to her."""
    return Browser()


@pytest.fixture
def acme_admin(acme: Brand, request: pytest.FixtureRequest) -> Any:
    """The user who administers Acme and nothing else."""
    house = _house_of("acme", request)
    return house.admin.user if house else make_admin(acme)


@pytest.fixture
def rival_admin(rival: Brand, request: pytest.FixtureRequest) -> Any:
    """The user who administers Rival and nothing else."""
    house = _house_of("rival", request)
    return house.admin.user if house else make_admin(rival)
