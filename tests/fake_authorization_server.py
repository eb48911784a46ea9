"""An authorization server that follows the RFCs strictly, as a transport adapter: it sees what we really send.

    @pytest.fixture
    def acme() -> Iterator[FakeAuthorizationServer]:
        with mounted(FakeAuthorizationServer()) as server:
            yield server

A journey: build the authorization URL for `acme.configuration()` (or a model row of `acme.fields()`), pass it to
`acme.authorize(url)`, pass the returned query to our callback, and look at `acme.token_requests`.
"""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from io import BytesIO
from typing import Any, Final
from unittest import mock
from urllib.parse import parse_qsl, unquote, unquote_plus, urlencode, urlsplit

import requests
from requests.adapters import BaseAdapter

from oauth_client import ServerConfiguration, keys, transport
from oauth_client.dpop import known_nonces
from tests.fake_openid_provider import FakeOpenIdProvider

# Known values, so that a test can search for them where they must not be.
PLANTED_REFRESH_TOKEN: Final = "planted-refresh-token-7Hq2Zt"
PLANTED_SECRET: Final = "planted client+secret/7%:é"

Answer = tuple[int, dict[str, str], bytes]


class AuthorizationRequestRefused(AssertionError):
    """The request has a wrong client or redirect URI. A server must not redirect then (RFC 6749 section 4.1.2.1)."""


@dataclass(frozen=True)
class TokenRequest:
    """A request as it arrived at the token endpoint."""

    url: str
    headers: dict[str, str]
    parameters: dict[str, str]


@dataclass(frozen=True)
class _Grant:
    redirect_uri: str
    code_challenge: str
    scope: str
    nonce: str | None
    resource: str


@dataclass
class FakeAuthorizationServer(FakeOpenIdProvider, BaseAdapter):
    """One registered client. Tests change the behaviour through the fields; None means the default."""

    host: str = "login.acme.example"
    client_id: str = "consumer-delegation"
    client_secret: str = PLANTED_SECRET
    redirect_uri: str = "https://delegation.test/callback/acme-orders"
    token_endpoint_auth_method: str = "client_secret_basic"
    basic_encoding: str = "form"
    percent_decodes_only: bool = False
    wants_client_id_with_basic: bool = False
    client_refusal: str = "invalid_client"
    scope: str = "orders.read"
    openid: bool = False
    pkce: str = "required"  # or "ignored", or "refused": LinkedIn answers a code_verifier as if the secret were wrong

    subject: str = "ada"
    resource: list[str] = field(default_factory=list)
    expires_in: int | None = 3600
    granted_scope: str | None = None
    scope_separator: str = " "
    scope_in_redirect: str | None = None
    further_redirect_parameters: dict[str, str] = field(default_factory=dict)
    names_granted_scope: bool = True
    sends_iss: bool = True
    signs_with_secret: bool = False
    denies: bool = False
    hangs: bool = False
    clock_ahead: float = 0.0
    next_revocation_answers: list[Answer] = field(default_factory=list)
    next_token_answer: Answer | None = None
    # What userinfo and introspection say of a token, beside `active`; None: the subject.
    account: dict[str, Any] | None = None
    next_subject_answers: list[Answer | transport.OutboundError] = field(default_factory=list)
    id_token_changes: dict[str, Any] = field(default_factory=dict)
    further_members: dict[str, Any] = field(default_factory=dict)
    on_token_request: Callable[[TokenRequest], None] | None = None

    authorization_requests: list[dict[str, str]] = field(default_factory=list)
    token_requests: list[TokenRequest] = field(default_factory=list)
    issued_access_tokens: list[str] = field(default_factory=list)
    revocation_requests: list[TokenRequest] = field(default_factory=list)
    subject_requests: list[TokenRequest] = field(default_factory=list)
    jwks_requests: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self._grants: dict[str, _Grant] = {}
        self._spent_codes: set[str] = set()

    def fields(self) -> dict[str, Any]:
        """The registration, with the field names of the model and of `ServerConfiguration`."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks" if self.openid else "",
            "client_id": self.client_id,
            "token_endpoint_auth_method": self.token_endpoint_auth_method,
            "basic_encoding": self.basic_encoding,
            "scope": f"openid {self.scope}" if self.openid else self.scope,
            "resource": self.resource,
            "authorization_response_iss_parameter_supported": self.sends_iss,
        }

    def configuration(self, **changes: Any) -> ServerConfiguration:
        """The registration as a `ServerConfiguration`, with some fields changed."""
        return ServerConfiguration(**{**self.fields(), "redirect_uri": self.redirect_uri, **changes})

    # The consumer's browser: authorization endpoint, sign-in and consent in one step.

    def authorize(self, url: str) -> str:
        """Check an authorization request and sign the consumer in. Returns the callback's query."""
        request = _each_once(urlsplit(url).query)
        self.authorization_requests.append(request)
        if request.get("client_id") != self.client_id or request.get("redirect_uri") != self.redirect_uri:
            raise AuthorizationRequestRefused(f"unknown client or redirect URI in {url}")
        error = self._error_in(url, request)
        answer = {"error": error} if error else {"code": self._issue_code(request)}
        answer |= {"state": request["state"]} if "state" in request else {}
        answer |= {"iss": self.issuer} if self.sends_iss else {}
        answer |= {"scope": self.scope_in_redirect} if self.scope_in_redirect is not None else {}
        return urlencode(answer | self.further_redirect_parameters)

    def _error_in(self, url: str, request: dict[str, str]) -> str:
        wrong = (
            urlsplit(url)[:3] != ("https", self.host, "/authorize")
            or "state" not in request
            or (self.pkce == "required" and request.get("code_challenge_method") != "S256")
            or (self.pkce == "required" and len(request.get("code_challenge", "")) != 43)
            or (self.openid and "nonce" not in request)
        )
        if wrong:
            return "invalid_request"
        if request.get("response_type") != "code":
            return "unsupported_response_type"
        if not set(request.get("scope", "").split(self.scope_separator)) - {""} <= {"openid", *self.scope.split()}:
            return "invalid_scope"
        if request.get("resource", "") != " ".join(self.resource):
            return "invalid_target"
        return "access_denied" if self.denies else ""

    def _issue_code(self, request: dict[str, str]) -> str:
        code = secrets.token_urlsafe(24)
        self._grants[code] = _Grant(
            request["redirect_uri"],
            request.get("code_challenge", ""),
            request.get("scope", ""),
            request.get("nonce"),
            request.get("resource", ""),
        )
        return code

    # Calls of the product.

    def send(self, request: requests.PreparedRequest, *_arguments: Any, **_options: Any) -> requests.Response:
        """Answer a call, in place of `oauth_client.transport`."""
        path = (request.method, urlsplit(request.url).path)
        if path == ("GET", "/jwks"):
            self.jwks_requests += 1
            return _response(request, (200, {"Content-Type": "application/json"}, json.dumps(self.jwks()).encode()))
        if path == ("POST", "/revoke"):
            return _response(request, self._answer_revocation_request(request))
        if path in {("GET", "/userinfo"), ("POST", "/introspect")}:
            return _response(request, self._answer_whose_token_it_is(request))
        if path == ("GET", "/authorize"):
            return _response(request, self._answer_without_browser(str(request.url)))
        if path != ("POST", "/token"):
            return _response(request, (404, {"Content-Type": "text/html"}, b"<h1>Not found</h1>"))
        status, headers, body = self._answer_token_request(request)
        return _response(request, (status, {"Date": self._date()} | headers, body))

    def close(self) -> None:
        """Nothing to close."""

    def _answer_without_browser(self, url: str) -> Answer:
        """Answer with an error page if it must not redirect, with the redirect if it refuses, else the sign-in page."""
        html = {"Content-Type": "text/html", "Date": self._date()}
        try:
            query = self.authorize(url)
        except AuthorizationRequestRefused:
            return 400, html, b"<h1>Unknown client or redirect URI</h1>"
        if "error=" in query:
            return 302, html | {"Location": f"{self.redirect_uri}?{query}"}, b""
        return 200, html, b"<h1>Sign in</h1>"

    def _date(self) -> str:
        return formatdate(time.time() + self.clock_ahead, usegmt=True)

    def _answer_revocation_request(self, request: requests.PreparedRequest) -> Answer:
        """RFC 7009 section 2.2: 200 with an empty body, also for an unknown token."""
        seen = _seen(request)
        self.revocation_requests.append(seen)
        if self.next_revocation_answers:
            return self.next_revocation_answers.pop(0)
        return (200, {}, b"") if self._client_is_authenticated(seen) else _json(401, {"error": "invalid_client"})

    def _answer_whose_token_it_is(self, request: requests.PreparedRequest) -> Answer:
        """OpenID Connect Core section 5.3, or RFC 7662 with client authentication."""
        seen = _seen(request)
        self.subject_requests.append(seen)
        if self.next_subject_answers:
            answer = self.next_subject_answers.pop(0)
            if isinstance(answer, transport.OutboundError):
                raise answer
            return answer
        account = {"sub": self.subject} if self.account is None else self.account
        if request.method == "GET":
            known = seen.headers.get("Authorization", "").removeprefix("Bearer ") in self.issued_access_tokens
            return _json(200, account) if known else _json(401, {"error": "invalid_token"})
        registered = {name: value for name, value in seen.parameters.items() if not name.startswith("token")}
        if not self._client_is_authenticated(replace(seen, parameters=registered)):
            return _json(401, {"error": "invalid_client"})
        known = seen.parameters["token"] in self.issued_access_tokens
        return _json(200, {"active": True, **account} if known else {"active": False})

    def _answer_token_request(self, request: requests.PreparedRequest) -> Answer:
        seen = _seen(request)
        self.token_requests.append(seen)
        if self.on_token_request:
            self.on_token_request(seen)
        if self.hangs:
            raise transport.EndpointTimeout("the server did not answer in time")
        if self.next_token_answer is not None:
            answer, self.next_token_answer = self.next_token_answer, None
            return answer
        if not self._client_is_authenticated(seen):
            return _json(401, {"error": self.client_refusal})
        if seen.parameters.get("grant_type") != "authorization_code":
            return _json(400, {"error": "unsupported_grant_type"})
        return self._redeem(seen.parameters)

    def _client_is_authenticated(self, seen: TokenRequest) -> bool:
        """RFC 6749 section 2.3: only the registered method is accepted."""
        if self.pkce == "refused" and "code_verifier" in seen.parameters:
            return False
        in_body = {name: seen.parameters[name] for name in ("client_id", "client_secret") if name in seen.parameters}
        authorization = seen.headers.get("Authorization")
        if self.token_endpoint_auth_method == "client_secret_basic":
            beside = {"client_id": self.client_id} if self.wants_client_id_with_basic else {}
            return in_body == beside and authorization is not None and self._basic_is_right(authorization)
        registered = {"client_id": self.client_id}
        if self.token_endpoint_auth_method == "client_secret_post":
            registered["client_secret"] = self.client_secret
        return in_body == registered and authorization is None

    def _basic_is_right(self, authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
        client_id, _, client_secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        pair = (client_id, client_secret)
        if self.basic_encoding == "form":
            decode = unquote if self.percent_decodes_only else unquote_plus
            pair = (decode(client_id), decode(client_secret))
        return scheme == "Basic" and pair == (self.client_id, self.client_secret)

    def _redeem(self, parameters: dict[str, str]) -> Answer:
        code = parameters.get("code", "")
        grant = self._grants.pop(code, None)
        if code in self._spent_codes:
            self.issued_access_tokens.clear()  # section 4.1.2: a code that is used twice revokes its tokens
        self._spent_codes.add(code)
        verifier = hashlib.sha256(parameters.get("code_verifier", "").encode()).digest()
        if (
            grant is None
            or parameters.get("redirect_uri") != grant.redirect_uri
            or parameters.get("resource", "") != grant.resource
            or (
                self.pkce == "required"
                and base64.urlsafe_b64encode(verifier).rstrip(b"=").decode() != grant.code_challenge
            )
        ):
            return _json(400, {"error": "invalid_grant"})
        return _json(200, self._token_response(grant))

    def _token_response(self, grant: _Grant) -> dict[str, Any]:
        access_token = f"access-token-{secrets.token_urlsafe(24)}"
        self.issued_access_tokens.append(access_token)
        answer: dict[str, Any] = {
            "access_token": access_token,
            "token_type": "Bearer",
            "refresh_token": PLANTED_REFRESH_TOKEN,
            "scope": grant.scope if self.granted_scope is None else self.granted_scope,
            **self.further_members,
        }
        if not self.names_granted_scope:
            del answer["scope"]
        if self.expires_in is not None:
            answer["expires_in"] = self.expires_in
        if self.openid:
            changes = dict(self.id_token_changes)
            answer["id_token"] = self.id_token(access_token, changes.pop("nonce", grant.nonce), **changes)
        return answer


@contextmanager
def mounted(*servers: FakeAuthorizationServer) -> Iterator[FakeAuthorizationServer]:
    """Route all outbound calls of this process to these servers, by host. Yields the first server."""
    by_host = {server.host: server for server in servers}
    keys.forget_all()
    known_nonces.forget_all()
    with mock.patch.object(transport, "adapter_for", lambda url: by_host[urlsplit(url).netloc]):
        yield servers[0]
    keys.forget_all()


def _each_once(query: str) -> dict[str, str]:
    """Parse a query. Only `resource` may be repeated (RFC 8707); its values are joined by spaces."""
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    resources = [value for name, value in pairs if name == "resource"]
    others = [pair for pair in pairs if pair[0] != "resource"]
    if len(dict(others)) != len(others):
        raise AuthorizationRequestRefused("a parameter is given twice")
    return dict(others) | ({"resource": " ".join(resources)} if resources else {})


def _seen(request: requests.PreparedRequest) -> TokenRequest:
    body = request.body.decode() if isinstance(request.body, bytes) else str(request.body or "")
    headers = {name.title(): str(value) for name, value in request.headers.items()}
    return TokenRequest(str(request.url), headers, _each_once(body))


def _json(status: int, answer: dict[str, Any]) -> Answer:
    headers = {"Content-Type": "application/json;charset=UTF-8", "Cache-Control": "no-store"}
    return status, headers, json.dumps(answer).encode()


def _response(request: requests.PreparedRequest, answer: Answer) -> requests.Response:
    response = requests.Response()
    response.status_code, headers, body = answer
    response.headers.update(headers)
    response.raw = BytesIO(body)
    response.request = request
    response.url = str(request.url)
    return response
