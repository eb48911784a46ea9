"""The doctor's step at the token endpoint: a request with a made-up code, and the same request with a wrong secret.

A server may lock a client after some wrong secrets, so a run sends only one. If the server refuses our own secret, the
secret is sent in up to six other ways: other methods and encodings, and without PKCE's `code_verifier`.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from string import digits
from typing import Any, Final
from urllib.parse import quote

from brands.doctor.clock import clock
from brands.doctor.examination import NO_PAGE, Examination, Unanswered
from brands.doctor.findings import Finding, found
from infrastructure.crypto import Secret, new_signing_key, random_token
from oauth_client import AuthorizationServerError, ClientCredentials, ErrorCode, ServerConfiguration, transport
from oauth_client.answers import error_in, members_of_refusal, refusal
from oauth_client.endpoints import TOKEN_ENDPOINT, post

_FIRST_REDIRECT, _FIRST_CLIENT_ERROR = 300, 400
_SAID_BY_CODE: Final = {
    ErrorCode.UNSUPPORTED_GRANT_TYPE: "grant_not_allowed",
    ErrorCode.REDIRECT_URI_MISMATCH: "redirect_uri_refused",
    ErrorCode.INVALID_TARGET: "resource_refused",
}
# RFC 9449 sections 5 and 8: the server wants a proof with each token request.
_ABOUT_DPOP: Final = ("invalid_dpop_proof", "use_dpop_nonce")
# Hexadecimal digits are groups of their own, because %ab is an encoded character and %xy is not.
_ALIKE: Final = (digits, "abcdef", "ABCDEF", "ghijklmnopqrstuvwxyz", "GHIJKLMNOPQRSTUVWXYZ")
_FORM: Final = {
    "token_endpoint_auth_method": "client_secret_basic",
    "basic_encoding": "form",
    "send_client_id_with_basic": False,
}
_RAW: Final = _FORM | {"basic_encoding": "raw"}
_POST: Final = _FORM | {"token_endpoint_auth_method": "client_secret_post"}
_BESIDE: Final = {"send_client_id_with_basic": True}
# In the words of the admin's form.
_METHODS: Final[dict[str, dict[str, Any]]] = {
    "client_secret_basic with the encoding form": _FORM,
    "client_secret_basic with the encoding raw": _RAW,
    "client_secret_post": _POST,
    "client_secret_basic with the encoding form and client_id beside it": _FORM | _BESIDE,
    "client_secret_basic with the encoding raw and client_id beside it": _RAW | _BESIDE,
}


@dataclass(frozen=True)
class _Answer:
    """How a token endpoint answered a made-up code. `error` is our error code, `words` are status and server's code.

    `names_error` tells a token endpoint's own answer from that of whatever stands in front of it. A name of the status,
    such as "Unauthorized", is what frameworks write by themselves.
    """

    status: int
    error: ErrorCode
    words: str
    names_error: bool
    media_type: str
    is_json: bool
    is_named_after_status: bool
    is_about_dpop: bool
    grants: bool
    date: str

    @classmethod
    def of(cls, response: transport.Response) -> "_Answer":
        members = members_of_refusal(response.content)
        error, description = error_in(members)
        refused = refusal(TOKEN_ENDPOINT, response.status_code, error, description)
        status_name = _status_name(response.status_code)
        return cls(
            status=response.status_code,
            error=refused.error,
            words=refused.detail,
            names_error=isinstance(error, str) and error.lower() not in {"", status_name},
            is_named_after_status=status_name in [str(value).lower() for value in members.values()],
            is_about_dpop=error in _ABOUT_DPOP,
            media_type=response.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
            is_json=bool(members),
            grants=response.status_code == HTTPStatus.OK and "access_token" in members and not error,
            date=response.headers.get("Date", ""),
        )

    @property
    def is_busy(self) -> bool:
        return self.error in {ErrorCode.SERVER_ERROR, ErrorCode.TEMPORARILY_UNAVAILABLE}

    @property
    def is_page(self) -> bool:
        return self.media_type == "text/html" and not self.names_error

    @property
    def refuses_client(self) -> bool:
        return self.error in {ErrorCode.INVALID_CLIENT, ErrorCode.UNAUTHORIZED_CLIENT} and not self.is_page


def token_endpoint(examination: Examination) -> Iterator[Finding]:
    """Send a made-up code. A server that checks the client first shows by its error whether it knows our client."""
    try:
        answer = _send_made_up_code(examination)
    except AuthorizationServerError as error:
        yield found("request_not_sent", field="token_endpoint_auth_method", detail=error.detail)
        return
    yield from clock(examination, answer.date)
    yield from _judge(examination, answer)
    if answer.names_error and answer.media_type not in {"application/json", "application/problem+json"}:
        yield found("token_content_type", tried=_tried(examination), answer=answer.words)


def _judge(examination: Examination, answer: _Answer) -> Iterator[Finding]:
    said: dict[str, Any] = {"tried": _tried(examination), "answer": answer.words}
    if code := _by_answer(answer, had_proof=examination.configuration.dpop_bound_access_tokens):
        yield found(code, redirect_uri=examination.configuration.redirect_uri, **said)
    elif answer.refuses_client and answer.names_error:
        yield _refused(examination, said)
    else:
        yield _compare(examination, answer)


def _by_answer(answer: _Answer, *, had_proof: bool) -> str:
    """Return the finding's code if no other request is needed to know it; otherwise an empty string."""
    if answer.grants:
        return "token_for_any_code"
    if answer.is_busy:
        return "token_endpoint_busy"
    if answer.names_error:
        return _about_dpop(answer, had_proof=had_proof) or _SAID_BY_CODE.get(answer.error, "")
    if _FIRST_REDIRECT <= answer.status < _FIRST_CLIENT_ERROR:
        return "token_endpoint_redirects"
    if answer.status in NO_PAGE and (answer.is_named_after_status or not answer.is_json):
        return "token_endpoint_not_found"
    if answer.is_page:
        return "token_endpoint_error_page" if answer.status >= _FIRST_CLIENT_ERROR else "token_endpoint_page"
    return ""


def _about_dpop(answer: _Answer, *, had_proof: bool) -> str:
    if not answer.is_about_dpop:
        return ""
    return "dpop_proof_refused" if had_proof else "dpop_demanded"


def _compare(examination: Examination, answer: _Answer) -> Finding:
    """Send the same request with a wrong secret. Only a different answer proves that the server checks the secret."""
    control = _send_made_up_code(_with_wrong_client(examination))
    said: dict[str, Any] = {
        "tried": f"{_tried(examination)}; then the same with a wrong client",
        "answer": f"{answer.words}; then {control.words}",
    }
    # A wrong client that gets no error code may have met a firewall, which had enough after the first request.
    proves = control.refuses_client or (answer.error == ErrorCode.INVALID_GRANT and control.names_error)
    if proves and not control.is_busy and answer.words != control.words:
        return found("client_accepted", **said)
    # MCP's Python SDK says invalid_request if client_id is not beside Basic. A bare 401 may be about the code, too.
    if answer.error in {ErrorCode.INVALID_REQUEST, ErrorCode.INVALID_CLIENT} and (method := _other_method(examination)):
        return found("client_method_differs", method=method, **said)
    is_unclear = answer.error == ErrorCode.TOKEN_REQUEST_REFUSED
    return found("token_endpoint_unclear" if is_unclear else "client_not_proven", **said)


def _refused(examination: Examination, said: dict[str, Any]) -> Finding:
    match examination.configuration.token_endpoint_auth_method:
        case "private_key_jwt":
            return found("key_refused", **said)
        case "none":
            return found("public_client_refused", **said)
    if method := _other_method(examination):
        return found("client_method_differs", method=method, **said)
    return found("pkce_refused" if _refuses_pkce(examination) else "client_refused", **said)


def _other_method(examination: Examination) -> str:
    """Send the same secret in the other ways that servers accept. Return the name of the way that works, or ""."""
    configuration, secret = examination.configuration, examination.credentials.client_secret
    if secret is None or configuration.token_endpoint_auth_method == "none":
        return ""
    texts = (configuration.client_id, secret.reveal())
    encodings_differ = any(quote(text, safe="") != text for text in texts)
    for words, changes in _METHODS.items():
        other = examination.changed(**changes)
        is_same = _on_the_wire(other.configuration) == _on_the_wire(configuration)
        if is_same or (changes["basic_encoding"] == "raw" and not encodings_differ):
            continue
        answer = _send_made_up_code(other)
        if answer.error == ErrorCode.INVALID_GRANT:
            return words
        if answer.is_busy:
            return ""
    return ""


def _on_the_wire(configuration: ServerConfiguration) -> tuple[str, ...]:
    """Return the settings that change a request: the settings of Basic count only if Basic is used."""
    method = configuration.token_endpoint_auth_method
    if method != "client_secret_basic":
        return (method,)
    return method, configuration.basic_encoding, str(configuration.send_client_id_with_basic)


def _refuses_pkce(examination: Examination) -> bool:
    """Whether the server accepts our client if the request has no `code_verifier`, as LinkedIn does."""
    in_body = examination.changed(**_POST)
    is_same = _on_the_wire(in_body.configuration) == _on_the_wire(examination.configuration)
    ways = [examination, *([] if is_same else [in_body])]
    return any(_send_made_up_code(way, with_verifier=False).error == ErrorCode.INVALID_GRANT for way in ways)


def _send_made_up_code(examination: Examination, *, with_verifier: bool = True) -> _Answer:
    """Send a code that nobody issued. Raises `Unanswered`; `AuthorizationServerError` if nothing can be sent."""
    configuration = examination.configuration
    parameters = [
        ("grant_type", "authorization_code"),
        ("code", random_token()),
        ("redirect_uri", configuration.redirect_uri),
        *([("code_verifier", random_token(48))] if with_verifier else []),
        *(("resource", resource) for resource in configuration.resource),
    ]
    try:
        response = post(TOKEN_ENDPOINT, configuration, parameters, examination.credentials, examination.proof_key)
    except AuthorizationServerError as error:
        if error.unanswered:
            raise Unanswered(error.unanswered, "token_endpoint", _tried(examination)) from None
        raise
    examination.heard()
    return _Answer.of(response)


def _with_wrong_client(examination: Examination) -> Examination:
    """Return the examination with a random secret or key, or with a random client id if the client has neither."""
    method, secret = examination.configuration.token_endpoint_auth_method, examination.credentials.client_secret
    if method == "private_key_jwt":
        return replace(examination, credentials=ClientCredentials(signing_key=new_signing_key()[0]))
    if secret is None:
        return examination.changed(client_id=random_token())
    return replace(examination, credentials=ClientCredentials(client_secret=_wrong_secret(secret)))


def _wrong_secret(secret: Secret) -> Secret:
    """Replace only letters and digits. All other characters stay, so that a wrong encoding fails as with our secret.

    oidc-provider answers `invalid_request` to a Basic header in the wrong encoding. It would answer `invalid_client` to
    a wrong secret that is the same in each encoding. That difference would prove nothing about the secret.
    """
    wrong = "".join(_other_character(character) for character in secret.reveal())
    return Secret(wrong if wrong != secret.reveal() else random_token())


def _other_character(character: str) -> str:
    group = next((group for group in _ALIKE if character in group), character)
    return secrets.choice(group)


def _status_name(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.lower()
    except ValueError:  # a status that is not registered
        return ""


def _tried(examination: Examination) -> str:
    return f"POST to {examination.configuration.token_endpoint} with a made-up code"
