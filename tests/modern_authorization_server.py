"""The fake server with later RFCs: pushed requests (9126), private_key_jwt (7523), metadata (8414)."""

import json
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
import requests

from oauth_client import transport
from tests.fake_authorization_server import Answer, FakeAuthorizationServer, TokenRequest, _json, _response, _seen

CLIENT_AUTHENTICATION = ("client_secret", "client_assertion", "client_assertion_type")


@dataclass
class ModernAuthorizationServer(FakeAuthorizationServer):
    """Accepts only pushed authorization requests, unless `pushed_only` is off."""

    pushed_only: bool = True
    push_hangs: bool = False
    next_push_answer: Answer | None = None
    metadata_changes: dict[str, Any] = field(default_factory=dict)
    metadata_path: str = "/.well-known/openid-configuration"
    well_known_answers: list[Answer | transport.OutboundError] = field(default_factory=list)
    client_keys: list[dict[str, Any]] = field(default_factory=list)

    pushes: list[TokenRequest] = field(default_factory=list)
    assertions: list[dict[str, Any]] = field(default_factory=list)
    metadata_requests: list[str] = field(default_factory=list)
    browser_urls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._pushed: dict[str, dict[str, str]] = {}

    def fields(self) -> dict[str, Any]:
        """The registration, with the additional endpoints of this server."""
        more = {
            "revocation_endpoint": f"{self.issuer}/revoke",
            "pushed_authorization_request_endpoint": f"{self.issuer}/par" if self.pushed_only else "",
        }
        return super().fields() | more

    def metadata(self) -> dict[str, Any]:
        """The metadata document."""
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "revocation_endpoint": f"{self.issuer}/revoke",
            "pushed_authorization_request_endpoint": f"{self.issuer}/par",
            "authorization_response_iss_parameter_supported": True,
            "id_token_signing_alg_values_supported": ["RS256", "none"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "private_key_jwt"],
            "code_challenge_methods_supported": ["S256"],
            **self.metadata_changes,
        }
        return {name: value for name, value in document.items() if value is not ...}

    def authorize(self, url: str) -> str:
        """Look up the pushed request. A `request_uri` can be used once (RFC 9126 section 7.3)."""
        self.browser_urls.append(url)
        if self.pushed_only:
            query = dict(parse_qsl(urlsplit(url).query, strict_parsing=True))
            assert query.keys() == {"client_id", "request_uri"}, query.keys()
            pushed = self._pushed.pop(query["request_uri"])
            assert pushed["client_id"] == query["client_id"]
            url = f"{url.partition('?')[0]}?{urlencode(pushed)}"
        return super().authorize(url)

    def send(self, request: requests.PreparedRequest, *_arguments: Any, **_options: Any) -> requests.Response:
        """Answer a call of the product."""
        path = (request.method, urlsplit(request.url).path)
        if path == ("POST", "/par"):
            return _response(request, self._answer_push(_seen(request)))
        if request.method == "GET" and "/.well-known/" in str(path[1]):
            self.metadata_requests.append(str(request.url))
            if path[1] == self.metadata_path:
                answer = (200, {"Content-Type": "application/json"}, json.dumps(self.metadata()).encode())
                return _response(request, answer)
            if self.well_known_answers:
                return _response(request, _raised_or(self.well_known_answers.pop(0)))
        return super().send(request)

    def _answer_push(self, seen: TokenRequest) -> Answer:
        self.pushes.append(seen)
        if self.push_hangs:
            raise transport.EndpointTimeout("the server did not answer in time")
        if self.next_push_answer is not None:
            answer, self.next_push_answer = self.next_push_answer, None
            return answer
        # With HTTP Basic too, client_id is a parameter of the authorization request (RFC 9126 section 2.1).
        basic = self.token_endpoint_auth_method == "client_secret_basic"
        parameters = {name: value for name, value in seen.parameters.items() if not (basic and name == "client_id")}
        if not self._client_is_authenticated(TokenRequest(seen.url, seen.headers, parameters)):
            return _json(401, {"error": "invalid_client"})
        request_uri = f"urn:ietf:params:oauth:request_uri:{secrets.token_urlsafe(24)}"
        kept = {name: value for name, value in seen.parameters.items() if name not in CLIENT_AUTHENTICATION}
        self._pushed[request_uri] = kept
        return _json(201, {"request_uri": request_uri, "expires_in": 60})

    def _client_is_authenticated(self, seen: TokenRequest) -> bool:
        if self.token_endpoint_auth_method != "private_key_jwt":
            return super()._client_is_authenticated(seen)
        in_body = {name: seen.parameters[name] for name in ("client_id", "client_secret") if name in seen.parameters}
        return in_body == {"client_id": self.client_id} and "Authorization" not in seen.headers and self._signed(seen)

    def _signed(self, seen: TokenRequest) -> bool:
        """Check the client assertion (RFC 7523 section 3). The audience must be exactly our issuer, as one string."""
        assert seen.parameters["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assertion = seen.parameters["client_assertion"]
        kid = jwt.get_unverified_header(assertion)["kid"]
        keys = [jwt.PyJWK(key) for key in self.client_keys if key["kid"] == kid]
        if not keys:
            return False
        options: Any = {"require": ["iss", "sub", "aud", "jti", "iat", "exp"], "strict_aud": True}
        claims = jwt.decode(
            assertion,
            keys[0],
            ["ES256"],
            audience=self.issuer,
            issuer=self.client_id,
            subject=self.client_id,
            options=options,
        )
        known = [claims["jti"] for claims in self.assertions]
        self.assertions.append(claims)
        return claims["jti"] not in known


def _raised_or(answer: Answer | transport.OutboundError) -> Answer:
    if isinstance(answer, transport.OutboundError):
        raise answer
    return answer
