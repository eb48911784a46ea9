"""Servers that write scopes in their own way: what bots ask, read and miss is the same for all of them."""

import pytest

from brands.models import AuthorizationServer
from conversations.models import AccessToken, Challenge
from conversations.outbox.worker import run_once
from tests.cast import Bot, Browser, code_on
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

READ, ACTIVITY = "read", "activity:read_all"
BOTH = f"{READ} {ACTIVITY}"


@pytest.fixture
def strava(acme_login: FakeAuthorizationServer) -> FakeAuthorizationServer:
    """Return a server that takes and writes commas."""
    acme_login.scope, acme_login.scope_separator = BOTH, ","
    AuthorizationServer.objects.update(scope=BOTH, scope_separator="comma")
    return acme_login


@pytest.fixture
def redirecting_strava(strava: FakeAuthorizationServer) -> FakeAuthorizationServer:
    """Return one that names the granted scope on the redirect, and nowhere else."""
    strava.names_granted_scope = False
    AuthorizationServer.objects.update(accept_scope_in_authorization_response=True)
    return strava


def signed_in(bot: Bot, browser: Browser, login: FakeAuthorizationServer) -> dict[str, object]:
    """Return the facts of the challenge's end."""
    challenge = bot.challenge()
    page = browser.sign_in(challenge["url"], login)
    if "data-completion-code" in page.content.decode():
        bot.complete(code_on(page))
    return bot.read_challenge(challenge)


def test_commas_are_written_and_read_and_bots_see_spaces(
    acme_bot: Bot, ada: Browser, strava: FakeAuthorizationServer
) -> None:
    """E14. The bug: the request had spaces, so the server refused it as one unknown scope."""
    signed_in(acme_bot, ada, strava)
    _, token = acme_bot.token()

    assert strava.authorization_requests[0]["scope"] == f"{READ},{ACTIVITY}"
    assert (token["requested_scope"], token["scope"], token["missing_scope"]) == (BOTH, BOTH, "")


def test_a_consumer_who_unticked_a_scope_is_told_of_by_its_name(
    acme_bot: Bot, ada: Browser, strava: FakeAuthorizationServer
) -> None:
    """E13, E14: grant, missing scope and reads agree."""
    strava.granted_scope = READ
    signed_in(acme_bot, ada, strava)

    assert acme_bot.token()[1]["missing_scope"] == ACTIVITY
    assert acme_bot.in_chat("GET", f"/token?scope={READ}")[0] == 200
    assert acme_bot.in_chat("GET", f"/token?scope={ACTIVITY}")[1]["code"] == "missing_scope"


def test_a_required_scope_is_found_between_commas(acme_bot: Bot, ada: Browser, strava: FakeAuthorizationServer) -> None:
    """E13, E14."""
    AuthorizationServer.objects.update(required_scope=ACTIVITY)

    assert signed_in(acme_bot, ada, strava)["status"] == "completed"

    strava.granted_scope = f"{READ},other"
    challenge = acme_bot.challenge(replace=True)
    ada.sign_in(challenge["url"], strava)
    assert acme_bot.read_challenge(challenge)["last_error"] == "insufficient_scope"


def test_a_bot_asks_for_some_of_them(acme_bot: Bot, ada: Browser, strava: FakeAuthorizationServer) -> None:
    challenge = acme_bot.challenge(scope=ACTIVITY)
    ada.sign_in(challenge["url"], strava)

    assert strava.authorization_requests[0]["scope"] == ACTIVITY


def test_commas_in_answers_alone(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> None:
    """E14: GitHub and LinkedIn read spaces and write commas."""
    AuthorizationServer.objects.update(scope=BOTH, required_scope=BOTH, scope_separator="comma_in_response")
    acme_login.scope, acme_login.granted_scope = BOTH, f"{ACTIVITY},{READ}"
    signed_in(acme_bot, ada, acme_login)

    assert acme_login.authorization_requests[0]["scope"] == BOTH
    assert acme_bot.token()[1]["scope"] == f"{ACTIVITY} {READ}"


def test_a_comma_is_part_of_a_name_where_nobody_said_otherwise(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """E14: RFC 6749 section 3.3 allows it, and `orders.read,none` is not `orders.read`."""
    AuthorizationServer.objects.update(required_scope="orders.read")
    acme_login.granted_scope = "orders.read,none"

    facts = signed_in(acme_bot, ada, acme_login)

    assert facts["last_error"] == "insufficient_scope"
    assert not AccessToken.objects.exists()


@pytest.mark.parametrize(
    ("redirected", "granted"),
    [
        *((READ, READ), (f"{ACTIVITY},{READ}", BOTH), (f"{READ} {ACTIVITY}", BOTH), ("", "")),
        *((f"{READ},admin", READ), ("admin", ""), ("\u00e4\n", ""), ("s" * 5000, "")),
    ],
    ids=str,
)
def test_a_scope_on_the_redirect_narrows_and_never_widens(
    redirected: str, granted: str, acme_bot: Bot, ada: Browser, redirecting_strava: FakeAuthorizationServer
) -> None:
    """E14: whoever holds the browser can write that parameter."""
    redirecting_strava.scope_in_redirect = redirected
    signed_in(acme_bot, ada, redirecting_strava)

    assert acme_bot.token()[1]["scope"] == granted


def test_a_required_scope_that_the_redirect_does_not_name_is_refused_and_the_token_ended(
    acme_bot: Bot, ada: Browser, redirecting_strava: FakeAuthorizationServer
) -> None:
    """E13, E14."""
    AuthorizationServer.objects.update(required_scope=ACTIVITY, revocation_endpoint="https://login.acme.example/revoke")
    redirecting_strava.scope_in_redirect = READ

    assert signed_in(acme_bot, ada, redirecting_strava)["last_error"] == "insufficient_scope"
    assert run_once() == 1
    assert len(redirecting_strava.revocation_requests) == 1


def test_without_the_switch_the_redirect_says_nothing(
    acme_bot: Bot, ada: Browser, redirecting_strava: FakeAuthorizationServer
) -> None:
    """E14."""
    AuthorizationServer.objects.update(accept_scope_in_authorization_response=False)
    redirecting_strava.scope_in_redirect = READ
    signed_in(acme_bot, ada, redirecting_strava)

    assert acme_bot.token()[1]["scope"] == BOTH


def test_the_token_answer_has_the_last_word(
    acme_bot: Bot, ada: Browser, redirecting_strava: FakeAuthorizationServer
) -> None:
    """E14: it came from the server itself."""
    redirecting_strava.names_granted_scope, redirecting_strava.granted_scope = True, ACTIVITY
    redirecting_strava.scope_in_redirect = READ
    signed_in(acme_bot, ada, redirecting_strava)

    assert acme_bot.token()[1]["scope"] == ACTIVITY


def test_a_redirect_without_a_scope_leaves_what_was_asked_for(
    acme_bot: Bot, ada: Browser, redirecting_strava: FakeAuthorizationServer
) -> None:
    """RFC 6749 section 5.1: no scope means as asked."""
    signed_in(acme_bot, ada, redirecting_strava)

    assert acme_bot.token()[1]["scope"] == BOTH


def test_a_scope_of_4000_characters_goes_all_the_way(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """E21. The bug: 1,000 could be configured, and a long grant was "not a list of scopes"."""
    scope = " ".join(["s" * 99] + [f"{number:03}" + "x" * 96 for number in range(39)])
    scope += "y" * (4000 - len(scope))
    AuthorizationServer.objects.update(scope=scope, required_scope=scope)
    acme_login.scope = scope

    challenge = acme_bot.challenge(scope=scope)
    acme_bot.complete(code_on(ada.sign_in(challenge["url"], acme_login)))

    assert acme_bot.token()[1]["scope"] == scope
    assert acme_bot.in_chat("GET", f"/token?scope={scope[:1999].rsplit(' ', 1)[0]}")[0] == 200


def test_a_scope_of_4001_characters_is_refused_in_words(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """E21."""
    acme_login.granted_scope = "s" * 4001

    facts = signed_in(acme_bot, ada, acme_login)

    assert facts["last_error"] == "invalid_token_response"
    assert Challenge.objects.get().last_error_detail == "scope has more than 4000 characters"


def test_more_than_fits_into_an_address_is_refused_at_the_read(acme_bot: Bot) -> None:
    """E21: 2,000 characters, percent-encoded, fit into the request line that gunicorn reads."""
    status, problem = acme_bot.in_chat("GET", f"/token?scope={'s' * 2001}")

    assert (status, problem["code"]) == (422, "invalid_scope")
    assert "2000 characters" in problem["detail"]
