"""Good and bad ID tokens, and a fake transport for the JWKS request."""

import json
import time
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from requests.adapters import BaseAdapter

from infrastructure.crypto import Secret
from oauth_client import AuthorizationServerError, IDTokenClaims, ServerConfiguration, transport, verify_id_token

ISSUER = "https://login.acme.example"
CLIENT_ID = "consumer-delegation"
CLIENT_SECRET = Secret("a client secret that is long enough for HS256")
ACCESS_TOKEN = Secret("access-token-4Zq8vW")
NONCE = "nonce-of-this-attempt"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
THIRD_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
WEAK_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, kid: str | None = "k1", **members: Any) -> dict[str, Any]:
    """The public key as a member of a key set."""
    algorithm: Any = jwt.algorithms.RSAAlgorithm
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = jwt.algorithms.ECAlgorithm
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = jwt.algorithms.OKPAlgorithm
    named = {"kid": kid} if kid is not None else {}
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **named, **members}


@dataclass
class KeyServer(BaseAdapter):
    """The transport of the JWKS request: one answer, and a count of the requests."""

    keys: list[Any] = field(default_factory=lambda: [jwk(RSA_KEY, "k1")])
    status: int = 200
    body: bytes | None = None
    failure: transport.OutboundError | None = None
    asked: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)

    def send(self, request: requests.PreparedRequest, *_arguments: Any, **_options: Any) -> requests.Response:
        self.asked.append(str(request.url))
        self.accepted.append(str(request.headers["Accept"]))
        if self.failure:
            raise self.failure
        response = requests.Response()
        response.status_code = self.status
        response.raw = BytesIO(json.dumps({"keys": self.keys}).encode() if self.body is None else self.body)
        response.request = request
        return response

    def close(self) -> None:
        """Nothing to close."""


def configuration(**changes: Any) -> ServerConfiguration:
    return ServerConfiguration(
        **{
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
            "client_id": CLIENT_ID,
            "redirect_uri": "https://delegation.test/callback/acme-orders",
            "issuer": ISSUER,
            "jwks_uri": f"{ISSUER}/jwks",
            "scope": "openid orders.read",
            **changes,
        }
    )


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good ID token with some changed; `...` removes a claim."""
    now = int(time.time())
    usual = {"iss": ISSUER, "sub": "ada", "aud": CLIENT_ID, "exp": now + 300, "iat": now, "nonce": NONCE, **changes}
    return {name: value for name, value in usual.items() if value is not ...}


def signed(
    payload: dict[str, Any], key: Any = RSA_KEY, algorithm: str = "RS256", kid: str | None = "k1", **header: Any
) -> str:
    named = {"kid": kid} if kid is not None else {}
    return jwt.encode(payload, key, algorithm=algorithm, headers={**named, **header})


def verify(id_token: str | None, client_secret: Secret | None = None, **configured: Any) -> IDTokenClaims:
    return verify_id_token(
        configuration(**configured),
        None if id_token is None else Secret(id_token),
        nonce_matches=lambda nonce: nonce == NONCE,
        access_token=ACCESS_TOKEN,
        client_secret=client_secret,
    )


def refused(id_token: str | None, client_secret: Secret | None = None, **configured: Any) -> tuple[str, str]:
    with pytest.raises(AuthorizationServerError) as refusal:
        verify(id_token, client_secret, **configured)
    assert refusal.value.__cause__ is None
    return refusal.value.error.value, refusal.value.detail
