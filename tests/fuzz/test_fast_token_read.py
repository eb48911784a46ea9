"""The fast path of a token read and the full way give the same answer, headers, log lines, counts and rows.

G3, G6, B16, H6: requests of every kind, rows in every state, clocks at every edge.
"""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any, Final

import pytest
import time_machine
from django.test import override_settings
from hypothesis import strategies as st

from brands.models import AuthorizationServer, BotKey, Brand
from conversations.api import before_django
from conversations.flow import read_counts
from conversations.models import AccessToken, Challenge, Conversation
from infrastructure import rate_limits
from infrastructure.logs import LineFormatter
from tests.cast import CHAT, HOST, Bot, Browser, code_on, make_bot, make_server
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.fuzz.cases import ANY_TEXT, fuzzed, percent_encoded, rolled_back
from tests.handler import Handler

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(900)]

HANDLER: Final = Handler()
ABSENT: Final = None
LATIN: Final = st.text(alphabet=st.characters(max_codepoint=255), max_size=30)
KEY: Final = "the bot's key"
OTHER_KEY: Final = "a key of the same brand without token:read"
RIVALS_KEY: Final = "a key of another brand"

Changes = dict[str, Any]


def sent(name: str, *values: str | None, also: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Changes]:
    """Strategy for one WSGI variable: one of these values, or of the other strategy."""
    chosen: st.SearchStrategy[str | None] = st.sampled_from(values) if values else st.nothing()
    return (chosen if also is None else chosen | also).map(lambda value: {name: value})


PATHS: Final = [
    *("/api/v1/conversations//token", "/api/v1/conversations/x/token", f"/API/v1/conversations/{CHAT}/token"),
    *(f"/api/v1/conversations/{CHAT}/{end}" for end in ("token/", "TOKEN", "token\n", "token%20", "/token", "")),
    *(f"/api/v1/conversations/{chat}/token" for chat in (CHAT.upper(), f"{CHAT}/", f"{CHAT}\n", "c", "\xc3\xa9")),
    *(f"//api/v1/conversations/{CHAT}/token", f"/static/../api/v1/conversations/{CHAT}/token", "", "/", "*"),
]  # fmt: skip
HOSTS: Final = [
    *(f"{HOST}{end}" for end in (":443", ":", ".", "..", "/", "\n", f",{HOST}")),
    *(f"{start}{HOST}" for start in (".", "a.", "a@", " ")),
    *(HOST.upper(), ABSENT, "", "*", "elsewhere.example", "bad host", "[::1]", "127.0.0.1"),
]  # fmt: skip
KEYS: Final = [
    *(f"{start}{KEY}" for start in ("bearer ", "BEARER ", "Bearer  ", "Bearer\t", "Basic ", "Bearer,", "", " Bearer ")),
    *(f"Bearer {KEY}{end}" for end in (" ", "\n", "\xa0", "x", ", Bearer x", "\0")),
    *(f"Bearer {OTHER_KEY}", f"Bearer {RIVALS_KEY}", ABSENT, "", "Bearer", "Bearer cdk_x", f"Bearer {KEY.upper()}"),
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
    sent("HTTP_X_FORWARDED_PROTO", "https", "http", "HTTPS", "https, http", "http, https", " https ", ""),
    sent("HTTP_COOKIE", "a=b", "a=\\000", "a=%00", "a=\0", "__Host-session=x"),
    sent("HTTP_IF_NONE_MATCH", "*", '"x"', 'W/"x", "y"'),
    sent("HTTP_IF_MODIFIED_SINCE", "Thu, 01 Jan 2099 00:00:00 GMT"),
    sent("HTTP_RANGE", "bytes=0-1"),
    sent("HTTP_ACCEPT", "text/html"),
    sent("HTTP_ACCEPT_LANGUAGE", "de"),
    sent("HTTP_X_FORWARDED_HOST", "elsewhere.example"),
    sent("HTTP_X_REQUEST_ID", "chosen-by-the-client"),
    sent("HTTP_TRANSFER_ENCODING", "chunked"),
    sent("SCRIPT_NAME", "/prefix", "/static", "/"),
    sent("REDIRECT_URL", "/x"),
    sent("SCRIPT_URL", f"/x/api/v1/conversations/{CHAT}/token"),
)
# Read counts begin a new hour, a key's use is noted each minute, a token and a key expire; to the microsecond.
MOMENTS: Final = st.sampled_from([0, 59, 60, 1800, 3599, 3600, 3601, 86_400, -60, -3600]).flatmap(
    lambda seconds: st.sampled_from([-1, -0.000001, 0, 0.000001, 0.5]).map(
        lambda fraction: timedelta(seconds=seconds + fraction)
    )
)
TIMES: Final = MOMENTS | st.timedeltas(timedelta(days=-2), timedelta(days=2))


def stored(model: Any, name: str, *values: Any, also: Any = None) -> st.SearchStrategy[tuple[Any, Changes]]:
    """Strategy for one column of every row of a model. A `timedelta` is added to the start."""
    chosen = st.sampled_from(values) if values else st.nothing()
    return (chosen if also is None else chosen | also).map(lambda value: (model, {name: value}))


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


class Collected(logging.Handler):
    """Keeps the lines that are written, without their moment and request id."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(LineFormatter("%(levelname)s %(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        record.exc_info, record.exc_text = None, None
        record.__dict__.pop("request", None)
        record.created, record.msecs, record.request_id = 0, 0, ""
        self.lines.append(self.format(record))


@pytest.fixture
def keys(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, rival: Brand) -> dict[str, str]:
    """Return the keys by their names in `KEYS`. In acme-bot's chat a token can be read, with a member of its answer."""
    AuthorizationServer.objects.update(token_response_members=["patient"])
    acme_login.further_members = {"patient": "ada\u00e9"}
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    make_server(rival)
    brand = Brand.objects.get(slug="acme")
    return {KEY: acme_bot.key, OTHER_KEY: make_bot(brand, "challenge:read").key, RIVALS_KEY: make_bot(rival).key}


@pytest.fixture
def answered_fast() -> Iterator[list[int]]:
    """Collect what the fast path answered. A test that it never answers proves nothing."""
    found: list[int] = []
    yield found
    assert len(found) > 10


def environ_of(changes: list[Changes], keys: dict[str, str]) -> dict[str, Any]:
    environ = {
        "REQUEST_METHOD": "GET",
        "SERVER_NAME": HOST,
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "https",
        "wsgi.input": BytesIO(b"{}"),
        "REMOTE_ADDR": "127.0.0.1",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "HTTP_HOST": HOST,
        "PATH_INFO": f"/api/v1/conversations/{CHAT}/token",
        "HTTP_AUTHORIZATION": f"Bearer {KEY}",
    }
    for change in changes:
        environ |= change
    for name, key in keys.items():
        if isinstance(environ["HTTP_AUTHORIZATION"], str):
            environ["HTTP_AUTHORIZATION"] = environ["HTTP_AUTHORIZATION"].replace(name, key)
    return {name: value for name, value in environ.items() if value is not ABSENT}


def outcome(way: Any, environ: dict[str, Any]) -> dict[str, Any]:
    """Answer on one way, from the same rows and counts. Return everything that can be seen of it."""
    collected = Collected()
    read_counts.reset_in_process()
    logging.disable(logging.NOTSET)
    logging.getLogger().addHandler(collected)
    try:
        with rolled_back():
            answer = way(dict(environ))
            seen = list(BotKey.objects.order_by("pk").values_list("last_used_at", "digest"))
    finally:
        logging.getLogger().removeHandler(collected)
        logging.disable()
    headers = dict(answer.items())
    assert len(headers.pop("X-Request-Id")) == 32
    return {
        "status": answer.status_code,
        "headers": headers,
        "cookies": answer.cookies.output(),
        "body": answer.content if answer.status_code < 400 else answer.content[:40],  # it names the request's id
        "log": collected.lines,
        "keys": [(moment, bytes(digest)) for moment, digest in seen],
        "counts": dict(read_counts._pending._counts),
        "limits": dict(rate_limits._memory._counters),
    }


def same_on_both_ways(environ: dict[str, Any], answered_fast: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    full = outcome(HANDLER.django, environ)
    found: list[Any] = []
    real = before_django._answer

    def watched(*given: Any) -> Any:
        found.append(real(*given))
        return found[-1]

    with monkeypatch.context() as patched:
        patched.setattr(before_django, "_answer", watched)
        assert outcome(HANDLER.behind_fast_path, environ) == full
    if any(found):
        assert full["status"] == 200
        answered_fast.append(1)


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
            model.objects.update(**{name: _moment(value, token.expires_at) for name, value in columns.items()})
        same_on_both_ways(environ_of(changes, keys), answered_fast, monkeypatch)


def _moment(value: Any, start: datetime) -> Any:
    return start + value if isinstance(value, timedelta) else value
