"""What the bot API refuses, and how: always a problem document with a stable code, and nothing stored."""

from typing import Any

import pytest

from brands.models import AuthorizationServer, Brand
from conversations.models import AuditEvent, Challenge, Conversation
from tests.cast import CHAT, Bot, Browser, client_of_ours, code_on, make_server
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db


def code_of(answer: tuple[int, dict[str, Any]]) -> tuple[int, str]:
    status, body = answer
    assert body["status"] == status
    assert body["type"] == f"urn:consumer-delegation:problem:{body['code']}"
    return status, body["code"]


@pytest.mark.parametrize("what", ["/challenges", "/authorize", "/completion"])
@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"{", "application/json", (400, "malformed_json")),
        (b"\xff{}", "application/json", (400, "malformed_json")),
        (b'{"authorization_server": "\xff"}', "application/json", (400, "malformed_json")),
        (b"[]", "application/json", (422, "invalid_request_body")),
        (b"null", "application/json", (422, "invalid_request_body")),
        (b'{"surprise": 1}', "application/json", (422, "invalid_request_body")),
        (b'{"authorization_server": 7}', "application/json", (422, "invalid_request_body")),
        (b"a=b", "application/x-www-form-urlencoded", (415, "unsupported_media_type")),
        (b"{}", "text/plain", (415, "unsupported_media_type")),
        (b"{}", "multipart/form-data; boundary=x", (415, "unsupported_media_type")),
        (b" " * 16_385, "application/json", (413, "body_too_large")),
    ],
)
def test_a_body_is_read_strictly(
    acme_bot: Bot,
    acme_server: AuthorizationServer,
    what: str,
    body: bytes,
    content_type: str,
    expected: tuple[int, str],
) -> None:
    """G7: JSON only, 16 KB, unknown fields refused, nothing stored."""
    answer = acme_bot.call("POST", f"/conversations/{CHAT}{what}", body, content_type=content_type)
    assert code_of(answer) == expected
    assert not Conversation.objects.exists()


def test_a_body_is_too_large_however_its_length_is_spelled(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    """G7: Python reads +16385 as a number, and no digit but a digit counts as one."""
    client = client_of_ours(headers={"Authorization": f"Bearer {acme_bot.key}"})
    answer = client.post(
        f"/api/v1/conversations/{CHAT}/challenges",
        b" " * 16_385,
        content_type="application/json",
        secure=True,
        CONTENT_LENGTH="+16385",
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "body",
    [
        {"purpose": "x" * 141},
        {"purpose": "line\nbreak"},
        {"purpose": "\u202eevil"},
        {"purpose": {}},
        {"purpose": {"en": "x" * 141}},
        {"purpose": {"en": "line\nbreak"}},
        {"purpose": {"en": None}},
        {"purpose": {"en": {"en": "to pay"}}},
        {"purpose": {"": "to pay"}},
        {"purpose": {"e": "to pay"}},
        {"purpose": {"en_GB": "to pay"}},
        {"purpose": {'en" onclick="': "to pay"}},
        {"purpose": {"en-GB": "to pay", "en-gb": "to settle"}},
        {"purpose": {f"x{chr(97 + n // 26)}{chr(97 + n % 26)}": "to pay" for n in range(21)}},
        {"purpose": ["to pay"]},
        {"locale": "not a locale"},
        {"locale": "../../etc"},
        {"context": "x" * 1025},
        {"replace": "yes"},
        {"min_ttl": 3601},
        {"min_ttl": -1},
        {"min_ttl": 1.5},
        {"min_ttl": True},
    ],
)
def test_a_field_out_of_range_is_named(acme_bot: Bot, acme_server: AuthorizationServer, body: dict[str, Any]) -> None:
    status, problem = acme_bot.in_chat("POST", "/authorize", body)
    assert (status, problem["code"]) == (422, "invalid_request_body")
    assert next(iter(body)) in problem["detail"]


def test_a_whole_number_may_be_written_with_a_point(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    """JSON has one kind of number, and JSON Schema calls 30.0 an integer."""
    assert acme_bot.in_chat("POST", "/authorize", b'{"min_ttl": 30.0}')[0] == 202


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("POST", "/challenges?authorization_server=orders", "unknown_parameter"),
        ("GET", "/token?surprise=1", "unknown_parameter"),
        ("GET", "/token?min_ttl=1&min_ttl=2", "repeated_parameter"),
        ("GET", "/token?min_ttl=-1", "invalid_min_ttl"),
        ("GET", "/token?min_ttl=3601", "invalid_min_ttl"),
        ("GET", "/token?min_ttl=0000003601", "invalid_min_ttl"),
        ("GET", "/token?min_ttl=1e3", "invalid_min_ttl"),
        ("GET", "/token?min_ttl=%D9%A3", "invalid_min_ttl"),
        ("DELETE", "/token?reason=undone", "invalid_reason"),
        ("GET", "/token?authorization_server=nope", "authorization_server_unknown"),
    ],
)
def test_a_query_is_read_strictly(
    acme_bot: Bot, acme_server: AuthorizationServer, method: str, path: str, code: str
) -> None:
    acme_bot.challenge()
    assert code_of(acme_bot.in_chat(method, path)) == (422, code)


@pytest.mark.parametrize(
    "conversation_id",
    [
        *(
            "a%20b",
            "a%2Fb",
            "%00",
            "%C3%A9",
            "a" * 201,
            "a%0A",
            "",
            "a%22",
            "a%3Cb",
            ".",
            "..",
            "%2E",
            "%2e%2E",
            ".%2e",
        ),
    ],
)
@pytest.mark.parametrize(
    ("method", "what"),
    [("POST", "/challenges"), ("GET", "/token"), ("GET", ""), ("DELETE", ""), ("POST", "/completion")],
)
def test_an_impossible_conversation_id_is_refused_by_name(
    acme_bot: Bot, acme_server: AuthorizationServer, conversation_id: str, method: str, what: str
) -> None:
    body = {"code": "123456"} if what == "/completion" else None
    answer = acme_bot.call(method, f"/conversations/{conversation_id}{what}", body)
    assert code_of(answer) == (400, "invalid_conversation_id")


@pytest.mark.parametrize(
    "conversation_id",
    ["A", "a" * 200, "19:abc@thread.v2", "a.b_c~d:e@f|g=h;i,j+k!l$m*n(o)p-q", "...", "....", ".a", "..a", "a."],
)
def test_every_platforms_id_is_taken_as_it_is(
    acme_bot: Bot, acme_server: AuthorizationServer, conversation_id: str
) -> None:
    status, challenge = acme_bot.call("POST", f"/conversations/{conversation_id}/challenges")
    assert (status, challenge["conversation_id"]) == (201, conversation_id)


def test_conversation_ids_differ_by_case(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    acme_bot.call("POST", "/conversations/abc/challenges")
    assert code_of(acme_bot.call("GET", "/conversations/ABC")) == (404, "conversation_unknown")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", f"/conversations/{CHAT}/challenges", "POST"),
        ("PUT", f"/conversations/{CHAT}/token", "GET, DELETE"),
        ("POST", f"/conversations/{CHAT}", "GET, DELETE"),
        ("HEAD", f"/conversations/{CHAT}/token", "GET, DELETE"),
    ],
)
def test_another_method_is_a_405_that_names_the_right_ones(acme_bot: Bot, method: str, path: str, allowed: str) -> None:
    response = acme_bot.send(method, path)
    assert (response.status_code, response["Allow"]) == (405, allowed)


@pytest.mark.parametrize("path", ["/nothing", "/challenges", "/conversations", "/challenges/x/y"])
def test_an_unknown_address_of_the_api_is_a_problem_document(acme_bot: Bot, path: str) -> None:
    assert code_of(acme_bot.call("GET", path)) == (404, "not_found")


def test_a_brand_without_an_active_server_is_told_so(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    AuthorizationServer.objects.update(is_active=False)
    assert code_of(acme_bot.in_chat("POST", "/challenges")) == (422, "authorization_server_unknown")


def test_a_brand_with_several_servers_must_name_one(
    acme: Brand, acme_bot: Bot, acme_server: AuthorizationServer
) -> None:
    make_server(acme, "loyalty")
    assert code_of(acme_bot.in_chat("POST", "/challenges")) == (422, "authorization_server_required")
    assert acme_bot.challenge(authorization_server="loyalty")["authorization_server"] == "loyalty"
    assert code_of(acme_bot.token()) == (422, "authorization_server_required")
    assert code_of(acme_bot.in_chat("GET", "/token?authorization_server=loyalty")) == (409, "challenged")
    status, facts = acme_bot.in_chat("GET")
    standings = [(row["authorization_server"], row["status"]) for row in facts["authorization_servers"]]
    assert (status, standings) == (200, [("loyalty", "challenged"), ("orders", "unchallenged")])


def test_signing_out_needs_no_name_while_one_server_is_active(
    acme: Brand, acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """The bug: a second server that was switched off again, for good, made every sign-out without a name a 422."""
    make_server(acme, "loyalty", is_active=False)
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    status, facts = acme_bot.in_chat("DELETE", "/token?reason=signed_out")
    assert (status, facts["authorization_server"], facts["end_reason"]) == (200, "orders", "signed_out")


@pytest.mark.parametrize("name", ["", "?authorization_server=orders"])
def test_a_consumer_is_signed_out_of_the_only_server_after_it_was_switched_off(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, name: str
) -> None:
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    AuthorizationServer.objects.update(is_active=False)
    status, facts = acme_bot.in_chat("DELETE", f"/token{name}")
    assert (status, facts["authorization_server"], facts["end_reason"]) == (200, "orders", "rejected")


def test_signing_out_passes_over_no_token_of_a_server_that_was_switched_off(
    acme: Brand, acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """The bug: the active server's `unchallenged` read as 'not signed in', and the token was there once more later."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    AuthorizationServer.objects.update(is_active=False)
    make_server(acme, "loyalty")
    assert code_of(acme_bot.in_chat("DELETE", "/token")) == (422, "authorization_server_required")
    assert acme_bot.in_chat("DELETE", "/token?authorization_server=orders")[0] == 200
    assert code_of(acme_bot.in_chat("DELETE", "/token")) == (409, "unchallenged")


def test_another_brands_objects_are_unknown(
    acme_bot: Bot, rival_bot: Bot, acme_server: AuthorizationServer, rival_server: AuthorizationServer
) -> None:
    """G3: 404 and not 403, for reads and for changes."""
    challenge = acme_bot.challenge()
    for method in ("GET", "DELETE"):
        answer = rival_bot.call(method, f"/challenges/{challenge['challenge_id']}")
        assert code_of(answer) == (404, "challenge_unknown")
        assert code_of(rival_bot.in_chat(method)) == (404, "conversation_unknown")
        assert code_of(rival_bot.in_chat(method, "/token")) == (404, "conversation_unknown")
    answer = rival_bot.in_chat("POST", "/completion", {"code": "123456"})
    assert code_of(answer) == (404, "conversation_unknown")
    assert Challenge.objects.get().status == "issued"


def test_two_brands_may_use_the_same_conversation_id(
    acme_bot: Bot, rival_bot: Bot, acme_server: AuthorizationServer, rival_server: AuthorizationServer
) -> None:
    assert acme_bot.challenge()["challenge_id"] != rival_bot.challenge()["challenge_id"]
    assert Conversation.objects.filter(external_id=CHAT).count() == 2


def test_no_call_writes_before_it_is_allowed_to(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    for what in ("/challenges", "/authorize"):
        answer = acme_bot.in_chat("POST", what, {"scope": "everything"})
        assert code_of(answer) == (422, "invalid_scope")
        answer = acme_bot.in_chat("POST", what, {"same_person_check": "none"})
        assert code_of(answer) == (422, "same_person_check_refused")
    assert (Conversation.objects.count(), Challenge.objects.count()) == (0, 0)
    assert AuditEvent.objects.exclude(conversation_uuid=None).count() == 0
