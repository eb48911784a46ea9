"""What a token endpoint may answer, and what becomes of the consumer: a clear code, nothing stored, and a way on."""

from urllib.parse import parse_qsl, urlencode

import pytest

from brands.models import AuthorizationServer
from conversations.models import AccessToken
from conversations.outbox.worker import run_once
from tests.cast import Bot, Browser, code_on, heading_of
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db


def callback(login: FakeAuthorizationServer, query: str) -> str:
    return f"{login.redirect_uri}?{query}"


def with_changes(query: str, **changes: str | None) -> str:
    values = dict(parse_qsl(query)) | changes
    return urlencode({name: value for name, value in values.items() if value is not None})


JSON = {"Content-Type": "application/json"}
CANNOT, NOT_ANSWERING = "Acme cannot sign you in right now", "Acme is not answering right now"


@pytest.mark.parametrize(
    ("answer", "error", "heading"),
    [
        ((200, {"Content-Type": "text/html"}, b"<h1>Welcome</h1>"), "invalid_token_response", CANNOT),
        ((302, {"Location": "https://login.rival.example/token"}, b""), "invalid_token_response", CANNOT),
        ((307, {"Location": "https://login.rival.example/token"}, b""), "invalid_token_response", CANNOT),
        ((500, JSON, b'{"access_token":"t","token_type":"Bearer","expires_in":60}'), "server_error", NOT_ANSWERING),
        ((401, JSON, b'{"error":"invalid_client"}'), "invalid_client", CANNOT),
        ((400, JSON, b'{"error":"invalid_grant"}'), "invalid_grant", "That sign-in did not work"),
        ((200, JSON, b'{"access_token":"t","token_type":"mac"}'), "invalid_token_response", CANNOT),
        ((200, JSON, b"[]"), "invalid_token_response", CANNOT),
        ((503, JSON, b""), "temporarily_unavailable", NOT_ANSWERING),
    ],
)
def test_a_bad_token_answer_stores_nothing_and_the_consumer_has_a_way_on(
    acme_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
    rival_login: FakeAuthorizationServer,
    answer: tuple[int, dict[str, str], bytes],
    error: str,
    heading: str,
) -> None:
    """E1, E4, E5, E7, N4: one clear code for the bot, one page for the consumer, and the link goes on working."""
    acme_login.next_token_answer = answer
    challenge = acme_bot.challenge()
    page = ada.sign_in(challenge["url"], acme_login)
    assert heading_of(page) == heading
    facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["last_error"]) == ("started", error)
    assert not AccessToken.objects.exists()
    assert rival_login.token_requests == []
    assert code_on(ada.sign_in(challenge["url"], acme_login))


def test_a_hanging_token_endpoint_is_not_asked_again_with_the_same_code(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """E20, N6."""
    acme_login.hangs = True
    challenge = acme_bot.challenge()
    query = acme_login.authorize(ada.begin(challenge["url"]))
    for _ in range(3):
        page = ada.get(ada.get(callback(acme_login, query))["Location"])
        assert heading_of(page) == "Acme is not answering right now"
    assert acme_bot.read_challenge(challenge)["last_error"] == "token_endpoint_timeout"
    assert len(acme_login.token_requests) == 1


def test_a_grant_without_the_required_scope_is_refused_in_words(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """E13: some consent pages let the consumer untick scopes."""
    AuthorizationServer.objects.update(scope="orders.read profile", required_scope="orders.read")
    acme_login.scope, acme_login.granted_scope = "orders.read profile", "profile"
    challenge = acme_bot.challenge()
    page = ada.sign_in(challenge["url"], acme_login)
    assert heading_of(page) == "One permission was missing"
    assert acme_bot.read_challenge(challenge)["last_error"] == "insufficient_scope"
    acme_login.granted_scope = "orders.read"
    acme_bot.complete(code_on(ada.sign_in(challenge["url"], acme_login)))
    _, token = acme_bot.token()
    assert (token["scope"], token["missing_scope"]) == ("orders.read", "profile")


def test_a_grant_without_the_required_scope_is_not_left_alive_at_the_brand(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """The token that came with it was dropped unread, and went on living at the brand for hours."""
    endpoint = f"{acme_login.issuer}/revoke"
    AuthorizationServer.objects.update(
        scope="orders.read profile", required_scope="orders.read", revocation_endpoint=endpoint
    )
    acme_login.scope, acme_login.granted_scope = "orders.read profile", "profile"
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    assert run_once() == 1
    (revoked,) = acme_login.revocation_requests
    assert [revoked.parameters["token"]] == acme_login.issued_access_tokens


def test_a_grant_that_was_odd_is_kept_with_what_was_odd_about_it(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """E8, E14: no lifetime was named, and more was granted than asked for."""
    acme_login.expires_in, acme_login.granted_scope = None, "orders.read profile"
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    _, token = acme_bot.token()
    assert (token["scope"], token["lifetime_assumed"]) == ("orders.read profile", True)
    kept = AccessToken.objects.get()
    assert (kept.scope, kept.scope_widened, kept.lifetime_assumed) == ("orders.read profile", True, True)
