"""The signature of an ID token: algorithms, and keys that are not the server's."""

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest

from infrastructure.crypto import Secret
from oauth_client import AuthorizationServerError, verify_id_token
from tests.brands.id_tokens import (
    ACCESS_TOKEN,
    CLIENT_SECRET,
    EC_KEY,
    ED_KEY,
    ISSUER,
    OTHER_RSA_KEY,
    RSA_KEY,
    WEAK_RSA_KEY,
    KeyServer,
    claims,
    configuration,
    jwk,
    refused,
    signed,
    verify,
)

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "EdDSA"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_configured_algorithm_is_verified(algorithm: str, key_server: KeyServer) -> None:
    """E16; at_hash takes the algorithm's own hash (OpenID Connect Core section 3.1.3.6)."""
    key = {"ES256": EC_KEY, "EdDSA": ED_KEY}.get(algorithm, RSA_KEY)
    key_server.keys = [jwk(key)]
    size = {"256": "sha256", "384": "sha384"}.get(algorithm[2:], "sha512")
    digest = hashlib.new(size, ACCESS_TOKEN.reveal().encode()).digest()
    at_hash = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()

    said = claims(at_hash=at_hash)

    assert verify(signed(said, key, algorithm), id_token_signing_alg_values=[algorithm]).claims == said
    assert refused(
        signed(claims(at_hash=at_hash[:-1] + "_"), key, algorithm), id_token_signing_alg_values=[algorithm]
    ) == (
        "invalid_id_token",
        "at_hash is of another token",
    )


def test_hs256_is_verified_with_the_client_secret_where_it_was_chosen(key_server: KeyServer) -> None:
    """E16."""
    id_token = signed(claims(), CLIENT_SECRET.reveal(), "HS256")

    assert verify(id_token, CLIENT_SECRET, id_token_signing_alg_values=["HS256"]).subject == "ada"
    assert key_server.asked == []


@pytest.mark.parametrize(
    ("secret", "detail"),
    [
        (None, "HS256 needs a client secret"),
        (Secret("another secret that is long enough for HS256"), "its signature is wrong"),
        (Secret("short"), "its key is too short or of another kind"),
    ],
)
def test_hs256_with_another_secret_is_refused(secret: Secret | None, detail: str) -> None:
    id_token = signed(claims(), CLIENT_SECRET.reveal(), "HS256")

    assert refused(id_token, secret, id_token_signing_alg_values=["HS256"]) == ("invalid_id_token", detail)


@pytest.mark.usefixtures("key_server")
@pytest.mark.parametrize("configured", [["RS256"], ["RS256", "none"], ["none"], []])
def test_an_unsigned_token_is_refused_whatever_is_configured(configured: list[str]) -> None:
    """E16: two servers advertise `none`."""
    unsigned = jwt.encode(claims(), "", algorithm="none", headers={"kid": "k1"})

    for spelling in (b'"none"', b'"None"', b'"NONE"', b'""', b"null", b'["RS256"]'):
        header, payload, _ = unsigned.split(".")
        changed = base64.urlsafe_b64decode(header + "==").replace(b'"none"', spelling)
        id_token = f"{base64.urlsafe_b64encode(changed).rstrip(b'=').decode()}.{payload}."
        assert refused(id_token, id_token_signing_alg_values=configured)[0] == "invalid_id_token"


@pytest.mark.usefixtures("key_server")
def test_a_public_key_is_no_hmac_secret() -> None:
    """RFC 8725 section 2.1: RS256 turned into HS256, signed with the server's public key."""
    public = json.dumps(jwk(RSA_KEY)).encode()
    # By hand: the library refuses to sign with what looks like a public key.
    unsigned = signed(claims(), CLIENT_SECRET.reveal(), "HS256").rpartition(".")[0]
    signature = base64.urlsafe_b64encode(hmac.digest(public, unsigned.encode(), "sha256")).rstrip(b"=").decode()
    id_token = f"{unsigned}.{signature}"

    assert refused(id_token) == ("invalid_id_token", "it is signed with HS256, which is not configured")
    assert refused(id_token, CLIENT_SECRET, id_token_signing_alg_values=["RS256", "HS256"]) == (
        "invalid_id_token",
        "its signature is wrong",
    )


@pytest.mark.usefixtures("key_server")
def test_an_algorithm_that_was_not_configured_is_refused() -> None:
    assert refused(signed(claims(), algorithm="RS512")) == (
        "invalid_id_token",
        "it is signed with RS512, which is not configured",
    )


@pytest.mark.usefixtures("key_server")
@pytest.mark.parametrize(
    "header",
    [
        {"jwk": jwk(OTHER_RSA_KEY)},
        {"jku": "https://rival.example/jwks"},
        {"x5u": "https://rival.example/cert", "x5c": ["AAAA"]},
    ],
    ids=["jwk", "jku", "x5u"],
)
def test_a_key_in_the_header_is_ignored(header: dict[str, Any], key_server: KeyServer) -> None:
    """E18: the attacker signs with the key that he sends along."""
    assert refused(signed(claims(), OTHER_RSA_KEY, **header)) == ("invalid_id_token", "its signature is wrong")
    assert set(key_server.asked) == {f"{ISSUER}/jwks"}


@pytest.mark.usefixtures("key_server")
@pytest.mark.parametrize("id_token", ["", "x", "a.b", "a.b.c", "a.b.c.d.e", "e30.e30.", "\u00e4.b.c"])
def test_what_is_no_jwt_is_refused(id_token: str) -> None:
    assert refused(id_token)[0] == "invalid_id_token"


@pytest.mark.usefixtures("key_server")
def test_a_changed_payload_is_refused() -> None:
    header, _, signature = signed(claims()).split(".")
    payload = signed(claims(sub="eve")).split(".")[1]

    assert refused(f"{header}.{payload}.{signature}") == ("invalid_id_token", "its signature is wrong")


def test_an_rsa_key_that_is_too_short_is_refused(key_server: KeyServer) -> None:
    """RFC 7518 section 3.3: 2048 bits."""
    key_server.keys = [jwk(WEAK_RSA_KEY)]
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        id_token = signed(claims(), WEAK_RSA_KEY)

    assert refused(id_token) == ("invalid_id_token", "its key is too short or of another kind")


def test_the_signature_is_verified_before_the_nonce_is_looked_at(key_server: KeyServer) -> None:
    """What is not signed by the server is not compared with anything of ours."""
    asked: list[str] = []

    def nonce_matches(nonce: str) -> bool:
        asked.append(nonce)
        return True

    with pytest.raises(AuthorizationServerError):
        verify_id_token(
            configuration(),
            Secret(signed(claims(), OTHER_RSA_KEY)),
            nonce_matches=nonce_matches,
            access_token=ACCESS_TOKEN,
        )

    assert asked == []
    assert key_server.asked == [f"{ISSUER}/jwks"]
