"""A sign-in that meets a fault is over at once, leaves no token alive at the brand, and is noted without a secret."""

import logging
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import time_machine

from brands.models import AuthorizationServer
from conversations.models import AccessToken, AuthorizationRequest, Challenge, Revocation
from conversations.outbox import worker
from tests.cast import Bot, Browser, code_on, heading_of, use_openid
from tests.fake_authorization_server import FakeAuthorizationServer, TokenRequest

pytestmark = pytest.mark.django_db

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def revoking(acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer) -> FakeAuthorizationServer:
    """Return Acme's login with a revocation endpoint."""
    AuthorizationServer.objects.filter(pk=acme_server.pk).update(revocation_endpoint=f"{acme_login.issuer}/revoke")
    return acme_login


def newest_authorization_request() -> tuple[str, str, str, datetime | None]:
    """The newest authorization request's error, its challenge's error with the detail, and its end."""
    authorization_request = AuthorizationRequest.objects.select_related("challenge").latest("pk")
    return (
        authorization_request.error,
        authorization_request.challenge.last_error,
        authorization_request.challenge.last_error_detail,
        authorization_request.finished_at,
    )


def test_a_fault_of_ours_is_noted_with_its_challenge_and_ends_the_authorization_request_at_once(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: TokenRequest) -> None:
        raise RuntimeError("a fault of ours")

    revoking.on_token_request = fail
    with time_machine.travel(NOON, tick=False):
        page = ada.sign_in(acme_bot.challenge()["url"], revoking)
    assert heading_of(page) == "That sign-in did not work"
    assert newest_authorization_request() == ("internal_error", "internal_error", "", NOON)
    assert not Revocation.objects.exists()
    (noted,) = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert noted.getMessage() == "a sign-in failed unexpectedly"
    assert vars(noted)["challenge"] == str(Challenge.objects.get().uuid)


def test_an_unreadable_client_secret_ends_the_authorization_request_at_once_and_there_is_nothing_to_revoke(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer
) -> None:
    """K2."""
    AuthorizationServer.objects.update(client_secret_ciphertext=b"tampered with")
    with time_machine.travel(NOON, tick=False):
        page = ada.sign_in(acme_bot.challenge()["url"], revoking)
    assert heading_of(page) == "Acme cannot sign you in right now"
    assert newest_authorization_request() == ("stored_secret_unreadable", "stored_secret_unreadable", "", NOON)
    assert not Revocation.objects.exists()


def test_a_token_is_not_left_alive_at_the_brand_where_its_person_cannot_be_compared_with_the_one_before(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """A7, A8, K2: whose the last token was can no longer be read, so that nobody can say that it is the same person."""
    use_openid(acme_server, revoking)
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], revoking)))
    AccessToken.objects.update(subject_ciphertext=b"tampered with")
    page = ada.sign_in(acme_bot.challenge()["url"], revoking)
    assert heading_of(page) == "Acme cannot sign you in right now"
    assert newest_authorization_request()[:3] == ("stored_secret_unreadable", "stored_secret_unreadable", "")
    worker.run_once()
    assert len(revoking.issued_access_tokens) == 2
    assert [request.parameters["token"] for request in revoking.revocation_requests] == revoking.issued_access_tokens[
        1:
    ]


def test_an_error_without_the_servers_issuer_is_noted_once_however_often_it_comes(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, caplog: pytest.LogCaptureFixture
) -> None:
    """B11, C3: a repeated callback does nothing, though the challenge is still open; reloading fills no log."""
    challenge = acme_bot.challenge()
    state = dict(parse_qsl(urlsplit(ada.begin(challenge["url"])).query))["state"]
    for _ in range(3):
        ada.get(f"{acme_login.redirect_uri}?{urlencode({'error': 'server_error', 'state': state})}")
    assert acme_bot.read_challenge(challenge)["last_error"] == "server_error"
    noted = [line for line in caplog.records if line.getMessage() == "an error response has no iss"]
    assert [vars(line)["challenge"] for line in noted] == [challenge["challenge_id"]]


def test_a_denial_with_the_servers_issuer_is_nothing_to_note(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, caplog: pytest.LogCaptureFixture
) -> None:
    acme_login.denies = True
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []


def test_what_the_server_says_of_an_error_is_kept_beside_it(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """For the brand's admins: neither bot nor consumer is shown it."""
    state = dict(parse_qsl(urlsplit(ada.begin(acme_bot.challenge()["url"])).query))["state"]
    error = {"error": "server_error", "error_description": "closed for inventory", "state": state}
    ada.get(f"{acme_login.redirect_uri}?{urlencode(error)}")
    assert newest_authorization_request()[:3] == ("server_error", "server_error", "closed for inventory")
