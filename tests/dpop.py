"""The other side of DPoP (RFC 9449): a check of proofs, an authorization server and an API that demand them."""

import base64
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
import requests

from tests.fake_authorization_server import Answer, _json, _response, _seen
from tests.hostile_token_endpoint import HostileTokenEndpoint, http_answer
from tests.modern_authorization_server import ModernAuthorizationServer

NONCE: Final = "eyJ7S_zG.eyJH0-Z.HX4w-7v"


def thumbprint(jwk: dict[str, str]) -> str:
    """RFC 7638 section 3."""
    members = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    return sha256(members)


def sha256(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


class ProofRefused(Exception):
    """What a server answers: `invalid_dpop_proof` or `use_dpop_nonce`."""


@dataclass
class Proofs:
    """Checks proofs as RFC 9449 section 4.3 demands. `nonce` is the one that is demanded, if any."""

    nonce: str = ""
    clock_ahead: float = 0.0
    texts: list[str] = field(default_factory=list, repr=False)
    claims: list[dict[str, Any]] = field(default_factory=list)
    thumbprints: list[str] = field(default_factory=list)

    def check(self, proof: str | None, method: str, url: str, access_token: str | None = None) -> str:
        """Return the thumbprint of the key that signed. Raises `ProofRefused`."""
        header = jwt.get_unverified_header(proof or "e30.e30.")
        assert proof, "there is no proof"
        assert header.keys() == {"typ", "alg", "jwk"}, header
        assert (header["typ"], header["alg"]) == ("dpop+jwt", "ES256")
        assert header["jwk"].keys() == {"kty", "crv", "x", "y"}, "not the public key alone"
        claims = jwt.decode(proof, jwt.PyJWK(header["jwk"], "ES256"), ["ES256"], options={"verify_iat": False})
        assert claims["jti"] not in [earlier["jti"] for earlier in self.claims], "a proof was sent twice"
        self.texts.append(proof)
        self.claims.append(claims)
        self.thumbprints.append(thumbprint(header["jwk"]))
        parts = urlsplit(url)
        assert (claims["htm"], claims["htu"]) == (method, f"{parts.scheme}://{parts.netloc}{parts.path}")
        assert claims.get("ath") == (sha256(access_token) if access_token else None)
        if abs(time.time() + self.clock_ahead - claims["iat"]) > 30:
            raise ProofRefused("invalid_dpop_proof")
        if self.nonce and claims.get("nonce") != self.nonce:
            raise ProofRefused("use_dpop_nonce")
        return self.thumbprints[-1]


@dataclass
class DPoPAuthorizationServer(ModernAuthorizationServer):
    """Binds each token to the key of the proof, or issues bearer tokens all the same if `binds` is off."""

    binds: bool = True
    proofs: Proofs = field(default_factory=Proofs)
    # What it answers a wrong proof with; None: the nonce that it demands.
    told_nonce: str | None = None
    arrived: list[str] = field(default_factory=list)
    bound: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._keys_of_codes: dict[str, str] = {}
        self._key = ""

    def fields(self) -> dict[str, Any]:
        """The registration, with DPoP switched on."""
        return super().fields() | {"dpop_bound_access_tokens": True}

    def send(self, request: requests.PreparedRequest, *_arguments: Any, **_options: Any) -> requests.Response:
        """Check the proof before anything else."""
        path = urlsplit(str(request.url)).path
        if path not in {"/token", "/par", "/userinfo"}:
            return super().send(request)
        self.arrived.append(path)
        token = request.headers["Authorization"].removeprefix("DPoP ") if path == "/userinfo" else None
        proof = request.headers.get("DPoP")
        try:
            self._key = self.proofs.check(proof, str(request.method), str(request.url), token)
        except ProofRefused as refused:
            status, headers, body = _json(401 if token else 400, {"error": str(refused)})
            headers |= {"WWW-Authenticate": f'DPoP error="{refused}", algs="ES256"'} if token else {}
            return _response(request, (status, headers | self._new_nonce(), body))
        response = super().send(request)
        response.headers.update(self._new_nonce())
        return response

    def _new_nonce(self) -> dict[str, str]:
        told = self.proofs.nonce if self.told_nonce is None else self.told_nonce
        return {"DPoP-Nonce": told} if told else {}

    def _issue_code(self, request: dict[str, str]) -> str:
        code = super()._issue_code(request)
        self._keys_of_codes[code] = request["dpop_jkt"]
        return code

    def _redeem(self, parameters: dict[str, str]) -> Answer:
        bound_to = self._keys_of_codes.get(parameters["code"], self._key)
        assert bound_to == self._key, "the code is bound to another key"
        return super()._redeem(parameters)

    def _token_response(self, grant: Any) -> dict[str, Any]:
        answer = super()._token_response(grant)
        if not self.binds:
            return answer
        self.bound[answer["access_token"]] = self._key
        return answer | {"token_type": "DPoP"}

    def _answer_whose_token_it_is(self, request: requests.PreparedRequest) -> Answer:
        if request.method == "GET":
            scheme, _, token = str(request.headers["Authorization"]).partition(" ")
            self.subject_requests.append(_seen(request))
            known = scheme == "DPoP" and self.bound.get(token) == self._key
            return _json(200, {"sub": self.subject}) if known else _json(401, {"error": "invalid_token"})
        return super()._answer_whose_token_it_is(request)


@dataclass
class DPoPApi:
    """Lets a real server take only tokens with a proof by their key, and refuse bearer tokens.

    `key_of` returns the thumbprint that a token is bound to; None for one that is of no use here.
    """

    server: HostileTokenEndpoint
    key_of: Callable[[str], str | None]
    proofs: Proofs = field(default_factory=Proofs)
    told_nonce: str | None = None
    # What is answered to a right request.
    answer: bytes = http_answer(b'{"orders": ["A-1001"]}')
    refusal: str = ""

    def __post_init__(self) -> None:
        self.server.play()
        self.server.script = lambda: [self._answer(self.server.requests[-1])]

    def _answer(self, request: bytes) -> bytes:
        head, *lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        method, path, _ = head.split(" ")
        scheme, _, token = headers["Authorization"].partition(" ")
        bound_to = self.key_of(token)
        if scheme != "DPoP" or bound_to is None:
            return self._refuse("invalid_token")
        try:
            key = self.proofs.check(headers["DPoP"], method, f"https://{headers['Host']}{path}", token)
        except ProofRefused as refused:
            return self._refuse(str(refused))
        if self.refusal:
            return self._refuse(self.refusal)
        return self.answer if bound_to == key else self._refuse("invalid_token")

    def _refuse(self, error: str) -> bytes:
        told = self.proofs.nonce if self.told_nonce is None else self.told_nonce
        nonce = {"DPoP_Nonce": told} if told else {}
        challenge = f'Bearer error="invalid_token", DPoP algs="ES256", error="{error}"'
        return http_answer(b"", status=401, WWW_Authenticate=challenge, **nonce)
