"""What the answer of an endpoint says, as far as it is the same for all of them: its members, or its refusal."""

import json
import re
from http import HTTPStatus
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl

import requests

from oauth_client.endpoints import Endpoint
from oauth_client.error_codes import ENDPOINT_CODES, ENDPOINT_DESCRIPTIONS
from oauth_client.errors import AuthorizationServerError, ErrorCode


class NotStrictJSON(ValueError):
    """The bytes are not one JSON object. The message is ours and quotes nothing of them."""


def read_json_object(body: bytes) -> dict[str, Any]:
    """Return the object that `body` holds: UTF-8 (RFC 8259 section 8.1), no byte order mark, no member twice.

    Raises `NotStrictJSON`.
    """
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


# No digits, no capitals: the shape of every registered code, and of no secret that a server might echo.
_ERROR_CODE: Final = re.compile(r"[a-z_]{3,40}")
# A server that finds fault with PKCE says so in its description alone (RFC 7636 section 4.6 has no code for it).
_PKCE_WORDS: Final = re.compile(r"pkce|code[ _]?(?:verifier|challenge)", re.IGNORECASE)
_MAX_DESCRIPTION: Final = 1000
_STATUS_ERRORS: Final = {
    401: ErrorCode.INVALID_CLIENT,
    429: ErrorCode.TEMPORARILY_UNAVAILABLE,
    503: ErrorCode.TEMPORARILY_UNAVAILABLE,
}


def read_parameters(endpoint: Endpoint, response: requests.Response, *, accept_form: bool = False) -> dict[str, Any]:
    """Return the members of a JSON object in UTF-8, or the parameters of a form where one is accepted.

    A form that names an error is always read. Raises `AuthorizationServerError`.
    """
    media_type, charset = _content_type(response)
    if media_type == "application/x-www-form-urlencoded":
        parameters = _read_form(endpoint, response.content)
        if accept_form or "error" in parameters:
            return parameters
        raise endpoint.invalid("it is form-encoded, which is not switched on for this server")
    if media_type != "application/json":
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
    """Return the error of an answer whose status says no (E1).

    Its code is read from JSON or a form whatever the content type, charset and byte order mark say: some servers send
    text/html or application/problem+json. There is no token to be taken by mistake, and a code counts only if the table
    of codes has it. A success is read strictly (E4).
    """
    return refusal(endpoint, response.status_code, *error_in(_members_of_refusal(response.content)))


def error_in(members: dict[str, Any]) -> tuple[object, object]:
    """Return error and description of an answer; None where it names no error.

    Where there is neither `error` nor a token, they are looked for where vendors write them: `ErrorCode` and `Error`,
    or the errorcode of a `fault` (Apigee); the first of `errors` (Strava, Fitbit). Such a code counts as any other
    does, only if the table has it.
    """
    if members.get("error") or "access_token" in members:
        return members.get("error"), members.get("error_description")
    if "ErrorCode" in members:
        return members["ErrorCode"], members.get("Error")
    return _code_of_fault(members.get("fault")) or _code_of_errors(members.get("errors")), None


def known_refusal_in(endpoint: Endpoint, response: requests.Response) -> AuthorizationServerError | None:
    """Return the error of an answer that says no with a status of success, read as `refusal_in` does (E2).

    Only a code of the table makes one: what else such an answer may be is for the strict reader to say.
    """
    members = _members_of_refusal(response.content)
    if _known(endpoint, members.get("error")) is None:
        return None
    return refusal(endpoint, response.status_code, members["error"], members.get("error_description"))


def refusal(endpoint: Endpoint, status: int, error: object, description: object = None) -> AuthorizationServerError:
    """Keep the short code of an error answer and what is known of its description, no more of its text (E1, E2).

    A code of the table counts in any case of letters. A 401 without any code is `invalid_client` (RFC 6749 section
    5.2); with a code that we do not know it is as any other refusal. "Bad Request" and its like, which frameworks write
    as the error, have not the shape of a code.
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
    """Return the end of Apigee's `steps.oauth.v2.invalid_client-invalid_client_id`: what is known of it."""
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


def _members_of_refusal(body: bytes) -> dict[str, Any]:
    try:
        # In whatever Unicode encoding it is, a byte order mark included; the strict reader wants UTF-8 without one.
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
    # An empty value is none (RFC 6749 section 3.1); but an empty scope says that nothing was granted, as GitHub does.
    return {name: value for name, value in pairs if value or name == "scope"}
