"""Parse endpoint responses: strict JSON or form parameters, and error responses."""

import json
import re
from http import HTTPStatus
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl

import requests

from oauth_client.endpoints import Endpoint
from oauth_client.errors import AuthorizationServerError, ErrorCode
from oauth_client.unregistered_codes import ENDPOINT_CODES, ENDPOINT_DESCRIPTIONS

# No digits, no capitals: all registered codes have this form, and hardly any secret that a server might echo.
_ERROR_CODE: Final = re.compile(r"[a-z_]{3,40}")
# RFC 7636 section 4.6 defines no error code of its own for PKCE. Servers name it only in the description.
_PKCE_WORDS: Final = re.compile(r"pkce|code[ _]?(?:verifier|challenge)", re.IGNORECASE)
_MAX_DESCRIPTION: Final = 1000
_JSON_SUFFIX: Final = re.compile(r"application/[a-z0-9.+-]+\+json")
_STATUS_ERRORS: Final = {
    401: ErrorCode.INVALID_CLIENT,
    429: ErrorCode.TEMPORARILY_UNAVAILABLE,
    503: ErrorCode.TEMPORARILY_UNAVAILABLE,
}


class NotStrictJSON(ValueError):
    """The bytes are not one JSON object. The message does not quote them."""


def read_json_object(body: bytes) -> dict[str, Any]:
    """Parse one JSON object: UTF-8 (RFC 8259), no byte order mark, no duplicate members. Raises `NotStrictJSON`."""
    text = _decode(body)
    try:
        value = json.loads(text, object_pairs_hook=_each_member_once, parse_constant=_refuse_constant)
    except NotStrictJSON:
        raise
    except (ValueError, RecursionError):
        raise NotStrictJSON("it is not JSON") from None
    if not isinstance(value, dict):
        raise NotStrictJSON("it is JSON, but not an object")
    return value


def _decode(body: bytes) -> str:
    if not body.strip():
        raise NotStrictJSON("it is empty")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise NotStrictJSON("it is not UTF-8") from None
    if text.startswith("\ufeff"):
        raise NotStrictJSON("it begins with a byte order mark")
    return text


def _each_member_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(members)
    if len(value) != len(members):
        raise NotStrictJSON("it has a member twice")
    return value


def _refuse_constant(_name: str) -> NoReturn:
    raise NotStrictJSON("it is not JSON")


def read_parameters(endpoint: Endpoint, response: requests.Response, *, accept_form: bool = False) -> dict[str, Any]:
    """Parse a success: JSON, or a form if `accept_form` is set or it has `error`. Raises `AuthorizationServerError`."""
    media_type, _ = _content_type(response)
    if media_type == "application/x-www-form-urlencoded":
        parameters = _read_form(endpoint, response.content)
        if accept_form or "error" in parameters:
            return parameters
        raise endpoint.invalid("it is form-encoded, which is not switched on for this server")
    return read_json(endpoint, response)


def read_json(endpoint: Endpoint, response: requests.Response, *, accept_suffix: bool = False) -> dict[str, Any]:
    """Parse a JSON object strictly. Raises `AuthorizationServerError`.

    `accept_suffix` also takes the types that end with +json (RFC 6839), as general APIs have them.
    """
    media_type, charset = _content_type(response)
    is_json = media_type == "application/json" or (accept_suffix and _JSON_SUFFIX.fullmatch(media_type) is not None)
    if not is_json:
        raise endpoint.invalid(
            "it is HTML, not JSON" if media_type == "text/html" else "its content type is not application/json"
        )
    if charset not in {"", "utf-8", "utf8"}:
        raise endpoint.invalid("its charset is not UTF-8")
    try:
        return read_json_object(response.content)
    except NotStrictJSON as error:
        raise endpoint.invalid(str(error)) from None


def refusal_in(endpoint: Endpoint, response: requests.Response) -> AuthorizationServerError:
    """Read the error from a response with an error status (E1).

    Content type, charset and byte order mark are ignored, because servers also send text/html or
    application/problem+json. That is safe: no token is read here, and only codes of our table count. A success is
    parsed strictly (E4).
    """
    return refusal(endpoint, response.status_code, *error_in(members_of_refusal(response.content)))


def error_in(members: dict[str, Any]) -> tuple[object, object]:
    """Return `error` and its description; None for what is missing.

    If there is neither `error` nor a token, vendors' own fields are read: `ErrorCode` and `Error`, Apigee's `fault`,
    and the first of `errors` (Strava, Fitbit). These codes also count only if our table has them.
    """
    if members.get("error") or "access_token" in members:
        return members.get("error"), members.get("error_description")
    if "ErrorCode" in members:
        return members["ErrorCode"], members.get("Error")
    return _code_of_fault(members.get("fault")) or _code_of_errors(members.get("errors")), None


def known_refusal_in(endpoint: Endpoint, response: requests.Response) -> AuthorizationServerError | None:
    """Read a known error from a response with a success status (E2); None for any other response."""
    members = members_of_refusal(response.content)
    if _known(endpoint, members.get("error")) is None:
        return None
    return refusal(endpoint, response.status_code, members["error"], members.get("error_description"))


def refusal(endpoint: Endpoint, status: int, error: object, description: object = None) -> AuthorizationServerError:
    """Build the error from a response's code and description; other server text is dropped (E1, E2).

    Known codes match in any case of letters. A 401 without a code means `invalid_client` (RFC 6749 section 5.2); a 401
    with an unknown code is a plain refusal. Frameworks write texts such as "Bad Request" as the error. They do not have
    the form of a code and are ignored.
    """
    code = error if isinstance(error, str) and _ERROR_CODE.fullmatch(error) else ""
    known = _known(endpoint, error)
    shown = known if known and not code else code
    detail = f"HTTP status {status}" + (f", error {shown}" if shown else "")
    said = description[:_MAX_DESCRIPTION] if isinstance(description, str) else ""
    meant = next((meant for of, part, meant in ENDPOINT_DESCRIPTIONS if of == known and part in said.lower()), None)
    if meant:
        known, detail = meant, f"{detail}; its description means {meant}"
    elif _PKCE_WORDS.search(said):
        detail += "; the server names PKCE's code_verifier or code_challenge as the cause"
    if known:
        return AuthorizationServerError(known, detail)
    if code and status == HTTPStatus.UNAUTHORIZED:
        return AuthorizationServerError(endpoint.refused, detail)
    return AuthorizationServerError(_error_for_status(endpoint, status), detail)


def _known(endpoint: Endpoint, error: object) -> ErrorCode | None:
    folded = error.lower() if isinstance(error, str) else ""
    if folded in endpoint.registered:
        return ErrorCode(folded)
    return ENDPOINT_CODES.get(folded)


def _code_of_fault(fault: object) -> str:
    """Read `invalid_client` from Apigee's `steps.oauth.v2.invalid_client-invalid_client_id`; whole if it is known."""
    detail = fault.get("detail") if isinstance(fault, dict) else None
    errorcode = detail.get("errorcode") if isinstance(detail, dict) else None
    end = errorcode.rpartition(".")[2] if isinstance(errorcode, str) else ""
    return end if end.lower() in ENDPOINT_CODES else end.partition("-")[0]


def _code_of_errors(errors: object) -> str:
    first = errors[0] if isinstance(errors, list) and errors else None
    if not isinstance(first, dict):
        return ""
    kind, resource, field = (first.get(name) for name in ("errorType", "resource", "field"))
    return kind if isinstance(kind, str) else f"{resource}.{field}"


def members_of_refusal(body: bytes) -> dict[str, Any]:
    """Read JSON or a form, whatever the content type says; nothing if it is neither. Only for errors (E1)."""
    try:
        # Accept any Unicode encoding here, with or without a byte order mark. The strict parser wants plain UTF-8.
        return read_json_object(body.decode(json.detect_encoding(body), "replace").encode(errors="replace"))
    except NotStrictJSON:
        return _form_of_refusal(body)


def _form_of_refusal(body: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(body.decode(errors="replace").strip(), strict_parsing=True, max_num_fields=100)
    except ValueError:
        return {}
    return dict(pairs) if len(dict(pairs)) == len(pairs) else {}


def _error_for_status(endpoint: Endpoint, status: int) -> ErrorCode:
    if status in _STATUS_ERRORS:
        return _STATUS_ERRORS[status]
    if status == HTTPStatus.OK or HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return endpoint.refused
    return ErrorCode.SERVER_ERROR if status >= HTTPStatus.INTERNAL_SERVER_ERROR else endpoint.invalid_response


def _content_type(response: requests.Response) -> tuple[str, str]:
    media_type, *parameters = [part.strip().lower() for part in response.headers.get("Content-Type", "").split(";")]
    charsets = [part.partition("=")[2].strip('" ') for part in parameters if part.startswith("charset=")]
    return media_type, " ".join(charsets)


def _read_form(endpoint: Endpoint, body: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=100
        )
    except ValueError:
        raise endpoint.invalid("it is not form-encoded") from None
    if len(dict(pairs)) != len(pairs):
        raise endpoint.invalid("it has a parameter twice")
    # Empty means omitted (RFC 6749 section 3.1), except for scope: GitHub sends an empty one if nothing was granted.
    return {name: value for name, value in pairs if value or name == "scope"}
