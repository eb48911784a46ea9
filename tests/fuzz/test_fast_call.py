"""The fast path of a call and the full way send the API the same bytes, once, and answer, log, count and end the same.

P1, P2, P8, P12, G3, B16: requests of every kind, rows in every state, answers of every kind, clocks at every edge.
"""

from datetime import timedelta
from typing import Any, Final

import pytest
import time_machine
from hypothesis import strategies as st

from brands.models import AuthorizationServer, BotKey, Brand, BrandAPI, Operation
from conversations.flow import api_calls
from conversations.models import AccessToken, AuditEvent, Conversation
from infrastructure.models import RateCounter
from tests.brand_api import LIMIT, NOTE, ORDER_ID, ORDERS, REFUSED, STRONGER, Caller, demanding
from tests.cast import make_bot, make_server
from tests.fuzz.both_ways import (
    ABSENT,
    HOSTS,
    KEY,
    KEYS,
    LATIN,
    OF_EVERY_REQUEST,
    OTHER_KEY,
    RIVALS_KEY,
    TIMES,
    Changes,
    at_moment,
    environ_of,
    same_on_both_ways,
    sent,
    stored,
    with_body,
)
from tests.fuzz.cases import JSON_VALUES, as_json, fuzzed, rolled_back
from tests.hostile_token_endpoint import http_answer

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(900)]

CALLS: Final = "/api/v1/conversations/web:ada/calls"
ENDS: Final = [
    "orders.list",
    "orders.read",
    "orders.delete",
    "ORDERS.LIST",
    "orders.list/",
    "",
    "a b",
    "\xc3\xa9",
    "%00",
]
ARGUMENTS: Final = [
    {},
    {"limit": 10},
    {"limit": 51},
    {"limit": "10"},
    {"order_id": "A 1"},
    {"order_id": "../x"},
    {"x": 1},
]
MEMBERS: Final = st.fixed_dictionaries(
    {},
    optional={
        "arguments": st.sampled_from(ARGUMENTS) | JSON_VALUES,
        "body": st.sampled_from([{"note": "a"}, {"note": 1}, None]) | JSON_VALUES,
        "purpose": st.sampled_from(["order.status", "A", "", None]),
        "session": st.sampled_from([1, 1.0, 2, 0, "1", None]),
        "challenge": st.sampled_from([{}, None, {"session": 2}]),
        "x": st.just(1),
    },
)


RAW: Final = st.sampled_from([b"", b"{", b"[]", b"\xff", b"{}" + b" " * 70_000, b'{"session": 1e400}', b"[" * 9_000])
TYPES: Final = [
    *("application/json; charset=utf-8", "application/json; charset=utf-16", "APPLICATION/JSON", "text/plain", ""),
    *(ABSENT, "application/json;", "application/json;charset=UTF-8", "multipart/form-data; boundary=x"),
]  # fmt: skip
REQUESTS: Final[st.SearchStrategy[Changes]] = st.one_of(
    MEMBERS.map(lambda members: with_body(as_json(members))),
    MEMBERS.map(lambda members: with_body(as_json(members))),
    RAW.map(with_body),
    sent("REQUEST_METHOD", "GET", "post", "PUT", "DELETE", "HEAD"),
    sent("PATH_INFO", *(f"{CALLS}/{end}" for end in ENDS), also=LATIN.map(lambda end: f"{CALLS}/{end}")),
    sent("PATH_INFO", f"/api/v1/conversations/WEB:ada{CALLS[-6:]}/orders.list", f"/{CALLS}/orders.list"),
    sent("HTTP_HOST", *HOSTS),
    sent("HTTP_AUTHORIZATION", *KEYS),
    sent("QUERY_STRING", "&", "x=1", "session=1", "x=%00", "?"),
    sent("HTTP_X_PURPOSE", "order.status", "A", ""),
    sent("CONTENT_TYPE", *TYPES),
    sent("CONTENT_LENGTH", "1", "0", "-1", "x", "+2", "02", "", "70000", ABSENT),
    sent("wsgi.url_scheme", "http"),
    sent("SCRIPT_NAME", "/prefix"),
    sent("HTTP_IDEMPOTENCY_KEY", "a"),
    OF_EVERY_REQUEST,
)
BROKEN: Final = st.sampled_from([b"", b"\x01", b"x" * 40])
ROWS: Final[st.SearchStrategy[tuple[Any, Changes]]] = st.one_of(
    stored(BotKey, "expires_at", also=TIMES),
    stored(BotKey, "revoked_at", also=TIMES),
    stored(BotKey, "last_used_at", None, also=TIMES),
    stored(BotKey, "scopes", [], ["api:call"], {"api:call": 1}, "api:call", [["api:call"]], ["API:CALL"]),
    stored(BotKey, "digest", b"", b"x" * 40),
    stored(Brand, "is_active", False),
    stored(Brand, "token_read_purpose_required", True),
    stored(Brand, "conversation_ids", "reused"),
    stored(AuthorizationServer, "is_active", False),
    stored(BrandAPI, "is_active", False),
    stored(BrandAPI, "base_url", "https://localhost:9", "https://api.acme.example/x?y", "https://LOCALHOST:9/", ""),
    stored(BrandAPI, "host_since", also=TIMES),
    stored(BrandAPI, "host_member", "patient"),
    stored(Operation, "is_active", False),
    stored(Operation, "method", "GET", "HEAD", "POST", "DELETE"),
    stored(Operation, "path", "/orders", "/orders/{order_id}", "/a/../b", "//x", "@x", "/a?b=c", "/%41/%7e"),
    stored(
        Operation,
        "parameters",
        [],
        [LIMIT],
        [ORDER_ID],
        [LIMIT | {"required": True}],
        [LIMIT, LIMIT | {"in": "header"}],
    ),
    stored(Operation, "body_schema", None, NOTE, {}, {"type": "null"}),
    stored(Operation, "is_body_required", True),
    stored(Operation, "scope", "", "orders.read", "orders.read  admin", "ORDERS.READ"),
    stored(Operation, "is_safe_to_repeat", True),
    stored(Conversation, "closed_at", also=TIMES),
    stored(Conversation, "session", 2),
    stored(AccessToken, "scope", "", "orders.read", "  orders.read\tadmin "),
    stored(AccessToken, "issued_at", also=TIMES),
    stored(AccessToken, "expires_at", also=TIMES),
    stored(AccessToken, "confirmed_at", None),
    st.just((AccessToken, {"ended_at": timedelta(0), "end_reason": "rejected"})),
    BROKEN.map(lambda value: (AccessToken, {"ciphertext": value})),
    BROKEN.map(lambda value: (AccessToken, {"response_members_ciphertext": value})),
    BROKEN.map(lambda value: (AccessToken, {"token_type": "DPoP", "dpop_key_ciphertext": value})),
)
WANTS_MORE: Final = 'Bearer error="insufficient_scope", scope="orders.read admin"'
ANSWERS: Final = st.sampled_from(
    [
        *(ORDERS, ORDERS, REFUSED, STRONGER, demanding(""), demanding('max_age="x"')),
        http_answer(b"{}", status=403, WWW_Authenticate=WANTS_MORE),
        http_answer(b"{}", status=401, WWW_Authenticate='DPoP error="invalid_token"'),
        http_answer(b'{"a": 1.10}', status=503, Retry_After="9", Set_Cookie="a=b"),
        http_answer(b"\xe4", Content_Type="text/plain"),
        http_answer(b"", status=302, Location="https://rival.example/"),
        b"nonsense\r\n\r\n",
        http_answer(b" " * 300_000),
    ]
)


@pytest.fixture
def keys(caller: Caller, acme: Brand, rival: Brand) -> dict[str, str]:
    """Return the keys by their names in `KEYS`. In acme-bot's chat an operation can be called."""
    make_server(rival)
    caller.bot.chat = CALLS.split("/")[4]
    caller.sign_in()
    # Both ways compile their statements before anything is compared, since that draws random bytes.
    status, _ = caller.bot.call("POST", "/conversations/another/calls/orders.list", {"challenge": {}})
    assert status == 202
    Conversation.objects.filter(external_id="another").delete()
    other = make_bot(acme, BotKey.Scope.CHALLENGE_READ)
    return {KEY: caller.bot.key, OTHER_KEY: other.key, RIVALS_KEY: make_bot(rival).key}


@fuzzed(
    150, 10_000, changes=st.lists(REQUESTS, max_size=3), rows=st.lists(ROWS, max_size=2), later=TIMES, answer=ANSWERS,
    operation=st.sampled_from(["orders.list", "orders.read", "orders.note"]),
)  # fmt: skip
def test_any_call_of_any_row_at_any_moment(
    keys: dict[str, str],
    caller: Caller,
    dice: dict[int, Any],
    answered_fast: list[int],
    monkeypatch: pytest.MonkeyPatch,
    changes: list[Changes],
    rows: list[tuple[Any, Changes]],
    later: timedelta,
    answer: bytes,
    operation: str,
) -> None:
    monkeypatch.setattr(api_calls, "monotonic", lambda: 0.0)  # the milliseconds are in the log line and the counts
    token = AccessToken.objects.get(conversation__external_id=caller.bot.chat)

    def look() -> list[Any]:
        dice.clear()
        got = list(caller.api.requests)
        caller.api.requests.clear()
        assert len(got) <= 1
        counters = sorted(RateCounter.objects.values_list("key", "times"))
        ends = list(AccessToken.objects.order_by("pk").values_list("end_reason", "ended_at", "demanded_acr_values"))
        return [got, counters, ends, AuditEvent.objects.count()]

    arguments: dict[str, Any] = {} if operation == "orders.list" else {"order_id": "A-1"}
    call = {"arguments": arguments} | ({"body": {"note": "a"}} if operation == "orders.note" else {})
    own = {"REQUEST_METHOD": "POST", "PATH_INFO": f"{CALLS}/{operation}", "CONTENT_TYPE": "application/json"}
    caller.api.play(answer)
    with rolled_back(), time_machine.travel(token.issued_at + max(later, timedelta(0)), tick=False):
        for model, columns in rows:
            model.objects.update(**{name: at_moment(value, token.expires_at) for name, value in columns.items()})
        dice.clear()  # a call without a token that fits creates the challenge that it asks for, with random values
        environ = environ_of(changes, keys, own | with_body(as_json(call)))
        same_on_both_ways(environ, answered_fast, monkeypatch, look)
