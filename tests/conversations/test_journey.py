"""The main job, from challenge to token to re-challenge, against a strict authorization server on the wire."""

from datetime import timedelta

import pytest
import time_machine
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.models import AccessToken, AuthorizationRequest, Challenge
from infrastructure.crypto import Secret
from tests.cast import Bot, Browser, code_on, heading_of, make_bot, use_openid
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db


def test_the_whole_life_of_a_challenge(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> None:
    """A1: the token is unreadable until the code that Ada's page shows was typed into the chat."""
    challenge = acme_bot.challenge(purpose="to look up your order")
    assert acme_bot.status() == ("challenged", None)
    page = ada.sign_in(challenge["url"], acme_login)
    assert acme_bot.status() == ("confirmation_needed", None)
    assert acme_bot.token()[1]["code"] == "confirmation_needed"

    status, authorization = acme_bot.complete(code_on(page))
    assert (status, authorization["status"]) == (200, "authorized")
    status, token = acme_bot.token()
    assert status == 200
    (issued,) = acme_login.issued_access_tokens
    assert token["access_token"] == issued
    assert (token["token_type"], token["scope"], token["missing_scope"]) == ("Bearer", "orders.read", "")
    assert (token["assurance"], token["lifetime_assumed"]) == ("completion_code", False)
    assert 3500 <= token["expires_in"] <= 3570
    assert acme_bot.read_challenge(challenge)["status"] == "completed"
    assert heading_of(ada.get(f"{challenge['url']}/done")) == "You're signed in"


def test_the_token_request_is_what_rfc_6749_asks_for(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """B2, B20: S256 also with a secret, and nothing but the configured scope."""
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    (authorization,), (token,) = acme_login.authorization_requests, acme_login.token_requests
    assert set(authorization) == {
        "response_type", "client_id", "redirect_uri", "scope", "state", "prompt",
        "code_challenge", "code_challenge_method",
    }  # fmt: skip
    assert (authorization["scope"], authorization["code_challenge_method"]) == ("orders.read", "S256")
    assert set(token.parameters) == {"grant_type", "code", "redirect_uri", "code_verifier"}
    assert token.parameters["redirect_uri"] == acme_server.redirect_uri
    assert 43 <= len(token.parameters["code_verifier"]) <= 128


def test_an_expired_token_means_a_rechallenge_and_the_new_token_replaces_the_old(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    first = acme_bot.challenge()
    acme_bot.complete(code_on(ada.sign_in(first["url"], acme_login)))
    with time_machine.travel(timezone.now() + timedelta(seconds=3600), tick=False):
        status, problem = acme_bot.token()
        assert (status, problem["code"], problem["reason"]) == (409, "rechallenge_required", "expired")
        assert acme_bot.status() == ("rechallenge_required", "expired")
        second = acme_bot.challenge()
        assert second["challenge_id"] != first["challenge_id"]
        # The clock alone ended it; issuing wrote it down and erased the ciphertext (K6).
        old = AccessToken.objects.get()
        assert (old.end_reason, old.ciphertext) == ("expired", None)
        acme_bot.complete(code_on(ada.sign_in(second["url"], acme_login)))
        assert acme_bot.token()[1]["access_token"] == acme_login.issued_access_tokens[1]


def test_authorize_answers_with_the_live_challenge_and_then_with_the_token(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    status, challenge = acme_bot.in_chat("POST", "/authorize", {"min_ttl": 60})
    assert (status, challenge["status"]) == (202, "issued")
    status, again = acme_bot.in_chat("POST", "/authorize")
    assert (status, again["challenge_id"], again["url"]) == (202, challenge["challenge_id"], challenge["url"])
    page = ada.sign_in(challenge["url"], acme_login)
    status, waiting = acme_bot.in_chat("POST", "/authorize")
    assert (status, waiting["status"]) == (202, "confirmation_needed")
    acme_bot.complete(code_on(page))
    status, token = acme_bot.in_chat("POST", "/authorize", {"min_ttl": 60})
    assert (status, token["access_token"]) == (200, acme_login.issued_access_tokens[0])


def test_a_token_without_enough_life_left_is_not_handed_out(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    acme_login.expires_in = 100
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    AccessToken.objects.update(issued_at=timezone.now() - timedelta(minutes=5))  # once it lived long enough
    assert acme_bot.in_chat("GET", "/token?min_ttl=60")[0] == 200
    status, problem = acme_bot.in_chat("GET", "/token?min_ttl=120")
    assert (status, problem["code"], 80 <= problem["expires_in"] <= 90) == (409, "insufficient_lifetime", True)
    status, challenge = acme_bot.in_chat("POST", "/authorize", {"min_ttl": 120})
    assert (status, challenge["status"]) == (202, "issued")
    # Until the new one is confirmed the old one stays readable.
    assert acme_bot.token()[0] == 200
    acme_login.expires_in = 3600
    page = ada.sign_in(challenge["url"], acme_login)
    assert acme_bot.token()[1]["access_token"] == acme_login.issued_access_tokens[0]
    acme_bot.complete(code_on(page))
    assert acme_bot.in_chat("GET", "/token?min_ttl=120")[1]["access_token"] == acme_login.issued_access_tokens[1]
    assert AccessToken.objects.filter(end_reason="replaced", ciphertext=None).count() == 1


@pytest.mark.parametrize(("query", "reason"), [("", "rejected"), ("?reason=signed_out", "signed_out")])
def test_ending_a_token_erases_it_and_says_why(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, query: str, reason: str
) -> None:
    """K6."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    status, receipt = acme_bot.in_chat("DELETE", f"/token{query}")
    assert (status, receipt["status"], receipt["reason"]) == (200, "rechallenge_required", reason)
    assert acme_bot.token()[1]["reason"] == reason
    assert acme_bot.in_chat("DELETE", f"/token{query}")[1]["code"] == "rechallenge_required"
    assert AccessToken.objects.get().ciphertext is None


def test_closing_a_conversation_erases_everything_and_it_never_reopens(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """K6: with a receipt, the same one the second time."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge(context="resume here")["url"], acme_login)))
    second = acme_bot.challenge()
    status, receipt = acme_bot.in_chat("DELETE")
    assert status == 200
    assert (receipt["status"], receipt["access_tokens_erased"], receipt["challenges_withdrawn"]) == ("closed", 1, 1)
    assert acme_bot.in_chat("DELETE") == (200, receipt)
    assert acme_bot.status() == ("closed", None)
    for method, what, body in (
        ("GET", "/token", None),
        ("DELETE", "/token", None),
        ("POST", "/challenges", None),
        ("POST", "/authorize", None),
        ("POST", "/completion", {"code": "123456"}),
    ):
        status, problem = acme_bot.in_chat(method, what, body)
        assert (status, problem["code"]) == (410, "conversation_closed")
    assert AccessToken.objects.get().ciphertext is None
    assert not Challenge.objects.exclude(link_token_ciphertext=None, context_ciphertext=None).exists()
    assert heading_of(ada.get(second["url"])) == "This link no longer works"


def test_two_conversations_of_one_consumer_share_nothing(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    other = make_bot(acme_server.brand, chat="web:other-chat")
    first, second = acme_bot.challenge(), other.challenge()
    code = code_on(ada.sign_in(first["url"], acme_login))
    other_code = code_on(ada.sign_in(second["url"], acme_login))
    assert other.complete(code)[1]["code"] == "completion_code_incorrect"
    acme_bot.complete(code)
    assert other.token()[1]["code"] == "confirmation_needed"
    other.complete(other_code)
    assert acme_bot.token()[1]["access_token"] != other.token()[1]["access_token"]
    acme_bot.in_chat("DELETE")
    assert other.token()[0] == 200


def test_an_admins_none_check_makes_the_token_readable_at_once(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    AuthorizationServer.objects.update(same_person_checks=["none"])
    challenge = acme_bot.challenge()
    assert challenge["same_person_check"] == "none"
    page = ada.sign_in(challenge["url"], acme_login)
    assert heading_of(page) == "You're signed in"
    assert acme_bot.token()[1]["assurance"] == "none"


def test_openid_connect_verifies_the_id_token_and_holds_a_rechallenge_to_the_same_person(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """A7: another account in the same conversation is refused and its token thrown away."""
    use_openid(acme_server, acme_login)
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    acme_bot.in_chat("DELETE", "/token")
    acme_login.subject = "somebody-else"
    swapped = acme_bot.challenge()
    page = ada.sign_in(swapped["url"], acme_login)
    assert heading_of(page) == "That was another account"
    facts = acme_bot.read_challenge(swapped)
    assert (facts["status"], facts["error"]) == ("failed", "subject_mismatch")
    assert acme_bot.status() == ("rechallenge_required", "rejected")
    assert AccessToken.objects.count() == 1
    acme_login.subject = "ada"
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    assert acme_bot.status() == ("authorized", None)


def test_an_id_token_may_be_signed_with_the_client_secret(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """OpenID Connect Core section 10.1."""
    secret = "a client secret that is long enough for HS256"
    acme_server.set_client_secret(Secret(secret))
    acme_server.id_token_signing_alg_values = ["HS256"]
    acme_server.save()
    use_openid(acme_server, acme_login)
    acme_login.client_secret, acme_login.signs_with_secret = secret, True
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    assert acme_bot.status() == ("authorized", None)
    assert acme_login.jwks_requests == 0


def test_an_id_token_of_another_authorization_request_is_refused(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """E17: the nonce ties the ID token to the authorization request."""
    use_openid(acme_server, acme_login)
    acme_login.id_token_changes = {"nonce": "of-another-attempt"}
    challenge = acme_bot.challenge()
    page = ada.sign_in(challenge["url"], acme_login)
    assert heading_of(page) == "Acme cannot sign you in right now"
    assert acme_bot.read_challenge(challenge)["last_error"] == "invalid_id_token"
    assert not AccessToken.objects.exists()


def test_what_only_the_exchange_needed_is_erased_when_it_ends(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """K7: verifier and nonce go, the state's digest stays for a repeated callback."""
    challenge = acme_bot.challenge()
    url = ada.begin(challenge["url"])
    authorization_request = AuthorizationRequest.objects.get()
    assert (authorization_request.nonce_digest is None, authorization_request.code_verifier_ciphertext is None) == (
        False,
        False,
    )
    ada.come_back(url, acme_login)
    authorization_request.refresh_from_db()
    assert (authorization_request.nonce_digest, authorization_request.code_verifier_ciphertext) == (None, None)
    assert authorization_request.state_digest is not None


def test_whatever_the_status_the_challenge_that_is_open_stands_beside_it(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A bot that kept no id finds it here, also while an older token can still be read."""
    first = acme_bot.challenge()
    assert standing_of(acme_bot) == ("challenged", first["challenge_id"])
    code = code_on(ada.sign_in(first["url"], acme_login))
    assert standing_of(acme_bot) == ("confirmation_needed", first["challenge_id"])
    assert acme_bot.token()[1]["challenge_id"] == first["challenge_id"]
    acme_bot.complete(code)
    assert standing_of(acme_bot) == ("authorized", None)
    second = acme_bot.challenge()
    assert standing_of(acme_bot) == ("authorized", second["challenge_id"])


def standing_of(bot: Bot) -> tuple[str, str | None]:
    """Return the status at the brand's one server, and the id of the challenge beside it."""
    (authorization,) = bot.in_chat("GET")[1]["authorization_servers"]
    return authorization["status"], authorization["challenge"] and authorization["challenge"]["challenge_id"]
