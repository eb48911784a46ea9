"""A bot calls the brand's API by name, with a key that cannot read tokens. Acme's API is a real server."""

import logging
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from brands.models import AuthorizationServer, BotKey, Brand, BrandAPI, Operation
from conversations.api.flow_problems import problem_of
from conversations.flow import api_calls, call_counts
from conversations.flow.errors import TokenReplaced
from conversations.models import AccessToken, ApiCallCount, Conversation
from tests.brand_api import CALLING, REFUSED, Caller, make_api
from tests.cast import Bot, make_bot
from tests.hostile_token_endpoint import http_answer

pytestmark = pytest.mark.django_db


def test_a_bot_without_token_read_calls_a_declared_operation(caller: Caller) -> None:
    """P1, P5, P10: the token is in the API's request, and in nothing that the bot gets."""
    status, answer = caller.call(arguments={"limit": 10, "X-Language": "de"})

    assert (status, answer) == (
        200,
        {
            "conversation_id": caller.bot.chat,
            "session": 1,
            "operation": "orders.list",
            "response": {
                "status": 200,
                "headers": {"content-type": "application/json", "etag": '"7"'},
                "body_encoding": "json",
                "body": {"orders": ["A-1001"]},
            },
        },
    )
    lines = caller.sent().split(b"\r\n")
    assert lines[0] == b"GET /shop/v1/orders?limit=10 HTTP/1.1"
    assert {b"X-Language: de", f"Authorization: Bearer {caller.token}".encode()} <= set(lines)
    assert caller.bot.token()[0] == 403


def test_a_body_is_sent_as_json(caller: Caller) -> None:
    caller.api.play(http_answer(b"", status=204))
    status, answer = caller.call("orders.note", arguments={"order_id": "A 1"}, body={"note": "Ring twice"})
    assert (status, answer["response"]["status"], answer["response"]["body_encoding"]) == (200, 204, "none")
    head, _, body = caller.sent().partition(b"\r\n\r\n")
    assert head.startswith(b"POST /shop/v1/orders/A%201/notes HTTP/1.1\r\n")
    assert body == b'{"note":"Ring twice"}'


@pytest.mark.parametrize(
    ("body", "media_type", "encoding", "wanted"),
    [
        (b'{"a": 1.10}', "application/json; charset=utf-8", "json", {"a": 1.1}),
        (b"null", "application/problem+json", "json", None),
        (b"\xef\xbb\xbf[1]", "application/json", "json", [1]),
        (b"not json", "application/json", "text", "not json"),
        (b"[" * 100_000, "application/json", "text", "[" * 100_000),
        (b"[" * 900 + b"]" * 900, "application/json", "text", "[" * 900 + "]" * 900),
        (b"[" * 62 + b"]" * 62, "application/json", "text", "[" * 62 + "]" * 62),
        (b"[%s]" % b",".join([b"[[1]]"] * 60), "application/json", "json", [[[1]]] * 60),
        (b"1" * 5_000, "application/json", "text", "1" * 5_000),
        (b'"\\ud800"', "application/json", "text", '"\\ud800"'),
        (b'{"a": 1, "a": 2}', "application/json", "json", {"a": 2}),
        ("ä".encode(), "text/plain", "text", "ä"),
        (b"\xe4", "text/plain; charset=ISO-8859-1", "text", "ä"),
        (b"\xe4", "text/plain", "base64", "5A=="),
        (b"<a/>", "application/atom+xml", "text", "<a/>"),
        (b"a", "text/plain; charset=rot13", "base64", "YQ=="),
        (b"%PDF", "application/pdf", "base64", "JVBERg=="),
        (b"x", "", "base64", "eA=="),
        (b"", "application/json", "none", None),
    ],
)
def test_json_comes_as_json_text_as_text_and_the_rest_in_base64(
    body: bytes, media_type: str, encoding: str, wanted: Any, caller: Caller
) -> None:
    caller.api.play(http_answer(body, Content_Type=media_type))
    response = caller.call()[1]["response"]
    assert (response["body_encoding"], response["body"]) == (encoding, wanted)


@pytest.mark.parametrize("status", [400, 404, 409, 410, 418, 429, 500, 503])
def test_what_the_api_refuses_is_not_our_refusal(status: int, caller: Caller) -> None:
    """P10: the API's 409 looked like ours, with a code that a bot branches on."""
    ours = b'{"code": "rechallenge_required", "next": {"operation": "closeConversation"}}'
    caller.api.play(http_answer(ours, status=status, Content_Type="application/problem+json", Retry_After="9"))
    answered, answer = caller.call()
    assert (answered, answer["response"]["status"], answer["response"]["headers"]["retry-after"]) == (200, status, "9")
    assert "code" not in answer


def test_another_operation_is_unknown_whatever_it_is(caller: Caller, rival_server: AuthorizationServer) -> None:
    """P1."""
    make_api(rival_server, "https://api.rival.example")
    Operation.objects.filter(brand=rival_server.brand, name="orders.list").update(name="rival.only")
    for name in ("rival.only", "orders.delete", "ORDERS.LIST", "orders.list%20", "..", "%00", "", "orders.list;a"):
        assert caller.bot.in_chat("POST", f"/calls/{name}", {})[1]["code"] == "operation_unknown"
    assert caller.api.requests == []


@pytest.mark.parametrize("model", [Operation, BrandAPI, AuthorizationServer])
def test_what_is_switched_off_cannot_be_called(model: Any, caller: Caller) -> None:
    """P1."""
    model.objects.update(is_active=False)
    assert caller.code() == "operation_unknown"
    assert caller.api.requests == []


def test_another_brands_bot_calls_nothing_of_acme(caller: Caller, rival: Brand) -> None:
    """P1."""
    bot = make_bot(rival)
    assert bot.in_chat("POST", "/calls/orders.list", {})[1]["code"] == "operation_unknown"


def test_a_key_needs_the_scope_and_with_a_challenge_another_one(caller: Caller, acme: Brand) -> None:
    """P1."""
    reader = make_bot(acme, BotKey.Scope.TOKEN_READ, BotKey.Scope.CHALLENGE_CREATE)
    assert reader.in_chat("POST", "/calls/orders.list", {})[0] == 403
    only = make_bot(acme, BotKey.Scope.API_CALL)
    assert only.in_chat("POST", "/calls/orders.list", {})[0] == 200
    status, problem = only.in_chat("POST", "/calls/orders.list", {"challenge": {}})
    assert (status, problem["code"]) == (403, "insufficient_scope")
    assert "challenge:create" in problem["detail"]


def test_without_a_token_the_bot_is_told_what_to_do(caller: Caller) -> None:
    bot = Bot(caller.bot.key, "web:other")
    assert bot.in_chat("POST", "/calls/orders.list", {})[1]["code"] == "conversation_unknown"
    bot.challenge()
    assert bot.in_chat("POST", "/calls/orders.list", {})[1]["code"] == "challenged"
    assert caller.api.requests == []


def test_one_call_asks_for_the_sign_in_and_the_same_call_does_it(caller: Caller) -> None:
    """202 with the link, whose challenge asks for the operation's scope; then 200."""
    Operation.objects.update(scope="orders.read")
    AuthorizationServer.objects.update(scope="profile orders.read", required_scope="")
    caller.login.scope = "profile orders.read"
    caller.bot.chat = "web:new"
    wish = {"challenge": {"purpose": "to look up your order", "scope": "profile"}}
    status, challenge = caller.call(**wish)
    assert (status, challenge["status"], challenge["scope"]) == (202, "issued", "profile orders.read")
    assert caller.call(**wish)[1]["url"] == challenge["url"]
    caller.sign_in(challenge)
    assert caller.call(**wish)[0] == 200
    assert len(caller.api.requests) == 1


def test_a_token_that_the_challenge_does_not_describe_is_not_used(caller: Caller) -> None:
    """As with `authorize`: the bot names another check than the token has passed."""
    AuthorizationServer.objects.update(same_person_checks=["completion_code", "none"])
    status, challenge = caller.call(challenge={"same_person_check": "none"})
    assert (status, challenge["same_person_check"]) == (202, "none")
    assert caller.api.requests == []


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"authorization_server": "payments"}, "authorization_server_unknown"),
        ({"session": 2}, "invalid_session"),
        ({"scope": "everything"}, "invalid_scope"),
        ({"unknown": 1}, "invalid_request_body"),
    ],
)
def test_a_challenge_that_cannot_lead_to_the_operation_is_refused(wish: Any, code: str, caller: Caller) -> None:
    assert caller.code(challenge=wish, session=1) == code


def test_a_token_never_goes_to_a_host_that_was_configured_after_it(caller: Caller) -> None:
    """P2: an admin moves the base URL to collect tokens. A new sign-in brings one for the new host."""
    BrandAPI.objects.update(host_since=timezone.now())
    status, problem = caller.call()
    assert (status, problem["code"], problem["next"]["operation"]) == (409, "rechallenge_required", "createChallenge")
    assert caller.api.requests == []
    status, challenge = caller.call(challenge={})
    assert status == 202
    caller.sign_in(challenge)
    assert caller.call()[0] == 200


def test_only_a_token_that_is_younger_than_the_host_goes_there(caller: Caller) -> None:
    """P2: of the same microsecond nobody can say which host was configured, so it counts as older."""
    issued_at = AccessToken.objects.get().issued_at
    BrandAPI.objects.update(host_since=issued_at - timedelta(microseconds=1))
    assert caller.call()[0] == 200
    for host_since in (issued_at, issued_at + timedelta(microseconds=1)):
        BrandAPI.objects.update(host_since=host_since)
        assert caller.code() == "rechallenge_required"


def test_a_refused_token_ends_as_rejected(caller: Caller) -> None:
    """P9: the bot need not report it, and with a challenge the answer is already the new link."""
    caller.api.play(REFUSED)
    status, problem = caller.call()
    assert (status, problem["code"], problem["reason"]) == (409, "rechallenge_required", "rejected")
    assert problem["next"]["operation"] == "createChallenge"
    assert caller.bot.status() == ("rechallenge_required", "rejected")
    assert caller.call(challenge={})[0] == 202
    assert len(caller.api.requests) == 1


def test_a_refused_token_and_the_new_link_are_one_answer(caller: Caller) -> None:
    """P9."""
    caller.api.play(REFUSED)
    assert caller.call(challenge={})[0] == 202
    assert AccessToken.objects.get().end_reason == "rejected"


@pytest.mark.parametrize("header", ["", 'Basic realm="Bearer", error="invalid_token"', 'DPoP error="invalid_token"'])
def test_another_401_ends_nothing(header: str, caller: Caller) -> None:
    """P9: a proxy's, for example."""
    caller.api.play(http_answer(b"", status=401, WWW_Authenticate=header))
    status, answer = caller.call()
    assert (status, answer["response"]["status"]) == (200, 401)
    assert caller.bot.status() == ("authorized", None)


def test_a_late_401_does_not_end_the_token_that_took_the_place(caller: Caller) -> None:
    """P9: the API refuses the first token when Ada has just signed in again."""
    refused = AccessToken.objects.get()
    caller.sign_in(caller.bot.challenge())
    live = AccessToken.objects.get(ended_at=None)
    with pytest.raises(TokenReplaced) as late:
        api_calls._end(caller.server, refused, "bot:late")
    problem = problem_of(late.value)
    assert (problem.status, problem.code, problem.next_operation) == (409, "authorized", "callOperation")
    assert caller.bot.status() == ("authorized", None)
    assert AccessToken.objects.get(ended_at=None) == live


def test_a_scope_that_the_operation_needs_is_named_before_anything_is_sent(caller: Caller) -> None:
    Operation.objects.update(scope="orders.write")
    status, problem = caller.call()
    assert (status, problem["code"], problem["next"]) == (409, "missing_scope", None)
    AuthorizationServer.objects.update(scope="orders.read orders.write")
    status, problem = caller.call()
    assert (status, problem["missing_scope"], problem["next"]["operation"]) == (409, "orders.write", "createChallenge")
    assert caller.api.requests == []


@pytest.mark.parametrize(
    ("configured", "wanted", "missing", "operation"),
    [
        ("orders.read orders.write", "orders.write", "orders.write", "createChallenge"),
        ("orders.read orders.write", "orders.read orders.write", "orders.write", "createChallenge"),
        ("orders.read", "orders.write", "orders.write", None),
        ("orders.read", "orders.read", "orders.read", None),
        ("orders.read", 'a\\"b', "", None),
        ("orders.read", "", "", None),
    ],
)
def test_a_scope_that_the_api_wants_is_named_with_the_way_to_it(
    configured: str, wanted: str, missing: str, operation: str | None, caller: Caller
) -> None:
    """P9: 403 with `insufficient_scope` ends no token."""
    AuthorizationServer.objects.update(scope=configured)
    challenge = f'Bearer error="insufficient_scope", scope="{wanted}"'
    caller.api.play(http_answer(b"", status=403, WWW_Authenticate=challenge))
    status, problem = caller.call()
    assert (status, problem["code"], problem["missing_scope"]) == (409, "missing_scope", missing)
    assert (problem["next"] and problem["next"]["operation"]) == operation
    assert caller.bot.status() == ("authorized", None)


def test_a_403_without_a_reason_is_the_apis_own(caller: Caller) -> None:
    caller.api.play(http_answer(b"", status=403, WWW_Authenticate="Bearer"))
    assert caller.call()[1]["response"]["status"] == 403


@pytest.mark.parametrize(
    ("operation", "body", "pointer"),
    [
        ("orders.list", {"arguments": {"limit": 51}}, "/arguments/limit"),
        ("orders.list", {"arguments": {"Host": "rival.example"}}, "/arguments/Host"),
        ("orders.list", {"arguments": {"X-Language": "de\r\nCookie: a"}}, "/arguments/X-Language"),
        ("orders.list", {"body": {}}, "/body"),
        ("orders.read", {}, "/arguments/order_id"),
        ("orders.read", {"arguments": {"order_id": "17/refunds"}}, "/arguments/order_id"),
        ("orders.note", {"arguments": {"order_id": "1"}, "body": {"note": 1}}, "/body/note"),
    ],
)
def test_an_argument_that_is_not_as_declared_is_named(
    operation: str, body: dict[str, Any], pointer: str, caller: Caller
) -> None:
    """P3, P4."""
    status, problem = caller.call(operation, **body)
    assert (status, problem["code"], problem["pointer"]) == (422, "arguments_invalid", pointer)
    assert caller.api.requests == []


def test_a_body_has_64_kilobytes_and_no_endless_depth(caller: Caller) -> None:
    """P4."""
    long = {"arguments": {"order_id": "1"}, "body": {"note": "x" * 60_000}}
    assert caller.call("orders.note", **long)[0] == 200
    long["body"] = {"note": "x" * 70_000}
    assert caller.call("orders.note", **long)[0] == 413
    deep = b'{"body": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    assert caller.bot.in_chat("POST", "/calls/orders.note", deep)[1]["code"] == "malformed_json"
    number = b'{"arguments": {"limit": ' + b"1" * 5_000 + b"}}"
    assert caller.bot.in_chat("POST", "/calls/orders.list", number)[0] in {400, 422}


def test_a_late_call_of_the_last_chat_changes_nothing_for_the_next_person(caller: Caller) -> None:
    """P12: a read may leave the session out, as a token read may."""
    Brand.objects.update(conversation_ids="reused")
    note = {"arguments": {"order_id": "1"}, "body": {"note": "a"}}
    assert caller.code("orders.note", **note) == "session_required"
    assert caller.code("orders.note", **note, challenge={}) == "session_required"
    assert caller.code("orders.note", **note, session=2) == "session_mismatch"
    assert caller.code("orders.list", session=2) == "session_mismatch"
    assert caller.call("orders.note", **note, session=1)[0] == 200
    assert caller.call("orders.list")[0] == 200
    caller.bot.in_chat("DELETE", "?session=1")
    caller.bot.challenge()
    assert caller.code("orders.note", **note, session=1) == "session_mismatch"
    assert len(caller.api.requests) == 2


def test_a_closed_conversation_calls_nothing(caller: Caller) -> None:
    caller.bot.in_chat("DELETE")
    assert caller.code() == "conversation_closed"
    assert caller.code(challenge={}) == "conversation_closed"
    assert caller.api.requests == []


def test_a_token_calls_for_its_own_conversation_alone(caller: Caller) -> None:
    """P5: two chats, two tokens."""
    first = caller.token
    caller.bot.chat = "web:rita"
    caller.sign_in(caller.bot.challenge())
    caller.call()
    assert first.encode() not in caller.sent()
    assert Conversation.objects.count() == 2


def test_a_purpose_is_asked_for_as_for_reads(caller: Caller) -> None:
    Brand.objects.update(token_read_purpose_required=True)
    assert caller.code() == "purpose_required"
    assert caller.code(purpose="Look up") == "invalid_purpose"
    assert caller.call(purpose="order.status")[0] == 200
    path = f"/conversations/{caller.bot.chat}/calls/orders.list"
    assert caller.bot.call("POST", path, {}, **{"X-Purpose": "order.status"})[0] == 200
    assert caller.bot.call("POST", path, {"purpose": "a"}, **{"X-Purpose": "b"})[1]["code"] == "invalid_purpose"


def test_each_call_is_one_log_line_and_one_count(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    """P11: key, operation, outcome and time; no argument, no address."""
    caplog.set_level(logging.INFO)
    caller.call("orders.read", arguments={"order_id": "planted-order"}, purpose="order.status")
    caller.api.play(http_answer(b"", status=503))
    caller.call(purpose="order.list")
    caller.call(purpose="order.list")
    lines = [record for record in caplog.records if record.message == "api.call"]
    assert [(line.operation, line.outcome, line.call_purpose) for line in lines] == [  # type: ignore[attr-defined]
        ("orders.read", "2xx", "order.status"),
        ("orders.list", "5xx", "order.list"),
        ("orders.list", "5xx", "order.list"),
    ]
    everything = "".join(str(record.__dict__) for record in caplog.records)
    assert "planted-order" not in everything
    assert caller.token not in everything
    call_counts.flush()
    counts = ApiCallCount.objects.order_by("operation", "-outcome").values_list(
        "operation", "outcome", "purpose", "times"
    )
    assert list(counts) == [("orders.list", "5xx", "order.list", 2), ("orders.read", "2xx", "order.status", 1)]


def test_a_call_that_is_refused_before_it_is_tried_is_not_counted(caller: Caller) -> None:
    """P11."""
    caller.call(arguments={"limit": 51})
    caller.call("orders.delete")
    call_counts.flush()
    assert not ApiCallCount.objects.exists()


def test_counts_are_added_up(caller: Caller) -> None:
    """P11."""
    for _ in range(2):
        caller.call()
        call_counts.flush()
    (row,) = ApiCallCount.objects.all()
    assert (row.times, row.bot_key.scopes) == (2, sorted(CALLING))


def test_a_bot_that_cannot_read_tokens_signs_the_consumer_out(caller: Caller, acme: Brand) -> None:
    """It had no way to do what the consumer asked for in its chat."""
    assert make_bot(acme, BotKey.Scope.CHALLENGE_CREATE).in_chat("DELETE", "/token")[0] == 403
    status, answer = caller.bot.in_chat("DELETE", "/token?reason=signed_out")
    assert (status, answer["end_reason"]) == (200, "signed_out")
    assert caller.code() == "rechallenge_required"
