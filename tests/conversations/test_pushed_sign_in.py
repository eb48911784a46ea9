"""The button at a brand that takes pushed authorization requests (RFC 9126)."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from django.db import connection

from brands.models import AuthorizationServer, Brand
from conversations.flow import sign_in
from conversations.models import AuthorizationRequest, Challenge
from tests.cast import ACME_SECRET, Bot, Browser, code_on, heading_of, make_server
from tests.fake_authorization_server import TokenRequest, mounted
from tests.modern_authorization_server import ModernAuthorizationServer

pytestmark = pytest.mark.django_db

JSON = {"Content-Type": "application/json"}
NOT_ANSWERING, CANNOT = "Acme is not answering right now", "Acme cannot sign you in right now"
NOT_COMPLETED = "That sign-in did not work"


@pytest.fixture
def login(acme: Brand) -> Iterator[ModernAuthorizationServer]:
    fake = ModernAuthorizationServer("login.acme.example", "acme-client", ACME_SECRET)
    fake.redirect_uri = make_server(acme, **fake.fields()).redirect_uri
    with mounted(fake):
        yield fake


def test_a_journey_with_a_pushed_request(acme_bot: Bot, ada: Browser, login: ModernAuthorizationServer) -> None:
    """B21: the browser carries a reference; state, scope and challenge were sent behind its back."""
    challenge = acme_bot.challenge()
    code = code_on(ada.sign_in(challenge["url"], login))
    assert acme_bot.complete(code)[0] == 200
    assert acme_bot.token()[1]["access_token"] == login.issued_access_tokens[0]
    (url,) = login.browser_urls
    assert dict(parse_qsl(urlsplit(url).query)).keys() == {"client_id", "request_uri"}
    assert login.pushes[0].parameters.keys() >= {"state", "scope", "redirect_uri", "code_challenge", "prompt"}


def failing(login: ModernAuthorizationServer, bot: Bot, browser: Browser, words: str = NOT_ANSWERING) -> dict[str, Any]:
    challenge = bot.challenge()
    answer = browser.press(challenge["url"])
    assert (answer.status_code, answer["Location"]) == (303, f"{path_of(challenge)}/done")
    page = browser.get(answer["Location"])
    assert heading_of(page) == words
    return challenge


def path_of(challenge: dict[str, Any]) -> str:
    return str(challenge["url"].removeprefix("https://delegation.test"))


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ((400, JSON, b'{"error": "invalid_scope"}'), "invalid_scope", CANNOT),
        ((201, JSON, b"{}"), "invalid_par_response", CANNOT),
        ((503, {}, b""), "temporarily_unavailable", NOT_ANSWERING),
        ((400, JSON, b'{"error": "access_denied"}'), "authorization_request_refused", NOT_COMPLETED),
    ],
)
def test_a_refused_push_ends_the_authorization_request_and_another_try_works(
    answer: Any, error: str, words: str, acme_bot: Bot, ada: Browser, login: ModernAuthorizationServer
) -> None:
    """B14, B21: the challenge stays open, whatever the brand calls its refusal."""
    login.next_push_answer = answer
    challenge = failing(login, acme_bot, ada, words)
    facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["last_error"]) == ("started", error)
    authorization_request = AuthorizationRequest.objects.get()
    assert (
        authorization_request.error,
        authorization_request.code_verifier_ciphertext,
        authorization_request.nonce_digest,
    ) == (error, None, None)

    page = ada.sign_in(f"{challenge['url']}/done", login)
    assert acme_bot.complete(code_on(page))[0] == 200


def test_a_brand_that_hangs_is_not_answering(acme_bot: Bot, ada: Browser, login: ModernAuthorizationServer) -> None:
    login.push_hangs = True
    assert acme_bot.read_challenge(failing(login, acme_bot, ada))["last_error"] == "par_endpoint_timeout"


def test_a_secret_that_cannot_be_read_is_our_trouble(
    acme_bot: Bot, ada: Browser, login: ModernAuthorizationServer
) -> None:
    """K2."""
    AuthorizationServer.objects.update(client_secret_ciphertext=b"nonsense")
    assert acme_bot.read_challenge(failing(login, acme_bot, ada, CANNOT))["last_error"] == "stored_secret_unreadable"
    assert login.pushes == []


def test_a_brand_at_its_limit_is_not_pushed_to(
    acme_bot: Bot, ada: Browser, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in, "MAX_EXCHANGES_PER_SERVER", 0)
    assert acme_bot.read_challenge(failing(login, acme_bot, ada))["last_error"] == "temporarily_unavailable"
    assert login.pushes == []


def test_a_push_takes_one_of_its_own_servers_places(
    acme_bot: Bot, ada: Browser, login: ModernAuthorizationServer, settings: Any
) -> None:
    """The places that exchanges at another server take are not missing here."""
    settings.THREADS = 4 * sign_in.MAX_EXCHANGES_PER_SERVER
    server = AuthorizationServer.objects.get()
    with places_taken_at(server.pk):
        challenge = failing(login, acme_bot, ada)
    assert (acme_bot.read_challenge(challenge)["last_error"], login.pushes) == ("temporarily_unavailable", [])
    with places_taken_at(server.pk + 1):
        ada.begin(challenge["url"])
    assert len(login.pushes) == 1


@contextmanager
def places_taken_at(server_pk: int) -> Iterator[None]:
    """Take all the places of a server, as exchanges that hang do."""
    with ExitStack() as slots:
        for _ in range(sign_in.MAX_EXCHANGES_PER_SERVER):
            slots.enter_context(sign_in.exchange_slot(server_pk))
        yield


def test_nobody_else_learns_that_a_push_failed(
    acme_bot: Bot, ada: Browser, rita: Browser, login: ModernAuthorizationServer
) -> None:
    """B3: the outcome is for the browser that began."""
    login.push_hangs = True
    challenge = failing(login, acme_bot, ada)
    assert heading_of(rita.get(f"{challenge['url']}/done")) == "This link no longer works"


@pytest.mark.django_db(transaction=True)
def test_the_push_leaves_outside_any_transaction(
    acme_bot: Bot, ada: Browser, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authorization request is stored before, so that a brand that is slow holds no lock of ours."""
    seen: list[tuple[bool, int, str]] = []
    answer_push = ModernAuthorizationServer._answer_push

    def watched(fake: ModernAuthorizationServer, request: TokenRequest) -> Any:
        state = Challenge.objects.get().status
        seen.append((connection.in_atomic_block, AuthorizationRequest.objects.count(), state))
        return answer_push(fake, request)

    monkeypatch.setattr(ModernAuthorizationServer, "_answer_push", watched)
    ada.begin(acme_bot.challenge()["url"])
    assert seen == [(False, 1, "started")]


def test_a_page_that_is_opened_pushes_nothing(acme_bot: Bot, ada: Browser, login: ModernAuthorizationServer) -> None:
    """B6."""
    ada.get(acme_bot.challenge()["url"])
    assert login.pushes == []


def test_a_journey_with_a_key_instead_of_a_secret(
    acme_bot: Bot, ada: Browser, login: ModernAuthorizationServer
) -> None:
    """C7: the brand fetched the public half at the address that it was given."""
    server = AuthorizationServer.objects.get()
    server.token_endpoint_auth_method = login.token_endpoint_auth_method = "private_key_jwt"
    server.set_client_secret(None)
    server.update_signing_key()
    server.save()
    login.client_keys = ada.get(server.client_jwks_uri).json()["keys"]
    code = code_on(ada.sign_in(acme_bot.challenge()["url"], login))
    assert acme_bot.complete(code)[0] == 200
    assert [claims["aud"] for claims in login.assertions] == ["https://login.acme.example"] * 2
