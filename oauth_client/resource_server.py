"""Present an access token at a resource server, in the `Authorization` header.

As a bearer token (RFC 6750 section 2.1), or with a proof that it is bound to us (DPoP, RFC 9449 section 7.1). The
resource server is the brand's API. Whatever it answers is passed on to a bot, so an answer that repeats the token is
refused here (P5).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote_to_bytes

from infrastructure.crypto import Secret
from oauth_client import transport
from oauth_client.dpop import INVALID_PROOF, TOKEN_TYPE, USE_NONCE, ProofKey, at_resource_server, send_with_proof
from oauth_client.step_up import (
    INSUFFICIENT_USER_AUTHENTICATION,
    AuthenticationDemand,
    UnreadableDemand,
    demand_in,
)
from oauth_client.validators import MAX_SCOPE_LENGTH

# Larger than a token response: lists of orders are answered here.
MAX_ANSWER_BYTES: Final = 262_144

INVALID_TOKEN: Final = "invalid_token"
INSUFFICIENT_SCOPE: Final = "insufficient_scope"
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 9110 section 11.2: a parameter of a challenge, with a quoted or a plain value; else a scheme.
_PARAMETER: Final = re.compile(rf'({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
_SCHEME: Final = re.compile(_TOKEN)
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*")
# A longer header is not read: no server needs one, and a hostile one would cost time. Cut, its quotes had no end.
_MAX_CHALLENGE: Final = 4096
# RFC 8259 section 7, for the characters of a token.
_ESCAPED: Final = re.compile(rb'\\(?:u00([2-7][0-9A-Fa-f])|(["\\/]))')
# JSON in a text of JSON has its escapes twice.
_MOST_ESCAPES: Final = 3


class TokenInAnswer(Exception):
    """The resource server's answer contains the access token or our proof. Nothing of it may be passed on (P5)."""


@dataclass(frozen=True)
class ResourceRequest:
    """A request to a resource server, without the token. Its `repr` holds nothing that a consumer or bot typed."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    body: bytes | None = field(repr=False, default=None)


@dataclass(frozen=True)
class ResourceResponse:
    """The complete answer. `error` and `scope` are those of the challenge of the token's scheme, or empty.

    Another scheme's challenge says nothing about this token (RFC 6750 section 3, RFC 9449 section 7.1).
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    error: str = ""
    scope: str = ""
    # What the API demands of the sign-in (RFC 9470); None if it demands nothing, or something that cannot be read.
    demand: AuthenticationDemand | None = None

    @property
    def refuses_token(self) -> bool:
        """Whether the token is of no use any more. A 401 alone does not say so: it may be a proxy's (P9)."""
        return self.status == HTTPStatus.UNAUTHORIZED and self.error == INVALID_TOKEN

    @property
    def refuses_proof(self) -> bool:
        """Whether our proof was refused, and not the token: a clock differs, or the nonce is not accepted twice."""
        return self.status == HTTPStatus.UNAUTHORIZED and self.error in {INVALID_PROOF, USE_NONCE}

    @property
    def wants_step_up(self) -> bool:
        """Whether the token is good, but the sign-in behind it too weak or too old for this request (RFC 9470)."""
        return self.status == HTTPStatus.UNAUTHORIZED and self.error == INSUFFICIENT_USER_AUTHENTICATION

    @property
    def wants_more_scope(self) -> bool:
        return self.status == HTTPStatus.FORBIDDEN and self.error == INSUFFICIENT_SCOPE


def call_resource(
    request: ResourceRequest, access_token: Secret, *, is_safe_to_repeat: bool, proof_key: ProofKey | None = None
) -> ResourceResponse:
    """Send the request with the token. Redirects are not followed, and cookies are not kept.

    It is sent a second time only if that is safe and no byte of the first try was sent (P8), and if the API demands a
    nonce in the proof that is made with `proof_key`, the key of a bound token (L4). Raises `transport.OutboundError`,
    `TokenInAnswer`.
    """
    secrets = [access_token.reveal()]

    def send(headers: dict[str, str]) -> transport.Response:
        secrets.extend(value for name, value in headers.items() if name != "Authorization")
        return _send(request, {**request.headers, **headers}, is_safe_to_repeat=is_safe_to_repeat)

    with transport.within(transport.TOTAL_TIMEOUT):
        response = present(request.method, request.url, access_token, proof_key, send)
    challenge = challenge_of(_scheme(proof_key), response.headers.get("WWW-Authenticate", ""))
    scope = challenge.get("scope", "")
    # In the challenge, quotes and their escapes are gone by now.
    said = "\n".join(challenge.values())
    if any(secret in said for secret in secrets) or _contains(response, secrets):
        raise TokenInAnswer
    return ResourceResponse(
        response.status_code,
        response.headers,
        response.content,
        challenge.get("error", ""),
        # The server's text goes into our problem document: only what has the form of a scope does.
        scope if len(scope) <= MAX_SCOPE_LENGTH and _SCOPE.fullmatch(scope) else "",
        _demand(challenge),
    )


def present(
    method: str,
    url: str,
    access_token: Secret,
    proof_key: ProofKey | None,
    send: Callable[[dict[str, str]], transport.Response],
) -> transport.Response:
    """Let `send` send a request with the headers that present the token; twice if the server demands a nonce (L4).

    They are those of a bearer token (RFC 6750 section 2.1), or of one that is bound to `proof_key` (RFC 9449
    section 7.1). Raises what `send` raises.
    """
    authorization = {"Authorization": f"{_scheme(proof_key)} {access_token.reveal()}"}
    if proof_key is None:
        return send(authorization)
    proven = at_resource_server(method, url, access_token)
    return send_with_proof(proof_key, proven, lambda proof: send(proof | authorization), _wants_nonce)


def _scheme(proof_key: ProofKey | None) -> str:
    return TOKEN_TYPE if proof_key else "Bearer"


def _demand(challenge: Mapping[str, str]) -> AuthenticationDemand | None:
    if challenge.get("error") != INSUFFICIENT_USER_AUTHENTICATION:
        return None
    try:
        return demand_in(challenge)
    except UnreadableDemand:
        return None


def _send(request: ResourceRequest, headers: dict[str, str], *, is_safe_to_repeat: bool) -> transport.Response:
    def send() -> transport.Response:
        return transport.send(request.method, request.url, request.body, headers, max_body_bytes=MAX_ANSWER_BYTES)

    try:
        return send()
    except transport.EndpointBlocked:
        raise
    except transport.OutboundError as failure:
        if failure.was_sent or not is_safe_to_repeat:
            raise
        return send()


def _wants_nonce(response: transport.Response) -> bool:
    """Whether the resource server did nothing because it demands a nonce in our proof (RFC 9449 section 9)."""
    challenge = challenge_of(TOKEN_TYPE, response.headers.get("WWW-Authenticate", ""))
    return response.status_code == HTTPStatus.UNAUTHORIZED and challenge.get("error") == USE_NONCE


def _contains(response: transport.Response, secrets: Iterable[str]) -> bool:
    r"""Search headers and body as they came, and again without the escapes of JSON (`\u0065yJ...`) and of addresses.

    An address has the `+`, `/` and `=` of a token as `%2B`, `%2F` and `%3D`: one of a redirect, or of a next page. The
    escapes are undone wherever they are: to decode the body as JSON would lose a member that is sent twice, and leave
    out what is nested deeply or is JSON in lines. Other encoded forms, such as base64 or a token in two pieces, cannot
    be found.
    """
    searched = [secret.encode() for secret in secrets]
    return any(secret in text for text in _read_ways(response) for secret in searched)


def _read_ways(response: transport.Response) -> Iterator[bytes]:
    """Yield headers and body in each way that they can be read. Each takes time, so once for all secrets."""
    lines = [f"{name}: {value}".encode() for name, value in response.headers.items()]
    text = b"\n".join([*lines, response.content])
    for _ in range(_MOST_ESCAPES + 1):
        yield text
        if b"%" in text:
            yield unquote_to_bytes(text)
        if b"\\" not in text:
            return
        text = _ESCAPED.sub(_character, text)


def _character(escape: re.Match[bytes]) -> bytes:
    code, itself = escape.groups()
    return bytes([int(code, 16)]) if code else bytes(itself)


def challenge_of(scheme: str, header: str) -> dict[str, str]:
    """Return the parameters of a scheme's challenges in `WWW-Authenticate` (RFC 9110 section 11.6.1); empty if none.

    The header may name several schemes. A parameter of another scheme, or a text inside a quoted value, does not count.
    A scheme is at the beginning or behind a comma: another word is the credentials of the scheme before it (`token68`).
    What follows a quote without an end is not read.
    """
    position, current, may_begin = 0, "", True
    found: dict[str, str] = {}
    while position < len(header) <= _MAX_CHALLENGE and header[position] != '"':
        if parameter := _PARAMETER.match(header, position):
            name, quoted, plain = parameter.groups()
            if current == scheme.lower():
                found.setdefault(name.lower(), plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
            position, may_begin = parameter.end(), False
        elif word := _SCHEME.match(header, position):
            current = word[0].lower() if may_begin else current
            position, may_begin = word.end(), False
        else:
            may_begin = may_begin or header[position] == ","
            position += 1
    return found
