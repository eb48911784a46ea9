"""The doctor's step at the authorization endpoint: our request, and the same with an unregistered redirect URI."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from brands.doctor.examination import NO_PAGE, Examination, Unanswered
from brands.doctor.findings import Finding, found
from infrastructure.crypto import random_token, s256_code_challenge
from oauth_client import (
    MEANINGS,
    AuthorizationServerError,
    ErrorCode,
    authorization_url,
    pushed_authorization_url,
    transport,
)
from oauth_client.answers import error_in, members_of_refusal
from oauth_client.unregistered_codes import AUTHORIZATION_CODES, ENDPOINT_CODES

PAR: Final = "pushed_authorization_request_endpoint"
# The form of all registered codes, which hardly any secret has. A sign-in page may have `error=false` in its address.
_ERROR_CODE: Final = re.compile(r"(?!(?:false|none|null|undefined)\Z)[a-z_]{3,40}")
_KNOWN_CODES: Final = frozenset({*ErrorCode, *AUTHORIZATION_CODES, *ENDPOINT_CODES})
# Interaction ids and the like, which differ from one request to the next.
_RANDOM_SEGMENT: Final = re.compile(r"(?=[^/]*\d)[^/]{6,}|[^/]{20,}")
_BUSY: Final = frozenset({ErrorCode.SERVER_ERROR, ErrorCode.TEMPORARILY_UNAVAILABLE})
# A page for people: RFC 6749 section 4.1.2.1 lets a server redirect neither for an unknown client nor redirect URI.
_REFUSED_ON_A_PAGE: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})
_ABOUT_REGISTRATION: Final = frozenset(
    {
        ErrorCode.INVALID_CLIENT,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.REDIRECT_URI_MISMATCH,
        ErrorCode.UNAUTHORIZED_CLIENT,
    }
)
_FIELDS: Final = {
    ErrorCode.INVALID_CLIENT: "client_id",
    ErrorCode.INVALID_SCOPE: "scope",
    ErrorCode.INVALID_TARGET: "resource",
    ErrorCode.UNAUTHORIZED_CLIENT: "client_id",
}
# In place of what the table of codes says: the doctor has no consumer who could have refused.
_WITHOUT_A_CONSUMER: Final = {
    ErrorCode.ACCESS_DENIED: (
        "Nobody was asked: a rule of the server refuses our client, or requests from our network.",
        "Look at the server's rules and its log for our client.",
    ),
    ErrorCode.AUTHORIZATION_REQUEST_REFUSED: (
        "It is a code of the server's own.",
        "Look the code up at the server's vendor.",
    ),
}
_FIRST_CLIENT_ERROR, _FIRST_SERVER_ERROR = 400, 500
_MAY_NOT_PUSH: Final = (
    "If this client may not push, tick the endpoint under what is not used, although it is announced."
)


@dataclass(frozen=True)
class _Arrival:
    """How a server answered a browser that has no cookies. `location` has neither query nor fragment."""

    status: int
    location: str
    error: str
    has_code: bool

    @classmethod
    def of(cls, response: transport.Response) -> "_Arrival":
        location, query = _sent_to(response)
        error = query.get("error", [""])[0] or _error_in_body(response)
        shown = error.lower() if error.lower() in _KNOWN_CODES or _ERROR_CODE.fullmatch(error) else ""
        return cls(response.status_code, location, shown, "code" in query)

    @property
    def meant(self) -> ErrorCode:
        """Our error code for the server's error."""
        if self.error in set(ErrorCode):
            return ErrorCode(self.error)
        known = AUTHORIZATION_CODES.get(self.error) or ENDPOINT_CODES.get(self.error)
        return known or ErrorCode.AUTHORIZATION_REQUEST_REFUSED

    @property
    def is_busy(self) -> bool:
        by_status = self.status == HTTPStatus.TOO_MANY_REQUESTS or self.status >= _FIRST_SERVER_ERROR
        return self.meant in _BUSY if self.error else by_status

    @property
    def is_refused(self) -> bool:
        return bool(self.error) or _FIRST_CLIENT_ERROR <= self.status < _FIRST_SERVER_ERROR

    @property
    def words(self) -> str:
        went = ", a redirect" if self.location else ""
        return f"HTTP status {self.status}{went}" + (f", error {self.error}" if self.error else "")

    def looks_like(self, other: "_Arrival") -> bool:
        return (self.status, self.error, _without_random_segments(self.location)) == (
            other.status,
            other.error,
            _without_random_segments(other.location),
        )


def authorization_endpoint(examination: Examination) -> Iterator[Finding]:
    """Send the request as a browser without cookies would, first with our redirect URI.

    Check where it is redirected.
    """
    try:
        arrival = _ask(examination)
    except AuthorizationServerError as error:
        yield _not_taken(examination, error)
        return
    said: dict[str, Any] = {"tried": _tried(examination), "answer": arrival.words}
    ours = examination.configuration.redirect_uri
    if arrival.is_busy:
        yield found("authorization_endpoint_busy", **said)
    elif arrival.error:
        yield _refused(arrival, ours, said)
    elif arrival.status in NO_PAGE:
        yield found("authorization_endpoint_not_found", **said)
    elif arrival.status in _REFUSED_ON_A_PAGE:
        yield found("client_or_redirect_uri_refused", redirect_uri=ours, error="", **said)
    else:
        if arrival.has_code and arrival.location == ours:
            yield found("code_without_sign_in", **said)
        yield _compare(examination, arrival)


def _refused(arrival: _Arrival, redirect_uri: str, said: dict[str, Any]) -> Finding:
    meant = arrival.meant
    if arrival.location != redirect_uri and meant in {*_ABOUT_REGISTRATION, ErrorCode.AUTHORIZATION_REQUEST_REFUSED}:
        named = f" with {arrival.error}"
        return found("client_or_redirect_uri_refused", redirect_uri=redirect_uri, error=named, **said)
    of_the_table = (MEANINGS[meant].plain_cause, MEANINGS[meant].plain_remedy)
    cause, remedy = _WITHOUT_A_CONSUMER.get(meant, of_the_table)
    values: dict[str, Any] = {"error": arrival.error, "cause": cause, "remedy": remedy}
    return found("authorization_refused", field=_FIELDS.get(meant, ""), **values, **said)


def _compare(examination: Examination, arrival: _Arrival) -> Finding:
    """Send the request with an unregistered redirect URI. Only a different answer proves that ours is registered.

    If a server sends codes to any URI, an attacker gets them by a link (RFC 9700 section 4.1).
    """
    ours = examination.configuration.redirect_uri
    stranger = examination.changed(redirect_uri=f"{ours}/not-registered")
    tried = f"{_tried(examination)}; then the same with a redirect URI that is not registered"
    try:
        control = _ask(stranger)
    except AuthorizationServerError as error:
        refused = error.error not in _BUSY
        code = "redirect_uri_registered" if refused else "redirect_uri_not_proven"
        return found(code, redirect_uri=ours, tried=tried, answer=f"{arrival.words}; then {error.detail}")
    said: dict[str, Any] = {"tried": tried, "answer": f"{arrival.words}; then {control.words}"}
    if control.location.startswith(stranger.configuration.redirect_uri):
        return found("redirects_to_any_address", **said)
    is_sign_in_page = arrival.status == HTTPStatus.UNAUTHORIZED  # some servers show it so
    if arrival.is_refused and not is_sign_in_page and arrival.looks_like(control):
        return found("authorization_endpoint_refuses", **said)
    proves = not control.is_busy and not arrival.looks_like(control) and (control.is_refused or not arrival.is_refused)
    if proves and not control.is_refused:
        proves = _is_repeated(examination, arrival)
    return found("redirect_uri_registered" if proves else "redirect_uri_not_proven", redirect_uri=ours, **said)


def _is_repeated(examination: Examination, arrival: _Arrival) -> bool:
    """Whether our request gets the same answer again. If it gets another address each time, an address says nothing."""
    try:
        return _ask(examination).looks_like(arrival)
    except AuthorizationServerError:
        return False


def _not_taken(examination: Examination, error: AuthorizationServerError) -> Finding:
    """Say why a pushed request was refused, or why none was sent."""
    configuration = examination.configuration
    if not configuration.pushed_authorization_request_endpoint:
        return found("request_not_sent", field="scope", detail=error.detail)
    said: dict[str, Any] = {
        "tried": f"POST to {configuration.pushed_authorization_request_endpoint}",
        "detail": error.detail,
    }
    if error.error in _BUSY:
        return found("push_busy", **said)
    remedy = error.meaning.plain_remedy
    if error.error == ErrorCode.INVALID_CLIENT:  # mostly what the token endpoint's step says, too
        remedy = f"{remedy} {_MAY_NOT_PUSH}"
    elif error.error in {ErrorCode.UNAUTHORIZED_CLIENT, ErrorCode.AUTHORIZATION_REQUEST_REFUSED}:
        remedy = f"{_MAY_NOT_PUSH} Otherwise: {remedy}"
    elif error.error in {ErrorCode.INVALID_REQUEST, ErrorCode.REDIRECT_URI_MISMATCH}:
        remedy = f"Register this redirect URI exactly: {configuration.redirect_uri} If it is: {remedy}"
    return found("push_refused", remedy=remedy, **said)


def _ask(examination: Examination) -> _Arrival:
    """Send the authorization request and return the answer.

    Raises `Unanswered`; `AuthorizationServerError` if the request was not pushed or not sent.
    """
    configuration = examination.configuration
    proof_key, request = (
        examination.proof_key,
        {
            "state": random_token(),
            "nonce": random_token(),
            "code_challenge": s256_code_challenge(random_token(48)),
        },
    )
    try:
        if configuration.pushed_authorization_request_endpoint:
            url = pushed_authorization_url(configuration, examination.credentials, proof_key, **request)
            examination.heard()
        else:
            url = authorization_url(configuration, proof_key, **request)
        response = transport.get(url, accept="text/html")
    except AuthorizationServerError as error:
        if error.unanswered:
            tried = f"POST to {configuration.pushed_authorization_request_endpoint}"
            raise Unanswered(error.unanswered, PAR, tried) from None
        examination.heard()
        raise
    except transport.OutboundError as error:
        raise Unanswered(error, "authorization_endpoint", _tried(examination)) from None
    examination.heard()
    return _Arrival.of(response)


def _tried(examination: Examination) -> str:
    return f"authorization request to {examination.configuration.authorization_endpoint}, without a browser"


def _without_random_segments(location: str) -> str:
    return _RANDOM_SEGMENT.sub("*", location.split("://", 1)[-1])


def _sent_to(response: transport.Response) -> tuple[str, dict[str, list[str]]]:
    """Return the URL of a redirect without query and fragment, and the parameters in these two."""
    if not response.is_redirect:
        return "", {}
    try:
        parts = urlsplit(response.headers["Location"])
    except ValueError:  # such as https://[
        return "", {}
    parameters = parse_qs(parts.fragment) | parse_qs(parts.query)
    return parts._replace(query="", fragment="").geturl(), parameters


def _error_in_body(response: transport.Response) -> str:
    """Read a code of our table from JSON. `unauthorized` and `forbidden` are what firewalls and frameworks write."""
    if "json" not in response.headers.get("Content-Type", ""):
        return ""
    error = str(error_in(members_of_refusal(response.content))[0]).lower()
    return error if error in _KNOWN_CODES - {"unauthorized"} else ""
