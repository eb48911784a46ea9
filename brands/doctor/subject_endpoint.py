"""The doctor's steps at the userinfo and the introspection endpoint: one request about a made-up token."""

from collections.abc import Callable, Generator, Iterator
from functools import partial
from http import HTTPStatus
from typing import Final

from brands.doctor.examination import NO_PAGE, Examination, Unanswered
from brands.doctor.findings import Finding, found
from infrastructure.crypto import Secret, random_token
from oauth_client import AuthorizationServerError, transport
from oauth_client.answers import members_of_refusal
from oauth_client.subject import get_userinfo, introspect

_REFUSALS: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


def userinfo(examination: Examination) -> Iterator[Finding]:
    """Ask whose account a made-up token is for, if sign-ins ask there. A server that looks at tokens refuses it."""
    configuration = examination.configuration
    if configuration.uses_openid or configuration.introspection_endpoint or not configuration.userinfo_endpoint:
        return
    tried = f"GET {configuration.userinfo_endpoint} with a made-up token"
    ask = partial(get_userinfo, configuration, proof_key=examination.proof_key)
    response = yield from _asked(ask, examination, "userinfo_endpoint", tried)
    if response is not None:
        is_accepted = response.status_code == HTTPStatus.OK
        code = "subject_for_any_token" if is_accepted else _judge(response, "subject_endpoint_answers")
        yield _found(code, response, "userinfo_endpoint", tried)


def introspection(examination: Examination) -> Iterator[Finding]:
    """The same by introspection, which tells that our client may ask."""
    configuration = examination.configuration
    if configuration.uses_openid or not configuration.introspection_endpoint:
        return
    tried = f"POST to {configuration.introspection_endpoint} with a made-up token"
    ask = partial(introspect, configuration, credentials=examination.credentials)
    response = yield from _asked(ask, examination, "introspection_endpoint", tried)
    if response is not None:
        is_told = response.status_code == HTTPStatus.OK
        code = _judge_active(response) if is_told else _judge(response, "introspection_refused")
        yield _found(code, response, "introspection_endpoint", tried)


def _asked(
    ask: Callable[[Secret], transport.Response], examination: Examination, field: str, tried: str
) -> Generator[Finding, None, transport.Response | None]:
    """Ask about a made-up token. Yields a finding and returns None if the request cannot be sent.

    Raises `Unanswered` if no answer came.
    """
    try:
        response = ask(Secret(random_token()))
    except AuthorizationServerError as error:
        if error.unanswered:
            raise Unanswered(error.unanswered, field, tried) from None
        yield found("request_not_sent", field="token_endpoint_auth_method", detail=error.detail)
        return None
    examination.heard()
    return response


def _found(code: str, response: transport.Response, field: str, tried: str) -> Finding:
    return found(code, field=field, tried=tried, answer=f"HTTP status {response.status_code}")


def _judge_active(response: transport.Response) -> str:
    active = members_of_refusal(response.content).get("active")
    if active is False:
        return "subject_endpoint_answers"
    return "subject_for_any_token" if active is True else "subject_endpoint_not_proven"


def _judge(response: transport.Response, refusal: str) -> str:
    """Return the finding for another status than 200; `refusal` is the one for a refusal."""
    status = response.status_code
    if status in _REFUSALS:
        return refusal
    is_redirect = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
    return "subject_endpoint_not_found" if is_redirect or status in NO_PAGE else "subject_endpoint_not_proven"
