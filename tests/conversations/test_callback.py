"""The callback in a hostile world: wrong browser, wrong brand, repeats, races, and answers that are no answers."""

from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from brands.models import AuthorizationServer
from conversations.models import AuthorizationRequest, Challenge
from tests.cast import Bot, Browser, code_on, heading_of
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db


def callback(login: FakeAuthorizationServer, query: str) -> str:
    return f"{login.redirect_uri}?{query}"


def with_changes(query: str, **changes: str | None) -> str:
    values = dict(parse_qsl(query)) | changes
    return urlencode({name: value for name, value in values.items() if value is not None})


def test_another_browser_never_reaches_the_token_endpoint_and_can_start_again(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B3, B5, B13: the cookie and the state must be of the same authorization request; the challenge stays open."""
    challenge = acme_bot.challenge()
    query = acme_login.authorize(ada.begin(challenge["url"]))
    answer = rita.get(callback(acme_login, query))
    assert (answer.status_code, answer["Location"]) == (303, f"/c/{challenge['url'][-27:]}/other-browser")
    page = rita.get(answer["Location"])
    assert (page.status_code, heading_of(page)) == (200, "You came back in another browser")
    assert challenge["url"].removeprefix("https://delegation.test") in page.content.decode()
    assert acme_login.token_requests == []
    assert heading_of(ada.get(ada.get(callback(acme_login, query))["Location"])) == (
        "One last step: send this code in your chat"
    )


def test_the_cookie_of_another_authorization_request_is_not_enough(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B3, B13: F3, the attacker's own state and code in the victim's browser, which has a request of its own."""
    mallory = Browser()
    url = acme_bot.challenge()["url"]
    ada.begin(url)
    query = acme_login.authorize(mallory.begin(url))
    assert ada.get(callback(acme_login, query))["Location"].endswith("/other-browser")
    assert acme_login.token_requests == []


def test_the_authorization_requests_cookie_is_as_strict_as_the_way_back_allows(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B3, B4."""
    ada.begin(acme_bot.challenge()["url"])
    authorization_request = AuthorizationRequest.objects.get()
    cookie = ada.client.cookies[f"__Host-attempt-{authorization_request.uuid.hex}"]
    assert (cookie["secure"], cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, True, "Lax", "/")
    assert cookie["domain"] == ""
    assert 890 <= cookie["max-age"] <= 900


def test_a_state_of_one_brand_at_the_path_of_another_is_unknown(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, rival_login: FakeAuthorizationServer
) -> None:
    """C1: no token request leaves, to neither."""
    query = acme_login.authorize(ada.begin(acme_bot.challenge()["url"]))
    answer = ada.get(callback(rival_login, query))
    assert (answer.status_code, answer["Location"]) == (303, "/c/")
    assert (acme_login.token_requests, rival_login.token_requests) == ([], [])
    assert ada.get(callback(acme_login, query))["Location"].endswith("/done")


@pytest.mark.parametrize(
    "changes",
    [
        {"state": None},
        {"state": ""},
        {"state": "unknown"},
        {"state": "x" * 4097},
        {"code": "x" * 4097},
        {"code": None},
        {"code": "a\nb"},
    ],
)
def test_a_malformed_answer_is_no_answer(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, changes: dict[str, Any]
) -> None:
    """B13: capped, and nothing is spent. The bug: whoever came back with one read that her link no longer works."""
    challenge = acme_bot.challenge()
    query = acme_login.authorize(ada.begin(challenge["url"]))
    answer = ada.get(callback(acme_login, with_changes(query, **changes)))
    end = "#" if changes.get("state", "") is None else ""
    assert (answer.status_code, answer["Location"]) == (303, f"/c/{challenge['url'][-27:]}/not-completed{end}")
    page = ada.get(answer["Location"])
    assert (page.status_code, heading_of(page)) == (200, "That sign-in did not work")
    assert acme_login.token_requests == []
    assert ada.get(callback(acme_login, query))["Location"].endswith("/done")
    assert len(acme_login.token_requests) == 1


@pytest.mark.parametrize("name", ["code", "state", "iss", "error"])
def test_a_doubled_parameter_is_refused(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, name: str
) -> None:
    """B13: RFC 6749 section 3.1."""
    query = acme_login.authorize(ada.begin(acme_bot.challenge()["url"]))
    doubled = f"{query}&{name}=again" + (f"&{name}=and+again" if name == "error" else "")
    assert ada.get(callback(acme_login, doubled))["Location"].endswith("/not-completed")
    assert acme_login.token_requests == []
    assert AuthorizationRequest.objects.get().claimed_at is None


def test_a_strangers_parameter_may_come_twice(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> None:
    """B13 (RFC 6749 section 4.1.2). The bug: it made a dead link of a sign-in that had gone well."""
    query = acme_login.authorize(ada.begin(acme_bot.challenge()["url"]))
    page = ada.get(ada.get(callback(acme_login, f"{query}&utm=1&utm=2&scope=a&scope=b"))["Location"])
    assert code_on(page)


def test_head_and_post_at_the_callback_spend_nothing(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B6: a scanner's HEAD must not run the GET."""
    query = acme_login.authorize(ada.begin(acme_bot.challenge()["url"]))
    assert ada.client.head(callback(acme_login, query), secure=True).status_code == 405
    assert acme_login.token_requests == []
    assert AuthorizationRequest.objects.get().claimed_at is None


@pytest.mark.parametrize("iss", [None, "https://login.acme.example/", "https://login.rival.example", ""])
def test_a_success_without_the_right_issuer_is_refused(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, iss: str | None
) -> None:
    """C2: compared as an exact string, and demanded where the server promises it."""
    challenge = acme_bot.challenge()
    query = acme_login.authorize(ada.begin(challenge["url"]))
    page = ada.get(ada.get(callback(acme_login, with_changes(query, iss=iss)))["Location"])
    assert heading_of(page) == "That sign-in did not work"
    assert acme_bot.read_challenge(challenge)["last_error"] == "issuer_mismatch"
    assert acme_login.token_requests == []


def test_an_error_without_an_issuer_is_still_an_error_and_is_noted(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, caplog: pytest.LogCaptureFixture
) -> None:
    """C3: servers that promise iss leave it out of errors."""
    acme_login.denies = True
    challenge = acme_bot.challenge()
    query = acme_login.authorize(ada.begin(challenge["url"]))
    page = ada.get(ada.get(callback(acme_login, with_changes(query, iss=None)))["Location"])
    assert heading_of(page) == "You are not signed in"
    assert acme_bot.read_challenge(challenge)["status"] == "denied"
    assert "an error response has no iss" in caplog.messages


def test_an_error_of_another_issuer_denies_nothing(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """C2, B13: `iss` before `error`; it is not this server that said no, so the consumer may try again."""
    acme_login.denies = True
    challenge = acme_bot.challenge()
    query = with_changes(acme_login.authorize(ada.begin(challenge["url"])), iss="https://login.rival.example")
    page = ada.get(ada.get(callback(acme_login, query))["Location"])
    assert heading_of(page) == "That sign-in did not work"
    facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["last_error"]) == ("started", "issuer_mismatch")


def test_denial_is_an_outcome_that_ends_the_challenge(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B14."""
    acme_login.denies = True
    challenge = acme_bot.challenge()
    page = ada.sign_in(challenge["url"], acme_login)
    assert (page.status_code, heading_of(page)) == (200, "You are not signed in")
    facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["last_error"]) == ("denied", None)
    assert acme_bot.token()[1]["code"] == "unchallenged"
    assert heading_of(ada.get(challenge["url"] + "/done")) == "You are not signed in"


def test_another_error_ends_the_authorization_request_only_and_shows_nothing_of_its_text(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B14, H8: stands as last_error, cut and cleaned; another try is offered and works."""
    challenge = acme_bot.challenge()
    query = acme_login.authorize(ada.begin(challenge["url"]))
    text = "<script>alert(1)</script>\r\nINJECTED " + "x" * 500
    hostile = with_changes(query, code=None, error="server_error", error_description=text)
    page = ada.get(ada.get(callback(acme_login, hostile))["Location"])
    assert heading_of(page) == "Acme is not answering right now"
    assert "INJECTED" not in page.content.decode()
    row = Challenge.objects.get()
    assert (row.status, row.last_error) == ("started", "server_error")
    assert len(row.last_error_detail) <= 200
    assert not {"\r", "\n"} & set(row.last_error_detail)
    assert acme_bot.read_challenge(challenge)["last_error"] == "server_error"
    assert code_on(ada.sign_in(challenge["url"], acme_login))


def test_an_unknown_error_code_is_not_taken_over(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B14."""
    challenge = acme_bot.challenge()
    query = acme_login.authorize(ada.begin(challenge["url"]))
    ada.get(callback(acme_login, with_changes(query, code=None, error="<b>own</b>")))
    assert acme_bot.read_challenge(challenge)["last_error"] == "authorization_request_refused"


def test_a_code_beside_an_error_is_not_exchanged(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B13: error before code."""
    query = acme_login.authorize(ada.begin(acme_bot.challenge()["url"]))
    ada.get(callback(acme_login, with_changes(query, error="server_error")))
    assert acme_login.token_requests == []


@pytest.mark.parametrize(
    "change",
    [
        {"token_endpoint": "https://login.rival.example/token"},
        {"client_id": "another-client"},
        {"token_endpoint_auth_method": "none"},
        {"issuer": "https://login.rival.example"},
    ],
)
def test_a_code_is_not_sent_to_an_endpoint_that_was_swapped_meanwhile(
    acme_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
    rival_login: FakeAuthorizationServer,
    change: dict[str, str],
) -> None:
    """C4."""
    challenge = acme_bot.challenge()
    query = acme_login.authorize(ada.begin(challenge["url"]))
    AuthorizationServer.objects.filter(brand__slug="acme").update(**change)
    page = ada.get(ada.get(callback(acme_login, query))["Location"])
    assert heading_of(page) == "That sign-in did not work"
    assert acme_bot.read_challenge(challenge)["last_error"] == "configuration_changed"
    assert (acme_login.token_requests, rival_login.token_requests) == ([], [])


def test_a_link_that_cannot_be_read_leads_to_a_clean_address(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B15, K2: a row that was moved or tampered with, or a key that was taken out of the ring too early."""
    query = acme_login.authorize(ada.begin(acme_bot.challenge()["url"]))
    Challenge.objects.update(link_token_ciphertext=b"moved from elsewhere")
    answer = ada.get(callback(acme_login, query))
    assert (answer.status_code, answer["Location"]) == (303, "/c/")


def test_an_unknown_callback_path_and_an_inactive_server_lead_to_a_clean_address(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B15."""
    query = acme_login.authorize(ada.begin(acme_bot.challenge()["url"]))
    assert ada.get(f"https://delegation.test/callback/unknown?{query}")["Location"] == "/c/"
    AuthorizationServer.objects.update(is_active=False)
    assert ada.get(callback(acme_login, query))["Location"] == "/c/"
    assert acme_login.token_requests == []
