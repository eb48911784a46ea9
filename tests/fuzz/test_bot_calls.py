"""Whatever a bot sends: an answer that the contract promises (tests/contract.py), never a fault of ours.

G7: bodies, queries, ids and keys of every kind; a refused call leaves no trace.
"""

from typing import Any, Final

import pytest
from hypothesis import strategies as st

from brands.models import AuthorizationServer
from tests import contract
from tests.cast import Bot, Browser
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.fuzz.cases import (
    ANY_TEXT,
    BROKEN_TEXT,
    DEEP_JSON,
    JSON_VALUES,
    LONG_TEXT,
    as_json,
    fuzzed,
    percent_encoded,
    rolled_back,
    send,
    stored_rows,
)

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(900)]

FIELDS: Final = [
    "authorization_server", "same_person_check", "expected_subject", "expected_claims", "scope", "purpose", "locale",
    "context", "replace", "min_ttl", "code", "handle", "unknown",
]  # fmt: skip
PLAUSIBLE: Final = st.sampled_from(
    [
        "orders",
        "completion_code",
        "expected_subject",
        "none",
        "orders.read",
        "de",
        "123456",
        "\u0661" * 6,
        True,
        60,
        {"phone_number": "+44 7700 900123"},
        {"email": "ada@\u017fhop.example"},
    ]
)
OBJECTS: Final = st.dictionaries(st.sampled_from(FIELDS), PLAUSIBLE | JSON_VALUES, max_size=3).map(as_json)
BODIES: Final = OBJECTS | JSON_VALUES.map(as_json) | DEEP_JSON | st.binary(max_size=100) | st.just(b"")
CALLS: Final = st.sampled_from(["/challenges", "/completion", "/authorize", "/token", ""])
METHODS: Final = st.sampled_from(["POST", "GET", "DELETE", "PUT", "PATCH"])
CONTENT_TYPES: Final = st.sampled_from(["application/json", "application/json; charset=utf-16", "text/plain", "x", ""])
RAW_QUERIES: Final = st.text(
    alphabet=st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="#"), max_size=40
)
QUERIES: Final = RAW_QUERIES | st.tuples(
    st.sampled_from(["authorization_server", "min_ttl", "reason", "wait"]), BROKEN_TEXT | LONG_TEXT | PLAUSIBLE.map(str)
).map(lambda pair: f"{pair[0]}={percent_encoded(pair[1])}")


def call(bot: Bot, method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> None:
    """Call the API, and hold the answer against the contract."""
    with rolled_back():
        before = stored_rows()
        answer = send(method, f"/api/v1{path}", body, content_type, HTTP_AUTHORIZATION=f"Bearer {bot.key}")
        contract.check(method, path, answer)
        assert answer.status_code < 500, answer.content
        # The rows looked at hold no count of wrong codes, the one thing that a refusal writes down here.
        if answer.status_code >= 400:
            assert stored_rows() == before


@pytest.fixture
def waiting_bot(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> Bot:
    """Return a bot in whose chat a token waits for its code."""
    AuthorizationServer.objects.update(same_person_checks=["completion_code", "chat_page"])
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    return acme_bot


@fuzzed(150, 7_000, what=CALLS, method=METHODS, body=BODIES, content_type=CONTENT_TYPES)
def test_any_body(waiting_bot: Bot, what: str, method: str, body: bytes, content_type: str) -> None:
    call(waiting_bot, method, f"/conversations/{waiting_bot.chat}{what}", body, content_type)


@fuzzed(60, 4_000, what=CALLS, body=OBJECTS)
def test_any_field_in_a_new_conversation(waiting_bot: Bot, what: str, body: bytes) -> None:
    call(waiting_bot, "POST", f"/conversations/new{what}", body)


@fuzzed(60, 5_000, what=CALLS, method=METHODS, conversation_id=ANY_TEXT | BROKEN_TEXT | LONG_TEXT)
def test_any_conversation_id(waiting_bot: Bot, what: str, method: str, conversation_id: str) -> None:
    call(waiting_bot, method, f"/conversations/{percent_encoded(conversation_id[:2000])}{what}")


@fuzzed(30, 2_000, method=METHODS, challenge_id=BROKEN_TEXT | st.uuids().map(str))
def test_any_challenge_id(waiting_bot: Bot, method: str, challenge_id: str) -> None:
    call(waiting_bot, method, f"/challenges/{percent_encoded(challenge_id)}")


@fuzzed(60, 4_000, what=CALLS, method=st.sampled_from(["GET", "DELETE"]), query=QUERIES)
def test_any_query(waiting_bot: Bot, what: str, method: str, query: str) -> None:
    call(waiting_bot, method, f"/conversations/{waiting_bot.chat}{what}?{query}")


@fuzzed(40, 2_000, header=st.text(alphabet=st.characters(max_codepoint=0xFF, exclude_characters="\r\n"), max_size=120))
def test_any_authorization_header(waiting_bot: Bot, header: str) -> None:
    """G1."""
    variants: list[Any] = [header, f"Bearer {header}", f"Bearer {waiting_bot.key[:30]}{header}"]
    for variant in variants:
        with rolled_back():
            answer = send("GET", f"/api/v1/conversations/{waiting_bot.chat}", HTTP_AUTHORIZATION=variant)
            assert (answer.status_code, answer.json()["code"]) == (401, "invalid_bot_key")
