"""What comes to a callback and is no authorization response: its trace, and the way on for whoever began (B13)."""

import logging
from typing import Any

import pytest

from conversations.models import AuthorizationRequest
from tests.cast import Bot, Browser, code_on, heading_of
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db


def noted(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """Return the lines about answers that are none."""
    return [line for line in caplog.records if line.getMessage() == "a callback was not a valid authorization response"]


MALFORMED = [
    ("error=access_denied", "state is missing, error is access_denied"),
    ("", "there are no parameters: does the server answer in the fragment (response_mode, response_type)?"),
    ("code=planted-code&amp;state=planted", "& is written as &amp;: the server escaped the address for HTML"),
    ("code=planted-code&state=planted", "the state belongs to no authorization request at this server"),
    ("code=planted-code&code=planted-code&state=x", "code is given twice"),
    (f"code={'planted-' * 600}&state=x", "code is longer than 4096 characters"),
]


@pytest.mark.parametrize(("query", "reason"), MALFORMED)
def test_a_malformed_callback_is_logged_with_its_reason_and_offered_another_try(
    acme_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
    caplog: pytest.LogCaptureFixture,
    query: str,
    reason: str,
) -> None:
    """B13, H1. The bug: it left no trace, and the page was false: "This link no longer works"."""
    challenge = acme_bot.challenge()
    ada.begin(challenge["url"])
    before = list(AuthorizationRequest.objects.values())
    answer = ada.get(f"{acme_login.redirect_uri}?{query}")
    assert answer["Location"].removesuffix("#") == f"/c/{challenge['url'][-27:]}/not-completed"
    assert heading_of(ada.get(answer["Location"])) == "That sign-in did not work"
    (line,) = noted(caplog)
    assert (line.levelno, vars(line)["reason"]) == (logging.WARNING, reason)
    assert (vars(line)["brand"], vars(line)["authorization_server"]) == ("acme", "orders")
    assert "planted" not in repr(vars(line)["reason"])
    assert list(AuthorizationRequest.objects.values()) == before
    assert acme_bot.read_challenge(challenge)["last_error"] is None
    assert code_on(ada.sign_in(challenge["url"], acme_login))


@pytest.mark.parametrize("after", ["/", ".", "/?{}", "%3f{}", "%2f", "//", "/x?{}", "%e2%80%8b?{}"])
@pytest.mark.parametrize("before", ["", "/", "/Callback"])
def test_an_answer_at_an_address_that_is_not_quite_the_redirect_uri_is_malformed(
    acme_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
    caplog: pytest.LogCaptureFixture,
    before: str,
    after: str,
) -> None:
    """B13, C1. The bug: 404, "There is nothing here", and no trace. Its code is not exchanged."""
    challenge = acme_bot.challenge()
    sent = acme_login.authorize(ada.begin(challenge["url"]))
    path = acme_login.redirect_uri.partition("delegation.test")[2]
    path = path.replace("/callback", before) if before == "/Callback" else before + path
    answer = ada.client.get(f"https://delegation.test{path}{after.format(sent)}", secure=True)
    assert answer["Location"].removesuffix("#") == f"/c/{challenge['url'][-27:]}/not-completed"
    (line,) = noted(caplog)
    assert vars(line)["reason"] == "the URL is not the redirect URI: something was added or changed"
    assert acme_login.token_requests == []
    assert AuthorizationRequest.objects.get().claimed_at is None


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "application/json", "multipart/form-data"]
)
def test_a_posted_answer_is_led_on_by_get_and_offered_another_try(
    acme_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
    caplog: pytest.LogCaptureFixture,
    content_type: str,
) -> None:
    """B4, B13: `form_post` leaves the Lax cookie behind. The bug: 403, "allow cookies", which were not the cause."""
    challenge = acme_bot.challenge()
    sent = acme_login.authorize(ada.begin(challenge["url"]))
    cookies, ada.client.cookies = ada.client.cookies, type(ada.client.cookies)()
    posted = ada.client.post(
        acme_login.redirect_uri, sent, content_type=content_type, secure=True, headers={"Origin": acme_login.issuer}
    )
    assert (posted.status_code, posted.content, posted.cookies) == (303, b"", {})
    ada.client.cookies = cookies
    answer = ada.get(posted["Location"])
    assert answer["Location"] == f"/c/{challenge['url'][-27:]}/not-completed#"
    (line,) = noted(caplog)
    assert "form_post" in vars(line)["reason"]
    assert acme_login.token_requests == []
    assert code_on(ada.sign_in(challenge["url"], acme_login))


def test_a_flood_of_malformed_callbacks_does_not_fill_the_log(
    ada: Browser, acme_login: FakeAuthorizationServer, caplog: pytest.LogCaptureFixture
) -> None:
    """B13: anybody can send them."""
    for _ in range(30):
        assert ada.get(f"{acme_login.redirect_uri}?code=x")["Location"] == "/c/#"
    assert len(noted(caplog)) == 10


def test_a_browser_without_this_servers_cookie_learns_nothing_from_a_malformed_callback(
    acme_bot: Bot,
    ada: Browser,
    rita: Browser,
    acme_login: FakeAuthorizationServer,
    rival_login: FakeAuthorizationServer,
) -> None:
    """G9, B13: and another server's authorization request is not this one's."""
    ada.begin(acme_bot.challenge()["url"])
    assert ada.get(f"{rival_login.redirect_uri}?code=x")["Location"] == "/c/#"
    assert rita.get(f"{acme_login.redirect_uri}?code=x")["Location"] == "/c/#"
    forged = f"__Host-attempt-{AuthorizationRequest.objects.get().uuid.hex}"
    rita.client.cookies[forged] = "made-up"
    assert rita.get(f"{acme_login.redirect_uri}?code=x")["Location"] == "/c/#"


def test_a_malformed_repeat_after_the_sign_in_leads_to_its_result(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    challenge = acme_bot.challenge()
    code = code_on(ada.sign_in(challenge["url"], acme_login))
    answer = ada.get(f"{acme_login.redirect_uri}?code=x")
    assert code_on(ada.get(answer["Location"])) == code


def test_the_page_of_a_malformed_callback_ends_with_its_challenge(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """G9."""
    challenge = acme_bot.challenge()
    acme_bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")
    page = ada.get(f"{challenge['url']}/not-completed")
    assert (page.status_code, heading_of(page)) == (404, "This link no longer works")
    assert ada.get("/c/unknown/not-completed").status_code == 404
