"""Client authentication with a key instead of a secret (RFC 7523)."""

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import jwt
import pytest

from infrastructure.crypto import Secret, new_signing_key, s256_code_challenge
from oauth_client import (
    AuthorizationServerError,
    ClientCredentials,
    authorization_url,
    exchange_code,
    pushed_authorization_url,
    revoke_token,
)
from tests.fake_authorization_server import mounted
from tests.modern_authorization_server import ModernAuthorizationServer

VERIFIER = "v" * 43
PARAMETERS = {"state": "s", "nonce": "n", "code_challenge": s256_code_challenge(VERIFIER)}
PRIVATE_KEY, PUBLIC_KEY = new_signing_key()
CREDENTIALS = ClientCredentials(signing_key=PRIVATE_KEY)


@pytest.fixture
def acme() -> Iterator[ModernAuthorizationServer]:
    fake = ModernAuthorizationServer(token_endpoint_auth_method="private_key_jwt", client_keys=[PUBLIC_KEY])
    with mounted(fake):
        yield fake


def exchange(server: ModernAuthorizationServer, credentials: ClientCredentials = CREDENTIALS, **changes: Any) -> Secret:
    server.pushed_only = False
    url = authorization_url(server.configuration(), **PARAMETERS)
    code = Secret(dict(parse_qsl(server.authorize(url)))["code"])
    configuration = server.configuration(**changes)
    return exchange_code(configuration, code=code, code_verifier=Secret(VERIFIER), credentials=credentials).access_token


def test_one_key_authenticates_us_at_all_three_endpoints(acme: ModernAuthorizationServer) -> None:
    """C7, N12."""
    pushed_authorization_url(acme.configuration(), CREDENTIALS, **PARAMETERS)
    token = exchange(acme)
    revoke_token(acme.configuration(), token, CREDENTIALS)

    assert (len(acme.pushes), len(acme.token_requests), len(acme.revocation_requests)) == (1, 1, 1)
    assert len({claims["jti"] for claims in acme.assertions}) == 3


def test_the_audience_is_the_issuer_as_one_string(acme: ModernAuthorizationServer) -> None:
    """C7: an assertion for an endpoint's address could be played on at the honest server of that address."""
    exchange(acme)

    (claims,) = acme.assertions
    assert claims["aud"] == "https://login.acme.example"
    assert claims["iss"] == claims["sub"] == "consumer-delegation"
    assert claims.keys() == {"iss", "sub", "aud", "jti", "iat", "exp"}


def test_an_assertion_lives_for_a_minute_and_is_used_once(acme: ModernAuthorizationServer) -> None:
    """C7."""
    before = int(time.time())
    exchange(acme)
    exchange(acme)

    first, second = acme.assertions
    assert before <= first["iat"] <= time.time()
    assert first["exp"] - first["iat"] <= 60
    assert first["jti"] != second["jti"]
    assert len(first["jti"]) >= 22


def test_nothing_but_the_assertion_goes_along(acme: ModernAuthorizationServer) -> None:
    """RFC 6749 section 2.3: one method of authentication; no secret, and nothing of the private key."""
    exchange(acme, ClientCredentials(client_secret=Secret("planted-secret"), signing_key=PRIVATE_KEY))

    (request,) = acme.token_requests
    assert request.parameters.keys() == {
        *("grant_type", "code", "redirect_uri", "code_verifier"),
        *("client_id", "client_assertion_type", "client_assertion"),
    }
    assert "Authorization" not in request.headers
    header = jwt.get_unverified_header(request.parameters["client_assertion"])
    assert header == {"alg": "ES256", "kid": PUBLIC_KEY["kid"], "typ": "JWT"}


def test_another_servers_key_is_refused(acme: ModernAuthorizationServer) -> None:
    with pytest.raises(AuthorizationServerError, match="invalid_client"):
        exchange(acme, ClientCredentials(signing_key=new_signing_key()[0]))


@pytest.mark.parametrize(
    ("credentials", "changes", "detail"),
    [
        (ClientCredentials(Secret("a-secret")), {}, "no signing key was made yet"),
        (CREDENTIALS, {"issuer": ""}, "private_key_jwt needs an issuer"),
    ],
)
def test_without_a_key_or_an_issuer_nothing_is_sent(
    credentials: ClientCredentials, changes: dict[str, Any], detail: str, acme: ModernAuthorizationServer
) -> None:
    """C7."""
    with pytest.raises(AuthorizationServerError) as refused:
        exchange(acme, credentials, **changes)

    assert (refused.value.error, refused.value.detail) == ("invalid_client", detail)
    assert acme.token_requests == []


def test_credentials_show_nothing() -> None:
    """K5."""
    assert repr(CREDENTIALS) == "ClientCredentials(client_secret=None, signing_key=Secret(...))"


def test_a_new_key_is_p_256_and_named_by_its_thumbprint() -> None:
    """RFC 7638 section 3: the required members, in order, without spaces."""
    required = {name: PUBLIC_KEY[name] for name in ("crv", "kty", "x", "y")}
    written = json.dumps(required, separators=(",", ":"), sort_keys=True).encode()
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(written).digest()).rstrip(b"=").decode()

    assert required | {"kid": thumbprint, "alg": "ES256", "use": "sig"} == PUBLIC_KEY
    assert (PUBLIC_KEY["crv"], PUBLIC_KEY["kty"]) == ("P-256", "EC")


def test_the_two_halves_of_a_key_fit_and_no_two_keys_are_the_same() -> None:
    private = json.loads(PRIVATE_KEY.reveal())

    assert {name: value for name, value in private.items() if name != "d"} == PUBLIC_KEY
    assert "d" not in PUBLIC_KEY
    assert len({new_signing_key()[1]["kid"] for _ in range(5)}) == 5


def test_coordinates_have_their_full_length() -> None:
    """RFC 7518 section 6.2.1.2: 32 bytes, leading zeros included; one key in 256 has one."""
    for _ in range(600):
        _, public = new_signing_key()
        assert (len(public["x"]), len(public["y"])) == (43, 43)
