"""Every problem says what to do next: the call to make with its address filled in, or null where none helps."""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.flow.termination import revoke_token
from conversations.models import AccessToken, Challenge
from tests.cast import CHAT, Bot, Browser, code_on, make_bot
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

IN_CHAT = f"/api/v1/conversations/{CHAT}"
CREATE = {"operation": "createChallenge", "method": "POST", "path": f"{IN_CHAT}/challenges"}
COMPLETE = {"operation": "complete", "method": "POST", "path": f"{IN_CHAT}/completion"}
TOKEN = {"operation": "readToken", "method": "GET", "path": f"{IN_CHAT}/token"}


def read(challenge: dict[str, Any]) -> dict[str, str]:
    path = f"/api/v1/challenges/{challenge['challenge_id']}"
    return {"operation": "readChallenge", "method": "GET", "path": path}


def told(answer: tuple[int, dict[str, Any]]) -> tuple[int, str, Any]:
    status, problem = answer
    return status, problem["code"], problem["next"]


def authorize(bot: Bot, ada: Browser, login: FakeAuthorizationServer) -> dict[str, Any]:
    """Go the whole way to a token; return the challenge."""
    challenge = bot.challenge()
    assert bot.complete(code_on(ada.sign_in(challenge["url"], login)))[0] == 200
    return challenge


def test_before_a_challenge_and_while_it_is_open(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    assert told(acme_bot.token()) == (404, "conversation_unknown", CREATE)
    challenge = acme_bot.challenge()
    assert told(acme_bot.token()) == (409, "challenged", read(challenge))
    assert told(acme_bot.complete("123456")) == (409, "challenged", read(challenge))
    page = ada.sign_in(challenge["url"], acme_login)
    assert told(acme_bot.token()) == (409, "confirmation_needed", COMPLETE)
    assert told(acme_bot.complete("12")) == (422, "completion_code_malformed", COMPLETE)
    wrong = f"{(int(code_on(page)) + 1) % 1_000_000:06d}"
    for _ in range(4):
        assert told(acme_bot.complete(wrong)) == (422, "completion_code_incorrect", COMPLETE)
    assert told(acme_bot.complete(wrong)) == (422, "completion_code_incorrect", CREATE)
    assert told(acme_bot.token()) == (409, "unchallenged", CREATE)


def test_another_challenge_is_open(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    AuthorizationServer.objects.update(same_person_checks=["completion_code", "chat_page"])
    challenge = acme_bot.challenge()
    status, problem = acme_bot.in_chat("POST", "/challenges", {"same_person_check": "chat_page"})
    assert (told((status, problem)), problem["challenge_id"]) == (
        (409, "challenge_differs", read(challenge)),
        challenge["challenge_id"],
    )
    unknown = acme_bot.in_chat("POST", "/completion", {"handle": "unknown"})
    look = {"operation": "readConversation", "method": "GET", "path": IN_CHAT}
    assert told(unknown) == (422, "handle_unknown", look)


def test_a_token_that_is_there_already_or_too_short(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    authorize(acme_bot, ada, acme_login)
    assert told(acme_bot.complete("123456")) == (409, "authorized", TOKEN)
    now = timezone.now()
    AccessToken.objects.update(issued_at=now - timedelta(hours=1), expires_at=now + timedelta(seconds=50))
    assert told(acme_bot.in_chat("GET", "/token?min_ttl=60")) == (409, "insufficient_lifetime", CREATE)


@pytest.mark.parametrize(("min_ttl", "helps"), [(60, True), (119, True), (120, False), (600, False)])
def test_a_brand_whose_tokens_are_too_short_does_not_send_the_consumer_in_a_circle(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, min_ttl: int, helps: bool
) -> None:
    """`authorize` offered a link, and after the sign-in another one, for ever."""
    authorize(acme_bot, ada, acme_login)
    token = AccessToken.objects.get()
    AccessToken.objects.update(expires_at=token.issued_at + timedelta(seconds=120))
    with time_machine.travel(token.issued_at + timedelta(seconds=80), tick=False):
        read = acme_bot.in_chat("GET", f"/token?min_ttl={min_ttl}")
        status, answer = acme_bot.in_chat("POST", "/authorize", {"min_ttl": min_ttl})
    assert told(read) == (409, "insufficient_lifetime", CREATE if helps else None)
    if helps:
        assert (status, answer["status"]) == (202, "issued")
    else:
        assert (told((status, answer)), answer["expires_in"]) == ((409, "insufficient_lifetime", None), 40)
        assert "120 seconds" in answer["detail"]
        assert Challenge.objects.count() == 1


def test_a_token_in_its_last_second_is_the_answer_to_who_asks_for_no_more(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """`authorize` sends nobody to sign in for a second that the bot did not ask for."""
    authorize(acme_bot, ada, acme_login)
    now = timezone.now().replace(microsecond=0)
    AccessToken.objects.update(expires_at=now + timedelta(seconds=0.5))
    with time_machine.travel(now, tick=False):
        status, token = acme_bot.in_chat("POST", "/authorize", {"min_ttl": 0})
    assert (status, token["access_token"], token["expires_in"]) == (200, acme_login.issued_access_tokens[0], 0)


@pytest.mark.parametrize("end", ["superseded", "withdrawn", "expired"])
def test_a_code_of_a_challenge_that_is_over_is_answered_with_where_the_conversation_stands_now(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, end: str
) -> None:
    challenge = acme_bot.challenge()
    code = code_on(ada.sign_in(challenge["url"], acme_login))
    now, expected = timezone.now(), (409, "unchallenged", CREATE)
    if end == "superseded":
        expected = (409, "challenged", read(acme_bot.challenge(replace=True)))
    elif end == "withdrawn":
        acme_bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")
    else:
        now += timedelta(minutes=6)
    with time_machine.travel(now, tick=False):
        assert acme_bot.read_challenge(challenge)["status"] == end
        assert told(acme_bot.complete(code)) == expected


@pytest.mark.parametrize("reason", ["expired", "rejected", "signed_out", "revoked", "undone"])
def test_every_end_of_a_token_sends_the_bot_to_a_new_challenge(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, reason: str
) -> None:
    challenge = authorize(acme_bot, ada, acme_login)
    later = timezone.now()
    if reason == "expired":
        later += timedelta(days=2)
    elif reason == "revoked":
        revoke_token(AccessToken.objects.get(), actor="operator", now=later)
    elif reason == "undone":
        ada.press(f"{challenge['url']}/done", "/undo")
    else:
        acme_bot.in_chat("DELETE", f"/token?reason={reason}")
    with time_machine.travel(later, tick=False):
        status, problem = acme_bot.token()
        ended = acme_bot.in_chat("DELETE", "/token")
    assert (told((status, problem)), problem["reason"]) == ((409, "rechallenge_required", CREATE), reason)
    assert told(ended) == (409, "rechallenge_required", CREATE)


@pytest.mark.parametrize(
    ("method", "what", "body", "expected"),
    [
        ("POST", "/challenges", b"{", (400, "malformed_json")),
        ("POST", "/challenges", {"scope": "everything"}, (422, "invalid_scope")),
        ("POST", "/challenges", {"expected_subject": "ada"}, (422, "expected_subject_refused")),
        ("GET", "/token?min_ttl=x", None, (422, "invalid_min_ttl")),
        ("PUT", "/token", None, (405, "method_not_allowed")),
        ("GET", "/nothing", None, (400, "invalid_conversation_id")),
    ],
)
def test_no_call_helps_where_the_request_has_to_change(
    acme_bot: Bot, acme_server: AuthorizationServer, method: str, what: str, body: Any, expected: tuple[int, str]
) -> None:
    acme_bot.challenge()
    assert told(acme_bot.in_chat(method, what, body)) == (*expected, None)


def test_no_call_helps_where_the_key_or_the_id_has_to_change(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    acme_bot.challenge()
    assert told(Bot("wrong").token()) == (401, "invalid_bot_key", None)
    assert told(make_bot(acme_server.brand, "challenge:read").token()) == (403, "insufficient_scope", None)
    assert told(acme_bot.call("GET", "/challenges/x")) == (404, "challenge_unknown", None)
    assert told(acme_bot.call("GET", "/challenges")) == (404, "not_found", None)
    assert acme_bot.in_chat("DELETE")[0] == 200
    assert told(acme_bot.token()) == (410, "conversation_closed", None)


def test_the_path_is_percent_encoded_where_a_path_needs_it(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    """RFC 3986 section 3.3: a bar does not stand in a path as it is; a colon and an at sign do."""
    _, problem = acme_bot.call("GET", "/conversations/19:a|b@thread.v2/token")
    path = "/api/v1/conversations/19:a%7Cb@thread.v2/challenges"
    assert problem["next"]["path"] == path
    assert acme_bot.call("POST", path.removeprefix("/api/v1"))[0] == 201


def test_a_token_without_a_scope_that_the_bot_needs_is_refused_with_all_three_scopes(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """Some consent pages let the consumer untick scopes; 403 `insufficient_scope` is the key's, this is the token's."""
    AuthorizationServer.objects.update(scope="orders.read profile")
    acme_login.scope, acme_login.granted_scope = "orders.read profile", "orders.read"
    authorize(acme_bot, ada, acme_login)
    assert acme_bot.in_chat("GET", "/token?scope=orders.read")[0] == 200
    assert acme_bot.in_chat("GET", "/token?scope=")[0] == 200
    assert acme_bot.in_chat("GET", "/token?scope=profile%20orders.read") == (
        409,
        {
            "type": "urn:consumer-delegation:problem:missing_scope",
            "title": "Missing scope",
            "status": 409,
            "detail": (
                "The token was not granted every scope that the bot needs. Create a challenge that asks for them."
                " The consumer has to allow them this time."
            ),
            "code": "missing_scope",
            "next": CREATE,
            "requested_scope": "orders.read profile",
            "scope": "orders.read",
            "missing_scope": "profile",
        },
    )


def test_all_that_is_missing_is_named_in_the_order_in_which_it_was_asked_for(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    AuthorizationServer.objects.update(scope="orders.read profile returns")
    acme_login.scope, acme_login.granted_scope = "orders.read profile returns", "orders.read"
    authorize(acme_bot, ada, acme_login)
    status, problem = acme_bot.in_chat("GET", "/token?scope=returns%20orders.read%20profile%20returns")
    assert (status, problem["code"], problem["missing_scope"]) == (409, "missing_scope", "returns profile")


def test_a_scope_that_no_challenge_could_bring_is_refused_by_name(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A problem that sent the bot to a new challenge would send it round in a circle."""
    authorize(acme_bot, ada, acme_login)
    assert told(acme_bot.in_chat("GET", "/token?scope=payments")) == (422, "invalid_scope", None)
    assert Challenge.objects.count() == 1
