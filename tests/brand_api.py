"""Acme's API on a real socket, which answers byte for byte what a test says, and a bot that may call it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from pytest_django import Settings

from brands.models import AuthorizationServer, BotKey, Brand, BrandAPI, Operation
from tests.cast import ACME_SECRET, Bot, Browser, code_on, make_bot, use_openid
from tests.fake_authorization_server import FakeAuthorizationServer, mounted
from tests.hostile_token_endpoint import HostileTokenEndpoint, http_answer, running
from tests.tls import Authority

ORDERS: Final = http_answer(b'{"orders": ["A-1001"]}', Content_Type="application/json", ETag='"7"')
REFUSED: Final = http_answer(b"", status=401, WWW_Authenticate='Bearer error="invalid_token"')
STRONG: Final = "urn:acme:loa:2"
# A key that cannot read tokens.
CALLING: Final = (BotKey.Scope.CHALLENGE_CREATE, BotKey.Scope.CHALLENGE_READ, BotKey.Scope.API_CALL)
LIMIT: Final = {"name": "limit", "in": "query", "required": False, "schema": {"type": "integer", "maximum": 50}}
ORDER_ID: Final = {"name": "order_id", "in": "path", "required": True, "schema": {"type": "string"}}
LANGUAGE: Final = {"name": "X-Language", "in": "header", "required": False, "schema": {"type": "string"}}
NOTE: Final = {"type": "object", "required": ["note"], "properties": {"note": {"type": "string"}}}


def demanding(parameters: str, status: int = 401) -> bytes:
    """An answer that demands another sign-in (RFC 9470 section 3)."""
    challenge = 'Bearer error="insufficient_user_authentication"' + (f", {parameters}" if parameters else "")
    return http_answer(b"{}", status=status, WWW_Authenticate=challenge)


STRONGER: Final = demanding(f'acr_values="{STRONG}"')


def make_api(server: AuthorizationServer, base_url: str, **values: Any) -> BrandAPI:
    """Save an API of the server's brand, with an operation to list orders, one to read and one to change an order."""
    api = BrandAPI.objects.create(
        brand=server.brand, authorization_server=server, key="shop", base_url=base_url, **values
    )
    make_operation(api, "orders.list", path="/orders", parameters=[LIMIT, LANGUAGE], is_safe_to_repeat=True)
    make_operation(api, "orders.read", path="/orders/{order_id}", parameters=[ORDER_ID])
    make_operation(
        api, "orders.note", method="POST", path="/orders/{order_id}/notes", parameters=[ORDER_ID], body_schema=NOTE
    )
    return api


def make_operation(api: BrandAPI, name: str, **values: Any) -> Operation:
    return Operation.objects.create(brand=api.brand, api=api, name=name, **({"method": "GET"} | values))


@dataclass
class Caller:
    """acme-bot, which calls Acme's API and cannot read tokens; Ada, who signs in; and what Acme's servers have seen."""

    bot: Bot
    ada: Browser
    login: FakeAuthorizationServer
    server: AuthorizationServer
    api: HostileTokenEndpoint = field(repr=False)

    @property
    def token(self) -> str:
        """The token that was issued last."""
        return self.login.issued_access_tokens[-1]

    def sign_in(self, challenge: dict[str, Any] | None = None) -> None:
        """Let Ada sign in at a challenge's link, or at that of a new one, and confirm it."""
        with mounted(self.login):
            code = code_on(self.ada.sign_in((challenge or self.bot.challenge())["url"], self.login))
        status, answer = self.bot.call(
            "POST", f"/conversations/{self.bot.chat}/completion", {"code": code, "session": answer_session(challenge)}
        )
        assert status == 200, answer

    def call(self, operation: str = "orders.list", /, **body: Any) -> tuple[int, dict[str, Any]]:
        return self.bot.in_chat("POST", f"/calls/{operation}", body)

    def code(self, operation: str = "orders.list", /, **body: Any) -> str:
        """Make a call that is refused. Return the problem's code."""
        status, problem = self.call(operation, **body)
        assert status >= 400, problem
        return str(problem["code"])

    def sent(self) -> bytes:
        """The only request that the API got."""
        (request,) = self.api.requests
        return request


def answer_session(challenge: dict[str, Any] | None) -> int | None:
    return challenge["session"] if challenge else None


def step_up(caller: Caller, answer: bytes = STRONGER) -> dict[str, Any]:
    """Make a call that needs a stronger sign-in, and create the challenge that the answer names. Return it."""
    caller.api.play(answer)
    status, problem = caller.call()
    assert (status, problem["code"]) == (409, "step_up_required")
    assert problem["next"]["operation"] == "createChallenge"
    return caller.bot.challenge()


def sign_in_with(caller: Caller, challenge: dict[str, Any], **claims: Any) -> Any:
    """Let Ada sign in at a challenge's link, with these claims in her ID token. Return the last page."""
    caller.login.id_token_changes = claims
    with mounted(caller.login):
        return caller.ada.sign_in(challenge["url"], caller.login)


@pytest.fixture
def brand_api(tls_authority: Authority, settings: Settings) -> Iterator[HostileTokenEndpoint]:
    """The server of Acme's API. It lists orders until a test lets it answer otherwise."""
    settings.OUTBOUND_CA_FILE = str(tls_authority.ca_file)
    settings.ALLOW_LOCAL_ENDPOINTS = True
    with running(tls_authority.issue()) as server:
        server.play(ORDERS)
        yield server


@pytest.fixture
def caller(acme: Brand, acme_server: AuthorizationServer, ada: Browser, brand_api: HostileTokenEndpoint) -> Caller:
    """acme-bot in a chat in which Ada has signed in."""
    make_api(acme_server, f"https://localhost:{brand_api.port}/shop/v1/")
    login = FakeAuthorizationServer(
        "login.acme.example", "acme-client", ACME_SECRET, redirect_uri=acme_server.redirect_uri
    )
    found = Caller(make_bot(acme, *CALLING), ada, login, acme_server, brand_api)
    found.sign_in()
    return found


@pytest.fixture
def paying(caller: Caller) -> Caller:
    """acme-bot in a chat in which Ada has signed in with OpenID Connect."""
    use_openid(caller.server, caller.login)
    caller.bot.in_chat("DELETE", "/token")
    caller.sign_in()
    return caller
