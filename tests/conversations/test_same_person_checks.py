"""The checks without typing: the chat's own page (A11), and the customer that the bot expects (A12)."""

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import time_machine
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.models import AccessToken, Challenge
from tests.cast import Bot, Browser, heading_of, make_bot, use_openid
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

CHAT_PAGE = "https://www.acme.example/chat"


@pytest.fixture
def chat_page(acme_server: AuthorizationServer) -> None:
    """Accept chat_page first, and the completion code."""
    AuthorizationServer.objects.update(same_person_checks=["chat_page", "completion_code"], chat_page_url=CHAT_PAGE)


@pytest.fixture
def expected_subject(acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer) -> None:
    """Accept expected_subject alone."""
    use_openid(acme_server, acme_login)
    AuthorizationServer.objects.update(same_person_checks=["expected_subject"])


def handle_in(answer: Any) -> str:
    """Return the handle that a callback's redirect carries to the chat's page."""
    assert answer.status_code == 303
    parts = urlsplit(str(answer["Location"]))
    assert (f"{parts.scheme}://{parts.netloc}{parts.path}", parts.query) == (CHAT_PAGE, "")
    name, _, handle = parts.fragment.partition("=")
    assert (name, len(handle)) == ("consumer_delegation_handle", 43)
    return handle


@pytest.mark.usefixtures("chat_page")
def test_the_chats_own_page_completes_without_typing(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """A11: the handle goes by the fragment to the configured page, and from there to the bot."""
    challenge = acme_bot.challenge()
    assert challenge["same_person_check"] == "chat_page"
    handle = handle_in(ada.come_back(ada.begin(challenge["url"]), acme_login))
    assert acme_bot.token()[1]["code"] == "confirmation_needed"
    status, authorization = acme_bot.in_chat("POST", "/completion", {"handle": handle})
    assert (status, authorization["status"]) == (200, "authorized")
    assert acme_bot.token()[1]["assurance"] == "chat_page"
    status, problem = acme_bot.in_chat("POST", "/completion", {"handle": handle})
    assert (status, problem["code"]) == (409, "authorized")
    other = make_bot(acme_server.brand, chat="web:other")
    other.challenge()
    assert other.in_chat("POST", "/completion", {"handle": handle})[1]["code"] == "handle_unknown"
    page = ada.get(f"{challenge['url']}/done")
    assert f'href="{CHAT_PAGE}"' in page.content.decode()


@pytest.mark.usefixtures("chat_page")
def test_a_handle_posted_for_another_conversation_ends_its_challenge(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """A11: the forwarded link. Mallory's chat asked, Ada signed in, Ada's own chat passes the handle on."""
    mallory = make_bot(acme_server.brand, chat="web:mallory")
    challenge = mallory.challenge()
    acme_bot.challenge()
    handle = handle_in(ada.come_back(ada.begin(challenge["url"]), acme_login))
    status, problem = acme_bot.in_chat("POST", "/completion", {"handle": handle})
    assert (status, problem["code"]) == (409, "other_conversation")
    facts = mallory.read_challenge(challenge)
    assert (facts["status"], facts["error"]) == ("failed", "other_conversation")
    token = AccessToken.objects.get()
    assert (token.ciphertext, token.end_reason) == (None, "unconfirmed")
    assert mallory.in_chat("POST", "/completion", {"handle": handle})[1]["code"] == "unchallenged"
    assert acme_bot.status() == ("challenged", None)
    assert heading_of(ada.get(f"{challenge['url']}/done")) == "This sign-in was for another chat"


@pytest.mark.usefixtures("chat_page")
def test_a_handle_works_for_sixty_seconds(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> None:
    """A11."""
    challenge = acme_bot.challenge()
    handle = handle_in(ada.come_back(ada.begin(challenge["url"]), acme_login))
    assert 55 <= acme_bot.read_challenge(challenge)["expires_in"] <= 60
    with time_machine.travel(timezone.now() + timedelta(seconds=61), tick=False):
        assert acme_bot.in_chat("POST", "/completion", {"handle": handle})[1]["code"] == "unchallenged"


@pytest.mark.usefixtures("chat_page")
def test_a_repeated_callback_and_the_result_page_lead_to_the_chat_again(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B11: the same handle, and only for the browser that signed in."""
    challenge = acme_bot.challenge()
    query = acme_login.authorize(ada.begin(challenge["url"]))
    first = handle_in(ada.get(f"{acme_login.redirect_uri}?{query}"))
    assert handle_in(ada.get(f"{acme_login.redirect_uri}?{query}")) == first
    page = ada.get(f"{challenge['url']}/done")
    assert heading_of(page) == "One last step: go back to your chat"
    assert f'href="{CHAT_PAGE}#consumer_delegation_handle={first}"' in page.content.decode()
    assert rita.get(f"{challenge['url']}/done").status_code == 404
    assert first not in repr(list(Challenge.objects.values()))
    assert len(acme_login.token_requests) == 1


@pytest.mark.usefixtures("chat_page")
def test_asked_again_after_the_sign_in_the_message_leads_back_to_the_chats_page(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    challenge = acme_bot.challenge()
    ada.come_back(ada.begin(challenge["url"]), acme_login)
    status, again = acme_bot.in_chat("POST", "/challenges")
    assert (status, again["challenge_id"], again["message"]) == (
        200,
        challenge["challenge_id"],
        "Please finish the sign-in at Acme: go back to the chat from the sign-in page.",
    )


@pytest.mark.usefixtures("chat_page")
def test_a_code_does_not_complete_a_chat_page_challenge(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    ada.come_back(ada.begin(acme_bot.challenge()["url"]), acme_login)
    assert acme_bot.complete("123456")[1]["code"] == "completion_code_incorrect"


@pytest.mark.usefixtures("chat_page")
def test_a_bot_may_name_another_accepted_check(acme_bot: Bot) -> None:
    assert acme_bot.challenge(same_person_check="completion_code")["same_person_check"] == "completion_code"
    status, problem = acme_bot.in_chat("POST", "/challenges", {"same_person_check": "chat_page"})
    assert (status, problem["code"]) == (409, "challenge_differs")


@pytest.mark.parametrize("handle", ["unknown", "x" * 43])
@pytest.mark.usefixtures("chat_page")
def test_an_unknown_handle_is_refused_and_changes_nothing(acme_bot: Bot, handle: str) -> None:
    challenge = acme_bot.challenge()
    status, problem = acme_bot.in_chat("POST", "/completion", {"handle": handle})
    assert (status, problem["code"]) == (422, "handle_unknown")
    assert acme_bot.read_challenge(challenge)["status"] == "issued"


@pytest.mark.usefixtures("chat_page")
def test_another_brands_bot_cannot_use_a_handle(
    acme_bot: Bot,
    rival_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
    rival_login: FakeAuthorizationServer,
) -> None:
    """G3."""
    rival_bot.in_chat("POST", "/challenges", {"same_person_check": "completion_code"})
    handle = handle_in(ada.come_back(ada.begin(acme_bot.challenge()["url"]), acme_login))
    assert rival_bot.in_chat("POST", "/completion", {"handle": handle})[1]["code"] == "handle_unknown"
    assert acme_bot.in_chat("POST", "/completion", {"handle": handle})[0] == 200


@pytest.mark.parametrize("body", [{}, {"code": "123456", "handle": "x"}, {"code": None, "handle": None}])
def test_a_completion_is_a_code_or_a_handle(
    acme_bot: Bot, acme_server: AuthorizationServer, body: dict[str, Any]
) -> None:
    acme_bot.challenge()
    assert acme_bot.in_chat("POST", "/completion", body)[1]["code"] == "invalid_request_body"


@pytest.mark.usefixtures("expected_subject")
def test_the_expected_customer_completes_without_typing(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A12."""
    challenge = acme_bot.challenge(expected_subject="ada")
    page = ada.sign_in(challenge["url"], acme_login)
    assert heading_of(page) == "You're signed in"
    assert acme_bot.token()[1]["assurance"] == "expected_subject"
    assert "'ada'" not in repr(list(Challenge.objects.values()))


@pytest.mark.usefixtures("expected_subject")
@pytest.mark.parametrize(
    ("claim", "value"), [("sub", "victor"), ("sub", "ADA"), ("sub", "ada "), ("customer_number", 7)]
)
def test_somebody_else_is_refused_and_nothing_is_stored(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, claim: str, value: str
) -> None:
    """A12: compared as an exact string; a whole number is its digits."""
    AuthorizationServer.objects.update(subject_claim=claim)
    acme_login.id_token_changes = {claim: value}
    challenge = acme_bot.challenge(expected_subject="ada")
    page = ada.sign_in(challenge["url"], acme_login)
    assert heading_of(page) == "That was another account"
    facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["error"]) == ("failed", "subject_mismatch")
    assert not AccessToken.objects.exists()


@pytest.mark.usefixtures("expected_subject")
def test_the_check_and_the_expected_subject_go_together(acme_bot: Bot) -> None:
    assert acme_bot.in_chat("POST", "/challenges")[1]["code"] == "expected_subject_refused"
    AuthorizationServer.objects.update(same_person_checks=["completion_code"])
    answer = acme_bot.in_chat("POST", "/challenges", {"expected_subject": "ada"})
    assert answer[1]["code"] == "expected_subject_refused"


@pytest.mark.usefixtures("expected_subject")
def test_another_expected_customer_is_another_challenge(acme_bot: Bot) -> None:
    first = acme_bot.challenge(expected_subject="ada")
    status, same = acme_bot.in_chat("POST", "/challenges", {"expected_subject": "ada"})
    assert (status, same["challenge_id"]) == (200, first["challenge_id"])
    status, problem = acme_bot.in_chat("POST", "/challenges", {"expected_subject": "rita"})
    assert (status, problem["code"]) == (409, "challenge_differs")
