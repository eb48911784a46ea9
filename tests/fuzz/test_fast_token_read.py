"""The fast path of a token read and the full way give the same answer, headers, log lines, counts and rows.

G3, G6, B16, H6: requests of every kind, rows in every state, clocks at every edge.
"""

from datetime import timedelta
from typing import Any, Final

import pytest
import time_machine
from django.test import override_settings
from hypothesis import strategies as st

from brands.models import AuthorizationServer, BotKey, Brand
from conversations.models import AccessToken, Challenge, Conversation
from tests.cast import CHAT, Bot, Browser, code_on, make_bot, make_server
from tests.fake_authorization_server import FakeAuthorizationServer
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
)
from tests.fuzz.cases import ANY_TEXT, fuzzed, percent_encoded, rolled_back

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(900)]

READ: Final = {"REQUEST_METHOD": "GET", "PATH_INFO": f"/api/v1/conversations/{CHAT}/token"}
PATHS: Final = [
    *("/api/v1/conversations//token", "/api/v1/conversations/x/token", f"/API/v1/conversations/{CHAT}/token"),
    *(f"/api/v1/conversations/{CHAT}/{end}" for end in ("token/", "TOKEN", "token\n", "token%20", "/token", "")),
    *(f"/api/v1/conversations/{chat}/token" for chat in (CHAT.upper(), f"{CHAT}/", f"{CHAT}\n", "c", "\xc3\xa9")),
    *(f"//api/v1/conversations/{CHAT}/token", f"/static/../api/v1/conversations/{CHAT}/token", "", "/", "*"),
]  # fmt: skip
QUERY_VALUES: Final = st.sampled_from(
    [
        "",
        "orders",
        "loyalty",
        "x",
        "0",
        "1",
        "2",
        "01",
        "60",
        "3600",
        "3601",
        "-1",
        "\u0663",
        "1.0",
        "orders.read",
        "orders.read  x",
        "a",
    ]
)
PARAMETERS: Final = st.sampled_from(
    ["authorization_server", "min_ttl", "scope", "session", "purpose", "Purpose", "min_ttl ", "x", ""]
)
PAIRS: Final = st.tuples(PARAMETERS, QUERY_VALUES | ANY_TEXT.filter(lambda text: text.isprintable()))
QUERIES: Final = st.lists(PAIRS, max_size=3).map(
    lambda pairs: "&".join(f"{name}={percent_encoded(value)}" for name, value in pairs)
)
PURPOSES: Final = ["order.status", "a" * 65, "A", "", "a b", "order.status, order.status", "\xe9", ABSENT]
TYPES: Final = [
    "application/json",
    "text/plain",
    "",
    "x",
    "a/b; charset=utf-16",
    "a/b; charset=utf-8",
    "; charset=x",
    "\xe9",
]
REQUESTS: Final[st.SearchStrategy[Changes]] = st.one_of(
    sent("REQUEST_METHOD", "get", "Get", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "GET ", "QUERY"),
    sent("PATH_INFO", *PATHS, also=LATIN.map(lambda chat: f"/api/v1/conversations/{chat}/token")),
    sent("HTTP_HOST", *HOSTS, also=LATIN),
    sent("HTTP_AUTHORIZATION", *KEYS, also=LATIN),
    sent("QUERY_STRING", "&", "=", "min_ttl=%00", "min_ttl=\xff", "a=1&" * 1001, "min_ttl=1;scope=", "?", also=QUERIES),
    sent("QUERY_STRING", "scope=orders.read", "min_ttl=60&authorization_server=orders", also=LATIN | QUERIES),
    sent("QUERY_STRING", "session=1", "session=2", "session=", "session=01", "session=1.0", "session=1&session=1"),
    sent("HTTP_X_PURPOSE", *PURPOSES, also=LATIN),
    sent("CONTENT_TYPE", *TYPES, also=LATIN),
    sent("CONTENT_LENGTH", "2", "-1", "x", ""),
    sent("wsgi.url_scheme", "http", "HTTPS", ""),
    OF_EVERY_REQUEST,
    sent("SCRIPT_NAME", "/prefix", "/static", "/"),
    sent("REDIRECT_URL", "/x"),
    sent("SCRIPT_URL", f"/x/api/v1/conversations/{CHAT}/token"),
)
SCOPES: Final = [
    "",
    "orders.read",
    "orders.read orders.write",
    "profile",
    "  orders.read\torders.write ",
    "ORDERS.READ",
]
KEY_SCOPES: Final = [
    *([], ["token:read"], ["TOKEN:READ"], ["x\"token:read\"y"], ["challenge:read"], {"token:read": 1}, "token:read"),
    *([["token:read"]], None, ["token:read", "\u00e9"], 5),
]  # fmt: skip
ENDED: Final = {"ended_at": timedelta(0), "end_reason": "rejected"}
ROWS: Final[st.SearchStrategy[tuple[Any, Changes]]] = st.one_of(
    stored(BotKey, "expires_at", also=TIMES),
    stored(BotKey, "revoked_at", None, also=TIMES),
    stored(BotKey, "last_used_at", None, also=TIMES),
    stored(BotKey, "scopes", *KEY_SCOPES).filter(lambda pair: pair[1]["scopes"] is not None),
    stored(BotKey, "digest", b"", b"x" * 40, also=st.binary(max_size=60)),
    stored(Brand, "is_active", False),
    stored(Brand, "token_read_purpose_required", True),
    stored(AuthorizationServer, "is_active", False),
    stored(AuthorizationServer, "key", "loyalty"),
    stored(Conversation, "closed_at", None, also=TIMES),
    stored(Conversation, "session", 2, 2**31 - 1),
    stored(Brand, "conversation_ids", "reused"),
    stored(Challenge, "scope", *SCOPES),
    stored(Challenge, "purpose", "to see your orders", "\u2028\u00e9\U0001f600", "see /c/AbCdEfGhIjKlMnOpQrStUvWxY01"),
    stored(AccessToken, "scope", *SCOPES),
    # The database refuses another type with a key, which the change below may have set.
    stored(AccessToken, "token_type", "bearer", "Bear\u00e9r").map(
        lambda row: (row[0], row[1] | {"dpop_key_ciphertext": None})
    ),
    st.just((AccessToken, {"token_type": "DPoP", "dpop_key_ciphertext": b"\x01"})),
    stored(AccessToken, "assurance", "none"),
    stored(AccessToken, "matched_claims", "phone_number email"),
    stored(AccessToken, "acr", "urn:acme:loa:2"),
    stored(AccessToken, "amr", "pwd otp"),
    stored(AccessToken, "auth_time", None, also=TIMES),
    stored(AccessToken, "lifetime_assumed", True),
    stored(AccessToken, "issued_at", also=TIMES),
    stored(AccessToken, "expires_at", also=TIMES),
    stored(AccessToken, "confirmed_at", None, also=TIMES),
    st.just((AccessToken, ENDED)),
    stored(AccessToken, "ciphertext", None, b"", b"\x01", also=st.binary(max_size=60)),
    stored(AccessToken, "response_members_ciphertext", None, b"", b"\x01", also=st.binary(max_size=60)),
)


@pytest.fixture
def keys(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, rival: Brand) -> dict[str, str]:
    """Return the keys by their names in `KEYS`. In acme-bot's chat a token can be read, with a member of its answer."""
    AuthorizationServer.objects.update(token_response_members=["patient"])
    acme_login.further_members = {"patient": "ada\u00e9"}
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    make_server(rival)
    brand = Brand.objects.get(slug="acme")
    return {KEY: acme_bot.key, OTHER_KEY: make_bot(brand, "challenge:read").key, RIVALS_KEY: make_bot(rival).key}


@fuzzed(
    150, 20_000, changes=st.lists(REQUESTS, max_size=3), rows=st.lists(ROWS, max_size=2), later=TIMES,
    is_proxied=st.booleans(),
)  # fmt: skip
def test_any_request_of_any_row_at_any_moment(
    keys: dict[str, str],
    answered_fast: list[int],
    monkeypatch: pytest.MonkeyPatch,
    changes: list[Changes],
    rows: list[tuple[Any, Changes]],
    later: timedelta,
    is_proxied: bool,
) -> None:
    proxy = override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https") if is_proxied else None)
    token = AccessToken.objects.get()
    with proxy, rolled_back(), time_machine.travel(token.issued_at + max(later, timedelta(0)), tick=False):
        for model, columns in rows:
            model.objects.update(**{name: at_moment(value, token.expires_at) for name, value in columns.items()})
        same_on_both_ways(environ_of(changes, keys, READ), answered_fast, monkeypatch)
