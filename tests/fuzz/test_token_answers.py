"""Whatever a token endpoint answers: a token response by our rules, or a refusal with one of our codes. No third thing.

E1 to E16, H8: bytes, JSON of every type in every member, and headers. ID tokens: tests/fuzz/test_id_tokens.py.
"""

import string
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import pytest
from django.utils import timezone
from hypothesis import strategies as st

from infrastructure.crypto import Secret
from oauth_client import AuthorizationServerError, ClientCredentials, ErrorCode, TokenResponse, exchange_code
from tests.fake_authorization_server import PLANTED_REFRESH_TOKEN, PLANTED_SECRET, FakeAuthorizationServer, mounted
from tests.fuzz.cases import ANY_TEXT, DEEP_JSON, JSON_VALUES, as_json, fuzzed

pytestmark = pytest.mark.timeout(900)

CODE, VERIFIER = "planted-code", "planted-verifier"
NOT_OF_AN_ANSWER: Final = {ErrorCode.INTERNAL_ERROR, ErrorCode.ACCESS_DENIED, ErrorCode.STORED_SECRET_UNREADABLE}
GOOD: Final[dict[str, Any]] = {
    "access_token": "good-access-token",
    "token_type": "Bearer",
    "expires_in": 3600,
    "scope": "orders.read",
    "refresh_token": PLANTED_REFRESH_TOKEN,
    "id_token": "a.b.c",
}
CONFIGURATIONS: Final = st.fixed_dictionaries(
    {},
    optional={
        "scope": st.sampled_from(["", "openid", "openid orders.read", "orders.read,profile"]),
        "required_scope": st.sampled_from(["", "orders.read"]),
        "scope_separator": st.sampled_from(["space", "comma", "comma_in_response"]),
        "accept_form_encoded_tokens": st.booleans(),
        "accept_missing_token_type": st.booleans(),
        "accepted_token_type": st.sampled_from(["", "BearerToken"]),
        "accept_zero_expires_in": st.booleans(),
        "dpop_bound_access_tokens": st.booleans(),
        "default_token_lifetime": st.integers(1, 3600),
        "max_token_lifetime": st.integers(1, 7 * 86400),
    },
)
CONTENT_TYPES: Final = st.sampled_from(
    ["application/json", "application/json; charset=utf-8", "application/x-www-form-urlencoded", "text/html", ""]
)
MEMBERS: Final = st.sampled_from([*GOOD, "error", "error_description", "expires_at"])
BODIES: Final = (
    st.binary(max_size=200)
    | DEEP_JSON
    | st.builds(as_json, JSON_VALUES)
    | st.builds(lambda text: text.encode("utf-16"), ANY_TEXT)
    | st.builds(lambda digits: b'{"access_token": "a", "expires_in": ' + b"9" * digits + b"}", st.integers(1, 5000))
)
HEADER_TEXT: Final = st.text(alphabet=st.characters(max_codepoint=0xFF), max_size=40)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeAuthorizationServer]:
    with mounted(FakeAuthorizationServer(openid=True)) as server:
        yield server


def check_exchange(
    server: FakeAuthorizationServer, answer: tuple[int, dict[str, str], bytes], changes: dict[str, Any]
) -> None:
    """Exchange a code for this answer; fail where the outcome is not one of the two that are promised."""
    server.next_token_answer = answer
    server.token_requests.clear()
    try:
        granted = exchange_code(
            server.configuration(**changes),
            code=Secret(CODE),
            code_verifier=Secret(VERIFIER),
            credentials=ClientCredentials(Secret(PLANTED_SECRET)),
        )
    except AuthorizationServerError as refused:
        check_refusal(refused)
    else:
        check_granted(granted)
    assert len(server.token_requests) == 1


def check_refusal(refused: AuthorizationServerError) -> None:
    assert isinstance(refused.error, ErrorCode)
    assert refused.error not in NOT_OF_AN_ANSWER
    assert len(refused.detail) <= 200
    assert refused.detail.isprintable()
    assert not any(secret in str(refused) for secret in (CODE, VERIFIER, PLANTED_SECRET, PLANTED_REFRESH_TOKEN))


def check_granted(granted: TokenResponse) -> None:
    token = granted.access_token.reveal()
    assert 1 <= len(token) <= 16_384
    assert set(token) <= set(string.printable) - set(string.whitespace)
    assert granted.token_type == "Bearer"
    assert granted.scope.isascii()
    assert timezone.now() < granted.expires_at <= timezone.now() + timedelta(days=7)
    assert PLANTED_REFRESH_TOKEN not in repr(granted)


@fuzzed(100, 12_000, body=BODIES, content_type=CONTENT_TYPES, changes=CONFIGURATIONS)
def test_any_bytes(server: FakeAuthorizationServer, body: bytes, content_type: str, changes: dict[str, Any]) -> None:
    """E3, E4, E5."""
    check_exchange(server, (200, {"Content-Type": content_type}, body), changes)


@fuzzed(200, 25_000, members=st.dictionaries(MEMBERS, JSON_VALUES | st.just(...), max_size=3), changes=CONFIGURATIONS)
def test_any_value_in_any_member(
    server: FakeAuthorizationServer, members: dict[str, Any], changes: dict[str, Any]
) -> None:
    """E2, E6 to E16: a good answer, some members of which are anything, or missing."""
    answer = {name: value for name, value in {**GOOD, **members}.items() if value is not ...}
    check_exchange(server, (200, {"Content-Type": "application/json"}, as_json(answer)), changes)


@fuzzed(
    60,
    10_000,
    status=st.integers(100, 999),
    headers=st.dictionaries(
        st.sampled_from(["Content-Type", "Content-Length", "Content-Encoding", "Location", "Retry-After"]), HEADER_TEXT
    ),
    body=st.just(as_json(GOOD)) | st.just(as_json({"error": "invalid_grant"})) | BODIES,
    changes=CONFIGURATIONS,
)
def test_any_status_and_any_header(
    server: FakeAuthorizationServer, status: int, headers: dict[str, str], body: bytes, changes: dict[str, Any]
) -> None:
    """E1, N4."""
    check_exchange(server, (status, headers, body), changes)
