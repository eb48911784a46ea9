"""The fast path of a challenge's status and the full way give the same answer, headers, log lines, counts and rows.

G3, G4, G5, G8, K1, B16: requests of every kind, rows in every state, clocks at every edge, and changes during a wait.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest
import time_machine
from hypothesis import strategies as st

from brands.models import AuthorizationServer, BotKey, Brand
from conversations.api import fast_challenge_read, views, waiting
from conversations.models import Challenge, ChallengeStatus, Conversation
from infrastructure.models import RateCounter
from tests.cast import Bot, Browser, make_bot, make_server
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
from tests.fuzz.cases import ANY_TEXT, JSON_VALUES, fuzzed, is_storable, percent_encoded, rolled_back

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(900)]

CHALLENGES: Final = "/api/v1/challenges"
ID: Final = "the challenge's id"
TAG: Final = "the entity tag"
PATHS: Final = [
    *(f"{CHALLENGES}/{ID}{end}" for end in ("/", "\n", "x", "%20", "/token")),
    *(f"{CHALLENGES}/{other}" for other in ("", "x", "00000000-0000-4000-8000-000000000000", "{" + ID + "}")),
    *(f"/api/v1/conversations/{ID}/token", f"/API/v1/challenges/{ID}", f"/{CHALLENGES}/{ID}"),
]
TAGS: Final = [
    *(TAG, f"x, {TAG}", f'"x",{TAG}', TAG.removeprefix("W/"), f"{TAG} ", f"{TAG}x", "*", "x", "", "\xe9", ABSENT),
]
VALUES: Final = st.sampled_from(["", "0", "1", "2", "01", "25", "26", "025", "-1", "1.0", "x", "\u0663", "1&session=1"])
PARAMETERS: Final = st.sampled_from(["wait", "wait", "session", "Wait", "x", ""])
QUERIES: Final = st.lists(
    st.tuples(PARAMETERS, VALUES | ANY_TEXT.filter(lambda text: text.isprintable())), max_size=3
).map(lambda pairs: "&".join(f"{name}={percent_encoded(value)}" for name, value in pairs))
REQUESTS: Final[st.SearchStrategy[Changes]] = st.one_of(
    sent("REQUEST_METHOD", "get", "HEAD", "POST", "DELETE", "OPTIONS", "GET "),
    sent("PATH_INFO", *PATHS, also=LATIN.map(lambda text: f"{CHALLENGES}/{text}")),
    sent("HTTP_HOST", *HOSTS),
    sent("HTTP_AUTHORIZATION", *KEYS),
    sent("QUERY_STRING", "wait=25", "wait=1", "wait=0", "session=1&wait=3", "wait=1&wait=1", "&", also=QUERIES),
    sent("QUERY_STRING", "wait=%00", "wait=\xff", "wait=1;session=1", "session=2", "session=", also=QUERIES),
    sent("HTTP_IF_NONE_MATCH", *TAGS),
    sent("HTTP_IF_NONE_MATCH", *TAGS),
    sent("CONTENT_TYPE", "application/json", "text/plain", "", "a/b; charset=utf-16", "\xe9"),
    sent("CONTENT_LENGTH", "2", "-1", "x", ""),
    sent("wsgi.url_scheme", "http", ""),
    sent("SCRIPT_NAME", "/prefix"),
    OF_EVERY_REQUEST,
)
SCOPES: Final = [[], ["challenge:read"], {"challenge:read": 1}, "challenge:read", ["CHALLENGE:READ"], [["x"]], 5]
STORABLE: Final = JSON_VALUES.filter(is_storable)
BROKEN: Final = st.sampled_from([None, b"", b"\x01", b"x" * 40])
MOMENTS: Final = ("issued_at", "started_at", "confirmation_needed_at", "completed_at", "ended_at", "expires_at")
Rows = list[tuple[Any, Changes]]
ROWS: Final[st.SearchStrategy[tuple[Any, Changes]]] = st.one_of(
    stored(BotKey, "expires_at", None, also=TIMES),
    stored(BotKey, "revoked_at", None, also=TIMES),
    stored(BotKey, "last_used_at", None, also=TIMES),
    stored(BotKey, "scopes", *SCOPES),
    stored(BotKey, "digest", b"", b"x" * 40),
    stored(BotKey, "calls_per_minute", 1, 200),
    stored(Brand, "is_active", False),
    stored(Brand, "conversation_ids", "reused"),
    stored(AuthorizationServer, "is_active", False),
    stored(AuthorizationServer, "key", "loyalty"),
    stored(Conversation, "closed_at", None, also=TIMES),
    stored(Conversation, "session", 2, 2**31 - 1),
    stored(Conversation, "external_id", "web:\u2028\u00e9"),
    stored(Challenge, "status", *ChallengeStatus.values),
    stored(Challenge, "error", "subject_mismatch", "x"),
    stored(Challenge, "last_error", "access_denied", "\u00e9"),
    stored(Challenge, "same_person_check", "none", "expected_subject"),
    stored(Challenge, "scope", "", "orders.read", "a" * 900),
    stored(Challenge, "acr_values", "urn:acme:loa:2"),
    stored(Challenge, "max_age", 0, 2**31 - 1),
    stored(Challenge, "purpose", "", "\u2028\u00e9\U0001f600"),
    stored(Challenge, "purpose_by_locale", {}, {"pt-BR": "\u00e9\U0001f600", "en": "b", "de": ""}, also=STORABLE),
    stored(Challenge, "locale", "", "de-AT"),
    BROKEN.map(lambda value: (Challenge, {"context_ciphertext": value})),
    st.sampled_from(MOMENTS).flatmap(lambda name: stored(Challenge, name, also=TIMES)),
)


@pytest.fixture
def keys(acme_bot: Bot, acme_server: AuthorizationServer, ada: Browser, acme: Brand, rival: Brand) -> dict[str, str]:
    """Return the keys by their names in `KEYS`. In acme-bot's chat a sign-in has begun."""
    make_server(rival)
    ada.begin(acme_bot.challenge(context="resume \u00e9", purpose="to see your orders", locale="de")["url"])
    other = make_bot(acme, BotKey.Scope.TOKEN_READ)
    return {KEY: acme_bot.key, OTHER_KEY: other.key, RIVALS_KEY: make_bot(rival).key}


@pytest.fixture
def tag(keys: dict[str, str], acme_bot: Bot) -> str:
    return str(acme_bot.send("GET", f"/challenges/{Challenge.objects.get().uuid}")["ETag"])


def stored_now(rows: Rows, start: Any) -> None:
    for model, columns in rows:
        model.objects.update(**{name: at_moment(value, start) for name, value in columns.items()})


@pytest.fixture
def when_waiting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Return what says how both ways wait. `waiting` itself has tests of its own, with threads."""
    monkeypatch.setattr(waiting, "_RETRY_AFTER", (2, 2))

    def set_wait(wait: Any) -> None:
        for module in (fast_challenge_read, views):
            monkeypatch.setattr(module, "wait_for_change", wait)

    return set_wait


@fuzzed(
    150, 10_000, changes=st.lists(REQUESTS, max_size=3), rows=st.lists(ROWS, max_size=2), later=TIMES,
    meanwhile=st.none() | st.lists(ROWS, max_size=2),
)  # fmt: skip
def test_any_read_of_any_row_at_any_moment(
    keys: dict[str, str],
    tag: str,
    when_waiting: Callable[[Any], None],
    answered_fast: list[int],
    monkeypatch: pytest.MonkeyPatch,
    changes: list[Changes],
    rows: Rows,
    later: timedelta,
    meanwhile: Rows | None,
) -> None:
    challenge = Challenge.objects.get()
    own = {"REQUEST_METHOD": "GET", "PATH_INFO": f"{CHALLENGES}/{ID}", "QUERY_STRING": "wait=1"}
    environ = {
        name: value.replace(ID, str(challenge.uuid)).replace(TAG, tag) if isinstance(value, str) else value
        for name, value in environ_of(changes, keys, own).items()
    }
    start = challenge.issued_at + max(later, timedelta(0))
    with rolled_back(), time_machine.travel(start, tick=False) as clock:

        def wait_for_change(watched: Any, brand_pk: int, seconds: int) -> bool:
            waits.append((watched.pk, watched.status, watched.last_error, watched.expires_at, brand_pk, seconds))
            clock.shift(seconds)
            stored_now(meanwhile or [], challenge.expires_at)
            return meanwhile is not None

        def look() -> list[Any]:
            clock.move_to(start, tick=False)
            seen = [*waits, *RateCounter.objects.order_by("pk").values_list("key", "times")]
            waits.clear()
            return seen

        waits: list[Any] = []
        when_waiting(wait_for_change)
        stored_now(rows, challenge.expires_at)
        same_on_both_ways(environ, answered_fast, monkeypatch, look)
