"""A17, A7: without OpenID Connect an endpoint of the server says who signed in, and the next sign-in needs the same."""

import json
from typing import Any

import pytest

from brands.models import AuthorizationServer
from conversations.models import AccessToken, AuditEvent, Challenge
from conversations.outbox.worker import run_once
from tests.cast import Bot, Browser, code_on, heading_of, use_openid
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.limits import pause
from tests.stored import everything_stored

pytestmark = pytest.mark.django_db

JSON = {"Content-Type": "application/json"}
PATHS = {"userinfo_endpoint": "/userinfo", "introspection_endpoint": "/introspect"}


@pytest.fixture(params=PATHS)
def asking(
    request: pytest.FixtureRequest, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> FakeAuthorizationServer:
    """Return Acme's server, which is asked whose account a token is for, in either way."""
    configure(**{request.param: acme_login.issuer + PATHS[request.param]})
    return acme_login


@pytest.fixture
def userinfo(acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer) -> FakeAuthorizationServer:
    configure(userinfo_endpoint=f"{acme_login.issuer}/userinfo")
    return acme_login


def configure(**values: Any) -> None:
    AuthorizationServer.objects.update(**values)


def sign_in(bot: Bot, browser: Browser, login: FakeAuthorizationServer, subject: str) -> dict[str, Any]:
    """Sign in as somebody, with a challenge of its own, and confirm it. Returns the challenge as the bot reads it."""
    pause()
    login.subject = subject
    challenge = bot.challenge(replace=True)
    page = browser.sign_in(challenge["url"], login)
    if bot.read_challenge(challenge)["status"] == "confirmation_needed":
        assert bot.complete(code_on(page))[0] == 200
    return bot.read_challenge(challenge)


def test_the_same_account_may_come_again_and_another_may_not(
    acme_bot: Bot, ada: Browser, rita: Browser, asking: FakeAuthorizationServer
) -> None:
    """A7, A17: the same rule and the same error as with an ID token; the refused token is revoked."""
    configure(revocation_endpoint=f"{asking.issuer}/revoke")
    assert sign_in(acme_bot, ada, asking, "ada")["status"] == "completed"
    assert acme_bot.token()[1]["subject_pinned"] is True
    assert sign_in(acme_bot, ada, asking, "ada")["status"] == "completed"
    refused = sign_in(acme_bot, rita, asking, "rita")
    assert (refused["status"], refused["error"]) == ("failed", "subject_mismatch")
    run_once()
    assert asking.revocation_requests[-1].parameters["token"] == asking.issued_access_tokens[-1]
    assert acme_bot.status() == ("authorized", None)


def test_the_subject_is_stored_as_ciphertext_alone(
    acme_bot: Bot, ada: Browser, asking: FakeAuthorizationServer
) -> None:
    """K1, J9: and nothing else of the answer."""
    asking.account = {"sub": "planted-subject-9Kq", "email": "planted@acme.example"}
    sign_in(acme_bot, ada, asking, "ada")
    stored = AccessToken.objects.get()
    assert json.loads(stored.reveal_subject().reveal()) == ["login.acme.example", "sub", "planted-subject-9Kq"]
    assert "planted" not in everything_stored()


@pytest.mark.parametrize(
    ("answer", "code", "heading", "helps"),
    [
        ((401, {}, b""), "subject_request_refused", "Acme cannot sign you in right now", False),
        ((200, JSON, b'{"active": true}'), "invalid_subject_response", "Acme cannot sign you in right now", False),
        ((503, {}, b""), "subject_endpoint_busy", "Acme is not answering right now", True),
    ],
)
def test_a_sign_in_without_an_answer_fails_and_its_token_is_revoked(
    answer: Any,
    code: str,
    heading: str,
    helps: bool,
    acme_bot: Bot,
    ada: Browser,
    userinfo: FakeAuthorizationServer,
) -> None:
    """A17: the challenge stays open; bot, consumer and audit log read one code, and nobody is accused."""
    configure(revocation_endpoint=f"{userinfo.issuer}/revoke")
    userinfo.next_subject_answers = [answer]
    challenge = acme_bot.challenge()
    page = ada.sign_in(challenge["url"], userinfo)
    assert heading_of(page) == heading
    assert ("Try again" in page.content.decode()) is helps
    facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["last_error"]) == ("started", code)
    assert not AccessToken.objects.exists()
    assert AuditEvent.objects.filter(kind="authorization_request.failed", outcome=code).count() == 1
    run_once()
    assert [request.parameters["token"] for request in userinfo.revocation_requests] == userinfo.issued_access_tokens


def test_making_the_question_fail_is_no_way_past_the_pin(
    acme_bot: Bot, ada: Browser, rita: Browser, userinfo: FakeAuthorizationServer
) -> None:
    """A17: Rita is rate-limited at the brand on purpose; her sign-in does not count as anybody's."""
    sign_in(acme_bot, ada, userinfo, "ada")
    userinfo.next_subject_answers = [(429, {}, b"")]
    assert sign_in(acme_bot, rita, userinfo, "rita")["last_error"] == "subject_endpoint_busy"
    assert sign_in(acme_bot, rita, userinfo, "rita")["error"] == "subject_mismatch"


def test_an_account_is_not_the_same_under_another_member_or_host(
    acme_bot: Bot, ada: Browser, rita: Browser, userinfo: FakeAuthorizationServer
) -> None:
    """A17: Rita has chosen the user name that is Ada's number."""
    configure(subject_member="id")
    userinfo.account = {"id": 7, "login": "ada"}
    sign_in(acme_bot, ada, userinfo, "ada")
    configure(subject_member="login")
    userinfo.account = {"id": 8, "login": "7"}
    assert sign_in(acme_bot, rita, userinfo, "rita")["error"] == "subject_mismatch"


def test_an_id_token_does_not_confirm_who_was_named_by_an_endpoint(
    acme_bot: Bot,
    ada: Browser,
    userinfo: FakeAuthorizationServer,
    acme_server: AuthorizationServer,
) -> None:
    """A17: whether both count alike is nowhere promised, so the chat has to begin anew."""
    sign_in(acme_bot, ada, userinfo, "ada")
    configure(userinfo_endpoint="")
    use_openid(acme_server, userinfo)
    assert sign_in(acme_bot, ada, userinfo, "ada")["error"] == "subject_mismatch"


def test_an_endpoint_that_is_added_pins_the_next_account(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """A7: the sign-in before did not say who it was."""
    sign_in(acme_bot, ada, acme_login, "ada")
    assert acme_bot.token()[1]["subject_pinned"] is False
    configure(userinfo_endpoint=f"{acme_login.issuer}/userinfo")
    sign_in(acme_bot, ada, acme_login, "ada")
    assert acme_bot.token()[1]["subject_pinned"] is True
    assert sign_in(acme_bot, rita, acme_login, "rita")["error"] == "subject_mismatch"


def test_an_undone_sign_in_pins_nobody(
    acme_bot: Bot, ada: Browser, rita: Browser, userinfo: FakeAuthorizationServer
) -> None:
    """A7, A9: its consumer has said that it was not theirs."""
    url = sign_in(acme_bot, rita, userinfo, "rita")
    link = Challenge.objects.get(uuid=url["challenge_id"])
    assert link.status == "completed"
    AccessToken.objects.update(end_reason="undone", ended_at=AccessToken.objects.get().issued_at)
    assert sign_in(acme_bot, ada, userinfo, "ada")["status"] == "completed"


def test_a_change_of_the_endpoint_during_a_sign_in_sends_nothing(
    acme_bot: Bot, ada: Browser, userinfo: FakeAuthorizationServer
) -> None:
    """C4: neither the code nor the token goes to an address that came later."""
    challenge = acme_bot.challenge()
    url = ada.begin(challenge["url"])
    configure(userinfo_endpoint="https://login.rival.example/userinfo")
    ada.come_back(url, userinfo)
    assert acme_bot.read_challenge(challenge)["last_error"] == "configuration_changed"
    assert (userinfo.token_requests, userinfo.subject_requests) == ([], [])
