"""The authorization request and response (RFC 6749 sections 4.1.1 and 4.1.2), PAR (RFC 9126) and `iss` (RFC 9207)."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
from oauthlib.common import add_params_to_uri
from oauthlib.oauth2 import WebApplicationClient

from infrastructure.crypto import Secret, random_token
from oauth_client.answers import read_parameters, refusal_in
from oauth_client.configuration import ClientCredentials, ServerConfiguration
from oauth_client.dpop import ProofKey, new_proof_key
from oauth_client.endpoints import PAR_ENDPOINT, post
from oauth_client.errors import AUTHORIZATION_ERRORS, AuthorizationServerError, ErrorCode, issuer_mismatch, sanitised
from oauth_client.step_up import AuthenticationDemand
from oauth_client.unregistered_codes import AUTHORIZATION_CODES, CANCEL_CODES, DESCRIPTIONS
from oauth_client.validators import is_reserved_parameter

# An absolute URI (RFC 3986) of at most the length that RFC 9101 section 5.2 allows.
_REQUEST_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?=.)[A-Za-z0-9._~:/?@!$&'()*+,;=%-]*")
_MAX_REQUEST_URI_LENGTH: Final = 512
# Servers and proxies accept a request line of about 8 KB (the default of nginx and Apache).
MAX_URL_LENGTH: Final = 8000
# oauthlib builds a whole URL; we use only its query.
_NOWHERE: Final = "https://authorization-endpoint.invalid/"
MAX_PARAMETER_LENGTH: Final = 4096
# RFC 6749 sections 4.1.2 and 4.1.2.1, RFC 9207. Any other parameter is ignored, however often it comes.
_PROTOCOL_PARAMETERS: Final = ("code", "state", "iss", "error", "error_description", "error_uri")
# What a URL contains as it is (RFC 3986 section 2.3).
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9_-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
# Stands for a POST response, whose parameters are never read (B4).
FORM_POST: Final = "form_post"
# JWT Secured Authorization Response Mode (JARM) section 2.3.
_SIGNED: Final = "response"
# Left over from a URL that the server escaped for HTML: `&amp;state=`.
_ESCAPED: Final = "amp;"


def authorization_url(
    configuration: ServerConfiguration,
    proof_key: ProofKey | None = None,
    /,
    *,
    state: str,
    nonce: str,
    code_challenge: str,
) -> str:
    """Return the authorization endpoint's URL with our request. The endpoint's own query is kept (section 3.1).

    `code_challenge` uses S256 (RFC 7636), with or without a client secret. `nonce` is sent if an ID token is requested
    (OpenID Connect Core section 3.1.2.1). The code is bound to `proof_key`, if there is one (RFC 9449 section 10).
    Raises `AuthorizationServerError` if the URL is longer than `MAX_URL_LENGTH`: some server on the way would refuse it
    with an error page that does not say why.
    """
    made_anew = {"state": state, "nonce": nonce, "code_challenge": code_challenge}
    if proof_key is None and all(map(_UNRESERVED.fullmatch, made_anew.values())):
        url, stand_ins = _written(msgspec.json.encode(configuration))
        for name, value in made_anew.items():
            url = url.replace(stand_ins[name], value)
        return _short_enough(url)
    return _short_enough(_url(configuration, _parameters(configuration, **made_anew) + _bound_to(proof_key)))


@lru_cache(maxsize=128)
def _written(configuration: bytes) -> tuple[str, dict[str, str]]:
    """Return the URL of every request of a configuration, and what stands in it for what each request makes anew.

    To write one takes ten times as long as to replace random texts of the same kind in it.
    """
    read = msgspec.json.decode(configuration, type=ServerConfiguration)
    stand_ins = {name: random_token() for name in ("state", "nonce", "code_challenge")}
    return _url(read, _parameters(read, **stand_ins)), stand_ins


def longest_url(configuration: ServerConfiguration, demands: Iterable[AuthenticationDemand]) -> int:
    """Return how many characters the longest URL has of the requests that bring one of the demands each.

    Raises `ValueError` if the endpoint is no URL.
    """
    made_anew = {"state": random_token(), "nonce": random_token(), "code_challenge": random_token()}
    bound = _bound_to(new_proof_key(configuration))
    demanding = [msgspec.structs.replace(configuration, demand=demand) for demand in demands]
    return max(len(_url(one, _parameters(one, **made_anew) + bound)) for one in demanding)


def resource_parameters(configuration: ServerConfiguration) -> list[tuple[str, str]]:
    """Build the `resource` parameters, one for each audience; they are the same in every request (RFC 8707)."""
    return [("resource", resource) for resource in configuration.resource]


def pushed_authorization_url(
    configuration: ServerConfiguration,
    credentials: ClientCredentials,
    proof_key: ProofKey | None = None,
    /,
    *,
    state: str,
    nonce: str,
    code_challenge: str,
) -> str:
    """Push the request (RFC 9126) and return a URL with only `client_id` and `request_uri`.

    With a `proof_key` it has a proof, too (RFC 9449 section 10.1). Blocks for up to 10 seconds: call it outside a
    transaction. Raises `AuthorizationServerError`.
    """
    parameters = _parameters(configuration, state=state, nonce=nonce, code_challenge=code_challenge)
    parameters += _bound_to(proof_key)
    response = post(PAR_ENDPOINT, configuration, parameters, credentials, proof_key)
    if response.status_code != HTTPStatus.CREATED:
        raise refusal_in(PAR_ENDPOINT, response)
    answer = read_parameters(PAR_ENDPOINT, response)
    reference = [
        ("client_id", configuration.client_id),
        ("request_uri", _request_uri(answer.get("request_uri"))),
    ]
    _check_lifetime(answer.get("expires_in"))
    return _short_enough(_url(configuration, reference))


def _url(configuration: ServerConfiguration, parameters: list[tuple[str, str]]) -> str:
    return str(add_params_to_uri(_endpoint(configuration), parameters))


def _short_enough(url: str) -> str:
    if len(url) > MAX_URL_LENGTH:
        raise AuthorizationServerError(
            ErrorCode.AUTHORIZATION_REQUEST_REFUSED,
            f"not sent: its URL has {len(url)} characters; servers accept at most {MAX_URL_LENGTH}",
        )
    return url


def _parameters(
    configuration: ServerConfiguration, *, state: str, nonce: str, code_challenge: str
) -> list[tuple[str, str]]:
    parameters = {"code_challenge": code_challenge, "code_challenge_method": "S256"}
    if configuration.uses_openid:
        parameters["nonce"] = nonce
    if configuration.prompt:
        parameters["prompt"] = configuration.prompt
    if (max_age := configuration.strictest_max_age) is not None:
        parameters["max_age"] = str(max_age)  # as text: the library drops a 0
    if configuration.demand.acr_values:
        parameters["acr_values"] = configuration.demand.acr_values
    written = WebApplicationClient(configuration.client_id).prepare_request_uri(
        _NOWHERE,
        redirect_uri=configuration.redirect_uri,
        scope=configuration.scope_on_the_wire or None,
        state=state,
        **parameters,
    )
    ours = parse_qsl(urlsplit(written).query)
    return ours + resource_parameters(configuration) + _extra_parameters(configuration)


def _bound_to(proof_key: ProofKey | None) -> list[tuple[str, str]]:
    return [("dpop_jkt", proof_key.thumbprint)] if proof_key else []


def _extra_parameters(configuration: ServerConfiguration) -> list[tuple[str, str]]:
    """Drop reserved names again: the validator refuses them, but SQL could have written the row (B20)."""
    extra = configuration.extra_authorization_parameters
    allowed = [(name, value) for name, value in extra.items() if not is_reserved_parameter(name)]
    return _beside(configuration.demand, allowed)


def _endpoint(configuration: ServerConfiguration) -> str:
    """Return the authorization endpoint, in whose own query an API's demand comes first, too (P32)."""
    parts = urlsplit(configuration.authorization_endpoint)
    query = parse_qsl(parts.query, keep_blank_values=True)
    kept = _beside(configuration.demand, query)
    return configuration.authorization_endpoint if kept == query else parts._replace(query=urlencode(kept)).geturl()


def _beside(demand: AuthenticationDemand, parameters: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Take out of the admin's parameters what a demand takes the place of: of two, a server may read either (P32).

    That is `acr_values`, and in `claims` (OpenID Connect Core section 5.5) `acr` and `auth_time`.
    """
    taken = {"acr"} if demand.acr_values else set()
    taken |= set() if demand.max_age is None else {"auth_time"}
    kept = []
    for name, value in parameters:
        match name.lower().removesuffix("[]"):
            case "acr_values" if demand.acr_values:
                continue
            case "claims" if taken:
                kept.append((name, _without_claims(value, taken)))
            case _:
                kept.append((name, value))
    return kept


def _without_claims(text: str, names: set[str]) -> str:
    """Take claims out of the request of them. One that nobody can read asks for nothing: `{}`."""
    try:
        asked = msgspec.json.decode(text, type=dict[str, dict[str, Any] | None])
    except (msgspec.DecodeError, RecursionError):
        return "{}"
    if not any(names & set(claims or ()) for claims in asked.values()):
        return text
    kept = {
        place: claims and {name: value for name, value in claims.items() if name not in names}
        for place, claims in asked.items()
    }
    return msgspec.json.encode(kept).decode()


def _request_uri(value: object) -> str:
    """Accept only the characters of a URI: the value is sent to the consumer's browser."""
    if not isinstance(value, str) or len(value) > _MAX_REQUEST_URI_LENGTH or not _REQUEST_URI.fullmatch(value):
        raise PAR_ENDPOINT.invalid("request_uri is not an address of at most 512 characters")
    return value


def _check_lifetime(value: object) -> None:
    """Require a positive lifetime (RFC 9126 section 2.2). Its length is irrelevant: the browser follows at once."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise PAR_ENDPOINT.invalid("expires_in is not a positive whole number of seconds")


class Query(Protocol):
    """The part of Django's `QueryDict` that is used here."""

    def __iter__(self) -> Iterator[str]: ...

    def getlist(self, key: str, /) -> list[str]: ...


class MalformedAuthorizationResponse(Exception):
    """The query is not a response of RFC 6749 section 4.1.2. It must not be used and changes nothing.

    The message is a reason for the log. It contains only parameter names and known codes.
    """


@dataclass(frozen=True, slots=True)
class AuthorizationResponse:
    """A parsed authorization response with either `code` or `error`. `iss` and `scope` are None if missing.

    `scope` is no parameter of RFC 6749, but some servers report the granted scope only here. The browser could have
    changed it: see `TokenResponse.narrowed`.
    """

    state: str = field(repr=False)
    code: Secret | None
    iss: str | None
    error: ErrorCode | None
    error_description: str
    scope: str | None = None


def parse_authorization_response(query: Query, denial_codes: Collection[str] = ()) -> AuthorizationResponse:
    """Parse the callback's query. Unknown parameters are ignored (RFC 6749 section 4.1.2).

    `error` becomes `access_denied` for the server's `denial_codes` and for known codes of a cancelled sign-in. Unknown
    codes become `authorization_request_refused` (B14). Raises `MalformedAuthorizationResponse` for a repeated protocol
    parameter (section 3.1), a missing state, neither code nor error, and for a state, code or iss that is longer than
    4,096 characters or has characters outside of RFC 6749 appendix A (B13).
    """
    values = {name: _only_value(query, name) for name in query if name in _PROTOCOL_PARAMETERS}
    state, code, iss = (_protocol_value(values, name) for name in ("state", "code", "iss"))
    error, description = values.get("error", ""), values.get("error_description", "")
    if not state or not (code or error):
        raise MalformedAuthorizationResponse(_what_is_missing(query, state=state, code=code, error=error))
    return AuthorizationResponse(
        state=state,
        # A code beside an error is not part of the protocol. Whoever added it wants it exchanged.
        code=Secret(code) if code and not error else None,
        iss=iss or None,
        error=_error_code(error, description, denial_codes) if error else None,
        error_description=sanitised(" ".join(filter(None, [_unless_registered(error), description]))),
        scope=_if_single(query, "scope"),
    )


def issuer_matches(configuration: ServerConfiguration, response: AuthorizationResponse) -> bool:
    """Compare `iss` with the configured issuer as exact strings (RFC 9207 section 2.4).

    True without a configured issuer: each server has its own redirect URI, which tells servers apart (C1).
    """
    if not configuration.issuer:
        return True
    if response.iss is None:
        return not configuration.authorization_response_iss_parameter_supported
    return response.iss == configuration.issuer


def check_issuer(configuration: ServerConfiguration, response: AuthorizationResponse) -> None:
    """Refuse a code or error of another server, the mix-up attack (C2).

    Raises `AuthorizationServerError` with `issuer_mismatch`. An error response without `iss` is accepted: servers that
    promise `iss` omit it from errors (C3), and there is no code to lose.
    """
    missing = response.iss is None
    if response.error is not None and missing:
        return
    if not issuer_matches(configuration, response):
        found = (
            f"iss is missing, configured {configuration.issuer}"
            if missing
            else f"iss {issuer_mismatch(configuration.issuer, response.iss)}"
        )
        raise AuthorizationServerError(ErrorCode.ISSUER_MISMATCH, found)


def _if_single(query: Query, name: str) -> str | None:
    """Read an optional parameter outside of the protocol. A repeated one is ignored, not an error."""
    values = query.getlist(name) if name in query else []
    return values[0] if len(values) == 1 else None


def _only_value(query: Query, name: str) -> str:
    values = query.getlist(name)
    if len(values) != 1:
        raise MalformedAuthorizationResponse(f"{name} is given twice")
    return values[0]


def _protocol_value(values: dict[str, str], name: str) -> str:
    value = values.get(name, "")
    if len(value) > MAX_PARAMETER_LENGTH:
        raise MalformedAuthorizationResponse(f"{name} is longer than {MAX_PARAMETER_LENGTH} characters")
    if not _VALUE.fullmatch(value):
        raise MalformedAuthorizationResponse(f"{name} contains characters that are not allowed")
    return value


def _what_is_missing(query: Query, *, state: str, code: str, error: str) -> str:
    """Name what is missing and the likely cause, because the admin has no other information."""
    names = set(query)
    if not names:
        return "there are no parameters: does the server answer in the fragment (response_mode, response_type)?"
    if any(f"{_ESCAPED}{name}" in names for name in _PROTOCOL_PARAMETERS):
        return "& is written as &amp;: the server escaped the address for HTML"
    if names == {FORM_POST}:
        return "it was a POST, which comes without its cookie: does the server use the response_mode form_post?"
    if _SIGNED in names:
        return "it is a signed response (JARM), which is not supported: does the server use a response_mode of JWTs?"
    missing = [] if state else ["state is missing"]
    missing += [] if code or error else ["code and error are missing"]
    folded = error.lower()
    is_known = folded in AUTHORIZATION_ERRORS | AUTHORIZATION_CODES.keys() or _in_british(folded) in CANCEL_CODES
    known = folded if is_known else ""
    return ", ".join([*missing, *([f"error is {known}"] if known else [])])


def _error_code(error: str, description: str, denial_codes: Collection[str]) -> ErrorCode:
    """Map a code to ours. Case is ignored, and both spellings of "cancelled" are accepted."""
    folded = error.lower()
    if _in_british(folded) in CANCEL_CODES or folded in {code.lower() for code in denial_codes}:
        return ErrorCode.ACCESS_DENIED
    if folded not in AUTHORIZATION_ERRORS:
        return AUTHORIZATION_CODES.get(folded, ErrorCode.AUTHORIZATION_REQUEST_REFUSED)
    said = description.lower()
    return next((code for of, part, code in DESCRIPTIONS if of == folded and part in said), ErrorCode(folded))


def _in_british(error: str) -> str:
    return error.replace("canceled", "cancelled")


def _unless_registered(error: str) -> str:
    return "" if error in AUTHORIZATION_ERRORS else error
