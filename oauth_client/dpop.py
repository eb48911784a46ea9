"""Demonstrating Proof of Possession (DPoP, RFC 9449): proofs for sender-constrained tokens, and the servers' nonces.

Each authorization request has a key pair of its own. A proof is a JWT that is signed with it, for one request to one
address. Whoever has only the token cannot use it.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from time import time
from typing import Final
from urllib.parse import urlsplit

import jwt
import requests

from infrastructure.crypto import Secret, new_signing_key, random_token, sha256_base64url
from oauth_client.configuration import ServerConfiguration

# The only algorithm that we sign proofs with; each of our keys is on P-256.
ALGORITHM: Final = "ES256"
TOKEN_TYPE: Final = "DPoP"
# RFC 9449 sections 5, 7.1, 8 and 9.
INVALID_PROOF: Final = "invalid_dpop_proof"
USE_NONCE: Final = "use_dpop_nonce"
# The members of a public key on a curve, without what names it or says what it is for (RFC 7638 section 3.2).
_PUBLIC_MEMBERS: Final = ("crv", "kty", "x", "y")
_DEFAULT_PORT: Final = {"https": ":443", "http": ":80"}
# RFC 9449 section 8.1. A hostile server chooses it, and we send it back in a header: it is bounded.
_NONCE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,512}")
_MOST_SERVERS: Final = 1000


@dataclass(frozen=True, slots=True)
class ProofKey:
    """The key pair of one authorization request: a private JWK as JSON text, as it is stored encrypted."""

    private_jwk: Secret

    @classmethod
    def of(cls, private_jwk: Secret | None) -> "ProofKey | None":
        return cls(private_jwk) if private_jwk else None

    @property
    def thumbprint(self) -> str:
        """The public key's thumbprint (RFC 7638), which the parameter `dpop_jkt` and a token's `cnf.jkt` name."""
        return str(json.loads(self.private_jwk.reveal())["kid"])

    def proof(self, request: "ProvenRequest", nonce: str) -> str:
        """Sign a proof (RFC 9449 section 4.2) with a `jti` of its own: no proof is ever sent twice."""
        jwk = json.loads(self.private_jwk.reveal())
        claims = {"jti": random_token(16), "htm": request.method, "htu": _htu(request.url), "iat": int(time())}
        if nonce:
            claims["nonce"] = nonce
        if request.access_token is not None:
            claims["ath"] = sha256_base64url(request.access_token.reveal())
        headers = {"typ": "dpop+jwt", "jwk": {name: jwk[name] for name in _PUBLIC_MEMBERS}}
        return jwt.encode(claims, jwt.PyJWK(jwk).key, algorithm=ALGORITHM, headers=headers)


def new_proof_key(configuration: ServerConfiguration) -> ProofKey | None:
    """Make the key pair of a new authorization request; None if the server's tokens are bearer tokens."""
    return ProofKey(new_signing_key()[0]) if configuration.dpop_bound_access_tokens else None


@dataclass(frozen=True, slots=True)
class ProvenRequest:
    """What a proof is for. `nonces_of` names whose nonce belongs into it; `access_token` is the one that is presented.

    An authorization server and a resource server have nonces of their own, also on one host (RFC 9449 section 9).
    """

    method: str
    url: str = field(repr=False)
    nonces_of: str = field(repr=False)
    access_token: Secret | None = None


def at_resource_server(method: str, url: str, access_token: Secret) -> ProvenRequest:
    """Describe a request that presents a token. Nonces are those of the host."""
    parts = urlsplit(url)
    return ProvenRequest(method, url, f"resource {parts.scheme}://{parts.netloc.lower()}", access_token)


def send_with_proof(
    key: ProofKey,
    request: ProvenRequest,
    send: Callable[[dict[str, str]], requests.Response],
    wants_nonce: Callable[[requests.Response], bool],
) -> requests.Response:
    """Send a request with the header `DPoP`, and repeat it once if the answer demands a nonce and names one.

    It is the only request of ours that is repeated after the server has got it: a server that demands a nonce has done
    nothing (RFC 9449 sections 8 and 9). The second proof is another one, and the caller's `send` signs whatever else
    is used once. Raises what `send` raises.
    """
    nonce = known_nonces.of(request.nonces_of)
    response = send({TOKEN_TYPE: key.proof(request, nonce)})
    learned = known_nonces.learn(request.nonces_of, response)
    # The nonce that was just refused would be refused again.
    if learned in {"", nonce} or not wants_nonce(response):
        return response
    response = send({TOKEN_TYPE: key.proof(request, learned)})
    known_nonces.learn(request.nonces_of, response)
    return response


class KnownNonces:
    """The newest nonce of each server, in this process. A nonce is no secret; one that is lost costs one repetition."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._nonces: dict[str, str] = {}

    def of(self, server: str) -> str:
        """Return the server's newest nonce; empty if none is known."""
        return self._nonces.get(server, "")

    def learn(self, server: str, response: requests.Response) -> str:
        """Take the nonce of any answer, also of a success (RFC 9449 section 8.2). Return it; empty if there is none.

        What has not the form of one nonce, such as a header that came twice, is ignored.
        """
        nonce = response.headers.get("DPoP-Nonce", "")
        if not _NONCE.fullmatch(nonce):
            return ""
        with self._lock:
            self._nonces.pop(server, None)
            self._nonces[server] = nonce
            if len(self._nonces) > _MOST_SERVERS:
                del self._nonces[next(iter(self._nonces))]
        return nonce

    def forget_all(self) -> None:
        self._nonces.clear()


known_nonces: Final = KnownNonces()


def _htu(url: str) -> str:
    """Return the address as the server knows it: without query and fragment, and normalised (RFC 9449 section 4.3)."""
    parts = urlsplit(url)
    host = parts.netloc.lower().removesuffix(_DEFAULT_PORT.get(parts.scheme, ":"))
    return parts._replace(netloc=host, path=parts.path or "/", query="", fragment="").geturl()
