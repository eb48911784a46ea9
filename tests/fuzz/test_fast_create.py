"""The fast path of a chat's first challenge and the full way give the same answer and log lines, and store the same.

G3, G8, A5, K1, B16: requests of every kind, rows in every state, clocks at every edge.
"""

from datetime import timedelta
from typing import Any, Final

import pytest
import time_machine
from django.conf import settings as site
from django.db import connection
from django.test import override_settings
from django.utils import timezone
from hypothesis import strategies as st

from brands.models import AuthorizationServer, BotKey, Brand, WebhookEndpoint
from conversations.flow.challenges import WantedChallenge, issue_challenge
from conversations.models import Challenge, Conversation, IdempotencyKey
from infrastructure.models import AuditEvent, RateCounter
from tests.cast import CHAT, make_bot, make_server
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

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(900)]

OF_CHATS: Final = "/api/v1/conversations"
CHATS: Final = ["web:new", "known", CHAT.upper(), f"{CHAT}/", f"{CHAT}\n", ".", "..", "", "a" * 201, "\xc3\xa9", "a b"]
TEXTS: Final = st.sampled_from(["", "orders", "loyalty", "orders.read", "openid", "x", "a" * 141])
CLAIMS: Final = st.sampled_from(
    [
        *({"email": "Ada@ACME.example"}, {"phone_number": "+49 151 12345678"}, {"email": "x"}, {}, None),
        {"email": "ada@acme.example", "phone_number": "4915112345678"},
    ]
)
MEMBERS: Final = st.fixed_dictionaries(
    {},
    optional={
        "authorization_server": st.sampled_from(["", "orders", "loyalty", "x"]),
        "same_person_check": st.sampled_from(["", "completion_code", "none", "expected_subject", "x"]),
        "expected_subject": st.sampled_from(["ada", "\u00e9", "", None]),
        "expected_claims": CLAIMS,
        "scope": st.sampled_from(["", "orders.read", "orders.read orders.write", "openid", "  orders.read ", "x"]),
        "purpose": TEXTS | st.sampled_from([{"en": "to see", "de-AT": "zu sehen"}, {}, {"x y": "a"}, "a\u2028b", "\0"]),
        "locale": st.sampled_from(["", "de", "de-AT", "iw", "pt-BR", "xx", "DE", "not a locale"]),
        "context": st.sampled_from([None, "", "order 4711", "\ud800", "\u00e9\0"]),
        "replace": st.booleans(),
        "session": st.sampled_from([1, 1.0, 2, 0, "1", None]),
        "x": st.just(1),
    },
)


RAW: Final = st.sampled_from([b"", b"{", b"[]", b"null", b"\xff", b"{}" + b" " * 17_000, b'{"session": 1e400}'])
TYPES: Final = ["application/json; charset=utf-8", "application/json; charset=utf-16", "text/plain", "", ABSENT]
IDEMPOTENCY_KEYS: Final = ["a", '"a"', "used", '"used"', "", '"', "a b", "a" * 256, "\xe9"]
REQUESTS: Final[st.SearchStrategy[Changes]] = st.one_of(
    MEMBERS.map(lambda members: with_body(as_json(members))),
    MEMBERS.map(lambda members: with_body(as_json(members))),
    st.dictionaries(st.sampled_from(["purpose", "scope", "context", "locale"]), JSON_VALUES, max_size=2).map(
        lambda members: with_body(as_json(members))
    ),
    RAW.map(with_body),
    sent("REQUEST_METHOD", "GET", "post", "PUT", "HEAD"),
    sent(
        "PATH_INFO",
        *(f"{OF_CHATS}/{chat}/challenges" for chat in CHATS),
        *(f"{OF_CHATS}/{CHAT}/{end}" for end in ("challenges/", "CHALLENGES", "challenges\n", "authorize")),
        also=LATIN.map(lambda chat: f"{OF_CHATS}/{chat}/challenges"),
    ),
    sent("HTTP_HOST", *HOSTS),
    sent("HTTP_AUTHORIZATION", *KEYS),
    sent("HTTP_IDEMPOTENCY_KEY", *IDEMPOTENCY_KEYS),
    sent("QUERY_STRING", "&", "x=1", "session=1", "x=%00"),
    sent("CONTENT_TYPE", *TYPES),
    sent("CONTENT_LENGTH", "1", "0", "-1", "x", "02", "", "70000", ABSENT),
    sent("wsgi.url_scheme", "http"),
    sent("SCRIPT_NAME", "/prefix"),
    OF_EVERY_REQUEST,
)
CHECKS: Final[list[Any]] = [
    ["completion_code"],
    ["none"],
    ["expected_subject"],
    ["none", "completion_code"],
    [],
    {},
    "none",
]
ROWS: Final[st.SearchStrategy[tuple[Any, Changes]]] = st.one_of(
    stored(BotKey, "expires_at", also=TIMES),
    stored(BotKey, "revoked_at", also=TIMES),
    stored(BotKey, "last_used_at", None, also=TIMES),
    stored(BotKey, "scopes", [], ["challenge:create"], {"challenge:create": 1}, "challenge:create", ["CHALLENGE"]),
    stored(BotKey, "same_person_checks", *CHECKS),
    stored(BotKey, "digest", b"", b"x" * 40),
    stored(Brand, "is_active", False),
    stored(Brand, "name", "Caf\u00e9 \u2028%s%(url)s", "a" * 80),
    stored(Brand, "conversation_ids", "reused"),
    stored(AuthorizationServer, "is_active", False),
    stored(AuthorizationServer, "key", "loyalty"),
    stored(AuthorizationServer, "scope", "", "openid orders.read", "orders.read  orders.write"),
    stored(AuthorizationServer, "required_scope", "orders.read", "orders.write"),
    stored(AuthorizationServer, "same_person_checks", *CHECKS),
    stored(AuthorizationServer, "challenge_lifetime", 1, 86_400),
    stored(AuthorizationServer, "dpop_bound_access_tokens", True),
    stored(WebhookEndpoint, "is_active", True),
    stored(Conversation, "closed_at", also=TIMES),
    stored(Conversation, "external_id", CHAT),
)


@pytest.fixture
def keys(acme: Brand, acme_server: AuthorizationServer, rival: Brand) -> dict[str, str]:
    """Return the keys by their names in `KEYS`. Acme has an inactive webhook endpoint, and a chat that is known."""
    make_server(rival)
    bot = make_bot(acme, chat="known")
    with override_settings(ENCRYPTION_KEYS=site.ENCRYPTION_KEYS.partition(",")[0]):
        assert bot.send("POST", "/conversations/known/challenges", {}, **{"Idempotency-Key": "used"}).status_code == 201
    # Both ways compile their statements before anything is compared, since that draws random bytes.
    issue_challenge(acme, "known-too", WantedChallenge(server=acme_server), actor="bot:x", now=timezone.now())
    Conversation.objects.filter(external_id="known-too").delete()
    WebhookEndpoint.objects.create(
        brand=acme, url="https://bots.acme.example/", secret_ciphertext=b"x", events=["*"], is_active=False
    )
    other = make_bot(acme, BotKey.Scope.CHALLENGE_READ)
    return {KEY: bot.key, OTHER_KEY: other.key, RIVALS_KEY: make_bot(rival).key}


@fuzzed(
    150, 10_000, changes=st.lists(REQUESTS, max_size=3), rows=st.lists(ROWS, max_size=2), later=TIMES,
    has_second_server=st.integers(0, 4).map(lambda number: not number), has_one_key=st.booleans(),
)  # fmt: skip
def test_any_new_challenge_of_any_row_at_any_moment(
    keys: dict[str, str],
    dice: dict[int, Any],
    acme: Brand,
    answered_fast: list[int],
    monkeypatch: pytest.MonkeyPatch,
    changes: list[Changes],
    rows: list[tuple[Any, Changes]],
    later: timedelta,
    has_second_server: bool,
    has_one_key: bool,
) -> None:
    known, told_before = Challenge.objects.get(), len(connection.run_on_commit)

    def look() -> list[Any]:
        dice.clear()
        for _, told, *_ in connection.run_on_commit[told_before:]:
            told()
        return [
            list(RateCounter.objects.order_by("pk").values()),
            *(_without_numbers(model) for model in (Conversation, Challenge, IdempotencyKey, AuditEvent)),
        ]

    own = {"REQUEST_METHOD": "POST", "PATH_INFO": f"{OF_CHATS}/{CHAT}/challenges", "CONTENT_TYPE": "application/json"}
    ring = site.ENCRYPTION_KEYS.partition(",")[0] if has_one_key else site.ENCRYPTION_KEYS
    with (
        override_settings(ENCRYPTION_KEYS=ring),
        rolled_back(),
        time_machine.travel(known.issued_at + max(later, timedelta(0)), tick=False),
    ):
        if has_second_server:
            make_server(acme, "second")
        for model, columns in rows:
            changed = model.objects.exclude(key="second") if model is AuthorizationServer else model.objects
            changed.update(**{name: at_moment(value, known.issued_at) for name, value in columns.items()})
        dice.clear()
        environ = environ_of(changes, keys, own | with_body(as_json({"purpose": "to see your orders"})))
        same_on_both_ways(environ, answered_fast, monkeypatch, look)


def _without_numbers(model: Any) -> list[dict[str, Any]]:
    """Return the rows with UUIDs in place of numbers, which the database gives out once."""
    related = {"conversation": "conversation__uuid", "challenge": "challenge__uuid"}
    names = {field.name for field in model._meta.concrete_fields} - {"id"}
    columns = sorted(related.get(name, name) for name in names)
    rows = model.objects.order_by("pk").values(*columns)
    return [{name: bytes(v) if isinstance(v, memoryview) else v for name, v in row.items()} for row in rows]
