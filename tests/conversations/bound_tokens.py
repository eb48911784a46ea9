"""Acme's authorization server and API as they are with bound tokens (DPoP); Ada, and the bots of her chat."""

import pytest

from brands.models import AuthorizationServer, Brand
from tests.brand_api import CALLING, Caller, make_api
from tests.cast import ACME_SECRET, Bot, Browser, make_bot
from tests.dpop import DPoPApi, DPoPAuthorizationServer
from tests.hostile_token_endpoint import HostileTokenEndpoint


@pytest.fixture
def acme_server(acme_server: AuthorizationServer) -> AuthorizationServer:
    """Acme's authorization server, with DPoP switched on."""
    AuthorizationServer.objects.update(
        dpop_bound_access_tokens=True, revocation_endpoint="https://login.acme.example/revoke"
    )
    acme_server.refresh_from_db()
    return acme_server


@pytest.fixture
def login(acme_server: AuthorizationServer) -> DPoPAuthorizationServer:
    return DPoPAuthorizationServer(
        "login.acme.example", "acme-client", ACME_SECRET, redirect_uri=acme_server.redirect_uri, pushed_only=False
    )


@pytest.fixture
def caller(
    acme: Brand,
    acme_server: AuthorizationServer,
    ada: Browser,
    brand_api: HostileTokenEndpoint,
    login: DPoPAuthorizationServer,
) -> Caller:
    """acme-bot in a chat in which Ada has signed in."""
    make_api(acme_server, f"https://localhost:{brand_api.port}/shop/v1/")
    found = Caller(make_bot(acme, *CALLING), ada, login, acme_server, brand_api)
    found.sign_in()
    return found


@pytest.fixture
def api(caller: Caller, login: DPoPAuthorizationServer) -> DPoPApi:
    """Acme's API, which takes bound tokens alone."""
    return DPoPApi(caller.api, login.bound.get)


@pytest.fixture
def reader(acme: Brand, caller: Caller) -> Bot:
    """A bot in the same chat whose key has every scope."""
    return make_bot(acme)
