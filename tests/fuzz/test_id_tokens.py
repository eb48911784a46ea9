"""Whatever an ID token says: claims that can be kept, or a refusal with one of our codes (E16, E17, A6)."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any, Final
from unittest import mock

import jwt
import pytest
from hypothesis import strategies as st

from infrastructure.crypto import Secret
from oauth_client import AuthorizationServerError, ErrorCode, ServerConfiguration, keys, transport, verify_id_token
from tests.brands.id_tokens import EC_KEY, KeyServer, jwk
from tests.fuzz.cases import DEEP_JSON, JSON_VALUES, as_json, fuzzed

pytestmark = pytest.mark.timeout(900)

ISSUER, CLIENT_ID, NONCE = "https://login.acme.example", "consumer-delegation", "planted-nonce"
CLAIMS: Final = st.sampled_from(
    ["iss", "sub", "aud", "azp", "exp", "iat", "nbf", "nonce", "at_hash", "auth_time", "other"]
)
HEADERS: Final = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku"])
# Infinity as JSON's readers take it without being told of it.
VALUES: Final = JSON_VALUES | st.just(...) | st.just(1e999)


@pytest.fixture(autouse=True, scope="module")
def _keys() -> Iterator[None]:
    server = KeyServer(keys=[jwk(EC_KEY, "k1")])
    keys.forget_all()
    with mock.patch.object(transport, "adapter_for", return_value=server):
        yield
    keys.forget_all()


def check(id_token: str, max_age: int | None = None) -> None:
    """Verify an ID token; fail where the outcome is neither claims that can be kept nor a refusal."""
    configuration = ServerConfiguration(
        issuer=ISSUER, authorization_endpoint=f"{ISSUER}/authorize", token_endpoint=f"{ISSUER}/token",
        jwks_uri=f"{ISSUER}/jwks", client_id=CLIENT_ID, redirect_uri="https://delegation.test/callback/x",
        scope="openid", id_token_signing_alg_values=["ES256", "HS256"], max_age=max_age,
    )  # fmt: skip
    try:
        claims = verify_id_token(
            configuration,
            Secret(id_token),
            nonce_matches=lambda nonce: nonce.encode() == NONCE.encode(),
            access_token=Secret("good-access-token"),
            client_secret=Secret("a client secret that is long enough for HS256"),
        )
    except AuthorizationServerError as refused:
        check_refusal(refused)
        return
    assert 1 <= len(claims.subject) <= 255
    # Digests and ciphertexts are made of them.
    assert json.dumps(claims.claims, ensure_ascii=False).encode()


def check_refusal(refused: AuthorizationServerError) -> None:
    assert refused.error in {ErrorCode.INVALID_ID_TOKEN, ErrorCode.JWKS_UNAVAILABLE}
    assert len(refused.detail) <= 200
    assert NONCE not in refused.detail


def signed(payload: bytes, headers: dict[str, Any]) -> str:
    """Sign bytes that are perhaps no claims, as the server's own key would."""
    return jwt.PyJWS().encode(payload, EC_KEY, algorithm="ES256", headers={"kid": "k1", **headers})


def base64url(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


@fuzzed(60, 12_000, changed=st.dictionaries(CLAIMS, VALUES, max_size=2), max_age=st.none() | st.integers(0, 10**9))
def test_any_value_in_any_claim(changed: dict[str, Any], max_age: int | None) -> None:
    """E17, A6: signed by the right key, so that nothing but the claims themselves can be wrong."""
    now = int(time.time())
    good = {"iss": ISSUER, "sub": "ada", "aud": CLIENT_ID, "exp": now + 300, "iat": now, "auth_time": now}
    claims = {name: value for name, value in {**good, "nonce": NONCE, **changed}.items() if value is not ...}
    check(signed(as_json(claims), {}), max_age)


@fuzzed(30, 4_000, payload=st.binary(max_size=60) | DEEP_JSON | JSON_VALUES.map(as_json))
def test_any_bytes_under_a_good_signature(payload: bytes) -> None:
    """E17."""
    check(signed(payload, {}))


@fuzzed(
    60, 8_000, header=st.dictionaries(HEADERS, JSON_VALUES | st.sampled_from(["ES256", "HS256", "none"]), max_size=3)
)
def test_any_header(header: dict[str, Any]) -> None:
    """E16, E18: of which only alg and kid are looked at."""
    check(".".join([base64url(as_json({"alg": "ES256", "kid": "k1", **header})), base64url(b"{}"), base64url(b"x")]))


@fuzzed(60, 6_000, parts=st.lists(st.binary(max_size=60) | DEEP_JSON | st.just(b'{"alg":"ES256"}'), max_size=4))
def test_any_bytes_at_all(parts: list[bytes]) -> None:
    """E16: three parts of base64, or not."""
    check(".".join(base64url(part) for part in parts))
