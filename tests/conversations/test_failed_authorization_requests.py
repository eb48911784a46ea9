"""How a failed authorization request reads for the consumer, the bot and the brand's admin: all from one table."""

from typing import Any
from urllib.parse import urlencode

import pytest
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.models import AccessToken, AuditEvent, AuthorizationRequest, Challenge
from conversations.outbox.worker import run_once
from oauth_client import MEANINGS, ConsumerPage, ErrorCode
from tests.admin_pages import AdminBrowser, address
from tests.cast import Bot, Browser, code_on, heading_of, use_openid
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

HEADINGS = {
    ConsumerPage.CANNOT_SIGN_IN: "Acme cannot sign you in right now",
    ConsumerPage.MISSING_PERMISSION: "One permission was missing",
    ConsumerPage.NOT_ANSWERING: "Acme is not answering right now",
    ConsumerPage.NOT_COMPLETED: "That sign-in did not work",
}
OF_AN_AUTHORIZATION_REQUEST = [code for code in ErrorCode if MEANINGS[code].page in HEADINGS]


def answered(ada: Browser, login: FakeAuthorizationServer, url: str, **answer: str) -> Any:
    """Begin, come back with an error of the server's, and return the page that the browser ends at."""
    state = dict(pair.split("=") for pair in login.authorize(ada.begin(url)).split("&"))["state"]
    return ada.get(ada.get(f"{login.redirect_uri}?{urlencode({**answer, 'state': state})}")["Location"])


def detail() -> str:
    return Challenge.objects.get().last_error_detail


@pytest.mark.parametrize("code", OF_AN_AUTHORIZATION_REQUEST)
def test_page_and_next_call_say_the_same_of_every_code(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, code: ErrorCode
) -> None:
    challenge, now = acme_bot.challenge(), timezone.now()
    ada.begin(challenge["url"])
    AuthorizationRequest.objects.update(claimed_at=now, finished_at=now, error=code)
    Challenge.objects.update(last_error=code)
    page = ada.get(f"{challenge['url']}/done")
    status, problem = acme_bot.token()
    helps = MEANINGS[code].another_try_helps
    assert heading_of(page) == HEADINGS[MEANINGS[code].page]
    assert ("<form" in page.content.decode()) == helps
    assert (status, problem["code"], problem["last_error"]) == (409, "challenged", code)
    assert problem["next"]["operation"] == ("readChallenge" if helps else "withdrawChallenge")
    assert code in problem["detail"]


def test_after_a_failure_that_no_try_mends_the_bot_withdraws_and_is_told_what_to_wait_for(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """The bug: it was told to wait for a consumer who had a useless button."""
    acme_login.client_secret = "another"
    page = ada.sign_in(acme_bot.challenge()["url"], acme_login)
    assert heading_of(page) == "Acme cannot sign you in right now"
    _, problem = acme_bot.token()
    assert problem["next"]["operation"] == "withdrawChallenge"
    assert acme_bot.call(problem["next"]["method"], problem["next"]["path"].removeprefix("/api/v1"))[0] == 200
    _, problem = acme_bot.token()
    assert (problem["code"], problem["next"]["operation"]) == ("unchallenged", "createChallenge")
    assert problem["detail"].startswith(
        "The last sign-in failed with invalid_client. Another sign-in cannot succeed until"
    )


def test_the_link_goes_on_working_once_the_secret_is_right(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """The page has no button; the link in the chat is still the way in."""
    right, acme_login.client_secret = acme_login.client_secret, "another"
    url = acme_bot.challenge()["url"]
    ada.sign_in(url, acme_login)
    acme_login.client_secret = right
    assert code_on(ada.sign_in(url, acme_login))


def test_a_consumer_who_is_trying_again_is_not_cut_off(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """Withdrawn meanwhile, a sign-in that the right secret has mended would be thrown away."""
    right, acme_login.client_secret = acme_login.client_secret, "another"
    url = acme_bot.challenge()["url"]
    ada.sign_in(url, acme_login)
    acme_login.client_secret = right
    begun = ada.begin(url)
    assert acme_bot.token()[1]["next"]["operation"] == "readChallenge"
    code = code_on(ada.get(ada.come_back(begun, acme_login)["Location"]))
    _, problem = acme_bot.token()
    assert (problem["code"], "last_error" in problem) == ("confirmation_needed", False)
    assert acme_bot.complete(code)[0] == 200


@pytest.mark.parametrize(
    ("listed", "error"),
    [
        *(("", "user_cancelled_login"), ("", "user_cancelled_authorize"), ("", "USER_CANCELLED_AUTHORIZE")),
        *(("17 urn:bank:cancel", "17"), ("17 urn:bank:cancel", "URN:BANK:CANCEL")),
    ],
)
def test_a_cancel_is_heard_in_the_servers_own_words(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, listed: str, error: str
) -> None:
    """B14. The bug: the challenge stayed `started`, and the page said that the brand was not answering."""
    AuthorizationServer.objects.update(denial_codes=listed)
    challenge = acme_bot.challenge()
    page = answered(ada, acme_login, challenge["url"], error=error, error_description="Nope <b>")
    assert heading_of(page) == "You are not signed in"
    facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["last_error"]) == ("denied", None)
    assert detail() == f"{error} Nope <b>"


def test_the_list_of_another_server_denies_nothing_here(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, rival_server: AuthorizationServer
) -> None:
    """B14, and a code that nobody knows has neutral words."""
    AuthorizationServer.objects.filter(pk=rival_server.pk).update(denial_codes="17")
    challenge = acme_bot.challenge()
    page = answered(ada, acme_login, challenge["url"], error="17")
    assert heading_of(page) == "That sign-in did not work"
    facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["last_error"], detail()) == ("started", "authorization_request_refused", "17")
    assert code_on(ada.sign_in(challenge["url"], acme_login))


@pytest.mark.parametrize(
    ("description", "heading", "code", "again"),
    [
        (
            "AADB2C90118: The user has forgotten their password.",
            "That sign-in did not work",
            "sign_in_interrupted",
            True,
        ),
        (
            "User is not assigned to the client application.",
            "Acme cannot sign you in right now",
            "sign_in_refused",
            False,
        ),
        (
            "Policy evaluation failed for this request, please check the policy configurations.",
            "Acme cannot sign you in right now",
            "sign_in_refused",
            False,
        ),
    ],
)
def test_a_rule_of_the_servers_is_not_the_consumers_no(
    acme_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
    description: str,
    heading: str,
    code: str,
    again: bool,
) -> None:
    """B14. The bug: whoever had forgotten her password was told that she had chosen not to sign in."""
    challenge = acme_bot.challenge()
    page = answered(ada, acme_login, challenge["url"], error="access_denied", error_description=description)
    assert (heading_of(page), "<form" in page.content.decode()) == (heading, again)
    assert "AADB2C" not in page.content.decode()
    facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["last_error"], detail()) == ("started", code, description)


@pytest.mark.parametrize("description", ["", "Your company has blocked this app.", "AADSTS7000112: disabled"])
def test_nobody_is_told_that_a_denial_was_her_own_choice(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, description: str
) -> None:
    """B14. The bug: "You chose not to sign in", of a rule of the server's whose words we do not know."""
    challenge = acme_bot.challenge()
    page = answered(ada, acme_login, challenge["url"], error="access_denied", error_description=description)
    assert heading_of(page) == "You are not signed in"
    assert "chose" not in page.content.decode()
    assert (acme_bot.read_challenge(challenge)["status"], detail()) == ("denied", description)


def test_the_admin_reads_what_a_failure_means_and_what_mends_it(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_admin: Any
) -> None:
    acme_login.client_secret = "another"
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    page = AdminBrowser(acme_admin).get(address(Challenge, "change", Challenge.objects.get()))
    row = MEANINGS[ErrorCode.INVALID_CLIENT]
    assert row.cause in page.content.decode()
    assert row.remedy.replace("`", "").replace("*", "") in page.content.decode()


@pytest.fixture
def expecting(acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer) -> FakeAuthorizationServer:
    """Return Acme's login; the one check is the verified e-mail address."""
    use_openid(acme_server, acme_login)
    AuthorizationServer.objects.update(
        same_person_checks=["expected_subject"],
        subject_claim="email",
        revocation_endpoint=f"{acme_login.issuer}/revoke",
    )
    return acme_login


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({}, "the ID token has no email that is a text or a whole number"),
        ({"email": "", "email_verified": True}, "the ID token has no email that is a text or a whole number"),
        ({"email": None, "email_verified": True}, "the ID token has no email that is a text or a whole number"),
        ({"email": ["ada@example.org"], "email_verified": True}, "the ID token has no email that is a text or a whole"),
        ({"email": "ada@example.org"}, "email_verified is not true in the ID token, so email proves nothing"),
        ({"email": "ada@example.org", "email_verified": False}, "email_verified is not true in the ID token"),
        ({"email": "ada@example.org", "email_verified": "false"}, "email_verified is not true in the ID token"),
        ({"email": "ada@example.org", "email_verified": "TRUE"}, "email_verified is not true in the ID token"),
        ({"email": "ada@example.org", "email_verified": 1}, "email_verified is not true in the ID token"),
        ({"email": "victor@example.org", "email_verified": False}, "email_verified is not true in the ID token"),
    ],
)
def test_a_claim_that_cannot_be_compared_accuses_nobody(
    acme_bot: Bot, ada: Browser, expecting: FakeAuthorizationServer, claims: dict[str, Any], words: str
) -> None:
    """A12. The bug: "somebody signed in with a different account in this chat before", of the right person."""
    expecting.id_token_changes = claims
    challenge = acme_bot.challenge(expected_subject="ada@example.org")
    page = ada.sign_in(challenge["url"], expecting)
    assert heading_of(page) == "Acme cannot sign you in right now"
    facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["error"], facts["last_error"]) == ("started", None, "claim_unusable")
    assert detail().startswith(words)
    assert not AccessToken.objects.exists()
    run_once()
    assert [sent.parameters["token"] for sent in expecting.revocation_requests] == expecting.issued_access_tokens


@pytest.mark.parametrize("verified", [True, "true"])
def test_servers_that_write_true_as_a_text_are_read(
    acme_bot: Bot, ada: Browser, expecting: FakeAuthorizationServer, verified: object
) -> None:
    """A12: Cognito and Apple do."""
    expecting.id_token_changes = {"email": "ada@example.org", "email_verified": verified}
    page = ada.sign_in(acme_bot.challenge(expected_subject="ada@example.org")["url"], expecting)
    assert heading_of(page) == "You're signed in"


@pytest.mark.parametrize(
    ("value", "expected", "heading"),
    [
        (4711, "4711", "You're signed in"),
        (-5, "-5", "You're signed in"),
        (10**30, "1" + "0" * 30, "You're signed in"),
        (4711, "04711", "That was another account"),
        (0, "0", "You're signed in"),
        (4711.0, "4711", "Acme cannot sign you in right now"),
        (True, "1", "Acme cannot sign you in right now"),
        ({"id": 4711}, "4711", "Acme cannot sign you in right now"),
    ],
)
def test_a_customer_number_may_be_a_number(
    acme_bot: Bot, ada: Browser, expecting: FakeAuthorizationServer, value: object, expected: str, heading: str
) -> None:
    """A12: a whole number is its digits. The bug: it was called another account."""
    AuthorizationServer.objects.update(subject_claim="customer_number")
    expecting.id_token_changes = {"customer_number": value}
    page = ada.sign_in(acme_bot.challenge(expected_subject=expected)["url"], expecting)
    assert heading_of(page) == heading


def test_a_first_mismatch_says_nothing_of_an_earlier_account(
    acme_bot: Bot, ada: Browser, rita: Browser, expecting: FakeAuthorizationServer
) -> None:
    """A12: nobody was in this chat before. Every browser that took part reads the same."""
    expecting.id_token_changes = {"email": "victor@example.org", "email_verified": True}
    challenge = acme_bot.challenge(expected_subject="ada@example.org")
    rita.begin(challenge["url"])
    pages = [ada.sign_in(challenge["url"], expecting), rita.get(f"{challenge['url']}/done")]
    for page in pages:
        assert heading_of(page) == "That was another account"
        assert "This chat is about another account than the one" in page.content.decode()
        assert "before" not in page.content.decode().split("<h1>")[1].split("</main>")[0]
    facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["error"]) == ("failed", "subject_mismatch")
    assert AuditEvent.objects.get(kind="token.discarded").outcome == "unexpected_subject"


def test_another_account_than_before_is_still_called_so(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """A7."""
    use_openid(acme_server, acme_login)
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    acme_login.subject = "victor"
    page = ada.sign_in(acme_bot.challenge()["url"], acme_login)
    assert "a different account in this chat before" in page.content.decode()
