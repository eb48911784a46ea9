"""One test for each test name of the OpenID Foundation's conformance suite for relying parties.

The suite itself cannot run here. Other modules test ID tokens, keys and responses in more detail. This one shows that
no name of the suite is missing.
"""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from django.http import QueryDict

from infrastructure.crypto import Secret, s256_code_challenge
from oauth_client import (
    AuthorizationServerError,
    ClientCredentials,
    DiscoveryFailed,
    MalformedAuthorizationResponse,
    TokenResponse,
    authorization_url,
    check_issuer,
    discover,
    exchange_code,
    identify,
    parse_authorization_response,
)
from tests.brands.id_tokens import (
    CLIENT_ID,
    CLIENT_SECRET,
    EC_KEY,
    OTHER_RSA_KEY,
    RSA_KEY,
    KeyServer,
    claims,
    jwk,
    refused,
    signed,
    verify,
)
from tests.fake_authorization_server import PLANTED_SECRET, FakeAuthorizationServer, mounted
from tests.modern_authorization_server import ModernAuthorizationServer

VERIFIER = "v" * 43


@pytest.fixture
def acme() -> Iterator[FakeAuthorizationServer]:
    with mounted(FakeAuthorizationServer()) as server:
        yield server


def exchange(server: FakeAuthorizationServer, **changes: Any) -> TokenResponse:
    """Sign in, with changes to the token response. A value of `...` removes the member."""
    url = authorization_url(server.configuration(), state="s", nonce="n", code_challenge=s256_code_challenge(VERIFIER))
    response = parse_authorization_response(QueryDict(server.authorize(url)))
    members = {"access_token": "a-token", "token_type": "Bearer", "expires_in": 3600} | changes
    body = json.dumps({name: value for name, value in members.items() if value is not ...}).encode()
    server.next_token_answer = (200, {"Content-Type": "application/json"}, body)
    assert response.code is not None
    credentials = ClientCredentials(Secret(PLANTED_SECRET))
    return exchange_code(
        server.configuration(), code=response.code, code_verifier=Secret(VERIFIER), credentials=credentials
    )


def with_another_signature(id_token: str) -> str:
    signing_input, _, signature = id_token.rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[10] ^= 1
    return f"{signing_input}.{base64.urlsafe_b64encode(bytes(raw)).rstrip(b'=').decode()}"


@pytest.mark.usefixtures("key_server")
def test_id_token_bad_iss() -> None:
    """E17."""
    assert refused(signed(claims(iss="https://rival.example")))[1].startswith("iss differs: found https://rival")


@pytest.mark.usefixtures("key_server")
def test_id_token_bad_aud() -> None:
    """E17."""
    assert refused(signed(claims(aud="another-client")))[1] == "aud is not our client_id"


@pytest.mark.usefixtures("key_server")
def test_id_token_bad_nonce() -> None:
    """E17."""
    assert refused(signed(claims(nonce="another")))[1].startswith("nonce is not the one that we sent")


@pytest.mark.usefixtures("key_server")
@pytest.mark.parametrize("claim", ["sub", "iat", "aud"])
def test_id_token_missing_sub_iat_aud(claim: str) -> None:
    """E17."""
    assert refused(signed(claims(**{claim: ...})))[1] == f"{claim} is missing"


@pytest.mark.usefixtures("key_server")
def test_id_token_alg_none() -> None:
    """E16."""
    assert refused(jwt.encode(claims(), "", algorithm="none"))[0] == "invalid_id_token"


@pytest.mark.usefixtures("key_server")
def test_id_token_bad_rs256_signature() -> None:
    """E16."""
    assert refused(with_another_signature(signed(claims())))[1] == "its signature is wrong"


def test_id_token_bad_es256_signature(key_server: KeyServer) -> None:
    """E16."""
    key_server.keys = [jwk(EC_KEY)]
    id_token = signed(claims(), EC_KEY, "ES256")
    assert verify(id_token, id_token_signing_alg_values=["ES256"]).subject == "ada"
    changed = with_another_signature(id_token)
    assert refused(changed, id_token_signing_alg_values=["ES256"])[1] == "its signature is wrong"


@pytest.mark.usefixtures("key_server")
def test_id_token_bad_hs256_signature() -> None:
    """E16."""
    id_token = signed(claims(), CLIENT_SECRET.reveal(), "HS256")
    assert verify(id_token, CLIENT_SECRET, id_token_signing_alg_values=["HS256"]).subject == "ada"
    changed = with_another_signature(id_token)
    assert refused(changed, CLIENT_SECRET, id_token_signing_alg_values=["HS256"])[1] == "its signature is wrong"


@pytest.mark.usefixtures("key_server")
def test_id_token_kid_absent_single_jwks() -> None:
    """E18: accepted."""
    assert verify(signed(claims(), kid=None)).subject == "ada"


def test_id_token_kid_absent_multiple_jwks(key_server: KeyServer) -> None:
    """E18: refused, since nobody could say whose signature it is."""
    key_server.keys = [jwk(RSA_KEY, "k1"), jwk(OTHER_RSA_KEY, "k2")]
    assert refused(signed(claims(), kid=None))[0] == "invalid_id_token"


def test_key_rotation(key_server: KeyServer, clock: Callable[[float], None]) -> None:
    """E18: the new key is fetched when a token names it."""
    verify(signed(claims()))
    key_server.keys = [jwk(OTHER_RSA_KEY, "k2")]
    clock(61)
    assert verify(signed(claims(), OTHER_RSA_KEY, kid="k2")).subject == "ada"


def test_userinfo_bad_sub(acme: FakeAuthorizationServer) -> None:
    """E19: beside an ID token userinfo is never called, so that no `sub` of it could differ."""
    configuration = acme.configuration(scope="openid orders.read", userinfo_endpoint=f"{acme.issuer}/userinfo")
    with pytest.raises(AuthorizationServerError, match="invalid_id_token"):
        identify(configuration, exchange(acme), ClientCredentials(Secret(PLANTED_SECRET)), lambda _nonce: True)
    assert acme.subject_requests == []


def test_discovery_issuer_mismatch() -> None:
    """C6."""
    fake = ModernAuthorizationServer(metadata_changes={"issuer": "https://rival.example"})
    with mounted(fake), pytest.raises(DiscoveryFailed, match=r"differs: found https://rival\.example"):
        discover(fake.issuer)


@pytest.mark.parametrize("iss", ["https://rival.example", "https://login.acme.example/"])
def test_authorization_response_wrong_iss(iss: str, acme: FakeAuthorizationServer) -> None:
    """C2."""
    with pytest.raises(AuthorizationServerError, match=r"issuer_mismatch: iss differs( by the last slash)?: found"):
        check_issuer(acme.configuration(), parse_authorization_response(QueryDict(f"code=c&state=s&iss={iss}")))


def test_authorization_response_removed_iss(acme: FakeAuthorizationServer) -> None:
    """C2: where the server promises it."""
    with pytest.raises(AuthorizationServerError, match="issuer_mismatch: iss is missing"):
        check_issuer(acme.configuration(), parse_authorization_response(QueryDict("code=c&state=s")))


def test_authorization_response_missing_state() -> None:
    """B13; a wrong one is unknown to us: test_callback.py."""
    with pytest.raises(MalformedAuthorizationResponse):
        parse_authorization_response(QueryDict("code=c&iss=https://login.acme.example"))


@pytest.mark.usefixtures("key_server")
def test_id_token_second_audience() -> None:
    """E17: refused, unless `azp` says that it is for us, or it is trusted by configuration."""
    assert "untrusted audiences" in refused(signed(claims(aud=[CLIENT_ID, "another"])))[1]
    assert verify(signed(claims(aud=[CLIENT_ID, "another"], azp=CLIENT_ID))).subject == "ada"


@pytest.mark.usefixtures("key_server")
def test_id_token_aud_as_list_accepted() -> None:
    """E17."""
    assert verify(signed(claims(aud=[CLIENT_ID]))).subject == "ada"


def test_token_response_expires_in_absent_accepted(acme: FakeAuthorizationServer) -> None:
    """E8."""
    assert exchange(acme, expires_in=...).lifetime_assumed


@pytest.mark.parametrize("token_type", ["bearer", "BEARER", "bEaReR"])
def test_token_response_token_type_in_another_case(token_type: str, acme: FakeAuthorizationServer) -> None:
    """E7."""
    assert exchange(acme, token_type=token_type).token_type == "Bearer"
