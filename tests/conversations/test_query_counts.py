"""How many statements each call and each page of a consumer costs: a new one is a decision and not an accident.

Every statement that Django sends counts, BEGIN, SAVEPOINT and COMMIT too (a test's own transaction makes savepoints of
them), and so does the counting of a call. Nothing here grows with the number of conversations, tokens or authorization
requests.
"""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, get_resolver

from brands.models import AuthorizationServer, Brand
from conversations import urls as conversations
from delegation_site import urls as site
from tests.brand_api import make_api
from tests.cast import Bot, Browser, code_on, use_openid
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

# In the order of one journey. `POST .../challenges` inserts conversation, challenge and audit row at the first call.
# `GET /callback` has two audit rows, both in the transaction of the result: that the consumer came back, and to what.
EXPECTED = {
    "POST /challenges (new chat)": 7,
    "POST /challenges (the live one)": 9,
    "POST /authorize (challenge)": 9,
    "GET /challenges/{id}": 1,
    "GET /conversation": 5,
    "GET /token (not yet)": 6,
    "GET /c/{link}": 2,
    "POST /c/{link}": 9,
    "GET /callback": 14,
    "GET /c/{link}/done": 3,
    "GET /c/{link}/standing": 2,
    "GET /c/{link}/other-browser": 3,
    "GET /c/{link}/not-completed": 3,
    "GET /callback (no answer)": 3,
    "GET /callback (no answer, a stranger's)": 2,
    "GET /callback/": 3,
    "POST /callback": 1,
    "POST /completion": 19,
    "GET /r/{receipt}": 2,
    "GET /token": 1,
    "POST /authorize (token)": 5,
    "POST /calls/{operation}": 1,
    "GET /operations": 2,
    "DELETE /token": 13,
    "POST /challenges (again)": 13,
    "POST /c/{link} (with a cookie of ours)": 10,
    "POST /c/{link}/cancel": 10,
    "POST /c/{link}/undo": 15,
    "POST /r/{receipt}/end": 14,
    "DELETE /challenges/{id}": 12,
    "DELETE /conversation": 17,
    "GET /c/": 1,
    "GET /c/{link}.": 1,
    "GET /en/c/{link}": 1,
    "GET /callback/{id}/jwks.json": 2,
    "GET /brands/{id}/logo.png": 2,
    "GET /openapi.json": 0,
    "GET /docs": 0,
}


class Meter:
    """Counts the statements of each step."""

    def __init__(self) -> None:
        self.counted: dict[str, int] = {}

    def __call__(self, name: str, step: Callable[[], Any]) -> Any:
        """Take a step; remember what it cost."""
        with CaptureQueriesContext(connection) as queries:
            answer = step()
        # On PostgreSQL a statement is planned the first time that a connection runs it.
        self.counted[name] = sum(not query["sql"].startswith("PREPARE ") for query in queries)
        return answer


def post(browser: Browser, url: str) -> Any:
    """Send a form whose page is open already."""
    path = url.removeprefix("https://delegation.test")
    data = {"csrfmiddlewaretoken": browser.client.cookies["__Host-csrf"].value}
    return browser.client.post(path, data, secure=True, headers={"Referer": "https://delegation.test/"})


def receipt_of(browser: Browser, url: str) -> str:
    """Return the address of the receipt that the signed-in page offers."""
    offered = re.search(r'href="(/r/[^"]+)"', browser.get(f"{url}/done").content.decode())
    assert offered
    return offered[1]


def test_every_call_and_every_page_costs_what_it_is_meant_to(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    meter = Meter()
    make_api(AuthorizationServer.objects.get(), acme_login.issuer)
    acme_bot.token()  # the key's use is noted, PostgreSQL plans the read: once a minute, once a connection
    _challenge_to_token(meter, acme_bot, ada, acme_login)
    _endings(meter, acme_bot, ada, acme_login)
    _outside_a_conversation(meter, ada, acme_login.redirect_uri)
    assert meter.counted == EXPECTED


def _challenge_to_token(meter: Meter, bot: Bot, ada: Browser, login: FakeAuthorizationServer) -> None:
    challenge = meter("POST /challenges (new chat)", bot.challenge)
    url = challenge["url"]
    meter("POST /challenges (the live one)", lambda: bot.in_chat("POST", "/challenges", {}))
    other = Bot(bot.key, "another-chat")
    meter("POST /authorize (challenge)", lambda: other.in_chat("POST", "/authorize", {}))
    meter("GET /challenges/{id}", lambda: bot.call("GET", f"/challenges/{challenge['challenge_id']}"))
    meter("GET /conversation", lambda: bot.in_chat("GET"))
    meter("GET /token (not yet)", bot.token)
    meter("GET /c/{link}", lambda: ada.get(url))
    begun = meter("POST /c/{link}", lambda: post(ada, url))
    returned = f"{login.redirect_uri}?{login.authorize(begun['Location'])}"
    meter("GET /callback", lambda: ada.get(returned))
    page = meter("GET /c/{link}/done", lambda: ada.get(f"{url}/done"))
    meter("GET /c/{link}/standing", lambda: ada.get(f"{url}/standing"))
    meter("GET /c/{link}/other-browser", lambda: ada.get(f"{url}/other-browser"))
    meter("GET /c/{link}/not-completed", lambda: ada.get(f"{url}/not-completed"))
    meter("GET /callback (no answer)", lambda: ada.get(f"{login.redirect_uri}?code=x"))
    meter("GET /callback (no answer, a stranger's)", lambda: Browser().get(f"{login.redirect_uri}?code=x"))
    meter("GET /callback/", lambda: ada.get(f"{login.redirect_uri}/"))
    meter("POST /callback", lambda: post(ada, login.redirect_uri))
    assert meter("POST /completion", lambda: bot.complete(code_on(page)))[0] == 200
    receipt = receipt_of(ada, url)
    meter("GET /r/{receipt}", lambda: ada.get(receipt))
    assert meter("GET /token", bot.token)[0] == 200
    assert meter("POST /authorize (token)", lambda: bot.in_chat("POST", "/authorize", {}))[0] == 200


def _endings(meter: Meter, bot: Bot, ada: Browser, login: FakeAuthorizationServer) -> None:
    assert meter("GET /operations", lambda: bot.call("GET", "/operations"))[0] == 200
    assert meter("POST /calls/{operation}", lambda: bot.in_chat("POST", "/calls/orders.list", {}))[0] == 200
    assert meter("DELETE /token", lambda: bot.in_chat("DELETE", "/token"))[0] == 200
    cancelled = meter("POST /challenges (again)", bot.challenge)["url"]
    ada.get(cancelled)
    meter("POST /c/{link} (with a cookie of ours)", lambda: post(ada, cancelled))
    meter("POST /c/{link}/cancel", lambda: post(ada, f"{cancelled}/cancel"))
    undone = bot.challenge()["url"]
    bot.complete(code_on(ada.sign_in(undone, login)))
    meter("POST /c/{link}/undo", lambda: post(ada, f"{undone}/undo"))
    granted = bot.challenge(replace=True)["url"]
    bot.complete(code_on(ada.sign_in(granted, login)))
    receipt = receipt_of(ada, granted)
    ada.get(receipt)
    meter("POST /r/{receipt}/end", lambda: post(ada, f"{receipt}/end"))
    withdrawn = bot.challenge()["challenge_id"]
    assert meter("DELETE /challenges/{id}", lambda: bot.call("DELETE", f"/challenges/{withdrawn}"))[0] == 200
    assert meter("DELETE /conversation", lambda: bot.in_chat("DELETE"))[0] == 200
    meter("GET /c/", lambda: ada.get("/c/"))
    meter("GET /c/{link}.", lambda: ada.get(f"{granted}."))
    meter("GET /en/c/{link}", lambda: ada.get(granted.replace("/c/", "/en/c/")))


def _outside_a_conversation(meter: Meter, browser: Browser, redirect_uri: str) -> None:
    brand = Brand.objects.get()
    meter("GET /callback/{id}/jwks.json", lambda: browser.get(f"{redirect_uri}/jwks.json"))
    meter("GET /brands/{id}/logo.png", lambda: browser.get(f"/brands/{brand.uuid}/logo-0.png"))
    meter("GET /openapi.json", lambda: browser.get("/api/v1/openapi.json"))
    meter("GET /docs", lambda: browser.get("/api/docs"))


def test_the_table_names_every_call_and_page() -> None:
    """A new address has to say what it costs."""
    brands = [pattern for pattern in site.urlpatterns if getattr(pattern, "name", "") in {"client_keys", "brand_logo"}]
    patterns: list[Any] = [*conversations.api_urlpatterns, *conversations.urlpatterns, *brands]
    assert len([pattern for pattern in patterns if isinstance(pattern, URLPattern)]) == 8 + 16 + 2
    assert get_resolver().resolve(f"/c/{'x' * 27}").url_name == "link"


def test_an_id_token_costs_no_statement_but_the_subjects(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: Any
) -> None:
    """Its keys are fetched and kept, not stored."""
    use_openid(acme_server, acme_login)
    meter = Meter()
    url = acme_bot.challenge()["url"]
    returned = f"{acme_login.redirect_uri}?{acme_login.authorize(ada.begin(url))}"
    meter("GET /callback", lambda: ada.get(returned))
    assert meter.counted == {"GET /callback": 15}
