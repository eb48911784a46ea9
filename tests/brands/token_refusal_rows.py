"""The type of a row (a token response and its expected result), the rows with an error status (E1), and DPoP's."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from tests.hostile_token_endpoint import http_answer, token_answer


@dataclass(frozen=True)
class Row:
    """One response and its expected result: error code and detail, or what differs from the usual token."""

    id: str
    answer: bytes
    error: str = ""
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    configured: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.id


def refused(row: str, answer: bytes, detail: str, error: str = "invalid_token_response", **configured: Any) -> Row:
    return Row(row, answer, error, detail, configured=configured)


def _no(
    what: str, status: int, body: bytes, kind: str, error: str = "invalid_grant", *, shown: str = "...", words: str = ""
) -> Row:
    """A response with an error. `shown` is the code in the detail if it differs from `error`."""
    code = error if shown == "..." else shown
    detail = f"HTTP status {status}" + (f", error {code}" if code else "") + words
    row = "E2" if status == HTTPStatus.OK else "E1"
    return refused(f"{row} error {what}", http_answer(body, status, Content_Type=kind), detail, error)


def _none(what: str, body: bytes, kind: str, detail: str) -> Row:
    """A success status without a known error code, which is therefore parsed strictly."""
    return refused(f"E4 {what}", http_answer(body, Content_Type=kind), detail)


_JSON: Final = "application/json"
_GRANT: Final = b'{"error": "invalid_grant"}'
_PKCE: Final = "; the server names PKCE's code_verifier or code_challenge as the cause"

_SHOPIFY: Final = "The authorization code was not found or was already used"
_LINKEDIN: Final = (
    "Unable to retrieve access token: appid/redirect uri/code verifier does not match authorization code."
)


def _vendors() -> list[Row]:
    """Errors in vendors' own formats, and some that only look like them."""
    fault = '{{"fault": {{"faultstring": "x", "detail": {{"errorcode": "{}"}}}}}}'
    described = '{{"error": "{}", "error_description": "{}"}}'
    gone, unknown, meant = "invalid_grant", "token_request_refused", "; its description means invalid_grant"
    bodies = [
        ("Strava's, of a code", '{"errors": [{"resource": "AuthorizationCode", "field": "code"}]}', gone, "...", ""),
        ("Strava's, of an old code", '{"errors": [{"resource": "AuthorizationCode", "field": ""}]}', gone, "...", ""),
        ("Strava's, of us", '{"errors": [{"resource": "Application", "field": ""}]}', "invalid_client", "...", ""),
        ("Strava's, of something else", '{"errors": [{"resource": "Athlete", "field": "id"}]}', unknown, "", ""),
        ("Fitbit's", '{"errors": [{"errorType": "invalid_grant", "message": "x"}], "success": false}', gone, "...", ""),
        ("of errors that are none", '{"errors": [], "fault": null}', unknown, "", ""),
        ("of errors that are texts", '{"errors": ["invalid_grant"]}', unknown, "", ""),
        ("Apigee's, of a code", '{"ErrorCode": "invalid_request", "Error": "Invalid Authorization Code"}', gone,
         "invalid_request", meant),
        ("Apigee's, of something else", '{"ErrorCode": "invalid_request", "Error": "Required param : redirect_uri"}',
         "invalid_request", "...", ""),
        ("Apigee's fault, of a client", fault.format("oauth.v2.invalid_client-invalid_client_id"), "invalid_client",
         "...", ""),
        ("Apigee's fault, of a code", fault.format("steps.oauth.v2.invalid_request-authorization_code_invalid"), gone,
         "...", ""),
        ("Apigee's fault, of an old code", fault.format("steps.oauth.v2.authorization_code_expired"), gone,
         "authorization_code_expired", ""),
        ("Apigee's fault, of something else", fault.format("steps.S3cret.Echoed"), unknown, "", ""),
        ("of a fault that is none", '{"fault": {"detail": "invalid_grant"}}', unknown, "", ""),
        ("Shopify's, of a code", described.format("invalid_request", _SHOPIFY), gone, "invalid_request", meant),
        ("LinkedIn's, of a code", described.format("invalid_request", _LINKEDIN), gone, "invalid_request", meant),
        ("LinkedIn's, as it was", described.format("invalid_redirect_uri", _LINKEDIN), gone, "invalid_redirect_uri",
         meant),
        ("of a known description, beside another code", described.format("server_error", _SHOPIFY), "server_error",
         "...", ""),
    ]  # fmt: skip
    return [
        _no(what, 400, body.encode(), _JSON, error, shown=shown, words=words)
        for what, body, error, shown, words in bodies
    ]


REFUSALS: Final = [
    _no("of a spent code, in a 403", 403, _GRANT, _JSON),
    _no("as text", 400, _GRANT, "text/plain"),
    _no("as HTML", 400, _GRANT, "text/html; charset=utf-8"),
    _no("of no type", 400, _GRANT, ""),
    _no("as a problem", 422, b'{"type": "about:blank", "error": "invalid_grant"}', "application/problem+json"),
    _no(
        "in Latin-1", 400, b'{"error": "invalid_grant", "error_description": "d\xe9j\xe0"}', f"{_JSON}; charset=latin-1"
    ),
    _no("with a byte order mark", 400, b"\xef\xbb\xbf" + _GRANT, _JSON),
    _no("in UTF-16", 400, _GRANT.decode().encode("utf-16"), f"{_JSON}; charset=utf-16"),
    _no("a form as text", 400, b"error=invalid_grant&error_description=gone\n", "text/plain"),
    _no("in capitals", 400, b'{"error": "INVALID_GRANT"}', "text/plain"),
    _no("of a code, in a 401", 401, _GRANT, _JSON),
    _no("that is not known, in a 401", 401, b'{"error": "theirs"}', _JSON, "token_request_refused", shown="theirs"),
    _no("by the status's name, in a 401", 401, b'{"status": 401, "error": "Unauthorized"}', _JSON, "invalid_client"),
    _no("by the status's name", 400, b'{"error": "Bad Request"}', _JSON, "token_request_refused", shown=""),
    *_vendors(),
    _no("without a code, in a 401", 401, b"<h1>Unauthorized</h1>", "text/html", "invalid_client", shown=""),
    _no("in a page", 400, b"<p>error=invalid_grant&x=y</p>", "text/html", "token_request_refused", shown=""),
    _no("of two codes", 400, b'{"error": "a_b", "error": "invalid_grant"}', _JSON, "token_request_refused", shown=""),
    _no("of PKCE", 400, b'{"error": "invalid_grant", "error_description": "PKCE failed: planted"}', _JSON, words=_PKCE),
    _no(
        "of code_verifier",
        400,
        b'{"error": "invalid_request", "error_description": "Missing code_verifier"}',
        "text/plain",
        "invalid_request",
        words=_PKCE,
    ),
    _no("of a resource", 400, b'{"error": "invalid_target"}', _JSON, "invalid_target"),
    # Errors with a success status. The bug: without application/json, the code was lost.
    *[
        _no(f"in a success, as {named}", 200, body, kind)
        for named, body, kind in (
            ("HTML", _GRANT, "text/html; charset=utf-8"),
            ("text", _GRANT, "text/plain"),
            ("a problem", _GRANT, "application/problem+json"),
            ("no type", _GRANT, ""),
            ("Latin-1", b'{"error": "invalid_grant", "x": "d\xe9j\xe0"}', f"{_JSON}; charset=latin-1"),
            ("a byte order mark", b"\xef\xbb\xbf" + _GRANT, _JSON),
            ("UTF-16", _GRANT.decode().encode("utf-16"), f"{_JSON}; charset=utf-16"),
        )
    ],
    _no("in a success, a form as text", 200, b"error=invalid_grant&x=y", "text/plain"),
    _no("in a success, beside a token", 200, b'{"error": "invalid_grant", "access_token": "t"}', "text/plain"),
    _no("of PKCE, in a success", 200, b'{"error": "invalid_grant", "error_description": "PKCE"}', "", words=_PKCE),
    _none("an unknown error as HTML", b'{"error": "S3cret-echoed"}', "text/html", "it is HTML, not JSON"),
    _none("a page with an error in it", b"<p>error=invalid_grant&x=y</p>", "text/html", "it is HTML, not JSON"),
    _none("two errors", b'{"error": "invalid_grant", "error": "x"}', _JSON, "it has a member twice"),
]
# Where DPoP is switched on, and everything is set that accepts another type (L3).
_BOUND: Final[dict[str, Any]] = {
    "dpop_bound_access_tokens": True,
    "accept_missing_token_type": True,
    "accepted_token_type": "mac",
}
OF_BOUND_TOKENS: Final = [
    Row("E7 DPoP, switched on", token_answer(token_type="DPoP"), configured=_BOUND),
    *[
        refused(
            f"E7 {named}, DPoP switched on",
            token_answer(token_type=sent),
            "token_type is not DPoP, although the request had a proof",
            **_BOUND,
        )
        for named, sent in (("Bearer", "Bearer"), ("missing", ...), ("null", None), ("mac", "mac"))
    ],
]
